"""Storage of the reference consumer: what it records of every number, in SQLite here, or in PostgreSQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sync.contract import EventClass

SCHEMA = """
CREATE TABLE IF NOT EXISTS event (
    store TEXT, epoch TEXT, class TEXT, seq INTEGER,
    id TEXT NOT NULL, payload TEXT NOT NULL, received_us INTEGER NOT NULL,
    PRIMARY KEY (store, epoch, class, seq)
) WITHOUT ROWID;
-- All numbers up to upto are accounted for: as events, lost, or dead letters. None above highest was ever seen.
-- received: rows of event; duplicates: events that were already there.
CREATE TABLE IF NOT EXISTS watermark (
    store TEXT, epoch TEXT, class TEXT, upto INTEGER NOT NULL, highest INTEGER NOT NULL,
    received INTEGER NOT NULL, duplicates INTEGER NOT NULL,
    PRIMARY KEY (store, epoch, class)
) WITHOUT ROWID;
-- Numbers that no event will come for. One that came all the same counts as received.
CREATE TABLE IF NOT EXISTS lost (
    store TEXT, epoch TEXT, class TEXT, first INTEGER, last INTEGER NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (store, epoch, class, first)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dead_letter (
    digest BLOB PRIMARY KEY, topic TEXT NOT NULL, error TEXT NOT NULL, payload BLOB NOT NULL,
    received_us INTEGER NOT NULL
) WITHOUT ROWID;
-- Highest term seen; a store with one gateway has none.
CREATE TABLE IF NOT EXISTS term (
    store TEXT, epoch TEXT, term INTEGER NOT NULL,
    PRIMARY KEY (store, epoch)
) WITHOUT ROWID;
"""
TERMS = (
    "INSERT INTO term VALUES (?, ?, ?) ON CONFLICT (store, epoch) DO UPDATE"
    " SET term = CASE WHEN excluded.term > term.term THEN excluded.term ELSE term.term END"
)
LOST = (
    "INSERT INTO lost VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (store, epoch, class, first) DO UPDATE"
    " SET last = CASE WHEN excluded.last > lost.last THEN excluded.last ELSE lost.last END"
)
DEAD_LETTERS = "INSERT INTO dead_letter VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
KEY = "store = ? AND epoch = ? AND class = ?"
BUSY_S = 30.0
"""Time that SQLite waits while another connection writes."""

Key = tuple[str, str, EventClass]
Span = tuple[Key, int, int]
"""First and last number of a range, with its key."""
EventRow = tuple[str, str, str, int, str, str, int]
LostRow = tuple[str, str, str, int, int, str]
Letter = tuple[bytes, str, str, bytes, int]


class Mark(NamedTuple):
    """Row of `watermark` without its key."""

    upto: int
    highest: int
    received: int
    duplicates: int


class Book(Protocol):
    """One connection. Between `begin` and `commit`: `lock` first, then the rest; dead letters last, in order."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Any:
        """Run a statement with `?` for parameters."""

    def set_up(self, tables: str) -> None:
        """Create missing tables."""

    def begin(self) -> None: ...

    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    def lock(self, keys: Sequence[Key]) -> dict[Key, Mark]:
        """Lock and return the watermarks of sorted keys."""

    def terms(self, of: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
        """Return the highest terms seen by store and epoch; there is none of most."""

    def raise_terms(self, rows: Sequence[tuple[str, str, int]]) -> None:
        """Store higher terms by store and epoch, sorted."""

    def known(self, spans: Sequence[Span]) -> set[tuple[Key, int]]:
        """Return those of these numbers that are stored as events."""

    def add_events(self, rows: Sequence[EventRow]) -> None:
        """Insert new events."""

    def add_lost(self, rows: Sequence[LostRow]) -> None: ...

    def move(self, marks: Mapping[Key, Mark]) -> None:
        """Update the watermarks of locked keys."""

    def bury(self, letters: Sequence[Letter]) -> None:
        """Insert sorted dead letters; existing ones stay as they are."""

    def close(self) -> None: ...


class SqliteBook:
    """Book in an SQLite file, with the methods of its connection that `hand_over` may use."""

    def __init__(self, path: Path | str) -> None:
        self._conn = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        self._conn.execute("PRAGMA journal_mode = WAL")
        self._conn.execute("PRAGMA synchronous = FULL")  # what is acked must survive a power cut
        self.execute = self._conn.execute
        self.executemany = self._conn.executemany
        self.close = self._conn.close

    def set_up(self, tables: str) -> None:
        self._conn.executescript(tables)

    def begin(self) -> None:
        self._conn.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._conn.execute("COMMIT")

    def rollback(self) -> None:
        if self._conn.in_transaction:
            self._conn.execute("ROLLBACK")

    def lock(self, keys: Sequence[Key]) -> dict[Key, Mark]:
        self._conn.executemany("INSERT INTO watermark VALUES (?, ?, ?, 0, 0, 0, 0) ON CONFLICT DO NOTHING", keys)
        query = f"SELECT {', '.join(Mark._fields)} FROM watermark WHERE {KEY}"
        return {key: Mark(*self._conn.execute(query, key).fetchone()) for key in keys}

    def terms(self, of: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
        query = "SELECT term FROM term WHERE store = ? AND epoch = ?"
        return {one: row[0] for one in of if (row := self._conn.execute(query, one).fetchone())}

    def raise_terms(self, rows: Sequence[tuple[str, str, int]]) -> None:
        self._conn.executemany(TERMS, rows)

    def known(self, spans: Sequence[Span]) -> set[tuple[Key, int]]:
        query = f"SELECT seq FROM event WHERE {KEY} AND seq BETWEEN ? AND ?"
        return {(key, seq) for key, *span in spans for (seq,) in self._conn.execute(query, (*key, *span))}

    def add_events(self, rows: Sequence[EventRow]) -> None:
        self._conn.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def add_lost(self, rows: Sequence[LostRow]) -> None:
        self._conn.executemany(LOST, rows)

    def move(self, marks: Mapping[Key, Mark]) -> None:
        columns = ", ".join(f"{name} = ?" for name in Mark._fields)
        rows = [(*mark, *key) for key, mark in marks.items()]
        self._conn.executemany(f"UPDATE watermark SET {columns} WHERE {KEY}", rows)

    def bury(self, letters: Sequence[Letter]) -> None:
        self._conn.executemany(DEAD_LETTERS, letters)
