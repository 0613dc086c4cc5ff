"""Where and when staff was missing, and what would have helped, from a read-only connection. See edge.days.counters.

Needs are those of customers: visits that expected service, and their waits. No figure is about a member of staff.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.facts import SERVED
from dwell.compare import ENOUGH, LEVEL, Pairs, Share, of_many, share_of_days
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
    share: Share | None
    """unserved ÷ wanted; None if there are too few."""


@dataclass(frozen=True)
class FloorNeed:
    floor: str
    hours: tuple[NeedHour, ...]
    share: Share | None
    """unserved ÷ wanted of all hours."""

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
    share: Share | None
    """unserved ÷ wanted."""
    sure: bool
    """True if enough work was missing even at the lower limit of the share, of all zones together."""


@dataclass(frozen=True)
class NeedReport:
    scope: Scope
    floors: tuple[FloorNeed, ...]
    """Floors with zones where service is expected."""
    share: Share | None
    """unserved ÷ wanted of all floors."""
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
    came = _by_day(past, kept.ending(date, days), hours)
    known: NDArray[np.bool_] = np.asarray(zones["known_windows"] > 0)
    floors = []
    for floor in config.floors:
        mine = served & np.array([zone.floor == floor.id for zone in config.zones])
        if not mine.any():
            continue
        wait = quantiles(waits[:, mine].sum(axis=1), 0.5, config.thresholds.small_cell)
        wanted, met = zones["wanted"][:, mine].sum(axis=1), zones["met"][:, mine].sum(axis=1)
        measured: NDArray[np.bool_] = np.any(known[:, mine], axis=1)
        by_hour = came[..., mine].sum(axis=3)
        shares, (whole,) = _unserved(by_hour), _unserved(by_hour.sum(axis=2, keepdims=True))
        cells = []
        for h, begun in enumerate(hours.begun.tolist()):
            state = "measured" if measured[h] else "unknown" if begun else "future"
            told: tuple[int | None, int | None, float | None] = (None, None, None)
            if measured[h]:
                told = int(wanted[h]), int(wanted[h] - met[h]), wait[h]
            cells.append(NeedHour(start_us + h * HOUR_US, state, *told, shares[h]))
        floors.append(FloorNeed(floor.id, tuple(cells), whole))
    per_hour = _capacity(hours, served)
    proposals = [] if per_hour is None else _proposals(past, hours, came, served, per_hour, start_us)
    (share,) = _unserved(came[..., served].sum(axis=(2, 3))[..., None])
    return NeedReport(scope, tuple(floors), share, per_hour, tuple(proposals))


def _by_day(past: Past, dates: Sequence[dt.date], together: Hours) -> NDArray[np.int32]:
    """Return the (D, 2, H, Z) visits that expected service, and those of them that met staff, of stored days and of the
    day in progress, which is what is left of all `together`."""
    there = {day: stamp for day, stamp in kept.stored(past, dates).items() if day < dates[-1]}

    def counts(hours: Hours) -> NDArray[np.int32]:
        found = np.zeros((2, kept.MOST_HOURS, len(past.config.zones)), np.int32)
        for row, name in zip(found, ("wanted", "met"), strict=True):
            row[: len(hours.begun)] = hours.zones[name]
        return found

    def of_stored() -> NDArray[np.int32]:
        return np.array([counts(hours) for _, hours in kept.hours(past, list(there))])

    all_ = counts(together)
    if not there:
        return all_[None]
    stored = kept.remembered(past, "need by day", there, of_stored, kept.SMALL)
    return np.concatenate([stored, (all_ - stored.sum(axis=0, dtype=np.int32))[None]])


def _unserved(came: NDArray[np.integer[Any]], level: float = LEVEL) -> list[Share | None]:
    """Return the share of visits that met nobody of each place; `came`: (D, 2, N) visits, and those that met staff."""
    n, met = came.swapaxes(0, 1).astype(np.int64)
    k = n - met
    sums = [one.sum(axis=0) for one in (n > 0, k, n, k * k, k * n, n * n)]
    return [share_of_days(Pairs(*of_one), level=level) for of_one in zip(*(one.tolist() for one in sums), strict=True)]


def _capacity(hours: Hours, served: NDArray[np.bool_]) -> float | None:
    met, staff_us = hours.zones["met"][:, served], hours.zones["staff_us"][:, served]
    staffed: NDArray[np.bool_] = staff_us >= LEAST_STAFF_US
    if met[staffed].sum() < ENOUGH:
        return None
    found = float(np.quantile(met[staffed] / (staff_us[staffed] / HOUR_US), BUSY))
    return found if found > 0 else None


def _proposals(
    past: Past,
    hours: Hours,
    came: NDArray[np.int32],
    served: NDArray[np.bool_],
    per_hour: float,
    start_us: int,
) -> list[Proposal]:
    """Find runs of hours of a zone in which a good part of somebody's work was missing, on an average day."""
    wanted, met = hours.zones["wanted"], hours.zones["met"]
    work = np.maximum(hours.begun, 1)[:, None] * per_hour
    missing = (wanted - met) / work
    runs = []
    for number in np.flatnonzero(served).tolist():
        edges = np.flatnonzero(np.diff(missing[:, number] >= WORTH, prepend=False, append=False))
        for first, end in edges.reshape(-1, 2).tolist():
            of = int(wanted[first:end, number].sum())
            if of >= ENOUGH:
                runs.append((of - int(met[first:end, number].sum()), of, number, first, end))
    runs.sort(key=lambda run: (-run[0], past.config.zones[run[2]].id))
    level = of_many(int(served.sum()))
    found = []
    for unserved, of, number, first, end in runs[:PROPOSED]:
        zone = past.config.zones[number]
        more = max(1, round(float(missing[first:end, number].mean())))
        span = (start_us + first * HOUR_US, start_us + end * HOUR_US)
        mine = came[:, :, first:end, number].sum(axis=2)[..., None]
        (own,), (joint,) = _unserved(mine), _unserved(mine, level)
        sure = joint is not None and joint.low * of >= WORTH * float(work[first:end].sum())
        found.append(Proposal(zone.id, zone.floor, *span, more, unserved, of, own, sure))
    return found
