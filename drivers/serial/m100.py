"""Session with an M100/YRM100/R200 module: thousands of polls in one command, repeated when they are used up."""

from __future__ import annotations

from contextlib import suppress

from drivers.serial import m100_codec as codec
from drivers.serial.m100_codec import Frame
from drivers.serial.session import ANSWER_S, ReaderError, SerialSession
from drivers.serial.tags import Content
from drivers.serial.transport import Line

START = codec.encode(codec.COMMAND, codec.POLL_MANY, bytes.fromhex("22 2710"))
"""10,000 polls: a minute or two. Each poll without a tag is reported, so a silent reader has used them up."""
STOP = codec.encode(codec.COMMAND, codec.STOP)
VERSION = codec.encode(codec.COMMAND, codec.GET_VERSION, b"\x01")


class M100Session(SerialSession[Frame]):
    """Session with one module, until `run` is cancelled. Reads carry no time, and the antenna only with firmware for
    several antennas.
    """

    NAME = "M100"
    BAUDS = (115200, 9600, 19200, 38400, 57600)
    PORT_MAX = 64
    SILENCE_S = 1.5
    _nowhere = False
    """True once reads without an antenna were seen."""

    def _frame_at(self, buffer: bytes, at: int) -> tuple[Frame, int] | str | None:
        return codec.frame_at(buffer, at)

    def _content(self, frame: Frame) -> Content:
        content = codec.read(frame)
        if len(self._settings.ports) != 1 and any(tag.antenna is None for tag in content.tags):
            self._nowhere = True
            return Content(failure="it does not say which antenna a tag was at")
        return content

    async def _hush(self, line: Line, patience_s: float) -> None:
        with suppress(ReaderError):
            await self._ask(line, STOP, lambda f: (f.kind, f.command) == (codec.ANSWER, codec.STOP), patience_s)

    async def _identify(self, line: Line, patience_s: float) -> dict[str, str]:
        answer = await self._ask(
            line, VERSION, lambda f: (f.kind, f.command) == (codec.ANSWER, codec.GET_VERSION), patience_s
        )
        return {"firmware": answer.data[1:].decode("ascii", "replace").strip("\0 ")}

    async def _set_up(self, line: Line) -> None:
        if self._nowhere and len(self._settings.ports) != 1:
            raise ReaderError("it has one antenna: give it one port in the store file")

    async def _start(self, line: Line) -> None:
        await line.write(START)

    async def _silence(self, line: Line, again: bool) -> None:
        if again:
            await self._identify(line, ANSWER_S)  # some say nothing while they find nothing
        await self._hush(line, ANSWER_S)
        await self._go_on(line)
