"""The last four weeks of every zone: day by day, and by weekday and hour, from a read-only connection.

See edge.days.counters; docs/definitions.md has all formulas. A figure that was not measured is None, never zero.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.database.reader import Past
from edge.days import kept, sold
from edge.days.facts import Totals, of_people
from edge.days.hourly import HOUR_US, Hours
from edge.days.hours import quantiles

Figures = tuple[NDArray[np.int64], NDArray[Any]]
TREND_DAYS = 28
LEAST_DAYS = 14
"""Number of days that must be known before a week is shown: each weekday twice."""


@dataclass(frozen=True, slots=True)
class TrendDay:
    date: dt.date
    visits: int | None
    """People's visits; None if the zone was not sufficiently covered in its opening hours."""
    median_s: float | None = None
    """Median dwell; None then too, and if there were too few visits."""
    tickets: int | None = None
    """None if sales are not known for most of the opening hours."""


@dataclass(frozen=True)
class Week:
    """People's visits by weekday and hour of the business day, over the TREND_DAYS days before one."""

    days: int
    """Number of these days with any facts."""
    hours: int
    zones: Mapping[str, tuple[tuple[float | None, ...], ...]]
    """Zone → weekday from Monday → hour → mean visits; None if fewer than two such hours were known throughout. Empty
    with fewer than LEAST_DAYS days."""


def trends(past: Past, date: dt.date) -> Mapping[str, tuple[TrendDay, ...]]:
    """Return each zone's visits, dwell and tickets on each of the TREND_DAYS days ending with `date`, the first one
    first."""
    dates = kept.ending(date, TREND_DAYS)
    before = {day: stamp for day, stamp in kept.stored(past, dates).items() if day < date}

    def of_stored() -> dict[dt.date, Figures]:
        return {day: _figures(past, made) for day, made in kept.totals(past, list(before))}

    # The day in progress changes every few minutes, those before it don't.
    found = dict(kept.remembered(past, "figures by day", before, of_stored))
    found |= {day: _figures(past, made) for day, made in kept.totals(past, [d for d in dates if d not in before])}
    tickets = sold.tickets(past, dates)
    return {
        zone.id: tuple(TrendDay(day, *_told(found, day, number), _sold(tickets, day, number)) for day in dates)
        for number, zone in enumerate(past.config.zones)
    }


def trend(past: Past, date: dt.date, zone: str) -> tuple[TrendDay, ...]:
    """Return the same of one zone."""
    return trends(past, date)[zone]


def week(past: Past, date: dt.date) -> Week:
    """Return the visits by weekday and hour over the TREND_DAYS days before `date`."""
    stored = kept.stored(past, kept.ending(date - kept.DAY, TREND_DAYS))
    if len(stored) < LEAST_DAYS:
        return Week(len(stored), 0, {})

    def add_up() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(7, H, Z) visits in hours known throughout, and number of these hours."""
        n, known = (np.zeros((7, kept.MOST_HOURS, len(past.config.zones)), np.int64) for _ in range(2))
        for day, hours in kept.hours(past, list(stored)):
            whole = hours.zones["span_us"] == HOUR_US
            n[day.weekday(), : len(whole)] += np.where(whole, _of_hours(hours), 0)
            known[day.weekday(), : len(whole)] += whole
        return n, known

    n, known = kept.remembered(past, "weekdays", stored, add_up)
    means = np.where(known >= 2, n / np.maximum(known, 1), np.nan)
    hours = int(np.flatnonzero(known.any(axis=(0, 2))).max(initial=-1)) + 1
    zones = {
        zone.id: tuple(tuple(None if np.isnan(one) else float(one) for one in row) for row in means[:, :hours, number])
        for number, zone in enumerate(past.config.zones)
    }
    return Week(len(stored), hours, zones)


def _of_hours(hours: Hours) -> NDArray[np.int64]:
    return of_people(hours.zones)


def _figures(past: Past, made: Totals) -> Figures:
    """Return the (Z,) visits of a day, -1 where the zone was not sufficiently covered; and the (Z,) median dwell."""
    base = made.base
    covered = (base["covered_us"] >= past.config.thresholds.min_coverage * base["open_us"]) & (
        base["known_windows"] > 0
    )
    medians = quantiles(made.dwell, 0.5, past.config.thresholds.small_cell)
    return np.where(covered, of_people(made.zones), -1), medians


def _told(found: Mapping[dt.date, Figures], day: dt.date, number: int) -> tuple[int | None, float | None]:
    n = int(found[day][0][number]) if day in found else -1
    return (None, None) if n < 0 else (n, found[day][1][number])


def _sold(found: Mapping[dt.date, NDArray[np.int64]], day: dt.date, number: int) -> int | None:
    n = int(found[day][number]) if day in found else -1
    return None if n < 0 else n
