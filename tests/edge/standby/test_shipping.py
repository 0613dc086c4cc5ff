"""A service and its standby over real sockets: what leaves the store is with the standby first, whatever fails."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from forwarding import TOKEN, until
from gateways import WAIT_S, Gateway, member_card
from pairs import PATIENCE_S, SECOND, Active, Paper, Standby, at, elsewhere, pair_of, serving
from rigs import DOOR, T0, HandClock, shop_of

from edge.access.users import Role, Users
from edge.database import terms
from edge.forwarding import wire
from edge.forwarding.receiver import Pair, Receiver
from edge.intake.inbox import Inbox
from edge.standby import following, messages, pairing
from edge.standby.beside import WEB, WEB_S, Beside
from edge.standby.feed import Feed
from edge.standby.lease import Held
from edge.standby.messages import Have
from edge.standby.mirror import BLOCK_BYTES, copy_of
from edge.standby.shipping import Shipping
from edge.store.compose import Shop


@pytest.fixture
def clock() -> HandClock:
    return HandClock(time=[T0])


@pytest.fixture
def shop(gateway: Gateway) -> Shop:
    return shop_of(gateway, **pair_of(gateway))


@pytest.fixture
async def standby(shop: Shop, clock: HandClock, tmp_path: Path) -> Any:
    folder = tmp_path / "b"
    folder.mkdir()
    made = Standby(elsewhere(shop.config, folder), clock)
    yield made
    await made.end()


@asynccontextmanager
async def protected(shop: Shop, clock: HandClock, standby: Standby) -> AsyncIterator[Active]:
    """A service whose standby has everything."""
    async with serving(shop, clock) as active:
        standby.connect()
        await active.protected()
        yield active


def write(active: Active, n: int) -> Any:
    """A transaction that the standby has to get."""
    return active.rig.database.write(lambda conn: conn.execute("INSERT OR REPLACE INTO fact VALUES ('test', ?)", (n,)))


def copied(standby: Standby) -> str | None:
    """What the copy on disk says, as it would be read after a takeover."""
    folder = standby.mirror.path.parent / "read"
    folder.mkdir(exist_ok=True)
    for side in ("", "-wal"):
        source = standby.mirror.path.with_name(standby.mirror.path.name + side)
        (folder / f"x.db{side}").write_bytes(source.read_bytes() if source.exists() else b"")
    (folder / "x.db-shm").unlink(missing_ok=True)
    with closing(sqlite3.connect(folder / "x.db")) as conn:
        row = conn.execute("SELECT value FROM fact WHERE name = 'test'").fetchone()
    return row and row[0]


async def left(active: Active, within_s: float = 30) -> float:
    """Wait until something may leave; seconds that it took."""
    began = asyncio.get_running_loop().time()
    async with asyncio.timeout(within_s):
        await active.shipping.kept()
    return asyncio.get_running_loop().time() - began


async def test_what_leaves_is_with_the_standby_first(shop: Shop, clock: HandClock, standby: Standby) -> None:
    async with serving(shop, clock) as active:
        assert await left(active) > PATIENCE_S * 0.5  # there is none yet
        assert not active.shipping.protected
        standby.connect()
        await active.protected()
        for n in range(30):
            await write(active, n)
            await left(active)
            assert copied(standby) == str(n)
        told = active.shipping.told()
        assert (told["link"], told["reason"], told["copies"]) == ("up", "", 1)
        await until(lambda: standby.following.protected)


async def test_files_beside_the_database_come_too(
    shop: Shop, clock: HandClock, standby: Standby, gateway: Gateway
) -> None:
    radio = gateway.database.with_name("store.db.radio.json")
    radio.write_text("{}")
    ours = Users(gateway.folder / "store.web.db")
    ours.put("ada", Role.IT, "correct horse battery")
    assert ours.log_in("ada", "correct horse battery", "::1", day_s=60)
    ours.close()
    there = standby.config.database.path.parent
    async with protected(shop, clock, standby):
        await until(lambda: (there / "store.web.db").exists())
        assert (there / "store.db.radio.json").read_text() == "{}"
        assert (there / "store.db.tag-key").read_text() == (gateway.folder / "store.db.tag-key").read_text()
    with closing(sqlite3.connect(there / "store.web.db")) as users:
        assert users.execute("SELECT name FROM user").fetchall() == [("ada",)]
        for table in ("session", "shift"):
            assert users.execute(f"SELECT count(*) FROM {table}").fetchall() == [(0,)], "nobody is logged in there"


def test_an_erasure_does_not_wait_for_the_pages_file(gateway: Gateway, shop: Shop) -> None:
    Users(gateway.folder / "store.web.db").close()
    beside = Beside(shop.config)
    assert {name for name, _ in beside.changed(True)} >= {WEB, ".erased"}
    gateway.database.with_name("store.db.erased").write_text("{}")
    Users(gateway.folder / "store.web.db").put("ada", Role.IT, "correct horse battery")
    assert beside.changed(False) == [(".erased", b"{}")]
    assert beside.changed(False) == []
    beside._web_s -= WEB_S
    [(name, data)] = beside.changed(False)
    assert name == WEB
    assert data


async def test_a_standby_that_is_gone_is_waited_for_and_then_gone_without(
    shop: Shop, clock: HandClock, standby: Standby
) -> None:
    async with protected(shop, clock, standby) as active:
        await standby.cut()
        await until(lambda: active.shipping.told()["link"] == "down")
        await write(active, 1)
        assert active.shipping.protected
        assert await left(active) > PATIENCE_S * 0.5
        assert not active.shipping.protected
        assert await left(active) < PATIENCE_S  # once is enough
        standby.connect()
        await active.protected()
        await write(active, 2)
        await left(active)
        assert copied(standby) == "2"
        assert active.shipping.copies == 1  # the log had what was missing


async def test_a_short_cut_is_not_noticed_by_what_leaves(shop: Shop, clock: HandClock, standby: Standby) -> None:
    async with protected(shop, clock, standby) as active:
        await standby.cut()
        await until(lambda: active.shipping.told()["link"] == "down")
        await write(active, 1)
        waiting = asyncio.create_task(active.shipping.kept())
        await asyncio.sleep(0)
        assert not waiting.done()
        standby.connect()
        await waiting
        assert active.shipping.protected
        assert copied(standby) == "1"


async def test_a_standby_that_does_not_answer_is_gone_without(
    shop: Shop, clock: HandClock, standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with protected(shop, clock, standby) as active:
        monkeypatch.setattr(standby.following, "_tell", lambda: None)
        await write(active, 1)
        await left(active)
        assert not active.shipping.protected
        await until(lambda: "has not answered for too long" in active.shipping.told()["reason"])
        monkeypatch.undo()
        await active.protected()


async def test_a_service_that_starts_again_lets_nothing_leave_before_its_standby_has_it(
    gateway: Gateway, clock: HandClock, tmp_path: Path
) -> None:
    shop = shop_of(gateway, **pair_of(gateway, patience_s=20))
    folder = tmp_path / "b"
    folder.mkdir()
    standby = Standby(elsewhere(shop.config, folder), clock)
    try:
        for turn in range(2):
            async with serving(shop, clock) as active:
                await write(active, turn)
                leaving = asyncio.create_task(left(active))
                if turn == 0:
                    standby.connect()
                await leaving
                assert active.shipping.protected
                assert copied(standby) == str(turn)
    finally:
        await standby.end()


async def test_a_witness_that_was_away_is_not_told_for_good_that_the_service_is_alone(
    shop: Shop, clock: HandClock, standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper = Paper()
    monkeypatch.setattr(pairing, "register_of", lambda config, holder: paper.of(holder))
    async with serving(shop, clock) as active:
        lease = active.pairing._lease
        assert lease is not None
        assert await lease.renew()
        standby.connect()
        await active.protected()
        assert await lease.renew()
        assert paper.held == Held(active.pairing.here.address, active.pairing.term, False)
        # The witness is away while the standby is late.
        paper.away.add(active.pairing.here.address)
        tell = standby.following._tell
        monkeypatch.setattr(standby.following, "_tell", lambda: None)
        await write(active, 1)
        tried = asyncio.Event()
        go_alone = lease.go_alone

        async def trying() -> bool:
            try:
                return await go_alone()
            finally:
                tried.set()

        monkeypatch.setattr(lease, "go_alone", trying)
        leaving = asyncio.create_task(left(active))
        await tried.wait()
        monkeypatch.setattr(standby.following, "_tell", tell)
        lease.promised(time.monotonic())
        await leaving
        assert active.shipping.protected
        paper.away.clear()
        assert await lease.renew()
        assert paper.held == Held(active.pairing.here.address, active.pairing.term, False)


async def test_a_standby_that_is_busy_with_a_large_copy_is_waited_for(
    shop: Shop, clock: HandClock, standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "EVERY_S", 0.02)
    monkeypatch.setattr(wire, "SILENT_S", 0.4)
    digests, said, enough = standby.mirror.digests, 0, threading.Event()
    say = standby.following._say

    def saying(message: messages.Message) -> None:
        nonlocal said
        say(message)
        said += message == Have(0, 0)
        if said >= 50:  # a second and more, in which it is not silent
            enough.set()

    def slow() -> Any:
        assert enough.wait(WAIT_S)
        return digests()

    monkeypatch.setattr(standby.following, "_say", saying)
    monkeypatch.setattr(standby.mirror, "digests", slow)
    async with protected(shop, clock, standby) as active:
        assert active.shipping.copies == 1


async def test_a_copy_may_come_slowly(
    shop: Shop, clock: HandClock, standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "EVERY_S", 0.02)
    monkeypatch.setattr(wire, "SILENT_S", 0.4)
    read = Shipping._block

    def slow(shipping: Shipping, at: int, size: int) -> bytes:
        threading.Event().wait(0.2)
        return read(shipping, at, size)

    monkeypatch.setattr(Shipping, "_block", slow)
    async with protected(shop, clock, standby) as active:
        assert standby.mirror.path.stat().st_size > 2 * BLOCK_BYTES, "longer than anybody may be silent"
        assert active.shipping.copies == 1


async def test_a_standby_whose_disk_takes_nothing_says_so_on_both_sides(
    shop: Shop, clock: HandClock, standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "NO_ROOM_S", 0.05)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async with serving(shop, clock) as active:
        for work in ("need", "append"):  # a whole copy, and a transaction
            with monkeypatch.context() as patch:
                patch.setattr(standby.mirror, work, full)
                if work == "need":
                    standby.connect()
                else:
                    await write(active, 1)
                await until(
                    lambda: active.shipping.reason == "the standby can't keep the copy: No space left on device"
                )
                assert standby.following.reason == "this gateway can't keep the copy: No space left on device"
            await until(lambda: active.shipping.told()["link"] == "up")
            await left(active)
            assert active.shipping.protected
        assert copied(standby) == "1"


async def test_the_database_is_let_go_of_however_often_a_connection_is_ended(
    shop: Shop, clock: HandClock, standby: Standby
) -> None:
    """Else its log would never begin anew."""
    async with protected(shop, clock, standby) as active:
        feed, connection, busy = active.shipping._feed, active.shipping._connection, threading.Event()
        waiting = active.rig.database._thread.submit(busy.wait)
        connection.cancel()
        await until(lambda: active.shipping._feed is None)
        connection.cancel()
        await until(connection.done)
        busy.set()
        await asyncio.wrap_future(waiting)
        await until(lambda: feed._tail._file < 0)
        await standby.cut()


async def test_a_database_that_can_not_be_read_for_a_copy_is_told(
    shop: Shop, clock: HandClock, standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(feed: Feed) -> None:
        raise sqlite3.OperationalError("unable to open database file")

    async with serving(shop, clock) as active:
        with monkeypatch.context() as patch:
            patch.setattr(Feed, "_begin", fails)
            standby.connect()
            await until(lambda: "can't be read for the standby: unable to open" in active.shipping.reason)
        await active.protected()


async def test_why_a_standby_is_refused_is_told_by_the_service_too(
    shop: Shop, clock: HandClock, standby: Standby
) -> None:
    async with serving(shop, clock) as active:
        callers = standby.following._callers
        callers[0] = replace(callers[0], token=TOKEN[::-1])
        standby.connect()
        await until(lambda: "no such [standby] in the service's store file, or its token" in standby.following.reason)
        assert active.shipping.told()["reason"] == "a caller that wants to be the standby has another token"


async def test_a_standby_that_was_away_while_the_log_began_anew_gets_what_it_lacks(
    shop: Shop, clock: HandClock, standby: Standby
) -> None:
    async with protected(shop, clock, standby) as active:
        await standby.cut()
        await write(active, 1)
        assert await active.rig.database.fold()
        await write(active, 2)
        standby.connect()
        await until(lambda: active.shipping.copies == 2)
        await active.protected()
        await write(active, 3)
        await left(active)
        assert copied(standby) == "3"


async def test_only_the_other_gateway_gets_a_copy(shop: Shop, clock: HandClock, standby: Standby) -> None:
    async with protected(shop, clock, standby) as active:
        caller = standby.following._callers[0]
        for role, token in (("standby", TOKEN[::-1]), ("forwarder", TOKEN), ("holder", TOKEN)):
            with pytest.raises(Exception, match="there is no such"):
                await type(caller)(caller.address, None, "s1", role, SECOND, token).call(0)  # type: ignore[arg-type]
        # Who has the token, but sends nonsense, takes nothing away from the standby.
        for nonsense in (b"", wire.framed(wire.Refused("x")), messages.framed(Have(1, 0)), b"\0" * 100):
            call = await caller.call(0)
            call.writer.write(nonsense)
            if not nonsense:
                call.end()
            with suppress(EOFError, OSError):
                await call.reader.read()
        await write(active, 1)
        await left(active)
        assert active.shipping.protected


async def test_a_higher_term_stops_the_service(shop: Shop, clock: HandClock, standby: Standby) -> None:
    async with serving(shop, clock) as active:
        standby.following.term = active.pairing.term + 5
        standby.connect()
        await until(lambda: active.superseded)
        assert active.superseded[0] == (active.pairing.term + 5, SECOND)
        await until(lambda: "does not run the store's service any more" in standby.following.reason)
        assert not standby.mirror.there


async def test_a_service_hands_over_with_everything(
    shop: Shop, clock: HandClock, standby: Standby, tmp_path: Path
) -> None:
    async with protected(shop, clock, standby) as active:
        await active.rig.see(member_card(1), DOOR, 20)
        asking = asyncio.create_task(standby.following.hand_over(active.pairing.term + 1, 20))
        await until(lambda: active.superseded)
        active.shipping.stop()
        active.rig.pipeline.stop()
        await active.rig.task
        assert await active.shipping.finish()
        assert await asking
        [(checkpoint,)] = await active.rig.query("SELECT watermark_us FROM checkpoint")
    term = await standby.take_over(exact=True)
    assert term > active.pairing.term
    path = standby.config.database.path
    assert not copy_of(path).exists()
    with closing(sqlite3.connect(path)) as conn:
        assert conn.execute("SELECT watermark_us FROM checkpoint").fetchone() == (checkpoint,)
        assert terms.term(conn) == term
        assert conn.execute("SELECT count(*) FROM lost").fetchone() == (0,)
    async with serving(at(shop, standby.config), clock, SECOND) as active:
        assert active.pairing.term == term


async def test_a_forwarders_record_is_acknowledged_once_the_standby_has_it(
    shop: Shop, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "EVERY_S", 0.01)
    gate, acks = asyncio.Event(), list[wire.Ack]()

    async def kept() -> None:
        await gate.wait()

    async def serve(reader: object, writer: object) -> None: ...

    class Writer:
        def write(self, data: bytes) -> None:
            acks.append(msgspec.msgpack.decode(data[8:], type=wire.Ack))

        async def drain(self) -> None: ...

    pair = Pair(TOKEN, serve, lambda term, by: None, kept, lambda why: None)
    committed = {"g1": ("life", 5)}
    receiver = Receiver(shop.config, shop, Inbox(), clock, lambda: committed, lambda: False, pair=pair)
    task = asyncio.create_task(receiver._acknowledge("g1", Writer()))  # type: ignore[arg-type]
    await until(lambda: len(acks) > 3)
    assert {(ack.life, ack.seq) for ack in acks} == {("", 0)}  # a sign of life, no more
    committed["g1"] = ("life", 9)
    gate.set()
    await until(lambda: acks[-1].seq == 9)
    assert {ack.seq for ack in acks} == {0, 5, 9}
    task.cancel()
    await asyncio.wait([task])
