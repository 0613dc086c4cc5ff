"""What sync costs: a backlog drained, a day written to flash, a storm of reconnections, batches packed."""

from __future__ import annotations

import random
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from brokers import MakeCrm, MakeStore, MosquittoBroker, Until, health, need_mosquitto
from fleets import Fleet
from gateways import Gateway
from weeks import open_week

from edge.database.writer import Database
from simulators.headquarters.broker import NatsBroker
from simulators.headquarters.inventor import Inventor
from sync import outbox
from sync.contract import CLASSES, Envelope, encode, pack

EVENTS = 50_000
WRITTEN_BUDGET_MB = 2.0
"""Per 1,000 events."""
STORES = 1_000
COMMITS = 4_000
STEP_S = 5
OPEN_H = 12


@pytest.mark.benchmark_suite
async def test_drain(
    broker: NatsBroker | MosquittoBroker,
    store: MakeStore,
    crm: MakeCrm,
    until: Until,
    benchmark: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gateway, consumer = store(broker.url), crm(broker.url)
    for _ in range(EVENTS // 1000):
        await gateway.writer.write(lambda conn: outbox.append(conn, "health", [health(n) for n in range(1000)]))
    await consumer.start()
    await until(consumer.ready)
    began = time.monotonic()
    async with gateway.online():
        await until(lambda: gateway.publisher.acked("health") == EVENTS, within_s=120)
        took_s = time.monotonic() - began
        await until(gateway.empty)
    last = await consumer.stop()
    assert (last["received"], last["gaps"]) == (EVENTS, 0)
    rate = EVENTS / took_s
    note(benchmark, events_per_s=rate, broker=type(broker).__name__)
    with capsys.disabled():
        print(f"\ndrain over {type(broker).__name__}: {rate:,.0f} events/s, {last['duplicates']} repeated")


@pytest.mark.benchmark_suite
def test_flash(tmp_path: Path, benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes handed to the disk for the outbox, by the kernel's count: write-ahead log and its folding back included."""
    inventor = Inventor(random.Random(1))
    figures = {}
    for name, rows, classes in (
        ("one", 1, CLASSES),
        ("ten", 10, CLASSES),
        ("hundred", 100, CLASSES),
        ("windows", 100, ("agg",)),
    ):
        database = Database(tmp_path / f"{name}.db", store="s1", quota_mb=2048)
        before, events = written_bytes(), 0
        for _ in range(COMMITS // rows):
            some = [(class_, event) for class_, event in (inventor.next() for _ in range(rows)) if class_ in classes]
            events += len(some)
            database.write_now(lambda conn, some=some: commit(conn, some))
        database.close()
        figures[name] = (written_bytes() - before) / 1e3 / events
    note(benchmark, **{f"mb_per_1000_{name}": round(mb, 2) for name, mb in figures.items()})
    with capsys.disabled():
        print("\nwritten per 1,000 events, MB: " + ", ".join(f"{name} {mb:.2f}" for name, mb in figures.items()))
    assert figures["windows"] <= WRITTEN_BUDGET_MB


def commit(conn: sqlite3.Connection, some: Any) -> None:
    for class_ in CLASSES:
        outbox.append(conn, class_, [event for kind, event in some if kind == class_])


@pytest.mark.benchmark_suite
async def test_flash_of_a_day(gateway: Gateway, benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """All that the service writes in an hour with 240 members passing through, times the hours of a day."""
    with open_week(gateway, "mqtt://127.0.0.1:1", 300, None) as week:
        await week.step(0)
        before, events = written_bytes(), sum((await week.numbers()).values())
        for step in range(3600 // STEP_S):
            await week.step(int(step % 3 == 0), STEP_S * 1_000_000)
        hour_mb = (written_bytes() - before) / 1e6
        events = sum((await week.numbers()).values()) - events
    note(benchmark, hour_mb=round(hour_mb, 1), day_mb=round(OPEN_H * hour_mb), events=events)
    with capsys.disabled():
        print(f"\nwritten in an hour: {hour_mb:.0f} MB ({events} events); in {OPEN_H} h: {OPEN_H * hour_mb:,.0f} MB")


@pytest.mark.benchmark_suite
async def test_storm(
    tmp_path: Path, crm: MakeCrm, until: Until, benchmark: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broker that keeps nothing is killed under 1,000 stores: how long until all are back and all is acknowledged."""
    need_mosquitto()
    options = "allow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 100"
    async with MosquittoBroker(tmp_path / "broker", options, persistent=False) as broker:
        fleet, consumer = Fleet(broker.url, tmp_path / "fleet.log", STORES, 0.1), crm(broker.url)
        await consumer.start()
        await until(consumer.ready)
        try:
            await fleet.start()
            await until(lambda: fleet.told("connected") == STORES, within_s=180)
            await broker.kill()
            await until(lambda: fleet.told("connected") == 0, within_s=60)
            await broker.start()
            began = time.monotonic()
            await until(lambda: fleet.told("connected") == STORES, within_s=180)
            connected_s = time.monotonic() - began
            await until(lambda: fleet.told("pending") < STORES // 10, within_s=180)
            settled_s = time.monotonic() - began
            totals = await fleet.last()
        finally:
            await fleet.close()
        last = await consumer.stop()
    assert (last["received"], last["gaps"]) == (totals["sent"], 0)
    note(benchmark, connected_s=round(connected_s, 1), settled_s=round(settled_s, 1), stores=STORES)
    with capsys.disabled():
        print(f"\nstorm: {STORES:,} stores connected again after {connected_s:.1f} s, settled after {settled_s:.1f} s")


@pytest.mark.benchmark_suite
def test_packing(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes of batches of 1, 10 and 100 events, plain and packed, and what packing takes."""
    inventor = Inventor(random.Random(1))
    rows = []
    for n in (1, 2, 5, 10, 30, 100):
        batches = []
        for class_ in ("member", "journey", "agg"):
            events = [event for kind, event in (inventor.next() for _ in range(20 * n + 50)) if kind == class_][:n]
            payloads = [event.model_copy(update={"id": f"s1/e/{class_}/1"}).model_dump_json() for event in events]
            if sum(map(len, payloads)) <= 32 * 1024:
                batches.append(encode(envelope(class_, len(payloads)), payloads))
        began = time.perf_counter()
        for _ in range(50):
            packed = [pack(batch) for batch in batches]
        us = (time.perf_counter() - began) / 50 / len(batches) * 1e6
        plain_bytes, packed_bytes = sum(map(len, batches)) / len(batches), sum(map(len, packed)) / len(batches)
        rows.append((n, round(plain_bytes), round(packed_bytes), round(us)))
    note(benchmark, rows=rows)
    with capsys.disabled():
        for n, plain_bytes, packed_bytes, us in rows:
            print(f"\nbatch of {n}: {plain_bytes:,} bytes, packed {packed_bytes:,}, {us} µs", end="")
    assert rows[-1][2] < rows[-1][1] / 3


def note(benchmark: Any, **figures: Any) -> None:
    """Keep figures that were measured by other means in the run's file."""
    benchmark.extra_info.update(figures)
    benchmark.pedantic(lambda: None)


def written_bytes() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("write_bytes")).split()[1])


def envelope(class_: str, n: int) -> Envelope:
    head = {"store": "demo", "epoch": "0123456789abcdef", "class": class_, "first": 1, "n": n, "sent_us": 1}
    return Envelope.model_validate(head | {"boot": "6f0c1f8e-1111-2222-3333-444455556666", "mono_us": 1})
