"""What a floor manager acts on, from a read-only connection: counters, flows, occupancy, members' tiers, service.

Every function answers for the `days` business days that end with `date`; docs/definitions.md has every formula. A
number that nobody measured, or of which too little was measured to be told, is None, never zero.
"""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config import StoreConfig, ZoneKind
from dwell.aggregates import RELATIVE_ERROR, quantile
from dwell.compare import Share, rank_bands, share
from dwell.paths import cleaned, habitual
from edge.dayfacts import Totals, place, watermark_us
from edge.daystore import DAY, totals
from edge.daystore import paths as paths_of
from edge.people import business_days

ERROR_SHARE = RELATIVE_ERROR
"""Medians and p75 from histograms are off by at most this share of themselves (between 1 s and 12 h)."""
TOP_PATHS = 20


@dataclass(frozen=True, slots=True)
class Rate:
    """`k` of `n`, with the interval that holds the truth with 95 %."""

    value: float
    low: float
    high: float
    k: int
    n: int


@dataclass(frozen=True)
class Scope:
    """What an answer is about."""

    first_day: str
    last_day: str
    days: int
    """Of them, those with any facts."""
    as_of_us: int | None
    """Everything before is counted."""
    def_version: int
    small_cell: int
    error_share: float
    """Of every median and p75."""
    suspected_staff: int
    """Tags left out, each day counted for itself; `suspected_tags()` lists them."""


@dataclass(frozen=True)
class CounterScore:
    """One zone. All of it None where the zone was unknown; counts are of people and of windows known well enough."""

    zone: str
    floor: str
    kind: str
    coverage: float | None
    """Of the opening time so far."""
    n: int | None
    """Visits whose both ends were seen: those in bands, median and p75."""
    censored: int | None
    pass_by: int | None
    touch: int | None
    visit: int | None
    engaged: int | None
    cart_visits: int | None
    median_s: float | None
    p75_s: float | None
    journeys: int | None
    """People's journeys that began while the zone was known."""
    visitors: int | None
    """Of them, those that stayed here for a touch or longer."""
    draw: Rate | None
    """visitors ÷ journeys."""
    conversion: float | None
    """engaged ÷ (pass-by + touch + visit)."""
    conversion_low: float | None
    conversion_high: float | None
    engaged_share: Rate | None
    """Journeys engaged here ÷ journeys: what the rank is of."""
    bounce: Rate | None
    """touch ÷ (touch + visit + engaged): came near and went on."""
    first_stop: Rate | None
    """Journeys that stopped here before any other counter ÷ journeys that stopped at any."""
    repeat: Rate | None
    """Members who came near and were in the store within returning_days before ÷ members who came near."""
    wait_median_s: float | None
    met: Rate | None
    rank: tuple[int, int] | None
    """Counters: best and worst place by engaged_share that the intervals allow."""


@dataclass(frozen=True)
class Counters:
    scope: Scope
    journeys: int
    zones: tuple[CounterScore, ...]
    """In the order of the store file."""


def counters(conn: sqlite3.Connection, config: StoreConfig, date: dt.date, days: int = 1) -> Counters:
    """Scorecard of every zone over one day or more (7: a week)."""
    scope, found = over(conn, config, date, days)
    if found is None:
        return Counters(scope, 0, tuple(_unknown(zone) for zone in config.zones))
    history = history_days(conn, config, date - (days - 1) * DAY)
    rows = [_score(config, found, number, history) for number in range(len(config.zones))]
    of_counters = [row for row in rows if row.kind == ZoneKind.COUNTER]
    shares = [None if r.engaged_share is None else _as_share(r.engaged_share) for r in of_counters]
    ranks = {row.zone: rank for row, rank in zip(of_counters, rank_bands(shares), strict=True)}
    zones = tuple(replace(row, rank=ranks.get(row.zone)) for row in rows)
    return Counters(scope, int(found.store["member"] + found.store["unknown"]), zones)


@dataclass(frozen=True, slots=True)
class Link:
    """Straight from one zone to another; `from_zone` None is coming in, `to_zone` None going out."""

    from_zone: str | None
    to_zone: str | None
    n: int
    share: float
    """Of all steps out of `from_zone`, the suppressed ones included."""


@dataclass(frozen=True, slots=True)
class PathCount:
    """A cleaned path: the order of first stops, without loops and there-and-back."""

    zones: tuple[str, ...]
    n: int
    share: float
    """Of all journeys with a path."""


@dataclass(frozen=True)
class Mix:
    """In which zone journeys began or ended; n None: fewer than small_cell."""

    zone: str
    n: int | None


@dataclass(frozen=True)
class Door:
    """An entrance or exit, and how many of those seen at any came, or went, this way."""

    zone: str
    n: int | None
    """None: fewer than small_cell."""
    share: Rate | None
    """Of the journeys that began, or ended, at a door; None: too few, or a door is hidden."""


@dataclass(frozen=True)
class Doors:
    """By which doors people came in, or went out, as far as they were seen there."""

    doors: tuple[Door, ...]
    """In the order of the store file; in a store without entrances and exits every zone is one."""
    elsewhere: int | None
    """Journeys that began, or ended, elsewhere: the door was crossed unseen. None: it would tell a hidden one."""


@dataclass(frozen=True)
class FlowReport:
    scope: Scope
    links: tuple[Link, ...]
    """Most walked first; only those of at least small_cell journeys."""
    steps: int
    suppressed_links: int
    suppressed_steps: int
    unseen: int
    """Steps left out because a visit before or after was not fully seen."""
    paths: tuple[PathCount, ...]
    """The TOP_PATHS most walked, of at least small_cell journeys."""
    with_path: int
    other_paths: int
    """Journeys with a path that is not listed."""
    without_stop: int
    unseen_paths: int
    entries: tuple[Mix, ...]
    exits: tuple[Mix, ...]
    ways_in: Doors
    ways_out: Doors


def flows(conn: sqlite3.Connection, config: StoreConfig, date: dt.date, days: int = 1) -> FlowReport:
    """Transitions, top paths, and where people come in and go out."""
    scope, found = over(conn, config, date, days)
    if found is None:
        return FlowReport(scope, (), 0, 0, 0, 0, (), 0, 0, 0, 0, (), (), Doors((), None), Doors((), None))
    names: list[str | None] = [*(zone.id for zone in config.zones), None]
    least = config.thresholds.small_cell
    made = found.flows
    leaving = made.links.sum(axis=1)
    shown = (made.links > 0) & (made.link_journeys >= least)
    links = [
        Link(names[a], names[b], int(made.links[a, b]), float(made.links[a, b] / leaving[a]))
        for a, b in np.argwhere(shown).tolist()
    ]
    links.sort(key=lambda link: (-link.n, link.from_zone or "", link.to_zone or ""))
    steps = int(made.links.sum())
    counted, with_path = paths_of(conn, config, [date - n * DAY for n in range(days)], TOP_PATHS)
    ids = [zone.id for zone in config.zones]
    paths = tuple(PathCount(tuple(ids[z] for z in path), n, n / with_path) for path, n in counted if n >= least)
    return FlowReport(
        scope=scope,
        links=tuple(links),
        steps=steps,
        suppressed_links=int(((made.links > 0) & ~shown).sum()),
        suppressed_steps=steps - int(made.links[shown].sum()),
        unseen=made.unseen,
        paths=paths,
        with_path=with_path,
        other_paths=with_path - sum(path.n for path in paths),
        without_stop=made.pathless,
        unseen_paths=made.unseen_paths,
        entries=_mix(config, found.zones["entries"]),
        exits=_mix(config, found.zones["exits"]),
        ways_in=_doors(config, found.zones["entries"]),
        ways_out=_doors(config, found.zones["exits"]),
    )


@dataclass(frozen=True)
class Habit:
    """A member's habitual route."""

    zones: tuple[str, ...]
    n: int
    """Journeys that took it …"""
    journeys: int
    """… of those with a path within returning_days."""


def habit(conn: sqlite3.Connection, config: StoreConfig, member: str, date: dt.date) -> Habit | None:
    """A member's route, if three journeys or more of the last returning_days took it. About an individual: audit it."""
    end_us = business_days(config).bounds_us(date)[1]
    store = place(config)
    number = {zone.id: n for n, zone in enumerate(config.zones)}
    doors = {z for z, zone in enumerate(config.zones) if zone.kind in (ZoneKind.ENTRANCE, ZoneKind.EXIT)}
    ways = {z for z, zone in enumerate(config.zones) if zone.kind == ZoneKind.AISLE}
    paths = []
    for (path,) in conn.execute(
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


def hide(counts: dict[str, int], least: int) -> set[str]:
    """Which of some counts, whose sum is told, to hide: the small ones, and one more if only one would be hidden."""
    hidden = {name for name, n in counts.items() if n < least}
    if len(hidden) == 1 and len(counts) > 1:
        hidden.add(min((name for name in counts if name not in hidden), key=lambda name: (counts[name], name)))
    return hidden


def over(conn: sqlite3.Connection, config: StoreConfig, date: dt.date, days: int) -> tuple[Scope, Totals | None]:
    """Facts of the `days` business days that end with `date`, and what they are about; None without any."""
    dates = [date - n * DAY for n in reversed(range(days))]
    found: Totals | None = None
    for _, one in totals(conn, config, dates):  # one at a time: a day of a large store is a quarter of a MiB
        found = one if found is None else found + one
    now_us, end_us = watermark_us(conn), business_days(config).bounds_us(date)[1]
    return (
        Scope(
            first_day=dates[0].isoformat(),
            last_day=date.isoformat(),
            days=0 if found is None else found.days,
            as_of_us=None if now_us is None else min(now_us, end_us),
            def_version=config.thresholds.def_version,
            small_cell=config.thresholds.small_cell,
            error_share=ERROR_SHARE,
            suspected_staff=0 if found is None else found.suspects,
        ),
        found,
    )


def history_days(conn: sqlite3.Connection, config: StoreConfig, date: dt.date) -> int:
    """How far back from the beginning of a day returning members can be known; at most returning_days."""
    oldest_us = conn.execute("SELECT MIN(start_us) FROM journey").fetchone()[0]
    if oldest_us is None:
        return 0
    back = (business_days(config).bounds_us(date)[0] - int(oldest_us)) // 86_400_000_000
    return max(0, min(config.thresholds.returning_days, back))


def _score(config: StoreConfig, found: Totals, number: int, history: int) -> CounterScore:
    zone, facts, base = config.zones[number], found.zones[number], found.base[number]
    if not base["known_windows"]:
        return _unknown(zone, coverage(base))
    value = {name: int(facts[name]) for name in facts.dtype.names}
    journeys = int(base["journeys"])
    rest = value["pass_by"] + value["touch"] + value["visit"]
    n = rest + value["engaged"]
    odds = share(value["engaged"], n)
    least = config.thresholds.small_cell
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
        median_s=quantile_s(found.dwell[number], 0.5, least),
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


def _unknown(zone: Any, coverage: float | None = None) -> CounterScore:
    return CounterScore(zone.id, zone.floor, zone.kind.value, coverage, *[None] * 22)


def _odds(p: float) -> float | None:
    return p / (1 - p) if p < 1 else None


def _as_share(rate: Rate) -> Share:
    return Share(rate.k, rate.n, rate.low, rate.high)


def rate(k: int, n: int, enough: int | None = None) -> Rate | None:
    """k of n with its interval; None if n is not `enough`."""
    found = share(k, n) if enough is None else share(k, n, enough)
    return None if found is None else Rate(found.value, found.low, found.high, k, n)


def ratio(k: int, n: int) -> float | None:
    """k ÷ n; None of nothing."""
    return k / n if n else None


def quantile_s(histogram: NDArray[Any] | None, q: float, least: int) -> float | None:
    """Quantile of a histogram in seconds; None of fewer than `least`."""
    if histogram is None or histogram.sum() < max(least, 1):
        return None
    return quantile(histogram, q)


def coverage(base: Any) -> float | None:
    """Coverage of a zone's opening time."""
    return float(base["covered_us"] / base["open_us"]) if base["open_us"] else None


def _mix(config: StoreConfig, counts: NDArray[Any]) -> tuple[Mix, ...]:
    by_zone: dict[str, int] = defaultdict(int)
    for zone, n in zip(config.zones, counts.tolist(), strict=True):
        if n:
            by_zone[zone.id] = n
    hidden = hide(dict(by_zone), config.thresholds.small_cell)
    rows = [Mix(zone, None if zone in hidden else n) for zone, n in by_zone.items()]
    return tuple(sorted(rows, key=lambda mix: (-(mix.n or 0), mix.zone)))


def _doors(config: StoreConfig, counts: NDArray[Any]) -> Doors:
    """What `_mix` tells and no more: who sees both can work out nothing that either hides."""
    told = {mix.zone: mix.n for mix in _mix(config, counts)}
    doors = [zone.id for zone in config.zones if zone.kind in (ZoneKind.ENTRANCE, ZoneKind.EXIT)]
    doors = doors or [zone.id for zone in config.zones]
    seen = [told.get(zone, 0) for zone in doors]
    if None in seen:
        return Doors(tuple(Door(zone, n, None) for zone, n in zip(doors, seen, strict=True)), None)
    known = [n for n in seen if n is not None]
    of = sum(known)
    found = tuple(Door(zone, n, rate(n, of)) for zone, n in zip(doors, known, strict=True))
    return Doors(found, int(counts.sum()) - of)
