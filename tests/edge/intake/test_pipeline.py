"""The pipeline in one process, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gateways import STORE, Gateway, antennas, member_card
from rigs import BAGS, DOOR, MINUTE_US, OUT, SHOES, T0, HandClock, running, shop_of

from drivers.session import Contact, Link, ReaderStatus
from dwell.layout import TagClass
from dwell.read import hashed
from dwell.visits import VISIT
from edge.crm.directory_csv import import_csv
from edge.database.writer import Database
from edge.intake import checkpoint
from edge.intake.greeter import Greeter
from edge.store.compose import Shop
from edge.store.errors import Trouble
from edge.store.pseudonyms import Member, Pseudonyms


def give_card(gateway: Gateway, shop: Shop, card: bytes, consent: int = 1) -> None:
    file = gateway.folder / "members.csv"
    file.write_text(f"epc,member,tier,consent,hint\n{card.hex()},M1,gold,{consent},\n")
    assert import_csv(shop.config, file).rows == 1


async def test_a_member_is_announced_once_a_journey_and_again_in_the_next(gateway: Gateway, clock: HandClock) -> None:
    shop = shop_of(gateway)
    card = member_card(1)
    give_card(gateway, shop, card)
    async with running(shop, clock) as rig:
        for visit in (1, 2):
            await rig.see(card, DOOR, 20)
            await rig.see(card, SHOES, 120)
            await rig.see(card, DOOR, 20)
            assert (await rig.query("SELECT next_seq - 1 FROM outbox_class WHERE class = 0")) == [(visit,)]
            await rig.wait(40 * 60)
            await rig.until(lambda: not rig.pipeline._greeter._announced)
        async with asyncio.timeout(30):
            while len(events := await rig.query("SELECT payload FROM outbox WHERE class = 1")) < 2:
                await asyncio.sleep(0.05)
    assert len(events) == 2
    assert all('"member":"M1"' in payload for (payload,) in events)


async def test_without_consent_a_member_is_only_a_number(gateway: Gateway, clock: HandClock) -> None:
    shop = shop_of(gateway)
    card = member_card(1)
    give_card(gateway, shop, card, consent=0)
    async with running(shop, clock) as rig:
        await rig.see(card, SHOES, 120)
        await rig.see(card, OUT, 30)
        await rig.wait(40 * 60)
        await rig.until(lambda: not len(rig.pipeline.engine.open_visits()))
        assert await rig.query("SELECT next_seq - 1 FROM outbox_class WHERE class = 0") == [(0,)]
        await asyncio.sleep(0.2)
    everything = b"".join(file.read_bytes() for file in gateway.folder.glob("store.db*"))
    assert b"M1" in everything  # the directory knows the member …
    for table in ("visit", "journey"):
        assert {row for (row,) in gateway.rows(f"SELECT member FROM {table}")} == {None}  # … the visits don't
    assert card not in everything


async def test_what_a_refusing_database_did_not_take_is_kept_and_told_once(
    gateway: Gateway, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = shop_of(gateway)
    card = member_card(1)
    give_card(gateway, shop, card)
    async with running(shop, clock) as rig:
        refusing = True
        write = rig.database.write

        async def sometimes(job: Callable[[sqlite3.Connection], Any]) -> Any:
            if refusing:
                error = sqlite3.OperationalError("attempt to write a readonly database")
                error.sqlite_errorcode = sqlite3.SQLITE_READONLY
                raise error
            return await write(job)

        monkeypatch.setattr(rig.database, "write", sometimes)
        await rig.see(card, SHOES, 120)
        await rig.see(card, OUT, 30)
        await rig.wait(40 * 60)
        await rig.until(lambda: rig.pipeline.trouble)
        assert await rig.query("SELECT sum(next_seq - 1) FROM outbox_class WHERE class < 2") == [(0,)]
        refusing = False
        await rig.see(member_card(2), DOOR, 1)
        await rig.until(lambda: rig.pipeline.trouble is None)
        await rig.until(lambda: not rig.pipeline._greeter.waiting)
    assert gateway.rows("SELECT next_seq - 1 FROM outbox_class WHERE class < 2") == [(1,), (1,)]
    assert gateway.rows("SELECT zone FROM visit WHERE tag_class = 1 ORDER BY enter_us")[0] == ("shoes",)


async def test_a_slow_disk_delays_commits_and_nothing_else(
    gateway: Gateway, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each commit takes a third of a second, at least as long as all that is to be committed meanwhile."""
    shop = shop_of(gateway)
    card = member_card(1)
    give_card(gateway, shop, card)
    turns = 0
    async with running(shop, clock) as rig:
        transact = rig.database._transact

        def slowly(job: Callable[[sqlite3.Connection], Any]) -> Any:
            def job_of_a_slow_disk(conn: sqlite3.Connection) -> Any:
                time.sleep(0.3)
                return job(conn)

            return transact(job_of_a_slow_disk)

        async def turn() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.01)

        monkeypatch.setattr(rig.database, "_transact", slowly)
        turning = asyncio.create_task(turn())
        for zone in (DOOR, SHOES, OUT):
            await rig.see(card, zone, 60)
        await rig.wait(40 * 60)
        await rig.until(lambda: not len(rig.pipeline.engine.open_visits()))
        turning.cancel()
        assert turns > 5 * rig.database.commits > 5, "the loop turned while the disk wrote"
        assert rig.pipeline.queue[0] == 0
        assert rig.database.commit_s > 0.3 * rig.database.commits - 1
    assert gateway.rows("SELECT next_seq - 1 FROM outbox_class WHERE class < 2") == [(1,), (1,)]
    assert [zone for (zone,) in gateway.rows("SELECT zone FROM visit ORDER BY enter_us")] == ["door", "shoes", "out"]


async def test_a_restart_goes_on_inside_the_same_visit(gateway: Gateway, clock: HandClock) -> None:
    shop = shop_of(gateway)
    card = member_card(1)
    async with running(shop, clock) as rig:
        await rig.see(card, SHOES, 120)
    async with running(shop, clock) as rig:
        await rig.see(card, SHOES, 120)
        await rig.see(card, OUT, 30)
        await rig.wait(40 * 60)
        await rig.until(lambda: not len(rig.pipeline.engine.open_visits()))
    [(enter_us, exit_us)] = gateway.rows("SELECT enter_us, exit_us FROM visit WHERE zone = 'shoes'")
    assert abs(enter_us - T0) < 5_000_000
    assert abs(exit_us - (T0 + 240_000_000)) < 10_000_000


async def test_a_changed_layout_ends_what_was_open_under_its_old_name(gateway: Gateway, clock: HandClock) -> None:
    card = member_card(1)
    async with running(shop_of(gateway), clock) as rig:
        await rig.see(card, SHOES, 120)
    renamed = [zone | {"id": {"shoes": "boots"}.get(zone["id"], zone["id"])} for zone in STORE["zones"]]
    ports = [
        {"port": port, "zone": zone["id"], "position": [zone["polygon"][0][0] + 3, 3]}
        for port, zone in enumerate(renamed, 1)
    ]
    readers = [{"id": "r1", "driver": "llrp", "address": "r1", "antennas": ports}]
    async with running(shop_of(gateway, zones=renamed, readers=readers), clock) as rig:
        await rig.see(card, SHOES, 120)
        await rig.see(card, OUT, 30)
        await rig.wait(40 * 60)
        await rig.until(lambda: not len(rig.pipeline.engine.open_visits()))
    rows = gateway.rows("SELECT zone, censored FROM visit WHERE zone IN ('shoes', 'boots') ORDER BY enter_us")
    assert [zone for zone, _ in rows] == ["shoes", "boots"]
    assert rows[0][1] == 1
    # Both halves of the window that the change cut are in one row, and no zone is covered more than wholly.
    assert gateway.rows("SELECT max(coverage) FROM aggregate")[0][0] <= 1
    assert gateway.rows("SELECT count(*) FROM aggregate WHERE zone = 'shoes' AND ended > 0 AND tag_class = 1") == [(1,)]


@pytest.mark.parametrize("damage", ["bytes", "cut", "gone", "version"])
async def test_a_state_that_cannot_be_read_costs_the_open_visits_and_no_more(
    gateway: Gateway, clock: HandClock, damage: str
) -> None:
    shop = shop_of(gateway)
    async with running(shop, clock) as rig:
        await rig.see(member_card(1), SHOES, 120)
        before = sum(row[0] for row in await rig.query("SELECT next_seq - 1 FROM outbox_class"))
    with sqlite3.connect(gateway.database) as conn:
        if damage == "bytes":
            conn.execute("UPDATE checkpoint_part SET part = CAST(x'00' || substr(part, 2) AS BLOB)")
        elif damage == "cut":
            conn.execute("UPDATE checkpoint_part SET part = CAST(substr(part, 1, 100) AS BLOB)")
        elif damage == "gone":
            conn.execute("DELETE FROM checkpoint_part")
        else:
            saved = checkpoint.load(conn)
            assert saved is not None
            checkpoint.save(conn, shop, saved.watermark_us, saved.state | {"tags": np.zeros(3, np.int64)})
    conn.close()
    async with running(shop, clock) as rig:
        await rig.see(member_card(1), SHOES, 120)
        await rig.until(lambda: len(rig.pipeline.here()))
        assert sum(row[0] for row in await rig.query("SELECT next_seq - 1 FROM outbox_class")) > before


@pytest.mark.parametrize("numbers", [0, 1, 70_000])
def test_a_state_of_any_kinds_of_numbers_comes_back_from_its_parts(
    gateway: Gateway, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = shop_of(gateway)
    dice = np.random.default_rng(2)
    monkeypatch.setattr(checkpoint, "PART_BYTES", 40_000)
    row = np.dtype([("tick", "<i8"), ("n", "u1"), ("p", "<f4", (3,))], align=True)
    state = {
        "whole": dice.integers(0, 2**63, (numbers, 2)),
        "part": dice.random((3, numbers)).astype(np.float32),
        "flag": dice.random(numbers) < 0.5,
        "rows": np.frombuffer(dice.bytes(numbers * row.itemsize), row),
        "one": np.array(7),
    }
    database = Database(gateway.database, store="s1", quota_mb=64)
    for kept in (state, {"one": np.array(8)}, state):
        database.write_now(lambda conn, kept=kept: checkpoint.save(conn, shop, 1_800_000_000_000_000, kept))
        saved = database.write_now(checkpoint.load)
        assert saved is not None
        assert saved.state.keys() == kept.keys()
        for name, array in kept.items():
            assert saved.state[name].dtype == array.dtype
            assert saved.state[name].shape == array.shape
            assert saved.state[name].tobytes() == array.tobytes()
    database.close()


def test_a_state_of_much_the_same_size_is_written_over_the_last_one(gateway: Gateway) -> None:
    shop = shop_of(gateway)
    dice = np.random.default_rng(1)
    database = Database(gateway.database, store="s1", quota_mb=16)
    wal = Path(f"{gateway.database}-wal")
    pages = []
    for size in (20_000, 20_000, 21_000, 19_000, 30_000, 30_000, 5_000, 5_000):
        state = {"tags": dice.integers(0, 256, size, np.uint8)}
        database.write_now(lambda conn: None)
        with sqlite3.connect(gateway.database) as conn:
            conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        conn.close()
        database.write_now(lambda conn, state=state: checkpoint.save(conn, shop, 1_800_000_000_000_000, state))
        pages.append((wal.stat().st_size - 32) // (4096 + 24))
        saved = database.write_now(checkpoint.load)
        assert saved is not None
        assert np.array_equal(saved.state["tags"], state["tags"])
    database.close()
    # Where it does not fit, or would leave too much, what is freed is written too.
    assert [pages[1], pages[2], pages[3], pages[5], pages[7]] == [6, 7, 7, 9, 3]
    assert pages[4] > 9
    assert pages[6] > 3


async def test_a_clock_set_back_ends_what_was_open_and_goes_on(gateway: Gateway, clock: HandClock) -> None:
    shop = shop_of(gateway)
    card = member_card(1)
    give_card(gateway, shop, card)
    async with running(shop, clock) as rig:
        await rig.see(card, SHOES, 120)
        clock.time[0] -= 3_600_000_000
        await rig.until(lambda: not len(rig.pipeline.here()))
        await rig.see(card, BAGS, 120)
        await rig.until(lambda: len(rig.pipeline.here()))
        assert len(rig.pipeline.engine.state()["reads"]) < 100
    assert [zone for (zone,) in gateway.rows("SELECT zone FROM visit")] == ["shoes"]
    clock.time[0] -= 3_600_000_000
    async with running(shop, clock) as rig:  # set back while the service was down
        await rig.until(lambda: not len(rig.pipeline.here()))
        await rig.see(card, SHOES, 120)
        await rig.until(lambda: len(rig.pipeline.here()))
    assert [zone for (zone,) in gateway.rows("SELECT zone FROM visit ORDER BY id")] == ["shoes", "bags"]


async def test_a_stray_read_does_not_use_up_the_next_greeting(gateway: Gateway, clock: HandClock) -> None:
    shop = shop_of(gateway)
    card = member_card(1)
    give_card(gateway, shop, card)
    async with running(shop, clock) as rig:
        await rig.see(card, DOOR, 1)
        await rig.until(lambda: rig.pipeline.recognitions)
        await rig.wait(15 * 60)
        await rig.until(lambda: not rig.pipeline._greeter._announced)
        await rig.see(card, DOOR, 20)
        await rig.until(lambda: len(rig.pipeline.recognitions) == 2)
    assert gateway.rows("SELECT count(*) FROM recognised") == [(1,)]


async def test_consent_withdrawn_while_here_and_given_while_here(gateway: Gateway, clock: HandClock) -> None:
    shop = shop_of(gateway)
    card = member_card(1)
    give_card(gateway, shop, card)
    async with running(shop, clock) as rig:
        await rig.see(card, SHOES, 60)
        assert [member.member for member, _ in rig.pipeline.members(rig.pipeline.here())] == ["M1"]
        give_card(gateway, shop, card, consent=0)
        await rig.pipeline.recheck()
        assert not rig.pipeline.members(rig.pipeline.here())
        give_card(gateway, shop, card, consent=1)
        await rig.pipeline.recheck()
        await rig.see(card, SHOES, 20)
        await rig.until(lambda: rig.pipeline.members(rig.pipeline.here()))
    assert gateway.rows("SELECT next_seq - 1 FROM outbox_class WHERE class = 0") == [(1,)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("zz,M1,gold,1,", "hexadecimal"),
        ("2D" * 63 + ",M1,gold,1,", "epc in hex"),
        ("2D14,,gold,1,", "required:"),
        ("2D14,M1,gold,maybe,", "required:"),
        ("2D14," + "M" * 129 + ",gold,1,", "128 characters"),
        ("2D15,M1,gold,1,\n2D15,M2,gold,0,", "already in line 2"),
    ],
)
def test_a_directory_that_cannot_be_taken_is_told_with_its_line(gateway: Gateway, row: str, reason: str) -> None:
    shop = shop_of(gateway)
    give_card(gateway, shop, member_card(1))
    file = gateway.folder / "members.csv"
    file.write_text(f"epc,member,tier,consent,hint\n{row}\n")
    with pytest.raises(Trouble, match=f"members.csv:[23]: .*{reason}"):
        import_csv(shop.config, file)
    assert gateway.rows("SELECT count(*) FROM directory") == [(1,)]


async def test_a_window_tells_of_its_doors_and_of_how_much_they_were_watched(
    gateway: Gateway, clock: HandClock
) -> None:
    door = {"port": 1, "zone": "door"}
    plain = {"id": "r1", "driver": "llrp", "address": "r1", "antennas": antennas("door", "shoes", "bags", "out")}
    shop = shop_of(gateway, readers=[plain | {"inputs": [door]}])
    async with running(shop, clock) as rig:
        up = ReaderStatus("r1", Link.UP, "taking inventory", T0, inputs=frozenset({1}))
        rig.inbox.status(up)
        await rig.see(member_card(1), SHOES, 10)
        for second in (20, 21, 22):
            rig.inbox.contact(Contact("r1", 1, T0 + second * 1_000_000, True))
        rig.inbox.status(ReaderStatus("r1", Link.DOWN, "gone", T0 + 450_000_000))
        await rig.wait(20 * 60)
        await rig.until(lambda: rig.pipeline.engine.weighed_us > T0 + 19 * MINUTE_US)
    events = [json.loads(payload) for (payload,) in gateway.rows("SELECT payload FROM outbox WHERE class = 2")]
    events = [event for event in events if event["type"] == "zone_window"]
    first = [e for e in events if e["window_us"] == T0]
    assert [e["door"] for e in first if e["zone"] == "door" and e["tag_class"] == "member"] == [
        {"passages": 3, "coverage": pytest.approx(0.5, abs=0.01)}
    ]
    assert all(e["door"] is None for e in first if e["zone"] != "door" or e["tag_class"] != "member")


async def test_passages_are_told_once_though_the_clock_is_set_back(gateway: Gateway, clock: HandClock) -> None:
    plain = {"id": "r1", "driver": "llrp", "address": "r1", "antennas": antennas("door", "shoes", "bags", "out")}
    shop = shop_of(gateway, readers=[plain | {"inputs": [{"port": 1, "zone": "door"}]}])
    async with running(shop, clock) as rig:
        rig.inbox.status(ReaderStatus("r1", Link.UP, "taking inventory", T0, inputs=frozenset({1})))
        await rig.see(member_card(1), SHOES, 10)
        for second in (20, 21, 22):
            rig.inbox.contact(Contact("r1", 1, T0 + second * 1_000_000, True))
        await rig.wait(20 * 60)
        await rig.until(lambda: rig.pipeline.engine.weighed_us > T0 + 19 * MINUTE_US)
        clock.time[0] = T0 + MINUTE_US  # into the window that was told
        await rig.until(lambda: rig.pipeline.engine.weighed_us < T0 + 10 * MINUTE_US)
        await rig.see(member_card(1), SHOES, 10)
        for second in (70, 71):
            rig.inbox.contact(Contact("r1", 1, T0 + second * 1_000_000, True))
        await rig.wait(20 * 60)
        await rig.until(lambda: rig.pipeline.engine.weighed_us > T0 + 19 * MINUTE_US)
    events = [json.loads(payload) for (payload,) in gateway.rows("SELECT payload FROM outbox WHERE class = 2")]
    parts = [event["door"] for event in events if event["type"] == "zone_window" and event["window_us"] == T0]
    parts = [part for part in parts if part is not None]
    assert [part["passages"] for part in parts if part["passages"]] == [3, 2]
    assert sum(part["coverage"] for part in parts) == pytest.approx(1, abs=0.001)
    assert gateway.rows("SELECT sum(passages), sum(told) FROM door") == [(5, 5)]


def test_members_may_be_looked_up_while_others_are_told(gateway: Gateway) -> None:
    """The database's thread does so, whenever a card is seen for the first time."""
    greeter = Greeter(shop_of(gateway), Pseudonyms(bytes(32)))
    visits = np.zeros(2, VISIT)
    visits["epc"][:, 0], visits["epc_bits"], visits["tag_class"] = [1, 2], 96, TagClass.MEMBER
    one, other = (Member(bytes([n]) * 16, f"M{n}", "A", consent=True) for n in (1, 2))
    tags = hashed(visits).tolist()
    greeter._members[tags[0]] = one

    def wanted(member: Member) -> bool:
        greeter._members[tags[1]] = other
        return member is one

    assert [member for member, _ in greeter.members(visits, wanted)] == [one]
    assert [member for member, _ in greeter.members(visits)] == [one, other]
