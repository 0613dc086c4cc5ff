"""Delete data older than its retention time, and, near the quota, old history before any event of the outbox."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic

from config import StoreConfig
from edge.database.keys import KEPT_DAYS as KEY_DAYS
from sync import quota
from sync.outbox import KEEP_US, KEPT_STEP_US

SLICE_ROWS = 2_000
"""Rows deleted in one transaction: a greeting waits for at most a few milliseconds."""
DAY_US = 86_400_000_000
MARGIN_DAYS = 35
"""Days that journeys are kept beyond the time within which a member counts as returning."""
EXPIRED_DAYS = 7
"""Days that an expired directory, which recognises nobody, is kept for one that follows with changes only."""

HINT_DAYS = 1
"""Greeting hints are deleted within so many days after they expire."""


PACE = 2
"""Retention goes at most so much faster than time: a clock that is wrong for a minute deletes two minutes' worth."""


class Pace:
    """The time by which retention goes: the clock's, but never more than PACE days' worth for a day that we run.

    `since_us`: how far it was; `speed`: of the store's clock.
    """

    def __init__(
        self, clock: Callable[[], int], since_us: int, *, speed: float = 1.0, mono_s: Callable[[], float] = monotonic
    ) -> None:
        self._clock, self._speed, self._mono_s = clock, speed, mono_s
        self._us, self._seen_s = since_us, mono_s()

    def now_us(self) -> int:
        """Store time."""
        now_s = self._mono_s()
        ran_us, self._seen_s = round((now_s - self._seen_s) * 1e6 * self._speed), now_s
        self._us = min(self._clock(), self._us + PACE * ran_us)
        return self._us


@dataclass(frozen=True)
class Held:
    """Rows of one kind: days they are kept, and time of the oldest; None if there are none."""

    what: str
    keep_days: float
    oldest_us: int | None


def limits(config: StoreConfig) -> dict[str, tuple[str, str, float]]:
    """Return for each table what it holds, its time column, and how many days it is kept."""
    paths, windows = config.thresholds.returning_days + MARGIN_DAYS, config.database.keep_days
    return {
        "visit": ("visits", "enter_us", paths),
        "journey": ("journeys", "start_us", paths),
        "cue": ("cues", "made_us", paths),
        "service_case": ("service cases", "at_us", paths),
        "aggregate": ("windows", "window_us", windows),
        "corrected": ("windows told anew", "window_us", windows),
        "door": ("passages at doors", "window_us", windows),
        "sales": ("sales", "hour_us", windows),
    }


def prune(conn: sqlite3.Connection, config: StoreConfig, now_us: int, most: int = SLICE_ROWS) -> int:
    """Delete the oldest rows whose time is over, at most `most` of each kind; returns their number."""
    upto_us = {table: now_us - round(days * DAY_US) for table, (_, _, days) in limits(config).items()}
    gone = 0
    for table, start, nothing in (("visit", "enter_us", "zone = ''"), ("journey", "start_us", "path = '[]'")):
        last = f"(SELECT max(id) FROM {table})"
        gone += conn.execute(
            f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE {start} < ? ORDER BY {start} LIMIT ?)"
            f" AND id < {last}",
            (upto_us[table], most),
        ).rowcount
        # The highest id says how many there ever were: that row stays, but nothing in it, until there is a newer one.
        gone += conn.execute(
            f"UPDATE {table} SET tag = x'', member = NULL, {nothing} WHERE id = {last} AND {start} < ? AND tag != x''",
            (upto_us[table],),
        ).rowcount
    gone += conn.execute(
        "DELETE FROM cue WHERE id IN (SELECT id FROM cue WHERE made_us < ? LIMIT ?)", (upto_us["cue"], most)
    ).rowcount
    query = "SELECT id FROM service_case WHERE at_us < ? LIMIT ?"
    cases = conn.execute(query, (upto_us["service_case"], most)).fetchall()
    for table, key in (("case_step", "case_id"), ("service_case", "id")):
        gone += conn.executemany(f"DELETE FROM {table} WHERE {key} = ?", cases).rowcount
    gone += conn.execute(
        "DELETE FROM sales WHERE (hour_us, zone) IN (SELECT hour_us, zone FROM sales WHERE hour_us < ? LIMIT ?)",
        (upto_us["sales"], most),
    ).rowcount
    oldest = "SELECT window_us FROM aggregate WHERE window_us < ? ORDER BY window_us LIMIT 1 OFFSET ?"
    row = conn.execute(oldest, (upto_us["aggregate"], most)).fetchone()
    until_us = row[0] if row else upto_us["aggregate"]
    for table in ("aggregate", "corrected", "door"):
        gone += conn.execute(f"DELETE FROM {table} WHERE window_us < ?", (until_us,)).rowcount
    return gone + _prune_directory(conn, now_us, most)


def _prune_directory(conn: sqlite3.Connection, now_us: int, most: int) -> int:
    (until_us,) = conn.execute("SELECT valid_until_us FROM directory_state").fetchone()
    if until_us is None or until_us >= now_us - EXPIRED_DAYS * DAY_US:
        return 0
    some = "SELECT tag FROM directory ORDER BY tag LIMIT ?"
    gone = conn.execute(f"DELETE FROM directory WHERE tag IN ({some})", (most,)).rowcount
    if gone:
        # Changes have nothing to be made to any more: what comes next is to be a whole one.
        conn.execute("UPDATE directory_state SET generation = 0, files = NULL")
    return gone


def old_hints(conn: sqlite3.Connection, now_us: int) -> list[bytes]:
    """Tags of members whose greeting hint is over. Looks through the whole directory: not for the writer."""
    query = "SELECT tag FROM directory WHERE hint_until_us < ? LIMIT ?"
    return [tag for (tag,) in conn.execute(query, (now_us, SLICE_ROWS))]


def forget_hints(conn: sqlite3.Connection, tags: list[bytes], now_us: int) -> None:
    """Delete their hints, unless they have got new ones."""
    query = "UPDATE directory SET hint = NULL, hint_until_us = NULL WHERE tag = ? AND hint_until_us < ?"
    conn.executemany(query, [(tag, now_us) for tag in tags])


def held(conn: sqlite3.Connection, config: StoreConfig) -> Iterator[Held]:
    """Return what the database holds, and since when."""
    for table, (what, column, days) in limits(config).items():
        emptied = " WHERE tag != x''" if table in ("visit", "journey") else ""
        yield Held(what, days, conn.execute(f"SELECT min({column}) FROM {table}{emptied}").fetchone()[0])
    (until_us,) = conn.execute(
        "SELECT valid_until_us FROM directory_state WHERE EXISTS (SELECT 1 FROM directory)"
    ).fetchone() or (None,)
    yield Held("members, after the directory's time", EXPIRED_DAYS, until_us)
    (hint_us,) = conn.execute("SELECT min(hint_until_us) FROM directory").fetchone()
    yield Held("greeting hints, after their time", HINT_DAYS, hint_us)
    (until_us,) = conn.execute("SELECT min(until_us) FROM kept").fetchone()
    kept_us = None if until_us is None else until_us - KEEP_US
    yield Held("events that the CRM has acknowledged", (KEEP_US + KEPT_STEP_US) / DAY_US, kept_us)
    (date_us,) = conn.execute("SELECT 1000000 * strftime('%s', min(date)) FROM day_key").fetchone()
    yield Held("keys of pseudonyms", KEY_DAYS + 2, date_us)


def make_room(conn: sqlite3.Connection, config: StoreConfig, now_us: int) -> int:
    """Near the quota, delete old history before any event of the outbox; returns how many events the CRM loses."""
    if quota.in_use(conn) < quota.FULL or prune(conn, config, now_us):
        return 0
    return quota.make_room(conn)
