"""Waiting times and cue latencies, in plain Python so that the page does not need NumPy."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

NEVER = 1 << 62
"""End of a stay in progress."""


def waited(enter_us: int, until_us: int, staff: Iterable[tuple[int, int]], wait_us: int, assist_us: int) -> int | None:
    """Return when a stay exceeded the allowed wait; None if it has not by `until_us`, or if staff came before.

    `staff`: stays of staff badges in the same zone; NEVER is the end of a stay in progress. A stay of assist_us is a
    contact; while a badge is present that may become a contact, no cue is created.
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
    """Return the 95th percentile by nearest rank."""
    ordered = sorted(values)
    return round(ordered[ceil(0.95 * len(ordered)) - 1], 1) if ordered else None
