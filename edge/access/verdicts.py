"""Verdicts of managers and IT on suspect tags: staff, or a customer. Stored in the page's own file, which the service
only reads.

A verdict applies to a tag from a business day on. For most tags it ends with that day, because their pseudonyms change
daily; a member's card keeps its pseudonym.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from config import StoreConfig
from edge.access.page_file import check, trouble
from edge.access.users import users_path

KEEP = dt.timedelta(days=400)
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS verdict (id INTEGER PRIMARY KEY AUTOINCREMENT, date TEXT NOT NULL, tag BLOB NOT NULL,"
    " staff INTEGER NOT NULL, UNIQUE (date, tag))"
)


@dataclass(frozen=True)
class Verdict:
    """Verdict on one tag from `date` on. Confirmed: not a customer, excluded. Otherwise cleared: included."""

    id: int
    date: str
    tag: bytes
    confirmed: bool


def verdicts(config: StoreConfig) -> tuple[Verdict, ...]:
    """Return all verdicts, oldest first."""
    path = users_path(config)
    if not path.exists():
        return ()
    with _open(config, write=False) as conn:
        if conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'verdict'").fetchone() is None:
            return ()
        rows = conn.execute("SELECT id, date, tag, staff FROM verdict ORDER BY date, id").fetchall()
        return tuple(Verdict(id_, date, tag, bool(staff)) for id_, date, tag, staff in rows)


def forget(config: StoreConfig, today: dt.date) -> None:
    """Delete expired verdicts."""
    if any(dt.date.fromisoformat(one.date) < today - KEEP for one in verdicts(config)):
        with _open(config, write=True) as conn:
            conn.execute("DELETE FROM verdict WHERE date < ?", ((today - KEEP).isoformat(),))


def say(config: StoreConfig, date: dt.date, tag: bytes, confirmed: bool | None) -> None:
    """Confirm or clear a suspect tag from a day on; None withdraws the verdict of that day."""
    with _open(config, write=True) as conn:
        conn.execute(_SCHEMA)
        conn.execute("DELETE FROM verdict WHERE date < ?", ((date - KEEP).isoformat(),))
        conn.execute("DELETE FROM verdict WHERE date = ? AND tag = ?", (date.isoformat(), tag))
        if confirmed is not None:
            conn.execute(
                "INSERT INTO verdict (date, tag, staff) VALUES (?, ?, ?)", (date.isoformat(), tag, int(confirmed))
            )


def stamps(config: StoreConfig) -> dict[str, int]:
    """Return business date → a number that changes with the verdicts of that day; other days have 0."""
    found: dict[str, int] = {}
    for verdict in verdicts(config):
        found[verdict.date] = found.get(verdict.date, 0) * 31 % 1_000_003 + verdict.id
    return found


@contextmanager
def _open(config: StoreConfig, *, write: bool) -> Iterator[sqlite3.Connection]:
    path = users_path(config)
    mode = "rw" if write else "ro"
    try:
        conn = sqlite3.connect(f"{path.as_uri()}?mode={mode}", uri=True, timeout=5)
        with closing(conn), conn if write else contextlib.nullcontext():
            check(path, conn)
            yield conn
    except sqlite3.Error as error:
        raise trouble(path, error) from error
