"""The last results of costly computations: which are kept, and within how many bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.days.lately import Lately, array_bytes


@dataclass(frozen=True)
class Sums:
    counts: NDArray[np.int64]
    by_tier: dict[str, NDArray[np.int64]]
    n: int = 1


def made(eights: int) -> Sums:
    return Sums(np.zeros(eights // 2, np.int64), {"A": np.zeros(eights - eights // 2, np.int64)})


@pytest.fixture
def asked() -> list[str]:
    return []


def ask(lately: Lately[Sums], key: str, eights: int, asked: list[str]) -> Sums:
    def compute() -> Sums:
        asked.append(key)
        return made(eights)

    return lately.get(key, compute)


def test_the_last_ones_are_kept_within_their_number(asked: list[str]) -> None:
    lately: Lately[Sums] = Lately(2, 10**6)
    for key in "abacabb":
        ask(lately, key, 1, asked)
    assert asked == ["a", "b", "c", "b"]


def test_the_last_ones_are_kept_within_their_bytes(asked: list[str]) -> None:
    lately: Lately[Sums] = Lately(9, 800)
    for key in "abcd":
        ask(lately, key, 30, asked)
        assert lately.bytes <= 800
    ask(lately, "b", 30, asked)
    assert asked == ["a", "b", "c", "d"], "three of them fit"
    ask(lately, "a", 30, asked)
    assert asked[-1] == "a"


def test_one_that_is_too_large_is_kept_alone(asked: list[str]) -> None:
    lately: Lately[Sums] = Lately(9, 800)
    ask(lately, "small", 10, asked)
    large = ask(lately, "large", 500, asked)
    assert ask(lately, "large", 500, asked) is large
    assert lately.bytes == 4000
    ask(lately, "small", 10, asked)
    assert (asked, lately.bytes) == (["small", "large", "small"], 80)


def test_the_bytes_of_all_arrays_are_counted() -> None:
    assert array_bytes(None) == array_bytes(3) == array_bytes("text") == 0
    assert array_bytes((np.zeros(2, np.int32), [made(3), {"x": np.zeros(1, np.bool_)}])) == 8 + 24 + 1
