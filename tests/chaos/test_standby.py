"""A store with two gateways that may run the service: one is killed, or cut off, while members come and go. Exact
counts at a CRM built from the contract."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brokers import CrmProcess, MakeCrm, Until
from chaos_shops import ChaosShop, book, by_epoch, now_us, open_shop
from gateways import Gateway, antennas
from pairs import SECOND, Cable, Machine, pair_of

from simulators.headquarters.broker import NatsBroker, free_port
from simulators.readers.llrp import LlrpReader

LEASE_S = 3.0
PEOPLE = 40
LEARNT_S = 400
"""A new store's first visits are decided once its radio has been learnt for two minutes."""


@dataclass
class Store:
    """Both gateways, the forwarder with the readers, perhaps a witness, and the CRM."""

    first: Gateway
    second: Machine
    forwarder: Machine
    shop: ChaosShop
    reader: LlrpReader
    consumer: CrmProcess
    cable: Cable
    others: tuple[Cable, ...]
    """From the service to the other gateway, and to the witness, if there is one."""
    witness: Machine | None = None
    folder: Path = field(default_factory=Path)

    async def crowd(self, people: int = PEOPLE) -> None:
        await self.shop.enter(people, 0.1)

    async def delivered(self, gateway: Gateway, until: Until) -> dict[str, Any]:
        """Stop everything once the CRM has all that this gateway has numbered; the CRM's last words."""

        def pending() -> list[Any]:
            return gateway.rows("SELECT sum(next_seq - 1 - acked) FROM outbox_class")

        await until(lambda: pending() == [(0,)], within_s=120)
        assert gateway.end() == 0, gateway.log()
        return await self.consumer.stop()


@contextlib.asynccontextmanager
async def opened(
    gateway: Gateway, tmp_path: Path, nats: NatsBroker, crm: MakeCrm, until: Until, *, witness: bool = False
) -> AsyncIterator[Store]:
    """A store whose two gateways are in step, with people in it."""
    reader = LlrpReader(now_us)
    token = gateway.folder / "g1.token"
    token.write_text("0123456789abcdef" * 2)
    readers = [
        {
            "id": "r1",
            "driver": "llrp",
            "via": "g1",
            "address": await reader.start(),
            "antennas": antennas("door", "shoes", "bags", "out"),
        }
    ]
    parts = pair_of(gateway, lease_s=LEASE_S, **({"witness": f"127.0.0.1:{free_port()}"} if witness else {}))
    parts["forwarders"] = [{"id": "g1", "token_file": str(token)}]
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(reader.stop)
        shop = await stack.enter_async_context(open_shop(gateway, nats.url, 200, readers=readers, **parts))
        shop._reader = reader
        cable = await stack.enter_async_context(Cable(parts["forwarding"]["address"]).laid())
        changes = {f'address = "{parts["forwarding"]["address"]}"': f'address = "{cable.address}"'}
        others = []
        text = gateway.file.read_text()
        for key in ("address", *(["witness"] if witness else [])):
            other = await stack.enter_async_context(Cable(parts["standby"][key]).laid())
            others.append(other)
            text = text.replace(f'{key} = "{parts["standby"][key]}"', f'{key} = "{other.address}"')
        second = Machine(tmp_path / "b", gateway, SECOND, **changes)
        forwarder = Machine(tmp_path / "f", gateway, "g1")
        third = Machine(tmp_path / "w", gateway, "witness") if witness else None
        gateway.file.write_text(text)
        for machine in (second, forwarder, third):
            if machine is not None:
                stack.callback(machine.close)
        consumer = crm(nats.url)
        await consumer.start()
        await until(consumer.ready)
        if third is not None:
            third.begin("witness")
        gateway.start("--no-web")
        second.begin("standby", "--as", SECOND, "--no-web")
        forwarder.begin("forward")
        await gateway.until(lambda state: state["readers"][0]["link"] == "up" and state["standby"]["protected"])
        await second.standby(lambda state: state["protected"])
        yield Store(gateway, second, forwarder, shop, reader, consumer, cable, tuple(others), third, tmp_path)


def journeys(gateway: Gateway) -> int:
    return int(gateway.rows("SELECT count(*) FROM journey")[0][0])


def weighed(gateway: Gateway) -> int:
    """Reads that the engine has weighed, before and after the takeover, by its last word."""
    query = 'SELECT payload FROM outbox_health WHERE payload LIKE \'%"reason":"stop"%\' ORDER BY seq DESC LIMIT 1'
    return int(json.loads(gateway.rows(query)[0][0])["reads"])


def judge(folder: Path, people: int) -> tuple[int, int]:
    """Every member was announced once; returns events and journeys at the CRM."""
    members = "SELECT count(*), count(DISTINCT json_extract(payload, '$.member')) FROM event WHERE class = "
    assert book(folder, f"{members}'member'") == [(people, people)]
    told, who = book(folder, f"{members}'journey'")[0]
    assert told == who > 0
    return book(folder, "SELECT count(*) FROM event")[0][0], told


def all_there(store: Store, folder: Path, last: dict[str, Any]) -> tuple[int, int]:
    """Every number is at the CRM once, and every read was weighed; returns events and reads."""
    events, _ = judge(folder, 2 * PEOPLE)
    assert all(low == 1 and high == n for low, high, n in by_epoch(folder).values())
    assert (last["gaps"], last["lost"], last["dead"]) == (0, 0, 0)
    reads = weighed(store.second)
    assert reads == store.shop.pushed
    return events, reads


async def test_a_service_that_is_killed_is_taken_over_from_by_command(
    gateway: Gateway, tmp_path: Path, nats: NatsBroker, crm: MakeCrm, until: Until, tell: Callable[[str], None]
) -> None:
    """kill -9 while members come in; one command. Numbers are skipped, because the service may have gone on alone."""
    async with opened(gateway, tmp_path, nats, crm, until) as store:
        await store.crowd()
        crowd = asyncio.create_task(store.crowd())
        await asyncio.sleep(2)
        gateway.end(signal.SIGKILL)
        done = await asyncio.to_thread(
            gateway.run, "takeover", "--config", str(store.second.file), "--as", SECOND, "--yes"
        )
        assert done.returncode == 0, done.stderr + store.second.log()
        assert "this gateway runs the service" in done.stdout
        await store.second.until(lambda state: state["readers"][0]["link"] == "up")
        await crowd
        await store.shop.empty()
        await until(lambda: journeys(store.second) == 2 * PEOPLE, within_s=LEARNT_S)
        # It comes back, and finds out.
        gateway.start("--no-web")
        assert await asyncio.to_thread(gateway.process.wait, 60) == 3, gateway.log()
        last = await store.delivered(store.second, until)
    events, _ = judge(tmp_path, 2 * PEOPLE)
    assert (last["gaps"], last["dead"]) == (0, 0)
    reads = weighed(store.second)
    assert reads == store.shop.pushed
    tell(f"{2 * PEOPLE} members announced once, {reads:,} of {reads:,} reads counted, {events:,} events once")


async def test_a_service_that_is_killed_is_taken_over_from_by_the_witness(
    gateway: Gateway, tmp_path: Path, nats: NatsBroker, crm: MakeCrm, until: Until, tell: Callable[[str], None]
) -> None:
    """kill -9 while members come in; nobody does anything. No number is skipped."""
    async with opened(gateway, tmp_path, nats, crm, until, witness=True) as store:
        await store.crowd()
        crowd = asyncio.create_task(store.crowd())
        await asyncio.sleep(2)
        gateway.end(signal.SIGKILL)
        began = asyncio.get_running_loop().time()
        await store.second.until(lambda state: state["readers"][0]["link"] == "up")
        took_s = asyncio.get_running_loop().time() - began
        await crowd
        # The former service is started again by systemd: it must not serve.
        gateway.start("--no-web")
        assert await asyncio.to_thread(gateway.process.wait, 60) == 3, gateway.log()
        assert "runs the store's service" in gateway.log()
        await store.shop.empty()
        await until(lambda: journeys(store.second) == 2 * PEOPLE, within_s=LEARNT_S)
        last = await store.delivered(store.second, until)
    events, reads = all_there(store, tmp_path, last)
    tell(
        f"served again after {took_s:.0f} s (lease {LEASE_S:g} s), {2 * PEOPLE} members announced once, {reads:,} of "
        f"{reads:,} reads counted, {events:,} of {events:,} events once"
    )


async def test_a_service_that_only_the_crm_and_forwarders_still_reach(
    gateway: Gateway, tmp_path: Path, nats: NatsBroker, crm: MakeCrm, until: Until, tell: Callable[[str], None]
) -> None:
    """Cut off from standby and witness, it sends nothing that the standby doesn't have. No number is skipped."""
    async with opened(gateway, tmp_path, nats, crm, until, witness=True) as store:
        await store.crowd()
        crowd = asyncio.create_task(store.crowd())
        for cable in (store.cable, *store.others):
            cable.cut()
        assert gateway.process is not None
        assert await asyncio.to_thread(gateway.process.wait, 60) == 3, gateway.log()
        await store.second.until(lambda state: state["readers"][0]["link"] == "up")
        await crowd
        await store.shop.empty()
        await until(lambda: journeys(store.second) == 2 * PEOPLE, within_s=LEARNT_S)
        last = await store.delivered(store.second, until)
    events, reads = all_there(store, tmp_path, last)
    tell(f"{2 * PEOPLE} members announced once, {reads:,} of {reads:,} reads counted, {events:,} events once")


async def test_two_that_are_cut_off_from_each_other_and_healed(
    gateway: Gateway, tmp_path: Path, nats: NatsBroker, crm: MakeCrm, until: Until, tell: Callable[[str], None]
) -> None:
    """The cable between the two is cut, and somebody lets the standby take over: the service, which has gone on alone,
    hears of it from the broker and stops. Mended, it becomes the standby, and takes the service back."""
    async with opened(gateway, tmp_path, nats, crm, until) as store:
        await store.crowd()
        await until(lambda: gateway.rows("SELECT count(*) FROM recognised") == [(PEOPLE,)])
        await gateway.until(lambda state: state["standby"]["behind_bytes"] == 0)
        store.cable.cut()
        await gateway.until(lambda state: not state["standby"]["protected"])
        await store.shop.empty()
        done = await asyncio.to_thread(
            gateway.run, "takeover", "--config", str(store.second.file), "--as", SECOND, "--yes"
        )
        assert done.returncode == 0, done.stderr + store.second.log()
        assert await asyncio.to_thread(gateway.process.wait, 60) == 3, gateway.log()
        await store.second.until(lambda state: state["readers"][0]["link"] == "up")
        await store.crowd()
        store.cable.mend()
        former = Machine(tmp_path / "again", gateway, "first")
        former.folder, former.database, former.file = gateway.folder, gateway.database, gateway.file
        former.begin("standby", "--no-web")
        try:
            await former.standby(lambda state: state["protected"])
            assert "kept for a week" in former.log()
            done = await asyncio.to_thread(gateway.run, "takeover", "--config", str(gateway.file), "--yes")
            assert done.returncode == 0, done.stderr + former.log()
            assert "handed over" in done.stdout
            await former.until(lambda state: state["readers"][0]["link"] == "up")
            # The other one, which `tagtrail standby` runs, stands by again by itself.
            await former.until(lambda state: state["standby"]["protected"])
            await store.crowd()
            await store.shop.empty()
            await until(lambda: journeys(former) >= 2 * PEOPLE, within_s=LEARNT_S)
            last = await store.delivered(former, until)
        finally:
            former.close()
    events, _ = judge(tmp_path, 3 * PEOPLE)
    assert (last["gaps"], last["dead"]) == (0, 0)
    tell(f"{3 * PEOPLE} members announced once, {events:,} events once, taken over twice")
