"""From a store's geometry to what each place says of reads: cells, their levels and rates, and the odds of moving.

Levels fall with the distance as measured (Tuning); nothing here comes from labels. A zone's floor is cut into cells of
CELL_M; so is the floor between zones, which stands for "in no zone". A zone that no antenna watches is floor as well:
one can't tell that somebody is there from others' antennas alone. Without polygons, zones lie around their antennas;
without usable positions, only the zones' neighbourhood counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dwell import kernels, lifecycle, moves
from dwell.layout import Layout, Settings, ZoneKind
from dwell.tables import Limits, Radio, Scratch
from dwell.tuning import TICK_US, Tuning

CELL_M = 3.0
"""Edge of a cell: levels change by less than the shadowing within it."""
POINT_M = 0.5
"""Distance of the points that a cell's level is the mean of."""
MARGIN_M = 6.0
"""Floor beyond the outermost zone that still counts."""
STAIRS_M = 6
"""Between zones on different floors that one can walk between directly."""
REACH_M = 2.5
"""Zones without polygons reach this far around their antennas."""
MOST_CELLS = 16_000
"""Their numbers must fit 16 bits."""
LOUD_DBM, LOUD_STEP_DB = -120.0, 0.5
"""Levels are told apart in kernels.LOUD steps from here."""
APART = 255
"""Distance of cells between which there is no way."""
MIN_RATE = 1e-4
"""Reflections reach everywhere."""

Points = NDArray[np.float64]


def build(layout: Layout, settings: Settings, tuning: Tuning) -> Radio:
    """Tables of a layout."""
    places = _places(layout, tuning)
    cells = len(places.zone)
    if cells > MOST_CELLS:
        raise ValueError(f"the store has {cells} cells of {CELL_M:g} m; {MOST_CELLS} are possible")
    antenna, cell, level = _within_range(layout, places, tuning)
    steps = _steps(tuning)
    kind = _kinds(layout, places.zone)
    zone_kind = _kinds(layout, np.arange(len(layout.zone_kind)))
    stop = np.array(tuning.stop, np.float64)[kind]
    way = moves.build(tuning, CELL_M)
    made = Radio(
        row=np.searchsorted(antenna, np.arange(len(layout.antenna_zone) + 1)).astype(np.int32),
        cell=cell.astype(np.int32),
        level=level,
        step=np.zeros(len(level), np.uint8),
        rate=np.zeros((tuning.biases, len(level))),
        fit=_fit(steps, tuning),
        mean=steps.mean,
        cell_zone=places.zone.astype(np.int16),
        cell_kind=kind,
        none=np.where(places.zone < 0, tuning.none_nats, 0.0),
        apart=np.minimum(places.apart, way.shape[2] - 1),
        stop=stop,
        stand_at=stop * places.area,
        walk_to=np.array(tuning.tread, np.float64)[kind] * places.area,
        way=way.reshape(-1, 4),
        part=np.exp(-np.arange(256) / kernels.LOGS),
        gap_bin=moves.bins(),
        rest_us=settings.rest_us(),
        stay_s=np.array(tuning.stay_s)[zone_kind],
        antenna_zone=layout.antenna_zone.astype(np.int16),
        brief=np.isin(layout.zone_kind, (ZoneKind.ENTRANCE, ZoneKind.EXIT)),
        rule_mask=np.ascontiguousarray(layout.rule_mask, np.uint64).reshape(-1, 8),
        rule_value=np.ascontiguousarray(layout.rule_value, np.uint64).reshape(-1, 8),
        rule_class=np.ascontiguousarray(layout.rule_class, np.uint8),
        table=lifecycle.transitions(),
    )
    louder(made, layout, tuning, np.zeros(len(layout.antenna_zone)))
    return made


def louder(radio: Radio, layout: Layout, tuning: Tuning, drift_db: NDArray[np.float64]) -> None:
    """Expect each antenna to be so many dB louder than the layout says. Which cells are within range stays as it is."""
    antenna = np.repeat(np.arange(len(drift_db)), np.diff(radio.row))
    level = radio.level + drift_db[antenna] + tuning.bias_max_db
    shift = round(tuning.bias_step_db / LOUD_STEP_DB) * np.arange(tuning.biases)
    step = np.round((level - LOUD_DBM) / LOUD_STEP_DB).astype(np.int64)
    radio.step[:] = np.clip(step, shift[-1], kernels.LOUD - 1)
    got = _steps(tuning).rate[radio.step - shift[:, None]] * layout.antenna_rate.astype(np.float64)[antenna]
    radio.rate[:] = np.maximum(got, MIN_RATE)


def usual(layout: Layout) -> Tuning:
    """The figures for a layout. Where only neighbourhood counts a zone is one place: levels are means over all of it,
    which differ by less, and there are few places to choose from."""
    known = len(layout.corner_zone) or _placed(layout)
    return Tuning() if known else Tuning(spread_db=5.0, temper=1.0)


@dataclass(frozen=True)
class Expected:
    """What is expected of each antenna in each cell within its range, N entries by antenna and cell."""

    antenna: NDArray[np.int64]
    cell: NDArray[np.int64]
    rate: NDArray[np.float64]
    """(B, N) of reads that get through, by class of bias."""
    level: NDArray[np.float64]
    """(B, N) mean dBm of what is heard."""
    sharp: NDArray[np.float64]
    """(B, N) one over its spread in dB."""
    cell_zone: NDArray[np.int64]


def expect(layout: Layout, tuning: Tuning) -> Expected:
    """The figures behind `build`, for learning from reads."""
    places = _places(layout, tuning)
    antenna, cell, level = _within_range(layout, places, tuning)
    bias = tuning.bias_max_db - tuning.bias_step_db * np.arange(tuning.biases)
    rate, mean, spread = _heard(level[None, :] + bias[:, None], tuning)
    rate = np.maximum(rate * layout.antenna_rate.astype(np.float64)[antenna], MIN_RATE)
    return Expected(antenna, cell, rate, mean, 1.0 / spread, places.zone)


def limits(tuning: Tuning, settings: Settings) -> Limits:
    """The kernels' scalars."""
    return Limits(
        tick_us=TICK_US,
        gaps=len(moves.GAPS),
        metres=moves.REACH_M + 2,
        loud_dbm=LOUD_DBM,
        loud_step_db=LOUD_STEP_DB,
        bias_steps=round(tuning.bias_step_db / LOUD_STEP_DB),
        bias_weight=tuning.bias_weight,
        bias_start_db=tuning.bias_start_db,
        bias_max_db=tuning.bias_max_db,
        bias_step_db=tuning.bias_step_db,
        biases=tuning.biases,
        share_weight=tuning.share_weight,
        repeat_weight=tuning.repeat_weight,
        repeat_most=tuning.repeat_most,
        unheard_nats=tuning.unheard_nats,
        beam_nats=tuning.beam_nats,
        temper=tuning.temper,
        least=tuning.least,
        slight=tuning.slight,
        live_share=tuning.live_share,
        lag_ticks=tuning.lag_ticks,
        batch_ticks=tuning.batch_ticks,
        hold_us=tuning.hold_us,
        forget_us=tuning.forget_us,
        allow_us=tuning.allow_us,
        walk_us=tuning.walk_us,
        fill_us=tuning.fill_us,
        join_gap_us=settings.join_gap_us,
        visit_us=settings.visit_us,
        end_after_exit_us=settings.journey_end_after_exit_us,
        end_silence_us=settings.journey_end_silence_us,
    )


def scratch(radio: Radio) -> Scratch:
    """Room for the kernels to work in."""
    cells, ways = len(radio.cell_zone), kernels.WIDE + kernels.BEAM
    antennas = len(radio.antenna_zone)
    return Scratch(
        cell=np.zeros(cells),
        cells=np.zeros(cells, np.int32),
        score=np.zeros(cells),
        slot=np.zeros(cells, np.int8),
        antenna=np.zeros(antennas, np.int32),
        level=np.zeros(antennas),
        off=np.zeros(antennas),
        zone=np.zeros(len(radio.brief) + 1),
        new_cell=np.zeros(ways, np.int32),
        new_score=np.zeros(ways),
        new_prob=np.zeros((ways, 2)),
        base=np.zeros(kernels.BEAM, np.int64),
        now=np.zeros((kernels.BEAM, 2)),
        before=np.zeros((kernels.BEAM, 2)),
        came=np.zeros((kernels.BEAM, 4)),
        decided=np.zeros(kernels.EVENTS, np.int64),
        sure=np.zeros(kernels.EVENTS),
    )


def _within_range(
    layout: Layout, places: _Places, tuning: Tuning
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Antenna, cell and mean level of each pair that is near enough."""
    levels = places.level + layout.antenna_offset_db.astype(np.float64)
    near = (levels >= tuning.range_dbm).T
    antenna, cell = np.nonzero(near)
    return antenna, cell, levels.T[near]


class _Steps(NamedTuple):
    """What `_heard` says of each of the kernels' LOUD levels."""

    dbm: NDArray[np.float64]
    rate: NDArray[np.float64]
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]


@lru_cache(maxsize=4)
def _steps(tuning: Tuning) -> _Steps:
    dbm = LOUD_DBM + LOUD_STEP_DB * np.arange(kernels.LOUD, dtype=np.float64)
    return _Steps(dbm, *_heard(dbm, tuning))


def _fit(steps: _Steps, tuning: Tuning) -> NDArray[np.float32]:
    """(LOUD + 1, LOUD) log density of a level that is heard, by the mean level, against the worst that one can be.
    The last row is for reads without a level: all mean levels suit them alike."""
    q = ((steps.dbm[:, None] - steps.mean[None, :]) / steps.spread[None, :]) ** 2
    fit = np.zeros((len(q) + 1, len(q)), np.float32)
    fit[:-1] = 0.5 * tuning.tail * (1.0 - q / (q + tuning.tail))
    return fit


def _heard(level: NDArray[np.float64], tuning: Tuning) -> tuple[NDArray[np.float64], ...]:
    """Rate of reads at a mean level, and mean and spread of the levels of those that get through: only the strong
    ones do, so that far antennas' reads are stronger than the distance says."""
    grid = np.arange(-140.0, 0.0, 0.25)
    offsets = np.linspace(-3.0, 3.0, 25)
    weight = np.exp(-0.5 * offsets**2)
    x = grid[:, None] + tuning.spread_db * offsets
    through = weight / (1.0 + np.exp((tuning.half_rate_dbm - x) / tuning.rate_width_db))
    rate = through.sum(1)
    mean = (through * x).sum(1) / rate
    spread = np.sqrt((through * (x - mean[:, None]) ** 2).sum(1) / rate + tuning.fast_db**2)
    rate = np.maximum(rate / weight.sum(), MIN_RATE)
    return tuple(np.interp(level, grid, column) for column in (rate, mean, spread))


def _kinds(layout: Layout, cell_zone: NDArray[np.int64]) -> NDArray[np.int64]:
    kind = np.where(cell_zone >= 0, layout.zone_kind[np.maximum(cell_zone, 0)], 255)
    passed = np.isin(kind, (ZoneKind.AISLE, ZoneKind.ENTRANCE, ZoneKind.EXIT))
    return np.where(cell_zone < 0, moves.Kind.BETWEEN, np.where(passed, moves.Kind.PASSED, moves.Kind.STAYED_IN))


class _Places(NamedTuple):
    zone: NDArray[np.int64]  # (C,) of each cell
    level: NDArray[np.float64]  # (C, A) mean dBm of each antenna there
    apart: NDArray[np.uint8]  # (C, C) metres from cell to cell
    area: NDArray[np.float64]  # (C,) in whole cells


def _places(layout: Layout, tuning: Tuning) -> _Places:
    watched = np.zeros(len(layout.zone_kind), np.bool_)
    watched[layout.antenna_zone[layout.antenna_zone >= 0]] = True
    if not len(layout.corner_zone) and not _placed(layout):
        return _by_neighbourhood(layout, watched)
    zone_parts: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    level_parts: list[NDArray[np.float64]] = [np.zeros((0, len(layout.antenna_zone)))]
    place_parts: list[Points] = [np.zeros((0, 2))]
    floor_parts: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    area_parts: list[NDArray[np.float64]] = [np.zeros(0)]
    antenna_floor = layout.zone_floor[layout.antenna_zone]
    for floor in np.unique(layout.zone_floor):
        points, zone = _points(layout, int(floor))
        zone[(zone >= 0) & ~watched[zone]] = kernels.NONE
        distance = np.linalg.norm(points[:, None, :] - layout.antenna_xy[None, :, :].astype(np.float64), axis=2)
        level = tuning.level_1m_dbm - tuning.slope_db * np.log10(np.hypot(distance, tuning.height_m))
        level[:, antenna_floor != floor] = -np.inf
        key = np.column_stack([zone, _grid(points, zone)])
        cells, member = np.unique(key, axis=0, return_inverse=True)
        member = member.reshape(-1)
        with np.errstate(invalid="ignore"):
            mean = np.stack([level[member == c].mean(0) for c in range(len(cells))])
        zone_parts.append(cells[:, 0])
        level_parts.append(mean)
        place_parts.append(np.stack([points[member == c].mean(0) for c in range(len(cells))]))
        area_parts.append(np.bincount(member).astype(np.float64) * (POINT_M / CELL_M) ** 2)
        floor_parts.append(np.full(len(cells), floor))
    cell_zone, cell_floor = np.concatenate(zone_parts), np.concatenate(floor_parts)
    apart = _apart(layout, cell_zone, cell_floor, np.concatenate(place_parts))
    return _Places(cell_zone, np.concatenate(level_parts), apart, np.concatenate(area_parts))


def _grid(points: Points, zone: NDArray[np.int64]) -> NDArray[np.int64]:
    """(P, 2) which cell each point lies in: a zone is cut evenly, so that none of its cells is a sliver."""
    index = np.floor(points / CELL_M).astype(np.int64)
    for z in np.unique(zone[zone >= 0]):
        mine = zone == z
        low, high = points[mine].min(0) - POINT_M / 2, points[mine].max(0) + POINT_M / 2
        parts = np.maximum(np.round((high - low) / CELL_M), 1)
        index[mine] = np.minimum(np.floor((points[mine] - low) / (high - low) * parts), parts - 1).astype(np.int64)
    return index


def _apart(layout: Layout, zone: NDArray[np.int64], floor: NDArray[np.int64], place: Points) -> NDArray[np.uint8]:
    metres = np.linalg.norm(place[:, None, :] - place[None, :, :], axis=2)
    apart: NDArray[np.uint8] = np.clip(np.ceil(metres), 1, APART - 1).astype(np.uint8)
    apart[floor[:, None] != floor[None, :]] = APART
    linked = layout.neighbours[zone[:, None], zone[None, :]] & (zone >= 0)[:, None] & (zone >= 0)[None, :]
    apart[linked & (floor[:, None] != floor[None, :])] = STAIRS_M
    np.fill_diagonal(apart, 0)
    return apart


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


NEAR_M, FAR_M = 4, 12
"""Distances without positions."""
OWN_DBM, NEAR_DBM, FLOOR_DBM, NONE_DBM = -56.0, -70.0, -74.0, -75.0
"""Levels without positions: an antenna's own zone, its neighbours, others on the floor, and in no zone."""


def _by_neighbourhood(layout: Layout, watched: NDArray[np.bool_]) -> _Places:
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
    cell_zone = np.concatenate([zones, np.full(len(floors), kernels.NONE)])
    floor = np.concatenate([layout.zone_floor[zones], floors])
    apart = np.full((len(cell_zone), len(cell_zone)), APART, np.uint8)
    apart[floor[:, None] == floor[None, :]] = FAR_M
    apart[: len(zones), : len(zones)][layout.neighbours[zones[:, None], zones[None, :]]] = NEAR_M
    apart[len(zones) :][floor[len(zones) :, None] == floor[None, :]] = NEAR_M
    apart[:, len(zones) :][floor[:, None] == floor[None, len(zones) :]] = NEAR_M
    np.fill_diagonal(apart, 0)
    return _Places(cell_zone, level, apart, np.ones(len(cell_zone)))
