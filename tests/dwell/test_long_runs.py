"""Hours and days: tags that rest, antennas that drift, and what is left of a week."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dwell.layout import Layout, Settings, TagClass
from dwell.markov.engine import DRIFT_MOST_DB, ZoneEngine
from dwell.read import Reads

START_US = 1_767_232_800_000_000
ENTRANCE, SHOES, BAGS, AISLE, UPSTAIRS, STORE_ROOM = range(6)
STAFF = 0x2E << 56
Walk = Callable[..., Reads]
HOUR_S = 3600.0


@pytest.fixture(scope="module")
def settings() -> Settings:
    return Settings(stuck_us=3_600_000_000)


def by_quarters(engine: ZoneEngine, reads: Reads) -> list[int]:
    """Feed reads by windows of event time; how many people seemed to be there at the end of each."""
    there = []
    for quarter in np.unique(reads["time_us"] // 900_000_000):
        engine.feed(reads[reads["time_us"] // 900_000_000 == quarter])
        engine.advance((int(quarter) + 1) * 900_000_000)
        there.append(len(engine.whereabouts()))
    return there


def test_a_card_in_a_drawer_is_listed_and_counts_for_nothing(layout: Layout, settings: Settings, walk: Walk) -> None:
    engine = ZoneEngine(layout, settings)
    there = by_quarters(engine, walk([(SHOES, 0, 2.5 * HOUR_S)], rate=0.3))
    assert there == [1, 1, 1, 1, *[0] * 6]
    (stuck,) = engine.stuck_tags()
    assert (stuck["zone"], stuck["tag_class"]) == (SHOES, TagClass.MEMBER)
    assert abs(int(stuck["enter_us"]) - START_US) < 20e6
    decisions = engine.finish()
    assert engine.counters["stuck"] == 1
    assert not len(decisions.closed)
    assert not decisions.journeys
    assert not len(engine.open_visits())


def test_what_came_before_the_drawer_is_a_journey(layout: Layout, settings: Settings, walk: Walk) -> None:
    engine = ZoneEngine(layout, settings)
    engine.feed(walk([(ENTRANCE, 0, 20), (BAGS, 30, 120), (SHOES, 130, 2 * HOUR_S)], rate=0.5))
    decisions = engine.finish()
    assert decisions.stuck["zone"].tolist() == [SHOES]
    (journey,) = decisions.journeys
    zones = journey.visits["zone"].tolist()
    assert (zones[0], zones[-1]) == (ENTRANCE, BAGS)  # the shoes lie on the way


def test_a_stuck_card_that_is_carried_away_counts_again(layout: Layout, settings: Settings, walk: Walk) -> None:
    engine = ZoneEngine(layout, settings)
    engine.feed(walk([(SHOES, 0, 1.5 * HOUR_S), (BAGS, 1.5 * HOUR_S + 10, 1.5 * HOUR_S + 200)], rate=0.5))
    decisions = engine.finish()
    assert decisions.stuck["zone"].tolist() == [SHOES]
    assert decisions.closed["zone"].tolist() == [BAGS]
    assert len(decisions.journeys) == 1


def test_goods_that_no_rule_knows_are_stuck_too_and_staff_may_stay(
    layout: Layout, settings: Settings, walk: Walk
) -> None:
    mask, value = (np.concatenate([rows, rows[:1]]) for rows in (layout.rule_mask, layout.rule_value))
    value[-1, 0] = STAFF
    known = replace(
        layout, rule_mask=mask, rule_value=value, rule_class=np.append(layout.rule_class, np.uint8(TagClass.STAFF))
    )
    parts = [walk([(SHOES, 0, 1.2 * HOUR_S)], rate=0.5, epc=epc) for epc in (0xE2 << 56, STAFF)]
    parts.append(walk([(BAGS, 0, 2 * HOUR_S)], rate=0.5, epc=STAFF, number=2))
    engine = ZoneEngine(known, settings)
    engine.feed(np.concatenate(parts))
    decisions = engine.finish()
    assert decisions.stuck["tag_class"].tolist() == [TagClass.UNKNOWN]
    assert decisions.closed["tag_class"].tolist() == [TagClass.STAFF] * 2


def test_an_antenna_that_grows_weak_is_followed_and_bounded(layout: Layout, walk: Walk) -> None:
    rng = np.random.default_rng(5)
    parts = []
    for number in range(60):
        at, stays = rng.uniform(0, 3 * HOUR_S), []
        for zone in rng.choice((SHOES, BAGS, AISLE), 6):
            stays.append((int(zone), at, at + 60.0))
            at += 70.0
        parts.append(walk(stays, number=number, rate=2.0))
    reads = np.concatenate(parts)
    engines = {}
    for lost_db in (0, 5, 30):
        weak = reads.copy()
        weak["rssi_cdbm"][weak["antenna"] == 1] -= 100 * lost_db
        engines[lost_db] = ZoneEngine(layout, Settings())
        by_quarters(engines[lost_db], weak)
    before, after = engines[0].drift_db, engines[5].drift_db
    assert np.abs(before).max() < 2.0
    assert after[1] - before[1] < -1.2
    assert np.abs((after - before)[[0, 2, 3, 4, 5, 6, 7]]).max() < 3.0
    assert np.abs(engines[30].drift_db).max() <= DRIFT_MOST_DB


def test_drift_survives_a_checkpoint(layout: Layout, settings: Settings, walk: Walk) -> None:
    reads = walk([(SHOES, 0, 2400), (BAGS, 2410, 4200)], rate=2.0)
    whole, first = ZoneEngine(layout, settings), ZoneEngine(layout, settings)
    early = reads["time_us"] < START_US + 2_000_000_000
    for engine in (whole, first):
        engine.feed(reads[early])
        engine.advance(START_US + 2_000_000_000)
    assert whole.drift_db.any()
    second = ZoneEngine.restore(layout, settings, first.state())
    for engine in (whole, second):
        engine.feed(reads[~early])
    ours, theirs = whole.finish(), second.finish()
    assert ours.closed.tobytes() == theirs.closed.tobytes()
    assert np.array_equal(whole.drift_db, second.drift_db)


def test_nothing_is_left_of_a_week(layout: Layout, walk: Walk) -> None:
    """Ten tags an hour and as many strays: what the engine keeps on the last day is not more than on the first."""
    engine = ZoneEngine(layout, Settings())
    kept, visits = [], 0
    for hour in range(7 * 24):
        parts = [walk([(SHOES, 60.0 * n, 60.0 * n + 150)], number=hour * 10 + n, rate=0.3) for n in range(10)]
        parts += [walk([(BAGS, 30.0 * n, 30.0 * n + 0.3)], number=hour * 10 + n, epc=0xE2 << 56) for n in range(10)]
        reads = np.concatenate(parts)
        reads["time_us"] += hour * 3_600_000_000
        engine.feed(reads)
        visits += len(engine.advance(START_US + (hour + 1) * 3_600_000_000).closed)
        if hour < 24 or hour >= 6 * 24:
            kept.append(sum(array.nbytes for array in engine.state().values()))
    assert visits > 1500
    assert max(kept[24:]) <= 1.1 * max(kept[:24])


def test_where_tags_seem_to_be_is_told_before_it_is_decided(layout: Layout, walk: Walk) -> None:
    engine = ZoneEngine(layout, Settings())
    reads = walk([(SHOES, 0, 60), (BAGS, 68, 130)])
    for second in range(75):
        now_us = START_US + second * 1_000_000
        engine.feed(reads[(reads["time_us"] >= now_us) & (reads["time_us"] < now_us + 1_000_000)])
        engine.advance(now_us + 1_000_000)
        if second == 10:
            assert engine.whereabouts()["zone"].tolist() == [SHOES]
            assert not len(engine.open_visits())
    (here,) = engine.whereabouts()
    assert here["zone"] == BAGS
    assert abs(int(here["enter_us"]) - START_US - 68e6) < 6e6
    assert engine.open_visits()["zone"].tolist() == [SHOES]
