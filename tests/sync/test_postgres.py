"""The reference consumer on a real PostgreSQL, started for the test."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest
from brokers import health

from config import topics
from simulators.broker import free_port
from sync.consumer import Delivery, Ledger
from sync.contract import Batch, event_id


def _tool(name: str) -> str | None:
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(versions[-1]) if versions else shutil.which(name)


@pytest.fixture(scope="module")
def postgres():
    initdb, server = _tool("initdb"), _tool("postgres")
    if initdb is None or server is None:
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
        port = free_port()
        options = ["-D", str(data), "-p", str(port), "-k", str(folder), "-c", "listen_addresses=127.0.0.1"]
        log = (folder / "log").open("wb")
        process = subprocess.Popen([server, *options], cwd=folder, stdout=log, stderr=log, **who)
        url = f"postgresql://crm@127.0.0.1:{port}/postgres"
        try:
            import psycopg

            for _ in range(600):
                with contextlib.suppress(psycopg.OperationalError):
                    psycopg.connect(url).close()
                    break
                threading.Event().wait(0.1)
            yield url
        finally:
            process.terminate()
            process.wait(30)
            log.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
