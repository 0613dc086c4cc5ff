"""The service's main loop: batches of reads in, visits and events committed.

There are two kinds of commits. A recognition is committed as soon as a member is first seen, because a greeting can't
wait. The engine's decisions are committed together with its state, every few seconds, in one transaction. A restart
continues exactly from there, so that nothing is published twice or under another number.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar

import numpy as np

from drivers.read import Reads
from drivers.session import Contact, Gap, Link, Notice, ReaderStatus
from dwell.markov.decisions import Decisions
from dwell.markov.engine import ZoneEngine
from dwell.markov.learner import Learner
from dwell.read import joined, kept
from dwell.visits import Visits
from edge.cues import book
from edge.cues.desk import CueDesk
from edge.database.keys import destroy_day_keys
from edge.database.retention import make_room
from edge.database.writer import Database
from edge.forwarding.relay import Mark
from edge.intake import checkpoint, held_rows
from edge.intake.admission import Admission
from edge.intake.arrivals import SETTLE_US, Arrivals
from edge.intake.doubtful import mark
from edge.intake.forwarded import Forwarded
from edge.intake.greeter import Greeter
from edge.intake.health import Elsewhere, EngineNow, HealthNews
from edge.intake.inbox import Inbox, Item
from edge.intake.ledger import Ledger
from edge.intake.windows import seen_since
from edge.readers.antennas import Antennas
from edge.readers.door_counters import DoorCounters
from edge.readers.doubles import Doubles
from edge.readers.lamps import Lamps
from edge.readers.outages import Outages
from edge.store import layouts
from edge.store.business_days import business_days
from edge.store.clock import Clock
from edge.store.compose import Shop
from edge.store.pseudonyms import Member, Pseudonyms, consents, known
from edge.store.timekeeping import Step, Timekeeper, moment
from sync.contract import CLASSES, EventClass, Recognised
from sync.sending import boot_id

log = logging.getLogger("tagtrail.pipeline")
T = TypeVar("T")

WAITING_READS = 1_000_000
"""Maximum number of reads while the engine waits for stored reads of a reader; then it continues without them."""
GATHER_S = 0.04
"""Reads that arrive within this time are processed as one batch."""
ADVANCE_S = 0.25
LOOK_AROUND_S = 0.5
"""Interval for checking waiting members."""
BEHIND_US = 15_000_000
"""An engine further behind than this, because it waits for a reader, can't be used to find waiting members."""
SWEEP_US = 60_000_000
PRESSED_S = 5.0
"""Interval for checking whether the engine has dropped tags, while there are too many."""
BACK_US = 60_000_000
"""If the clock is set back further than this, a new engine is started, because the old one would wait too long."""
HOP_US = 6 * 3_600_000_000
"""If the clock is set forward further than this, the skipped time isn't even reported as an outage."""
HOLD_READS = 300_000
"""Reads that a new store's engine may hold back until its first radio model."""
CHECKPOINT_MOST_S = 60.0
CHECKPOINT_BYTES_PER_S = 32 * 1024
"""A large state is written less often than `checkpoint_s`, because flash wears out and a crash loses only reads."""


class Pipeline:
    """Take reads and link changes from the inbox, run the engine, and commit. One task: `run`.

    Callbacks: `wake` for classes with new events, `changed` for updates of the page, `lamps` for members entering a
    zone, `trace` for every decided visit. `learner` gets the reads too. Everything waits while `timekeeper` does not
    trust the time; `retained_us` is the time used for retention. `trouble`: why commits fail, if they do; uncommitted
    data is kept and retried.
    """

    def __init__(
        self,
        shop: Shop,
        database: Database,
        clock: Clock,
        inbox: Inbox,
        *,
        elsewhere: Elsewhere,
        wake: Callable[[EventClass], None],
        changed: Callable[[], None] = lambda: None,
        scrub: Callable[[], object] = lambda: None,
        learner: Learner | None = None,
        lamps: Lamps | None = None,
        trace: Callable[[Visits], None] | None = None,
        timekeeper: Timekeeper | None = None,
        retained_us: Callable[[], int] | None = None,
    ) -> None:
        self.shop = shop
        self.engine = ZoneEngine(shop.layout, shop.settings, field=shop.field, hold=0 if shop.field else HOLD_READS)
        start = clock.now_us()
        self.readers = {r.id: ReaderStatus(r.id, Link.DOWN, "not yet connected", start) for r in shop.readers}
        self.reads_of = dict.fromkeys(self.readers, 0)
        self.trouble: str | None = None
        self.checkpoint_bytes = 0
        """Size of the last checkpoint."""
        self._inbox = inbox
        self._database = database
        self._clock = clock
        self._wake = wake
        self._changed = changed
        self._scrub = scrub
        self._lamps = lamps
        self._trace = trace
        self.time = timekeeper or Timekeeper.believing(clock)
        self._retained_us = retained_us or clock.now_us
        self._arrivals = Arrivals(inbox, self.time, clock, self.readers, self.reads_of)
        self._began_us = 0
        """When the engine began to watch, if that was not in an earlier run."""
        self._antennas = np.flatnonzero(shop.layout.antenna_zone >= 0)
        self._linked = dict(self.readers)
        """Links as far as they have been taken; `readers` has them as they are."""
        self._restored = True
        self._boot = boot_id()
        self._held_since: int | None = None
        """Since when items are held back (monotonic), if they were at the start."""
        self._doubtful: list[Step] = []
        """Steps after which rows of before are to be marked, with the next commit."""
        self._days = days = business_days(shop.config)
        self._pseudonyms = Pseudonyms(database.tag_key)
        self.antennas = Antennas(shop)
        self.admission = Admission(shop)
        self.doubles = Doubles(shop)
        self.doors = DoorCounters(shop)
        self._learner = learner
        self._ledger = Ledger(shop, self._pseudonyms, days, self.doors, clock.now_us)
        self._outages = Outages(self.readers, self._switch)
        self._health = HealthNews(self._ledger, self.readers, self._linked, self.time, self.admission, clock, elsewhere)
        self._bound_us: int | None = None
        self._waiting = 0
        self.forwarded = Forwarded()
        self._greeter = Greeter(shop, self._pseudonyms)
        self.desk = CueDesk(shop, clock.speed)
        self._every_s = shop.config.database.checkpoint_s
        self._swept_us = start
        self._stopping = False

    def restore(self) -> None:
        """Restore the last checkpoint, with all readers down until they connect; later, if the time is unknown."""
        held, lost = self._database.write_now(lambda conn: held_rows.take(conn, self._boot))
        self._database.write_now(self.forwarded.restore)
        first_us = self._arrivals.hold(held)
        self._held_since = first_us or (self.time.mono_us() if self.time.untrusted else None)
        if lost:
            log.warning("%d reads held until the time was known are lost: the machine has started again since", lost)
        if self.time.untrusted:
            self._restored = False
        else:
            self._database.write_now(self._restore)

    def stop(self) -> None:
        """Make `run` end; what sessions have delivered so far is still processed."""
        self._stopping = True
        self._inbox.wake()

    async def run(self) -> None:
        """Work until `stop`, then process what has arrived and commit it; visits stay open in the checkpoint.

        Must not be cancelled, because a commit in progress would be written twice.
        """
        loop = asyncio.get_running_loop()
        advanced_s = committed_s = looked_s = pressed_s = loop.time()
        seen_us = self._clock.now_us()
        begun = False
        while not self._stopping:
            await self._inbox.wait(ADVANCE_S, GATHER_S)
            if not self._arrivals.look():
                continue
            now_us = self._clock.now_us()
            if not self._restored:
                await self._database.write(self._restore)
                self._restored, seen_us = True, now_us
                self._arrivals.step()
            elif (step := self._arrivals.step()) is not None:
                self._step(step)
                seen_us = now_us
            if not begun:
                begun = True
                self._health.tell_gateway("start", self._tags())
            await self._take()
            if loop.time() - advanced_s >= ADVANCE_S:
                advanced_s = loop.time()
                # Time of the previous step: sessions have run since, so what had arrived by then has been taken,
                # however long the machine was busy or suspended in between.
                self._advance(seen_us)
                seen_us = now_us
                self._health.tell_repeated()
                if self.admission.pressed and loop.time() - pressed_s >= PRESSED_S:
                    pressed_s = loop.time()
                    self._keep_admitted()
            if loop.time() - looked_s >= LOOK_AROUND_S:
                looked_s = loop.time()
                await self._look_around()
            if loop.time() - committed_s >= self._every_s:
                committed_s = loop.time()
                await self._commit()
        if self.time.untrusted:
            await self._keep_held()
            return
        await self._take()
        self._advance(seen_us)
        self._health.tell_repeated(all_=True)
        self._health.tell_gateway("stop", self._tags())
        if self._trace is not None:
            # Visits in progress as they would end if nothing more came.
            engine = self.engine
            over = ZoneEngine.restore(self.shop.layout, self.shop.settings, engine.state(), field=engine.field)
            self._trace(over.finish().closed)
        await self._commit()

    async def _keep_held(self) -> None:
        """Keep what is held for the next start: it has no time yet."""
        items, n = self._arrivals.to_keep(self._linked.values()), self._arrivals.held_reads
        if items and await self._write(lambda conn: held_rows.save(conn, self._boot, items)):
            log.warning("%d reads are kept until the time is known; they are lost if the machine starts again", n)
        elif items:
            log.error("%d reads held until the time is known are lost", n)

    def here(self) -> Visits:
        """Return the live positions of tags, a second or two behind."""
        return self.engine.whereabouts()

    def members(self, visits: Visits) -> list[tuple[Member, Any]]:
        """Return the members with consent among visits, with their visit."""
        return self._greeter.members(visits)

    async def recheck(self, erased: Collection[str] = ()) -> None:
        """Apply a changed directory to the members present."""
        await self._database.read(lambda conn: self._greeter.recheck(conn, erased))

        def withdraw(conn: sqlite3.Connection) -> None:
            recognised = [tag for (tag,) in conn.execute("SELECT tag FROM recognised")]
            gone = [(tag,) for tag in recognised if not consents(conn, tag)]
            # The fact that they were announced is kept until the journey ends, without the member.
            conn.executemany("UPDATE recognised SET member = '' WHERE tag = ?", gone)
            book.withdraw(conn, [cue.id for cue in book.going(conn) if not known(conn, cue.tag)])

        await self.order(withdraw)

    @property
    def recognitions(self) -> list[dict[str, Any]]:
        """Return the latest recognitions, latest first."""
        return list(self._greeter.shown)

    @property
    def queue(self) -> tuple[int, float, int]:
        """Return reads that wait, seconds that the oldest has waited, and reads held back until the time is known."""
        return *self._inbox.waiting, self._arrivals.held_reads

    def covered(self) -> set[int]:
        """Return the zones whose readers are up."""
        up = {a for id_, s in self.readers.items() if s.link is Link.UP for a in self.shop.antennas_of[id_].tolist()}
        return {int(self.shop.layout.antenna_zone[antenna]) for antenna in up}

    async def order(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Change cues on request, and update the live state; raises errors of the job or the database."""

        def whole(conn: sqlite3.Connection) -> tuple[T, tuple[book.Going, ...], book.Rules]:
            return job(conn), book.going(conn), book.newest(conn)

        result, going, self.desk.rules = await self._database.write(whole)
        self.desk.show(going)
        self._wake("member")
        self._changed()
        return result

    # Processing steps.

    def _step(self, step: Step) -> None:
        """The clock was set: what was there meanwhile is unknown, in all zones."""
        log.warning("all zones are unknown from %s to %s: the clock was set", *map(moment, (step.from_us, step.to_us)))
        if abs(step.by_us) > BACK_US:
            self._doubtful.append(step)
            # No visit has lasted for what the clock left out.
            self._begin_anew(step.from_us if 0 < step.by_us <= HOP_US else step.to_us, step.from_us)
        if -BACK_US < step.by_us <= HOP_US:
            self._outages.step(step.from_us, max(step.from_us, step.to_us) + SETTLE_US)

    async def _take(self) -> None:
        """Process everything that may be taken, in order of arrival."""
        dropped = self._arrivals.dropped
        await self._put_through(self._arrivals.take())
        if dropped is not None:
            from_us, to_us = dropped
            for reader in self.readers:
                self._outages.gap(Gap(reader, from_us, to_us, "reads dropped while the time was unknown"))

    async def _put_through(self, items: Iterator[Item]) -> None:
        batches: list[Reads] = []
        for item in items:
            if isinstance(item, ReaderStatus):
                await self._feed(batches)
                batches = []
                self._link(item)
            elif isinstance(item, Gap):
                self._outages.gap(item)
                self._health.tell("gap", item.reader, item.reason, item.to_us)
            elif isinstance(item, Notice):
                self._health.tell("notice", item.reader, item.text, item.at_us)
            elif isinstance(item, Contact):
                self.doors.take(item)
            elif isinstance(item, Mark):
                self.forwarded.take(item)
            else:
                batches.append(item[1])
        await self._feed(batches)

    async def _feed(self, batches: list[Reads]) -> None:
        if batches:
            reads = joined(batches)
            self.antennas.add(reads)
            now_us = self._clock.now_us()
            reads = self.admission.filter(reads, now_us)
            for reader, text in self.admission.notices(now_us):
                self._health.tell("flood", reader, text, now_us)
            reads = self.doubles.filter(reads)
            for reader, text in self.doubles.notices():
                self._health.tell("double", reader, text, now_us)
            await self._greet(reads)
            for piece in kept(reads):
                self.engine.feed(piece)
                if self._learner is not None:
                    self._learner.feed(piece)
            self._waiting += len(reads)

    def _link(self, status: ReaderStatus) -> None:
        before = self._linked[status.reader]
        self._linked[status.reader] = status
        if status.link is Link.UP:
            self.doors.watched(status.reader, status.inputs)
        self._outages.link(status, time.monotonic())
        if (status.link, status.reason) != (before.link, before.reason):
            self._health.tell("link", status.reader, status.reason, status.since_us)

    def _switch(self, reader: str, at_us: int, up: bool) -> None:
        self.engine.outage(self.shop.antennas_of[reader], at_us, up)
        self.doors.switch(reader, at_us, up)

    async def _greet(self, reads: Reads) -> None:
        fresh = self._greeter.fresh(reads)
        if len(fresh):
            await self._database.read(lambda conn: self._greeter.recognise(conn, fresh))
        if self._greeter.waiting:
            told: list[tuple[Member, Recognised]] = []

            def job(conn: sqlite3.Connection) -> list[int]:
                nonlocal told
                told = self._greeter.tell(conn)
                return self.desk.arrive(conn, told, self._clock.now_us())

            for event in self._greeter.untold() if self._lamps else ():
                self._announce(event.member, event.tier, event.zone, event.read_us)
            if await self._make_cues(job):
                self._greeter.told(len(told))

    async def _look_around(self) -> None:
        now_us = self._clock.now_us()
        if self.desk.idle:
            return
        behind = now_us - self.engine.weighed_us > BEHIND_US + self.shop.settings.lateness_us
        visits = self.engine.whereabouts()[: 0 if behind else None]
        steps = self.desk.look_around(visits, self._greeter.members, self._greeter.greeted, self.covered(), now_us)
        if steps:
            await self._make_cues(lambda conn: self.desk.carry_out(conn, steps, now_us))

    async def _make_cues(self, make: Callable[[sqlite3.Connection], list[int]]) -> bool:
        """Commit changes of cues and publish them immediately; False if the database rejects it."""
        made: list[int] = []
        going = self.desk.going

        def job(conn: sqlite3.Connection) -> None:
            nonlocal made, going
            made = make(conn)
            going = book.going(conn)

        if not await self._write(job):
            return False
        news = going != self.desk.going
        self.desk.show(going, made, self._clock.now_us())
        self._wake("member")
        if news:
            self._changed()
        return True

    def _tags(self) -> EngineNow:
        return EngineNow(self.engine.counters, len(self.engine.tags_under_way()))

    def _keep_admitted(self) -> None:
        self.admission.keep([self.engine.tags_under_way(), self.engine.stuck_tags()], self.engine.weighed_us)

    def _announce(self, member: str, tier: str, zone: str, at_us: int) -> None:
        if self._lamps is not None:
            self._lamps.came(member, tier, zone, at_us, self._clock.now_us())

    def _advance(self, watermark_us: int) -> None:
        if watermark_us < self.engine.weighed_us - BACK_US:
            self._begin_anew(watermark_us, self.engine.weighed_us)
        bound_us = self._outages.bound_us(time.monotonic(), self._clock.now_us(), hurry=self._waiting > WAITING_READS)
        if bound_us is None or bound_us != self._bound_us:
            self._bound_us, self._waiting = bound_us, 0
        self._decide(self.engine.advance(watermark_us if bound_us is None else min(watermark_us, bound_us)))
        self.doors.advance(self.engine.weighed_us)
        if self._lamps is not None and self._lamps.any:
            tiers = self._lamps.tiers
            for member, visit in self._greeter.members(self.here(), lambda member: member.tier in tiers):
                self._announce(member.member, member.tier, self.shop.zones[visit["zone"]], int(visit["enter_us"]))

    def _begin_anew(self, at_us: int, ended_us: int) -> None:
        """Go on at a time to which the engine can't go, which was watching until `ended_us`: another one does."""
        log.error("visits under way end here, and counting begins anew")
        self.engine.outage(self._antennas, ended_us, False)  # the rest of its window is not seen by it
        self._decide(self.engine.finish())
        self.engine = ZoneEngine(self.shop.layout, self.shop.settings, field=self.engine.field)
        self._began_us = at_us
        self.doors.begin(at_us)
        self._outages.anew(at_us)

    def _decide(self, decisions: Decisions) -> None:
        decisions = seen_since(decisions, self._began_us, self.shop.settings.window_us)
        self._ledger.add(decisions)
        self._greeter.ended(decisions.journeys)
        self.desk.decided(decisions)
        if self._trace is not None and len(decisions.closed):
            self._trace(decisions.closed)

    async def _commit(self) -> None:
        now = self._clock.now_us()
        self._health.tell_news(self._tags())
        stale: list[bytes] = []
        begun_us: list[int] | None = None
        if abs(now - self._swept_us) >= SWEEP_US:
            self._swept_us = now
            under_way = self.engine.tags_under_way()
            stale = self._greeter.sweep(now, under_way)
            begun_us = np.unique(under_way["journey_us"]).tolist()
            self._keep_admitted()
            self.desk.forget(self._greeter.greeted, now)
        # Unprocessed reads are omitted except at a stop: a crash loses reads anyway; they would be half of the state.
        state = self.engine.sliced_state(pending=self._stopping)
        watermark_us, decided_us = self.engine.weighed_us, self.engine.decided_us
        size = destroyed = 0
        forwarded = self.forwarded.within(None if self._stopping or state["reads"].shape[0] else watermark_us)
        latencies_ms, doubtful = list(self.desk.untold_ms), list(self._doubtful)

        def job(conn: sqlite3.Connection) -> None:
            nonlocal size, destroyed
            self._ledger.write(conn, self.shop.zones, self.shop.floors)
            for step in doubtful:
                mark(conn, step, self.shop.settings.window_us)
            book.note_latencies(conn, latencies_ms)
            conn.executemany("DELETE FROM recognised WHERE tag = ?", [(tag,) for tag in stale])
            if begun_us is not None:
                destroyed = destroy_day_keys(conn, self._days, now, begun_us)
            size = checkpoint.save(conn, self.shop, watermark_us, state)
            self.forwarded.write(conn, forwarded)

        if await self._write(job):
            rarely_s = min(size / CHECKPOINT_BYTES_PER_S, CHECKPOINT_MOST_S)
            self.checkpoint_bytes = size
            self._every_s = max(self.shop.config.database.checkpoint_s, rarely_s)
            self._ledger.clear()
            self.forwarded.wrote(forwarded)
            # The windows that the engine cut in two at a step forward come yet.
            self._doubtful = [step for step in self._doubtful if step not in doubtful or decided_us < step.to_us]
            self.time.known_us = max(watermark_us, now)
            if destroyed:
                self._scrub()
            del self.desk.untold_ms[: len(latencies_ms)]
            for class_ in CLASSES[1:]:
                self._wake(class_)

    async def _write(self, job: Callable[[sqlite3.Connection], None]) -> bool:
        """Commit a job. If the database rejects it, log this once, make room if necessary, and return False."""
        try:
            await self._database.write(job)
        except sqlite3.Error as error:
            if self.trouble is None:
                log.error("the database can't be written (%s); everything is kept in memory and retried", error)
            self.trouble = str(error)
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                await self._make_room()
            return False
        if self.trouble is not None:
            log.warning("the database can be written again")
            self.trouble = None
        return True

    async def _make_room(self) -> None:
        try:
            await self._database.write(lambda conn: make_room(conn, self.shop.config, self._retained_us()))
        except sqlite3.Error as error:
            log.error("can't make room in the database: %s", error)

    def _restore(self, conn: sqlite3.Connection) -> None:
        # What was heard while the time was unknown is put through yet: readers were down before it.
        down_us = self._clock.now_us() if self._held_since is None else self.time.store_us(self._held_since)
        waiting_s = None
        try:
            saved = checkpoint.load(conn)
            ours = saved is not None and saved.fingerprint == self.shop.fingerprint()
            engine = saved.engine(self.shop.field if ours else None) if saved is not None else None
        except checkpoint.Unreadable as error:
            log.error("visits open at the last stop are lost: the checkpoint can't be read (%s)", error)
            saved, engine, ours = None, None, False
        if saved is not None and engine is not None:
            self._ledger.restore(conn, engine.tags_under_way())
            if saved.watermark_us > down_us + BACK_US:
                self._end(conn, saved, engine, "the clock is behind the last stop")
            elif ours:
                self.engine = engine
                if saved.watermark_us >= 0:
                    down_us, waiting_s = saved.watermark_us, time.monotonic()
            else:
                self._end(conn, saved, engine, "zones, antennas or definitions have changed")
        layouts.note(conn, self.shop.config, self._clock.now_us())
        if waiting_s is None:
            self._began_us = down_us
        self.doors.begin(down_us)
        self._outages.begin(down_us, waiting_s)
        self._greeter.restore(conn, self.engine.open_visits(), down_us)
        self.admission.restore(self.engine.tags_under_way())
        self.desk.restore(conn, self._clock.now_us())

    def _end(self, conn: sqlite3.Connection, saved: checkpoint.Checkpoint, engine: ZoneEngine, why: str) -> None:
        """End the open visits where they were last known, with the names of their own layout."""
        decisions = engine.finish()
        self._ledger.add(decisions)
        self._ledger.write(conn, saved.zones, saved.floors)
        self._ledger.clear()
        checkpoint.save(conn, self.shop, self.engine.weighed_us, self.engine.state())
        log.warning("%s: ended %d open visits", why, len(decisions.closed))
