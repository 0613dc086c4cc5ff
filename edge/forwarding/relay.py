"""What one forwarder sends, made into what sessions of its readers would deliver. No input, no output.

    away      not connected: its readers are down; the watermark waits for what they have read meanwhile, for a while
    handing   connected again within that while: what was kept comes in order, and the watermark follows it
    late      connected again after that: the time away stays unknown, and what comes of it is late
    live      everything that was kept has come

A record is placed in time by the forwarder's monotonic clock and compared with its other clock. If that was not to be
trusted, or is off by more than APART_US, the readers are down for that time and the reads are left out: a tag would be
at two places at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

import numpy as np

from drivers.read import ANTENNA_UNKNOWN
from drivers.session import Gap, Link, Notice, ReaderStatus, Sink, Tables
from edge.forwarding.records import (
    Alive,
    Begun,
    Dropped,
    Linked,
    Malformed,
    Missed,
    Now,
    Read,
    Record,
    Said,
    Switched,
    unpacked,
)
from edge.readers.outages import AWAY_S
from edge.store.clock import Clock
from edge.store.timekeeping import APART_US, duration

DRIFT = 200e-6
"""Two monotonic clocks drift apart by so much at most."""
LIVE_US = 1_000_000
"""What was read so recently is not from a backlog."""
MARGIN_S = 5.0
PORTS = 256


class Phase(Enum):
    """See above."""

    AWAY = "away"
    HANDING = "handing over"
    LATE = "handing over late"
    LIVE = "up"


@dataclass(frozen=True)
class Mark:
    """Everything that a forwarder has sent up to a record is before this in the inbox; the newest read is of
    `newest_us`."""

    forwarder: str
    life: str
    seq: int
    newest_us: int


class ForwardedSink(Sink, Protocol):
    """Sink that also takes marks."""

    def mark(self, mark: Mark) -> None:
        """Take a mark, in order with what it is about."""


class Relay:
    """One forwarder's. `readers`: its readers and, by their ports, the store's antennas. `taken`: life and number of
    the last record that is with us; empty life: none."""

    def __init__(
        self,
        forwarder: str,
        readers: Mapping[str, Mapping[int, int]],
        sink: ForwardedSink,
        clock: Clock,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.forwarder = forwarder
        self.phase = Phase.AWAY
        self.taken = "", 0
        self.reason = "not yet connected"
        self.since_us = clock.now_us()
        self.offset_us: int | None = None
        """Its clock minus ours, by what came last."""
        self.kept_bytes = 0
        self.behind_us = 0
        """How long ago that was written which came last."""
        self.lost = 0
        """Times that something had to be deleted unsent."""
        self.left_out = 0
        """Reads of which the time is not known."""
        self._sink, self._clock, self._now_s = sink, clock, now_s
        self._away_s = now_s()
        self._row = {id_: row for row, id_ in enumerate(readers, 1)}
        self._antennas = np.full((len(readers) + 1, PORTS), ANTENNA_UNKNOWN, np.uint16)
        """Antenna by reader and port; the first row is that of readers that are not its own."""
        for id_, ports in readers.items():
            for port, antenna in ports.items():
                self._antennas[self._row[id_], port] = antenna
        self._own = {
            id_: ReaderStatus(id_, Link.DOWN, f"{forwarder} has not connected yet", self.since_us) for id_ in readers
        }
        self._raised: set[str] = set()
        """Readers that the sink takes to be up."""
        self._life = ""
        self._boot = ""
        self._base: int | None = None
        """Our store time minus its monotonic time, as it measures it by what we send."""
        self._boot_now = ""
        self._newest_us = 0
        """When the newest record of known time was written."""
        self._unclear = ""
        self._fresh = False
        """Whether anything new has come since it connected."""
        self._foreign: set[str] = set()

    def resume(self, taken: tuple[str, int]) -> None:
        """Go on after the last record that an earlier service has committed, unless this one has taken some."""
        if not self.taken[0]:
            self.taken = taken

    def connected(self) -> None:
        """It is connected; `take` what it sends."""
        in_time = self._now_s() - self._away_s < AWAY_S - MARGIN_S
        self.phase = Phase.HANDING if in_time else Phase.LATE
        self.reason, self.since_us = "", self._clock.now_us()
        self._life, self._fresh = "", False
        self._base = None
        if self.phase is Phase.LATE:
            reason = f"{self.forwarder} is sending what it has kept"
            for own in self._own.values():
                self._sink.status(ReaderStatus(own.reader, Link.DOWN, reason, self.since_us))

    def disconnected(self, reason: str) -> None:
        """It is not connected any more, or may not be."""
        if self.phase is Phase.AWAY:
            self.reason = reason
            return
        if self.phase is Phase.LIVE:
            self._away_s = self._now_s()
        self.phase = Phase.AWAY
        self.reason, self.since_us = reason, self._clock.now_us()
        self.offset_us = None
        since_us = min(self._newest_us or self.since_us, self.since_us)
        for own in self._own.values():
            keeps = (own.link is Link.UP and not self._unclear) or own.keeps
            self._sink.status(ReaderStatus(own.reader, Link.DOWN, f"{self.forwarder}: {reason}", since_us, keeps=keeps))
        self._raised.clear()

    async def take(self, record: Record) -> None:
        """Take what it sends, in order; waits while the inbox is full. Malformed."""
        what = record.what
        if isinstance(what, Now):
            self._time(record, what)
        elif isinstance(what, Begun):
            self._begin(what)
        elif not self._life:
            raise Malformed("a record of an unknown life")
        elif self.taken[0] == self._life and record.seq <= self.taken[1]:
            if isinstance(what, Linked):
                self._learn(what.status)
        else:
            await self._new(record)

    async def _new(self, record: Record) -> None:
        what, newest_us = record.what, 0
        if isinstance(what, Dropped):
            self._dropped(what)
            self._took(record.seq, 0)
            return
        clear = self._judge(record)
        if clear:
            self._start()
        if isinstance(what, Read):
            newest_us = await self._reads(what, clear)
        elif isinstance(what, Linked):
            self._link(what.status, record.at_us, clear)
        elif isinstance(what, Missed) and what.gap.reader in self._raised:
            self._gap(what.gap)
        elif isinstance(what, Said) and what.notice.reader in self._own:
            self._sink.notice(Notice(what.notice.reader, what.notice.at_us, what.notice.text[:500]))
        elif isinstance(what, Switched) and what.contact.reader in self._raised:
            self._sink.contact(what.contact)
            newest_us = what.contact.at_us
        elif not isinstance(what, Alive | Missed | Said | Switched):
            raise Malformed(f"{type(what).__name__} is not expected here")
        self._took(record.seq, newest_us)
        if clear:
            self._follow(record)

    def _took(self, seq: int, newest_us: int) -> None:
        self.taken = self._life, seq
        self._sink.mark(Mark(self.forwarder, self._life, seq, newest_us))

    def _dropped(self, dropped: Dropped) -> None:
        self.lost += 1
        if not self._unclear:
            self._start()
        for id_ in self._raised:
            self._gap(Gap(id_, dropped.from_us, dropped.to_us, f"{self.forwarder}: {dropped.reason}"))

    def _time(self, record: Record, now: Now) -> None:
        """Note how its clocks are. If nothing is missing here, everything has come."""
        self._boot_now, self._base = now.boot, now.base_us
        self.kept_bytes = now.kept_bytes
        if self.taken == (now.life, now.seq) and self._life == now.life:
            if self._judge(record):
                self._newest_us = max(self._newest_us, record.at_us)
                self._start()
                self._arrive(record.at_us)
            self.behind_us = 0

    def _begin(self, begun: Begun) -> None:
        before = self._life or self.taken[0]
        self._life, self._boot = begun.life, begun.boot
        if begun.life == before:
            return
        if before and self.taken[0] != begun.life:
            # What its readers did between its last sign and its start is unknown, but for readers that keep reads.
            reason = f"{self.forwarder} has started again"
            for id_ in sorted(self._raised):
                self._bound(id_, self._newest_us)
                self._sink.status(ReaderStatus(id_, Link.DOWN, reason, self._newest_us, keeps=True))
            self._raised.clear()
            self._own = {id_: replace(own, link=Link.DOWN, reason=reason) for id_, own in self._own.items()}

    def _judge(self, record: Record) -> bool:
        """Whether the time of a record is known; its readers are down while it isn't."""
        now_us = self._clock.now_us()
        speed = self._clock.speed
        allowed_us = APART_US * speed
        true_us, why = record.at_us, ""
        self.offset_us = None
        if self._base is not None and self._boot == self._boot_now:
            true_us = self._base + round(record.mono_us * speed)
            self.offset_us = record.at_us - true_us
            allowed_us += DRIFT * max(0, now_us - true_us)
        elif record.at_us > now_us + allowed_us:
            self.offset_us, true_us = record.at_us - now_us, now_us
        if not record.trusted:
            why = f"{self.forwarder} does not know the time"
        elif self.offset_us is not None and abs(self.offset_us) > allowed_us:
            much = duration(abs(self.offset_us))
            if self.offset_us > 0:
                why = f"the clock of {self.forwarder} is {much} ahead of that of the service"
            else:
                why = f"the clock of {self.forwarder} is {much} behind that of the service"
        self.behind_us = max(0, now_us - true_us)
        was, self._unclear = self._unclear, why
        if why and not was:
            since_us = min(self._newest_us or true_us, now_us)
            for own in self._own.values():
                self._sink.status(ReaderStatus(own.reader, Link.DOWN, why, since_us))
            self._raised.clear()
        elif was and not why:
            self._fresh = True
            self._newest_us = record.at_us
            for own in self._own.values():
                if own.link is Link.UP:
                    self._come_up(own, record.at_us)
        return not why

    def _start(self) -> None:
        """The first news after it has connected: its readers are as they were, and what they read since then comes."""
        if self._fresh:
            return
        self._fresh = True
        for own in self._own.values():
            if own.link is Link.UP and self.phase is Phase.HANDING:
                self._raised.add(own.reader)
                self._bound(own.reader, self._newest_us or own.since_us)

    async def _reads(self, read: Read, clear: bool) -> int:
        reads, whose = unpacked(read)
        if not clear:
            self.left_out += len(reads)
            return 0
        rows = np.repeat([self._row.get(reader, 0) for reader, _ in whose], [count for _, count in read.readers])
        reads["antenna"] = self._antennas[rows, np.minimum(reads["antenna"], PORTS - 1)]
        for reader, part in whose:
            if reader in self._row:
                await self._sink.reads(reader, reads[part])
            else:
                self._strange(reader)
        return int(reads["time_us"].max())

    def _link(self, status: ReaderStatus, at_us: int, clear: bool) -> None:
        if status.reader not in self._own:
            self._strange(status.reader)
            return
        self._learn(status)
        own = self._own[status.reader]
        if not clear or self.phase is Phase.LATE:
            return
        if own.link is not Link.UP:
            if own.reader in self._raised:
                self._bound(own.reader, own.since_us)
            self._raised.discard(own.reader)
            self._sink.status(own)
        elif own.reader in self._raised and self.phase is Phase.HANDING:
            self._bound(own.reader, at_us)
        else:
            self._come_up(own, own.since_us)

    def _learn(self, status: ReaderStatus) -> None:
        if status.reader in self._own:
            detail = {str(key)[:40]: str(value)[:200] for key, value in list(status.detail.items())[:20]}
            self._own[status.reader] = replace(status, reason=status.reason[:500], detail=detail, tables=Tables())

    def _come_up(self, own: ReaderStatus, since_us: int) -> None:
        """A reader that was down is up since then."""
        if self.phase not in (Phase.HANDING, Phase.LIVE):
            return
        self._raised.add(own.reader)
        self._sink.status(replace(own, since_us=since_us))
        if self.phase is Phase.HANDING and own.reads_from_us is None:
            # What it has read since then is still to come: the watermark waits from there on.
            self._sink.status(replace(own, link=Link.DOWN, since_us=since_us, keeps=True))
            self._bound(own.reader, since_us)

    def _bound(self, reader: str, at_us: int) -> None:
        """While it hands over: everything of a reader up to a time has come, but what the reader itself hands over."""
        own = self._own[reader]
        if self.phase is Phase.HANDING:
            from_us = at_us if own.reads_from_us is None else min(own.reads_from_us, at_us)
            self._sink.status(replace(own, link=Link.UP, since_us=max(own.since_us, at_us), reads_from_us=from_us))

    def _follow(self, record: Record) -> None:
        """Let the watermark follow what has come."""
        before_us, self._newest_us = self._newest_us, max(self._newest_us, record.at_us)
        if self.behind_us < LIVE_US * self._clock.speed and self._boot == self._boot_now:
            self._arrive(record.at_us)
        elif self.phase is Phase.HANDING and self._newest_us // LIVE_US > before_us // LIVE_US:
            for id_ in self._raised:
                self._bound(id_, self._newest_us)

    def _arrive(self, at_us: int) -> None:
        """Everything has come."""
        if self.phase not in (Phase.HANDING, Phase.LATE):
            return
        late, self.phase = self.phase is Phase.LATE, Phase.LIVE
        for own in self._own.values():
            if own.link is Link.UP:
                self._come_up(own, max(own.since_us, at_us) if late else own.since_us)
            else:
                self._sink.status(own)

    def _gap(self, gap: Gap) -> None:
        """What has come since is known."""
        from_us = max(gap.from_us, self._newest_us)
        if gap.to_us > from_us:
            self._sink.gap(replace(gap, from_us=from_us, reason=gap.reason[:500]))

    def _strange(self, reader: str) -> None:
        if reader not in self._foreign and len(self._foreign) < 100:
            self._foreign.add(reader)

    @property
    def foreign(self) -> tuple[str, ...]:
        """Readers that it sends and that are not its own by our store file."""
        return tuple(sorted(self._foreign))
