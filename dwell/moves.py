"""How people walk, as probabilities: where somebody may be some seconds after having been somewhere.

Who stands begins to walk at a rate that depends on the kind of place; who walks goes at a metre a second, mostly
straight on, and stops at a rate of their own. Such walkers are sent over a lattice of a metre, second by second, from
anywhere in a cell to anywhere in another; what is left of them by distance is the table.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dwell.tuning import TICK_US, Tuning


class Kind(IntEnum):
    """What one does in a place."""

    STAYED_IN = 0
    """Counters, desks, fitting rooms."""
    PASSED = 1
    """Aisles and doors."""
    BETWEEN = 2
    """In no zone."""


GAPS = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 17, 20, 24, 29, 35, 42, 50, 60])
"""Ticks for which moves are tabled; a longer gap is no different."""
REACH_M = 40
"""Farther isn't followed."""
DIAGONAL = 0.75
"""Steps over a diagonal, of 1.4 m, that are taken in a second."""
HEADINGS = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))


def bins() -> NDArray[np.int64]:
    """(ticks,) which of GAPS each number of ticks is taken as: the next longer one."""
    return np.searchsorted(GAPS, np.arange(GAPS[-1] + 1)).astype(np.int64)


@lru_cache(maxsize=4)
def build(tuning: Tuning, cell_m: float) -> NDArray[np.float32]:
    """(kinds, len(GAPS), REACH_M + 2, 4) probability of being in a certain cell so many metres away, after a gap,
    having stood (0, 1) or walked (2, 3), and now standing (0, 2) or walking (1, 3). The last distance is out of reach.
    Read-only."""
    x = np.arange(-REACH_M, REACH_M + 1)
    ring = np.ceil(np.hypot(x[:, None], x[None, :])).astype(np.int64).ravel()
    half = int(cell_m // 2)
    cell = (np.abs(x)[:, None] <= half) & (np.abs(x)[None, :] <= half)
    inside = (np.abs(x)[:, None] < REACH_M) & (np.abs(x)[None, :] < REACH_M)
    points = np.bincount(ring)[: REACH_M + 2]
    table = np.empty((len(Kind), len(GAPS), REACH_M + 2, 4), np.float32)
    stop = tuning.stop_rate * TICK_US / 1e6
    for kind in Kind:
        leave = TICK_US / 1e6 / tuning.stay_s[kind]
        for walked in range(2):
            still = 1.0 - walked
            standing = np.zeros(cell.shape)
            walking = np.repeat(cell[None] * (walked / cell.sum() / len(HEADINGS)), len(HEADINGS), axis=0)
            ticks = 0
            for g, gap in enumerate(GAPS):
                while ticks < gap:
                    walking = _step(walking, tuning.straight) * inside
                    stopped = stop * walking.sum(0)
                    walking *= 1.0 - stop
                    walking += leave * (standing + cell * (still / cell.sum())) / len(HEADINGS)
                    standing = standing * (1.0 - leave) + stopped
                    still *= 1.0 - leave
                    ticks += 1
                for walks, who in enumerate((standing, walking.sum(0))):
                    into = np.bincount(ring, _box(who, half).ravel())[: REACH_M + 2] / points
                    into[1:3] = into[2]
                    into[0] += 0.0 if walks else still
                    into[-1] = 0.0
                    table[kind, g, :, 2 * walked + walks] = np.maximum(into, np.exp(tuning.floor_nats))
    table.setflags(write=False)
    return table


def _step(walking: NDArray[np.float64], straight: float) -> NDArray[np.float64]:
    """One metre on, and some turn."""
    moved = np.empty_like(walking)
    for h, (dx, dy) in enumerate(HEADINGS):
        share = DIAGONAL if dx and dy else 1.0
        moved[h] = share * np.roll(walking[h], (dx, dy), (0, 1)) + (1.0 - share) * walking[h]
    turned: NDArray[np.float64] = straight * moved + (1.0 - straight) / len(HEADINGS) * moved.sum(0)
    return turned


def _box(who: NDArray[np.float64], half: int) -> NDArray[np.float64]:
    """Sums over the cell around each point."""
    result = np.zeros_like(who)
    for i in range(-half, half + 1):
        for j in range(-half, half + 1):
            result += np.roll(who, (i, j), (0, 1))
    return result
