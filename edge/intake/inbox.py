"""What readers' sessions deliver, kept in order of arrival until the pipeline takes it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress

from drivers.read import Reads
from drivers.session import Contact, Gap, Notice, ReaderStatus

log = logging.getLogger("tagtrail.inbox")

MAX_READS = 500_000
"""Reads that may wait; beyond, sessions wait and their readers buffer …"""
MAX_OF_READER = MAX_READS // 2
"""… and of one reader, so that the others are not held up by it."""
BATCH_READS = 20
"""What a batch takes beside its reads, in reads."""
MAX_EVENTS = 10_000
"""Contacts and notices of a reader that may wait; further ones are dropped."""

Item = tuple[str, Reads] | ReaderStatus | Gap | Notice | Contact
"""A reader's id with its reads, or something that happened at a reader."""


class Inbox:
    """The sink of every session. A session with reads waits while it is full; changes of links are always taken."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._waiting = 0
        self._waiting_of: Counter[str] = Counter()
        self._events_of: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        """Reader → contacts and notices that were dropped."""
        self._arrived = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()

    async def reads(self, reader: str, batch: Reads) -> None:
        """Queue a batch; waits while the inbox is full, of all readers' reads or of this one's."""
        while self._waiting >= MAX_READS or self._waiting_of[reader] >= MAX_OF_READER:
            self._drained.clear()
            await self._drained.wait()
        self._count(reader, batch, 1)
        self._put((reader, batch))

    def status(self, status: ReaderStatus) -> None:
        """Queue a change of a reader's link, in its place among the reads."""
        self._put(status)

    def gap(self, gap: Gap) -> None:
        """Queue a loss of reads."""
        self._put(gap)

    def notice(self, notice: Notice) -> None:
        """Queue a remark of a reader for health."""
        self._put_event(notice)

    def contact(self, contact: Contact) -> None:
        """Queue a change of an input."""
        self._put_event(contact)

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
        """Yield what is queued, the oldest first, and what arrives meanwhile; sessions that wait go on at the end."""
        self._arrived.clear()
        while self._items:
            item = self._items.popleft()
            if isinstance(item, tuple):
                self._count(*item, -1)
            elif isinstance(item, Contact | Notice):
                self._events_of[item.reader] -= 1
            yield item
        self._drained.set()

    def _count(self, reader: str, batch: Reads, sign: int) -> None:
        self._waiting += sign * (len(batch) + BATCH_READS)
        self._waiting_of[reader] += sign * (len(batch) + BATCH_READS)

    def _put_event(self, item: Contact | Notice) -> None:
        if self._events_of[item.reader] >= MAX_EVENTS:
            self.dropped[item.reader] += 1
            if self.dropped[item.reader] == 1:
                log.warning("reader %s reports more events than can be taken; further ones are dropped", item.reader)
            return
        self._events_of[item.reader] += 1
        self._put(item)

    def _put(self, item: Item) -> None:
        self._items.append(item)
        self._arrived.set()
