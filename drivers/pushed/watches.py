"""What the order of reads tells about a reader: lost ones, and a filter that reports a tag only now and then."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drivers.read import Reads

RESTART = 10_000
"""A number that is smaller by more than this, or a jump that is larger, means that the reader counts anew."""
SPACING_US = 2_000_000
"""A tag that stays should be read at least this often."""
INTERVALS = 20
"""Intervals that must all be longer before it is reported."""
TAGS_MIN, TAGS_MAX = 2, 16
"""Tags that they must come from; tags that are watched at a time."""
GONE_US = 120_000_000
"""A longer interval is an absence."""


class Numbering:
    """Finds gaps in the numbers that a reader gives its messages."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._last_us = 0

    def take(self, numbers: NDArray[np.float64], times: NDArray[np.int64]) -> tuple[int, int, int] | None:
        """Return the number of missing messages, and the times of the reads around the gap; numbers may be NaN."""
        given = ~np.isnan(numbers)
        if not given.any():
            return None
        row = np.nonzero(given)[0]
        here, at = numbers[row], times[row]
        before = np.concatenate([[here[0] - 1 if self._last is None else self._last], here[:-1]])
        before_us = np.concatenate([[at[0] if self._last is None else self._last_us], at[:-1]])
        step = here - before
        jumps = np.nonzero((step > 1) & (step < RESTART))[0]
        if here[-1] > (self._last or 0) or here[-1] < (self._last or 0) - RESTART or here[-1] <= 1:
            self._last, self._last_us = float(here[-1]), int(at[-1])
        if not len(jumps):
            return None
        return int((step[jumps] - 1).sum()), int(before_us[jumps[0]]), int(at[jumps[-1]])


class Spacing:
    """Measures how often the same tag at the same antenna is reported."""

    def __init__(self) -> None:
        self._seen: dict[bytes, int] = {}
        self._intervals: list[int] = []
        self._tags: set[bytes] = set()

    def take(self, reads: Reads) -> float | None:
        """Return the usual interval in seconds if all are too long, once enough are known."""
        if len(reads) > 64 or not len(reads):  # no reader with such a filter sends that many at a time for long
            return None
        for read in reads:
            key, time_us = read["epc"].tobytes() + read["antenna"].tobytes(), int(read["time_us"])
            seen_us = self._seen.get(key)
            if seen_us is None:
                if len(self._seen) >= TAGS_MAX:
                    oldest = min(self._seen, key=self._seen.__getitem__)
                    if time_us - self._seen[oldest] < GONE_US:
                        continue
                    del self._seen[oldest]
            elif time_us - seen_us < SPACING_US:
                if time_us > seen_us:
                    self._intervals.clear()
                    self._tags.clear()
            elif time_us - seen_us < GONE_US:
                self._intervals.append(time_us - seen_us)
                self._tags.add(key)
            self._seen[key] = max(time_us, seen_us or 0)
        if len(self._intervals) < INTERVALS or len(self._tags) < TAGS_MIN:
            return None
        usual = float(np.median(self._intervals)) / 1e6
        self._intervals.clear()
        self._tags.clear()
        return usual
