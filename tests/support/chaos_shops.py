"""A store with one reader under chaos: people pass it, and afterwards the CRM's own book is counted."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from gateways import Gateway, antennas, member_card

from simulators.readers.llrp import LlrpReader
from simulators.readers.observation import Observation

STAYS_S = ((1, 3), (2, 6), (4, 6))
"""Seconds before each port: door, shoes, out."""
READ_S = 0.5
THRESHOLDS = {"journey_end_after_exit_s": 2, "journey_end_silence_s": 15, "join_gap_s": 1, "lateness_s": 0.25}


class ChaosShop:
    """A store with one reader, its gateway and directory, and people who pass through it in 16 s or only look in."""

    def __init__(self, gateway: Gateway, reader: LlrpReader) -> None:
        self._gateway = gateway
        self._reader = reader
        self._walking: set[asyncio.Task[None]] = set()
        self.people = 0
        self.pushed = 0
        """Reads that the reader has reported."""

    async def enter(self, people: int, every_s: float) -> None:
        """So many further members come in, one after the other; every fourth passes the shoes and the exit."""
        first, self.people = self.people, self.people + people
        for number in range(first, first + people):
            task = asyncio.create_task(self._pass(member_card(number), STAYS_S[: None if number % 4 == 0 else 1]))
            self._walking.add(task)
            task.add_done_callback(self._walking.discard)
            await asyncio.sleep(every_s)

    async def empty(self) -> None:
        """Until all have left."""
        while self._walking:
            await asyncio.wait(set(self._walking))

    async def _pass(self, card: bytes, stays: tuple[tuple[int, int], ...]) -> None:
        for port, stay_s in stays:
            for _ in range(round(stay_s / READ_S)):
                self._reader.push([Observation(now_us(), port, card, -5200)])
                self.pushed += 1
                await asyncio.sleep(READ_S)

    async def close(self) -> dict[str, int]:
        """Stop the service with everything acknowledged, its last words too; what it has numbered."""
        for _ in range(5):
            await self._gateway.until(delivered, within_s=120)
            assert self._gateway.end() == 0, self._gateway.log()
            if self._gateway.rows("SELECT sum(next_seq - 1 - acked) FROM outbox_class") == [(0,)]:
                return self.numbers()
            self._gateway.start("--no-web")  # a busy machine: the last acks had no time to come
        raise AssertionError("never quite delivered")

    def numbers(self) -> dict[str, int]:
        """Class → events that the gateway has ever numbered."""
        names = ("member", "journey", "agg", "health")
        return {names[class_]: n for class_, n in self._gateway.rows("SELECT class, next_seq - 1 FROM outbox_class")}

    def epoch(self) -> str:
        return str(self._gateway.rows("SELECT value FROM fact WHERE name = 'epoch'")[0][0])


@contextlib.asynccontextmanager
async def open_shop(gateway: Gateway, url: str, members: int, **parts: Any) -> AsyncIterator[ChaosShop]:
    reader = LlrpReader(now_us)
    readers = [
        {"id": "r1", "driver": "llrp", "address": await reader.start(),
         "antennas": antennas("door", "shoes", "bags", "out")}
    ]  # fmt: skip
    gateway.configure(**{"mqtt": {"url": url}, "readers": readers, "thresholds": THRESHOLDS} | parts)
    cards = "".join(f"{member_card(n).hex()},M{n:06},A,1,\n" for n in range(members))
    (gateway.folder / "members.csv").write_text(f"epc,member,tier,consent,hint\n{cards}")
    done = gateway.run("directory", "import", str(gateway.folder / "members.csv"), "-c", str(gateway.file))
    assert done.returncode == 0, done.stderr
    assert gateway.run("warmup", within_s=300).returncode == 0
    try:
        yield ChaosShop(gateway, reader)
    finally:
        await reader.stop()


def now_us() -> int:
    return time.time_ns() // 1000


def serving(state: dict[str, Any]) -> bool:
    return bool(state["readers"][0]["link"] == "up")


def delivered(state: dict[str, Any]) -> bool:
    return bool(state["outbox"]) and not any(depth["pending"] for depth in state["outbox"].values())


def book(folder: Path, sql: str) -> list[Any]:
    """Of the CRM's own database."""
    with contextlib.closing(sqlite3.connect(f"file:{folder}/crm.db?mode=ro", uri=True, timeout=10)) as conn:
        return conn.execute(sql).fetchall()


def by_epoch(folder: Path) -> dict[tuple[str, str], tuple[int, int, int]]:
    """(epoch, class) → lowest and highest number, and how many rows: complete if these are 1, n, n."""
    query = "SELECT epoch, class, min(seq), max(seq), count(*) FROM event GROUP BY epoch, class"
    return {(epoch, class_): tuple(rest) for epoch, class_, *rest in book(folder, query)}
