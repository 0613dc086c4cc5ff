"""Radio simulation: propagation, bodies, inventory rounds and the resulting reads.

The shape is that of public UHF recordings (a 4-antenna R420 in a room, cards worn on the body, two shops): level
falling with the logarithm of the distance and with the angle off the antenna's axis, shadows frozen for each place and
antenna, slow and fast fading, a logistic link, antennas of a reader taking turns. Its figures are the world's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from simulators.readers.observation import RSSI_UNKNOWN
from simulators.shop.antennas import Antennas
from simulators.shop.plan import Floats, Ints
from simulators.shop.worlds import World

TICK_US = 500_000
"""Time step of places, bodies and slow fading; reads have their own times within."""
DEAF_DB = 7.0
"""No answer this far below the level at which every second query is answered."""
LUCK_DB = 12.0
"""Margin for shadowing and fading when deciding that a tag is out of reach."""
GRID = 128
"""Grid points per side before the shadowing pattern repeats."""
ROUND_S = 0.008
"""Duration of a round without tags …"""
TAG_S = 0.0063
"""… and for each tag in view (70 rows/s with one tag, 156 with 29)."""
SWITCH_S = 0.024
"""Extra time for switching to another antenna (6.5 rows/s each with four)."""
NOISE_DB = 0.8
"""Noise between successive reads on the same channel."""
NEAR_M = 0.3
"""Minimum distance of a card."""

ROW = np.dtype([("time_us", "<i8"), ("arrival_us", "<i8"), ("antenna", "<i4"), ("tag", "<i4"), ("rssi_cdbm", "<i4")])
Rows = NDArray[Any]


@dataclass
class Scene:
    """Tags of a slice of K ticks: arrays (T, K), or (T,) where they don't change."""

    tag: Ints
    x: Floats
    y: Floats
    floor: Ints
    room: Ints
    """Zone where walls stand around it, -1 elsewhere."""
    present: NDArray[np.bool_]
    moving: NDArray[np.bool_]
    loss_db: Floats
    facing: Floats
    """Direction that a worn card faces (rad); NaN for tags that no body shadows."""
    height: Floats
    """(T,) metres above the floor."""
    half_db: Floats
    """(T,) extra power that the tag needs compared with others."""
    answers: Floats
    """(T,) share of rounds in which the tag answers at all."""


class Radio:
    """The store's antennas in one world; `hear` continues from slice to slice."""

    def __init__(
        self, antennas: Antennas, world: World, rng: np.random.Generator, walled: NDArray[np.bool_] | None = None
    ) -> None:
        """`walled`: by zone, whether it has walls."""
        self.antennas = antennas
        self.world = world
        self._rng = rng
        n = len(antennas.port)
        self.offset_db = rng.normal(0, world.offset_db, n)
        """(n,) real offset of the level …"""
        readers = int(antennas.reader.max()) + 1 if n else 0
        self.report_db = rng.normal(0, world.report_db, readers)[antennas.reader]
        """… and offset of the reported RSSI."""
        self.shadow_db = np.zeros((n, GRID, GRID), np.float32)
        if world.shadow_db:
            self.shadow_db[:] = rng.normal(0, world.shadow_db, self.shadow_db.shape)
        self._slow: dict[int, tuple[Floats, float]] = {}
        self._room = np.full(n, -1)
        if walled is not None and n:
            self._room = np.where(walled[antennas.zone], antennas.zone, -1)
        order = np.argsort(antennas.reader, kind="stable")
        self._first = np.searchsorted(antennas.reader[order], np.arange(readers + 1))
        self._order = order
        self._turn = (self._first[:-1] + rng.integers(0, np.maximum(1, np.diff(self._first)))).astype(np.int64)
        self._clock_s = np.zeros(readers)
        self._left_s = np.zeros(readers)
        self._dead = np.isin(np.arange(n), world.dead_antennas)

    def hear(self, start_us: int, scene: Scene) -> Rows:
        """Return the rows (dtype ROW) heard in the slice, by time, with arrival times."""
        w, n = self.world, len(self.antennas.port)
        if not n or not len(scene.tag):
            return np.empty(0, ROW)
        levels = self.levels(scene)
        kept = [self._slow.get(int(t)) for t in scene.tag]
        slow = np.stack([k[0] if k is not None else self._rng.standard_normal(n) for k in kept])
        quiet = np.array([k[1] - start_us if k is not None else -1.0 for k in kept]) / 1e6
        hop = max(1, round(w.hop_s * 1e6 / TICK_US))
        _fade(levels, slow, scene.moving, _fading(w), hop, self._deaf() - LUCK_DB, self._rng)
        time_s, tag, antenna, rssi = _rounds(
            levels,
            scene.answers,
            w.half_dbm + scene.half_db,
            (w.logistic_db, DEAF_DB, min(NOISE_DB, w.fast_still_db), w.dwell_s, w.quiet_s, TICK_US / 1e6),
            self._first,
            self._order,
            self._turn,
            self._clock_s,
            self._left_s,
            quiet,
            self._rng,
        )
        self._clock_s -= levels.shape[2] * TICK_US / 1e6
        quiet_us = start_us + quiet * 1e6
        self._slow.update((int(t), (slow[i], float(quiet_us[i]))) for i, t in enumerate(scene.tag))
        rows = np.empty(len(tag), ROW)
        rows["time_us"] = start_us + np.clip((time_s * 1e6).astype(np.int64), 0, scene.x.shape[1] * TICK_US - 1)
        rows["antenna"], rows["tag"] = antenna, scene.tag[tag]
        step = w.rssi_step_db
        rows["rssi_cdbm"] = np.round(np.round((rssi + self.report_db[antenna]) / step) * step * 100)
        rows["arrival_us"] = rows["time_us"] + self._delays_us(len(rows))
        if w.rssi_unknown_share:
            rows["rssi_cdbm"][self._rng.random(len(rows)) < w.rssi_unknown_share] = RSSI_UNKNOWN
        return rows[np.argsort(rows["time_us"], kind="stable")]

    def levels(self, scene: Scene) -> NDArray[np.float32]:
        """Compute the mean level (T, A, K) of each tag at each antenna, without fading; −inf where absent or out of
        reach."""
        a, w = self.antennas, self.world
        level = np.empty((len(scene.tag), len(a.port), scene.x.shape[1]), np.float32)
        gain = np.where(self._dead, -np.inf, w.level_1m_dbm + self.offset_db)
        reach = 10 ** ((gain - self._deaf() + LUCK_DB) / max(w.slope_db, 1.0))
        figures = (w.slope_db, w.behind_db, w.back_db, w.floor_db, w.storey_m, w.atrium_db, w.wall_db, w.facing_db)
        hole = np.array(w.atrium if w.atrium is not None else (0.0, 0.0, -1.0, -1.0))
        _levels(
            level,
            (scene.x, scene.y, scene.floor, scene.room, scene.present, scene.loss_db, scene.facing, scene.height),
            (a.place, a.floor, a.look, a.beam, self._room, gain, reach),
            self.shadow_db,
            w.shadow_m,
            hole,
            figures,
        )
        return level

    def forget(self, tags: Sequence[int]) -> None:
        """Drop the state of tags that have left."""
        for tag in tags:
            self._slow.pop(tag, None)

    def _deaf(self) -> float:
        return self.world.half_dbm - DEAF_DB

    def _delays_us(self, n: int) -> Ints:
        """Draw extra delays of rows: most none, some up to a quarter of a second."""
        w = self.world
        late = self._rng.random(n) < w.late_share
        delay = np.minimum(self._rng.exponential(w.late_tau_s, n), w.late_max_s)
        return (np.where(late, delay, 0) * 1e6).astype(np.int64)


def _fading(w: World) -> tuple[float, float, float, float, float, float]:
    keep = float(np.exp(-TICK_US / 1e6 / w.slow_tau_s))
    moving, still = (float(np.sqrt(max(0.0, db**2 - NOISE_DB**2))) for db in (w.fast_moving_db, w.fast_still_db))
    return keep, keep if w.slow_still_flows else 1.0, w.slow_moving_db, w.slow_still_db, moving, still


@njit(cache=True)
def _levels(out: Any, scene: Any, antennas: Any, shadow: Any, shadow_m: float, hole: Any, figures: Any) -> None:
    x, y, floor, room, present, loss, facing, height = scene
    place, storey, look, beam, walled, gain, reach = antennas
    slope, behind, back, floor_db, storey_m, atrium_db, wall_db, facing_db = figures
    grid = shadow.shape[1]
    for i in range(x.shape[0]):
        for a in range(len(storey)):
            for k in range(x.shape[1]):
                out[i, a, k] = -np.inf
                dx, dy = x[i, k] - place[a, 0], y[i, k] - place[a, 1]
                flat2 = dx * dx + dy * dy
                if not present[i, k] or flat2 > reach[a] * reach[a]:
                    continue
                up = floor[i, k] - storey[a]
                dz = height[i] + up * storey_m - place[a, 2]
                far = max(NEAR_M, np.sqrt(flat2 + dz * dz))
                level = gain[a] - slope * np.log10(far) - loss[i, k]
                lx, ly, lz = look[a, 0], look[a, 1], look[a, 2]
                if beam[a] == beam[a]:
                    angle = np.arccos(min(1.0, max(-1.0, (dx * lx + dy * ly + dz * lz) / far)))
                    level -= min(back, 24.0 * (angle / beam[a]) ** 2)
                elif lx != 0.0 or ly != 0.0:
                    along = (dx * lx + dy * ly) / max(1e-9, np.sqrt(flat2) * np.sqrt(lx * lx + ly * ly))
                    level -= behind * (1.0 - along) / 2
                for slab in range(abs(up)):
                    # Where the ray goes through: at the ceiling of each storey between.
                    at = (slab + 1) * storey_m - place[a, 2] if up > 0 else -slab * storey_m - place[a, 2]
                    part = at / dz if dz != 0.0 else 0.0
                    px, py = place[a, 0] + part * dx, place[a, 1] + part * dy
                    if hole[0] <= px <= hole[2] and hole[1] <= py <= hole[3]:
                        level -= atrium_db
                    else:
                        level -= floor_db
                if room[i, k] != walled[a]:
                    level -= wall_db
                if facing[i, k] == facing[i, k]:
                    # The card faces the antenna when it looks back along the bearing; less so from below.
                    side = (dx * np.cos(facing[i, k]) + dy * np.sin(facing[i, k])) / far
                    level -= facing_db * (1.0 + side) / 2
                u, v = x[i, k] / shadow_m, y[i, k] / shadow_m
                c, r = int(np.floor(u)), int(np.floor(v))
                u, v = u - c, v - r
                w00, w10, w01, w11 = (1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v
                c0, c1, r0, r1 = c % grid, (c + 1) % grid, r % grid, (r + 1) % grid
                mixed = (
                    w00 * shadow[a, c0, r0]
                    + w10 * shadow[a, c1, r0]
                    + w01 * shadow[a, c0, r1]
                    + w11 * shadow[a, c1, r1]
                )
                level += mixed / np.sqrt(w00 * w00 + w10 * w10 + w01 * w01 + w11 * w11)
                out[i, a, k] = level


@njit(cache=True)
def _fade(level: Any, slow: Any, moving: Any, figures: Any, hop: int, least: float, rng: Any) -> None:
    """Add fading to audible levels: slow (unit Ornstein–Uhlenbeck processes per pair) and fast. Fast fading lasts a
    tick while moving, and as long as the channel (`hop` ticks) while standing.
    """
    keep_moving, keep_still, slow_moving, slow_still, fast_moving, fast_still = figures
    add_moving, add_still = np.sqrt(1 - keep_moving**2), np.sqrt(1 - keep_still**2)
    for i in range(level.shape[0]):
        for a in range(level.shape[1]):
            value = slow[i, a]
            fast = rng.standard_normal()
            phase = rng.integers(0, hop)
            for k in range(level.shape[2]):
                if level[i, a, k] < least:
                    continue
                if moving[i, k]:
                    value = keep_moving * value + add_moving * rng.standard_normal()
                    level[i, a, k] += slow_moving * value + fast_moving * rng.standard_normal()
                else:
                    if add_still > 0.0:
                        value = keep_still * value + add_still * rng.standard_normal()
                    if (k + phase) % hop == 0:
                        fast = rng.standard_normal()
                    level[i, a, k] += slow_still * value + fast_still * fast
            slow[i, a] = value


@njit(cache=True)
def _rounds(
    level: Any,
    answers: Any,
    half: Any,
    figures: Any,
    first: Any,
    order: Any,
    turn: Any,
    clock: Any,
    left: Any,
    quiet: Any,
    rng: Any,
) -> Any:
    """Simulate each reader's rounds; `turn`, `clock`, `left` (of the antenna's dwell) and `quiet` are carried over."""
    width, deaf, noise, dwell, quiet_s, tick_s = figures
    tags, antennas, ticks = level.shape
    size, n = 4096, 0
    time_s, tag = np.empty(size), np.empty(size, np.int32)
    antenna, rssi = np.empty(size, np.int32), np.empty(size)
    hot, hots, audible = np.empty((antennas, tags), np.int32), np.zeros(antennas, np.int64), np.zeros(antennas)
    for k in range(ticks):
        end = (k + 1) * tick_s
        hots[:] = 0
        audible[:] = 0
        for i in range(tags):
            for a in range(antennas):
                if level[i, a, k] > half[i] - deaf - 3 * noise:
                    hot[a, hots[a]] = i
                    hots[a] += 1
                    if level[i, a, k] > half[i]:
                        audible[a] += 1
        for r in range(len(turn)):
            ports = first[r + 1] - first[r]
            while clock[r] < end:
                a = order[turn[r]]
                round_s = ROUND_S + TAG_S * max(1.0, audible[a])
                for j in range(hots[a]):
                    i = hot[a, j]
                    if rng.random() >= answers[i]:
                        continue
                    at = clock[r] + rng.random() * round_s
                    if at < quiet[i]:
                        continue
                    heard = level[i, a, k] + noise * rng.standard_normal()
                    if heard < half[i] - deaf or rng.random() * (1 + np.exp((half[i] - heard) / width)) >= 1:
                        continue
                    if quiet_s > 0:
                        quiet[i] = at + quiet_s * (0.7 + 0.6 * rng.random())
                    if n == size:
                        size *= 2
                        time_s, tag = _longer(time_s, size), _longer(tag, size)
                        antenna, rssi = _longer(antenna, size), _longer(rssi, size)
                    time_s[n], tag[n], antenna[n], rssi[n] = at, i, a, heard
                    n += 1
                clock[r] += round_s
                left[r] -= round_s
                if left[r] <= 0 and ports > 1:
                    clock[r] += SWITCH_S
                    turn[r] = first[r] + (turn[r] + 1 - first[r]) % ports
                    left[r] = dwell
    return time_s[:n], tag[:n], antenna[:n], rssi[:n]


@njit(cache=True)
def _longer(values: Any, size: int) -> Any:
    longer = np.empty(size, values.dtype)
    longer[: len(values)] = values
    return longer
