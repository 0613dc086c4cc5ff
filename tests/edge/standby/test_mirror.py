"""A copy of a database, made of its log: whatever is written, page by page the same, and whole at any moment."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from edge.database.scrub import fold
from edge.database.wal import HEADER_BYTES, BadLog, Chain, Part, Place, Tail
from edge.database.writer import Database
from edge.standby.feed import Feed
from edge.standby.mirror import BLOCK_BYTES, DIGEST_BYTES, Mirror, copy_of, digest

ROWS = "SELECT * FROM note ORDER BY id"


class Pair:
    """A database and its copy. What its thread delivers is taken in by `catch_up`."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(folder / "a" / "store.db", store="s1", quota_mb=64)
        self.database.write_now(lambda conn: conn.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, text BLOB)"))
        self.mirror = Mirror(folder / "b" / "store.db")
        self.parts: list[tuple[Part, int]] = []
        self.broken = 0
        self.feed: Feed | None = None
        self.number = 0
        self.copies = self.sent = 0

    async def connect(self, place: Place | None = None) -> None:
        """Follow from where the copy is; as Shipping and Following do it over a connection."""
        await self.cut()
        self.parts.clear()
        self.number += 1
        place = place or self.mirror.place
        feed = Feed(self.database.path, place, self.number, lambda *part: self.parts.append(part), self._break)
        self.feed = feed
        await self.database.follow(feed)
        if feed.size is None:
            if feed.first.data:
                self.mirror.append(False, feed.first.data)
            return
        self.copies += 1
        there = list(self.mirror.digests())
        self.mirror.begin(feed.size)
        with self.database.path.open("rb") as file:
            whole = file.read(feed.size).ljust(feed.size, b"\0")
        for at in range(-(-feed.size // BLOCK_BYTES)):
            block = whole[at * BLOCK_BYTES : (at + 1) * BLOCK_BYTES]
            if at >= len(there) or digest(block) != there[at]:
                self.mirror.put(at, block)
                self.sent += 1
        feed.release()
        self.mirror.finish(feed.first.data)

    async def cut(self) -> None:
        if self.feed is not None:
            await self.database.follow(None)
            self.feed.close()
            self.feed = None

    def catch_up(self) -> None:
        for part, _ in self.parts:
            self.mirror.append(part.begins, part.data)
        self.parts.clear()

    def check(self, folder: Path) -> None:
        """The copy, as it would be after a power cut now, has what the database has."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for file in copy_of(self.mirror.path.with_name("store.db")).parent.glob("store.db.standby-copy*"):
            shutil.copy(file, folder / file.name)
        mirror = Mirror(folder / "store.db")
        mirror.settle()
        mirror.close()
        with closing(sqlite3.connect(mirror.path)) as conn:
            assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert conn.execute(ROWS).fetchall() == self.rows()

    def rows(self) -> list[tuple[int, bytes]]:
        return self.database.write_now(lambda conn: conn.execute(ROWS).fetchall())

    def _break(self) -> None:
        self.broken += 1


@pytest.fixture
async def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    await made.cut()
    made.mirror.close()
    made.database.close()


def some(random: Random) -> Callable[[sqlite3.Connection], None]:
    def job(conn: sqlite3.Connection) -> None:
        for _ in range(random.randint(1, 12)):
            text = random.randbytes(random.choice((10, 500, 9000)))
            conn.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (random.randint(1, 150), text))
        if random.random() < 0.2:
            conn.execute("DELETE FROM note WHERE id % 7 = ?", (random.randint(0, 6),))

    return job


@pytest.mark.parametrize("seed", range(2))
async def test_a_copy_is_what_the_database_is_after_every_transaction(pair: Pair, tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    pair.database.write_now(some(random))
    await pair.connect()
    for turn in range(100):
        pair.database.write_now(some(random))
        match random.randint(0, 24):
            case 0:
                assert await pair.database.fold()
            case 1:  # a cut in which something is written, or not
                place = pair.mirror.place if not pair.parts else None
                await pair.cut()
                if random.random() < 0.5:
                    pair.database.write_now(some(random))
                await pair.connect(place)
            case 2:  # the standby's process starts again
                pair.catch_up()
                await pair.cut()
                pair.mirror.close()
                pair.mirror = Mirror(tmp_path / "b" / "store.db")
                await pair.connect()
        pair.catch_up()
        if turn % 8 == 0:
            pair.check(tmp_path / "check")
    assert pair.broken == 0
    await pair.database.fold()
    pair.mirror.settle()
    assert pair.mirror.path.read_bytes() == pair.database.path.read_bytes()


async def test_after_a_cut_only_what_was_missed_is_sent(pair: Pair, tmp_path: Path) -> None:
    random = Random(1)
    for _ in range(40):
        pair.database.write_now(some(random))
    await pair.connect()
    assert (pair.copies, pair.sent) == (1, -(-pair.mirror.path.stat().st_size // BLOCK_BYTES))
    await pair.cut()
    pair.database.write_now(some(random))
    await pair.connect()
    assert pair.copies == 1
    pair.check(tmp_path / "check")
    # The log has begun anew since: a copy, of which most blocks are there.
    await pair.cut()
    before = pair.sent
    pair.database.write_now(lambda conn: conn.execute("UPDATE note SET text = x'00' WHERE id = 1"))
    assert await pair.database.fold()
    pair.database.write_now(lambda conn: conn.execute("UPDATE note SET text = x'01' WHERE id = 1"))
    await pair.connect()
    assert pair.copies == 2
    assert 1 <= pair.sent - before < -(-pair.mirror.path.stat().st_size // BLOCK_BYTES) - 2
    pair.check(tmp_path / "check")


async def test_a_copy_is_made_while_the_service_goes_on_writing(pair: Pair, tmp_path: Path) -> None:
    random = Random(5)
    for _ in range(30):
        pair.database.write_now(some(random))
    assert await pair.database.fold()
    write = pair.mirror.put

    def put(at: int, block: bytes) -> None:
        for _ in range(40):  # enough for SQLite to fold its log several times, if it could
            pair.database.write_now(some(random))
        write(at, block)

    pair.mirror.put = put  # type: ignore[method-assign]
    await pair.connect()
    pair.catch_up()
    pair.check(tmp_path / "check")


async def test_what_another_process_writes_comes_too(pair: Pair, tmp_path: Path) -> None:
    await pair.connect()
    with closing(sqlite3.connect(pair.database.path, isolation_level=None)) as other:
        other.execute("INSERT INTO note VALUES (1000, 'of another')")
        pair.database.write_now(some(Random(1)))
        pair.catch_up()
        pair.check(tmp_path / "check")
        assert pair.broken == 0
        # It lets the log begin anew behind what it has written: nobody knows what that was.
        other.execute("INSERT INTO note VALUES (1001, 'of another')")
    assert fold(pair.database.path)
    pair.database.write_now(some(Random(2)))
    assert pair.broken == 1
    await pair.connect()
    pair.database.write_now(some(Random(3)))
    pair.catch_up()
    pair.check(tmp_path / "check")


async def test_another_process_that_begins_the_log_anew_just_after_a_transaction_is_noticed(
    pair: Pair, tmp_path: Path
) -> None:
    await pair.connect()
    pair.database.write_now(some(Random(1)))
    pair.catch_up()
    feed = pair.feed
    assert feed is not None
    more, times = feed._tail.more, 2

    def after_another_has_written() -> Part | None:
        nonlocal times
        while times:  # what our transaction has written is folded, and then overwritten, before we look
            times -= 1
            with closing(sqlite3.connect(pair.database.path, isolation_level=None)) as other:
                other.execute("INSERT INTO note VALUES (?, 'of another')", (1000 + times,))
                other.execute("PRAGMA wal_checkpoint").fetchall()
        return more()

    feed._tail.more = after_another_has_written  # type: ignore[method-assign]
    pair.database.write_now(some(Random(2)))
    pair.catch_up()
    assert pair.broken == 1
    await pair.connect()
    assert pair.copies == 2
    pair.database.write_now(some(Random(3)))
    pair.catch_up()
    pair.check(tmp_path / "check")


async def test_a_transaction_that_was_rolled_back_is_not_sent(pair: Pair, tmp_path: Path) -> None:
    await pair.connect()

    def job(conn: sqlite3.Connection) -> None:
        conn.execute("PRAGMA cache_size = 2")  # so that it spills into the log
        conn.executemany("INSERT INTO note VALUES (?, ?)", [(n, bytes(9000)) for n in range(500, 600)])
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        pair.database.write_now(job)
    pair.database.write_now(lambda conn: conn.execute("INSERT INTO note VALUES (1, 'x')"))
    pair.catch_up()
    pair.check(tmp_path / "check")
    assert pair.broken == 0
    assert len(pair.rows()) == 1


async def test_bytes_that_are_not_what_follows_are_refused(pair: Pair, tmp_path: Path) -> None:
    await pair.connect()
    pair.database.write_now(some(Random(1)))
    [(part, _)] = pair.parts
    harmed = bytearray(part.data)
    harmed[200] ^= 1
    for wrong in (bytes(harmed), part.data[:-1], part.data[4120:], part.data + part.data):
        with pytest.raises(BadLog):
            pair.mirror.append(part.begins, wrong)
    pair.catch_up()
    pair.check(tmp_path / "check")
    with pytest.raises(BadLog):
        Chain(bytes(HEADER_BYTES))


async def test_a_torn_end_of_the_log_is_cut_off(pair: Pair, tmp_path: Path) -> None:
    await pair.connect()
    pair.database.write_now(some(Random(1)))
    pair.catch_up()
    place = pair.mirror.place
    pair.mirror.close()
    log = tmp_path / "b" / "store.db.standby-copy-wal"
    with log.open("ab") as file:
        file.write(bytes(5000))
    pair.mirror = Mirror(tmp_path / "b" / "store.db")
    assert pair.mirror.place == place
    assert log.stat().st_size == place.size
    await pair.connect()
    assert pair.copies == 1
    pair.check(tmp_path / "check")


async def test_what_could_not_be_put_on_disk_does_not_count(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair.connect()
    pair.database.write_now(some(Random(1)))
    pair.catch_up()
    place = pair.mirror.place
    pair.database.write_now(some(Random(2)))
    monkeypatch.setattr(os, "fdatasync", lambda file: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(OSError, match="Input/output"):
        pair.catch_up()
    monkeypatch.undo()
    assert pair.mirror.place == place
    await pair.connect()
    assert pair.copies == 1
    pair.check(tmp_path / "check")


async def test_a_copy_for_which_there_is_no_room_is_not_begun(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair.connect()
    pair.database.write_now(some(Random(1)))
    pair.catch_up()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=50 << 20))
    pair.mirror.need(50 << 20)
    with pytest.raises(OSError, match="it needs 51 MB beside the copy before, and 50 MB are free"):
        pair.mirror.begin((50 << 20) + 1)
    pair.check(tmp_path / "check")


async def test_what_a_full_disk_did_not_take_is_sent_again(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair.connect()
    pair.database.write_now(some(Random(1)))
    write = os.pwrite

    def full(file: int, data: memoryview, at: int) -> int:
        if len(data) <= 4200:
            raise OSError(28, "No space left on device")
        return write(file, data[: len(data) // 2], at)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        pair.catch_up()
    monkeypatch.undo()
    await pair.connect()
    assert pair.copies == 1
    pair.check(tmp_path / "check")


def test_checksums_are_those_of_sqlite(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as conn:
        conn.execute("PRAGMA journal_mode = WAL")
        conn.execute("PRAGMA wal_autocheckpoint = 0")
        conn.execute("CREATE TABLE t (a)")
        tail = Tail(tmp_path / "a.db")
        first = tail.start()
        for n in range(50):
            conn.execute("INSERT INTO t VALUES (zeroblob(?))", (n * 311,))
        more = tail.more()
        tail.close()
        assert first is not None
        assert more is not None
        log = (tmp_path / "a.db-wal").read_bytes()
    assert first.data + more.data == log
    assert len(digest(b"")) == DIGEST_BYTES


async def test_following_costs_nothing_when_nobody_does(pair: Pair) -> None:
    await pair.connect()
    await pair.cut()
    pair.database.write_now(some(Random(1)))
    await asyncio.sleep(0)
    assert pair.parts == []
