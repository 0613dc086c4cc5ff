"""The reference consumer on a real PostgreSQL, started for the test."""

from __future__ import annotations

import json
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import pytest
from brokers import CrmProcess, MakeStore, Until, health, window

from config import topics
from simulators.headquarters.broker import NatsBroker, free_port
from sync import latest
from sync.consumer import Delivery, Ledger
from sync.contract import Batch, event_id

psycopg = pytest.importorskip("psycopg")


def delivery(first: int, n: int, lost: tuple[int, int] | None = None) -> Delivery:
    made = {"v": 1, "store": "s1", "epoch": "e", "class": "health", "first": first, "n": n, "sent_us": 1, "boot": "b"}
    events = [
        health(seq).model_copy(update={"id": event_id("s1", "e", "health", seq)}) for seq in range(first, first + n)
    ]
    gaps = [{"from": lost[0], "to": lost[1], "reason": "quota"}] if lost else []
    batch = Batch.model_validate(made | {"mono_us": 1, "lost": gaps, "events": events})
    return Delivery(topics.topic("s1", "up/health"), batch.model_dump_json(by_alias=True).encode(), 1)


def test_the_book_is_kept_in_postgresql_as_in_sqlite(postgres: str, tmp_path: Path) -> None:
    books: tuple[str | Path, ...] = (postgres, tmp_path / "crm.db")
    for number, book in enumerate(books):
        ledger = Ledger(book)
        taken = ledger.take([delivery(1, 10), delivery(8, 5), delivery(21, 5), Delivery("x", b"{", 1)])
        assert [ack.upto for _, _, ack in taken.acks] == [12], number
        assert ledger.gaps() == [("s1", "e", "health", 13, 20)]
        assert [a.upto for _, _, a in ledger.take([delivery(18, 3, lost=(13, 17))]).acks] == [25]
        totals = ledger.totals(recount=True)
        wanted = {"received": 20, "duplicates": 3, "lost": 5, "gaps": 0, "dead": 1}
        assert {name: totals[name] for name in wanted} == wanted
        ledger.close()


def test_what_is_handed_over_is_in_the_same_transaction(postgres: str) -> None:
    def hand_over(conn: Any, fresh: Any) -> None:
        conn.executemany("INSERT INTO mine VALUES (?)", [(event.id,) for _, event, _ in fresh])
        if len(fresh) > 3:
            raise ValueError("not now")

    ledger = Ledger(postgres, hand_over)
    ledger._conn.execute("CREATE TABLE mine (id TEXT PRIMARY KEY)")
    before = ledger.totals()["received"]
    with pytest.raises(ValueError, match="not now"):
        ledger.take([delivery(26, 5)])
    ledger.take([delivery(26, 2)])
    assert ledger.totals(recount=True)["received"] == before + 2
    assert ledger._conn.execute("SELECT count(*) FROM mine").fetchone() == (2,)
    ledger.close()


def test_two_workers_count_the_same_events_once(postgres: str) -> None:
    ledgers = [Ledger(postgres), Ledger(postgres)]

    def work(ledger: Ledger) -> None:
        for first in range(101, 1101, 50):
            ledger.take([delivery(first, 50)])

    threads = [threading.Thread(target=work, args=(ledger,)) for ledger in ledgers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    query = "SELECT count(*), count(DISTINCT seq) FROM event WHERE seq > 100"
    assert ledgers[0]._conn.execute(query).fetchone() == (1000, 1000)
    totals = ledgers[0].totals()
    assert totals == ledgers[0].totals(recount=True)
    for ledger in ledgers:
        ledger.close()


def batch_of(store: str, first: int, n: int = 1) -> Delivery:
    events = [
        health(seq).model_copy(update={"id": event_id(store, "e", "health", seq)}) for seq in range(first, first + n)
    ]
    made = {"v": 1, "store": store, "epoch": "e", "class": "health", "first": first, "n": n, "sent_us": 1, "boot": "b"}
    batch = Batch.model_validate(made | {"mono_us": 1, "events": events})
    return Delivery(topics.topic(store, "up/health"), batch.model_dump_json(by_alias=True).encode(), 1)


def at_once(workers: int, work: Callable[[int], None]) -> list[Exception]:
    """Run `work(i)` in so many threads that begin together; what they raised."""
    gate, raised = threading.Barrier(workers), []

    def run(i: int) -> None:
        gate.wait(30)
        try:
            work(i)
        except Exception as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_workers_that_start_together_on_an_empty_database_all_start(postgres: str) -> None:
    def start(_: int) -> None:
        for _ in range(5):
            Ledger(postgres, latest.keep, tables=latest.TABLES).close()

    assert at_once(6, start) == []


def test_workers_with_the_same_stores_in_any_order_never_block_each_other(postgres: str) -> None:
    """As after a rebalance: everything comes to both, dead letters too, in an order of each one's own."""
    stores = [f"s{i}" for i in range(12)]
    poison = [Delivery(topics.topic(store, "up/health"), b"{", 1) for store in stores]

    def work(i: int) -> None:
        ledger, dice = Ledger(postgres), random.Random(i)
        for first in range(1, 121, 4):
            deliveries = [*(batch_of(store, first, 4) for store in stores), *poison]
            dice.shuffle(deliveries)
            ledger.take(deliveries)
        ledger.close()

    assert at_once(3, work) == []
    ledger = Ledger(postgres)
    totals = ledger.totals(recount=True)
    assert totals == ledger.totals()
    assert (totals["received"], totals["duplicates"], totals["dead"]) == (12 * 120, 2 * 12 * 120, 12)
    assert ledger.gaps() == []
    ledger.close()


def test_a_batch_of_one_event_costs_no_statement_of_its_own(postgres: str) -> None:
    ledger = Ledger(postgres)
    said: list[str] = []

    class Counting(psycopg.Cursor):  # type: ignore[name-defined]
        def execute(self, query: str, *args: str, **kwargs: Any) -> Any:
            said.append(str(query))
            return super().execute(query, *args, **kwargs)

    ledger._conn._conn.cursor_factory = Counting
    counts = []
    for first, n in ((1, 1), (2, 40), (1, 41)):  # new, more of them, and all of it again
        said.clear()
        ledger.take([batch_of(f"s{i % 8}", seq) for i in range(8) for seq in range(first, first + n)])
        counts.append(len(said))
    assert max(counts) <= 8
    assert ledger.totals(recount=True)["received"] == 8 * 41
    ledger.close()


async def test_the_crm_keeps_its_book_there_and_outlives_it(
    postgres_server: Any, postgres: str, tmp_path: Path, nats: NatsBroker, store: MakeStore, until: Until
) -> None:
    """PostgreSQL and the CRM are killed while events come; what was not committed was not acknowledged."""
    gateway, consumer = store(nats.url), CrmProcess(tmp_path, nats.url, database=postgres)
    await consumer.start()
    await until(consumer.ready)

    def counted() -> Any:
        with psycopg.connect(postgres) as conn:
            return conn.execute("SELECT class, min(seq), max(seq), count(*) FROM event GROUP BY class").fetchall()

    try:
        async with gateway.online():
            for die in (lambda: postgres_server.end(signal.SIGQUIT), None):
                await gateway.commit("health", 600)
                await gateway.commit("member", 5)
                if die is not None:
                    die()
                    await gateway.commit("health", 600)
                    postgres_server.start()
                else:
                    await consumer.kill()
                    await consumer.start()
            await until(gateway.empty, within_s=90)
        assert sorted(counted()) == [("health", 1, 1800, 1800), ("member", 1, 10, 10)]
        last = await consumer.stop()
        assert (last["received"], last["gaps"], last["lost"], last["dead"]) == (1810, 0, 0, 0)
    finally:
        await consumer.close()


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    url = f"postgresql://crm@127.0.0.1:{free_port()}/postgres"
    done = forked.run("crm", "--url", "mqtt://127.0.0.1:1", "--database", url)
    assert done.returncode == 1
    assert "cannot use the PostgreSQL database" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_windows_are_by_now_is_kept_in_postgresql_too(postgres: str) -> None:
    ledger = Ledger(postgres, latest.keep, tables=latest.TABLES)
    head = {"v": 1, "store": "late", "epoch": "e", "class": "agg", "sent_us": 1, "boot": "b", "mono_us": 1, "n": 1}
    for seq, (n, revision) in enumerate(((3, 1), (5, 3), (4, 2)), 1):
        event = window(n).model_copy(update={"id": f"late/e/agg/{seq}", "window_us": 7, "revision": revision})
        message = head | {"first": seq, "events": [event.model_dump()]}
        ledger.take([Delivery(topics.topic("late", "up/agg"), json.dumps(message).encode(), 1)])
    (row,) = latest.windows(ledger._conn, "late", 0, 100)
    assert (row["entered"], row["revision"], row["coverage"], row["histogram"]) == (5, 3, 1.0, {"3": 5})
    ledger.close()
