"""Session with a TSL reader (ASCII 2): it is asked for one round after the other."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from drivers.serial import tsl_codec as codec
from drivers.serial.framing import Extensible
from drivers.serial.session import ANSWER_S, ReaderError, SerialSession
from drivers.serial.tags import Content
from drivers.serial.transport import Line
from drivers.serial.tsl_codec import Frame

ROUND = codec.encode(".iv")
SETUP = ".iv -n -al off -ie on -e off -c off -dt off -ix off -r on"
"""Nothing is done (-n) but to keep: no beeps, and with each tag only its EPC and RSSI."""
DETAILS = {"MF": "maker", "US": "serial", "PV": "protocol", "UF": "firmware"}


class TslSession(SerialSession[Frame]):
    """Session with one reader, until `run` is cancelled. It has one antenna."""

    NAME = "TSL"
    BAUDS = (115200, 57600, 9600)
    PORT_MAX = 64

    def _frame_at(self, buffer: bytes, at: int) -> tuple[Frame, int] | Extensible[Frame] | str | None:
        return codec.frame_at(buffer, at)

    def _content(self, frame: Frame) -> Content:
        return codec.read(frame)

    async def _hush(self, line: Line, patience_s: float) -> None:
        with suppress(ReaderError):
            await self._command(line, ".ab", patience_s)

    async def _identify(self, line: Line, patience_s: float) -> dict[str, str]:
        told = await self._command(line, ".vr", patience_s)
        return {DETAILS[frame.name]: frame.value for frame in told if frame.name in DETAILS and frame.value}

    async def _set_up(self, line: Line) -> None:
        if len(self._settings.ports) != 1:
            raise ReaderError("it has one antenna: give it one port in the store file")
        *_, last = await self._command(line, SETUP, ANSWER_S)
        if last.name != codec.OK:
            raise ReaderError(f"it refuses its settings: {codec.read(last).failure or last.value}")

    async def _start(self, line: Line) -> None:
        await line.write(ROUND)

    async def _command(self, line: Line, command: str, patience_s: float) -> list[Frame]:
        """Send a command and return its whole answer from its echo on; ReaderError without one."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 2 * patience_s
        answer: list[Frame] = []
        await line.write(codec.encode(command))
        while frames := await self._frames(line, min(patience_s, deadline - loop.time())):
            for frame in frames:
                if answer or (frame.name == codec.ECHO and frame.value.startswith(command.split()[0])):
                    answer.append(frame)
                if answer and frame.name in (codec.OK, codec.ERROR):
                    return answer
        raise ReaderError(f"it did not answer command {command} within {patience_s:g} s")
