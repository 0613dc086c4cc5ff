"""When a wait is too long, and how long most cues take. Plain Python: the page can do without NumPy."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

NEVER = 1 << 62
"""End of a stay that goes on."""


def waited(enter_us: int, until_us: int, staff: Iterable[tuple[int, int]], wait_us: int, assist_us: int) -> int | None:
    """When a stay became too long a wait; None if it has not until `until_us`, or met staff before.

    `staff`: stays of badges in the same zone; NEVER as the end of one that goes on. One of assist_us is a contact;
    while a badge is there that may become one, nobody else is called.
    """
    due_us = enter_us + wait_us
    for begin_us, end_us in sorted(staff):
        begin_us = max(begin_us, enter_us)
        if end_us <= begin_us:
            continue
        if begin_us > due_us:
            break
        if end_us - begin_us >= assist_us:
            return None
        due_us = max(due_us, end_us)
    return due_us if due_us <= until_us else None


def p95(values: Iterable[float]) -> float | None:
    """95th percentile, nearest rank."""
    ordered = sorted(values)
    return round(ordered[ceil(0.95 * len(ordered)) - 1], 1) if ordered else None
