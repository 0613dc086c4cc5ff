"""Arrivals on each floor by hour of the day, from a read-only connection. See edge.days.counters."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from config.facts import COUNTED
from dwell.facts import Table
from edge.database.reader import Past
from edge.days.hourly import HOUR_US
from edge.days.hours import over_hours
from edge.days.scope import coverage, ratio


@dataclass(frozen=True, slots=True)
class Hour:
    """One hour of the day on a floor, of one or more days; `entered` is None if nothing was measured."""

    start_us: int
    entered: Mapping[str, int] | None
    """Tag class → arrivals on the floor, from outside or from another floor."""
    coverage: float | None
    """Coverage (0 to 1) of the windows that have ended; None before the first one of the hour has ended."""
    state: str
    """measured · unknown (no reader was up) · future."""


@dataclass(frozen=True)
class FloorTraffic:
    """Arrivals on one floor."""

    floor: str
    entered: Mapping[str, int] | None
    coverage: float | None
    """Coverage of the floor's opening hours so far."""
    hours: tuple[Hour, ...]


def traffic(past: Past, date: dt.date, days: int = 1) -> tuple[FloorTraffic, ...]:
    """Compute the arrivals on every floor by hour of the day, in the order of the store file.

    Over several days, they are added up, and times are those of the last day.
    """
    config = past.config
    found = over_hours(past, date, days)
    start_us = past.bounds_us(date)[0]
    floors = []
    for number, floor in enumerate(config.floors):
        mine = np.array([zone.floor == floor.id for zone in config.zones])
        facts, zones = found.floors[:, number], found.zones[:, mine]
        hours = []
        for h, begun in enumerate(found.begun.tolist()):
            covered = _covered(zones[h])
            entered: dict[str, int] = {name: int(facts[name][h]) for name in COUNTED}
            state = "measured" if any(entered.values()) or zones["known_windows"][h].any() else "unknown"
            state = state if begun else "future"
            hours.append(Hour(start_us + h * HOUR_US, entered if state == "measured" else None, covered, state))
        measured = [one.entered for one in hours if one.entered is not None]
        total: dict[str, int] = {name: sum(one[name] for one in measured) for name in COUNTED}
        floors.append(FloorTraffic(floor.id, total if measured else None, coverage(zones), tuple(hours)))
    return tuple(floors)


def _covered(zones: Table) -> float | None:
    """Return the covered share of an hour's opening time; of the whole hour if the floor was closed."""
    if zones["open_us"].any():
        return coverage(zones)
    return ratio(float(zones["share"].sum()), int(zones["ended"].sum()))
