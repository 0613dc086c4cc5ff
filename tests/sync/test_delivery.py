"""Everything committed to the outbox is counted at the CRM once, whatever dies in between."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest
from brokers import CrmProcess, Listening, MakeCrm, MakeStore, MosquittoBroker, Store, Until, need_mosquitto

from config import topics
from simulators.headquarters.broker import NatsBroker
from sync import in_flight, mqtt, outbox, publisher, sending, uplink
from sync.contract import Ack
from sync.mqtt import Incoming

pytestmark = pytest.mark.usefixtures("impatient")


async def all_counted(gateway: Store, consumer: CrmProcess, until: Until, member: int, health: int) -> Any:
    await until(lambda: consumer.count() == member + health)
    await until(gateway.empty)
    last = await consumer.stop()
    assert last["received"] == member + health
    assert (last["gaps"], last["lost"], last["dead"]) == (0, 0, 0)
    assert consumer.rows() == [("health", 1, health, health), ("member", 1, member, member)]
    return last


async def test_all_classes_arrive_once(
    broker: NatsBroker | MosquittoBroker, store: MakeStore, crm: MakeCrm, until: Until
) -> None:
    gateway, consumer = store(broker.url), crm(broker.url)
    await consumer.start()
    async with gateway.online():
        await gateway.commit("member", 3)
        await gateway.commit("health", 700)
        last = await all_counted(gateway, consumer, until, 3, 700)
    assert len(last["recognitions"]) == 3


async def test_broker_killed_and_restarted_between_commits(
    broker: NatsBroker | MosquittoBroker, store: MakeStore, crm: MakeCrm, until: Until
) -> None:
    gateway, consumer = store(broker.url), crm(broker.url)
    await consumer.start()
    async with gateway.online() as running:
        for round_ in range(1, 4):
            await gateway.commit("health", 500)
            await gateway.commit("member", 2)
            await until(lambda: consumer.count() > (round_ - 1) * 502)  # noqa: B023
            await broker.kill()
            await gateway.commit("member", 1)
            await gateway.commit("health", 300)
            await until(lambda: not running.status.connected)
            assert running.status.reason
            await broker.start()
        await all_counted(gateway, consumer, until, 9, 2400)


async def test_a_broker_that_hangs_is_noticed_and_left(
    broker: NatsBroker | MosquittoBroker, store: MakeStore, crm: MakeCrm, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "TIMEOUT_S", 0.5)
    gateway, consumer = store(broker.url), crm(broker.url)
    await consumer.start()
    async with gateway.online() as running:
        await gateway.commit("health", 10)
        await until(gateway.empty)
        broker.signal(signal.SIGSTOP)
        try:
            await gateway.commit("member", 1)
            await until(lambda: not running.status.connected)
            assert "has not answered" in running.status.reason
        finally:
            broker.signal(signal.SIGCONT)
        await all_counted(gateway, consumer, until, 1, 10)


async def test_broker_absent_at_start(nats: NatsBroker, store: MakeStore, crm: MakeCrm, until: Until) -> None:
    gateway, consumer = store(nats.url), crm(nats.url)
    await nats.stop()
    await consumer.start()
    async with gateway.online() as running:
        await gateway.commit("member", 1)
        await until(lambda: "refused" in running.status.reason.lower())
        assert not running.status.connected
        await nats.start()
        await gateway.commit("health", 1)
        await all_counted(gateway, consumer, until, 1, 1)


async def test_crm_killed_in_the_middle(
    broker: NatsBroker | MosquittoBroker, store: MakeStore, crm: MakeCrm, until: Until
) -> None:
    gateway, consumer = store(broker.url), crm(broker.url)
    await consumer.start()
    async with gateway.online():
        for round_ in range(3):
            before = consumer.count()
            await gateway.commit("health", 3000)
            await gateway.commit("member", 5)
            await until(lambda: consumer.count() > before)  # noqa: B023
            await consumer.kill()
            if round_ == 1:
                await gateway.commit("member", 5)
            await consumer.start()
        await all_counted(gateway, consumer, until, 20, 9000)


async def test_publisher_restarted_sends_only_what_is_not_acked(
    broker: NatsBroker | MosquittoBroker,
    store: MakeStore,
    crm: MakeCrm,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(in_flight, "SILENCE_S", (2.0, 8.0))  # on a busy machine, a shorter one sends all again
    gateway, consumer = store(broker.url), crm(broker.url)
    await consumer.start()
    async with gateway.online():
        await gateway.commit("health", 1000)
        await until(gateway.empty)
    await gateway.commit("health", 200)
    async with gateway.online():
        await until(gateway.empty)
    for _ in range(4):
        await gateway.commit("member", 3)
        await gateway.commit("health", 500)
        async with gateway.online() as running:
            await until(lambda: running.counters["batches"])
    async with gateway.online():
        last = await all_counted(gateway, consumer, until, 12, 3200)
    assert last["duplicates"] <= 4 * (3 + 500)


async def test_messages_that_the_broker_took_and_lost_are_sent_again(
    nats: NatsBroker, store: MakeStore, crm: MakeCrm, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, consumer = store(nats.url), crm(nats.url)
    honest, seen = mqtt.MqttConnection.publish, 0

    async def lossy(self: Any, topic: str, payload: bytes, *, retain: bool = False) -> None:
        nonlocal seen
        seen += "/up/" in topic
        if "/up/" not in topic or seen % 3:
            await honest(self, topic, payload, retain=retain)

    monkeypatch.setattr(mqtt.MqttConnection, "publish", lossy)
    monkeypatch.setattr(sending, "MOST_BYTES", 4096)
    await consumer.start()
    async with gateway.online() as running:
        await gateway.commit("health", 200)
        await gateway.commit("member", 4)
        last = await all_counted(gateway, consumer, until, 4, 200)
    assert running.counters["silences"] > 0
    assert last["duplicates"] > 0  # what had come after a gap was kept, and came again


async def test_stopping_says_goodbye_and_keeps_the_last_acks(
    broker: NatsBroker | MosquittoBroker, store: MakeStore, listening: Listening, until: Until
) -> None:
    gateway = store(broker.url)
    async with listening(broker.url, gateway) as crm:
        crm.acking = True
        async with gateway.online() as running:
            await until(lambda: [state["online"] for state in crm.states] == [True])
            await gateway.commit("member", 1)
            await until(lambda: running.counters["acks"])
        assert await gateway.empty()
        await until(lambda: [state["online"] for state in crm.states] == [True, False])
    assert crm.states[0]["epoch"] == gateway.identity.epoch
    assert not running.status.connected


async def test_member_goes_first_whatever_the_backlog(
    broker: NatsBroker | MosquittoBroker, store: MakeStore, listening: Listening, until: Until
) -> None:
    gateway = store(broker.url)
    await gateway.commit("health", 5000)
    async with listening(broker.url, gateway) as crm:
        crm.acking = True
        async with gateway.online():
            await until(lambda: crm.seqs("health"))
            before = len(crm.batches)
            await gateway.commit("member", 1)
            await until(lambda: crm.seqs("member"))
            between = next(i for i, batch in enumerate(crm.batches) if batch["class"] == "member") - before
            await until(lambda: len(set(crm.seqs("health"))) == 5000)
    total = len(crm.batches)
    assert between <= 2 * uplink.SHARE < total / 3


async def test_classes_that_can_wait_share_by_weight(
    nats: NatsBroker, store: MakeStore, listening: Listening, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "BATCH_EVENTS", 10)
    gateway = store(nats.url)
    for class_ in ("health", "agg", "journey"):
        await gateway.commit(class_, 300)
    async with listening(nats.url, gateway) as crm:
        crm.acking = True
        async with gateway.online():
            await until(lambda: len(set(crm.seqs("journey"))) == 300)
            order = [batch["class"] for batch in crm.batches]
            # None starves: each had a turn long before the heaviest was through.
            assert {"health", "agg"} <= set(order[: len(order) // 2])
            await until(lambda: len(set(crm.seqs("health"))) == 300)


async def test_a_message_that_its_handler_fails_at_ends_nothing(
    nats: NatsBroker, store: MakeStore, listening: Listening, until: Until
) -> None:
    async def fails(incoming: Incoming) -> None:
        raise IndexError(incoming.topic)

    gateway = store(nats.url)
    gateway.handlers = {"cmd": fails}
    async with listening(nats.url, gateway) as crm, gateway.online() as running:
        await until(lambda: running.status.connected)
        await crm._connection.publish(topics.topic(gateway.identity.store, "down/cmd"), b"x", retain=True)
        await until(lambda: running.counters["down_bad"] == 1)
        crm.acking = True
        await gateway.commit("health", 3)
        await until(gateway.empty)
        assert running.counters["connections"] == 1


async def test_batches_are_packed_for_whom_takes_them_and_plain_again_for_whom_does_not(
    nats: NatsBroker, store: MakeStore, listening: Listening, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CRM of the first version knows nothing of gzip: what it can't read is said plainly, in the end."""
    monkeypatch.setattr(in_flight, "SILENCE_S", (0.5, 1.0))
    gateway = store(nats.url)
    async with listening(nats.url, gateway) as crm, gateway.online():
        await gateway.commit("health", 20)
        await until(lambda: crm.seqs("health") == list(range(1, 21)))
        assert crm.packed == 0
        await crm.ack("health", 20, accepts=["gzip", "another"])
        await until(gateway.empty)
        await gateway.commit("health", 20)
        await gateway.commit("journey", 20)  # whose acks have said nothing
        await until(lambda: crm.packed == 1 and crm.seqs("journey"))
        assert crm.seqs("health")[-1] == 40
        # No ack: an older CRM came back from a backup. After the silence it gets what it knows.
        await until(lambda: crm.seqs("health")[-20:] == list(range(21, 41)) and len(crm.seqs("health")) >= 60)
        assert crm.packed == 1
        await crm.ack("health", 40)
        await crm.ack("journey", 20)
        await until(gateway.empty)


async def test_lost_ranges_are_delivered_and_then_forgotten(
    nats: NatsBroker, store: MakeStore, crm: MakeCrm, until: Until
) -> None:
    gateway, consumer = store(nats.url), crm(nats.url)
    await gateway.commit("health", 100)
    await gateway.writer.write(lambda conn: outbox.evict(conn, "health", 60))
    await gateway.commit("agg", 10)
    await gateway.writer.write(lambda conn: outbox.evict(conn, "agg", 10))
    await consumer.start()
    async with gateway.online():
        await until(lambda: consumer.count() == 40)
        await until(gateway.empty)

        async def forgotten() -> bool:
            """The ack of a range alone may come after all events'."""
            await gateway.writer.write(lambda conn: outbox.forget(conn, 2**62))
            left = "SELECT (SELECT count(*) FROM lost), (SELECT count(*) FROM outbox)"
            return await gateway.writer.read(lambda conn: conn.execute(left).fetchone()) == (0, 0)

        await until(forgotten)
    last = await consumer.stop()
    assert (last["received"], last["lost"], last["gaps"]) == (40, 70, 0)
    assert consumer.rows() == [("health", 61, 100, 40)]


async def test_cancelled_while_connecting(store: MakeStore) -> None:
    silent = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with silent:
        gateway = store(f"mqtt://127.0.0.1:{silent.sockets[0].getsockname()[1]}")
        async with gateway.online() as running:
            await asyncio.sleep(0)
        assert not running.status.connected


@pytest.mark.parametrize("version", ["3.1.1", "5"])
async def test_what_was_said_to_a_store_that_was_away_waits_for_it(
    broker: NatsBroker | MosquittoBroker, store: MakeStore, until: Until, version: str
) -> None:
    """An erasure, say: published while the gateway was off, by nobody who is still there when it comes back."""
    if version == "5" and type(broker).__name__ == "NatsBroker":
        pytest.skip("NATS speaks MQTT 3.1.1")
    came: list[bytes] = []

    async def take(incoming: Incoming) -> None:
        came.append(incoming.payload)

    gateway = store(broker.url, version=version)
    gateway.handlers = {"cmd": take}
    topic = topics.topic(gateway.identity.store, "down/cmd")
    for round_ in range(2):
        async with gateway.online() as running:
            await until(lambda: running.status.connected)
            await until(lambda: len(came) == 3 * round_)  # noqa: B023
        async with mqtt.connect(mqtt.MqttSettings.from_url(broker.url, "crm")) as crm:
            for n in range(3):
                await crm.publish(topic, b"%d-%d" % (round_, n))
    async with gateway.online():
        await until(lambda: len(came) == 6)
    assert came == [b"%d-%d" % (round_, n) for round_ in range(2) for n in range(3)]


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("topic read #", "give our own state back"),  # nothing may be written
        ("topic write #", "give our own state back"),  # nothing may be read
        ("topic readwrite tagtrail/v1/+/+/state", "does not acknowledge health"),
        ("topic write tagtrail/v1/+/+/up/#\ntopic readwrite tagtrail/v1/+/+/state", "does not acknowledge health"),
    ],
)
async def test_access_rules_that_refuse_without_a_word_are_told_of(
    tmp_path: Path, store: MakeStore, until: Until, monkeypatch: pytest.MonkeyPatch, rules: str, said: str
) -> None:
    """On MQTT 3.1.1 a broker takes what it throws away."""
    need_mosquitto()
    monkeypatch.setattr(publisher, "ECHO_S", 0.5)
    acl = tmp_path / "acl"
    acl.write_text(f"{rules}\n")
    acl.chmod(0o600)
    async with MosquittoBroker(tmp_path / "broker", f"allow_anonymous true\nacl_file {acl}") as broker:
        gateway = store(broker.url)
        await gateway.commit("health", 5)
        async with gateway.online() as running:
            await until(lambda: said in running.status.reason)
            assert running.status.connected
            acl.write_text("topic readwrite #\n")
            broker.signal(signal.SIGHUP)
            if "own state" in said:  # seen again at the next connection
                return
            async with mqtt.connect(mqtt.MqttSettings.from_url(broker.url, "crm")) as crm:
                topic = topics.topic(gateway.identity.store, "down/ack/health")
                ack = Ack(epoch=gateway.identity.epoch, upto=5).model_dump_json().encode()
                await crm.publish(topic, ack, retain=True)
                await until(gateway.empty)
            await until(lambda: not running.status.reason)


async def test_the_directory_that_is_here_is_told_in_the_state(
    mosquitto: MosquittoBroker, store: MakeStore, listening: Listening, until: Until
) -> None:
    gateway = store(mosquitto.url)
    async with listening(mosquitto.url, gateway) as crm:
        for generation in (3, 4):
            async with gateway.online() as running:
                running.tell_directory(generation)
                await until(lambda: crm.states and crm.states[-1]["directory_generation"] == generation)  # noqa: B023
                running.tell_directory(generation + 10)
                await until(lambda: crm.states[-1]["directory_generation"] == generation + 10)  # noqa: B023
            await until(lambda: not crm.states[-1]["online"])
            assert crm.states[-1]["directory_generation"] == generation + 10


async def test_nothing_leaves_before_it_may(
    nats: NatsBroker, store: MakeStore, listening: Listening, until: Until
) -> None:
    """Neither events nor answers; that the gateway is there is said at once."""
    gateway, may, asked = store(nats.url), asyncio.Event(), 0

    async def kept() -> None:
        nonlocal asked
        asked += 1
        await may.wait()

    gateway.kept = kept
    async with listening(nats.url, gateway) as far, gateway.online() as running:
        await gateway.commit("member", 3)
        running.say("up/result", b'{"class":"answer"}')
        await until(lambda: asked == 2 and any(state["online"] for state in far.states))
        assert far.batches == []
        may.set()
        await until(lambda: far.seqs("member") == [1, 2, 3] and {"class": "answer"} in far.batches)
