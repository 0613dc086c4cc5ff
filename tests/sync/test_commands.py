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
from sync.commands import CommandHandler, Commands
from sync.publisher import Incoming


class Desk:
    """Commands at work, and what was answered."""

    def __init__(self, database: Database, **handlers: CommandHandler) -> None:
        self.said: list[dict[str, Any]] = []
        self.commands = Commands(
            handlers, database, lambda: 0, lambda _, message: self.said.append(json.loads(message))
        )

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
        # One that found no room may come again under its id.
        await desk.send(f"c{taken}", "ping")
        await desk.until(lambda: done[-1] == f"c{taken}")


async def test_an_erasure_is_taken_in_any_flood_and_waits_for_no_other_command(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    erased: list[str] = []
    never = asyncio.Event()

    async def replay(_: Any) -> dict[str, Any]:
        await never.wait()
        return {}

    async def erase(command: Any) -> dict[str, Any]:
        erased.append(command.member)
        return {}

    monkeypatch.setattr(commands, "PER_S", 0.0)
    desk = Desk(database, replay=replay, erase=erase)
    async with desk.at_work():
        numbers = {"class": "health", "epoch": "e", "from": 1, "to": 9}
        for n in range(100):
            await desk.send(f"r{n}", "replay", **numbers)
        assert desk.commands.counters["dropped"] == 100 - commands.BURST
        for n in range(100):
            await desk.send(f"e{n}", "erase", member=f"M{n}")
            await desk.send(f"x{n}", "replay", **numbers)
        await desk.until(lambda: len(erased) == 100)
        assert erased == [f"M{n}" for n in range(100)]
        assert all(desk.states(f"e{n}") == ["received", "applied"] for n in range(100))


@pytest.mark.parametrize(
    ("other", "parts"),
    [
        ("ping", {}),
        ("erase", {"member": "M2"}),
        ("erase", {"member": "M1", "expires_us": 700_000_000, "v": 1, "later": "ignored"}),
    ],
    ids=["another command", "another member", "the same"],
)
async def test_an_id_stands_for_one_command(database: Database, other: str, parts: dict[str, Any]) -> None:
    erased: list[str] = []

    async def erase(command: Any) -> dict[str, Any]:
        erased.append(command.member)
        return {"visits": len(erased)}

    async def ping(_: Any) -> dict[str, Any]:
        return {"pinged": True}

    first = Desk(database, erase=erase, ping=ping)
    async with first.at_work():
        await first.send("a", "erase", member="M1")
        await first.until(lambda: first.states("a") == ["received", "applied"])
    for desk in (first, Desk(database, erase=erase, ping=ping)):  # and after a restart
        desk.said.clear()
        async with desk.at_work():
            await desk.send("a", other, **parts)
            if "later" in parts:  # repeated, with more time: its answer again
                assert desk.said[-1]["output"] == {"visits": 1}
            else:
                assert desk.states("a") == ["refused"]
                assert "another command" in desk.said[-1]["reason"]
            await desk.send("b", other, **{name: value for name, value in parts.items() if name != "later"})
            await desk.until(lambda: desk.states("b")[-1:] == ["applied"])  # noqa: B023
    assert erased[0] == "M1"
    assert len(erased) == 1 + (other == "erase")


async def test_a_command_is_cut_off_by_a_restart_or_carried_out_never_both(database: Database) -> None:
    async def ping(_: Any) -> dict[str, Any]:
        return {}

    before, after = Desk(database, ping=ping), Desk(database, ping=ping)
    async with before.at_work():
        await before.send("old", "capture")  # not done here: refused, forgotten
        await before.send("done", "ping")
        await before.until(lambda: before.states("done") == ["received", "applied"])
    database.write_now(lambda conn: conn.execute("INSERT INTO command (id, at_us) VALUES ('cut', 0)").rowcount)
    sending = asyncio.create_task(after.send("new", "ping"))  # comes before `run` has looked around
    await asyncio.sleep(0)
    async with after.at_work():
        await sending
        await after.until(lambda: after.states("new") == ["received", "applied"])
    assert (after.states("cut"), after.states("done"), after.states("old")) == (["failed"], [], [])


@pytest.mark.parametrize(
    ("long", "parts"),
    [("capture", {"seconds": 600}), ("replay", {"class": "health", "epoch": "e", "from": 1, "to": 9})],
)
async def test_nobody_waits_for_what_takes_minutes(database: Database, long: str, parts: dict[str, Any]) -> None:
    enough = asyncio.Event()
    begun: list[str] = []

    async def slow(command: Any) -> dict[str, Any]:
        begun.append(command.id)
        await enough.wait()
        return {}

    async def quick(_: Any) -> dict[str, Any]:
        return {"visits": 1}

    desk = Desk(database, **{long: slow, "erase": quick, "ping": quick})
    async with desk.at_work():
        await desk.send("long", long, **parts)
        await desk.send("next", long, **parts)
        await desk.send("short", "erase", member="M1")
        await desk.send("ping", "ping")
        await desk.until(lambda: desk.states("short") == desk.states("ping") == ["received", "applied"])
        assert (desk.states("long"), begun) == (["received"], ["long"])
        enough.set()
        await desk.until(lambda: desk.states("next") == ["received", "applied"])
        assert (desk.states("long"), begun) == (["received", "applied"], ["long", "next"])
