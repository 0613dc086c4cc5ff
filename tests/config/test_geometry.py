from __future__ import annotations

from itertools import pairwise
from math import atan2, cos, hypot, sin
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from config import StoreConfig
from config.geometry import centroid, contains, crosses_itself, distance, is_flat, neighbours, within

SQUARE = ((0.0, 0.0), (4.0, 0.0), (4.0, 4.0), (0.0, 4.0))
ELL = ((0.0, 0.0), (6.0, 0.0), (6.0, 2.0), (2.0, 2.0), (2.0, 6.0), (0.0, 6.0))
_M = st.integers(-400, 400).map(lambda n: n / 8)
_LENGTH = st.integers(1, 200).map(lambda n: n / 8)
Polygon = tuple[tuple[float, float], ...]


@st.composite
def rectangles(draw: st.DrawFn) -> tuple[float, float, float, float]:
    x, y = draw(_M), draw(_M)
    return x, y, x + draw(_LENGTH), y + draw(_LENGTH)


def corners(r: tuple[float, float, float, float]) -> Polygon:
    return ((r[0], r[1]), (r[2], r[1]), (r[2], r[3]), (r[0], r[3]))


def turned(polygon: Polygon, angle: float) -> Polygon:
    return tuple((x * cos(angle) - y * sin(angle), x * sin(angle) + y * cos(angle)) for x, y in polygon)


@given(rectangles(), rectangles(), st.floats(0, 6.28))
def test_distance_of_rectangles_is_that_of_their_gaps_however_they_are_turned(a: Any, b: Any, angle: float) -> None:
    gap = hypot(max(0, a[0] - b[2], b[0] - a[2]), max(0, a[1] - b[3], b[1] - a[3]))
    p, q = turned(corners(a), angle), turned(corners(b), angle)
    assert distance(p, q) == pytest.approx(gap, abs=1e-6)
    assert distance(q, p[::-1]) == pytest.approx(gap, abs=1e-6)


@given(rectangles(), rectangles(), st.floats(0, 6.28), st.floats(0, 30))
def test_within_reach_is_no_farther_than_it(a: Any, b: Any, angle: float, reach: float) -> None:
    p, q = turned(corners(a), angle), turned(corners(b), angle)
    away = distance(p, q)
    assume(abs(away - reach) > 1e-6)
    assert within(p, q, reach) == within(q, p, reach) == (away <= reach)


def test_a_polygon_inside_another_is_at_no_distance() -> None:
    inside = ((1, 1), (2, 1), (2, 2))
    assert distance(SQUARE, inside) == distance(inside, SQUARE) == 0


def test_distance_is_measured_in_the_notch_of_a_bent_polygon() -> None:
    assert distance(ELL, ((5, 4), (7, 4), (7, 6), (5, 6))) == 2


@given(rectangles(), _M, _M)
def test_inside_a_rectangle(r: Any, x: float, y: float) -> None:
    assert contains(corners(r), (x, y)) == (r[0] <= x <= r[2] and r[1] <= y <= r[3])


@pytest.mark.parametrize(("point", "inside"), [((1, 5), True), ((5, 1), True), ((3, 3), False), ((2, 4), True)])
def test_inside_a_bent_polygon(point: tuple[float, float], inside: bool) -> None:
    assert contains(ELL, point) == inside == contains(ELL[::-1], point)


@given(_M, _M, st.floats(0, 6.28))
def test_centroid_moves_and_turns_with_the_polygon(dx: float, dy: float, angle: float) -> None:
    # Two rectangles, 6 × 2 around (3, 1) and 2 × 4 around (1, 4).
    x, y = (12 * 3 + 8 * 1) / 20, (12 * 1 + 8 * 4) / 20
    assert centroid(ELL) == pytest.approx((x, y))
    moved = turned(tuple((a + dx, b + dy) for a, b in ELL), angle)
    assert centroid(moved) == pytest.approx(turned(((x + dx, y + dy),), angle)[0], abs=1e-6)
    assert centroid(moved[::-1]) == pytest.approx(centroid(moved), abs=1e-6)


@pytest.mark.parametrize(
    ("polygon", "crosses"),
    [
        (SQUARE, False),
        (ELL, False),
        (((0, 0), (4, 4), (4, 0), (0, 4)), True),  # bow tie
        (((0, 0), (4, 0), (2, 0), (2, 3)), True),  # an edge that goes back on the one before
        (((0, 0), (4, 0), (4, 4), (2, 0), (0, 4)), True),  # a corner on an edge far from it
        (((0, 0), (2, 0), (4, 0), (4, 4)), False),  # a corner in the middle of a straight side
    ],
)
def test_crossing(polygon: Polygon, crosses: bool) -> None:
    for i in range(len(polygon)):
        rotated = polygon[i:] + polygon[:i]
        assert crosses_itself(rotated) == crosses_itself(rotated[::-1]) == crosses


@given(st.lists(st.tuples(_M, _M), min_size=3, max_size=7, unique=True))
def test_a_star_around_a_point_does_not_cross_itself(points: list[tuple[float, float]]) -> None:
    x, y = sum(p[0] for p in points) / len(points), sum(p[1] for p in points) / len(points)
    angles = sorted((atan2(p[1] - y, p[0] - x), p) for p in points if hypot(p[0] - x, p[1] - y) > 0.1)
    turns = [a for a, _ in angles]
    assume(len(angles) >= 3 and all(0.01 < b - a < 3.1 for a, b in pairwise(turns)))
    assume(0.01 < turns[0] + 6.283 - turns[-1] < 3.1)
    polygon = tuple(p for _, p in angles)
    assert not crosses_itself(polygon)
    assert not is_flat(polygon)


def test_flat() -> None:
    assert is_flat(((0, 0), (1, 1), (3, 3), (2, 2)))
    assert not is_flat(((0, 0), (1, 1), (3, 3.001)))


def store(*zones: tuple[str, str, float, list[str] | None]) -> StoreConfig:
    """A store of 1 × 1 m zones: id, floor, x, neighbours."""
    return StoreConfig.model_validate(
        {
            "store": {"id": "s", "name": "S", "timezone": "UTC"},
            "floors": [{"id": "F1", "name": "1"}, {"id": "F2", "name": "2"}],
            "zones": [
                {
                    "id": name,
                    "name": name,
                    "kind": "counter",
                    "floor": floor,
                    "polygon": [[x, 0], [x + 1, 0], [x + 1, 1], [x, 1]],
                    **({} if listed is None else {"neighbours": listed}),
                }
                for name, floor, x, listed in zones
            ],
            "mqtt": {"url": "mqtt://h"},
            "database": {"path": "x.db"},
        }
    )


def test_neighbours_by_default_touch_or_lie_within_three_metres_on_one_floor() -> None:
    found = neighbours(store(("a", "F1", 0, None), ("b", "F1", 1, None), ("c", "F1", 5, None), ("d", "F2", 0, None)))
    assert found == {"a": {"b"}, "b": {"a", "c"}, "c": {"b"}, "d": set()}
    assert neighbours(store(("a", "F1", 0, None), ("b", "F1", 4.01, None)))["a"] == set()


def test_a_list_replaces_the_default_of_its_zone_and_counts_for_both_sides() -> None:
    zones = (("a", "F1", 0.0, ["c"]), ("b", "F1", 1.0, None), ("c", "F2", 50.0, None), ("d", "F1", 2.0, None))
    assert neighbours(store(*zones)) == {"a": {"c"}, "b": {"d"}, "c": {"a"}, "d": {"b"}}


def test_another_zones_list_wins_over_an_empty_one() -> None:
    found = neighbours(store(("a", "F1", 0, []), ("b", "F1", 1, ["a"]), ("c", "F1", 2, None)))
    assert found == {"a": {"b"}, "b": {"a"}, "c": set()}


def test_rounding_on_one_line_makes_no_crossing() -> None:
    """Sides of two squares, and of a U's arms, that lie on one slanted line are apart, whatever the last digit says."""
    far = tuple((x + 30.0, y) for x, y in SQUARE)
    u = ((0.0, 0.0), (9.0, 0.0), (9.0, 5.0), (6.0, 5.0), (6.0, 2.0), (3.0, 2.0), (3.0, 5.0), (0.0, 5.0))
    for angle in (n / 100 for n in range(0, 628, 3)):
        assert distance(turned(SQUARE, angle), turned(far, angle)) == pytest.approx(26, abs=1e-6), angle
        assert not crosses_itself(turned(u, angle)), angle
