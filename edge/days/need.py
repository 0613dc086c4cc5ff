"""Where and when staff was missing, and what would have helped, from a read-only connection. See edge.days.counters.

Needs are those of customers: visits that expected service, and their waits. No figure is about a member of staff.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from config.facts import SERVED
from dwell.compare import ENOUGH
from edge.database.reader import Past
from edge.days import kept
from edge.days.hourly import HOUR_US, Hours
from edge.days.hours import LEAST_STAFF_US, over_hours, quantiles
from edge.days.scope import Scope, over

PROPOSED = 3
"""Maximum number of proposals."""
BUSY = 0.75
"""What a member of staff can do is taken from the hours above this quantile: in others there was less to do."""
WORTH = 0.5
"""Share of an hour's work for one more member of staff that must have been missing to propose one."""


@dataclass(frozen=True, slots=True)
class NeedHour:
    """One hour of a floor; of several days together. All None if its zones were unknown or it lies in the future."""

    start_us: int
    state: str
    """measured · unknown · future."""
    wanted: int | None
    """Visits that expected service."""
    unserved: int | None
    """Of these, visits without a contact."""
    wait_s: float | None
    """Median wait of the others; None if they are too few."""


@dataclass(frozen=True)
class FloorNeed:
    floor: str
    hours: tuple[NeedHour, ...]

    @property
    def wanted(self) -> int:
        return sum(hour.wanted or 0 for hour in self.hours)

    @property
    def unserved(self) -> int:
        return sum(hour.unserved or 0 for hour in self.hours)


@dataclass(frozen=True, slots=True)
class Proposal:
    """More staff for a zone in consecutive hours."""

    zone: str
    floor: str
    start_us: int
    end_us: int
    """On the last day; the hours are those of all days."""
    more: int
    """Members of staff."""
    unserved: int
    wanted: int


@dataclass(frozen=True)
class NeedReport:
    scope: Scope
    floors: tuple[FloorNeed, ...]
    """Floors with zones where service is expected."""
    per_hour: float | None
    """The proposals' assumption: visits that a member of staff meets in an hour, as in the busiest quarter of the
    staffed hours. None if too few visits met staff to say."""
    proposals: tuple[Proposal, ...]
    """Most unserved visits first."""


def need(past: Past, date: dt.date, days: int = 1) -> NeedReport:
    """Sum up unserved visits and waits by floor and hour, and propose where more staff would have met them."""
    config = past.config
    scope, _ = over(past, date, days)
    hours = over_hours(past, date, days)
    start_us = past.bounds_us(date)[0]
    waits = kept.histograms(past, kept.ending(date, days), what="wait")[: len(hours.begun)]
    served = np.array([zone.kind in SERVED for zone in config.zones])
    zones = hours.zones
    known: NDArray[np.bool_] = np.asarray(zones["known_windows"] > 0)
    floors = []
    for floor in config.floors:
        mine = served & np.array([zone.floor == floor.id for zone in config.zones])
        if not mine.any():
            continue
        wait = quantiles(waits[:, mine].sum(axis=1), 0.5, config.thresholds.small_cell)
        wanted, met = zones["wanted"][:, mine].sum(axis=1), zones["met"][:, mine].sum(axis=1)
        measured: NDArray[np.bool_] = np.any(known[:, mine], axis=1)
        cells = []
        for h, begun in enumerate(hours.begun.tolist()):
            state = "measured" if measured[h] else "unknown" if begun else "future"
            told = (int(wanted[h]), int(wanted[h] - met[h]), wait[h]) if measured[h] else (None, None, None)
            cells.append(NeedHour(start_us + h * HOUR_US, state, *told))
        floors.append(FloorNeed(floor.id, tuple(cells)))
    per_hour = _capacity(hours, served)
    proposals = [] if per_hour is None else _proposals(past, hours, served, per_hour, start_us)
    return NeedReport(scope, tuple(floors), per_hour, tuple(proposals))


def _capacity(hours: Hours, served: NDArray[np.bool_]) -> float | None:
    met, staff_us = hours.zones["met"][:, served], hours.zones["staff_us"][:, served]
    staffed: NDArray[np.bool_] = staff_us >= LEAST_STAFF_US
    if met[staffed].sum() < ENOUGH:
        return None
    found = float(np.quantile(met[staffed] / (staff_us[staffed] / HOUR_US), BUSY))
    return found if found > 0 else None


def _proposals(past: Past, hours: Hours, served: NDArray[np.bool_], per_hour: float, start_us: int) -> list[Proposal]:
    """Find runs of hours of a zone in which a good part of somebody's work was missing, on an average day."""
    wanted, met = hours.zones["wanted"], hours.zones["met"]
    missing = (wanted - met) / np.maximum(hours.begun, 1)[:, None] / per_hour
    found = []
    for number in np.flatnonzero(served).tolist():
        zone = past.config.zones[number]
        edges = np.flatnonzero(np.diff(missing[:, number] >= WORTH, prepend=False, append=False))
        for first, end in edges.reshape(-1, 2).tolist():
            of = int(wanted[first:end, number].sum())
            if of < ENOUGH:
                continue
            more = max(1, round(float(missing[first:end, number].mean())))
            unserved = of - int(met[first:end, number].sum())
            span = (start_us + first * HOUR_US, start_us + end * HOUR_US)
            found.append(Proposal(zone.id, zone.floor, *span, more, unserved, of))
    return sorted(found, key=lambda one: (-one.unserved, one.zone))[:PROPOSED]
