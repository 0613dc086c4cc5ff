"""Session with an R2000-style reader (head A0): it searches for the given time and must be asked again."""

from __future__ import annotations

from drivers.serial import r2000_codec as codec
from drivers.serial.r2000_codec import Frame
from drivers.serial.session import ANSWER_S, ReaderError, SerialSession
from drivers.serial.tags import Content
from drivers.serial.transport import Line
from drivers.session import Clock, ReaderSettings, Sink

TURNS = 8
"""Antenna cycles per round: few enough for a sign of life each second, enough to keep the overhead small."""


class R2000Session(SerialSession[Frame]):
    """Session with one reader, until `run` is cancelled. A single port is read with real-time inventory, which every
    such reader has, several by fast switching. There is no stop command: a round ends by itself.
    """

    NAME = "R2000-style"
    BAUDS = (115200, 38400)
    PORT_MAX = 8
    SETS_PORTS = True

    def __init__(self, settings: ReaderSettings, sink: Sink, clock: Clock) -> None:
        self._address: int | None = None
        super().__init__(settings, sink, clock)

    def _frame_at(self, buffer: bytes, at: int) -> tuple[Frame, int] | str | None:
        return codec.frame_at(buffer, at, self._address)

    def _content(self, frame: Frame) -> Content:
        return codec.read(frame)

    async def _identify(self, line: Line, patience_s: float) -> dict[str, str]:
        self._address = None
        ask = codec.encode(codec.EVERYONE, codec.GET_VERSION)
        answer = await self._ask(
            line, ask, lambda f: f.command == codec.GET_VERSION and f.address != codec.EVERYONE, patience_s
        )
        self._address = answer.address
        return {"firmware": ".".join(map(str, answer.data)), "address": f"{answer.address:02X}"}

    async def _set_up(self, line: Line) -> None:
        ports = sorted(self._settings.ports)
        if len(ports) == 1:
            choose = codec.encode(self._unit, codec.SET_ANTENNA, bytes((ports[0] - 1,)))
            answer = await self._ask(line, choose, lambda f: f.command == codec.SET_ANTENNA, ANSWER_S)
            if answer.data != bytes((codec.SUCCESS,)):
                raise ReaderError(f"it refuses port {ports[0]}: {codec.why(int.from_bytes(answer.data[:1]))}")

    async def _start(self, line: Line) -> None:
        ports = sorted(self._settings.ports)
        if len(ports) == 1:
            await line.write(codec.encode(self._unit, codec.INVENTORY, bytes((TURNS,))))
        else:
            await line.write(codec.inventory_fast(self._unit, ports, max(1, TURNS // len(ports))))

    @property
    def _unit(self) -> int:
        return codec.EVERYONE if self._address is None else self._address
