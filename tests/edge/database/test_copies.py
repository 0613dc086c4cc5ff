"""Copies of a database in use: complete, verified, and without keys of days or EPCs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from edge.database.copies import copy
from edge.database.keys import DayKeys
from edge.database.reader import connect
from edge.database.writer import Database
from edge.store.business_days import BusinessDay
from edge.store.errors import Trouble

NOON_US = 1_800_000_000_000_000
DAYS = BusinessDay(ZoneInfo("Asia/Shanghai"), "04:00")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "store.db", store="s1", quota_mb=64)
    database.write_now(lambda conn: conn.execute("INSERT INTO fact VALUES ('kept', 'told')").fetchall())
    yield database
    database.close()


def test_the_key_of_no_day_is_in_any_byte_of_a_copy(database: Database, tmp_path: Path) -> None:
    key: bytes = database.write_now(lambda conn: DayKeys(conn, DAYS, NOON_US).of(NOON_US))
    target = tmp_path / "copy.db"
    with closing(connect(database.path)) as conn:
        rows = copy(conn, target)
    assert key in database.path.with_name("store.db-wal").read_bytes(), "or there is nothing to leave out"
    assert key not in target.read_bytes()
    assert rows["day_key"] == 0
    assert target.stat().st_mode & 0o077 == 0
    assert sorted(file.name for file in tmp_path.glob("copy*")) == ["copy.db"]
    with closing(sqlite3.connect(target)) as conn:
        assert conn.execute("SELECT value FROM fact WHERE name = 'kept'").fetchone() == ("told",)
        assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_the_checkpoint_with_the_epcs_of_the_tags_in_the_store_is_in_no_copy(
    database: Database, tmp_path: Path
) -> None:
    state = b"\xe2\x80\x11" * 4096
    database.write_now(lambda conn: conn.execute("INSERT INTO checkpoint VALUES (1, 7, 'x')").fetchall())
    database.write_now(lambda conn: conn.execute("INSERT INTO checkpoint_part VALUES (0, ?)", (state,)).fetchall())
    with closing(connect(database.path)) as conn:
        rows = copy(conn, tmp_path / "copy.db")
        assert rows["checkpoint"] == rows["checkpoint_part"] == 0
        assert conn.execute("SELECT count(*) FROM checkpoint").fetchone() == (1,)
    assert state[:90] in database.path.with_name("store.db-wal").read_bytes(), "or there is nothing to leave out"
    assert state[:90] not in (tmp_path / "copy.db").read_bytes()


def test_reads_held_over_a_stop_are_in_no_copy(database: Database, tmp_path: Path) -> None:
    reads = b"\x78\x9c\xe2\x81" * 4096
    database.write_now(lambda conn: conn.execute("INSERT INTO held VALUES ('boot', '[]', ?)", (reads,)).fetchall())
    with closing(connect(database.path)) as conn:
        assert copy(conn, tmp_path / "copy.db")["held"] == 0
    assert reads[:90] in database.path.with_name("store.db-wal").read_bytes(), "or there is nothing to leave out"
    assert reads[:90] not in (tmp_path / "copy.db").read_bytes()


def test_a_day_begun_goes_on_with_another_key(database: Database, tmp_path: Path) -> None:
    key: bytes = database.write_now(lambda conn: DayKeys(conn, DAYS, NOON_US).of(NOON_US))
    with closing(connect(database.path)) as conn:
        copy(conn, tmp_path / "copy.db")
    again = Database(tmp_path / "copy.db", store="s1", quota_mb=64)
    other: bytes = again.write_now(lambda conn: DayKeys(conn, DAYS, NOON_US).of(NOON_US))
    again.close()
    assert len(other) == len(key)
    assert other != key


def test_what_is_written_meanwhile_is_in_the_next_copy(database: Database, tmp_path: Path) -> None:
    """A copy is of one moment, even if somebody writes after each step."""

    class Interrupted:
        """A connection whose copying is interrupted by a writer."""

        def __init__(self, conn: sqlite3.Connection) -> None:
            self._conn = conn

        def execute(self, *query: Any) -> sqlite3.Cursor:
            return self._conn.execute(*query)

        def backup(self, made: sqlite3.Connection, *, pages: int) -> None:
            database.write_now(lambda conn: conn.execute("INSERT INTO fact VALUES ('later', 'x')").fetchall())
            self._conn.backup(made, pages=pages)

    with closing(connect(database.path)) as conn:
        rows = copy(Interrupted(conn), tmp_path / "copy.db")  # type: ignore[arg-type]
    with closing(sqlite3.connect(tmp_path / "copy.db")) as conn:
        names = {name for (name,) in conn.execute("SELECT name FROM fact")}
    assert "later" not in names
    assert len(names) == rows["fact"]


def test_a_copy_that_cannot_be_written_leaves_nothing(database: Database, tmp_path: Path) -> None:
    (tmp_path / "copy.db").mkdir()
    with closing(connect(database.path)) as conn, pytest.raises(Trouble, match="cannot copy the database"):
        copy(conn, tmp_path / "copy.db")
    assert not list(tmp_path.glob("*.part"))
