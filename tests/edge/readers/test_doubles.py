"""One number at two places at once: found, told, and in no visit; whoever walks is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gateways import Gateway, member_card
from hypothesis import given, settings
from hypothesis import strategies as st
from rigs import T0, HandClock, running, shop_of
from thorough import examples

from config.check import load
from drivers.read import READ, Reads, epc_words
from dwell.layout import TagClass
from edge.readers import doubles
from edge.readers.doubles import CALM_US, COUNT_US, HOPS, Doubles
from edge.readers.read_file import load as load_reads
from edge.store.compose import Shop, compose
from simulators.shop.draws import inhabit
from simulators.shop.replays import write_replay

ZONES: list[dict[str, Any]] = [
    {"id": id_, "name": id_, "kind": kind, "floor": "F1", "polygon": [[x, 0], [x + 6, 0], [x + 6, 6], [x, 6]]}
    for id_, kind, x in (
        ("door", "entrance", 0),
        ("shoes", "counter", 8),
        ("bags", "counter", 100),
        ("out", "exit", 110),
    )
]
DOOR, SHOES, BAGS, OUT = range(4)
CARD = member_card(1)


@pytest.fixture
def clock() -> HandClock:
    return HandClock(time=[T0])


@pytest.fixture
def shop(gateway: Gateway) -> Shop:
    return large(gateway)


def large(gateway: Gateway) -> Shop:
    where = {zone["id"]: [zone["polygon"][0][0] + 3, 3] for zone in ZONES}
    ports = [{"port": n, "zone": zone, "position": where[zone]} for n, zone in enumerate(where, 1)]
    wired = [{"id": "r1", "driver": "llrp", "address": "r1", "antennas": ports}]
    return shop_of(gateway, zones=ZONES, readers=wired)


def reads_of(heard: list[tuple[float, int]], card: bytes = CARD) -> Reads:
    reads = np.zeros(len(heard), READ)
    reads["time_us"] = [T0 + round(at_s * 1e6) for at_s, _ in heard]
    reads["antenna"] = [antenna for _, antenna in heard]
    reads["epc"], reads["epc_bits"], reads["count"], reads["rssi_cdbm"] = epc_words(card), 96, 1, -5000
    return reads


def both(seconds: int, *places: int, every_s: float = 1.0) -> list[tuple[float, int]]:
    return [(n * every_s + 0.3 * i, place) for n in range(seconds) for i, place in enumerate(places)]


def through(found: Doubles, reads: Reads, cut: int) -> int:
    return sum(len(found.filter(reads[start : start + cut])) for start in range(0, len(reads), cut))


@pytest.mark.parametrize("cut", [1, 7, 5000])
def test_a_cloned_card_is_left_out_once_it_is_known(shop: Shop, cut: int) -> None:
    found, reads = Doubles(shop), reads_of(both(900, SHOES, BAGS))
    left = through(found, reads, cut)
    assert left <= 2 * HOPS * COUNT_US / 1e6 + cut
    (double,) = found.now
    assert (double.tag_class, sorted(double.antennas)) == (TagClass.MEMBER, [SHOES, BAGS])
    assert len(list(found.notices())) == 1
    assert list(found.notices()) == [], "told once"
    assert len(found.filter(reads_of([(901, SHOES)], member_card(2)))) == 1


def test_it_comes_back_when_it_has_been_at_one_place_for_long(shop: Shop) -> None:
    found = Doubles(shop)
    through(found, reads_of(both(60, SHOES, BAGS)), 4)
    later_s = 60 + CALM_US / 1e6
    assert through(found, reads_of([(later_s - 2, SHOES), (later_s - 1, SHOES)]), 1) == 0
    assert through(found, reads_of([(later_s + 1, SHOES), (later_s + 2, SHOES)]), 1) >= 1
    assert found.now == ()


def test_a_misread_number_now_and_then_is_no_second_card(shop: Shop) -> None:
    heard = [(n * 1.0, SHOES) for n in range(3600)] + [(100.5 + 61 * n, BAGS) for n in range(50)]
    found = Doubles(shop)
    assert through(found, reads_of(sorted(heard)), 50) == len(heard)
    assert found.now == ()


@pytest.mark.parametrize("off_s", [5, 30])
def test_who_passes_a_reader_with_a_wrong_clock_is_one(shop: Shop, off_s: int) -> None:
    """Two minutes at each of five counters, and every other reader tells times that are too early."""
    heard = [
        (120.0 * turn + n * 0.5 - off_s * (turn % 2), (SHOES, BAGS)[turn % 2]) for turn in range(5) for n in range(240)
    ]
    found = Doubles(shop)
    assert through(found, reads_of(sorted(heard)), 9) == len(heard)
    assert found.now == ()


@pytest.mark.parametrize("every_s", [1, 10, 20])
@pytest.mark.parametrize("lag_s", [0.3, 4.5])
def test_two_cards_are_found_however_rarely_they_are_read(shop: Shop, every_s: float, lag_s: float) -> None:
    heard = [(n * every_s + lag_s * i, place) for n in range(40) for i, place in enumerate((SHOES, BAGS))]
    found = Doubles(shop)
    left = through(found, reads_of(sorted(heard)), 3)
    assert len(found.now) == 1
    assert left <= 2 * HOPS * COUNT_US / 1e6


def test_three_cards_of_one_number_are_one_double(shop: Shop) -> None:
    found = Doubles(shop)
    through(found, reads_of(both(60, DOOR, BAGS, OUT, every_s=2.0)), 5)
    assert len(found.now) == 1


def test_neighbours_that_hear_the_same_card_are_one_place(shop: Shop) -> None:
    found, reads = Doubles(shop), reads_of(both(600, DOOR, SHOES))
    assert through(found, reads, 10) == len(reads)


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.tuples(st.floats(6, 60), st.sampled_from([DOOR, SHOES, BAGS, OUT])), min_size=1, max_size=40))
def test_nobody_who_takes_time_to_walk_is_taken_for_two(legs: list[tuple[float, int]]) -> None:
    """From one end to the other takes ten seconds and more; the reads of a stop are as many as they like."""
    at_s, heard = 0.0, []
    for stay_s, place in legs:
        heard += [(at_s + n * 0.5, place) for n in range(round(stay_s))]
        at_s += stay_s / 2 + 10
    layout = _layout()
    found = Doubles(layout)
    assert through(found, reads_of(heard), 9) == len(heard)


def _layout() -> Any:
    class Two:
        layout = type(
            "L",
            (),
            {
                "zone_floor": np.zeros(4, np.int16),
                "antenna_zone": np.arange(4, dtype=np.int16),
                "antenna_xy": np.array([[3, 3], [11, 3], [63, 3], [73, 3]], np.float32),
            },
        )

    return Two()


def test_floors_far_above_each_other_are_apart(gateway: Gateway) -> None:
    shop = large(gateway)
    apart = Doubles(shop)._apart
    assert not apart[DOOR, SHOES]
    assert apart[DOOR, BAGS]
    assert not apart[BAGS, OUT]
    assert (apart == apart.T).all()


def test_memory_has_a_ceiling(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doubles, "MOST", 50)
    found = Doubles(shop)
    for n in range(200):
        found.filter(reads_of(both(3, SHOES, BAGS), member_card(n)))
        assert len(found._tags) <= 50
    assert len(found._hopped) <= 50


async def test_a_cloned_card_is_told_and_is_no_visit_of_all_reads(gateway: Gateway, clock: HandClock) -> None:
    shop = large(gateway)
    async with running(shop, clock) as rig:
        for start in range(0, 600, 20):
            heard = [(start + at_s, place) for at_s, place in both(20, SHOES, BAGS)]
            await rig.inbox.reads("r1", reads_of(heard))
            await rig.wait(20)
        assert len(rig.pipeline.doubles.now) == 1
        await rig.wait(40 * 60)
        await rig.until(lambda: not len(rig.pipeline.engine.open_visits()))
    assert sum(reads for (reads,) in gateway.rows("SELECT reads FROM visit")) < 60
    health = [json.loads(text) for (text,) in gateway.rows("SELECT payload FROM outbox WHERE class = 3")]
    (told,) = [event for event in health if "at the same time" in event.get("reason", "")]
    assert told["reason"] == (
        "one tag of class member is in shoes and bags at the same time: its reads are left out"
    ) or told["reason"].startswith("one tag of class member is in bags and shoes")


def test_nobody_in_a_simulated_shop_is_taken_for_two(tmp_path: Path) -> None:
    """Strong antennas hear a card across the hall and through an atrium."""
    config, path = load(Path(__file__).parents[3] / "config/demo.toml", files=False), tmp_path / "reads.csv"
    drawn, shop = inhabit(config, 1, 20), compose(config)
    write_replay(config, drawn.world, path, None, seed=1, minutes=5, shoppers=20, antennas=drawn.antennas)
    found, (reads, _) = Doubles(shop), load_reads(shop, path)
    for second in np.split(reads, np.flatnonzero(np.diff(reads["time_us"] // 1_000_000) > 0) + 1):
        found.filter(second)
    assert found.now == ()
