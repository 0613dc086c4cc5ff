"""The store's one clock. A demo runs it faster than the wall's; everything else asks it and never the wall."""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Clock:
    """UTC in microseconds: `origin_us` at the wall's `origin_us`, from there `speed` times as fast."""

    speed: float = 1.0
    origin_us: int = 0

    def now_us(self) -> int:
        """Store time now."""
        return self.of(time.time_ns() // 1000)

    def of(self, wall_us: int) -> int:
        """Store time of a moment of the wall's clock."""
        return wall_us if self.speed == 1 else self.origin_us + round((wall_us - self.origin_us) * self.speed)

    def wall_us(self, store_us: int) -> int:
        """The wall's time of a moment of the store's clock."""
        return store_us if self.speed == 1 else self.origin_us + round((store_us - self.origin_us) / self.speed)

    def wall_s(self, store_us: int) -> float:
        """Wall seconds that a span of store microseconds takes."""
        return store_us / 1e6 / self.speed


def offset_us() -> int | None:
    """The machine's clock minus true time as its kernel knows it, 0 where a daemon steers it without telling more.

    None while nothing keeps it right, and where nobody can be asked. See adjtimex(2), which ProtectClock=yes forbids;
    then systemd-timesyncd's own mark counts: it is there, and fresh, while that keeps the clock.
    """
    state = _Timex()
    try:
        if ctypes.CDLL(None).adjtimex(ctypes.byref(state)) < 0:
            return 0 if time.time() - SYNCHRONISED.stat().st_mtime < SYNCHRONISED_S else None
    except (AttributeError, OSError):  # not Linux; no mark
        return None
    if state.status & _UNSYNCHRONISED:
        return None
    return -int(state.offset) // (1000 if state.status & _NANOSECONDS else 1)


SYNCHRONISED = Path("/run/systemd/timesync/synchronized")
"""Touched whenever systemd-timesyncd has put the clock right."""
SYNCHRONISED_S = 3 * 2048
"""It does so every 2048 s at least."""
_UNSYNCHRONISED, _NANOSECONDS = 0x40, 0x2000


class _Timex(ctypes.Structure):
    """The beginning of struct timex; `modes` 0 only reads. `offset`: what is still to be added to the clock."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_long * 32),
    )
