"""Visits decided offline and densely: every cell in reach, the whole of a journey at once.

Slow and without any state between calls: what an engine, which is quick and forgets, can be compared with.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dwell.layout import Layout
from dwell.markov import cells as floor
from dwell.markov import field as radio
from dwell.markov import fit, fit_kernels, ticks
from dwell.markov.field import Field
from dwell.markov.ticks import Ticks
from dwell.read import Reads

WINDOW_S = 3
"""Fading is taken to be frozen for so long: more evidence at once, and less of it."""
POWER = 0.6
HOLD_TICKS = 150
BIAS_TICKS = 360
SURE = 0.03
SHORT_TICKS, STAY_TICKS, BESIDE_TICKS = 16, 10, 6
JOIN_TICKS = 30

Part = tuple[int, int, int]
"""Number of a tag, first tick, and the tick after the last."""


class Stay(NamedTuple):
    """One tag in one zone, in ticks of a second."""

    tag: int
    zone: int
    enter: int
    exit: int


def decide(layout: Layout, field: Field, reads: Reads) -> tuple[Ticks, list[Stay]]:
    """The seconds with reads, whose tags' numbers the stays use, and all stays."""
    seconds = ticks.of(layout, reads)
    cells = floor.build(layout)
    geometry = radio.geometry(cells, layout, field.height_m)
    now = fit.heard(cells, geometry, field, WINDOW_S)
    walk = fit.walk(layout, cells, field, POWER)
    standing, shares = np.zeros((2, len(cells), len(layout.zone_kind)), np.float32)
    for column in range(cells.share.shape[1]):
        known = np.flatnonzero(cells.share_zone[:, column] >= 0)
        shares[known, cells.share_zone[known, column]] = cells.share[known, column]
    known = np.flatnonzero(cells.zone >= 0)
    standing[known, cells.zone[known]] = 1.0
    place, none = np.full(len(cells), -1, np.int64), np.zeros((0, 0, 4), np.float32)
    wide, found = seconds.wider(WINDOW_S), []
    for tag, begin, end in journeys(seconds):
        first, last = begin // WINDOW_S, -(-end // WINDOW_S)
        early = min(first + BIAS_TICKS // WINDOW_S, last)
        chunks = fit.packed(geometry, wide, [(tag, first, early), (tag, first, last)])

        def score(bias: float, chunks: fit_kernels.Chunks = chunks) -> float:
            told = fit_kernels.follow(chunks, now, walk, 0, bias, place, none, none)
            return float(SURE * WINDOW_S / POWER * told - 0.5 * (bias / fit.BIAS_DB) ** 2)

        bias = 0.0
        best = score(bias)
        for way in (fit.BIAS_STEP_DB, -fit.BIAS_STEP_DB):
            while abs(bias + way) <= fit.BIAS_MOST_DB and (value := score(bias + way)) > best:
                bias, best = bias + way, value
        mine = chunks.cells[chunks.cell[1] : chunks.cell[2]]
        ahead, odds = np.empty((2, (last - first) * WINDOW_S, len(mine), 4), np.float32)
        fit_kernels.smooth(chunks, now, walk, 1, bias, place, ahead, odds)
        zone = (odds[:, :, 0] + odds[:, :, 1]) @ standing[mine] + (odds[:, :, 2] + odds[:, :, 3]) @ shares[mine]
        found += stays((tag, begin, end), zone[begin - first * WINDOW_S : end - first * WINDOW_S])
    return seconds, found


def journeys(seconds: Ticks) -> list[Part]:
    """Stretches of each tag without a long silence."""
    new = np.append(True, (np.diff(seconds.tag) != 0) | (np.diff(seconds.tick) > HOLD_TICKS))[: len(seconds.tag)]
    first = np.flatnonzero(new)
    last = np.append(first[1:], len(seconds.tag)) - 1
    tag, tick = seconds.tag, seconds.tick
    return [(int(tag[f]), int(tick[f]), int(tick[e]) + 1) for f, e in zip(first, last, strict=True)]


def stays(part: Part, zone: NDArray[np.floating[Any]]) -> list[Stay]:
    """Runs of the likeliest zone, joined over short breaks; a short one counts as a stay by its probability."""
    best = np.where(zone.max(axis=1) > 1.0 - zone.sum(axis=1), zone.argmax(axis=1), -1)
    cuts = np.flatnonzero(np.diff(best)) + 1
    joined: dict[int, list[list[int]]] = {}
    for a, b in zip([0, *cuts.tolist()], [*cuts.tolist(), len(best)], strict=True):
        mine = joined.setdefault(int(best[a]), [])
        if mine and a - mine[-1][1] <= JOIN_TICKS:
            mine[-1][1] = b
        else:
            mine.append([a, b])
    joined.pop(-1, None)
    found = []
    for z, runs in joined.items():
        for a, b in runs:
            if b - a < SHORT_TICKS:
                if zone[max(a - BESIDE_TICKS, 0) : b + BESIDE_TICKS, z].sum() < STAY_TICKS:
                    b = min(b, a + STAY_TICKS - 1)
                elif b - a < STAY_TICKS:
                    more = STAY_TICKS - (b - a)
                    a, b = a - more // 2, b + more - more // 2
            found.append(Stay(part[0], z, part[1] + a, part[1] + b))
    return found
