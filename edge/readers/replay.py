"""Reads from a file through the same engine: the same rows give the same visits, whenever and wherever it is run.

Without a calibration the store's radio is learnt from the reads, by their own time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drivers.read import ANTENNA_UNKNOWN, READ, Reads
from dwell.markov.engine import ZoneEngine
from dwell.markov.learner import Learner, look
from dwell.markov.tuning import TICK_US
from dwell.read import joined, kept
from dwell.visits import Visits
from edge.readers.doubles import Doubles
from edge.readers.read_file import CHUNK_ROWS, Report, chunks
from edge.store.compose import Shop

HELD_READS = 2_000_000
"""Most that are kept until the radio has been learnt."""
Second = tuple[Reads, int]
"""Reads of a second, and the newest time in all up to them."""


def replay(
    shop: Shop,
    path: Path,
    *,
    strict: bool = False,
    chunk_rows: int = CHUNK_ROWS,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Visits, Report]:
    """Visits (VISIT array, by enter time and EPC) of a file with the columns of read_file.HEADER in order of arrival.

    `path` and `progress` as in `read_file.chunks`, and the same Trouble. A row may come `lateness_s` later than a newer
    one; later rows are counted and left out.
    """
    report = Report()
    run, seconds = _Run(shop), _Seconds(shop)
    newest = np.iinfo(np.int64).min // 2
    for chunk in chunks(shop, path, report, strict=strict, chunk_rows=chunk_rows, progress=progress):
        # Lateness is judged in order of arrival, row by row, so that where a file is cut makes no difference.
        newest_by_row = np.maximum.accumulate(np.maximum(chunk["time_us"], newest))
        newest = int(newest_by_row[-1])
        in_time = chunk["time_us"] >= newest_by_row - shop.settings.lateness_us
        report.late += int((~in_time).sum())
        known = chunk["antenna"] != ANTENNA_UNKNOWN
        report.unknown_antenna += int((~known).sum())
        good = in_time & known
        run.take(seconds.complete(chunk[good], newest_by_row[good]))
    run.take(seconds.rest())
    visits = run.finish()
    report.visits = len(visits)
    order = sorted(range(len(visits)), key=lambda i: (int(visits["enter_us"][i]), visits["epc"][i].tolist()))
    return visits[order], report


class _Seconds:
    """Reads by the second of their arrival, without those of tags at two places at once: wherever a file is cut, the
    same are excluded."""

    def __init__(self, shop: Shop) -> None:
        self._doubles = Doubles(shop)
        self._reads = np.zeros(0, READ)
        self._newest_us = np.zeros(0, np.int64)

    def complete(self, reads: Reads, newest_us: NDArray[np.int64]) -> list[Second]:
        """Take reads with the newest time up to each; return the seconds that are complete."""
        self._reads = joined([self._reads, reads])
        self._newest_us = np.concatenate([self._newest_us, newest_us])
        second = self._newest_us // TICK_US
        return self._cut(int(np.searchsorted(second, second[-1]))) if len(second) else []

    def rest(self) -> list[Second]:
        """Return what is left at the end."""
        return self._cut(len(self._reads))

    def _cut(self, n: int) -> list[Second]:
        if not n:
            return []
        reads, newest_us = self._reads[:n], self._newest_us[:n]
        self._reads, self._newest_us = self._reads[n:], self._newest_us[n:]
        ends = np.append(np.flatnonzero(np.diff(newest_us // TICK_US)) + 1, n)
        parts = np.split(reads, ends[:-1])
        return [(self._doubles.filter(part), int(newest_us[end - 1])) for part, end in zip(parts, ends, strict=True)]


class _Run:
    """An engine, and what it learns as it goes. It begins when the first half hour has told what it can."""

    def __init__(self, shop: Shop) -> None:
        self._layout, self._settings, self._field = shop.layout, shop.settings, shop.field
        self._learner = Learner(shop.layout, known=shop.field is not None)
        self._engine: ZoneEngine | None = None
        self._held: list[Reads] = []
        self._held_reads = 0
        self._closed: list[Visits] = []
        if shop.field is not None:
            self._begun()

    def take(self, seconds: list[Second]) -> None:
        """Whole seconds in order of arrival; none that comes later is older than the newest time - lateness."""
        held = 0
        while self._engine is None and held < len(seconds):
            self._hold(*seconds[held])
            held += 1
        if held == len(seconds):
            return
        reads, newest_us = joined([reads for reads, _ in seconds[held:]]), seconds[-1][1]
        engine = self._begun()
        engine.feed(reads)
        if not self._learner.over:
            self._look(reads, newest_us)
        self._closed.append(engine.advance(newest_us).closed)

    def _hold(self, reads: Reads, newest_us: int) -> None:
        self._held += kept(reads)
        self._held_reads += len(reads)
        self._look(reads, newest_us)
        if self._learner.over or self._held_reads > HELD_READS:
            self._closed.append(self._begun().advance(newest_us).closed)

    def _look(self, reads: Reads, newest_us: int) -> None:
        learner, late_us = self._learner, self._settings.lateness_us
        learner.feed(reads)
        while learner.due(newest_us - late_us):
            due_us = learner.due_us
            assert due_us is not None
            if self._engine is not None:
                self._closed.append(self._engine.advance(due_us + late_us).closed)
            self._learn(learner.take())

    def finish(self) -> Visits:
        """All visits."""
        if self._engine is None:
            # What a part has taught knows the tags of that part: it would be compared by them.
            sample, before, self._field = self._learner.finish(), self._field, None
            self._learn(sample)
            self._learn(sample)
            self._field = self._field or before
        self._closed.append(self._begun().finish().closed)
        return np.concatenate(self._closed)

    def _begun(self) -> ZoneEngine:
        """The engine, with all that was held."""
        if self._engine is None:
            self._engine = ZoneEngine(self._layout, self._settings, field=self._field)
            for reads in self._held:
                self._engine.feed(reads)
            self._held.clear()
        return self._engine

    def _learn(self, sample: Reads) -> None:
        """Go on with what a sample tells: the first time whatever fits best, then what explains reads better."""
        found = look(self._layout, sample, self._field)
        if found is None or (self._field is not None and not found.better):
            return
        self._field = found.field
        if self._engine is not None:
            self._engine.adopt(self._engine.model(found.field))
