"""The chain end to end: events a second through sinks, beside the reference CRM in the same run; recognitions behind a
backlog; thousands of stores on one broker. Stores are `herds`, whose messages are made beforehand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from brokers import MAKERS, MosquittoBroker, Until
from chains import in_the_log, message
from databases import Postgres
from storms import storm

from config import topics
from simulators.headquarters.log import Log
from sync.chain import schema
from sync.chain.leases import SHARD_LOCKS
from sync.chain.ledger import connect
from sync.contract import event_id
from sync.mqtt import MqttSettings
from sync.mqtt import connect as connect_to_broker

ROOT = Path(__file__).parents[2]
STORES = 200
EVENTS = {1: 60, 10: 300, 100: 600}
"""Events of each store, by batch."""
SINKS = (1, 2, 4)
BACKLOG_STORES, BACKLOG_EVENTS = 250, 1_000
PROBES_S = 0.05
STORM = 5_000


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    async with Log(tmp_path / "log") as running:
        yield running


@contextlib.contextmanager
def started(*commands: list[str]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Programs of ours as processes."""
    running = [
        subprocess.Popen([sys.executable, "-m", "edge", *command], cwd=ROOT, stdout=subprocess.DEVNULL)
        for command in commands
    ]
    try:
        yield running
    finally:
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def sink(cell: MosquittoBroker, database: str, lane: str, log: Log | None) -> list[str]:
    fed = ["--log", log.servers, "--log-gib", "1"] if log else []
    return ["chain", "sink", "--lane", lane, "--broker", cell.url, "--database", database, *fed]


def cpu_s(pid: int) -> float:
    """CPU time of a process, its children, and those that have ended."""
    ticks = 0
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split() if folder.name.isdigit() else []
            if fields and int(folder.name) == pid:
                ticks += sum(map(int, fields[11:15]))
            elif fields and int(fields[1]) == pid:
                ticks += sum(map(int, fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def fresh(url: str) -> str:
    """A database with the chain's tables."""
    name = f"chain_{time.time_ns()}"
    with connect(url) as conn:
        conn.execute(f"CREATE DATABASE {name}")
    made = f"{url.rsplit('/', 1)[0]}/{name}"
    with connect(made) as conn:
        schema.set_up(conn)
    return made


def leased(conn: Any, *lanes: str) -> int:
    """Shards that sinks hold."""
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = ANY(%s::oid[])"
    (n,) = conn.execute(query, ([SHARD_LOCKS[lane] for lane in lanes],)).fetchone()
    return int(n)


async def herd_process(url: str, stores: int, events: int, batch: int, class_: str) -> Any:
    """A herd in a process of its own; returns when it is ready to go."""
    arguments = [str(ROOT / "tests/support/herds.py"), url, str(stores), str(events), str(batch), class_]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests/support")))},
    )  # fmt: skip
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def drive(process: Any, within_s: float = 240) -> dict[str, float]:
    try:
        async with asyncio.timeout(within_s):
            out, _ = await process.communicate(b"\n")
    finally:
        if process.returncode is None:
            process.kill()
    return dict(json.loads(out))


@pytest.mark.benchmark_suite
async def test_events_a_second(
    cell: MosquittoBroker,
    log: Log,
    postgres: str,
    until: Until,
    record_property: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rates: dict[str, dict[int, int]] = {}
    for name, sinks, fed in (("crm", 0, None), *((f"{n} sinks", n, log) for n in SINKS), ("1 sink, no log", 1, None)):
        for batch, events in EVENTS.items():
            database = fresh(postgres)
            commands = [sink(cell, database, "bulk", fed)] * sinks or [
                ["crm", "--url", cell.url, "--database", database]
            ]
            herd = await herd_process(cell.url, STORES, events, batch, "health")
            with started(*commands), psycopg.connect(database, autocommit=True) as conn:
                if sinks:
                    await until(lambda conn=conn: leased(conn, "bulk") == topics.SHARDS)
                await asyncio.sleep(3)  # all have subscribed
                told = await drive(herd)
                rates.setdefault(name, {})[batch] = round(STORES * events / told["seconds"])
                count = "SELECT count(*) FROM chain.event" if sinks else "SELECT count(*) FROM event"
                assert conn.execute(count.encode()).fetchone() == (STORES * events,)
                if fed:
                    await until(lambda conn=conn: in_the_log(conn), within_s=60)
    record_property("chain", json.dumps({"rates": rates}))
    with capsys.disabled():
        print(f"\nevents/s into PostgreSQL at {list(EVENTS)} a batch, {os.getloadavg()[0]:.1f} load:")
        for name, by_batch in rates.items():
            print(f"  {name:16} {'  '.join(f'{rate:>8,}' for rate in by_batch.values())}")


@pytest.mark.benchmark_suite
async def test_what_an_event_costs(
    cell: MosquittoBroker,
    log: Log,
    postgres_server: Postgres,
    postgres: str,
    until: Until,
    record_property: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """CPU of each part for an event: what sizes are reckoned from, and hardly depends on what else the machine does."""
    costs: dict[str, dict[int, float]] = {}
    for batch, events in EVENTS.items():
        database = fresh(postgres)
        herd = await herd_process(cell.url, STORES, events, batch, "agg")
        with (
            started(sink(cell, database, "bulk", log)) as sinks,
            psycopg.connect(database, autocommit=True) as conn,
        ):
            await until(lambda conn=conn: leased(conn, "bulk") == topics.SHARDS)
            await asyncio.sleep(2)
            parts = {
                "sink": [sinks[0].pid],
                "PostgreSQL": [postgres_server.pid],
                "Mosquitto": [cell.pid],
                "log, three nodes": [node.pid for node in log.nodes],
            }
            before = {name: sum(map(cpu_s, pids)) for name, pids in parts.items()}
            await drive(herd)
            await until(lambda conn=conn: in_the_log(conn), within_s=60)
            for name, pids in parts.items():
                used_s = sum(map(cpu_s, pids)) - before[name]
                costs.setdefault(name, {})[batch] = round(used_s / (STORES * events) * 1e6, 1)
    record_property("chain", json.dumps({"costs": costs}))
    with capsys.disabled():
        print(f"\nCPU, µs an event at {list(EVENTS)} a batch: {costs}")


@pytest.mark.benchmark_suite
async def test_recognitions_behind_a_backlog(
    cell: MosquittoBroker,
    log: Log,
    postgres: str,
    until: Until,
    record_property: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One member arrives every 50 ms, while 250,000 windows come in; from the store's sending to the chain's ack."""
    database = fresh(postgres)
    herd = await herd_process(cell.url, BACKLOG_STORES, BACKLOG_EVENTS, 10, "agg")
    took_ms: list[float] = []
    with started(sink(cell, database, "member", log), sink(cell, database, "bulk", log)):
        with psycopg.connect(database, autocommit=True) as conn:
            await until(lambda: leased(conn, "member", "bulk") == 2 * topics.SHARDS)
        await asyncio.sleep(3)
        draining = asyncio.create_task(drive(herd))
        async with connect_to_broker(MqttSettings.from_url(cell.url, "door")) as link:
            await link.subscribe([topics.topic("door", "down/ack/member")])
            seq = 0
            while not draining.done():
                seq += 1
                event = MAKERS["member"](seq).model_dump(mode="json") | {"id": event_id("door", "e", "member", seq)}
                began = time.monotonic()
                link.post(*message("door", seq, [event], "member"))
                async with asyncio.timeout(30):
                    while not any(json.loads(one.payload)["upto"] >= seq for one in await link.receive()):
                        pass
                took_ms.append((time.monotonic() - began) * 1000)
                await asyncio.sleep(PROBES_S)
        told = await draining
    took_ms.sort()
    figures = {
        "n": len(took_ms),
        "p50_ms": round(took_ms[len(took_ms) // 2], 1),
        "p99_ms": round(took_ms[int(0.99 * len(took_ms))], 1),
        "backlog": BACKLOG_STORES * BACKLOG_EVENTS,
        "drained_s": round(told["seconds"], 1),
    }
    record_property("chain", json.dumps({"recognitions": figures}))
    with capsys.disabled():
        print(f"\nrecognition, sent to acknowledged, behind a backlog: {figures}")


@pytest.mark.benchmark_suite
async def test_stores_on_one_broker(
    cell: MosquittoBroker, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """They connect at once, the broker is killed, and they connect at once again."""
    figures: list[dict[str, float]] = []
    for again in (False, True):
        if again:
            await cell.kill()
            await cell.start()
        async with storm(cell.port, STORM) as result:
            took = sorted(result.took_ms)
            status = Path(f"/proc/{cell.pid}/status").read_text()
            memory = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
            figures.append(
                {
                    "connected": len(took),
                    "failed": result.failed,
                    "per_s": round(len(took) / result.seconds),
                    "p99_ms": round(took[int(0.99 * len(took))]),
                    "mib": round(memory / 1024),
                }
            )
    record_property("chain", json.dumps({"storm": figures}))
    with capsys.disabled():
        print(f"\n{STORM} stores at once, and after a kill: {figures}")
    assert all(one["connected"] == STORM for one in figures)
