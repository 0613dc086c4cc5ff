"""Reads that a reader buffered while disconnected: when they have all arrived, and which of them were lost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drivers.session import Gap

OLD_TOLERANCES = 20
"""A read is a buffered one if it arrives more than this many clock tolerances late (2 s of wall time)."""
HOLE_TOLERANCES = 50


class Backlog:
    """Tracks a connection that begins with buffered reads; times are store time. The backlog has drained once no
    buffered read has arrived for `quiet_s` wall seconds: buffered and new reports may be mixed.
    """

    def __init__(self, from_us: int, up_us: int, tolerance_us: int, quiet_s: float, now_s: float) -> None:
        self.from_us = from_us
        """Buffered reads made since then may still arrive."""
        self.overflowed = False
        self._up_us, self._tolerance_us, self._quiet_s = up_us, tolerance_us, quiet_s
        self._old_s = now_s
        self._newest_old_us = from_us

    def take(self, times: NDArray[np.int64], received_us: int, now_s: float) -> None:
        """Note that reads made at `times` were received and delivered."""
        old = times[times < received_us - OLD_TOLERANCES * self._tolerance_us]
        if len(old):
            self._old_s = now_s
            self.from_us = max(self.from_us, int(old.min()))
            self._newest_old_us = max(self._newest_old_us, int(old.max()))

    def left_s(self, now_s: float) -> float:
        """Wall seconds until the backlog counts as drained; 0 or less if it has."""
        return self._old_s + self._quiet_s - now_s

    def missing_us(self) -> tuple[int, int] | None:
        """Gap after an overflow, between the last buffered read and the start of the connection. Some readers drop the
        oldest reports when their memory is full, others the newest.
        """
        hole = self._newest_old_us, self._up_us
        return hole if self.overflowed and hole[1] - hole[0] > HOLE_TOLERANCES * self._tolerance_us else None


class LossWatch:
    """Turns an overflow into a gap: from the newest read before the reader reported it to the oldest after it."""

    REASON = "the reader's memory overflowed: reads were lost"

    def __init__(self, reader: str, newest_us: int) -> None:
        self.newest_us = newest_us
        self._reader = reader
        self._since: tuple[int, float] | None = None

    @property
    def open(self) -> bool:
        """True while a loss has not ended."""
        return self._since is not None

    def overflow(self, now_s: float) -> None:
        """Note that the reader reports an overflow."""
        if self._since is None:
            self._since = self.newest_us, now_s

    def take(self, times: NDArray[np.int64]) -> Gap | None:
        """Note received reads; returns the gap that they end, if one is open."""
        gap = self._close(int(times.min())) if self.open else None
        self.newest_us = max(self.newest_us, int(times.max()))
        return gap

    def tick(self, now_s: float, now_us: int, patience_s: float) -> Gap | None:
        """Return the gap that ends now because no further reads arrived, if there is one."""
        return self._close(now_us) if self._since is not None and now_s - self._since[1] > patience_s else None

    def _close(self, to_us: int) -> Gap | None:
        if self._since is None:
            return None
        from_us, self._since = self._since[0], None
        return Gap(self._reader, from_us, to_us, self.REASON) if to_us > from_us else None
