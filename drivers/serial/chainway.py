"""Session with a Chainway UR4 or a module of that maker, on a serial line or at tcp://reader:8888."""

from __future__ import annotations

from contextlib import suppress

from drivers.serial import chainway_codec as codec
from drivers.serial.chainway_codec import Frame
from drivers.serial.session import ANSWER_S, ReaderError
from drivers.serial.streaming import StreamingSession
from drivers.serial.tags import Content
from drivers.serial.transport import Line

START = codec.encode(codec.START, bytes(2))
STOP = codec.encode(codec.STOP)


class ChainwaySession(StreamingSession[Frame]):
    """Session with one reader, until `run` is cancelled. While it reads, it answers nothing but the stop command."""

    NAME = "Chainway"
    BAUDS = (115200, 57600, 38400, 230400)
    PORT_MAX = 16
    ALIVE = b"\0"
    """What the maker's library sends meanwhile; it begins no frame."""

    def _frame_at(self, buffer: bytes, at: int) -> tuple[Frame, int] | str | None:
        return codec.frame_at(buffer, at)

    def _content(self, frame: Frame) -> Content:
        return codec.read(frame)

    async def _stop(self, line: Line, patience_s: float) -> None:
        await self._ask(line, STOP, lambda f: f.command == codec.STOP + 1, patience_s)

    async def _identify(self, line: Line, patience_s: float) -> dict[str, str]:
        version = await self._question(line, codec.encode(codec.GET_VERSION), codec.GET_VERSION, patience_s)
        told = {"firmware": _version(version)}
        with suppress(ReaderError):  # a module alone has no mainboard
            board = await self._question(line, codec.encode(codec.GET_MAINBOARD), codec.GET_MAINBOARD, patience_s)
            told["mainboard"] = _version(board)
        return told

    async def _set_up(self, line: Line) -> None:
        ports = sorted(self._settings.ports)
        answer = await self._question(line, codec.antennas(ports), codec.SET_ANTENNAS, ANSWER_S)
        if answer.data[:1] != codec.OK:
            raise ReaderError(f"it refuses ports {', '.join(map(str, ports))} (answer {answer.data.hex() or 'empty'})")
        # With TID and user memory each read takes longer. A module that doesn't know the setting has no such mode.
        await self._question(line, codec.encode(codec.SET_MODE, codec.EPC_ONLY), codec.SET_MODE, ANSWER_S)

    async def _start(self, line: Line) -> None:
        await line.write(START)

    async def _question(self, line: Line, question: bytes, command: int, patience_s: float) -> Frame:
        return await self._ask(line, question, lambda f: f.command == command + 1, patience_s)


def _version(answer: Frame) -> str:
    return ".".join(map(str, answer.data))
