"""The log behind the commit on a real JetStream, and its second readers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from brokers import MosquittoBroker, Until
from chains import counted, in_the_log
from herds import Herd
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from config import topics
from simulators.headquarters.broker import free_port
from simulators.headquarters.log import Log, LogNode
from sync.chain import log as log_module
from sync.chain import reader as reader_module
from sync.chain.ledger import Run
from sync.chain.log import LogSettings, body, decoded, encoded, stream_of, subject
from sync.chain.log import connect as connect_to_log
from sync.chain.parquet import InUseError, Lake, copy
from sync.chain.reader import Place, follow

StartSink = Callable[..., Any]


@pytest.fixture
async def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Log]:
    monkeypatch.setattr(log_module, "CONFIRM_S", 0.5)
    monkeypatch.setattr(log_module, "RETRY_S", 0.1)
    async with Log(tmp_path / "log", 1) as running:
        yield running


def settings_of(log: Log) -> LogSettings:
    return LogSettings(log.servers, replicas=1, stream_gib=1)


async def everything(log: Log, class_: str, place: Place) -> list[tuple[str, int]]:
    """What is new in a class since a place, to its end."""
    client = await connect_to_log(settings_of(log), "test")
    try:
        found = []
        async for messages in follow(client, class_, place, once=True):
            found += [(event.store, event.seq) for message in messages for event in message.events]
        return found
    finally:
        await client.close()


@settings(max_examples=examples(300), deadline=None)
@given(st.text())
def test_any_store_id_is_one_token_of_a_subject(store: str) -> None:
    try:
        store.encode()
    except UnicodeEncodeError:
        return
    token = encoded(store)
    assert decoded(token) == store
    assert token
    assert not set(token) & set(" .*>\t\r\n\0")
    assert subject("agg", store) == f"tagtrail.v1.agg.{topics.shard(store)}.{token}"


def test_repetitions_and_overlaps_are_told_by_their_numbers() -> None:
    place = Place()

    def take(first: int, n: int, sequence: int) -> list[int]:
        payloads = [json.dumps({"id": seq}).encode() for seq in range(first, first + n)]
        run = Run(1, ("a.b", "e", "agg"), first, payloads)
        return [event.seq for event in place.take("agg", sequence, body(run)).events]

    assert take(1, 3, 1) == [1, 2, 3]
    assert take(5, 2, 2) == [5, 6]
    assert take(2, 6, 3) == [4, 7]
    assert take(1, 7, 9) == []
    assert Place.of_json(json.loads(json.dumps(place.to_json()))) == place
    assert place.sequence == 9
    gone = Run(1, ("a.b", "e", "agg"), 8, [b"null", b"{}"])
    assert [event.seq for event in place.take("agg", 10, body(gone)).events] == [9]


async def test_what_is_committed_is_in_the_log_once(
    cell: MosquittoBroker, conn: Any, log: Log, start: StartSink, until: Until
) -> None:
    """While the log is away, the chain commits on; afterwards it catches up, even if it has lost its streams."""
    sink, _ = start(cell.url, log=settings_of(log))
    await until(lambda: len(sink.shards) == topics.SHARDS)
    stores = ["a.b", "门店*", *(f"h{n}" for n in range(10))]

    async def send(events: int, epoch: str) -> None:
        async with asyncio.timeout(60):
            await Herd(cell.url, stores, ("agg",), events, 7, epoch=epoch).run()

    await send(40, "one")
    await until(lambda: in_the_log(conn))
    place = Place()
    assert sorted(await everything(log, "agg", place)) == sorted((store, n) for store in stores for n in range(1, 41))
    await log.nodes[0].kill()
    await send(30, "two")
    assert counted(conn)["agg"]["rows"] == len(stores) * 70
    assert not in_the_log(conn)
    await log.nodes[0].start()
    await until(lambda: in_the_log(conn))
    assert sorted(await everything(log, "agg", place)) == sorted((store, n) for store in stores for n in range(1, 31))
    client = await connect_to_log(settings_of(log), "test")
    await client.jetstream().delete_stream(stream_of("agg"))
    await client.close()
    await send(5, "three")
    await until(lambda: in_the_log(conn))
    assert sorted(await everything(log, "agg", place)) == sorted((store, n) for store in stores for n in range(1, 6))


async def test_what_a_dead_sink_left_is_fed_by_the_next(
    cell: MosquittoBroker, conn: Any, log: Log, start: StartSink, until: Until
) -> None:
    nowhere = LogSettings("nats://127.0.0.1:9", replicas=1)
    first, task = start(cell.url, log=nowhere)
    await until(lambda: len(first.shards) == topics.SHARDS)
    async with asyncio.timeout(60):
        await Herd(cell.url, ["s1", "s2"], ("journey",), 1200, 50).run()
    task.cancel()
    second, _ = start(cell.url, log=settings_of(log))
    await until(lambda: in_the_log(conn))
    found = await everything(log, "journey", Place())
    assert sorted(found) == sorted((store, n) for store in ("s1", "s2") for n in range(1, 1201))
    assert second.counters["leftovers"] > 0


async def test_a_server_that_is_cut_off_from_the_others_is_left(
    cell: MosquittoBroker, conn: Any, start: StartSink, until: Until, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes connections and messages, but nothing comes of them: the others have the majority."""
    for module in (log_module, reader_module):
        monkeypatch.setattr(module, "SILENT_S", 1.0)
    alone = LogNode(tmp_path / "log", 1, tuple(f"127.0.0.1:{free_port()}" for _ in range(3)))
    other = LogNode(tmp_path / "log", 2)
    both = LogSettings(f"{alone.url},{other.url}", replicas=1, stream_gib=1)
    said: list[str] = []
    async with alone:
        sink, _ = start(cell.url, log=both)
        reading = asyncio.create_task(copy(both, tmp_path / "lake", ["agg"], every_s=0.1, tell=said.append))
        try:
            async with asyncio.timeout(60):
                await Herd(cell.url, ["s1"], ("agg",), 20, 7).run()
            await until(lambda: "the log's streams: " in sink.trouble.get("log", ""))
            await until(lambda: any(f"127.0.0.1:{alone.port}: " in one for one in said))
            async with other:
                await until(lambda: in_the_log(conn))
                await until(lambda: len(kept(tmp_path / "lake")) == 20)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


def kept(folder: Path) -> list[tuple[str, str, int]]:
    """Epoch, store and number of each event in a reader's files."""
    files = sorted(folder.glob("class=*/**/part-*.parquet"))
    rows = [row for file in files for row in pq.read_table(file, partitioning=None).to_pylist()]
    assert all(json.loads(row["payload"])["type"] == row["type"] for row in rows)
    return sorted((row["epoch"], row["store"], row["seq"]) for row in rows)


async def test_files_hold_each_event_once(
    cell: MosquittoBroker, conn: Any, log: Log, start: StartSink, until: Until, tmp_path: Path
) -> None:
    """Also if the reader died after it wrote files and before it wrote its place, and if it starts twice."""
    sink, _ = start(cell.url, log=settings_of(log))
    await until(lambda: len(sink.shards) == topics.SHARDS)
    folder = tmp_path / "lake"

    wanted: list[tuple[str, str, int]] = []
    for epoch in ("one", "two"):
        async with asyncio.timeout(60):
            await Herd(cell.url, ["a", "b"], ("agg", "journey"), 40, 7, epoch=epoch).run()
        await until(lambda: in_the_log(conn))
        wanted += [(epoch, store, n) for store in ("a", "b") for n in range(1, 41) for _ in range(2)]
        place = (folder / "_place.json").read_text() if epoch == "two" else None
        assert await copy(settings_of(log), folder, ["agg", "journey"], once=True) == 160
        assert kept(folder) == sorted(wanted)
        if place is not None:
            (folder / "_place.json").write_text(place)  # as if it had died
            assert await copy(settings_of(log), folder, ["agg", "journey"], once=True) == 160
            assert kept(folder) == sorted(wanted)
    assert await copy(settings_of(log), folder, ["agg", "journey"], once=True) == 0
    with Lake(folder), pytest.raises(InUseError), Lake(folder):
        pass
