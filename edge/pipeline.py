"""The one way through the house: batches of reads in, visits and events committed.

Two kinds of commits. A recognition is committed the moment a member is first seen, for a greeting can't wait.
All that the engine decides is committed together with the engine's state, every few seconds, in one transaction:
a restart goes on from exactly what was committed, so that nothing is told twice or under another number.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from drivers.read import ANTENNA_UNKNOWN, Reads, epc_bytes
from drivers.session import Gap, Link, Notice, ReaderStatus
from dwell.engine import ZoneEngine
from dwell.layout import TagClass
from dwell.visits import Visits
from edge import checkpoint
from edge.clock import Clock
from edge.compose import Shop
from edge.database import Database
from edge.outages import Outages
from edge.housekeeping import make_room
from edge.people import BusinessDay, Member, Pseudonyms, look_up
from edge.records import Ledger
from sync import outbox
from sync.contract import CLASSES, EventClass, GatewayHealth, ReaderHealth, Recognised

log = logging.getLogger("tagtrail.pipeline")

QUEUE_READS = 500_000
"""Reads that may wait; beyond, sessions wait and their readers buffer."""
WAITING_READS = 1_000_000
"""Reads that may come while the engine waits for what a reader kept; beyond, it goes on without."""
GATHER_S = 0.02
"""Reads that arrive this close together go through as one batch."""
ADVANCE_S = 0.25
HEALTH_US = 60_000_000
FORGET_US = 600_000_000
"""A tag silent this long is looked up anew; whether it was announced stands in the database."""


@dataclass
class Present:
    """A tag seen of late; `member` if it is one with consent."""

    seen_us: int
    member: Member | None


class Pipeline:
    """Takes reads and link changes from sessions (it is their Sink), runs the engine, commits. One task: `run`.

    `trouble` says why commits fail, if they do: what was not committed is kept and tried again.
    """

    def __init__(
        self,
        shop: Shop,
        database: Database,
        clock: Clock,
        *,
        version: str,
        wake: Callable[[EventClass], None],
        trace: Callable[[Visits], None] | None = None,
    ) -> None:
        self.shop = shop
        self.engine = ZoneEngine(shop.layout, shop.settings)
        start = clock.now_us()
        self.readers = {r.id: ReaderStatus(r.id, Link.DOWN, "not yet connected", start) for r in shop.readers}
        self.reads_of = dict.fromkeys(self.readers, 0)
        self.recognitions: deque[dict[str, Any]] = deque(maxlen=20)
        self.trouble: str | None = None
        self.backlog: dict[str, int] = {}
        """Events not yet acknowledged, by class; kept up to date by the service."""
        self._database = database
        self._clock = clock
        self._version = version
        self._wake = wake
        self._trace = trace
        limits = shop.config.thresholds
        days = BusinessDay(shop.config.store.tz, limits.business_day_start)
        self._pseudonyms = Pseudonyms(database.tag_key, days)
        self._ledger = Ledger(shop, self._pseudonyms, days)
        self._outages = Outages(self.readers, self._switch)
        self._bound_us: int | None = None
        self._waiting = 0
        self._queue: deque[tuple[str, Reads] | ReaderStatus | Gap | Notice] = deque()
        self._queued = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._present: dict[bytes, Present] = {}
        self._recognised: set[bytes] = set()
        self._untold: list[tuple[Member, Recognised]] = []
        self._swept_us = self._health_us = start
        self._stopping = False

    # The sink of every session.

    async def reads(self, reader: str, batch: Reads) -> None:
        """Queue a batch; waits while the queue is full."""
        while self._queued >= QUEUE_READS:
            self._room.clear()
            await self._room.wait()
        self._queue.append((reader, batch))
        self._queued += len(batch)
        self._arrived.set()

    def status(self, status: ReaderStatus) -> None:
        """Queue a change of a reader's link, in its place among the reads."""
        self._queue.append(status)
        self._arrived.set()

    def gap(self, gap: Gap) -> None:
        """Queue a loss of reads."""
        self._queue.append(gap)
        self._arrived.set()

    def notice(self, notice: Notice) -> None:
        """Queue a word for health."""
        self._queue.append(notice)
        self._arrived.set()

    # Life.

    def restore(self) -> None:
        """Go on from the last checkpoint, with every reader down until it connects."""
        self._database.write_now(self._restore)

    def stop(self) -> None:
        """Let `run` end; what sessions have delivered by now is still taken."""
        self._stopping = True
        self._arrived.set()

    async def run(self) -> None:
        """Work until `stop`, then take what has arrived and commit it; visits stay open in the checkpoint.

        Not to be cancelled: a commit under way would be written twice.
        """
        self._ledger.add_health(self._gateway_health("start"))
        loop = asyncio.get_running_loop()
        advanced_s = committed_s = loop.time()
        seen_us = self._clock.now_us()
        while not self._stopping:
            try:
                async with asyncio.timeout(ADVANCE_S):
                    await self._arrived.wait()
                await asyncio.sleep(GATHER_S)
            except TimeoutError:
                pass
            now_us = self._clock.now_us()
            await self._take()
            if loop.time() - advanced_s >= ADVANCE_S:
                advanced_s = loop.time()
                # The time of the step before: sessions have run since, so what had arrived by then has been taken,
                # however long the machine was busy or suspended in between.
                self._advance(seen_us)
                seen_us = now_us
            if loop.time() - committed_s >= self.shop.config.database.checkpoint_s:
                committed_s = loop.time()
                await self._commit()
        await self._take()
        self._advance(seen_us)
        self._ledger.add_health(self._gateway_health("stop"))
        if self._trace is not None:
            self._trace(self.open_visits(censored=True))
        await self._commit()

    def open_visits(self, *, censored: bool = False) -> Visits:
        """Visits under way; `censored` marks them as not seen to their end."""
        visits: Visits = self.engine.open_visits()
        if censored:
            visits["censored"] = 1
        return visits

    async def recheck(self, erased: str | None = None) -> None:
        """Members may have left the directory: know those who are here by what it says now."""

        def job(conn: sqlite3.Connection) -> None:
            for present in self._present.values():
                if present.member is not None:
                    now = look_up(conn, present.member.tag)
                    present.member = now if now is not None and now.consent else None

        await self._database.read(job)
        self._untold = [(member, event) for member, event in self._untold if member.member != erased]
        self.recognitions = deque((one for one in self.recognitions if one["member"] != erased), maxlen=20)

    def hash_card(self, epc: bytes, bits: int) -> bytes:
        """The tag that a card is known by at rest."""
        return self._pseudonyms.member(epc, bits)

    def member_of(self, visit: Any) -> Member | None:
        """The member (with consent) that a visit's tag stands for."""
        present = self._present.get(visit["epc"].tobytes() + visit["epc_bits"].tobytes())
        return present.member if present is not None else None

    # Steps.

    async def _take(self) -> None:
        """Put everything queued through, in order of arrival."""
        self._arrived.clear()
        batches: list[Reads] = []
        while self._queue:
            item = self._queue.popleft()
            if isinstance(item, ReaderStatus):
                await self._feed(batches)
                batches = []
                self._link(item)
            elif isinstance(item, Gap):
                self._outages.gap(item)
                self._tell_health(item.reader, item.reason, item.to_us)
            elif isinstance(item, Notice):
                self._tell_health(item.reader, item.text, item.at_us)
            else:
                reader, batch = item
                self.reads_of[reader] += len(batch)
                self._queued -= len(batch)
                batches.append(batch)
        self._room.set()
        await self._feed(batches)

    async def _feed(self, batches: list[Reads]) -> None:
        if batches:
            reads = np.concatenate(batches) if len(batches) > 1 else batches[0]
            await self._greet(reads)
            self.engine.feed(reads)
            self._waiting += len(reads)

    def _link(self, status: ReaderStatus) -> None:
        before = self.readers[status.reader]
        self.readers[status.reader] = status
        self._outages.link(status, time.monotonic())
        if (status.link, status.reason) != (before.link, before.reason):
            self._tell_health(status.reader, status.reason, status.since_us)

    def _switch(self, reader: str, at_us: int, up: bool) -> None:
        self.engine.outage(self.shop.antennas_of[reader], at_us, up)

    def _tell_health(self, reader: str, reason: str, since_us: int) -> None:
        status = self.readers[reader]
        good = status.link is Link.UP and status.reason == reason
        log.log(logging.INFO if good else logging.WARNING, "reader %s is %s: %s", reader, status.link.value, reason)
        self._ledger.add_health(
            ReaderHealth(
                reader=reader,
                link=status.link.value,
                reason=reason,
                since_us=since_us,
                clock_offset_us=status.clock_offset_us,
            )
        )

    async def _greet(self, reads: Reads) -> None:
        """Announce members seen for the first time; a tag seen before costs one dictionary look-up a batch."""
        now = int(reads["time_us"].max())
        fresh: list[int] = []
        for index, key in _first_of_each_tag(reads):
            present = self._present.get(key)
            if present is None:
                self._present[key] = Present(now, None)
                fresh.append(index)
            else:
                present.seen_us = max(present.seen_us, now)
        if fresh:
            rows = reads[fresh]
            members = rows[self.shop.classify(rows["epc"]) == TagClass.MEMBER]
            if len(members):
                await self._database.read(lambda conn: self._recognise(conn, members))
        if self._untold:
            await self._tell()

    def _recognise(self, conn: sqlite3.Connection, rows: Reads) -> None:
        for row in rows:
            member = look_up(conn, self._pseudonyms.member(*_epc(row)))
            if member is None or not member.consent:
                continue
            self._present[_key(row)].member = member
            if member.tag not in self._recognised and row["antenna"] != ANTENNA_UNKNOWN:
                self._recognised.add(member.tag)
                self._untold.append((member, self._recognition(row, member)))

    def _recognition(self, row: Any, member: Member) -> Recognised:
        zone = int(self.shop.layout.antenna_zone[row["antenna"]])
        read_us = int(row["time_us"])
        return Recognised(
            member=member.member,
            tier=member.tier,
            hint=member.hint_at(read_us),
            zone=self.shop.zones[zone],
            floor=self.shop.zone_floor[zone],
            read_us=read_us,
            expires_us=read_us + round(self.shop.config.thresholds.recognition_ttl_s * 1e6),
        )

    async def _tell(self) -> None:
        untold = list(self._untold)

        def job(conn: sqlite3.Connection) -> None:
            conn.executemany(
                "INSERT OR REPLACE INTO recognised VALUES (?, ?, ?)", [(m.tag, m.member, e.read_us) for m, e in untold]
            )
            outbox.append(conn, "member", [event for _, event in untold])

        if await self._write(job):
            del self._untold[: len(untold)]
            self._wake("member")
            for _, event in untold:
                self.recognitions.appendleft(
                    {"at_us": event.read_us, "member": event.member, "tier": event.tier, "zone": event.zone}
                )

    def _advance(self, watermark_us: int) -> None:
        bound_us = self._outages.bound_us(time.monotonic(), self._clock.now_us(), hurry=self._waiting > WAITING_READS)
        if bound_us is None or bound_us != self._bound_us:
            self._bound_us, self._waiting = bound_us, 0
        decisions = self.engine.advance(watermark_us if bound_us is None else min(watermark_us, bound_us))
        self._ledger.add(decisions)
        for journey in decisions.journeys:
            self._present.pop(_key(journey.visits[0]), None)
            if journey.tag_class == TagClass.MEMBER:
                self._recognised.discard(self._pseudonyms.member(*_epc(journey.visits[0])))
        if self._trace is not None and len(decisions.closed):
            self._trace(decisions.closed)

    async def _commit(self) -> None:
        now = self._clock.now_us()
        if now - self._health_us >= HEALTH_US:
            self._health_us = now
            self._ledger.add_health(self._gateway_health("periodic"))
        if now - self._swept_us >= FORGET_US:
            self._swept_us = now
            self._present = {key: p for key, p in self._present.items() if now - p.seen_us < FORGET_US}
        state = self.engine.state()
        watermark_us = self.engine.weighed_us

        def job(conn: sqlite3.Connection) -> None:
            self._ledger.write(conn, self.shop.zones)
            checkpoint.save(conn, self.shop, watermark_us, state)

        if await self._write(job):
            self._ledger.clear()
            for class_ in CLASSES[1:]:
                self._wake(class_)

    async def _write(self, job: Callable[[sqlite3.Connection], None]) -> bool:
        """Commit a job; if the database refuses, say so once and make room if that is the matter; then False."""
        try:
            await self._database.write(job)
        except sqlite3.Error as error:
            if self.trouble is None:
                log.error("the database does not take writes (%s); everything is kept in memory and retried", error)
            self.trouble = str(error)
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                await self._make_room()
            return False
        if self.trouble is not None:
            log.warning("the database takes writes again")
            self.trouble = None
        return True

    async def _make_room(self) -> None:
        try:
            await self._database.write(lambda conn: make_room(conn, self.shop.config, self._clock.now_us()))
        except sqlite3.Error as error:
            log.error("no room can be made in the database: %s", error)

    def _restore(self, conn: sqlite3.Connection) -> None:
        saved = checkpoint.load(conn)
        down_us = self._clock.now_us()
        waiting_s = None
        if saved is not None and saved.fingerprint == self.shop.fingerprint():
            self.engine = saved.engine()
            if saved.watermark_us >= 0:
                down_us, waiting_s = saved.watermark_us, time.monotonic()
        elif saved is not None:
            # Zones, antennas or definitions changed: what was open ends where it was last known, under its old names.
            decisions = saved.engine().finish()
            self._ledger.add(decisions)
            self._ledger.write(conn, saved.zones)
            self._ledger.clear()
            checkpoint.save(conn, self.shop, self.engine.weighed_us, self.engine.state())
            log.warning("the layout has changed: %d visits under way were ended", len(decisions.closed))
        self._outages.begin(down_us, waiting_s)
        self._recognised = {tag for (tag,) in conn.execute("SELECT tag FROM recognised")}
        for visit in self.engine.open_visits():
            if visit["tag_class"] == TagClass.MEMBER:
                member = look_up(conn, self._pseudonyms.member(*_epc(visit)))
                self._present[_key(visit)] = Present(down_us, member if member is not None and member.consent else None)

    def _gateway_health(self, reason: Literal["start", "periodic", "stop"]) -> GatewayHealth:
        counters = self.engine.counters
        return GatewayHealth(
            at_us=self._clock.now_us(),
            version=self._version,
            reason=reason,
            reads=counters["reads"],
            late_reads=counters["late"],
            unknown_antenna_reads=counters["unknown_antenna"],
            tags_present=counters["tags"],
            readers_up=sum(status.link is Link.UP for status in self.readers.values()),
            readers=len(self.readers),
            backlog=self.backlog,
        )


def _key(row: Any) -> bytes:
    return bytes(row["epc"].tobytes() + row["epc_bits"].tobytes())


def _epc(row: Any) -> tuple[bytes, int]:
    bits = int(row["epc_bits"])
    return epc_bytes(row["epc"], bits), bits


def _first_of_each_tag(reads: Reads) -> list[tuple[int, bytes]]:
    """Row and key of one read of every tag in a batch.

    Tags are told apart by a 64-bit hash, so that one sort does; of two tags that share one, the second waits for a
    batch without the first.
    """
    mixed = (reads["epc"] * _MIX).sum(axis=1, dtype=np.uint64) ^ (reads["epc_bits"].astype(np.uint64) * _MIX[0])
    rows = np.unique(mixed, return_index=True)[1]
    return [(int(row), _key(reads[row])) for row in rows]


_MIX = np.random.default_rng(8).integers(1, 2**64, 8, np.uint64, endpoint=False) | np.uint64(1)
