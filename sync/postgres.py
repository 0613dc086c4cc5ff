"""PostgreSQL storage of the reference consumer. Needs the extra `postgresql`.

A batch of one event must not cost a statement of its own: a transaction uses a few statements over arrays, and COPY for
new events.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psycopg

from sync.book import DEAD_LETTERS, LOST, TERMS, EventRow, Key, Letter, LostRow, Mark, Span

Error = psycopg.Error
CONNECT_S = 5
SETTING_UP = 0x7461677472  # any number that nobody else locks by
_KEYS = "unnest(%s::text[], %s::text[], %s::text[])"


class PostgresBook:
    """Connection in autocommit mode, with the few methods of sqlite3's that `hand_over` may use; see sync.book.Book."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._conn = self._connect()
        self._within = False

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> psycopg.Cursor[Any]:
        """Run a statement with `?` for parameters. Outside a transaction it reconnects if necessary."""
        if self._conn.closed and not self._within:
            self._conn = self._connect()
        return self._conn.execute(_translated(sql), parameters)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement for every row."""
        with self._conn.cursor() as cursor:
            cursor.executemany(_translated(sql), list(rows))

    def set_up(self, tables: str) -> None:
        """Run table definitions in SQLite's dialect, one worker at a time: two that start together would collide."""
        for old, new in ((r"WITHOUT ROWID", ""), (r"\bINTEGER\b", "BIGINT"), (r"\bBLOB\b", "BYTEA"), (r"--.*", "")):
            tables = re.sub(old, new, tables)
        with self._conn.transaction():
            self._conn.execute("SELECT pg_advisory_xact_lock(%s)", (SETTING_UP,))
            self._conn.execute(tables.encode())

    def begin(self) -> None:
        self.execute("BEGIN")
        self._within = True

    def commit(self) -> None:
        self._conn.execute("COMMIT")
        self._within = False

    def rollback(self) -> None:
        self._within = False
        if not self._conn.closed:  # else the server has rolled back
            self._conn.execute("ROLLBACK")

    def lock(self, keys: Sequence[Key]) -> dict[Key, Mark]:
        """Lock and return the keys' watermarks until the transaction ends. All workers lock in the same order, which
        prevents deadlocks."""
        columns = _columns(keys, 3)
        self._conn.execute(f"INSERT INTO watermark SELECT *, 0, 0, 0, 0 FROM {_KEYS} ON CONFLICT DO NOTHING", columns)
        query = (
            f"SELECT w.* FROM watermark w JOIN {_KEYS} AS k (store, epoch, class) USING (store, epoch, class)"
            " ORDER BY store, epoch, class FOR UPDATE OF w"
        )
        return {(row[0], row[1], row[2]): Mark(*row[3:]) for row in self._conn.execute(query, columns)}

    def terms(self, of: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
        query = "SELECT t.* FROM term t JOIN unnest(%s::text[], %s::text[]) AS k (store, epoch) USING (store, epoch)"
        found = self._conn.execute(query, _columns(of, 2))
        return {(store, epoch): term for store, epoch, term in found}

    def raise_terms(self, rows: Sequence[tuple[str, str, int]]) -> None:
        self.executemany(TERMS, rows)

    def known(self, spans: Sequence[Span]) -> set[tuple[Key, int]]:
        query = (
            f"SELECT s.store, s.epoch, s.class, e.seq FROM unnest({'%s::text[], ' * 3}%s::bigint[], %s::bigint[])"
            " AS s (store, epoch, class, first, last) CROSS JOIN LATERAL (SELECT seq FROM event e WHERE"
            " (e.store, e.epoch, e.class) = (s.store, s.epoch, s.class) AND e.seq BETWEEN s.first AND s.last"
            " OFFSET 0) AS e"  # OFFSET 0: by the index, span by span, whatever the planner thinks of a young table
        )
        found = self._conn.execute(query, _columns([(*key, first, last) for key, first, last in spans], 5))
        return {((store, epoch, class_), seq) for store, epoch, class_, seq in found}

    def add_events(self, rows: Sequence[EventRow]) -> None:
        with (
            self._conn.cursor() as cursor,
            cursor.copy("COPY event (store, epoch, class, seq, id, payload, received_us) FROM STDIN") as copy,
        ):
            for row in rows:
                copy.write_row(row)

    def add_lost(self, rows: Sequence[LostRow]) -> None:
        self.executemany(LOST, rows)

    def move(self, marks: Mapping[Key, Mark]) -> None:
        self._conn.execute(
            "UPDATE watermark AS w SET upto = m.upto, highest = m.highest, received = m.received,"
            f" duplicates = m.duplicates FROM unnest({', '.join(['%s::text[]'] * 3 + ['%s::bigint[]'] * 4)})"
            " AS m (store, epoch, class, upto, highest, received, duplicates)"
            " WHERE (w.store, w.epoch, w.class) = (m.store, m.epoch, m.class)",
            _columns([(*key, *mark) for key, mark in marks.items()], 7),
        )

    def bury(self, letters: Sequence[Letter]) -> None:
        self.executemany(DEAD_LETTERS, letters)

    def close(self) -> None:
        """Close."""
        self._conn.close()

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self._url, autocommit=True, connect_timeout=CONNECT_S)


def _columns(rows: Sequence[Sequence[Any]], n: int) -> list[list[Any]]:
    return [[row[i] for row in rows] for i in range(n)]


def _translated(sql: str) -> bytes:
    return sql.replace("?", "%s").encode()
