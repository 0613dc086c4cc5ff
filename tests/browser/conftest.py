"""A page with a day in its database and a service that lives, and a real browser before it."""

from __future__ import annotations

import asyncio
import random
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pages
import pytest
from floors import Floor
from pages import Service, serving
from shopdays import Day, store_values

from config import StoreConfig
from edge.live import socket_path
from edge.web.users import Role, Users, users_path

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

PASSWORD = "correct horse battery"
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


@dataclass
class Site:
    """A page's address, what its service tells, and where its users are."""

    url: str
    service: Service
    config: StoreConfig
    floor: Floor


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Ended with the module: Playwright keeps an event loop running in this thread, where others want their own."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("chromium is not installed: apt install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Nobody has been made a user."""
    with running(tmp_path_factory.mktemp("open")) as found:
        yield found


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """With a manager, a viewer and IT."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edge.web.users.SCRYPT_N", 16)
        with running(tmp_path_factory.mktemp("guarded")) as found:
            users = Users(users_path(found.config))
            for name, role in (("li", Role.MANAGER), ("wall", Role.VIEWER), ("chen", Role.IT)):
                users.put(name, role, PASSWORD)
            users.close()
            yield found


class running:
    """The page and its service in a thread of their own."""

    def __init__(self, folder: Path) -> None:
        self._config = StoreConfig.model_validate(store_values(folder))
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Site:
        a_day(self._config)
        self._thread.start()
        assert self._ready.wait(60)
        return self._site

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        service = Service(socket_path(self._config))
        telling = asyncio.create_task(service.run())
        floor = Floor(self._config, service)
        listening = asyncio.create_task(floor.run())
        async with serving(self._config) as page:
            await page.until(pages.State.LIVE)
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
    day.covered("04:00", "09:00", shoes=0.0)
    day.covered("09:00", "12:00", bags=0.4)
    day.watermark("12:00")
    day.conn.close()
