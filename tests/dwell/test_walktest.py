"""What a walk test says: who walked, where the time went, which antennas have to move, which zones are one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dwell import walktest
from dwell.layout import Layout
from dwell.visits import VISIT, Visits

SHOES, BAGS = 1, 2
US = 1_000_000


def visits(*rows: tuple[int, int, int]) -> Visits:
    made = np.zeros(len(rows), VISIT)
    for visit, (zone, enter_s, exit_s) in zip(made, rows, strict=True):
        visit["zone"], visit["enter_us"], visit["exit_us"], visit["epc_bits"] = zone, enter_s * US, exit_s * US, 96
    return made


def test_seconds_go_to_zones_and_to_none() -> None:
    matrix = walktest.confusion(visits((SHOES, 0, 60), (BAGS, 70, 100)), visits((SHOES, 10, 40), (BAGS, 50, 90)), 4)
    assert matrix[SHOES].tolist() == [0, 30, 10, 0, 20]
    assert matrix[BAGS].tolist() == [0, 0, 20, 0, 10]
    assert matrix.sum() == 90


def test_zones_that_swallow_each_other_are_named() -> None:
    matrix = np.zeros((3, 4))
    matrix[0] = [50, 50, 0, 0]
    matrix[1] = [10, 90, 0, 0]
    matrix[2] = [0, 5, 90, 5]
    assert walktest.alike(matrix) == [(0, 1, 0.3)]


def test_the_walker_is_who_was_heard_in_all_zones(walk: Any, layout: Layout) -> None:
    stays = [(SHOES, 0.0, 60.0), (BAGS, 60.0, 120.0), (3, 120.0, 180.0)]
    reads = np.concatenate([walk(stays, number=1), walk([(SHOES, 0, 180)], number=2, rate=20.0)])
    at = np.array(stays).T
    start = 1_767_232_800_000_000
    from_us, to_us = ((start + x * US).astype(np.int64) for x in (at[1], at[2]))
    found = walktest.walker(reads, layout, at[0].astype(np.int64), from_us, to_us)
    assert reads["epc"][found, 0] == walk(stays, number=1)["epc"][0, 0]
    with pytest.raises(ValueError, match="no tag was heard"):
        walktest.walker(reads, layout, np.array([SHOES]), np.array([0]), np.array([1]))


def test_an_antenna_in_another_zone_is_found(walk: Any, layout: Layout) -> None:
    reads = walk([(SHOES, 0, 60), (BAGS, 60, 120)], rate=5.0)
    start = 1_767_232_800_000_000
    known = visits((SHOES, 0, 60), (BAGS, 60, 120))
    known["enter_us"] += start
    known["exit_us"] += start
    known["epc"] = reads["epc"][0]
    assert walktest.to_move(layout, reads, known) == []
    swapped = reads.copy()
    swapped["antenna"][reads["antenna"] == 1] = 3
    swapped["antenna"][reads["antenna"] == 3] = 1
    assert [(m.antenna, m.zone) for m in walktest.to_move(layout, swapped, known)] == [(1, BAGS), (3, SHOES)]
