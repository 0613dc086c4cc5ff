"""Traces of erased rows: looks for them in the database's file itself, and overwrites them.

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
"""More than these take longer to search for than writing anew does."""


def traces(path: Path, patterns: Collection[bytes]) -> bool:
    """Whether a file may hold one of some byte strings; raises OSError."""
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
    """Whether a file is SQLite's and so can be searched; raises OSError."""
    with path.open("rb") as file:
        return file.read(len(SQLITE)) == SQLITE


def size_bytes(conn: sqlite3.Connection) -> int:
    """How large the database is."""
    (pages,), (page,) = (conn.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
    return int(pages * page)


def write_anew(conn: sqlite3.Connection) -> None:
    """Write the whole database anew, outside a transaction; takes a second for some 50 MB."""
    conn.execute("VACUUM")
