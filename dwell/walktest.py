"""A walk test: somebody with a tag stood in zones at known times. What the engine made of it, and what to mend."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dwell.layout import Layout
from dwell.read import Reads
from dwell.visits import VISIT, Visits

MOVE_RATIO = 1.5
"""An antenna that hears another zone so much better than its own hangs in the wrong place, or its cable is swapped."""
MOVE_READS = 20
ALIKE_SHARE = 0.25
"""Zones between which so much of the time goes astray can't be told apart."""


@dataclass(frozen=True)
class Moved:
    """An antenna that hears `zone` better than its own; rates in reads a second of the walker."""

    antenna: int
    zone: int
    own_rate: float
    rate: float


def walker(
    reads: Reads,
    layout: Layout,
    zone: NDArray[np.int64],
    from_us: NDArray[np.int64],
    to_us: NDArray[np.int64],
) -> int:
    """Number of a read of the tag that the walker carried: the one that, stay by stay, the zone's own antennas had the
    largest share of. ValueError if no tag was heard."""
    best: dict[tuple[int, ...], list[float]] = {}
    heard_in = layout.antenna_zone[reads["antenna"]]
    for z, start_us, end_us in zip(zone, from_us, to_us, strict=True):
        here = np.flatnonzero((reads["time_us"] >= start_us) & (reads["time_us"] <= end_us))
        keys = np.column_stack([reads["epc"][here], reads["epc_bits"][here]])
        tags, first, tag = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        tag = tag.reshape(-1)
        share = np.bincount(tag, heard_in[here] == z, len(tags)) / np.maximum(np.bincount(tag, minlength=len(tags)), 1)
        for key, i, part in zip(tags.tolist(), here[first].tolist(), share.tolist(), strict=True):
            best.setdefault(tuple(key), [0.0, i])[0] += part
    if not any(share for share, _ in best.values()):
        raise ValueError("no tag was heard in the zones and at the times of the walk")
    return int(max(best.values())[1])


def stays(
    zone: NDArray[np.int64],
    from_us: NDArray[np.int64],
    to_us: NDArray[np.int64],
    epc: NDArray[np.uint64],
    epc_bits: NDArray[np.int64],
) -> Visits:
    """The walk as visits: (N,) zones and times; EPCs (N, 8) as in READ."""
    known = np.zeros(len(zone), VISIT)
    known["zone"], known["enter_us"], known["exit_us"] = zone, from_us, to_us
    known["epc"], known["epc_bits"] = epc, epc_bits
    return known


def confusion(known: Visits, decided: Visits, zones: int) -> NDArray[np.float64]:
    """(Z, Z + 1) seconds of the walker in the row's zone that were decided for the column's; last: none."""
    matrix = np.zeros((zones, zones + 1))
    for stay in known:
        mine = decided[(decided["epc"] == stay["epc"]).all(axis=1) & (decided["epc_bits"] == stay["epc_bits"])]
        both = np.minimum(mine["exit_us"], stay["exit_us"]) - np.maximum(mine["enter_us"], stay["enter_us"])
        seconds = np.maximum(both, 0) / 1e6
        np.add.at(matrix[stay["zone"]], mine["zone"], seconds)
        matrix[stay["zone"], zones] += (stay["exit_us"] - stay["enter_us"]) / 1e6 - seconds.sum()
    return matrix


def to_move(layout: Layout, reads: Reads, known: Visits) -> list[Moved]:
    """Antennas that heard the walker better in another zone than in their own; only of zones that were walked."""
    zones, antennas = len(layout.zone_kind), len(layout.antenna_zone)
    heard, seconds = np.zeros((antennas, zones)), np.zeros(zones)
    for stay in known:
        seconds[stay["zone"]] += (stay["exit_us"] - stay["enter_us"]) / 1e6
        mine = (reads["epc"] == stay["epc"]).all(axis=1) & (reads["epc_bits"] == stay["epc_bits"])
        mine &= (reads["time_us"] >= stay["enter_us"]) & (reads["time_us"] <= stay["exit_us"])
        mine &= reads["antenna"] < antennas
        heard[:, stay["zone"]] += np.bincount(reads["antenna"][mine], minlength=antennas)
    rate = heard / np.maximum(seconds, 1e-9)
    rate[:, seconds == 0] = 0
    found = []
    for antenna, own in enumerate(layout.antenna_zone.tolist()):
        best = int(rate[antenna].argmax())
        louder = rate[antenna, best] > MOVE_RATIO * rate[antenna, own]
        if best != own and louder and seconds[own] and heard[antenna].sum() >= MOVE_READS:
            found.append(Moved(antenna, best, float(rate[antenna, own]), float(rate[antenna, best])))
    return found


def alike(matrix: NDArray[np.float64]) -> list[tuple[int, int, float]]:
    """Pairs of zones with the share of their time that went to the other, the worst first."""
    zones = len(matrix)
    total = matrix.sum(axis=1)
    pairs = [
        (a, b, float((matrix[a, b] + matrix[b, a]) / (total[a] + total[b])))
        for a in range(zones)
        for b in range(a + 1, zones)
        if total[a] + total[b] > 0
    ]
    return sorted((pair for pair in pairs if pair[2] >= ALIKE_SHARE), key=lambda pair: -pair[2])
