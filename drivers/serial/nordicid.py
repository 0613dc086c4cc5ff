"""Session with a Nordic ID reader (NUR): it is asked for rounds, and after each for what it has stored."""

from __future__ import annotations

from contextlib import suppress

from drivers.serial import nordicid_codec as codec
from drivers.serial.nordicid_codec import Frame
from drivers.serial.session import ANSWER_S, ReaderError, SerialSession
from drivers.serial.tags import Content
from drivers.serial.transport import Line

OLD_PORTS = 8
"""Ports in the setup of old readers."""


class NordicIdSession(SerialSession[Frame]):
    """Session with one reader, until `run` is cancelled. The maker's small library does it the same way."""

    NAME = "Nordic ID (NUR)"
    BAUDS = (115200, 230400, 500000, 38400)
    PORT_MAX = 32
    SETS_PORTS = True

    def _frame_at(self, buffer: bytes, at: int) -> tuple[Frame, int] | str | None:
        return codec.frame_at(buffer, at)

    def _content(self, frame: Frame) -> Content:
        return codec.read(frame)

    def _has_restarted(self, frame: Frame) -> bool:
        return bool(frame.flags & codec.UNASKED) and frame.command == codec.BOOT

    def _reply(self, frame: Frame) -> bytes:
        return codec.reply(frame) if codec.stored(frame) is None else codec.fetch()

    async def _hush(self, line: Line, patience_s: float) -> None:
        with suppress(ReaderError):
            await self._question(line, codec.encode(Frame(codec.STOP, b"\0")), codec.STOP, patience_s)

    async def _identify(self, line: Line, patience_s: float) -> dict[str, str]:
        asked = codec.encode(Frame(codec.READER_INFO, b""))
        return codec.reader_info((await self._question(line, asked, codec.READER_INFO, patience_s)).data[1:])

    async def _set_up(self, line: Line) -> None:
        ports = sorted(self._settings.ports)
        status = await self._setup(line, codec.antennas(ports, wide=True))
        if status != codec.OK and ports[-1] <= OLD_PORTS:
            status = await self._setup(line, codec.antennas(ports, wide=False))
        if status != codec.OK:
            raise ReaderError(f"it refuses ports {', '.join(map(str, ports))} (status {status:02X})")
        await self._question(line, codec.fetch(), codec.FETCH, ANSWER_S)  # what earlier hosts have left

    async def _start(self, line: Line) -> None:
        await line.write(codec.encode(Frame(codec.INVENTORY, b"")))

    async def _setup(self, line: Line, command: bytes) -> int:
        return (await self._question(line, command, codec.SETUP, ANSWER_S)).data[0]

    async def _question(self, line: Line, question: bytes, command: int, patience_s: float) -> Frame:
        return await self._ask(
            line, question, lambda f: f.command == command and not f.flags & codec.UNASKED and bool(f.data), patience_s
        )
