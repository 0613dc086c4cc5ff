"""The service's side of cues for tests of the page: they lie in the store's database, orders change them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from typing import Any

from pages import Service

from config import StoreConfig
from config.model import CueRule, Cues
from edge.cues import book
from edge.cues.book import Wanted
from edge.cues.orders import OrderServer
from edge.store.live_socket import socket_path

RULES: dict[str, Any] = {
    "quiet": [{"begin": "22:00", "end": "09:30"}],
    "rules": [
        {
            "id": "vip",
            "kind": "arrival",
            "tiers": ["A"],
            "action": {"zh": "请到门口迎接", "en": "Greet at the door"},
        },
        {"id": "alone", "kind": "waiting", "tiers": ["A", "B"], "wait_s": 90},
    ],
}
WAITING = CueRule.model_validate(RULES["rules"][1])
ARRIVAL = CueRule.model_validate(RULES["rules"][0])


class Floor:
    """Two cues and one case, and the orders' socket of a service that tells them."""

    def __init__(self, config: StoreConfig, service: Service) -> None:
        self.config = config
        self._service = service
        self._now_us = int(service.told["as_of_us"])
        self._door, self._aisle = (
            next(zone.id for zone in config.zones if zone.kind.value == kind) for kind in ("entrance", "aisle")
        )
        self._calls = 0
        self._took: dict[str, dict[str, Any]] = {
            "arrival": {"n": 31, "p95": 84.0},
            "waiting": {"n": 12, "p95": 640.0},
        }
        self.write(lambda conn: book.adopt(conn, Cues.model_validate(RULES), self._now_us - 86_400_000_000))
        self.write(self._begin)
        self.tell()

    async def run(self) -> None:
        path = socket_path(self.config, "orders")
        await OrderServer(path, self.config, self.order, lambda: self._now_us).run()

    async def order(self, job: Callable[[sqlite3.Connection], Any]) -> Any:
        result = await asyncio.to_thread(self.write, job)
        self.tell()
        return result

    def write(self, job: Callable[[sqlite3.Connection], Any]) -> Any:
        with closing(sqlite3.connect(self.config.database.path, timeout=20)) as conn, conn:
            return job(conn)

    def tell(self) -> None:
        """What the service would tell on its live socket."""
        going = self.write(book.going)
        rules = self.write(book.newest)
        self._service.told["cues"] = {
            "version": rules.version,
            "rules": len(rules.cues.rules),
            "quiet": False,
            "took_ms": self._took,
            "open": [
                {name: value for name, value in asdict(cue).items() if name not in ("tag", "greeted_us", "ttl_us")}
                | {"here": self._aisle if cue.kind == "arrival" else cue.zone}
                for cue in going
            ],
        }

    def call(self, name: str) -> int:
        """Another member has come in; the cue's number."""
        self._calls += 1  # each is of another journey
        wanted = _wanted(name, "arrival", ARRIVAL, self._door, self._now_us - self._calls)
        (number,) = self.write(lambda conn: book.make(conn, [wanted], 1, self._now_us))
        self.tell()
        return int(number)

    def end_first(self) -> int:
        """The oldest cue is done; its number."""
        first = self.write(book.going)[0].id
        self.write(lambda conn: book.done(conn, first, "wu", self._now_us))
        self.tell()
        return int(first)

    def rows(self, sql: str) -> list[Any]:
        return list(self.write(lambda conn: conn.execute(sql).fetchall()))

    def _begin(self, conn: sqlite3.Connection) -> None:
        minute = 60_000_000
        later = self._now_us - 2 * minute
        book.make(conn, [_wanted("a", "arrival", ARRIVAL, self._door, self._now_us - minute)], 1, self._now_us - minute)
        waits = _wanted("b", "waiting", WAITING, "shoes", later, later - 95_000_000)
        book.make(conn, [waits], 1, later)
        book.open_case(conn, "waiting", "bags", "B", None, "", "", self._now_us - 40 * minute)


def _wanted(name: str, kind: Any, rule: CueRule, zone: str, due_us: int, since_us: int | None = None) -> Wanted:
    member = {"a": "M-1234567", "b": "M-7654321", "c": "M-5556666"}[name]
    return Wanted(kind, name.encode(), due_us, member, "A", zone, "F1", since_us or due_us, due_us, rule)
