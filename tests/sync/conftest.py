from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import brokers
import pytest

from simulators.broker import end
from sync import outbox
from sync.contract import EventClass, GatewayHealth, Recognised
from sync.mqtt import MqttSettings
from sync.publisher import Identity, Publisher

broker, mosquitto, nats = brokers.broker, brokers.mosquitto, brokers.nats


def now_us() -> int:
    return time.time_ns() // 1000


def recognised(n: int = 0) -> Recognised:
    return Recognised(
        member=f"M{n}", tier="A", zone="cosmetics", floor="1", read_us=now_us(), expires_us=now_us() + 300_000_000
    )


def health(n: int = 0) -> GatewayHealth:
    return GatewayHealth(
        at_us=n,
        version="0",
        reason="periodic",
        reads=n,
        late_reads=0,
        unknown_antenna_reads=0,
        tags_present=0,
        readers_up=1,
        readers=1,
        backlog={"member": 0, "journey": 0, "agg": 0, "health": 0},
    )


class Store:
    """A gateway's database and, while `online()`, its publisher."""

    def __init__(self, path: Path, url: str, store: str = "s1", **settings: Any) -> None:
        self.writer = brokers.OneWriter(path, store)
        self.settings = MqttSettings.from_url(url, f"tagtrail-{store}", **settings)
        self.identity = Identity(store, self.writer.epoch, "0")
        self.publisher = self.new_publisher()

    def new_publisher(self) -> Publisher:
        return Publisher(self.settings, self.identity, self.writer, now_us)

    @contextlib.asynccontextmanager
    async def online(self) -> AsyncIterator[Publisher]:
        """A new publisher on the same database, running."""
        self.publisher = self.new_publisher()
        running = asyncio.create_task(self.publisher.run())
        try:
            yield self.publisher
        finally:
            running.cancel()
            done = await asyncio.gather(running, return_exceptions=True)
            assert isinstance(done[0], asyncio.CancelledError), done[0]

    async def commit(self, class_: EventClass, n: int) -> None:
        make = recognised if class_ == "member" else health
        await self.writer.write(lambda conn: outbox.append(conn, class_, [make(i) for i in range(n)]))
        self.publisher.wake(class_)

    async def pending(self) -> int:
        return sum(depth.pending for depth in (await self.writer.read(outbox.depth)).values())

    async def sent(self) -> dict[str, int]:
        return {class_: depth.sent for class_, depth in (await self.writer.read(outbox.depth)).items()}


class CrmProcess:
    """`python -m simulators.crm` on its own database, to be killed."""

    def __init__(self, folder: Path, url: str) -> None:
        self._args = ["--url", url, "--database", str(folder / "crm.db"), "--status", str(folder / "crm.json")]
        self._database = folder / "crm.db"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "simulators.crm", *self._args, stdout=asyncio.subprocess.PIPE
        )

    async def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> dict[str, Any]:
        """SIGTERM; the JSON line it ends with."""
        assert self._process is not None
        self._process.terminate()
        out, _ = await self._process.communicate()
        assert self._process.returncode == 0
        return dict(json.loads(out.splitlines()[-1]))

    async def close(self) -> None:
        if self._process is not None:
            await end(self._process)

    def rows(self) -> list[tuple[str, int, int, int]]:
        """Per class: class, lowest and highest number, number of events. From the database itself."""
        if not self._database.exists():
            return []
        with contextlib.closing(sqlite3.connect(f"file:{self._database}?mode=ro", uri=True)) as conn:
            try:
                query = "SELECT class, min(seq), max(seq), count(*) FROM event GROUP BY class ORDER BY class"
                return conn.execute(query).fetchall()
            except sqlite3.OperationalError:
                return []

    def count(self) -> int:
        return sum(row[3] for row in self.rows())


@pytest.fixture
async def crm(tmp_path: Path) -> AsyncIterator[Callable[[str], CrmProcess]]:
    """Make a CRM for a broker's URL; it is ended after the test."""
    made: list[CrmProcess] = []

    def make(url: str) -> CrmProcess:
        made.append(CrmProcess(tmp_path, url))
        return made[-1]

    yield make
    for one in made:
        await one.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Callable[..., Store]]:
    """Make a gateway's database and publisher; closed after the test."""
    made: list[Store] = []

    def make(url: str, name: str = "s1", **settings: Any) -> Store:
        made.append(Store(tmp_path / f"{name}.db", url, name, **settings))
        return made[-1]

    yield make
    for one in made:
        one.writer.close()


@pytest.fixture
def until() -> Callable[..., Awaitable[None]]:
    """Wait until a condition holds, plain or awaitable; fails after `within_s`."""

    async def wait(condition: Callable[[], Any], within_s: float = 30) -> None:
        async with asyncio.timeout(within_s):
            while True:
                value = condition()
                if isinstance(value, Awaitable):
                    value = await value
                if value:
                    return
                await asyncio.sleep(0.02)

    return wait


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A database with the schema, of store s1 and epoch e."""
    connection = sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)
    connection.executescript(brokers.START.read_text())
    connection.executemany("INSERT INTO fact VALUES (?, ?)", [("store", "s1"), ("epoch", "e")])
    yield connection
    connection.close()


os.environ.setdefault("PYTHONUNBUFFERED", "1")
