"""Paths of one tag class, without rare ones: the only path data of people without consent that leaves the store."""

from __future__ import annotations

import datetime as dt
import json
from collections import defaultdict
from dataclasses import dataclass

from config import StoreConfig, ZoneKind
from config.facts import DOORS, TAG_CLASSES, TagClassName
from dwell.paths import cleaned
from dwell.stays import Span
from edge.database.reader import Past
from edge.days.facts import place, read_stays, suspects

ALONE = 2
"""Minimum number of carriers, however small `small_cell` is: a path of one carrier identifies that carrier."""


@dataclass(frozen=True)
class Ways:
    """Number of journeys of each path, most frequent first."""

    counts: tuple[tuple[tuple[str, ...], int], ...]
    with_path: int
    """Journeys with a path, including those not listed."""


def ways(past: Past, date: dt.date, tag_class: TagClassName) -> Ways:
    """Count the paths of journeys that began on a business day, without suspected staff and stuck tags."""
    config = past.config
    span = Span(*past.bounds_us(date))
    stays, tags = read_stays(past, span)
    left_out = {tags[carrier] for carrier, one in suspects(stays, tags, config, date).items() if one.left_out}
    carriers: dict[tuple[str, ...], set[bytes]] = defaultdict(set)
    journeys: dict[tuple[str, ...], int] = defaultdict(int)
    for tag, path in past.conn.execute(
        "SELECT tag, path FROM journey WHERE start_us >= ? AND start_us < ? AND tag_class = ? AND NOT censored",
        (span.start_us, span.end_us, TAG_CLASSES.index(tag_class)),
    ):
        way = way_of(config, path)
        if way and tag not in left_out:
            carriers[way].add(tag)
            journeys[way] += 1
    least = max(config.thresholds.small_cell, ALONE)
    told = [(way, n) for way, n in journeys.items() if len(carriers[way]) >= least]
    return Ways(tuple(sorted(told, key=lambda one: (-one[1], one[0]))), sum(journeys.values()))


def way_of(config: StoreConfig, path: str) -> tuple[str, ...]:
    """Return the zones of a path in the order of first stops: doors and zones with a stay, without aisles."""
    visit_us, kinds = place(config).visit_us, {zone.id: zone.kind for zone in config.zones}
    number = {zone: n for n, zone in enumerate(kinds)}
    stops = [
        number[zone]
        for zone, enter_us, exit_us in json.loads(path)
        if zone in kinds
        and (kinds[zone] in DOORS or (kinds[zone] != ZoneKind.AISLE and exit_us - enter_us >= visit_us))
    ]
    names = tuple(kinds)
    return tuple(names[zone] for zone in cleaned(stops)) if stops else ()
