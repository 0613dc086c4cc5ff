"""Store plan for walkers: zones, walkable paths, and the zone of a place."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from config import StoreConfig, ZoneKind
from config.geometry import centroid, neighbours
from simulators.shop.ways import Ground

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STAIRS_M = 25.0
"""Cost of changing floors in metres when a path is chosen."""
THROUGH_A_COUNTER = 3.0
"""Cost factor of paths through other zones than aisles."""


class Plan:
    """Zones by number in the store file's order; floors by number; coordinates in metres."""

    def __init__(self, config: StoreConfig) -> None:
        floors = {floor.id: i for i, floor in enumerate(config.floors)}
        self.ids = [zone.id for zone in config.zones]
        self.kinds = [zone.kind for zone in config.zones]
        self.floors = np.array([floors[zone.floor] for zone in config.zones])
        self.polygons = [np.array(zone.polygon, float) for zone in config.zones]
        self.centres = np.array([centroid(zone.polygon) for zone in config.zones])
        self.neighbours = _neighbours(config, self)
        self._inner = [centre + (p - centre) * 0.8 for p, centre in zip(self.polygons, self.centres, strict=True)]
        self._ways: dict[tuple[int, int], list[int]] = {}
        self._grounds: dict[int, Ground] = {}

    def of_kind(self, *kinds: ZoneKind) -> list[int]:
        """Return the zones of some kinds."""
        return [i for i, kind in enumerate(self.kinds) if kind in kinds]

    def zone_at(self, x: Floats, y: Floats, floor: Ints) -> Ints:
        """Return the zone of each place, -1 if in none; where zones overlap, the first in the file."""
        zone = np.full(x.shape, -1)
        for i in reversed(range(len(self.ids))):
            here = np.flatnonzero(floor == self.floors[i])
            if here.size:
                zone[here[inside(self.polygons[i], x[here], y[here])]] = i
        return zone

    def point_in(self, rng: np.random.Generator, zone: int) -> tuple[float, float]:
        """Draw a place in a zone, a little off its border."""
        polygon = self._inner[zone]
        low, high = polygon.min(axis=0), polygon.max(axis=0)
        for _ in range(100):
            x, y = rng.uniform(low, high)
            if holds(polygon, x, y):
                return float(x), float(y)
        return float(self.centres[zone][0]), float(self.centres[zone][1])

    def nearest_in(self, zone: int, x: float, y: float) -> tuple[float, float]:
        """Return the place in a zone (a little off its border) nearest to another place."""
        polygon = self._inner[zone]
        if holds(polygon, x, y):
            return x, y
        start, edge = polygon, polygon[np.r_[1 : len(polygon), 0]] - polygon
        along = ((x - start[:, 0]) * edge[:, 0] + (y - start[:, 1]) * edge[:, 1]) / np.maximum(1e-9, (edge**2).sum(1))
        feet = start + np.clip(along, 0, 1)[:, None] * edge
        best = feet[np.argmin((feet[:, 0] - x) ** 2 + (feet[:, 1] - y) ** 2)]
        return float(best[0]), float(best[1])

    def way(self, start: int, goal: int) -> list[int]:
        """Return the zones to walk through from `start` to `goal`, both included."""
        if (start, goal) not in self._ways:
            self._ways[start, goal] = self._find(start, goal)
        return self._ways[start, goal]

    def path(self, floor: int, start: tuple[float, float], goal: tuple[float, float]) -> Floats:
        """Return the places (k, 2) to walk through on one floor, without the start; the goal is the last."""
        if floor not in self._grounds:
            corners = [polygon for polygon, on in zip(self.polygons, self.floors, strict=True) if on == floor]

            def zone_at(x: Floats, y: Floats) -> Ints:
                return self.zone_at(x, y, np.full(x.shape, floor))

            self._grounds[floor] = Ground(np.concatenate(corners), zone_at, self.kinds)
        return self._grounds[floor].way(start, goal)

    def outside(self, zone: int, distance_m: float) -> tuple[float, float]:
        """Return a place in front of an entrance, away from the centre of its floor."""
        middle = self.centres[self.floors == self.floors[zone]].mean(axis=0)
        out = self.centres[zone] - middle
        length = float(np.hypot(*out))
        out = out / length if length > 0.1 else np.array([0.0, -1.0])
        reach = float(((self.polygons[zone] - self.centres[zone]) @ out).max())
        place = self.centres[zone] + out * (reach + distance_m)
        return float(place[0]), float(place[1])

    def _find(self, start: int, goal: int) -> list[int]:
        best = {start: 0.0}
        came: dict[int, int] = {}
        heap = [(0.0, start)]
        while heap:
            cost, at = heapq.heappop(heap)
            if at == goal:
                break
            if cost > best[at]:
                continue
            for to in np.flatnonzero(self.neighbours[at]).tolist():
                length = float(np.hypot(*(self.centres[at] - self.centres[to])))
                if self.floors[at] != self.floors[to]:
                    length = STAIRS_M
                elif to != goal and self.kinds[to] != ZoneKind.AISLE:
                    length *= THROUGH_A_COUNTER
                if cost + length < best.get(to, np.inf):
                    best[to], came[to] = cost + length, at
                    heapq.heappush(heap, (cost + length, to))
        if goal not in best:
            return [start, goal]
        way = [goal]
        while way[-1] != start:
            way.append(came[way[-1]])
        return way[::-1]


def inside(polygon: Floats, x: Floats, y: Floats) -> NDArray[np.bool_]:
    """Return which places lie in a polygon (k, 2), by the even-odd rule."""
    result = np.zeros(x.shape, bool)
    corners = polygon.tolist()
    for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
        if y1 != y2:
            crosses = (y1 > y) != (y2 > y)
            result ^= crosses & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return result


def holds(polygon: Floats, x: float, y: float) -> bool:
    """Return whether one place lies in a polygon: as `inside`, without the cost of arrays."""
    result = False
    corners = polygon.tolist()
    for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
        if (y1 > y) != (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1:
            result = not result
    return result


def _neighbours(config: StoreConfig, plan: Plan) -> NDArray[np.bool_]:
    n = len(plan.ids)
    number = {id_: i for i, id_ in enumerate(plan.ids)}
    near = np.zeros((n, n), bool)
    for id_, others in neighbours(config).items():
        near[number[id_], [number[other] for other in others]] = True
    for lower in range(len(config.floors) - 1):
        if not near[np.ix_(plan.floors == lower, plan.floors == lower + 1)].any():
            # A file that tells of no way up: there is one, between the floors' aisles.
            ends = [_landing(plan, floor) for floor in (lower, lower + 1)]
            if -1 not in ends:
                near[ends[0], ends[1]] = near[ends[1], ends[0]] = True
    return near


def _landing(plan: Plan, floor: int) -> int:
    here = np.flatnonzero(plan.floors == floor).tolist()
    aisles = [zone for zone in here if plan.kinds[zone] == ZoneKind.AISLE]
    return (aisles or here or [-1])[0]
