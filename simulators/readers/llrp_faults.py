"""What goes wrong with LLRP readers, by name, and clocks that are wrong: to try any client on."""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from llrpkit.protocol import enums, params

from simulators.readers.llrp import LlrpReader

SILENT_S = 45.0
OFF_S = 3.0
"""How long a reader that loses power is away."""
JUMP_S = 3600.0
GPI_PORT = 1
_Y2000_US = 946_684_800_000_000
_VERSION = 1 << 10
_RO_ACCESS_REPORT = 61


@dataclass
class WrongClock:
    """A reader's clock over a true one: `offset_s` ahead, drifting, begun at 2000-01-01, or uptime alone."""

    true_us: Callable[[], int]
    offset_s: float = 0.0
    drift_ppm: float = 0.0
    from_2000: bool = False
    uptime: bool = False

    def __post_init__(self) -> None:
        self._began_us = self.true_us()

    def __call__(self) -> int:
        """Microseconds, as the reader stamps them."""
        since_us = round((self.true_us() - self._began_us) * (1 + self.drift_ppm / 1e6))
        begin_us = 0 if self.uptime else _Y2000_US if self.from_2000 else self._began_us
        return max(0, begin_us + since_us + round(self.offset_s * 1e6))


class Faults:
    """Does faults to a reader, by the names in NAMES."""

    def __init__(self, reader: LlrpReader, clock: WrongClock) -> None:
        self._reader, self._clock = reader, clock

    async def play(self, names: list[str], every_s: float) -> None:
        """One after the other, for ever."""
        for name in itertools.cycle(names):
            await asyncio.sleep(every_s)
            await NAMES[name](self)

    async def doors(self, every_s: float) -> None:
        """A contact at input GPI_PORT that closes and opens, for ever."""
        for high in itertools.cycle((True, False)):
            await asyncio.sleep(every_s)
            self._reader.gpi(GPI_PORT, high)

    async def cut(self) -> None:
        """The connection breaks; the reader goes on."""
        self._reader.cut()

    async def silent(self) -> None:
        """Nothing is said or heard for a while, on a connection that stays."""
        self._reader.silent = True
        try:
            await asyncio.sleep(SILENT_S)
        finally:
            self._reader.silent = False

    async def half_message(self) -> None:
        """The connection breaks within a message."""
        self._reader.say(_report(_tag())[:17])
        await asyncio.sleep(0.1)
        self._reader.cut()

    async def bogus_length(self) -> None:
        """A message that says it is 4 GiB long."""
        self._reader.say(struct.pack(">HII", _VERSION | _RO_ACCESS_REPORT, 0xFFFFFFFF, 1))

    async def odd_reports(self) -> None:
        """Sound reports among others that can't be read, and such as are merely rare."""
        self._reader.say(
            _report(_tag(seen=5374))
            + _report(
                _tag(bits=496) + _tag(bytes(5)) + _tag(b"\xff\x00") + _tag(_tlv(1023, bytes(8) + b"its make's own"))
            )
            + _report(_tag() + struct.pack(">HH", 240, 0))
            + _report(_tag() + struct.pack(">HH", 240, 200))
            + _report(b"")
        )

    async def reboot(self) -> None:
        """Power is lost, and comes back."""
        await self._reader.stop()
        await asyncio.sleep(OFF_S)
        await self._reader.start()

    async def clock_jump(self) -> None:
        """The clock is set an hour ahead; the next time back."""
        self._clock.offset_s += JUMP_S if self._clock.offset_s < JUMP_S else -JUMP_S

    async def inventory_ends(self) -> None:
        """The reader stops its inventory and says so; keepalives go on."""
        self._reader.end_inventory()

    async def inventory_lost(self) -> None:
        """The reader forgets its inventory without a word; keepalives go on."""
        self._reader.lose_inventory()

    async def events(self) -> None:
        """An antenna is unplugged and plugged in, the reader has trouble, and has lost reads."""
        for kind in (enums.AntennaEventType.Antenna_Disconnected, enums.AntennaEventType.Antenna_Connected):
            self._reader.notify(antenna_event=params.AntennaEvent(event_type=kind, antenna_id=1))
        self._reader.notify(reader_exception_event=params.ReaderExceptionEvent(message="it is too hot"))
        self._reader.notify(report_buffer_overflow_error_event=params.ReportBufferOverflowErrorEvent())


NAMES: dict[str, Callable[[Faults], Awaitable[None]]] = {
    "cut": Faults.cut,
    "silent": Faults.silent,
    "half-message": Faults.half_message,
    "bogus-length": Faults.bogus_length,
    "odd-reports": Faults.odd_reports,
    "reboot": Faults.reboot,
    "clock-jump": Faults.clock_jump,
    "inventory-ends": Faults.inventory_ends,
    "inventory-lost": Faults.inventory_lost,
    "events": Faults.events,
}


def _tlv(kind: int, body: bytes) -> bytes:
    return struct.pack(">HH", kind, 4 + len(body)) + body


def _tag(more: bytes = b"", *, bits: int = 96, seen: int = 1) -> bytes:
    """TagReportData of a tag at antenna 1, with `more` behind its parameters."""
    epc = _tlv(241, struct.pack(">H", bits) + bytes(range(0x20, 0x20 + bits // 8)))
    return _tlv(240, epc + struct.pack(">BH", 0x81, 1) + struct.pack(">BH", 0x88, seen) + more)


def _report(body: bytes) -> bytes:
    return struct.pack(">HII", _VERSION | _RO_ACCESS_REPORT, 10 + len(body), 1) + body
