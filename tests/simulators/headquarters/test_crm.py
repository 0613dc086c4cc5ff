"""The CRM as a process: stops in order, survives the rest, tells what it has."""

from __future__ import annotations

import asyncio
import json
import sys
import time

import pytest
from brokers import recognised

from config import topics
from simulators.headquarters.crm import Crm
from sync import outbox
from sync.mqtt import MqttSettings, connect


async def test_sigterm_ends_it_with_one_line_of_json_that_is_the_status_file_s_too(broker, store, crm, until, tmp_path):
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


async def test_the_status_file_follows(nats, store, crm, until, tmp_path):
    gateway, consumer = store(nats.url), crm(nats.url)
    await consumer.start()
    status = tmp_path / "crm.json"
    await until(lambda: status.exists() and json.loads(status.read_text())["broker"] == "connected")
    async with gateway.online():
        await gateway.commit("health", 5)
        await until(lambda: json.loads(status.read_text())["received"] == 5)
        assert json.loads(status.read_text())["stores"]["s1"]["online"] is True
    await until(lambda: json.loads(status.read_text())["stores"]["s1"]["online"] is False)


async def test_poison_does_not_stop_it(nats, store, crm, until):
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


async def test_takes_what_came_while_it_was_away(broker, store, crm, until):
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


async def test_a_faster_store_clock_is_divided_out(nats, store, until, tmp_path):
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
async def test_a_bad_argument_is_one_line(arguments, said, tmp_path):
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
