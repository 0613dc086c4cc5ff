"""A gateway on a clock that a test moves: the true pipeline, database and publisher, without readers and process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gateways import antennas, member_card

from config.check import load
from drivers.read import READ, Reads, epc_words
from drivers.session import Link, ReaderStatus
from edge.crm.directory_csv import import_csv
from edge.database.retention import make_room
from edge.database.writer import Database
from edge.intake.health import Elsewhere
from edge.intake.inbox import Inbox
from edge.intake.pipeline import Pipeline
from edge.store.clock import Clock
from edge.store.compose import Shop, compose
from sync import outbox, quota
from sync.mqtt import MqttSettings
from sync.publisher import Publisher
from sync.sending import Identity

START_US = 1_800_000_000_000_000 // 86_400_000_000 * 86_400_000_000
STEP_US, DAY_US = 120_000_000, 86_400_000_000
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
        self._committed_us = 0
        settings = MqttSettings.from_url(config.mqtt.url, "tagtrail-s1")
        identity = Identity(config.store.id, self.database.epoch, "test")
        self.publisher = Publisher(settings, identity, self.database, self.clock.now_us)
        self._inbox = Inbox()
        wake = self.publisher.wake
        self._pipeline = Pipeline(shop, self.database, self.clock, self._inbox, elsewhere=Elsewhere("test"), wake=wake)
        self._pipeline.restore()
        self._inbox.status(ReaderStatus("r1", Link.UP, "taking inventory", START_US))
        self._config = config

    async def step(self, people: int, step_us: int = STEP_US) -> None:
        """A while, in which so many members pass through; committed as often as the service would."""
        at_us = self.clock.time[0]
        self.clock.time[0] += step_us
        if people:
            walks = [walk(member_card(self.people + n), at_us + 1_000_000 * n) for n in range(people)]
            reads = np.concatenate(walks)
            await self._inbox.reads("r1", reads[np.argsort(reads["time_us"], kind="stable")])
            self.people += people
        await self._pipeline._take()
        self._pipeline._advance(self.clock.time[0])
        if self.clock.time[0] - self._committed_us >= self._pipeline._every_s * 1_000_000:
            self._committed_us = self.clock.time[0]
            await self._pipeline._commit()

    async def tidy(self) -> int:
        """What housekeeping does once a minute; how many events it gave up."""
        await self.database.write(lambda conn: outbox.forget(conn, self.clock.now_us()))
        lost = 0
        while await self.database.read(quota.in_use) >= quota.FULL:
            lost += await self.database.write(lambda conn: make_room(conn, self._config, self.clock.now_us()))
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
    assert import_csv(shop.config, gateway.folder / "members.csv").rows == members
    week = Week(shop)
    if quota_pages is not None:
        week.database.write_now(lambda conn: conn.execute(f"PRAGMA max_page_count = {quota_pages}").fetchall())
    try:
        yield week
    finally:
        week.database.close()
