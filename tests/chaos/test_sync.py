"""A CRM that acknowledges what it never had, and a line that hardly carries anything. Exact counts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from brokers import MakeCrm, MakeStore, MosquittoBroker, Until
from lines import SlowLine

from config import topics
from sync.contract import CLASSES, Ack
from sync.mqtt import MqttSettings, connect

WRONG_ACKS = 300


async def test_wrong_acks(
    mosquitto: MosquittoBroker, store: MakeStore, crm: MakeCrm, until: Until, tell: Callable[[str], None]
) -> None:
    """Other classes' and epochs' watermarks, all the time: what is deleted too early the CRM asks for again."""
    gateway, consumer = store(mosquitto.url), crm(mosquitto.url)
    dice = random.Random(7)
    made = dict.fromkeys(CLASSES, 0)
    await consumer.start()
    await until(consumer.ready)

    async def vandal() -> None:
        async with connect(MqttSettings.from_url(mosquitto.url, "vandal")) as link:
            for _ in range(WRONG_ACKS):
                ack = Ack(
                    epoch=dice.choice([gateway.identity.epoch, "another"]),
                    upto=dice.choice([0, dice.randrange(4000), made[dice.choice(CLASSES)], 10**9, 2**62]),
                )
                topic = topics.topic(gateway.identity.store, f"down/ack/{dice.choice(CLASSES)}")
                await link.publish(topic, ack.model_dump_json().encode(), retain=True)
                await asyncio.sleep(0.02)

    wrong = asyncio.create_task(vandal())
    for _ in range(6):
        async with gateway.online():
            for _ in range(5):
                for class_ in CLASSES:
                    n = dice.randrange(100)
                    await gateway.commit(class_, n)
                    made[class_] += n
                await asyncio.sleep(0.1)
    await wrong
    async with gateway.online():
        await until(lambda: consumer.count() == sum(made.values()), within_s=240)
        await until(gateway.empty, within_s=60)
    last = await consumer.stop()
    assert (last["received"], last["gaps"], last["lost"], last["dead"]) == (sum(made.values()), 0, 0, 0)
    assert all((class_, 1, n, n) in consumer.rows() for class_, n in made.items())
    tell(f"{WRONG_ACKS} wrong acks: {last['received']:,} of {sum(made.values()):,} once")


async def test_slow_line(
    mosquitto: MosquittoBroker, store: MakeStore, crm: MakeCrm, until: Until, tell: Callable[[str], None]
) -> None:
    """64 kbit/s, cut three times under a backlog: recognitions come through, nothing is sent twice but by a cut."""
    consumer = crm(mosquitto.url)
    await consumer.start()
    await until(consumer.ready)
    async with SlowLine(mosquitto.url, 64_000).open() as slow:
        gateway = store(slow.url)
        for class_ in ("journey", "agg"):
            await gateway.commit(class_, 3000)
        members = 0
        async with gateway.online() as running:
            for cut in range(4):
                for _ in range(3):
                    await gateway.commit("member", 1)
                    members += 1
                    await until(lambda: running.acked("member") == members, within_s=60)  # noqa: B023
                if cut < 3:
                    slow.cut()
            await until(gateway.empty, within_s=240)
    last = await consumer.stop()
    assert (last["received"], last["gaps"], last["lost"]) == (6000 + members, 0, 0)
    kib = slow.up_bytes / 1024
    tell(f"{last['received']:,} of {6000 + members:,} once in {kib:.0f} KiB, {last['duplicates']} repetitions absorbed")
