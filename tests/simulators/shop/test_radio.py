"""The radio against figures of real recordings (R420 with four corner antennas, cards worn on the body)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from config import StoreConfig
from simulators.shop.antennas import Antennas
from simulators.shop.plan import Plan
from simulators.shop.radio import TICK_US, Radio, Scene
from simulators.shop.walkers import Track
from simulators.shop.worlds import WORLDS, World

PLAIN = World(seed=1, offset_db=0.0, shadow_db=0.0)
TICKS = 20


def still(x: Any, y: Any, seconds: float) -> Any:
    ends = np.array([0, int(seconds * 1e6)])
    return Track(ends, np.array([x, x], float), np.array([y, y], float), np.zeros(2, np.int64))


def stroll(rng: np.random.Generator, side_m: float, seconds: float) -> Any:
    """Walking at 1 m/s from place to place in a square."""
    t, x, y = [0], [side_m / 2], [side_m / 2]
    while t[-1] < seconds * 1e6:
        to_x, to_y = rng.uniform(0.3, side_m - 0.3, 2)
        t.append(t[-1] + 1 + int(np.hypot(to_x - x[-1], to_y - y[-1]) * 1e6))
        x.append(to_x)
        y.append(to_y)
    return Track(np.array(t), np.array(x), np.array(y), np.zeros(len(t), np.int64))


def hear(
    config: StoreConfig, world: World, tracks: Any, seconds: float, *, seed: int = 0, loss_db: Any = 0.0, floor: int = 0
) -> Any:
    """Rows of tags carried along tracks, nothing hiding them."""
    radio = Radio(Antennas.of(config, Plan(config)), world, np.random.default_rng(seed))
    rows = []
    for start_us in range(0, int(seconds * 1e6), TICKS * TICK_US):
        t = start_us + TICK_US * np.arange(TICKS)
        places = [track.at(t) for track in tracks]
        shape = (len(tracks), TICKS)
        scene = Scene(
            tag=np.arange(len(tracks)),
            x=np.array([p[0] for p in places]),
            y=np.array([p[1] for p in places]),
            floor=np.full(shape, floor),
            present=np.ones(shape, bool),
            moving=np.array([track.moving(t) for track in tracks]),
            room=np.full(shape, -1),
            loss_db=np.full(shape, loss_db),
            facing=np.full(shape, np.nan),
            height=np.full(len(tracks), 1.1),
            half_db=np.zeros(len(tracks)),
            answers=np.ones(len(tracks)),
        )
        rows.append(radio.hear(start_us, scene))
    return np.concatenate(rows)


def test_one_antenna_reads_one_tag_70_times_a_second(square: Callable[..., StoreConfig]) -> None:
    rows = hear(square(ports=1), PLAIN, [still(1, 1, 60)], 60)
    assert len(rows) / 60 == pytest.approx(70, rel=0.05)


def test_collisions_share_the_air_between_29_tags(square: Callable[..., StoreConfig]) -> None:
    rows = hear(square(ports=1), PLAIN, [still(1 + 0.01 * i, 1, 60) for i in range(29)], 60)
    assert len(rows) / 60 == pytest.approx(156, rel=0.05)
    per_tag = np.bincount(rows["tag"], minlength=29) / 60
    assert per_tag.max() < 6


def test_four_antennas_take_turns(square: Callable[..., StoreConfig]) -> None:
    rows = hear(square(side_m=2), PLAIN, [still(1, 1, 60)], 60)
    per_antenna = np.bincount(rows["antenna"], minlength=4) / 60
    assert per_antenna == pytest.approx([6.5] * 4, rel=0.1)
    assert per_antenna.max() < 8
    for a in range(4):
        gaps = np.diff(rows["time_us"][rows["antenna"] == a]) / 1e6
        assert np.percentile(gaps, 50) == pytest.approx(0.15, abs=0.03)


def test_a_walking_tag_is_read_less_and_mostly_by_wrong_antennas(square: Callable[..., StoreConfig]) -> None:
    config, rng = square(), np.random.default_rng(5)
    plan, rates, wrong = Plan(config), [], []
    for seed in range(8):
        track = stroll(rng, 4.6, 60)
        rows = hear(config, World(seed=1), [track], 60, seed=seed)
        x, y, floor = track.at(rows["time_us"])
        rates.append(len(rows) / 60 / 4)
        wrong.append(np.mean(plan.zone_at(x, y, floor) != rows["antenna"]))
    assert 3 < np.mean(rates) < 5  # 3.6 measured
    assert 0.65 < np.mean(wrong) < 0.75  # 0.71 measured


def test_level_falls_with_distance_and_fades_fast(square: Callable[..., StoreConfig]) -> None:
    config = square(side_m=20, ports=1)
    for x, y in ((0.5, 0.5), (1.0, 1.0), (2.0, 2.0)):  # further off, only the stronger reads come through
        rows = hear(config, PLAIN, [still(x, y, 60)], 60)
        distance = np.hypot(np.hypot(x, y), 1.3)
        assert rows["rssi_cdbm"].mean() / 100 == pytest.approx(-52.7 - 21.5 * np.log10(distance), abs=0.4)
        assert rows["rssi_cdbm"].std() / 100 == pytest.approx(2.2, abs=0.3)


def test_the_link_is_half_at_minus_69_and_none_below_minus_76(square: Callable[..., StoreConfig]) -> None:
    config = square(side_m=20, ports=1)
    quiet = replace(PLAIN, fast_still_db=0.0)
    level = -52.7 - 21.5 * np.log10(np.hypot(np.hypot(1, 1), 1.3))
    full = len(hear(config, quiet, [still(1, 1, 20)], 20))
    for target_dbm, low, high in ((-64, 0.95, 1.0), (-69, 0.4, 0.6), (-72, 0.01, 0.15), (-76.5, 0, 0)):
        share = len(hear(config, quiet, [still(1, 1, 20)], 20, loss_db=level - target_dbm)) / full
        assert low <= share <= high, target_dbm


def test_shadowing_is_frozen_and_differs_between_places_and_antennas(square: Callable[..., StoreConfig]) -> None:
    config = square(side_m=3)
    shadowed = World(seed=1, offset_db=0.0, fast_still_db=0.0)
    first = hear(config, shadowed, [still(0.5, 0.5, 20), still(1.5, 0.5, 20)], 20)
    again = hear(config, shadowed, [still(0.5, 0.5, 20), still(1.5, 0.5, 20)], 20)

    def levels(rows: Any) -> Any:
        return {
            (a, t): set(rows["rssi_cdbm"][(rows["antenna"] == a) & (rows["tag"] == t)])
            for a in range(4)
            for t in (0, 1)
        }

    assert all(len(values) == 1 for values in levels(first).values())
    assert levels(first) == levels(again)
    plain = levels(hear(config, replace(shadowed, shadow_db=0.0), [still(0.5, 0.5, 20), still(1.5, 0.5, 20)], 20))
    errors = [min(values) - min(plain[key]) for key, values in levels(first).items()]
    assert len(set(errors)) > 4
    assert 150 < np.std(errors) < 700


def test_another_floor_is_hardly_heard(square: Callable[..., StoreConfig]) -> None:
    config = square()
    same = hear(config, PLAIN, [still(2, 2, 60)], 60)
    above = hear(config, PLAIN, [still(2, 2, 60)], 60, floor=1)
    assert len(above) < 0.01 * len(same)


def test_rows_are_late_as_measured(square: Callable[..., StoreConfig]) -> None:
    rows = hear(square(side_m=3), PLAIN, [still(1 + 0.02 * i, 1, 120) for i in range(10)], 120)
    rows = rows[np.argsort(rows["arrival_us"], kind="stable")]
    late_s = (np.maximum.accumulate(rows["time_us"]) - rows["time_us"]) / 1e6
    assert np.mean(late_s > 0) == pytest.approx(0.22, abs=0.04)
    assert np.percentile(late_s, 99) == pytest.approx(0.10, abs=0.03)
    assert 0.15 < late_s.max() <= 0.25


def test_rssi_can_be_unknown(square: Callable[..., StoreConfig]) -> None:
    rows = hear(square(), replace(PLAIN, rssi_unknown_share=0.3), [still(1, 1, 20)], 20)
    assert np.mean(rows["rssi_cdbm"] == -32768) == pytest.approx(0.3, abs=0.1)


def test_worlds_have_their_own_seeds() -> None:
    assert len({world.seed for world in WORLDS.values()}) == 3
