"""A database with everything that it may have of members, and their erasure as the service does it, without one."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from config import StoreConfig
from config.model import CueRule
from edge.crm.erasure.worker import Erasures
from edge.cues import book
from edge.cues.book import Wanted
from edge.database.writer import Database
from sync import outbox
from sync.contract import Journey, Recognised, Stop

TAG = bytes.fromhex("5eed0123456789abcdef0123456789ab")
MEMBER = "CUSTOMER-0000471"
OTHER = "CUSTOMER-0000472"


def fill(conn: sqlite3.Connection, members: Collection[str] = (MEMBER, OTHER)) -> None:
    """Everything that a database may have of members."""
    for member in members:
        tag = TAG if member == MEMBER else bytes(reversed(TAG))
        directory = (tag, member, "A", 1, "offer her tea", 2**62)
        conn.execute("INSERT OR REPLACE INTO directory VALUES (?, ?, ?, ?, ?, ?)", directory)
        conn.execute("INSERT INTO visit VALUES (NULL, ?, 1, ?, 'shoes', 5, 9, 5, 1, 0, 1)", (tag, member))
        conn.execute("INSERT INTO journey VALUES (NULL, ?, 1, ?, 5, 9, 0, '[]')", (tag, member))
        conn.execute("INSERT OR REPLACE INTO recognised VALUES (?, ?, 5)", (tag, member))
        rule = CueRule(id="vip", kind="arrival")
        book.make(conn, [Wanted("arrival", tag, 5, member, "A", "shoes", "F1", 5, 5, rule)], 5, 5)
        greeting = {"member": member, "tier": "A", "zone": "shoes", "floor": "F1", "read_us": 5, "expires_us": 9}
        outbox.append(conn, "member", [Recognised.model_validate(greeting | {"hint": "offer her tea"})])
        stop = Stop(zone="shoes", enter_us=5, exit_us=9, reads=1, censored=False, confidence=1)
        way = {"tag": tag.hex(), "tag_class": "member", "member": member, "business_date": "2026-01-01"}
        told = way | {"start_us": 5, "end_us": 9, "censored": False, "def_version": 1, "stops": [stop]}
        outbox.append(conn, "journey", [Journey.model_validate(told)])


async def erase(
    database: Database,
    config: StoreConfig,
    member: str,
    recheck: Callable[[Collection[str]], Awaitable[None]] | None = None,
) -> dict[str, Any]:
    """The receipt; raises Pending."""

    erasures = Erasures(config, database, lambda: 1, recheck=recheck)
    asked = asyncio.create_task(erasures.erase(member))
    await asyncio.sleep(0)
    await erasures.work()
    return await asked
