"""A pipeline in one process on a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
from gateways import WAIT_S, Gateway, antennas
from migrated import begin_migrated

from config.check import load
from drivers.read import READ, epc_words
from drivers.session import Link, ReaderStatus
from dwell.markov.learner import Learner
from edge.database.writer import Database
from edge.intake import pipeline as intake
from edge.intake.health import Elsewhere
from edge.intake.inbox import Inbox
from edge.intake.pipeline import Pipeline
from edge.store.clock import Clock
from edge.store.compose import Shop, compose
from sync.contract import EventClass

T0 = 1_800_000_000_000_000
MINUTE_US = 60_000_000
DOOR, SHOES, BAGS, OUT = range(4)
ADVANCE_S = 0.02
"""The pipeline looks this often whether the test has moved the clock."""


@dataclass(frozen=True)
class HandClock(Clock):
    """A clock whose time is set by hand."""

    time: list[int] = None  # type: ignore[assignment]

    def now_us(self) -> int:
        return self.time[0]


@dataclass
class Rig:
    """A pipeline under test, its inbox, its database and its clock."""

    pipeline: Pipeline
    inbox: Inbox
    database: Database
    clock: HandClock
    task: asyncio.Task[None]

    async def see(self, card: bytes, antenna: int, seconds: int) -> None:
        """The card lies before an antenna for so long, read twice a second."""
        start = self.clock.time[0]
        reads = np.zeros(2 * seconds, READ)
        reads["time_us"] = start + 500_000 * np.arange(len(reads))
        reads["epc"] = epc_words(card)
        reads["antenna"], reads["rssi_cdbm"], reads["count"], reads["epc_bits"] = antenna, -5200, 1, 96
        await self.inbox.reads("r1", reads)
        await self.wait(seconds)

    async def wait(self, seconds: float) -> None:
        """Let the store's time pass, until the engine has weighed all of it that it may."""
        self.clock.time[0] += round(seconds * 1e6)
        goal = self.clock.time[0] - self.pipeline.shop.settings.lateness_us - 1_000_000
        await self.until(lambda: self.pipeline.engine.weighed_us >= goal)

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                assert not self.task.done() or self.task.result()
                await asyncio.sleep(0.01)

    async def query(self, sql: str) -> list[Any]:
        return await self.database.read(lambda conn: conn.execute(sql).fetchall())


@asynccontextmanager
async def running(
    shop: Shop,
    clock: HandClock,
    learner: Learner | None = None,
    *,
    advance_s: float = ADVANCE_S,
    wake: Callable[[EventClass], None] = lambda _: None,
) -> AsyncIterator[Rig]:
    config = shop.config
    begin_migrated(config.database.path)
    database = Database(config.database.path, store=config.store.id, quota_mb=config.database.quota_mb)
    inbox = Inbox()
    pipeline = Pipeline(shop, database, clock, inbox, elsewhere=Elsewhere("test"), wake=wake, learner=learner)
    pipeline.restore()
    if learner is None:  # as in a store whose radio has been learnt
        pipeline.engine.release()
    inbox.status(ReaderStatus("r1", Link.UP, "taking inventory", clock.now_us()))
    with patch.object(intake, "ADVANCE_S", advance_s):
        task = asyncio.create_task(pipeline.run())
        try:
            yield Rig(pipeline, inbox, database, clock, task)
        finally:
            pipeline.stop()
            await task
            database.close()


def shop_of(gateway: Gateway, **parts: Any) -> Shop:
    readers = [{"id": "r1", "driver": "llrp", "address": "r1", "antennas": antennas("door", "shoes", "bags", "out")}]
    database = {"path": str(gateway.database), "checkpoint_s": 0.05}
    gateway.configure(**{"readers": readers, "database": database} | parts)
    return compose(load(gateway.file))
