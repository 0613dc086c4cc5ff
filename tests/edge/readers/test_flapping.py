"""Changes that repeat themselves become few events with a count, and no change is lost."""

from __future__ import annotations

import json
import logging

import pytest
from gateways import Gateway
from rigs import HandClock, running, shop_of

from drivers.session import Gap, Link, Notice, ReaderStatus
from edge.readers.flapping import CALM_S, JOURNAL, SINGLY, TOGETHER_S, Flapping

DAY_S = 86_400


def told(every_s: float, seconds: float) -> list[tuple[float, int]]:
    """When changes that come `every_s` are told, and how many each stands for."""
    flapping: Flapping[int] = Flapping()
    events = []
    now_s, next_s, change = 0.0, 0.0, 0
    while now_s < seconds:
        if now_s >= next_s:
            change, next_s = change + 1, next_s + every_s
            if flapping.now("gate-1", change, now_s):
                events.append((now_s, 1))
        events += [(now_s, n) for _, n in flapping.due(now_s)]
        now_s += 0.5
    events += [(now_s, n) for _, n in flapping.due(now_s, all_=True)]
    assert sum(n for _, n in events) == change
    return events


def test_a_link_that_cuts_every_two_seconds_for_a_day() -> None:
    events = told(1.0, DAY_S)  # down and up
    assert len(events) <= SINGLY + DAY_S / TOGETHER_S + 1
    assert [n for _, n in events[:SINGLY]] == [1] * SINGLY
    assert max(n for _, n in events) <= TOGETHER_S + 1


@pytest.mark.parametrize("every_s", [5.0, 30.0, 61.0, 100.0])
def test_slower_ones_are_never_more_than_one_a_minute_for_long(every_s: float) -> None:
    assert len(told(every_s, DAY_S)) <= SINGLY + DAY_S / CALM_S


@pytest.mark.parametrize("every_s", [1.0, 100.0, 890.0, 910.0, 1200.0, 3000.0])
def test_the_journal_of_a_day_is_read_in_a_minute(every_s: float) -> None:
    flapping: Flapping[int] = Flapping(JOURNAL)
    lines, change = 0, 0
    for second in range(DAY_S):
        if second % every_s < 1:
            change += 1
            lines += flapping.now("gate-1", change, second)
        lines += len(list(flapping.due(second)))
    assert lines <= JOURNAL.singly * (1 + DAY_S / JOURNAL.together_s)


@pytest.mark.parametrize("every_s", [TOGETHER_S / 3, 3600.0])
def test_now_and_then_is_told_one_by_one(every_s: float) -> None:
    assert {n for _, n in told(every_s, DAY_S)} == {1}


def test_the_last_state_is_told_once_it_is_calm() -> None:
    flapping: Flapping[str] = Flapping()
    for second in range(20):
        flapping.now("gate-1", f"state {second}", second)
    assert list(flapping.due(19 + CALM_S - 1)) == []
    assert list(flapping.due(19 + CALM_S)) == [("state 19", 20 - SINGLY)]
    assert list(flapping.due(19 + 2 * CALM_S)) == []
    # Much later it is a reader like any other.
    assert list(flapping.due(19 + CALM_S + TOGETHER_S)) == []
    assert flapping.now("gate-1", "down", 5000.0)


def test_readers_and_kinds_do_not_silence_each_other() -> None:
    flapping: Flapping[str] = Flapping()
    for second in range(20):
        flapping.now(("gate-1", "link"), "x", second)
    assert flapping.now(("gate-2", "link"), "x", 20)
    assert flapping.now(("gate-1", "gap"), "x", 20)


async def test_a_flapping_reader_in_outbox_and_log(
    gateway: Gateway, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tagtrail.pipeline")
    async with running(shop_of(gateway), clock) as rig:
        for _ in range(200):
            for link, reason in ((Link.DOWN, "the connection broke: reset"), (Link.UP, "taking inventory")):
                rig.inbox.status(ReaderStatus("r1", link, reason, clock.now_us()))
            rig.inbox.notice(Notice("r1", clock.now_us(), "the reader reports an exception: 81 degrees"))
            rig.inbox.gap(Gap("r1", clock.now_us() - 2, clock.now_us() - 1, "reads were lost"))
        rig.inbox.status(ReaderStatus("r1", Link.DOWN, "no answer", clock.now_us()))
        await rig.until(lambda: rig.pipeline.readers["r1"].reason == "no answer")
        lines = [record for record in caplog.records if "reader r1" in record.getMessage()]
        assert len(lines) == 3 * JOURNAL.singly
    events = [
        event
        for (payload,) in gateway.rows("SELECT payload FROM outbox_health ORDER BY seq")
        if (event := json.loads(payload))["type"] == "reader"
    ]
    assert len(events) == 3 * SINGLY + 3
    # One at the start, when it came up; the last is told when the service ends at the latest.
    assert sum(event.get("changes", 1) for event in events) == 1 + 400 + 1 + 200 + 200
    last = next(event for event in events if event["reason"] == "no answer")
    assert (last["link"], last["changes"]) == ("down", 402 - SINGLY)
    assert any(f"(after {402 - JOURNAL.singly} changes)" in record.getMessage() for record in caplog.records)
