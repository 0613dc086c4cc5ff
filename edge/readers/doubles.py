"""Tags that are at two places at once: a card that was cloned, or two with one number, shared by a family.

One tag can't be heard here, there and here again, further apart than readers reach, within a few seconds. Whose the
reads are then nobody knows: they would become one visit that nobody made, or a walk to and fro. They are left out until
the tag has been at one place for a while.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from config.facts import TAG_CLASSES
from drivers.read import Reads
from dwell.read import hashed, picked
from edge.store.compose import Shop

APART_M = 60.0
"""Readers hear tags 30 m away where a hall is empty; two of them, each on its side, hear the same one."""
FLOORS = 2
"""No reader hears a tag through two slabs."""
HOP_US = 5_000_000
"""Nobody runs so far in this time …"""
HOPS, HOPS_US = 8, 180_000_000
"""… and nobody does it so often within this, in which weak tags are read a few times; single ones may be a misread
number."""
COUNT_US = 5_000_000
"""Hops sooner after one that counted don't: a reader whose clock is half a minute off makes many of anybody passing."""
CALM_US = 900_000_000
MOST = 20_000
"""Tags that are remembered; if there are more, the quarter that is longest silent is forgotten."""


@dataclass(frozen=True)
class Double:
    """A tag at two places at once, since `since_us`; numbers of antennas."""

    tag_class: int
    since_us: int
    antennas: tuple[int, int]


class Doubles:
    """Filters reads; `notices` says what there is to tell of readers."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        layout = shop.layout
        floor = layout.zone_floor[layout.antenna_zone]
        floors = np.abs(floor[:, None].astype(np.int64) - floor[None, :])
        across_m = np.linalg.norm(layout.antenna_xy[:, None] - layout.antenna_xy[None, :], axis=2)
        self._apart = (across_m > APART_M) | (floors >= FLOORS)
        self._some_apart = bool(self._apart.any())
        self._tags = np.zeros(0, np.uint64)
        """Hashes of the tags that are remembered, sorted, and where and when each was heard last."""
        self._antenna = np.zeros(0, np.int64)
        self._at_us = np.zeros(0, np.int64)
        self._hopped: dict[int, _Hops] = {}
        self._fresh: list[Double] = []

    @property
    def now(self) -> tuple[Double, ...]:
        """Tags whose reads are left out, the first found first."""
        found = [hops.double for hops in self._hopped.values() if hops.double is not None]
        return tuple(sorted(found, key=lambda double: double.since_us))

    def notices(self) -> Iterator[tuple[str, str]]:
        """Reader and sentence for each tag found since the last time."""
        while self._fresh:
            found = self._fresh.pop(0)
            here, there = (self._shop.zones[self._shop.layout.antenna_zone[antenna]] for antenna in found.antennas)
            what = f"one tag of class {TAG_CLASSES[found.tag_class]} is in {here} and {there} at the same time"
            yield self._shop.ports[found.antennas[1]][0], f"{what}: its reads are left out"

    def filter(self, reads: Reads) -> Reads:
        """The reads of tags that are at one place."""
        if not self._some_apart or not len(reads):
            return reads
        tags = hashed(reads)
        self._look(reads, tags)
        doubles = [tag for tag, hops in self._hopped.items() if hops.double is not None]
        if not doubles:
            return reads
        out = np.isin(tags, np.array(doubles, np.uint64))
        return picked(reads, ~out)

    def _look(self, reads: Reads, tags: NDArray[np.uint64]) -> None:
        order = np.lexsort((reads["time_us"], tags))
        order = order[(reads["antenna"] < len(self._apart))[order]]
        if not len(order):
            return
        tag, antenna, at_us = tags[order], reads["antenna"][order].astype(np.int64), reads["time_us"][order]
        first = np.append(True, tag[1:] != tag[:-1])
        last = np.append(first[1:], True)
        self._remember(tag[first], antenna[first], at_us[first])
        seen = np.searchsorted(self._tags, tag[first])
        before, before_us = np.roll(antenna, 1), np.roll(at_us, 1)
        before[first], before_us[first] = self._antenna[seen], self._at_us[seen]
        hops = self._apart[before, antenna] & (np.abs(at_us - before_us) <= HOP_US)
        self._antenna[seen], self._at_us[seen] = antenna[last], at_us[last]
        if hops.any() or self._hopped:
            watched = hops | np.isin(tag, np.array([*self._hopped, *tag[hops].tolist()], np.uint64))
            for n in np.flatnonzero(watched).tolist():
                key, when_us = int(tag[n]), int(at_us[n])
                if hops[n]:
                    self._hop(key, (int(before[n]), int(antenna[n])), when_us, reads[order[n]])
                elif (known := self._hopped.get(key)) is not None and when_us - known.last_us > CALM_US:
                    del self._hopped[key]
        if len(self._tags) > MOST:
            self._forget()

    def _remember(self, tag: NDArray[np.uint64], antenna: NDArray[np.int64], at_us: NDArray[np.int64]) -> None:
        """Take in those of some sorted tags that are not known yet."""
        place = np.searchsorted(self._tags, tag)
        new = np.append(self._tags, np.uint64(0))[place] != tag
        new |= place == len(self._tags)
        if new.any():
            place = place[new]
            self._tags = np.insert(self._tags, place, tag[new])
            self._antenna = np.insert(self._antenna, place, antenna[new])
            self._at_us = np.insert(self._at_us, place, at_us[new])

    def _forget(self) -> None:
        most = MOST * 3 // 4
        kept = np.sort(np.argpartition(self._at_us, -most)[-most:])
        self._tags, self._antenna, self._at_us = self._tags[kept], self._antenna[kept], self._at_us[kept]
        left = set(self._tags.tolist())
        self._hopped = {tag: hops for tag, hops in self._hopped.items() if tag in left}

    def _hop(self, key: int, antennas: tuple[int, int], at_us: int, read: Reads) -> None:
        known = self._hopped.setdefault(key, _Hops())
        known.last_us = at_us
        if known.counted_us and abs(at_us - known.counted_us[-1]) < COUNT_US:
            return
        known.counted_us = [us for us in known.counted_us if us > at_us - HOPS_US] + [at_us]
        if len(known.counted_us) >= HOPS and known.double is None:
            (tag_class,) = self._shop.classify(read["epc"][None]).tolist()
            known.double = Double(tag_class, at_us, antennas)
            self._fresh.append(known.double)


@dataclass
class _Hops:
    """Of a tag that was at two places at once."""

    last_us: int = 0
    counted_us: list[int] = field(default_factory=list)
    double: Double | None = None
