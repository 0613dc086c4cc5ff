"""The chain's ledger on a real PostgreSQL, beside plain sets of numbers."""

from __future__ import annotations

import json
import random
import threading
from typing import Any

import psycopg
import pytest
from brokers import MAKERS
from chains import batch, counted, message

from sync.chain import schema
from sync.chain.decoding import decode
from sync.chain.ledger import GONE, Ledger, Letter, connect
from sync.contract import CLASSES, EventClass, event_id


def take(ledger: Ledger, *messages: tuple[str, bytes], us: int = 1) -> Any:
    return ledger.take([(decode(*one), us) for one in messages])


def test_numbers_are_received_once_lost_once_or_missing(conn: Any) -> None:
    ledger = Ledger(conn, version="1")
    key = ("s1", "e", "health")
    assert take(ledger, batch("s1", 1, 10), batch("s1", 8, 5), batch("s1", 21, 5)).upto == {key: 12}
    assert take(ledger, batch("s1", 18, 3, lost=((13, 17),))).upto == {key: 25}
    assert conn.execute("SELECT first, last, reason FROM chain.lost").fetchall() == [(13, 17, "quota")]
    assert conn.execute("SELECT * FROM chain.ahead").fetchall() == []
    # One that was lost comes all the same, in the middle of the range; nothing else counts again.
    taken = take(ledger, batch("s1", 15, 1), batch("s1", 1, 25))
    assert (taken.upto, taken.fresh) == ({key: 25}, 5)
    assert conn.execute("SELECT * FROM chain.lost").fetchall() == []
    wanted = {"received": 25, "duplicates": 3 + 21, "lost": 0, "dead": 0, "upto": 25, "highest": 25, "rows": 25}
    assert counted(conn)["health"] == wanted


@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_batches_counts_as_sets_do(chain: str, seed: int) -> None:
    """Two ledgers get batches of three stores at random, with repetitions, gaps, lost ranges and bad events; at the
    same time, so that they must wait for each other."""
    dice = random.Random(seed)
    most = 120
    invalid = {store: {dice.randrange(1, most) for _ in range(4)} for store in ("a", "b", "c")}
    told: list[list[tuple[str, bytes]]] = [[], []]
    received: dict[str, set[int]] = {store: set() for store in invalid}
    reported: dict[str, set[int]] = {store: set() for store in invalid}
    for _ in range(150):
        store, first, n = dice.choice("abc"), dice.randrange(1, most), dice.randrange(0, 8)
        lost = []
        if first > 12 and dice.random() < 0.2:
            low = dice.randrange(1, first - 8)
            lost = [(low, low + dice.randrange(6))]
            reported[store] |= set(range(low, lost[0][1] + 1))
        events = []
        for seq in range(first, first + n):
            event = MAKERS["health"](seq).model_dump(mode="json") | {"id": event_id(store, "e", "health", seq)}
            events.append(event | {"reads": "many"} if seq in invalid[store] else event)
            if seq not in invalid[store]:
                received[store].add(seq)
        told[dice.randrange(2)].append(message(store, first, events, lost=lost))
    sent = {store: {int(e["id"].rsplit("/", 1)[1]) for side in told for t, m in side for e in json.loads(m)["events"]
                    if json.loads(m)["store"] == store} for store in invalid}  # fmt: skip

    def work(messages: list[tuple[str, bytes]]) -> None:
        with connect(chain) as mine:
            ledger = Ledger(mine, version="1", feed=True)
            while messages:
                some, messages = messages[: (n := random.randrange(1, 9))], messages[n:]
                take(ledger, *some)

    threads = [threading.Thread(target=work, args=(side,)) for side in told]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with connect(chain) as conn:
        for store in invalid:
            row = "id, upto, highest, received, lost, dead"
            query = f"SELECT {row} FROM chain.series WHERE store = %s"
            id_, upto, highest, n_received, n_lost, n_dead = conn.execute(query, (store,)).fetchone()

            def numbers(table: str, id_: int = id_) -> set[int]:
                if table in ("ahead", "lost"):
                    rows = conn.execute(f"SELECT first, last FROM chain.{table} WHERE series = %s", (id_,)).fetchall()
                    return {seq for first, last in rows for seq in range(first, last + 1)}
                return {seq for (seq,) in conn.execute(f"SELECT seq FROM chain.{table} WHERE series = %s", (id_,))}

            there, dead, gone = numbers("event"), numbers("dead_letter"), numbers("lost")
            assert there == received[store]
            assert dead == sent[store] & invalid[store]
            assert gone == reported[store] - sent[store]
            everything = there | dead | gone
            assert highest == max(everything)
            assert set(range(1, upto + 1)) <= everything
            assert upto + 1 not in everything
            assert numbers("ahead") == {seq for seq in everything if seq > upto}
            assert (n_received, n_lost, n_dead) == (len(there), len(gone), len(dead))
            runs = conn.execute("SELECT first, last FROM chain.fanout WHERE series = %s", (id_,)).fetchall()
            fed = [seq for first, last in runs for seq in range(first, last + 1)]
            assert sorted(fed) == sorted(there)


def test_a_few_statements_whatever_comes(conn: Any) -> None:
    ledger = Ledger(conn, version="1", feed=True)
    said: list[str] = []

    class Counting(psycopg.Cursor[Any]):
        def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
            said.append(str(query))
            return super().execute(query, *args, **kwargs)

    conn.cursor_factory = Counting
    counts = []
    for first, n in ((1, 1), (2, 40), (1, 41), (60, 1)):  # new, more of them, all of it again, and a gap
        said.clear()
        take(ledger, *(batch(f"s{i}", seq, 1) for i in range(8) for seq in range(first, first + n)))
        counts.append(len(said))
    assert max(counts) <= 9
    assert counted(conn)["health"]["rows"] == 8 * 42


def test_letters_are_kept_once(conn: Any) -> None:
    ledger = Ledger(conn, version="1")
    letter = Letter(b"1", "x", "no batch", b"\0{", 5)
    ledger.take([], [letter, letter])
    ledger.take([], [letter])
    assert conn.execute("SELECT topic, payload FROM chain.dead_message").fetchall() == [("x", b"\0{")]


def test_a_version_that_understands_takes_dead_letters_again(conn: Any) -> None:
    key = ("s1", "e", "health")
    old, new = Ledger(conn, version="1"), Ledger(conn, version="2", feed=True)
    good = MAKERS["health"](1).model_dump(mode="json")
    events = [good | {"id": event_id(*key, 1)}, {"id": event_id(*key, 2), "type": "later"}]
    assert take(old, message("s1", 1, events)).upto == {key: 2}
    # What is "later" now becomes a type that is known by then.
    raw = json.dumps(good | {"id": event_id(*key, 2)}).encode()
    from config.topics import shard

    letters = conn.execute("SELECT seq, type, judged_by FROM chain.dead_letter").fetchall()
    assert letters == [(2, "later", "1")]
    assert old.retake([shard("s1")], ["health"]) == (-1, [])
    conn.execute("UPDATE chain.dead_letter SET payload = %s", (raw,))
    assert new.retake([shard("s1") + 1], ["health"]) == (-1, [])
    n, runs = new.retake([shard("s1")], ["health"])
    assert (n, [(run.first, run.payloads) for run in runs]) == (1, [(2, [raw])])
    wanted = {"received": 2, "duplicates": 0, "lost": 0, "dead": 0, "upto": 2, "highest": 2, "rows": 2}
    assert counted(conn)["health"] == wanted
    assert new.retake([shard("s1")], ["health"]) == (-1, [])


def test_one_that_is_still_not_understood_is_judged_once_a_version(conn: Any) -> None:
    from config.topics import shard

    ledger, new = Ledger(conn, version="1"), Ledger(conn, version="2")
    take(ledger, message("s1", 1, [{"id": event_id("s1", "e", "health", 1), "type": "later"}]))
    assert new.retake([shard("s1")], ["health"]) == (0, [])
    assert new.retake([shard("s1")], ["health"]) == (-1, [])
    assert counted(conn)["health"]["dead"] == 1


def test_leftovers_are_what_the_log_has_not_confirmed(conn: Any) -> None:
    from config.topics import shard

    ledger = Ledger(conn, version="1", feed=True)
    first = take(ledger, batch("s1", 1, 3), batch("s1", 4, 2)).runs
    second = take(ledger, batch("s1", 9, 2)).runs
    assert [(run.first, run.last) for run in (*first, *second)] == [(1, 5), (9, 10)]
    left = ledger.leftovers([shard("s1")], ["health"], [], 10)
    assert left == [*first, *second]
    assert ledger.leftovers([shard("s1")], ["health"], [first[0].id], 10) == second
    ledger.take([], done=[first[0].id])
    conn.execute("DELETE FROM chain.event WHERE seq = 10")  # erased meanwhile
    (run,) = ledger.leftovers([shard("s1")], ["health"], [], 10)
    assert run.payloads == [second[0].payloads[0], GONE]


def test_what_is_rolled_back_leaves_nothing(conn: Any, chain: str) -> None:
    ledger = Ledger(conn, version="1", feed=True)
    take(ledger, batch("s1", 1, 1))
    with connect(chain) as other:
        other.execute("ALTER TABLE chain.fanout RENAME TO away")
        with pytest.raises(psycopg.Error):
            take(ledger, batch("s1", 2, 5))
        other.execute("ALTER TABLE chain.away RENAME TO fanout")
    assert counted(conn)["health"]["rows"] == 1
    assert take(ledger, batch("s1", 2, 5)).fresh == 5


def test_members_being_erased_are_dropped_on_arrival(conn: Any) -> None:
    ledger = Ledger(conn, version="1", feed=True)
    conn.execute("INSERT INTO chain.erasure (member) VALUES ('M2')")
    ledger.refresh_erasing()
    taken = take(ledger, batch("s1", 1, 3, "member"))
    assert (taken.upto, taken.fresh) == ({("s1", "e", "member"): 3}, 2)
    assert conn.execute("SELECT first, last, reason FROM chain.lost").fetchall() == [(2, 2, "erased")]
    assert take(ledger, batch("s1", 1, 3, "member")).fresh == 0
    assert conn.execute("SELECT member FROM chain.recognition ORDER BY seq").fetchall() == [("M1",), ("M3",)]


def test_a_store_with_wild_dates_costs_no_other_event(conn: Any) -> None:
    ledger = Ledger(conn, version="1")
    events = []
    for seq, date in enumerate(("9999-12-31", "never", "0001-01-01", "2026-02-30"), 1):
        event = MAKERS["journey"](seq).model_dump(mode="json") | {"id": event_id("s1", "e", "journey", seq)}
        events.append(event | {"business_date": date, "start_us": 2**63 - 1})
    assert take(ledger, message("s1", 1, events, "journey"), us=2**62).fresh == 4
    dates = [str(day) for (day,) in conn.execute("SELECT business_date FROM chain.journey ORDER BY seq")]
    assert dates == ["9999-12-31"] * 2 + ["0001-01-01", "9999-12-31"]


def test_partitions_are_made_and_dropped(conn: Any) -> None:
    ledger = Ledger(conn, version="1")
    take(ledger, batch("s1", 1, 2, "agg"))
    there = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'chain.event'::regclass"
    before = conn.execute(there).fetchone()[0]
    conn.execute("SELECT chain.prepare(ARRAY[current_date - 40, current_date - 36, current_date - 34], true)")
    assert conn.execute(there).fetchone()[0] == before + 3
    dropped = ledger.keep_house()
    assert len([name for name in dropped if name.startswith("event_")]) == 2
    assert len(dropped) == 2  # recognitions and cues are kept for longer
    assert counted(conn)["agg"]["rows"] == 2
    assert ledger.keep_house() == []
    conn.execute("INSERT INTO chain.event_other SELECT current_date - 36, 1, 1, 1, 'x', '{}'")
    ledger.keep_house()
    assert conn.execute("SELECT count(*) FROM chain.event_other").fetchone() == (0,)


def test_a_user_without_rights_is_told_who_must_act(chain: str) -> None:
    name = "weak" + chain.rsplit("_", 1)[1]
    with connect(chain) as owner:
        owner.execute("DROP SCHEMA chain CASCADE")
        owner.execute(f"CREATE ROLE {name} LOGIN")
    with (
        connect(chain.replace("//crm@", f"//{name}@")) as conn,
        pytest.raises(schema.OutdatedError, match="tagtrail chain setup"),
    ):
        schema.require(conn)


def with_term(told: tuple[str, bytes], term: int) -> tuple[str, bytes]:
    topic, payload = told
    return topic, json.dumps(json.loads(payload) | {"term": term}).encode()


def test_a_gateway_that_was_taken_over_from_is_not_listened_to(chain: str, conn: Any) -> None:
    ledger, key = Ledger(conn, version="1"), ("s1", "e", "health")
    assert take(ledger, with_term(batch("s1", 1, 3), 7)).upto == {key: 3}
    taken = take(ledger, with_term(batch("s1", 104, 2, lost=((4, 103),)), 9), with_term(batch("s1", 4, 5), 7))
    assert (taken.upto, taken.fenced, taken.fresh) == ({key: 105}, 1, 2)
    assert take(ledger, batch("s1", 9, 1)).fenced == 1
    # Another sink, which has never heard of it, and a class that the new gateway has sent nothing of.
    with connect(chain) as second:
        other = Ledger(second, version="1")
        member = with_term(batch("s1", 1, 2, class_="member"), 7)
        assert take(other, member) == ({}, [], 0, 1)
        assert take(other, with_term(batch("s1", 1, 2, class_="member"), 9)).fresh == 2
        assert take(other, batch("s2", 1, 2)).fresh == 2
    assert conn.execute("SELECT term, count(*) FROM chain.series GROUP BY term ORDER BY term").fetchall() == [
        (0, 1),
        (9, 2),
    ]


def test_terms_that_rise_in_two_sinks_at_once_block_nobody(chain: str) -> None:
    def work(class_: EventClass) -> None:
        with connect(chain) as mine:
            ledger = Ledger(mine, version="1")
            for n in range(1, 60):
                take(ledger, *(with_term(batch(store, n, 1, class_=class_), n) for store in ("a", "b")))

    threads = [threading.Thread(target=work, args=(class_,)) for class_ in CLASSES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with connect(chain) as conn:
        assert conn.execute("SELECT DISTINCT term FROM chain.series").fetchall() == [(59,)]
