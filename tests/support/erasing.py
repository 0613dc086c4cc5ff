"""Erases a member as the service does, without one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from config import StoreConfig
from edge.crm.erasure.worker import Erasures
from edge.database.writer import Database


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
