"""One class on its way: when it is sent again, and when it is not. Times are the test's own."""

from __future__ import annotations

import pytest

from sync.flow import PATIENCE, PATIENCE_MOST_S, SILENCE_S, WINDOW, Flow


def sent(flow: Flow, *numbers: int, at_s: float, taken: bool = True) -> None:
    for last in numbers:
        flow.sent(last, 100, at_s)
        if taken:
            flow.taken(last, at_s)


@pytest.mark.parametrize("upto", [0, 20])
def test_after_a_pause_was_lifted_what_is_unheard_is_sent_again_as_after_any_silence(upto: int) -> None:
    flow = Flow("journey")
    sent(flow, 10, 20, 30, at_s=100.0)
    flow.take_ack(0, 600.0, 101.0)
    assert flow.paused_s(102.0) == 599.0
    flow.take_ack(upto, 0.0, 103.0)
    assert flow.paused_s(103.0) == 0
    assert not flow.silent(103.0 + SILENCE_S[0] - 0.1)
    assert flow.silent(103.0 + PATIENCE_MOST_S + 0.1)
    assert (flow.cursor, flow.silences) == (upto, 1)


def test_a_pause_that_runs_out_is_a_silence_from_its_end_on() -> None:
    flow = Flow("journey")
    sent(flow, 10, at_s=100.0)
    flow.take_ack(0, 30.0, 101.0)
    assert not flow.silent(131.0 + SILENCE_S[0] - 0.1)
    assert flow.silent(131.0 + SILENCE_S[0] + 0.1)


def test_what_the_broker_does_not_have_yet_nobody_is_silent_about() -> None:
    """On a slow line a batch takes long: it is judged by the line, not by its age."""
    flow = Flow("journey")
    sent(flow, 10, at_s=100.0)
    sent(flow, 20, at_s=100.0, taken=False)
    assert not flow.silent(1000.0)
    assert flow.wait_s(1000.0) <= 0  # but there may be more to send
    flow.looking()
    assert flow.wait_s(1000.0) == float("inf")
    flow.taken(20, 1000.0)
    assert flow.wait_s(1000.0) == SILENCE_S[0]
    assert flow.silent(1000.0 + SILENCE_S[0])


def test_a_crm_that_takes_its_time_is_waited_for_the_next_time() -> None:
    flow = Flow("journey")
    sent(flow, 10, 20, 30, at_s=100.0)
    assert flow.silent(100.0 + SILENCE_S[0])
    sent(flow, 10, at_s=102.0)
    assert flow.take_ack(30, 0.0, 102.5)  # of all that was sent before: it only came late
    sent(flow, 40, at_s=104.0)
    assert not flow.silent(104.0 + PATIENCE * 2.5 - 0.1)
    for n in range(5, 25):  # quick ones again
        assert flow.take_ack(10 * n - 10, 0.0, 104.1 + n - 5)
        sent(flow, 10 * n, at_s=105.0 + n - 5)
    assert flow.silent(124.0 + SILENCE_S[0])


def test_a_message_that_was_lost_makes_nobody_patient() -> None:
    flow = Flow("journey")
    for n in range(5):
        sent(flow, 10 + 10 * n, at_s=100.0 + 10 * n)
        assert flow.silent(100.0 + 10 * n + SILENCE_S[0])
        sent(flow, 10 + 10 * n, at_s=102.0 + 10 * n)
        assert flow.take_ack(10 + 10 * n, 0.0, 102.1 + 10 * n)


def test_silences_get_longer_and_an_hour_of_them_costs_no_minute_afterwards() -> None:
    flow, now = Flow("journey"), 100.0
    gaps = []
    for _ in range(10):
        sent(flow, 10, at_s=now)
        flow.looking()
        gaps.append(flow.wait_s(now))
        now += gaps[-1]
        assert flow.silent(now)
    assert gaps[0] == SILENCE_S[0]
    assert gaps[-1] == SILENCE_S[1]
    sent(flow, 10, at_s=now)
    assert flow.wait_s(now) >= 0
    assert flow.take_ack(10, 0.0, now + 1)
    sent(flow, 20, at_s=now + 1)
    assert flow.silent(now + 1 + PATIENCE_MOST_S)


def test_a_window_of_batches_and_no_more_goes_out_unheard() -> None:
    flow = Flow("journey")
    for n in range(1, WINDOW + 1):
        assert flow.wait_s(100.0) <= 0
        sent(flow, n, at_s=100.0)
    assert flow.wait_s(100.0) > 0
    assert flow.take_ack(1, 0.0, 100.5)
    assert flow.wait_s(100.5) <= 0


def test_an_older_ack_changes_nothing_but_the_pause() -> None:
    flow = Flow("journey")
    sent(flow, 10, 20, at_s=100.0)
    assert flow.take_ack(10, 0.0, 100.1)
    assert not flow.take_ack(5, 0.0, 101.9)
    assert flow.acked == 10
    assert flow.silent(100.1 + SILENCE_S[0])  # a repeated ack is no sign that it moves
