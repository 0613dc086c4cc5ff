"""Brokers of the tests, and a database's one writer. `pytest_plugins = ["brokers"]` gives the fixtures."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeVar

import pytest

from simulators.broker import NatsBroker, accepting, end, free_port

T = TypeVar("T")
MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin")
START = Path(__file__).parents[1] / "edge" / "migrations" / "0001_start.sql"


class MosquittoBroker:
    """Mosquitto in `folder` on a free port that it keeps over restarts; `options` are further lines of its file."""

    def __init__(self, folder: Path, options: str = "allow_anonymous true", persistent: bool = True) -> None:
        self._folder = folder
        self._options = options
        self._persistent = persistent
        self._process: asyncio.subprocess.Process | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "mosquitto.conf"
        keep = (
            f"persistence true\npersistence_location {self._folder}/\nautosave_on_changes true\nautosave_interval 1\n"
        )
        config.write_text(
            f"listener {self.port} 127.0.0.1\nuser root\nlog_dest file {self._folder}/mosquitto.log\n"
            f"{keep if self._persistent else ''}{self._options}\n"
        )
        self._process = await asyncio.create_subprocess_exec(str(MOSQUITTO), "-c", str(config))
        await accepting(self.port, self._process)

    async def stop(self) -> None:
        if self._process is not None:
            await end(self._process)
            self._process = None

    async def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


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
            conn.executescript(START.read_text())
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
