"""The correction of a reader's clock: steady, near the truth, and not fooled by old reports."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from drivers.clock import ReaderClock

S = 1_000_000
HOUR = 3600 * S
T0 = 1_700_000_000 * S


def feed(clock: ReaderClock, offset_us: int, start_us: int, seconds: int, seed: int = 1, drift_ppm: float = 0) -> None:
    """Five messages a second from a reader whose clock is `offset_us` ahead, through a network of 1 to 80 ms."""
    rng = random.Random(seed)
    for i in range(seconds * 5):
        true_us = start_us + i * S // 5
        delay_us = 1000 + min(int(rng.expovariate(1 / 10_000)), 79_000)
        clock.sample(true_us + offset_us + int((true_us - T0) * drift_ppm / 1e6), true_us + delay_us)


def test_before_any_sample_nothing_is_known() -> None:
    assert ReaderClock(100_000).correction_us is None


@settings(deadline=None, max_examples=examples(30))
@given(st.integers(-50_000, 20_000), st.integers(0, 99))
def test_a_healthy_clock_is_not_touched(offset_us: int, seed: int) -> None:
    clock = ReaderClock(100_000)
    feed(clock, offset_us, T0, 60, seed)
    assert clock.correction_us == 0


@settings(deadline=None, max_examples=examples(30))
@given(st.integers(-10 * HOUR, 10 * HOUR).filter(lambda o: abs(o) > 300_000), st.integers(0, 99))
def test_a_wrong_clock_is_corrected_to_within_the_least_delay(offset_us: int, seed: int) -> None:
    clock = ReaderClock(100_000)
    feed(clock, offset_us, T0, 60, seed)
    assert 0 <= (clock.correction_us or 0) + offset_us <= 10_000


def test_drift_is_followed() -> None:
    clock = ReaderClock(100_000)
    feed(clock, HOUR, T0, 3600, drift_ppm=100)
    truth_us = HOUR + (3600 * 100)
    assert abs((clock.correction_us or 0) + truth_us) <= 60_000


def test_old_reports_do_not_make_a_clock_slow() -> None:
    clock = ReaderClock(100_000)
    clock.sample(T0, T0 + 1000)
    for i in range(600):  # ten minutes of held reports drain within 30 s
        clock.sample(T0 - 600 * S + i * S, T0 + i * S // 20)
    assert clock.correction_us == 0


def test_a_clock_set_ahead_is_followed_after_three_messages() -> None:
    clock = ReaderClock(100_000)
    feed(clock, 0, T0, 60)
    for i in range(3):
        clock.sample(T0 + 61 * S + i * S // 5 + HOUR, T0 + 61 * S + i * S // 5 + 2000)
    assert clock.correction_us == 2000 - HOUR


def test_a_clock_set_back_is_followed_within_seconds() -> None:
    clock = ReaderClock(100_000)
    feed(clock, 0, T0, 60)
    feed(clock, -HOUR, T0 + 60 * S, 5)
    assert clock.correction_us == 0
    feed(clock, -HOUR, T0 + 65 * S, 10)
    assert 0 <= clock.correction_us - HOUR <= 10_000


def test_one_absurd_time_changes_nothing() -> None:
    clock = ReaderClock(100_000)
    feed(clock, 0, T0, 10)
    clock.sample(T0 + 400 * 24 * HOUR, T0 + 11 * S)
    feed(clock, 0, T0 + 11 * S, 10)
    assert clock.correction_us == 0
