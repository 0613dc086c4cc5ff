"""The page's own file beside the database, `<database>.web.db`: where it is, and whether it can be used.

One that is damaged or belongs to something else is moved aside. Users must then be set anew on the console; until then
nobody gets in, since whoever damaged it might have done so to get in.
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
    "verdict": {"id", "date", "tag", "staff"},
}
"""By which a file is known as ours: columns of tables that are there, if they are."""


def had_users(path: Path) -> bool:
    """Whether there ever was a user: the file is made for the first one, and a mark beside it, which outlives it."""
    return path.exists() or mark(path).exists() or bool(aside(path))


def mark(path: Path) -> Path:
    """The file that says that there was a user."""
    return path.with_name(f"{path.name}.guarded")


def prove(path: Path) -> None:
    """Look through the whole file; Trouble if it can't be used, after moving it aside if it is damaged or not ours."""
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
    """Move a file aside and raise Trouble if it holds tables, but not the page's; raises sqlite3.Error."""
    tables = {name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    known = {name: columns for name, columns in COLUMNS.items() if name in tables}
    ours = all(
        columns <= {row[1] for row in conn.execute(f"PRAGMA table_info({name})")} for name, columns in known.items()
    )
    if tables and not (known and ours):
        raise Trouble(_reject(path, "of another program"))


def trouble(path: Path, error: sqlite3.Error) -> Trouble:
    """What to say of an error in the file; moves it aside if the error says that it is damaged."""
    if is_damage(error):
        return Trouble(_reject(path, "damaged"))
    return Trouble(f"cannot use {path}, the file with the page's users: {error}")


def _reject(path: Path, what: str) -> str:
    moved = path
    with contextlib.suppress(OSError):  # another process was faster, or the folder is not ours
        moved = set_aside(path)
    said = (
        f"the file with the page's users was {what}; moved to {moved}. Nobody can log in until users are set anew: "
        "tagtrail users set"
    )
    log.error("%s", said)
    return said
