"""The far end: what the reference CRM takes into its book, what a slow line carries, what a recognition waits."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from brokers import MAKERS, Listening, MakeCrm, MakeStore, MosquittoBroker, Until
from lines import SlowLine

from config import topics
from simulators.headquarters.fleet import FakeStore
from sync import outbox
from sync.consumer import Delivery, Ledger
from sync.contract import Envelope, encode, event_id

SHARE = 0.8
"""Of a line's bits that shall be events which come for the first time."""
STORES, WINDOWS = 100, 1_000
EVENTS = {1: 8_000, 10: 40_000, 100: 60_000}


def deliveries(batch_events: int, n: int) -> list[Delivery]:
    """Batches of so many events, of 50 stores in turn."""
    made = []
    for number in range(n // batch_events):
        store, first = f"b{batch_events}-{number % 50}", 1 + batch_events * (number // 50)
        ids = [event_id(store, "e", "health", seq) for seq in range(first, first + batch_events)]
        events = [MAKERS["health"](seq).model_copy(update={"id": id_}) for seq, id_ in enumerate(ids)]
        head = {"store": store, "epoch": "e", "class": "health", "first": first, "n": batch_events, "sent_us": 1}
        envelope = Envelope.model_validate(head | {"boot": "b" * 36, "mono_us": 1})
        payload = encode(envelope, [event.model_dump_json() for event in events])
        made.append(Delivery(topics.topic(store, "up/health"), payload, 1))
    return made


@pytest.mark.benchmark_suite
def test_ingest(postgres: str, tmp_path: Path, benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    rates = {}
    for name, book in (("postgresql", postgres), ("sqlite", tmp_path / "crm.db")):
        ledger = Ledger(book)
        for batch_events, n in EVENTS.items():
            waiting = deliveries(batch_events, n)
            began = time.perf_counter()
            for at in range(0, len(waiting), 256):
                ledger.take(waiting[at : at + 256])
            rates[f"{name}_{batch_events}"] = round(n / (time.perf_counter() - began))
        ledger.close()
    note(benchmark, **rates)
    with capsys.disabled():
        print(f"\ningest, events/s at 1, 10, 100 a batch: {rates}")


@pytest.mark.benchmark_suite
async def test_slow_line(
    mosquitto: MosquittoBroker,
    store: MakeStore,
    listening: Listening,
    until: Until,
    benchmark: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shares = {}
    for kbit_per_s in (16, 32, 64):
        async with SlowLine(mosquitto.url, 1000 * kbit_per_s).open() as slow:
            gateway = store(slow.url, f"slow{kbit_per_s}")
            for class_ in ("journey", "agg"):
                await gateway.commit(class_, 2000)
            async with listening(mosquitto.url, gateway) as crm, gateway.online():
                crm.acking = True
                await until(lambda: len(crm.batches) >= 3, within_s=60)
                began, before = time.monotonic(), fresh_bytes(crm.batches)
                await asyncio.sleep(40)
                carried = (fresh_bytes(crm.batches) - before) * 8 / (time.monotonic() - began)
        shares[f"kbit_{kbit_per_s}"] = round(carried / (1000 * kbit_per_s), 3)
    note(benchmark, **shares)
    with capsys.disabled():
        print(f"\nshare of a slow line that was fresh events: {shares}")
    assert min(shares.values()) >= SHARE


@pytest.mark.benchmark_suite
async def test_recognitions_behind_a_backlog(
    mosquitto: MosquittoBroker,
    crm: MakeCrm,
    until: Until,
    tmp_path: Path,
    benchmark: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Stores come back with windows that wait, while members come in."""
    thread = ThreadPoolExecutor(1)
    fleet = [FakeStore(f"back-{n:03}", mosquitto.url, thread) for n in range(STORES)]
    some = [MAKERS["agg"](n) for n in range(WINDOWS)]
    for one in fleet:
        await one.write(lambda conn: outbox.append(conn, "agg", some))
    consumer = crm(mosquitto.url)
    await consumer.start()
    await until(consumer.ready)
    publishing = [asyncio.create_task(one.publisher.run()) for one in fleet]

    def told() -> Any:
        return json.loads((tmp_path / "crm.json").read_text())

    greeted = 0
    while told()["received"] < STORES * WINDOWS // 2:
        one = fleet[greeted % STORES]
        await one.write(lambda conn: outbox.append(conn, "member", [MAKERS["member"](1)]))
        one.publisher.wake("member")
        greeted += 1
        await asyncio.sleep(0.05)
    ms = told()["recognition_ms"]
    for task in publishing:
        task.cancel()
    await asyncio.gather(*publishing, return_exceptions=True)
    note(benchmark, n=ms["n"], p50_ms=ms["p50"], p99_ms=ms["p99"])
    with capsys.disabled():
        print(f"\n{STORES} stores with {WINDOWS} windows each: {ms['n']} of {greeted} recognitions, {ms}")
    assert ms["n"] >= 0.8 * greeted


def fresh_bytes(batches: Any) -> int:
    """Bytes of events, each once, as the outbox has them."""
    events = {event["id"]: event for batch in batches for event in batch["events"]}
    return sum(len(json.dumps(event, separators=(",", ":"))) for event in events.values())


def note(benchmark: Any, **figures: Any) -> None:
    """Keep figures that were measured by other means in the run's file."""
    benchmark.extra_info.update(figures)
    benchmark.pedantic(lambda: None)
