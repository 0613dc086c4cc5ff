"""Scoring on cases that can be checked by hand."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.shop.score import Stay, joined, path_similarity, read_stays, score, write_stays

S = 1_000_000


def stay(zone: str, enter_s: float, exit_s: float, epc: Any = "2d01") -> Any:
    return Stay(epc, zone, round(enter_s * S), round(exit_s * S))


def test_pieces_are_joined_up_to_30_s_and_kept_from_10_s() -> None:
    pieces = [stay("a", 0, 4), stay("a", 34, 40), stay("a", 71, 80), stay("b", 5, 15)]
    assert joined(pieces) == [stay("a", 0, 40), stay("b", 5, 15)]


def test_joining_does_not_depend_on_the_order_of_pieces() -> None:
    pieces = [stay("a", 34, 40), stay("a", 0, 100), stay("a", 120, 121)]
    assert joined(pieces) == [stay("a", 0, 121)]


def test_perfect() -> None:
    truth = [stay("a", 0, 60), stay("b", 70, 200), stay("a", 0, 30, "2d02")]
    result = score(truth, truth)
    assert (result.precision, result.recall, result.f1) == (1, 1, 1)
    assert (result.dwell_wape, result.zone_dwell_wape, result.right_zone_share) == (0, 0, 1)
    assert result.path_similarity == 1


def test_half_overlap_matches_and_less_does_not() -> None:
    assert score([stay("a", 0, 100)], [stay("a", 0, 50)]).matched == 1
    assert score([stay("a", 0, 100)], [stay("a", 0, 49)]).matched == 0
    assert score([stay("a", 0, 100)], [stay("a", 50, 150)]).matched == 0
    assert score([stay("a", 0, 100)], [stay("b", 0, 100)]).matched == 0
    assert score([stay("a", 0, 100)], [stay("a", 0, 100, "2d02")]).matched == 0


def test_counts_and_errors() -> None:
    truth = [stay("a", 0, 100), stay("b", 100, 200), stay("a", 300, 400)]
    visits = [stay("a", 0, 80), stay("c", 100, 200), stay("a", 300, 420), stay("b", 500, 600)]
    result = score(truth, visits)
    assert (result.true_visits, result.visits, result.matched) == (3, 4, 2)
    assert [result.precision, result.recall] == pytest.approx([0.5, 2 / 3])
    assert result.f1 == pytest.approx(2 * 2 / 7)
    assert result.dwell_wape == pytest.approx(40 / 200)
    # zone a: 200 against 200; b: 100 against 100; c: none against 100
    assert result.zone_dwell_wape == pytest.approx(100 / 300)
    # right: 0–80 in a, 200–300 and 420–500 in none, 300–400 in a
    assert result.right_zone_share == pytest.approx((80 + 100 + 100 + 80) / 600)
    # a b a against a c a b: one exchanged, one added
    assert result.path_similarity == pytest.approx(1 - 2 / 4)


def test_a_tag_that_only_one_side_knows_counts() -> None:
    missed = score([stay("a", 0, 60)], [])
    assert (missed.recall, missed.f1, missed.right_zone_share, missed.path_similarity) == (0, 0, 0, 0)
    invented = score([], [stay("a", 0, 60)])
    assert (invented.precision, invented.f1) == (0, 0)
    nothing = score([], [])
    assert (nothing.f1, nothing.dwell_wape) == (1, 0)


def test_merchandise_is_not_scored() -> None:
    assert score([], [stay("a", 0, 60, "3034")]).visits == 0
    assert score([], [stay("a", 0, 60, "3034")], merchandise="").visits == 1


def test_a_visit_is_matched_once() -> None:
    truth = [stay("a", 0, 60), stay("a", 100, 160)]
    assert score(truth, [stay("a", 0, 160)]).matched == 0
    assert score(truth, [stay("a", 0, 61)]).matched == 1


def test_short_visits_are_left_out_on_both_sides() -> None:
    assert score([stay("a", 0, 9)], []).f1 == 1
    assert score([], [stay("a", 0, 9)]).f1 == 1


@pytest.mark.parametrize(
    ("a", "b", "expected"), [("", "", 1), ("abc", "abc", 1), ("abc", "", 0), ("abcd", "abd", 0.75), ("ab", "ba", 0)]
)
def test_path_similarity(a: Any, b: Any, expected: Any) -> None:
    assert path_similarity(a, b) == pytest.approx(expected)


zones = st.lists(st.sampled_from("abc"), max_size=8)


@given(zones, zones)
def test_path_similarity_is_symmetric_and_bounded(a: Any, b: Any) -> None:
    assert path_similarity(a, b) == path_similarity(b, a)
    assert 0 <= path_similarity(a, b) <= 1


stays = st.lists(
    st.builds(
        lambda epc, zone, enter, length: stay(zone, enter, enter + length, epc),
        st.sampled_from(["2d01", "2d02"]),
        st.sampled_from("abc"),
        st.integers(0, 500),
        st.integers(1, 200),
    ),
    max_size=12,
)


@given(stays, stays)
def test_scores_are_bounded_and_order_does_not_matter(truth: Any, visits: Any) -> None:
    result = score(truth, visits)
    for share in (result.precision, result.recall, result.f1, result.right_zone_share, result.path_similarity):
        assert 0 <= share <= 1
    assert result.matched <= min(result.true_visits, result.visits)
    assert score(truth[::-1], visits[::-1]) == result
    swapped = score(visits, truth)
    assert (swapped.precision, swapped.recall) == (result.recall, result.precision)


def test_files_are_read_as_written_and_other_columns_skipped(tmp_path: Path) -> None:
    stays = [stay("a", 0, 60), stay("b", 70, 200)]
    for name in ("t.csv", "t.csv.gz"):
        write_stays(tmp_path / name, stays)
        assert read_stays(tmp_path / name) == stays
    with gzip.open(tmp_path / "t.csv.gz", "rt") as file:
        assert file.readline() == "epc,zone,enter_us,exit_us\n"
    (tmp_path / "v.csv").write_text("epc,zone,enter_us,exit_us,reads,censored\n2D01,a,0,60000000,7,0\n")
    assert read_stays(tmp_path / "v.csv") == [stay("a", 0, 60)]
    (tmp_path / "bad.csv").write_text("epc,zone\n")
    with pytest.raises(ValueError, match="enter_us, exit_us"):
        read_stays(tmp_path / "bad.csv")
