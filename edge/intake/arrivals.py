"""What the pipeline may take: nothing while the time is unknown; after that everything, with corrected times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from drivers.session import Link, ReaderStatus
from edge.intake.held import Held, nearer
from edge.intake.held_rows import HeldItem
from edge.intake.inbox import Inbox, Item
from edge.store.clock import Clock
from edge.store.timekeeping import Step, Timekeeper

SETTLE_US = 12_000_000
"""Time within which the readers' own times are right again after the clock was set."""


class Arrivals:
    """The inbox, held back by the timekeeper. Links and reads are shown in `readers` and `reads_of` at once."""

    def __init__(
        self,
        inbox: Inbox,
        time: Timekeeper,
        clock: Clock,
        readers: dict[str, ReaderStatus],
        reads_of: dict[str, int],
    ) -> None:
        self._inbox = inbox
        self._time = time
        self._clock = clock
        self._readers, self._reads_of = readers, reads_of
        self._held = Held()
        self._stepped: Step | None = None
        """From the first to the last time that the clock was set, since `step` was last asked."""
        self._settling: tuple[int, int] | None = None
        """Until when (monotonic) times may be of before the clock was set, and by how much it was."""

    @property
    def dropped(self) -> tuple[int, int] | None:
        """From when to when reads were dropped because too many were held."""
        span = self._held.dropped
        return None if span is None else (self._time.store_us(span[0]), self._time.store_us(span[1]))

    def look(self) -> bool:
        """Look at the clock; False while everything is held back."""
        steps = self._time.look()
        self._time.readers = {id_: status.clock_offset_us for id_, status in self._readers.items()}
        if steps:
            self._settling = self._time.mono_us() + SETTLE_US, sum(step.by_us for step in steps)
            self._stepped = replace(self._stepped or steps[0], to_us=steps[-1].to_us)
        if not self._time.untrusted:
            return True
        mono_us, store_us = self._time.mono_us(), self._clock.now_us()
        for item in self._fresh():
            self._held.put(item, mono_us, store_us)
        return False

    @property
    def held_reads(self) -> int:
        """Number of reads held back."""
        return self._held.reads

    def hold(self, items: Iterable[HeldItem]) -> int | None:
        """Hold items of an earlier service on this boot as well; return when the first came (monotonic), if any did."""
        first_us = None
        for mono_us, store_us, item in items:
            first_us = mono_us if first_us is None else first_us
            self._held.put(item, mono_us, store_us)
        return first_us

    def to_keep(self, linked: Iterable[ReaderStatus]) -> list[HeldItem]:
        """Everything held, for the next service: between the links as they were taken, and their end now."""
        mono_us, store_us = self._time.mono_us(), self._clock.now_us()
        for item in self._fresh():
            self._held.put(item, mono_us, store_us)
        held = list(self._held.items())
        if not held:
            return []
        from_us, began_us, _ = held[0]
        before = [replace(status, since_us=began_us) for status in linked if status.link is Link.UP]
        # As at any start after a stop, a reader may have kept its reads.
        after = [
            ReaderStatus(status.reader, Link.DOWN, "the service was stopped", store_us, keeps=True)
            for status in self._readers.values()
            if status.link is Link.UP
        ]
        return [
            *((from_us, began_us, status) for status in before),
            *held,
            *((mono_us, store_us, status) for status in after),
        ]

    def step(self) -> Step | None:
        """The change of the clock since this was last asked."""
        step, self._stepped = self._stepped, None
        return step

    def take(self) -> Iterator[Item]:
        """Yield what was held, then what has come."""
        yield from self._held.release(self._time)
        yield from self._fresh()

    def _fresh(self) -> Iterator[Item]:
        if self._settling is not None and self._time.mono_us() > self._settling[0]:
            self._settling = None
        for came in self._inbox.take():
            item = came if self._settling is None else nearer(came, self._settling[1], self._clock.now_us())
            if isinstance(item, ReaderStatus):
                self._readers[item.reader] = item
            elif isinstance(item, tuple):
                self._reads_of[item[0]] += len(item[1])
            yield item
