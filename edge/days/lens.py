"""One figure of every zone, for colouring the plan, from a read-only connection: of all hours or of one, of any days.

See edge.days.counters; docs/definitions.md has all formulas. A figure that was not measured is None, never zero.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.facts import SERVED
from dwell.aggregates import EDGES_S
from dwell.compare import LEVEL, median_interval, share
from edge.database.reader import Past
from edge.days import kept, sold
from edge.days.against import against
from edge.days.facts import of_people
from edge.days.hourly import summed
from edge.days.hours import BANDS, over_hours
from edge.days.sales import rate_of
from edge.days.scope import Scope, over, quantile_s, ratio

MEASURES = ("presence", "visits", "dwell", "engaged", "conversion", "waiting", "staff", "coverage", "change")
SOLD = ("tickets", "per_visit", "per_engaged")
"""Measures of sales, if any are known."""


@dataclass(frozen=True, slots=True)
class Shade:
    """The figure of one zone with its 95 % interval, if it has one."""

    zone: str
    floor: str
    value: float | None
    """None if it was not measured, or if there is too little data."""
    low: float | None
    high: float | None
    n: int | None
    """What it is based on: visits, journeys or pairs of days; None if it has no such number."""
    known: bool
    """False if the zone, or its sales, were unknown all the time."""


@dataclass(frozen=True)
class Lens:
    scope: Scope
    measure: str
    hour: int | None
    """Hour of the business day, from 0; None: all."""
    zones: tuple[Shade, ...]
    """In the order of the store file."""


def lens(
    past: Past, date: dt.date, days: int, measure: str, hour: int | None = None, other: dt.date | None = None
) -> Lens:
    """Compute one of MEASURES or SOLD of every zone over the `days` business days ending with `date`.

    `other`: last of the days that `change` compares with.
    """
    if measure in SOLD:
        return _sold(past, date, days, measure, hour)
    config = past.config
    scope, totals = over(past, date, days)
    zones = _one(over_hours(past, date, days).zones, hour)
    dates = kept.ending(date, days)
    least = config.thresholds.small_cell
    histogram: NDArray[Any] | None = None
    if measure in ("dwell", "waiting"):
        what = "dwell" if measure == "dwell" else "wait"
        histogram = getattr(totals, what) if hour is None else kept.histograms(past, dates, hour, what)[0]
    rows = None if measure != "change" or other is None else against(past, date, days, other, hour)
    changes = {} if rows is None else {row.id: row for row in rows.rows if row.measure == "visits"}

    def figure(number: int) -> tuple[float | None, float | None, float | None, int | None]:
        zone, facts = config.zones[number], zones[number]
        match measure:
            case "presence":
                return ratio(float(facts["present_us"]), int(facts["span_us"])), None, None, None
            case "visits":
                return float(of_people(facts)), None, None, None
            case "dwell" | "waiting":
                if measure == "waiting" and zone.kind not in SERVED:
                    return None, None, None, None
                assert histogram is not None
                return middle(histogram[number], least)
            case "engaged":
                return _share(int(facts["engaged_visitors"]), int(facts["journeys"]))
            case "conversion":
                n = int(sum(facts[name] for name in BANDS))
                value, low, high, n_ = _share(int(facts["engaged"]), n)
                return _odds(value), _odds(low), _odds(high), n_
            case "staff":
                return ratio(float(facts["staffed_open_us"]), int(facts["known_us"])), None, None, None
            case "coverage":
                return ratio(float(facts["covered_us"]), int(facts["open_us"])), None, None, None
            case _:
                row = changes.get(zone.id)
                found = None if row is None else row.change
                pairs = 0 if row is None else row.pairs
                return (None, None, None, pairs) if found is None else (found.value, found.low, found.high, pairs)

    shades = []
    for number, zone in enumerate(config.zones):
        known = bool(zones[number]["known_windows"])
        told = figure(number) if known or measure == "coverage" else (None, None, None, None)
        shades.append(Shade(zone.id, zone.floor, *told, known))
    return Lens(scope, measure, hour, tuple(shades))


def middle(
    histogram: NDArray[Any], least: int, level: float = LEVEL
) -> tuple[float | None, float | None, float | None, int | None]:
    """Return the median of a histogram of dwell or wait in seconds, with its interval, and the number of visits."""
    n = int(histogram.sum())
    value = quantile_s(histogram, 0.5, least)
    if value is None:
        return None, None, None, n
    low, high = median_interval(histogram, EDGES_S, level)
    return value, low, high, n


def _sold(past: Past, date: dt.date, days: int, measure: str, hour: int | None) -> Lens:
    scope, _ = over(past, date, days)
    dates = kept.ending(date, days)
    hours = None if hour is None else sold.of_hours(past, dates)
    rows = sold.of_days(past, dates) if hour is None else None if hours is None else _one(hours, hour)
    shades = []
    for number, zone in enumerate(past.config.zones):
        told: tuple[float | None, float | None, float | None, int | None] = (None, None, None, None)
        known = rows is not None and bool(rows[number]["hours"])
        if rows is not None and known:
            row = rows[number]
            rate = None if measure == "tickets" else rate_of(row, "visits" if measure == "per_visit" else "engaged")
            if rate is not None:
                told = rate.value, rate.low, rate.high, rate.n
            elif measure == "tickets":
                told = float(row["tickets"]), None, None, None
        shades.append(Shade(zone.id, zone.floor, *told, known))
    return Lens(scope, measure, hour, tuple(shades))


def _one(hours: NDArray[Any], hour: int | None) -> NDArray[Any]:
    """Return the (Z,) facts of one hour, or of all of them."""
    if hour is not None:
        return hours[hour] if hour < len(hours) else np.zeros_like(hours[0])
    whole: NDArray[Any] = summed(hours, np.zeros(len(hours), np.int64))[0]
    return whole


def _share(k: int, n: int) -> tuple[float | None, float | None, float | None, int]:
    found = share(k, n)
    return (None, None, None, n) if found is None else (found.value, found.low, found.high, n)


def _odds(p: float | None) -> float | None:
    return p / (1 - p) if p is not None and p < 1 else None
