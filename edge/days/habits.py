"""A member's habitual route, from a read-only connection."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass

from config import ZoneKind
from config.facts import DOORS
from dwell.paths import cleaned, habitual
from edge.database.reader import Past
from edge.days.facts import place


@dataclass(frozen=True)
class Habit:
    """A member's habitual route."""

    zones: tuple[str, ...]
    n: int
    """Number of journeys that took this route."""
    journeys: int
    """Number of journeys with a path in the last returning_days."""


def habit(past: Past, member: str, date: dt.date) -> Habit | None:
    """Find the route that a member took at least three times in returning_days. Personal data: audit every use."""
    config = past.config
    end_us = past.bounds_us(date)[1]
    store = place(config)
    number = {zone.id: n for n, zone in enumerate(config.zones)}
    doors = {z for z, zone in enumerate(config.zones) if zone.kind in DOORS}
    ways = {z for z, zone in enumerate(config.zones) if zone.kind == ZoneKind.AISLE}
    paths = []
    for (path,) in past.conn.execute(
        "SELECT path FROM journey WHERE member = ? AND start_us >= ? AND start_us < ? AND NOT censored",
        (member, end_us - config.thresholds.returning_days * 86_400_000_000, end_us),
    ):
        stays = [(number.get(zone, -1), exit_us - enter_us) for zone, enter_us, exit_us in json.loads(path)]
        stops = [z for z, us in stays if z in doors or (z >= 0 and z not in ways and us >= store.visit_us)]
        if stops:
            paths.append(cleaned(stops))
    found = habitual(paths)
    if found is None:
        return None
    return Habit(tuple(config.zones[z].id for z in found[0]), found[1], len(paths))
