"""The store file, the database and what is in it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from config import StoreConfig
from config.check import check
from edge.access.users import users_path
from edge.database import schema
from edge.database.reader import NoDatabase, connect
from edge.doctor.findings import Finding, error, ok, unknown, warning
from edge.store.errors import Trouble
from edge.store.files import backup_mark, copies
from edge.words.counts import counted
from sync import outbox, quota
from sync.contract import CLASSES

MB = 2**20
DAY_US = 86_400_000_000
DAYS = 7
"""Days without the CRM for which there should be room."""
BACKUP_DAYS = 8
"""A backup is made every week at least, if at all."""


def store_file(file: Path) -> Iterator[Finding]:
    """Yield the problems of a store file."""
    problems = check(file)
    for problem in problems:
        make = warning if problem.warning else error
        yield make(
            "store file",
            str(replace(problem, warning=False)),
            "Correct the store file, then run tagtrail check and restart the service.",
        )
    if not problems:
        yield ok("store file", f"{file} is valid")


def database(config: StoreConfig, now_us: int) -> Iterator[Finding]:
    """Yield findings about the database: whether it can be used, and whether there is room for it."""
    path = config.database.path
    try:
        said = schema.prove(path, config.store.id)
    except Trouble as trouble:
        yield error("database", str(trouble), "See docs/operations.md, “The database”.")
        return
    if not path.exists():
        yield unknown("database", said, "The service creates it when it starts.")
        return
    yield ok("database", said)
    try:
        with closing(connect(path)) as conn:
            yield from _room(conn, config, now_us)
    except (sqlite3.Error, Trouble) as failed:
        yield error("database", f"the database can't be read: {failed}", "Look at the service's log.")
    for file in copies(path):
        yield warning(
            "copies", f"{file.name} beside the database was not made by Tagtrail", "Move it elsewhere, or delete it."
        )


def _room(conn: sqlite3.Connection, config: StoreConfig, now_us: int) -> Iterator[Finding]:
    (pages,), (free_pages,), (page,) = (
        conn.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "page_size")
    )
    used_mb = (pages - free_pages) * page / MB
    quota_mb, free_mb = config.database.quota_mb, shutil.disk_usage(config.database.path.parent).free / MB
    grows_mb = quota_mb - pages * page / MB
    if free_mb < grows_mb:
        yield warning(
            "room for the database",
            f"the database may grow by {grows_mb:.0f} MB up to its quota, but {free_mb:.0f} MB are free",
            "Free some space, or lower [database] quota_mb.",
        )
    elif used_mb / quota_mb >= quota.FULL:
        yield warning(
            "room for the database",
            f"{used_mb:.0f} of {quota_mb} MB of the quota are used: old history is being deleted early",
            "Raise [database] quota_mb.",
        )
    else:
        yield ok("room for the database", f"{used_mb:.0f} of {quota_mb} MB of the quota are used")
    needed_mb = DAYS * _bytes_a_day(conn, now_us) / MB
    left_mb = min(quota_mb - used_mb, free_mb)
    if left_mb < needed_mb:
        yield warning(
            "room for an outage",
            f"{DAYS} days without the CRM need {needed_mb:.0f} MB, {left_mb:.0f} MB are left",
            "Raise [database] quota_mb, or shorten keep_days.",
        )
    else:
        yield ok("room for an outage", f"{DAYS} days without the CRM need {needed_mb:.0f} MB")


def _bytes_a_day(conn: sqlite3.Connection, now_us: int) -> float:
    """Return bytes of events a day: those that are there, by the time since the oldest of them."""
    (held,) = conn.execute("SELECT sum(bytes) FROM outbox_class").fetchone()
    oldest = conn.execute(
        f"SELECT json_extract(payload, '$.at_us') FROM {outbox.table('health')}"
        " WHERE json_extract(payload, '$.type') = 'gateway' ORDER BY seq LIMIT 1"
    ).fetchone()
    return float(held) / max(1.0, (now_us - oldest[0]) / DAY_US if oldest else 1.0)


def backlog(pending: dict[str, int]) -> Finding:
    """Judge what waits for the CRM."""
    waiting = ", ".join(f"{name} {pending[name]}" for name in CLASSES if pending.get(name))
    return ok("backlog", f"events that wait for the CRM: {waiting}" if waiting else "no event waits for the CRM")


def backup(config: StoreConfig, now_s: float) -> Finding:
    """Judge the age of the last backup."""
    try:
        days = (now_s - float(backup_mark(config.database.path).read_text())) / 86_400
    except (OSError, ValueError):
        return unknown("backup", "no backup has been made", "See tagtrail backup, unless this store needs none.")
    if days > BACKUP_DAYS:
        return warning("backup", f"the last backup is {days:.0f} d old", "See whether tagtrail backup still runs.")
    return ok("backup", f"the last backup is {days:.0f} d old")


def directory(config: StoreConfig, now_us: int) -> Iterator[Finding]:
    """Yield findings about the member directory."""
    try:
        with closing(connect(config.database.path)) as conn:
            members, generation, until_us, expired = conn.execute(
                "SELECT (SELECT count(*) FROM directory), generation, valid_until_us, expired FROM directory_state"
            ).fetchone()
    except NoDatabase:
        return
    except (sqlite3.Error, Trouble) as failed:
        yield unknown("directory", f"the member directory can't be read: {failed}")
        return
    ask = "Let the CRM send the member directory, or import one with tagtrail directory import."
    if expired:
        yield error("directory", "the member directory has expired: nobody is recognised", ask)
    elif not members:
        yield warning("directory", "the member directory is empty: nobody is recognised", ask)
    elif until_us is not None and until_us - now_us < DAY_US:
        hours = max(0, (until_us - now_us) // 3_600_000_000)
        yield warning("directory", f"the member directory expires in {hours} h", ask)
    else:
        yield ok("directory", f"{counted(members, 'card')}, generation {generation}")


def page(config: StoreConfig) -> Iterator[Finding]:
    """Yield findings about the page's users."""
    if not users_path(config).exists() and (config.web.public or not _alone(config.web.listen)):
        yield warning(
            "page", "the page has no users, so nobody can open it", "Create one with tagtrail users set NAME --role it."
        )


def _alone(listen: str) -> bool:
    return listen.startswith(("127.", "localhost", "[::1]"))
