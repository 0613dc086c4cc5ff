"""Keys of pseudonyms: the tag key, stored apart from the database, and one for each business day, which is destroyed.

    tag key  systemd's credential `tag-key-sealed` or `tag-key`; without one the file `<database>.tag-key`
    day key  the table day_key, from the first pseudonym of a day until its journeys have closed

A member's card at rest is a hash under the tag key. Everybody else's is one under the day's key mixed with the tag
key: so a copy of the database alone tells of nobody, and of days whose key is gone nobody can tell with both either.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import secrets
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from hashlib import blake2b
from pathlib import Path

from edge.store.business_days import BusinessDay
from edge.store.errors import Trouble
from edge.store.private import create_private

CREDENTIALS = ("tag-key-sealed", "tag-key")
BYTES = 32
MARK = "tag_key_mark"
"""Fact of the database that identifies the tag key of the directory's hashes."""
KEPT_DAYS = 1
"""A day's key outlives its day by at most one day: tags in the store for longer get a new pseudonym each day."""


def tag_key_file(database: Path) -> Path:
    """Return the path of the tag key if systemd doesn't hold it."""
    return database.with_name(f"{database.name}.tag-key")


def find_tag_key(database: Path) -> bytes | None:
    """Return the tag key from the credential or else the file; None if there is neither. Trouble if it is invalid."""
    for path in (*_credentials(), tag_key_file(database)):
        with contextlib.suppress(FileNotFoundError):
            return _read(path)
    return None


def keep_tag_key(database: Path, key: bytes) -> None:
    """Write the tag key to its file atomically."""
    create_private(tag_key_file(database), f"{key.hex()}\n".encode())


def key_to_seal(database: Path) -> bytes:
    """Return the tag key for sealing by systemd: the one in use, or else a new one. Trouble if only the service has
    it."""
    key = find_tag_key(database)
    if key is None and database.exists():
        try:
            with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as conn:
                facts = dict(conn.execute("SELECT name, value FROM fact"))
                key = lasting(conn)
        except sqlite3.Error as error:
            raise Trouble(f"cannot read the database {database}: {error}") from error
        if MARK in facts and key is None:
            raise Trouble("the tag key is a credential already, which only the service has")
    return key or secrets.token_bytes(BYTES)


def lasting(conn: sqlite3.Connection) -> bytes | None:
    """The tag key that lay in the database, as it did once, if its directory was imported by hand.

    One that the CRM sends again is better hashed with a new key: pseudonyms were made of the old one.
    """
    row = conn.execute(
        "SELECT value FROM fact WHERE name = 'tag_key' AND (SELECT generation FROM directory_state) = 0"
        " AND EXISTS (SELECT 1 FROM directory)"
    ).fetchone()
    return bytes.fromhex(row[0]) if row else None


def is_credential() -> bool:
    """Return whether systemd holds the tag key."""
    return any(path.exists() for path in _credentials())


def mark(key: bytes) -> str:
    """Return an identifier of a key that doesn't reveal it."""
    return blake2b(b"mark", key=key, digest_size=8).hexdigest()


class DayKeys:
    """Keys of business days within one transaction; created on first use. `now_us`: store time."""

    def __init__(self, conn: sqlite3.Connection, days: BusinessDay, now_us: int) -> None:
        self._conn = conn
        self._days = days
        self._today = days.date(now_us)
        self._known: dict[dt.date, bytes] = {}

    def of(self, time_us: int) -> bytes:
        """Return the key of the business day of a time; today's if that day's is destroyed."""
        date = self._days.date(time_us)
        if not self._today - KEPT_DAYS * DAY <= date <= self._today + DAY:
            date = self._today
        if date not in self._known:
            self._known[date] = self._kept(date)
        return self._known[date]

    def _kept(self, date: dt.date) -> bytes:
        row = self._conn.execute("SELECT key FROM day_key WHERE date = ?", (date.isoformat(),)).fetchone()
        if row is not None:
            return bytes(row[0])
        key = secrets.token_bytes(BYTES)
        self._conn.execute("INSERT INTO day_key VALUES (?, ?)", (date.isoformat(), key))
        return key


def destroy_day_keys(conn: sqlite3.Connection, days: BusinessDay, now_us: int, under_way_us: Iterable[int]) -> int:
    """Delete the keys of past days, except yesterday's while a journey of it continues; returns their number.
    `under_way_us`: start times of open journeys. The log of the database has to be folded afterwards.
    """
    today = days.date(now_us)
    going_on = {days.date(begin_us) for begin_us in under_way_us}
    gone = 0
    for (text,) in conn.execute("SELECT date FROM day_key WHERE date < ?", (today.isoformat(),)).fetchall():
        date = dt.date.fromisoformat(text)
        if date < today - KEPT_DAYS * DAY or date not in going_on:
            gone += conn.execute("DELETE FROM day_key WHERE date = ?", (text,)).rowcount
    return gone


DAY = dt.timedelta(days=1)


def _credentials() -> list[Path]:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return [Path(folder) / name for name in CREDENTIALS] if folder else []


def _read(path: Path) -> bytes:
    try:
        text = path.read_bytes().strip()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Trouble(f"cannot read the tag key {path}: {error.strerror}") from error
    if len(text) < BYTES:
        raise Trouble(f"the tag key {path} is too short: {BYTES} random bytes are needed, as hex")
    with contextlib.suppress(ValueError):
        if len(key := bytes.fromhex(text.decode("ascii"))) == BYTES:
            return key
    return blake2b(text, digest_size=BYTES).digest()
