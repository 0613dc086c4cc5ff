"""How a service is in a line, and waiting until it is as it was before."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from gateways import Gateway

from config import StoreConfig
from config.check import load
from edge.doctor import status as tools
from edge.doctor.status import Status, of, wait_for
from edge.store.errors import Trouble
from edge.store.live_socket import LiveServer, socket_path


def live(broker: bool = True, **links: str) -> dict[str, Any]:
    readers = [{"id": id_, "link": link} for id_, link in links.items()]
    return {"version": "1", "broker": {"connected": broker}, "readers": readers}


@pytest.fixture
def config(gateway: Gateway) -> StoreConfig:
    gateway.configure()
    return load(gateway.file)


def test_in_a_line() -> None:
    now = of(live(a="up", b="down", c="connecting"))
    assert str(now) == "Tagtrail 1: broker connected, 1 of 3 readers up, away: b, c"
    assert str(of(live(False))) == "Tagtrail 1: broker away, 0 of 0 readers up"


def test_only_what_worked_before_is_missed() -> None:
    before = of(live(True, a="up", b="down", gone="up"))
    assert of(live(True, a="up", b="down")).missing(before) == [], "who is no longer in the store file isn't missed"
    assert of(live(False, a="down", b="down")).missing(before) == ["the broker is away", "reader a is away"]
    assert of(live(False, a="up")).missing(of(live(False, a="up"))) == []


async def test_it_waits_until_all_is_as_before(config: StoreConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "LOOK_S", 0.02)
    told = [live(False, a="down"), live(True, a="connecting"), live(True, a="up")]
    server = LiveServer(socket_path(config), lambda: told.pop(0) if len(told) > 1 else told[0])
    running = asyncio.create_task(server.run())
    try:
        assert await wait_for(config, of(live(True, a="up")), 30) == of(live(True, a="up"))
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_what_is_missing_is_told_after_the_time(config: StoreConfig) -> None:
    with pytest.raises(Trouble, match="after 0 s: the service does not answer"):
        await wait_for(config, None, 0)
    server = LiveServer(socket_path(config), lambda: live(False, a="down"))
    running = asyncio.create_task(server.run())
    try:
        while not socket_path(config).exists():
            await asyncio.sleep(0.01)
        assert (await wait_for(config, None, 0)).version == "1", "without knowledge it is enough that it answers"
        with pytest.raises(Trouble, match="the broker is away; reader a is away"):
            await wait_for(config, of(live(True, a="up")), 0)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_what_was_noted_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "noted"
    before = Status("1", True, ("a",), ("b",))
    file.write_text(tools.as_json(before))
    assert tools.load(file) == before
    file.write_text("")
    assert tools.load(file) is None
    file.write_text("{}")
    with pytest.raises(Trouble, match="is not the output"):
        tools.load(file)


def test_by_the_command(gateway: Gateway, config: StoreConfig) -> None:
    done = gateway.run("status", "-c", str(gateway.file))
    assert (done.returncode, done.stderr) == (1, "tagtrail: the service does not answer: is it running?\n")
