"""A page with a day in its database and a service that lives, in a thread of their own: for a real browser."""

from __future__ import annotations

import asyncio
import random
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from floors import Floor
from pages import Service, serving
from shopdays import DATE, Day, store_values

from config import StoreConfig
from edge.store.live_socket import socket_path
from edge.store.live_state import State

SECTIONS: dict[str, Any] = {
    "service_targets": [{"tier": "A", "wait_s": 60, "assist_s": 60}],
    "promotions": [
        {"id": "sale", "name": {"zh": "春季", "en": "Spring"}, "zones": ["shoes"], "first_day": DATE, "last_day": DATE}
    ],
    "layout_changes": [{"id": "moved", "name": {"zh": "搬迁", "en": "Moved"}, "zones": ["bags"], "date": DATE}],
}
PASSWORD = "correct horse battery"
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


def browser() -> str | None:
    """Path of Chromium, best of all the one without windows: it draws the same pages with half the work."""
    names = ("chromium-headless-shell", "chromium", "chromium-browser")
    return next(filter(None, map(shutil.which, names)), None)


@dataclass
class Site:
    """A page's address, what its service tells, and where its users are."""

    url: str
    service: Service
    config: StoreConfig
    floor: Floor


class running:
    """The page and its service in a thread of their own."""

    def __init__(
        self,
        folder: Path,
        config: StoreConfig | None = None,
        fill: Callable[[StoreConfig], None] | None = None,
        tell: Callable[[StoreConfig, dict[str, Any]], None] | None = None,
    ) -> None:
        self._config = config or StoreConfig.model_validate(store_values(folder, **SECTIONS))
        self._fill, self._tell = fill or a_day, tell
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Site:
        self._fill(self._config)
        self._thread.start()
        assert self._ready.wait(60)
        return self._site

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        service = Service(socket_path(self._config))
        if self._tell:
            self._tell(self._config, service.told)
        telling = asyncio.create_task(service.run())
        floor = Floor(self._config, service)
        listening = asyncio.create_task(floor.run())
        async with serving(self._config) as page:
            await page.until(State.LIVE)
            self._site = Site(f"http://127.0.0.1:{page.port}", service, self._config, floor)
            self._ready.set()
            await self._stop.wait()
        for task in (telling, listening):
            task.cancel()
        await asyncio.wait([telling, listening])


def a_day(config: StoreConfig) -> None:
    """A few hundred visits of a morning, always the same."""
    day, dice = Day(config), random.Random(7)
    for carrier in range(160):
        minute = dice.randrange(60 * 10, 60 * 11 + 40)
        start = f"{minute // 60}:{minute % 60:02}"
        member = f"M-{1_000_000 + carrier}" if carrier % 5 == 0 else None
        if member:
            tag = f"c{carrier}"
            day.conn.execute(
                "INSERT INTO directory (tag, member, tier, consent) VALUES (?, ?, ?, 1)",
                (tag.encode(), member, "ABC"[carrier // 5 % 3]),
            )
        for step, zone in enumerate(["door", *dice.sample(["shoes", "bags", "hall", "books"], 3)]):
            at = f"{(minute + 3 * step) // 60}:{(minute + 3 * step) % 60:02}"
            cls = "member" if member else "unknown"
            day.visit(f"c{carrier}", zone, at, dice.choice([3, 15, 60, 150]), cls=cls, member=member, journey=start)
        end = f"{(minute + 12) // 60}:{(minute + 12) % 60:02}"
        day.journey(f"c{carrier}", start, end, "member" if member else "unknown")
    for badge, zone in (("b1", "shoes"), ("b2", "books"), ("b3", "shoes")):
        for minute in range(0, 100, 4):
            at = f"{10 + minute // 60}:{minute % 60:02}"
            day.visit(badge, zone, at, dice.choice([60, 120, 200]), cls="staff", journey="10:00")
    day.visit("lost card", "shoes", "04:10", 5 * 3600)
    for hour in range(4, 12):
        for zone, of in (("shoes", 30), ("books", 9)):
            n = 0 if hour < 10 else dice.randrange(of)
            day.sold(zone, f"{hour}:00", n, units=2 * n, cents=12_345 * n, currency="CNY")
    day.covered("04:00", "09:00", shoes=0.0)
    day.covered("09:00", "12:00", bags=0.4)
    day.watermark("12:00")
    day.conn.close()
