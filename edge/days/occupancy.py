"""Occupancy of zones and floors, from a read-only connection. See edge.days.counters."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.facts import WINDOW_US
from edge.database.reader import Past
from edge.days.facts import place
from edge.days.hourly import HOUR_US
from edge.days.hours import over_hours
from edge.days.kept import day
from edge.days.scope import Scope, over

PROVISIONAL_US = HOUR_US
"""Visits are counted when they end, so the occupancy of the last hour may still increase."""


@dataclass(frozen=True, slots=True)
class OccupancyWindow:
    start_us: int
    mean: float | None
    """Mean number of people present in the window; None if unknown or in the future."""
    peak: int | None
    state: str
    """measured · unknown · future."""
    provisional: bool
    """True if visits in progress are not included yet."""


@dataclass(frozen=True)
class Occupancy:
    """Occupancy of a zone or floor on one business day."""

    place: str
    floor: bool
    mean: float | None
    """Mean over the known windows in opening hours."""
    peak: int | None
    windows: tuple[OccupancyWindow, ...]


@dataclass(frozen=True)
class OccupancyReport:
    scope: Scope
    floors: tuple[Occupancy, ...]
    zones: tuple[Occupancy, ...]


def by_hour(past: Past, date: dt.date, days: int = 1) -> OccupancyReport:
    """Compute mean and peak occupancy by hour of the day over one or more days; `windows` are these hours.

    Times are those of the last day.
    """
    config = past.config
    scope, _ = over(past, date, days)
    found = over_hours(past, date, days)
    start_us, end_us = past.bounds_us(date)
    silence_us = round(config.thresholds.journey_end_silence_s * 1e6)
    as_of_us = scope.as_of_us or 0
    complete = (past.watermark_us or 0) >= end_us + silence_us

    def row(name: str, floor: bool, facts: NDArray[Any], present: str, span: str) -> Occupancy:
        cells = []
        for h, (length, long_us, peak) in enumerate(
            zip(facts["span_us"].tolist(), facts["present_us"].tolist(), facts["peak"].tolist(), strict=True)
        ):
            at_us = start_us + h * HOUR_US
            state = "measured" if length else "unknown" if found.begun[h] else "future"
            fresh = not complete and at_us + HOUR_US > as_of_us - PROVISIONAL_US
            cells.append(
                OccupancyWindow(at_us, long_us / length if length else None, peak if length else None, state, fresh)
            )
        length = int(facts[span].sum())
        mean = float(facts[present].sum() / length) if length else None
        peaks = [cell.peak for cell in cells if cell.peak is not None]
        return Occupancy(name, floor, mean, max(peaks, default=None), tuple(cells))

    return OccupancyReport(
        scope,
        tuple(
            row(floor.id, True, found.floors[:, n], "open_present_us", "open_span_us")
            for n, floor in enumerate(config.floors)
        ),
        tuple(row(zone.id, False, found.zones[:, n], "present_us", "span_us") for n, zone in enumerate(config.zones)),
    )


def occupancy(past: Past, date: dt.date) -> OccupancyReport:
    """Compute mean and peak occupancy by window, floor and zone."""
    config = past.config
    scope, _ = over(past, date, 1)
    made = day(past, date)
    windows, store = made.windows, place(config)
    end_us = past.bounds_us(date)[1]
    as_of_us = made.as_of_us or 0

    def row(name: str, floor: bool, facts: NDArray[Any], known: NDArray[np.bool_], open_us: NDArray[Any]) -> Occupancy:
        cells, lengths = [], []
        for number, start_us in enumerate(windows.windows_us.tolist()):
            length = min(start_us + WINDOW_US, end_us, max(as_of_us, start_us)) - start_us
            state = "future" if length <= 0 else "measured" if known[number] else "unknown"
            measured = state == "measured"
            cells.append(
                OccupancyWindow(
                    start_us,
                    float(facts["present_us"][number] / length) if measured else None,
                    int(facts["peak"][number]) if measured else None,
                    state,
                    not made.complete and start_us + WINDOW_US > as_of_us - PROVISIONAL_US,
                )
            )
            lengths.append(length if measured and open_us[number] > 0 else 0)
        used = np.array(lengths) > 0
        mean = float(facts["present_us"][used].sum() / sum(lengths)) if used.any() else None
        peaks = [cell.peak for cell in cells if cell.peak is not None]
        return Occupancy(name, floor, mean, max(peaks, default=None), tuple(cells))

    on = [store.zone_floor == number for number in range(store.floors)]
    return OccupancyReport(
        scope,
        tuple(
            row(
                floor.id,
                True,
                windows.floors[:, n],
                np.any(windows.known[:, on[n]], axis=1),
                windows.open_us[:, on[n]].max(axis=1, initial=0),
            )
            for n, floor in enumerate(config.floors)
        ),
        tuple(
            row(zone.id, False, windows.zones[:, n], windows.known[:, n], windows.open_us[:, n])
            for n, zone in enumerate(config.zones)
        ),
    )
