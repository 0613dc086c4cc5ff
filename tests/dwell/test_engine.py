"""What the engine decides in plain situations, and what it does with bad input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dwell.aggregates import WINDOW, tally
from dwell.layout import Layout, Settings, TagClass
from dwell.markov.decisions import Decisions
from dwell.markov.engine import ZoneEngine
from dwell.read import ANTENNA_UNKNOWN, READ, RSSI_UNKNOWN, Reads

START_US = 1_767_232_800_000_000
ENTRANCE, SHOES, BAGS, AISLE, UPSTAIRS, STORE_ROOM = range(6)
MEMBER = 0x2F << 56
Walk = Callable[..., Reads]


def at(seconds: float) -> int:
    return START_US + round(seconds * 1e6)


def decide(layout: Layout, settings: Settings, reads: Reads) -> Decisions:
    engine = ZoneEngine(layout, settings)
    engine.feed(reads)
    return engine.finish()


def test_a_stay_is_one_visit_with_its_times(layout: Layout, settings: Settings, walk: Walk) -> None:
    (visit,) = decide(layout, settings, walk([(SHOES, 10, 100)])).closed
    assert visit["zone"] == SHOES
    assert abs(int(visit["enter_us"]) - at(10)) < 3e6
    assert abs(int(visit["exit_us"]) - at(100)) < 3e6
    assert visit["tag_class"] == TagClass.MEMBER
    assert visit["journey_us"] == visit["enter_us"]
    assert 0.5 < visit["confidence"] <= 1


def test_a_walk_is_a_journey_in_order(layout: Layout, settings: Settings, walk: Walk) -> None:
    stays = [(ENTRANCE, 0, 20), (SHOES, 24, 80), (BAGS, 88, 150), (AISLE, 160, 185), (ENTRANCE, 194, 215)]
    engine = ZoneEngine(layout, settings)
    engine.feed(walk(stays))
    decisions = engine.advance(at(700))
    (journey,) = decisions.journeys
    assert journey.visits["zone"].tolist() == [zone for zone, _, _ in stays]
    assert not journey.censored
    assert len(decisions.arrivals) == 1
    assert decisions.arrivals[0]["zone"] == ENTRANCE
    for visit, (_, enter_s, exit_s) in zip(journey.visits, stays, strict=True):
        assert abs(int(visit["enter_us"]) - at(enter_s)) < 5e6
        assert abs(int(visit["exit_us"]) - at(exit_s)) < 12e6  # the silence after it counts for where people stay


def test_a_minute_of_silence_does_not_split_a_visit(layout: Layout, settings: Settings, walk: Walk) -> None:
    (visit,) = decide(layout, settings, walk([(SHOES, 0, 30), (SHOES, 90, 120)])).closed
    assert visit["exit_us"] - visit["enter_us"] > 115e6


def test_long_silence_ends_a_visit_where_it_was_last_heard(layout: Layout, settings: Settings, walk: Walk) -> None:
    first, second = decide(layout, settings, walk([(SHOES, 0, 30), (SHOES, 330, 360)])).closed
    assert abs(int(first["exit_us"]) - at(30)) < 4e6
    assert abs(int(second["enter_us"]) - at(330)) < 4e6


def test_silence_between_two_zones_is_shared(layout: Layout, settings: Settings, walk: Walk) -> None:
    first, second = decide(layout, settings, walk([(SHOES, 0, 60), (BAGS, 90, 150)])).closed
    assert at(61) < first["exit_us"] <= second["enter_us"] < at(89)


def test_a_second_of_strays_is_no_visit_elsewhere(layout: Layout, settings: Settings, walk: Walk) -> None:
    reads = np.concatenate([walk([(SHOES, 0, 120)]), walk([(BAGS, 60, 61)], rate=2.0)])
    assert decide(layout, settings, reads).closed["zone"].tolist() == [SHOES]


def test_nobody_is_anywhere_without_an_antenna(layout: Layout, settings: Settings, walk: Walk) -> None:
    decisions = decide(layout, settings, walk([(SHOES, 0, 60)]))
    rows = decisions.windows[decisions.windows["zone"] == STORE_ROOM]
    assert (rows["coverage"] == 0).all()
    assert (rows["entered"] == 0).all()


def test_floors_are_apart(layout: Layout, settings: Settings, walk: Walk) -> None:
    reads = np.concatenate([walk([(SHOES, 0, 120)]), walk([(UPSTAIRS, 50, 52)], rate=2.0)])
    assert decide(layout, settings, reads).closed["zone"].tolist() == [SHOES]
    visits = decide(layout, settings, walk([(AISLE, 0, 60), (UPSTAIRS, 70, 130)])).closed
    assert visits["zone"].tolist() == [AISLE, UPSTAIRS]


def test_goods_get_no_visit(layout: Layout, settings: Settings, walk: Walk) -> None:
    reads = walk([(SHOES, 0, 60)], epc=0x30 << 56)
    engine = ZoneEngine(layout, settings)
    engine.feed(reads)
    assert len(engine.finish().closed) == 0
    assert engine.counters["merchandise"] == len(reads)
    assert engine.counters["tags"] == 0


def test_without_rssi_the_antenna_says_where(layout: Layout, settings: Settings, walk: Walk) -> None:
    reads = walk([(SHOES, 0, 60), (BAGS, 66, 130)])
    reads["rssi_cdbm"] = RSSI_UNKNOWN
    assert decide(layout, settings, reads).closed["zone"].tolist() == [SHOES, BAGS]


def test_without_geometry_neighbourhood_must_do(layout: Layout, settings: Settings, walk: Walk) -> None:
    bare = Layout(
        layout.antenna_zone,
        np.zeros_like(layout.antenna_xy),
        layout.zone_kind,
        layout.zone_floor,
        layout.neighbours,
        layout.rule_mask,
        layout.rule_value,
        layout.rule_class,
    )
    assert decide(bare, settings, walk([(SHOES, 0, 60), (BAGS, 66, 130)])).closed["zone"].tolist() == [SHOES, BAGS]


def test_a_dead_zone_holds_its_visit_and_marks_it(layout: Layout, settings: Settings, walk: Walk) -> None:
    engine = ZoneEngine(layout, settings)
    engine.outage(np.array([1, 2]), at(60), False)
    engine.feed(walk([(SHOES, 0, 60)]))
    assert len(engine.advance(at(300)).closed) == 0
    (visit,) = engine.open_visits()
    assert visit["zone"] == SHOES
    engine.outage(np.array([1, 2]), at(320), True)
    (closed,) = engine.advance(at(620)).closed
    assert closed["zone"] == SHOES
    assert closed["censored"] == 1
    assert abs(int(closed["exit_us"]) - at(60)) < 4e6


def test_a_visit_goes_on_after_its_zone_was_dead(layout: Layout, settings: Settings, walk: Walk) -> None:
    engine = ZoneEngine(layout, settings)
    engine.outage(np.array([1, 2]), at(60), False)
    engine.outage(np.array([1, 2]), at(300), True)
    engine.feed(walk([(SHOES, 0, 60), (SHOES, 301, 330)]))
    assert engine.finish().closed["zone"].tolist() == [SHOES]


def test_coverage_is_the_share_of_time_up(layout: Layout, settings: Settings, walk: Walk) -> None:
    window_us = settings.window_us
    start_s = -(START_US % window_us) / 1e6 + 900
    engine = ZoneEngine(layout, settings)
    engine.feed(walk([(BAGS, 0, 60)]))
    engine.outage(np.array([1]), at(start_s + 90), False)
    engine.outage(np.array([1]), at(start_s + 270), True)
    windows = engine.advance(at(start_s + 2000)).windows
    rows = windows[windows["window_us"] == at(start_s)]
    assert rows["coverage"][rows["zone"] == SHOES].tolist() == pytest.approx([0.9])
    assert rows["coverage"][rows["zone"] == BAGS].tolist() == [1.0]


def test_journeys_end_soon_after_the_entrance_and_late_elsewhere(
    layout: Layout, settings: Settings, walk: Walk
) -> None:
    engine = ZoneEngine(layout, settings)
    engine.feed(walk([(SHOES, 0, 30), (ENTRANCE, 35, 60)], number=1))
    engine.feed(walk([(SHOES, 0, 60)], number=2))
    assert [journey.epc[0] for journey in engine.advance(at(300)).journeys] == [MEMBER + 1]
    assert [journey.epc[0] for journey in engine.advance(at(500)).journeys] == [MEMBER + 2]
    assert engine.counters["tags_tracked"] == 0


def test_the_end_of_the_recording_cuts_visits(layout: Layout, settings: Settings, walk: Walk) -> None:
    decisions = decide(layout, settings, np.concatenate([walk([(SHOES, 0, 60)]), walk([(BAGS, 0, 20)], number=2)]))
    censored = {int(visit["zone"]): int(visit["censored"]) for visit in decisions.closed}
    assert censored == {SHOES: 1, BAGS: 0}
    assert all(journey.censored for journey in decisions.journeys)


def test_bad_reads_are_counted_and_dropped(layout: Layout, settings: Settings, walk: Walk) -> None:
    reads = walk([(SHOES, 0, 60)])
    expected = decide(layout, settings, reads).closed
    foreign = reads[:5].copy()
    foreign["antenna"] = (ANTENNA_UNKNOWN, 8, 9, 500, 1000)
    late = reads[:3].copy()
    engine = ZoneEngine(layout, settings)
    engine.feed(reads)
    engine.feed(reads[10:17])
    engine.feed(foreign)
    parts = [engine.advance(at(30))]
    engine.feed(late)
    assert engine.advance(at(10)) is engine.advance(at(-10_000))  # time never goes back
    parts.append(engine.finish())
    assert np.concatenate([part.closed for part in parts]).tobytes() == expected.tobytes()
    counters = engine.counters
    assert counters["unknown_antenna"] == 5
    assert counters["late"] == 3
    assert counters["duplicates"] == 7
    with pytest.raises(ValueError, match="dtype"):
        engine.feed(np.zeros(3))
    with pytest.raises(ValueError, match="antenna"):
        engine.outage(np.array([8]), at(0), False)


def test_epcs_differ_by_length_and_by_every_word(layout: Layout, settings: Settings, walk: Walk) -> None:
    parts = []
    for bits in (16, 32, 64, 96, 128, 256, 496):
        part = walk([(SHOES, 0, 30)])
        part["epc"][:] = 0
        part["epc"][:, 0], part["epc_bits"] = 0xE2 << 56, bits
        parts.append(part)
    for word in range(1, 8):
        part = walk([(SHOES, 0, 30)])
        part["epc"][:, 0], part["epc"][:, word], part["epc_bits"] = 0xE2 << 56, 1, 496
        parts.append(part)
    visits = decide(layout, settings, np.concatenate(parts)).closed
    assert len(visits) == 14
    assert len({visit["epc"].tobytes() + visit["epc_bits"].tobytes() for visit in visits}) == 14


def test_a_hundred_thousand_strays_leave_nothing_behind(layout: Layout, settings: Settings) -> None:
    engine = ZoneEngine(layout, settings)
    n = 100_000
    reads = np.zeros(n, READ)
    reads["time_us"] = START_US + np.arange(n) * 6000
    reads["epc"][:, 0], reads["epc"][:, 1] = 0xE2 << 56, np.arange(n)
    reads["epc_bits"], reads["antenna"], reads["rssi_cdbm"], reads["count"] = 128, np.arange(n) % 8, -6900, 1
    most = 0
    for part in np.array_split(reads, 100):
        engine.feed(part)
        engine.advance(int(part["time_us"][-1]))
        most = max(most, engine.counters["tags_tracked"])
    engine.advance(int(reads["time_us"][-1]) + 120_000_000)
    assert engine.counters["tags"] == n
    assert engine.counters["strays"] == n
    assert engine.counters["tags_tracked"] == 0
    assert most < 12_000
    assert len(engine.state()["tags_life"]) == 0


def test_a_jump_of_the_clock_is_no_year_of_windows(layout: Layout, settings: Settings, walk: Walk) -> None:
    later = walk([(SHOES, 0, 60)])
    later["time_us"] += 400 * 86_400_000_000
    decisions = decide(layout, settings, np.concatenate([walk([(SHOES, 0, 60)]), later]))
    assert len(decisions.closed) == 2
    assert len(decisions.windows) < 1000


def test_a_state_of_another_layout_is_refused(layout: Layout, settings: Settings) -> None:
    state = ZoneEngine(layout, settings).state()
    state["air_up"] = state["air_up"][:-1]
    with pytest.raises(ValueError, match="layout"):
        ZoneEngine.restore(layout, settings, state)


def run_in_steps(engine: ZoneEngine, reads: Reads, until_s: int) -> Decisions:
    """As the service does: a step each half minute, then the end."""
    parts = []
    for second in range(0, until_s, 30):
        parts.append(engine.advance(at(second)))
        now = (reads["time_us"] >= at(second)) & (reads["time_us"] < at(second + 30))
        engine.feed(reads[now])
    parts.append(engine.finish())
    whole: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in ("closed", "windows", "floors")
    }
    return Decisions(**whole)


@pytest.mark.parametrize("broken", [False, True])
def test_windows_are_those_of_the_visits_but_for_those_held_open(
    layout: Layout, crowd: Reads, walk: Walk, broken: bool
) -> None:
    """What was told of windows is what counting the visits anew gives: nothing is corrected without a reason."""
    later = [walk([(SHOES, 500, 1500), (UPSTAIRS, 2600, 2700)], number=90), walk([(BAGS, 880, 960)], number=91)]
    reads = np.concatenate([crowd, *later])
    settings = Settings()
    engine = ZoneEngine(layout, settings)
    shoes = np.flatnonzero(layout.antenna_zone == SHOES)
    if broken:
        engine.outage(shoes, at(850), up=False)
        reads = reads[~(np.isin(reads["antenna"], shoes) & (reads["time_us"] > at(850)))]
    told = run_in_steps(engine, reads, 3600)
    differ = []
    for window_us in np.unique(told.windows["window_us"]):
        now = tally(told.closed, told.closed["exit_us"], int(window_us), len(layout.zone_kind), settings)
        by_key = {(row["zone"], row["tag_class"]): row for row in now}
        for row in told.windows[told.windows["window_us"] == window_us]:
            anew = by_key[row["zone"], row["tag_class"]]
            names = [name for name in WINDOW.names or () if name != "coverage"]
            if any((row[name] != anew[name]).any() for name in names):
                differ.append((int(row["zone"]), int(row["ended"]) - int(anew["ended"])))
    assert [zone for zone, _ in differ] == ([SHOES] * len(differ) if broken else [])
    if broken:
        assert differ
        assert sum(ended for _, ended in differ) == 0  # moved from one window to another, none lost


def test_floors_add_up_to_the_visits(layout: Layout, settings: Settings, crowd: Reads, walk: Walk) -> None:
    up_and_down = walk([(SHOES, 500, 560), (AISLE, 565, 600), (UPSTAIRS, 610, 1000), (AISLE, 1010, 1100)], number=90)
    told = run_in_steps(ZoneEngine(layout, settings), np.concatenate([crowd, up_and_down]), 3600)
    of_floor = layout.zone_floor[told.closed["zone"]]
    for floor in (0, 1):
        rows, visits = told.floors[told.floors["floor"] == floor], told.closed[of_floor == floor]
        assert int(rows["present_us"].sum()) == int((visits["exit_us"] - visits["enter_us"]).sum())
        assert (rows["visitors"] >= rows["peak"]).all()
    comings = 0
    order = np.lexsort((told.closed["enter_us"], told.closed["epc"][:, 0]))
    before: tuple[int, int, int] | None = None
    for visit in told.closed[order]:
        here = int(visit["epc"][0]), int(visit["journey_us"]), int(layout.zone_floor[visit["zone"]])
        comings += here != before
        before = here
    assert int(told.floors["member"].sum()) + int(told.floors["unknown"].sum()) == comings
