"""The numbers of a simulated shop against its truth: reads through the engine, then both through the same facts.

Pieces of one tag in one zone at most 30 s apart are one stay, and stays under 10 s don't count, on either side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from shopdays import Day

from config import StoreConfig
from config.check import load
from config.facts import WINDOW_US
from drivers.read import epc_bytes
from dwell import facts as F
from dwell.aggregates import quantile
from dwell.layout import TagClass, ZoneKind
from dwell.markov import fit, ticks
from dwell.stays import STAY, Span, Stays, in_order
from edge.days.facts import place, suspects
from edge.readers.read_file import load as load_reads
from edge.readers.replay import replay
from edge.store.business_days import business_days
from edge.store.calibration_file import Calibration
from edge.store.compose import compose
from simulators.shop.replays import ORIGIN_US, write_replay
from simulators.shop.score import Stay, joined, read_stays
from simulators.shop.worlds import WORLDS

MINUTES = 30
pytestmark = pytest.mark.timeout(600)  # the shop's day and what is learnt of it take half a minute of CPU
SPAN = Span(ORIGIN_US, ORIGIN_US + MINUTES * 60_000_000)
AWAY_US = 300_000_000
"""Who is away for longer is on another journey, on both sides alike."""
CLASS_OF = {"2d": TagClass.MEMBER, "2e": TagClass.STAFF, "33": TagClass.CART, "30": TagClass.MERCHANDISE}
"""By EPC header: GSRN, GSRNP, GRAI, SGTIN."""


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> tuple[StoreConfig, list[Stay], list[Stay]]:
    """The store, where tags really were, and what the engine decided with the radio learnt the day before."""
    folder = tmp_path_factory.mktemp("truth")
    with resources.as_file(resources.files("config") / "demo.toml") as file:
        config = load(file, files=False)
    reads, truth = folder / "reads.csv", folder / "truth.csv"
    yesterday = folder / "yesterday.csv"
    write_replay(config, WORLDS["mild"], yesterday, None, seed=12, minutes=MINUTES, shoppers=40)
    write_replay(config, WORLDS["mild"], reads, truth, seed=11, minutes=MINUTES, shoppers=90)
    shop = compose(config)
    learnt = fit.learn_field(shop.layout, ticks.of(shop.layout, load_reads(shop, yesterday)[0]))
    made = Calibration(learnt, at_us=0, reads=0, tags=0, seconds=0, before=0.0, after=0.0)
    visits, _ = replay(replace(shop, calibration=made), reads)
    decided = [
        Stay(
            epc_bytes(visit["epc"], int(visit["epc_bits"])).hex(),
            shop.zones[visit["zone"]],
            int(visit["enter_us"]),
            int(visit["exit_us"]),
        )
        for visit in visits
    ]
    own = config.database.model_copy(update={"path": folder / "store.db"})
    return config.model_copy(update={"database": own}), read_stays(truth), decided


@pytest.fixture(scope="module")
def day(walked: tuple[StoreConfig, list[Stay], list[Stay]]) -> tuple[StoreConfig, Stays, Stays]:
    """The store, the truth and what the engine decided, as they are scored."""
    config, *both = walked
    true, told = (_stays(found, config, joined) for found in both)
    return config, true, told


@pytest.fixture(scope="module")
def sides(day: tuple[StoreConfig, Stays, Stays]) -> tuple[F.Facts, F.Facts]:
    """Facts of the truth and of what the engine decided."""
    config, *both = day
    true, told = (F.facts(stays, place(config), SPAN) for stays in both)
    return true, told


def _stays(found: list[Stay], config: StoreConfig, of_tag: Callable[[list[Stay]], list[Stay]]) -> Stays:
    zones = {zone.id: number for number, zone in enumerate(config.zones)}
    by_tag: dict[str, list[Stay]] = {}
    for stay in found:
        by_tag.setdefault(stay.epc, []).append(stay)
    rows = []
    for carrier, epc in enumerate(sorted(by_tag)):
        journey_us = last_us = -2 * AWAY_US
        for stay in of_tag(by_tag[epc]):
            if stay.enter_us - last_us > AWAY_US:
                journey_us = stay.enter_us
            last_us = stay.exit_us
            tag_class = CLASS_OF.get(epc[:2], TagClass.UNKNOWN)
            rows.append((stay.enter_us, stay.exit_us, journey_us, carrier, zones[stay.zone], tag_class, 0))
    return in_order(np.array(rows, STAY))


def off(true: NDArray[Any], told: NDArray[Any]) -> float:
    """Absolute errors, place by place, over the true total."""
    return float(np.abs(true.astype(float) - told.astype(float)).sum() / true.sum())


def test_a_simulated_shops_numbers_are_its_truth_within_bounds(sides: tuple[F.Facts, F.Facts]) -> None:
    """The bounds that docs/definitions.md states for its mild world."""
    true, told = (F.total(side.zones) for side in sides)
    for name, bound in (
        *(("visit", 0.55), ("engaged", 0.5), ("visitors", 0.25), ("stoppers", 0.35), ("first_stops", 0.4)),
        *(("present_us", 0.35), ("peak", 0.3), ("staffed_us", 0.2), ("wanted", 0.35), ("met", 0.45)),
    ):
        assert true[name].sum() > 100, name
        assert off(true[name], told[name]) < bound, name
    true, told = (F.total(side.floors) for side in sides)
    assert off(true["member"], told["member"]) < 0.1
    assert off(true["present_us"], told["present_us"]) < 0.18
    assert off(true["peak"], told["peak"]) < 0.17
    true, told = (F.total(side.store[:, None]) for side in sides)
    assert told["member"][0] == pytest.approx(true["member"][0], rel=0.08)
    assert told["present_us"][0] == pytest.approx(true["present_us"][0], rel=0.18)
    true_dwell, told_dwell = (side.dwell.sum(axis=(0, 1)) for side in sides)
    for q in (0.5, 0.75):
        assert quantile(told_dwell, q) == pytest.approx(quantile(true_dwell, q), rel=0.25)


def test_ways_waits_and_who_is_left_out_keep_to_the_truth_too(
    day: tuple[StoreConfig, Stays, Stays], sides: tuple[F.Facts, F.Facts]
) -> None:
    """Steps and whole ways are what is least sure: docs/definitions.md says how little."""
    config, *both = day
    true, told = sides
    assert true.flows.links.sum() > 1000
    assert off(true.flows.links, told.flows.links) < 0.6
    assert off(true.flows.links.sum(axis=0), told.flows.links.sum(axis=0)) < 0.33
    ways, told_ways = true.flows.paths, told.flows.paths
    alike = sum(min(n, told_ways.get(way, 0)) for way, n in ways.items())
    assert alike / sum(ways.values()) > 0.3
    assert off(F.total(true.zones)["entries"], F.total(told.zones)["entries"]) < 0.25
    for name in ("wait", "assist"):
        of, said = (getattr(side, name).sum(axis=(0, 1)) for side in sides)
        assert of.sum() > 200
        for q in (0.5, 0.75):
            assert quantile(said, q) == pytest.approx(quantile(of, q), rel=0.25, abs=2), name
    for stays in both:  # nobody in this shop works without a badge
        assert suspects(stays, [], config, business_days(config).date(ORIGIN_US)) == {}


def test_doors_shares_keep_to_the_truth_though_some_cross_unseen(
    walked: tuple[StoreConfig, list[Stay], list[Stay]],
) -> None:
    """Against all stays: who crosses a door's zone in less than 10 s came in or went out there too."""
    config, *both = walked
    true, told = (F.facts(_stays(found, config, sorted), place(config), SPAN) for found in both)
    doors = place(config).of_kind(ZoneKind.ENTRANCE, ZoneKind.EXIT)
    for name, seen in (("entries", 0.7), ("exits", 0.5)):
        of, said = (F.total(side.zones)[name][doors] for side in (true, told))
        assert of.sum() > 100
        assert said.sum() > seen * of.sum(), name
        assert said / said.sum() == pytest.approx(of / of.sum(), abs=0.1), name


def test_the_database_the_summary_and_the_analytics_keep_to_it(
    day: tuple[StoreConfig, Stays, Stays], sides: tuple[F.Facts, F.Facts]
) -> None:
    """Decided visits in the database, and what the page says of them, against the same truth."""
    config, _, decided = day
    true, _ = sides
    store = Day(config)
    store.conn.execute("BEGIN")
    store.conn.executemany(
        "INSERT INTO visit (tag, tag_class, zone, enter_us, exit_us, journey_us, reads, censored, confidence)"
        " VALUES (?, ?, ?, ?, ?, ?, 9, 0, 0.9)",
        [
            (
                *(b"%d" % stay["carrier"], int(stay["tag_class"]), config.zones[stay["zone"]].id),
                *(int(stay[name]) for name in ("enter_us", "exit_us", "journey_us")),
            )
            for stay in decided
        ],
    )
    date = business_days(config).date(ORIGIN_US)
    start_us, end_us = business_days(config).bounds_us(date)
    store.conn.executemany(
        "INSERT INTO aggregate VALUES (?, ?, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, x'')",
        [(at, zone.id) for at in range(start_us, end_us, WINDOW_US) for zone in config.zones],
    )
    store.conn.execute("INSERT INTO checkpoint VALUES (1, ?, 'layout')", (end_us,))
    store.conn.execute("COMMIT")
    told, together = store.past.summary(date), store.past.occupancy(date)
    store.conn.close()
    for name in ("member", "cart"):
        comings = np.array([(floor.entered or {})[name] for floor in told.floors])
        assert off(F.total(true.floors)[name], comings) < 0.25, name
    assert told.journeys["member"] == pytest.approx(F.total(true.store[:, None])["member"][0], rel=0.15)
    peaks = np.array([floor.peak for floor in together.floors])
    assert off(F.total(true.floors)["peak"], peaks) < 0.2
    for q, name in ((0.5, "median_s"), (0.75, "p75_s")):
        wrong = [
            abs(getattr(zone, name) / quantile(true.dwell[:, number].sum(axis=0), q) - 1)
            for number, zone in enumerate(told.zones)
            if (zone.n or 0) >= 30 and true.dwell[:, number].sum() >= 30
        ]
        assert len(wrong) >= 10
        assert np.median(wrong) < 0.25, name
