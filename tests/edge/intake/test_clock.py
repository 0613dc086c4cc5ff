"""A clock that is set, or that nobody can trust, under a running pipeline: nothing is told that nobody saw."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from gateways import WAIT_S, Gateway, member_card
from hands import DAY_S, NOON_US, Machine
from migrated import begin_migrated
from rigs import DOOR, SHOES, shop_of

from drivers.read import READ, epc_words
from drivers.session import Link, ReaderStatus
from edge.database.writer import Database
from edge.intake import held
from edge.intake.health import Elsewhere
from edge.intake.inbox import Inbox
from edge.intake.pipeline import Pipeline
from edge.store.clock import Clock
from edge.store.compose import Shop
from edge.store.timekeeping import Kept, Trust

MINUTE_S, DAY_US = 60.0, 86_400_000_000


@dataclass(frozen=True)
class WallClock(Clock):
    """The store's clock on a machine's wall that is moved by hand."""

    machine: Machine = None  # type: ignore[assignment]

    def now_us(self) -> int:
        return self.machine.wall_us


@dataclass
class Rig:
    machine: Machine
    pipeline: Pipeline
    inbox: Inbox
    database: Database
    task: asyncio.Task[None]

    async def see(self, card: bytes, antenna: int, seconds: int) -> None:
        """The card lies before an antenna, read twice a second; reads are stamped as they come."""
        for _ in range(seconds):
            reads = np.zeros(2, READ)
            reads["time_us"] = self.machine.wall_us + np.array([0, 500_000])
            reads["epc"] = epc_words(card)
            reads["antenna"], reads["rssi_cdbm"], reads["count"], reads["epc_bits"] = antenna, -5200, 1, 96
            await self.inbox.reads("r1", reads)
            await self.wait(1)

    async def wait(self, seconds: float) -> None:
        """Let time pass in steps of a minute at most, the pipeline looking at each."""
        steps = -(-round(seconds) // 60)
        for _ in range(steps):
            self.machine.tick(seconds / steps)
            await self.looked()

    async def looked(self) -> None:
        """Until the pipeline has seen the present time."""
        async with asyncio.timeout(WAIT_S):
            while self.pipeline.time.mono_us() < self.machine.mono_us:
                assert not self.task.done() or self.task.result()
                self.inbox.wake()
                await asyncio.sleep(0.001)

    async def settle(self) -> None:
        """Until all that may be decided is, and committed."""
        goal_us = self.machine.wall_us - self.pipeline.shop.settings.lateness_us - 1_000_000
        async with asyncio.timeout(WAIT_S):
            while self.pipeline.engine.weighed_us < goal_us:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)

    async def rows(self, sql: str) -> list[Any]:
        return await self.database.read(lambda conn: conn.execute(sql).fetchall())


@asynccontextmanager
async def running(shop: Shop, machine: Machine) -> AsyncIterator[Rig]:
    clock = WallClock(machine=machine)
    machine.keeper._clock = clock
    machine.keeper.look()
    begin_migrated(shop.config.database.path)
    database = Database(shop.config.database.path, store="s1", quota_mb=64)
    inbox = Inbox()
    pipeline = Pipeline(
        shop, database, clock, inbox, elsewhere=Elsewhere("t"), wake=lambda _: None, timekeeper=machine.keeper
    )
    pipeline.restore()
    inbox.status(ReaderStatus("r1", Link.UP, "taking inventory", clock.now_us()))
    task = asyncio.create_task(pipeline.run())
    rig = Rig(machine, pipeline, inbox, database, task)
    try:
        await rig.looked()
        yield rig
    finally:
        pipeline.stop()
        await task
        database.close()


def windows(gateway: Gateway) -> list[dict[str, Any]]:
    told = [json.loads(payload) for (payload,) in gateway.rows("SELECT payload FROM outbox WHERE class = 2")]
    return [event for event in told if event["type"] == "zone_window"]


async def test_a_clock_set_forward_is_no_empty_shop_that_was_watched(gateway: Gateway) -> None:
    """Two hours that nobody saw: a time server has put a gateway right that was two hours behind."""
    machine = Machine()
    card = member_card(1)
    async with running(shop_of(gateway), machine) as rig:
        await rig.see(card, SHOES, 100)
        before_us = machine.wall_us
        machine.set_s(7200)
        await rig.see(card, SHOES, 60)
        await rig.wait(45 * MINUTE_S)
        await rig.settle()
    skipped = [w for w in windows(gateway) if before_us < w["window_us"] < before_us + 6_000_000_000]
    assert skipped
    assert all(w["coverage"] == 0 for w in skipped if w["window_us"] + w["length_us"] < before_us + 7_200_000_000)
    (cut, *_) = gateway.rows("SELECT censored, exit_us FROM visit WHERE zone = 'shoes' ORDER BY enter_us")
    assert cut[0], "not seen to its end"
    assert cut[1] < before_us + 10_000_000
    told = [json.loads(p) for (p,) in gateway.rows("SELECT payload FROM outbox WHERE class = 3")]
    assert {event["clock_steps"] for event in told if event["type"] == "gateway"} == {0, 1}
    assert told[-1]["clock_set"]["to_us"] - told[-1]["clock_set"]["from_us"] == pytest.approx(7_200_000_000, abs=2)


@pytest.mark.parametrize("kept", [Kept.KEPT, Kept.UNKEPT])
async def test_what_was_told_by_a_clock_that_nobody_kept_is_marked(gateway: Gateway, kept: Kept) -> None:
    machine = Machine(kept=kept)
    async with running(shop_of(gateway), machine) as rig:
        await rig.see(member_card(1), SHOES, 40)
        await rig.see(member_card(1), DOOR, 40)
        await rig.wait(40 * MINUTE_S)
        await rig.settle()
        before = await rig.rows("SELECT count(*) FROM visit WHERE NOT censored")
        covered = await rig.rows(f"SELECT count(*) FROM aggregate WHERE coverage > 0 AND window_us >= {NOON_US}")
        assert min(before[0][0], covered[0][0]) > 0
        machine.set_s(7200)
        await rig.wait(60)
        await rig.settle()
        marked = kept is Kept.UNKEPT
        assert await rig.rows("SELECT count(*) FROM visit WHERE NOT censored") == ([(0,)] if marked else before)
        before_us = machine.wall_us - 7_200_000_000 - 960_000_000
        windows_ = f"SELECT count(*) FROM aggregate WHERE coverage > 0 AND window_us BETWEEN {NOON_US} AND {before_us}"
        assert ((await rig.rows(windows_))[0][0] >= covered[0][0]) is not marked
        assert (await rig.rows(windows_) == [(0,)]) is marked


@pytest.mark.parametrize("back_s", [5, 40, 7200])
async def test_a_clock_set_back_ends_nothing_as_if_people_had_left(gateway: Gateway, back_s: int) -> None:
    machine = Machine(kept=Kept.KEPT)
    card = member_card(1)
    async with running(shop_of(gateway), machine) as rig:
        await rig.see(card, SHOES, 100)
        machine.set_s(-back_s)
        await rig.see(card, SHOES, 100 + back_s % 100)
        await rig.wait(20)
        rows = await rig.rows("SELECT censored FROM visit WHERE zone = 'shoes'")
        assert all(censored for (censored,) in rows), "cut off, not left"
        assert machine.keeper.steps == 1
        here = rig.pipeline.engine.whereabouts()
        assert len(here) == 1
        assert rig.pipeline.shop.zones[here["zone"][0]] == "shoes"


async def test_a_start_in_1970_tells_nothing_until_the_time_is_known_and_loses_nothing(gateway: Gateway) -> None:
    machine = Machine(wall_us=20_000_000, kept=Kept.WAITING, uptime_s=20)
    card = member_card(1)
    file = gateway.folder / "members.csv"
    shop = shop_of(gateway)
    file.write_text(f"epc,member,tier,consent,hint\n{card.hex()},M1,gold,1,\n")
    gateway.run("directory", "import", str(file), "--config", str(gateway.file))
    async with running(shop, machine) as rig:
        await rig.see(card, DOOR, 10)
        await rig.see(card, SHOES, 120)
        await rig.wait(60)
        assert machine.keeper.trust is Trust.UNTRUSTED
        assert await rig.rows("SELECT count(*) FROM visit") == [(0,)]
        assert await rig.rows("SELECT count(*) FROM outbox") == [(0,)]
        assert rig.pipeline.readers["r1"].link is Link.UP
        assert rig.pipeline.reads_of["r1"] == 260
        machine.set_s(1_800_000_000)
        machine.kept = Kept.KEPT
        began_us = machine.wall_us - 190_000_000
        await rig.wait(30 * MINUTE_S)
        await rig.settle()
    (first, last) = gateway.rows("SELECT min(enter_us), max(exit_us) FROM visit WHERE zone = 'shoes'")[0]
    assert abs(first - (began_us + 10_000_000)) < 6_000_000
    assert abs(last - (began_us + 130_000_000)) < 10_000_000
    oldest = min(w["window_us"] for w in windows(gateway))
    assert oldest > began_us - 2 * 900_000_000
    (event,) = [json.loads(p) for (p,) in gateway.rows("SELECT payload FROM outbox WHERE class = 0")]
    assert (event["type"], event["member"]) == ("recognised", "M1")
    assert abs(event["read_us"] - began_us) < 10_000_000


async def test_a_clock_that_is_days_ahead_for_a_moment_changes_nothing(gateway: Gateway) -> None:
    machine = Machine()
    card = member_card(1)
    async with running(shop_of(gateway), machine) as rig:
        await rig.see(card, SHOES, 60)
        machine.set_s(800 * DAY_S)
        await rig.see(card, SHOES, 14)
        assert machine.keeper.untrusted
        machine.set_s(-800 * DAY_S)
        await rig.see(card, SHOES, 60)
        await rig.wait(40 * MINUTE_S)
        await rig.settle()
        now_us = machine.wall_us
    visits = gateway.rows("SELECT enter_us, exit_us FROM visit WHERE zone = 'shoes' ORDER BY enter_us")
    assert sum(exit_us - enter_us for enter_us, exit_us in visits) > 100_000_000
    assert all(exit_us < now_us for _, exit_us in visits)
    assert all(w["window_us"] < now_us for w in windows(gateway))


async def test_what_is_held_is_bounded_and_what_was_dropped_is_unknown(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "MOST_READS", 60 * (2 + held.BATCH_READS))
    machine = Machine(wall_us=20_000_000)
    card = member_card(1)
    async with running(shop_of(gateway), machine) as rig:
        await rig.see(card, SHOES, 100)
        assert rig.pipeline._arrivals._held._n <= held.MOST_READS
        machine.set_s(1_800_000_000)
        await rig.wait(30 * MINUTE_S)
        await rig.settle()
        reads = rig.pipeline.engine.counters["reads"]
    assert reads == 120
    window = max((w for w in windows(gateway) if w["zone"] == "shoes"), key=lambda w: w["present_us"])
    assert window["present_us"] < 70_000_000
    assert min(w["coverage"] for w in windows(gateway)) < 1


async def test_what_was_stamped_before_the_step_and_comes_after_it_is_put_right(gateway: Gateway) -> None:
    """A session knows a reader's clock anew only after a while; and what lay in the inbox is of before."""
    machine = Machine()
    async with running(shop_of(gateway), machine) as rig:
        await rig.see(member_card(1), SHOES, 20)
        reads = np.zeros(10, READ)
        reads["time_us"] = machine.wall_us + 500_000 * np.arange(10)
        reads["epc"], reads["epc_bits"], reads["count"] = epc_words(member_card(2)), 96, 1
        reads["antenna"], reads["rssi_cdbm"] = DOOR, -5200
        await rig.inbox.reads("r1", reads)
        rig.inbox.status(ReaderStatus("r1", Link.UP, "taking inventory again", machine.wall_us))
        machine.set_s(7200)
        await rig.wait(60)
        await rig.settle()
        assert rig.pipeline.readers["r1"].since_us > machine.wall_us - 70_000_000
        assert rig.pipeline.engine.counters["late"] == 0
        assert rig.pipeline.engine.counters["reads"] == 10  # of the engine that has begun since


async def test_what_was_over_of_a_window_at_the_first_start_was_not_watched(gateway: Gateway) -> None:
    machine = Machine(wall_us=NOON_US + 600_000_000)
    async with running(shop_of(gateway), machine) as rig:
        await rig.wait(50 * MINUTE_S)
        await rig.settle()
    (first, *later) = sorted({(w["window_us"], w["coverage"]) for w in windows(gateway)})
    assert first == (NOON_US, pytest.approx(1 / 3, abs=0.01))
    assert {coverage for _, coverage in later} == {1}


async def test_a_stop_while_the_time_is_unknown_tells_nothing(gateway: Gateway) -> None:
    machine = Machine(wall_us=20_000_000)
    async with running(shop_of(gateway), machine) as rig:
        await rig.see(member_card(1), SHOES, 5)
    assert gateway.rows("SELECT (SELECT count(*) FROM visit) + (SELECT count(*) FROM outbox)") == [(0,)]
    assert gateway.rows("SELECT count(*) FROM checkpoint") == [(0,)]


def again(machine: Machine, after_s: float = 5) -> Machine:
    """The same machine for the next process."""
    machine.tick(after_s)
    return Machine(wall_us=machine.wall_us, mono_us=machine.mono_us, kept=machine.kept, uptime_s=machine.uptime_s)


@pytest.mark.parametrize("stops", [1, 3])
@pytest.mark.parametrize("known", ["while it was off", "later"])
async def test_reads_held_at_a_stop_are_put_in_their_place_by_the_next_process(
    gateway: Gateway, stops: int, known: str
) -> None:
    machine = Machine(wall_us=20_000_000)
    card, began_mono = member_card(1), machine.mono_us
    shop = shop_of(gateway)
    for _ in range(stops):
        async with running(shop, machine) as rig:
            await rig.see(card, SHOES, 60)
        machine = again(machine)
    assert gateway.rows("SELECT count(*) FROM held") == [(1,)]
    if known == "while it was off":
        machine.set_s(1_800_000_000)
        machine = again(machine)
    async with running(shop, machine) as rig:
        assert machine.keeper.untrusted is (known == "later")
        if known == "later":
            machine.set_s(1_800_000_000)
        began_us = machine.wall_us - machine.mono_us + began_mono
        await rig.wait(40 * MINUTE_S)
        await rig.settle()
        assert rig.pipeline.engine.counters["late"] == 0
        assert rig.pipeline.engine.counters["reads"] == 120 * stops
    (first, last, reads) = gateway.rows(
        "SELECT min(enter_us), max(exit_us), sum(reads) FROM visit WHERE zone = 'shoes'"
    )[0]
    assert first == pytest.approx(began_us, abs=8_000_000)
    assert last == pytest.approx(began_us + stops * 65_000_000, abs=15_000_000)
    assert reads > 110 * stops
    assert gateway.rows("SELECT count(*) FROM held") == [(0,)]
    told = [w for w in windows(gateway) if w["zone"] == "shoes" and w["present_us"]]
    assert all(w["coverage"] < 1 for w in told), "nobody watched between the stops"


async def test_reads_held_at_a_stop_are_lost_with_the_machine_and_that_is_told(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shop = shop_of(gateway)
    async with running(shop, Machine(wall_us=20_000_000)) as rig:
        await rig.see(member_card(1), SHOES, 5)
    assert "10 reads are kept until the time is known" in caplog.text
    monkeypatch.setattr("edge.intake.pipeline.boot_id", lambda: "another")
    async with running(shop, Machine()) as rig:
        await rig.wait(10)
    assert "10 reads held until the time was known are lost: the machine has started again since" in caplog.text
    assert gateway.rows("SELECT (SELECT count(*) FROM held) + (SELECT count(*) FROM visit)") == [(0,)]


async def test_reads_held_while_a_running_service_doubts_the_time_outlive_its_stop(gateway: Gateway) -> None:
    machine, card, shop = Machine(), member_card(1), shop_of(gateway)
    async with running(shop, machine) as rig:
        await rig.see(card, SHOES, 60)
        machine.set_s(800 * DAY_S)
        await rig.see(card, SHOES, 60)
        assert machine.keeper.untrusted
    machine = again(machine)
    machine.set_s(-800 * DAY_S)
    began_us = machine.wall_us - 125_000_000
    async with running(shop, machine) as rig:
        await rig.see(card, SHOES, 60)
        await rig.wait(40 * MINUTE_S)
        await rig.settle()
        now_us = machine.wall_us
    visits = gateway.rows("SELECT enter_us, exit_us, reads FROM visit WHERE zone = 'shoes' ORDER BY enter_us")
    assert visits[0][0] == pytest.approx(began_us, abs=8_000_000)
    assert sum(reads for _, _, reads in visits) > 330
    assert max(exit_us for _, exit_us, _ in visits) < now_us


async def test_a_database_that_refuses_what_is_held_says_how_much_is_lost(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(shop_of(gateway), Machine(wall_us=20_000_000)) as rig:
        await rig.see(member_card(1), SHOES, 5)
        await rig.database.write(lambda conn: conn.execute("DROP TABLE held").rowcount)
    assert "10 reads held until the time is known are lost" in caplog.text


async def test_an_unknown_time_at_the_start_leaves_visits_under_way_alone(gateway: Gateway) -> None:
    card = member_card(1)
    shop = shop_of(gateway)
    machine = Machine()
    async with running(shop, machine) as rig:
        await rig.see(card, SHOES, 60)
        began_us = machine.wall_us - 60_000_000
    late = Machine(wall_us=20_000_000)
    async with running(shop, late) as rig:
        await rig.see(card, SHOES, 10)
        late.wall_us = machine.wall_us + 12_000_000
        await rig.see(card, SHOES, 60)
        await rig.wait(40 * MINUTE_S)
        await rig.settle()
    assert gateway.rows("SELECT min(enter_us) FROM visit WHERE zone = 'shoes'")[0][0] == pytest.approx(
        began_us, abs=6_000_000
    )
    assert not gateway.rows(f"SELECT 1 FROM visit WHERE enter_us < {DAY_US}")
