"""The whole store, the service as a process: people walk past a reader while everything dies. Exact counts."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from brokers import MakeCrm, MosquittoBroker, Until, need_mosquitto
from chaos_shops import book, by_epoch, open_shop, serving
from gateways import Gateway

from simulators.headquarters.broker import NatsBroker


async def test_service_broker_and_crm_killed_at_random(
    gateway: Gateway, tmp_path: Path, crm: MakeCrm, until: Until, tell: Callable[[str], None]
) -> None:
    """54 times kill -9 of one of the three, while 30,240 members come and go."""
    need_mosquitto()
    dice = random.Random(11)
    turns, people = 54, 560
    kills = {"service": 0, "broker": 0, "crm": 0}
    async with (
        MosquittoBroker(tmp_path / "broker") as broker,
        open_shop(gateway, broker.url, turns * people) as shop,
    ):
        consumer = crm(broker.url)
        await consumer.start()
        gateway.start("--no-web")
        await gateway.until(serving)
        for turn in range(turns):
            crowd = asyncio.create_task(shop.enter(people, 0.004))
            victim = list(kills)[turn % 3] if turn < 48 else dice.choice(list(kills))
            kills[victim] += 1
            await asyncio.sleep(dice.uniform(0, 3))
            if victim == "service":
                gateway.end(signal.SIGKILL)
                await asyncio.sleep(dice.uniform(0, 0.5))
                gateway.start("--no-web")
            elif victim == "broker":
                await broker.kill()
                await asyncio.sleep(dice.uniform(0, 0.5))
                await broker.start()
            else:
                await consumer.kill()
                await consumer.start()
            await gateway.until(serving)
            await crowd
        await shop.empty()
        numbers = await shop.close()
        await until(lambda: consumer.count() == sum(numbers.values()), within_s=60)
        last = await consumer.stop()
    total = sum(numbers.values())
    assert total >= 30_000
    assert sum(kills.values()) >= 50
    assert {class_: n for (_, class_), (_, _, n) in by_epoch(tmp_path).items()} == {
        k: n for k, n in numbers.items() if n
    }
    assert all(low == 1 and high == n for low, high, n in by_epoch(tmp_path).values())
    assert (last["received"], last["gaps"], last["lost"], last["dead"]) == (total, 0, 0, 0)
    members = "SELECT count(*), count(DISTINCT json_extract(payload, '$.member')) FROM event WHERE class = "
    assert book(tmp_path, f"{members}'member'") == [(shop.people, shop.people)]
    told, who = book(tmp_path, f"{members}'journey'")[0]  # reads since the last checkpoint die with the service
    assert told == who > 100
    tell(
        f"{kills}, {shop.people:,} members: {total:,} of {total:,} events once, each member announced once, "
        f"{told:,} journeys; {last['duplicates']:,} repetitions absorbed"
    )


async def test_database_deleted_under_the_running_service(
    gateway: Gateway, tmp_path: Path, nats: NatsBroker, crm: MakeCrm, until: Until, tell: Callable[[str], None]
) -> None:
    """What it had not yet delivered is saved: same epoch, same numbers, nobody greeted twice."""
    async with open_shop(gateway, nats.url, 60) as shop:
        consumer = crm(nats.url)
        gateway.start("--no-web")
        await gateway.until(serving)
        epoch = shop.epoch()
        await shop.enter(30, 0.05)
        await gateway.until(lambda state: state["outbox"]["member"]["pending"] == 30)
        for file in gateway.folder.glob("store.db*"):
            if file.name.removeprefix("store.db") in ("", "-wal", "-shm"):
                file.unlink()
        await shop.enter(30, 0.05)
        await gateway.until(lambda state: serving(state) and state["outbox"]["member"]["sent"] == 60)
        await consumer.start()
        await shop.empty()
        numbers = await shop.close()
        await until(lambda: consumer.count() == sum(numbers.values()))
        last = await consumer.stop()
        assert shop.epoch() == epoch
    assert by_epoch(tmp_path) == {(epoch, class_): (1, n, n) for class_, n in numbers.items() if n}
    assert (last["gaps"], last["lost"], last["dead"]) == (0, 0, 0)
    assert numbers["member"] == 60
    tell(f"same epoch: {sum(numbers.values())} of {sum(numbers.values())} once, 30 of them from the deleted file")


async def test_database_deleted_while_the_service_was_stopped(
    gateway: Gateway, tmp_path: Path, nats: NatsBroker, crm: MakeCrm, until: Until, tell: Callable[[str], None]
) -> None:
    """A new epoch beside the old one, each complete: no number of the new is taken for one of the old."""
    async with open_shop(gateway, nats.url, 40) as shop:
        consumer = crm(nats.url)
        await consumer.start()
        expected: dict[Any, Any] = {}
        for _ in range(2):
            before = shop.people
            gateway.start("--no-web")
            await gateway.until(serving)
            await shop.enter(20, 0.05)
            await gateway.until(lambda state: state["outbox"]["member"]["sent"] == 20)
            await shop.empty()
            assert shop.people == before + 20
            numbers = await shop.close()
            expected |= {(shop.epoch(), class_): (1, n, n) for class_, n in numbers.items() if n}
            await until(lambda: by_epoch(tmp_path) == expected)  # noqa: B023
            for file in gateway.folder.glob("store.db*"):
                file.unlink()
            gateway.run("directory", "import", str(gateway.folder / "members.csv"), "-c", str(gateway.file))
        last = await consumer.stop()
    total = sum(n for _, _, n in expected.values())
    assert len({epoch for epoch, _ in expected}) == 2
    assert (last["received"], last["gaps"], last["lost"], last["dead"]) == (total, 0, 0, 0)
    tell(f"2 epochs, {total} of {total} once")


async def test_database_damaged_under_load(
    gateway: Gateway, tmp_path: Path, nats: NatsBroker, crm: MakeCrm, until: Until, tell: Callable[[str], None]
) -> None:
    """Moved aside, a new epoch, the same process; of both epochs the CRM has every number that it acknowledged once."""
    async with open_shop(gateway, nats.url, 600) as shop:
        consumer = crm(nats.url)
        await consumer.start()
        gateway.start("--no-web")
        pid = (await gateway.until(serving))["pid"]
        first = shop.epoch()
        crowd = asyncio.create_task(shop.enter(600, 0.05))
        await gateway.until(lambda state: state["outbox"]["member"]["sent"] >= 100)
        with contextlib.closing(sqlite3.connect(gateway.database, timeout=10, isolation_level=None)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            other.execute("INSERT INTO fact VALUES ('other', 'hand')")  # so that the service reads its pages anew
        given = shop.numbers()
        with gateway.database.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xa5" * (gateway.database.stat().st_size - 4096))
        state = await gateway.until(lambda state: bool(state["database"]["quarantined"]) and serving(state))
        assert state["pid"] == pid
        second = shop.epoch()
        assert second != first
        members = ("directory", "import", str(gateway.folder / "members.csv"), "-c", str(gateway.file))
        assert (await asyncio.to_thread(gateway.run, *members)).returncode == 0  # the CRM's would come by itself
        await crowd
        await shop.empty()
        numbers = await shop.close()
        await until(lambda: {k: v for k, v in by_epoch(tmp_path).items() if k[0] == second}
                    == {(second, class_): (1, n, n) for class_, n in numbers.items() if n})  # fmt: skip
        last = await consumer.stop()
    old = {class_: (low, high, n) for (epoch, class_), (low, high, n) in by_epoch(tmp_path).items() if epoch == first}
    assert all(low == 1 and high == n for low, high, n in old.values())
    assert (last["gaps"], last["lost"], last["dead"]) == (0, 0, 0)
    assert numbers["member"] > 100
    missing = sum(max(0, given[class_] - old.get(class_, (0, 0, 0))[2]) for class_ in given)
    tell(
        f"{sum(n for *_, n in old.values())} of the old epoch and {sum(numbers.values())} of the new once; "
        f"{missing} not yet acknowledged lie in the file moved aside"
    )


async def test_database_locked_by_another_hand(
    gateway: Gateway, tmp_path: Path, nats: NatsBroker, crm: MakeCrm, until: Until, tell: Callable[[str], None]
) -> None:
    """Somebody looks into it with a tool that keeps it locked: nothing is lost, and it is said."""
    async with open_shop(gateway, nats.url, 60) as shop:
        consumer = crm(nats.url)
        await consumer.start()
        gateway.start("--no-web")
        await gateway.until(serving)
        with contextlib.closing(sqlite3.connect(gateway.database, timeout=10, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await shop.enter(60, 0.05)
            await gateway.until(lambda state: "locked" in (state["database"]["trouble"] or ""))
            other.execute("ROLLBACK")
        await shop.empty()
        await gateway.until(lambda state: state["database"]["trouble"] is None)
        numbers = await shop.close()
        await until(lambda: consumer.count() == sum(numbers.values()))
        last = await consumer.stop()
    total = sum(numbers.values())
    assert numbers["member"] == 60
    assert (last["received"], last["gaps"], last["lost"], last["dead"]) == (total, 0, 0, 0)
    tell(f"locked until it was told: {total} of {total} once, 60 members announced once")
