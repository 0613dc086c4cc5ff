"""Row counts of the database, updated once a second for the live state, health and shutdown."""

from __future__ import annotations

import sqlite3
from typing import Any

from edge.database.writer import Database
from sync import outbox


class Totals:
    """Totals at the last `count`: `stored` rows by kind, and `depth` of the outbox by class."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.stored = {"visits": 0, "journeys": 0, "recognised": 0}
        self.depth: dict[str, dict[str, int]] = {}

    async def count(self) -> None:
        """Update the totals. Raises sqlite3.Error."""
        self.stored, self.depth = await self._database.read(_count)

    def pending(self) -> dict[str, int]:
        """Return class → number of events not yet acknowledged by the CRM."""
        return {name: depth["pending"] for name, depth in self.depth.items()}


def _count(conn: sqlite3.Connection) -> tuple[dict[str, int], dict[str, dict[str, Any]]]:
    depth = outbox.depth(conn)
    # Row ids only increase, and only the oldest rows are deleted, so the highest id is the total ever stored.
    stored = {
        "visits": conn.execute("SELECT coalesce(max(id), 0) FROM visit").fetchone()[0],
        "journeys": conn.execute("SELECT coalesce(max(id), 0) FROM journey").fetchone()[0],
        "recognised": int(conn.execute("SELECT value FROM fact WHERE name = 'recognised'").fetchone()[0]),
    }
    return stored, {name: counts._asdict() for name, counts in depth.items()}
