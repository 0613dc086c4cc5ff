"""Tags that are at two places at once: a card that was cloned, or two with one number, shared by a family.

One tag can't be heard here, there and here again, further apart than readers reach, within a few seconds. Whose the
reads are then nobody knows: they would become one visit that nobody made, or a walk to and fro. They are left out until
the tag has been at one place for a while.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from config.facts import TAG_CLASSES
from drivers.read import Reads
from edge.store.compose import Shop
from edge.store.epc_hash import hashes

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
"""Tags that are remembered; those longest silent are forgotten first."""


@dataclass
class _Seen:
    antenna: int
    at_us: int
    hop_us: int = 0
    """The last hop."""
    hops_us: list[int] = field(default_factory=list)
    """Those that count."""
    double: Double | None = None


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
        self._seen: OrderedDict[int, _Seen] = OrderedDict()
        self._doubles: set[int] = set()
        self._fresh: list[Double] = []

    @property
    def now(self) -> tuple[Double, ...]:
        """Tags whose reads are left out, the first found first."""
        found = [seen.double for tag in self._doubles if (seen := self._seen.get(tag)) and seen.double is not None]
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
        tags = hashes(reads)
        self._look(reads, tags)
        if not self._doubles:
            return reads
        out = np.isin(tags, np.fromiter(self._doubles, np.uint64, len(self._doubles)))
        return reads[~out] if out.any() else reads

    def _look(self, reads: Reads, tags: NDArray[np.uint64]) -> None:
        known = reads["antenna"] < len(self._apart)
        order = np.lexsort((reads["time_us"], tags))
        order = order[known[order]]
        if not len(order):
            return
        tag, antenna = tags[order], reads["antenna"][order].astype(np.int64)
        # Only where a tag is heard by another antenna than before, and its last read.
        turns = np.ones(len(order), bool)
        turns[1:-1] = (tag[1:-1] != tag[:-2]) | (antenna[1:-1] != antenna[:-2]) | (tag[1:-1] != tag[2:])
        turns[1:-1] |= antenna[1:-1] != antenna[2:]
        rows = order[turns]
        for key, at, time_us, row in zip(
            tags[rows].tolist(), antenna[turns].tolist(), reads["time_us"][rows].tolist(), rows.tolist(), strict=True
        ):
            seen = self._seen.get(key)
            if seen is None:
                self._seen[key] = _Seen(at, time_us)
                if len(self._seen) > MOST:
                    self._doubles.discard(self._seen.popitem(last=False)[0])
                continue
            self._seen.move_to_end(key)
            if self._apart[seen.antenna, at] and abs(time_us - seen.at_us) <= HOP_US:
                self._hop(key, seen, at, time_us, reads[row])
            elif seen.double is not None and time_us - seen.hop_us > CALM_US:
                seen.double = None
                self._doubles.discard(key)
            seen.antenna, seen.at_us = at, time_us

    def _hop(self, key: int, seen: _Seen, antenna: int, time_us: int, read: Reads) -> None:
        seen.hop_us = time_us
        if seen.hops_us and abs(time_us - seen.hops_us[-1]) < COUNT_US:
            return
        seen.hops_us = [us for us in seen.hops_us if us > time_us - HOPS_US] + [time_us]
        if len(seen.hops_us) >= HOPS and seen.double is None:
            (tag_class,) = self._shop.classify(read["epc"][None]).tolist()
            seen.double = Double(tag_class, time_us, (seen.antenna, antenna))
            self._doubles.add(key)
            self._fresh.append(seen.double)
