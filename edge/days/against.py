"""Comparison of days with other days, from a read-only connection: pair by pair, over hours that are known on both.

An hour counts for a zone if the zone's readers were sufficiently up in all of it, on both days. A pair of days counts
if such hours make up SHARED of the opening hours so far. From three pairs on, they show themselves how much days
scatter; a day or two are judged by how much the days of the last USUAL_WEEKS differ (`usual`). See edge.days.changes
for promotions and layout changes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config import StoreConfig
from config.facts import PEOPLE
from dwell.compare import ENOUGH_DAYS, Difference, Usual, of_many, ratio_change, share, share_change
from dwell.compare import usual as usual_of
from edge.database.reader import Past
from edge.days import kept
from edge.days.facts import of_people
from edge.days.hourly import HOUR_US, Hours
from edge.days.kept import DAY
from edge.store.calendar import WORKING_WEEKEND, kind_of_day

SHARED = 0.8
"""Two days are comparable if this share of the opening hours so far was known on both."""
MEASURES = {
    "visits": PEOPLE,
    "engaged": ("engaged",),
    "engaged_visitors": ("engaged_visitors",),
    "journeys": ("journeys",),
}
SHARE = ("engaged_visitors", "journeys")
USUAL_WEEKS = 8
"""Number of weeks before a day that show how much days usually differ: enough of them, and of the same season."""
Key = tuple[str, str, str]
"""Scope, id and measure of a count, as in `Against`."""
Pair = tuple[int, int]


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
    usually: Usual | None = None
    """What the interval of a day or two is made from."""


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
    few = bool(pairs) and len(pairs) < ENOUGH_DAYS
    usually = usual(past, date, max(pair.hours for pair in pairs), hour) if few else {}
    rows: list[Against] = []
    for key, told in _counted(config, pairs):
        if told:
            one, two = zip(*told, strict=True)
            joint = ratio_change(one, two, of_many(len(config.zones)), usually.get(key)) if key[0] == "zone" else None
            change = ratio_change(one, two, usually=usually.get(key))
            rows.append(Against(*key, sum(one), sum(two), change, len(told), joint, usually.get(key)))
    for number, zone in enumerate(config.zones):
        shares = [[pair.zones[name][:, number] for name in SHARE] for pair in pairs if pair.comparable[number]]
        if shares:
            (k, k_before), (n, n_before) = np.sum(shares, axis=0).tolist()
            mine, theirs = share(k, n), share(k_before, n_before)
            change = None if mine is None or theirs is None else share_change(mine, theirs)
            value, was = (k / n if n else 0.0), (k_before / n_before if n_before else 0.0)
            rows.append(Against("zone", zone.id, "engaged_share", value, was, change, len(shares)))
    together = max((row.pairs for row in rows if row.scope == "store"), default=0)
    first = other - (days - 1) * DAY
    return AgainstReport(first.isoformat(), other.isoformat(), days, together, tuple(rows))


def usual(past: Past, date: dt.date, hours: int, hour: int | None = None) -> Mapping[Key, Usual]:
    """Return how much each count differs from one day to the next one like it, in the first `hours` of the business
    day, or in one of them only: from the weeks before `date`, public holidays left out.

    Days of the same weekday are compared, or neighbouring days where there are too few of them.
    """
    there = kept.stored(past, kept.ending(date - DAY, 7 * USUAL_WEEKS))

    def estimate() -> dict[Key, Usual]:
        days = {day: _Day(found) for day, found in kept.hours(past, list(there))}
        ordinary = [(kind_of_day(past.config, day), day) for day in days]
        alike = pairwise(sorted(one for one in ordinary if one[0] < WORKING_WEEKEND))
        of_weekday = [(day, before) for (kind, before), (other, day) in alike if kind == other]
        neighbours = pairwise(sorted(day for kind, day in ordinary if kind < WORKING_WEEKEND))
        found: dict[Key, Usual] = {}
        for dates, same in ((of_weekday, True), ([(day, before) for before, day in neighbours], False)):
            pairs = [_Pair(days[day], days[before], hour, hours) for day, before in dates]
            all_known = True
            for key, told in _counted(past.config, pairs):
                one = usual_of(*zip(*told, strict=True), alike=same) if told else None
                all_known &= one is not None
                if one is not None:
                    found.setdefault(key, one)
            if all_known:
                break
        return found

    return kept.remembered(past, f"usual {hours} {hour}", there, estimate, kept.SMALL)


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
    now = {day: _Day(hours) for day, hours in kept.hours(past, dates)}
    before = {day - shift: _Day(hours) for day, hours in kept.hours(past, [day + shift for day in dates])}
    return [_Pair(now[day], before[day], hour) for day in dates if day in now and day in before]


def _counted(config: StoreConfig, pairs: Sequence[_Pair]) -> Iterator[tuple[Key, list[Pair]]]:
    """Yield all counts of the comparable pairs of days, now and before."""

    def told(counts: Sequence[Pair | None]) -> list[Pair]:
        return [pair for pair in counts if pair is not None]

    everywhere = np.ones(len(config.zones), np.bool_)
    yield ("store", config.store.id, "journeys"), told([pair.store(everywhere) for pair in pairs])
    for number, floor in enumerate(config.floors):
        mine = np.array([zone.floor == floor.id for zone in config.zones])
        yield ("floor", floor.id, "comings"), told([pair.floor(number, mine) for pair in pairs])
    for number, zone in enumerate(config.zones):
        good = [pair for pair in pairs if pair.comparable[number]]
        for measure in ("visits", "engaged"):
            yield ("zone", zone.id, measure), [tuple(pair.zones[measure][:, number].tolist()) for pair in good]


class _Day:
    """What is compared of a day, by hour: a small part of its facts."""

    def __init__(self, hours: Hours) -> None:
        self.whole: NDArray[np.bool_] = hours.zones["span_us"] == HOUR_US
        """(H, Z)"""
        self.open_us = hours.zones["open_us"].copy()
        """(H, Z)"""
        self.zones = {name: np.sum([hours.zones[part] for part in parts], axis=0) for name, parts in MEASURES.items()}
        """Measure → (H, Z)"""
        self.floors, self.store = of_people(hours.floors), of_people(hours.store)
        """(H, F) and (H,)"""


class _Pair:
    """Two days over the hours that were known on both: over one `hour` only, if given, and over the first `hours`."""

    def __init__(self, now: _Day, before: _Day, hour: int | None = None, hours: int = kept.MOST_HOURS) -> None:
        self._now, self._before = now, before
        self.hours = int(np.flatnonzero(now.whole.any(axis=1)).max(initial=-1)) + 1
        """Number of hours until the last one that is known now."""
        long = min(len(now.whole), len(before.whole), hours)
        chosen = np.arange(len(now.whole))[:, None] < hours
        if hour is not None:
            chosen &= np.arange(len(now.whole))[:, None] == hour
        self._whole = now.whole[:long] & before.whole[:long] & chosen[:long]
        self._open_us = now.open_us * chosen
        known_us = (self._open_us[:long] * self._whole).sum(axis=0)
        open_us = self._open_us.sum(axis=0)
        self.comparable: NDArray[np.bool_] = (open_us > 0) & (known_us >= SHARED * open_us)
        self.zones = {
            name: np.array([(self._whole * day.zones[name][:long]).sum(axis=0) for day in (now, before)])
            for name in MEASURES
        }
        """(2, Z) counts, now and before."""

    def floor(self, number: int, mine: NDArray[np.bool_]) -> Pair | None:
        """Return the arrivals on a floor; None if the days are not comparable."""
        return self._any(mine, self._now.floors[:, number], self._before.floors[:, number])

    def store(self, mine: NDArray[np.bool_]) -> Pair | None:
        """Return the store's journeys; None if the days are not comparable."""
        return self._any(mine, self._now.store, self._before.store)

    def _any(
        self, mine: NDArray[np.bool_], now: NDArray[np.integer[Any]], before: NDArray[np.integer[Any]]
    ) -> Pair | None:
        """Return counts of a place over the hours in which any of its zones was known."""
        whole: NDArray[np.bool_] = np.any(self._whole[:, mine], axis=1)
        open_us = self._open_us[:, mine].max(axis=1, initial=0)
        if not open_us.sum() or (open_us[: len(whole)] * whole).sum() < SHARED * open_us.sum():
            return None
        hours = np.flatnonzero(whole)
        return int(now[hours].sum()), int(before[hours].sum())
