"""Sets of sequence numbers as sorted, disjoint ranges that don't touch: a gap below a million numbers is two ranges."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

Range = tuple[int, int]
"""First and last number."""


def add(ranges: list[Range], first: int, last: int) -> None:
    """Add a range to a set, in place."""
    low = bisect_left(ranges, first - 1, key=_last)
    high = low
    while high < len(ranges) and ranges[high][0] <= last + 1:
        first, last = min(first, ranges[high][0]), max(last, ranges[high][1])
        high += 1
    ranges[low:high] = [(first, last)]


def outside(ranges: Sequence[Range], first: int, last: int) -> list[Range]:
    """Return the parts of a range that are not in the set."""
    found = []
    for low, high in ranges[bisect_left(ranges, first, key=_last) :]:
        if low > last:
            break
        if first < low:
            found.append((first, low - 1))
        first = high + 1
    return [*found, (first, last)] if first <= last else found


def inside(ranges: Sequence[Range], first: int, last: int) -> list[Range]:
    """Return the parts of a range that are in the set."""
    found = []
    for low, high in ranges[bisect_left(ranges, first, key=_last) :]:
        if low > last:
            break
        found.append((max(first, low), min(last, high)))
    return found


def _last(one: Range) -> int:
    return one[1]
