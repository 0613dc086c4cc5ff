"""Detect a database restored from a backup before it reuses numbers, and keep the last known time.

A small file beside the database isn't part of its backups. If the life in it is not the database's, or has higher
numbers, then another state of this database has been in use since.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from edge.database.writer import Database
from sync import outbox
from sync.contract import CLASSES

log = logging.getLogger("tagtrail.database")
TIMES = ("clock_us", "retained_us")


def begin(database: Database) -> bool:
    """Start a new life; True if the database was restored from a backup, so that numbers were skipped."""
    file = _file(database.path)
    try:
        before = json.loads(file.read_text())
        used = {class_: int(before["next"][class_]) - 1 for class_ in CLASSES}
        former = (str(before["epoch"]), str(before["life"]))
    except (OSError, ValueError, KeyError, TypeError):
        used, former = {}, ("", "")

    def job(conn: sqlite3.Connection) -> bool:
        facts = dict(conn.execute("SELECT name, value FROM fact"))
        given = {class_: depth.sent for class_, depth in outbox.depth(conn).items()}
        back = former[0] == facts["epoch"] and (
            former[1] != facts.get("life") or any(used[class_] > given[class_] for class_ in CLASSES)
        )
        if back:
            outbox.jump(conn, used, {})
        conn.execute("INSERT OR REPLACE INTO fact VALUES ('life', ?)", (secrets.token_hex(8),))
        return back

    back = database.write_now(job)
    if back:
        log.error("the database is older than its last run, as if restored from a backup: event numbers were skipped")
    database.write_now(lambda conn: _write(file, conn, {}))
    return back


async def remember(database: Database, clock_us: int | None, retained_us: int) -> None:
    """Record the highest numbers and the time, once a minute and when stopping.

    `clock_us`: None if it is not to be trusted; `retained_us`: see edge.database.retention.Pace.
    """
    times = {"clock_us": clock_us, "retained_us": retained_us}
    await database.read(lambda conn: _write(_file(database.path), conn, times))


def forget(path: Path) -> None:
    """Forget the last run of a database that another has run since, or will."""
    _file(path).unlink(missing_ok=True)


def known_us(database: Database) -> int:
    """The last time that is known: of the last run, or of what was committed last; 0 if there is none."""

    def committed(conn: sqlite3.Connection) -> int:
        latest = ("SELECT exit_us FROM visit ORDER BY id DESC LIMIT 1", "SELECT watermark_us FROM checkpoint")
        return max([0, *(int(us) for query in latest for (us,) in conn.execute(query))])

    return max(_times(_file(database.path)).get("clock_us", 0), database.write_now(committed))


def retained_us(database: Database) -> int | None:
    """How far retention was by the last run; None if that is not known."""
    return _times(_file(database.path)).get("retained_us")


def _times(file: Path) -> dict[str, int]:
    """The times that the last run wrote down."""
    try:
        told = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return {name: told[name] for name in TIMES if isinstance(told, dict) and isinstance(told.get(name), int)}


def _file(path: Path) -> Path:
    return path.with_name(f"{path.name}.life")


def _write(file: Path, conn: sqlite3.Connection, times: Mapping[str, int | None]) -> None:
    """`times` that are not known stay as they were."""
    facts = dict(conn.execute("SELECT name, value FROM fact"))
    told = {
        "epoch": facts["epoch"],
        "life": facts["life"],
        "next": {class_: depth.sent + 1 for class_, depth in outbox.depth(conn).items()},
        **_times(file),
        **{name: time_us for name, time_us in times.items() if time_us is not None},
    }
    part = file.with_name(f"{file.name}.part")
    try:
        part.write_text(json.dumps(told))
        os.replace(part, file)
    except OSError as error:
        log.warning("cannot write %s: %s", file, error.strerror)
