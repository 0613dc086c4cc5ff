"""A store's radio learnt from its own reads, without labels.

Which figures make the reads likeliest, wherever the tags were? The density of a second of a tag is a mixture over all
places where it may have been. No movement is in it: a model of walking explains slow fading by walking, and its slopes
come out far too steep. A coordinate search finds the figures that all antennas share; what each antenna has of its own
comes from expectation and maximisation with the full model. What is learnt counts only if it explains the reads of
other tags at least as well as what was there before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dwell.layout import Layout
from dwell.markov import cells as floor
from dwell.markov import field as radio
from dwell.markov import fit_kernels as kernels
from dwell.markov import fit_table
from dwell.markov.cells import NONE, Cells
from dwell.markov.field import Field
from dwell.markov.fit_kernels import Chunks, Heard, Walk
from dwell.markov.ticks import Ticks
from dwell.markov.tuning import Tuning

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CHUNK_TICKS = 120
MOST_TICKS = 3000
WINDOW_S = 5
"""Fading and bodies are taken to be frozen for so long, and tags to stay where they are."""
EVERY = 1
GAP_TICKS = 60
"""A longer silence may be somebody who has left."""
REACH_M = 12.0
"""Tags are looked for so far around antennas that hear them well, …"""
WELL_DB = 15.0
"""… less than this below the best of the second, …"""
EAR_M = 30.0
"""… and silence counts of antennas so far around these places."""
BETWEEN = 0.15
"""Odds of a moment spent in a cell between zones against one in a zone."""
BIAS_DB = 5.0
"""Between tags, and between chunks of a tag."""
BIAS_STEP_DB = 3.0
BIAS_MOST_DB = 24.0
SURE = 0.03
"""Samples in a second: fading and shadows outlast it."""
PRIOR_WEIGHT = 10.0
SWEEPS = 8
SWEEP_NATS = 2.5
"""A sweep that gains less halves the steps."""
OFFSET_DB = 2.8
"""Between antennas, beyond what height and beam explain …"""
RATE_SPREAD = 0.35
"""… and between the logarithms of their rates."""
MOST_RATE = 0.98
UNHEARD_DBM = -400.0
"""Level of places where an antenna can't be heard; a read of it is an outlier there."""


@dataclass
class Model:
    """A layout's cells and the chunks of reads that are to be explained; `bias`: (K,) dB of each chunk, refitted."""

    layout: Layout
    cells: Cells
    geometry: radio.Geometry
    height_m: float
    chunks: Chunks
    """In ticks of WINDOW_S."""
    bias: Floats

    @staticmethod
    def of(layout: Layout, ticks: Ticks, field: Field, *, seed: int, most: int) -> Model:
        cells = floor.build(layout)
        geometry = radio.geometry(cells, layout, field.height_m)
        parts = chosen(ticks, seed=seed, most=most)
        wide = [(tag, a // WINDOW_S, b // WINDOW_S) for tag, a, b in parts]
        chunks = packed(geometry, ticks.wider(WINDOW_S), wide)
        return Model(layout, cells, geometry, field.height_m, chunks, np.zeros(len(parts)))

    def heard(self, field: Field) -> Heard:
        if field.height_m != self.height_m:
            self.geometry, self.height_m = radio.geometry(self.cells, self.layout, field.height_m), field.height_m
        return heard(self.cells, self.geometry, field, WINDOW_S)

    def score(self, field: Field, which: Ints | None = None) -> float:
        which = np.arange(len(self.bias)) if which is None else which
        return float(self._each(self.heard(field), which, self.bias[which]).sum())

    def climb(self, field: Field, which: Ints | None = None) -> float:
        """Refit the chunks' biases and return the score."""
        which = np.arange(len(self.bias)) if which is None else which
        now = self.heard(field)
        best = self._each(now, which, self.bias[which])
        for way in (BIAS_STEP_DB, -BIAS_STEP_DB):
            going = np.arange(len(which))
            while len(going):
                there = np.clip(self.bias[which[going]] + way, -BIAS_MOST_DB, BIAS_MOST_DB)
                value = self._each(now, which[going], there)
                better = value > best[going] + 1e-9
                going, there, value = going[better], there[better], value[better]
                best[going], self.bias[which[going]] = value, there
        return float(best.sum())

    def centred(self, field: Field) -> Field:
        """The same with the middle of the biases in the level."""
        whole = BIAS_STEP_DB * round(float(self.bias.mean()) / BIAS_STEP_DB)
        if not whole:
            return field
        self.bias -= whole
        return replace(field, level_3m_dbm=field.level_3m_dbm + whole)

    def _each(self, now: Heard, which: Ints, bias: Floats) -> Floats:
        result = np.empty(len(which))
        kernels.weigh(self.chunks, now, which, bias, result)
        return result - 0.5 * (bias / BIAS_DB) ** 2


def heard(cells: Cells, geometry: radio.Geometry, field: Field, seconds: int = 1) -> Heard:
    level = radio.over(geometry, field)
    np.maximum(level, UNHEARD_DBM, out=level)
    step: Floats = kernels.LOUD_DBM + kernels.LOUD_STEP_DB * np.arange(kernels.LOUD, dtype=np.float64)
    through = radio.rates(step, field)
    rate = np.minimum(field.rate, MOST_RATE)
    reads = np.maximum(np.arange(radio.READS + 1), 1)
    variance = field.spread_db**2 + radio.FAST_DB**2 / reads
    return Heard(
        level=level,
        miss=radio.silences(step, rate, field, seconds),
        rate=np.maximum(rate, 1e-6),
        seconds=seconds,
        through=np.log(np.maximum(through, 1e-30)),
        area=np.log(radio.area(np.sqrt(variance))),
        sharp=1.0 / variance,
        prior=np.where(cells.zone == NONE, np.log(BETWEEN), 0.0) + 2 * np.log(cells.edge_m),
        half_rate_dbm=field.half_rate_dbm,
        width_db=radio.WIDTH_DB,
        tail=radio.TAIL,
        block_db=field.block_db,
        blocked=field.block_rate / (field.block_rate + CLEAR_RATE),
    )


POWER = 0.75
PEOPLE = Tuning()
"""How they move, and for how long they hide a tag: the engine's own figures, as rates."""
CLEAR_RATE = 1 / PEOPLE.clear_s


def walk(layout: Layout, cells: Cells, field: Field, power: float = POWER) -> Walk:
    n = len(cells)
    passed = floor.passed(cells, layout)
    weight = np.repeat([1.0, floor.DIAGONAL], 4)
    leaving = floor.leaving(cells.edge_m, PEOPLE.pace_m, PEOPLE.pace_most)
    share = leaving[:, None] * weight / weight.sum()
    share = np.column_stack([share, np.full(n, PEOPLE.stairs)])
    there = cells.next >= 0
    to, share = cells.next[there], share[there]
    start = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
    return Walk(
        start=start.astype(np.int64),
        to=to.astype(np.int64),
        share=share.astype(np.float64),
        stop=np.where(cells.zone == NONE, 0.0, np.where(passed, PEOPLE.pass_stop_rate, PEOPLE.stop_rate)),
        go=1.0 / np.where(passed, PEOPLE.pass_stay_s, PEOPLE.stay_s),
        block=field.block_rate,
        clear=CLEAR_RATE,
        power=power,
    )


def chosen(ticks: Ticks, *, seed: int, most: int) -> list[tuple[int, int, int]]:
    """Some stretches of all tags (number, first tick, the tick after the last), of each tag as few as possible."""
    new = np.append(True, (ticks.tag[1:] != ticks.tag[:-1]) | (np.diff(ticks.tick) > GAP_TICKS))[: len(ticks.tag)]
    first = np.flatnonzero(new)
    begin = ticks.tick[first]
    last = ticks.tick[np.append(first[1:], len(ticks.tick)) - 1] if len(first) else begin
    parts = [
        (int(ticks.tag[f]), t, min(t + CHUNK_TICKS, -(-int(e + 1) // WINDOW_S) * WINDOW_S))
        for f, b, e in zip(first, begin, last, strict=True)
        for t in range(int(b) // WINDOW_S * WINDOW_S, int(e) + 1, CHUNK_TICKS)
    ]
    rng = np.random.default_rng(seed)
    by_tag: dict[int, list[tuple[int, int, int]]] = {}
    for i in rng.permutation(len(parts)):
        by_tag.setdefault(parts[i][0], []).append(parts[i])
    turns = sorted(((n, rank, part) for rank, mine in enumerate(by_tag.values()) for n, part in enumerate(mine)))
    wanted, total = [], 0
    for _, _, part in turns:
        if total >= most:
            break
        wanted.append(part)
        total += part[2] - part[1]
    return wanted


def packed(geometry: radio.Geometry, ticks: Ticks, parts: list[tuple[int, int, int]]) -> Chunks:
    """Stretches of tags (number, first tick, the tick after the last) as the kernels take them."""
    key = ticks.tag * (1 << 40) + (ticks.tick - int(ticks.tick.min(initial=0)))
    base = int(ticks.tick.min(initial=0))
    tick, cell, near, down = [0], [0], [0], [0]
    starts, observations, cell_parts, near_parts, downs = [np.zeros(1, np.int64)], [], [], [], []
    own = geometry.storeys == 0
    total = 0
    for tag, begin, end in parts:
        rows = slice(*np.searchsorted(key, (tag * (1 << 40) + begin - base, tag * (1 << 40) + end - base)))
        o0, o1 = int(ticks.start[rows.start]), int(ticks.start[rows.stop])
        per = np.zeros(end - begin, np.int64)
        per[ticks.tick[rows] - begin] = np.diff(ticks.start[rows.start : rows.stop + 1])
        starts.append(total + np.cumsum(per))
        total += o1 - o0
        observations.append(np.arange(o0, o1))
        level = np.nan_to_num(ticks.level_dbm[o0:o1], nan=-200.0)
        at = np.repeat(np.arange(end - begin), per)
        top = np.full(end - begin, -np.inf)
        np.maximum.at(top, at, level)
        well = np.unique(ticks.antenna[o0:o1][level >= top[at] - WELL_DB])
        mine = ((geometry.decades[well] < np.log10(REACH_M / radio.REFERENCE_M)) & own[well]).any(axis=0)
        here = np.flatnonzero(mine)
        ears = geometry.decades[:, here].min(axis=1, initial=np.inf) < np.log10(EAR_M / radio.REFERENCE_M)
        ears[ticks.antenna[o0:o1]] = True
        cell_parts.append(here)
        near_parts.append(np.flatnonzero(ears))
        mine_down = ticks.down[(ticks.down[:, 1] < end) & (ticks.down[:, 2] > begin) & ears[ticks.down[:, 0]]]
        t0 = tick[-1]
        clipped = np.clip(mine_down[:, 1:], begin, end) - begin + t0
        downs.append(np.column_stack([mine_down[:, 0], clipped]))
        tick.append(t0 + end - begin)
        cell.append(cell[-1] + len(here))
        near.append(near[-1] + len(near_parts[-1]))
        down.append(down[-1] + len(mine_down))
    seen = np.concatenate([np.zeros(0, np.int64), *observations])
    numbers = np.array(tick)
    into = np.arange(numbers[-1]) - np.repeat(numbers[:-1], np.diff(numbers))
    return Chunks(
        tick=numbers,
        counts=into % EVERY == 0,
        start=np.concatenate(starts),
        antenna=ticks.antenna[seen],
        level=ticks.level_dbm[seen],
        reads=ticks.reads[seen],
        heard=ticks.heard[seen],
        cell=np.array(cell),
        cells=np.concatenate([np.zeros(0, np.int64), *cell_parts]),
        near=np.array(near),
        nears=np.concatenate([np.zeros(0, np.int64), *near_parts]),
        down=np.array(down),
        downs=np.concatenate([np.zeros((0, 3), np.int64), *downs]).astype(np.int64),
    )


def profile(layout: Layout, ticks: Ticks, *, seed: int = 0) -> Field:
    """The best of some usual radios, on a third of the reads; without positions all that they tell."""
    start = guess(layout, ticks)
    if not floor.placed(layout):
        return fit_table.learn(layout, ticks, start, chosen(ticks, seed=seed, most=MOST_TICKS))
    model = Model.of(layout, ticks, start, seed=seed, most=MOST_TICKS // 3)
    return _best(model, start)


def guess(layout: Layout, ticks: Ticks) -> Field:
    """Usual figures, but with the level, the sensitivity and the rate that the reads tell at a glance."""
    prior = Field.prior(layout)
    wide = ticks.wider(WINDOW_S)
    known = np.isfinite(wide.level_dbm)
    if not known.any():
        return prior
    level = wide.level_dbm[known]
    loud = float(np.percentile(level, 90))
    rate = float(np.mean(wide.heard[known][level >= loud])) / WINDOW_S
    return replace(
        prior,
        half_rate_dbm=float(np.percentile(level, 5)) + 1.0,
        level_3m_dbm=loud - 8.0,
        rate=np.full(len(prior.rate), min(rate, 0.9)),
    )


def _best(model: Model, start: Field) -> Field:
    found, best, bias = start, -np.inf, model.bias.copy()
    for slope in (20.0, 32.0, 45.0):
        for beam in (60.0, 100.0, 180.0):
            for louder in (-4.0, 4.0):
                model.bias[:] = 0.0
                tried = replace(start, slope_db=slope, beam_deg=beam, level_3m_dbm=start.level_3m_dbm + louder)
                model.climb(tried)
                tried = model.centred(tried)
                value = model.climb(tried) + PRIOR_WEIGHT * log_prior(tried, height=False)
                if value > best:
                    found, best, bias = tried, value, model.bias.copy()
    model.bias[:] = bias
    return found


def log_prior(field: Field, *, height: bool, block: bool = True) -> float:
    def normal(x: float, mean: float, sd: float) -> float:
        return -0.5 * ((x - mean) / sd) ** 2

    total = normal(np.log(field.slope_db), np.log(27.0), 0.35) + normal(np.log(field.spread_db), np.log(5.0), 0.3)
    total += normal(np.log(field.beam_deg), np.log(80.0), 0.5) + normal(field.behind_db, 25.0, 8.0)
    total += normal(field.block_db, 14.0, 5.0) + normal(np.log(field.block_rate), np.log(1 / 60), 0.5)
    if height:
        total += normal(np.log(max(field.height_m - radio.TAG_M, 0.1)), np.log(1.5), 0.4)
    return float(total)


Step = Callable[[Field, float], Field]


def _logit(field: Field, step: float) -> Field:
    odds = field.rate / (1 - np.minimum(field.rate, MOST_RATE)) * np.exp(step)
    return replace(field, rate=np.minimum(odds / (1 + odds), MOST_RATE))


SHARED: dict[str, tuple[Step, float]] = {
    "level": (lambda f, x: replace(f, level_3m_dbm=f.level_3m_dbm + x), 4.0),
    "slope": (lambda f, x: replace(f, slope_db=float(np.clip(f.slope_db * np.exp(x), 10, 70))), np.log(1.25)),
    "half": (lambda f, x: replace(f, half_rate_dbm=f.half_rate_dbm + x), 2.0),
    "spread": (lambda f, x: replace(f, spread_db=float(np.clip(f.spread_db * np.exp(x), 2.5, 12))), np.log(1.15)),
    "rate": (_logit, 0.5),
    "beam": (lambda f, x: replace(f, beam_deg=float(np.clip(f.beam_deg * np.exp(x), 25, 360))), np.log(1.25)),
    "behind": (lambda f, x: replace(f, behind_db=float(np.clip(f.behind_db + x, 0, 50))), 4.0),
}
HEIGHT: dict[str, tuple[Step, float]] = {
    "height": (
        lambda f, x: replace(f, height_m=float(radio.TAG_M + np.clip((f.height_m - radio.TAG_M) * np.exp(x), 0.1, 9))),
        np.log(1.3),
    )
}
SLAB: dict[str, tuple[Step, float]] = {
    "slab": (lambda f, x: replace(f, slab_db=float(np.clip(f.slab_db + x, 0, 40))), 3.0)
}
BLOCK: dict[str, tuple[Step, float]] = {
    "block": (lambda f, x: replace(f, block_db=float(np.clip(f.block_db + x, 4, 30))), 3.0),
    "block rate": (
        lambda f, x: replace(f, block_rate=float(np.clip(f.block_rate * np.exp(x), 1e-3, 0.2))),
        np.log(1.6),
    ),
}


class Search:
    """Coordinate search with steps of its own."""

    def __init__(self, model: Model, field: Field) -> None:
        self.model, self.field = model, field
        self.height = bool(np.isnan(model.layout.antenna_height_m).any())
        self.moves = dict(SHARED)
        if self.height:
            self.moves |= HEIGHT
        if len(model.cells.floors) > 1:
            self.moves |= SLAB
        self.scale = 1.0
        self.value = self._score(field)
        self.evaluations = 0

    def _score(self, field: Field) -> float:
        self.evaluations = getattr(self, "evaluations", 0) + 1
        return self.model.score(field) + PRIOR_WEIGHT * log_prior(field, height=self.height)

    def sweep(self, extra: dict[str, tuple[Step, float]] | None = None) -> float:
        start = self.value
        for move, step in {**self.moves, **(extra or {})}.values():
            for way in (1.0, -1.0):
                tried = move(self.field, way * step * self.scale)
                value = self._score(tried)
                if value > self.value + 1e-6:
                    self.field = tried
                    self.value = self.model.climb(tried) + PRIOR_WEIGHT * log_prior(tried, height=self.height)
                    break
        tried = self.model.centred(self.field)
        if tried is not self.field:
            self.field = tried
            self.value = self.model.climb(tried) + PRIOR_WEIGHT * log_prior(tried, height=self.height)
        if self.value - start < SWEEP_NATS:
            self.scale /= 2
        return self.value - start

    def antennas(self) -> None:
        """Field step: offsets and rates of each antenna."""
        self.field = antenna_step(self.model, self.field)
        self.value = self.model.climb(self.field) + PRIOR_WEIGHT * log_prior(self.field, height=self.height)


def antenna_step(model: Model, field: Field) -> Field:
    antennas = len(field.rate)
    now = model.heard(field)
    missed = np.zeros((antennas, kernels.LOUD))
    off = np.zeros((antennas, radio.READS + 1, kernels.OFF))
    times = np.zeros((antennas, WINDOW_S + 1, kernels.LOUD))
    which = np.arange(len(model.bias))
    kernels.expect(model.chunks, now, walk(model.layout, model.cells, field), which, model.bias, missed, off, times)
    step: Floats = kernels.LOUD_DBM + kernels.LOUD_STEP_DB * np.arange(kernels.LOUD, dtype=np.float64)
    far = kernels.LOUD_STEP_DB * (np.arange(kernels.OFF) - kernels.OFF // 2)
    tries = np.arange(-4.0, 4.01, 0.5)
    reads = np.maximum(np.arange(radio.READS + 1), 1)
    fits = radio.fit(far - tries[:, None, None], reads[:, None], field.spread_db)  # (tries, READS + 1, OFF)
    through = radio.half_rates(step, field)
    hits = off.sum(axis=(1, 2))
    offset, rate = field.offset_db.copy(), field.rate.copy()
    common = float(np.exp(np.log(field.rate).mean()))
    pace = np.exp(np.linspace(-0.6, 0.6, 13))
    n = np.arange(WINDOW_S + 1)[:, None]
    sure = SURE * WINDOW_S
    paces = [np.unique(np.minimum(own * pace, MOST_RATE)) for own in field.rate]
    each = np.cumsum([len(ps) for ps in paces])[:-1]
    silences = np.split(radio.silences(step, np.concatenate(paces), field, WINDOW_S), each)
    for a in range(antennas):
        if missed[a].sum() + hits[a] == 0:
            continue
        # (rates, LOUD): silence, and of windows with reads how many of their seconds had some
        ps, silent = paces[a], silences[a]
        shifted = np.stack([np.interp(step + d, step, row) for d in tries for row in silent]).reshape(
            len(tries), len(ps), -1
        )
        got = ps[:, None, None] * through
        some = ((n * np.log(got) + (WINDOW_S - n) * np.log1p(-got)) * times[a]).sum(axis=(1, 2))
        value = sure * (shifted @ missed[a] + some + np.tensordot(fits, off[a], axes=2)[:, None])
        value -= 0.5 * ((field.offset_db[a] + tries) / OFFSET_DB)[:, None] ** 2
        value -= 0.5 * (np.log(ps / common) / RATE_SPREAD) ** 2
        i, j = np.unravel_index(int(np.argmax(value)), value.shape)
        offset[a], rate[a] = field.offset_db[a] + tries[i], ps[j]
    weight = hits / max(hits.sum(), 1)
    offset -= float(weight @ offset) if hits.sum() else 0.0
    return replace(field, offset_db=offset, rate=rate)


def learn_field(layout: Layout, ticks: Ticks, *, seed: int = 0) -> Field:
    """The field that makes the reads likeliest, wherever the tags were."""
    start = guess(layout, ticks)
    if not floor.placed(layout):
        return fit_table.learn(layout, ticks, start, chosen(ticks, seed=seed, most=2 * MOST_TICKS))
    model = Model.of(layout, ticks, start, seed=seed, most=MOST_TICKS)
    third = Model.of(layout, ticks, start, seed=seed, most=MOST_TICKS // 3)
    field = _best(third, start)
    model.climb(field)
    search = Search(model, field)
    for _ in range(SWEEPS):
        search.sweep()
        if search.scale < 0.3:
            break
    for _ in range(2):
        search.antennas()
        search.antennas()
        search.sweep(BLOCK)
    search.antennas()
    return search.field


def density(layout: Layout, ticks: Ticks, field: Field) -> float:
    """Log density a second that a field gives the seconds of these tags; the higher, the better it explains them."""
    if not floor.placed(layout):
        return fit_table.density(layout, ticks, field, chosen(ticks, seed=0, most=MOST_TICKS))
    model = Model.of(layout, ticks, field, seed=0, most=MOST_TICKS)
    return model.climb(field) / max(int(model.chunks.counts.sum()), 1)
