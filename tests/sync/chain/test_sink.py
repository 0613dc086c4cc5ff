"""Sinks on a real broker and a real PostgreSQL: what they commit, acknowledge, share and outlive."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from typing import Any

import pytest
from brokers import MosquittoBroker, Until
from chains import batch, counted, message
from databases import Postgres
from herds import Herd

from config import topics
from sync.chain import sink as sink_module
from sync.chain import tables
from sync.chain.ledger import connect
from sync.mqtt import Incoming, MqttSettings
from sync.mqtt import connect as connect_to_broker

StartSink = Callable[..., Any]


async def retained(url: str, topic: str) -> list[Incoming]:
    """What a broker has retained on a topic: it sends that before what is published afterwards."""
    async with connect_to_broker(MqttSettings.from_url(url, "looks")) as link:
        await link.subscribe([topic, "end"])
        await link.publish("end", b"")
        found: list[Incoming] = []
        while not found or found[-1].topic != "end":
            found += await link.receive()
        return [one for one in found if one.retained]


@pytest.mark.parametrize("version", ["3.1.1", "5"])
async def test_what_is_committed_is_acknowledged(
    cell: MosquittoBroker, chain: str, conn: Any, start: StartSink, until: Until, version: str
) -> None:
    """All classes of many stores, by the two lanes; the acks that stay at the broker are the watermarks."""
    for lane in ("member", "bulk"):
        sink, _ = start(cell.url, lane, version)
        await until(lambda sink=sink: len(sink.shards) == topics.SHARDS)
    herd = Herd(cell.url, [f"h{n}" for n in range(20)], ("member", "journey", "agg", "health"), 60, 7)
    async with asyncio.timeout(60):
        await herd.run()
    for numbers in counted(conn).values():
        assert {numbers[name] for name in ("received", "upto", "highest", "rows")} == {20 * 60}
    acks = await retained(cell.url, topics.topic("+", "down/ack/+"))
    assert len(acks) == 20 * 4
    assert {(ack["epoch"], ack["upto"], ack["pause_ms"]) for ack in (json.loads(one.payload) for one in acks)} == {
        ("e", 60, 0)
    }


async def test_shards_are_shared_and_taken_over(
    cell: MosquittoBroker, conn: Any, start: StartSink, until: Until
) -> None:
    first, ending = start(cell.url)
    await until(lambda: len(first.shards) == topics.SHARDS)
    second, _ = start(cell.url)
    await until(lambda: len(first.shards) == len(second.shards) == topics.SHARDS // 2, within_s=20)
    assert set(first.shards) | set(second.shards) == set(range(topics.SHARDS))
    herd = Herd(cell.url, [f"h{n}" for n in range(30)], ("agg",), 400, 5)
    sending = asyncio.create_task(herd.run())
    await until(lambda: herd.acked > 100)
    ending.cancel()
    await until(lambda: len(second.shards) == topics.SHARDS, within_s=20)
    async with asyncio.timeout(60):
        await sending
    assert counted(conn)["agg"]["rows"] == 30 * 400


async def test_a_database_that_goes_away_costs_nothing(
    cell: MosquittoBroker, postgres_server: Postgres, chain: str, start: StartSink, until: Until
) -> None:
    sink, _ = start(cell.url)
    await until(lambda: len(sink.shards) == topics.SHARDS)
    herd = Herd(cell.url, [f"h{n}" for n in range(20)], ("health",), 300, 3)
    sending = asyncio.create_task(herd.run())
    await until(lambda: herd.acked > 50)
    postgres_server.end(signal.SIGQUIT)
    try:
        await until(lambda: sink.counters["pauses"] > 0 and "database" in sink.trouble)
    finally:
        postgres_server.start()
    async with asyncio.timeout(60):
        await sending
    await until(lambda: not sink.trouble)
    with connect(chain) as conn:
        assert counted(conn)["health"]["rows"] == 20 * 300


async def test_a_broker_that_goes_away_costs_nothing(
    cell: MosquittoBroker, conn: Any, start: StartSink, until: Until
) -> None:
    sink, _ = start(cell.url)
    await until(lambda: len(sink.shards) == topics.SHARDS)
    herd = Herd(cell.url, [f"h{n}" for n in range(20)], ("health",), 200, 3)
    sending = asyncio.create_task(herd.run())
    await until(lambda: herd.acked > 50)
    await cell.kill()
    await until(lambda: "broker" in sink.trouble)
    await cell.start()
    async with asyncio.timeout(60):
        await sending
    assert counted(conn)["health"]["rows"] == 20 * 200


async def test_garbage_and_refusals_stop_nothing(
    cell: MosquittoBroker, conn: Any, start: StartSink, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages that are no batches, and an event that the database refuses for a reason that nobody foresaw."""
    conn.execute("ALTER TABLE chain.event ADD CHECK (payload NOT LIKE '%unforeseen%')")
    sink, _ = start(cell.url)
    await until(lambda: len(sink.shards) == topics.SHARDS)
    bad = json.loads(batch("s2", 1, 2)[1])["events"]
    bad[1]["version"] = "unforeseen"
    async with connect_to_broker(MqttSettings.from_url(cell.url, "sends")) as link:
        await link.publish(topics.topic("s1", "up/health"), b"{")
        await link.publish(topics.topic("s1", "up/result"), b"\xff")
        await link.publish(*message("s2", 1, bad))
        await link.publish(*batch("s3", 1, 4))
    await until(lambda: len(conn.execute("SELECT 1 FROM chain.series WHERE upto > 0").fetchall()) == 2)
    assert conn.execute("SELECT count(*) FROM chain.dead_message").fetchone() == (1,)
    letters = conn.execute("SELECT type, left(error, 24) FROM chain.dead_letter ORDER BY seq").fetchall()
    assert letters == [("gateway", "it can't be committed: n")] * 2
    assert counted(conn)["health"]["rows"] == 4
    assert "broker" not in sink.trouble


async def test_a_store_that_waits_too_long_is_asked_to_pause(
    cell: MosquittoBroker, conn: Any, start: StartSink, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_module, "LATE_S", -1.0)
    sink, _ = start(cell.url)
    await until(lambda: len(sink.shards) == topics.SHARDS)
    async with connect_to_broker(MqttSettings.from_url(cell.url, "s1")) as link:
        await link.subscribe([topics.topic("s1", "down/ack/+")])
        for class_ in ("health", "journey"):
            await link.publish(*batch("s1", 1, 3, class_))
        acks: list[tuple[str, int, bool]] = []

        async def paused() -> bool:
            for one in await link.receive():
                ack = json.loads(one.payload)
                acks.append((one.topic.rsplit("/", 1)[1], ack["upto"], ack["pause_ms"] > 0))
            return len(acks) >= 3

        await until(paused)
    assert sorted(acks) == [("health", 3, False), ("health", 3, True), ("journey", 3, False)]
    (kept,) = await retained(cell.url, topics.topic("s1", "down/ack/health"))
    assert (json.loads(kept.payload)["upto"], json.loads(kept.payload)["pause_ms"]) == (3, 0)


async def test_what_stores_say_of_themselves_is_written_down(
    cell: MosquittoBroker, conn: Any, start: StartSink, until: Until
) -> None:
    sink, _ = start(cell.url)
    await until(lambda: len(sink.shards) == topics.SHARDS)
    told = {"v": 1, "store": "s1", "online": True, "version": "1", "epoch": "e", "config_generation": "c"}
    async with connect_to_broker(MqttSettings.from_url(cell.url, "s1")) as link:
        state = told | {"directory_generation": 3}
        await link.publish(topics.topic("s1", "state"), json.dumps(state).encode(), retain=True)
        await link.publish(*batch("s1", 1, 1))
    query = "SELECT state ->> 'directory_generation', health ->> 'reads' FROM chain.store WHERE store = 's1'"
    await until(lambda: conn.execute(query).fetchone() == ("3", "1"))


async def test_a_mistake_of_ours_costs_only_what_it_is_about(
    cell: MosquittoBroker, conn: Any, start: StartSink, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a missing right is nobody's dead letter: it is waited for."""
    rows_of = tables.rows_of

    def mistaken(events: Any) -> Any:
        if any(origin.store == "s2" for _, origin in events):
            raise KeyError("a mistake")
        return rows_of(events)

    monkeypatch.setattr(tables, "rows_of", mistaken)
    sink, _ = start(cell.url)
    await until(lambda: len(sink.shards) == topics.SHARDS)
    conn.execute("ALTER TABLE chain.ahead RENAME TO away")
    async with connect_to_broker(MqttSettings.from_url(cell.url, "sends")) as link:
        await link.publish(*batch("s1", 5, 2))
        await until(lambda: "database" in sink.trouble)
        assert conn.execute("SELECT count(*) FROM chain.dead_letter").fetchone() == (0,)
        conn.execute("ALTER TABLE chain.away RENAME TO ahead")
        await link.publish(*batch("s2", 1, 2))
        await link.publish(*batch("s3", 1, 4))
    await until(lambda: counted(conn).get("health", {}).get("received") == 6)
    await until(lambda: counted(conn)["health"]["dead"] == 2)
    assert counted(conn)["health"]["rows"] == 6


async def test_what_is_too_much_at_once_comes_again(
    cell: MosquittoBroker, conn: Any, start: StartSink, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_module, "WAITING_BYTES", 20_000)
    sink, _ = start(cell.url)
    await until(lambda: len(sink.shards) == topics.SHARDS)
    async with asyncio.timeout(60):
        await Herd(cell.url, [f"h{n}" for n in range(30)], ("health",), 80, 10).run()
    assert counted(conn)["health"]["rows"] == 30 * 80
    assert sink.counters["dropped"] > 0
