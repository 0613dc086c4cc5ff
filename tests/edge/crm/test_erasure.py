"""Erasing a member: the receipt comes when nothing is left in any file, and not before."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from erasing import MEMBER, OTHER, TAG, erase, fill
from gateways import STORE, Gateway

from config import StoreConfig
from edge.access.users import Role, Users, users_path
from edge.access.verdicts import say, verdicts
from edge.crm.erasure import worker
from edge.crm.erasure.worker import Erasures, quiet
from edge.database.tombstones import Tombstones
from edge.database.writer import Database
from edge.store.business_days import parse_date
from edge.store.files import KINDS, Erasure, beside
from sync import outbox
from sync.commands import Pending


class Store:
    """A store's files without a service."""

    def __init__(self, folder: Path, **parts: Any) -> None:
        self.path = folder / "store.db"
        self.config = StoreConfig.model_validate(STORE | {"database": {"path": str(self.path)}} | parts)
        self.database = Database(self.path, store="s1", quota_mb=64)
        self.told: dict[str, dict[str, Any]] = {}

    async def erase(self, member: str = MEMBER) -> dict[str, Any]:
        return await erase(self.database, self.config, member)

    @asynccontextmanager
    async def at_work(self, **others: Any) -> AsyncIterator[Erasures]:
        async def settle(command: str, receipt: dict[str, Any]) -> None:
            self.told[command] = receipt

        erasures = Erasures(self.config, self.database, lambda: 100, settle=settle, **others)
        running = asyncio.create_task(erasures.run())
        try:
            yield erasures
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    def holding(self, *texts: bytes) -> set[str]:
        """Names of the files that hold one of some texts, packed or not."""
        found = set()
        for file in self.path.parent.iterdir():
            try:
                content = file.read_bytes() if file.is_file() else b""
            except FileNotFoundError:  # it was written and has its name by now
                continue
            if file.suffix == ".gz":
                content = gzip.decompress(content)
            if any(text in content for text in texts):
                found.add(file.name)
        return found

    async def rows(self, sql: str) -> list[Any]:
        return await self.database.read(lambda conn: conn.execute(sql).fetchall())


@pytest.fixture
def store(tmp_path: Path) -> Any:
    store = Store(tmp_path)
    yield store
    store.database.close()


TRACES = (MEMBER.encode(), TAG, TAG.hex().encode())


async def test_nothing_is_left_in_any_file_and_others_stay(store: Store) -> None:
    await store.database.write(fill)
    receipt = await store.erase()
    counts = {name: receipt[name] for name in ("directory", "visits", "journeys", "recognised", "cues", "outbox")}
    assert counts == dict.fromkeys(counts, 1) | {"outbox": 3}
    assert store.holding(*TRACES) == set()
    assert store.holding(OTHER.encode()) & {"store.db", "store.db-wal"}
    # Visits and journeys stay as somebody's; numbers of events that the CRM did not get are told as lost.
    assert await store.rows("SELECT member IS NULL, count(*) FROM visit GROUP BY 1") == [(0, 1), (1, 1)]
    for class_, upto in (("member", 2), ("journey", 1)):
        batch = await store.database.read(lambda conn, c=class_: outbox.pending(conn, c, 0, 10))
        assert [(gap.from_, gap.to, gap.reason) for gap in batch.lost] == [(1, upto, "erased")]
    assert await store.erase() | {"took_ms": 0} == dict.fromkeys(receipt, 0)


async def test_while_somebody_reads_an_older_state_it_is_pending_and_then_done_by_itself(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "FOLD_PAUSE_S", 0.0)
    monkeypatch.setattr(worker, "RETRY_S", (0.05, 0.05))
    await store.database.write(fill)
    with closing(sqlite3.connect(f"file:{store.path}?mode=ro", uri=True, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM visit").fetchone()
        async with store.at_work() as erasures:
            with pytest.raises(Pending, match="a program is reading"):
                await erasures.erase(MEMBER, "c1")
            # Rows are gone at once, and others may write.
            assert not await store.rows(f"SELECT 1 FROM visit WHERE member = '{MEMBER}'")
            await store.database.write(lambda conn: conn.execute("INSERT INTO told VALUES ('x', '', '', 1)").rowcount)
            assert "store.db-wal" in store.holding(*TRACES)
            assert erasures.commands() == {"c1"}
            reader.execute("COMMIT")
            async with asyncio.timeout(30):
                while "c1" not in store.told:
                    await asyncio.sleep(0.01)
            assert store.told["c1"]["visits"] == 1
            assert not erasures.commands()
    assert store.holding(*TRACES) == set()


async def test_it_goes_on_after_a_restart(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "FOLD_PAUSE_S", 0.0)
    await store.database.write(fill)
    with closing(sqlite3.connect(f"file:{store.path}?mode=ro", uri=True, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM visit").fetchone()
        async with store.at_work() as erasures:
            with pytest.raises(Pending):
                await erasures.erase(MEMBER, "c1")
    async with store.at_work() as erasures, asyncio.timeout(30):
        while "c1" not in store.told:
            await asyncio.sleep(0.01)
    assert store.holding(*TRACES) == set()


async def test_every_kind_of_file_is_treated_as_the_list_says(store: Store) -> None:
    """One of each kind, full of the member: what the list says is deleted is gone, and nothing else holds a trace."""
    await store.database.write(fill)
    users = Users(users_path(store.config))
    users.put("li", Role.MANAGER, "a long password")
    users.record("li", "manager", "", "looked at a member", f"C…1 #{users.digest(MEMBER)} 2026-01-01")
    users.record("li", "manager", "", "looked at a member", f"C…2 #{users.digest(OTHER)} 2026-01-01")
    users.record("li", "manager", "", "confirmed a suspected tag", TAG.hex()[:8])
    digest = users.digest(MEMBER)
    users.close()
    say(store.config, parse_date("2026-01-01"), TAG, True)
    say(store.config, parse_date("2026-01-01"), b"\1" * 16, True)
    text = b" ".join(TRACES)
    for name in (
        "store.db.corrupt-3",
        "store.db.corrupt-3-wal",
        "store.web.db.corrupt-1",
        "store.web.db.corrupt-1-journal",
        "store.db.erased.corrupt-1",
        "store.db.erased.new",
        "store.db.directory-0123456789abcdef.part",
        "store.db.saved",
    ):
        (store.path.parent / name).write_bytes(text)
    (store.path.parent / "capture-20260101T120000Z.csv.gz").write_bytes(gzip.compress(text))
    deleted = {file for file, kind in beside(store.path) if kind and kind.erasure is Erasure.DELETED}
    assert len(deleted) == 9
    receipt = await store.erase()
    assert (receipt["files"], receipt["audit"], receipt["verdicts"]) == (8, 2, 1), "one was overwritten before"
    assert not any(file.exists() for file in deleted)
    assert store.holding(*TRACES, f"#{digest}".encode()) == set()
    # The lines stay, without saying who.
    objects = [line.object for line in Users(users_path(store.config)).audit()]
    assert objects[0] == objects[2] == "(erased)"
    assert objects[1].startswith("C…2")
    assert [verdict.tag for verdict in verdicts(store.config)] == [b"\1" * 16]


async def test_every_file_of_a_whole_life_is_in_the_list(gateway: Gateway) -> None:
    gateway.configure()
    gateway.run("users", "set", "li", "-c", str(gateway.file), "--role", "manager")
    gateway.start()
    await gateway.until(lambda state: state["as_of_us"] > 0)
    (gateway.folder / "members.csv").write_text(f"epc,member,tier,consent,hint\n3000{'00' * 10},{MEMBER},A,1,\n")
    assert gateway.run("directory", "import", "members.csv", "-c", str(gateway.file)).returncode
    alive = {file.name for file in gateway.folder.iterdir()}
    assert gateway.run("erase", MEMBER, "-c", str(gateway.file)).returncode == 0, gateway.log()
    assert gateway.end() == 0, gateway.log()
    names = (alive | {file.name for file in gateway.folder.iterdir()}) - {"store.toml", "service.log", "members.csv"}
    listed = {name for name in names if any(kind.fits(gateway.database, name) for kind in KINDS)}
    assert names == listed
    assert {
        "store.db",
        "store.db-wal",
        "store.db.live",
        "store.db.monitor",
        "store.db.orders",
        "store.db.lock",
        "store.db.tag-key",
    } <= names
    for file in gateway.folder.iterdir():
        if file.name in listed:
            assert file.stat().st_mode & 0o077 == 0, file


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("store.db.before-upgrade", None, "still contains erased data"),
        ("store.db.gz", gzip.compress(b"whatever"), "can't be searched"),
        ("store.web.db.bak", b"notes", "can't be searched"),
    ],
)
async def test_a_copy_that_somebody_made_is_why_it_is_pending(
    store: Store, name: str, content: bytes | None, reason: str
) -> None:
    await store.database.write(fill)
    copy = store.path.parent / name
    if content is None:
        with closing(sqlite3.connect(store.path)) as conn:
            conn.execute("VACUUM INTO ?", (str(copy),))
    else:
        copy.write_bytes(content)
    with pytest.raises(Pending, match=rf"{re.escape(name)} .*{reason}"):
        await store.erase()
    assert copy.exists(), "it is not ours"
    copy.unlink()
    await store.erase()
    assert store.holding(*TRACES) == set()


async def test_a_copy_without_the_member_is_no_reason(store: Store) -> None:
    await store.database.write(lambda conn: fill(conn, [OTHER]))
    with closing(sqlite3.connect(store.path)) as conn:
        conn.execute("VACUUM INTO ?", (f"{store.path}.bak",))
    await store.database.write(lambda conn: fill(conn, [MEMBER]))
    await store.erase()
    assert store.holding(OTHER.encode()) >= {"store.db.bak"}


async def test_traces_between_rows_are_overwritten_at_once_or_when_the_store_is_closed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index whose pages were split and joined again keeps pieces of rows that are gone."""
    await store.database.write(fill)
    await store.erase()
    with store.path.open("r+b") as file:  # in the free part of a page, as if left there
        content = file.read()
        pages = range(4096, len(content), 4096)
        page = next(at for at in pages if content[at] in (10, 13) and content[at + 2048 : at + 2112] == bytes(64))
        file.seek(page + 2048)
        file.write(MEMBER.encode())
    assert store.holding(MEMBER.encode()) == {"store.db"}
    monkeypatch.setattr(worker, "SMALL_BYTES", 0)
    monkeypatch.setattr(worker, "quiet", lambda *_: False)
    with pytest.raises(Pending, match="rewritten when the store is closed"):
        await store.erase()
    monkeypatch.setattr(worker, "quiet", lambda *_: True)
    await store.erase()
    assert store.holding(MEMBER.encode()) == set()


def test_a_store_is_quiet_when_it_is_closed_or_at_night(tmp_path: Path) -> None:
    def at(clock: str, **parts: Any) -> bool:
        config = StoreConfig.model_validate(STORE | {"database": {"path": "/x/y.db"}} | parts)
        hours, minutes = map(int, clock.split(":"))
        return quiet(config, ((hours - 8) * 60 + minutes) * 60_000_000 + 20_000 * 86_400_000_000)

    hours = {"opening_hours": [{"open": "10:00", "close": "22:00"}]}
    assert [at(clock, **hours) for clock in ("09:00", "12:00", "21:59", "22:30")] == [True, False, False, True]
    assert [at(clock) for clock in ("12:00", "02:59", "03:30", "05:00")] == [False, False, True, False]


async def test_a_new_database_does_not_bring_the_member_back(store: Store, tmp_path: Path) -> None:
    """The list of erasures outlives the database; a directory of before is taken without them, a later one with."""
    await store.database.write(fill)
    async with store.at_work(generation=lambda: 7) as erasures:
        await erasures.erase(MEMBER)
    store.database.close()
    for file in tmp_path.glob("store.db*"):
        if file.suffix not in (".erased", ".tag-key"):
            file.unlink()
    store.database = Database(store.path, store="s1", quota_mb=64)
    async with store.at_work() as erasures:
        await erasures.offered(7)
        assert erasures.barred([MEMBER, OTHER], 6) == erasures.barred([MEMBER, OTHER], 7) == {MEMBER}
        assert erasures.barred([MEMBER, OTHER], 8) == set()
    assert MEMBER.encode() not in (tmp_path / "store.db.erased").read_bytes()


async def test_an_erasure_before_any_directory_holds_for_the_first_that_comes(store: Store) -> None:
    async with store.at_work() as erasures:
        await erasures.erase(MEMBER)
        assert erasures.barred([MEMBER], 99) == {MEMBER}
        await erasures.offered(12)
        assert (erasures.barred([MEMBER], 12), erasures.barred([MEMBER], 13)) == ({MEMBER}, set())


async def test_a_database_put_back_from_a_backup_is_erased_again(store: Store, tmp_path: Path) -> None:
    await store.database.write(fill)
    backup = tmp_path / "elsewhere"
    with closing(sqlite3.connect(store.path)) as conn:
        conn.execute("VACUUM INTO ?", (str(backup),))
    await store.erase()
    store.database.close()
    backup.replace(store.path)
    store.database = Database(store.path, store="s1", quota_mb=64)
    assert "store.db" in store.holding(*TRACES)
    async with store.at_work() as erasures, asyncio.timeout(30):
        await erasures.offered(1)
        while erasures._stones.open or store.holding(*TRACES):  # the list of what is open is saved a moment later
            await asyncio.sleep(0.01)
    assert store.holding(OTHER.encode())


async def test_who_has_joined_again_keeps_what_is_from_after(store: Store) -> None:
    """Erased at 100; the directory of generation 2 has the member again, and so has a visit of 200."""
    await store.database.write(fill)
    async with store.at_work(generation=lambda: 1) as erasures:
        await erasures.erase(MEMBER)

    def again(conn: sqlite3.Connection) -> None:
        fill(conn, [MEMBER])
        conn.execute("UPDATE directory_state SET generation = 2")
        conn.execute("INSERT INTO visit VALUES (NULL, ?, 1, ?, 'bags', 200, 210, 200, 1, 0, 1)", (TAG, MEMBER))

    await store.database.write(again)
    async with store.at_work() as erasures:
        await erasures.offered(2)
    assert await store.rows(f"SELECT zone FROM visit WHERE member = '{MEMBER}'") == [("bags",)]
    assert await store.rows(f"SELECT count(*) FROM directory WHERE member = '{MEMBER}'") == [(1,)]
    assert await store.rows("SELECT count(*) FROM outbox WHERE class < 2") == [(6,)]


async def test_hundreds_are_erased_together(store: Store) -> None:
    members = [f"CUSTOMER-1{number:06}" for number in range(300)]

    def many(conn: sqlite3.Connection) -> None:
        for number, member in enumerate(members):
            tag = number.to_bytes(16, "little")
            conn.execute("INSERT INTO directory VALUES (?, ?, 'A', 1, NULL, NULL)", (tag, member))
            conn.executemany(
                f"INSERT INTO visit VALUES (NULL, ?, 1, ?, 'shoes', {number}, 9, {number}, 1, 0, 1)",
                [(tag, member)] * 5,
            )

    await store.database.write(many)
    async with store.at_work() as erasures:
        receipts = await asyncio.gather(*(erasures.erase(member) for member in members[:-1]))
    assert {(receipt["directory"], receipt["visits"]) for receipt in receipts} == {(1, 5)}
    assert not store.holding(b"CUSTOMER-1000000", b"CUSTOMER-1000298")
    assert store.holding(members[-1].encode())


async def test_the_list_that_cannot_be_written_is_why_it_is_pending(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.database.write(fill)
    save = Tombstones.save

    def full(_: Tombstones) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Tombstones, "save", full)
    with pytest.raises(Pending, match="No space left"):
        await store.erase()
    monkeypatch.setattr(Tombstones, "save", save)
    await store.erase()
    assert store.holding(*TRACES) == set()


def test_a_damaged_list_is_moved_aside(tmp_path: Path) -> None:
    file = tmp_path / "store.db.erased"
    for damaged in ("{", "[]", '{"open": [{"member": 1}], "done": []}'):
        file.write_text(damaged)
        assert not Tombstones(tmp_path / "store.db", b"k").any
        assert not file.exists()


def test_the_list_is_read_anew_when_another_process_wrote_it(tmp_path: Path) -> None:
    ours, others = (Tombstones(tmp_path / "store.db", b"k") for _ in range(2))
    ours.begin("M1", 1, 1)
    ours.save()
    ours.end(["M1"])
    others.refresh()
    assert others.barred(["M1"], 1) == {"M1"}
    others.readmit(["M1"])
    others.save()
    ours.refresh()
    assert ours.barred(["M1"], 1) == set()
    assert json.loads((tmp_path / "store.db.erased").read_text())["done"] == []
