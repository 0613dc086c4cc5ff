"""Delete data older than its retention time, and, near the quota, old history before any event of the outbox."""

from __future__ import annotations

import sqlite3

from config import StoreConfig
from sync import quota

SLICE_ROWS = 2_000
"""Rows deleted in one transaction: a greeting waits for at most a few milliseconds."""
DAY_US = 86_400_000_000
MARGIN_DAYS = 35
"""Days that journeys are kept beyond the time within which a member counts as returning."""


def prune(conn: sqlite3.Connection, config: StoreConfig, now_us: int, most: int = SLICE_ROWS) -> int:
    """Delete the oldest visits, journeys and windows whose time is over, at most so many of each; returns their
    number."""
    paths_us = now_us - (config.thresholds.returning_days + MARGIN_DAYS) * DAY_US
    windows_us = now_us - config.database.keep_days * DAY_US
    gone = 0
    for table, start in (("visit", "enter_us"), ("journey", "start_us")):
        # The highest id stays, because it says how many there ever were.
        gone += conn.execute(
            f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE {start} < ? ORDER BY {start} LIMIT ?)"
            f" AND id < (SELECT max(id) FROM {table})",
            (paths_us, most),
        ).rowcount
    gone += conn.execute(
        "DELETE FROM cue WHERE id IN (SELECT id FROM cue WHERE made_us < ? LIMIT ?)", (paths_us, most)
    ).rowcount
    cases = conn.execute("SELECT id FROM service_case WHERE at_us < ? LIMIT ?", (paths_us, most)).fetchall()
    for table, key in (("case_step", "case_id"), ("service_case", "id")):
        gone += conn.executemany(f"DELETE FROM {table} WHERE {key} = ?", cases).rowcount
    oldest = "SELECT window_us FROM aggregate WHERE window_us < ? ORDER BY window_us LIMIT 1 OFFSET ?"
    row = conn.execute(oldest, (windows_us, most)).fetchone()
    upto_us = row[0] if row else windows_us
    for table in ("aggregate", "corrected", "door"):
        gone += conn.execute(f"DELETE FROM {table} WHERE window_us < ?", (upto_us,)).rowcount
    return gone


def make_room(conn: sqlite3.Connection, config: StoreConfig, now_us: int) -> int:
    """Near the quota, delete old history before any event of the outbox; returns how many events the CRM loses."""
    if quota.in_use(conn) < quota.FULL or prune(conn, config, now_us):
        return 0
    return quota.make_room(conn)
