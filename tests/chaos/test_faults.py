"""Whatever dies: at the CRM every number stands once, and what is missing was told as lost. Exact counts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from brokers import (
    CrmProcess,
    Listening,
    MakeCrm,
    MakeStore,
    MosquittoBroker,
    Store,
    Until,
    health,
    need_mosquitto,
    window,
)

from config import topics
from simulators.headquarters.broker import NatsBroker
from sync import mqtt, outbox, publisher, quota, sending
from sync.contract import EventClass
from sync.mqtt import Incoming, MqttSettings, connect


def totals(consumer: CrmProcess) -> Any:
    return {class_: (low, high, n) for class_, low, high, n in consumer.rows()}


def complete(consumer: CrmProcess, **classes: int) -> Any:
    """Every number from 1, once."""
    return totals(consumer) == {class_: (1, n, n) for class_, n in classes.items() if n}


async def test_broker_without_persistence(
    tmp_path: Path, store: MakeStore, crm: MakeCrm, until: Until, tell: Callable[[str], None]
) -> None:
    need_mosquitto()
    async with MosquittoBroker(tmp_path / "broker", persistent=False) as broker:
        gateway, consumer = store(broker.url), crm(broker.url)
        await consumer.start()
        async with gateway.online():
            for _ in range(5):
                await gateway.commit("health", 1000)
                await broker.kill()
                await broker.start()
            await until(lambda: complete(consumer, health=5000), within_s=120)
            await until(gateway.empty)
        last = await consumer.stop()
    assert (last["received"], last["gaps"], last["lost"]) == (5000, 0, 0)
    tell(f"5 kills, 5,000 of 5,000 once, {last['duplicates']} repetitions absorbed")


async def test_twelve_days_of_backlog_and_a_cue_in_between(
    nats: NatsBroker, store: MakeStore, crm: MakeCrm, until: Until, tell: Callable[[str], None]
) -> None:
    """A recognition that is made while it drains waits for those before it, and for nothing else."""
    gateway, consumer = store(nats.url), crm(nats.url)
    made: dict[EventClass, int] = {"member": 6_000, "journey": 6_000, "agg": 12 * 96 * 8, "health": 12 * 1440}
    for class_, n in made.items():
        for _ in range(0, n, 480):
            await gateway.commit(class_, min(480, n))
    made = {class_: -(-n // 480) * 480 for class_, n in made.items()}
    await consumer.start()
    await until(consumer.ready)
    async with gateway.online() as running:
        await until(lambda: running.status.connected)
        began = time.monotonic()
        await gateway.commit("member", 1)
        made["member"] += 1
        await until(lambda: running.acked("member") == made["member"], within_s=60)
        took_s, waiting = time.monotonic() - began, await gateway.pending()
        await until(lambda: complete(consumer, **made), within_s=240)
        await until(gateway.empty)
    last = await consumer.stop()
    total = sum(made.values())
    assert (last["received"], last["gaps"], last["lost"]) == (total, 0, 0)
    assert waiting > (total - made["member"]) / 4
    tell(f"{total:,} of {total:,} once; the cue was acknowledged after {took_s:.2f} s, {waiting:,} others still waited")


async def test_half_open_link(
    tmp_path: Path,
    store: MakeStore,
    crm: MakeCrm,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
    tell: Callable[[str], None],
) -> None:
    """The broker is frozen, not closed: nothing comes back, and nothing says so."""
    need_mosquitto()
    monkeypatch.setattr(mqtt, "TIMEOUT_S", 1.0)
    async with MosquittoBroker(tmp_path / "broker") as broker:
        gateway, consumer = store(broker.url), crm(broker.url)
        await consumer.start()
        async with gateway.online() as running:
            for _ in range(3):
                await gateway.commit("health", 500)
                broker.signal(signal.SIGSTOP)
                await gateway.commit("member", 5)
                await until(lambda: not running.status.connected)
                broker.signal(signal.SIGCONT)
            await until(lambda: complete(consumer, health=1500, member=15), within_s=120)
        last = await consumer.stop()
    assert (last["received"], last["gaps"], last["lost"]) == (1515, 0, 0)
    tell("3 freezes, 1,515 of 1,515 once")


async def test_acks_dropped_batches_repeated_and_out_of_order(
    nats: NatsBroker,
    store: MakeStore,
    crm: MakeCrm,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
    tell: Callable[[str], None],
) -> None:
    honest = mqtt.MqttConnection.publish
    dice = random.Random(3)
    held: list[tuple[str, bytes]] = []
    done = {"dropped": 0, "repeated": 0, "reordered": 0}

    async def rough(self: Any, topic: str, payload: bytes, *, retain: bool = False) -> None:
        what = dice.random() if "/up/" in topic else 1
        if what < 0.15:
            done["dropped"] += 1
            return
        if what < 0.3:
            done["repeated"] += 1
            await honest(self, topic, payload)
        elif what < 0.45:
            done["reordered"] += 1
            held.append((topic, payload))
            return
        await honest(self, topic, payload, retain=retain)
        while held and "/up/" in topic:
            await honest(self, *held.pop())

    monkeypatch.setattr(mqtt.MqttConnection, "publish", rough)
    monkeypatch.setattr(sending, "MOST_BYTES", 4096)
    taken = publisher.Publisher._take_ack

    async def deaf(self: Any, incoming: Incoming) -> None:
        if dice.random() < 0.3:
            return
        await taken(self, incoming)

    monkeypatch.setattr(publisher.Publisher, "_take_ack", deaf)
    gateway, consumer = store(nats.url), crm(nats.url)
    await consumer.start()
    async with gateway.online():
        await gateway.commit("health", 2000)
        await gateway.commit("member", 50)
        await until(lambda: complete(consumer, health=2000, member=50), within_s=240)
        await until(gateway.empty, within_s=120)
    last = await consumer.stop()
    assert (last["received"], last["gaps"], last["lost"], last["dead"]) == (2050, 0, 0, 0)
    assert min(done.values()) > 3
    tell(f"{done}, 30 % of acks unheard: 2,050 of 2,050 once, {last['duplicates']} repetitions absorbed")


async def test_refused_by_an_access_rule_then_allowed(
    tmp_path: Path, store: MakeStore, crm: MakeCrm, until: Until, tell: Callable[[str], None]
) -> None:
    """Only MQTT 5 tells of a refusal; nothing is taken for delivered, and all of it comes when the rule is mended."""
    need_mosquitto()
    acl = tmp_path / "acl"
    # A user name in the rule would need a password file: the anonymous may do all but write below up/.
    rule = "topic read tagtrail/#\ntopic write tagtrail/v1/+/+/state\ntopic write tagtrail/v1/+/+/down/#\n"
    acl.write_text(rule)
    options = f"allow_anonymous true\nacl_file {acl}"
    async with MosquittoBroker(tmp_path / "broker", options) as broker:
        gateway, consumer = store(broker.url, version="5"), crm(broker.url)
        await consumer.start()
        async with gateway.online() as running:
            await gateway.commit("health", 300)
            await until(lambda: running.counters["refused"] > 0)
            assert "refused" in running.status.reason
            assert await gateway.pending() == 300
            acl.write_text("topic readwrite tagtrail/#\n")
            broker.signal(signal.SIGHUP)
            await until(lambda: complete(consumer, health=300), within_s=120)
        last = await consumer.stop()
    assert (last["received"], last["gaps"], last["lost"]) == (300, 0, 0)
    tell("300 of 300 once, after a refusal that was told")


async def test_oversize_and_poison(
    nats: NatsBroker, store: MakeStore, crm: MakeCrm, until: Until, tell: Callable[[str], None]
) -> None:
    gateway, consumer = store(nats.url), crm(nats.url)
    huge = health().model_copy(update={"version": "x" * 70_000})
    await gateway.writer.write(lambda conn: outbox.append(conn, "health", [health(1), huge, health(2)]))

    def poison(conn: sqlite3.Connection) -> None:
        outbox.append(conn, "health", [health(3), health(4)])
        bad = json.dumps({"id": "s1/?/health/4", "type": "no such event"})
        conn.execute("UPDATE outbox_health SET payload = ? WHERE seq = 4", (bad,))

    await gateway.writer.write(poison)
    await consumer.start()
    await until(consumer.ready)
    async with gateway.online(), connect(MqttSettings.from_url(nats.url, "hooligan")) as hooligan:
        for payload in (b"", b"\0" * 65536, b"{", b'{"v":1}', b"[" * 50_000):
            await hooligan.publish(topics.topic("s1", "up/health"), payload)
        await until(gateway.empty)
        await until(lambda: json.loads(consumer._status.read_text())["dead"] > 5)
    last = await consumer.stop()
    assert last["received"] == 3
    assert last["lost"] == 2  # the huge one, and the poisoned one as a dead letter
    assert last["gaps"] == 0
    assert last["dead"] >= 5
    tell(f"3 events, 1 lost as oversize, 1 dead letter, {last['dead'] - 1} messages of nonsense put aside")


async def test_disk_full_on_a_small_tmpfs(
    tmp_path: Path, nats: NatsBroker, crm: MakeCrm, until: Until, tell: Callable[[str], None]
) -> None:
    """Sending goes on from a full disk; what is acked stays in memory until it can be written."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)]).returncode:
        pytest.skip("a small disk needs root and mount")
    try:
        gateway, consumer = Store(disk / "s1.db", nats.url), crm(nats.url)
        await consumer.start()
        made = 0
        filler = disk / "filler"
        filler.write_bytes(b"\0" * (2 << 20))
        with contextlib.suppress(sqlite3.OperationalError):
            while True:
                await gateway.commit("health", 200)
                made += 200
        async with gateway.online() as running:
            await until(lambda: complete(consumer, health=made), within_s=120)
            told = running.trouble
            filler.unlink()
            await until(gateway.empty, within_s=60)
        last = await consumer.stop()
        gateway.writer.close()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)
    assert (last["received"], last["gaps"], last["lost"]) == (made, 0, 0)
    tell(f"{made} of {made} once from a full disk ({told or 'no write was refused'})")


async def test_quota_with_the_broker_away(
    tmp_path: Path, nats: NatsBroker, store: MakeStore, crm: MakeCrm, until: Until, tell: Callable[[str], None]
) -> None:
    gateway, consumer = store(nats.url), crm(nats.url)
    await gateway.writer.write(lambda conn: conn.execute("PRAGMA max_page_count = 500").fetchall())
    made = {"agg": 0, "health": 0}
    entered = 0

    def live(conn: sqlite3.Connection) -> int:
        lost = 0
        while quota.in_use(conn) >= quota.FULL:
            lost += quota.make_room(conn)
        return lost

    evicted = 0
    for n in range(200):
        some = [window(1).model_copy(update={"window_us": (n * 10 + i) * 900_000_000}) for i in range(10)]
        await gateway.writer.write(lambda conn, some=some: outbox.append(conn, "agg", some))
        await gateway.writer.write(lambda conn: outbox.append(conn, "health", [health()] * 30))
        made["agg"] += 10
        made["health"] += 30
        entered += 10
        evicted += await gateway.writer.write(live)
    await consumer.start()
    async with gateway.online():
        await until(gateway.empty, within_s=60)
    last = await consumer.stop()
    with contextlib.closing(sqlite3.connect(tmp_path / "crm.db")) as conn:
        query = "SELECT sum(json_extract(payload, '$.entered')) FROM event WHERE class = 'agg'"
        (counted,) = conn.execute(query).fetchone()
    assert last["received"] + last["lost"] == sum(made.values())
    assert last["gaps"] == 0
    assert counted == entered
    tell(f"{sum(made.values())} numbers: {last['received']} events, {last['lost']} told as lost or merged; sums kept")


async def test_crm_back_to_yesterdays_backup(
    tmp_path: Path, nats: NatsBroker, store: MakeStore, crm: MakeCrm, until: Until, tell: Callable[[str], None]
) -> None:
    gateway, consumer = store(nats.url), crm(nats.url)
    await consumer.start()
    async with gateway.online() as running:
        await gateway.commit("health", 1000)
        await until(lambda: complete(consumer, health=1000))
        await consumer.stop()
        shutil.copy(tmp_path / "crm.db", tmp_path / "backup.db")
        await consumer.start()
        await gateway.commit("health", 500)
        await until(lambda: complete(consumer, health=1500))
        await until(gateway.empty)
        await consumer.stop()
        for suffix in ("-wal", "-shm"):
            (tmp_path / f"crm.db{suffix}").unlink(missing_ok=True)
        shutil.copy(tmp_path / "backup.db", tmp_path / "crm.db")
        await consumer.start()
        await gateway.commit("health", 100)
        await until(lambda: consumer.count() == 1100, within_s=60)
        sent = await running.replay("health", 1001, 1500)  # what the command `replay` does
        await until(lambda: complete(consumer, health=1600), within_s=60)
        await until(gateway.empty)
    last = await consumer.stop()
    assert sent == {"events": 500, "lost": 0}
    assert (last["received"], last["gaps"], last["lost"]) == (1600, 0, 0)
    tell("500 events that the CRM had forgotten replayed; 1,600 of 1,600 once")


async def test_store_back_to_a_backup(
    tmp_path: Path, nats: NatsBroker, store: MakeStore, crm: MakeCrm, until: Until, tell: Callable[[str], None]
) -> None:
    """Numbers that were given before are not given again: the CRM's own ack tells of them."""
    gateway, consumer = store(nats.url), crm(nats.url)
    await consumer.start()
    async with gateway.online():
        await gateway.commit("health", 100)
        await until(gateway.empty)
    await gateway.writer.read(lambda conn: conn.execute("VACUUM INTO ?", (str(tmp_path / "backup.db"),)).fetchall())
    async with gateway.online():
        await gateway.commit("health", 50)
        await until(gateway.empty)
    await gateway.writer.write(lambda conn: None)
    again = Store(tmp_path / "backup.db", nats.url)
    async with again.online() as running:
        await until(lambda: running.counters["acks_beyond"] > 0)
        await again.commit("health", 30)
        await until(again.empty, within_s=60)
    last = await consumer.stop()
    again.writer.close()
    assert last["received"] == 180
    assert last["gaps"] == 0
    assert last["lost"] == outbox.JUMP
    tell(f"100 + 50 + 30 events once, {last['lost']} numbers left out and told")


async def test_two_gateways_with_one_identity(
    tmp_path: Path,
    nats: NatsBroker,
    store: MakeStore,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
    tell: Callable[[str], None],
) -> None:
    monkeypatch.setattr(publisher, "TWIN_WAIT_S", 600.0)
    elder = store(nats.url)
    (tmp_path / "twin").mkdir()
    async with elder.online() as first:
        await until(lambda: first.status.connected)
        twin = Store(tmp_path / "twin" / "s1.db", nats.url)
        async with twin.online() as second:
            await until(lambda: "keeps away" in second.status.reason, within_s=90)
            await until(lambda: first.status.connected and first.counters["twins"] > 0, within_s=60)
            assert not second.status.connected
        twin.writer.close()
    tell("the younger keeps away and says so; the elder goes on and says so")


async def test_slow_consumer(
    nats: NatsBroker, store: MakeStore, listening: Listening, until: Until, tell: Callable[[str], None]
) -> None:
    """A CRM that takes its time is not buried: a window of batches, then waiting."""
    gateway = store(nats.url)
    await gateway.commit("health", 5000)
    async with listening(nats.url, gateway) as far, gateway.online():
        acked = 0
        began = time.monotonic()
        while acked < 5000:
            await until(lambda acked=acked: max(far.seqs("health"), default=0) > acked, within_s=60)
            await asyncio.sleep(0.02)
            acked = max(far.seqs("health"))
            await far.ack("health", acked, pause_ms=5)
        await until(gateway.empty)
    seqs = far.seqs("health")
    assert set(seqs) == set(range(1, 5001))
    tell(f"5,000 of 5,000, {len(seqs) - 5000} repeated, {time.monotonic() - began:.1f} s")


async def test_clock_jumps(
    nats: NatsBroker,
    store: MakeStore,
    crm: MakeCrm,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
    tell: Callable[[str], None],
) -> None:
    """The wall clock goes a day back and a year ahead: numbers and order do not depend on it."""
    gateway, consumer = store(nats.url), crm(nats.url)
    shift = 0
    gateway_clock = lambda: time.time_ns() // 1000 + shift  # noqa: E731
    new = gateway.new_publisher

    def shifted() -> Any:
        made = new()
        made._clock = gateway_clock
        return made

    gateway.new_publisher = shifted  # type: ignore[method-assign]
    await consumer.start()
    async with gateway.online():
        for shift in (0, -86_400_000_000, 365 * 86_400_000_000, 0):  # noqa: B007 - the clock reads it
            await gateway.commit("health", 100)
            await until(gateway.empty)
    last = await consumer.stop()
    assert (last["received"], last["gaps"], last["lost"]) == (400, 0, 0)
    tell("a day back, a year ahead: 400 of 400 once")
