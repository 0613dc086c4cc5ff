"""From a store's geometry to what each place says of reads: cells, their levels and rates, and the odds of moving.

Levels fall with the distance as measured (Tuning); nothing here comes from labels. A zone's floor is cut into cells of
CELL_M; so is the floor between zones, which stands for "in no zone". A zone that no antenna watches is floor as well:
one can't tell that somebody is there from others' antennas alone. Without polygons, zones lie around their antennas;
without usable positions, only the zones' neighbourhood counts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dwell import kernels, lifecycle
from dwell.layout import Layout, Settings, ZoneKind
from dwell.tuning import TICK_US, Tuning

CELL_M = 3.0
"""Edge of a cell: levels change by less than the shadowing within it."""
POINT_M = 1.0
"""Distance of the points that a cell's level is the mean of."""
MARGIN_M = 6.0
"""Floor beyond the outermost zone that still counts."""
REACH_M = 2.5
"""Zones without polygons reach this far around their antennas."""
GAPS = 1024
"""Ticks for which moves are tabled; longer gaps are no different."""

Points = NDArray[np.float64]


def build(layout: Layout, tuning: Tuning) -> kernels.Radio:
    """Tables of a layout."""
    cell_zone, levels = _levels(layout, tuning)
    near = levels >= tuning.range_dbm
    antenna, cell = np.nonzero(near.T)
    level = levels.T[near.T]
    zones = len(layout.zone_kind)
    gaps = np.arange(GAPS) / tuning.stay_ticks
    return kernels.Radio(
        row=np.searchsorted(antenna, np.arange(len(layout.antenna_zone) + 1)).astype(np.int32),
        cell=cell.astype(np.int32),
        level=level,
        rate=1.0 / (1.0 + np.exp((tuning.half_rate_dbm - level) / tuning.rate_width_db)),
        cell_zone=cell_zone.astype(np.int16),
        zone_cells=np.bincount(cell_zone[cell_zone >= 0], minlength=zones).astype(np.int32),
        moves=_moves(layout, tuning),
        stay=-np.log1p(gaps),
        move=np.log(np.maximum(-np.expm1(-gaps), 1e-9)),
        antenna_zone=layout.antenna_zone.astype(np.int16),
        brief=np.isin(layout.zone_kind, (ZoneKind.ENTRANCE, ZoneKind.EXIT)),
        rule_mask=np.ascontiguousarray(layout.rule_mask, np.uint64).reshape(-1, 8),
        rule_value=np.ascontiguousarray(layout.rule_value, np.uint64).reshape(-1, 8),
        rule_class=np.ascontiguousarray(layout.rule_class, np.uint8),
        table=lifecycle.transitions(),
    )


def limits(tuning: Tuning, settings: Settings) -> kernels.Limits:
    """The kernels' scalars."""
    return kernels.Limits(
        tick_us=TICK_US,
        spread_db=tuning.spread_db,
        tail=tuning.tail,
        bias_weight=tuning.bias_weight,
        bias_max_db=2 * tuning.bias_spread_db,
        share_weight=tuning.share_weight,
        correlation_ticks=tuning.correlation_ticks,
        unheard_nats=tuning.unheard_nats,
        lag_ticks=tuning.lag_ticks,
        batch_ticks=tuning.batch_ticks,
        hold_us=tuning.hold_us,
        forget_us=tuning.forget_us,
        allow_us=tuning.allow_us,
        join_gap_us=settings.join_gap_us,
        visit_us=settings.visit_us,
        end_after_exit_us=settings.journey_end_after_exit_us,
        end_silence_us=settings.journey_end_silence_us,
    )


def scratch(radio: kernels.Radio) -> kernels.Scratch:
    """Room for the kernels to work in."""
    cells, zones = len(radio.cell_zone), len(radio.zone_cells)
    ways = 4 * kernels.ZONES + 1
    return kernels.Scratch(
        cell=np.zeros(cells),
        residual=np.zeros(cells),
        cell_n=np.zeros(cells, np.int32),
        cells=np.zeros(cells, np.int32),
        zone=np.zeros(zones + 1),
        zone_n=np.zeros(zones + 1, np.int32),
        zone_best=np.zeros(zones + 1, np.int32),
        zones=np.zeros(zones + 1, np.int32),
        path=np.zeros(kernels.ZONES, np.int64),
        weight=np.zeros(kernels.ZONES),
        decided=np.zeros(kernels.EVENTS, np.int64),
        sure=np.zeros(kernels.EVENTS),
        new_zone=np.zeros(ways, np.int32),
        new_score=np.zeros(ways),
        new_from=np.zeros(ways, np.int32),
    )


def _moves(layout: Layout, tuning: Tuning) -> NDArray[np.float64]:
    """(Z + 1, Z + 1) log odds of each move; the last row and column is "in no zone"."""
    zones = len(layout.zone_kind)
    moves = np.full((zones + 1, zones + 1), tuning.floor_nats)
    moves[:zones, :zones][layout.zone_floor[:, None] == layout.zone_floor[None, :]] = tuning.far_nats
    moves[:zones, :zones][layout.neighbours] = 0.0
    moves[zones, :] = moves[:, zones] = tuning.enter_nats
    ways = np.append(layout.neighbours.sum(1), min(zones, 4)) + 1
    moves -= np.log(ways)[:, None]
    return moves


def _levels(layout: Layout, tuning: Tuning) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(C,) zone of each cell, (C, A) mean level of each antenna there."""
    watched = np.zeros(len(layout.zone_kind), np.bool_)
    watched[layout.antenna_zone[layout.antenna_zone >= 0]] = True
    if not len(layout.corner_zone) and not _placed(layout):
        return _by_neighbourhood(layout, watched)
    zone_parts: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    level_parts: list[NDArray[np.float64]] = [np.zeros((0, len(layout.antenna_zone)))]
    antenna_floor = layout.zone_floor[layout.antenna_zone]
    for floor in np.unique(layout.zone_floor):
        points, zone = _points(layout, int(floor))
        zone[(zone >= 0) & ~watched[zone]] = kernels.NONE
        distance = np.linalg.norm(points[:, None, :] - layout.antenna_xy[None, :, :].astype(np.float64), axis=2)
        level = tuning.level_1m_dbm - tuning.slope_db * np.log10(np.hypot(distance, tuning.height_m))
        level[:, antenna_floor != floor] = -np.inf
        key = np.column_stack([zone, np.floor(points / CELL_M).astype(np.int64)])
        cells, member = np.unique(key, axis=0, return_inverse=True)
        member = member.reshape(-1)
        with np.errstate(invalid="ignore"):
            mean = np.stack([level[member == c].mean(0) for c in range(len(cells))])
        zone_parts.append(cells[:, 0])
        level_parts.append(mean)
    return np.concatenate(zone_parts), np.concatenate(level_parts)


def _placed(layout: Layout) -> bool:
    """Do the antennas' positions tell zones apart?"""
    places = {
        (*xy, int(layout.zone_floor[z])) for xy, z in zip(layout.antenna_xy.tolist(), layout.antenna_zone, strict=True)
    }
    return len(places) >= len(np.unique(layout.antenna_zone))


def _points(layout: Layout, floor: int) -> tuple[Points, NDArray[np.int64]]:
    """Points of a floor, (P, 2) metres, and the zone of each, NONE between zones."""
    polygons = {
        int(z): layout.corner_xy[layout.corner_zone == z].astype(np.float64)
        for z in np.unique(layout.corner_zone)
        if layout.zone_floor[z] == floor
    }
    on_floor = layout.zone_floor[layout.antenna_zone] == floor
    antennas, zones = layout.antenna_xy[on_floor].astype(np.float64), layout.antenna_zone[on_floor]
    everything = np.concatenate([np.zeros((0, 2)), antennas, *polygons.values()])
    if not len(everything):
        return np.zeros((0, 2)), np.zeros(0, np.int64)
    low, high = everything.min(0) - MARGIN_M, everything.max(0) + MARGIN_M
    x, y = (np.arange(low[i], high[i], POINT_M) + POINT_M / 2 for i in (0, 1))
    points = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)
    zone = np.full(len(points), kernels.NONE, np.int64)
    for z, polygon in polygons.items():
        zone[(zone < 0) & _inside(points, polygon)] = z
    extra_points, extra_zones = [points], [zone]
    for z in np.unique(np.append(layout.corner_zone, zones)):
        if layout.zone_floor[z] != floor or (zone == z).any():
            continue
        if z in polygons:  # smaller than the distance of points
            extra_points.append(polygons[int(z)].mean(0)[None, :])
            extra_zones.append(np.array([z], np.int64))
    points, zone = np.concatenate(extra_points), np.concatenate(extra_zones)
    bare = [int(z) for z in np.unique(zones) if int(z) not in polygons]
    if bare:
        distance = np.linalg.norm(points[:, None, :] - antennas[None, :, :], axis=2)
        nearest = zones[distance.argmin(1)]
        around = (zone < 0) & (distance.min(1) <= REACH_M) & np.isin(nearest, bare)
        zone[around] = nearest[around]
    return points, zone


def _inside(points: Points, polygon: Points) -> NDArray[np.bool_]:
    """Which points lie in a polygon: odd number of edges to their right."""
    inside = np.zeros(len(points), np.bool_)
    for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        crosses = (y1 > points[:, 1]) != (y2 > points[:, 1])
        if y1 != y2:
            inside ^= crosses & (points[:, 0] < (x2 - x1) * (points[:, 1] - y1) / (y2 - y1) + x1)
    return inside


OWN_DBM, NEAR_DBM, FLOOR_DBM, NONE_DBM = -60.0, -66.0, -71.0, -69.0
"""Levels without positions: an antenna's own zone, its neighbours, others on the floor, and in no zone."""


def _by_neighbourhood(layout: Layout, watched: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """One cell a zone, and one for "in no zone" on each floor."""
    zones = np.flatnonzero(watched)
    floors = np.unique(layout.zone_floor)
    own = layout.antenna_zone
    level = np.full((len(zones) + len(floors), len(own)), -np.inf)
    for i, z in enumerate(zones):
        level[i, layout.zone_floor[own] == layout.zone_floor[z]] = FLOOR_DBM
        level[i, layout.neighbours[z, own]] = NEAR_DBM
        level[i, own == z] = OWN_DBM
    for i, floor in enumerate(floors):
        level[len(zones) + i, layout.zone_floor[own] == floor] = NONE_DBM
    return np.concatenate([zones, np.full(len(floors), kernels.NONE)]), level
