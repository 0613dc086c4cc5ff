"""Admission of tags to the engine, which limits memory use regardless of what readers report.

The engine needs some kilobytes per tag until its journey has ended, which may be hours after its last read. A reader
that reports thousands of new tags per second, because they are forged or because merchandise without a rule passes it,
would fill the memory and affect all other readers. Therefore:

1. A tag that the engine already follows is always admitted. So is merchandise, which the engine does not follow.
2. A reader may introduce BURST new tags at once, and PER_S per second of store time in the long run. Above that it
   counts as flooded until the rate has been normal for a minute. A new tag from a flooded reader must first be read
   PROVEN_READS times over PROVEN_US; unproven tags are forgotten, those not read for the longest time first.
3. No reader may have more than MOST_OF_READER tags, and there are no more than MOST_TAGS in total.

Tags are identified by their 64-bit hash, as in the greeter.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from drivers.read import Reads
from dwell.layout import TagClass
from dwell.read import hashed, picked
from edge.store.compose import Shop

MOST_TAGS, MOST_OF_READER = 12_000, 6_000
BURST, PER_S, CALM_S = 2_000.0, 100.0, 60.0
PROVEN_READS, PROVEN_US = 3, 10_000_000
MOST_WAITING = 20_000
"""Maximum number of unproven tags of all readers."""
AHEAD_US = 10_000_000
"""A read further ahead of the store's clock than this is ignored, because the engine will not reach its time soon."""
YOUNG_US = 120_000_000
"""A tag admitted within this time before the engine's time may not have reached the engine yet."""

FLOODED = "{n} new tags per second, more than plausible: new tags are followed only after being read for {s} s"
FULL = "{n} tags, the maximum for one reader: further tags are ignored"
CROWDED = "{n} tags in the store, the maximum: further tags are ignored"
CALM = "the number of new tags is back to normal; {n} reads were ignored meanwhile"


@dataclass
class _Reader:
    id: str
    credit: float = field(default_factory=lambda: BURST)
    credited_us: int | None = None
    held: int = 0
    """Number of followed tags from this reader."""
    flooded: bool = False
    full: bool = False
    left_out: int = 0
    """Ignored reads since the start."""
    told_left_out: int = 0
    """Ignored reads at the end of the last flood."""
    new: int = 0
    """Number of new tags since `new_since_us`."""
    new_since_us: int = 0


class Admission:
    """Filter of reads; `notices` yields messages about readers."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._readers = [_Reader(reader.id) for reader in shop.readers]
        self._reader_of = np.zeros(len(shop.ports), np.int64)
        for number, reader in enumerate(shop.readers):
            self._reader_of[shop.antennas_of[reader.id]] = number
        self._known = np.zeros(0, np.uint64)
        self._owner = np.zeros(0, np.int64)
        self._since_us = np.zeros(0, np.int64)
        self._waiting: OrderedDict[int, tuple[int, int]] = OrderedDict()
        """Tag → time of its first read and number of reads; longest silent first."""
        self._notices: list[tuple[str, str]] = []
        self._crowded = False
        self.ahead = 0
        """Number of ignored reads with times in the future."""

    @property
    def left_out(self) -> int:
        """Number of ignored reads since the start."""
        return self.ahead + sum(reader.left_out for reader in self._readers)

    def of(self, reader: str) -> tuple[bool, int]:
        """Return whether a reader is flooded, and the number of its ignored reads."""
        found = next(each for each in self._readers if each.id == reader)
        return found.flooded or found.full, found.left_out

    def restore(self, following: Reads) -> None:
        """Restore the tags that the engine already follows (rows with epc and epc_bits)."""
        self._known = np.unique(hashed(following))
        self._owner = np.full(len(self._known), -1)
        self._since_us = np.full(len(self._known), np.iinfo(np.int64).min)

    def filter(self, reads: Reads, now_us: int) -> Reads:
        """Return the reads for the engine and the greeter; `now_us`: the store's clock."""
        ahead = reads["time_us"] > now_us + AHEAD_US
        if ahead.any():
            self.ahead += int(ahead.sum())
            reads = picked(reads, ~ahead)
        tags = hashed(reads)
        through = self._find(tags)
        if through.all():
            return reads
        through |= reads["antenna"] >= len(self._reader_of)  # the engine counts unknown antennas
        new = np.flatnonzero(~through)
        goods = self._shop.classify(reads["epc"][new]) == TagClass.MERCHANDISE
        through[new[goods]] = True
        new = new[~goods]
        taken: dict[int, int] = {}
        numbers = self._reader_of[reads["antenna"][new]].tolist()
        for row, tag, at_us, number in zip(
            new.tolist(), tags[new].tolist(), reads["time_us"][new].tolist(), numbers, strict=True
        ):
            if tag in taken or self._take(self._readers[number], tag, at_us, len(self._known) + len(taken)):
                taken.setdefault(tag, number)
                through[row] = True
            else:
                self._readers[number].left_out += 1
        if taken:
            self._add(taken, now_us)
        return picked(reads, through)

    def keep(self, following: list[Reads], weighed_us: int) -> None:
        """Forget the tags that the engine no longer follows; `weighed_us`: time the engine has reached."""
        still = np.concatenate([np.zeros(0, np.uint64), *(hashed(rows) for rows in following)])
        stays = np.isin(self._known, still) | (self._since_us > weighed_us - YOUNG_US)
        self._known, self._owner, self._since_us = self._known[stays], self._owner[stays], self._since_us[stays]
        held = np.bincount(self._owner[self._owner >= 0], minlength=len(self._readers))
        for reader, n in zip(self._readers, held.tolist(), strict=True):
            reader.held = n
            reader.full &= n >= MOST_OF_READER
        self._crowded &= len(self._known) >= MOST_TAGS

    @property
    def pressed(self) -> bool:
        """True if tags are ignored because there are too many; `keep` may make room."""
        return self._crowded or any(reader.full for reader in self._readers)

    def notices(self, now_us: int) -> Iterator[tuple[str, str]]:
        """Yield (reader, message) since the last call."""
        for reader in self._readers:
            if reader.flooded:  # it may have stopped reporting
                self._refill(reader, now_us)
        while self._notices:
            yield self._notices.pop(0)

    def _take(self, reader: _Reader, tag: int, at_us: int, n_known: int) -> bool:
        """Return whether to follow a tag from now on."""
        self._refill(reader, at_us)
        waited = self._waiting.get(tag)
        if waited is None:
            self._count_new(reader, at_us)
        room = self._room(reader, n_known)
        first_us, n = waited or (at_us, 0)
        proven = n + 1 >= PROVEN_READS and at_us - first_us >= PROVEN_US
        if room and (proven or not reader.flooded):
            self._waiting.pop(tag, None)
            reader.held += 1
            return True
        self._waiting[tag] = (first_us, n + 1)
        self._waiting.move_to_end(tag)
        if len(self._waiting) > MOST_WAITING:
            self._waiting.popitem(last=False)
        return False

    def _refill(self, reader: _Reader, at_us: int) -> None:
        if reader.credited_us is None:
            reader.credited_us = reader.new_since_us = at_us
        if at_us > reader.credited_us:
            reader.credit = min(BURST, reader.credit + (at_us - reader.credited_us) * PER_S / 1e6)
            reader.credited_us = at_us
        if reader.flooded and reader.credit >= PER_S:
            reader.flooded = False
            self._tell(reader, CALM.format(n=reader.left_out - reader.told_left_out))
            reader.told_left_out = reader.left_out

    def _count_new(self, reader: _Reader, at_us: int) -> None:
        if at_us - reader.new_since_us > 10_000_000:
            reader.new, reader.new_since_us = 0, at_us
        reader.new += 1
        reader.credit = max(-PER_S * CALM_S, reader.credit - 1)
        if reader.credit < 0 and not reader.flooded:
            reader.flooded = True
            seconds = max(1.0, (at_us - reader.new_since_us) / 1e6)
            self._tell(reader, FLOODED.format(n=round(reader.new / seconds), s=PROVEN_US // 1_000_000))

    def _room(self, reader: _Reader, n_known: int) -> bool:
        if reader.held >= MOST_OF_READER:
            if not reader.full:
                reader.full = True
                self._tell(reader, FULL.format(n=reader.held))
            return False
        if n_known >= MOST_TAGS:
            if not self._crowded:
                self._crowded = True
                self._tell(reader, CROWDED.format(n=n_known))
            return False
        return True

    def _tell(self, reader: _Reader, text: str) -> None:
        self._notices.append((reader.id, text))

    def _find(self, tags: NDArray[np.uint64]) -> NDArray[np.bool_]:
        if not len(self._known):
            return np.zeros(len(tags), np.bool_)
        places = np.minimum(np.searchsorted(self._known, tags), len(self._known) - 1)
        found: NDArray[np.bool_] = self._known[places] == tags
        return found

    def _add(self, taken: dict[int, int], now_us: int) -> None:
        tags = np.fromiter(taken, np.uint64, len(taken))
        known = np.concatenate([self._known, tags])
        owner = np.concatenate([self._owner, np.fromiter(taken.values(), np.int64, len(taken))])
        since_us = np.concatenate([self._since_us, np.full(len(tags), now_us, np.int64)])
        order = np.argsort(known, kind="stable")
        self._known, self._owner, self._since_us = known[order], owner[order], since_us[order]
