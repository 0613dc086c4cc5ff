"""The plan as lens: zones coloured by one figure, with a scale, and arrows to the next stops of one zone."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from config import StoreConfig, ZoneKind
from edge.web.drawings.plan import Plan, PlanZone
from edge.words.languages import named
from edge.words.numbers import duration, number, percent

if TYPE_CHECKING:  # NumPy is imported with the first day
    from edge.days.flows import Step
    from edge.days.lens import Lens, Shade
    from edge.days.trends import TrendDay

STEPS = 5
"""Number of shades of a scale from 0."""
CHANGES = (-0.3, -0.15, -0.05, 0.05, 0.15, 0.3)
"""Limits between the shades of a scale of changes."""
ARROWS = 6
SHORT_M = 2.2
"""How far from the centre of a zone, where its figure stands, an arrow begins and ends at most."""
PASSED = (ZoneKind.ENTRANCE, ZoneKind.EXIT, ZoneKind.AISLE)
"""Kinds of zones that everybody passes: a scale up to their figures would show no difference between counters."""


@dataclass(frozen=True)
class LensZone:
    drawn: PlanZone
    name: str
    text: str
    """Its figure; a dash if there is too little data, a question mark if the zone was unknown."""
    shade: str
    """CSS class: lv1 … lv5, d0 … d6, none or unknown."""
    unsure: bool
    """True for a change whose interval includes 0, or that has none."""
    chosen: bool


@dataclass(frozen=True)
class Arrow:
    """A step from the chosen zone, from centre to centre in metres."""

    x1: float
    y1: float
    x2: float
    y2: float
    width: float
    to: str
    n: int


@dataclass(frozen=True)
class LensFloor:
    plan: Plan
    name: str
    zones: tuple[LensZone, ...]
    arrows: tuple[Arrow, ...]


@dataclass(frozen=True)
class Key:
    """One shade of the scale and what it stands for."""

    shade: str
    text: str


@dataclass(frozen=True)
class Spark:
    """A line of one value a day; x and y in per cent of its size."""

    points: tuple[tuple[float, float, TrendDay], ...]
    lines: tuple[tuple[float, float, float, float], ...]
    """Between days that follow each other, both measured."""
    most: int


def figure(measure: str, value: float | None, lang: str) -> str:
    """Format a figure."""
    if value is None:
        return "–"
    if measure in ("dwell", "waiting"):
        return duration(value, lang)
    if measure == "presence":
        return f"{value:.1f}"
    if measure in ("visits", "tickets"):
        return number(round(value))
    return f"{round(value * 100):+d} %" if measure == "change" else percent(value)


def lens_floors(
    config: StoreConfig, plans: Sequence[Plan], found: Lens, lang: str, chosen: str | None, stops: Iterable[Step]
) -> tuple[LensFloor, ...]:
    """Draw all floors, in the order of the store file."""
    limits = scale(config, found)
    shades = {shade.zone: shade for shade in found.zones}
    names = {zone.id: named(zone.name, lang) for zone in config.zones}
    away = [step for step in stops if chosen is not None and step.from_zone == chosen and step.to_zone][:ARROWS]
    floors = []
    for plan in plans:
        at = {drawn.id: drawn for drawn in plan.zones}
        zones = tuple(
            LensZone(
                *(drawn, names[drawn.id], _text(found.measure, shades[drawn.id], lang)),
                shade_of(found.measure, shades[drawn.id], limits),
                *(found.measure == "change" and not _sure(shades[drawn.id]), drawn.id == chosen),
            )
            for drawn in plan.zones
        )
        most = max((step.n for step in away), default=1)
        arrows = tuple(
            Arrow(
                *_between(at[chosen], at[step.to_zone]),
                *(round(0.15 + 0.45 * step.n / most, 3), names[step.to_zone], step.n),
            )
            for step in away
            if chosen is not None and step.to_zone is not None and chosen in at and step.to_zone in at
        )
        floors.append(LensFloor(plan, named(plan.name, lang), zones, arrows))
    return tuple(floors)


def scale(config: StoreConfig, found: Lens) -> tuple[float, ...]:
    """Return the limits between the shades of a figure."""
    if found.measure == "change":
        return CHANGES
    passed = {zone.id for zone in config.zones if zone.kind in PASSED}
    told = [(shade.zone in passed, shade.value) for shade in found.zones if shade.value is not None]
    stopped = [value for is_passed, value in told if not is_passed and value > 0]
    most = max(stopped or [value for _, value in told], default=1.0)
    top = 1.0 if found.measure in ("staff", "coverage") else _round_up(most)
    return tuple(top * step / STEPS for step in range(1, STEPS))


def keys(config: StoreConfig, found: Lens, lang: str) -> tuple[Key, ...]:
    """Return the scale: each shade with its range of values."""
    limits = scale(config, found)
    texts = [figure(found.measure, limit, lang) for limit in limits]
    prefix = "d" if found.measure == "change" else "lv"
    first = int(found.measure != "change")
    ranges = [f"< {texts[0]}", *(f"{a} … {b}" for a, b in pairwise(texts)), f"≥ {texts[-1]}"]
    return tuple(Key(f"{prefix}{place + first}", text) for place, text in enumerate(ranges))


def shade_of(measure: str, shade: Shade, limits: Sequence[float]) -> str:
    """Return the CSS class of a zone."""
    if not shade.known and shade.value is None:
        return "unknown"
    if shade.value is None:
        return "none"
    place = bisect_right(limits, shade.value)
    return f"d{place}" if measure == "change" else f"lv{place + 1}"


def spark(days: Sequence[TrendDay]) -> Spark | None:
    """Draw a trend; None with fewer than two days."""
    told = [day.visits for day in days if day.visits is not None]
    if len(told) < 2:
        return None
    most = max(*told, 1)
    points = [
        (round(100 * (place + 0.5) / len(days), 2), round(96 - 88 * day.visits / most, 2), day)
        for place, day in enumerate(days)
        if day.visits is not None
    ]
    lines = [(x1, y1, x2, y2) for (x1, y1, one), (x2, y2, two) in pairwise(points) if (two.date - one.date).days == 1]
    return Spark(tuple(points), tuple(lines), most)


def _between(one: PlanZone, other: PlanZone) -> tuple[float, float, float, float]:
    """Return both ends of an arrow in metres, which leaves the figures in both zones readable."""
    x, y = other.x - one.x, other.y - one.y
    long = math.hypot(x, y) or 1.0
    cut = min(SHORT_M / long, 0.3)
    ends = (one.x + x * cut, one.y + y * cut, other.x - x * cut, other.y - y * cut)
    x1, y1, x2, y2 = (round(value, 2) for value in ends)
    return x1, y1, x2, y2


def _text(measure: str, shade: Shade, lang: str) -> str:
    if not shade.known and shade.value is None:
        return "?"
    text = figure(measure, shade.value, lang)
    return f"({text})" if measure == "change" and shade.value is not None and not _sure(shade) else text


def _sure(shade: Shade) -> bool:
    return shade.low is not None and shade.high is not None and (shade.low > 0 or shade.high < 0)


def _round_up(value: float) -> float:
    """Return the next number of the form 1, 2, 2.5 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value * (1 - 1e-9))
