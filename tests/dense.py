"""Visits decided offline and densely: every cell in reach, the whole of a journey at once.

Slow and without any state between calls: what the engine, which is quick and forgets, is compared with.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dwell import cells as floor
from dwell import field as radio
from dwell import fit, fit_kernels, ticks
from dwell.cells import Cells
from dwell.field import Field
from dwell.layout import Layout
from dwell.read import Reads

HOLD_TICKS = 150
BIAS_TICKS = 360
SURE = 0.03
NARROW_M = 3.0
SHORT_TICKS, STAY_TICKS, BESIDE_TICKS = 16, 10, 6
JOIN_TICKS = 30


class Stay(NamedTuple):
    tag: int
    zone: int
    enter: int
    exit: int


def decide(layout: Layout, field: Field, reads: Reads, **options) -> tuple[ticks.Ticks, list[Stay]]:
    seconds = ticks.of(layout, reads)
    cells = floor.build(layout)
    geometry = radio.geometry(cells, layout, field.height_m) if cells.placed else None
    return seconds, decide_ticks(layout, cells, geometry, field, seconds, **options)


def usual_power(cells: Cells) -> float:
    return 1.0 if float(np.median(cells.edge_m)) < NARROW_M / 3 else fit.POWER


def decide_ticks(layout, cells, geometry, field, seconds, *, power=None, rule=True, sure=SURE, hold=HOLD_TICKS, most_bias=24.0, bias_sd=fit.BIAS_DB, zone_probs=None, wide=None) -> list[Stay]:
    wide = fit.WINDOW_S if wide is None else wide
    trims = journeys(seconds, hold)
    seconds = seconds.wider(wide) if wide > 1 else seconds
    parts = [(tag, a // wide, -(-b // wide)) for tag, a, b in trims]
    power = usual_power(cells) if power is None else power
    now = fit.heard(cells, geometry, field, wide)
    walk = fit.walk(layout, cells, field, power)
    place = np.full(len(cells), -1, np.int64)
    none = np.zeros((0, 0, 4), np.float32)
    found: list[Stay] = []
    shares = np.zeros((len(cells), len(layout.zone_kind)), np.float32)
    for column in range(cells.share.shape[1]):
        known = cells.share_zone[:, column] >= 0
        shares[np.flatnonzero(known), cells.share_zone[known, column]] = cells.share[known, column]
    standing = np.zeros_like(shares)
    standing[np.flatnonzero(cells.zone >= 0), cells.zone[cells.zone >= 0]] = 1.0
    for part, (tag, begin, end) in zip(parts, trims, strict=True):
        # the tag's bias, on the journey's first minutes
        pieces = [(part[0], t, min(t + BIAS_TICKS // wide, part[2])) for t in range(part[1], part[2], BIAS_TICKS // wide)]
        chunks = fit.packed(cells, geometry, layout, seconds, [*pieces, part])
        bias = 0.0
        k = len(pieces)
        def score(b: float) -> float:
            total = sum(fit_kernels.follow(chunks, now, walk, i, b, place, none, none) for i in range(1))
            return sure * wide / power * total - 0.5 * (b / bias_sd) ** 2
        best = score(bias)
        for way in (3.0, -3.0):
            while abs(bias + way) <= most_bias and (value := score(bias + way)) > best:
                bias, best = bias + way, value
        n = int(chunks.cell[k + 1] - chunks.cell[k])
        length = (part[2] - part[1]) * wide
        ahead, odds = np.empty((length, n, 4), np.float32), np.empty((length, n, 4), np.float32)
        fit_kernels.smooth(chunks, now, walk, k, bias, place, ahead, odds)
        mine = chunks.cells[chunks.cell[k] : chunks.cell[k + 1]]
        zone = (odds[:, :, 0] + odds[:, :, 1]) @ standing[mine] + (odds[:, :, 2] + odds[:, :, 3]) @ shares[mine]
        zone = zone[begin - part[1] * wide : end - part[1] * wide]
        if zone_probs is not None:
            zone_probs[tag, begin, end] = zone
        found += stays((tag, begin, end), zone, rule=rule)
    return found


def journeys(seconds, hold: int) -> list[tuple[int, int, int]]:
    tag, tick = seconds.tag, seconds.tick
    new = np.append(True, (tag[1:] != tag[:-1]) | (np.diff(tick) > hold))[: len(tag)]
    first = np.flatnonzero(new)
    last = np.append(first[1:], len(tag)) - 1
    return [(int(tag[f]), int(tick[f]), int(tick[e]) + 1) for f, e in zip(first, last, strict=True)]


def stays(part, zone: NDArray[np.float32], *, rule: bool) -> list[Stay]:
    none = 1.0 - zone.sum(axis=1)
    best = np.where(zone.max(axis=1) > none, zone.argmax(axis=1), -1)
    cuts = np.flatnonzero(np.diff(best)) + 1
    runs = [(int(best[a]), int(a), int(b)) for a, b in zip(np.append(0, cuts), np.append(cuts, len(best)), strict=True) if best[a] >= 0]
    joined: dict[int, list[list[int]]] = {}
    for z, a, b in runs:
        mine = joined.setdefault(z, [])
        if mine and a - mine[-1][1] <= JOIN_TICKS:
            mine[-1][1] = b
        else:
            mine.append([a, b])
    found = []
    for z, mine in joined.items():
        for a, b in mine:
            if rule and b - a < SHORT_TICKS:
                mass = zone[max(a - BESIDE_TICKS, 0) : b + BESIDE_TICKS, z].sum()
                if mass < STAY_TICKS:
                    b = min(b, a + STAY_TICKS - 1)
                elif b - a < STAY_TICKS:
                    more = STAY_TICKS - (b - a)
                    a, b = a - more // 2, b + more - more // 2
            found.append(Stay(part[0], z, part[1] + a, part[1] + b))
    return found
