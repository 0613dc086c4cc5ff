"""Floods of new tags: memory has a ceiling, the reader is named, and others are not blinded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from gateways import WAIT_S, Gateway, antennas, member_card
from rigs import DOOR, SHOES, T0, HandClock, running, shop_of

from config.tags import gsrn96, sgtin96
from drivers.read import ANTENNA_UNKNOWN, READ, Reads, epc_words
from dwell.layout import TagClass
from edge.intake import admission
from edge.intake.admission import Admission
from edge.store.compose import Shop

SECOND_US = 1_000_000


@pytest.fixture
def shop(gateway: Gateway) -> Shop:
    """Reader `evil` at the door, `good` at the shoes."""
    readers = [
        {"id": id_, "driver": "llrp", "address": id_, "antennas": antennas(zone)}
        for id_, zone in (("evil", "door"), ("good", "shoes"))
    ]
    goods = {"class": "merchandise", "scheme": "sgtin-96"}
    members = {"class": "member", "scheme": "gsrn-96", "company_prefix": "0614141"}
    return shop_of(gateway, readers=readers, tag_classes=[members, goods])


EVIL, GOOD = 0, 1


def reads_of(epcs: Sequence[bytes], antenna: int, at_us: int) -> Reads:
    reads = np.zeros(len(epcs), READ)
    reads["time_us"] = at_us
    reads["epc"] = [epc_words(epc) for epc in epcs]
    reads["antenna"], reads["rssi_cdbm"], reads["count"] = antenna, -5000, 1
    reads["epc_bits"] = [8 * len(epc) for epc in epcs]
    return reads


def cards(first: int, n: int) -> list[bytes]:
    return [member_card(first + number) for number in range(n)]


def flood(gate: Admission, seconds: int, rate: int = 2_000, start: int = 0) -> int:
    """New tags, each heard three times within three seconds; how many reads got through."""
    through, recent = 0, []
    for second in range(start, start + seconds):
        at_us = T0 + second * SECOND_US
        recent.append(cards(10_000_000 + second * rate, rate))
        for age in (0, 1, 3):
            if age < len(recent):
                through += len(gate.filter(reads_of(recent[-1 - age], EVIL, at_us), at_us))
    return through


def test_a_shops_usual_tags_all_get_through(shop: Shop) -> None:
    gate = Admission(shop)
    for second in range(60):
        at_us = T0 + second * SECOND_US
        batch = reads_of(cards(0, 1_500) + cards(10_000 + 30 * second, 30), EVIL, at_us)
        assert len(gate.filter(batch, at_us)) == len(batch)
    assert list(gate.notices(T0)) == []
    assert gate.of("evil") == (False, 0)


def test_a_flood_is_bounded_and_its_reader_named(shop: Shop) -> None:
    gate = Admission(shop)
    flood(gate, 70)
    assert len(gate._known) == pytest.approx(admission.BURST, rel=0.1)
    assert len(gate._waiting) <= admission.MOST_WAITING
    ((reader, said),) = gate.notices(T0 + 70 * SECOND_US)
    assert reader == "evil"
    assert "new tags per second, more than plausible" in said
    flooded, left_out = gate.of("evil")
    assert flooded
    assert left_out > 350_000
    assert gate.of("good") == (False, 0)


def test_the_other_reader_is_not_blinded(shop: Shop) -> None:
    gate = Admission(shop)
    for second in range(70):
        flood(gate, 1, start=second)
        at_us = T0 + second * SECOND_US
        mine = reads_of(cards(500 + second, 10), GOOD, at_us)
        assert len(gate.filter(mine, at_us)) == 10


def test_who_stays_at_the_flooded_reader_is_followed_from_ten_seconds_on(shop: Shop) -> None:
    gate = Admission(shop)
    flood(gate, 10)
    through = []
    for second in range(10, 25):
        flood(gate, 1, start=second)
        at_us = T0 + second * SECOND_US
        through.append(len(gate.filter(reads_of(cards(1, 1), EVIL, at_us), at_us)))
    assert through == [0] * 10 + [1] * 5


def test_tags_from_before_the_flood_go_on_and_calm_is_told(shop: Shop) -> None:
    gate = Admission(shop)
    gate.filter(reads_of(cards(1, 50), EVIL, T0), T0)
    flood(gate, 30)
    list(gate.notices(T0))
    at_us = T0 + 30 * SECOND_US
    assert len(gate.filter(reads_of(cards(1, 50), EVIL, at_us), at_us)) == 50
    assert list(gate.notices(at_us + 30 * SECOND_US)) == []
    ((reader, said),) = gate.notices(at_us + 120 * SECOND_US)
    assert (reader, gate.of("evil")[0]) == ("evil", False)
    assert said.startswith("the number of new tags is back to normal")
    late_us = at_us + 121 * SECOND_US
    assert len(gate.filter(reads_of(cards(99, 3), EVIL, late_us), late_us)) == 3


def test_no_reader_holds_more_than_its_share_until_tags_are_gone(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MOST_OF_READER", 200)
    monkeypatch.setattr(admission, "MOST_TAGS", 300)
    gate = Admission(shop)
    assert len(gate.filter(reads_of(cards(0, 250), EVIL, T0), T0)) == 200
    assert gate.pressed
    assert len(gate.filter(reads_of(cards(1_000, 250), GOOD, T0), T0)) == 100
    assert [(reader, said[:9]) for reader, said in gate.notices(T0)] == [("evil", "200 tags,"), ("good", "300 tags ")]
    later_us = T0 + 300 * SECOND_US
    gate.keep([reads_of(cards(1_000, 40), GOOD, T0)], later_us)
    assert not gate.pressed
    assert len(gate._known) == 40  # type: ignore[unreachable]
    assert len(gate.filter(reads_of(cards(0, 250), EVIL, later_us), later_us)) == 200


def test_a_tag_that_has_just_come_is_kept_though_the_engine_has_not_met_it(shop: Shop) -> None:
    gate = Admission(shop)
    gate.filter(reads_of(cards(0, 5), EVIL, T0), T0)
    gate.keep([], T0 + 60 * SECOND_US)
    assert len(gate._known) == 5
    gate.keep([], T0 + 200 * SECOND_US)
    assert len(gate._known) == 0


def test_goods_and_foreign_antennas_cost_nothing(shop: Shop) -> None:
    gate = Admission(shop)
    goods = [sgtin96("0614141", 1, serial) for serial in range(5_000)]
    assert len(gate.filter(reads_of(goods, EVIL, T0), T0)) == 5_000
    foreign = reads_of(cards(0, 3_000), ANTENNA_UNKNOWN, T0)
    assert len(gate.filter(foreign, T0)) == 3_000
    assert (len(gate._known), gate.of("evil")) == (0, (False, 0))


def test_reads_from_the_future_are_left_out(shop: Shop) -> None:
    gate = Admission(shop)
    batch = reads_of(cards(0, 4), EVIL, T0)
    batch["time_us"][1:] += np.array([5, 60, 86_400]) * SECOND_US
    assert len(gate.filter(batch, T0)) == 2
    assert gate.left_out == 2


@pytest.mark.parametrize(
    ("epc", "class_"),
    [
        (gsrn96("0614141", 5), TagClass.MEMBER),
        (gsrn96("0614141", 5)[:-1] + b"\1", TagClass.UNKNOWN),
        (gsrn96("0614141", 5)[:9] + b"\x80\0\0", TagClass.UNKNOWN),
        (gsrn96("0614141", 5) + b"\1\0", TagClass.UNKNOWN),
        (gsrn96("0614141", 5) + bytes(49) + b"\1", TagClass.UNKNOWN),
        (sgtin96("0614141", 1, 7), TagClass.MERCHANDISE),
        (sgtin96("0614141", 1, 7) + b"\1", TagClass.UNKNOWN),
    ],
)
def test_what_has_not_the_shape_of_its_scheme_is_not_of_the_class(shop: Shop, epc: bytes, class_: TagClass) -> None:
    words: Any = np.array([epc_words(epc)])
    assert shop.classify(words).tolist() == [class_]


async def test_a_flood_in_the_pipeline_is_told_in_health_and_in_the_live_state(
    gateway: Gateway, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "BURST", 100.0)
    monkeypatch.setattr(admission, "PER_S", 1.0)
    async with running(shop_of(gateway), clock) as rig:
        await rig.inbox.reads("r1", reads_of(cards(0, 1_000), DOOR, clock.now_us()))
        await rig.wait(4)
        await rig.see(member_card(5_000), SHOES, 30)
        assert rig.pipeline.admission.of("r1") == (True, 900 + 20)
        assert rig.pipeline.engine.counters["tags"] == 101
        await rig.wait(10)
        assert rig.pipeline.engine.counters["reads"] == 100 + 40
        query = "SELECT payload FROM outbox WHERE class = 3 AND payload LIKE '%new tags per second%'"
        async with asyncio.timeout(WAIT_S):
            while not (health := await rig.query(query)):
                await asyncio.sleep(0.01)
    assert len(health) == 1
    assert '"reader":"r1"' in health[0][0]
