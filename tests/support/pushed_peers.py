"""Sessions with readers that push JSON, for their tests."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from llrp_peers import Recorder

from drivers import open_session
from drivers.pushed import session, streams
from drivers.session import Link, Push, ReaderSettings, Tls
from simulators.readers.observation import Observation

EPC = bytes.fromhex("E2C451A3A5011FA00F354693")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again, or looked at from time to time, comes soon."""
    monkeypatch.setattr(session, "RETRY_S", (0.05, 0.2))
    monkeypatch.setattr(session, "TICK_S", 0.02)
    monkeypatch.setattr(streams, "LOOK_S", 0.05)


def now_us() -> int:
    return time.time_ns() // 1000


def seen(port: int = 1, epc: bytes = EPC, rssi_cdbm: int = -5700, time_us: int | None = None) -> Observation:
    return Observation(now_us() if time_us is None else time_us, port, epc, rssi_cdbm)


def message(number: int = 1, epc: str = EPC.hex(), **more: Any) -> bytes:
    """As an FX reader sends it, with further fields beside the read's."""
    stamp = more.pop("timestamp", now_us())
    return json.dumps({"data": {"eventNum": number, "idHex": epc, "antenna": 1} | more, "timestamp": stamp}).encode()


def password(folder: Path, text: str = "secret") -> Path:
    file = folder / "password"
    file.write_text(text + "\n")
    return file


@asynccontextmanager
async def receiving(
    address: str,
    profile: str = "zebra",
    tls: Tls | None = None,
    ports: dict[int, int] | None = None,
    identity: str | None = None,
    id_: str = "gate-1",
    **push: Any,
) -> AsyncIterator[Recorder]:
    """Run a session, and end it."""
    sink = Recorder()
    settings = ReaderSettings(
        id_, "json", address, ports or {1: 10, 2: 20}, tls=tls, profile=profile, identity=identity, push=Push(**push)
    )
    task = asyncio.create_task(open_session(settings, sink, now_us).run())
    try:
        yield sink
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until_up(sink: Recorder) -> None:
    await sink.until(lambda: sink.links[-1:] == [Link.UP])
