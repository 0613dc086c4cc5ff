"""What a release does with a database of another one: refuses newer ones, copies older ones before changing them."""

from __future__ import annotations

import shutil
import sqlite3
from collections import namedtuple
from contextlib import closing
from pathlib import Path

import pytest

from edge.database import copies, schema
from edge.database.schema import SCRIPTS, prove
from edge.database.writer import Database
from edge.store import files
from edge.store.errors import Trouble
from edge.store.files import Erasure, beside, delete_old

FEW = SCRIPTS[:9]


def make(path: Path, store: str = "s1") -> None:
    Database(path, store=store, quota_mb=64).close()


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database of an older release, with something in its outbox."""
    path = tmp_path / "store.db"
    with monkeypatch.context() as patch:
        patch.setattr(schema, "SCRIPTS", FEW)
        database = Database(path, store="s1", quota_mb=64)
        database.write_now(lambda conn: conn.execute("INSERT INTO outbox VALUES (1, 5, 'told')").fetchall())
        database.close()
    return path


def full(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))


def test_a_copy_is_made_before_a_migration_and_opens_with_the_older_release(
    older: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(older)
    copy = older.with_name(f"store.db.before-{SCRIPTS[9]}")
    assert copy.stat().st_mode & 0o077 == 0
    assert list(older.parent.glob("store.db.before-*")) == [copy]
    with closing(sqlite3.connect(copy)) as conn:
        assert schema.applied(conn) == FEW
    monkeypatch.setattr(schema, "SCRIPTS", FEW)
    with pytest.raises(Trouble, match="newer Tagtrail"):
        make(older)
    for side in ("-wal", "-shm"):
        older.with_name(older.name + side).unlink(missing_ok=True)
    shutil.copy(copy, older)
    database = Database(older, store="s1", quota_mb=64)
    assert database.write_now(lambda conn: conn.execute("SELECT * FROM outbox").fetchall()) == [(1, 5, "told")]
    database.close()


def test_sales_stay_when_unknown_hours_become_possible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "store.db"
    row = (3_600_000_000, "shoes", 3, None, 5990, 2)
    with monkeypatch.context() as patch:
        patch.setattr(schema, "SCRIPTS", SCRIPTS[: SCRIPTS.index("0106_sales_unknown")])
        database = Database(path, store="s1", quota_mb=64)
        database.write_now(lambda conn: conn.execute("INSERT INTO sales VALUES (?, ?, ?, ?, ?, ?)", row).fetchall())
        database.close()
    database = Database(path, store="s1", quota_mb=64)
    assert database.write_now(lambda conn: conn.execute("SELECT * FROM sales").fetchall()) == [row]
    database.write_now(lambda conn: conn.execute("UPDATE sales SET tickets = NULL").fetchall())
    database.close()


def test_no_copy_without_a_migration(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    make(path)
    make(path)
    assert not list(tmp_path.glob("store.db.before-*"))


def test_without_room_for_the_copy_nothing_is_changed(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full(monkeypatch)
    for attempt in (lambda: prove(older, "s1"), lambda: make(older)):
        with pytest.raises(Trouble, match="no room for the copy"):
            attempt()
    with closing(sqlite3.connect(older)) as conn:
        assert schema.applied(conn) == FEW
    assert not list(older.parent.glob("store.db.before-*"))


def test_an_incomplete_copy_stops_the_migration(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([{"outbox": 0}, {"outbox": 1}])
    monkeypatch.setattr(copies, "count", lambda conn: next(counts))
    with pytest.raises(Trouble, match="not what the database is"):
        make(older)
    with closing(sqlite3.connect(older)) as conn:
        assert schema.applied(conn) == FEW
    assert not list(older.parent.glob("store.db.before-*"))


def test_the_copy_is_known_erased_and_ages(older: Path) -> None:
    make(older)
    ((copy, kind),) = [(file, kind) for file, kind in beside(older) if ".before-" in file.name]
    assert kind is not None
    assert kind.erasure is Erasure.DELETED
    assert copy not in files.copies(older)
    made_s = copy.stat().st_mtime
    assert copy not in delete_old(older, made_s + 6 * 86_400)
    assert copy in delete_old(older, made_s + 8 * 86_400)


def test_a_release_is_proved_without_changing_anything(older: Path) -> None:
    assert prove(older.with_name("none.db"), "s1") == "no database yet"
    before = older.read_bytes()
    assert prove(older, "s1") == f"database readable; migrations to come: {len(SCRIPTS) - 9}"
    assert older.read_bytes() == before
    make(older)
    assert prove(older, "s1") == "database readable"


def test_a_release_that_cannot_use_the_database_is_refused(
    older: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Trouble, match="belongs to store 's1'"):
        prove(older, "s2")
    make(older)
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"\xa5" * 8192)
    with pytest.raises(Trouble, match="cannot read the database"):
        prove(broken, "s1")
    monkeypatch.setattr(schema, "SCRIPTS", FEW)
    with pytest.raises(Trouble, match=f"newer Tagtrail .it has {SCRIPTS[-1]}"):
        prove(older, "s1")
