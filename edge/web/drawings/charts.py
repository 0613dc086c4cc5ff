"""Charts of the page "Today": bars in per cent of the chart, and flows in Plotly's format."""

from __future__ import annotations

import datetime as dt
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from config import StoreConfig
from config.facts import PEOPLE
from edge.words.languages import named

if TYPE_CHECKING:  # NumPy is imported with the first day
    from edge.days.counters import CounterScore
    from edge.days.flows import Step, ZoneFlows
    from edge.days.traffic import FloorTraffic, Hour

TOP_PERCENT = 88.0
"""Height of the highest bar, leaving room for its number."""
PEOPLE_SHARE = 0.72
"""Share of a bar's width for people; the rest is for carts."""
USUAL_HOURS = (8, 22)
"""Local hours that a chart always shows."""
MOST_LINKS = 30
"""Maximum number of links in the Sankey diagram; with more it is unreadable. The table has all of them."""


@dataclass(frozen=True)
class Part:
    """A rectangle of a bar, in per cent."""

    name: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Bar:
    label: str
    x: float
    width: float
    state: str
    people: int | None
    carts: int | None
    hour: Hour
    top: float
    """Upper end of the people's bar."""
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Chart:
    """Traffic of one floor by hour; all floors of a day use the same hours and scale."""

    traffic: FloorTraffic
    name: str
    people: int | None
    carts: int | None
    bars: tuple[Bar, ...]


Cell = tuple[int | None, int]
NEIGHBOURS = 4


@dataclass(frozen=True)
class Counter:
    """A counter with the stops that people came from and went to."""

    bands: Bands
    came_from: tuple[Step, ...]
    """Steps from other stops or from outside, most frequent first."""
    went_to: tuple[Step, ...]


@dataclass(frozen=True)
class Bands:
    """Shares of a zone's visits by dwell band: (name, x, width) in per cent."""

    zone: CounterScore
    name: str
    floor: str
    n: int
    parts: tuple[tuple[str, float, float], ...]


def traffic_charts(config: StoreConfig, floors: Sequence[FloorTraffic], lang: str) -> tuple[Chart, ...]:
    """Build one chart per floor, in the order of the store file."""
    hours = [dt.datetime.fromtimestamp(hour.start_us / 1e6, config.store.tz) for hour in floors[0].hours]
    shown = [
        i
        for i, at in enumerate(hours)
        if USUAL_HOURS[0] <= at.hour < USUAL_HOURS[1]
        or any(sum((floor.hours[i].entered or {}).values()) for floor in floors)
    ]
    span = range(min(shown), max(shown) + 1)
    most = max(max(_people(floor.hours[i].entered) or 0 for i in span) for floor in floors)
    most = max(most, *((floor.hours[i].entered or {}).get("cart", 0) for floor in floors for i in span), 1)
    names = {floor.id: named(floor.name, lang) for floor in config.floors}
    step = 100 / len(span)
    charts = []
    for floor in floors:
        bars = []
        for place, i in enumerate(span):
            hour = floor.hours[i]
            x, width = round(place * step + step * 0.12, 2), round(step * 0.76, 2)
            parts, top = [], 0.0
            # Carts are not people, so their bar is next to people's, not on top.
            wide = round(width * PEOPLE_SHARE, 2)
            for name in PEOPLE:
                height = (hour.entered or {}).get(name, 0) / most * TOP_PERCENT
                top += height
                parts.append(Part(name, x, round(100 - top, 2), wide, round(height, 2)))
            height = (hour.entered or {}).get("cart", 0) / most * TOP_PERCENT
            narrow = round(width - wide, 2)
            parts.append(Part("cart", round(x + wide, 2), round(100 - height, 2), narrow, round(height, 2)))
            people, carts = _people(hour.entered), None if hour.entered is None else hour.entered.get("cart", 0)
            label = f"{hours[i]:%H}"
            bars.append(Bar(label, x, width, hour.state, people, carts, hour, round(100 - top, 2), tuple(parts)))
        carts = None if floor.entered is None else floor.entered.get("cart", 0)
        charts.append(Chart(floor, names[floor.floor], _people(floor.entered), carts, tuple(bars)))
    return tuple(charts)


def _people(entered: Mapping[str, int] | None) -> int | None:
    return None if entered is None else sum(entered.get(name, 0) for name in PEOPLE)


def dwell_bands(config: StoreConfig, scores: Iterable[CounterScore], lang: str) -> tuple[Bands, ...]:
    """Build the bands: counters first, then other zones; within each group most visited first, unknown last."""
    zones = {zone.id: named(zone.name, lang) for zone in config.zones}
    floors = {floor.id: named(floor.name, lang) for floor in config.floors}
    rows = []
    for zone in sorted(scores, key=lambda z: (z.kind != "counter", z.n is None, -(z.n or 0), z.zone)):
        n = zone.n or 0
        parts, x = [], 0.0
        for name in ("pass_by", "touch", "visit", "engaged"):
            width = (getattr(zone, name) or 0) / n * 100 if n else 0.0
            parts.append((name, round(x, 2), round(width, 2)))
            x += width
        rows.append(Bands(zone, zones[zone.zone], floors[zone.floor], n, tuple(parts)))
    return tuple(rows)


def sankey(config: StoreConfig, flows: ZoneFlows, lang: str) -> str:
    """Build the JSON of the most frequent links: labels and floor numbers of nodes; from, to and n of links."""
    links = flows.links[:MOST_LINKS]
    used = {link.from_zone for link in links} | {link.to_zone for link in links}
    floor_number = {floor.id: i for i, floor in enumerate(config.floors)}
    nodes = [zone for zone in config.zones if zone.id in used]
    place = {zone.id: i for i, zone in enumerate(nodes)}
    known = [link for link in links if link.from_zone in place and link.to_zone in place]
    return json.dumps(
        {
            "labels": [named(zone.name, lang) for zone in nodes],
            "floors": [floor_number[zone.floor] for zone in nodes],
            "from": [place[link.from_zone] for link in known],
            "to": [place[link.to_zone] for link in known],
            "n": [link.n for link in known],
        },
        ensure_ascii=False,
    )


def counter_cards(
    config: StoreConfig, scores: Iterable[CounterScore], stops: Iterable[Step], lang: str
) -> tuple[Counter, ...]:
    """Build the cards of all counters, most visited first, unknown last. Scores and steps are from the same days."""
    into: dict[str | None, list[Step]] = defaultdict(list)
    out: dict[str | None, list[Step]] = defaultdict(list)
    for step in stops:
        into[step.to_zone].append(step)
        out[step.from_zone].append(step)
    return tuple(
        Counter(
            bands=row, came_from=tuple(into[row.zone.zone][:NEIGHBOURS]), went_to=tuple(out[row.zone.zone][:NEIGHBOURS])
        )
        for row in dwell_bands(config, scores, lang)
        if row.zone.kind == "counter"
    )


def flow_matrix(config: StoreConfig, flows: ZoneFlows) -> tuple[tuple[str, ...], tuple[tuple[Cell, ...], ...]]:
    """Build the flow matrix: zones with flows in the order of the store file; count and shade from row to column."""
    used = {link.from_zone for link in flows.links} | {link.to_zone for link in flows.links}
    zones = tuple(zone.id for zone in config.zones if zone.id in used)
    n = {(link.from_zone, link.to_zone): link.n for link in flows.links}
    most = max(n.values(), default=1)
    return zones, tuple(tuple((n.get((a, b)), ceil(4 * n.get((a, b), 0) / most)) for b in zones) for a in zones)
