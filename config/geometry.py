"""Plane geometry of zones in metres: distance, containment, centroid, neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from math import hypot

from config.basis import Point
from config.model import StoreConfig

Polygon = Sequence[Point]
"""Corners in order, clockwise or anticlockwise; the last is connected to the first."""

NEIGHBOUR_M = 3.0
"""Zones on one floor within this distance are neighbours by default."""
_EPS = 1e-9


def neighbours(config: StoreConfig) -> dict[str, frozenset[str]]:
    """Return zone id → ids of its neighbours; the relation is symmetric.

    Two zones are neighbours if either lists the other, or if neither has a list, both are on one floor and their
    polygons touch or lie within NEIGHBOUR_M.
    """
    found: dict[str, set[str]] = {zone.id: set() for zone in config.zones}
    for a, b in combinations(config.zones, 2):
        if a.neighbours is None and b.neighbours is None:
            near = a.floor == b.floor and within(a.polygon, b.polygon, NEIGHBOUR_M + _EPS)
        else:
            near = b.id in (a.neighbours or ()) or a.id in (b.neighbours or ())
        if near:
            found[a.id].add(b.id)
            found[b.id].add(a.id)
    return {zone: frozenset(ids) for zone, ids in found.items()}


def within(a: Polygon, b: Polygon, reach: float) -> bool:
    """True if two polygons are at most `reach` apart. Most aren't by far: their boxes tell."""
    for axis in (0, 1):
        one, other = [p[axis] for p in a], [p[axis] for p in b]
        if max(min(one), min(other)) - min(max(one), max(other)) > reach:
            return False
    return any(apart <= reach for apart in _distances(a, b))


def distance(a: Polygon, b: Polygon) -> float:
    """Return the shortest distance between two polygons; 0 if they touch, overlap or one contains the other."""
    return min(_distances(a, b))


def contains(polygon: Polygon, point: Point) -> bool:
    """True if the point is inside the polygon or on its border."""
    # Most points are outside of its box.
    for value, values in zip(point, zip(*polygon, strict=True), strict=True):
        if not min(values) - _EPS <= value <= max(values) + _EPS:
            return False
    if any(_point_distance(point, a, b) <= _EPS for a, b in edges(polygon)):
        return True
    x, y = point
    inside = False
    for (x1, y1), (x2, y2) in edges(polygon):
        if (y1 > y) != (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1:
            inside = not inside
    return inside


def centroid(polygon: Polygon) -> Point:
    """Return the centroid of the area; it can be outside of a concave polygon."""
    # Relative to a corner, so that a small zone far from the origin loses no precision.
    x0, y0 = polygon[0]
    moved = [(x - x0, y - y0) for x, y in polygon]
    six = 3 * sum(a[0] * b[1] - b[0] * a[1] for a, b in edges(moved))
    x = sum((a[0] + b[0]) * (a[0] * b[1] - b[0] * a[1]) for a, b in edges(moved)) / six
    y = sum((a[1] + b[1]) * (a[0] * b[1] - b[0] * a[1]) for a, b in edges(moved)) / six
    return x0 + x, y0 + y


def outside(polygon: Polygon, point: Point) -> float:
    """Return the distance of a point from a polygon; 0 inside and on the border."""
    return 0.0 if contains(polygon, point) else min(_point_distance(point, a, b) for a, b in edges(polygon))


def extent(polygon: Polygon) -> float:
    """The longer side of the upright rectangle around it."""
    across, along = [x for x, _ in polygon], [y for _, y in polygon]
    return max(max(across) - min(across), max(along) - min(along))


def area(polygon: Polygon) -> float:
    """Return the area of a polygon with corners in either direction."""
    return overlap(polygon, polygon)


def overlap(a: Polygon, b: Polygon) -> float:
    """Return the area of the intersection of two polygons."""
    if not all(_reach(*values) for values in zip(zip(*a, strict=True), zip(*b, strict=True), strict=True)):
        return 0.0
    # Between two of these heights every border is a straight line, so that the width in the middle is the mean one.
    crossings = (_crossing(*p, *q) for p in edges(a) for q in edges(b))
    cuts = sorted({y for _, y in (*a, *b)} | {y for y in crossings if y is not None})
    total = 0.0
    for low, high in pairwise(cuts):
        one, other = (_spans(polygon, (low + high) / 2) for polygon in (a, b))
        width = sum(max(0.0, min(x2, u2) - max(x1, u1)) for x1, x2 in one for u1, u2 in other)
        total += width * (high - low)
    return total


def is_flat(polygon: Polygon) -> bool:
    """True if all corners are on one line."""
    first = polygon[0]
    far = max(polygon, key=lambda corner: hypot(corner[0] - first[0], corner[1] - first[1]))
    length = hypot(far[0] - first[0], far[1] - first[1])
    return all(abs(_side(first, far, corner)) <= _EPS * length for corner in polygon)


def crosses_itself(polygon: Polygon) -> bool:
    """True if two edges meet anywhere except at a shared corner."""
    sides = edges(polygon)
    last = len(sides) - 1
    for (i, (a, b)), (j, (c, d)) in combinations(enumerate(sides), 2):
        if j == i + 1:
            # Adjacent edges share b; any other common point means that one folds back on the other.
            if _point_distance(d, a, b) <= _EPS or _point_distance(a, c, d) <= _EPS:
                return True
        elif i == 0 and j == last:
            if _point_distance(c, a, b) <= _EPS or _point_distance(b, c, d) <= _EPS:
                return True
        elif _segment_distance(a, b, c, d) <= _EPS:
            return True
    return False


def edges(polygon: Polygon) -> list[tuple[Point, Point]]:
    """Return the edges in order, each as its two ends."""
    return list(zip(polygon, [*polygon[1:], polygon[0]], strict=True))


def _reach(one: Sequence[float], other: Sequence[float]) -> bool:
    return min(one) < max(other) and min(other) < max(one)


def _spans(polygon: Polygon, y: float) -> list[tuple[float, float]]:
    """Return the sections of a horizontal line inside the polygon, from left to right; no corner may have this `y`."""
    found = sorted(
        x1 + (y - y1) / (y2 - y1) * (x2 - x1) for (x1, y1), (x2, y2) in edges(polygon) if (y1 > y) != (y2 > y)
    )
    return list(zip(found[::2], found[1::2], strict=True))


def _crossing(a: Point, b: Point, c: Point, d: Point) -> float | None:
    """Height at which two sides cross; None if they don't."""
    one, other = _side(a, b, c), _side(a, b, d)
    if one * other >= 0 or _side(c, d, a) * _side(c, d, b) >= 0:
        return None
    return c[1] + (d[1] - c[1]) * one / (one - other)


def _segment_distance(a: Point, b: Point, c: Point, d: Point) -> float:
    if _between(a, b, c, d) and _between(c, d, a, b):
        return 0.0
    return min(_point_distance(a, c, d), _point_distance(b, c, d), _point_distance(c, a, b), _point_distance(d, a, b))


def _between(a: Point, b: Point, c: Point, d: Point) -> bool:
    """True if the line through a and b separates c from d; points on the line are handled by distance."""
    least = _EPS * hypot(b[0] - a[0], b[1] - a[1])
    one, other = _side(a, b, c), _side(a, b, d)
    return (one > least and other < -least) or (one < -least and other > least)


def _side(a: Point, b: Point, p: Point) -> float:
    """Return a positive value left of the line from a to b, a negative one right of it."""
    return (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])


def _distances(a: Polygon, b: Polygon) -> Iterator[float]:
    """Between each edge of one polygon and each of the other; 0 alone if one contains a corner of the other."""
    if contains(a, b[0]) or contains(b, a[0]):
        yield 0.0
        return
    others = edges(b)
    for p in edges(a):
        for q in others:
            yield _segment_distance(*p, *q)


def _point_distance(p: Point, a: Point, b: Point) -> float:
    """Return the distance of a point from a segment."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    length = dx * dx + dy * dy
    t = ((p[0] - a[0]) * dx + (p[1] - a[1]) * dy) / length if length else 0.0
    t = 0.0 if t < 0 else min(t, 1.0)
    return hypot(p[0] - a[0] - t * dx, p[1] - a[1] - t * dy)
