"""Convert the engine's decisions to database rows and events for the CRM."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from sqlite_utils import Database as Tables

from config.facts import TAG_CLASSES
from drivers.read import epc_bytes
from dwell.layout import TagClass
from dwell.markov.decisions import Decisions
from edge.database.keys import DayKeys
from edge.intake.windows import add_window, untold_doors, window_event, window_row
from edge.readers.door_counters import DoorCounters
from edge.store import layouts
from edge.store.business_days import BusinessDay
from edge.store.compose import Shop
from edge.store.pseudonyms import Member, Pseudonyms, look_up
from sync import outbox
from sync.contract import Door, FloorTraffic, GatewayHealth, Journey, ReaderHealth, Stop, ZoneWindow


@dataclass(frozen=True)
class Carrier:
    """Identity of a tag in the database and for the CRM: a pseudonym, and the member only with consent."""

    tag: bytes
    member: str | None
    start_us: int
    """Start of its journey under this identity; later than that of the journey itself if the identity has changed."""


class Ledger:
    """Collector of decisions and health until the next commit; `write` converts them to rows within its transaction.

    A member may give or withdraw consent during a journey. The rest is then a separate journey that can't be linked to
    the first part by tag, start time or path.
    """

    def __init__(
        self, shop: Shop, pseudonyms: Pseudonyms, days: BusinessDay, doors: DoorCounters, now_us: Callable[[], int]
    ) -> None:
        self._shop = shop
        self._doors = doors
        self._floor_of = {zone.id: zone.floor for zone in shop.config.zones}
        self._def_version = shop.config.thresholds.def_version
        self._pseudonyms = pseudonyms
        self._days = days
        self._now_us = now_us
        self._decisions: list[Decisions] = []
        self._health: list[ReaderHealth | GatewayHealth] = []
        self._told: dict[bytes, Carrier] = {}
        """Open journey of a member's card → identity used for its last visit."""
        self._fresh: dict[bytes, Carrier | None] = {}
        """The same for the last `write`, until it is committed; None: the journey is over."""

    def restore(self, conn: sqlite3.Connection, under_way: Any) -> None:
        """Restore the state after a restart; `under_way`: rows with the EPCs of tags with an open journey."""
        members = under_way[under_way["tag_class"] == TagClass.MEMBER]
        self._told = {}
        if not len(members):
            return
        query = (
            "SELECT tag, member, journey_us, max(enter_us) FROM visit WHERE enter_us >= ? AND tag_class = ?"
            " GROUP BY tag, journey_us"
        )
        written: dict[bytes, list[tuple[int, Carrier]]] = {}
        for tag, member, journey_us, enter_us in conn.execute(
            query, (int(members["journey_us"].min()), int(TagClass.MEMBER))
        ):
            written.setdefault(tag, []).append((enter_us, Carrier(tag, member, journey_us)))
        keys = DayKeys(conn, self._days, self._now_us())
        for row in members:
            began_us = int(row["journey_us"])
            tags = (self._member_hash(row), self._daily(row, keys))
            found = [one for tag in tags for one in written.get(tag, ()) if one[1].start_us >= began_us]
            if found:
                self._told[_journey_key(row)] = max(found, key=lambda one: one[0])[1]

    def add(self, decisions: Decisions) -> None:
        """Add decisions of the engine."""
        if len(decisions.closed) or len(decisions.stuck) or decisions.journeys or len(decisions.windows):
            self._decisions.append(decisions)

    def add_health(self, event: ReaderHealth | GatewayHealth) -> None:
        """Add an event of class health."""
        self._health.append(event)

    def write(self, conn: sqlite3.Connection, zones: tuple[str, ...], floors: tuple[str, ...]) -> None:
        """Write everything collected, in the caller's transaction; call `clear` after the commit.

        `zones` and `floors`: names from the layout that the engine ran with.
        """
        self._doors.write(conn)
        db = Tables(conn, recursive_triggers=False, execute_plugins=False)
        # The engine does not count stuck tags; they are stored so that the day can list them.
        visits = [
            visit for decisions in self._decisions for some in (decisions.closed, decisions.stuck) for visit in some
        ]
        journeys = [journey for decisions in self._decisions for journey in decisions.journeys]
        windows = [window for decisions in self._decisions for window in decisions.windows]
        keys = DayKeys(conn, self._days, self._now_us())
        self._fresh = {}
        known: dict[bytes, Carrier] = {}

        def who(visit: Any) -> Carrier:
            key = _journey_key(visit)
            if key not in known:
                tag, member = self._identify(conn, visit, keys)
                before = self._told.get(key)
                start_us = int(visit["journey_us"]) if before is None else before.start_us
                if before is not None and (before.tag, before.member) != (tag, member):
                    start_us = min(int(one["enter_us"]) for one in visits if _journey_key(one) == key)
                known[key] = Carrier(tag, member, start_us)
                if visit["tag_class"] == TagClass.MEMBER:
                    self._fresh[key] = known[key]
            return known[key]

        def whole(journey: Any) -> tuple[Any, Carrier] | None:
            """Return a journey as far as it may be reported; None if the member must no longer be named."""
            key = _journey_key(journey.visits[0])
            told = known.get(key) or self._told.get(key)
            now = self._identify(conn, journey.visits[0], keys)
            self._fresh[key] = None
            if told is None:
                return journey, Carrier(*now, journey.start_us)
            if told.member is not None and (told.tag, told.member) != now:
                return None
            left = journey.visits[journey.visits["enter_us"] >= told.start_us]
            return replace(journey, start_us=told.start_us, visits=left), told

        db.table("visit").insert_all(_visit_row(visit, who(visit), zones) for visit in visits)
        ended = [found for journey in journeys if (found := whole(journey)) is not None]
        db.table("journey").insert_all(_journey_row(journey, told, zones) for journey, told in ended)
        for window in windows:
            add_window(db, window_row(window, zones, self._def_version))
        conn.executemany(
            "DELETE FROM recognised WHERE tag = ? AND at_us <= ?",
            ((self._member_hash(j.visits[0]), int(j.end_us)) for j in journeys),
        )
        layout, length_us = layouts.current(conn), self._shop.settings.window_us
        counted = untold_doors(conn, {int(w["window_us"]) for w in windows}, length_us)
        # For all others, the CRM gets totals only.
        named = [(journey, told) for journey, told in ended if told.member is not None]
        outbox.append(conn, "journey", [self._journey_event(journey, told, zones) for journey, told in named])
        outbox.append(conn, "agg", [self._window_event(w, zones, layout, counted.get) for w in windows])
        traffic = [row for decisions in self._decisions for row in decisions.floors if row["floor"] < len(floors)]
        outbox.append(conn, "agg", [self._floor_event(row, floors, layout) for row in traffic])
        outbox.append(conn, "health", self._health)

    def clear(self) -> None:
        """Forget what has been committed."""
        for key, told in self._fresh.items():
            if told is None:
                self._told.pop(key, None)
            else:
                self._told[key] = told
        self._fresh = {}
        self._decisions.clear()
        self._health.clear()
        self._doors.clear()

    def _member_hash(self, visit: Any) -> bytes:
        return self._pseudonyms.member(epc_bytes(visit["epc"], int(visit["epc_bits"])), int(visit["epc_bits"]))

    def _identify(self, conn: sqlite3.Connection, visit: Any, keys: DayKeys) -> tuple[bytes, str | None]:
        if visit["tag_class"] == TagClass.MEMBER:
            member: Member | None = look_up(conn, self._member_hash(visit))
            if member is not None and member.consent:
                return member.tag, member.member
        return self._daily(visit, keys), None

    def _daily(self, visit: Any, keys: DayKeys) -> bytes:
        bits = int(visit["epc_bits"])
        return self._pseudonyms.daily(epc_bytes(visit["epc"], bits), bits, keys.of(int(visit["journey_us"])))

    def _journey_event(self, journey: Any, who: Carrier, zones: tuple[str, ...]) -> Journey:
        return Journey(
            tag=who.tag.hex(),
            tag_class=TAG_CLASSES[journey.tag_class],
            member=who.member,
            business_date=self._days.date(journey.start_us).isoformat(),
            start_us=journey.start_us,
            end_us=journey.end_us,
            censored=journey.censored,
            def_version=self._def_version,
            stops=[
                Stop(
                    zone=zones[visit["zone"]],
                    enter_us=int(visit["enter_us"]),
                    exit_us=int(visit["exit_us"]),
                    reads=int(visit["reads"]),
                    censored=bool(visit["censored"]),
                    confidence=round(float(visit["confidence"]), 3),
                )
                for visit in journey.visits
            ],
        )

    def _window_event(
        self, window: Any, zones: tuple[str, ...], layout: str, door_of: Callable[[tuple[int, str]], Door | None]
    ) -> ZoneWindow:
        row = window_row(window, zones, self._def_version)
        return window_event(
            row,
            floor=self._floor_of.get(row["zone"], ""),
            length_us=self._shop.settings.window_us,
            business_date=self._days.date(row["window_us"]).isoformat(),
            layout_version=layout,
            door=door_of((row["window_us"], row["zone"])),
        )

    def _floor_event(self, row: Any, floors: tuple[str, ...], layout: str) -> FloorTraffic:
        return FloorTraffic(
            floor=floors[row["floor"]],
            window_us=int(row["window_us"]),
            length_us=self._shop.settings.window_us,
            business_date=self._days.date(int(row["window_us"])).isoformat(),
            member=int(row["member"]),
            unknown=int(row["unknown"]),
            cart=int(row["cart"]),
            visitors=int(row["visitors"]),
            present_us=int(row["present_us"]),
            peak=int(row["peak"]),
            coverage=round(float(row["coverage"]), 4),
            def_version=self._def_version,
            layout_version=layout,
        )


def _journey_key(row: Any) -> bytes:
    bits, began_us = int(row["epc_bits"]), int(row["journey_us"])
    return bytes(row["epc"].tobytes()) + bits.to_bytes(2, "big") + began_us.to_bytes(8, "big", signed=True)


def _visit_row(visit: Any, who: Carrier, zones: tuple[str, ...]) -> dict[str, Any]:
    return {
        "tag": who.tag,
        "tag_class": int(visit["tag_class"]),
        "member": who.member,
        "zone": zones[visit["zone"]],
        "journey_us": who.start_us,
        **{name: int(visit[name]) for name in ("enter_us", "exit_us", "reads", "censored")},
        "confidence": round(float(visit["confidence"]), 3),
    }


def _journey_row(journey: Any, who: Carrier, zones: tuple[str, ...]) -> dict[str, Any]:
    return {
        "tag": who.tag,
        "tag_class": int(journey.tag_class),
        "member": who.member,
        "start_us": int(journey.start_us),
        "end_us": int(journey.end_us),
        "censored": int(journey.censored),
        "path": json.dumps([[zones[v["zone"]], int(v["enter_us"]), int(v["exit_us"])] for v in journey.visits]),
    }
