"""The numbers of a simulated shop against its truth: reads through the engine, then both through the same facts.

Pieces of one tag in one zone at most 30 s apart are one stay, and stays under 10 s don't count, on either side.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from config.check import load
from drivers.read import epc_bytes
from dwell import facts as F
from dwell.aggregates import quantile
from dwell.layout import TagClass
from dwell.stays import STAY, Span, Stays, in_order
from edge.compose import compose
from edge.dayfacts import place
from edge.replay import replay
from simulators.replays import ORIGIN_US, write_replay
from simulators.score import Stay, joined, read_stays
from simulators.worlds import WORLDS

MINUTES = 30
AWAY_US = 300_000_000
"""Who is away for longer is on another journey, on both sides alike."""
CLASS_OF = {"2d": TagClass.MEMBER, "2e": TagClass.STAFF, "33": TagClass.CART, "30": TagClass.MERCHANDISE}
"""By EPC header: GSRN, GSRNP, GRAI, SGTIN."""


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> tuple[F.Facts, F.Facts]:
    """Facts of the truth and of what the engine decided."""
    folder = tmp_path_factory.mktemp("truth")
    with resources.as_file(resources.files("config") / "demo.toml") as file:
        config = load(file, files=False)
    reads, truth = folder / "reads.csv", folder / "truth.csv"
    write_replay(config, WORLDS["mild"], reads, truth, seed=11, minutes=MINUTES, shoppers=90)
    shop = compose(config)
    visits, _ = replay(shop, reads)
    decided = [
        Stay(
            epc_bytes(visit["epc"], int(visit["epc_bits"])).hex(),
            shop.zones[visit["zone"]],
            int(visit["enter_us"]),
            int(visit["exit_us"]),
        )
        for visit in visits
    ]
    zones = {zone.id: number for number, zone in enumerate(config.zones)}
    span = Span(ORIGIN_US, ORIGIN_US + MINUTES * 60_000_000)
    true, told = (F.facts(_stays(found, zones), place(config), span) for found in (read_stays(truth), decided))
    return true, told


def _stays(found: list[Stay], zones: dict[str, int]) -> Stays:
    by_tag: dict[str, list[Stay]] = {}
    for stay in found:
        by_tag.setdefault(stay.epc, []).append(stay)
    rows = []
    for carrier, epc in enumerate(sorted(by_tag)):
        journey_us = last_us = -2 * AWAY_US
        for stay in joined(by_tag[epc]):
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
        *(("visit", 0.25), ("engaged", 0.25), ("visitors", 0.25), ("stoppers", 0.25), ("first_stops", 0.25)),
        *(("present_us", 0.2), ("peak", 0.25), ("staffed_us", 0.2), ("wanted", 0.2), ("met", 0.25)),
    ):
        assert true[name].sum() > 100, name
        assert off(true[name], told[name]) < bound, name
    true, told = (F.total(side.floors) for side in sides)
    assert off(true["member"], told["member"]) < 0.2
    assert off(true["present_us"], told["present_us"]) < 0.15
    assert off(true["peak"], told["peak"]) < 0.15
    true, told = (F.total(side.store[:, None]) for side in sides)
    assert told["member"][0] == pytest.approx(true["member"][0], rel=0.15)
    assert told["present_us"][0] == pytest.approx(true["present_us"][0], rel=0.12)
    true_dwell, told_dwell = (side.dwell.sum(axis=(0, 1)) for side in sides)
    for q in (0.5, 0.75):
        assert quantile(told_dwell, q) == pytest.approx(quantile(true_dwell, q), rel=0.22)
