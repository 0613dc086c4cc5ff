"""Faults of LLRP readers by name, and wrong clocks, for testing any client."""

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
"""Time that a reader is away after a loss of power."""
JUMP_S = 3600.0
GPI_PORT = 1
_Y2000_US = 946_684_800_000_000
_VERSION = 1 << 10
_RO_ACCESS_REPORT = 61


@dataclass
class WrongClock:
    """Reader clock derived from a true one: `offset_s` ahead, drifting, starting at 2000-01-01, or uptime alone."""

    true_us: Callable[[], int]
    offset_s: float = 0.0
    drift_ppm: float = 0.0
    from_2000: bool = False
    uptime: bool = False

    def __post_init__(self) -> None:
        self._began_us = self.true_us()

    def __call__(self) -> int:
        """Return microseconds as in the reader's time stamps."""
        since_us = round((self.true_us() - self._began_us) * (1 + self.drift_ppm / 1e6))
        begin_us = 0 if self.uptime else _Y2000_US if self.from_2000 else self._began_us
        return max(0, begin_us + since_us + round(self.offset_s * 1e6))


class Faults:
    """Injects faults into a reader, by the names in NAMES."""

    def __init__(self, reader: LlrpReader, clock: WrongClock) -> None:
        self._reader, self._clock = reader, clock

    async def play(self, names: list[str], every_s: float) -> None:
        """Inject faults in turn, for ever."""
        for name in itertools.cycle(names):
            await asyncio.sleep(every_s)
            await NAMES[name](self)

    async def doors(self, every_s: float) -> None:
        """Close and open a contact at input GPI_PORT, for ever."""
        for high in itertools.cycle((True, False)):
            await asyncio.sleep(every_s)
            self._reader.gpi(GPI_PORT, high)

    async def cut(self) -> None:
        """Break the connection; the reader continues."""
        self._reader.cut()

    async def silent(self) -> None:
        """Send and receive nothing for a while on an open connection."""
        self._reader.silent = True
        try:
            await asyncio.sleep(SILENT_S)
        finally:
            self._reader.silent = False

    async def half_message(self) -> None:
        """Break the connection within a message."""
        self._reader.say(_report(_tag())[:17])
        await asyncio.sleep(0.1)
        self._reader.cut()

    async def bogus_length(self) -> None:
        """Send a message that claims to be 4 GiB long."""
        self._reader.say(struct.pack(">HII", _VERSION | _RO_ACCESS_REPORT, 0xFFFFFFFF, 1))

    async def odd_reports(self) -> None:
        """Send valid reports among unreadable and merely unusual ones."""
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
        """Lose power and come back."""
        await self._reader.stop()
        await asyncio.sleep(OFF_S)
        await self._reader.start()

    async def clock_jump(self) -> None:
        """Set the clock an hour ahead; the next time back."""
        self._clock.offset_s += JUMP_S if self._clock.offset_s < JUMP_S else -JUMP_S

    async def inventory_ends(self) -> None:
        """Stop the inventory with notification; keepalives continue."""
        self._reader.end_inventory()

    async def inventory_lost(self) -> None:
        """Drop the inventory without notification; keepalives continue."""
        self._reader.lose_inventory()

    async def events(self) -> None:
        """Send events: an antenna unplugged and plugged in, an exception, lost reads."""
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
    """Return the TagReportData of a tag at antenna 1, with `more` after its parameters."""
    epc = _tlv(241, struct.pack(">H", bits) + bytes(range(0x20, 0x20 + bits // 8)))
    return _tlv(240, epc + struct.pack(">BH", 0x81, 1) + struct.pack(">BH", 0x88, seen) + more)


def _report(body: bytes) -> bytes:
    return struct.pack(">HII", _VERSION | _RO_ACCESS_REPORT, 10 + len(body), 1) + body
