"""Migrations of the database: whether this release can read it, and a copy of it before they change it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from importlib import resources
from pathlib import Path

from sqlite_utils import Database as Tables
from sqlite_utils import Migrations

from edge.database.copies import copy
from edge.store.errors import Trouble

SCRIPTS = sorted(f.name[:-4] for f in resources.files("edge.database.migrations").iterdir() if f.name.endswith(".sql"))
"""Names of the numbered migrations, in order."""
_SPARE = 1.1
_APPLIED = "SELECT name FROM _sqlite_migrations WHERE migration_set = 'tagtrail' ORDER BY name"


def migrations() -> Migrations:
    """Return every numbered SQL file of edge/database/migrations, in order."""
    ordered = Migrations("tagtrail")
    for name in SCRIPTS:
        file = resources.files("edge.database.migrations") / f"{name}.sql"
        ordered(name=name)(_script(file.read_text(encoding="utf-8")))
    return ordered


def prove(path: Path, store: str) -> str:
    """Open a database read-only and describe in a phrase what this release would do with it. Raises Trouble if it can't
    be used: written by a newer release, of another store, damaged, or without room for the copy before a migration.
    """
    path = path.absolute()
    if not path.exists():
        return "no database yet"
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10, isolation_level=None)) as conn:
            conn.execute("BEGIN")
            done = applied(conn)
            facts = dict(conn.execute("SELECT name, value FROM fact")) if done else {}
            damage = conn.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        raise Trouble(f"cannot read the database {path}: {error}") from error
    if damage != "ok":
        raise Trouble(f"the database {path} is damaged: {damage}")
    refuse_newer(done)
    refuse_foreign(facts.get("store", store), store)
    if pending := _pending(done):
        _need_room(path)
        return f"database readable; migrations to come: {len(pending)}"
    return "database readable"


def applied(conn: sqlite3.Connection) -> list[str]:
    """Return the names of the migrations that a database has; none if it is new."""
    if not conn.execute("SELECT 1 FROM sqlite_master WHERE name = '_sqlite_migrations'").fetchone():
        return []
    return [name for (name,) in conn.execute(_APPLIED)]


def refuse_newer(done: list[str]) -> None:
    """Raise Trouble if a database has migrations that this release doesn't know."""
    if unknown := [name for name in done if name not in SCRIPTS]:
        raise Trouble(f"the database was written by a newer Tagtrail (it has {unknown[-1]}): install that version")


def refuse_foreign(owner: str, store: str) -> None:
    """Raise Trouble if a database is another store's."""
    if owner != store:
        raise Trouble(
            f"the database belongs to store {owner!r}, the store file says {store!r}: "
            "give this store a database of its own"
        )


def copy_before_migrating(conn: sqlite3.Connection, path: Path) -> Path | None:
    """Copy a database beside itself if migrations are to come, verify the copy, and return it; None if there is nothing
    to do. The copy of an earlier migration is replaced. Raises Trouble if there is no room or the copy is unusable.
    """
    done = applied(conn)
    pending = _pending(done)
    if not done or not pending:
        return None
    for old in path.parent.glob(f"{path.name}.before-*"):
        old.unlink()
    _need_room(path)
    target = path.with_name(f"{path.name}.before-{pending[0]}")
    copy(conn, target)
    return target


def _pending(done: list[str]) -> list[str]:
    return [name for name in SCRIPTS if name not in done]


def _need_room(path: Path) -> None:
    sides = (path, path.with_name(f"{path.name}-wal"))
    needed = int(_SPARE * sum(file.stat().st_size for file in sides if file.exists()))
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise Trouble(
            f"no room for the copy of the database {path} before its migration: it needs {needed // 2**20 + 1} MB, "
            f"{free // 2**20} MB are free"
        )


def _script(text: str) -> Callable[[Tables], None]:
    def apply(db: Tables) -> None:
        # sqlite3's executescript would commit the migration's own transaction first.
        statement = ""
        for line in text.splitlines(keepends=True):
            statement += line
            if sqlite3.complete_statement(statement):
                db.conn.execute(statement)
                statement = ""

    return apply
