"""Store time from a reader's milliseconds since its search cycle began."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from drivers.serial.thingmagic import SearchClock

T0_US = 1_700_000_000_000_000


def test_reads_of_one_batch_keep_their_distances() -> None:
    assert SearchClock().stamp([100, 130, 180], T0_US) == [T0_US - 80_000, T0_US - 50_000, T0_US]


def test_a_late_batch_is_put_back_by_its_delay() -> None:
    times = SearchClock()
    times.stamp([100], T0_US)
    assert times.stamp([200, 300], T0_US + 400_000) == [T0_US + 100_000, T0_US + 200_000]


def test_a_new_cycle_is_seen_by_falling_milliseconds() -> None:
    times = SearchClock()
    times.stamp([900], T0_US)
    assert times.stamp([10], T0_US + 120_000) == [T0_US + 120_000]


def test_a_new_cycle_is_seen_by_reads_grown_too_old() -> None:
    times = SearchClock()
    times.stamp([100], T0_US)
    assert times.stamp([150], T0_US + 1_050_000) == [T0_US + 1_050_000]


def test_without_reader_time_the_time_of_receipt_stands() -> None:
    assert SearchClock().stamp([None, None], T0_US) == [T0_US, T0_US]


def test_an_implausible_time_makes_no_read_old() -> None:
    assert SearchClock().stamp([10, 4_000_000_000], T0_US) == [T0_US, T0_US]


@given(st.lists(st.tuples(st.lists(st.none() | st.integers(0, 2**32 - 1), max_size=6), st.integers(0, 3_000_000))))
def test_no_read_is_from_the_future_or_the_distant_past(batches: list[tuple[list[int | None], int]]) -> None:
    times = SearchClock()
    now_us = T0_US
    for times_ms, wait_us in batches:
        now_us += wait_us
        assert all(now_us - SearchClock.OLD_US <= stamp <= now_us for stamp in times.stamp(times_ms, now_us))


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(0, 100)), min_size=1))
def test_with_cycles_of_one_second_no_stamp_is_further_off_than_the_lag(steps: list[tuple[int, int]]) -> None:
    times = SearchClock()
    at_ms = received_ms = 0
    for step_ms, delay_ms in steps:
        at_ms += step_ms
        received_ms = max(received_ms, at_ms + delay_ms)
        (stamp,) = times.stamp([at_ms % 1000], T0_US + 1000 * received_ms)
        assert abs(stamp - (T0_US + 1000 * at_ms)) <= SearchClock.LAG_US
