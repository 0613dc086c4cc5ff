"""The Markov engine: what it makes of a small shop's walks, and the pieces that it is made of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import markov_walks
import numpy as np
import pytest

from dwell.layout import Layout, Settings
from dwell.markov import cells, field
from dwell.markov import radio as tables
from dwell.markov.kernels import figures
from dwell.markov.kernels.antennas import catch_up, listen, switch
from dwell.markov.tuning import Tuning

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]
Told = dict[str, list[tuple[str, float, float]]]


@pytest.fixture(scope="module")
def told() -> Told:
    """What markov_walks tells, uncompiled."""
    done = subprocess.run(
        [sys.executable, "tests/support/markov_walks.py"],
        cwd=ROOT,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: Told = json.loads(done.stdout)
    return found


def zones(visits: list[tuple[str, float, float]]) -> list[str]:
    return [zone for zone, _, _ in visits]


def test_a_walk_is_told_in_order_and_in_time(told: Told) -> None:
    assert zones(told["walk"]) == ["left", "middle", "right"]
    for (_, enter_s, exit_s), (from_s, to_s) in zip(told["walk"], ((0, 60), (66, 120), (128, 200)), strict=True):
        assert abs(enter_s - from_s) < 10
        assert abs(exit_s - to_s) < 10


@pytest.mark.parametrize("other", ["cut", "late", "restored"])
def test_neither_cuts_nor_order_nor_a_restart_make_a_difference(told: Told, other: str) -> None:
    assert told[other] == told["walk"]


def test_who_goes_back_isnt_left_behind(told: Told) -> None:
    assert zones(told["back"])[0] == "right"
    assert zones(told["back"])[-1] == "left"


def test_lone_reads_after_leaving_are_no_visits(told: Told) -> None:
    assert zones(told["ghosts"]) == ["left"]
    assert told["ghosts"][0][2] < 130


def test_a_level_that_is_repeated_for_ever_is_no_presence(told: Told) -> None:
    assert zones(told["frozen"]) == ["left"]
    assert told["frozen"][0][2] < 160


def test_a_tag_that_two_floors_hear_is_on_one(told: Told) -> None:
    assert zones(told["floors"]) == ["above"]


def test_cells_cover_the_zones_and_know_their_neighbours() -> None:
    shop = markov_walks.layout(2)
    cut = cells.build(shop)
    area = np.bincount(cut.zone[cut.zone >= 0], cut.edge_m[cut.zone >= 0] ** 2)
    assert (np.abs(area - 25) < 8).all()  # a cell on the edge is a ninth of a zone
    assert (cut.share.sum(axis=1) <= 1.001).all()
    for c, ways in enumerate(cut.next[:, :8]):
        there = ways[ways >= 0]
        assert (np.hypot(*(cut.xy[there] - cut.xy[c]).T) < 1.5 * cut.edge_m[c]).all()
        assert (cut.floor[there] == cut.floor[c]).all()


def scaled(shop: Layout, factor: float) -> Layout:
    return replace(shop, antenna_xy=shop.antenna_xy * factor, corner_xy=shop.corner_xy * factor)


def test_small_stores_have_finer_cells_and_large_ones_only_what_zones_need() -> None:
    shop = markov_walks.layout(2)
    usual, fine = cells.build(shop), cells.build(shop, fine=True)
    assert (usual.edge_m == np.float32(1.4)).all()
    assert (fine.edge_m == np.float32(cells.FINE_M)).all()
    assert set(fine.zone.tolist()) == set(usual.zone.tolist())
    larger = cells.build(scaled(shop, 6.0), fine=True)
    assert 1.05 < larger.edge_m[0] < 1.35
    assert 0.9 * cells.FINE < len(larger) < 1.1 * cells.FINE
    huge = scaled(shop, 8.0)
    assert cells.build(huge, fine=True).edge_m[0] == cells.build(huge).edge_m[0] == np.float32(1.4)


@pytest.mark.parametrize("edge_m", [0.7, 0.85, 1.0, 1.2, 1.4])
def test_walkers_are_as_fast_in_cells_of_any_size(edge_m: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "EDGES_M", (edge_m, edge_m))
    shop, tuning = scaled(markov_walks.layout(), 5.0), Tuning()
    model = tables.build(shop, Settings(), tuning)
    middle = int(np.square(model.cells.xy - model.cells.xy.mean(axis=0)).sum(axis=1).argmin())
    for span, hop, move in zip((1, 4, 16), model.radio.hop, model.radio.move, strict=True):
        square = np.square(model.cells.xy[hop[middle]] - model.cells.xy[middle]).sum(axis=1)
        went = np.sqrt(move[middle] * (model.radio.turn * square).sum())
        assert went == pytest.approx(tuning.pace_m * np.sqrt(span), rel=0.02)


def test_levels_fall_with_distance_and_through_slabs() -> None:
    shop = markov_walks.layout(2)
    cut, radio = cells.build(shop), markov_walks.field(shop)
    level = field.levels(cut, shop, radio)
    away = np.hypot(*(cut.xy - shop.antenna_xy[0]).T)
    here = cut.floor == 0
    near, far = level[0, here & (away < 2)], level[0, here & (away > 8)]
    assert near.min() > far.max()
    assert level[0, ~here].max() < level[0, here].max() - radio.slab_db


def test_known_levels_take_the_place_of_distances() -> None:
    shop = markov_walks.layout()
    cut, radio = cells.build(shop), markov_walks.field(shop)
    table = np.random.default_rng(3).uniform(-90, -40, (len(shop.antenna_zone), len(cut)))
    known = replace(radio, table=table, offset_db=np.ones(len(shop.antenna_zone)))
    np.testing.assert_allclose(field.levels(cut, shop, known), table + 1, rtol=1e-6)


def test_a_second_is_weighed_by_how_much_single_seconds_vary() -> None:
    shop, settings = markov_walks.layout(), Settings()
    one, other = (tables.build(shop, settings, replace(Tuning(), second_db=db)).radio for db in (0.0, 6.0))
    nearby, apart = (made.hit[0, figures.HALF + 4] / made.hit[0, figures.HALF] for made in (one, other))
    assert nearby < apart < 1  # two decibels off the mean say less
    assert (one.spare == other.spare).all()  # silence says the same


def test_a_level_far_below_the_mean_is_likelier_than_one_far_above() -> None:
    shop, settings = markov_walks.layout(), Settings()
    hit = tables.build(shop, settings, Tuning()).radio.hit
    below, above = hit[:, figures.HALF - 30], hit[:, figures.HALF + 30]  # 15 dB
    assert (below > 1.2 * above).all()
    even = tables.build(shop, settings, replace(Tuning(), faded_share=1e-9)).radio.hit
    np.testing.assert_allclose(even[:, figures.HALF - 30], even[:, figures.HALF + 30], rtol=1e-5)


def test_a_hit_and_a_miss_are_a_density() -> None:
    radio = markov_walks.field(markov_walks.layout())
    rssi = np.arange(-140.0, 0.0, 0.05)
    for mean in (-50.0, -70.0, -76.0):
        hits = np.exp(field.hit(rssi, np.full_like(rssi, mean), 1, 0.6, radio)).sum() * 0.05
        missed = float(np.exp(field.miss(np.array([mean]), 0.6, radio))[0])
        assert hits + missed == pytest.approx(1.0, abs=0.04)


def test_silence_says_the_same_however_antennas_came_up() -> None:
    shop = markov_walks.layout(2)
    model = tables.build(shop, Settings(), Tuning(), None)
    air, antennas = tables.air(model, len(shop.zone_kind)), len(shop.antenna_zone)
    rng, values = np.random.default_rng(3), 0
    for tick in range(40):
        for _ in range(rng.integers(1, 4)):
            some = np.flatnonzero(rng.random(antennas) < rng.random())
            switch(model.radio, air, some, int(rng.random() < 0.5), int(rng.random() < 0.2), tick, 10**6 * tick)
        before = air.quiet.copy()
        catch_up(model.radio, air, model.limits, tick)
        changed = (air.quiet != before).any(axis=(0, 1, 2))
        assert (air.changed_tick[changed] == tick).all()
        one_by_one = air.quiet_nats.copy(), air.quiet.copy()
        listen(model.radio, air, model.limits)
        assert (air.quiet_nats == one_by_one[0]).all()
        assert (air.quiet == one_by_one[1]).all()
        values = max(values, len(np.unique(air.quiet)))
    assert values > 100
