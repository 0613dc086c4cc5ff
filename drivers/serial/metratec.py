"""Session with a metraTec UHF reader (ASCII), on a serial line or at tcp://reader:10001."""

from __future__ import annotations

from contextlib import suppress

from drivers.serial import metratec_codec as codec
from drivers.serial.metratec_codec import Frame
from drivers.serial.session import ANSWER_S, ReaderError, SerialSession
from drivers.serial.tags import Content
from drivers.serial.transport import Line

NO_CHECKSUMS = codec.encode("COF 4F5E")
"""Turns off the checksums of lines, with its own."""


class MetratecSession(SerialSession[Frame]):
    """Session with one reader, until `run` is cancelled. It searches until it is stopped, and tells the end of each
    round."""

    NAME = "metraTec"
    BAUDS = (115200,)
    PORT_MAX = 16

    def _frame_at(self, buffer: bytes, at: int) -> tuple[Frame, int] | str | None:
        return codec.frame_at(buffer, at)

    def _content(self, frame: Frame) -> Content:
        return codec.read(frame)

    def _has_restarted(self, frame: Frame) -> bool:
        return frame.text.startswith(codec.RESTARTED)

    async def _hush(self, line: Line, patience_s: float) -> None:
        with suppress(ReaderError):
            if await self._command(line, "BRK", patience_s, codec.STOPPED, codec.IDLE, codec.CHECKED) == codec.CHECKED:
                await line.write(NO_CHECKSUMS)
                await self._command(line, "BRK", patience_s, codec.STOPPED, codec.IDLE)

    async def _identify(self, line: Line, patience_s: float) -> dict[str, str]:
        asked = codec.encode("REV")
        told = (await self._ask(line, asked, lambda f: _revision(f) is not None, patience_s)).text
        return {"model": told[:-8].strip(), "hardware": told[-8:-4], "firmware": told[-4:]}

    async def _set_up(self, line: Line) -> None:
        ports = sorted(self._settings.ports)
        for command in ("VBL 1", "SET EPC OFF", "SET TRS ON"):
            await self._set(line, command)
        told = await self._command(line, "SAP ARP ON", ANSWER_S, codec.OK, codec.UNSUPPORTED, codec.UNKNOWN)
        if told == codec.OK:
            # Antennas that the store file leaves out are searched too: it can only be told how many there are.
            await self._set(line, f"SAP MAN {ports[0] - 1}" if len(ports) == 1 else f"SAP AUT {ports[-1]} 0")
        elif len(ports) > 1:
            raise ReaderError("it has one antenna: give it one port in the store file")

    async def _start(self, line: Line) -> None:
        await line.write(codec.encode("CNR INV"))

    async def _set(self, line: Line, command: str) -> None:
        if (told := await self._command(line, command, ANSWER_S)) != codec.OK:
            raise ReaderError(f"it refuses {command} ({told})")

    async def _command(self, line: Line, command: str, patience_s: float, *answers: str) -> str:
        """Send a command and return the first three letters of its answer: one of `answers`, if given."""

        def answered(frame: Frame) -> bool:
            code = frame.text[:3]
            return code in answers if answers else bool(frame.text) and code not in (codec.STOPPED, codec.IDLE, "HBT")

        return (await self._ask(line, codec.encode(command), answered, patience_s)).text[:3]


def _revision(frame: Frame) -> str | None:
    """Return name and versions of hardware and firmware, four digits each."""
    text = frame.text
    return text if len(text) > 8 and text[-8:].isdecimal() and text[:1].isalpha() else None
