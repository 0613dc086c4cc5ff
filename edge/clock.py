"""The store's one clock. A demo runs it faster than the wall's; everything else asks it and never the wall."""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    """UTC in microseconds: `origin_us` at the wall's `origin_us`, from there `speed` times as fast."""

    speed: float = 1.0
    origin_us: int = 0

    def now_us(self) -> int:
        """Store time now."""
        wall = time.time_ns() // 1000
        return wall if self.speed == 1 else self.origin_us + round((wall - self.origin_us) * self.speed)

    def wall_s(self, store_us: int) -> float:
        """Wall seconds that a span of store microseconds takes."""
        return store_us / 1e6 / self.speed


def offset_us() -> int | None:
    """The machine's clock minus true time as its kernel knows it, 0 where a daemon steers it without telling more.

    None while nothing keeps it right, and where the kernel can't be asked. See adjtimex(2).
    """
    state = _Timex()
    try:
        if ctypes.CDLL(None).adjtimex(ctypes.byref(state)) < 0 or state.status & _UNSYNCHRONISED:
            return None
    except AttributeError:  # not Linux
        return None
    return -int(state.offset) // (1000 if state.status & _NANOSECONDS else 1)


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
