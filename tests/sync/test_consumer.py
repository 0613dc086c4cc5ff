"""The reference consumer: every number once, whatever comes how often in which order."""

from __future__ import annotations

import gzip
import json
import sqlite3
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import health, recognised
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from config import topics
from sync.consumer import Delivery, Ledger
from sync.contract import MAX_MESSAGE_BYTES, Ack, EventClass, pack, unpack

TOPIC = topics.topic("s1", "up/health")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Any]:
    book = Ledger(tmp_path / "crm.db")
    yield book
    book.close()


def batch(first: int, n: int, /, lost: Any = (), class_: EventClass = "health", **changes: Any) -> Any:
    make = recognised if class_ == "member" else health
    message = {
        "v": 1,
        "store": "s1",
        "epoch": "e",
        "class": class_,
        "first": first,
        "n": n,
        "sent_us": 1,
        "boot": "b",
        "mono_us": 1,
        "clock_offset_us": None,
        "lost": [{"from": a, "to": b, "reason": "quota"} for a, b in lost],
        "events": [
            make().model_copy(update={"id": f"s1/e/{class_}/{seq}"}).model_dump() for seq in range(first, first + n)
        ],
    }
    return message | changes


def take(ledger: Ledger, *messages: Any, topic: str = TOPIC) -> Any:
    deliveries = [
        Delivery(topic, message if isinstance(message, bytes) else json.dumps(message).encode(), 1)
        for message in messages
    ]
    return ledger.take(deliveries)


def zipped(plain: bytes) -> Any:
    """Pack without the time of day: the length is in the name of a test, and must be the same in every process."""
    return gzip.compress(plain, mtime=0)


def upto(taken: Any) -> Any:
    return [(class_, ack.upto) for _, class_, ack in taken.acks]


def counts(ledger: Ledger) -> Any:
    totals = ledger.totals()
    assert totals == ledger.totals(recount=True)
    return tuple(totals[name] for name in ("received", "duplicates", "lost", "gaps", "dead"))


def test_acks_the_watermark_and_counts(ledger: Ledger) -> None:
    taken = take(ledger, batch(1, 10), batch(11, 5))
    assert taken.acks == [("s1", "health", Ack(epoch="e", upto=15, accepts=("gzip",)))]
    assert len(taken.fresh) == 15
    assert counts(ledger) == (15, 0, 0, 0, 0)


def test_a_packed_batch_is_the_same_batch(ledger: Ledger) -> None:
    plain = json.dumps(batch(1, 10)).encode()
    assert take(ledger, gzip.compress(plain)).fresh == take(Ledger(":memory:"), plain).fresh
    take(ledger, plain, pack(plain))
    assert counts(ledger) == (10, 20, 0, 0, 0)


def test_no_more_of_a_bomb_is_unpacked_than_a_message_may_be() -> None:
    bomb = gzip.compress(b"{" * 10_000_000)
    assert len(bomb) < MAX_MESSAGE_BYTES
    tracemalloc.start()
    with pytest.raises(ValueError, match="unpacks to more than"):
        unpack(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * MAX_MESSAGE_BYTES


@given(st.binary(max_size=2000))
def test_what_is_packed_is_unpacked(message: Any) -> None:
    message = b"{" + message
    assert unpack(pack(message)) == message
    assert len(pack(message)) <= len(message) + 40


def test_repetitions_are_absorbed_and_counted(ledger: Ledger) -> None:
    take(ledger, batch(1, 10))
    taken = take(ledger, batch(6, 10), batch(1, 3))
    assert upto(taken) == [("health", 15)]
    assert len(taken.fresh) == 5
    assert counts(ledger) == (15, 8, 0, 0, 0)


def test_a_gap_holds_the_ack_until_it_is_filled(ledger: Ledger) -> None:
    assert upto(take(ledger, batch(1, 2), batch(5, 2), batch(8, 1))) == [("health", 2)]
    assert counts(ledger) == (5, 0, 0, 3, 0)
    assert upto(take(ledger, batch(3, 2))) == [("health", 6)]
    assert upto(take(ledger, batch(7, 1))) == [("health", 8)]
    assert counts(ledger) == (8, 0, 0, 0, 0)


def test_lost_ranges_count_as_seen(ledger: Ledger) -> None:
    assert upto(take(ledger, batch(6, 1, lost=[(1, 2), (3, 5)]))) == [("health", 6)]
    assert upto(take(ledger, batch(11, 0, lost=[(9, 10)]))) == [("health", 6)]
    assert counts(ledger) == (1, 0, 5, 2, 0)
    assert upto(take(ledger, batch(7, 2))) == [("health", 10)]
    assert counts(ledger) == (3, 0, 7, 0, 0)
    take(ledger, batch(1, 2))  # what came after all was not lost
    assert counts(ledger) == (5, 0, 5, 0, 0)


def test_goes_on_after_a_restart(tmp_path: Path) -> None:
    book = Ledger(tmp_path / "crm.db")
    take(book, batch(1, 2), batch(5, 1))
    book.close()
    book = Ledger(tmp_path / "crm.db")
    assert upto(take(book, batch(3, 2), batch(1, 1))) == [("health", 5)]
    assert counts(book) == (5, 1, 0, 0, 0)
    book.close()


def test_a_poison_event_is_put_aside_and_the_others_are_kept(ledger: Ledger) -> None:
    message = batch(1, 4)
    message["events"][1]["at_us"] = "yesterday"
    message["events"][2]["id"] = "s1/e/health/7"
    assert upto(take(ledger, message)) == [("health", 4)]
    assert counts(ledger) == (2, 0, 2, 0, 2)
    assert upto(take(ledger, message, batch(5, 1))) == [("health", 5)]
    assert counts(ledger) == (3, 2, 2, 0, 2)  # repeated poison is one dead letter


@pytest.mark.parametrize("value", [{"reads": 10**19}, {"reads": 1e30}, {"at_us": 1, "more": [{"a\0": 1}]}], ids=str)
def test_what_no_database_can_keep_is_poison_too(ledger: Ledger, value: Any) -> None:
    message = batch(1, 3)
    message["events"][1] |= value
    assert upto(take(ledger, message)) == [("health", 3)]
    assert counts(ledger) == (2, 0, 1, 0, 1)
    assert upto(take(ledger, batch(5, 1) | {"lost": [{"from": 4, "to": 4, "reason": "\0"}]})) == []
    assert counts(ledger) == (2, 0, 1, 0, 2)
    assert upto(take(ledger, batch(4, 1) | {"mono_us": 1e2, "sent_us": 10**18})) == [("health", 4)]


def test_what_a_later_version_adds_is_ignored_and_kept(ledger: Ledger, tmp_path: Path) -> None:
    message = batch(1, 1, later="x")
    message["events"][0]["later"] = {"a": 1}
    assert upto(take(ledger, message)) == [("health", 1)]
    assert counts(ledger) == (1, 0, 0, 0, 0)
    kept = ledger._conn.execute("SELECT payload FROM event").fetchone()[0]
    assert json.loads(kept)["later"] == {"a": 1}


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff\xfe",
        b"[1]",
        b"{}",
        b"[" * 100_000,
        b'"' + b"x" * 70_000 + b'"',
        batch(1, 1, v=2),
        batch(1, 1, n=2),
        batch(1, 0, n=10**30),
        batch(2**63 - 1, 2),
        batch(1, 1, first=2**63),
        batch(1, 1, store="s2"),
        batch(1, 1) | {"class": "agg"},
        batch(1, 1, epoch="../../etc"),
        batch(5, 1, [(4, 5)]),
        batch(5, 1, [(4, 3)]),
        batch(1, 1, events=None),
        json.dumps(batch(1, 1, boot="\ud800")).encode(),
        zipped(b" " * 65537),
        zipped(b" " * 10**7),  # a bomb
        zipped(json.dumps(batch(1, 1)).encode())[:-1],
        zipped(json.dumps(batch(1, 1)).encode()) + b"x",
        zipped(json.dumps(batch(1, 1)).encode()) * 2,
        zipped(zipped(json.dumps(batch(1, 1)).encode())),
        b"\x1f\x8b",
    ],
)
def test_a_message_that_is_no_batch_is_a_dead_letter_and_harms_nothing(ledger: Ledger, message: Any) -> None:
    taken = take(ledger, message, batch(1, 1), message)
    assert upto(taken) == [("health", 1)]
    assert counts(ledger) == (1, 0, 0, 0, 1)


@pytest.mark.parametrize("topic", ["tagtrail/v1/0/s1/up/health", "x", topics.topic("s1", "up/unknown"), ""])
def test_a_topic_that_is_not_the_batch_s_own_is_a_dead_letter(ledger: Ledger, topic: str) -> None:
    assert take(ledger, batch(1, 1), topic=topic).acks == []
    assert counts(ledger) == (0, 0, 0, 0, 1)


@settings(max_examples=examples(20), deadline=None)
@given(st.data())
def test_any_order_and_any_repetition_end_in_the_same_count(data: Any) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(2, 40), max_size=10)))
    spans = list(zip([1, *cuts], [*cuts, 41], strict=True))
    messages = [batch(a, b - a) for a, b in spans]
    order = data.draw(st.permutations(messages)) + data.draw(st.lists(st.sampled_from(messages), max_size=5))
    with tempfile.TemporaryDirectory() as folder:
        book = Ledger(Path(folder) / "crm.db")
        for message in order:
            last = take(book, message)
        repeated = sum(message["n"] for message in order) - 40
        assert upto(last) == [("health", 40)]
        assert counts(book) == (40, repeated, 0, 0, 0)
        book.close()


def naive(messages: Any) -> Any:
    """Counts by sets of numbers: received, duplicates, lost below the watermark, gaps; and the watermark."""
    events: set[Any] = set()
    lost: set[Any] = set()
    repeated = 0
    for message in messages:
        for gap in message["lost"]:
            lost |= set(range(gap["from"], gap["to"] + 1))
        numbers = set(range(message["first"], message["first"] + message["n"]))
        repeated += len(numbers & events)
        events |= numbers
    there = events | lost
    upto = next(i for i in range(1, 10**6) if i not in there) - 1
    gaps = set(range(1, max([*there, *(m["first"] - 1 for m in messages)], default=0) + 1)) - there
    return (len(events), repeated, len([one for one in lost - events if one <= upto]), len(gaps)), upto


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_any_mess_of_events_and_lost_ranges_is_counted_as_by_sets(data: Any) -> None:
    book, messages = Ledger(":memory:"), []
    for _ in range(data.draw(st.integers(1, 8))):
        takes = []
        for _ in range(data.draw(st.integers(1, 3))):
            first, n = data.draw(st.integers(1, 30)), data.draw(st.integers(0, 6))
            ends = st.integers(1, first - 1) if first > 1 else st.nothing()
            pairs = data.draw(st.lists(st.tuples(ends, ends), max_size=2)) if first > 1 else []
            takes.append(batch(first, n, [tuple(sorted(pair)) for pair in pairs]))
        messages += takes
        (_, last), *_ = upto(take(book, *takes))
        wanted, watermark = naive(messages)
        assert last == watermark
        assert counts(book)[:4] == wanted
    book.close()


def test_what_waits_behind_a_gap_is_not_read_again_with_each_batch(tmp_path: Path) -> None:
    """Steps of SQLite's machine: with thousands of events beyond a gap a batch costs what it cost with few."""
    book = Ledger(tmp_path / "crm.db")
    steps: list[int] = []

    def cost(do: Any) -> Any:
        steps.clear()
        book._conn._conn.set_progress_handler(lambda: steps.append(1), 50)
        do()
        book._conn._conn.set_progress_handler(None, 0)
        return len(steps)

    take(book, batch(100, 50))
    few = cost(lambda: take(book, batch(150, 50)))
    for first in range(200, 8200, 100):
        take(book, batch(first, 100))
    many = cost(lambda: take(book, batch(8200, 50)))
    assert many < 2 * few
    assert cost(book.gaps) < few
    assert upto(take(book, batch(1, 99))) == [("health", 8249)]
    book.close()


def test_what_is_handed_over_is_committed_with_the_events_or_not_at_all(tmp_path: Path) -> None:
    ready: list[int] = []

    def hand_over(conn: sqlite3.Connection, fresh: Any) -> None:
        conn.executemany("INSERT INTO mine VALUES (?)", [(event.id,) for _, event, _ in fresh])
        if not ready:
            raise ValueError("not now")

    book = Ledger(tmp_path / "crm.db", hand_over)
    book._conn.execute("CREATE TABLE mine (id TEXT PRIMARY KEY)")
    with pytest.raises(ValueError, match="not now"):
        take(book, batch(1, 5))
    assert counts(book)[0] == 0
    ready.append(True)
    assert upto(take(book, batch(1, 5), batch(3, 5))) == [("health", 7)]
    take(book, batch(1, 7))
    assert book._conn.execute("SELECT count(*) FROM mine").fetchone() == (7,)
    book.close()


def test_gaps_are_told_up_to_what_is_there(ledger: Ledger) -> None:
    take(ledger, batch(1, 5), batch(21, 5), batch(15, 2))
    assert ledger.gaps() == [("s1", "e", "health", 6, 14)]
    take(ledger, batch(12, 1, lost=[(6, 11)]))
    assert ledger.gaps() == [("s1", "e", "health", 13, 14)]
    take(ledger, batch(13, 8))
    assert ledger.gaps() == []


def test_a_gateway_that_was_taken_over_from_is_not_listened_to(ledger: Ledger) -> None:
    assert upto(take(ledger, batch(1, 3, term=7))) == [("health", 3)]
    # Another has taken over, and skipped numbers; the first one goes on for a while.
    taken = take(ledger, batch(104, 2, [(4, 103)], term=9), batch(4, 5, term=7), batch(9, 1))
    assert (upto(taken), taken.fenced, len(taken.fresh)) == ([("health", 105)], 2, 2)
    # So it is for all classes, also those of which the new one has sent nothing yet.
    member = topics.topic("s1", "up/member")
    taken = take(ledger, batch(1, 2, class_="member", term=7), topic=member)
    assert (taken.acks, taken.fenced) == ([], 1)
    assert upto(take(ledger, batch(1, 2, class_="member", term=9), topic=member)) == [("member", 2)]
    # Another epoch is another database, with terms of its own.
    other = batch(1, 1, epoch="f") | {"events": [health().model_copy(update={"id": "s1/f/health/1"}).model_dump()]}
    assert take(ledger, other).fenced == 0
    assert ledger.totals()["received"] == 3 + 2 + 2 + 1


def test_terms_are_remembered(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "crm.db")
    take(first, batch(1, 3, term=7))
    first.close()
    again = Ledger(tmp_path / "crm.db")
    assert take(again, batch(4, 3, term=6)).fenced == 1
    assert take(again, batch(4, 3, term=7)).fenced == 0
    again.close()
