"""edge.summary's day, from the day's facts: so it says what scorecards say."""

from __future__ import annotations

import datetime as dt
import sqlite3

import numpy as np
from numpy.typing import NDArray

from config import StoreConfig
from edge.analytics import hide, quantile_s
from edge.dayfacts import HOUR_US, DayFacts, hour_of
from edge.daystore import day
from edge.people import business_days
from edge.summary import COUNTED, WINDOW_US, DoorCount, FloorTraffic, Flow, Flows, Hour, Summary, Tier, ZoneDwell
from sync import outbox


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
