"""Which counters hold people longest, as a picture: medians with their intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # NumPy is imported with the first day
    from edge.days.counters import Counters

LONGEST = 6
"""Number of counters that are drawn."""


@dataclass(frozen=True)
class Hold:
    """One counter; positions are in per cent of the width."""

    zone: str
    median_s: float
    low_s: float | None
    high_s: float | None
    at: float
    own: tuple[float, float] | None
    """Its own 95 % interval, as in the tables."""
    joint: tuple[float, float]
    """The interval that holds together with those of all other counters: if two of these overlap, the order isn't
    certain (edge.reports.sentences)."""


def holds(found: Counters) -> tuple[Hold, ...]:
    """Return the counters with the longest medians, the longest first; those with too few visits have none."""
    first = sorted(found.standings, key=lambda one: (-one.median_s, one.zone))[:LONGEST]
    most_s = max((one.high_s for one in first), default=0.0) or 1.0
    rows = {row.zone: row for row in found.zones}

    def place(seconds: float) -> float:
        return round(1 + 98 * seconds / most_s, 1)

    made = []
    for one in first:
        low_s, high_s = rows[one.zone].median_low_s, rows[one.zone].median_high_s
        own = None if low_s is None or high_s is None else (place(low_s), place(high_s))
        joint = (place(one.low_s), place(one.high_s))
        made.append(Hold(one.zone, one.median_s, low_s, high_s, place(one.median_s), own, joint))
    return tuple(made)
