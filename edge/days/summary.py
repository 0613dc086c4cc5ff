"""Summary of one or more business days from the database, for `tagtrail summary` and the page "Today".

Everything is a pure function of a read-only connection and the store file. People are carriers of member tags and of
tags without a known class. Carts are counted separately; staff, merchandise, suspected staff and stuck tags are not
counted. A figure that was not measured is None, never zero; `coverage` is the share of the opening hours so far in
which the readers of a place were up. Zones, flows and tiers come from edge.days.counters, flows and service.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from config.facts import COUNTED, WINDOW_US
from edge.database.reader import Past
from edge.days.counters import CounterScore, counters
from edge.days.flows import ZoneFlows, between
from edge.days.hours import over_hours
from edge.days.kept import DAY, day
from edge.days.scope import over
from edge.days.service import tiers
from edge.days.traffic import FloorTraffic, traffic
from sync import outbox


@dataclass(frozen=True)
class DoorCount:
    """Passages counted by a door counter, in either direction, with or without a tag."""

    zone: str
    reader: str
    port: int
    passages: int | None
    """None if the counter was never monitored."""
    coverage: float | None
    """Share of the day so far in which it was monitored; None before the first window is over."""


@dataclass(frozen=True)
class Tier:
    """Number of members of a tier seen; None if fewer than `small_cell`, or if a hidden number could be derived."""

    tier: str
    members: int | None


@dataclass(frozen=True)
class Summary:
    """Summary of one or more business days of one store, added up."""

    store: str
    date: str
    """The last day."""
    start_us: int
    end_us: int
    as_of_us: int | None
    """Everything before this time is counted; None if the database is empty. Open visits are counted when they end."""
    complete: bool
    """True if the day has been over for long enough that its last visits have ended."""
    def_version: int
    small_cell: int
    coverage: float | None
    """As in edge.days.scope.Scope."""
    journeys: Mapping[str, int]
    """Tag class → journeys that began on the day."""
    members_seen: int
    visits: int
    """People's zone visits of any length that began on the day."""
    floors: tuple[FloorTraffic, ...]
    zones: tuple[CounterScore, ...]
    flows: ZoneFlows
    suspected: int
    """Number of excluded tags: suspected staff and stuck tags."""
    tiers: tuple[Tier, ...]
    doors: tuple[DoorCount, ...]
    outbox: Mapping[str, Mapping[str, int]]
    """Class → `sent`, events ever committed for the CRM, and `pending`, those not yet acknowledged."""


@dataclass(frozen=True)
class Head:
    """What every page tells of its days: how much of them is known."""

    as_of_us: int | None
    complete: bool
    """As in Summary."""
    coverage: float | None
    small_cell: int
    unseen: bool
    """True if no reader has been up and nobody was counted; on a closed day, at any hour."""


def head(past: Past, date: dt.date, days: int = 1) -> Head:
    """Return how much is known of the `days` business days ending with `date`."""
    scope, found = over(past, date, days)
    dark = scope.coverage == 0
    if scope.coverage is None:  # closed; were readers up at any hour?
        hours = over_hours(past, date, days).zones
        dark = bool(hours["ended"].any() and not hours["share"].any())
    return Head(
        scope.as_of_us,
        _complete(past, date),
        scope.coverage,
        scope.small_cell,
        dark and not found.people.get("visits", 0),
    )


def summary(past: Past, date: dt.date, days: int = 1) -> Summary:
    """Summarise the `days` business days ending with `date`."""
    config = past.config
    (scope, found), scores, mix = over(past, date, days), counters(past, date, days), tiers(past, date, days)
    start_us, end_us = past.bounds_us(date - (days - 1) * DAY)[0], past.bounds_us(date)[1]
    return Summary(
        store=config.store.id,
        date=date.isoformat(),
        start_us=start_us,
        end_us=end_us,
        as_of_us=scope.as_of_us,
        complete=_complete(past, date),
        def_version=scope.def_version,
        small_cell=scope.small_cell,
        coverage=scope.coverage,
        journeys={name: int(found.store[name]) for name in COUNTED},
        members_seen=mix.members,
        visits=int(found.people.get("visits", 0)),
        floors=traffic(past, date, days),
        zones=scores.zones,
        flows=between(past, date, days),
        suspected=scope.suspected_staff,
        tiers=tuple(Tier(one.tier, one.members) for one in mix.tiers),
        doors=_doors(past, date, days, start_us, end_us) if any(reader.inputs for reader in config.readers) else (),
        outbox={class_: depth._asdict() for class_, depth in outbox.depth(past.conn).items()},
    )


def _complete(past: Past, date: dt.date) -> bool:
    now_us, end_us = past.watermark_us, past.bounds_us(date)[1]
    return now_us is not None and now_us >= end_us + round(past.config.thresholds.journey_end_silence_s * 1e6)


def _doors(past: Past, date: dt.date, days: int, start_us: int, end_us: int) -> tuple[DoorCount, ...]:
    made = day(past, date)
    # Windows that are over: all of the days before, and those of the last day that have a coverage.
    last_us = made.windows.windows_us[~np.isnan(made.windows.coverage).all(axis=1)].tolist()
    windows = (past.bounds_us(date)[0] - start_us) // WINDOW_US + len(last_us)
    until_us = last_us[-1] if last_us else past.bounds_us(date)[0] - 1
    counts = {
        (reader, port, zone): (passages, ever, covered_us)
        for reader, port, zone, passages, ever, covered_us in past.conn.execute(
            "SELECT reader, port, zone, sum(passages), max(covered_us) > 0, sum(covered_us * (window_us <= ?))"
            " FROM door WHERE window_us >= ? AND window_us < ? GROUP BY 1, 2, 3",
            (until_us, start_us, end_us),
        )
    }
    doors = []
    for reader in past.config.readers:
        for place in reader.inputs:
            passages, ever, covered_us = counts.get((reader.id, place.port, place.zone), (0, False, 0))
            coverage = min(1.0, covered_us / (windows * WINDOW_US)) if windows else None
            doors.append(DoorCount(place.zone, reader.id, place.port, passages if ever else None, coverage))
    return tuple(doors)
