"""Correction of a reader's clock to store time: steady, so that buffered reports keep their own times."""

from __future__ import annotations

from collections import deque

BUCKET_US = 10_000_000
WINDOW_BUCKETS = 30
"""Five minutes: in that time crystals of 50 ppm drift 15 ms apart."""
STEP_US = 1_000_000
"""A difference beyond this means that the clock was set, once confirmed; a smaller one is delay or drift."""
STEP_SAMPLES = 3
STEP_BACK_US = 10_000_000
"""Time that a clock must seem set back: buffered reports look like that too, but not so consistently."""


class ReaderClock:
    """Estimates `correction_us`, to be added to the reader's times, from the smallest delay in a sliding window.

    A message's delay is store time at its receipt minus the newest reader time in it: offset plus a transport delay,
    which is never negative, so that the smallest comes nearest to the offset. Corrections up to `tolerance_us` count
    as none: below that the delay is all there is. Cf. Moon, Skelly and Towsley, INFOCOM 1999, on one-way delays.
    """

    def __init__(self, tolerance_us: int) -> None:
        self.tolerance_us = tolerance_us
        self.step_us = max(STEP_US, 10 * tolerance_us)
        """A change of the estimate beyond this means that the clock was set."""
        self._buckets: deque[tuple[int, int]] = deque(maxlen=WINDOW_BUCKETS)
        self._smallest: int | None = None
        self._odd: list[tuple[int, int]] = []

    @property
    def correction_us(self) -> int | None:
        """Store time minus reader time; 0 within the tolerance, None before the first sample."""
        if self._smallest is None:
            return None
        return self._smallest if abs(self._smallest) > self.tolerance_us else 0

    @property
    def offset_us(self) -> int | None:
        """Reader time minus store time as estimated, whatever the tolerance."""
        return None if self._smallest is None else -self._smallest

    def sample(self, reader_us: int, received_us: int) -> None:
        """Add a sample: the newest reader time of a message received at `received_us` (store clock)."""
        delay = received_us - reader_us
        if self._smallest is not None and abs(delay - self._smallest) > self.step_us:
            self._disagrees(delay, received_us)
            return
        self._odd.clear()
        self._agrees(delay, received_us)

    def _agrees(self, delay: int, received_us: int) -> None:
        bucket = received_us // BUCKET_US
        if self._buckets and self._buckets[-1][0] == bucket:
            if delay >= self._buckets[-1][1]:
                return
            self._buckets[-1] = (bucket, delay)
        else:
            while self._buckets and self._buckets[0][0] <= bucket - WINDOW_BUCKETS:
                self._buckets.popleft()
            self._buckets.append((bucket, delay))
        self._smallest = min(smallest for _, smallest in self._buckets)

    def _disagrees(self, delay: int, received_us: int) -> None:
        if self._odd and abs(delay - self._odd[-1][1]) > self.step_us // 2:
            self._odd.clear()
        self._odd.append((received_us, delay))
        since_us, first = self._odd[0]
        assert self._smallest is not None
        back = first > self._smallest
        if len(self._odd) >= STEP_SAMPLES and (not back or received_us - since_us >= STEP_BACK_US):
            steadiest = [d for _, d in self._odd]
            if max(steadiest) - min(steadiest) <= self.step_us:
                self._buckets.clear()
                self._smallest = None
                self._odd.clear()
                self._agrees(min(steadiest), received_us)
            else:
                del self._odd[0]
        elif len(self._odd) > 10 * STEP_SAMPLES:
            del self._odd[1]
