"""Session with a ThingMagic/Mercury reader on a serial line: continuous reading that survives what readers do."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType

import numpy as np

from drivers import thingmagic_codec as codec
from drivers.framing import GAP_S, Framer
from drivers.read import ANTENNA_UNKNOWN, READ, RSSI_UNKNOWN, Reads, epc_words
from drivers.session import Clock, Link, ReaderSettings, ReaderStatus, Sink
from drivers.tags import MalformedRecordError, TagRead
from drivers.thingmagic_codec import Reply
from drivers.transport import Line, TransportError, open_line

log = logging.getLogger(__name__)

BAUDS = (115200, 9600, 921600, 19200, 38400, 57600, 230400, 460800)
"""Most likely first: the factory setting, then what modules are found at."""
ANSWER_S = 1.0
PROBE_S = 0.25
SILENCE_S = 5.0
"""A reader that reads sends at least a keepalive a second."""
LEAVE_S = 0.5
RETRY_S = (1.0, 5.0)
"""First and longest wait between attempts; short, since a replugged reader should read at once."""

REGION_IF_UNSET = 6
"""China, 920–925 MHz. Only for a reader that has no region at all, which would otherwise refuse to read."""
SEARCH_MS = 1000
START = codec.command(
    codec.OP_CONTINUOUS,
    # no time-out, option 1 (start), sub-command 22 over the antenna list, protocol Gen2, then 7 bytes of sub-command
    bytes.fromhex("0000 01 22 0000 05 07 22 10 001B") + SEARCH_MS.to_bytes(2) + codec.METADATA.to_bytes(2),
)
STOP = codec.command(codec.OP_CONTINUOUS, bytes.fromhex("0000 02"))
GEN2 = bytes.fromhex("0005")
READ_FILTER_OFF = bytes.fromhex("01 0C 00")
PORT_MAX = 16


class ReaderError(Exception):
    """The reader answers, but not so that it can be used; the text is a sentence for store IT."""


class ThingMagicSession:
    """Keeps one reader reading until `run` is cancelled, and delivers its reads and its state."""

    def __init__(self, settings: ReaderSettings, sink: Sink, clock: Clock) -> None:
        self._settings = settings
        self._sink = sink
        self._clock = clock
        self._framer = Framer(codec.scan_replies)
        self._times = SearchClock()
        self._received_us = 0
        self._bauds: tuple[int, ...] = BAUDS
        self._detail: Mapping[str, str] = {}
        self._told: ReaderStatus | None = None
        self._retry_s = RETRY_S[0]

    async def run(self) -> None:
        """Read for ever: whatever fails, say why and try again."""
        self._tell(Link.CONNECTING, f"opening {self._settings.address}")
        while True:
            try:
                await self._attempt()
            except (TransportError, ReaderError) as error:
                self._tell(Link.DOWN, str(error))
            except Exception as error:
                log.exception("reader %s: unexpected error", self._settings.id)
                self._tell(Link.DOWN, f"unexpected error: {error!r}")
            await asyncio.sleep(self._retry_s * random.uniform(0.8, 1.2))
            self._retry_s = min(2 * self._retry_s, RETRY_S[1])

    async def _attempt(self) -> None:
        line = await open_line(self._settings.address, self._bauds[0])
        try:
            await self._find(line)
            if self._told and self._told.link is Link.CONNECTING:  # once down it stays so until it reads
                self._tell(Link.CONNECTING, "reader answers, setting it up")
            await self._set_up(line)
            await self._read(line)
        finally:
            # It would go on streaming to nobody, and look dead to the next program that asks it something.
            with suppress(TransportError):
                await self._stop(line, LEAVE_S)
            await line.close()

    async def _find(self, line: Line) -> None:
        """Silence the reader, at whatever speed it listens, and learn what it is."""
        bauds = self._bauds if line.tty else self._bauds[:1]
        for baud in bauds:
            patience_s = ANSWER_S if baud == bauds[0] else PROBE_S
            line.set_baud(baud)
            self._framer = Framer(codec.scan_replies)
            await self._stop(line, patience_s)
            with suppress(ReaderError):
                version = await self._ask(line, codec.OP_VERSION, b"", patience_s)
                self._detail = MappingProxyType(_describe(version.data) | ({"baud": str(baud)} if line.tty else {}))
                self._bauds = (baud, *(b for b in BAUDS if b != baud))
                return
        tried = f" at {', '.join(map(str, bauds))} baud" if line.tty else ""
        raise ReaderError(
            f"no ThingMagic reader answers on {line.address}{tried}: check its power and cable and the driver's name"
        )

    async def _set_up(self, line: Line) -> None:
        ports = sorted(self._settings.ports)
        if not ports or ports[-1] > PORT_MAX:
            raise ReaderError(f"ports must be 1 to {PORT_MAX}, not {', '.join(map(str, ports)) or 'none'}")
        region = await self._ask(line, codec.OP_GET_REGION)
        if region.status == codec.STATUS_OK and not any(region.data):
            # Refused by readers whose region is fixed; one that can't read without says so when it is started.
            await self._ask(line, codec.OP_REGION, bytes((REGION_IF_UNSET,)))
        await self._demand(line, codec.OP_PROTOCOL, GEN2, "protocol Gen2")
        pairs = bytes(number for port in ports for number in (port, port))
        await self._demand(line, codec.OP_ANTENNAS, b"\x02" + pairs, f"antennas {', '.join(map(str, ports))}")
        # With the filter on, a tag that stays is reported once. Readers that don't know the setting have no filter.
        await self._ask(line, codec.OP_OPTION, READ_FILTER_OFF)

    async def _read(self, line: Line) -> None:
        """Start continuous reading and deliver until something fails."""
        silent = False
        await self._start(line)
        while True:
            replies = await self._replies(line, SILENCE_S)
            if not replies:
                if silent:
                    raise ReaderError(f"it has sent nothing for {2 * SILENCE_S:g} s, though it was started again")
                silent = True
                await self._stop(line, ANSWER_S)
                await self._start(line)
                continue
            silent = False
            tags, again, failure = self._sort(replies)
            if failure:
                await self._deliver(tags)
                raise ReaderError(failure)
            self._tell(Link.UP, f"reading on antennas {', '.join(map(str, sorted(self._settings.ports)))}")
            self._retry_s = RETRY_S[0]
            await self._deliver(tags)
            if again:
                await asyncio.sleep(PROBE_S)  # a reader that ends at once must not be asked in a tight loop
                await self._start(line)

    async def _start(self, line: Line) -> None:
        self._times = SearchClock()
        await line.write(START)

    def _sort(self, replies: list[Reply]) -> tuple[list[TagRead], bool, str]:
        """Tags among the replies, whether reading has to be started again, and what is wrong ("": nothing)."""
        tags: list[TagRead] = []
        again = False
        for reply in replies:
            try:
                content = codec.read(reply)
            except MalformedRecordError as error:
                log.debug("reader %s: %s", self._settings.id, error)
                continue
            tags += content.tags
            again |= content.ends
            if content.failure:
                return tags, again, f"it does not read: {content.failure}"
        return tags, again, ""

    async def _deliver(self, tags: list[TagRead]) -> None:
        if tags:
            stamps_us = self._times.stamp([tag.time_ms for tag in tags], self._received_us)
            await self._sink.reads(self._settings.id, _batch(tags, stamps_us, self._settings.ports))

    async def _stop(self, line: Line, patience_s: float) -> None:
        """Stop reading and throw away what was still on its way; a reader that doesn't answer is left to be found."""
        await line.write(STOP)
        with suppress(ReaderError):
            await self._answer(line, codec.OP_CONTINUOUS, patience_s)

    async def _demand(self, line: Line, op: int, data: bytes, what: str) -> None:
        """A setting without which the reader is of no use."""
        reply = await self._ask(line, op, data)
        if reply.status != codec.STATUS_OK:
            raise ReaderError(f"it refuses {what}: {codec.why(reply.status)}")

    async def _ask(self, line: Line, op: int, data: bytes = b"", patience_s: float = ANSWER_S) -> Reply:
        await line.write(codec.command(op, data))
        return await self._answer(line, op, patience_s)

    async def _answer(self, line: Line, op: int, patience_s: float) -> Reply:
        """The next reply to `op`; others before it are left-overs of reading."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_s
        while replies := await self._replies(line, deadline - loop.time()):
            for reply in replies:
                if reply.op == op:
                    return reply
        raise ReaderError(f"it did not answer command {op:02X} within {patience_s:g} s")

    async def _replies(self, line: Line, patience_s: float) -> list[Reply]:
        """The next whole frames, none if there are none in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_s
        while (left_s := deadline - loop.time()) > 0:
            try:
                chunk = await line.read(min(GAP_S, left_s) if self._framer.pending else left_s)
            except TimeoutError:
                replies = self._framer.gap()
            else:
                self._received_us = self._clock()
                replies = self._framer.feed(chunk)
            if replies:
                return replies
        return []

    def _tell(self, link: Link, reason: str) -> None:
        told = self._told
        if told is None or (told.link, told.reason) != (link, reason):
            since_us = told.since_us if told and told.link is link else self._clock()
            self._told = ReaderStatus(self._settings.id, link, reason, since_us, detail=self._detail)
            self._sink.status(self._told)


class SearchClock:
    """Store time of reads that carry milliseconds since their search cycle began.

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
        """Store time of each read of a batch, in order of arrival; never after `received_us`, which stands for None."""
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


def _batch(tags: list[TagRead], stamps_us: list[int], ports: Mapping[int, int]) -> Reads:
    batch = np.zeros(len(tags), READ)
    for row, (tag, time_us) in enumerate(zip(tags, stamps_us, strict=True)):
        batch[row] = (
            time_us,
            epc_words(tag.epc),
            ANTENNA_UNKNOWN if tag.antenna is None else ports.get(tag.antenna, ANTENNA_UNKNOWN),
            RSSI_UNKNOWN if tag.rssi_cdbm is None else tag.rssi_cdbm,
            max(tag.seen or 1, 1),
            8 * len(tag.epc),
        )
    return batch


def _describe(version: bytes) -> dict[str, str]:
    """What the reply to the version command says: boot loader, hardware, date and version of the firmware."""
    if len(version) < 16:
        return {}
    fields = [version[at : at + 4] for at in range(0, 16, 4)]
    return {
        "hardware": fields[1].hex("."),
        "firmware": fields[3].hex("."),
        "firmware_date": f"{fields[2][:2].hex()}-{fields[2][2:3].hex()}-{fields[2][3:].hex()}",
    }
