"""Sink of a forwarder's sessions: what they deliver goes to the spool, reads together a few times a second."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from drivers.read import Reads
from drivers.session import Contact, Gap, Link, Notice, ReaderStatus
from edge.forwarding.records import READS_MAX, Alive, Linked, Missed, Said, Switched, What, packed
from edge.forwarding.spool import Spool


class Gathering:
    """Call `flush` every few milliseconds, `alive` every second. `wake` is called when the spool has something new."""

    def __init__(self, readers: Iterable[str], now_us: int) -> None:
        # As at any start, a reader may have kept its reads.
        self.readers = {id_: ReaderStatus(id_, Link.DOWN, "not yet connected", now_us, keeps=True) for id_ in readers}
        self.reads_of = dict.fromkeys(self.readers, 0)
        self.spool: Spool
        self.wake: Callable[[], None] = lambda: None
        self._batches: list[tuple[str, Reads]] = []
        self._quiet = True

    def state(self) -> Iterator[What]:
        """Yield the state of each reader."""
        yield from (Linked(status) for status in self.readers.values())

    async def reads(self, reader: str, batch: Reads) -> None:
        """Gather a batch."""
        self.reads_of[reader] += len(batch)
        self._batches.extend((reader, batch[at : at + READS_MAX]) for at in range(0, len(batch), READS_MAX))

    def status(self, status: ReaderStatus) -> None:
        """Keep a change of a link, behind the reads that came before it."""
        self.readers[status.reader] = status
        self._keep(Linked(status))

    def gap(self, gap: Gap) -> None:
        self._keep(Missed(gap))

    def notice(self, notice: Notice) -> None:
        self._keep(Said(notice))

    def contact(self, contact: Contact) -> None:
        self._keep(Switched(contact))

    def flush(self) -> None:
        """Keep what has been gathered."""
        if self._batches:
            self._keep()

    def alive(self) -> None:
        """Keep a sign of life, if nothing else was kept since the last call."""
        if self._quiet:
            self._keep(Alive())
        self._quiet = True

    def _keep(self, *whats: What) -> None:
        together: list[tuple[str, Reads]] = []
        n = 0
        made: list[What] = []
        for reader, batch in self._batches:
            if n + len(batch) > READS_MAX:
                made.append(packed(together))
                together, n = [], 0
            together.append((reader, batch))
            n += len(batch)
        if together:
            made.append(packed(together))
        self._batches.clear()
        self._quiet = False
        self.spool.append(*made, *whats)
        self.wake()
