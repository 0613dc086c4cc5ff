"""A small store on two floors and its database, filled by hand: what summaries and the page are tested with."""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from migrated import begin_migrated
from pydantic import TypeAdapter

from config import StoreConfig
from config.facts import TAG_CLASSES, WINDOW_US
from edge.crm.sales import Sold, Terms, take
from edge.database.writer import Database
from edge.days.counters import CounterScore
from edge.days.history import History
from edge.service import housekeeping
from sync.contract import CLASS_OF, CLASSES, Event
from sync.outbox import table

DATE = dt.date(2026, 3, 14)
NEVER_US = 2**62
_EVENT: TypeAdapter[Any] = TypeAdapter(Event)
ZONES = (
    ("door", {"zh": "正门", "en": "Door"}, "entrance", "F1", [[0, 0], [4, 0], [4, 4], [0, 4]]),
    ("shoes", {"zh": "鞋", "en": "Shoes"}, "counter", "F1", [[4, 0], [9, 0], [9, 4], [4, 4]]),
    ("bags", {"zh": "箱包", "en": "Bags"}, "counter", "F1", [[9, 0], [15, 0], [15, 9], [12, 9], [12, 4], [9, 4]]),
    ("hall", {"zh": "二楼通道", "en": "Hall"}, "aisle", "F2", [[0, 0], [15, 0], [15, 4], [0, 4]]),
    ("books", "=Books()", "counter", "F2", [[0, 4], [6, 4], [6, 9], [0, 9]]),
    ("attic", {"zh": "阁楼", "en": "Attic"}, "back_room", "F2", [[8, 4], [15, 4], [15, 9], [8, 9]]),
)
"""`attic` has no antenna; `books` has a name that a spreadsheet would run."""


def store_values(folder: Path, **sections: Any) -> dict[str, Any]:
    """The store file as a dictionary; `sections` are added or replace."""
    return {
        "store": {"id": "s1", "name": {"zh": "一店", "en": "Store one"}, "timezone": "Asia/Shanghai"},
        "floors": [{"id": "F1", "name": {"zh": "一楼", "en": "Ground"}}, {"id": "F2", "name": "2"}],
        "zones": [
            {"id": id_, "name": name, "kind": kind, "floor": floor, "polygon": polygon}
            for id_, name, kind, floor, polygon in ZONES
        ],
        "readers": [
            {
                "id": "r1",
                "driver": "llrp",
                "address": "127.0.0.1:5084",
                "antennas": [
                    {"port": port, "zone": zone[0], "position": zone[4][0]} for port, zone in enumerate(ZONES[:-1], 1)
                ],
            }
        ],
        "mqtt": {"url": "mqtt://127.0.0.1:1"},
        "database": {"path": str(folder / "store.db")},
        "web": {"listen": "127.0.0.1:0"},
        **sections,
    }


class Day:
    """Rows of one business day; times are texts such as "10:00" or "27:30" (next morning), in the store's zone."""

    def __init__(self, config: StoreConfig, date: dt.date = DATE) -> None:
        self.config = config
        self._midnight = dt.datetime.combine(date, dt.time(), config.store.tz)
        begin_migrated(config.database.path)
        Database(config.database.path, store=config.store.id, quota_mb=64).close()
        self.conn = sqlite3.connect(config.database.path, isolation_level=None)
        self.conn.execute("PRAGMA synchronous = OFF")

    @property
    def past(self) -> History:
        """What the rows say of this day and of others."""
        return History(self.conn, self.config)

    def us(self, time: str) -> int:
        """A text as store time."""
        hours, minutes, *seconds = (float(part) for part in time.split(":"))
        after = dt.timedelta(hours=hours, minutes=minutes, seconds=sum(seconds))
        return round((self._midnight + after).timestamp() * 1_000_000)

    def visit(
        self,
        tag: str,
        zone: str,
        at: str,
        seconds: float = 60,
        *,
        cls: str = "unknown",
        member: str | None = None,
        journey: str | None = None,
        censored: bool = False,
    ) -> None:
        """One visit; `journey` is when the tag's journey began, by default this visit."""
        enter_us = self.us(at)
        self.conn.execute(
            "INSERT INTO visit"
            " (tag, tag_class, member, zone, enter_us, exit_us, journey_us, censored, reads, confidence) VALUES"
            " (?, ?, ?, ?, ?, ?, ?, ?, 9, 0.9)",
            (
                *(tag.encode(), TAG_CLASSES.index(cls), member, zone, enter_us, enter_us + round(seconds * 1e6)),
                *(self.us(journey or at), censored),
            ),
        )

    def journey(self, tag: str, start: str, end: str, cls: str = "unknown") -> None:
        self.conn.execute(
            "INSERT INTO journey (tag, tag_class, start_us, end_us, censored, path) VALUES (?, ?, ?, ?, 0, '[]')",
            (tag.encode(), TAG_CLASSES.index(cls), self.us(start), self.us(end)),
        )

    def door(self, zone: str, window: str, passages: int, reader: str = "r1") -> None:
        """Passages at contact 1 of a reader in a window that was watched throughout."""
        self.conn.execute(
            "INSERT INTO door (window_us, reader, port, zone, passages, covered_us) VALUES (?, ?, 1, ?, ?, ?)",
            (self.us(window), reader, zone, passages, WINDOW_US),
        )

    def member(self, tag: str, tier: str) -> None:
        self.conn.execute(
            "INSERT INTO directory (tag, member, tier, consent) VALUES (?, ?, ?, 1)", (tag.encode(), f"M-{tag}", tier)
        )

    def covered(self, first: str, last: str, **coverage: float) -> None:
        """Windows from first to last: coverage 1 in every zone but those named."""
        with self.together():
            self.conn.executemany(
                "INSERT OR REPLACE INTO aggregate VALUES (?, ?, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, ?, 1, x'')",
                (
                    (window_us, zone.id, coverage.get(zone.id, 1.0))
                    for window_us in range(self.us(first), self.us(last), WINDOW_US)
                    for zone in self.config.zones
                ),
            )

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write all rows in one transaction, which takes a third of the time."""
        self.conn.execute("BEGIN")
        yield
        self.conn.execute("COMMIT")

    def sold(self, zone: str, at: str, tickets: int, **more: Any) -> None:
        """Sales of one hour; `units`, `cents`, `currency` and other terms if known."""
        terms = Terms(NEVER_US, more.pop("currency", None), more.pop("revision", None))
        done = take(self.conn, self.config, [Sold(zone, self.us(at), tickets, **more)], terms)
        assert (done.taken, done.problems) == (1, [])

    def watermark(self, time: str) -> None:
        self.conn.execute("INSERT OR REPLACE INTO checkpoint VALUES (1, ?, 'layout')", (self.us(time),))


def day_of(folder: Path, **sections: Any) -> Day:
    """A day without rows; `sections` are added to the store file."""
    return Day(StoreConfig.model_validate(store_values(folder, **sections)))


def zone(day: Day, name: str, **kwargs: Any) -> CounterScore:
    """What the page tells of a zone on the day."""
    return next(z for z in day.past.counters(DATE, **kwargs).zones if z.zone == name)


def busy(day: Day, date_offset: int = 0, people: int = 40, engaged: int = 20, hour: int = 10) -> None:
    """People who come in at the door, look at shoes (the first `engaged` of them for long) and go up to the books."""
    at = 24 * date_offset + hour
    with day.together():
        for i in range(people):
            tag, start = f"{date_offset}-{hour}-{i}", f"{at}:{i}"
            day.visit(tag, "door", start, 10, journey=start)
            day.visit(tag, "shoes", f"{at}:{i}:20", 150 if i < engaged else 40, journey=start)
            day.visit(tag, "hall", f"{at + 1}:{i}", 20, journey=start)
            day.visit(tag, "books", f"{at + 1}:{i}:30", 60, journey=start)


def morning(day: Day, people: int = 40) -> None:
    """Fill a day: passers-by and customers, members who are served, a badge, and a tag that lies around."""
    for i in range(people):
        start = f"10:{i}"
        day.visit(f"c{i}", "door", start, 10, journey=start)
        day.visit(f"c{i}", "shoes", f"10:{i}:20", 150 if i % 2 else 40, journey=start)
        day.visit(f"c{i}", "books", f"11:{i}", 60, journey=start)
    for i in range(6):
        day.member(f"m{i}", "A")
        day.visit(f"m{i}", "shoes", f"12:{5 * i}", 180, cls="member", member=f"M-m{i}")
        day.visit("badge", "shoes", f"12:{5 * i}:30", 120, cls="staff", journey="12:00")
    for hour in range(9, 18):
        day.visit("all day", "bags", f"{hour}:00", 3300, journey="09:00")
    day.covered("04:00", "28:00")
    day.watermark("33:00")


async def tell(day: Day) -> list[Any]:
    """Everything that is new to the CRM."""
    before = int(day.conn.execute("SELECT SUM(next_seq) FROM outbox_class").fetchone()[0])
    database = Database(day.config.database.path, store="s1", quota_mb=64)
    try:
        while await housekeeping.sum_up(database, day.config) or await housekeeping.tell_days(database, day.config):
            pass
    finally:
        database.close()
    rows = day.conn.execute("SELECT payload FROM outbox ORDER BY class, seq").fetchall()
    events = [_EVENT.validate_python(json.loads(payload)) for (payload,) in rows]
    told = int(day.conn.execute("SELECT SUM(next_seq) FROM outbox_class").fetchone()[0]) - before
    assert all(event.id.split("/")[2] == CLASS_OF[event.type] for event in events)
    for class_ in CLASSES:
        day.conn.execute(f"DELETE FROM {table(class_)}")
    assert told == len(events)
    return events
