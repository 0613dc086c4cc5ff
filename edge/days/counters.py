"""Scorecards of counters, from a read-only connection.

Like the other modules of edge.days, it covers the `days` business days ending with `date`; docs/definitions.md has
all formulas. A figure that was not measured, or that is based on too little data, is None, never zero.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace

from config import StoreConfig, ZoneKind
from dwell.aggregates import EDGES_S, quantile
from dwell.compare import ENOUGH, Share, median_interval, of_many, rank_bands, share
from edge.database.reader import Past
from edge.days.facts import Totals, of_people
from edge.days.kept import DAY
from edge.days.sales import ZoneSales, zone_sales
from edge.days.scope import Rate, Scope, coverage, history_days, over, quantile_s, rate


@dataclass(frozen=True)
class CounterScore:
    """Score of one zone, all None if the zone was unknown. Counts are of people, in sufficiently covered windows."""

    zone: str
    floor: str
    kind: str
    coverage: float | None
    """Share of the opening hours so far in which the zone's readers were up; None before the first opening hour."""
    n: int | None
    """Number of complete visits, which bands, median and p75 are based on."""
    censored: int | None
    pass_by: int | None
    touch: int | None
    visit: int | None
    engaged: int | None
    cart_visits: int | None
    median_s: float | None
    median_low_s: float | None
    """95 % confidence interval of the median, whatever the distribution."""
    median_high_s: float | None
    p75_s: float | None
    journeys: int | None
    """People's journeys that began while the zone was known."""
    visitors: int | None
    """Journeys with a visit of a touch or longer to the zone."""
    draw: Rate | None
    """visitors ÷ journeys."""
    conversion: float | None
    """engaged ÷ (pass-by + touch + visit)."""
    conversion_low: float | None
    conversion_high: float | None
    engaged_share: Rate | None
    """Journeys with an engaged visit to the zone ÷ journeys; determines the rank."""
    bounce: Rate | None
    """touch ÷ (touch + visit + engaged): came near but did not stay."""
    first_stop: Rate | None
    """Journeys that stopped here before any other counter ÷ journeys that stopped at any counter."""
    repeat: Rate | None
    """Visiting members who had been in the store in the previous returning_days ÷ visiting members."""
    wait_median_s: float | None
    met: Rate | None
    rank: tuple[int, int] | None
    """For counters: best and worst possible rank by engaged_share, given the intervals."""
    sales: ZoneSales | None = None
    """None if no sales of the zone are known."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A counter's median dwell, with an interval that holds together with those of all other counters."""

    zone: str
    median_s: float
    low_s: float
    high_s: float
    n: int


@dataclass(frozen=True)
class Counters:
    scope: Scope
    journeys: int
    zones: tuple[CounterScore, ...]
    """In the order of the store file."""
    standings: tuple[Standing, ...]
    """Counters with ENOUGH visits."""


def counters(past: Past, date: dt.date, days: int = 1) -> Counters:
    """Compute the scorecard of every zone over one or more days (7: a week)."""
    config = past.config
    scope, found = over(past, date, days)
    history = history_days(past, date - (days - 1) * DAY)
    rows = [_score(config, found, number, history) for number in range(len(config.zones))]
    of_counters = [row for row in rows if row.kind == ZoneKind.COUNTER]
    shares = [None if r.engaged_share is None else _as_share(r.engaged_share) for r in of_counters]
    ranks = {row.zone: rank for row, rank in zip(of_counters, rank_bands(shares), strict=True)}
    sales = zone_sales(past, date, days)
    zones = tuple(replace(row, rank=ranks.get(row.zone), sales=sales.get(row.zone)) for row in rows)
    return Counters(scope, int(of_people(found.store)), zones, _standings(config, found))


def _standings(config: StoreConfig, found: Totals) -> tuple[Standing, ...]:
    enough = [
        number
        for number, zone in enumerate(config.zones)
        if zone.kind == ZoneKind.COUNTER and found.dwell[number].sum() >= ENOUGH
    ]
    level = of_many(len(enough))
    return tuple(
        Standing(
            config.zones[number].id,
            quantile(found.dwell[number], 0.5),
            *median_interval(found.dwell[number], EDGES_S, level),
            int(found.dwell[number].sum()),
        )
        for number in enough
    )


def _score(config: StoreConfig, found: Totals, number: int, history: int) -> CounterScore:
    zone, facts, base = config.zones[number], found.zones[number], found.base[number]
    if not base["known_windows"]:
        return CounterScore(zone.id, zone.floor, zone.kind.value, coverage(base), *[None] * 24)
    value = {name: int(facts[name]) for name in facts.dtype.names}
    journeys = int(base["journeys"])
    rest = value["pass_by"] + value["touch"] + value["visit"]
    n = rest + value["engaged"]
    odds = share(value["engaged"], n)
    least = config.thresholds.small_cell
    median = quantile_s(found.dwell[number], 0.5, least)
    limits = (None, None) if median is None else median_interval(found.dwell[number], EDGES_S)
    return CounterScore(
        zone=zone.id,
        floor=zone.floor,
        kind=zone.kind.value,
        coverage=coverage(base),
        n=n,
        censored=value["censored"],
        pass_by=value["pass_by"],
        touch=value["touch"],
        visit=value["visit"],
        engaged=value["engaged"],
        cart_visits=value["cart"],
        median_s=median,
        median_low_s=limits[0],
        median_high_s=limits[1],
        p75_s=quantile_s(found.dwell[number], 0.75, least),
        journeys=journeys,
        visitors=value["visitors"],
        draw=rate(value["visitors"], journeys),
        conversion=None if odds is None else _odds(odds.value),
        conversion_low=None if odds is None else _odds(odds.low),
        conversion_high=None if odds is None else _odds(odds.high),
        engaged_share=rate(value["engaged_visitors"], journeys),
        bounce=rate(value["touch"], n - value["pass_by"]),
        first_stop=rate(value["first_stops"], int(base["stopped"])) if zone.kind == ZoneKind.COUNTER else None,
        repeat=rate(int(base["repeaters"]), int(base["members"]), max(least, 1)) if history else None,
        wait_median_s=quantile_s(found.wait[number], 0.5, least),
        met=rate(value["met"], value["wanted"], max(least, 1)),
        rank=None,
    )


def _odds(p: float) -> float | None:
    return p / (1 - p) if p < 1 else None


def _as_share(rate: Rate) -> Share:
    return Share(rate.k, rate.n, rate.low, rate.high)
