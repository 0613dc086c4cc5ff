"""A business day in numbers, from the database: what `tagtrail summary` prints and the page "Today" shows.

Everything is a pure function of a read-only connection and the store file. People are carriers of member tags and of
tags of no known class; carts are counted apart, staff and merchandise not at all, nor suspected staff and stuck tags.
A number that nobody measured is None, never zero: `coverage` says which share of the opening time that has passed the
readers of a place were up.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from config import StoreConfig
from edge.days.facts import HOUR_US, DayFacts, hour_of
from edge.days.kept import day
from edge.days.scope import hide, quantile_s
from edge.store.business_days import business_days
from sync import outbox

WINDOW_US = 900_000_000
"""Windows of the table `aggregate`, which knows the coverage."""
COUNTED = ("member", "unknown", "cart")


@dataclass(frozen=True, slots=True)
class Hour:
    """One hour of a floor; `entered` is None where nothing was measured: not yet come, or no reader up."""

    start_us: int
    entered: Mapping[str, int] | None
    """Class → times that a carrier came to the floor, from outside or from another floor."""
    coverage: float | None
    """0..1 of the windows that ended; None while none of the hour's windows has."""
    state: str
    """measured · unknown (no reader was up) · future."""


@dataclass(frozen=True)
class FloorTraffic:
    """Comings to one floor."""

    floor: str
    entered: Mapping[str, int] | None
    coverage: float | None
    hours: tuple[Hour, ...]


@dataclass(frozen=True)
class ZoneDwell:
    """People's visits to one zone that began on the day, in windows in which it was known; None where it never was."""

    zone: str
    floor: str
    kind: str
    n: int | None
    """Visits whose both ends were seen: the ones in bands, median and p75."""
    censored: int
    """Visits not fully seen."""
    cart_visits: int | None
    median_s: float | None
    """Of small_cell visits or more; from a histogram, off by 4.9 % at most."""
    p75_s: float | None
    pass_by: int | None
    touch: int | None
    visit: int | None
    engaged: int | None
    coverage: float | None


@dataclass(frozen=True, slots=True)
class Flow:
    """Journeys of people that went straight from one zone to another, `n` times."""

    from_zone: str
    to_zone: str
    n: int


@dataclass(frozen=True)
class Flows:
    """Transitions between consecutive visits of people's journeys."""

    links: tuple[Flow, ...]
    """Most walked first; only those that at least `small_cell` journeys walked."""
    n: int
    """All transitions, the suppressed ones included."""
    suppressed_links: int
    suppressed_n: int
    unseen: int
    """Transitions left out because the visit before or after was not fully seen."""


@dataclass(frozen=True)
class DoorCount:
    """What a door counter counted: passages in either direction, of anybody, tag or not."""

    zone: str
    reader: str
    port: int
    passages: int | None
    """None where it was never watched."""
    coverage: float | None
    """Share of the day so far in which it was watched; None before the first window is over."""


@dataclass(frozen=True)
class Tier:
    """Members of a tier seen; None when fewer than `small_cell` or when it would give such a number away."""

    tier: str
    members: int | None


@dataclass(frozen=True)
class Summary:
    """One business day of one store."""

    store: str
    date: str
    start_us: int
    end_us: int
    as_of_us: int | None
    """Everything before is counted; None when the database holds nothing yet. Open visits count when they end."""
    complete: bool
    """The day is over, and long enough for its last visits to have ended."""
    def_version: int
    small_cell: int
    coverage: float | None
    journeys: Mapping[str, int]
    """Class → journeys that began on the day."""
    members_seen: int
    visits: int
    """People's zone visits that began on the day, however short."""
    floors: tuple[FloorTraffic, ...]
    zones: tuple[ZoneDwell, ...]
    flows: Flows
    suspected: int
    """Tags left out of all of this: suspected staff and stuck ones."""
    tiers: tuple[Tier, ...]
    doors: tuple[DoorCount, ...]
    outbox: Mapping[str, Mapping[str, int]]
    """Class → `sent`, events ever committed for the CRM, and `pending`, those that it has not acknowledged."""


def today(conn: sqlite3.Connection, config: StoreConfig, date: dt.date) -> Summary:
    """The summary of one business day, from one snapshot of the database."""
    conn.execute("BEGIN")
    try:
        return summary(conn, config, date)
    finally:
        conn.execute("ROLLBACK")


def summary(conn: sqlite3.Connection, config: StoreConfig, date: dt.date) -> Summary:
    """The summary of one business day, in the caller's snapshot."""
    made = day(conn, config, date)
    start_us, end_us = business_days(config).bounds_us(date)
    totals, windows = made.totals, made.windows
    counts = {tier: totals.tiers[tier].get("members", 0) for tier in sorted(totals.tiers)}
    hidden = hide(counts, config.thresholds.small_cell)
    everywhere = np.ones(len(config.zones), np.bool_)
    return Summary(
        store=config.store.id,
        date=date.isoformat(),
        start_us=start_us,
        end_us=end_us,
        as_of_us=made.as_of_us,
        complete=made.complete,
        def_version=config.thresholds.def_version,
        small_cell=config.thresholds.small_cell,
        coverage=_coverage(made, everywhere),
        journeys={name: int(totals.store[name]) for name in COUNTED},
        members_seen=sum(counts.values()),
        visits=int((windows.zones["member"] + windows.zones["unknown"]).sum()),
        floors=_traffic(config, made, start_us, end_us),
        zones=tuple(_dwell(config, made, number) for number in range(len(config.zones))),
        flows=_flows(config, made),
        suspected=totals.suspects,
        tiers=tuple(Tier(tier, None if tier in hidden else n) for tier, n in counts.items()),
        doors=_doors(conn, config, start_us, end_us, _over(made)),
        outbox={class_: depth._asdict() for class_, depth in outbox.depth(conn).items()},
    )


def _coverage(made: DayFacts, zones: NDArray[np.bool_], windows: NDArray[np.bool_] | None = None) -> float | None:
    """Share of the opening time of zones in which they were covered; of time alone where none of them was open."""
    share, open_us = made.windows.coverage[:, zones], made.windows.open_us[:, zones]
    if windows is not None:
        share, open_us = share[windows], open_us[windows]
    seen = ~np.isnan(share)
    if not seen.any():
        return None
    weight = np.where(seen, open_us, 0)
    if not weight.sum():
        weight = seen.astype(np.int64)
    return float((np.nan_to_num(share, nan=0.0) * weight).sum() / weight.sum())


def _over(made: DayFacts) -> list[int]:
    """Starts of the windows that are over."""
    ended = ~np.isnan(made.windows.coverage).all(axis=1)
    over: list[int] = made.windows.windows_us[ended].tolist()
    return over


def _doors(
    conn: sqlite3.Connection, config: StoreConfig, start_us: int, end_us: int, windows: list[int]
) -> tuple[DoorCount, ...]:
    counts = {
        (reader, port, zone): (passages, ever, covered_us)
        for reader, port, zone, passages, ever, covered_us in conn.execute(
            "SELECT reader, port, zone, sum(passages), max(covered_us) > 0, sum(covered_us * (window_us <= ?))"
            " FROM door WHERE window_us >= ? AND window_us < ? GROUP BY 1, 2, 3",
            (windows[-1] if windows else -1, start_us, end_us),
        )
    }
    doors = []
    for reader in config.readers:
        for place in reader.inputs:
            passages, ever, covered_us = counts.get((reader.id, place.port, place.zone), (0, False, 0))
            coverage = min(1.0, covered_us / (len(windows) * WINDOW_US)) if windows else None
            doors.append(DoorCount(place.zone, reader.id, place.port, passages if ever else None, coverage))
    return tuple(doors)


def _traffic(config: StoreConfig, made: DayFacts, start_us: int, end_us: int) -> tuple[FloorTraffic, ...]:
    hour = hour_of(made.windows.windows_us, start_us)
    floors = []
    for number, floor in enumerate(config.floors):
        mine = np.array([zone.floor == floor.id for zone in config.zones])
        facts = made.windows.floors[:, number]
        hours = []
        for count, at_us in enumerate(range(start_us, end_us, HOUR_US)):
            within = hour == count
            covered = _coverage(made, mine, within)
            entered = {name: int(facts[name][within].sum()) for name in COUNTED}
            if at_us >= (made.as_of_us or 0):
                hours.append(Hour(at_us, None, covered, "future"))
            elif not any(entered.values()) and not made.windows.known[np.ix_(within, mine)].any():
                hours.append(Hour(at_us, None, covered, "unknown"))
            else:
                hours.append(Hour(at_us, entered, covered, "measured"))
        measured = [one.entered for one in hours if one.entered is not None]
        total = {name: sum(one[name] for one in measured) for name in COUNTED} if measured else None
        floors.append(FloorTraffic(floor.id, total, _coverage(made, mine), tuple(hours)))
    return tuple(floors)


def _dwell(config: StoreConfig, made: DayFacts, number: int) -> ZoneDwell:
    zone, facts, base = config.zones[number], made.totals.zones[number], made.totals.base[number]
    least = config.thresholds.small_cell
    known = bool(base["known_windows"])
    bands = {name: int(facts[name]) if known else None for name in ("pass_by", "touch", "visit", "engaged")}
    only = np.arange(len(config.zones)) == number
    return ZoneDwell(
        zone=zone.id,
        floor=zone.floor,
        kind=zone.kind.value,
        n=int(sum(n or 0 for n in bands.values())) if known else None,
        censored=int(made.windows.zones["censored"][:, number].sum()),
        cart_visits=int(facts["cart"]) if known else None,
        median_s=quantile_s(made.totals.dwell[number], 0.5, least),
        p75_s=quantile_s(made.totals.dwell[number], 0.75, least),
        **bands,
        coverage=_coverage(made, only),
    )


def _flows(config: StoreConfig, made: DayFacts) -> Flows:
    ids = [zone.id for zone in config.zones]
    links = made.totals.flows.links[:-1, :-1]
    shown = (links > 0) & (made.totals.flows.link_journeys[:-1, :-1] >= config.thresholds.small_cell)
    rows = [Flow(ids[a], ids[b], int(links[a, b])) for a, b in np.argwhere(shown).tolist()]
    rows.sort(key=lambda flow: (-flow.n, flow.from_zone, flow.to_zone))
    return Flows(
        links=tuple(rows),
        n=int(links.sum()),
        suppressed_links=int(((links > 0) & ~shown).sum()),
        suppressed_n=int(links[~shown].sum()),
        unseen=made.totals.flows.unseen,
    )
