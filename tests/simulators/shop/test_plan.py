"""Places, ways and zones of a store."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import StoreConfig, ZoneKind
from simulators.shop.plan import Plan, holds, inside

L_SHAPE = np.array([[0, 0], [4, 0], [4, 2], [2, 2], [2, 4], [0, 4]], float)


@pytest.mark.parametrize(
    ("place", "expected"),
    [((1, 1), True), ((3, 1), True), ((1, 3), True), ((3, 3), False), ((5, 1), False), ((-1, 1), False)],
)
def test_inside_an_l_shaped_zone(place: Any, expected: Any) -> None:
    x, y = place
    assert inside(L_SHAPE, np.array([x], float), np.array([y], float))[0] == expected
    assert holds(L_SHAPE, x, y) == expected


@given(st.floats(-1, 5), st.floats(-1, 5))
def test_one_place_and_many_are_judged_alike(x: Any, y: Any) -> None:
    assert holds(L_SHAPE, x, y) == inside(L_SHAPE, np.array([x]), np.array([y]))[0]


def test_zone_of_a_place_depends_on_the_floor(demo_store: StoreConfig) -> None:
    plan = Plan(demo_store)
    x, y = np.full(4, 10.0), np.array([19.0, 19.0, 19.0, 50.0])
    zones = plan.zone_at(x, y, np.array([0, 1, 2, 0]))
    assert [plan.ids[z] if z >= 0 else None for z in zones] == ["cosmetics", "womenswear", "home", None]


def test_random_places_lie_in_their_zone(demo_store: StoreConfig) -> None:
    plan, rng = Plan(demo_store), np.random.default_rng(1)
    for zone, polygon in enumerate(plan.polygons):
        for _ in range(20):
            assert holds(polygon, *plan.point_in(rng, zone)), plan.ids[zone]


def test_nearest_place_is_in_the_zone_and_no_detour(demo_store: StoreConfig) -> None:
    plan = Plan(demo_store)
    aisle = plan.ids.index("f1-aisle")
    x, y = plan.nearest_in(aisle, 10.0, 20.0)
    assert x == pytest.approx(10.0)
    assert 14 < y < 15
    assert plan.nearest_in(aisle, 20.0, 12.0) == (20.0, 12.0)


def test_ways_lead_through_aisles_and_change_floors_by_them(demo_store: StoreConfig) -> None:
    plan = Plan(demo_store)

    def way(a: Any, b: Any) -> Any:
        return [plan.ids[z] for z in plan.way(plan.ids.index(a), plan.ids.index(b))]

    assert way("f1-entrance", "digital") == ["f1-entrance", "f1-aisle", "f2-aisle", "f3-aisle", "digital"]
    assert way("bags", "bags") == ["bags"]
    for zone in plan.ids:
        steps = plan.way(plan.ids.index("f1-entrance"), plan.ids.index(zone))
        assert all(plan.kinds[z] == ZoneKind.AISLE for z in steps[1:-1])


def test_outside_is_in_front_of_the_door(demo_store: StoreConfig) -> None:
    plan = Plan(demo_store)
    x, y = plan.outside(plan.ids.index("f1-entrance"), 10.0)
    assert x < -8
    assert 8 < y < 17
    assert plan.zone_at(np.array([x]), np.array([y]), np.array([0]))[0] == -1
