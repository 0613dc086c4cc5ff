"""Paths over a floor: around counters where there are aisles or free floor, through them where there are none."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from config import ZoneKind

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
STEP_M = 0.75
"""Grid size of paths."""
AROUND_M = 1.0
"""Width of walkable floor beyond the outermost zones."""
THROUGH = {
    ZoneKind.COUNTER: 2.5,
    ZoneKind.CHECKOUT: 3.0,
    ZoneKind.SERVICE: 3.0,
    ZoneKind.FITTING_ROOM: 12.0,
    ZoneKind.BACK_ROOM: 12.0,
}
"""Cost factor of paths through zones by kind; aisles and doors: 1."""
BARE = 1.3
"""Cost factor of floor outside zones, where the store has aisles."""


class Ground:
    """Walkable area of one floor."""

    def __init__(self, corners: Floats, zone_at: Callable[[Floats, Floats], Ints], kinds: Sequence[ZoneKind]) -> None:
        """`corners` (k, 2) of all its zones; `zone_at`: index into `kinds` for places, -1 outside zones."""
        self._low, high = corners.min(axis=0) - AROUND_M, corners.max(axis=0) + AROUND_M
        columns, rows = (int(n) for n in np.ceil((high - self._low) / STEP_M))
        x, y = (a.ravel() for a in np.meshgrid(np.arange(columns) + 0.5, np.arange(rows) + 0.5, indexing="ij"))
        bare = BARE if ZoneKind.AISLE in kinds else 1.0
        weights = np.array([*(THROUGH.get(kind, 1.0) for kind in kinds), bare])
        zone = zone_at(self._low[0] + x * STEP_M, self._low[1] + y * STEP_M)
        self._cost = weights[zone].reshape(columns, rows)

    def way(self, start: tuple[float, float], goal: tuple[float, float]) -> Floats:
        """Return the places (k, 2) to walk through, without the start; the goal is the last."""
        most = np.array(self._cost.shape) - 1
        ends = [np.clip(((np.array(end) - self._low) / STEP_M).astype(int), 0, most) for end in (start, goal)]
        cells = _shortest(self._cost, *(int(v) for end in ends for v in end))
        rows = self._cost.shape[1]
        places = self._low + (np.stack([cells // rows, cells % rows], axis=1) + 0.5) * STEP_M
        return np.concatenate([places[2:-2:2], [goal]])


@njit(cache=True)
def _shortest(cost: Any, x0: int, y0: int, x1: int, y1: int) -> Any:
    """Return the cells (x · rows + y) from start to goal, both included, by A*."""
    columns, rows = cost.shape
    start, goal = x0 * rows + y0, x1 * rows + y1
    best = np.full(columns * rows, np.inf)
    came = np.full(columns * rows, -1, np.int64)
    done = np.zeros(columns * rows, np.bool_)
    best[start] = 0.0
    heap = [(0.0, start)]
    while len(heap):
        _, at = heapq.heappop(heap)
        if at == goal:
            break
        if done[at]:
            continue
        done[at] = True
        x, y = at // rows, at % rows
        for dx in range(-1, 2):
            for dy in range(-1, 2):
                u, v = x + dx, y + dy
                if (dx == 0 and dy == 0) or u < 0 or v < 0 or u >= columns or v >= rows:
                    continue
                to = u * rows + v
                length = best[at] + np.sqrt(dx * dx + dy * dy) * (cost[x, y] + cost[u, v]) / 2
                if length < best[to]:
                    best[to] = length
                    came[to] = at
                    heapq.heappush(heap, (length + np.sqrt((u - x1) ** 2 + (v - y1) ** 2), to))
    count = 1
    at = goal
    while at != start:
        at = came[at]
        count += 1
    cells = np.empty(count, np.int64)
    at = goal
    for n in range(count - 1, -1, -1):
        cells[n] = at
        at = came[at]
    return cells
