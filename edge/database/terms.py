"""The term of a store's service: of several that may run, the one with the highest counts.

A term is the second, since 1970, in which it began, but always higher than those before it. So a database that is new,
or restored from a backup, has a higher one than any before, too. Kept in the table `fact`, and so in every copy.
"""

from __future__ import annotations

import sqlite3
import time

NAME = "term"


def term(conn: sqlite3.Connection) -> int:
    """Return the term of a database; 0 if it never had any."""
    row = conn.execute("SELECT value FROM fact WHERE name = ?", (NAME,)).fetchone()
    return int(row[0]) if row else 0


def begin(conn: sqlite3.Connection, above: int = 0) -> int:
    """Begin a new term, higher than the database's and than `above`, in the caller's transaction; returns it."""
    made = max(int(time.time()), term(conn) + 1, above + 1)
    conn.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (NAME, str(made)))
    return made


def renew(conn: sqlite3.Connection) -> None:
    """Begin a new term if the database has one, because it is taken into use anew."""
    if term(conn):
        begin(conn)
