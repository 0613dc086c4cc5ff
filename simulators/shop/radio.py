"""What readers hear: propagation, the body, reader cycles and the rows that come of them.

Figures are those of public UHF recordings (a 4-antenna R420 in a room, cards worn on the body, two shops): level
−52.7 − 21.5·log10(d) dBm, shadowing frozen per place and antenna, a logistic link, antennas taking turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config import StoreConfig
from simulators.readers.observation import RSSI_UNKNOWN
from simulators.shop.plan import Floats, Ints, Plan
from simulators.shop.worlds import World

TICK_US = 500_000
"""Step in which places, bodies and slow fading are looked at; reads have their own times within."""
HEAR_MIN_DBM = -76.0
REACH_M = 16.0
"""Beyond this no card is heard."""
CELL_M = 1.0
"""Shadowing is one value within a cell of this size."""
GRID = 128
"""Cells a side before the pattern of shadowing repeats."""
TURN_S = 0.008
"""Of an antenna's turn: what it takes without any tag …"""
TAG_S = 0.0063
"""… and what each tag in view adds (70 rows/s with one tag, 156 with 29)."""
SWITCH_S = 0.024
"""Added to a turn where several antennas share the reader (6.5 rows/s each with four)."""
HEIGHT_M = 1.3
"""Of an antenna above or beside a card."""
STOREY_M = 4.5

ROW = np.dtype([("time_us", "<i8"), ("arrival_us", "<i8"), ("antenna", "<i4"), ("tag", "<i4"), ("rssi_cdbm", "<i4")])
Rows = NDArray[Any]


@dataclass(frozen=True)
class Antennas:
    """All antenna ports of a store, numbered in the file's order."""

    reader: Ints
    port: Ints
    zone: Ints
    xy: Floats
    floor: Ints
    facing: Floats
    """Radians, towards the middle of its zone; NaN where it hangs over that middle."""

    @staticmethod
    def of(config: StoreConfig, plan: Plan) -> Antennas:
        number = {id_: i for i, id_ in enumerate(plan.ids)}
        rows = [(i, a.port, number[a.zone], a.position) for i, r in enumerate(config.readers) for a in r.antennas]
        zone = np.array([row[2] for row in rows], np.int64)
        xy = np.array([row[3] for row in rows], float).reshape(-1, 2)
        ahead = plan.centres[zone] - xy if len(rows) else xy
        facing = np.where(np.hypot(*ahead.T) > 0.75, np.arctan2(ahead[:, 1], ahead[:, 0]), np.nan)
        return Antennas(
            np.array([row[0] for row in rows], np.int64),
            np.array([row[1] for row in rows], np.int64),
            zone,
            xy,
            plan.floors[zone] if len(rows) else zone,
            facing,
        )


@dataclass
class Scene:
    """Tags of a slice of K ticks: arrays (T, K), or (T,) where they don't change."""

    tag: Ints
    x: Floats
    y: Floats
    floor: Ints
    present: NDArray[np.bool_]
    moving: NDArray[np.bool_]
    loss_db: Floats
    facing: Floats
    """Where a worn card faces (rad); NaN for what no body shadows."""
    answers: Floats
    """(T,) share of the rounds in which the tag answers at all."""


class Radio:
    """The store's antennas in one world; `hear` goes on from slice to slice."""

    def __init__(self, antennas: Antennas, world: World, rng: np.random.Generator) -> None:
        self.antennas = antennas
        self.world = world
        self._rng = rng
        n = len(antennas.port)
        self._offset = rng.normal(0, world.offset_db, n)
        self._shadow = rng.normal(0, world.shadow_db, (n, GRID * GRID)).astype(np.float32)
        self._slow: dict[int, Floats] = {}
        readers = int(antennas.reader.max()) + 1 if n else 0
        self._phase = rng.random(readers)
        self._ports = np.bincount(antennas.reader, minlength=readers)
        order = np.zeros(n)
        for reader in range(readers):
            mine = np.flatnonzero(antennas.reader == reader)
            order[mine] = np.arange(len(mine)) / len(mine)
        self._turn_at = order

    def hear(self, start_us: int, scene: Scene) -> Rows:
        """Rows of dtype ROW heard in the slice, by time; arrival times are set, too."""
        pair_tag, pair_antenna = self._near(scene)
        if not pair_tag.size:
            return np.empty(0, ROW)
        level = self._levels(scene, pair_tag, pair_antenna)
        counts, offsets_s, spacing_s = self._turns(level, pair_antenna)
        hot = (level > HEAR_MIN_DBM - 3) & (counts[pair_antenna] > 0)
        pair, tick = np.nonzero(hot)
        tag, antenna = pair_tag[pair], pair_antenna[pair]
        repeat = counts[antenna, tick]
        answers = scene.answers[tag]
        shy = answers < 0.5
        if shy.any():  # most rounds of a shy tag come to nothing: draw how many don't
            repeat = np.where(shy, self._rng.binomial(repeat, answers), repeat)
            answers = np.where(shy, 1.0, answers)
        row = np.repeat(np.arange(len(pair)), repeat)
        nth = np.arange(len(row)) - np.repeat(np.cumsum(repeat) - repeat, repeat)
        antenna, tick, tag = antenna[row], tick[row], tag[row]
        sigma = np.where(scene.moving[tag, tick], self.world.fast_moving_db, self.world.fast_still_db)
        rssi = level[pair[row], tick] + self._rng.standard_normal(len(row), np.float32) * sigma
        chance = answers[row] / (1 + np.exp((self.world.half_dbm - rssi) / self.world.logistic_db))
        got = (self._rng.random(len(row), np.float32) < chance) & (rssi > HEAR_MIN_DBM)
        antenna, tick, tag, nth, rssi = antenna[got], tick[got], tag[got], nth[got], rssi[got]
        spacing = spacing_s[antenna, tick]
        within_s = offsets_s[antenna, tick] + nth * spacing
        within_s = within_s + self._rng.random(len(tag)) * spacing / self._ports[self.antennas.reader[antenna]]
        rows = np.empty(len(tag), ROW)
        into_us = tick * TICK_US + (within_s * 1e6).astype(np.int64)
        rows["time_us"] = start_us + np.minimum(into_us, scene.x.shape[1] * TICK_US - 1)
        rows["antenna"], rows["tag"] = antenna, scene.tag[tag]
        rows["rssi_cdbm"] = np.round(rssi * 2) * 50
        rows["arrival_us"] = rows["time_us"] + self._delays_us(len(rows))
        if self.world.rssi_unknown_share:
            rows["rssi_cdbm"][self._rng.random(len(rows)) < self.world.rssi_unknown_share] = RSSI_UNKNOWN
        return rows[np.argsort(rows["time_us"], kind="stable")]

    def forget(self, tags: Sequence[int]) -> None:
        """Drop what is remembered of tags that have left."""
        for tag in tags:
            self._slow.pop(tag, None)

    def _near(self, scene: Scene) -> tuple[Ints, Ints]:
        """(tag, antenna) pairs that could hear each other at some moment of the slice."""
        a = self.antennas
        looks = sorted({0, scene.x.shape[1] // 2, scene.x.shape[1] - 1})
        near: NDArray[np.bool_] = np.zeros((len(scene.tag), len(a.port)), bool)
        for k in looks:
            far = np.hypot(scene.x[:, k, None] - a.xy[:, 0], scene.y[:, k, None] - a.xy[:, 1])
            storeys = np.abs(scene.floor[:, k, None] - a.floor)
            near |= far + storeys * 8 < REACH_M
        near &= scene.present.any(axis=1, keepdims=True)
        tag, antenna = np.nonzero(near)
        return tag, antenna

    def _levels(self, scene: Scene, tag: Ints, antenna: Ints) -> Floats:
        """Mean level of each pair at each tick, all but the fast fading; −inf where the tag is away."""
        a, w = self.antennas, self.world
        x, y = scene.x[tag], scene.y[tag]
        dx, dy = x - a.xy[antenna, 0, None], y - a.xy[antenna, 1, None]
        storeys = np.abs(scene.floor[tag] - a.floor[antenna, None])
        d2 = dx * dx + dy * dy + (HEIGHT_M + storeys * STOREY_M) ** 2
        level = w.level_1m_dbm - w.slope_db / 2 * np.log10(d2) - storeys * w.floor_db
        bearing = np.arctan2(dy, dx)
        off_axis = np.cos(bearing - np.nan_to_num(a.facing[antenna])[:, None])
        directed = np.isfinite(a.facing[antenna])[:, None]
        level -= np.where(directed, w.behind_db * (1 - off_axis) / 2, 0)
        cell = (x // CELL_M).astype(np.int64) % GRID * GRID + (y // CELL_M).astype(np.int64) % GRID
        level += self._offset[antenna, None] + self._shadow[antenna[:, None], cell]
        worn = np.isfinite(scene.facing[tag])
        # The card faces the antenna when it looks back along the bearing.
        turned = (1 + np.cos(bearing - np.nan_to_num(scene.facing[tag]))) / 2
        level -= scene.loss_db[tag] + np.where(worn, w.facing_db * turned, 0)
        level += self._slow_fading(scene, tag, antenna) * np.where(scene.moving[tag], w.slow_moving_db, 0.0)
        return np.where(scene.present[tag], level, -np.inf)

    def _slow_fading(self, scene: Scene, tag: Ints, antenna: Ints) -> Floats:
        """Unit Ornstein–Uhlenbeck processes of the pairs, remembered per tag from slice to slice."""
        ticks = scene.x.shape[1]
        keep = np.exp(-TICK_US / 1e6 / self.world.slow_tau_s)
        states = [self._slow.get(int(t)) for t in scene.tag]
        n = len(self.antennas.port)
        state = np.stack([s if s is not None else self._rng.standard_normal(n) for s in states])
        noise = self._rng.standard_normal((len(tag), ticks)) * np.sqrt(1 - keep * keep)
        slow = np.empty((len(tag), ticks))
        value = state[tag, antenna]
        for k in range(ticks):
            value = keep * value + noise[:, k]
            slow[:, k] = value
        state[tag, antenna] = value
        self._slow.update((int(t), row) for t, row in zip(scene.tag, state, strict=True))
        return slow

    def _turns(self, level: Floats, pair_antenna: Ints) -> tuple[Ints, Floats, Floats]:
        """Per antenna and tick: turns begun, seconds into the tick of the first, seconds from one to the next."""
        a = self.antennas
        ticks = level.shape[1]
        pair, tick = np.nonzero(level > self.world.half_dbm)
        tags = np.bincount(pair_antenna[pair] * ticks + tick, minlength=len(a.port) * ticks).reshape(-1, ticks)
        shared = self._ports[a.reader] > 1
        turn_s = TURN_S + TAG_S * np.maximum(1, tags) + np.where(shared, SWITCH_S, 0)[:, None]
        cycle_s = np.zeros((len(self._ports), ticks))
        np.add.at(cycle_s, a.reader, turn_s)
        rounds = TICK_US / 1e6 / np.maximum(cycle_s, TURN_S)
        ends = self._phase[:, None] + np.cumsum(rounds, axis=1)
        starts = ends - rounds
        self._phase = ends[:, -1] % 1.0
        first = np.ceil(starts[a.reader] - self._turn_at[:, None])
        counts = (np.ceil(ends[a.reader] - self._turn_at[:, None]) - first).astype(np.int64)
        into = (first + self._turn_at[:, None] - starts[a.reader]) * cycle_s[a.reader]
        return counts, into, cycle_s[a.reader]

    def _delays_us(self, n: int) -> Ints:
        """How long rows are under way beyond the others: most not at all, some up to a quarter of a second."""
        w = self.world
        late = self._rng.random(n) < w.late_share
        delay = np.minimum(self._rng.exponential(w.late_tau_s, n), w.late_max_s)
        return (np.where(late, delay, 0) * 1e6).astype(np.int64)
