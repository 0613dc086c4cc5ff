"""A chain's worth of stores that publish valid traffic: real publishers and outboxes, invented events, no readers."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import signal
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TypeVar

from sync import outbox
from sync.contract import Event, EventClass, Journey, Recognised, Stop, ZoneWindow
from sync.mqtt import MqttSettings
from sync.publisher import Identity, Publisher

T = TypeVar("T")
ZONES = ("door", "cosmetics", "shoes", "bags", "checkout")
WINDOW_US = 900_000_000
DRAIN_S = 150.0
"""After long silence a store tries only once a minute (sync.flow)."""

SCHEMA = """
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE outbox_member (seq INTEGER PRIMARY KEY, payload TEXT NOT NULL);
CREATE TABLE outbox_journey (seq INTEGER PRIMARY KEY, payload TEXT NOT NULL);
CREATE TABLE outbox_agg (seq INTEGER PRIMARY KEY, payload TEXT NOT NULL);
CREATE TABLE outbox_health (seq INTEGER PRIMARY KEY, payload TEXT NOT NULL);
CREATE TABLE outbox_class (
    class INTEGER PRIMARY KEY, next_seq INTEGER NOT NULL, acked INTEGER NOT NULL, tried INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0
);
INSERT INTO outbox_class (class, next_seq, acked) VALUES (0, 1, 0), (1, 1, 0), (2, 1, 0), (3, 1, 0);
CREATE TABLE lost (class INTEGER, first INTEGER, last INTEGER, reason TEXT, PRIMARY KEY (class, first)) WITHOUT ROWID;
CREATE TABLE kept (class INTEGER, until_us INTEGER, upto INTEGER, PRIMARY KEY (class, until_us)) WITHOUT ROWID;
"""


class FakeStore:
    """One store in memory: an outbox and its publisher. Its epoch is drawn anew with every start."""

    def __init__(self, name: str, broker: str, thread: ThreadPoolExecutor) -> None:
        self.name = name
        self._thread = thread
        self._conn: sqlite3.Connection = thread.submit(self._open).result()
        epoch = secrets.token_hex(8)
        thread.submit(
            self._conn.executemany, "INSERT INTO fact VALUES (?, ?)", [("store", name), ("epoch", epoch)]
        ).result()
        settings = MqttSettings.from_url(broker, f"tagtrail-{name}")
        self.publisher = Publisher(settings, Identity(name, epoch, "fleet"), self, now_us)

    async def write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """A job in one transaction."""

        def transact() -> T:
            with self._conn:
                return job(self._conn)

        return await asyncio.get_running_loop().run_in_executor(self._thread, transact)

    async def read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """A job that only reads."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, job, self._conn)

    async def trade(self, rate: float, dice: random.Random) -> None:
        """Invent about `rate` events a second, for ever."""
        while True:
            await asyncio.sleep(dice.expovariate(rate))
            class_, event = invent(dice)
            await self.write(lambda conn, class_=class_, event=event: outbox.append(conn, class_, [event]))  # type: ignore[misc]
            self.publisher.wake(class_)

    def _open(self) -> sqlite3.Connection:
        conn = sqlite3.connect(":memory:")
        conn.executescript(SCHEMA)
        return conn


def now_us() -> int:
    """UTC now, microseconds."""
    return time.time_ns() // 1000


def invent(dice: random.Random) -> tuple[EventClass, Event]:
    """A likely event that just happened."""
    now = now_us()
    date = datetime.fromtimestamp(now / 1e6, UTC).date().isoformat()
    zone, member = dice.choice(ZONES), f"M{dice.randrange(100_000):06}"
    kind = dice.random()
    if kind < 0.1:
        return "member", Recognised(
            member=member, tier=dice.choice("ABC"), zone="door", floor="F1", read_us=now, expires_us=now + 300_000_000
        )
    if kind < 0.5:
        times = sorted(now - dice.randrange(3_600_000_000) for _ in range(2 * dice.randint(1, 8)))
        stops = [
            Stop(zone=dice.choice(ZONES), enter_us=a, exit_us=b, reads=9, censored=False, confidence=0.9)
            for a, b in zip(times[::2], times[1::2], strict=True)
        ]
        return "journey", Journey(
            tag=dice.randbytes(16).hex(),
            tag_class="member",
            member=member,
            business_date=date,
            start_us=times[0],
            end_us=times[-1],
            censored=False,
            def_version=1,
            stops=stops,
        )
    entered = dice.randrange(20)
    return "agg", ZoneWindow(
        zone=zone,
        floor="F1",
        tag_class="unknown",
        window_us=now // WINDOW_US * WINDOW_US - WINDOW_US,
        length_us=WINDOW_US,
        business_date=date,
        entered=entered,
        ended=entered,
        censored=0,
        pass_by=entered,
        touch=0,
        visit=0,
        engaged=0,
        present_us=entered * 3_000_000,
        peak=min(entered, 3),
        coverage=1,
        histogram={"3": entered} if entered else {},
        def_version=1,
    )


async def run(
    stores: int, broker: str, rate: float, duration_s: float | None, tell: Callable[[dict[str, int]], None]
) -> dict[str, int]:
    """Run the fleet, tell its totals every second; the last totals: stores, connected, sent, pending.

    At the end, by time, SIGTERM or SIGINT, no more is invented, and what is under way has DRAIN_S to be acknowledged.
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
