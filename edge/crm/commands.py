"""Carries out the CRM's commands at this gateway."""

from __future__ import annotations

import asyncio
import json
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from config import StoreConfig
from edge.database.writer import Database
from edge.readers.sessions import Readers
from sync import outbox
from sync.commands import CommandHandler
from sync.contract import CLASSES, EventClass, Journey
from sync.down import Capture, Erase, Ping, Reload, Replay, RestartReader, Summary
from sync.publisher import Publisher

ERASED = "erased"
ERASE_ROWS = 4_000
"""Events of the outbox looked through in one transaction: a greeting waits for it."""
DIAGNOSED = ("as_of_us", "watermark_us", "version", "readers", "reads", "reads_per_s", "broker", "database", "outbox",
             "failing", "counters", "tags_present", "visits", "journeys", "recognised")  # fmt: skip


class CommandHandlers:
    """Carry out each command; `table` is for sync.commands. Whatever they raise is the answer's reason."""

    def __init__(
        self,
        config: StoreConfig,
        database: Database,
        publisher: Publisher,
        readers: Readers,
        snapshot: Callable[[], dict[str, Any]],
        forget: Callable[[str], None],
        recheck: Callable[[str], Awaitable[None]],
        reload: Callable[[], Awaitable[None]],
    ) -> None:
        self._config = config
        self._database = database
        self._publisher = publisher
        self._readers = readers
        self._snapshot = snapshot
        self._forget = forget
        self._recheck = recheck
        self._reload = reload
        self.table: Mapping[str, CommandHandler] = {
            "ping": self.ping,
            "summary": self.summary,
            "replay": self.replay,
            "erase": self.erase,
            "reload": self.reload,
            "restart-reader": self.restart_reader,
            "capture": self.capture,
            "diagnostics": self.diagnostics,
        }

    async def ping(self, _: Ping) -> dict[str, Any]:
        state = self._snapshot()
        return {"now_us": state["as_of_us"], "version": state["version"], "epoch": self._database.epoch}

    async def diagnostics(self, _: Any) -> dict[str, Any]:
        state = self._snapshot()
        return {name: state[name] for name in DIAGNOSED if name in state} | {"sync": dict(self._publisher.counters)}

    async def summary(self, command: Summary) -> dict[str, Any]:
        from edge.reports.render import render

        text = await asyncio.to_thread(render, self._config, command.date, "json", "en")
        return dict(json.loads(text))

    async def replay(self, command: Replay) -> dict[str, Any]:
        if command.epoch != self._database.epoch:
            raise ValueError(f"the epoch is {self._database.epoch}; of {command.epoch} nothing is left")
        return dict(await self._publisher.replay(command.class_, command.from_, command.to))

    async def erase(self, command: Erase) -> dict[str, Any]:
        began = time.monotonic()
        self._forget(command.member)
        rows = partial(erase, member=command.member)
        counts = Counter(await self._database.write(rows))
        await self._recheck(command.member)
        counts.update(outbox=0)
        for class_ in CLASSES[:2]:
            at: int | None = 0
            while at is not None:
                events = partial(erase_events, class_=class_, member=command.member, after=at)
                found, at = await self._database.write(events)
                counts["outbox"] += found
        counts.update(await self._database.write(rows))  # what was told of them before all had forgotten
        # A damaged file can't be searched.
        counts["damaged_files"] = await asyncio.to_thread(self._database.drop_aside)
        await self._database.read(fold)
        return {**counts, "took_ms": round((time.monotonic() - began) * 1000)}

    async def reload(self, _: Reload) -> dict[str, Any]:
        await self._reload()
        return {}

    async def restart_reader(self, command: RestartReader) -> dict[str, Any]:
        self._readers.restart(command.reader)
        return {"reader": command.reader}

    async def capture(self, command: Capture) -> dict[str, Any]:
        folder = Path(self._config.database.path).parent
        file, reads = await self._readers.capture(folder, command.seconds, command.reader)
        return {"file": file.name, "reads": reads}


def erase(conn: sqlite3.Connection, member: str) -> dict[str, int]:
    """Take a member out of every table but the outbox, in the caller's transaction; how many rows of each were touched.

    Visits and journeys stay as anonymous ones, each journey under a random tag of its own, so that a day's totals stay.
    """
    counts = {"directory": conn.execute("DELETE FROM directory WHERE member = ?", (member,)).rowcount}
    new: dict[tuple[bytes, int], bytes] = {}
    for table, start in (("visit", "journey_us"), ("journey", "start_us")):
        rows = conn.execute(f"SELECT id, tag, {start} FROM {table} WHERE member = ?", (member,)).fetchall()
        conn.executemany(
            f"UPDATE {table} SET member = NULL, tag = ? WHERE id = ?",
            [(new.setdefault((tag, start_us), secrets.token_bytes(16)), id_) for id_, tag, start_us in rows],
        )
        counts[f"{table}s"] = len(rows)
    counts["recognised"] = conn.execute("DELETE FROM recognised WHERE member = ?", (member,)).rowcount
    # What cues came to goes with the member; service cases name nobody and stay.
    counts["cues"] = conn.execute("DELETE FROM cue WHERE member = ?", (member,)).rowcount
    return counts


def fold(conn: sqlite3.Connection) -> None:
    """Fold the write-ahead log back, so that what was erased is not in it any more."""
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def erase_events(conn: sqlite3.Connection, class_: EventClass, member: str, after: int) -> tuple[int, int | None]:
    """Take a member out of the next ERASE_ROWS events behind number `after`; of how many, and where to go on.

    Recognitions and cues become lost numbers, acknowledged ones are simply gone; journeys become anonymous.
    """
    events = outbox.table(class_)
    acked = outbox.acknowledged(conn)[class_]
    some = f"SELECT seq, payload FROM {events} WHERE seq > ? ORDER BY seq LIMIT ?"
    (upto,) = conn.execute(f"SELECT max(seq) FROM ({some})", (after, ERASE_ROWS)).fetchone()
    if upto is None:
        return 0, None
    # A journey of JSON is only read where the name stands in it.
    rows = conn.execute(
        f"SELECT seq, payload FROM ({some}) WHERE CASE WHEN instr(payload, ?) THEN"
        " json_extract(payload, '$.member') = ? END",
        (after, ERASE_ROWS, to_json(member).decode(), member),
    ).fetchall()
    grown = 0
    for seq, payload in rows:
        if class_ == "member":
            conn.execute(f"DELETE FROM {events} WHERE seq = ?", (seq,))
            grown -= len(payload.encode())
        else:
            journey = Journey.model_validate_json(payload)
            clean = journey.model_copy(update={"member": None, "tag": secrets.token_hex(16)}).model_dump_json()
            conn.execute(f"UPDATE {events} SET payload = ? WHERE seq = ?", (clean, seq))
            grown += len(clean.encode()) - len(payload.encode())
    if class_ == "member":
        outbox.lose_all(conn, class_, [seq for seq, _ in rows if seq > acked], ERASED)
    conn.execute("UPDATE outbox_class SET bytes = max(0, bytes + ?) WHERE class = ?", (grown, outbox.index(class_)))
    return len(rows), upto
