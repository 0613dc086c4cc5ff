"""Drawn shops: the same by the same seed, all over the ranges, and physics that holds in every one of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from config import StoreConfig, ZoneKind
from config.check import load
from config.geometry import contains
from simulators.shop.antennas import direction
from simulators.shop.draws import SKETCHES, Drawn, coverage, draw, inhabit
from simulators.shop.plan import Plan
from simulators.shop.radio import TICK_US, Radio, Scene
from simulators.shop.walkers import shopper
from simulators.shop.world import SLICE_US, SimulatedShop
from simulators.shop.worlds import World

ORIGIN_US = 1_700_000_000_000_000
SHOPS = range(len(SKETCHES))
HALLS: dict[str, Any] = {"floor_db": 18.0, "storey_m": 4.0, "atrium": (4.0, 0.0, 8.0, 5.0), "atrium_db": 1.0}


@pytest.fixture(scope="module")
def drawn() -> Any:
    """Two of each kind."""
    return [draw(shop, seed) for shop in SHOPS for seed in (3, 4)]


def play(shop: Any, seconds: float) -> Any:
    made = SimulatedShop(
        shop.config, shop.world, seed=9, shoppers=shop.shoppers, origin_us=ORIGIN_US, antennas=shop.antennas
    )
    rows = np.concatenate([made.slice()[2] for _ in range(round(seconds * 1e6 / SLICE_US))])
    return made, rows


def level(
    shop: Any,
    antenna: int,
    places: Any,
    *,
    world: World | None = None,
    floor: int = 0,
    height: Any = None,
    antennas: Any = None,
) -> Any:
    """Mean levels (n,) of bare tags at places (n, 2) for one antenna, without shadows."""
    smooth = replace(world or shop.world, shadow_db=0.0, offset_db=0.0, report_db=0.0, dead_antennas=())
    radio = Radio(antennas or shop.antennas, smooth, np.random.default_rng(0))
    places = np.asarray(places, float).reshape(-1, 2)
    n = len(places)
    scene = Scene(
        tag=np.arange(n),
        x=places[:, :1],
        y=places[:, 1:],
        floor=np.full((n, 1), floor),
        room=np.full((n, 1), -1),
        present=np.ones((n, 1), bool),
        moving=np.zeros((n, 1), bool),
        loss_db=np.zeros((n, 1)),
        facing=np.full((n, 1), np.nan),
        height=np.full(n, 1.1 if height is None else height),
        half_db=np.zeros(n),
        answers=np.ones(n),
    )
    return radio.levels(scene)[:, antenna, 0]


def test_the_same_seed_draws_the_same_shop_and_the_same_day() -> None:
    one, two, other = draw(4, 11), draw(4, 11), draw(4, 12)
    assert one.config == two.config
    assert one.world == two.world
    assert np.array_equal(one.antennas.place, two.antennas.place)
    assert other.config != one.config
    assert other.world.slope_db != one.world.slope_db
    (first, rows), (second, again) = play(one, 60), play(two, 60)
    assert np.array_equal(rows, again)
    end_us = ORIGIN_US + 60_000_000
    assert first.truth(end_us) == second.truth(end_us)


def test_shops_are_drawn_from_all_over_the_ranges(drawn: list[Drawn]) -> None:
    worlds = [shop.world for shop in drawn]
    beams = np.degrees(np.concatenate([shop.antennas.beam for shop in drawn]))
    heights = np.concatenate([shop.antennas.place[:, 2] for shop in drawn])
    for name, low, high, least in (
        ("level_1m_dbm", -60, -25, 12),
        ("slope_db", 18, 45, 15),
        ("half_dbm", -82, -60, 12),
        ("body_db", 0, 15, 4),
        ("block_db", 8, 25, 8),
        ("clear_median_s", 8, 150, 40),
        ("stay_median_s", 25, 120, 40),
        ("shadow_db", 1.5, 4.5, 2),
    ):
        values = [getattr(world, name) for world in worlds]
        assert low <= min(values), name
        assert max(values) <= high, name
        assert max(values) - min(values) > least, name
    assert 30 <= beams.min() < 50
    assert 130 < beams.max() <= 180
    assert 0 <= heights.min() < 0.8
    assert 2.8 < heights.max() <= 4
    assert len({world.slow_still_flows for world in worlds}) == 2
    zones = [len(shop.config.zones) for shop in drawn]
    assert min(zones) <= 5
    assert max(zones) >= 38
    each = [np.bincount(shop.antennas.zone) for shop in drawn]
    assert {int(n) for counts in each for n in counts} >= {1, 2, 4}


@pytest.mark.parametrize("shop", SHOPS)
def test_a_drawn_store_holds_together(shop: Any, tmp_path: Path) -> None:
    made = draw(shop, 5)
    config, sketch = made.config, SKETCHES[shop]
    file = tmp_path / "store.toml"
    file.write_text(tomli_w.dumps(config.model_dump(mode="json", by_alias=True, exclude_unset=True)))
    assert load(file, files=False).zones == config.zones
    plan = Plan(config)
    assert (ZoneKind.AISLE in plan.kinds) == sketch.aisles
    assert len(config.floors) == sketch.floors
    assert plan.of_kind(ZoneKind.ENTRANCE)
    assert plan.of_kind(ZoneKind.COUNTER)
    assert {antenna.zone for reader in config.readers for antenna in reader.antennas} == set(plan.ids)
    ports = [[antenna.port for antenna in reader.antennas] for reader in config.readers]
    assert all(len(set(each)) == len(each) for each in ports)
    # One can walk from the first door to everywhere.
    reached, waiting = {plan.of_kind(ZoneKind.ENTRANCE)[0]}, [plan.of_kind(ZoneKind.ENTRANCE)[0]]
    while waiting:
        for zone in np.flatnonzero(plan.neighbours[waiting.pop()]).tolist():
            if zone not in reached:
                reached.add(zone)
                waiting.append(zone)
    assert reached == set(range(len(plan.ids)))
    assert not _overlapping(plan), "a place in two zones"


def _overlapping(plan: Any) -> Any:
    rng = np.random.default_rng(0)
    for zone, polygon in enumerate(plan.polygons):
        for _ in range(20):
            point = plan.point_in(rng, zone)
            assert contains(polygon.tolist(), point)
            for other in np.flatnonzero(plan.floors == plan.floors[zone]).tolist():
                if other != zone and contains(plan.polygons[other].tolist(), point):
                    return True
    return False


def test_the_store_file_tells_about_where_antennas_really_hang(drawn: list[Drawn]) -> None:
    silent = 0
    for shop in drawn:
        told = [antenna for reader in shop.config.readers for antenna in reader.antennas]
        assert len(told) == len(shop.antennas.port)
        plan = Plan(shop.config)
        assert [plan.ids[zone] for zone in shop.antennas.zone] == [antenna.zone for antenna in told]
        off = np.hypot(*(np.array([antenna.position for antenna in told]) - shop.antennas.place[:, :2]).T)
        assert np.median(off) < 1.0
        assert off.max() < 3.0
        if "height" in told[0].model_fields_set:
            assert np.abs(np.array([a.height for a in told]) - shop.antennas.place[:, 2]).max() < 0.6
        else:
            silent += 1
            assert all(antenna.height == 2.5 for antenna in told)
    assert 0 < silent < len(drawn) / 2


def test_zones_are_covered_and_strays_are_heard(drawn: list[Drawn]) -> None:
    found = [coverage(shop.world, Plan(shop.config), shop.antennas) for shop in drawn]
    assert np.median([each.covered for each in found]) > 0.85
    assert min(each.covered for each in found) > 0.5
    strays = [each.strays for each in found]
    assert min(strays) < 0.7
    assert max(strays) > 2
    assert max(strays) < 10, "every antenna hears everything: nobody would leave it so"


def test_level_falls_with_distance_by_the_world_s_slope(drawn: list[Drawn]) -> None:
    for shop in drawn[:6]:
        place = shop.antennas.place[0]
        bare = replace(shop.antennas, beam=np.full(len(shop.antennas.port), np.nan), look=0 * shop.antennas.look)
        near, far = level(shop, 0, [(place[0] + 1, place[1]), (place[0] + 2, place[1])], height=place[2], antennas=bare)
        assert near == pytest.approx(shop.world.level_1m_dbm, abs=0.01)
        if np.isfinite(far):
            assert near - far == pytest.approx(shop.world.slope_db * np.log10(2), abs=0.01)


def test_a_beam_is_half_as_wide_as_it_says_at_half_power_and_ends_somewhere() -> None:
    shop = draw(4, 11)
    world = replace(shop.world, slope_db=0.0, level_1m_dbm=-40.0, half_dbm=-90.0, back_db=25.0)
    look = direction(np.array([90.0]), np.array([0.0]))
    one = replace(
        shop.antennas,
        reader=np.zeros(1, np.int64),
        port=np.ones(1, np.int64),
        zone=np.zeros(1, np.int64),
        floor=np.zeros(1, np.int64),
        place=np.array([[0.0, 0.0, 1.1]]),
        look=look,
        beam=np.radians([60.0]),
    )
    angle = np.radians([0, 15, 30, -30, 60, 180])
    found = level(shop, 0, np.stack([np.cos(angle), np.sin(angle)], 1) * 2, world=world, antennas=one)
    # 3 dB each way: the reader's wave and the tag's answer.
    assert found - found[0] == pytest.approx([0, -1.5, -6, -6, -24, -25], abs=0.1)


def test_directions_are_as_on_a_compass() -> None:
    found = direction(np.array([0.0, 90.0, 180.0, 45.0, np.nan]), np.array([0.0, 0.0, 0.0, 90.0, 90.0]))
    assert found == pytest.approx(np.array([[0, 1, 0], [1, 0, 0], [0, -1, 0], [0, 0, -1], [0, 0, -1]]), abs=1e-9)


def test_a_slab_takes_away_more_than_an_atrium() -> None:
    shop = draw(4, 11)
    world = replace(shop.world, **HALLS, half_dbm=-120.0)
    bare = replace(shop.antennas, beam=np.full(len(shop.antennas.port), np.nan), look=0 * shop.antennas.look)
    bare.place[0] = (6.0, 2.5, 3.0)
    under, over = (
        level(shop, 0, [(6.0, 2.5)], world=w, floor=1, antennas=bare)[0] for w in (replace(world, atrium=None), world)
    )
    assert over - under == pytest.approx(17.0, abs=0.01)
    # From outside of the hole the ray goes through the slab.
    aside = [
        level(shop, 0, [(20.0, 2.5)], world=w, floor=1, antennas=bare)[0] for w in (replace(world, atrium=None), world)
    ]
    assert aside[0] == aside[1]


def test_a_tag_at_an_antenna_is_loud_and_one_far_away_is_not_heard(drawn: list[Drawn]) -> None:
    for shop in drawn[::5]:
        made, rows = play(shop, 60)
        level_dbm = rows["rssi_cdbm"][rows["rssi_cdbm"] > -30000] / 100
        if len(level_dbm):
            assert level_dbm.min() > shop.world.half_dbm - 20
            assert level_dbm.max() < shop.world.level_1m_dbm + 35
        x, y, _ = shop.antennas.place[0]
        best = level(shop, 0, [(x, y)], height=shop.antennas.place[0, 2] - 0.5)[0]
        assert level(shop, 0, [(x + 300, y)])[0] < shop.world.half_dbm - 7
        assert best > shop.world.half_dbm - 10
        assert len(made.truth(ORIGIN_US + 60_000_000))


def test_people_walk_at_a_walking_pace_and_the_truth_has_no_tag_in_two_zones(drawn: list[Drawn]) -> None:
    for shop in drawn[::7]:
        made, _ = play(shop, 120)
        for carried in made._carried:
            track = carried.track
            same = track.floor[1:] == track.floor[:-1]
            metres, seconds = np.hypot(np.diff(track.x), np.diff(track.y)), np.diff(track.t_us) / 1e6
            assert (metres[same] <= 1.6 * seconds[same] + 1e-3).all()
        by_tag: dict[Any, Any] = {}
        for stay in made.truth(ORIGIN_US + 120_000_000):
            by_tag.setdefault(stay.epc, []).append(stay)
        assert len(by_tag) > 2
        for stays in by_tag.values():
            assert all(a.exit_us <= b.enter_us for a, b in pairwise(stays))
        about = {made.epcs[tag].hex() for tag, _, _ in made.spans}
        assert by_tag.keys() <= about


def test_some_turn_back() -> None:
    shop = draw(5, 3)
    plan, metres = Plan(shop.config), {}
    for share in (0.0, 1.0):
        world = replace(shop.world, turn_back_share=share, pass_by_share=0.0, stops_mean=4.0)
        tracks = [shopper(plan, world, np.random.default_rng(seed), 0) for seed in range(60)]
        metres[share] = np.mean([np.hypot(np.diff(track.x), np.diff(track.y)).sum() for track in tracks])
    assert metres[1.0] > 1.15 * metres[0.0]


def test_a_tag_that_was_read_keeps_quiet(drawn: list[Drawn]) -> None:
    shop = next(one for one in drawn if one.world.merchandise == 0 or one.world.card_answers > 0.1)
    loud, quiet = (
        replace(shop, world=replace(shop.world, quiet_s=s, card_answers=0.9, merchandise=0)) for s in (0.0, 2.0)
    )
    counts = []
    for one in (loud, quiet):
        _, rows = play(one, 60)
        rows = rows[np.argsort(rows["tag"], kind="stable")]
        gap = np.diff(rows["time_us"])[rows["tag"][1:] == rows["tag"][:-1]]
        counts.append((len(rows), gap.min()))
    assert counts[1][0] < counts[0][0] / 2
    assert counts[1][1] > 1_000_000


def test_a_reader_that_dwells_hears_with_one_antenna_after_the_other() -> None:
    shop = next(one for one in (draw(5, seed) for seed in range(20)) if np.bincount(one.antennas.reader).max() >= 4)
    shop = replace(shop, world=replace(shop.world, dwell_s=1.0, quiet_s=0.0, card_answers=0.9))
    _, rows = play(shop, 60)
    reader = shop.antennas.reader[rows["antenna"]]
    heard = [len(np.unique(rows["antenna"][reader == n])) for n in range(reader.max() + 1)]
    mine = np.sort(rows[reader == np.argmax(heard)], order="time_us")
    changes = np.flatnonzero(np.diff(mine["antenna"]))
    assert max(heard) > 2
    assert np.median(np.diff(mine["time_us"][changes])) > 0.9e6


def test_fading_lasts_as_long_as_a_channel_for_who_stands() -> None:
    shop = draw(4, 11)
    world = replace(
        shop.world, hop_s=2.0, fast_still_db=4.0, slow_still_db=0.0, shadow_db=0.0, offset_db=0.0, report_db=0.0,
        rssi_step_db=0.1, half_dbm=-120.0, rssi_unknown_share=0.0, dwell_s=0.0, quiet_s=0.0,
    )  # fmt: skip
    radio = Radio(shop.antennas, world, np.random.default_rng(1))
    ticks = 20
    place = shop.antennas.place[0]
    scene = Scene(
        tag=np.zeros(1, np.int64), x=np.full((1, ticks), place[0]), y=np.full((1, ticks), place[1]),
        floor=np.zeros((1, ticks), np.int64), room=np.full((1, ticks), -1), present=np.ones((1, ticks), bool),
        moving=np.zeros((1, ticks), bool), loss_db=np.zeros((1, ticks)), facing=np.full((1, ticks), np.nan),
        height=np.array([1.1]), half_db=np.zeros(1), answers=np.ones(1),
    )  # fmt: skip
    rows = np.concatenate([radio.hear(n * ticks * TICK_US, scene) for n in range(12)])
    mine = rows[rows["antenna"] == 0]
    tick = mine["time_us"] // TICK_US
    means = np.array([mine["rssi_cdbm"][tick == t].mean() / 100 for t in np.unique(tick)])
    steps = np.abs(np.diff(means))
    assert np.mean(steps < 1.5) > 0.6, "the channel changes once in four ticks"
    assert np.std(means) == pytest.approx(4.0, abs=1.2)


def test_a_store_that_is_there_is_inhabited_by_the_seed(demo_store: StoreConfig) -> None:
    one, other = inhabit(demo_store, 1, 30), inhabit(demo_store, 2, 30)
    assert one.config is demo_store
    assert one.world != other.world
    assert one.world == inhabit(demo_store, 1, 30).world
    told = [antenna.height for reader in demo_store.readers for antenna in reader.antennas]
    assert one.antennas.place[:, 2].tolist() == told
    assert coverage(one.world, Plan(demo_store), one.antennas).covered > 0.6
