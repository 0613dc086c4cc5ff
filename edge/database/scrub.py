"""Remove deleted data physically: checkpoint the write-ahead log into the database and truncate it.

Deleted rows are overwritten (`secure_delete`), but the log still has the previous pages. It can't be truncated while
somebody reads an older snapshot of the database: then this is retried, while the writer continues.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

SOON_S, RARELY_S = 0.2, 5.0
"""Waits between retries, increasing."""


def fold(path: Path) -> bool:
    """Truncate the log; returns whether no former pages are left in it. Raises sqlite3.Error."""
    uri = f"{path.absolute().as_uri()}?mode=rw"
    with closing(sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None)) as conn:
        busy, _, _ = conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


class Scrubber:
    """Truncates the log on request, with retries; `run` continues until cancelled. `folded`: how, if the writer's own
    connection has to do it; see `fold`."""

    def __init__(self, path: Path, folded: Callable[[], Awaitable[bool]] | None = None) -> None:
        self._fold = folded or (lambda: asyncio.to_thread(fold, path))
        self._asked = asyncio.Event()
        self._folded = asyncio.Condition()
        self._wanted = self._done = 0

    def ask(self) -> int:
        """Request removal of everything deleted so far; returns a number for `wait`."""
        self._wanted += 1
        self._asked.set()
        return self._wanted

    async def wait(self, number: int, timeout_s: float | None = None) -> bool:
        """Wait until that request is done; False on timeout."""
        async with self._folded:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._folded.wait_for(lambda: self._done >= number)
            return self._done >= number

    async def run(self) -> None:
        """Process requests until cancelled."""
        while True:
            await self._asked.wait()
            pause_s = SOON_S
            while self._done < (wanted := self._wanted):
                if await self._try():
                    async with self._folded:
                        self._done = wanted
                        self._folded.notify_all()
                else:
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, RARELY_S)
            self._asked.clear()
            if self._done < self._wanted:
                self._asked.set()

    async def _try(self) -> bool:
        try:
            return await self._fold()
        except sqlite3.Error:  # locked, full, damaged: who writes tells of it
            return False
