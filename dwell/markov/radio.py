"""From a store's cells and field to the tables that the kernels look things up in."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dwell import lifecycle
from dwell.layout import Layout, Settings, TagClass, ZoneKind
from dwell.markov import cells as cells_
from dwell.markov import field as field_
from dwell.markov.cells import Cells
from dwell.markov.field import Field
from dwell.markov.kernels import figures
from dwell.markov.kernels.antennas import listen
from dwell.markov.tables import Air, Limits, Radio, Scratch
from dwell.markov.tuning import SMALL_M, TICK_US, Tuning

FLOOR_DBM, STEP_DB = -120.0, 0.5
"""Levels are told apart in steps; step 0 stands for "never heard there"."""
RATES = 33
"""Classes of antennas' rates; the first is that of an antenna whose silence says nothing."""
SURE_DB = 6.0
"""So far above the half rate hardly a read is lost: levels heard there tell how loud an antenna is."""
HOMES = 16
"""Cells around an antenna at which a lost tag is looked for first."""
SPANS = np.array([1, 4, 16])
"""Ticks that an event may last."""


class Model(NamedTuple):
    """What the engine works with: a store's cells and field as the kernels' tables."""

    cells: Cells
    field: Field
    radio: Radio
    limits: Limits
    start_rate: int


def build(layout: Layout, settings: Settings, tuning: Tuning, field: Field | None = None) -> Model:
    """Tables of a layout with a field, by default the prior one. ValueError if the store has too many cells."""
    cells = cells_.build(layout, fine=True)
    field = field or Field.prior(layout)
    temper = _temper(cells, tuning)
    classes = np.stack([_rate_classes(field.rate * share) for share in tuning.answers()])
    rates = np.append(0.0, _logistic(RATE_LOGITS))
    dbm = FLOOR_DBM + STEP_DB * (np.arange(figures.WIDE, dtype=np.float64) - figures.PAD)
    heard = field_.rates(dbm, field)
    hears = rates[:, None] * heard[None, :]
    missed = np.log1p(-hears)
    off = STEP_DB * (np.arange(2 * figures.HALF, dtype=np.float64) - figures.HALF)
    hit = np.stack([_fit(off, k, field, tuning) for k in (1, 2, 3, 4)])
    hop, turn = _hops(cells, tuning)
    leave, stop = _switching(cells, layout, tuning)
    level = _level_steps(cells, layout, field)
    radio = Radio(
        level=level,
        hit=np.exp(temper * (hit - hit.max(axis=1, keepdims=True))).astype(np.float32),
        spare=np.exp(-temper * missed).astype(np.float32),
        unknown=np.exp(temper * (np.log(np.maximum(heard, 1e-6))[None, :] - missed)).astype(np.float32),
        miss_nats=np.round(figures.QUIET * missed).astype(np.int32),
        hears=hears.astype(np.float32),
        rate=classes,
        cell_zone=cells.zone.astype(np.int16),
        share_zone=cells.share_zone.astype(np.int16),
        share=cells.share.astype(np.float32),
        hop=hop,
        turn=turn,
        stairs=cells.next[:, 8].astype(np.int32),
        move=_moving(cells, tuning),
        leave=leave,
        stop=stop,
        block=_blocking(field, tuning),
        first=_first(cells, layout, tuning),
        still=_still(cells, layout, tuning),
        prior=_prior(cells, tuning),
        watch=_watch(level),
        home=_home(level, field),
        part=_parts(),
        steps=_cuts(tuning.hold_us // TICK_US),
        rest_us=settings.rest_us(),
        antenna_zone=layout.antenna_zone.astype(np.int16),
        brief=np.isin(layout.zone_kind, (ZoneKind.ENTRANCE, ZoneKind.EXIT)),
        rule_mask=np.ascontiguousarray(layout.rule_mask, np.uint64).reshape(-1, 8),
        rule_value=np.ascontiguousarray(layout.rule_value, np.uint64).reshape(-1, 8),
        rule_class=np.ascontiguousarray(layout.rule_class, np.uint8),
        table=lifecycle.transitions(),
    )
    return Model(cells, field, radio, _limits(tuning, settings, field, temper), tuning.answer_start)


def air(model: Model, zones: int) -> Air:
    """All antennas up."""
    radio, biases = model.radio, model.limits.biases
    rates = len(radio.rate)
    tags = np.zeros((len(TagClass), rates * biases), np.int64)
    tags[:, model.start_rate * biases + biases // 2] = 1
    antennas, cells = radio.level.shape
    made = Air(
        up=np.ones(antennas, np.uint8),
        mute=np.zeros(antennas, np.uint8),
        missed=np.zeros(antennas, np.int64),
        missed_by=np.zeros(antennas, np.uint64),
        drift=np.zeros((antennas, 2), np.int64),
        heeded=np.zeros(antennas, np.uint8),
        quiet_nats=np.zeros((rates, biases, 2, cells), np.int32),
        quiet=np.ones((rates, biases, 2, cells), np.float32),
        tags=tags,
        changed_tick=np.full(cells, np.iinfo(np.int64).min, np.int64),
        down=np.full((zones, figures.DOWNS, 2), figures.NEVER, np.int64),
    )
    listen(radio, made, model.limits)
    return made


def scratch(model: Model) -> Scratch:
    """Room for the kernels to work in."""
    cells, zones = len(model.radio.cell_zone), len(model.radio.brief)
    number = np.zeros(6 * figures.CELLS, np.float32)
    return Scratch(
        slot=np.zeros(cells, np.int32),
        support=np.zeros(cells + HOMES, np.int32),
        work=np.zeros(figures.PLANES * figures.PLANE, np.float32),
        kept=np.zeros(cells + HOMES, np.int32),
        pooled=np.zeros(figures.CELLS, np.int32),
        aside=np.zeros(HOMES, np.int32),
        antenna=np.zeros(figures.HEARD, np.int32),
        level=np.zeros(figures.HEARD, np.int32),
        reads=np.zeros(figures.HEARD, np.int32),
        number=number,
        bits=number.view(np.int32),
        back=np.zeros((cells, 4), np.float32),
        words=np.zeros(figures.EVENTS * figures.CELLS, np.uint64),
        message=np.zeros((2, figures.CELLS, 4), np.float32),
        mass=np.zeros(zones + 1, np.float32),
        zones=np.zeros(zones + 1, np.int32),
        top_zone=np.zeros((figures.EVENTS, 3), np.int16),
        top_p=np.zeros((figures.EVENTS, 3), np.float32),
    )


def _limits(tuning: Tuning, settings: Settings, field: Field, temper: float) -> Limits:
    """The kernels' scalars."""
    evals = tuning.bias_s / figures.BIAS_TICKS
    return Limits(
        tick_us=TICK_US,
        floor_dbm=FLOOR_DBM,
        step_db=STEP_DB,
        sure_steps=round((field.half_rate_dbm + SURE_DB - FLOOR_DBM) / STEP_DB),
        biases=tuning.biases,
        bias_steps=round(tuning.bias_step_db / STEP_DB),
        block_steps=round(field.block_db / STEP_DB),
        bias_weight=tuning.bias_weight / temper,
        bias_prior=0.5 * (tuning.bias_step_db / tuning.bias_spread_db) ** 2,
        bias_keep=1.0 - 1.0 / evals,
        bias_hurdle=0.05,
        rate_nats=float(np.log(tuning.answer_step)),
        temper=temper,
        least=tuning.least,
        slight=tuning.slight,
        jump=tuning.jump,
        lost_drift=float(tuning.lost_drift),
        lost_nats=float(tuning.lost_nats),
        stairs=tuning.stairs,
        live_share=tuning.live_share,
        remembered=min(tuning.remembered, figures.CELLS),
        lag_ticks=tuning.lag_ticks,
        batch_ticks=tuning.batch_ticks,
        lost_ticks=tuning.hold_us // TICK_US,
        short_us=tuning.short_us,
        glance_us=tuning.glance_us,
        hold_us=tuning.hold_us,
        forget_us=tuning.forget_us,
        join_gap_us=settings.join_gap_us,
        visit_us=settings.visit_us,
        end_after_exit_us=settings.journey_end_after_exit_us,
        end_silence_us=settings.journey_end_silence_us,
    )


AT_ONCE = 32
"""Antennas that are measured together."""
RATE_LOGITS = np.linspace(-5.0, 4.0, RATES - 1)


def _fit(off_db: NDArray[np.float64], reads: int, field: Field, tuning: Tuning) -> NDArray[np.float64]:
    """Log density of the mean of a tick's reads lying `off_db` above the mean level of the place, a dB."""
    spread_db = float(np.hypot(field.spread_db, tuning.second_db))
    usual, faded = (field_.fit(off_db + down, reads, spread_db) for down in (0.0, tuning.faded_db))
    return np.asarray(np.logaddexp(np.log1p(-tuning.faded_share) + usual, np.log(tuning.faded_share) + faded))


def _logistic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))


def _rate_classes(rate: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(A,) the class next to each antenna's rate."""
    rate = np.clip(rate, 1e-6, 1.0 - 1e-6)
    logit = np.log(rate) - np.log1p(-rate)
    return np.asarray(1 + np.abs(logit[:, None] - RATE_LOGITS).argmin(axis=1), np.uint8)


def _level_steps(cells: Cells, layout: Layout, field: Field) -> NDArray[np.uint8]:
    """(A, C) mean levels in steps; some antennas at a time, for all of them at once would take much memory."""
    antennas = len(layout.antenna_zone)
    made = np.zeros((antennas, len(cells)), np.uint8)
    for a in range(0, antennas, AT_ONCE):
        some = slice(a, a + AT_ONCE)
        level = field_.levels(cells, layout, field, some)
        step = np.round((level - FLOOR_DBM) / STEP_DB)
        made[some] = np.where(np.isfinite(level), np.clip(step, 1, 255), 0)
    return made


def _watch(level: NDArray[np.uint8]) -> NDArray[np.int32]:
    """(C, 4) the antennas with the highest levels in each cell."""
    antennas, cells = level.shape
    found = np.full((cells, 4), figures.NONE, np.int32)
    best = np.zeros((cells, 4), np.uint8)
    for a in range(antennas):
        mine, number = level[a].copy(), np.full(cells, a, np.int32)
        for place in range(4):
            better = mine > best[:, place]
            best[better, place], mine[better] = mine[better], best[better, place]
            found[better, place], number[better] = number[better], found[better, place]
    return found


def _home(level: NDArray[np.uint8], field: Field) -> NDArray[np.int32]:
    """(A, HOMES) cells in which each antenna hears a tag well, from the nearest to the farthest."""
    antennas = len(level)
    found = np.full((antennas, HOMES), figures.NONE, np.int32)
    least = (field.half_rate_dbm - FLOOR_DBM) / STEP_DB
    for a in range(antennas):
        order = np.argsort(-level[a].astype(np.int64), kind="stable")
        heard = max(int((level[a] >= least).sum()), min(HOMES, int((level[a] > 0).sum())))
        if heard:
            # Evenly by distance, not by number: there are far more of the far ones.
            pick = np.unique((np.linspace(0.0, 1.0, HOMES) ** 2 * (heard - 1)).astype(np.int64))
            found[a, : len(pick)] = order[pick]
    return found


def _hops(cells: Cells, tuning: Tuning) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """(3, C, D) the cells that walkers go to in an event of each span, beyond the edge of the floor the last one on it,
    and (D,) the share of them that goes there: one step in each direction, or two if that isn't fast enough. A step is
    1, 2 and 4 cells long."""
    own = np.arange(len(cells), dtype=np.int32)[:, None]
    if not cells.placed:
        most = max(int(cells.linked.sum(axis=1).max(initial=0)), 1)
        linked = np.tile(own, (1, most + -most % figures.WAYS))
        for c, there in enumerate(cells.linked):
            ways = np.flatnonzero(there)
            linked[c, :most] = np.resize(ways, most) if len(ways) else c
        turn = np.where(np.arange(linked.shape[1]) < most, 1.0 / most, 0.0)
        return np.stack([linked] * len(SPANS)).astype(np.uint16), turn.astype(np.float32)
    turn = np.repeat([1.0, cells_.DIAGONAL], 4)
    turn /= turn.sum()
    ways = np.arange(len(turn))
    steps = [np.where(cells.next[:, :8] >= 0, cells.next[:, :8], own).astype(np.int32)]
    for _ in range(3):
        steps.append(steps[-1][steps[-1], ways])
    far = _far(cells, tuning)
    if not far:
        return np.stack(steps[:3]).astype(np.uint16), turn.astype(np.float32)
    hops = np.stack([np.hstack(pair) for pair in pairwise(steps)])
    return hops.astype(np.uint16), np.append((1.0 - far) * turn, far * turn).astype(np.float32)


def _far(cells: Cells, tuning: Tuning) -> float:
    """Share of the walkers that leave a usual cell for one two steps away."""
    near = tuning.pace_most * cells_.HOP * float(np.median(cells.edge_m)) ** 2
    return float(np.clip((tuning.pace_m**2 / near - 1.0) / 3.0, 0.0, 1.0))


def _moving(cells: Cells, tuning: Tuning) -> NDArray[np.float32]:
    """(3, C) probability of a walker's leaving a cell. Hops of a longer event are longer instead: by the square root of
    its length, as the spread of a random walk is."""
    if cells.placed:
        once = cells_.leaving(cells.edge_m, tuning.pace_m, tuning.pace_most)
        return np.tile(once, (len(SPANS), 1)).astype(np.float32)
    mixed = 1.0 - (1.0 - tuning.pace_zone) ** SPANS
    return np.tile(mixed[:, None], (1, len(cells))).astype(np.float32)


def _switching(cells: Cells, layout: Layout, tuning: Tuning) -> tuple[NDArray[np.float32], ...]:
    """(3, C) probabilities of walking after having stood, and of standing after having walked, over each span."""
    passed = cells_.passed(cells, layout)
    leave = 1.0 - np.exp(-1.0 / np.where(passed, tuning.pass_stay_s, tuning.stay_s))
    stop = np.where(cells.zone < 0, 0.0, np.where(passed, tuning.pass_stop_rate, tuning.stop_rate))
    both = leave + stop
    mixed = np.stack([1.0 - (1.0 - both) ** span for span in SPANS])
    return (leave / both * mixed).astype(np.float32), (stop / both * mixed).astype(np.float32)


def _blocking(field: Field, tuning: Tuning) -> NDArray[np.float32]:
    """(3, 2) probabilities of becoming blocked, and clear again."""
    on, off = 1.0 - np.exp(-field.block_rate), 1.0 - np.exp(-1.0 / tuning.clear_s)
    mixed = 1.0 - (1.0 - on - off) ** SPANS
    return np.column_stack([on / (on + off) * mixed, off / (on + off) * mixed]).astype(np.float32)


def _prior(cells: Cells, tuning: Tuning) -> NDArray[np.float32]:
    return np.where(cells.zone >= 0, 1.0, tuning.aisle_share).astype(np.float32)


def _first(cells: Cells, layout: Layout, tuning: Tuning) -> NDArray[np.float32]:
    doors = np.isin(layout.zone_kind, (ZoneKind.ENTRANCE, ZoneKind.EXIT))[cells.zone] & (cells.zone >= 0)
    return _prior(cells, tuning) * np.where(doors, tuning.door_share, 1.0).astype(np.float32)


def _still(cells: Cells, layout: Layout, tuning: Tuning) -> NDArray[np.float32]:
    passed = cells_.passed(cells, layout)
    return np.where(cells.zone < 0, 0.0, np.where(passed, tuning.pass_still, tuning.still)).astype(np.float32)


def _temper(cells: Cells, tuning: Tuning) -> float:
    """Weight of the evidence, by how wide the usual zone is; all of it without positions, where levels spread wide."""
    if not cells.placed:
        return tuning.temper_small
    zones = np.unique(cells.zone[cells.zone >= 0])
    if not len(zones):
        return tuning.temper
    area = np.array([(cells.edge_m[cells.zone == z] ** 2).sum() for z in zones])
    return tuning.temper_small if np.median(np.sqrt(area)) < SMALL_M else tuning.temper


def _parts() -> NDArray[np.float32]:
    """(256,) what each step of a probability in the pool stands for; the last one for nothing."""
    steps = np.arange(256)
    bits = figures.ONE_BITS - (steps << figures.BIT_SHIFT) - (steps > 0) * (1 << (figures.BIT_SHIFT - 1))
    made = bits.astype(np.int32).view(np.float32).copy()
    made[255] = 0.0
    return made


def _cuts(longest: int) -> NDArray[np.uint8]:
    """(longest + 1, 3) how many pieces of 1, 4 and 16 ticks a silence is cut into: short ones first."""
    ticks = np.arange(longest + 1)
    long = np.maximum(ticks - 20, 0) // 16
    some = np.maximum(ticks - 16 * long - 4, 0) // 4
    return np.column_stack([ticks - 16 * long - 4 * some, some, long]).astype(np.uint8)
