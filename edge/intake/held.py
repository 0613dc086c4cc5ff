"""What readers' sessions deliver while the time is not to be trusted: kept until it is, and then put in its place."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from drivers.session import Contact, Gap, Notice, ReaderStatus
from edge.forwarding.relay import Mark
from edge.intake.inbox import BATCH_READS, Item
from edge.store.timekeeping import Timekeeper

MOST_READS = 500_000
"""Reads kept: a quarter of an hour of a busy shop. Beyond, the oldest are dropped, which is a gap of all readers."""
MOST_EVENTS = 20_000
"""Changes of links, gaps, notices and contacts kept."""


class Held:
    """Items in order of arrival, each with the monotonic time and the store time of then."""

    def __init__(self) -> None:
        self._reads: deque[tuple[int, int, Item]] = deque()
        self._events: deque[tuple[int, int, Item]] = deque(maxlen=MOST_EVENTS)
        self._n = 0
        self.dropped: tuple[int, int] | None = None
        """Monotonic times between which reads were dropped."""

    def __bool__(self) -> bool:
        return bool(self._reads or self._events)

    def put(self, item: Item, mono_us: int, store_us: int) -> None:
        """Keep an item; the oldest reads go for it if there are too many."""
        if not isinstance(item, tuple):
            self._events.append((mono_us, store_us, item))
            return
        self._reads.append((mono_us, store_us, item))
        self._n += len(item[1]) + BATCH_READS
        while self._n > MOST_READS and len(self._reads) > 1:
            gone_us, _, (_, batch) = self._reads.popleft()  # type: ignore[misc]
            self._n -= len(batch) + BATCH_READS
            self.dropped = (self.dropped[0] if self.dropped else gone_us, gone_us)

    @property
    def reads(self) -> int:
        """Number of reads kept."""
        return self._n - BATCH_READS * len(self._reads)

    def items(self) -> Iterator[tuple[int, int, Item]]:
        """Yield all items in order without taking them."""
        yield from heapq.merge(self._reads, self._events, key=lambda held: held[0])

    def release(self, time: Timekeeper) -> Iterator[Item]:
        """Yield all items in order, with their times as they are by the clock that is trusted now."""
        while self:
            first = min((queue for queue in (self._reads, self._events) if queue), key=lambda queue: queue[0][0])
            mono_us, store_us, item = first.popleft()
            yield moved(item, time.store_us(mono_us) - store_us)
        self._n, self.dropped = 0, None


def nearer(item: Item, by_us: int, now_us: int) -> Item:
    """An item that comes right after the clock was set, by so much: it may have been stamped before that."""
    at_us = _time_us(item)
    return moved(item, by_us) if at_us is not None and abs(at_us + by_us - now_us) < abs(at_us - now_us) else item


def _time_us(item: Item) -> int | None:
    if isinstance(item, tuple):
        return int(item[1]["time_us"][-1]) if len(item[1]) else None
    if isinstance(item, ReaderStatus):
        return item.since_us
    if isinstance(item, Mark):
        return None
    return item.to_us if isinstance(item, Gap) else item.at_us


def moved(item: Item, by_us: int) -> Item:
    """An item with all its times moved."""
    if by_us == 0:
        return item
    if isinstance(item, tuple):
        reader, batch = item
        batch = batch.copy()
        batch["time_us"] += by_us
        return reader, batch
    if isinstance(item, ReaderStatus):
        from_us = item.reads_from_us
        return replace(item, since_us=item.since_us + by_us, reads_from_us=from_us and from_us + by_us)
    if isinstance(item, Gap):
        return replace(item, from_us=item.from_us + by_us, to_us=item.to_us + by_us)
    if isinstance(item, Mark):
        return replace(item, newest_us=item.newest_us and item.newest_us + by_us)
    assert isinstance(item, Contact | Notice)
    return replace(item, at_us=item.at_us + by_us)
