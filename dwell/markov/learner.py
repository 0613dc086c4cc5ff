"""What a store's radio is learnt from while it runs, and when: a bounded sample of the reads, and a few moments, which
wait until people are there.

The sample is of chunks, two minutes of one tag each, chosen by a hash: those with the lowest that there is room for.
Chunks only grow and room doesn't, so one that has once been left out stays out, and the sample depends on nothing but
the reads themselves, however they were cut into batches.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dwell.layout import Layout, TagClass
from dwell.markov import fit, learning
from dwell.markov import ticks as ticks_
from dwell.markov.field import Field
from dwell.markov.learning import Learnt
from dwell.markov.tuning import TICK_US
from dwell.read import SHORT, Reads, hashed, joined, kept, picked, short, split

MOMENTS_US = (120_000_000, 120_000_000, 600_000_000, 1_800_000_000)
"""After the first read: at the first one usual radios are compared, which is quick; at the others the store's own is
learnt, for which two minutes already do."""
WANTED_S = (30, 30, 300, 900)
"""Seconds with reads that each moment needs: at the first one of any tags, then as in `learning.enough`."""
WAIT_US = 60_000_000
"""A moment for which there are fewer is put off by this, and all later ones with it."""
CHUNK_US = 120_000_000
FULL_READS = 150_000
"""So many reads tell as much as the first moment's two minutes do in a usual store."""
BACK_US = 60_000_000
"""Time doesn't go back so far, but with a clock that is set back."""
MOST_SECONDS = 6_000
"""Seconds with reads, of all tags, that are kept, …"""
MOST_READS = 80_000
"""… and reads."""
NO_LIMIT = int(np.iinfo(np.uint64).max)
FEW_READS = 8_000
"""So many may be too many: to leave out chunks means to sort the sample."""


class Learner:
    """Feed it reads; when `due`, `take` what is to be learnt from."""

    def __init__(self, layout: Layout, *, known: bool = False) -> None:
        """`known`: the radio was learnt before, and nothing is due until `due_us` is set."""
        self._layout = layout
        self._moments: tuple[int, ...] = () if known else MOMENTS_US
        self._begin_us: int | None = None
        self._put_off = False
        self._seen = 0
        self._full_us: int | None = None
        self._complete_us = np.iinfo(np.int64).min
        self._times: list[NDArray[np.int64]] = []
        """Of reads that `_count` has not counted."""
        self._waiting: list[Reads] = []
        self._own_due_us: int | None = None
        self._reads: Reads = np.zeros(0, SHORT)
        self._rank = np.zeros(0, np.uint64)
        self._limit = NO_LIMIT
        self._uncut = 0
        """Number of reads in the sample when it was last seen to have room for them."""

    @property
    def due_us(self) -> int | None:
        """When to learn next; None: not before it is set, or not before there are reads."""
        if self._moments:
            if self._begin_us is None:
                return None
            at_us = self._begin_us + self._moments[0]
            return min(at_us, self._full_us) if self.first and self._full_us is not None else at_us
        return self._own_due_us

    @due_us.setter
    def due_us(self, at_us: int | None) -> None:
        """Once the first moments are over."""
        self._own_due_us = at_us

    @property
    def first(self) -> bool:
        """True if at the next moment usual radios are to be compared."""
        return self._moments == MOMENTS_US

    @property
    def over(self) -> bool:
        """True if the first moments are over."""
        return not self._moments

    def feed(self, reads: Reads) -> None:
        """Take reads in any order, READ or as `kept`, which must not change afterwards; those of unknown antennas are
        left out."""
        for piece in kept(reads):
            self._feed(piece)

    def _feed(self, reads: Reads) -> None:
        known = reads["antenna"] < len(self._layout.antenna_zone)
        known[known] = self._layout.antenna_zone[reads["antenna"][known]] >= 0
        reads = picked(reads, known)
        if not len(reads):
            return
        if self.first:
            begin_us = int(reads["time_us"].min())
            if self._begin_us is None or begin_us < self._begin_us - (BACK_US if self._put_off else 0):
                self._begin_us, self._put_off = begin_us, False
            self._times.append(reads["time_us"].copy())
        if (due_us := self.due_us) is not None:
            # Those after the moment may be of another sample.
            reads = picked(reads, self._has_room(reads) | (reads["time_us"] >= due_us))
        self._waiting.append(reads)

    def due(self, complete_us: int) -> bool:
        """True if it is time to learn, and the sample tells enough for that; all reads before `complete_us` have been
        fed, those that come later are late."""
        while True:
            if self.first and self._full_us is None and self._begin_us is not None:
                self._count(min(complete_us, self._begin_us + self._moments[0]))
            at_us = self.due_us
            self.keep_up(complete_us if at_us is None else min(at_us, complete_us))
            if at_us is None or complete_us < at_us:
                return False
            if not self._moments or self._tells_enough():
                return True
            self._wait(at_us, complete_us)

    def take(self) -> Reads:
        """The sample of reads before the moment that is due, READ or as `kept`; on to the next moment."""
        self._cut()
        sample = self._reads
        self._times.clear()
        if self._moments:
            self._moments = self._moments[1:]
        else:
            self._own_due_us = None
            self._forget()  # of the next day, not of all days
        return sample

    def finish(self) -> Reads:
        """The sample of all reads, however late the next moment."""
        self.keep_up(np.iinfo(np.int64).max)
        return self.take()

    def keep_up(self, complete_us: int) -> None:
        """Choose among the reads before `complete_us`; what hasn't been chosen among takes memory."""
        if complete_us < self._complete_us - BACK_US:
            self._complete_us = np.iinfo(np.int64).min  # the clock was set back
        if complete_us <= self._complete_us:
            return
        ready, self._waiting = split(self._waiting, complete_us)
        chosen: list[Reads] = []
        for reads in ready:
            reads = picked(reads, reads["time_us"] >= self._complete_us)
            wanted = self._has_room(reads)
            wanted[wanted] = ticks_.classes(self._layout, reads["epc"][wanted]) != TagClass.MERCHANDISE
            chosen += [short(picked(reads, wanted))] if wanted.any() else []
        self._complete_us = complete_us
        if not chosen:
            return
        self._rank = np.concatenate([self._rank, *map(_ranks, chosen)])
        self._reads = joined([self._reads, *chosen])
        if len(self._reads) > self._uncut + FEW_READS:
            self._cut()

    def _tells_enough(self) -> bool:
        ticks, wanted_s = ticks_.of(self._layout, self._reads), WANTED_S[-len(self._moments)]
        return len(ticks.tag) >= wanted_s if self.first else learning.enough(ticks, wanted_s)

    def _wait(self, at_us: int, complete_us: int) -> None:
        """Put the moments off, at once for as long as there is no read. Of what one or two tags have said at length,
        nothing is kept."""
        assert self._begin_us is not None
        next_us = min((int(reads["time_us"].min()) for reads in self._waiting if len(reads)), default=complete_us)
        put_off_us = WAIT_US * max(1, -(-(min(next_us, complete_us) - at_us) // WAIT_US))
        self._begin_us, self._put_off = at_us + put_off_us - self._moments[0], True
        self._full_us, self._seen = None, 0
        self._cut()
        if self._limit != NO_LIMIT:
            self._forget()

    def _count(self, complete_us: int) -> None:
        """Find the second in which the first moment's reads are enough."""
        times = np.concatenate([np.zeros(0, np.int64), *self._times])
        now = times < complete_us
        seen, self._times = np.sort(times[now & (times >= self._complete_us)]), [times[~now]]
        missing = FULL_READS - self._seen
        if len(seen) >= missing:
            self._full_us = int(seen[missing - 1]) // TICK_US * TICK_US + TICK_US
            self._times = [times[times >= self._full_us]]
        self._seen += len(seen)

    def _has_room(self, reads: Reads) -> NDArray[np.bool_]:
        """(n,) False for reads of chunks that have been left out: most of a busy store's."""
        if self._limit == NO_LIMIT:
            return np.ones(len(reads), np.bool_)
        return _ranks(reads) < np.uint64(self._limit)

    def _forget(self) -> None:
        self._reads, self._rank = np.zeros(0, SHORT), np.zeros(0, np.uint64)
        self._limit, self._uncut = NO_LIMIT, 0

    def _cut(self) -> None:
        """Leave out the chunks for which there is no room, the highest first."""
        tick = self._reads["time_us"] // TICK_US
        order = np.lexsort((tick, self._rank))
        rank, tick = self._rank[order], tick[order]
        new = np.append(True, (rank[1:] != rank[:-1]) | (tick[1:] != tick[:-1]))[: len(rank)]
        over = (np.cumsum(new) > MOST_SECONDS) | (np.arange(len(rank)) >= MOST_READS)
        if over.any():
            self._limit = int(rank[int(np.argmax(over))])
            kept = self._rank < np.uint64(self._limit)
            self._reads, self._rank = picked(self._reads, kept), self._rank[kept]
        self._uncut = len(self._reads)


def look(layout: Layout, reads: Reads, known: Field | None) -> Learnt | None:
    """Learn from a sample: with nothing `known` the best of some usual radios, else the store's own, compared with it.

    None if there are too few reads.
    """
    if known is not None:
        try:
            return learning.learn(layout, reads, known=known)
        except ValueError:
            return None
    ticks = ticks_.of(layout, reads)
    if not learning.some(ticks):
        return None
    found = learning.first(layout, reads)
    before, after = (fit.density(layout, ticks, field) for field in (Field.prior(layout), found))
    return Learnt(found, len(ticks.epc), len(ticks.tag), before, after)


def _ranks(reads: Reads) -> NDArray[np.uint64]:
    """(n,) hash of each read's chunk."""
    return hashed(reads, (reads["time_us"] // CHUNK_US).astype(np.uint64))
