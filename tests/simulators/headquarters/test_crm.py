"""The CRM as a process: stops in order, survives the rest, tells what it has."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from brokers import MAKERS, MakeCrm, MakeStore, MosquittoBroker, Until, now_us, recognised

from config import topics
from simulators.headquarters import crm as crm_module
from simulators.headquarters.broker import NatsBroker
from simulators.headquarters.crm import Crm
from simulators.headquarters.tills import Tills
from sync import outbox
from sync.consumer import Delivery
from sync.contract import CLASSES, Envelope, EventClass, encode, event_id
from sync.mqtt import MqttSettings, connect


async def test_sigterm_ends_it_with_one_line_of_json_that_is_the_status_file_s_too(
    broker: NatsBroker | MosquittoBroker, store: MakeStore, crm: MakeCrm, until: Until, tmp_path: Path
) -> None:
    gateway, consumer = store(broker.url), crm(broker.url)
    await consumer.start()
    async with gateway.online():
        await gateway.commit("member", 12)
        await gateway.commit("agg", 100)
        await until(lambda: consumer.count() == 112)
        async with asyncio.timeout(10):
            last = await consumer.stop()
    assert json.loads((tmp_path / "crm.json").read_text()) == last
    assert last["received"] == 112
    assert last["per_class"] == {"member": 12, "journey": 0, "agg": 100, "health": 0}
    assert [one["member"] for one in last["recognitions"]] == [f"M{n}" for n in range(11, 1, -1)]
    assert last["recognition_ms"]["n"] == 12
    assert 0 < last["recognition_ms"]["p50"] <= last["recognition_ms"]["p99"]


async def test_the_status_file_follows(
    nats: NatsBroker, store: MakeStore, crm: MakeCrm, until: Until, tmp_path: Path
) -> None:
    gateway, consumer = store(nats.url), crm(nats.url)
    await consumer.start()
    status = tmp_path / "crm.json"
    await until(lambda: status.exists() and json.loads(status.read_text())["broker"] == "connected")
    async with gateway.online():
        await gateway.commit("health", 5)
        await until(lambda: json.loads(status.read_text())["received"] == 5)
        assert json.loads(status.read_text())["stores"]["s1"]["online"] is True
    await until(lambda: json.loads(status.read_text())["stores"]["s1"]["online"] is False)


async def test_sales_are_sent_until_the_store_has_taken_them(
    nats: NatsBroker, until: Until, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crm_module, "SALES_S", 0.1)
    file = tmp_path / "tills.csv"
    file.write_text("hour,zone,tickets,units,amount,currency\n2026-03-14T10:00:00+08:00,shoes,3,4,59.90,CNY\n")
    central = Crm(MqttSettings.from_url(nats.url, "crm"), tmp_path / "crm.db", tills=Tills(file, "s1"))
    running = asyncio.create_task(central.run())
    came: list[dict[str, Any]] = []
    async with connect(MqttSettings.from_url(nats.url, "store")) as link:
        await link.subscribe([topics.topic("s1", "down/sales")])

        async def listen() -> None:
            while True:
                came.extend(json.loads(one.payload) for one in await link.receive())

        listening = asyncio.create_task(listen())
        await until(lambda: len(came) > 1)
        answer = {"v": 1, "id": came[0]["id"], "state": "applied", "at_us": 1}
        await link.publish(topics.topic("s1", "up/result"), json.dumps(answer).encode())
        await until(lambda: central._tills is not None and not central._tills.due())
        listening.cancel()
    running.cancel()
    await asyncio.gather(running, listening, return_exceptions=True)
    await central.close()
    assert {one["id"] for one in came} == {came[0]["id"]}
    assert came[0]["hours"] == [
        {"zone": "shoes", "hour_us": 1773453600000000, "tickets": 3, "units": 4, "amount": 59.9}
    ]


async def test_poison_does_not_stop_it(nats: NatsBroker, store: MakeStore, crm: MakeCrm, until: Until) -> None:
    gateway, consumer = store(nats.url), crm(nats.url)
    await consumer.start()
    async with gateway.online(), connect(MqttSettings.from_url(nats.url, "vandal")) as vandal:
        await gateway.commit("health", 1)
        await until(lambda: consumer.count() == 1)
        for payload in (b"", b"\xff", b"{}", b"[" * 60_000, b"null", b'{"events":[]}'):
            await vandal.publish(topics.topic("s1", "up/health"), payload)
            await vandal.publish(topics.topic("s1", "up/nothing"), payload)
            await vandal.publish(topics.topic("s1", "state"), payload, retain=True)
        await gateway.commit("health", 1)
        await until(lambda: consumer.count() == 2)
    last = await consumer.stop()
    assert (last["received"], last["gaps"]) == (2, 0)
    assert last["dead"] == 6  # `up/nothing` is no class: not even subscribed to


async def test_takes_what_came_while_it_was_away(
    broker: NatsBroker | MosquittoBroker, store: MakeStore, crm: MakeCrm, until: Until
) -> None:
    gateway, consumer = store(broker.url), crm(broker.url)
    await consumer.start()
    async with gateway.online():
        await gateway.commit("health", 1)
        await until(gateway.empty)
        await consumer.stop()
        await gateway.commit("journey", 50)
        await consumer.start()
        await until(gateway.empty)
    assert (await consumer.stop())["received"] == 51


async def test_a_faster_store_clock_is_divided_out(
    nats: NatsBroker, store: MakeStore, until: Until, tmp_path: Path
) -> None:
    origin_us, speed = time.time_ns() // 1000, 100
    gateway = store(nats.url)
    crm = Crm(MqttSettings.from_url(nats.url, "crm"), tmp_path / "crm.db", speed, origin_us)
    running = asyncio.create_task(crm.run())
    async with gateway.online():
        wall_us = time.time_ns() // 1000
        read_us = origin_us + (wall_us - origin_us) * speed - 500_000 * speed  # half a real second ago
        event = recognised().model_copy(update={"read_us": read_us})
        await gateway.writer.write(lambda conn: outbox.append(conn, "member", [event]))
        gateway.publisher.wake("member")
        await until(gateway.empty)
    wall_after_us = time.time_ns() // 1000
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    ms = (await crm.close())["recognition_ms"]["p50"]
    assert 500 <= ms <= 501 + (wall_after_us - wall_us) / 1000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--url", "http://x", "--database", "crm.db"], "mqtt://host:port"),
        (["--url", "mqtt://x", "--database", "/nowhere/crm.db"], "writable"),
    ],
)
async def test_a_bad_argument_is_one_line(arguments: list[str], said: str, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "simulators.headquarters.crm", *arguments),
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 1
    assert out == b""
    assert said in err.decode()
    assert len(err.splitlines()) == 1


def batch_of(store_name: str, first: int, n: int = 10, class_: EventClass = "health") -> Delivery:
    events = [
        MAKERS[class_](seq).model_copy(update={"id": event_id(store_name, "e", class_, seq)})
        for seq in range(first, first + n)
    ]
    head = {"store": store_name, "epoch": "e", "class": class_, "first": first, "n": n, "sent_us": 1}
    envelope = Envelope.model_validate(head | {"boot": "b", "mono_us": 1})
    payload = encode(envelope, [event.model_dump_json() for event in events])
    return Delivery(topics.topic(store_name, f"up/{class_}"), payload, now_us())


async def test_a_recognition_waits_for_one_commit_and_has_its_own(
    tmp_path: Path, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = Crm(MqttSettings.from_url("mqtt://127.0.0.1:1", "crm"), tmp_path / "crm.db")
    taken: list[list[str]] = []
    take = consumer._ledger.take

    def noted(deliveries: Any) -> Any:
        taken.append([delivery.topic.rpartition("/")[2] for delivery in deliveries])
        if len(taken) == 2:  # comes while the others are being written
            consumer._waiting["-member"].extend([batch_of("s1", 1, 1, "member"), batch_of("s2", 1, 1, "member")])
        return take(deliveries)

    monkeypatch.setattr(consumer._ledger, "take", noted)
    consumer._waiting[crm_module.BULK].extend(batch_of(f"s{n}", 1) for n in range(1000))
    consumer._arrived.set()
    working = asyncio.create_task(consumer._work())
    await until(lambda: sum(map(len, taken)) == 1002)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    assert taken[2] == ["member", "member"]
    assert {class_ for commit in (*taken[:2], *taken[3:]) for class_ in commit} == {"health"}
    assert max(map(len, taken)) <= crm_module.COMMIT_TOGETHER
    assert (await consumer.close())["received"] == 10_002


async def test_a_session_of_an_older_version_does_not_bring_recognitions_twice(
    mosquitto: MosquittoBroker, store: MakeStore, crm: MakeCrm, until: Until
) -> None:
    async with connect(MqttSettings.from_url(mosquitto.url, crm_module.CLIENT_ID), durable=True) as old:
        await old.subscribe([topics.topic("+", f"up/{class_}") for class_ in CLASSES])
    gateway, consumer = store(mosquitto.url), crm(mosquitto.url)
    await consumer.start()
    await until(consumer.ready)
    async with gateway.online():
        await gateway.commit("member", 20)
        await gateway.commit("health", 20)
        await until(gateway.empty)
    last = await consumer.stop()
    assert (last["received"], last["duplicates"]) == (40, 0)


async def test_a_gap_is_asked_for_by_one_command_until_that_is_answered(
    mosquitto: MosquittoBroker, tmp_path: Path, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crm_module, "GAP_S", 0.2)
    consumer = Crm(MqttSettings.from_url(mosquitto.url, "crm"), tmp_path / "crm.db")
    running = asyncio.create_task(consumer.run())
    asked: list[dict[str, Any]] = []
    async with connect(MqttSettings.from_url(mosquitto.url, "gateway")) as link:
        await link.subscribe([topics.topic("s1", "down/cmd")])

        async def listen() -> None:
            while True:
                asked.extend(json.loads(incoming.payload) for incoming in await link.receive())

        listening = asyncio.create_task(listen())
        await until(lambda: set(consumer._connections.values()) == {"connected"})
        late = batch_of("s1", 11)
        await link.publish(late.topic, late.payload)
        await until(lambda: len(asked) >= 3)
        assert {(one["command"], one["from"], one["to"], one["id"]) for one in asked} == {
            ("replay", 1, 10, asked[0]["id"])
        }
        for state in ("received", "failed"):
            result = {"id": asked[0]["id"], "state": state, "at_us": 1, "reason": "cut off"}
            await link.publish(topics.topic("s1", "up/result"), json.dumps(result).encode())
        await until(lambda: asked[-1]["id"] != asked[0]["id"])
        early = batch_of("s1", 1)
        await link.publish(early.topic, early.payload)
        await until(lambda: not consumer._asked)
        listening.cancel()
        running.cancel()
        await asyncio.gather(listening, running, return_exceptions=True)
    assert (await consumer.close())["gaps"] == 0
