"""The outbox: numbers that are never used again, and every one of them accounted for."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from typing import Any

import pytest
from brokers import MAKERS, SCHEMA, health, journey, recognised, window
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from sync import outbox, quota
from sync.contract import (
    CLASSES,
    MAX_EVENT_BYTES,
    MAX_LOST,
    MAX_MESSAGE_BYTES,
    MAX_STOPS,
    Batch,
    Door,
    Envelope,
    EventClass,
    Journey,
    Lost,
    Recognised,
    Stop,
    encode,
)


def database() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(SCHEMA)
    connection.executemany("INSERT INTO fact VALUES (?, ?)", [("store", "s1"), ("epoch", "e")])
    return connection


def envelope(class_: EventClass, batch: Any, store: str = "s1") -> Any:
    return Envelope.model_validate(
        {
            "store": store,
            "epoch": "e",
            "class": class_,
            "first": batch.first,
            "n": len(batch.payloads),
            "sent_us": 2**62,
            "boot": "b" * 36,
            "mono_us": 2**62,
            "lost": batch.lost,
        }
    )


def drain(conn: sqlite3.Connection, class_: EventClass, max_events: int = 100, max_bytes: int = MAX_EVENT_BYTES) -> Any:
    """All batches from what is acked, each checked against the contract as it would cross the wire."""
    after, batches = outbox.acknowledged(conn)[class_], []
    while (batch := outbox.pending(conn, class_, after, max_events, max_bytes)) is not None:
        message = encode(envelope(class_, batch), batch.payloads)
        assert len(message) <= MAX_MESSAGE_BYTES
        batches.append(Batch.model_validate_json(message))
        assert batch.last > after
        after = batch.last
    return batches


def ids(batches: Any) -> Any:
    return [event.id for batch in batches for event in batch.events]


def test_numbers_start_at_one_in_each_class_and_make_the_id(conn: sqlite3.Connection) -> None:
    assert outbox.append(conn, "health", [health(), health()]) == range(1, 3)
    assert outbox.append(conn, "member", [recognised()]) == range(1, 2)
    assert outbox.append(conn, "health", [health()]) == range(3, 4)
    assert ids(drain(conn, "health")) == ["s1/e/health/1", "s1/e/health/2", "s1/e/health/3"]
    assert outbox.depth(conn) == {"member": (1, 1), "journey": (0, 0), "agg": (0, 0), "health": (3, 3)}


def test_numbers_are_not_reused_after_every_row_is_gone(conn: sqlite3.Connection) -> None:
    outbox.append(conn, "agg", [window(), window()])
    outbox.acknowledge(conn, "agg", 2)
    outbox.forget(conn, 2 * outbox.KEEP_US)
    assert conn.execute("SELECT count(*) FROM outbox").fetchone() == (0,)
    assert outbox.append(conn, "agg", [window()]) == range(3, 4)


def test_a_transaction_that_fails_uses_no_number(conn: sqlite3.Connection) -> None:
    conn.execute("BEGIN")
    outbox.append(conn, "agg", [window()])
    conn.execute("ROLLBACK")
    assert outbox.append(conn, "agg", [window()]) == range(1, 2)


def test_an_event_in_the_wrong_class_is_an_error(conn: sqlite3.Connection) -> None:
    with pytest.raises(ValueError, match="no event of class"):
        outbox.append(conn, "member", [health()])


@pytest.mark.parametrize("upto", [0, 2, 6, 2**62])
def test_an_ack_behind_or_beyond_changes_nothing(conn: sqlite3.Connection, upto: int) -> None:
    outbox.append(conn, "health", [health()] * 5)
    outbox.acknowledge(conn, "health", 2)
    assert outbox.acknowledge(conn, "health", upto) == 2
    assert outbox.depth(conn)["health"] == (5, 3)


def test_evicted_ranges_are_merged_delivered_before_the_next_event_and_forgotten_once_acked(
    conn: sqlite3.Connection,
) -> None:
    outbox.append(conn, "health", [health()] * 10)
    outbox.acknowledge(conn, "health", 1)
    assert outbox.evict(conn, "health", 3) == 3
    assert outbox.evict(conn, "health", 2) == 2
    assert outbox.depth(conn)["health"] == (10, 4)
    batch = outbox.pending(conn, "health", 1, 100)
    assert (batch.first, len(batch.payloads), batch.lost) == (7, 4, [gap(2, 6)])
    assert outbox.acknowledge(conn, "health", 4) == 4
    assert outbox.pending(conn, "health", 4, 100).lost == [gap(5, 6)]
    outbox.acknowledge(conn, "health", 7)
    outbox.forget(conn, 2 * outbox.KEEP_US)
    assert conn.execute("SELECT count(*) FROM lost").fetchone() == (0,)


def test_a_batch_may_tell_of_nothing_but_what_is_lost(conn: sqlite3.Connection) -> None:
    outbox.append(conn, "health", [health()] * 4)
    outbox.evict(conn, "health", 9)
    batch = outbox.pending(conn, "health", 0, 100)
    assert (batch.first, batch.payloads, batch.lost, batch.last) == (5, [], [gap(1, 4)], 4)
    assert outbox.pending(conn, "health", batch.last, 100) is None
    assert outbox.acknowledge(conn, "health", 4) == 4


def test_more_lost_ranges_than_a_message_takes_go_in_several(conn: sqlite3.Connection) -> None:
    outbox.append(conn, "health", [health()] * 200)
    for seq in range(1, 180, 2):
        conn.execute("DELETE FROM outbox_health WHERE seq BETWEEN ? AND ?", (seq, seq + 1))
        conn.execute("INSERT INTO lost VALUES (3, ?, ?, ?)", (seq, seq + 1, f"{seq} " + "字" * 298))
    batches = drain(conn, "health")
    assert [len(batch.lost) for batch in batches] == [MAX_LOST, MAX_LOST, 90 - 2 * MAX_LOST]
    assert ids(batches) == [f"s1/e/health/{seq}" for seq in range(181, 201)]


def test_a_journey_too_long_for_a_message_goes_in_parts(conn: sqlite3.Connection) -> None:
    whole = journey(stops=2 * MAX_STOPS + 1)
    assert outbox.append(conn, "journey", [journey(), whole]) == range(1, 5)
    first, *parts = [event for batch in drain(conn, "journey") for event in batch.events]
    assert (first.part, first.parts, len(first.stops)) == (1, 1, 3)
    assert [(part.part, part.parts) for part in parts] == [(1, 3), (2, 3), (3, 3)]
    assert [stop for part in parts for stop in part.stops] == whole.stops


def test_an_event_that_no_message_can_carry_is_written_down_as_lost(conn: sqlite3.Connection) -> None:
    huge = health().model_copy(update={"version": "x" * MAX_EVENT_BYTES})
    assert outbox.append(conn, "health", [health(), huge, huge, health()]) == range(1, 5)
    first, second = drain(conn, "health")
    assert ids([first, second]) == ["s1/e/health/1", "s1/e/health/4"]
    assert second.lost == [Lost.model_validate({"from": 2, "to": 3, "reason": "larger than a message"})]


def tight(conn: sqlite3.Connection, pages: Any = 400) -> None:
    conn.execute(f"PRAGMA max_page_count = {pages}")


def make_all_room(conn: sqlite3.Connection) -> Any:
    """As often as the service would."""
    evicted = 0
    while quota.in_use(conn) >= quota.FULL:
        evicted += quota.make_room(conn)
    return evicted


def kept_bytes(conn: sqlite3.Connection) -> Any:
    query = "SELECT class, sum(length(CAST(payload AS BLOB))) FROM outbox GROUP BY class"
    return dict.fromkeys(range(4), 0) | dict(conn.execute(query))


def test_near_the_quota_the_least_class_makes_room_first(conn: sqlite3.Connection) -> None:
    tight(conn)
    for class_, make in MAKERS.items():
        outbox.append(conn, class_, [make(0)] * 100)
    assert quota.make_room(conn) == 0
    evicted = 0
    while outbox.depth(conn)["health"].pending == 100:
        outbox.append(conn, "member", [recognised()] * 30)
        outbox.append(conn, "journey", [journey()] * 15)
        evicted += make_all_room(conn)
    left = outbox.depth(conn)
    assert evicted > 0
    assert left["health"].pending == 0
    members = left["member"].pending
    assert members == left["member"].sent
    # And it goes on: however much comes, the quota holds, and what is gone is told.
    for _ in range(100):
        outbox.append(conn, "journey", [journey()] * 50)
        make_all_room(conn)
    assert outbox.depth(conn)["member"].pending == members
    sent, kept = outbox.depth(conn)["journey"]
    batches = drain(conn, "journey")
    assert len(ids(batches)) == kept < sent
    assert sum(lost.to - lost.from_ + 1 for batch in batches for lost in batch.lost) == sent - kept
    assert kept_bytes(conn) == dict(conn.execute("SELECT class, bytes FROM outbox_class"))


def test_a_flood_of_one_class_does_not_push_out_the_others(conn: sqlite3.Connection) -> None:
    tight(conn)
    outbox.append(conn, "health", [health()] * 20)
    for _ in range(60):
        outbox.append(conn, "journey", [journey()] * 50)
        make_all_room(conn)
    assert outbox.depth(conn)["health"].pending == 20
    assert outbox.depth(conn)["journey"].pending < 3000


def test_what_is_kept_for_a_replay_goes_before_anything_else(conn: sqlite3.Connection) -> None:
    tight(conn)
    outbox.append(conn, "member", [recognised()] * 1500)
    outbox.acknowledge(conn, "member", 1500, now_us=1)
    while quota.in_use(conn) < quota.FULL:
        outbox.append(conn, "health", [health()] * 10)
    waiting = outbox.depth(conn)["health"].pending
    assert make_all_room(conn) == 0
    assert outbox.depth(conn)["health"].pending == waiting
    assert kept_bytes(conn)[0] < 1500 * 100


def test_windows_are_merged_to_hours_and_days_and_add_up(conn: sqlite3.Connection) -> None:
    windows = [
        window(n % 7).model_copy(
            update={"window_us": start * 900_000_000, "zone": zone, "length_us": 900_000_000, "histogram": {"3": n % 7}}
            | {"door": Door(passages=n % 7, coverage=0.5) if zone == "bags" else None}
        )
        for n, (start, zone) in enumerate((start, zone) for start in range(96) for zone in ("shoes", "bags", "hats"))
    ]
    outbox.append(conn, "agg", windows[:30])
    outbox.mark_tried(conn, "agg")
    outbox.append(conn, "agg", windows[30:])
    whole = sum(w.entered for w in windows)
    for expected in (30 + 3 * 24 - 6, 30 + 3):  # 30 windows left the house already: 2.5 hours of each zone
        assert quota.merge_windows(conn)
        batches = drain(conn, "agg")
        events = [event for batch in batches for event in batch.events]
        assert len(events) == pytest.approx(expected, abs=3)
        assert sum(event.entered for event in events) == whole
        assert sum(event.histogram.get("3", 0) for event in events) == whole
        assert sum(e.door.passages for e in events if e.door) == sum(w.door.passages for w in windows if w.door)
        assert {e.door and e.door.coverage for e in events} == {None, 0.5}
        told = len(events) + sum(lost.to - lost.from_ + 1 for batch in batches for lost in batch.lost)
        assert told == len(windows)
        assert [event.id for event in events[:30]] == [f"s1/e/agg/{seq}" for seq in range(1, 31)]
    assert not quota.merge_windows(conn)
    assert kept_bytes(conn) == dict(conn.execute("SELECT class, bytes FROM outbox_class"))


def test_acked_events_are_kept_for_two_days_and_told_as_gone_after(conn: sqlite3.Connection) -> None:
    outbox.append(conn, "health", [health()] * 20)
    outbox.evict(conn, "health", 2)
    outbox.acknowledge(conn, "health", 10, now_us=0)
    outbox.acknowledge(conn, "health", 15, now_us=outbox.KEEP_US)
    again = outbox.kept(conn, "health", 0, 12, 100, 10_000)
    assert (again.first, len(again.payloads), again.lost) == (3, 10, [gap(1, 2)])
    assert outbox.forget(conn, outbox.KEEP_US) == 0
    assert outbox.forget(conn, outbox.KEEP_US + outbox.KEPT_STEP_US) == 8
    again = outbox.kept(conn, "health", 4, 12, 100, 10_000)
    assert (again.first, len(again.payloads)) == (11, 2)
    assert again.lost == [Lost.model_validate({"from": 5, "to": 10, "reason": outbox.GONE})]
    assert outbox.kept(conn, "health", 2, 9, 100, 10_000).last == 9
    assert outbox.depth(conn)["health"] == (20, 5)


def test_numbers_given_before_a_backup_was_restored_are_not_given_again(conn: sqlite3.Connection) -> None:
    outbox.append(conn, "health", [health(n) for n in range(10)])  # of the backup; the CRM had 14 by then
    outbox.append(conn, "health", [health(n) for n in range(10, 13)])  # since the restart
    outbox.jump(conn, {"health": 14}, {"health": 11})
    outbox.acknowledge(conn, "health", 14)
    batches = drain(conn, "health")
    start = 14 + outbox.JUMP + 1
    assert ids(batches) == [f"s1/e/health/{seq}" for seq in range(start, start + 3)]
    assert [event.at_us for batch in batches for event in batch.events] == [10, 11, 12]
    assert [(lost.from_, lost.to) for batch in batches for lost in batch.lost] == [(15, start - 1)]
    assert outbox.append(conn, "health", [health()]) == range(start + 3, start + 4)


@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.integers(0, 5)),
            st.tuples(st.just("ack"), st.integers(-2, 40)),
            st.tuples(st.just("evict"), st.integers(0, 5)),
        ),
        max_size=30,
    ),
    st.integers(1, 7),
)
def test_every_number_is_acked_or_pending_or_lost_and_only_one_of_them(steps: Any, max_events: int) -> None:
    conn, acked, given_out = database(), 0, 0
    for step, n in steps:
        if step == "append":
            numbers = outbox.append(conn, "health", [health()] * n)
            assert numbers == range(given_out + 1, given_out + n + 1)
            given_out += n
        elif step == "ack":
            acked = n if acked < n <= given_out else acked
            assert outbox.acknowledge(conn, "health", n) == acked
        else:
            outbox.evict(conn, "health", n)
        batches = drain(conn, "health", max_events)
        told = Counter(int(one.rsplit("/", 1)[1]) for one in ids(batches))
        for lost in (lost for batch in batches for lost in batch.lost):
            told.update(range(lost.from_, lost.to + 1))
        assert told == Counter(range(acked + 1, given_out + 1))
        assert outbox.depth(conn)["health"] == (given_out, len(ids(batches)))
    conn.close()


names = st.text(min_size=1, max_size=128)
times = st.integers(0, 2**63 - 1)
stops = st.builds(
    Stop,
    zone=names,
    enter_us=times,
    exit_us=times,
    reads=st.integers(0, 2**31),
    censored=st.booleans(),
    confidence=st.floats(0, 1),
)
journeys = st.builds(
    Journey,
    tag=names,
    tag_class=st.sampled_from(["member", "cart"]),
    member=st.none() | names,
    business_date=st.just("2026-01-01"),
    start_us=times,
    end_us=times,
    censored=st.booleans(),
    def_version=st.integers(1, 99),
    stops=st.tuples(st.lists(stops, min_size=1, max_size=3), st.integers(1, 400)).map(lambda t: t[0] * t[1]),
)
members = st.builds(Recognised, member=names, tier=names, zone=names, floor=names, read_us=times, expires_us=times)


@settings(max_examples=examples(25), deadline=None)
@given(st.lists(journeys, max_size=6), st.lists(members, max_size=100), st.sampled_from([2000, 32768, MAX_EVENT_BYTES]))
def test_no_message_is_larger_than_64_kib(some_journeys: Any, some_members: Any, max_bytes: int) -> None:
    conn = database()
    numbers = outbox.append(conn, "journey", some_journeys)
    outbox.append(conn, "member", some_members)
    batches = drain(conn, "journey", 500, max_bytes)  # asserts the size
    told = [json.loads(event.model_dump_json()) for batch in batches for event in batch.events]
    lost = sum(lost.to - lost.from_ + 1 for batch in batches for lost in batch.lost)
    assert len(told) + lost == len(numbers)
    assert len(ids(drain(conn, "member", 500, max_bytes))) == len(some_members)
    conn.close()


def gap(first: int, last: int) -> Any:
    return Lost.model_validate({"from": first, "to": last, "reason": "quota"})


def test_classes_are_those_of_the_topics() -> None:
    from config import topics

    assert CLASSES == topics.CLASSES
