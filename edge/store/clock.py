"""Store clock, which all code uses instead of the wall clock. A demo runs it faster."""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Clock:
    """UTC in microseconds: equal to wall time at `origin_us`, from there `speed` times as fast."""

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


def offset_us() -> int | None:
    """Return the machine's clock minus true time as the kernel knows it, 0 if a daemon keeps it without an estimate.

    None while the clock isn't synchronised, or where that is unknown. See adjtimex(2), which ProtectClock=yes forbids;
    then systemd-timesyncd's stamp file counts: it exists, and is recent, while that keeps the clock.
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
"""Touched whenever systemd-timesyncd has set the clock."""
SYNCHRONISED_S = 3 * 2048
"""Maximum age of the file; it is touched at least every 2048 s."""
_UNSYNCHRONISED, _NANOSECONDS = 0x40, 0x2000


class _Timex(ctypes.Structure):
    """Beginning of struct timex; `modes` 0 only reads. `offset`: correction still to be added to the clock."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_long * 32),
    )
