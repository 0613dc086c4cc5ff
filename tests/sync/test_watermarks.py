"""Acknowledgements move the outbox on, and nothing else does: windows, pauses, replays, and acks that can't be."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from brokers import Listening, MakeStore, MosquittoBroker, Store, Until

from simulators.headquarters.broker import NatsBroker
from sync import in_flight, mqtt, outbox, sending

pytestmark = pytest.mark.usefixtures("impatient")


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
