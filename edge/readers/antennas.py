"""Statistics per antenna for the installer on the ladder: reads and their RSSI since the start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.read import ANTENNA_UNKNOWN, RSSI_UNKNOWN, Reads
from dwell.layout import TagClass
from dwell.visits import Visits
from edge.store.compose import Shop

HISTOGRAM_DBM = (-85, -25, 5)
"""First, last and width of the bins; weaker and stronger reads count in the outermost ones."""
BINS = (HISTOGRAM_DBM[1] - HISTOGRAM_DBM[0]) // HISTOGRAM_DBM[2]
DRIFT_TOLD_DB = 3.0
"""Drift from which the antenna should be checked: docs/engine.md."""
NEVER = -1
_BARS = " ▁▂▃▄▅▆▇█"


class Antennas:
    """Counts and time of the last read by antenna; reads without RSSI are in no bin."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._reads = np.zeros(len(shop.ports), np.int64)
        self._last_us = np.full(len(shop.ports), NEVER, np.int64)
        self._levels = np.zeros((len(shop.ports), BINS), np.int64)

    def add(self, reads: Reads) -> None:
        """Count a batch."""
        antenna, level = reads["antenna"].astype(np.int64), reads["rssi_cdbm"]
        known = antenna != ANTENNA_UNKNOWN
        n = len(self._reads)
        counts = np.bincount(antenna[known], reads["count"][known], n).astype(np.int64)
        self._reads += counts
        if len(reads):
            self._last_us[counts > 0] = reads["time_us"].max()
        known &= level != RSSI_UNKNOWN
        places = antenna[known] * BINS + bins(level[known])
        self._levels += np.bincount(places, minlength=n * BINS).reshape(n, BINS)

    def of(self, reader: str) -> list[dict[str, Any]]:
        """Return port, zone, reads, last read and histogram (BINS counts) of each antenna of a reader, by port."""
        found = [
            {
                "port": self._shop.ports[antenna][1],
                "zone": self._shop.zones[int(self._shop.layout.antenna_zone[antenna])],
                "reads": int(self._reads[antenna]),
                "last_us": None if self._last_us[antenna] == NEVER else int(self._last_us[antenna]),
                "histogram": self._levels[antenna].tolist(),
            }
            for antenna in self._shop.antennas_of[reader].tolist()
        ]
        return sorted(found, key=lambda each: each["port"])


def drifted(shop: Shop, drift_db: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Return antennas that have become louder (+) or quieter (-) than the layout says, by reader and port."""
    return [
        {
            "reader": shop.ports[antenna][0],
            "port": shop.ports[antenna][1],
            "zone": shop.zones[int(shop.layout.antenna_zone[antenna])],
            "drift_db": round(float(drift_db[antenna]), 1),
        }
        for antenna in np.flatnonzero(np.abs(drift_db) >= DRIFT_TOLD_DB).tolist()
    ]


def resting(shop: Shop, stuck: Visits) -> list[dict[str, Any]]:
    """Return tags that are stuck now, longest first: class, place, since when. Never their identity."""
    return [
        {
            "zone": shop.zones[int(visit["zone"])],
            "tag_class": TagClass(visit["tag_class"]).name.lower(),
            "since_us": int(visit["enter_us"]),
        }
        for visit in np.sort(stuck[stuck["zone"] >= 0], order="enter_us")
    ]


def bins(levels_cdbm: NDArray[np.int16]) -> NDArray[np.int64]:
    """Return the bins (n,) of HISTOGRAM_DBM."""
    first, _, width = HISTOGRAM_DBM
    places: NDArray[np.int64] = np.clip((levels_cdbm.astype(np.int64) - 100 * first) // (100 * width), 0, BINS - 1)
    return places


def bars(counts: Sequence[int]) -> str:
    """Format a histogram as text; empty if it has no counts."""
    most = max(counts)
    # Any read at all shows: a rare strong read is what gives a neighbour's antenna away.
    return "".join(_BARS[0 if n == 0 else max(1, round(8 * n / most))] for n in counts) if most else ""
