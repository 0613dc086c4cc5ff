"""A store's floor cut into cells: small squares, each with its share of the zones that it lies in and its neighbours.

Cells lie in one grid a floor, over all that is drawn there and MARGIN_M around it. The floor between zones stands for
"in no zone"; a zone that no antenna watches is such floor as well: one can't tell that somebody is there from others'
antennas alone. Without polygons zones lie around their antennas. Without usable positions there is one cell a zone and
one a floor for "in no zone", and the zones' neighbourhood says which of them one can walk between.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dwell.layout import Layout, ZoneKind

NONE = -1
"""In no zone, or no cell."""
MARGIN_M = 0.5
"""Floor beyond the outermost zone or antenna that still counts."""
EDGES_M = 0.7, 1.4
"""Shortest and longest edge of a cell; longer ones lose a walker between two zones."""
PARTS = 3.0
"""Cells along the side of a usual zone."""
FINE_M, FINE = 1.0, 3000
"""Where a store's floors are small enough, cells are no longer than this, or so short that they make so many. In still
shorter ones a tag that is merely silent would find places to hide beside its zone."""
POINTS = 8
"""Points along a cell's edge that its shares are counted with."""
NONE_SHARE = 0.65
"""A cell with this much floor between zones is in no zone."""
REACH_M = 2.5
"""Zones without polygons reach this far around their antennas."""
SHARES = 4
"""Zones of which a cell's share is kept."""
WAYS = 9
"""Columns of `Cells.next`: eight neighbours on the floor and one on another floor."""
AROUND = ((1, 0), (0, 1), (-1, 0), (0, -1), (1, 1), (-1, 1), (-1, -1), (1, -1))
"""East, north, west, south, and what lies between: (columns, rows) to go."""
MOST_CELLS = 32_000
"""Their numbers fit 15 bits."""
SIDE_M = 4.0
"""Edge of the only cell of a zone without positions."""


@dataclass(frozen=True)
class Cells:
    """C cells, floor by floor in the order of their numbers, row by row from the lowest x and y; F floors."""

    floor: NDArray[np.int16]
    """(C,) floor number."""
    xy: NDArray[np.float32]
    """(C, 2) centre, metres on the floor."""
    edge_m: NDArray[np.float32]
    """(C,)"""
    zone: NDArray[np.int16]
    """(C,) zone with the largest share, NONE in between."""
    share_zone: NDArray[np.int16]
    """(C, SHARES) zones that the cell lies in, the largest share first, then NONE …"""
    share: NDArray[np.float32]
    """(C, SHARES) … and how much of the cell lies in each; the rest is in no zone."""
    next: NDArray[np.int32]
    """(C, WAYS) cells to the E, N, W, S, NE, NW, SW, SE and on another floor, NONE where there is none."""
    first: NDArray[np.int64]
    """(F + 1,) first cell of each floor, in the order of `floors`."""
    floors: NDArray[np.int16]
    """(F,) floor numbers, ascending."""
    placed: bool = True
    """False: only the zones' neighbourhood is known, and a cell is all of a zone."""
    linked: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), np.bool_))
    """(C, C) symmetric, if not `placed`: can one go from cell to cell without crossing a third."""

    def __len__(self) -> int:
        return len(self.zone)


def build(layout: Layout, *, fine: bool = False) -> Cells:
    """Cut a layout's floors. `fine`: into cells of FINE_M where zones would do with longer ones, if there is room.

    ValueError if there are more than MOST_CELLS.
    """
    watched = np.zeros(len(layout.zone_kind), np.bool_)
    watched[layout.antenna_zone[layout.antenna_zone >= 0]] = True
    if not placed(layout):
        return _by_neighbourhood(layout, watched)
    floors = np.unique(layout.zone_floor)
    longest = _longest_m(layout, floors) if fine else EDGES_M[1]
    grids = [_Grid.of(layout, int(floor), longest) for floor in floors]
    total = sum(grid.columns * grid.rows for grid in grids)
    if total > MOST_CELLS:
        raise ValueError(f"the store's floors make {total} cells; {MOST_CELLS} are possible")
    first = np.concatenate([[0], np.cumsum([grid.columns * grid.rows for grid in grids])]).astype(np.int64)
    shares = [_shares(grid.zones(layout, watched), grid) for grid in grids]
    share_zone, share = (np.concatenate([part[i] for part in shares]) for i in (0, 1))
    xy = np.concatenate([grid.centres() for grid in grids])
    ways = np.concatenate([grid.around(int(at)) for grid, at in zip(grids, first[:-1], strict=True)])
    floor = np.repeat(floors, np.diff(first))
    zone = np.where(1.0 - share.sum(axis=1) >= NONE_SHARE, NONE, share_zone[:, 0]).astype(np.int16)
    _give_each_zone_a_cell(zone, share_zone, share)
    return Cells(
        floor=floor.astype(np.int16),
        xy=xy.astype(np.float32),
        edge_m=np.repeat([grid.edge_m for grid in grids], np.diff(first)).astype(np.float32),
        zone=zone,
        share_zone=share_zone,
        share=share,
        next=np.column_stack([ways, _other_floors(layout, floor, zone, xy)]).astype(np.int32),
        first=first,
        floors=floors.astype(np.int16),
    )


def placed(layout: Layout) -> bool:
    """True if polygons or the antennas' positions tell zones apart."""
    used = layout.antenna_zone >= 0
    floor = layout.zone_floor[layout.antenna_zone[used]]
    places = np.column_stack([layout.antenna_xy[used], floor])
    return (
        len(layout.corner_zone) > 0 or len(np.unique(places, axis=0)) >= len(np.unique(layout.antenna_zone[used])) > 0
    )


DIAGONAL = 0.7
"""Walkers that go to a cell at a corner, against those to one at a side."""
HOP = (1.0 + 2.0 * DIAGONAL) / (1.0 + DIAGONAL)
"""Mean square of the way to a cell around, in edges."""


def leaving(edge_m: NDArray[np.float32], pace_m: float, most: float) -> NDArray[np.float32]:
    """Share of walkers in cells of these edges who go to a cell around within a second, if they get `pace_m` far (the
    root of the mean square); at most `most`, however short the edge."""
    return np.asarray(np.minimum((pace_m / edge_m) ** 2 / HOP, most), np.float32)


PASSED = (ZoneKind.AISLE, ZoneKind.ENTRANCE, ZoneKind.EXIT)
"""One walks through these and hardly stands."""


def passed(cells: Cells, layout: Layout) -> NDArray[np.bool_]:
    """(C,) cells of zones that one walks through."""
    return np.asarray(np.isin(layout.zone_kind, PASSED)[cells.zone] & (cells.zone != NONE))


@dataclass(frozen=True)
class _Grid:
    """A floor's grid."""

    floor: int
    low: tuple[float, float]
    edge_m: float
    columns: int
    rows: int
    polygons: dict[int, NDArray[np.float64]]

    @staticmethod
    def of(layout: Layout, floor: int, longest_m: float) -> _Grid:
        polygons = {
            int(z): layout.corner_xy[layout.corner_zone == z].astype(np.float64)
            for z in np.unique(layout.corner_zone)
            if layout.zone_floor[z] == floor
        }
        zones = _antennas(layout, floor)[1]
        if (extent := _extent(layout, floor)) is None:
            return _Grid(floor, (0.0, 0.0), EDGES_M[1], 0, 0, polygons)
        low, high = extent
        bare = len(set(zones.tolist()) - polygons.keys())
        sides = [*(np.sqrt(_area(p)) for p in polygons.values()), *[np.sqrt(np.pi) * REACH_M] * bare]
        edge = float(np.median(sides)) / PARTS if sides else EDGES_M[1]
        edge = float(np.clip(min(edge, longest_m), *EDGES_M))
        columns, rows = np.ceil((high - low) / edge).astype(int).tolist()
        # What the grid is larger than it has to be goes to both sides alike.
        low -= (np.array([columns, rows]) * edge - (high - low)) / 2
        return _Grid(floor, (float(low[0]), float(low[1])), edge, columns, rows, polygons)

    def centres(self) -> NDArray[np.float64]:
        """(cells, 2) metres."""
        x, y = (self.low[i] + self.edge_m * (np.arange(n) + 0.5) for i, n in enumerate((self.columns, self.rows)))
        return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)

    def around(self, first: int) -> NDArray[np.int64]:
        """(cells, 8) numbers of the cells around each, the grid's own beginning with `first`; NONE off it."""
        x, y = (i.reshape(-1) for i in np.meshgrid(np.arange(self.columns), np.arange(self.rows)))
        found = np.full((len(x), len(AROUND)), NONE, np.int64)
        for way, (dx, dy) in enumerate(AROUND):
            on = (x + dx >= 0) & (x + dx < self.columns) & (y + dy >= 0) & (y + dy < self.rows)
            found[on, way] = first + (y[on] + dy) * self.columns + x[on] + dx
        return found

    def zones(self, layout: Layout, watched: NDArray[np.bool_]) -> NDArray[np.int16]:
        """(rows · POINTS, columns · POINTS) zone of each point; that of the lowest number where polygons overlap."""
        step = self.edge_m / POINTS
        x = self.low[0] + step * (np.arange(self.columns * POINTS, dtype=np.float64) + 0.5)
        y = self.low[1] + step * (np.arange(self.rows * POINTS, dtype=np.float64) + 0.5)
        found = np.full((len(y), len(x)), NONE, np.int16)
        for z, polygon in self.polygons.items():
            (x0, y0), (x1, y1) = polygon.min(0), polygon.max(0)
            box = np.s_[
                np.searchsorted(y, y0) : np.searchsorted(y, y1), np.searchsorted(x, x0) : np.searchsorted(x, x1)
            ]
            part = found[box]
            part[(part == NONE) & _inside(x[box[1]], y[box[0]], polygon)] = z
            if not (found[box] == z).any():  # smaller than the distance of points, or under others
                at = ((polygon.mean(0) - self.low) / step).astype(int)
                found[at[1], at[0]] = z
        antennas, zones = _antennas(layout, self.floor)
        bare = set(zones.tolist()) - self.polygons.keys()
        if bare:
            nearest = np.full(found.shape, NONE, np.int16)
            distance = np.full(found.shape, REACH_M**2, np.float32)
            for (ax, ay), z in zip(antennas, zones, strict=True):
                rows = slice(*np.searchsorted(y, (ay - REACH_M, ay + REACH_M)))
                columns = slice(*np.searchsorted(x, (ax - REACH_M, ax + REACH_M)))
                away = ((y[rows] - ay) ** 2)[:, None] + ((x[columns] - ax) ** 2)[None, :]
                closer = away < distance[rows, columns]
                distance[rows, columns][closer] = away[closer]
                nearest[rows, columns][closer] = z
            around = (found == NONE) & np.isin(nearest, list(bare))
            found[around] = nearest[around]
        found[(found != NONE) & ~watched[found]] = NONE
        return found


def _longest_m(layout: Layout, floors: NDArray[np.int16]) -> float:
    """Edge of the longest cells that are fine enough, in a store whose floors make at most FINE of them."""
    extents = [extent for floor in floors if (extent := _extent(layout, int(floor)))]
    area = sum(float(np.prod(high - low)) for low, high in extents)
    return max(FINE_M, float(np.sqrt(area / FINE)))


def _extent(layout: Layout, floor: int) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Lowest and highest (x, y) of a floor; None if nothing is drawn there."""
    corners = layout.corner_xy[layout.zone_floor[layout.corner_zone] == floor].astype(np.float64)
    everything = np.concatenate([_antennas(layout, floor)[0], corners])
    return (everything.min(0) - MARGIN_M, everything.max(0) + MARGIN_M) if len(everything) else None


def _antennas(layout: Layout, floor: int) -> tuple[NDArray[np.float64], NDArray[np.int16]]:
    """Places and zones of a floor's antennas."""
    on = (layout.antenna_zone >= 0) & (layout.zone_floor[layout.antenna_zone] == floor)
    return layout.antenna_xy[on].astype(np.float64), layout.antenna_zone[on]


def _area(polygon: NDArray[np.float64]) -> float:
    x, y = polygon.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _inside(x: NDArray[np.float64], y: NDArray[np.float64], polygon: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(len(y), len(x)) which points of a lattice lie in a polygon: odd number of edges to their right."""
    inside = np.zeros((len(y), len(x)), np.bool_)
    for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y1 != y2:
            crosses = (y1 > y) != (y2 > y)
            inside[crosses] ^= x[None, :] < ((x2 - x1) * (y[crosses] - y1) / (y2 - y1) + x1)[:, None]
    return inside


def _shares(points: NDArray[np.int16], grid: _Grid) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """(cells, SHARES) zones of each cell and their shares, the largest first."""
    cells = grid.rows * grid.columns
    zone, share = np.full((cells, SHARES), NONE, np.int16), np.zeros((cells, SHARES), np.float32)
    by_cell = points.reshape(grid.rows, POINTS, grid.columns, POINTS).swapaxes(1, 2).reshape(cells, POINTS**2)
    mixed = (by_cell != by_cell[:, :1]).any(axis=1)
    zone[~mixed, 0] = by_cell[~mixed, 0]
    share[~mixed, 0] = by_cell[~mixed, 0] != NONE
    cell = np.repeat(np.flatnonzero(mixed), POINTS**2)
    here = by_cell[mixed].reshape(-1)
    base = int(here.max(initial=0)) + 1
    pair, count = np.unique((cell * base + here)[here != NONE], return_counts=True)
    order = np.lexsort((pair % base, -count, pair // base))
    cell, here, count = pair[order] // base, pair[order] % base, count[order]
    rank = np.arange(len(cell)) - np.searchsorted(cell, cell)
    kept = rank < SHARES
    zone[cell[kept], rank[kept]] = here[kept]
    share[cell[kept], rank[kept]] = count[kept] / POINTS**2
    return zone, share


def _give_each_zone_a_cell(zone: NDArray[np.int16], share_zone: NDArray[np.int16], share: NDArray[np.float32]) -> None:
    """Small and thin zones have the largest share nowhere: each gets the cell where its share is largest."""
    for z in np.setdiff1d(share_zone[share_zone != NONE], zone):
        zone[np.where(share_zone == z, share, 0.0).max(axis=1).argmax()] = z


def _other_floors(
    layout: Layout, floor: NDArray[np.int16], zone: NDArray[np.int16], xy: NDArray[np.float64]
) -> NDArray[np.int64]:
    """(C,) the cell on another floor that one gets to from each: the nearest of a neighbouring zone's. The cells of a
    zone with several such neighbours lead to them by turns."""
    found = np.full(len(zone), NONE, np.int64)
    apart = layout.zone_floor[:, None] != layout.zone_floor[None, :]
    for z in np.flatnonzero((layout.neighbours & apart).any(axis=1)):
        mine = np.flatnonzero(zone == z)
        others = [np.flatnonzero(zone == other) for other in np.flatnonzero(layout.neighbours[z] & apart[z])]
        others = [cells for cells in others if len(cells)]
        for turn, theirs in enumerate(others):
            some = mine[turn :: len(others)]
            away = np.linalg.norm(xy[some, None] - xy[None, theirs], axis=2)
            found[some] = theirs[away.argmin(axis=1)]
    return found


def _by_neighbourhood(layout: Layout, watched: NDArray[np.bool_]) -> Cells:
    """One cell a zone, and one a floor for "in no zone"."""
    floors = np.unique(layout.zone_floor)
    parts = [np.append(np.flatnonzero(watched & (layout.zone_floor == floor)), NONE) for floor in floors]
    zone = np.concatenate([np.zeros(0, np.int64), *parts])
    floor = np.repeat(floors, [len(part) for part in parts])
    known = zone != NONE
    linked = layout.neighbours[zone[:, None], zone[None, :]] & known[:, None] & known[None, :]
    linked |= (known[:, None] != known[None, :]) & (floor[:, None] == floor[None, :])
    share_zone, share = np.full((len(zone), SHARES), NONE, np.int16), np.zeros((len(zone), SHARES), np.float32)
    share_zone[:, 0], share[:, 0] = zone, known
    return Cells(
        floor=floor.astype(np.int16),
        xy=np.zeros((len(zone), 2), np.float32),
        edge_m=np.full(len(zone), SIDE_M, np.float32),
        zone=zone.astype(np.int16),
        share_zone=share_zone,
        share=share,
        next=np.full((len(zone), WAYS), NONE, np.int32),
        first=np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64),
        floors=floors.astype(np.int16),
        placed=False,
        linked=linked,
    )
