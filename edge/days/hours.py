"""A business day by hour, from a read-only connection: dwell by zone, visits per staff member.

See edge.days.counters.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np

from edge.database.reader import Past
from edge.days.facts import HOUR_US, hour_of
from edge.days.kept import by_hour, day
from edge.days.scope import Scope, over, quantile_s


@dataclass(frozen=True, slots=True)
class ZoneHour:
    """One zone in one hour of the day; all None if it was unknown or lies in the future."""

    start_us: int
    state: str
    """measured · unknown · future."""
    n: int | None
    """Number of people's complete visits, which bands and median are based on."""
    pass_by: int | None
    touch: int | None
    visit: int | None
    engaged: int | None
    median_s: float | None
    p75_s: float | None
    staff_s: float | None
    """Total presence of staff badges."""
    visits_per_staff_hour: float | None
    """Visits of visit_s or longer per staff member and hour; None below a quarter of a staff hour."""


@dataclass(frozen=True)
class ZoneHours:
    zone: str
    floor: str
    kind: str
    hours: tuple[ZoneHour, ...]


@dataclass(frozen=True)
class HourReport:
    scope: Scope
    zones: tuple[ZoneHours, ...]


LEAST_STAFF_US = HOUR_US // 4


def hours(past: Past, date: dt.date) -> HourReport:
    """Compute for every zone and hour: dwell, and visits per staff member."""
    config = past.config
    scope, _ = over(past, date, 1)
    made, dwell = day(past, date), by_hour(past, date)
    start_us, end_us = past.bounds_us(date)
    hour = hour_of(made.windows.windows_us, start_us)
    as_of_us = made.as_of_us or 0
    least = config.thresholds.small_cell

    def cell(zone: int, number: int) -> ZoneHour:
        at_us = start_us + number * HOUR_US
        mine = hour == number
        known = made.windows.known[mine, zone]
        state = "future" if at_us >= as_of_us else "measured" if known.any() else "unknown"
        if state != "measured":
            return ZoneHour(at_us, state, *[None] * 9)
        facts = made.windows.zones[mine, zone][known]
        bands = {name: int(facts[name].sum()) for name in ("pass_by", "touch", "visit", "engaged")}
        histogram = dwell[number, zone] if number < len(dwell) else np.zeros(1, np.uint32)
        staff_us = int(facts["staff_us"].sum())
        served = bands["visit"] + bands["engaged"]
        return ZoneHour(
            start_us=at_us,
            state=state,
            n=sum(bands.values()),
            **bands,
            median_s=quantile_s(histogram, 0.5, least),
            p75_s=quantile_s(histogram, 0.75, least),
            staff_s=staff_us / 1e6,
            visits_per_staff_hour=served / (staff_us / HOUR_US) if staff_us >= LEAST_STAFF_US else None,
        )

    every = range(-((start_us - end_us) // HOUR_US))
    return HourReport(
        scope,
        tuple(
            ZoneHours(zone.id, zone.floor, zone.kind.value, tuple(cell(z, number) for number in every))
            for z, zone in enumerate(config.zones)
        ),
    )
