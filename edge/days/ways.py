"""Ways of carriers of one tag class, none that few of them took: all that may be told of who has not consented."""

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
"""However small `small_cell` is: a way of one carrier is that one's."""


@dataclass(frozen=True)
class Ways:
    """How many journeys took which way; the most taken first."""

    counts: tuple[tuple[tuple[str, ...], int], ...]
    with_path: int
    """Journeys with a path, those that are not listed too."""


def ways(past: Past, date: dt.date, tag_class: TagClassName) -> Ways:
    """Of the journeys that began on a business day, but for suspected staff and stuck tags."""
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
    """Zones of a journey's path in the order of first stops: doors, and where somebody stayed; without aisles."""
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
