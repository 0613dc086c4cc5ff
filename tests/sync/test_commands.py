"""Commands of the CRM as they are taken and carried out, without a broker."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edge.database.writer import Database
from sync import commands
from sync.commands import Commands, Doing
from sync.publisher import Incoming


class Desk:
    """Commands at work, and what was answered."""

    def __init__(self, database: Database, **doings: Doing) -> None:
        self.said: list[dict[str, Any]] = []
        self.commands = Commands(doings, database, lambda: 0, lambda _, message: self.said.append(json.loads(message)))

    async def send(self, id_: str, command: str, **others: Any) -> None:
        order = {"id": id_, "command": command, "expires_us": 600_000_000} | others
        await self.commands.take(Incoming("tagtrail/v1/1/s1/down/cmd", json.dumps(order).encode(), False))

    def states(self, id_: str) -> list[str]:
        return [answer["state"] for answer in self.said if answer["id"] == id_]

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not true():
                await asyncio.sleep(0.01)

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        running = asyncio.create_task(self.commands.run())
        try:
            yield
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "store.db", store="s1", quota_mb=16)
    yield database
    database.close()


async def test_a_flood_is_held_back_and_later_ones_are_done(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    enough = asyncio.Event()

    async def ping(command: Any) -> dict[str, Any]:
        done.append(command.id)
        await enough.wait()
        return {}

    monkeypatch.setattr(commands, "PER_S", 0.0)
    desk = Desk(database, ping=ping)
    async with desk.at_work():
        await desk.send("c0", "ping")
        await desk.until(lambda: done == ["c0"])
        for n in range(1, 300):
            await desk.send(f"c{n}", "ping")
        taken, counters = 1 + commands.WAITING, desk.commands.counters
        assert (counters["taken"], counters["dropped"]) == (taken, 300 - int(commands.BURST))
        refused = [answer["id"] for answer in desk.said if answer["state"] == "refused"]
        assert refused == [f"c{n}" for n in range(taken, int(commands.BURST))]
        enough.set()
        await desk.until(lambda: desk.states(f"c{taken - 1}") == ["received", "applied"])
        assert done == [f"c{n}" for n in range(taken)]
        monkeypatch.setattr(commands, "PER_S", 1e6)
        await desk.send("c0", "ping")
        await desk.send("later", "ping")
        await desk.until(lambda: done[-1] == "later")
        assert done.count("c0") == 1


async def test_a_command_is_cut_off_by_a_restart_or_carried_out_never_both(database: Database) -> None:
    async def ping(_: Any) -> dict[str, Any]:
        return {}

    before, after = Desk(database, ping=ping), Desk(database, ping=ping)
    async with before.at_work():
        await before.send("old", "capture")  # not done here: refused, forgotten
        await before.send("done", "ping")
        await before.until(lambda: before.states("done") == ["received", "applied"])
    database.write_now(lambda conn: conn.execute("INSERT INTO command VALUES ('cut', 0, NULL)").rowcount)
    sending = asyncio.create_task(after.send("new", "ping"))  # comes before `run` has looked around
    await asyncio.sleep(0)
    async with after.at_work():
        await sending
        await after.until(lambda: after.states("new") == ["received", "applied"])
    assert (after.states("cut"), after.states("done"), after.states("old")) == (["failed"], [], [])


async def test_nobody_waits_for_a_capture(database: Database) -> None:
    enough = asyncio.Event()
    captures: list[str] = []

    async def capture(command: Any) -> dict[str, Any]:
        captures.append(command.id)
        await enough.wait()
        return {}

    async def erase(_: Any) -> dict[str, Any]:
        return {"visits": 1}

    desk = Desk(database, capture=capture, erase=erase)
    async with desk.at_work():
        await desk.send("long", "capture", seconds=600)
        await desk.send("next", "capture", seconds=1)
        await desk.send("short", "erase", member="M1")
        await desk.until(lambda: desk.states("short") == ["received", "applied"])
        assert (desk.states("long"), captures) == (["received"], ["long"])
        enough.set()
        await desk.until(lambda: desk.states("next") == ["received", "applied"])
        assert (desk.states("long"), captures) == (["received", "applied"], ["long", "next"])
