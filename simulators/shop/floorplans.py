"""Random floor plans: a rectangle cut into zones and aisles, doors at its edge, antennas in and around zones.

The result is what an installer would write into a store file, and the real mounting of the antennas.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from simulators.shop.plan import Floats

Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""

LEAST_M = 3.0
"""Minimum width of a zone."""
MOUNTS = ("overhead", "slanted", "wall", "low", "portal")


@dataclass(frozen=True)
class Sketch:
    """Parameters of a plan."""

    zones: int
    floors: int = 1
    aisles: bool = True
    """True: aisles are zones, not only floor between zones."""
    rooms: bool = False
    """True: every zone is a room with an antenna in each corner."""


@dataclass
class Hung:
    """Antenna: its entry in the store file, and its real mounting."""

    zone: str
    mount: str
    told: dict[str, Any]
    place: tuple[float, float, float]
    azimuth: float
    tilt: float
    beam: float


@dataclass
class Drawing:
    """A store's zones (as in the store file), antennas, and the hole in the upper floor."""

    zones: list[dict[str, Any]] = field(default_factory=list)
    antennas: list[Hung] = field(default_factory=list)
    atrium: Box | None = None


def drawing(rng: np.random.Generator, sketch: Sketch) -> Drawing:
    """Draw a store with about that many zones, and its antennas."""
    made = Drawing()
    side = float(rng.uniform(4.5, 6.0)) if sketch.rooms else float(rng.uniform(3.6, 8.0))
    each = max(2, round(sketch.zones / sketch.floors))
    width = np.sqrt(each * side * side * 1.6 * rng.uniform(1.0, 2.0))
    depth = each * side * side * 1.6 / width
    outline = (0.0, 0.0, float(width), float(depth))
    if sketch.floors > 1:
        made.atrium = _middle(rng, outline)
    for floor in range(sketch.floors):
        _lay_out(rng, made, sketch, floor, outline, side, each)
    _hang(rng, made, sketch)
    return made


# ── zones ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _lay_out(
    rng: np.random.Generator, made: Drawing, sketch: Sketch, floor: int, outline: Box, side: float, wanted: int
) -> None:
    corridor = float(rng.uniform(1.8, 3.6))
    gap = float(rng.uniform(0.6, 2.0)) if not sketch.rooms and rng.random() < 0.7 else 0.0
    lots, lanes = _cut(rng, outline, side, corridor, gap)
    if floor and made.atrium is not None:
        lots = [lot for lot in lots if _overlap(lot, made.atrium) < 0.25]
    lots = [lots[i] for i in np.sort(rng.permutation(len(lots))[: max(2, wanted - (floor == 0))])]
    kinds = _kinds(rng, lots, outline, floor)
    inset = 0.0 if sketch.rooms else float(rng.uniform(0.0, 0.5))
    for n, (lot, kind) in enumerate(zip(lots, kinds, strict=True)):
        left, bottom, right, top = lot
        box = (left + inset, bottom + inset, right - inset, top - inset)
        made.zones.append(_zone(f"f{floor}-{kind.replace('_', '-')}-{n}", kind, floor, _outline(rng, box)))
    if sketch.aisles:
        longest_m = float(rng.choice([5.0, 25.0]))
        for n, piece in enumerate(piece for lane in lanes for piece in _pieces(lane, longest_m)):
            made.zones.append(_zone(f"f{floor}-aisle-{n}", "aisle", floor, _corners(piece)))
    if floor == 0:
        _doors(rng, made, outline, lanes)
    else:
        _stairs(made, floor)


def _cut(
    rng: np.random.Generator, outline: Box, side: float, corridor: float, gap: float
) -> tuple[list[Box], list[Box]]:
    """Cut a floor into lots and lanes by repeated halving, the first lanes wide enough for many people."""
    lots, lanes, waiting = [], [], [(outline, 0)]
    while waiting:
        box, depth = waiting.pop()
        width, height = box[2] - box[0], box[3] - box[1]
        across = width > height
        length = max(width, height)
        lane = corridor if depth < 2 or (depth < 4 and rng.random() < 0.4) else gap
        lane = min(lane, length - 2 * LEAST_M)
        if lane < 0 or (width * height < 1.7 * side * side and length < 2.2 * side):
            lots.append(box)
            continue
        at = float(np.clip(rng.normal(0.5, 0.1), 0.3, 0.7)) * (length - lane)
        at = min(max(at, LEAST_M), length - lane - LEAST_M)
        if across:
            parts = (box[0], box[1], box[0] + at, box[3]), (box[0] + at + lane, box[1], box[2], box[3])
            between = (box[0] + at, box[1], box[0] + at + lane, box[3])
        else:
            parts = (box[0], box[1], box[2], box[1] + at), (box[0], box[1] + at + lane, box[2], box[3])
            between = (box[0], box[1] + at, box[2], box[1] + at + lane)
        if lane > 1.5:
            lanes.append(between)
        waiting += [(part, depth + 1) for part in parts]
    return lots, lanes


def _kinds(rng: np.random.Generator, lots: list[Box], outline: Box, floor: int) -> list[str]:
    """Choose zone kinds: mostly counters; larger stores have desks and rooms as well."""
    kinds = ["counter"] * len(lots)
    free = list(rng.permutation(len(lots)))
    wanted = []
    if len(lots) >= 5 and floor == 0:
        wanted.append("checkout")
    if len(lots) >= 7:
        wanted += ["fitting_room"] * int(rng.random() < 0.6) + ["service"] * int(rng.random() < 0.4)
    if len(lots) >= 12:
        wanted += ["back_room", "fitting_room"] if rng.random() < 0.6 else ["service"]
    for kind in wanted:
        kinds[free.pop()] = kind
    return kinds


def _outline(rng: np.random.Generator, box: Box) -> list[tuple[float, float]]:
    """Draw a zone's outline: mostly the rectangle, sometimes without a corner."""
    corners = _corners(box)
    left, bottom, right, top = box
    if rng.random() < 0.15 and min(right - left, top - bottom) > 3.5:
        x, y = (
            left + (right - left) * float(rng.uniform(0.5, 0.7)),
            bottom + (top - bottom) * float(rng.uniform(0.5, 0.7)),
        )
        corners = [(left, bottom), (right, bottom), (right, y), (x, y), (x, top), (left, top)]
    return [(round(x, 2), round(y, 2)) for x, y in corners]


def _doors(rng: np.random.Generator, made: Drawing, outline: Box, lanes: list[Box]) -> None:
    """Place one or two entrances at the ends of lanes, where those reach the edge; one may be an exit only."""
    left, bottom, right, top = outline
    wide, deep = float(rng.uniform(2.5, 5.0)), float(rng.uniform(2.0, 4.0))
    spots = []
    for lane in lanes:
        x, y = (lane[0] + lane[2]) / 2, (lane[1] + lane[3]) / 2
        spots += [(x, bottom, 0)] if lane[1] <= bottom else []
        spots += [(x, top, 1)] if lane[3] >= top else []
        spots += [(left, y, 2)] if lane[0] <= left else []
        spots += [(right, y, 3)] if lane[2] >= right else []
    spots = [spots[i] for i in rng.permutation(len(spots))] or [((left + right) / 2, bottom, 0)]
    several = len(spots) > 1 and rng.random() < 0.6
    for n, (x, y, edge) in enumerate(spots[: 1 + several]):
        box = {
            0: (x - wide / 2, y - deep, x + wide / 2, y),
            1: (x - wide / 2, y, x + wide / 2, y + deep),
            2: (x - deep, y - wide / 2, x, y + wide / 2),
            3: (x, y - wide / 2, x + deep, y + wide / 2),
        }[edge]
        kind = "exit" if n and rng.random() < 0.6 else "entrance"
        made.zones.append(_zone(f"f0-{kind}-{n}", kind, 0, _corners(box)))


def _stairs(made: Drawing, floor: int) -> None:
    """Connect this floor to the one below: the aisles (or counters) nearest to each other become neighbours."""
    upper = [z for z in made.zones if z["floor"] == f"F{floor}"]
    lower = [z for z in made.zones if z["floor"] == f"F{floor - 1}" and z["kind"] in ("aisle", "counter")]
    upper = [z for z in upper if z["kind"] == "aisle"] or upper
    lower = [z for z in lower if z["kind"] == "aisle"] or lower
    near = [
        (float(np.hypot(*(_centre(a) - _centre(b)))), i, j) for i, a in enumerate(upper) for j, b in enumerate(lower)
    ]
    _, i, j = min(near)
    upper[i]["stairs"] = lower[j]["id"]


# ── antennas ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _hang(rng: np.random.Generator, made: Drawing, sketch: Sketch) -> None:
    usual = "wall" if sketch.rooms else str(rng.choice(MOUNTS[:4], p=(0.5, 0.2, 0.2, 0.1)))
    mixed = 0.0 if sketch.rooms else float(rng.choice([0.0, 0.3]))
    portals, ground = bool(rng.random() < 0.5), float(rng.uniform(14, 40))
    beam = float(rng.uniform(30, 180)) if rng.random() < 0.5 else float(rng.uniform(55, 100))
    sloppy_m = float(rng.choice([0.05, 0.2, 0.5]))
    measured, aimed = bool(rng.random() < 0.85), bool(rng.random() < 0.4)
    heights = {
        "overhead": rng.uniform(2.3, 3.5),
        "slanted": rng.uniform(2.0, 3.2),
        "wall": rng.uniform(0.9, 2.2),
        "low": rng.uniform(0.0, 0.9),
        "portal": rng.uniform(0.8, 1.8),
    }
    for zone in made.zones:
        polygon = np.array(zone["polygon"], float)
        area = _area(polygon)
        mount = usual if rng.random() >= mixed else str(rng.choice(MOUNTS[:4]))
        if zone["kind"] in ("entrance", "exit") and portals:
            mount = "portal"
        elif zone["kind"] == "aisle" and mount in ("wall", "low"):
            mount = "overhead"
        count = 4 if sketch.rooms and zone["kind"] == "counter" else int(np.clip(round(area / ground), 1, 4))
        count = 2 if mount == "portal" else count
        for x, y, azimuth in _spots(rng, polygon, count, mount):
            height = max(0.0, float(heights[mount] + rng.normal(0, 0.1)))
            tilt = {"overhead": 90.0, "slanted": 45.0, "wall": 10.0, "low": 0.0, "portal": 0.0}[mount]
            tilt = float(np.clip(tilt + rng.normal(0, 6), -90, 90))
            width = float(np.clip(beam * np.exp(rng.normal(0, 0.05)), 30, 180))
            dx, dy = rng.normal(0, sloppy_m, 2)
            told: dict[str, Any] = {"zone": zone["id"], "position": (round(x + dx, 1), round(y + dy, 1))}
            if measured:
                told["height"] = round(max(0.0, height + float(rng.normal(0, 0.1))), 1)
            if aimed:
                told |= {
                    "tilt": round(tilt / 15) * 15,
                    "azimuth": round(azimuth / 45) * 45,
                    "beam": round(width / 5) * 5,
                }
            made.antennas.append(Hung(zone["id"], mount, told, (x, y, height), azimuth, tilt, width))


def _spots(rng: np.random.Generator, polygon: Floats, count: int, mount: str) -> list[tuple[float, float, float]]:
    """Return x, y and azimuth (degrees clockwise from y): within the zone, at its edges or in its corners, pointing
    into it."""
    low, high = polygon.min(axis=0), polygon.max(axis=0)
    middle, span = (low + high) / 2, high - low
    if mount in ("wall", "slanted", "portal"):
        if mount == "portal":
            along = 0 if span[0] > span[1] else 1
            ends = [middle.copy(), middle.copy()]
            ends[0][along], ends[1][along] = low[along] + 0.2, high[along] - 0.2
        elif count == 4:
            ends = [np.array([x, y]) for x in (low[0] + 0.3, high[0] - 0.3) for y in (low[1] + 0.3, high[1] - 0.3)]
        else:
            ends = []
            for n in range(count):
                edge = (n + int(rng.integers(2)) * 2) % 4 if count == 1 else n
                end = low + span * rng.uniform(0.35, 0.65, 2)
                end[edge % 2] = (low, high)[edge // 2][edge % 2] + (0.2, -0.2)[edge // 2]
                ends.append(end)
    else:
        wide = 0 if span[0] > span[1] else 1
        grid = [(0.5, 0.5)] if count == 1 else [((n + 0.5) / count, 0.5) for n in range(count)]
        if count == 4 and span.max() < 1.8 * span.min():
            grid = [(a, b) for a in (0.27, 0.73) for b in (0.27, 0.73)]
        ends = [low + span * np.array(at if wide == 0 else at[::-1]) + rng.normal(0, 0.3, 2) for at in grid]
    spots = []
    for end in ends:
        ahead = middle - end
        azimuth = np.degrees(np.arctan2(ahead[0], ahead[1])) + rng.normal(0, 12) if np.hypot(*ahead) > 0.3 else 0.0
        spots.append((float(end[0]), float(end[1]), float(azimuth % 360)))
    return spots


# ── plane figures ───────────────────────────────────────────────────────────────────────────────────────────────────


def _zone(id_: str, kind: str, floor: int, polygon: list[tuple[float, float]]) -> dict[str, Any]:
    return {"id": id_, "name": id_, "kind": kind, "floor": f"F{floor}", "polygon": polygon}


def _corners(box: Box) -> list[tuple[float, float]]:
    left, bottom, right, top = (round(float(v), 2) for v in box)
    return [(left, bottom), (right, bottom), (right, top), (left, top)]


def _pieces(lane: Box, longest_m: float) -> list[Box]:
    left, bottom, right, top = lane
    across = right - left > top - bottom
    n = int(np.ceil(max(right - left, top - bottom) / longest_m))
    ends = np.linspace(left if across else bottom, right if across else top, n + 1)
    return [(a, bottom, b, top) if across else (left, a, right, b) for a, b in pairwise(ends)]


def _middle(rng: np.random.Generator, outline: Box) -> Box:
    left, bottom, right, top = outline
    wide, deep = (right - left) * rng.uniform(0.3, 0.45), (top - bottom) * rng.uniform(0.3, 0.45)
    x, y = (left + right) / 2, (bottom + top) / 2
    return float(x - wide / 2), float(y - deep / 2), float(x + wide / 2), float(y + deep / 2)


def _overlap(box: Box, other: Box) -> float:
    """Return the overlap as a share of the first."""
    wide, deep = min(box[2], other[2]) - max(box[0], other[0]), min(box[3], other[3]) - max(box[1], other[1])
    return max(0.0, wide) * max(0.0, deep) / ((box[2] - box[0]) * (box[3] - box[1]))


def _area(polygon: Floats) -> float:
    x, y = polygon.T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def _centre(zone: dict[str, Any]) -> Floats:
    middle: Floats = np.array(zone["polygon"], float).mean(axis=0)
    return middle
