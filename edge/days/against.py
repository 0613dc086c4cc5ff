"""Comparison of days with other days, from a read-only connection: pair by pair, over hours that are known on both.

An hour counts for a zone if the zone's readers were sufficiently up in all of it, on both days. A pair of days counts
if such hours make up SHARED of the opening hours so far. See edge.days.changes for promotions and layout changes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from config.facts import PEOPLE
from dwell.compare import Difference, of_many, ratio_change, share, share_change
from dwell.facts import Table
from edge.database.reader import Past
from edge.days import kept
from edge.days.facts import of_people
from edge.days.hourly import HOUR_US, Hours
from edge.days.kept import DAY

SHARED = 0.8
"""Two days are comparable if this share of the opening hours so far was known on both."""
MEASURES = {
    "visits": PEOPLE,
    "engaged": ("engaged",),
    "engaged_visitors": ("engaged_visitors",),
    "journeys": ("journeys",),
}


@dataclass(frozen=True, slots=True)
class Against:
    """A count, and its relative change; of shares, the change is the difference of the two."""

    scope: str
    """store · floor · zone."""
    id: str
    measure: str
    """journeys (store), comings (floor), visits, engaged and engaged_share (zone)."""
    now: float
    before: float
    change: Difference | None
    pairs: int
    """Number of pairs of days that were compared."""
    joint: Difference | None = None
    """Of counts of zones: the same with an interval that holds together with those of all zones."""


@dataclass(frozen=True)
class AgainstReport:
    first_day: str
    last_day: str
    """The days that the others are compared with."""
    days: int
    pairs: int
    """Number of pairs of days that are comparable anywhere in the store."""
    rows: tuple[Against, ...]
    """Without those for which no pair of days is comparable."""

    def row(self, scope: str, id_: str, measure: str) -> Against | None:
        """Return the comparison of one figure."""
        return next((row for row in self.rows if (row.scope, row.id, row.measure) == (scope, id_, measure)), None)


def against(past: Past, date: dt.date, days: int, other: dt.date, hour: int | None = None) -> AgainstReport:
    """Compare the `days` business days ending with `date` with as many ending with `other`, in the same order.

    `hour`: only this hour of the business day.
    """
    config = past.config
    pairs = _pairs(past, kept.ending(date, days), other - date, hour)
    rows: list[Against] = []

    def add(scope: str, id_: str, measure: str, counts: Iterable[Sequence[int] | None]) -> None:
        told = [pair for pair in counts if pair is not None]
        if told:
            one, two = zip(*told, strict=True)
            joint = ratio_change(one, two, of_many(len(config.zones))) if scope == "zone" else None
            change = ratio_change(one, two)
            rows.append(Against(scope, id_, measure, sum(one), sum(two), change, len(told), joint))

    floors = [floor.id for floor in config.floors]
    on = [np.array([zone.floor == floor for zone in config.zones]) for floor in floors]
    everywhere = np.ones(len(config.zones), np.bool_)
    whole = [pair.store(everywhere) for pair in pairs]
    add("store", config.store.id, "journeys", whole)
    for number, floor in enumerate(floors):
        add("floor", floor, "comings", [pair.floor(number, on[number]) for pair in pairs])
    for number, zone in enumerate(config.zones):
        mine = [pair for pair in pairs if pair.comparable[number]]
        for measure in ("visits", "engaged"):
            add("zone", zone.id, measure, [pair.zones[measure][:, number].tolist() for pair in mine])
        shares = [[pair.zones[name][:, number] for name in ("engaged_visitors", "journeys")] for pair in mine]
        if shares:
            (k, k_before), (n, n_before) = np.sum(shares, axis=0).tolist()
            one, two = share(k, n), share(k_before, n_before)
            change = None if one is None or two is None else share_change(one, two)
            value, was = (k / n if n else 0.0), (k_before / n_before if n_before else 0.0)
            rows.append(Against("zone", zone.id, "engaged_share", value, was, change, len(shares)))
    first = other - (days - 1) * DAY
    return AgainstReport(first.isoformat(), other.isoformat(), days, len(whole) - whole.count(None), tuple(rows))


def visits(past: Past, date: dt.date, days: int, other: dt.date) -> dict[str, list[tuple[int, int]]]:
    """Return zone → people's visits, now and before, of each comparable pair of days, as `against` pairs them."""
    dates, shift = kept.ending(date, days), other - date
    there = kept.stored(past, [*dates, *(day + shift for day in dates)])
    over = {day: (there[day], there[day + shift]) for day in dates if day < date and {day, day + shift} <= there.keys()}

    def of(some: Sequence[dt.date]) -> list[NDArray[np.int64]]:
        return [np.stack([pair.comparable, *pair.zones["visits"]]) for pair in _pairs(past, some, shift)]

    # The day in progress changes every few minutes, those before it don't.
    stored = kept.remembered(past, f"visits {shift}", over, lambda: of(list(over)))
    return by_zone(past, stored + of([day for day in dates if day not in over]))


def by_zone(past: Past, pairs: Sequence[NDArray[np.int64]]) -> dict[str, list[tuple[int, int]]]:
    """Return zone → counts, now and before, of its comparable pairs of days; `pairs`: (3, Z), 1 if comparable, now,
    before."""
    return {
        zone.id: [(int(now), int(before)) for good, now, before in (pair[:, n] for pair in pairs) if good]
        for n, zone in enumerate(past.config.zones)
    }


def _pairs(past: Past, dates: Sequence[dt.date], shift: dt.timedelta, hour: int | None = None) -> list[_Pair]:
    now = dict(kept.hours(past, dates))
    before = {day - shift: hours for day, hours in kept.hours(past, [day + shift for day in dates])}
    return [_Pair(now[day], before[day], hour) for day in dates if day in now and day in before]


class _Pair:
    """Two days over the hours that were known on both."""

    def __init__(self, now: Hours, before: Hours, hour: int | None) -> None:
        long = min(len(now.begun), len(before.begun))
        self._now, self._before = now, before
        self._whole = (now.zones["span_us"][:long] == HOUR_US) & (before.zones["span_us"][:long] == HOUR_US)
        self._open_us = now.zones["open_us"]
        if hour is not None:
            chosen = (np.arange(len(self._open_us)) == hour)[:, None]
            self._whole, self._open_us = self._whole & chosen[:long], self._open_us * chosen
        known_us = (self._open_us[:long] * self._whole).sum(axis=0)
        open_us = self._open_us.sum(axis=0)
        self.comparable: NDArray[np.bool_] = (open_us > 0) & (known_us >= SHARED * open_us)
        both = [day.zones[:long] for day in (now, before)]
        self.zones = {
            name: np.array([(self._whole * sum(day[part] for part in parts)).sum(axis=0) for day in both])
            for name, parts in MEASURES.items()
        }
        """(2, Z) counts, now and before."""

    def floor(self, number: int, mine: NDArray[np.bool_]) -> tuple[int, int] | None:
        """Return the arrivals on a floor; None if the days are not comparable."""
        return self._any(mine, self._now.floors[:, number], self._before.floors[:, number])

    def store(self, mine: NDArray[np.bool_]) -> tuple[int, int] | None:
        """Return the store's journeys; None if the days are not comparable."""
        return self._any(mine, self._now.store, self._before.store)

    def _any(self, mine: NDArray[np.bool_], now: Table, before: Table) -> tuple[int, int] | None:
        """Return counts of a place over the hours in which any of its zones was known."""
        whole: NDArray[np.bool_] = np.any(self._whole[:, mine], axis=1)
        open_us = self._open_us[:, mine].max(axis=1, initial=0)
        if not open_us.sum() or (open_us[: len(whole)] * whole).sum() < SHARED * open_us.sum():
            return None
        hours = np.flatnonzero(whole)
        return int(of_people(now[hours]).sum()), int(of_people(before[hours]).sum())
