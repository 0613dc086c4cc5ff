"""Find traces of erased rows in the database file itself, and overwrite them.

Deleted rows are overwritten at once (`secure_delete`); but where SQLite has moved rows about within a page, of an index
most of all, pieces of old ones may lie between. Only writing the whole file anew is certain to leave none.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from pathlib import Path

from edge.store.files import SQLITE

PIECE_BYTES = 4 << 20
MOST_PATTERNS = 64
"""Above this number of strings, rewriting is faster than searching."""


def traces(path: Path, patterns: Collection[bytes]) -> bool:
    """Return whether a file may contain one of some byte strings; raises OSError."""
    if len(patterns) > MOST_PATTERNS:
        return True
    overlap = max(map(len, patterns), default=1) - 1
    before = b""
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            piece = before + piece
            if any(pattern in piece for pattern in patterns):
                return True
            before = piece[-overlap:] if overlap else b""
    return False


def is_database(path: Path) -> bool:
    """Return whether a file is an SQLite database and so can be searched; raises OSError."""
    with path.open("rb") as file:
        return file.read(len(SQLITE)) == SQLITE


def size_bytes(conn: sqlite3.Connection) -> int:
    """Return the size of the database."""
    (pages,), (page,) = (conn.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
    return int(pages * page)


def write_anew(conn: sqlite3.Connection) -> None:
    """Rewrite the whole database, outside a transaction; takes a second for some 50 MB."""
    conn.execute("VACUUM")
