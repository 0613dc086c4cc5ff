"""Arrivals on each floor by hour of a business day, from a read-only connection. See edge.days.counters."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.facts import COUNTED
from edge.database.reader import Past
from edge.days.facts import HOUR_US, Windows, hour_of
from edge.days.kept import day
from edge.days.scope import coverage


@dataclass(frozen=True, slots=True)
class Hour:
    """One hour of a floor; `entered` is None if nothing was measured: in the future, or no reader up."""

    start_us: int
    entered: Mapping[str, int] | None
    """Tag class → arrivals on the floor, from outside or from another floor."""
    coverage: float | None
    """Coverage (0 to 1) of the windows that have ended; None before the first one of the hour has ended."""
    state: str
    """measured · unknown (no reader was up) · future."""


@dataclass(frozen=True)
class FloorTraffic:
    """Arrivals on one floor."""

    floor: str
    entered: Mapping[str, int] | None
    coverage: float | None
    """Coverage of the floor's opening hours so far."""
    hours: tuple[Hour, ...]


def traffic(past: Past, date: dt.date) -> tuple[FloorTraffic, ...]:
    """Compute the arrivals on every floor on one business day, in the order of the store file."""
    config = past.config
    made = day(past, date)
    start_us, end_us = past.bounds_us(date)
    hour = hour_of(made.windows.windows_us, start_us)
    floors = []
    for number, floor in enumerate(config.floors):
        mine = np.array([zone.floor == floor.id for zone in config.zones])
        facts = made.windows.floors[:, number]
        hours = []
        for count, at_us in enumerate(range(start_us, end_us, HOUR_US)):
            within = hour == count
            covered = _covered(made.windows, within, mine)
            entered: dict[str, int] = {name: int(facts[name][within].sum()) for name in COUNTED}
            if at_us >= (made.as_of_us or 0):
                hours.append(Hour(at_us, None, covered, "future"))
            elif not any(entered.values()) and not made.windows.known[np.ix_(within, mine)].any():
                hours.append(Hour(at_us, None, covered, "unknown"))
            else:
                hours.append(Hour(at_us, entered, covered, "measured"))
        measured = [one.entered for one in hours if one.entered is not None]
        total: dict[str, int] = {name: sum(one[name] for one in measured) for name in COUNTED}
        covered = coverage(made.totals.base[mine])
        floors.append(FloorTraffic(floor.id, total if measured else None, covered, tuple(hours)))
    return tuple(floors)


def _covered(windows: Windows, hour: NDArray[np.bool_], zones: NDArray[np.bool_]) -> float | None:
    """Return the covered share of an hour's opening time; of the whole hour if the floor was closed."""
    share: NDArray[Any] = windows.coverage[np.ix_(hour, zones)]
    ended = ~np.isnan(share)
    if not ended.any():
        return None
    weight = windows.open_us[np.ix_(hour, zones)] * ended
    return float(np.average(np.nan_to_num(share), weights=weight if weight.any() else ended))
