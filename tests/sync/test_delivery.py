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


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits a minute in a test; the order of the waits stays."""
    monkeypatch.setattr(publisher, "BACKOFF_S", (0.1, 0.5))
    monkeypatch.setattr(in_flight, "SILENCE_S", (0.5, 2.0))


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


async def test_no_more_than_a_window_without_an_ack(
    nats: NatsBroker, store: MakeStore, listening: Listening, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "BATCH_EVENTS", 10)
    monkeypatch.setattr(in_flight, "SILENCE_S", (0.3, 100.0))
    gateway = store(nats.url)
    await gateway.commit("health", 500)
    async with listening(nats.url, gateway) as crm, gateway.online() as running:
        await until(lambda: running.counters["silences"] >= 1)
        await until(lambda: len(crm.batches) == in_flight.WINDOW + 1)
        # One window in order, then, after the silence, its first batch again and no more.
        assert crm.seqs("health") == [*range(1, 81), *range(1, 11)]
        await crm.ack("health", 40)
        await until(lambda: max(crm.seqs("health")) == 120)


@pytest.mark.parametrize("pause_ms", [60_000, 10**400], ids=["a minute", "beyond all floats"])
async def test_a_pause_holds_the_class_back_and_no_other(
    nats: NatsBroker, store: MakeStore, listening: Listening, until: Until, pause_ms: int
) -> None:
    gateway = store(nats.url)
    async with listening(nats.url, gateway) as crm, gateway.online() as running:
        await crm.ack("health", 0, pause_ms=pause_ms)
        await until(lambda: running.counters["acks"] == 1)
        await gateway.commit("health", 5)
        await gateway.commit("agg", 5)
        await until(lambda: crm.seqs("agg"))
        assert not crm.seqs("health")
        await crm.ack("health", 0)
        await until(lambda: crm.seqs("health"))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x00" * 100,
        b"[]",
        b'{"epoch": 1, "upto": 3}',
        b'{"epoch": "EPOCH", "upto": "3"}',
        b'{"epoch": "EPOCH", "upto": 3.0}',
        b'{"epoch": "EPOCH", "upto": -1}',
        b'{"epoch": "EPOCH", "upto": 9223372036854775808}',
        b'{"epoch": "EPOCH", "upto": 3, "x": "' + b"x" * 600 + b'"}',
        b'{"epoch": "another", "upto": 3}',
        b'{"epoch": "EPOCH", "upto": 4611686018427387904}',  # far more than there ever were
    ],
)
async def test_an_ack_that_cannot_be_one_deletes_nothing(
    nats: NatsBroker, store: MakeStore, listening: Listening, until: Until, payload: bytes
) -> None:
    gateway = store(nats.url)
    async with listening(nats.url, gateway) as crm, gateway.online() as running:
        await gateway.commit("health", 3)
        await until(lambda: crm.seqs("health"))
        await crm.say("health", payload.replace(b"EPOCH", gateway.identity.epoch.encode()))
        await crm.say("nonsense", payload)
        await until(lambda: running.counters["acks_bad"] + running.counters["acks_beyond"] == 2)
        assert await gateway.pending() == 3
        await crm.ack("health", 3)
        await until(gateway.empty)


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


async def test_an_ack_beyond_what_was_sent_repeats_nothing_and_numbers_nothing_anew(
    mosquitto: MosquittoBroker, store: MakeStore, listening: Listening, until: Until
) -> None:
    """Another class's watermark, say, when all is delivered."""
    gateway = store(mosquitto.url)
    async with listening(mosquitto.url, gateway) as crm, gateway.online() as running:
        crm.acking = True
        await gateway.commit("member", 100)
        await until(gateway.empty)
        for count, upto in enumerate((101, 1000, 2**40), 1):
            await crm.ack("member", upto)
            await until(lambda: running.counters["acks_beyond"] == count)  # noqa: B023
        assert (await gateway.writer.read(outbox.depth))["member"] == (100, 0)
        await gateway.commit("member", 10)
        await until(gateway.empty)
    assert crm.seqs("member") == list(range(1, 111))
    assert not any(batch["lost"] for batch in crm.batches)


@pytest.mark.parametrize("upto", [4000, 5000, 6000])
async def test_an_ack_beyond_what_was_sent_passes_over_nothing_that_waits(
    mosquitto: MosquittoBroker, store: MakeStore, listening: Listening, until: Until, upto: int
) -> None:
    """5,000 events of an earlier life wait, and a wrong ack for them lies on the broker."""
    gateway = store(mosquitto.url)
    async with gateway.online() as running:
        await until(lambda: running.status.connected)
    await gateway.commit("member", 5000)
    async with listening(mosquitto.url, gateway) as crm:
        await crm.ack("member", upto)
        crm.acking = True
        async with gateway.online() as running:
            await until(gateway.empty)
            await gateway.commit("member", 5)
            await until(lambda: len(crm.seqs("member")) == 5005)
    assert crm.seqs("member") == list(range(1, 5006))
    assert not any(batch["lost"] for batch in crm.batches)


async def test_an_ack_of_what_an_earlier_life_sent_is_believed_and_in_which_form_it_was_taken(
    mosquitto: MosquittoBroker, store: MakeStore, listening: Listening, until: Until
) -> None:
    gateway = store(mosquitto.url)
    async with listening(mosquitto.url, gateway) as crm:
        async with gateway.online():
            await gateway.commit("health", 20)
            await until(lambda: crm.seqs("health"))
            await crm.ack("health", 10, accepts=["gzip"])
            await until(lambda: gateway.publisher.acked("health") == 10)
        await crm.ack("health", 20, accepts=["gzip"])
        async with gateway.online():
            await until(gateway.empty)
            await crm.say("health", b"")  # the broker forgets it
        assert crm.seqs("health") == list(range(1, 21))
        await gateway.commit("health", 20)
        async with gateway.online():
            await until(lambda: crm.seqs("health")[-1] == 40)
        assert crm.packed == 1


async def test_a_store_taken_back_to_a_backup_numbers_on_where_another_life_of_it_was(
    tmp_path: Path, mosquitto: MosquittoBroker, store: MakeStore, listening: Listening, until: Until
) -> None:
    """With the file beside it taken back too, the broker alone still knows of that life, and the CRM of its numbers."""
    gateway = store(mosquitto.url)
    async with listening(mosquitto.url, gateway) as crm:
        crm.acking = True
        async with gateway.online():
            await gateway.commit("health", 100)
            await until(gateway.empty)
        copy = "VACUUM INTO ?"
        await gateway.writer.read(lambda conn: conn.execute(copy, (str(tmp_path / "backup.db"),)).fetchall())
        async with gateway.online():
            await gateway.commit("health", 50)
            await until(gateway.empty)
        back = Store(tmp_path / "backup.db", mosquitto.url)
        seen = len(crm.batches)
        async with back.online():
            await until(lambda: back.publisher.status.connected)
            await back.commit("health", 7)  # under numbers that were given before, until that is known
            await until(lambda: sum(len(batch["events"]) for batch in crm.batches[seen:]) >= 7)
            await until(back.empty)
        beyond = [batch for batch in crm.batches[seen:] if batch["first"] > 150]
        assert sum(batch["n"] for batch in beyond) == 7
        assert beyond[0]["lost"][0] | {"reason": ""} == {"from": 101, "to": beyond[0]["first"] - 1, "reason": ""}
        back.writer.close()


async def test_a_replay_waits_for_the_pause_and_for_acks(
    mosquitto: MosquittoBroker, store: MakeStore, listening: Listening, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "MOST_BYTES", 4096)
    monkeypatch.setattr(sending, "REPLAY_LOOK_S", 0.1)
    gateway = store(mosquitto.url)
    async with listening(mosquitto.url, gateway) as crm, gateway.online() as running:
        crm.acking = True
        await gateway.commit("journey", 1000)
        await until(gateway.empty)
        crm.acking = False
        await crm.ack("journey", 1000, pause_ms=600_000)
        await until(lambda: running._in_flight["journey"].paused_s(0) > 0)
        before = len(crm.batches)
        replaying = asyncio.create_task(running.replay("journey", 1, 10**6))
        await asyncio.sleep(0.5)
        assert len(crm.batches) == before
        await crm.ack("journey", 1000)
        await until(lambda: len(crm.batches) == before + in_flight.WINDOW)
        await asyncio.sleep(0.3)
        assert len(crm.batches) == before + in_flight.WINDOW
        crm.acking = True
        await crm.ack("journey", 1000)
        assert await replaying == {"events": 1000, "lost": 0}
        await until(lambda: len(crm.seqs("journey")) == 2000)
        # A CRM that says nothing at all is not replayed to for ever.
        monkeypatch.setattr(sending, "SILENCE_S", (0.1, 0.5))
        crm.acking = False
        with pytest.raises(mqtt.BrokerError, match="has not acknowledged journey"):
            await running.replay("journey", 1, 1000)


async def test_what_was_not_sent_yet_is_not_replayed(
    mosquitto: MosquittoBroker, store: MakeStore, listening: Listening, until: Until
) -> None:
    gateway = store(mosquitto.url)
    async with listening(mosquitto.url, gateway) as crm, gateway.online() as running:
        await crm.ack("agg", 0, pause_ms=600_000)
        await until(lambda: running.counters["acks"] == 1)
        await gateway.commit("agg", 10)
        assert await running.replay("agg", 1, 10) == {"events": 0, "lost": 0}
    running._in_flight["health"].highest = 1
    with pytest.raises(mqtt.BrokerError, match="no connection"):
        await running.replay("health", 1, 10)
    assert not crm.batches


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
