"""Sales that headquarters sends to a store: hours of a file that is written anew now and then."""

from __future__ import annotations

import csv
from datetime import datetime
from hashlib import blake2b
from pathlib import Path

from sync.down import Sales, SalesHour


class Tills:
    """The hours of a CSV file as for `tagtrail sales import`, and which of them the store has answered."""

    def __init__(self, file: Path, store: str) -> None:
        self._file = file
        self.store = store
        self._taken: set[str] = set()

    def due(self) -> list[bytes]:
        """Return a message for each hour that has not been taken, or has changed since."""
        if not self._file.exists():
            return []
        hours: dict[str, list[dict[str, str]]] = {}
        with self._file.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                hours.setdefault(row["hour"], []).append(row)
        messages = {self._id(hour, rows): (hour, rows) for hour, rows in hours.items()}
        return [self._message(id_, *told) for id_, told in messages.items() if id_ not in self._taken]

    def taken(self, id_: str) -> None:
        """Note that the store has taken a message."""
        self._taken.add(id_)

    @staticmethod
    def _id(hour: str, rows: list[dict[str, str]]) -> str:
        digest = blake2b(repr(rows).encode(), digest_size=6).hexdigest()
        return f"sales-{datetime.fromisoformat(hour).timestamp():.0f}-{digest}"

    @staticmethod
    def _message(id_: str, hour: str, rows: list[dict[str, str]]) -> bytes:
        at_us = round(datetime.fromisoformat(hour).timestamp()) * 1_000_000
        sold = [
            SalesHour(
                zone=row["zone"],
                hour_us=at_us,
                tickets=int(row["tickets"]),
                units=int(row["units"]),
                amount=float(row["amount"]),
            )
            for row in rows
        ]
        return Sales(id=id_, currency=rows[0]["currency"], hours=sold).model_dump_json().encode()
