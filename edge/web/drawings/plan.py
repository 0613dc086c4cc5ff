"""Floor plans: convert polygons in metres to shapes for the template, once when the page starts.

A picture of the floor is drawn faintly with the zones. It is read again for every browser that asks for it, and judged
again, so that only a picture that may be shown ever leaves the page.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from config import StoreConfig, floor_image
from config.basis import Point
from config.floor_image import Picture
from config.model import Floor, Name, Zone

log = logging.getLogger("tagtrail.page")

MARGIN_M = 1.0
GRID = 12
"""Grid lines in each direction, in addition to the polygon's corners, for finding a label's rectangle."""


NEARLY_FULL = 0.85
"""A polygon that fills at least this share of its bounds is labelled like a rectangle."""


@dataclass(frozen=True)
class Box:
    """A rectangle in per cent of the plan."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class PlanZone:
    id: str
    name: Name
    kind: str
    points: str
    """SVG polygon points in metres."""
    label: Box
    """Rectangle for the label, inside the polygon whatever its shape."""
    x: float
    """Its centre in metres, as in the SVG."""
    y: float


@dataclass(frozen=True)
class PlanImage:
    """A picture of the floor; its place in metres, as in the SVG."""

    href: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Plan:
    """Plan of one floor, with north up: y grows upwards in the store file, downwards in SVG."""

    id: str
    name: Name
    view_box: str
    width_m: float
    height_m: float
    zones: tuple[PlanZone, ...]
    image: PlanImage | None


def plans(config: StoreConfig) -> tuple[Plan, ...]:
    """Build the plans of all floors with zones, in the order of the store file."""
    return tuple(
        _plan(floor, zones)
        for floor in config.floors
        if (zones := [zone for zone in config.zones if zone.floor == floor.id])
    )


def _plan(floor: Floor, zones: Sequence[Zone]) -> Plan:
    xs = [x for zone in zones for x, _ in zone.polygon]
    ys = [0 - y for zone in zones for _, y in zone.polygon]
    left, top = min(xs) - MARGIN_M, min(ys) - MARGIN_M
    width, height = max(xs) + MARGIN_M - left, max(ys) + MARGIN_M - top

    def drawn(zone: Zone) -> PlanZone:
        polygon = [(x, 0 - y) for x, y in zone.polygon]
        x0, y0, x1, y1 = label_rectangle(polygon)
        return PlanZone(
            id=zone.id,
            name=zone.name,
            kind=zone.kind.value,
            points=" ".join(f"{x:g},{y:g}" for x, y in polygon),
            label=Box(
                *(round(share * 100, 2) for share in ((x0 - left) / width, (y0 - top) / height)),
                *(round(share * 100, 2) for share in ((x1 - x0) / width, (y1 - y0) / height)),
            ),
            x=(x0 + x1) / 2,
            y=(y0 + y1) / 2,
        )

    return Plan(
        id=floor.id,
        name=floor.name,
        view_box=f"{left:g} {top:g} {width:g} {height:g}",
        width_m=width,
        height_m=height,
        zones=tuple(drawn(zone) for zone in zones),
        image=_image(floor),
    )


def picture(floor: Floor) -> Picture | None:
    """Return the picture of a floor; None if there is none that can be shown. It takes at most MAX_BYTES of memory."""
    if floor.image is None:
        return None
    try:
        return floor_image.read(floor.image.file)
    except (OSError, floor_image.Unusable) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        log.warning("the plan of %s is shown without its picture: %s %s", floor.id, floor.image.file, reason)
        return None


def version(found: Picture) -> str:
    """Return what tells one picture from another in addresses."""
    return sha256(found.content).hexdigest()[:12]


def _image(floor: Floor) -> PlanImage | None:
    at, found = floor.image, picture(floor)
    if at is None or found is None:
        return None
    href = f"/plan/image/{floor.id}?v={version(found)}"
    return PlanImage(href, at.left, 0 - at.bottom - at.height, at.width, at.height)


def label_rectangle(polygon: Sequence[Point]) -> tuple[float, float, float, float]:
    """Find an upright rectangle (x0, y0, x1, y1) for the label of a simple polygon.

    This is the polygon's bounds if it nearly fills them, or else the largest rectangle of grid cells inside it.
    """
    xs = _lines([x for x, _ in polygon])
    ys = _lines([y for _, y in polygon])
    if _area(polygon) >= NEARLY_FULL * (xs[-1] - xs[0]) * (ys[-1] - ys[0]):
        return xs[0], ys[0], xs[-1], ys[-1]
    inside = [
        [_cell_inside(polygon, xs[i : i + 2], ys[j : j + 2]) for i in range(len(xs) - 1)] for j in range(len(ys) - 1)
    ]
    best, found = 0.0, (min(xs), min(ys), max(xs), max(ys))
    # For every pair of rows, find the longest run of columns that are inside in all rows between them.
    for top in range(len(ys) - 1):
        column = [True] * (len(xs) - 1)
        for bottom in range(top, len(ys) - 1):
            column = [was and now for was, now in zip(column, inside[bottom], strict=True)]
            start = 0
            for i, good in enumerate([*column, False]):
                if good:
                    continue
                area = (xs[i] - xs[start]) * (ys[bottom + 1] - ys[top]) if i > start else 0.0
                if area > best:
                    best, found = area, (xs[start], ys[top], xs[i], ys[bottom + 1])
                start = i + 1
    return found


def _area(polygon: Sequence[Point]) -> float:
    after = [*polygon[1:], polygon[0]]
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(polygon, after, strict=True))) / 2


def _lines(values: Sequence[float]) -> list[float]:
    low, high = min(values), max(values)
    return sorted({*values, *(low + (high - low) * i / GRID for i in range(GRID + 1))})


def _cell_inside(polygon: Sequence[Point], x: Sequence[float], y: Sequence[float]) -> bool:
    """Return True if the cell's centre and points just inside its corners are inside the polygon."""
    x_in, y_in = (x[1] - x[0]) * 1e-3, (y[1] - y[0]) * 1e-3
    corners = [(px, py) for px in (x[0] + x_in, x[1] - x_in) for py in (y[0] + y_in, y[1] - y_in)]
    return all(_inside(polygon, *point) for point in [*corners, ((x[0] + x[1]) / 2, (y[0] + y[1]) / 2)])


def _inside(polygon: Sequence[Point], x: float, y: float) -> bool:
    crossings = False
    x1, y1 = polygon[-1]
    for x2, y2 in polygon:
        if (y1 > y) != (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1:
            crossings = not crossings
        x1, y1 = x2, y2
    return crossings
