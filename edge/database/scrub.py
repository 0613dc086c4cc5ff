"""Makes what was deleted really gone: folds the write-ahead log into the database and cuts it off.

Deleted rows are overwritten (`secure_delete`), but the log still has the pages as they were. It can't be cut off while
somebody reads an older state of the database: then it is tried again and again, beside the writer, which goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from contextlib import closing
from pathlib import Path

SOON_S, RARELY_S = 0.2, 5.0
"""Wait before the next try; longer with each."""


def fold(path: Path) -> bool:
    """Whether nothing of the database's former pages is left in its log. Raises sqlite3.Error."""
    uri = f"{path.absolute().as_uri()}?mode=rw"
    with closing(sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None)) as conn:
        busy, _, _ = conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


class Scrubber:
    """Folds the log when asked to, until it is done; `run` goes on until cancelled."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._asked = asyncio.Event()
        self._folded = asyncio.Condition()
        self._wanted = self._done = 0

    def ask(self) -> int:
        """Have what is deleted by now folded in; a number for `wait`."""
        self._wanted += 1
        self._asked.set()
        return self._wanted

    async def wait(self, number: int, timeout_s: float | None = None) -> bool:
        """Wait until that is done; False if it takes longer."""
        async with self._folded:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._folded.wait_for(lambda: self._done >= number)
            return self._done >= number

    async def run(self) -> None:
        """Fold whenever it is asked for."""
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
            return await asyncio.to_thread(fold, self._path)
        except sqlite3.Error:  # locked, full, damaged: who writes tells of it
            return False
