"""Levels of a store without positions, learnt from its own reads: how loud each antenna hears a tag in each zone.

There is one cell a zone and nothing to tell how near it is to an antenna, so each pair has a mean level of its own.
It starts from the usual differences between an antenna's own zone, its neighbours and the others, and is found by
expectation and maximisation (Baum and Welch): where each tag may have been, by a chain that mostly stays where it is,
and then which levels explain its reads best. A pair stays near what antennas have in common: where the border between
two zones is, isn't in reads without labels, but antennas of a kind hear a tag equally well there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dwell.layout import Layout
from dwell.markov import cells as floor
from dwell.markov import field as radio
from dwell.markov.cells import NONE, Cells
from dwell.markov.field import Field
from dwell.markov.ticks import Ticks

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Parts = list[tuple[int, int, int]]
"""Stretches of tags: number, first tick, the tick after the last."""

WINDOW_S = 2
"""Fading is taken to be frozen for so long, and tags to stay where they are."""
ROUNDS = 12
BLOCK_DB = 40.0
"""Through a body: the levels that are learnt have the usual bodies in them, and what is left of others is silence."""
STAY_S = 8.0
"""Mean time in a zone: short, so that a moment's reads aren't explained by those around it."""
BETWEEN = 0.15
"""Odds of a moment spent in no zone against one in a zone."""
BIAS_DB, BIAS_STEP_DB, BIASES = 5.0, 3.0, 9
"""Spread of tags' biases, and the classes that they are told apart by."""
FIRST_PAIR_DB, PAIR_DB = 0.5, 3.0
"""Spread of a pair's level around its antenna's offset and the mean of its kind: own zone, neighbour or another. In the
first rounds pairs may hardly differ: until it is known where tags are, they'd take each other's zones."""
PAIR_ROUNDS = 6
"""Rounds in which it grows from the first spread to the last."""
OFFSET_DB = 2.8
"""Spread of antennas' offsets."""
SHARED_ROUNDS = 6
SURE = 0.03
"""Samples in a second: fading and shadows outlast it."""
POWER = 0.75
"""Weight of a window's evidence, for the same reason."""
RATE_SPREAD = 0.15
"""Spread of the logarithms of antennas' rates around what the loudest reads tell: silence is often a body's doing."""
MOST_RATE = 0.98
LEVELS: Floats = np.arange(-115.0, -14.0)
"""Mean levels that are tried, dBm."""
_FARTHEST_DB = 60
NONE_DB = 5.0
"""In no zone antennas hear a tag this much weaker than in the zone where they hear it least."""


@dataclass(frozen=True)
class Heard:
    """N stretches of at most T windows; O observations."""

    there: NDArray[np.bool_]
    """(N, T) False after a stretch's end."""
    part: Ints
    """(O,) stretch …"""
    at: Ints
    """(O,) … and window of it."""
    antenna: Ints
    level: Floats
    """(O,) mean dBm, NaN where the reader gave none."""
    reads: Ints
    down: Ints
    """(D, 4) antenna, stretch, first window and the one after the last in which it was down."""

    @staticmethod
    def of(ticks: Ticks, parts: Parts) -> Heard:
        wide = ticks.wider(WINDOW_S)
        spans = [(tag, a // WINDOW_S, -(-b // WINDOW_S)) for tag, a, b in parts]
        longest = max((b - a for _, a, b in spans), default=0)
        there = np.arange(longest) < np.array([b - a for _, a, b in spans]).reshape(-1, 1)
        rows: list[tuple[Ints, Ints, Ints]] = []
        down: list[Ints] = []
        for n, (tag, begin, end) in enumerate(spans):
            mine = np.flatnonzero((wide.tag == tag) & (wide.tick >= begin) & (wide.tick < end))
            per = wide.start[mine + 1] - wide.start[mine]
            seen = np.repeat(wide.start[mine] - np.cumsum(per) + per, per) + np.arange(per.sum())
            rows.append((seen, np.full(len(seen), n), np.repeat(wide.tick[mine] - begin, per)))
            off = wide.down[(wide.down[:, 1] < end) & (wide.down[:, 2] > begin)]
            clipped = np.clip(off[:, 1:], begin, end) - begin
            down.append(np.column_stack([off[:, 0], np.full(len(off), n), clipped]))
        seen, part, at = (np.concatenate([np.zeros(0, np.int64), *each]) for each in zip(*rows, strict=True))
        return Heard(
            there=there,
            part=part,
            at=at,
            antenna=wide.antenna[seen],
            level=wide.level_dbm[seen],
            reads=np.clip(wide.reads[seen], 1, radio.READS),
            down=np.concatenate([np.zeros((0, 4), np.int64), *down]),
        )


def learn(layout: Layout, ticks: Ticks, start: Field, parts: Parts) -> Field:
    """Learn the level of each pair of an antenna and a zone from stretches of tags; `start`: rate and common level."""
    return found(Model(layout, ticks, parts), start)


def found(model: Model, start: Field) -> Field:
    """The field that explains best what a model has heard."""
    field = replace(start, offset_db=np.zeros_like(start.offset_db))
    field = replace(field, table=_levels(model.cells, model.layout, field))
    usual = float(np.exp(np.log(start.rate).mean()))
    for done in range(ROUNDS):
        pair_db = FIRST_PAIR_DB + (PAIR_DB - FIRST_PAIR_DB) * min(done / PAIR_ROUNDS, 1.0)
        field = model.better(field, usual, pair_db)
    return replace(field, block_db=BLOCK_DB)


def density(layout: Layout, ticks: Ticks, field: Field, parts: Parts) -> float:
    """Mean log density that a field gives a second of these tags, wherever they were."""
    return Model(layout, ticks, parts).density(field)


class Model:
    """What explains the reads of some stretches of tags in a layout without positions."""

    def __init__(self, layout: Layout, ticks: Ticks, parts: Parts) -> None:
        self.layout, self.cells, self.heard = layout, floor.build(layout), Heard.of(ticks, parts)
        self.usual = _usual(self.cells, layout)
        self.move = _moves(self.cells)
        self.prior = np.log(np.where(self.cells.zone == NONE, BETWEEN, 1.0))
        self.prior -= np.log(np.exp(self.prior).sum())

    def density(self, field: Field) -> float:
        """Mean log density of a second of a tag, wherever it was."""
        emitted = self._emitted(field)
        each = np.logaddexp.reduce(emitted + self.prior, axis=3)
        whole = (each * self.heard.there).sum(axis=2) - 0.5 * (BIASES_DB[:, None] / BIAS_DB) ** 2
        return float(whole.max(axis=0).sum()) / max(int(self.heard.there.sum()) * WINDOW_S, 1)

    def better(self, field: Field, usual_rate: float, pair_db: float) -> Field:
        """One round: where the tags were, and the levels and rates that explain best what was heard of them there."""
        where, bias = self._expected(field)
        heard, antennas = self.heard, len(field.rate)
        inside = where * heard.there[..., None]
        # (A, biases, C) windows without a read, and (A, C, reads, levels) those with one, by level without the bias
        missed = np.zeros((antennas, BIASES, len(self.cells)))
        mine = np.zeros((BIASES, len(self.cells)))
        np.add.at(mine, bias, inside.sum(axis=1))
        missed += mine
        for a, n, t0, t1 in heard.down.tolist():
            missed[a, bias[n]] -= inside[n, t0:t1].sum(axis=0)
        there = inside[heard.part, heard.at]
        np.subtract.at(missed, (heard.antenna, bias[heard.part]), there)
        np.maximum(missed, 0.0, out=missed)
        known = np.isfinite(heard.level)
        at = np.round(heard.level[known] - BIASES_DB[bias[heard.part[known]]] - LEVELS[0])
        at = np.clip(at, 0, len(LEVELS) - 1).astype(np.int64)
        hits = np.zeros((antennas, radio.READS, len(LEVELS), len(self.cells)))
        np.add.at(hits, (heard.antenna[known], heard.reads[known] - 1, at), there[known])
        field = replace(field, rate=self._rates(field, missed, usual_rate))
        sure = SURE * WINDOW_S
        value = sure * np.einsum("akrc,krm->acm", hits, _fit(field.spread_db))
        for b, db in enumerate(BIASES_DB):
            value += sure * missed[:, b, :, None] * radio.silences(LEVELS + db, field.rate, field, WINDOW_S)[:, None, :]
        table = self._pairs(value, field, pair_db)
        own = self.usual == radio.OWN_DB
        level = float(table[own].mean()) - radio.OWN_DB if own.any() else field.level_3m_dbm
        table = self._outside(table)
        return replace(field, level_3m_dbm=level, table=table)

    def _rates(self, field: Field, missed: Floats, usual: float) -> Floats:
        """(A,) share of the seconds in which each antenna reads a tag that is loud enough."""
        assert field.table is not None
        heard, rate = self.heard, field.rate.copy()
        through = radio.half_rates(np.where(np.isfinite(heard.level), heard.level, np.inf), field)
        off = np.linspace(-15.0, 15.0, 31)
        weights = np.exp(radio.fit(off, 1, field.spread_db))
        weights /= weights.sum()
        sure = SURE * WINDOW_S
        for a in range(len(rate)):
            tried = np.unique(np.minimum(field.rate[a] * np.exp(np.linspace(-0.6, 0.6, 13)), MOST_RATE))
            got = 1.0 - (1.0 - tried[:, None] * through[heard.antenna == a]) ** WINDOW_S
            value = np.log(np.maximum(got, 1e-12)).sum(axis=1)
            level = field.table[a][:, None] + BIASES_DB
            passes = radio.half_rates(np.maximum(level, -300.0)[..., None] + off, field)
            silent = (1.0 - tried[:, None, None, None] * passes) ** WINDOW_S @ weights
            value += (missed[a].T * np.log(silent)).sum(axis=(1, 2))
            value = sure * value - 0.5 * (np.log(tried / usual) / RATE_SPREAD) ** 2
            rate[a] = tried[int(value.argmax())]
        return rate

    def _outside(self, table: Floats) -> Floats:
        known = np.isfinite(table) & (self.cells.zone != NONE)
        least = np.where(known, table, np.inf).min(axis=1, keepdims=True) - NONE_DB
        return np.where(np.isfinite(table) & (self.cells.zone == NONE), least, table)

    def _pairs(self, value: Floats, field: Field, pair_db: float) -> Floats:
        """(A, C) likeliest level of each pair; `value`: (A, C, levels) what the reads say of each."""
        assert field.table is not None
        can = np.isfinite(self.usual)
        kinds = [self.usual == usual for usual in np.unique(self.usual[can])]
        offset = np.zeros((len(can), 1))
        table = np.where(can, field.table, 0.0)
        for _ in range(SHARED_ROUNDS):
            shared = np.zeros(can.shape)
            for kind in kinds:
                shared[kind] = (table - offset)[kind].mean()
            weight = can.sum(axis=1, keepdims=True) + (pair_db / OFFSET_DB) ** 2
            offset = np.where(can, table - shared, 0.0).sum(axis=1, keepdims=True) / weight
            offset -= offset.mean()
            near = value - 0.5 * ((LEVELS - (shared + offset)[..., None]) / pair_db) ** 2
            table = np.where(can, LEVELS[near.argmax(axis=2)], 0.0)
        return np.where(can, table, -np.inf)

    def _expected(self, field: Field) -> tuple[Floats, Ints]:
        """(N, T, C) where each tag was, and (N,) the class of its bias."""
        emitted = self._emitted(field)
        best = np.zeros(emitted.shape[1:])
        which, most = np.zeros(emitted.shape[1], np.int64), np.full(emitted.shape[1], -np.inf)
        for b, db in enumerate(BIASES_DB):
            where, value = _smoothed(POWER * emitted[b], self.heard.there, self.move, self.prior)
            value = with_bias(value, db)
            won = value > most
            most[won], which[won], best[won] = value[won], b, where[won]
        return best, which

    def _emitted(self, field: Field) -> Floats:
        """(biases, N, T, C) log density of what was heard in each window in each cell."""
        heard, table = self.heard, _levels(self.cells, self.layout, field)
        emitted = np.empty((BIASES, *heard.there.shape, len(self.cells)))
        through = radio.half_rates(np.where(np.isfinite(heard.level), heard.level, np.inf), field)
        got = np.log(np.maximum(1.0 - (1.0 - field.rate[heard.antenna] * through) ** WINDOW_S, 1e-12))
        silent = radio.silences(LEVELS, field.rate, field, WINDOW_S)
        for b, db in enumerate(BIASES_DB):
            step = np.clip(np.round(table + db - LEVELS[0]), 0, len(LEVELS) - 1).astype(np.int64)
            miss = np.where(np.isfinite(table), np.take_along_axis(silent, step, axis=1), 0.0)
            emitted[b] = miss.sum(axis=0)
            for a, n, t0, t1 in heard.down.tolist():
                emitted[b, n, t0:t1] -= miss[a]
            off = np.minimum(np.abs(heard.level[:, None] - db - table[heard.antenna]), _FARTHEST_DB)
            hit = radio.fit(off, heard.reads[:, None].astype(np.float64), field.spread_db)
            hit = np.where(np.isfinite(heard.level)[:, None], hit, 0.0) + got[:, None]
            np.add.at(emitted[b], (heard.part, heard.at), hit - miss[heard.antenna])
        return emitted


def with_bias(value: Floats, bias_db: Floats | float) -> Floats:
    """What reads say of stretches with biases like that, together with how frequent they are."""
    return np.asarray(value * SURE * WINDOW_S - 0.5 * (np.asarray(bias_db) / BIAS_DB) ** 2)


def _levels(cells: Cells, layout: Layout, field: Field) -> Floats:
    """(A, C) mean dBm of a usual tag, −inf where an antenna can't hear it."""
    return radio.levels(cells, layout, field).astype(np.float64)


def _usual(cells: Cells, layout: Layout) -> Floats:
    """(A, C) dB against the level at 3 m that is usual for an antenna's own zone, its neighbours and others."""
    bare = replace(Field.prior(layout), level_3m_dbm=0.0)
    return _levels(cells, layout, bare)


def _fit(spread_db: float) -> Floats:
    """(reads, levels heard, mean levels)"""
    off: Floats = LEVELS[:, None] - LEVELS
    return np.stack([radio.fit(off, k, spread_db) for k in range(1, radio.READS + 1)])


def _moves(cells: Cells) -> Floats:
    """(C, C) probability of being in another cell a window later."""
    same = np.equal.outer(cells.floor, cells.floor)
    linked = np.where(cells.linked.any(axis=1, keepdims=True), cells.linked, same) & ~np.eye(len(cells), dtype=bool)
    weight = linked * np.where(cells.zone == NONE, BETWEEN, 1.0)
    total = weight.sum(axis=1, keepdims=True)
    go = 1.0 - np.exp(-WINDOW_S / STAY_S)
    made = np.where(total > 0, go * weight / np.maximum(total, 1e-12), 0.0)
    return made + np.diag(1.0 - made.sum(axis=1))


def _smoothed(emitted: Floats, there: NDArray[np.bool_], move: Floats, prior: Floats) -> tuple[Floats, Floats]:
    """Forward and backward over (N, T, C): probabilities of the cells, and (N,) log likelihoods."""
    top = emitted.max(axis=2, keepdims=True)
    weight: Floats = np.where(there[..., None], np.exp(emitted - top), 1.0)
    ahead = np.empty_like(weight)
    value = (top[..., 0] * there).sum(axis=1)
    state = np.broadcast_to(np.exp(prior), weight[:, 0].shape)
    for t in range(weight.shape[1]):
        state = (state if t == 0 else state @ move) * weight[:, t]
        total = state.sum(axis=1, keepdims=True)
        value += np.log(np.maximum(total[:, 0], 1e-300))
        state = state / np.maximum(total, 1e-300)
        ahead[:, t] = state
    back = np.ones_like(state)
    for t in range(weight.shape[1] - 1, -1, -1):
        ahead[:, t] *= back
        ahead[:, t] /= np.maximum(ahead[:, t].sum(axis=1, keepdims=True), 1e-300)
        back = (back * weight[:, t]) @ move.T
        back = back / np.maximum(back.max(axis=1, keepdims=True), 1e-300)
    return ahead, value


BIASES_DB: Floats = BIAS_STEP_DB * np.arange(-(BIASES // 2), BIASES // 2 + 1, dtype=np.float64)
