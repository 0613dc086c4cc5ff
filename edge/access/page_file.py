"""Location and integrity check of the page's own file, `<database>.web.db`.

A corrupted or foreign file is moved aside. Users must then be created again on the console; until then nobody can log
in, because the file might have been corrupted in order to gain access.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from contextlib import closing
from pathlib import Path

from edge.store.errors import Trouble
from edge.store.quarantine import aside, is_damage, set_aside

log = logging.getLogger("tagtrail.access")

COLUMNS = {
    "user": {"name", "role", "password", "changed_s"},
    "session": {"token", "name", "csrf", "seen_s"},
    "pin": {"name", "hash", "set_s"},
    "program": {"token", "name", "made_s", "ends_s", "used_s"},
    "verdict": {"id", "date", "tag", "staff"},
}
"""Columns by which the file is recognised as ours, for those tables that exist."""


def had_users(path: Path) -> bool:
    """True if there has ever been a user: the first one creates the file, and a marker file that is never deleted."""
    return path.exists() or mark(path).exists() or bool(aside(path))


def mark(path: Path) -> Path:
    """Return the path of the marker file."""
    return path.with_name(f"{path.name}.guarded")


def prove(path: Path) -> None:
    """Check the complete file; Trouble if it can't be used, after moving it aside if it is corrupted or not ours."""
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)) as conn:
            if conn.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise Trouble(_reject(path, "damaged"))
            check(path, conn)
    except sqlite3.Error as error:
        raise trouble(path, error) from error


def check(path: Path, conn: sqlite3.Connection) -> None:
    """Move a file aside and raise Trouble if it contains other tables than the page's; raises sqlite3.Error."""
    tables = {name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    known = {name: columns for name, columns in COLUMNS.items() if name in tables}
    ours = all(
        columns <= {row[1] for row in conn.execute(f"PRAGMA table_info({name})")} for name, columns in known.items()
    )
    if tables and not (known and ours):
        raise Trouble(_reject(path, "of another program"))


def trouble(path: Path, error: sqlite3.Error) -> Trouble:
    """Convert an error in the file to Trouble; move the file aside if it is corrupted."""
    if is_damage(error):
        return Trouble(_reject(path, "damaged"))
    return Trouble(f"can't use {path}, the file with the page's users: {error}")


def _reject(path: Path, what: str) -> str:
    moved = path
    with contextlib.suppress(OSError):  # another process was faster, or the folder is not writable
        moved = set_aside(path)
    said = f"the file with the page's users was {what}; moved to {moved}. Create the users again: tagtrail users set"
    log.error("%s", said)
    return said
