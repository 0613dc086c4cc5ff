"""Business days by hour of the day, from a read-only connection: dwell by zone, visits per staff member.

See edge.days.counters.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwell.aggregates import MIDDLES_S
from edge.database.reader import Past
from edge.days import kept
from edge.days.hourly import HOUR_US, Hours
from edge.days.scope import Scope, over


@dataclass(frozen=True, slots=True)
class ZoneHour:
    """One zone in one hour of the day, of one or more days; all None if it was unknown or lies in the future."""

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


def over_hours(past: Past, date: dt.date, days: int = 1) -> Hours:
    """Return the hours of the `days` business days ending with `date`, added up."""
    return kept.total_hours(past, kept.ending(date, days))


def hours(past: Past, date: dt.date, days: int = 1) -> HourReport:
    """Compute for every zone and hour of the day: dwell, and visits per staff member; over several days, together.

    Times are those of the last day.
    """
    config = past.config
    scope, _ = over(past, date, days)
    found = over_hours(past, date, days)
    counts = kept.histograms(past, kept.ending(date, days))[: len(found.begun)]
    median, p75 = (quantiles(counts, q, config.thresholds.small_cell).tolist() for q in (0.5, 0.75))
    start_us = past.bounds_us(date)[0]
    begun = found.begun.tolist()
    table = {name: found.zones[name].tolist() for name in ("known_windows", *BANDS, "staff_us")}

    def cell(h: int, z: int) -> ZoneHour:
        at_us = start_us + h * HOUR_US
        state = "measured" if table["known_windows"][h][z] else "unknown" if begun[h] else "future"
        if state != "measured":
            return ZoneHour(at_us, state, *[None] * 9)
        bands = {name: table[name][h][z] for name in BANDS}
        staff_us = table["staff_us"][h][z]
        served = bands["visit"] + bands["engaged"]
        return ZoneHour(
            start_us=at_us,
            state=state,
            n=sum(bands.values()),
            **bands,
            median_s=median[h][z],
            p75_s=p75[h][z],
            staff_s=staff_us / 1e6,
            visits_per_staff_hour=served / (staff_us / HOUR_US) if staff_us >= LEAST_STAFF_US else None,
        )

    return HourReport(
        scope,
        tuple(
            ZoneHours(zone.id, zone.floor, zone.kind.value, tuple(cell(h, z) for h in range(len(begun))))
            for z, zone in enumerate(config.zones)
        ),
    )


BANDS = ("pass_by", "touch", "visit", "engaged")


def quantiles(counts: NDArray[np.int64], q: float, least: int) -> NDArray[Any]:
    """Return the (…) quantiles of (…, BINS) histograms in seconds, as dwell.aggregates.quantile does.

    None where there are fewer than `least` entries.
    """
    total = counts.sum(axis=-1)
    bins = (np.cumsum(counts, axis=-1) < np.maximum(q * total, 1)[..., None]).sum(axis=-1)
    found: NDArray[Any] = MIDDLES_S[np.minimum(bins, len(MIDDLES_S) - 1)].astype(object)
    found[total < max(least, 1)] = None
    return found
