"""A week without the CRM, on a simulated clock: the true pipeline, database and housekeeping of a gateway."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gateways import antennas, member_card

from config.check import load
from drivers.read import READ, Reads, epc_words
from drivers.session import Link, ReaderStatus
from edge import housekeeping
from edge.clock import Clock
from edge.compose import Shop, compose
from edge.database import Database
from edge.directory import import_csv
from edge.pipeline import Pipeline
from sync import outbox, room
from sync.mqtt import MqttSettings
from sync.publisher import Identity, Publisher

START_US = 1_800_000_000_000_000 // 86_400_000_000 * 86_400_000_000
STEP_US, DAY_US = 120_000_000, 86_400_000_000
OPEN_STEPS = range(300, 660)
"""Of a day's 720 steps: from 10 to 22 o'clock."""
STAYS_S = ((0, 20), (1, 60), (3, 20))
"""Antenna and seconds: door, shoes, exit."""


@dataclass(frozen=True)
class HandClock(Clock):
    """A clock whose time is set by hand."""

    time: list[int] = field(default_factory=lambda: [START_US])

    def now_us(self) -> int:
        return self.time[0]


class Week:
    """A gateway without its readers and its process: reads are put in by hand, step by step."""

    def __init__(self, shop: Shop) -> None:
        config = shop.config
        self.clock = HandClock()
        self.database = Database(config.database.path, store=config.store.id, quota_mb=config.database.quota_mb)
        self.people = 0
        settings = MqttSettings.from_url(config.mqtt.url, "tagtrail-s1")
        identity = Identity(config.store.id, self.database.epoch, "test")
        self.publisher = Publisher(settings, identity, self.database, self.clock.now_us)
        self._pipeline = Pipeline(shop, self.database, self.clock, version="test", wake=self.publisher.wake)
        self._pipeline.restore()
        self._pipeline.status(ReaderStatus("r1", Link.UP, "taking inventory", START_US))
        self._config = config

    async def step(self, people: int) -> None:
        """Two minutes, in which so many members pass through."""
        at_us = self.clock.time[0]
        self.clock.time[0] += STEP_US
        if people:
            walks = [walk(member_card(self.people + n), at_us + 1_000_000 * n) for n in range(people)]
            reads = np.concatenate(walks)
            await self._pipeline.reads("r1", reads[np.argsort(reads["time_us"], kind="stable")])
            self.people += people
        await self._pipeline._take()
        self._pipeline._advance(self.clock.time[0])
        await self._pipeline._commit()

    async def tidy(self) -> int:
        """What housekeeping does once a minute; how many events it gave up."""
        await self.database.write(lambda conn: outbox.forget(conn, self.clock.now_us()))
        lost = 0
        while await self.database.read(room.in_use) >= room.FULL:
            lost += await self.database.write(
                lambda conn: housekeeping.make_room(conn, self._config, self.clock.now_us())
            )
        return lost

    async def numbers(self) -> dict[str, int]:
        return {class_: depth.sent for class_, depth in (await self.database.read(outbox.depth)).items()}

    async def pending(self) -> int:
        return sum(depth.pending for depth in (await self.database.read(outbox.depth)).values())


def walk(card: bytes, from_us: int) -> Reads:
    reads = np.zeros(sum(stay_s for _, stay_s in STAYS_S), READ)
    reads["time_us"] = from_us + 1_000_000 * np.arange(len(reads))
    reads["antenna"] = np.repeat(*np.array(STAYS_S).T)
    reads["epc"], reads["epc_bits"] = epc_words(card), 8 * len(card)
    reads["rssi_cdbm"], reads["count"] = -5200, 1
    return reads


@contextlib.contextmanager
def open_week(gateway: Any, url: str, members: int, quota_pages: int | None) -> Iterator[Week]:
    gateway.folder.mkdir(exist_ok=True)
    readers = [{"id": "r1", "driver": "llrp", "address": "r1", "antennas": antennas("door", "shoes", "bags", "out")}]
    gateway.configure(mqtt={"url": url}, readers=readers)
    shop = compose(load(gateway.file))
    cards = "".join(f"{member_card(n).hex()},M{n:06},A,1,\n" for n in range(members))
    (gateway.folder / "members.csv").write_text(f"epc,member,tier,consent,hint\n{cards}")
    assert import_csv(shop.config, gateway.folder / "members.csv") == members
    week = Week(shop)
    if quota_pages is not None:
        week.database.write_now(lambda conn: conn.execute(f"PRAGMA max_page_count = {quota_pages}").fetchall())
    try:
        yield week
    finally:
        week.database.close()


async def live_through(week: Week, days: int) -> int:
    """Days offline, 100 members a day; how many events were given up."""
    lost = 0
    for step in range(days * DAY_US // STEP_US):
        of_day = step % (DAY_US // STEP_US)
        await week.step(int(of_day in OPEN_STEPS and of_day * 100 // 360 != (of_day - 1) * 100 // 360))
        if step % 15 == 0:
            lost += await week.tidy()
    return lost


async def reconnect(week: Week, consumer: Any, until: Any) -> tuple[float, int]:
    """Connect; somebody comes in while the backlog drains. Seconds until the CRM knows, and what still waited then."""
    publishing = asyncio.create_task(week.publisher.run())
    try:
        await until(lambda: week.publisher.status.connected)
        began = time.monotonic()
        await week.step(1)
        cue = (await week.numbers())["member"]
        await until(lambda: week.publisher.acked("member") >= cue, within_s=60)
        took_s, waiting = time.monotonic() - began, await week.pending()
        for _ in range(30):
            await week.step(0)

        async def delivered() -> bool:
            return await week.pending() == 0

        await until(delivered, within_s=120)
    finally:
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
    return took_s, waiting


def entered(folder: Any) -> tuple[int, int]:
    """Of the windows at the CRM: visits begun, and time present."""
    query = (
        "SELECT sum(json_extract(payload, '$.entered')), sum(json_extract(payload, '$.present_us'))"
        " FROM event WHERE class = 'agg'"
    )
    with contextlib.closing(sqlite3.connect(folder / "crm.db")) as conn:
        return tuple(conn.execute(query).fetchone())


async def test_a_week_offline_and_live_again(gateway, tmp_path, nats, crm, until, tell):
    with open_week(gateway, nats.url, 800, None) as week:
        assert await live_through(week, 7) == 0
        backlog = await week.numbers()
        consumer = crm(nats.url)
        await consumer.start()
        await until(consumer.ready)
        took_s, waiting = await reconnect(week, consumer, until)
        numbers = await week.numbers()
        last = await consumer.stop()
    assert {class_: (1, n, n) for class_, n in numbers.items()} == {
        class_: (low, high, n) for class_, low, high, n in consumer.rows()
    }
    assert (last["received"], last["gaps"], last["lost"], last["dead"]) == (sum(numbers.values()), 0, 0, 0)
    assert numbers["member"] == numbers["journey"] == week.people == 701
    tell(
        f"7 days, {backlog}: {last['received']:,} of {sum(numbers.values()):,} once, also what came while it drained; "
        f"the live cue took {took_s:.2f} s, {waiting:,} events still waited"
    )


async def test_a_week_offline_with_too_small_a_disk(gateway, tmp_path, nats, crm, until, tell):
    """Health goes, windows are merged; no recognition or journey is lost, and what is lost is told."""
    with open_week(gateway, nats.url, 800, 1100) as week:
        lost = await live_through(week, 7)
        consumer = crm(nats.url)
        await consumer.start()
        await until(consumer.ready)
        took_s, waiting = await reconnect(week, consumer, until)
        numbers = await week.numbers()
        aggregates = "SELECT sum(entered), sum(present_us) FROM aggregate"
        kept = await week.database.read(lambda conn: tuple(conn.execute(aggregates).fetchone()))
        last = await consumer.stop()
    rows = {class_: n for class_, _, _, n in consumer.rows()}
    assert last["received"] + last["lost"] == sum(numbers.values())
    assert (last["gaps"], last["dead"]) == (0, 0)
    assert (rows["member"], rows["journey"]) == (701, 701)
    assert entered(tmp_path) == kept
    assert lost > 0
    tell(
        f"{sum(numbers.values()):,} numbers: {last['received']:,} events, {last['lost']:,} told as lost or merged; "
        f"all 701 recognitions and journeys, the windows' sums kept; cue {took_s:.2f} s before {waiting:,} others"
    )
