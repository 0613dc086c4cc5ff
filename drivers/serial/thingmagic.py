"""Session with a ThingMagic/Mercury reader on a serial line: continuous reading, restarted after failures."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from drivers.serial import thingmagic_codec as codec
from drivers.serial.session import ANSWER_S, PROBE_S, ReaderError, SerialSession
from drivers.serial.tags import Content, TagRead
from drivers.serial.thingmagic_codec import Reply
from drivers.serial.transport import Line
from drivers.session import Clock, Notice, ReaderSettings, Sink

REGIONS = {
    name: number
    for number, name in enumerate(
        ("na", "eu", "kr", "in", "jp", "prc", "eu2", "eu3", "kr2", "prc2", "au", "nz", "na2", "na3"), 1
    )
}
"""Regions by the names that the maker's own programs use."""
REGION_IF_UNSET = "prc"
"""China, 920–925 MHz: only for a reader without any region, which would otherwise refuse to read."""
SEARCH_MS = 1000
START = codec.command(
    codec.OP_CONTINUOUS,
    # no time-out, option 1 (start), sub-command 22 over the antenna list, protocol Gen2, then 7 bytes of sub-command
    bytes.fromhex("0000 01 22 0000 05 07 22 10 001B") + SEARCH_MS.to_bytes(2) + codec.METADATA.to_bytes(2),
)
STOP = codec.command(codec.OP_CONTINUOUS, bytes.fromhex("0000 02"))
GEN2 = bytes.fromhex("0005")
READ_FILTER_OFF = bytes.fromhex("01 0C 00")


class ThingMagicSession(SerialSession[Reply]):
    """Session with one reader, until `run` is cancelled: delivers its reads and status."""

    NAME = "ThingMagic"
    BAUDS = (115200, 9600, 921600, 19200, 38400, 57600, 230400, 460800)
    """The factory setting, then others found in the field."""
    PORT_MAX = 16
    SETS_PORTS = True
    SILENCE_S = 5.0
    """A reading reader sends at least a keepalive a second."""
    BREATH_S = PROBE_S

    def __init__(self, settings: ReaderSettings, sink: Sink, clock: Clock) -> None:
        super().__init__(settings, sink, clock)
        self._times = SearchClock()

    def _frame_at(self, buffer: bytes, at: int) -> tuple[Reply, int] | str | None:
        return codec.reply_at(buffer, at)

    def _content(self, frame: Reply) -> Content:
        return codec.read(frame)

    def _has_restarted(self, frame: Reply) -> bool:
        return frame.op == codec.OP_BOOT

    async def _hush(self, line: Line, patience_s: float) -> None:
        with suppress(ReaderError):
            await self._ask(line, STOP, lambda reply: reply.op == codec.OP_CONTINUOUS, patience_s)

    async def _identify(self, line: Line, patience_s: float) -> dict[str, str]:
        return _describe((await self._command(line, codec.OP_VERSION, b"", patience_s)).data)

    async def _set_up(self, line: Line) -> None:
        ports = sorted(self._settings.ports)
        await self._set_region(line, self._settings.region)
        await self._demand(line, codec.OP_PROTOCOL, GEN2, "protocol Gen2")
        pairs = bytes(number for port in ports for number in (port, port))
        await self._demand(line, codec.OP_ANTENNAS, b"\x02" + pairs, f"antennas {', '.join(map(str, ports))}")
        # With the filter on, a tag that stays is reported once. Readers that don't know the setting have no filter.
        await self._command(line, codec.OP_OPTION, READ_FILTER_OFF)

    async def _set_region(self, line: Line, wanted: str | None) -> None:
        region = await self._command(line, codec.OP_GET_REGION)
        if wanted is not None:
            if region.status != codec.STATUS_OK or region.data[-1:] != bytes((REGIONS[wanted],)):
                await self._demand(line, codec.OP_REGION, bytes((REGIONS[wanted],)), f"region {wanted}")
        elif region.status == codec.STATUS_OK and not any(region.data):
            # Refused by readers whose region is fixed; one that can't read without says so when it is started.
            reply = await self._command(line, codec.OP_REGION, bytes((REGIONS[REGION_IF_UNSET],)))
            if reply.status == codec.STATUS_OK:
                text = f"the reader had no region and was set to {REGION_IF_UNSET} (China): is it there? see `region`"
                self._sink.notice(Notice(self._settings.id, self._clock(), text))

    async def _start(self, line: Line) -> None:
        self._times = SearchClock()
        await line.write(START)

    def _stamp(self, tags: Sequence[TagRead]) -> list[int]:
        return self._times.stamp([tag.time_ms for tag in tags], self._received_us)

    async def _demand(self, line: Line, op: int, data: bytes, what: str) -> None:
        """Make a setting that reading requires; ReaderError if the reader refuses."""
        reply = await self._command(line, op, data)
        if reply.status != codec.STATUS_OK:
            raise ReaderError(f"it refuses {what}: {codec.why(reply.status)}")

    async def _command(self, line: Line, op: int, data: bytes = b"", patience_s: float = ANSWER_S) -> Reply:
        return await self._ask(line, codec.command(op, data), lambda reply: reply.op == op, patience_s)


class SearchClock:
    """Converts milliseconds since the start of a search cycle to store time.

    A cycle's beginning is estimated as the earliest that its reads' times of receipt allow. Cycles follow each other
    without a sign but the milliseconds falling, so an estimate that makes reads older than `LAG_US` is of a past cycle.
    """

    LAG_US = 500_000
    OLD_US = 5_000_000
    DISORDER_MS = 50

    def __init__(self) -> None:
        self._began_us: int | None = None
        self._last_ms = 0

    def stamp(self, times_ms: Sequence[int | None], received_us: int) -> list[int]:
        """Return the store time of each read of a batch, in order of arrival; never after `received_us`, which also
        replaces None."""
        stamps_us = [received_us] * len(times_ms)
        cycle: list[tuple[int, int]] = []
        for index, ms in enumerate(times_ms):
            if ms is None:
                continue
            if ms + self.DISORDER_MS < self._last_ms:
                self._settle(cycle, stamps_us, received_us)
                self._began_us = None
                cycle = []
            self._last_ms = ms
            cycle.append((index, ms))
        self._settle(cycle, stamps_us, received_us)
        return stamps_us

    def _settle(self, cycle: list[tuple[int, int]], stamps_us: list[int], received_us: int) -> None:
        if not cycle:
            return
        newest_us = 1000 * max(ms for _, ms in cycle)
        if self._began_us is None or not 0 <= received_us - self._began_us - newest_us <= self.LAG_US:
            self._began_us = received_us - newest_us
        for index, ms in cycle:
            stamp_us = self._began_us + 1000 * ms
            if received_us - stamp_us <= self.OLD_US:
                stamps_us[index] = stamp_us


def _describe(version: bytes) -> dict[str, str]:
    """Decode the reply to the version command: boot loader, hardware, date and version of the firmware."""
    if len(version) < 16:
        return {}
    fields = [version[at : at + 4] for at in range(0, 16, 4)]
    return {
        "hardware": fields[1].hex("."),
        "firmware": fields[3].hex("."),
        "firmware_date": f"{fields[2][:2].hex()}-{fields[2][2:3].hex()}-{fields[2][3:].hex()}",
    }
