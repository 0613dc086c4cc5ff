"""A rule that knows the radio: every antenna's true level everywhere, and how often it asks. What it gets wrong is
irreducible, or nearly so.

Of a tag it knows nothing, neither how loud it is nor when a body hides it: it weighs all of that. Forward and backward
over places of 1 m, {stand, walk} × {clear, hidden}, with silence as evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from peers import UNKNOWN_DB, Heard

from simulators.shop.draws import coverage, usual_cards
from simulators.shop.plan import Plan
from simulators.shop.radio import ROUND_S, SWITCH_S, TAG_S, Radio
from simulators.shop.score import Stay
from simulators.shop.world import WALLED

if TYPE_CHECKING:
    from drawn import Case

    from dwell.markov.cells import Cells

Floats = NDArray[np.float64]
AROUND_M = 2.0
"""Floor beyond the outermost zones that is looked at."""
BIAS_DB = np.arange(-9.0, 10.0, 3.0)
POWER = 0.55
"""Weight of a second's evidence: what is frozen for a moment is not heard anew each second."""
FIRST_POWER = 0.1
"""The same where the tag's loudness is weighed."""
BREAK_S = 900
"""Silence between two journeys."""
STAND_S, PASS_BY_S = 25.0, 12.0
"""How long one stands, and walks between two stands."""
TAIL = 12.0
PARTS = 3
"""Points along a cell's edge that its level is the mean of."""
OUT_OF_REACH = 8.0
"""Nats, beyond an outlier's."""


def decided(it: Case) -> list[Stay]:
    """Stays of the second half hour."""
    field = _Field(it)
    heard = Heard.of(it.late, it.store.layout.antenna_zone)
    first_s = it.cut_us // 1_000_000
    down = np.zeros(((it.until_us - it.cut_us) // 1_000_000 + 1, len(field.reader)), bool)
    for reader, start_us, end_us in it.outages:
        a, b = (int(np.clip(t // 1_000_000 - first_s, 0, len(down))) for t in (start_us, end_us))
        down[a:b, field.reader == reader] = True
    found: list[Stay] = []
    for n, epc in enumerate(heard.epc):
        mine = np.arange(heard.start[n], heard.start[n + 1])
        second = heard.time_us[mine] // 1_000_000 - first_s
        for part in np.split(mine, np.flatnonzero(np.diff(second) > BREAK_S) + 1):
            stays = _smoothed(field, heard, part, first_s, down) if len(part) > 1 else []
            found += [
                Stay(epc, it.store.zones[z], (first_s + a) * 1_000_000, (first_s + b) * 1_000_000) for z, a, b in stays
            ]
    return found


def levels(it: Case, cells: Cells, *, shadows: bool) -> Floats:
    """(A, C) mean level of a usual card in each of the engine's cells, dBm as readers tell it; −inf out of reach."""
    plan = Plan(it.drawn.config)
    radio = _radio(it, plan)
    if not shadows:
        radio.shadow_db[:] = 0.0
    floor = np.searchsorted(cells.floors, cells.floor)
    total = np.zeros((len(radio.report_db), len(cells)))
    for part in np.ndindex(PARTS, PARTS):
        off = (np.array(part) + 0.5) / PARTS - 0.5
        at = cells.xy.astype(float) + off * cells.edge_m[:, None].astype(float)
        scene = usual_cards(it.drawn.world, plan, at, floor, plan.zone_at(at[:, 0], at[:, 1], floor))
        total += radio.levels(scene)[:, :, 0].T
    return total / PARTS**2 + radio.report_db[:, None]


def _radio(it: Case, plan: Plan) -> Radio:
    seed = np.random.default_rng([it.seed, 1])
    return Radio(it.drawn.antennas, it.drawn.world, seed, np.isin(plan.kinds, WALLED))


class _Field:
    """Cells of all floors in one array with a border round each, the true levels in them, and what readers ask."""

    def __init__(self, it: Case) -> None:
        drawn, world = it.drawn, it.drawn.world
        plan = Plan(drawn.config)
        floors = int(plan.floors.max()) + 1
        corners = np.concatenate(plan.polygons)
        sides = [np.ptp(polygon, axis=0).min() for polygon in plan.polygons]
        cell_m = float(np.clip(np.median(sides) / 4, 0.6, 1.0))
        low, high = corners.min(axis=0) - AROUND_M, corners.max(axis=0) + AROUND_M
        columns, rows = (int(n) + 2 for n in np.ceil((high - low) / cell_m))
        floor, u, v = (a.ravel() for a in np.indices((floors, columns, rows)))
        x, y = low[0] + (u - 0.5) * cell_m, low[1] + (v - 0.5) * cell_m
        self.rows, n, zones = rows, len(floor), len(plan.ids)
        self.share = np.zeros((n, zones + 1))
        for dx, dy in np.ndindex(4, 4):
            at = plan.zone_at(x + ((dx + 0.5) / 4 - 0.5) * cell_m, y + ((dy + 0.5) / 4 - 0.5) * cell_m, floor)
            self.share[np.arange(n), np.where(at < 0, zones, at)] += 1 / 16
        # Who stands does so in a zone, be it at the edge of the cell.
        self.stood = np.eye(zones + 1)[self.share[:, :zones].argmax(axis=1)]
        inner = (u > 0) & (v > 0) & (u < columns - 1) & (v < rows - 1)
        near = np.zeros(n, bool)
        for on in range(floors):
            mine = np.concatenate([p for p, f in zip(plan.polygons, plan.floors, strict=True) if f == on])
            lo, hi = mine.min(axis=0) - AROUND_M, mine.max(axis=0) + AROUND_M
            near |= (floor == on) & (x > lo[0]) & (x < hi[0]) & (y > lo[1]) & (y < hi[1])
        self.walkable = (inner & near).astype(np.float32)
        self.stands = (self.share[:, zones] < 0.6) & (self.walkable > 0)
        doors = [zone for zone, kind in enumerate(plan.kinds) if kind.value in ("entrance", "exit")] or [0]
        self.doors = np.flatnonzero((self.share[:, doors].sum(axis=1) > 0.5) & (self.walkable > 0))
        self.stairs = _stairs(plan, floor, x, y, self.share)
        radio = _radio(it, plan)
        main = self.share[:, :zones].argmax(axis=1)
        zone = np.where(self.share[:, zones] < 0.5, main, -1)
        scene = usual_cards(world, plan, np.column_stack([x, y]), floor, zone)
        level = radio.levels(scene)[:, :, 0].astype(float)
        self.level = np.where(np.isfinite(level), level, -200.0)
        self.level_of = np.ascontiguousarray(self.level.T, np.float32)
        self.report_db, self.reader = radio.report_db, drawn.antennas.reader
        self.fast2 = (world.fast_still_db**2 + world.fast_moving_db**2) / 2
        self.slow2 = (world.slow_moving_db**2 + world.slow_still_db**2) / 2 + world.facing_db**2 / 8 + 1.0
        self.block_db, self.half_dbm, self.width_db = world.block_db, world.half_dbm, world.logistic_db
        hidden_s = world.block_short_s + world.block_long_share * min(3 * world.block_long_s, world.block_max_s)
        self.hides = min(0.5, 1 / (world.clear_median_s * np.exp(world.clear_sigma**2 / 2)))
        self.shows = min(0.5, 1 / hidden_s)
        self.pace = float(np.clip(world.pace_m_s / cell_m, 0.4, 0.9))
        self._ask(it, plan)
        shifted = self.level[None] + BIAS_DB[:, None, None]
        self.miss = np.stack([self._miss(shifted), self._miss(shifted - self.block_db)], axis=1)
        """(biases, 2, cells, antennas) log chance of silence for a second."""
        self.silent = self.miss.sum(axis=3)
        if self.quiet_s:
            reads = np.stack([self._reads(shifted), self._reads(shifted - self.block_db)], axis=1)
            self.any = np.log(-np.expm1(-reads) / reads).astype(np.float32)
            """(biases, 2, cells) the first to read it keeps it from the others, whose silence says nothing then."""

    def _ask(self, it: Case, plan: Plan) -> None:
        """Chance that an antenna's turn falls into a second, and how often it then asks a card that answers."""
        world, antennas = it.drawn.world, it.drawn.antennas
        tags = it.drawn.shoppers + world.merchandise * sum(kind.value == "counter" for kind in plan.kinds)
        several = np.bincount(antennas.reader)[antennas.reader] > 1
        round_s = ROUND_S + TAG_S * np.maximum(1, coverage(world, plan, antennas).heard.mean(axis=0) * tags)
        turn_s = np.maximum(round_s, world.dwell_s) + np.where(several, SWITCH_S, 0)
        cycle_s = np.bincount(antennas.reader, turn_s)[antennas.reader]
        self.turns = np.minimum(1.0, (1.0 + turn_s) / cycle_s)
        self.asked = np.maximum(1.0, world.dwell_s / round_s) / cycle_s / self.turns * world.card_answers
        self.turns = np.where(np.isin(np.arange(len(cycle_s)), world.dead_antennas), 1e-9, self.turns)
        self.quiet_s = world.quiet_s
        points = np.linspace(-2.4, 2.4, 13)
        weight = np.exp(-(points**2) / 2)
        self.table_dbm = np.arange(-140.0, 0.0)
        spread = np.sqrt(self.slow2 + self.fast2 + world.half_tag_db**2)
        heard = np.array([self._answered(self.table_dbm + spread * p) for p in points])
        self.hit = np.tensordot(weight / weight.sum(), heard, 1)
        """(levels, antennas) chance of a read within a second."""
        got = np.array(
            [1 / (1 + np.exp((self.half_dbm - self.table_dbm - spread * p) / self.width_db)) for p in points]
        )
        self.rate = np.tensordot(weight / weight.sum(), got, 1)[:, None] * (self.turns * self.asked) + 1e-9
        """(levels, antennas) reads a second that there would be."""
        far = np.where(self.hit < 1e-5, OUT_OF_REACH, 0.0)
        self.log_hit, self.log_rate = (np.log(a) - far for a in (self.hit, self.rate))
        self.log_miss = np.log1p(-self.hit)

    def _answered(self, rssi: Floats) -> Floats:
        got = 1 / (1 + np.exp((self.half_dbm - rssi) / self.width_db))
        result: Floats = np.clip(self.turns * (1 - np.exp(-self.asked * got[..., None])), 1e-9, 0.995)
        return result

    def _miss(self, level: Floats) -> NDArray[np.float32]:
        at = np.clip(np.round(level - self.table_dbm[0]).astype(int), 0, len(self.table_dbm) - 1)
        missed: NDArray[np.float32] = np.log1p(-self.hit[at, np.arange(level.shape[-1])]).astype(np.float32)
        return missed

    def _reads(self, level: Floats) -> Floats:
        at = np.clip(np.round(level - self.table_dbm[0]).astype(int), 0, len(self.table_dbm) - 1)
        result: Floats = self.rate[at, np.arange(level.shape[-1])].sum(axis=-1)
        return result

    def weigh(self, bias: int, events: Events, into: NDArray[np.float32], every: int) -> None:
        """Add to (seconds, 2, cells) what antennas heard, as log densities less those of their silence."""
        true = np.where(events.rssi > UNKNOWN_DB, events.rssi - self.report_db[events.antenna], np.nan)
        known = np.log(self._answered(true)[np.arange(len(true)), events.antenna])
        _weigh(
            into,
            (events.second, events.antenna, true, known, self.slow2 + self.fast2 / np.minimum(events.reads, 4)),
            self.level_of,
            (float(BIAS_DB[bias]), self.block_db, float(self.table_dbm[0]), every),
            self.log_rate if self.quiet_s else self.log_hit,
            np.zeros_like(self.log_miss) if self.quiet_s else self.log_miss,
            self.any[bias] if self.quiet_s else np.zeros((2, len(self.level)), np.float32),
        )


@dataclass(frozen=True)
class Events:
    """What was heard, second by second and antenna by antenna: arrays of one length."""

    second: NDArray[np.int64]
    antenna: NDArray[np.int64]
    rssi: Floats
    """Mean; UNKNOWN_DB: no read told its level."""
    reads: NDArray[np.int64]

    @staticmethod
    def of(heard: Heard, part: NDArray[np.int64], start_s: int, antennas: int) -> Events:
        key = (heard.time_us[part] // 1_000_000 - start_s) * antennas + heard.antenna[part]
        keys, place, count = np.unique(key, return_inverse=True, return_counts=True)
        known = heard.rssi_db[part] > UNKNOWN_DB
        n = np.bincount(place, known)
        mean = np.bincount(place, np.where(known, heard.rssi_db[part], 0)) / np.maximum(n, 1)
        return Events(keys // antennas, keys % antennas, np.where(n > 0, mean, UNKNOWN_DB), count)


def _stairs(plan: Plan, floor: Any, x: Any, y: Any, share: Floats) -> NDArray[np.int64]:
    """(k, 2) cells from which one comes to another floor, and where."""
    found = []
    for a, b in zip(*np.nonzero(plan.neighbours), strict=True):
        if plan.floors[a] != plan.floors[b]:
            middle = (plan.centres[a] + plan.centres[b]) / 2
            ends = [plan.nearest_in(int(zone), *middle) for zone in (a, b)]
            far = [
                np.hypot(x - end[0], y - end[1]) + 99 * (floor != plan.floors[zone])
                for end, zone in zip(ends, (a, b), strict=True)
            ]
            found.append([int(np.argmin(each)) for each in far])
    return np.array(found, np.int64).reshape(-1, 2)


def _smoothed(
    field: _Field, heard: Heard, part: NDArray[np.int64], first_s: int, down: NDArray[np.bool_]
) -> list[tuple[int, int, int]]:
    second = heard.time_us[part] // 1_000_000 - first_s
    start, end = max(0, int(second[0]) - 5), min(len(down), int(second[-1]) + 6)
    events = Events.of(heard, part, first_s + start, len(field.reader))
    likely = []
    for bias, db in enumerate(BIAS_DB):
        some = _emitted(field, bias, events, start, end, down, 5)
        top = some.max(axis=(1, 2))
        each = top + np.log(np.exp(some - top[:, None, None]).mean(axis=(1, 2)))
        likely.append(5 * FIRST_POWER * each.sum() - 0.5 * (db / 4) ** 2)
    emitted = _emitted(field, int(np.argmax(likely)), events, start, end, down, 1)
    outside = np.zeros(len(emitted), np.float32)
    outside[events.second] = -40
    top = np.maximum(emitted.max(axis=(1, 2)), outside)
    outside = np.exp(POWER * (outside - top))
    mass = _forward_backward(
        np.exp(POWER * (emitted - top[:, None, None])),
        outside,
        (field.walkable, (field.stands / PASS_BY_S).astype(np.float32), field.rows, field.doors, field.stairs),
        (field.hides, field.shows, field.pace, 1 / STAND_S),
    )
    return _stays(mass[:, 1] @ field.share + mass[:, 0] @ field.stood, start)


def _emitted(
    field: _Field, bias: int, events: Events, start: int, end: int, down: NDArray[np.bool_], every: int
) -> NDArray[np.float32]:
    """(seconds, 2, cells) log likelihood of what was heard and what not, of every so manieth second."""
    made = np.repeat(field.silent[bias][None], len(range(0, end - start, every)), axis=0)
    quiet = np.zeros(end - start, bool)
    if field.quiet_s:
        for s in events.second:
            quiet[s : s + 1 + round(field.quiet_s)] = True
    for n, s in enumerate(range(0, end - start, every)):
        if quiet[s]:
            made[n] = 0
        elif (off := down[start + s]).any():
            made[n] -= field.miss[bias][:, :, off].sum(axis=2)
    field.weigh(bias, events, made, every)
    return made


def _stays(odds: Floats, start: int) -> list[tuple[int, int, int]]:
    """Runs of the likeliest zone (zone, from, to); the last column is no zone, and what is missing to 1 the outside."""
    outside = np.maximum(0, 1 - odds.sum(axis=1))
    odds = np.concatenate([odds[:, :-1], (odds[:, -1] + outside)[:, None]], axis=1)
    zone = odds.argmax(axis=1)
    cut = np.flatnonzero(np.diff(zone)) + 1
    runs = zip(np.concatenate([[0], cut]).tolist(), np.concatenate([cut, [len(zone)]]).tolist(), strict=True)
    kept = []
    for a, b in runs:
        z = int(zone[a])
        # A short stay counts from 10 s on: is it likely to have been that long?
        if z < odds.shape[1] - 1 and (not 8 <= b - a < 16 or odds[max(0, a - 6) : b + 6, z].sum() >= 10):
            kept.append((z, start + a, start + b))
    return kept


@njit(cache=True)
def _weigh(into: Any, events: Any, level: Any, figures: Any, log_hit: Any, log_miss: Any, shared: Any) -> None:
    second, antenna, true, known, variance = events
    bias, block, lowest, every = figures
    for e in range(len(second)):
        if second[e] % every:
            continue
        row, a = second[e] // every, antenna[e]
        told = not np.isnan(true[e])
        least = -0.5 * np.log(2 * np.pi * variance[e])
        for hidden in range(2):
            for c in range(into.shape[2]):
                here = level[a, c] + bias - hidden * block
                at = min(max(round(here - lowest), 0), len(log_hit) - 1)
                said = log_hit[at, a]
                if told:
                    q = (true[e] - here) ** 2 / variance[e]
                    # What it is heard at says all about whether it was heard, but for places out of reach.
                    said = known[e] + least - 0.5 * TAIL * q / (q + TAIL)
                    if log_hit[at, a] < -15.0:
                        said -= OUT_OF_REACH
                into[row, hidden, c] += said - log_miss[at, a] + shared[hidden, c]


@njit(cache=True, fastmath=True)
def _step(walk: Any, walkable: Any, rows: int, pace: float, out: Any) -> None:
    """`out` = walkers a second later; by symmetry the same forward and backward."""
    whole = np.float32(pace / 6.8)
    rest = np.float32(1 - pace)
    diagonal = np.float32(0.7)
    for c in range(rows + 1, len(walk) - rows - 1):
        straight = walk[c - 1] + walk[c + 1] + walk[c - rows] + walk[c + rows]
        across = walk[c - rows - 1] + walk[c - rows + 1] + walk[c + rows - 1] + walk[c + rows + 1]
        out[c] = (rest * walk[c] + whole * (straight + diagonal * across)) * walkable[c]


@njit(cache=True, fastmath=True)
def _move(now: Any, outside: Any, made: Any, floor: Any, figures: Any, backward: bool) -> Any:
    """States {stand, walk} × {clear, hidden} (4, cells) a second later (`backward`: earlier); returns the outside's."""
    walkable, stop, rows, doors, stairs = floor
    hides, shows, pace, leaves = figures
    cells = now.shape[1]
    mixed = np.empty((4, cells), np.float32)
    for k in range(0, 4, 2):
        for c in range(cells):
            clear, hidden = now[k, c], now[k + 1, c]
            if backward:
                mixed[k, c] = (1 - hides) * clear + hides * hidden
                mixed[k + 1, c] = shows * clear + (1 - shows) * hidden
            else:
                mixed[k, c] = (1 - hides) * clear + shows * hidden
                mixed[k + 1, c] = hides * clear + (1 - shows) * hidden
    going, gone = np.zeros(cells, np.float32), np.zeros(cells, np.float32)
    left = np.float32(0.97 * outside)
    for h in range(2):
        stand, walk = mixed[h], mixed[2 + h]
        if backward:
            _step(walk, walkable, rows, pace, gone)
            for a, b in stairs:
                gone[a] += np.float32(0.05) * walk[b]
            for d in doors:
                gone[d] += np.float32(0.1 * outside)
                left += np.float32(0.03 / len(doors) / 2) * walk[d]
            for c in range(cells):
                made[h, c] = (1 - leaves) * stand[c] + leaves * gone[c]
                made[2 + h, c] = stop[c] * stand[c] + (1 - stop[c]) * gone[c]
        else:
            for c in range(cells):
                going[c] = leaves * stand[c] + (1 - stop[c]) * walk[c]
                made[h, c] = (1 - leaves) * stand[c] + stop[c] * walk[c]
            _step(going, walkable, rows, pace, gone)
            for a, b in stairs:
                gone[b] += np.float32(0.05) * going[a]
            for d in doors:
                left += np.float32(0.1) * going[d]
                gone[d] += np.float32(0.03 / len(doors) / 2 * outside)
            made[2 + h] = gone
    return left


@njit(cache=True, fastmath=True)
def _forward_backward(emitted: Any, outside: Any, floor: Any, figures: Any) -> Any:
    """(seconds, 2, cells) probability of standing and of walking in each; what is missing to 1 is the outside."""
    seconds, _, cells = emitted.shape
    walkable = floor[0]
    forward, out = np.zeros((seconds, 4, cells), np.float32), np.zeros(seconds, np.float32)
    now, beyond = np.zeros((4, cells), np.float32), np.float32(0.2)
    for k in range(4):
        now[k] = walkable / cells
    made = np.zeros((4, cells), np.float32)
    for t in range(seconds):
        if t:
            beyond = _move(now, beyond, made, floor, figures, False)
            now[:] = made
        beyond *= outside[t]
        whole = np.float32(beyond)
        for k in range(4):
            for c in range(cells):
                now[k, c] *= emitted[t, k % 2, c]
                whole += now[k, c]
        for k in range(4):
            for c in range(cells):
                now[k, c] = now[k, c] / whole + np.float32(1e-20)
        beyond /= whole
        forward[t] = now
        out[t] = beyond
    mass = np.zeros((seconds, 2, cells), np.float32)
    now[:] = 1
    beyond = np.float32(1)
    for t in range(seconds - 1, -1, -1):
        if t < seconds - 1:
            for k in range(4):
                for c in range(cells):
                    now[k, c] *= emitted[t + 1, k % 2, c]
            beyond = _move(now, beyond * outside[t + 1], made, floor, figures, True)
            top = np.float32(beyond)
            for k in range(4):
                for c in range(cells):
                    top = max(top, made[k, c])
            for k in range(4):
                for c in range(cells):
                    now[k, c] = made[k, c] / top + np.float32(1e-20)
            beyond /= top
        whole = out[t] * beyond
        for k in range(4):
            for c in range(cells):
                part = forward[t, k, c] * now[k, c]
                mass[t, k // 2, c] += part
                whole += part
        for k in range(2):
            for c in range(cells):
                mass[t, k, c] /= whole
    return mass
