"""Session with an R2000-style reader (head A0): it searches for the given time and must be asked again."""

from __future__ import annotations

from drivers.serial import r2000_codec as codec
from drivers.serial.r2000_codec import Frame
from drivers.serial.session import ANSWER_S, ReaderError, SerialSession
from drivers.serial.tags import Content
from drivers.serial.transport import Line
from drivers.session import Clock, ReaderSettings, Sink

SECOND_BANK = (0x10, 0x01)
"""Names of the second bank: the first is what a maker's program sends to its board, the other is in makers' samples."""
TURNS = 8
"""Antenna cycles per round: few enough for a sign of life each second, enough to keep the overhead small."""


class R2000Session(SerialSession[Frame]):
    """Session with one reader, until `run` is cancelled. A single port is read with real-time inventory, which every
    such reader has, several by fast switching, in turns if they lie in both banks of a board with 16 ports. There is no
    stop command: a round ends by itself.
    """

    NAME = "R2000-style"
    BAUDS = (115200, 38400)
    PORT_MAX = 2 * codec.BANK_PORTS
    SETS_PORTS = True

    def __init__(self, settings: ReaderSettings, sink: Sink, clock: Clock) -> None:
        self._address: int | None = None
        banks: dict[int, list[int]] = {}
        for port in sorted(settings.ports):
            bank, within = divmod(port - 1, codec.BANK_PORTS)
            banks.setdefault(bank, []).append(within + 1)
        self._banks = banks
        self._has_banks = max(banks, default=0) > 0
        self._bank = max(banks, default=0)
        self._second_bank: int | None = None
        super().__init__(settings, sink, clock)

    def _frame_at(self, buffer: bytes, at: int) -> tuple[Frame, int] | str | None:
        return codec.frame_at(buffer, at, self._address)

    def _content(self, frame: Frame) -> Content:
        return codec.in_bank(codec.read(frame), self._bank)

    async def _hush(self, line: Line, patience_s: float) -> None:
        if self._has_banks and self._bank:  # other programs expect the first
            await line.write(codec.encode(self._unit, codec.SET_BANK, b"\0"))

    async def _identify(self, line: Line, patience_s: float) -> dict[str, str]:
        self._address = None
        ask = codec.encode(codec.EVERYONE, codec.GET_VERSION)
        answer = await self._ask(
            line, ask, lambda f: f.command == codec.GET_VERSION and f.address != codec.EVERYONE, patience_s
        )
        self._address = answer.address
        return {"firmware": ".".join(map(str, answer.data)), "address": f"{answer.address:02X}"}

    async def _set_up(self, line: Line) -> None:
        await self._choose(line, self._bank)
        ports = sorted(self._settings.ports)
        if len(ports) == 1:
            answer = await self._set(line, codec.SET_ANTENNA, (ports[0] - 1) % codec.BANK_PORTS)
            if answer != codec.SUCCESS:
                raise ReaderError(f"it refuses port {ports[0]}: {codec.why(answer)}")

    async def _start(self, line: Line) -> None:
        banks = list(self._banks)
        # Before every round: a board that has lost its power is back in the first bank, and says nothing of it.
        await self._choose(line, banks[(banks.index(self._bank) + 1) % len(banks)])
        ports = self._banks[self._bank]
        if len(self._settings.ports) == 1:
            await line.write(codec.encode(self._unit, codec.INVENTORY, bytes((TURNS,))))
        else:
            await line.write(codec.inventory_fast(self._unit, ports, max(1, TURNS // len(ports)), self._has_banks))

    async def _choose(self, line: Line, bank: int) -> None:
        """Choose a bank; ReaderError if the reader has none."""
        if not self._has_banks:
            return
        known = SECOND_BANK if self._second_bank is None else (self._second_bank,)
        answer = codec.SUCCESS
        for name in known if bank else (0,):
            answer = await self._set(line, codec.SET_BANK, name)
            if answer == codec.SUCCESS:
                self._bank = bank
                self._second_bank = name or self._second_bank
                return
        raise ReaderError(f"it refuses ports above {codec.BANK_PORTS}: {codec.why(answer)}")

    async def _set(self, line: Line, command: int, value: int) -> int:
        asked = codec.encode(self._unit, command, bytes((value,)))
        answer = await self._ask(line, asked, lambda f: f.command == command and len(f.data) == 1, ANSWER_S)
        return answer.data[0]

    @property
    def _unit(self) -> int:
        return codec.EVERYONE if self._address is None else self._address
