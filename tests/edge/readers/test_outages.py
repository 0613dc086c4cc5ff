"""When antennas count as down, and how far the watermark may go, for all that a link can do."""

from __future__ import annotations

import pytest

from drivers.session import Gap, Link, ReaderStatus
from edge.readers.outages import AWAY_S, HAND_OVER_S, Outages

S = 1_000_000
Switches = list[tuple[str, int, bool]]


def up(since_us: int, reads_from_us: int | None = None, reader: str = "r") -> ReaderStatus:
    return ReaderStatus(reader, Link.UP, "", since_us, reads_from_us=reads_from_us)


def down(since_us: int, keeps: bool, reader: str = "r") -> ReaderStatus:
    return ReaderStatus(reader, Link.DOWN, "", since_us, keeps=keeps)


@pytest.fixture
def told() -> Switches:
    return []


@pytest.fixture
def outages(told: Switches) -> Outages:
    outages = Outages(["r", "s"], lambda reader, at_us, up: told.append((reader, at_us, up)))
    outages.begin(0, None)
    for reader in ("r", "s"):
        outages.link(up(S, reader=reader), 1)
    told.clear()
    return outages


def bound(outages: Outages, now_s: float) -> int | None:
    return outages.bound_us(now_s, round(now_s * S), hurry=False)


def test_at_the_first_start_all_are_down_until_they_connect() -> None:
    told: Switches = []
    outages = Outages(["r"], lambda *switch: told.append(switch))
    outages.begin(5, None)
    assert bound(outages, 1) is None
    outages.link(up(9), 2)
    assert told == [("r", 5, False), ("r", 9, True)]


def test_what_was_kept_over_a_restart_leaves_no_outage() -> None:
    told: Switches = []
    outages = Outages(["r", "s"], lambda *switch: told.append(switch))
    outages.begin(100 * S, 500.0)
    assert bound(outages, 501) == 100 * S
    outages.link(up(160 * S, 0), 502)
    assert bound(outages, 502) == 100 * S
    outages.link(up(160 * S, 130 * S), 503)
    outages.link(up(155 * S, reader="s"), 503)
    assert told == [("s", 100 * S, False), ("s", 155 * S, True)]
    assert bound(outages, 503) == 130 * S
    outages.link(up(160 * S), 504)
    assert bound(outages, 504) is None
    assert len(told) == 2


def test_a_reader_that_keeps_nothing_is_out_at_once(outages: Outages, told: Switches) -> None:
    outages.link(down(10 * S, keeps=False), 10)
    assert told == [("r", 10 * S, False)]
    assert bound(outages, 10) is None
    outages.link(up(20 * S), 20)
    assert told[1:] == [("r", 20 * S, True)]


def test_a_link_that_comes_back_with_all_it_kept(outages: Outages, told: Switches) -> None:
    outages.link(down(10 * S, keeps=True), 10)
    assert bound(outages, 20) == 10 * S
    outages.link(up(21 * S, 9 * S), 21)
    assert bound(outages, 22) == 10 * S
    outages.link(up(21 * S), 24)
    assert bound(outages, 24) is None
    assert told == []


def test_a_link_that_comes_back_without(outages: Outages, told: Switches) -> None:
    outages.link(down(10 * S, keeps=True), 10)
    outages.link(up(21 * S), 21)
    assert told == [("r", 10 * S, False), ("r", 21 * S, True)]
    assert bound(outages, 21) is None


def test_nobody_waits_for_ever(outages: Outages, told: Switches) -> None:
    outages.link(down(10 * S, keeps=True), 10)
    assert bound(outages, 10 + AWAY_S) == 10 * S
    assert bound(outages, 11 + AWAY_S) is None
    assert told == [("r", 10 * S, False)]
    outages.link(up(200 * S, 10 * S), 200)
    outages.link(up(200 * S, 50 * S), 201)
    assert told[1:] == [("r", 200 * S, True)]
    assert bound(outages, 201) is None


def test_nor_for_a_hand_over_without_end_though_the_link_flaps(outages: Outages, told: Switches) -> None:
    outages.link(down(10 * S, keeps=True), 10)
    for second in range(12, 60, 4):
        outages.link(up(second * S, 0), second)
        outages.link(down((second + 2) * S, keeps=True), second + 2)
        assert bound(outages, second + 2) == 10 * S
    outages.link(up(70 * S, 0), 65)
    assert bound(outages, 10 + HAND_OVER_S) == 10 * S
    assert told == []
    assert bound(outages, 11 + HAND_OVER_S) is None
    assert told == [("r", 10 * S, False), ("r", round(11 + HAND_OVER_S) * S, True)]


def test_in_a_hurry_nobody_is_waited_for(outages: Outages, told: Switches) -> None:
    outages.link(down(10 * S, keeps=True), 10)
    outages.link(down(11 * S, keeps=True, reader="s"), 11)
    outages.link(up(12 * S, 0, reader="s"), 12)
    assert outages.bound_us(12, 12 * S, hurry=True) is None
    assert told == [("r", 10 * S, False), ("s", 11 * S, False), ("s", 12 * S, True)]


def test_lost_reads_are_an_outage_of_their_own(outages: Outages, told: Switches) -> None:
    outages.gap(Gap("r", 5 * S, 8 * S, "overflow"))
    assert told == [("r", 5 * S, False), ("r", 8 * S, True)]
    told.clear()
    outages.link(down(10 * S, keeps=True), 10)
    outages.link(up(21 * S, 0), 21)
    outages.gap(Gap("r", 0, 15 * S, "overflow"))
    assert told == [("r", 10 * S, False), ("r", 15 * S, True)]
