"""What the engine decided, as rows of the database and events for the CRM."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlite_utils import Database as Tables

from config.facts import TAG_CLASSES
from drivers.read import epc_bytes
from dwell.layout import TagClass
from dwell.markov.engine import Decisions
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
    """How a tag is told at rest and to the CRM: a pseudonym, and the member only with consent."""

    tag: bytes
    member: str | None


class Ledger:
    """Gathers decisions and health until the next commit; `write` turns them into rows within its transaction."""

    def __init__(self, shop: Shop, pseudonyms: Pseudonyms, days: BusinessDay, doors: DoorCounters) -> None:
        self._shop = shop
        self._doors = doors
        self._floor_of = {zone.id: zone.floor for zone in shop.config.zones}
        self._def_version = shop.config.thresholds.def_version
        self._pseudonyms = pseudonyms
        self._days = days
        self._decisions: list[Decisions] = []
        self._health: list[ReaderHealth | GatewayHealth] = []

    def add(self, decisions: Decisions) -> None:
        """Take what the engine decided."""
        if len(decisions.closed) or len(decisions.stuck) or decisions.journeys or len(decisions.windows):
            self._decisions.append(decisions)

    def add_health(self, event: ReaderHealth | GatewayHealth) -> None:
        """Take an event of class health."""
        self._health.append(event)

    def write(self, conn: sqlite3.Connection, zones: tuple[str, ...], floors: tuple[str, ...]) -> None:
        """Write all that was gathered, in the caller's transaction; call `clear` once that is committed.

        `zones` and `floors` name those of the layout that the engine ran with.
        """
        self._doors.write(conn)
        db = Tables(conn, recursive_triggers=False, execute_plugins=False)
        # Stuck tags are in no count of the engine; here they are kept so that the day can list them.
        visits = [
            visit for decisions in self._decisions for some in (decisions.closed, decisions.stuck) for visit in some
        ]
        journeys = [journey for decisions in self._decisions for journey in decisions.journeys]
        windows = [window for decisions in self._decisions for window in decisions.windows]
        known: dict[bytes, Carrier] = {}

        def who(visit: Any) -> Carrier:
            key = visit["epc"].tobytes() + visit["epc_bits"].tobytes() + visit["journey_us"].tobytes()
            if key not in known:
                known[key] = self._identify(conn, visit)
            return known[key]

        db.table("visit").insert_all(_visit_row(visit, who(visit), zones) for visit in visits)
        db.table("journey").insert_all(_journey_row(j, who(j.visits[0]), zones) for j in journeys)
        for window in windows:
            add_window(db, window_row(window, zones, self._def_version))
        conn.executemany(
            "DELETE FROM recognised WHERE tag = ? AND at_us <= ?",
            ((self._member_hash(j.visits[0]), int(j.end_us)) for j in journeys),
        )
        layout, length_us = layouts.current(conn), self._shop.settings.window_us
        counted = untold_doors(conn, {int(w["window_us"]) for w in windows}, length_us)
        outbox.append(conn, "journey", [self._journey_event(j, who(j.visits[0]), zones) for j in journeys])
        outbox.append(conn, "agg", [self._window_event(w, zones, layout, counted.get) for w in windows])
        traffic = [row for decisions in self._decisions for row in decisions.floors if row["floor"] < len(floors)]
        outbox.append(conn, "agg", [self._floor_event(row, floors, layout) for row in traffic])
        outbox.append(conn, "health", self._health)

    def clear(self) -> None:
        """Forget what has been committed."""
        self._decisions.clear()
        self._health.clear()
        self._doors.clear()

    def _member_hash(self, visit: Any) -> bytes:
        return self._pseudonyms.member(epc_bytes(visit["epc"], int(visit["epc_bits"])), int(visit["epc_bits"]))

    def _identify(self, conn: sqlite3.Connection, visit: Any) -> Carrier:
        if visit["tag_class"] == TagClass.MEMBER:
            member: Member | None = look_up(conn, self._member_hash(visit))
            if member is not None and member.consent:
                return Carrier(member.tag, member.member)
        bits = int(visit["epc_bits"])
        return Carrier(self._pseudonyms.daily(epc_bytes(visit["epc"], bits), bits, int(visit["journey_us"])), None)

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


def _visit_row(visit: Any, who: Carrier, zones: tuple[str, ...]) -> dict[str, Any]:
    return {
        "tag": who.tag,
        "tag_class": int(visit["tag_class"]),
        "member": who.member,
        "zone": zones[visit["zone"]],
        **{name: int(visit[name]) for name in ("enter_us", "exit_us", "journey_us", "reads", "censored")},
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
