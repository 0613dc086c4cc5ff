"""What a store's antennas hear of a tag: mean levels by place, and the odds of being heard at all.

The mean level falls with the logarithm of the distance; what is heard varies around it with heavy tails; weak answers
are lost by a logistic curve. A tick's reads of a tag by an antenna, k of them with the mean r, have the density

    p · ψ(r) · T((r − m)² / v) / √v,    v = spread² + FAST_DB² / min(k, READS),

and hearing nothing in a tick has the probability 1 − p · Z(m), Z(m) being the mean of ψ over what would have been
received. m is the level of the place, louder or weaker by what the tag is (its bias) and by a body in between.
p is the antenna's rate: how often a tick comes to reads of a tag that is loud enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dwell.layout import Layout
from dwell.markov.cells import Cells

Floats = NDArray[np.float64]

TAG_M = 1.1
"""Height above the floor at which tags are carried."""
STOREY_M = 4.0
"""From floor to floor."""
NEAREST_M = 0.3
"""Antennas aren't nearer to tags than that."""
REFERENCE_M = 3.0
"""Distance at which levels are told: there they depend least on the slope."""
FINE_M = 4.0
"""Cells that are nearer are measured at POINTS × POINTS points, others at their centres."""
POINTS = 3
FAST_DB = 2.0
"""Of one read against the level of its moment: hopping and noise."""
READS = 4
"""Reads of a tick that count; fading is frozen for so short a time."""
TAIL = 12.0
"""Where the density of levels flattens out, in squared spreads: outliers are frequent."""
SPAN_DB = 60.0
"""Levels farther than this from the mean aren't considered: the density is one over that range."""
LEAST = 1e-12
"""Probabilities of silence aren't told apart below this."""
WIDTH_DB = 2.0
"""Of the logistic curve by which weak answers are lost."""
BEAM_DB = 24.0
"""Loss at a beam's whole width beside its middle, there and back: 6 dB at the half-power points, as its square."""
BESIDE_M = 0.75
"""An antenna that hangs less than this beside the middle of its zone, and not over it, may look anywhere."""
OVER_M = 0.8
"""Height over tags from which an antenna over the middle of its zone looks down."""
OWN_DB, NEAR_DB, FAR_DB, NONE_DB = 7.0, -7.0, -11.0, -12.0
"""Without positions, against the level at 3 m: an antenna's own zone, its neighbours, others, and in no zone."""


@dataclass(frozen=True)
class Field:
    """A store's radio, A antennas. All levels are those of the RSSI that readers tell."""

    level_3m_dbm: float
    """Of a usual tag three metres from a usual antenna, in the middle of its beam."""
    slope_db: float
    """Loss a decade of distance, there and back."""
    height_m: float
    """Above the floor, of antennas that the layout gives no height."""
    spread_db: float
    """Of levels around the mean of their place."""
    half_rate_dbm: float
    """Level at which half of the answers are lost."""
    block_db: float
    """Loss through a body."""
    block_rate: float
    """A second, at which a body gets in between."""
    slab_db: float
    """Loss through a floor's slab."""
    beam_deg: float
    """Width between the half-power points, of antennas that the layout tells no beam of."""
    behind_db: float
    """Most that a beam takes away, there and back."""
    offset_db: Floats
    """(A,) that each antenna hears tags louder."""
    rate: Floats
    """(A,) share of the ticks in which each antenna reads a tag that is loud enough."""
    table: Floats | None = None
    """(A, C) dBm in each cell; None: by distance, or without positions by the layout's neighbourhoods."""

    @property
    def level_1m_dbm(self) -> float:
        """Level at one metre."""
        return self.level_3m_dbm + self.slope_db * float(np.log10(REFERENCE_M))

    @staticmethod
    def prior(layout: Layout) -> Field:
        """The middle of what is sold, with nothing known of the store."""
        antennas = len(layout.antenna_zone)
        return Field(
            level_3m_dbm=-58.0,
            slope_db=27.0,
            height_m=TAG_M + 1.5,
            spread_db=4.7,
            half_rate_dbm=-72.0,
            block_db=14.0,
            block_rate=1 / 60,
            slab_db=12.5,
            beam_deg=110.0,
            behind_db=11.0,
            offset_db=np.zeros(antennas),
            rate=np.full(antennas, 0.5),
        )


SHARED = (
    *("level_3m_dbm", "slope_db", "height_m", "spread_db", "half_rate_dbm", "block_db", "block_rate", "slab_db"),
    *("beam_deg", "behind_db"),
)
"""The figures that all antennas share."""


def packed(field: Field) -> dict[str, Floats]:
    """A field as plain arrays."""
    table = np.zeros((0, 0)) if field.table is None else field.table
    shared = np.array([getattr(field, name) for name in SHARED])
    return {"field": shared, "field_offset": field.offset_db, "field_rate": field.rate, "field_table": table}


def unpacked(arrays: Mapping[str, NDArray[Any]]) -> Field:
    """The field that was `packed`; KeyError or ValueError if it is another version's."""
    shared = dict(zip(SHARED, arrays["field"].tolist(), strict=True))
    table = arrays["field_table"]
    return Field(
        **shared,
        offset_db=arrays["field_offset"].copy(),
        rate=arrays["field_rate"].copy(),
        table=table.copy() if table.size else None,
    )


class Geometry(NamedTuple):
    """What doesn't depend on the radio, A antennas by C cells."""

    decades: NDArray[np.float32]
    """(A, C) logarithm of the distance over REFERENCE_M, mean over the cell; inf where nothing can be heard."""
    aside: NDArray[np.float32]
    """(A, C) squared degrees beside the middle of the beam, mean over the cell; 0 where that is unknown."""
    width_deg: Floats
    """(A,) of beams that the layout tells, NaN of others."""
    storeys: NDArray[np.int8]
    """(A, C) slabs in between, one at most."""


def levels(cells: Cells, layout: Layout, field: Field, antennas: slice = slice(None)) -> NDArray[np.float32]:
    """(antennas, C) mean dBm of a usual tag in each cell; −inf where an antenna can't hear at all.

    An antenna hears its own floor and, through the slab, those above and below.
    """
    if field.table is not None or not cells.placed:
        return _tabled(cells, layout, field, antennas)
    return over(geometry(cells, layout, field.height_m, antennas), field, antennas)


def over(known: Geometry, field: Field, antennas: slice = slice(None)) -> NDArray[np.float32]:
    """`levels` of a geometry."""
    made = known.decades * np.float32(-field.slope_db)
    made += (field.level_3m_dbm + field.offset_db[antennas, None]).astype(np.float32)
    made[known.storeys > 0] -= np.float32(field.slab_db)
    width = np.where(np.isfinite(known.width_deg), known.width_deg, field.beam_deg)
    loss = known.aside * (BEAM_DB / width**2)[:, None].astype(np.float32)
    made -= np.minimum(loss, np.float32(field.behind_db), out=loss)
    return made


def geometry(cells: Cells, layout: Layout, height_m: float, antennas: slice = slice(None)) -> Geometry:
    """Of a layout with positions; `height_m`: that of antennas which the layout gives none."""
    numbers = np.arange(len(layout.antenna_zone))[antennas]
    decades = np.full((len(numbers), len(cells)), np.inf, np.float32)
    storeys = np.zeros((len(numbers), len(cells)), np.int8)
    aside = np.zeros((len(numbers), len(cells)), np.float32)
    height = heights(layout, height_m)
    ahead, width = _ahead(layout, height)
    for row, a in enumerate(numbers):
        if layout.antenna_zone[a] < 0:
            continue
        own = int(layout.zone_floor[layout.antenna_zone[a]])
        for f, floor in enumerate(cells.floors.tolist()):
            if abs(floor - own) > 1:
                continue
            part = slice(cells.first[f], cells.first[f + 1])
            to = cells.xy[part].astype(np.float64) - layout.antenna_xy[a].astype(np.float64)
            near = np.flatnonzero(np.hypot(to[:, 0], to[:, 1]) < FINE_M)
            points = to[near, None] + _POINTS * cells.edge_m[part][near, None, None]
            down = height[a] - TAG_M - STOREY_M * (floor - own)
            decades[row, part] = _decades(to, down)
            decades[row, part][near] = _decades(points, down).mean(axis=1)
            storeys[row, part] = abs(floor - own)
            if np.isfinite(ahead[a]).all():
                aside[row, part] = _aside(to, down, ahead[a])
                aside[row, part][near] = _aside(points, down, ahead[a]).mean(axis=1)
    return Geometry(decades, aside, width[antennas], storeys)


def heights(layout: Layout, unknown_m: float) -> Floats:
    """(A,) metres above the floor."""
    told = getattr(layout, "antenna_height_m", None)
    if told is None:
        told = np.full(len(layout.antenna_zone), 2.5)
    return np.where(np.isfinite(told), told, unknown_m).astype(np.float64)


def half_rates(rssi_dbm: Floats, field: Field) -> Floats:
    """ψ: the share of answers of a level that aren't lost for weakness."""
    return np.asarray(1.0 / (1.0 + np.exp((field.half_rate_dbm - rssi_dbm) / WIDTH_DB)))


def rates(mean_dbm: Floats, field: Field) -> Floats:
    """Z: the share of answers that aren't lost for weakness, by the mean level of the place."""
    weights = np.exp(fit(_OFF_DB, 1, field.spread_db)) * (_OFF_DB[1] - _OFF_DB[0])
    return np.asarray(half_rates(np.asarray(mean_dbm)[..., None] + _OFF_DB, field) @ weights)


def silences(mean_dbm: Floats, rate: Floats, field: Field, seconds: int = 1) -> Floats:
    """(A, levels) log probability of hearing nothing in some seconds in which fading is frozen, by antenna's rate."""
    weights = np.exp(fit(_OFF_DB, 1, field.spread_db)) * (_OFF_DB[1] - _OFF_DB[0])
    through = half_rates(np.asarray(mean_dbm)[:, None] + _OFF_DB, field)
    # The mean of (1 − pψ)ⁿ is a polynomial in p, whose coefficients are the moments of ψ: the same for all antennas.
    coefficients, moment = [], np.ones_like(through)
    for power in range(seconds + 1):
        coefficients.append(comb(seconds, power) * (-1) ** power * (moment @ weights))
        moment = moment * through
    powers = np.asarray(rate)[:, None] ** np.arange(seconds + 1)
    return np.asarray(np.log(np.maximum(powers @ np.stack(coefficients), LEAST)))


def fit(off_db: Floats, reads: Floats | int, spread_db: float) -> Floats:
    """log T/√v: density of the mean of `reads` reads lying `off_db` off the mean level of the place, a dB."""
    variance = spread_db**2 + FAST_DB**2 / np.minimum(reads, READS)
    q = np.square(off_db) / variance
    return np.asarray(-0.5 * TAIL * q / (q + TAIL) - np.log(area(np.sqrt(variance))))


def area(spread_db: Floats | float) -> Floats:
    """Integral over what `fit` takes the logarithm of, dB: what makes it a density."""
    q = np.square(_OFF_DB / np.asarray(spread_db)[..., None])
    return np.asarray(np.exp(-0.5 * TAIL * q / (q + TAIL)).sum(axis=-1) * (_OFF_DB[1] - _OFF_DB[0]))


def hit(rssi_dbm: Floats, mean_dbm: Floats, reads: Floats | int, rate: Floats | float, field: Field) -> Floats:
    """Log density of hearing `reads` reads with the mean `rssi_dbm` in a tick. NaN for reads without a level."""
    known = np.isfinite(rssi_dbm)
    rssi = np.where(known, rssi_dbm, mean_dbm)
    with_level = np.log(half_rates(rssi, field)) + fit(rssi - mean_dbm, reads, field.spread_db)
    return np.asarray(np.log(rate) + np.where(known, with_level, np.log(rates(mean_dbm, field))))


def miss(mean_dbm: Floats, rate: Floats | float, field: Field) -> Floats:
    """Log probability of hearing nothing in a tick."""
    return np.asarray(np.log1p(-np.asarray(rate) * rates(mean_dbm, field)))


def _ahead(layout: Layout, height: Floats) -> tuple[Floats, Floats]:
    """(A, 3) unit vectors (east, north, down) along the middle of each beam, NaN where it may look anywhere, and (A,)
    its width if told. An antenna of which the layout tells nothing else looks at the middle of its zone."""
    antennas = len(layout.antenna_zone)
    unknown = np.full(antennas, np.nan)
    tilt, azimuth, width = (
        np.asarray(getattr(layout, f"antenna_{name}_deg", unknown), np.float64) for name in ("tilt", "azimuth", "beam")
    )
    level, turn = np.radians(tilt), np.radians(np.where(np.isnan(azimuth) & (tilt == 90), 0.0, azimuth))
    ahead = np.column_stack([np.cos(level) * np.sin(turn), np.cos(level) * np.cos(turn), np.sin(level)])
    middle = np.full((len(layout.zone_kind), 2), np.nan)
    for z in np.unique(layout.corner_zone):
        middle[z] = centroid(layout.corner_xy[layout.corner_zone == z].astype(np.float64))
    to = np.where(layout.antenna_zone[:, None] >= 0, middle[layout.antenna_zone] - layout.antenna_xy, np.nan)
    to = np.where(np.isfinite(to), to, 0.0)
    down = height - TAG_M
    towards = np.column_stack([to, down])
    towards /= np.maximum(np.linalg.norm(towards, axis=1), 1e-9)[:, None]
    towards[(np.hypot(to[:, 0], to[:, 1]) < BESIDE_M) & (down < OVER_M)] = np.nan
    return np.where(np.isfinite(ahead).all(axis=1)[:, None], ahead, towards), width


def centroid(polygon: Floats) -> Floats:
    """(2,) centre of gravity of the area of a polygon (corners, 2); of the corners if it has none."""
    x, y = (polygon - polygon[0]).T
    cross = x * np.roll(y, -1) - y * np.roll(x, -1)
    if abs(cross.sum()) < 1e-9:
        return np.asarray(polygon.mean(axis=0))
    moments = [float(((v + np.roll(v, -1)) * cross).sum()) for v in (x, y)]
    return np.asarray(polygon[0] + np.array(moments) / (3 * cross.sum()))


def _aside(to: Floats, down: float, ahead: Floats) -> Floats:
    """Squared degrees between `ahead` and points (…, 2) metres away on the plan and `down` below."""
    away = np.sqrt(np.square(to).sum(axis=-1) + max(abs(down), NEAREST_M) ** 2)
    along = (to[..., 0] * ahead[0] + to[..., 1] * ahead[1] + down * ahead[2]) / away
    return np.asarray(np.square(np.degrees(np.arccos(np.clip(along, -1.0, 1.0)))))


def _decades(to: Floats, down: float) -> Floats:
    away = np.square(to).sum(axis=-1) + max(abs(down), NEAREST_M) ** 2
    return np.asarray(0.5 * np.log10(away / REFERENCE_M**2))


def _tabled(cells: Cells, layout: Layout, field: Field, antennas: slice) -> NDArray[np.float32]:
    if field.table is not None:
        return (field.table + field.offset_db[:, None])[antennas].astype(np.float32)
    own = layout.antenna_zone[antennas]
    known = cells.zone >= 0
    made = np.where(known, FAR_DB, NONE_DB) + np.zeros((len(own), 1))
    made[layout.neighbours[own[:, None], cells.zone[None, :]] & known] = NEAR_DB
    made[(own[:, None] == cells.zone[None, :]) & known] = OWN_DB
    made += field.level_3m_dbm + field.offset_db[antennas, None]
    made[(layout.zone_floor[own][:, None] != cells.floor[None, :]) | (own < 0)[:, None]] = -np.inf
    return made.astype(np.float32)


_POINTS = (np.stack(np.meshgrid(*[np.arange(POINTS) - (POINTS - 1) / 2] * 2), axis=-1) / POINTS).reshape(1, -1, 2)
_OFF_DB = np.linspace(-SPAN_DB, SPAN_DB, 121)
