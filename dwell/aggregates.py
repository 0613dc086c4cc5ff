"""15-minute rows of zone × tag class and of floors, and the dwell histogram in them: pure, and mergeable by adding.

Histogram: BINS counts of dwell times. Bin 0 is below 1 s; bin i ≥ 1 reaches from RATIO**(i - 1) s to RATIO**i s; the
last one is open. A quantile is read as the geometric middle of its bin: off by at most RELATIVE_ERROR between 1 s and
12 h. Histograms with these bins merge by addition, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwell.layout import Layout, Settings, TagClass
from dwell.visits import VISIT, Visits

RATIO = 1.1
RELATIVE_ERROR = RATIO**0.5 - 1.0
BINS = 114
"""RATIO**112 s are 12 h."""
MIDDLES_S = np.where(np.arange(BINS) == 0, 0.5, RATIO ** (np.arange(BINS) - 0.5))
"""(BINS,) what a dwell time in each bin is taken for, seconds."""
EDGES_S = np.concatenate([[0.0], RATIO ** np.arange(BINS - 1), [np.inf]])
"""(BINS + 1,) edges of the bins, seconds."""
NEVER = np.iinfo(np.int64).max

WINDOW = np.dtype(
    [
        ("window_us", "<i8"),  # its start
        ("present_us", "<i8"),  # presence within it, summed over tags
        ("zone", "<i2"),
        ("tag_class", "u1"),
        ("entered", "<u4"),  # visits that began in it
        ("ended", "<u4"),  # visits that ended in it, of which:
        ("censored", "<u4"),  # not fully seen: in no band and not in the histogram
        ("pass_by", "<u4"),
        ("touch", "<u4"),
        ("visit", "<u4"),
        ("engaged", "<u4"),
        ("peak", "<u4"),  # most tags present at once
        ("coverage", "<f4"),  # share of the window in which the zone's antennas were up, their mean; 0 without any
        ("histogram", "<u4", (BINS,)),
    ]
)
Windows = NDArray[Any]
"""One-dimensional array of dtype WINDOW."""
FLOOR_WINDOW = np.dtype(
    [
        ("window_us", "<i8"),
        ("present_us", "<i8"),  # people's presence within it, summed
        ("floor", "<i2"),
        *((name, "<u4") for name in ("member", "unknown", "cart")),  # comings, from outside or another floor
        ("visitors", "<u4"),  # people who were in any zone of it, each once: no sum of its zones'
        ("peak", "<u4"),  # most people at once
        ("coverage", "<f4"),  # of its zones with antennas, the mean; 0 without any
    ]
)
Floors = NDArray[Any]
"""One-dimensional array of dtype FLOOR_WINDOW."""
PEOPLE = (TagClass.UNKNOWN, TagClass.MEMBER)


def histogram(dwell_us: NDArray[np.int64]) -> NDArray[np.uint32]:
    """(BINS,) counts of dwell times."""
    return np.bincount(bins(dwell_us), minlength=BINS).astype(np.uint32)


def quantile(counts: NDArray[np.integer[Any]], q: float) -> float:
    """Dwell in seconds below which a share `q` of the counted visits lies; nan without any."""
    total = int(counts.sum())
    if not total:
        return float("nan")
    return float(MIDDLES_S[np.searchsorted(np.cumsum(counts), max(q * total, 1))])


def bins(dwell_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bin number of each dwell time."""
    seconds = np.maximum(np.asarray(dwell_us, np.float64) / 1e6, 1e-9)
    numbers: NDArray[np.int64] = np.floor(np.log(seconds) / np.log(RATIO)).astype(np.int64) + 1
    return np.clip(numbers, 0, BINS - 1)


def tally(visits: NDArray[Any], ended_us: NDArray[np.int64], start: int, zones: int, settings: Settings) -> Windows:
    """The window at `start` of visits (or stays), which ended at `ended_us`: one row a zone (class member), and more
    for other classes with anything in them. Coverage is left 0."""
    end = start + settings.window_us
    key = visits["zone"].astype(np.int64) * len(TagClass) + visits["tag_class"]
    inside = (visits["enter_us"] < end) & ((visits["exit_us"] > start) | (ended_us < end))
    visits, ended_us, key = visits[inside], ended_us[inside], key[inside]
    every_zone = np.arange(zones) * len(TagClass) + TagClass.MEMBER
    keys = np.union1d(every_zone, key)
    row = np.searchsorted(keys, key)
    windows = np.zeros(len(keys), WINDOW)
    windows["window_us"] = start
    windows["zone"], windows["tag_class"] = np.divmod(keys, len(TagClass))
    began = (visits["enter_us"] >= start) & (visits["enter_us"] < end)
    ended = (ended_us >= start) & (ended_us < end)
    whole = ended & (visits["censored"] == 0)
    dwell = visits["exit_us"] - visits["enter_us"]
    band = np.digitize(dwell, (settings.touch_us, settings.visit_us, settings.engaged_us))
    for name, mask in (
        ("entered", began),
        ("ended", ended),
        ("censored", ended & ~whole),
        *((name, whole & (band == i)) for i, name in enumerate(("pass_by", "touch", "visit", "engaged"))),
    ):
        windows[name] = np.bincount(row[mask], minlength=len(keys))
    low, high = np.maximum(visits["enter_us"], start), np.minimum(visits["exit_us"], end)
    np.add.at(windows["present_us"], row, np.maximum(high - low, 0))
    np.add.at(windows["histogram"], (row[whole], bins(dwell[whole])), 1)
    there = high > low
    windows["peak"] = peaks(row[there], low[there], high[there], len(keys))
    return windows


@dataclass
class Aggregates:
    """Windows in the making. Visits go in as they close; a window comes out once, when all of it is decided."""

    layout: Layout
    settings: Settings
    next_us: int = -1
    """Start of the next window to come out, -1 before anything has happened."""
    _visits: Visits = field(default_factory=lambda: np.zeros(0, VISIT))
    _before: NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, np.int16))
    """(n,) zone of the visit before in the same journey, -1 of its first."""
    _ended_us: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    _down: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 3), np.int64))
    """(n, 3) antenna, from, to (NEVER: still): when antennas were down."""

    def begin(self, at_us: int) -> None:
        """Something happens at `at_us`; the first call sets the first window."""
        if self.next_us < 0:
            self.next_us = at_us // self.settings.window_us * self.settings.window_us

    def outage(self, antennas: NDArray[np.int64], at_us: int, up: bool) -> None:
        """Antennas go up or down."""
        open_ = self._down[:, 2] == NEVER
        if up:
            self._down[open_ & np.isin(self._down[:, 0], antennas), 2] = at_us
        else:
            fresh = np.setdiff1d(antennas, self._down[open_, 0])
            rows = np.column_stack([fresh, np.full(len(fresh), at_us), np.full(len(fresh), NEVER)])
            self._down = np.concatenate([self._down, rows])

    def closed(self, visits: Visits, before: NDArray[np.int16]) -> None:
        """Visits ended; what ends in a window that is out already, since it was held open, counts in the next one.

        `before`: (n,) zone of the visit before in the same journey, -1 of its first.
        """
        self._visits = np.concatenate([self._visits, visits])
        self._before = np.concatenate([self._before, before])
        self._ended_us = np.concatenate([self._ended_us, np.maximum(visits["exit_us"], self.next_us)])

    def window(self, open_visits: Visits, before: NDArray[np.int16]) -> tuple[Windows, Floors]:
        """The window at `next_us`: one row a zone (class member), and more for other classes with anything in them; and
        one row a floor."""
        end = self.next_us + self.settings.window_us
        visits = np.concatenate([self._visits, open_visits])
        ended_us = np.concatenate([self._ended_us, np.full(len(open_visits), NEVER)])
        windows = tally(visits, ended_us, self.next_us, len(self.layout.zone_kind), self.settings)
        coverage = self._coverage(self.next_us, end)
        windows["coverage"] = coverage[windows["zone"]]
        floors = self._floors(visits, np.concatenate([self._before, before]), coverage)
        self.next_us = end
        left = self._ended_us >= end
        self._visits, self._before, self._ended_us = self._visits[left], self._before[left], self._ended_us[left]
        self._down = self._down[self._down[:, 2] > end]
        return windows, floors

    def _floors(self, visits: Visits, before: NDArray[np.int16], coverage: NDArray[np.float64]) -> Floors:
        start, end, of_zone = self.next_us, self.next_us + self.settings.window_us, self.layout.zone_floor
        floors = np.zeros(int(of_zone.max(initial=-1)) + 1, FLOOR_WINDOW)
        floors["window_us"], floors["floor"] = start, np.arange(len(floors))
        floor = of_zone[visits["zone"]].astype(np.int64)
        came = (visits["enter_us"] >= start) & (visits["enter_us"] < end)
        came &= (before < 0) | (of_zone[before] != floor)
        for tag_class in (TagClass.MEMBER, TagClass.UNKNOWN, TagClass.CART):
            chosen = floor[came & (visits["tag_class"] == tag_class)]
            floors[tag_class.name.lower()] = np.bincount(chosen, minlength=len(floors))
        low, high = np.maximum(visits["enter_us"], start), np.minimum(visits["exit_us"], end)
        there = (high > low) & np.isin(visits["tag_class"], PEOPLE)
        floor, low, high, visits = floor[there], low[there], high[there], visits[there]
        np.add.at(floors["present_us"], floor, high - low)
        floors["peak"] = peaks(floor, low, high, len(floors))
        who = np.column_stack([floor.astype(np.uint64), visits["epc_bits"].astype(np.uint64), visits["epc"]])
        floors["visitors"] = np.bincount(np.unique(who, axis=0)[:, 0].astype(np.int64), minlength=len(floors))
        watched = np.isin(np.arange(len(of_zone)), self.layout.antenna_zone)
        share = np.bincount(of_zone[watched], weights=coverage[watched], minlength=len(floors))
        floors["coverage"] = share / np.maximum(np.bincount(of_zone[watched], minlength=len(floors)), 1)
        return floors

    def _coverage(self, start: int, end: int) -> NDArray[np.float64]:
        zones, own = len(self.layout.zone_kind), self.layout.antenna_zone
        down = np.maximum(np.minimum(self._down[:, 2], end) - np.maximum(self._down[:, 1], start), 0)
        lost = np.bincount(self._down[:, 0], weights=down, minlength=len(own))
        antennas = np.bincount(own[own >= 0], minlength=zones)
        lost_of = np.bincount(own[own >= 0], weights=lost[own >= 0], minlength=zones)
        share = 1.0 - lost_of / np.maximum(antennas, 1) / (end - start)
        return np.where(antennas > 0, np.clip(share, 0.0, 1.0), 0.0)

    def state(self) -> dict[str, NDArray[Any]]:
        """All of it as arrays."""
        return {
            "windows.visits": self._visits,
            "windows.before": self._before,
            "windows.ended_us": self._ended_us,
            "windows.down": self._down,
            "windows.next_us": np.array([self.next_us]),
        }

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        """Go on from `state`."""
        self._visits, self._ended_us = state["windows.visits"].copy(), state["windows.ended_us"].copy()
        # States of earlier versions did not know it: those who were there then count as coming, once.
        self._before = state.get("windows.before", np.full(len(self._visits), -1, np.int16)).copy()
        self._down, self.next_us = state["windows.down"].copy(), int(state["windows.next_us"][0])


def peaks(row: NDArray[np.int64], low: NDArray[np.int64], high: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """(rows,) most intervals [low, high) at once in each row."""
    peaks = np.zeros(rows, np.int64)
    if len(row):
        who = np.concatenate([row, row])
        when = np.concatenate([low, high])
        change = np.repeat((1, -1), len(row))
        order = np.lexsort((change, when, who))
        at_once = np.cumsum(change[order])  # each row's changes sum to nothing
        np.maximum.at(peaks, who[order], at_once)
    return peaks
