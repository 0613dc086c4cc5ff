"""What readers' sessions deliver, kept in order of arrival until the pipeline takes it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

from drivers.read import Reads
from drivers.session import Contact, Gap, Notice, ReaderStatus

MAX_READS = 500_000
"""Reads that may wait; beyond, sessions wait and their readers buffer."""

Item = tuple[str, Reads] | ReaderStatus | Gap | Notice | Contact
"""A reader's id with its reads, or something that happened at a reader."""


class Inbox:
    """The sink of every session. Reads wait while it is full; everything else is small and always taken."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._waiting_reads = 0
        self._arrived = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()

    async def reads(self, reader: str, batch: Reads) -> None:
        """Queue a batch; waits while the inbox is full."""
        while self._waiting_reads >= MAX_READS:
            self._drained.clear()
            await self._drained.wait()
        self._waiting_reads += len(batch)
        self._put((reader, batch))

    def status(self, status: ReaderStatus) -> None:
        """Queue a change of a reader's link, in its place among the reads."""
        self._put(status)

    def gap(self, gap: Gap) -> None:
        """Queue a loss of reads."""
        self._put(gap)

    def notice(self, notice: Notice) -> None:
        """Queue a remark of a reader for health."""
        self._put(notice)

    def contact(self, contact: Contact) -> None:
        """Queue a change of an input."""
        self._put(contact)

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
                self._waiting_reads -= len(item[1])
            yield item
        self._drained.set()

    def _put(self, item: Item) -> None:
        self._items.append(item)
        self._arrived.set()
