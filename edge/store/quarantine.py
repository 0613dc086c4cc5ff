"""Move damaged SQLite files aside, with their companion files, and keep the last few for inspection."""

from __future__ import annotations

import sqlite3
from pathlib import Path

KEPT = 2
"""Number of damaged files kept."""
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_SIDES = ("-wal", "-shm", "-journal")


def is_damage(error: sqlite3.Error) -> bool:
    """True if an error means that the file itself is damaged or not a database."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


def set_aside(path: Path) -> Path:
    """Rename a file to `<name>.corrupt-<number>` and return the new path. Raises OSError."""
    number = max((int(file.name.rpartition("-")[2]) for file in aside(path)), default=0) + 1
    moved = path.with_name(f"{path.name}.corrupt-{number}")
    path.rename(moved)
    for suffix in _SIDES:
        side = path.with_name(path.name + suffix)
        if side.exists():
            side.rename(moved.with_name(moved.name + suffix))
    for old in aside(path):
        if int(old.name.rpartition("-")[2]) <= number - KEPT:
            for suffix in ("", *_SIDES):
                old.with_name(old.name + suffix).unlink(missing_ok=True)
    return moved


def aside(path: Path) -> list[Path]:
    """Return the files moved aside before, in no order."""
    files = path.parent.glob(f"{path.name}.corrupt-*")
    return [file for file in files if file.name.rpartition("-")[2].isdecimal()]
