"""A small store, and the service as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import forked
import pytest
import tomli_w
from forked import Forked

from config.check import load
from edge.store.live_socket import read_once, socket_path

WAIT_S = 60.0

STORE: dict[str, Any] = {
    "store": {"id": "s1", "name": {"zh": "一店", "en": "Store one"}, "timezone": "Asia/Shanghai"},
    "floors": [{"id": "F1", "name": "1"}],
    "zones": [
        {"id": id_, "name": id_, "kind": kind, "floor": "F1", "polygon": [[x, 0], [x + 6, 0], [x + 6, 6], [x, 6]]}
        for id_, kind, x in (
            ("door", "entrance", 0), ("shoes", "counter", 8), ("bags", "counter", 16), ("out", "exit", 24)
        )
    ],
    "tag_classes": [
        {"class": "member", "scheme": "gsrn-96", "company_prefix": "0614141"},
        {"class": "staff", "epc_prefix": "2E"},
    ],
    "mqtt": {"url": "mqtt://127.0.0.1:1"},
    "web": {"listen": "127.0.0.1:0"},
}  # fmt: skip


def member_card(number: int) -> bytes:
    """GSRN-96 of a card of the store's company."""
    from config.tags import gsrn96

    return gsrn96("0614141", number)


def antennas(*zones: str) -> list[dict[str, Any]]:
    where = {zone["id"]: [zone["polygon"][0][0] + 3, 3] for zone in STORE["zones"]}
    return [{"port": port, "zone": zone, "position": where[zone]} for port, zone in enumerate(zones, 1)]


class Gateway:
    """A store file, and the service run on it as store IT would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "store.toml"
        self.database = folder / "store.db"
        self.process: subprocess.Popen[bytes] | Forked | None = None
        self._socket: Path | None = None

    def configure(self, **parts: Any) -> None:
        store = STORE | {"database": {"path": str(self.database), "checkpoint_s": 0.5}} | parts
        self.file.write_text(tomli_w.dumps(store), encoding="utf-8")
        self._socket = None

    def start(self, *arguments: str, cold: bool = False, environment: Mapping[str, str] | None = None) -> None:
        """Start the service, with more variables in its environment; `cold`, as an operator would, with its imports."""
        command = ["run", "--config", str(self.file), *arguments]
        with (self.folder / "service.log").open("ab") as log:
            if cold:
                python = [sys.executable, "-m", "edge", *command]
                its = {**os.environ, **(environment or {})}
                self.process = subprocess.Popen(python, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=its)
            else:
                self.process = Forked(*command, out=log, err=log, environment=environment)

    def run(self, *arguments: str, within_s: float = WAIT_S) -> subprocess.CompletedProcess[str]:
        return forked.run(*arguments, within_s=within_s)

    def end(self, number: int = signal.SIGTERM, within_s: float = 30) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(within_s)

    async def live(self) -> dict[str, Any] | None:
        if self._socket is None:
            self._socket = socket_path(load(self.file, files=False))
        return await read_once(self._socket)

    async def until(self, condition: Callable[[dict[str, Any]], bool], within_s: float = WAIT_S) -> dict[str, Any]:
        """The first live state that fulfils a condition."""
        state: dict[str, Any] | None = None
        try:
            async with asyncio.timeout(within_s):
                while not ((state := await self.live() or state) and condition(state)):
                    assert self.process is not None
                    assert self.process.poll() is None, self.log()
                    await asyncio.sleep(0.1)
        except TimeoutError:
            pytest.fail(f"not within {within_s} s; last: {json.dumps(state)}\n{self.log()}")
        return state

    def rows(self, sql: str) -> list[Any]:
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=10)) as conn:
            return conn.execute(sql).fetchall()

    def log(self) -> str:
        file = self.folder / "service.log"
        return file.read_text(errors="replace")[-4000:] if file.exists() else ""


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """A store's folder; what runs in it is ended after the test."""
    gateway = Gateway(tmp_path)
    yield gateway
    if gateway.process is not None and gateway.process.poll() is None:
        gateway.process.kill()
        gateway.process.wait()
