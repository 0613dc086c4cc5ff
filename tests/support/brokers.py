"""Brokers of the tests, and at their two ends a gateway's outbox with its publisher and a CRM that can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import secrets
import shutil
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
from forked import Forked

from config import topics
from simulators.headquarters.broker import Broker, NatsBroker
from sync import outbox
from sync.contract import (
    GZIP_MAGIC,
    Event,
    EventClass,
    GatewayHealth,
    Journey,
    Recognised,
    Stop,
    ZoneWindow,
    unpack,
)
from sync.mqtt import Incoming, MqttConnection, MqttSettings, connect
from sync.publisher import Publisher
from sync.sending import Identity

T = TypeVar("T")
Until = Callable[..., Awaitable[None]]
"""Of the fixture `until`."""
MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin")
SCHEMA = "".join(
    file.read_text("utf-8") for file in sorted((Path(__file__).parents[2] / "edge/database/migrations").glob("*.sql"))
)


class MosquittoBroker(Broker):
    """Mosquitto; `options` are further lines of its file."""

    def __init__(self, folder: Path, options: str = "allow_anonymous true", persistent: bool = True) -> None:
        super().__init__(folder)
        self._options = options
        self._persistent = persistent

    def command(self) -> list[str]:
        config = self._folder / "mosquitto.conf"
        keep = (
            f"persistence true\npersistence_location {self._folder}/\nautosave_on_changes true\nautosave_interval 1\n"
        )
        config.write_text(
            f"listener {self.port} 127.0.0.1\nuser root\nlog_dest file {self._folder}/mosquitto.log\n"
            f"{keep if self._persistent else ''}{self._options}\n"
        )
        return [str(MOSQUITTO), "-c", str(config)]


def need_mosquitto() -> None:
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed: apt install mosquitto")


@pytest.fixture
async def mosquitto(tmp_path: Path) -> AsyncIterator[MosquittoBroker]:
    """A running Mosquitto; skips where there is none."""
    need_mosquitto()
    async with MosquittoBroker(tmp_path / "mosquitto") as broker:
        yield broker


@pytest.fixture
async def cell(tmp_path: Path) -> AsyncIterator[MosquittoBroker]:
    """A cell's broker, as docs/chain has it but for certificates and access rules."""
    need_mosquitto()
    options = "allow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 8192"
    async with MosquittoBroker(tmp_path / "cell", options, persistent=False) as broker:
        yield broker


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[NatsBroker]:
    """A running NATS server."""
    async with NatsBroker(tmp_path / "nats") as broker:
        yield broker


@pytest.fixture(params=["nats", "mosquitto"])
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[NatsBroker | MosquittoBroker]:
    """Each of the two in turn."""
    if request.param == "mosquitto":
        need_mosquitto()
    kind: Callable[[Path], NatsBroker | MosquittoBroker] = NatsBroker if request.param == "nats" else MosquittoBroker
    async with kind(tmp_path / request.param) as running:
        yield running


class OneWriter:
    """A database with the schema, epoch and store, and the one thread that may touch it."""

    _epochs = itertools.count(1)

    def __init__(self, path: Path, store: str = "s1") -> None:
        self._thread = ThreadPoolExecutor(1)
        self._conn: sqlite3.Connection = self._thread.submit(self._open, path, store).result()
        self.store = store
        self.epoch: str = self._thread.submit(
            lambda: self._conn.execute("SELECT value FROM fact WHERE name = 'epoch'").fetchone()[0]
        ).result()

    def _open(self, path: Path, store: str) -> sqlite3.Connection:
        new = not path.exists()
        conn = sqlite3.connect(path, isolation_level=None)
        conn.execute("PRAGMA journal_mode = WAL")
        conn.execute("PRAGMA synchronous = NORMAL")
        if new:
            conn.executescript(SCHEMA)
            facts = [("store", store), ("epoch", f"e{next(self._epochs)}")]
            conn.executemany("INSERT INTO fact VALUES (?, ?)", facts)
        return conn

    async def write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        def transaction() -> T:
            self._conn.execute("BEGIN IMMEDIATE")
            try:
                result = job(self._conn)
            except BaseException:
                self._conn.execute("ROLLBACK")
                raise
            self._conn.execute("COMMIT")
            return result

        return await asyncio.get_running_loop().run_in_executor(self._thread, transaction)

    async def read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, job, self._conn)

    def close(self) -> None:
        self._thread.submit(self._conn.close).result()
        self._thread.shutdown()


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


def window(n: int = 0) -> ZoneWindow:
    numbers: dict[str, Any] = dict.fromkeys(
        ("entered", "ended", "censored", "pass_by", "touch", "visit", "engaged", "present_us"), n
    )
    return ZoneWindow(
        zone="cosmetics",
        floor="1",
        tag_class="cart",
        window_us=n,
        length_us=900_000_000,
        business_date="2026-01-01",
        peak=n,
        coverage=1,
        histogram={"3": n},
        def_version=1,
        **numbers,
    )


def journey(n: int = 0, stops: int = 3) -> Journey:
    return Journey(
        tag="t",
        tag_class="cart",
        member=None,
        business_date="2026-01-01",
        start_us=n,
        end_us=n,
        censored=False,
        def_version=1,
        stops=[
            Stop(zone="shoes", enter_us=i, exit_us=i + 1, reads=9, censored=False, confidence=1) for i in range(stops)
        ],
    )


MAKERS: dict[EventClass, Callable[[int], Event]] = {
    "member": recognised,
    "journey": journey,
    "agg": window,
    "health": health,
}


class Store:
    """A gateway's database and, while `online()`, its publisher."""

    def __init__(self, path: Path, url: str, store: str = "s1", **settings: Any) -> None:
        self.writer = OneWriter(path, store)
        self.settings = MqttSettings.from_url(url, f"tagtrail-{store}", **settings)
        self.identity = Identity(store, self.writer.epoch, "0")
        self.handlers: dict[str, Any] = {}
        """Who takes what comes down, by name."""
        self.kept: Callable[[], Awaitable[None]] | None = None
        """What is waited for before anything leaves."""
        self.publisher = self.new_publisher()

    def new_publisher(self) -> Publisher:
        self.identity = dataclasses.replace(self.identity, instance=secrets.token_hex(8))  # as a new process would
        return Publisher(self.settings, self.identity, self.writer, now_us, kept=self.kept)

    @contextlib.asynccontextmanager
    async def online(self) -> AsyncIterator[Publisher]:
        """A new publisher on the same database, running."""
        self.publisher = self.new_publisher()
        running = asyncio.create_task(self.publisher.run(self.handlers))
        try:
            yield self.publisher
        finally:
            running.cancel()
            done = await asyncio.gather(running, return_exceptions=True)
            assert isinstance(done[0], asyncio.CancelledError), done[0]

    async def commit(self, class_: EventClass, n: int) -> None:
        make = MAKERS[class_]
        await self.writer.write(lambda conn: outbox.append(conn, class_, [make(i) for i in range(n)]))
        self.publisher.wake(class_)

    async def pending(self) -> int:
        """Events that the outbox still keeps."""
        return sum(depth.pending for depth in (await self.writer.read(outbox.depth)).values())

    async def empty(self) -> bool:
        return await self.pending() == 0


class Listener:
    """The far end in a test's own hands: keeps what comes up, acknowledges what and when the test says."""

    def __init__(self, connection: MqttConnection, store: Store) -> None:
        self._connection = connection
        self._store = store
        self.batches: list[dict[str, Any]] = []
        self.states: list[dict[str, Any]] = []
        self.packed = 0
        """Messages that came packed."""
        self.acking = False
        """Acknowledge every batch as it comes …"""
        self.accepts: tuple[str, ...] = ()
        """… and say that these forms of it are taken."""

    def seqs(self, class_: EventClass) -> list[int]:
        """Numbers of all events of a class in the order of arrival, repetitions included."""
        mine = [batch for batch in self.batches if batch["class"] == class_]
        return [seq for batch in mine for seq in range(batch["first"], batch["first"] + batch["n"])]

    async def ack(
        self, class_: EventClass, upto: int, pause_ms: int = 0, epoch: str | None = None, **others: Any
    ) -> None:
        message = {"epoch": epoch or self._store.identity.epoch, "upto": upto, "pause_ms": pause_ms} | others
        await self.say(class_, json.dumps(message).encode())

    async def say(self, class_: str, payload: bytes) -> None:
        """Whatever bytes on an ack's topic."""
        await self._connection.publish(
            topics.topic(self._store.identity.store, f"down/ack/{class_}"), payload, retain=True
        )

    async def listen(self) -> None:
        while True:
            for incoming in await self._connection.receive():
                await self._take(incoming)

    async def _take(self, incoming: Incoming) -> None:
        message = json.loads(unpack(incoming.payload))
        self.packed += incoming.payload.startswith(GZIP_MAGIC)
        if incoming.topic.endswith("/state"):
            self.states.append(message)
            return
        self.batches.append(message)
        if self.acking:
            accepts: dict[str, Any] = {"accepts": self.accepts} if self.accepts else {}
            await self.ack(message["class"], message["first"] + message["n"] - 1, **accepts)


@contextlib.asynccontextmanager
async def _listening(url: str, store: Store) -> AsyncIterator[Listener]:
    """A Listener on everything that the store sends."""
    async with connect(MqttSettings.from_url(url, "listener")) as connection:
        await connection.subscribe([topics.topic("+", "up/+"), topics.topic("+", "state")])
        listener = Listener(connection, store)
        task = asyncio.create_task(listener.listen())
        try:
            yield listener
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class CrmProcess:
    """`tagtrail crm` on its own database, to be killed."""

    def __init__(self, folder: Path, url: str, database: str | None = None) -> None:
        self._database = folder / "crm.db"
        book = database or str(self._database)
        self._args = ["--url", url, "--database", book, "--status", str(folder / "crm.json")]
        self._status = folder / "crm.json"
        self._out = folder / "crm.out"
        self._process: Forked | None = None

    async def start(self) -> None:
        with self._out.open("wb") as out:
            self._process = Forked("crm", *self._args, out=out)

    async def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        await asyncio.to_thread(self._process.wait)

    async def stop(self) -> dict[str, Any]:
        """SIGTERM; the JSON line it ends with."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(self._process.wait) == 0
        return dict(json.loads(self._out.read_bytes().splitlines()[-1]))

    async def close(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(self._process.wait)

    def ready(self) -> bool:
        """Connected and subscribed."""
        return self._status.exists() and json.loads(self._status.read_text())["broker"] == "connected"

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


MakeStore = Callable[..., Store]
MakeCrm = Callable[[str], CrmProcess]
Listening = Callable[[str, Store], contextlib.AbstractAsyncContextManager[Listener]]
"""Of the fixtures below."""


@pytest.fixture
async def crm(tmp_path: Path) -> AsyncIterator[MakeCrm]:
    """Make a CRM for a broker's URL; it is ended after the test."""
    made: list[CrmProcess] = []

    def make(url: str) -> CrmProcess:
        made.append(CrmProcess(tmp_path, url))
        return made[-1]

    yield make
    for one in made:
        await one.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MakeStore]:
    """Make a gateway's database and publisher; closed after the test."""
    made: list[Store] = []

    def make(url: str, name: str = "s1", **settings: Any) -> Store:
        made.append(Store(tmp_path / f"{name}.db", url, name, **settings))
        return made[-1]

    yield make
    for one in made:
        one.writer.close()


@pytest.fixture
def listening() -> Listening:
    """`async with listening(url, store) as listener`."""
    return _listening


@pytest.fixture
def until() -> Until:
    """Wait until a condition holds, plain or awaitable; fails after `within_s`."""

    async def wait(condition: Callable[[], Any], within_s: float = 60) -> None:
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
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA journal_mode = MEMORY")
    connection.executescript(SCHEMA)
    connection.executemany("INSERT INTO fact VALUES (?, ?)", [("store", "s1"), ("epoch", "e")])
    yield connection
    connection.close()
