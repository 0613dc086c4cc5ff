"""What the engine would know if somebody had told it where everybody was: the same figures of a radio as are learnt,
but fitted to labels. What it still gets wrong with them no learning mends; what is between is learning's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from drivers.read import epc_bytes
from dwell.layout import Layout
from dwell.markov import cells, fit, fit_table
from dwell.markov import field as radio
from dwell.markov import ticks as ticks_
from dwell.markov.field import Field
from dwell.markov.ticks import Ticks
from dwell.read import Reads

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Zones = Mapping[str, Sequence[tuple[int, int]]]
"""EPC: seconds and the numbers of zones."""
Places = Mapping[str, Mapping[int, tuple[float, float]]]
"""EPC: seconds and metres on the floor."""
SWEEPS, OFFSET_STEP_DB = 12, 2.0


def of_zones(layout: Layout, reads: Reads, truth: Zones) -> Field:
    """Levels of each pair of an antenna and a zone, of a layout without positions."""
    ticks = ticks_.of(layout, reads)
    parts = fit.chosen(ticks, seed=0, most=np.iinfo(np.int64).max)
    model = _Told(layout, ticks, parts, truth)
    return fit_table.found(model, fit.guess(layout, ticks))


def of_places(layout: Layout, reads: Reads, truth: Places, known: Field) -> Field:
    """The field that explains best what was heard where, by a search that begins with a `known` one."""
    ticks, grid = ticks_.of(layout, reads), cells.build(layout)
    heard, count, place = _heard(layout, ticks, truth)
    cell = np.argmin(np.square(grid.xy[None] - place[:, None]).sum(axis=2), axis=1)

    def value(field: Field) -> float:
        mean = radio.levels(grid, layout, field)[:, cell].T.astype(np.float64)
        hit = radio.hit(heard, mean, np.maximum(count, 1), field.rate, field)
        told = np.where(count > 0, hit, radio.miss(mean, field.rate, field)).sum()
        own = 0.5 * np.square(field.offset_db / fit.OFFSET_DB).sum()
        return float(told / fit.WINDOW_S + fit.PRIOR_WEIGHT * fit.log_prior(field, height=True) - own)

    def louder(antenna: int) -> Callable[[Field, float], Field]:
        one = np.eye(len(known.offset_db))[antenna]
        return lambda field, db: replace(field, offset_db=field.offset_db + db * one)

    moves = [*fit.SHARED.values(), *fit.HEIGHT.values()]
    moves += [(louder(a), OFFSET_STEP_DB) for a in range(len(known.offset_db))]
    field, best, scale = known, value(known), 1.0
    for _ in range(SWEEPS):
        before = best
        for move, step in moves:
            for way in (1.0, -1.0):
                tried = move(field, way * step * scale)
                if (now := value(tried)) > best:
                    field, best = tried, now
                    break
        if best - before < fit.SWEEP_NATS:
            scale /= 2
    return field


class _Told(fit_table.Model):
    """A model that need not guess where tags were."""

    def __init__(self, layout: Layout, ticks: Ticks, parts: fit_table.Parts, truth: Zones) -> None:
        super().__init__(layout, ticks, parts)
        names = _names(ticks)
        number = {int(zone): cell for cell, zone in enumerate(self.cells.zone)}
        self.place = np.full(self.heard.there.shape, -1)
        for n, (tag, begin, end) in enumerate(parts):
            for second, zone in truth.get(names[tag], ()):
                if begin <= second < end:
                    self.place[n, (second - begin) // fit_table.WINDOW_S] = number[zone]

    def _expected(self, field: Field) -> tuple[Floats, Ints]:
        emitted, known = self._emitted(field), self.place >= 0
        at = np.maximum(self.place, 0)
        there = np.take_along_axis(emitted, at[None, :, :, None], axis=3)[..., 0]
        where = np.zeros(emitted.shape[1:])
        np.put_along_axis(where, at[..., None], known[..., None].astype(float), axis=2)
        each = fit_table.with_bias((there * known).sum(axis=2), fit_table.BIASES_DB[:, None])
        return where, each.argmax(axis=0)


def _names(ticks: Ticks) -> list[str]:
    return [epc_bytes(epc, int(bits)).hex() for epc, bits in zip(ticks.epc, ticks.epc_bits, strict=True)]


def _heard(layout: Layout, ticks: Ticks, truth: Places) -> tuple[Floats, Ints, Floats]:
    """Of S seconds whose place is known: (S, A) dBm, NaN where nothing was heard, (S, A) reads, and (S, 2) metres."""
    antennas = len(layout.antenna_zone)
    row = {
        (tag, second): n for n, (tag, second) in enumerate(zip(ticks.tag.tolist(), ticks.tick.tolist(), strict=True))
    }
    level, count, place = [], [], []
    for tag, name in enumerate(_names(ticks)):
        for second, at in truth.get(name, {}).items():
            dbm, reads = np.full(antennas, np.nan), np.zeros(antennas, np.int64)
            if (n := row.get((tag, second))) is not None:
                seen = slice(int(ticks.start[n]), int(ticks.start[n + 1]))
                dbm[ticks.antenna[seen]], reads[ticks.antenna[seen]] = ticks.level_dbm[seen], ticks.reads[seen]
            level.append(dbm)
            count.append(reads)
            place.append(at)
    return np.array(level), np.array(count), np.array(place)
