"""Facts of business days by hour of the day; those of several days add up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dwell.facts import FLOOR_FACTS, ZONE_FACTS, Table

HOUR_US = 3_600_000_000
ZONE_HOUR = np.dtype(
    [
        *ZONE_FACTS.descr,  # in known windows
        ("journeys", "<i8"),  # people's journeys that began while the zone was known: denominator of its rates
        ("stopped", "<i8"),  # of these, journeys that stopped at a counter
        ("open_us", "<i8"),  # opening time so far
        ("covered_us", "<f8"),  # of this, time with the zone's readers up
        ("known_us", "<i8"),  # of this, time in known windows
        ("staffed_open_us", "<i8"),  # of this, time with a staff badge in the zone
        ("known_windows", "<i8"),
        ("span_us", "<i8"),  # length of these windows so far: denominator of mean occupancy
        ("ended", "<i8"),  # windows that are over, except those of zones without antennas
        ("share", "<f8"),  # sum of their coverage, open or closed
    ]
)
FLOOR_HOUR = np.dtype(
    [
        *FLOOR_FACTS.descr,  # comings in all windows; presence and peak where any of its zones is known
        ("span_us", "<i8"),  # length of these windows so far
        ("open_present_us", "<i8"),  # presence in opening hours
        ("open_span_us", "<i8"),  # length of these windows so far, in opening hours
    ]
)


PARTS = ("zones", "floors", "store", "begun")


@dataclass(frozen=True)
class Hours:
    """H hours of the business day, Z zones, F floors; of one day or of several together."""

    zones: Table
    """(H, Z) ZONE_HOUR."""
    floors: Table
    """(H, F) FLOOR_HOUR."""
    store: Table
    """(H,) dwell.facts.STORE_FACTS."""
    begun: NDArray[np.int64]
    """(H,) number of days on which the hour has begun."""

    def __add__(self, other: Hours) -> Hours:
        """Add two; days on which clocks change have an hour more or less."""
        long = max(len(self.begun), len(other.begun))
        return Hours(*(added(*(padded(getattr(of, name), long) for of in (self, other))) for name in PARTS))


def added(one: Table, two: Table) -> Table:
    """Add tables field by field; of peaks, take the higher one."""
    if one.dtype.names is None:
        return one + two
    out = one.copy()
    for name in one.dtype.names:
        out[name] = np.maximum(one[name], two[name]) if name == "peak" else one[name] + two[name]
    return out


def hour_of(windows_us: NDArray[np.int64], start_us: int) -> NDArray[np.int64]:
    """Return the (W,) hour of the business day, from 0, in which each window begins."""
    hour: NDArray[np.int64] = (np.maximum(windows_us, start_us) - start_us) // HOUR_US
    return hour


def summed(table: Table, hour: NDArray[np.int64], dtype: np.dtype[np.void] | None = None) -> Table:
    """Sum a table's (W, …) rows by hour, into a type that may have more fields; of peaks, take the highest."""
    kind = dtype or table.dtype
    out = np.zeros((int(hour[-1]) + 1, *table.shape[1:]), kind)
    first = np.flatnonzero(np.diff(hour, prepend=-1))
    at = hour[first]
    if table.dtype.names is None:
        out[at] = np.add.reduceat(table, first, axis=0)
        return out
    for name in table.dtype.names:
        out[name][at] = (np.maximum if name == "peak" else np.add).reduceat(table[name], first, axis=0)
    return out


def padded(table: Table, long: int) -> Table:
    """Return a table with zeros for the hours that it lacks."""
    if len(table) == long:
        return table
    return np.concatenate([table, np.zeros((long - len(table), *table.shape[1:]), table.dtype)])
