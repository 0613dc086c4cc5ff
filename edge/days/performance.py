"""How counters fare: visits, dwell and tickets of some days beside those of other days, from a read-only connection.

While there are too few earlier days, the second half of the days stands beside the first. All changes of all counters
together hold with 95 %, because one looks for the one that stands out: the more counters, the wider the intervals
(Bonferroni). See edge.days.counters.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config import ZoneKind
from dwell.aggregates import EDGES_S
from dwell.compare import ENOUGH, Difference, median_change, median_interval, of_many, ratio_change
from edge.database.reader import Past
from edge.days import kept, sold
from edge.days.against import SHARED, by_zone, visits
from edge.days.kept import DAY
from edge.days.sales import ZoneSales, zone_sales
from edge.days.scope import quantile_s
from edge.days.sold import ToldHours

CLAIMS = 3
"""Changes of each counter: of visits, of dwell, of tickets."""


@dataclass(frozen=True, slots=True)
class Course:
    """One figure, now and before; None if it is unknown."""

    now: float | None
    before: float | None
    change: Difference | None
    """None if nothing is comparable."""
    pairs: int | None
    """Number of pairs of days that were compared; None for dwell, which is of all visits together."""

    @property
    def judged(self) -> bool:
        """True if there is an interval, so that one can say whether it changed."""
        return self.change is not None and self.change.low is not None

    @property
    def falls(self) -> bool:
        """True if it certainly became less."""
        return self.change is not None and self.change.sure and self.change.value < 0

    @property
    def rises(self) -> bool:
        """True if it certainly became more."""
        return self.change is not None and self.change.sure and self.change.value > 0


@dataclass(frozen=True, slots=True)
class CounterCourse:
    """One counter."""

    zone: str
    floor: str
    visits: Course
    """People's visits, over the hours known on both days of a pair."""
    dwell: Course
    """Median dwell, seconds."""
    tickets: Course
    """Tickets, over the hours whose sales are known on both days of a pair."""
    sales: ZoneSales | None
    """Of the days themselves."""

    @property
    def courses(self) -> tuple[Course, Course, Course]:
        """All three."""
        return self.visits, self.dwell, self.tickets


@dataclass(frozen=True)
class Performance:
    first_day: str
    last_day: str
    """The days that the others are compared with."""
    since: str
    """First of these others: of the days asked for, or of their second half."""
    counters: tuple[CounterCourse, ...]
    """Those that fall certainly in most respects first; among them, those with fewest visits."""
    def_version: int
    sold: bool
    """True if any sales are known of the days."""
    halves: bool = False
    """True if the second half of the days asked for is compared with the first."""

    @property
    def days(self) -> int:
        """Number of days that are compared with as many."""
        return (dt.date.fromisoformat(self.last_day) - dt.date.fromisoformat(self.first_day)).days + 1

    @property
    def pairs(self) -> int:
        """Number of them with data on both sides, of the counter with most."""
        return max((row.visits.pairs or 0 for row in self.counters), default=0)


def performance(past: Past, date: dt.date, days: int, other: dt.date | None = None) -> Performance:
    """Compare the counters on the `days` business days ending with `date` with as many ending with `other`.

    Without `other`: with the same weekdays before, or the second half of the days with the first, in whole weeks, if
    more pairs of days have data then.
    """
    if other is not None:
        return _compared(past, date, days, other)
    found = _compared(past, date, days, date - -(-days // 7) * 7 * DAY)
    half = days // 14 * 7
    if found.pairs >= half:
        return found
    halves = _compared(past, date, half, date - half * DAY, days)
    return found if halves.pairs <= found.pairs else replace(halves, halves=True)


def _compared(past: Past, date: dt.date, days: int, other: dt.date, sold_days: int | None = None) -> Performance:
    """Compare days with others; the sales are those of the `sold_days` ending with `date`."""
    config = past.config
    numbers = [n for n, zone in enumerate(config.zones) if zone.kind == ZoneKind.COUNTER]
    level = of_many(CLAIMS * len(numbers))
    came = visits(past, date, days, other)
    tickets = _tickets(past, date, days, other)
    now, before = (kept.total(past, kept.ending(last, days)) for last in (date, other))
    sales = zone_sales(past, date, sold_days or days)
    rows = []
    for number in numbers:
        zone = config.zones[number]
        histograms = tuple(None if found is None else found.dwell[number] for found in (now, before))
        rows.append(
            CounterCourse(
                *(zone.id, zone.floor),
                _counts(came.get(zone.id, []), level),
                _dwell(histograms, config.thresholds.small_cell, level),
                _counts(tickets.get(zone.id, []), level),
                sales.get(zone.id),
            )
        )
    rows.sort(key=lambda row: (-_falls(row), row.visits.now is None, row.visits.now or 0, row.zone))
    first = other - (days - 1) * DAY
    since = date - (days - 1) * DAY
    dates = (first.isoformat(), other.isoformat(), since.isoformat())
    return Performance(*dates, tuple(rows), config.thresholds.def_version, bool(sales))


def _falls(row: CounterCourse) -> int:
    return sum(course.falls - course.rises for course in row.courses)


def _counts(pairs: list[tuple[int, int]], level: float) -> Course:
    if not pairs:
        return Course(None, None, None, 0)
    now, before = zip(*pairs, strict=True)
    return Course(sum(now), sum(before), ratio_change(now, before, level), len(pairs))


def _dwell(histograms: Sequence[NDArray[Any] | None], least: int, level: float) -> Course:
    now, before = histograms
    medians = quantile_s(now, 0.5, least), quantile_s(before, 0.5, least)
    if now is None or before is None or medians[0] is None or medians[1] is None:
        return Course(*medians, None, None)
    one = (medians[0], *median_interval(now, EDGES_S, level))
    two = (medians[1], *median_interval(before, EDGES_S, level))
    enough = min(int(now.sum()), int(before.sum())) >= ENOUGH
    return Course(*medians, median_change(one, two, enough=enough), None)


def _tickets(past: Past, date: dt.date, days: int, other: dt.date) -> Mapping[str, list[tuple[int, int]]]:
    """Return zone → tickets, now and before, of each pair of days with enough hours whose sales are known on both."""
    shift = other - date
    known = sold.changes(past, [day + by for day in kept.ending(date, days) for by in (DAY * 0, shift)])
    dates = [day for day in kept.ending(date, days) if day in known and day + shift in known]
    over = {day: f"{known[day]}{known[day + shift]}" for day in dates if day < date}

    def of(some: Sequence[dt.date]) -> list[NDArray[np.int64]]:
        told = sold.told_by_hour(past, [day + by for day in some for by in (DAY * 0, shift)])
        return [_pair(told[day], told[day + shift]) for day in some]

    # The day in progress changes every few minutes, those before it don't.
    stored = kept.remembered(past, f"tickets {shift}", over, lambda: of(list(over)))
    return by_zone(past, stored + of([day for day in dates if day not in over]))


def _pair(now: ToldHours, before: ToldHours) -> NDArray[np.int64]:
    """Return two days for `by_zone`."""
    long = min(len(now.known), len(before.known))
    both = now.known[:long] & before.known[:long]
    total = now.open_us.sum(axis=0)
    good = (total > 0) & ((now.open_us[:long] * both).sum(axis=0) >= SHARED * total)
    return np.stack([good, *((side.tickets[:long] * both).sum(axis=0) for side in (now, before))])
