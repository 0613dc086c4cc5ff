"""Sets of ranges beside plain sets of numbers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from sync.chain import numbers

RANGES = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 12)).map(lambda two: (two[0], two[0] + two[1])))


def spread(ranges: list[tuple[int, int]]) -> set[int]:
    return {n for first, last in ranges for n in range(first, last + 1)}


@settings(max_examples=examples(300), deadline=None)
@given(RANGES, st.integers(1, 60), st.integers(0, 20))
def test_ranges_say_what_sets_say(ranges: list[tuple[int, int]], first: int, more: int) -> None:
    made: list[tuple[int, int]] = []
    for one in ranges:
        numbers.add(made, *one)
    assert spread(made) == spread(ranges)
    assert made == sorted(made)
    assert all(before[1] + 1 < after[0] for before, after in pairwise(made))
    asked = set(range(first, first + more + 1))
    assert spread(numbers.outside(made, first, first + more)) == asked - spread(made)
    assert spread(numbers.inside(made, first, first + more)) == asked & spread(made)
