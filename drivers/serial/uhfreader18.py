"""Session with a UHFReader18 or UHFReader288M: one round after another, with several antennas each on the next one."""

from __future__ import annotations

from itertools import cycle

from drivers.serial import uhfreader18_codec as codec
from drivers.serial.session import ReaderError, SerialSession
from drivers.serial.tags import Content
from drivers.serial.transport import Line
from drivers.serial.uhfreader18_codec import Frame
from drivers.session import Clock, ReaderSettings, Sink

READER = codec.encode(codec.EVERYONE, codec.READER)


class UhfReader18Session(SerialSession[Frame]):
    """Session with one reader, until `run` is cancelled. A reader in active mode that doesn't answer is listened to:
    whether it is dead or sees no tag can't be told.
    """

    NAME = "UHFReader18"
    BAUDS = (57600, 115200, 38400, 19200, 9600)
    PORT_MAX = 16

    def __init__(self, settings: ReaderSettings, sink: Sink, clock: Clock) -> None:
        super().__init__(settings, sink, clock)
        self._address = 0
        self._plain = True
        """True if the reader has one antenna and takes the short inventory command."""
        self._active = False
        self._turns = cycle(sorted(settings.ports))
        self._port = 0

    def _frame_at(self, buffer: bytes, at: int) -> tuple[Frame, int] | str | None:
        return codec.frame_at(buffer, at)

    def _content(self, frame: Frame) -> Content:
        content = codec.read(frame)
        if content.failure and not self._plain:
            if frame.data[0] in codec.NOT_UNDERSTOOD and len(self._settings.ports) == 1:
                self._plain = True
                return Content(ends=True, note="the command with an antenna is refused")
            if frame.data[0] == codec.NO_ANTENNA and len(self._settings.ports) > 1:
                # One port lacks its antenna; when all do, no tag will ever bring one back.
                self._unconnected.add(self._port)
                if self._unconnected < set(self._settings.ports):
                    return content._replace(failure="", unconnected=self._port)
        return content

    async def _identify(self, line: Line, patience_s: float) -> dict[str, str]:
        pushed: list[Frame] = []

        def answers(frame: Frame) -> bool:
            if frame.command == codec.ACTIVE:
                pushed.append(frame)
            return frame.command == codec.READER and frame.data[:1] == bytes((codec.OK,))

        try:
            answer = await self._ask(line, READER, answers, patience_s)
        except ReaderError:
            if not pushed:
                raise
            self._active, self._plain = True, True
            return {"mode": "active", "address": f"{pushed[0].address:02X}"}
        told = answer.data[1:]
        self._active = False
        self._plain = len(told) < codec.READER_BYTES_288
        self._address = answer.address
        return {
            "model": f"{'UHFReader18' if self._plain else 'UHFReader288'} type {told[2:3].hex().upper()}",
            "firmware": ".".join(map(str, told[:2])),
            "address": f"{answer.address:02X}",
        }

    async def _set_up(self, line: Line) -> None:
        if self._plain and not self._active and len(self._settings.ports) != 1:
            raise ReaderError("it has one antenna: give it one port in the store file")
        self._turns = cycle(sorted(self._settings.ports))

    async def _start(self, line: Line) -> None:
        if not self._active:
            self._port = next(self._turns)
            await line.write(codec.inventory(self._address, None if self._plain else self._port))

    async def _silence(self, line: Line, again: bool) -> None:
        if not self._active:
            await super()._silence(line, again)
