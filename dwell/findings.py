"""Visits of a whole recording, and what its reads are like where the engine puts the tags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwell.layout import Layout, Settings
from dwell.markov.engine import ZoneEngine
from dwell.markov.field import Field
from dwell.read import RSSI_UNKNOWN, Reads, hashed
from dwell.visits import Visits

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Findings:
    """What a store's reads are like, given where the engine puts the tags; by zone of the antenna against the tag's."""

    own_dbm: Floats
    """RSSI quantiles (10, 50, 90 %) of reads by the zone's own antennas …"""
    near_dbm: Floats
    """… by those of neighbouring zones …"""
    far_dbm: Floats
    """… and by others."""
    own_share: float
    """Of reads that come from the own zone's antennas."""
    silence_s: Floats
    """Quantiles (50, 90, 99, 99.9 %) of the silences within visits."""
    silent_share: float
    """Of the time in visits that lies in silences over 10 s."""


def visits_of(layout: Layout, settings: Settings, reads: Reads, field: Field | None = None) -> Visits:
    """All visits that the engine makes of a recording, whose rows may be in any order."""
    engine = ZoneEngine(layout, settings, field=field)
    engine.feed(reads)
    last_us = int(reads["time_us"].max()) if len(reads) else 0
    parts = [engine.advance(last_us + settings.lateness_us).closed, engine.finish().closed]
    return np.concatenate(parts)


def findings(layout: Layout, reads: Reads, visits: Visits) -> Findings:
    """What `reads` are like in `visits`."""
    place, reads = _placed(reads, visits)
    zone = visits["zone"][place].astype(np.int64)
    heard_in = layout.antenna_zone[reads["antenna"]]
    known = reads["rssi_cdbm"] != RSSI_UNKNOWN
    own = heard_in == zone
    near = ~own & layout.neighbours[zone, heard_in]
    level = reads["rssi_cdbm"] / 100.0
    gap_s = np.diff(reads["time_us"])[place[1:] == place[:-1]] / 1e6
    total = float(gap_s.sum())
    return Findings(
        own_dbm=_quantiles(level[known & own], (10, 50, 90)),
        near_dbm=_quantiles(level[known & near], (10, 50, 90)),
        far_dbm=_quantiles(level[known & ~own & ~near], (10, 50, 90)),
        own_share=float(own.mean()) if len(own) else 0.0,
        silence_s=_quantiles(gap_s, (50, 90, 99, 99.9)),
        silent_share=float(gap_s[gap_s > 10].sum()) / total if total else 0.0,
    )


def _quantiles(values: Floats, percent: tuple[float, ...]) -> Floats:
    return np.percentile(values, percent) if len(values) else np.full(len(percent), np.nan)


def _tags(*arrays: NDArray[Any]) -> list[Ints]:
    """Numbers of the tags in arrays with epc and epc_bits, the same in all of them."""
    _, number = np.unique(np.concatenate([hashed(a) for a in arrays]), return_inverse=True)
    return np.split(number.reshape(-1).astype(np.int64), np.cumsum([len(a) for a in arrays])[:-1])


def _placed(reads: Reads, visits: Visits) -> tuple[Ints, Reads]:
    """The reads within visits, by tag and time, and the number of the visit of each."""
    tag, visitor = _tags(reads, visits)
    order = np.lexsort((reads["time_us"], tag))
    reads, tag = reads[order], tag[order]
    if not len(visits) or not len(reads):
        return np.zeros(0, np.int64), reads[:0]
    base = min(int(reads["time_us"].min()), int(visits["enter_us"].min()))
    span = max(int(reads["time_us"].max()), int(visits["exit_us"].max())) - base + 1
    by_enter = np.lexsort((visits["enter_us"], visitor))
    starts = visitor[by_enter] * span + (visits["enter_us"][by_enter] - base)
    at = np.searchsorted(starts, tag * span + (reads["time_us"] - base), side="right") - 1
    place = by_enter[np.maximum(at, 0)]
    within = (at >= 0) & (visitor[place] == tag) & (reads["time_us"] <= visits["exit_us"][place])
    return place[within], reads[within]
