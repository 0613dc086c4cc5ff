"""Random walks through the store: where a person walks and stands over time, from one random generator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from config import ZoneKind
from simulators.shop.plan import Floats, Ints, Plan
from simulators.shop.worlds import World

OUTSIDE_M = 12.0
"""Distance from the doors at which walks begin and end."""
RIDE_S = 24.0
"""Time on an escalator between floors."""
SAMPLE_US = 200_000
"""Time step at which walks are sampled for the truth."""


@dataclass(frozen=True)
class Track:
    """Position over time: straight lines between knots; the floor of a knot holds until the next."""

    t_us: Ints
    x: Floats
    y: Floats
    floor: Ints

    @property
    def start_us(self) -> int:
        return int(self.t_us[0])

    @property
    def end_us(self) -> int:
        return int(self.t_us[-1])

    def at(self, t_us: Ints) -> tuple[Floats, Floats, Ints]:
        """Return x, y and floor at given times."""
        return np.interp(t_us, self.t_us, self.x), np.interp(t_us, self.t_us, self.y), self.floor[self._knot(t_us)]

    def moving(self, t_us: Ints) -> NDArray[np.bool_]:
        """Return whether it moves at given times."""
        return self._moves[self._knot(t_us)]

    def beside(self, dx: float, dy: float, lag_us: int) -> Track:
        """Return the track of somebody walking along."""
        return Track(self.t_us + lag_us, self.x + dx, self.y + dy, self.floor)

    @cached_property
    def still(self) -> bool:
        """True if it is at one place all the time."""
        return bool((self.floor == self.floor[0]).all()) and not self._moves.any()

    @cached_property
    def _moves(self) -> NDArray[np.bool_]:
        moves = (self.x[1:] != self.x[:-1]) | (self.y[1:] != self.y[:-1])
        return np.append(moves, False)

    def _knot(self, t_us: Ints) -> Ints:
        knot: Ints = np.maximum(self.t_us.searchsorted(t_us, side="right") - 1, 0)
        return knot

    def zones(self, plan: Plan) -> list[tuple[int, int, int]]:
        """Return (zone, enter, exit) by the polygons, in order."""
        t = np.append(np.arange(self.start_us, self.end_us, SAMPLE_US), self.end_us)
        zone = plan.zone_at(*self.at(t))
        cut = np.flatnonzero(np.diff(zone)) + 1
        starts, ends = np.concatenate([[0], cut]), np.concatenate([cut, [len(t) - 1]])
        return [
            (int(zone[a]), int(t[a]), int(t[b]))
            for a, b in zip(starts, ends, strict=True)
            if zone[a] >= 0 and t[b] > t[a]
        ]


class Walk:
    """Track under construction: walks and stands in turn."""

    def __init__(
        self, plan: Plan, world: World, rng: np.random.Generator, start_us: int, zone: int, x: float, y: float
    ) -> None:
        self.plan = plan
        self.rng = rng
        self.speed = float(np.clip(rng.normal(world.pace_m_s, 0.15), 0.5, 1.5))
        self.zone = zone
        self._knots: list[tuple[int, float, float, int]] = [(start_us, x, y, int(plan.floors[zone]))]

    @property
    def now_us(self) -> int:
        return self._knots[-1][0]

    def track(self) -> Track:
        t, x, y, floor = zip(*self._knots, strict=True)
        return Track(np.array(t, np.int64), np.array(x, float), np.array(y, float), np.array(floor, np.int64))

    def stand(self, seconds: float) -> None:
        t, x, y, floor = self._knots[-1]
        self._knots.append((t + round(seconds * 1e6), x, y, floor))

    def step(self, x: float, y: float, speed: float | None = None) -> None:
        """Walk in a straight line."""
        t, x0, y0, floor = self._knots[-1]
        seconds = float(np.hypot(x - x0, y - y0)) / (speed or self.speed)
        self._knots.append((t + max(1, round(seconds * 1e6)), x, y, floor))

    def go(self, zone: int) -> None:
        """Walk to a random place in a zone, along aisles where there are any, and over stairs between floors."""
        for here, there in pairwise(self.plan.way(self.zone, zone)):
            if self.plan.floors[here] != self.plan.floors[there]:
                self._ride(here, there)
        self.zone = zone
        for x, y in self._way(self.plan.point_in(self.rng, zone)):
            self.step(x, y)

    def set_out(self, zone: int) -> None:
        """Start walking to a zone of this floor, and turn back on the way."""
        if self.plan.floors[zone] == self._knots[-1][3]:
            way = self._way(self.plan.point_in(self.rng, zone))
            for x, y in way[: int(self.rng.uniform(0.3, 0.9) * len(way))]:
                self.step(x, y)

    def linger(self, seconds: float) -> None:
        """Stay in the zone: stand, look at something else, stand again."""
        end_us = self.now_us + round(seconds * 1e6)
        while (left_s := (end_us - self.now_us) / 1e6) > 1:
            self.stand(min(left_s, 4 + float(self.rng.exponential(25))))
            if (end_us - self.now_us) / 1e6 > 6:
                _, x, y, _ = self._knots[-1]
                there = self.plan.point_in(self.rng, self.zone)
                part = min(1.0, float(self.rng.uniform(0.5, 3)) / max(0.1, float(np.hypot(there[0] - x, there[1] - y))))
                self.step(x + (there[0] - x) * part, y + (there[1] - y) * part, 0.6)

    def _way(self, goal: tuple[float, float]) -> list[tuple[float, float]]:
        _, x, y, floor = self._knots[-1]
        way = self.plan.path(floor, (x, y), goal)
        way[:-1] += self.rng.uniform(-0.3, 0.3, way[:-1].shape)
        return [(float(x), float(y)) for x, y in way]

    def _ride(self, lower: int, upper: int) -> None:
        centres = self.plan.centres
        middle = (centres[lower] + centres[upper]) / 2
        for x, y in self._way(self.plan.nearest_in(lower, *middle)):
            self.step(x, y)
        self.stand(RIDE_S / 2)
        t = self.now_us
        x, y = self.plan.nearest_in(upper, *middle)
        self._knots.append((t + 1, x, y, int(self.plan.floors[upper])))
        self.stand(RIDE_S / 2)


def shopper(plan: Plan, world: World, rng: np.random.Generator, start_us: int, patience: Floats | None = None) -> Track:
    """Draw one journey through the store, or of a person who turns round at the door. `patience`: factor of stays by
    zone.
    """
    doors = plan.of_kind(ZoneKind.ENTRANCE) or [0]
    door = int(rng.choice(doors))
    walk = Walk(plan, world, rng, start_us, door, *plan.outside(door, OUTSIDE_M))
    if rng.random() < world.pass_by_share:
        _pass_by(walk, door)
        return walk.track()
    walk.go(door)
    walk.stand(float(rng.uniform(0, 5)))
    for zone in _stops(plan, world, rng):
        if rng.random() < world.turn_back_share:
            walk.set_out(int(rng.choice(len(plan.ids))))
        walk.go(zone)
        walk.linger(stay_s(world, rng) * (1.0 if patience is None else float(patience[zone])))
        if plan.kinds[zone] == ZoneKind.COUNTER and rng.random() < 0.2:
            _aside(walk, ZoneKind.FITTING_ROOM, float(rng.lognormal(np.log(180), 0.6)))
    if rng.random() < 0.5:
        _aside(walk, ZoneKind.CHECKOUT, float(rng.lognormal(np.log(100), 0.7)))
    if rng.random() < 0.06:
        _aside(walk, ZoneKind.SERVICE, float(rng.lognormal(np.log(150), 0.8)))
    exits = plan.of_kind(ZoneKind.EXIT)
    exit_ = int(rng.choice([*exits, *doors, *exits] or [door]))
    walk.go(exit_)
    walk.stand(float(rng.uniform(0, 5)))
    walk.step(*plan.outside(exit_, OUTSIDE_M))
    return walk.track()


def staff(plan: Plan, world: World, rng: np.random.Generator, home: int, start_us: int) -> Iterator[Track]:
    """Draw the endless walk of a staff member at a zone: mostly there, now and then away."""
    away = plan.of_kind(ZoneKind.BACK_ROOM, ZoneKind.AISLE, ZoneKind.SERVICE) or [home]
    near = [zone for zone in np.flatnonzero(plan.neighbours[home]).tolist() if zone not in away]
    x, y = plan.point_in(rng, home)
    while True:
        walk = Walk(plan, world, rng, start_us, home, x, y)
        walk.linger(float(rng.uniform(240, 1500)))
        walk.go(int(rng.choice(near if near and rng.random() < 0.4 else away)))
        walk.linger(float(rng.lognormal(np.log(60), 0.8)))
        walk.go(home)
        track = walk.track()
        start_us, x, y = track.end_us, float(track.x[-1]), float(track.y[-1])
        yield track


def stay_s(world: World, rng: np.random.Generator) -> float:
    """Draw a shopper's stay at a counter in seconds."""
    return float(np.clip(rng.lognormal(np.log(world.stay_median_s), world.stay_sigma), 4, world.stay_max_s))


def body_blocks(world: World, rng: np.random.Generator, start_us: int, end_us: int) -> tuple[Ints, Floats, Floats]:
    """Draw when the body hides a worn card: starts of intervals, and in each the loss in dB and the card's direction
    (rad). Clear and hidden alternate; most hidden intervals are short, some have a power-law tail of minutes.
    """
    n = 16 + int((end_us - start_us) / 1e6 / world.clear_median_s)
    clear_s = rng.lognormal(np.log(world.clear_median_s), world.clear_sigma, n)
    long = rng.random(n) < world.block_long_share
    tail_s = world.block_long_s * (1 - rng.random(n)) ** (-1 / world.block_power)
    hidden_s = np.where(long, np.minimum(tail_s, world.block_max_s), rng.exponential(world.block_short_s, n))
    first_hidden = int(rng.random() < 0.5)
    spans = np.empty(2 * n)
    spans[first_hidden::2], spans[1 - first_hidden :: 2] = clear_s, hidden_s
    starts = start_us + (np.concatenate([[0], np.cumsum(spans)[:-1]]) * 1e6).astype(np.int64)
    loss = np.full(2 * n, world.body_db)
    loss[1 - first_hidden :: 2] += rng.normal(world.block_db, 5, n).clip(8)
    turns = np.where(rng.random(2 * n) < 0.35, rng.uniform(-np.pi, np.pi, 2 * n), 0)
    facing = rng.uniform(-np.pi, np.pi) + np.cumsum(turns)
    keep = int(np.searchsorted(starts, end_us))
    return starts[:keep], loss[:keep], facing[:keep]


def _stops(plan: Plan, world: World, rng: np.random.Generator) -> list[int]:
    counters = plan.of_kind(ZoneKind.COUNTER) or plan.of_kind(ZoneKind.AISLE, ZoneKind.SERVICE)
    if not counters:
        return []
    pull = 1.0 / (1 + np.arange(len(counters))[np.argsort(plan.centres[counters][:, 0], kind="stable")]) ** 0.5
    n = int(rng.geometric(1 / world.stops_mean))
    stops = [int(z) for z in rng.choice(counters, size=n, p=pull / pull.sum())]
    if rng.random() < 0.8:  # floor by floor, as most do
        stops.sort(key=lambda zone: int(plan.floors[zone]))
    stops = [zone for i, zone in enumerate(stops) if i == 0 or zone != stops[i - 1]]
    aisles = plan.of_kind(ZoneKind.AISLE)
    if aisles and rng.random() < world.aisle_stop_share:
        stops.insert(int(rng.integers(len(stops) + 1)), int(rng.choice(aisles)))
    return stops


def _aside(walk: Walk, kind: ZoneKind, seconds: float) -> None:
    """Walk to the nearest zone of a kind, on this floor or else anywhere, if there is one."""
    zones = walk.plan.of_kind(kind)
    if not zones:
        return
    here = walk.plan.floors[walk.zone]
    zones = [zone for zone in zones if walk.plan.floors[zone] == here] or zones
    gaps = [float(np.hypot(*(walk.plan.centres[zone] - walk.plan.centres[walk.zone]))) for zone in zones]
    walk.go(zones[int(np.argmin(gaps))])
    walk.linger(seconds)


def _pass_by(walk: Walk, door: int) -> None:
    plan, rng = walk.plan, walk.rng
    if rng.random() < 0.5:
        walk.step(*plan.nearest_in(door, *plan.outside(door, 0.0)))
        walk.stand(float(rng.uniform(0, 6)))
        walk.step(*plan.outside(door, OUTSIDE_M))
        return
    near, far = np.array(plan.outside(door, 2.5)), np.array(plan.outside(door, OUTSIDE_M))
    along = np.array([-(far - near)[1], (far - near)[0]])
    walk.step(*(near - along / 2))
    walk.step(*(near + along))
