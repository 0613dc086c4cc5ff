"""Queue between reader sessions and the pipeline, in order of arrival."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress

from drivers.read import Reads
from drivers.session import Contact, Gap, Notice, ReaderStatus
from edge.forwarding.relay import Mark

log = logging.getLogger("tagtrail.inbox")

MAX_READS = 500_000
"""Maximum number of queued reads; beyond it, sessions wait and their readers buffer."""
MAX_OF_READER = MAX_READS // 2
"""Maximum number of queued reads per reader, so that one reader can't block the others."""
BATCH_READS = 20
"""Overhead of a batch, in reads."""
MAX_EVENTS = 10_000
"""Maximum number of queued contacts and notices per reader; further ones are dropped."""

Item = tuple[str, Reads] | ReaderStatus | Gap | Notice | Contact | Mark
"""A reader's id with its reads, an event of a reader, or how far a forwarder's are here."""


class Inbox:
    """Sink of all sessions. A session with reads waits while the inbox is full; link changes are always accepted."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._waiting = 0
        self._waiting_of: Counter[str] = Counter()
        self._events_of: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        """Reader → number of dropped contacts and notices."""
        self._since_s: float | None = None
        self._arrived = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()

    @property
    def waiting(self) -> tuple[int, float]:
        """Return how many reads wait, and for how many seconds the oldest item has waited."""
        reads = sum(len(item[1]) for item in self._items if isinstance(item, tuple))
        return reads, 0.0 if self._since_s is None else time.monotonic() - self._since_s

    async def reads(self, reader: str, batch: Reads) -> None:
        """Queue a batch; waits while the inbox is full with all readers' reads or with this reader's."""
        while self._waiting >= MAX_READS or self._waiting_of[reader] >= MAX_OF_READER:
            self._drained.clear()
            await self._drained.wait()
        self._count(reader, batch, 1)
        self._put((reader, batch))

    def status(self, status: ReaderStatus) -> None:
        """Queue a change of a reader's link, in order with the reads."""
        self._put(status)

    def gap(self, gap: Gap) -> None:
        """Queue a loss of reads."""
        self._put(gap)

    def notice(self, notice: Notice) -> None:
        """Queue a reader's notice for health."""
        self._put_event(notice)

    def contact(self, contact: Contact) -> None:
        """Queue a change of an input."""
        self._put_event(contact)

    def mark(self, mark: Mark) -> None:
        """Queue how far a forwarder's reads and events are in the queue."""
        self._put(mark)

    async def wait(self, timeout_s: float, gather_s: float) -> None:
        """Return `gather_s` after something has arrived, or after `timeout_s` with nothing."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._arrived.wait()
            await asyncio.sleep(gather_s)

    def wake(self) -> None:
        """Let `wait` return although nothing has arrived."""
        self._arrived.set()

    def take(self) -> Iterator[Item]:
        """Yield queued items, oldest first, and those arriving meanwhile; then wake up waiting sessions."""
        self._arrived.clear()
        while self._items:
            item = self._items.popleft()
            if isinstance(item, tuple):
                self._count(*item, -1)
            elif isinstance(item, Contact | Notice):
                self._events_of[item.reader] -= 1
            yield item
        self._since_s = None
        self._drained.set()

    def _count(self, reader: str, batch: Reads, sign: int) -> None:
        self._waiting += sign * (len(batch) + BATCH_READS)
        self._waiting_of[reader] += sign * (len(batch) + BATCH_READS)

    def _put_event(self, item: Contact | Notice) -> None:
        if self._events_of[item.reader] >= MAX_EVENTS:
            self.dropped[item.reader] += 1
            if self.dropped[item.reader] == 1:
                log.warning("reader %s reports too many events; further ones are dropped", item.reader)
            return
        self._events_of[item.reader] += 1
        self._put(item)

    def _put(self, item: Item) -> None:
        if self._since_s is None:
            self._since_s = time.monotonic()
        self._items.append(item)
        self._arrived.set()
