"""Fleet of stores that publish valid traffic: real publishers and outboxes, invented events, no readers."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import signal
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from simulators.headquarters.inventor import Inventor, now_us
from sync import outbox
from sync.contract import event_id
from sync.mqtt import MqttSettings
from sync.publisher import Publisher
from sync.sending import Identity

T = TypeVar("T")
DRAIN_S = 150.0
"""After long silence a store tries only once a minute (sync.in_flight)."""

SCHEMA = """
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE outbox_member (seq INTEGER PRIMARY KEY, payload TEXT NOT NULL);
CREATE TABLE outbox_journey (seq INTEGER PRIMARY KEY, payload TEXT NOT NULL);
CREATE TABLE outbox_agg (seq INTEGER PRIMARY KEY, payload TEXT NOT NULL);
CREATE TABLE outbox_health (seq INTEGER PRIMARY KEY, payload TEXT NOT NULL);
CREATE TABLE outbox_class (
    class INTEGER PRIMARY KEY, next_seq INTEGER NOT NULL, acked INTEGER NOT NULL, tried INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0, sent INTEGER NOT NULL DEFAULT 0, packed INTEGER NOT NULL DEFAULT 0
);
INSERT INTO outbox_class (class, next_seq, acked) VALUES (0, 1, 0), (1, 1, 0), (2, 1, 0), (3, 1, 0);
CREATE TABLE lost (class INTEGER, first INTEGER, last INTEGER, reason TEXT, PRIMARY KEY (class, first)) WITHOUT ROWID;
CREATE TABLE kept (class INTEGER, until_us INTEGER, upto INTEGER, PRIMARY KEY (class, until_us)) WITHOUT ROWID;
"""


class FakeStore:
    """One store in memory: an outbox and its publisher. Its epoch is random at every start."""

    def __init__(self, name: str, broker: str, thread: ThreadPoolExecutor) -> None:
        self.name = name
        self._thread = thread
        self._conn: sqlite3.Connection = thread.submit(self._open).result()
        self._epoch = epoch = secrets.token_hex(8)
        thread.submit(
            self._conn.executemany, "INSERT INTO fact VALUES (?, ?)", [("store", name), ("epoch", epoch)]
        ).result()
        settings = MqttSettings.from_url(broker, f"tagtrail-{name}")
        self.publisher = Publisher(settings, Identity(name, epoch, "fleet"), self, now_us)

    async def write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run a job in one transaction."""

        def transact() -> T:
            with self._conn:
                return job(self._conn)

        return await asyncio.get_running_loop().run_in_executor(self._thread, transact)

    async def read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run a read-only job."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, job, self._conn)

    async def trade(self, rate: float, dice: random.Random) -> None:
        """Invent about `rate` events a second, for ever."""
        inventor = Inventor(dice)
        while True:
            await asyncio.sleep(dice.expovariate(rate))
            await asyncio.shield(self._tell(inventor))  # the end must not come between writing and publishing

    async def _tell(self, inventor: Inventor) -> None:
        class_, event = inventor.next()
        for seq in await self.write(partial(outbox.append, class_=class_, events=[event])):
            inventor.numbered(event, event_id(self.name, self._epoch, class_, seq))
        self.publisher.wake(class_)

    def _open(self) -> sqlite3.Connection:
        conn = sqlite3.connect(":memory:")
        conn.executescript(SCHEMA)
        return conn


async def run(
    stores: int, broker: str, rate: float, duration_s: float | None, tell: Callable[[dict[str, int]], None]
) -> dict[str, int]:
    """Run the fleet and report its totals every second; returns the last totals: stores, connected, sent, pending. At
    the end, by time, SIGTERM or SIGINT, it stops inventing events and waits up to DRAIN_S for acknowledgements.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    thread = ThreadPoolExecutor(1, "outboxes")
    fleet = [FakeStore(f"fleet-{n:04}", broker, thread) for n in range(1, stores + 1)]
    publishing = [asyncio.create_task(store.publisher.run()) for store in fleet]
    trading = [asyncio.create_task(store.trade(rate, random.Random(n))) for n, store in enumerate(fleet)]

    async def totals() -> dict[str, int]:
        depths = [depth for store in fleet for depth in (await store.read(outbox.depth)).values()]
        return {
            "stores": stores,
            "connected": sum(store.publisher.status.connected for store in fleet),
            "sent": sum(depth.sent for depth in depths),
            "pending": sum(depth.pending for depth in depths),
        }

    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(duration_s):
                while not stop.is_set():
                    tell(await totals())
                    await asyncio.sleep(1)
        for task in trading:
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while (await totals())["pending"]:
                    await asyncio.sleep(0.1)
        return await totals()
    finally:
        for task in (*trading, *publishing):
            task.cancel()
        await asyncio.gather(*trading, *publishing, return_exceptions=True)
        thread.shutdown()
