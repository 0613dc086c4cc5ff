"""The database: epoch, quarantine, quota, transactions and what it says when it can't be used."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.database import schema
from edge.database.reader import NoDatabase, connect
from edge.database.schema import SCRIPTS
from edge.database.writer import Database
from edge.store.errors import Trouble
from sync import outbox
from sync.quota import in_use


@pytest.fixture
def open_database(tmp_path: Path) -> Callable[..., Database]:
    opened: list[Database] = []

    def open_(path: Path = tmp_path / "store.db", store: str = "s1", quota_mb: int = 64) -> Database:
        opened.append(Database(path, store=store, quota_mb=quota_mb))
        return opened[-1]

    return open_


def test_epoch_and_key_survive_reopening(open_database: Callable[..., Database]) -> None:
    first = open_database()
    first.close()
    second = open_database()
    assert (second.epoch, second.tag_key) == (first.epoch, first.tag_key)
    second.close()


def test_what_is_committed_survives_a_power_cut(open_database: Callable[..., Database]) -> None:
    """With less than FULL (2) in WAL mode the last commits may be taken back, and their numbers given twice."""
    database = open_database()
    pragmas = ("synchronous", "journal_mode", "secure_delete")
    told = database.write_now(lambda conn: [conn.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas])
    assert told == [2, "wal", 1]
    database.close()


def test_two_databases_have_two_epochs(open_database: Callable[..., Database], tmp_path: Path) -> None:
    one, other = open_database(), open_database(tmp_path / "other.db")
    assert one.epoch != other.epoch
    one.close()
    other.close()


def test_migrations_are_numbered_and_applied_once(open_database: Callable[..., Database]) -> None:
    database = open_database()
    database.close()
    open_database().close()
    with sqlite3.connect(database.path) as conn:
        applied = [name for (name,) in conn.execute("SELECT name FROM _sqlite_migrations ORDER BY name")]
        tables = {name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    conn.close()
    assert applied[0] == "0001_start"
    assert {"visit", "journey", "aggregate", "outbox_agg", "directory", "checkpoint"} <= tables


def test_a_job_that_raises_leaves_nothing(open_database: Callable[..., Database]) -> None:
    database = open_database()

    def job(conn: sqlite3.Connection) -> None:
        conn.execute("INSERT INTO fact VALUES ('half', 'done')")
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        database.write_now(job)
    rows = database.write_now(lambda conn: conn.execute("SELECT * FROM fact WHERE name = 'half'").fetchall())
    assert rows == []
    database.close()


def test_another_stores_database_is_refused(open_database: Callable[..., Database]) -> None:
    open_database(store="s1").close()
    with pytest.raises(Trouble, match="belongs to store 's1'"):
        open_database(store="s2")


def test_a_folder_that_cannot_be_made_is_one_line(open_database: Callable[..., Database], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Trouble, match="cannot create the folder"):
        open_database(tmp_path / "file" / "store.db")


def test_a_path_that_is_a_folder_is_one_line(open_database: Callable[..., Database], tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="cannot use the database"):
        open_database(tmp_path)


@pytest.mark.parametrize("damage", ["header", "middle"])
def test_a_damaged_file_is_moved_aside_and_a_new_epoch_begun(
    open_database: Callable[..., Database], tmp_path: Path, damage: str
) -> None:
    database = open_database()
    database.write_now(
        lambda conn: conn.executemany(
            "INSERT INTO outbox_health VALUES (?, ?)", [(seq, "x" * 1000) for seq in range(500)]
        ).fetchall()
    )
    database.close()
    raw = bytearray(database.path.read_bytes())
    where = slice(0, 100) if damage == "header" else slice(4096 * 2, 4096 * 100)
    raw[where] = b"\xa5" * len(raw[where])
    database.path.write_bytes(raw)

    after = open_database()
    assert after.quarantined == tmp_path / "store.db.corrupt-1"
    assert after.quarantined.read_bytes() == bytes(raw)
    assert after.epoch != database.epoch
    after.close()


def test_a_database_of_a_newer_version_is_refused(open_database: Callable[..., Database]) -> None:
    database = open_database()
    database.close()
    with sqlite3.connect(database.path) as conn:
        conn.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('tagtrail', '9999_future', '')"
        )
    conn.close()
    with pytest.raises(Trouble, match="newer Tagtrail"):
        open_database()


def test_the_quota_stops_inserts_but_not_deletes(open_database: Callable[..., Database]) -> None:
    database = open_database(quota_mb=16)

    def fill(conn: sqlite3.Connection) -> None:
        conn.executemany("INSERT INTO outbox_health VALUES (?, ?)", ((seq, "x" * 4000) for seq in range(10_000)))

    with pytest.raises(sqlite3.OperationalError, match="full"):
        database.write_now(fill)
    database.write_now(
        lambda conn: conn.executemany(
            "INSERT INTO outbox_health VALUES (?, ?)", ((seq, "x" * 4000) for seq in range(2_000))
        ).fetchall()
    )
    database.write_now(lambda conn: conn.execute("DELETE FROM outbox_health").fetchall())
    database.close()


def test_an_outbox_of_before_keeps_its_events_though_the_quota_is_near(
    open_database: Callable[..., Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    """0010 moves events to a table a class, which takes room for both for a moment."""
    monkeypatch.setattr(schema, "SCRIPTS", SCRIPTS[:9])
    database = open_database(quota_mb=16)
    assert SCRIPTS[9] == "0010_outbox_by_class"
    rows = [(class_, seq, f"{class_}/{seq} {'ü' * 500}") for class_ in range(4) for seq in range(5, 305) if seq != 9]
    rows += [(1, seq, "x" * 3000) for seq in range(2000, 2000 + 1600)]
    database.write_now(lambda conn: conn.executemany("INSERT INTO outbox VALUES (?, ?, ?)", rows).fetchall())
    assert database.write_now(in_use) > 0.6
    epoch = database.epoch
    database.close()
    monkeypatch.setattr(schema, "SCRIPTS", SCRIPTS)
    database = open_database(quota_mb=16)
    assert database.epoch == epoch
    assert database.write_now(lambda conn: conn.execute("SELECT * FROM outbox ORDER BY 1, 2").fetchall()) == sorted(
        rows
    )
    batch = database.write_now(lambda conn: outbox.pending(conn, "agg", 4, 10))
    assert batch is not None
    assert (batch.first, len(batch.payloads)) == (5, 4)
    more = [(seq, "x" * 4000) for seq in range(5000, 9000)]
    with pytest.raises(sqlite3.OperationalError, match="full"):
        database.write_now(lambda conn: conn.executemany("INSERT INTO outbox_health VALUES (?, ?)", more).fetchall())
    database.close()


def test_reading_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(NoDatabase, match="when the service first runs"):
        connect(tmp_path / "none.db")


def test_it_opens_while_another_process_writes(open_database: Callable[..., Database]) -> None:
    """An import beside a busy service waits for its turn."""
    busy = open_database()
    stop = threading.Event()

    def write() -> None:
        seq = 0
        while not stop.is_set():
            seq += 1
            busy.write_now(
                lambda conn, seq=seq: conn.execute("INSERT INTO outbox_health VALUES (?, 'x')", (seq,)).fetchall()
            )

    writing = threading.Thread(target=write)
    writing.start()
    try:
        for _ in range(30):
            open_database().close()
    finally:
        stop.set()
        writing.join()
        busy.close()


def test_a_file_that_is_deleted_under_it_is_there_again(open_database: Callable[..., Database], tmp_path: Path) -> None:
    database = open_database()
    assert not database.astray()
    database.write_now(lambda conn: conn.execute("INSERT INTO fact VALUES ('kept', 'yes')"))
    for file in tmp_path.glob("store.db*"):
        file.unlink()
    assert database.astray()
    database.write_now(lambda conn: conn.execute("INSERT INTO fact VALUES ('later', 'too')"))
    database.close()
    assert [file.name for file in tmp_path.glob("store.db*")] == ["store.db"]
    again = open_database()
    facts = again.write_now(lambda conn: dict(conn.execute("SELECT name, value FROM fact")))
    assert (facts["kept"], facts["later"], again.epoch) == ("yes", "too", database.epoch)
    again.close()


def test_a_file_put_in_its_place_is_left_alone(open_database: Callable[..., Database], tmp_path: Path) -> None:
    database = open_database()
    with contextlib.closing(sqlite3.connect(database.path)) as conn:
        conn.execute("VACUUM INTO ?", (str(tmp_path / "backup"),))
    (tmp_path / "backup").replace(tmp_path / "store.db")
    assert database.astray()
    before = (tmp_path / "store.db").stat().st_ino
    database.close()
    assert (tmp_path / "store.db").stat().st_ino == before
