"""One class on its way: when it is sent again, and when it is not. Times are the test's own."""

from __future__ import annotations

import pytest

from sync.in_flight import PATIENCE, PATIENCE_MOST_S, SILENCE_S, WINDOW, InFlight


def sent(in_flight: InFlight, *numbers: int, at_s: float, taken: bool = True) -> None:
    for last in numbers:
        in_flight.sent(last, 100, at_s)
        if taken:
            in_flight.taken(last, at_s)


@pytest.mark.parametrize("upto", [0, 20])
def test_after_a_pause_was_lifted_what_is_unheard_is_sent_again_as_after_any_silence(upto: int) -> None:
    in_flight = InFlight("journey")
    sent(in_flight, 10, 20, 30, at_s=100.0)
    in_flight.take_ack(0, 600.0, 101.0)
    assert in_flight.paused_s(102.0) == 599.0
    in_flight.take_ack(upto, 0.0, 103.0)
    assert in_flight.paused_s(103.0) == 0
    assert not in_flight.silent(103.0 + SILENCE_S[0] - 0.1)
    assert in_flight.silent(103.0 + PATIENCE_MOST_S + 0.1)
    assert (in_flight.cursor, in_flight.silences) == (upto, 1)


def test_a_pause_that_runs_out_is_a_silence_from_its_end_on() -> None:
    in_flight = InFlight("journey")
    sent(in_flight, 10, at_s=100.0)
    in_flight.take_ack(0, 30.0, 101.0)
    assert not in_flight.silent(131.0 + SILENCE_S[0] - 0.1)
    assert in_flight.silent(131.0 + SILENCE_S[0] + 0.1)


def test_what_the_broker_does_not_have_yet_nobody_is_silent_about() -> None:
    """On a slow line a batch takes long: it is judged by the line, not by its age."""
    in_flight = InFlight("journey")
    sent(in_flight, 10, at_s=100.0)
    sent(in_flight, 20, at_s=100.0, taken=False)
    assert not in_flight.silent(1000.0)
    assert in_flight.wait_s(1000.0) <= 0  # but there may be more to send
    in_flight.looking()
    assert in_flight.wait_s(1000.0) == float("inf")
    in_flight.taken(20, 1000.0)
    assert in_flight.wait_s(1000.0) == SILENCE_S[0]
    assert in_flight.silent(1000.0 + SILENCE_S[0])


def test_a_crm_that_takes_its_time_is_waited_for_the_next_time() -> None:
    in_flight = InFlight("journey")
    sent(in_flight, 10, 20, 30, at_s=100.0)
    assert in_flight.silent(100.0 + SILENCE_S[0])
    sent(in_flight, 10, at_s=102.0)
    assert in_flight.take_ack(30, 0.0, 102.5)  # of all that was sent before: it only came late
    sent(in_flight, 40, at_s=104.0)
    assert not in_flight.silent(104.0 + PATIENCE * 2.5 - 0.1)
    for n in range(5, 25):  # quick ones again
        assert in_flight.take_ack(10 * n - 10, 0.0, 104.1 + n - 5)
        sent(in_flight, 10 * n, at_s=105.0 + n - 5)
    assert in_flight.silent(124.0 + SILENCE_S[0])


def test_a_message_that_was_lost_makes_nobody_patient() -> None:
    in_flight = InFlight("journey")
    for n in range(5):
        sent(in_flight, 10 + 10 * n, at_s=100.0 + 10 * n)
        assert in_flight.silent(100.0 + 10 * n + SILENCE_S[0])
        sent(in_flight, 10 + 10 * n, at_s=102.0 + 10 * n)
        assert in_flight.take_ack(10 + 10 * n, 0.0, 102.1 + 10 * n)


def test_silences_get_longer_and_an_hour_of_them_costs_no_minute_afterwards() -> None:
    in_flight, now = InFlight("journey"), 100.0
    gaps = []
    for _ in range(10):
        sent(in_flight, 10, at_s=now)
        in_flight.looking()
        gaps.append(in_flight.wait_s(now))
        now += gaps[-1]
        assert in_flight.silent(now)
    assert gaps[0] == SILENCE_S[0]
    assert gaps[-1] == SILENCE_S[1]
    sent(in_flight, 10, at_s=now)
    assert in_flight.wait_s(now) >= 0
    assert in_flight.take_ack(10, 0.0, now + 1)
    sent(in_flight, 20, at_s=now + 1)
    assert in_flight.silent(now + 1 + PATIENCE_MOST_S)


def test_a_window_of_batches_and_no_more_goes_out_unheard() -> None:
    in_flight = InFlight("journey")
    for n in range(1, WINDOW + 1):
        assert in_flight.wait_s(100.0) <= 0
        sent(in_flight, n, at_s=100.0)
    assert in_flight.wait_s(100.0) > 0
    assert in_flight.take_ack(1, 0.0, 100.5)
    assert in_flight.wait_s(100.5) <= 0


def test_an_older_ack_changes_nothing_but_the_pause() -> None:
    in_flight = InFlight("journey")
    sent(in_flight, 10, 20, at_s=100.0)
    assert in_flight.take_ack(10, 0.0, 100.1)
    assert not in_flight.take_ack(5, 0.0, 101.9)
    assert in_flight.acked == 10
    assert in_flight.silent(100.1 + SILENCE_S[0])  # a repeated ack is no sign that it moves
