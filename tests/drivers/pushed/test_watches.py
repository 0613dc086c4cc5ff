"""Gaps in numbers, and filters that report a tag only now and then."""

from __future__ import annotations

import numpy as np
import pytest

from drivers.pushed.watches import INTERVALS, Numbering, Spacing
from drivers.read import READ, Reads


def take(watch: Numbering, *numbers: float) -> tuple[int, int, int] | None:
    return watch.take(np.array(numbers), (1000 * np.nan_to_num(np.array(numbers))).astype(np.int64))


def test_a_jump_is_a_gap_between_the_reads_around_it() -> None:
    watch = Numbering()
    assert take(watch, 7, 8, 9) is None
    assert take(watch, 10) is None
    assert take(watch, 13, 14) == (2, 10_000, 13_000)
    assert take(watch, 15, 17, 20, 21) == (3, 15_000, 20_000)


@pytest.mark.parametrize("next_", [1, 2, 3])
def test_a_reader_that_counts_anew_has_lost_nothing_that_is_known(next_: float) -> None:
    watch = Numbering()
    take(watch, 500_000)
    assert take(watch, next_) is None
    assert take(watch, next_ + 1) is None
    assert take(watch, next_ + 3) == (1, 1000 * (next_ + 1), 1000 * (next_ + 3))


def test_repeats_and_absent_numbers_are_no_gap() -> None:
    watch = Numbering()
    take(watch, 5, 6)
    assert take(watch, 5, 6) is None
    assert take(watch, float("nan")) is None
    assert take(watch, 7, float("nan"), 8) is None


def reads(*rows: tuple[int, float, int]) -> Reads:
    made = np.zeros(len(rows), READ)
    for row, (tag, at_s, antenna) in zip(made, rows, strict=True):
        row["epc"][0], row["time_us"], row["antenna"] = tag, round(at_s * 1e6), antenna
    return made


def test_a_filter_is_noticed_by_the_spacing_of_every_tag() -> None:
    watch = Spacing()
    found = [watch.take(reads((tag, 10.0 * i + tag, 0))) for i in range(INTERVALS) for tag in (1, 2, 3)]
    said = [spacing_s for spacing_s in found if spacing_s is not None]
    assert said[0] == pytest.approx(10)
    assert len(said) <= len(found) // INTERVALS


def test_one_short_interval_shows_that_there_is_no_filter() -> None:
    watch = Spacing()
    for i in range(3 * INTERVALS):
        found = watch.take(reads((1, 10.0 * i, 0), (2, 10.0 * i, 0)))
        assert found is None
        if i % 5 == 0:
            assert watch.take(reads((1, 10.0 * i + 0.5, 0))) is None


def test_a_single_tag_and_other_antennas_prove_nothing() -> None:
    watch = Spacing()
    assert all(watch.take(reads((1, 10.0 * i, 0))) is None for i in range(5 * INTERVALS))
    watch = Spacing()
    assert all(watch.take(reads((1, 1.0 * i, i % 2), (2, 1.0 * i, i % 2))) is None for i in range(INTERVALS // 2))
