"""What the database holds, counted once a second: for the live state, for health and for the end of the service."""

from __future__ import annotations

import sqlite3
from typing import Any

from edge.database.writer import Database
from sync import outbox


class Totals:
    """As of the last `count`: `stored` rows by kind, and `depth` of the outbox by class."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.stored = {"visits": 0, "journeys": 0, "recognised": 0}
        self.depth: dict[str, dict[str, int]] = {}

    async def count(self) -> None:
        """Count anew. Raises sqlite3.Error."""
        self.stored, self.depth = await self._database.read(_count)

    def pending(self) -> dict[str, int]:
        """Class → events that the CRM has not yet acknowledged."""
        return {name: depth["pending"] for name, depth in self.depth.items()}


def _count(conn: sqlite3.Connection) -> tuple[dict[str, int], dict[str, dict[str, Any]]]:
    depth = outbox.depth(conn)
    # Row ids only grow and rows go only from the old end: the highest counts all that ever were.
    stored = {
        "visits": conn.execute("SELECT coalesce(max(id), 0) FROM visit").fetchone()[0],
        "journeys": conn.execute("SELECT coalesce(max(id), 0) FROM journey").fetchone()[0],
        "recognised": int(conn.execute("SELECT value FROM fact WHERE name = 'recognised'").fetchone()[0]),
    }
    return stored, {name: counts._asdict() for name, counts in depth.items()}
