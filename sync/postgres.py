"""PostgreSQL for the reference consumer, spoken to like sqlite3. Needs the extra `postgresql`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import psycopg

Error = psycopg.Error
CONNECT_S = 5


class Connection:
    """A connection in autocommit, with the few methods of sqlite3's that the consumer uses."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._conn = self._connect()

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> psycopg.Cursor[Any]:
        """Run a statement with `?` for parameters. One that begins a transaction connects anew if it has to."""
        if sql == "BEGIN" and self._conn.closed:
            self._conn = self._connect()
        if sql == "ROLLBACK" and self._conn.closed:
            return self._conn.cursor()  # the server has rolled back
        return self._conn.execute(_translated(sql), parameters)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement for every row."""
        with self._conn.cursor() as cursor:
            cursor.executemany(_translated(sql), list(rows))

    def executescript(self, sql: str) -> None:
        """Run SQLite's table definitions."""
        for old, new in ((r"WITHOUT ROWID", ""), (r"\bINTEGER\b", "BIGINT"), (r"\bBLOB\b", "BYTEA"), (r"--.*", "")):
            sql = re.sub(old, new, sql)
        self._conn.execute(sql.encode())

    def close(self) -> None:
        """Close."""
        self._conn.close()

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self._url, autocommit=True, connect_timeout=CONNECT_S)


def _translated(sql: str) -> bytes:
    return sql.replace("?", "%s").encode()
