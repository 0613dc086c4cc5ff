"""Windows and histograms add up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwell import aggregates, journeys
from dwell.aggregates import Aggregates
from dwell.layout import Layout, Settings, TagClass
from dwell.visits import VISIT, Visits

NONE = np.zeros(0, np.int16)
FIRST = np.full(9, -1, np.int16)

WINDOW_US = 900_000_000
START_US = 1_767_232_800_000_000 // WINDOW_US * WINDOW_US


def visits_of(*rows: tuple[int, float, float, int]) -> Visits:
    """zone, enter and exit in seconds after START_US, censored."""
    visits = np.zeros(len(rows), VISIT)
    for visit, (zone, enter_s, exit_s, censored) in zip(visits, rows, strict=True):
        visit["zone"], visit["censored"], visit["tag_class"] = zone, censored, TagClass.MEMBER
        visit["enter_us"], visit["exit_us"] = START_US + round(enter_s * 1e6), START_US + round(exit_s * 1e6)
    return visits


@given(st.lists(st.floats(1.0, 43_000.0), min_size=1, max_size=50), st.sampled_from((0.25, 0.5, 0.75)))
def test_quantiles_are_off_by_no_more_than_stated(dwell_s: list[float], q: float) -> None:
    counts = aggregates.histogram((np.array(dwell_s) * 1e6).astype(np.int64))
    true = np.sort(dwell_s)[max(int(np.ceil(q * len(dwell_s))), 1) - 1]
    assert aggregates.quantile(counts, q) == pytest.approx(true, rel=aggregates.RELATIVE_ERROR + 1e-3)


@given(st.lists(st.integers(0, 10**12)), st.lists(st.integers(0, 10**12)))
def test_histograms_merge_by_adding(a: list[int], b: list[int]) -> None:
    whole = aggregates.histogram(np.array(a + b, np.int64))
    parts = aggregates.histogram(np.array(a, np.int64)) + aggregates.histogram(np.array(b, np.int64))
    assert (whole == parts).all()
    assert whole.sum() == len(a) + len(b)


def test_no_visits_have_no_median() -> None:
    assert np.isnan(aggregates.quantile(np.zeros(aggregates.BINS, np.uint32), 0.5))


def test_a_visit_over_a_border_is_present_in_both_and_counts_where_it_ends(layout: Layout) -> None:
    windows = Aggregates(layout, Settings())
    windows.begin(START_US + 1)
    windows.closed(visits_of((1, 10, 14, 0), (1, 12, 30, 0), (1, 20, 60, 1)), FIRST[:3])
    first, _ = windows.window(visits_of((1, 800, 1000, 0)), FIRST[:1])
    windows.closed(visits_of((1, 800, 1000, 0), (2, 950, 1000, 0)), FIRST[:2])
    second, _ = windows.window(visits_of(), NONE)
    (row,) = first[first["zone"] == 1]
    assert row[["entered", "ended", "censored", "pass_by", "touch", "visit", "engaged", "peak"]].item() == (
        4, 3, 1, 1, 1, 0, 0, 2,
    )  # fmt: skip
    assert row["present_us"] == (4 + 18 + 40 + 100) * 1_000_000
    assert row["histogram"].sum() == 2
    (row,) = second[second["zone"] == 1]
    assert row[["entered", "ended", "visit", "engaged", "peak"]].item() == (0, 1, 0, 1, 1)
    assert row["present_us"] == 100_000_000
    assert row["histogram"].sum() == 1
    assert sorted(first["zone"]) == sorted(second["zone"]) == list(range(6))


def test_a_visit_that_was_held_open_counts_in_the_next_window(layout: Layout) -> None:
    windows = Aggregates(layout, Settings())
    windows.begin(START_US)
    held = visits_of((1, 10, 60, 1))
    first, _ = windows.window(held, FIRST[:1])
    windows.closed(held, FIRST[:1])
    second, _ = windows.window(visits_of(), NONE)
    assert int(first["ended"].sum()) == 0
    assert int(first["present_us"].sum()) == 50_000_000
    assert int(second["ended"].sum()) == int(second["censored"].sum()) == 1
    assert int(second["present_us"].sum()) == 0


def test_a_floor_counts_who_comes_to_it_and_each_person_once(layout: Layout) -> None:
    windows = Aggregates(layout, Settings())
    windows.begin(START_US)
    upstairs = 4
    visits = visits_of((0, 10, 20, 0), (1, 20, 60, 0), (upstairs, 70, 90, 0), (1, 100, 130, 0), (1, 30, 50, 0))
    visits["epc"][:, 0] = 7
    visits["epc"][-1, 0], visits["tag_class"][-1] = 8, TagClass.CART
    windows.closed(visits, np.array([-1, 0, 1, upstairs, -1], np.int16))
    another = visits_of((1, 40, 800, 0))
    another["tag_class"] = TagClass.UNKNOWN
    zones, floors = windows.window(another, FIRST[:1])
    ground, first = floors
    names = ["member", "unknown", "cart", "visitors", "peak"]
    assert ground[names].item() == (2, 1, 1, 2, 2)  # a member twice, since it was upstairs in between
    assert first[names].item() == (1, 0, 0, 1, 1)
    assert ground["present_us"] == (10 + 40 + 30 + 760) * 1_000_000
    assert ground["coverage"] == first["coverage"] == 1
    assert int(zones["entered"].sum()) == 6


def test_transitions_count_ways_between_zones() -> None:
    paths = [visits_of((0, 0, 1, 0), (2, 1, 2, 0), (2, 9, 10, 0), (0, 10, 11, 0)), visits_of((2, 0, 1, 0))]
    counts = journeys.transitions(paths, 3)
    assert counts.sum() == 6
    assert counts[3, 0] == counts[0, 2] == counts[2, 0] == counts[0, 3] == counts[3, 2] == counts[2, 3] == 1
    halves = journeys.transitions(paths[:1], 3) + journeys.transitions(paths[1:], 3)
    assert (halves == counts).all()
