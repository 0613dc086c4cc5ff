"""The store's one clock. A demo runs it faster than the wall's; everything else asks it and never the wall."""

from __future__ import annotations

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
