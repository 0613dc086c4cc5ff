"""The page's server in a test's process, and a service that tells it what the test says."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from shopdays import Day, store_values

from config import StoreConfig
from edge.store.clock import Clock
from edge.store.live_socket import LiveServer, socket_path
from edge.store.live_state import LiveClient, State
from edge.web.app import create_app
from edge.web.serve import hosts, settings

PATHS = (
    "/",
    "/today",
    "/plan",
    "/counters",
    "/flows",
    "/promotions",
    "/layout",
    "/members",
    "/service",
    "/service/rules",
    "/service/digest",
    "/quality",
    "/readers",
    "/about",
)
NOON_US = 1_773_460_800_000_000
"""2026-03-14 12:00 in Shanghai."""


class Noon(Clock):
    """Store time stands at noon of the test day."""

    def now_us(self) -> int:
        return NOON_US


class Service:
    """What the service would tell: change `told` and the next line has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.server = LiveServer(path, self._snapshot)
        self.told: dict[str, Any] = {
            "as_of_us": NOON_US,
            "watermark_us": NOON_US,
            "store": "s1",
            "zones": [
                {"id": "door", "floor": "F1", "state": "ok", "people": 0, "by_class": {}},
                {"id": "shoes", "floor": "F1", "state": "ok", "people": 4, "by_class": {"member": 1, "cart": 2}},
                {"id": "bags", "floor": "F1", "state": "unknown", "people": 7, "by_class": {"staff": 1}},
                {"id": "hall", "floor": "F2", "state": "ok", "people": 30, "by_class": {"staff": 1}},
            ],
            "members": [{"member": "M-1234567", "tier": "A", "zone": "shoes", "since_us": NOON_US - 60_000_000}],
            "recognitions": [{"at_us": NOON_US - 61_000_000, "member": "M-1234567", "tier": "A", "zone": "door"}],
            "readers": [
                {"id": "r1", "driver": "llrp", "link": "up", "since_us": NOON_US},
                {"id": "r2", "driver": "llrp", "link": "down", "reason": "no <route>", "since_us": NOON_US},
            ],
            "reads_per_s": 1234.5,
            "recognised": 1,
            "broker": {"connected": True, "since_us": NOON_US},
            "outbox": {"journey": {"sent": 9, "pending": 2}},
        }

    async def run(self) -> None:
        await self.server.run()

    def _snapshot(self) -> dict[str, Any]:
        return self.told

    def zone(self, id_: str) -> dict[str, Any]:
        return next(zone for zone in self.told["zones"] if zone["id"] == id_)


class Page:
    """The page's server in this process, asked as a browser would."""

    def __init__(self, config: StoreConfig, live: LiveClient, port: int) -> None:
        self.config = config
        self.live = live
        self.port = port

    async def get(
        self, path: str, method: str = "GET", body: str | None = None, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, str]:
        """Status, headers, body; header names with underscores for dashes."""
        status, answer, content = await self.load(path, method, body, **headers)
        return status, answer, content.decode()

    async def load(
        self, path: str, method: str = "GET", body: str | None = None, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """The same with the body as bytes."""

        def ask() -> tuple[int, http.client.HTTPMessage, bytes]:
            with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
                connection.request(method, path, body, headers={k.replace("_", "-"): v for k, v in headers.items()})
                answer = connection.getresponse()
                return answer.status, answer.headers, answer.read()

        return await asyncio.to_thread(ask)

    async def events(self, lang: str = "en", cookie: str = "") -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Server-sent events as (name, what it tells)."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        try:
            head = f"GET /events?lang={lang} HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookie}\r\n\r\n"
            writer.write(head.encode())
            await reader.readuntil(b"\r\n\r\n")
            name = ""
            while line := await reader.readline():
                if line.startswith(b"event: "):
                    name = line[7:].decode().strip()
                elif line.startswith(b"data: "):
                    yield name, json.loads(line[6:])
        finally:
            writer.close()

    async def until(self, state: State) -> None:
        async with asyncio.timeout(15):
            while self.live.state is not state:
                await self.live.wait(self.live.version, 1)


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes an attacker's time would take the tests'."""
    monkeypatch.setattr("edge.access.passwords.SCRYPT_N", 16)


@pytest.fixture
def config(tmp_path: Path) -> StoreConfig:
    return StoreConfig.model_validate(store_values(tmp_path))


@pytest.fixture
async def service(config: StoreConfig) -> AsyncIterator[Service]:
    service = Service(socket_path(config))
    running = asyncio.create_task(service.run())
    while not service.path.exists():
        await asyncio.sleep(0)
    yield service
    running.cancel()
    await asyncio.wait([running])


@pytest.fixture
async def page(config: StoreConfig) -> AsyncIterator[Page]:
    async with serving(config) as page:
        yield page


@asynccontextmanager
async def serving(config: StoreConfig, names: list[str] | None = None) -> AsyncIterator[Page]:
    """The page in this process, called by `names` (those of loopback unless told otherwise)."""
    live = LiveClient(socket_path(config), stale_s=0.8, retry_s=0.05)
    listening = socket.create_server(("127.0.0.1", 0))
    app = create_app(config, live, Noon(), names or hosts(config, listening))
    server = uvicorn.Server(settings(config, app))
    server.config.load()
    running = asyncio.create_task(server._serve([listening]))
    yield Page(config, live, listening.getsockname()[1])
    server.should_exit = True
    live.close()
    await running


def fill(config: StoreConfig) -> None:
    day = Day(config)
    for carrier in range(6):
        start = f"10:{carrier:02}"
        day.visit(f"c{carrier}", "door", start, 20, journey=start)
        day.visit(f"c{carrier}", "shoes", f"10:1{carrier}", 60 * (carrier + 1), journey=start)
    day.visit("m", "books", "11:00", 100, cls="member", member="M-1234567")
    day.covered("10:00", "12:00", bags=0)
    day.watermark("12:00")
    day.conn.close()


def text_of(html: str) -> str:
    """What people read of a page."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())
