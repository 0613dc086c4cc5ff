"""Rows of a time that turned out to be wrong: marked as not seen whole, so that no number rests on them."""

from __future__ import annotations

import sqlite3

from edge.store.timekeeping import Step

MOST_US = 86_400_000_000
"""Further back a clock that nobody kept was only a little wrong."""


def mark(conn: sqlite3.Connection, step: Step, window_us: int) -> int:
    """Mark visits, journeys and windows of before a step, if nobody kept the clock then; how many visits."""
    if step.unkept_us is None:
        return 0
    since_us = max(step.unkept_us, step.from_us - MOST_US)
    span = (since_us - MOST_US, step.from_us, since_us)
    query = "UPDATE {} SET censored = 1 WHERE {} BETWEEN ? AND ? AND {} >= ?"
    visits = conn.execute(query.format("visit", "enter_us", "exit_us"), span).rowcount
    conn.execute(query.format("journey", "start_us", "end_us"), span)
    windows = (since_us - window_us, step.from_us)
    conn.execute("UPDATE aggregate SET coverage = 0 WHERE window_us > ? AND window_us <= ?", windows)
    return visits
