"""Row counts of the database, updated once a second for the live state, health and shutdown."""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from typing import Any

from edge.database.writer import Database
from sync import outbox

STEPS = 512
"""Most points of time remembered of a class; with more, every second one is forgotten."""


class Totals:
    """Totals at the last `count`: `stored` rows by kind, and `depth` of the outbox by class."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waits: dict[str, Wait] = {}
        self.stored = {"visits": 0, "journeys": 0, "recognised": 0}
        self.depth: dict[str, dict[str, int]] = {}

    async def count(self) -> None:
        """Update the totals. Raises sqlite3.Error."""
        self.stored, self.depth = await self._database.read(_count)
        for name, depth in self.depth.items():
            self._waits.setdefault(name, Wait()).note(depth["sent"], depth["pending"], time.monotonic())

    def pending(self) -> dict[str, int]:
        """Return class → number of events not yet acknowledged by the CRM."""
        return {name: depth["pending"] for name, depth in self.depth.items()}

    def oldest_s(self) -> dict[str, float]:
        """Return class → seconds that its oldest unacknowledged event has waited, since the start at most."""
        return {name: wait.oldest_s(time.monotonic()) for name, wait in self._waits.items()}


class Wait:
    """How long the oldest event of a class has waited, from its counts: events have no common time of their own."""

    def __init__(self) -> None:
        self._steps: deque[tuple[int, float]] = deque()
        """So many events had been committed by then; those that are all acknowledged are forgotten."""

    def note(self, sent: int, pending: int, now_s: float) -> None:
        """Note how many events were committed, and how many of them wait."""
        if not self._steps or self._steps[-1][0] < sent:
            self._steps.append((sent, now_s))
        while self._steps and self._steps[0][0] <= sent - pending:
            self._steps.popleft()
        if len(self._steps) > STEPS:
            self._steps = deque(step for number, step in enumerate(self._steps) if number % 2 == 0)

    def oldest_s(self, now_s: float) -> float:
        """Return seconds; 0 if nothing waits."""
        return now_s - self._steps[0][1] if self._steps else 0.0


def _count(conn: sqlite3.Connection) -> tuple[dict[str, int], dict[str, dict[str, Any]]]:
    depth = outbox.depth(conn)
    # Row ids only increase, and only the oldest rows are deleted, so the highest id is the total ever stored.
    stored = {
        "visits": conn.execute("SELECT coalesce(max(id), 0) FROM visit").fetchone()[0],
        "journeys": conn.execute("SELECT coalesce(max(id), 0) FROM journey").fetchone()[0],
        "recognised": int(conn.execute("SELECT value FROM fact WHERE name = 'recognised'").fetchone()[0]),
    }
    return stored, {name: counts._asdict() for name, counts in depth.items()}
