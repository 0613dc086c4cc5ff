"""The reference consumer on a real PostgreSQL, started for the test."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from brokers import CrmProcess, health, window

from config import topics
from simulators.headquarters.broker import free_port
from sync import latest
from sync.consumer import Delivery, Ledger
from sync.contract import Batch, event_id


def _tool(name: str) -> str | None:
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(versions[-1]) if versions else shutil.which(name)


class Postgres:
    """A server on a free port of the loopback, with its data in `folder`."""

    def __init__(self, folder: Path, who: dict[str, str]) -> None:
        self._port = free_port()
        self._folder, self._who = folder, who
        self.url = f"postgresql://crm@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        options = ["-D", self._folder / "data", "-p", str(self._port), "-k", self._folder]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_tool("postgres"), *options, "-c", "listen_addresses=127.0.0.1"],
                **{"cwd": self._folder, "stdout": log, "stderr": log} | self._who,
            )
        import psycopg

        for _ in range(600):
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.url).close()
                return
            threading.Event().wait(0.1)
        raise AssertionError((self._folder / "log").read_text())

    def end(self, number: int) -> None:
        self._process.send_signal(number)
        self._process.wait(30)


@pytest.fixture(scope="module")
def server():
    initdb = _tool("initdb")
    if initdb is None or _tool("postgres") is None:
        pytest.skip("PostgreSQL is not installed: apt install postgresql")
    # It refuses to run as root.
    who = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="tagtrail-pg-"))
    try:
        if who:
            shutil.chown(folder, "postgres", "postgres")
        data = folder / "data"
        made = subprocess.run([initdb, "-D", data, "-A", "trust", "-U", "crm"], cwd=folder, capture_output=True, **who)
        if made.returncode:
            pytest.skip(f"PostgreSQL cannot be set up here: {made.stderr.decode()[-200:]}")
        server = Postgres(folder, who)
        server.start()
        yield server
        server.end(signal.SIGINT)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres(server):
    """The URL of a database of this test's own."""
    import psycopg

    name = f"crm_{free_port()}"
    with psycopg.connect(server.url, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}")
    return server.url.replace("/postgres", f"/{name}")


def delivery(first: int, n: int, lost: tuple[int, int] | None = None) -> Delivery:
    made = {"v": 1, "store": "s1", "epoch": "e", "class": "health", "first": first, "n": n, "sent_us": 1, "boot": "b"}
    events = [
        health(seq).model_copy(update={"id": event_id("s1", "e", "health", seq)}) for seq in range(first, first + n)
    ]
    gaps = [{"from": lost[0], "to": lost[1], "reason": "quota"}] if lost else []
    batch = Batch.model_validate(made | {"mono_us": 1, "lost": gaps, "events": events})
    return Delivery(topics.topic("s1", "up/health"), batch.model_dump_json(by_alias=True).encode(), 1)


def test_the_book_is_kept_in_postgresql_as_in_sqlite(postgres, tmp_path):
    for number, book in enumerate((postgres, tmp_path / "crm.db")):
        ledger = Ledger(book)
        taken = ledger.take([delivery(1, 10), delivery(8, 5), delivery(21, 5), Delivery("x", b"{", 1)])
        assert [ack.upto for _, _, ack in taken.acks] == [12], number
        assert ledger.gaps() == [("s1", "e", "health", 13, 20)]
        assert [a.upto for _, _, a in ledger.take([delivery(18, 3, lost=(13, 17))]).acks] == [25]
        totals = ledger.totals(recount=True)
        wanted = {"received": 20, "duplicates": 3, "lost": 5, "gaps": 0, "dead": 1}
        assert {name: totals[name] for name in wanted} == wanted
        ledger.close()


def test_what_is_handed_over_is_in_the_same_transaction(postgres):
    def hand_over(conn, fresh):
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


def test_two_workers_count_the_same_events_once(postgres):
    ledgers = [Ledger(postgres), Ledger(postgres)]

    def work(ledger):
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


async def test_the_crm_keeps_its_book_there_and_outlives_it(server, postgres, tmp_path, nats, store, until):
    """PostgreSQL and the CRM are killed while events come; what was not committed was not acknowledged."""
    gateway, consumer = store(nats.url), CrmProcess(tmp_path, nats.url, database=postgres)
    await consumer.start()
    await until(consumer.ready)

    def counted():
        import psycopg

        with psycopg.connect(postgres) as conn:
            return conn.execute("SELECT class, min(seq), max(seq), count(*) FROM event GROUP BY class").fetchall()

    try:
        async with gateway.online():
            for die in (lambda: server.end(signal.SIGQUIT), None):
                await gateway.commit("health", 600)
                await gateway.commit("member", 5)
                if die is not None:
                    die()
                    await gateway.commit("health", 600)
                    server.start()
                else:
                    await consumer.kill()
                    await consumer.start()
            await until(gateway.empty, within_s=90)
        assert sorted(counted()) == [("health", 1, 1800, 1800), ("member", 1, 10, 10)]
        last = await consumer.stop()
        assert (last["received"], last["gaps"], last["lost"], last["dead"]) == (1810, 0, 0, 0)
    finally:
        await consumer.close()


def test_a_server_that_is_not_there_is_one_line(tmp_path):
    pytest.importorskip("psycopg")
    url = f"postgresql://crm@127.0.0.1:{free_port()}/postgres"
    command = [sys.executable, "-m", "edge", "crm", "--url", "mqtt://127.0.0.1:1", "--database", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "cannot use the PostgreSQL database" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_windows_are_by_now_is_kept_in_postgresql_too(postgres):
    ledger = Ledger(postgres, latest.keep, tables=latest.TABLES)
    head = {"v": 1, "store": "late", "epoch": "e", "class": "agg", "sent_us": 1, "boot": "b", "mono_us": 1, "n": 1}
    for seq, (n, revision) in enumerate(((3, 1), (5, 3), (4, 2)), 1):
        event = window(n).model_copy(update={"id": f"late/e/agg/{seq}", "window_us": 7, "revision": revision})
        message = head | {"first": seq, "events": [event.model_dump()]}
        ledger.take([Delivery(topics.topic("late", "up/agg"), json.dumps(message).encode(), 1)])
    (row,) = latest.windows(ledger._conn, "late", 0, 100)
    assert (row["entered"], row["revision"], row["coverage"], row["histogram"]) == (5, 3, 1.0, {"3": 5})
    ledger.close()
