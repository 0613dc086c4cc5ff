"""New databases with the migrations done: they take most of the time of opening one, and tests open hundreds."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from edge.database.writer import Database


def begin_migrated(path: Path) -> None:
    """Put a database there unless there is one. Its store, epoch and key are made when it is opened."""
    if not path.exists():
        path.write_bytes(_template())


@cache
def _template() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        Database(path, store="s1", quota_mb=64).close()
        with closing(sqlite3.connect(path, isolation_level=None)) as conn:
            conn.execute("DELETE FROM fact WHERE name IN ('store', 'epoch', 'tag_key_mark')")
            conn.execute("VACUUM")
        return path.read_bytes()
