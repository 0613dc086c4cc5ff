"""The gateway at a glance on a terminal."""

from __future__ import annotations

import asyncio
import io
import os
from pathlib import Path

import pytest
from measured import FULL
from rich.console import Console
from shopdays import store_values

from config import StoreConfig
from edge.doctor.top import Process, process_of, view, watch
from edge.store.errors import Trouble
from edge.store.live_socket import LiveServer, socket_path
from edge.store.live_state import Now


@pytest.fixture
def config(tmp_path: Path) -> StoreConfig:
    return StoreConfig.model_validate(store_values(tmp_path))


def lines(config: StoreConfig, height: int = 40, *, width: int = 100, live: bool = True, **told: object) -> str:
    out = Console(file=io.StringIO(), width=width, height=height, markup=False)
    now = Now.model_validate(FULL | {"failing": []} | told)
    out.print(view(config, now, Process(93.0, 1.2), height, live=live))
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_what_store_it_asks_first_is_there(config: StoreConfig) -> None:
    text = lines(
        config, database={"bytes": 5 << 20, "quota_bytes": 64 << 20}, process={"up_s": 86_400, "written_bytes": 250e6}
    )
    assert " ok " in text
    for part in (
        "memory 93 MB",
        "written 250 MB/day",
        "database 5 of 64 MB",
        "broker connected",
        "2 late",
        "page 100 ms",
    ):
        assert part in text, text
    assert "member" in text


def test_readers_that_are_away_come_first_and_many_fit(config: StoreConfig) -> None:
    readers = [
        {"id": f"r{n:02}", "driver": "llrp", "link": "down" if n == 50 else "up", "since_us": 1, "reads_per_s": n}
        for n in range(64)
    ]
    text = lines(config, 30, readers=readers)
    assert text.index("r50") < text.index("r63")
    assert "r00" not in text
    assert " more" in text
    assert text.count("\n") <= 30


def test_on_a_small_terminal_a_long_reason_is_cut_off_and_nothing_else(config: StoreConfig) -> None:
    reason = "/dev/rfid/gate-1 does not exist: plug the reader in, or correct the address or the udev rule"
    readers = [
        {"id": f"gate-{n}", "driver": "tsl", "link": "down", "reason": reason, "since_us": 1} for n in range(1, 65)
    ]
    broker = {"connected": False, "reason": "10.20.0.5:8883: [Errno 111] Connection refused", "since_us": 1}
    failing = [{"job": "learning", "reason": "disk", "since_us": 1, "times": 2}]
    text = lines(config, 24, width=80, readers=readers, broker=broker, failing=failing)
    assert "gate-1 " in text
    assert "down" in text
    assert "/dev/rfid/gate-1 does" in text
    assert text.count("\n") <= 24, text
    assert "! learning fails: disk" in text


def test_what_is_written_is_not_foretold_from_seconds(config: StoreConfig) -> None:
    assert "MB/day" not in lines(config, process={"up_s": 5, "written_bytes": 500_000})


def test_faults_and_silence_are_told(config: StoreConfig) -> None:
    text = lines(config, failing=[{"job": "learning", "reason": "disk", "since_us": 1, "times": 2}])
    assert "failing" in text
    assert "! learning fails: disk" in text
    assert "NO ANSWER" in lines(config, live=False)


def test_nobody_is_named(config: StoreConfig) -> None:
    members = [{"member": "M-1234567", "tier": "A", "zone": "z", "since_us": 1}]
    assert "M-1234567" not in lines(config, members=members)


async def test_it_follows_the_service(config: StoreConfig) -> None:
    server = asyncio.create_task(LiveServer(socket_path(config), lambda: FULL | {"pid": os.getpid()}).run())
    out = Console(file=io.StringIO(), width=100, height=40)
    try:
        await watch(config, out, once=True)
    finally:
        server.cancel()
        await asyncio.wait([server])
    assert isinstance(out.file, io.StringIO)
    assert "Tagtrail 1.2  s1" in out.file.getvalue()


async def test_without_a_service_it_says_so(config: StoreConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.doctor.top.ANSWER_S", 0.1)
    with pytest.raises(Trouble, match="does not answer"):
        await watch(config, Console(file=io.StringIO()), once=True)


def test_the_system_tells_of_processes() -> None:
    mine = process_of(os.getpid())
    assert mine.memory_mb is not None
    assert mine.memory_mb > 10
    assert process_of(0) == Process()
