"""Leases by a witness: never may two gateways let events leave, and nothing leaves that the next one doesn't have."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from forwarding import TOKEN
from pairs import Paper

from config import StoreConfig
from drivers.links import LinkFailure
from edge.forwarding import wire
from edge.forwarding.calling import Caller
from edge.standby import lease as leases
from edge.standby import messages
from edge.standby.lease import Claim, Entry, Held, Lease
from edge.standby.witness import CALLERS_MAX, BoxRegister, Witness
from edge.store.errors import Trouble
from simulators.headquarters.broker import free_port
from simulators.headquarters.log import Log

LEASE_S = 10.0


class Time:
    """A monotonic clock that is moved by hand."""

    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


class Two:
    """Both gateways' view of a register: a serves with term 1, b stands by."""

    def __init__(self) -> None:
        self.time, self.paper = Time(), Paper()
        self.superseded: list[tuple[int, str]] = []
        self.a = Lease(self.paper.of("a"), "a", 1, LEASE_S, lambda *by: self.superseded.append(by), self.time)
        self.b = Claim(self.paper.of("b"), "b", LEASE_S, self.time)


def valid(lease: Lease) -> bool:
    """As a function, because it changes between two looks."""
    return lease.valid


def alone(lease: Lease) -> bool:
    return lease.alone


@pytest.fixture
def two() -> Two:
    return Two()


async def test_a_service_that_is_silent_for_a_lease_is_taken_over_from(two: Two) -> None:
    await two.a.renew()
    two.a.not_alone()
    await two.a.renew()
    assert valid(two.a)
    began = two.time.s
    terms: list[int] = []
    while not terms:
        two.time.s += 0.5
        if (term := await two.b.look(1)) is not None:
            assert not valid(two.a), "both would let events leave"
            terms.append(term)
        assert two.time.s - began < 3 * LEASE_S
    assert terms[0] > 1
    # It comes back: it must not go on.
    assert not await two.a.renew()
    assert two.superseded == [(terms[0], "b")]
    assert not valid(two.a)
    # A takeover that was not finished is finished by the next process.
    assert await Claim(two.paper.of("b"), "b", LEASE_S, two.time).look(1) == terms[0]


async def test_a_service_that_went_on_alone_is_left_to_a_person(two: Two) -> None:
    assert not alone(two.a)
    await two.a.renew()
    assert alone(two.a)
    two.time.s += 10 * LEASE_S
    await two.b.look(1)
    two.time.s += 10 * LEASE_S
    assert await two.b.look(1) is None
    assert "went on alone" in two.b.reason
    await two.b.take(77)
    assert not await two.a.renew()
    assert two.superseded == [(77, "b")]


async def test_without_the_witness_nothing_is_said_to_be_alone(two: Two) -> None:
    await two.a.renew()
    two.a.not_alone()
    await two.a.renew()
    two.paper.away.add("a")
    assert not await two.a.go_alone()
    assert not alone(two.a)
    two.time.s += LEASE_S
    assert not valid(two.a)
    two.a.promised(two.time.s)  # the standby's word is enough, as long as it lasts
    assert valid(two.a)
    two.time.s += LEASE_S
    assert not valid(two.a)
    two.paper.away.clear()
    assert await two.a.go_alone()
    assert alone(two.a)
    assert valid(two.a)


async def test_a_witness_that_hangs_is_one_that_is_away(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "ANSWER_S", 0.05)

    class Hung:
        async def get(self) -> Entry:
            await asyncio.Event().wait()
            raise AssertionError

    a = Lease(Hung(), "a", 1, LEASE_S, lambda *by: None, two.time)  # type: ignore[arg-type]
    assert not await a.renew()
    assert a.told() == {"valid": False, "reason": "the witness does not answer"}
    claim = Claim(Hung(), "b", LEASE_S, two.time)  # type: ignore[arg-type]
    assert await claim.look(1) is None
    assert claim.reason == "the witness does not answer"
    with pytest.raises(TimeoutError):
        await claim.take(7)


async def test_whatever_fails_never_do_both_run_the_service() -> None:
    taken = [await history(Random(seed)) for seed in range(40)]
    assert 5 <= sum(taken) < 40


async def history(random: Random) -> bool:
    """Ten minutes in which everything fails now and then; returns whether b has taken over."""
    two = Two()
    answered_s = float("-inf")
    protected = cut = False
    lacking = False
    """Whether something has left that b doesn't have."""
    taken = 0
    for _ in range(600):
        two.time.s += random.choice((0.1, 0.5, 1.0, 2.0))
        if random.random() < 0.05:
            two.paper.away = {who for who in "ab" if random.random() < 0.4}
        if random.random() < 0.05:
            cut = random.random() < 0.5
        if random.random() < 0.8:
            await two.a.renew()
        if not cut and not taken and random.random() < 0.7:
            two.b.promise()
            two.a.promised(two.time.s - random.random())
            answered_s = two.time.s
            lacking = False  # it has caught up
            if not protected:
                protected = True
                two.a.not_alone()
        if protected and two.time.s - answered_s > 2 and await two.a.go_alone():
            protected = False
        if valid(two.a) and alone(two.a):
            lacking = True
        if taken:
            assert not valid(two.a)
        elif (term := await two.b.look(1)) is not None:
            assert not valid(two.a), "both would let events leave"
            assert not lacking, "it took over without what the CRM has heard"
            taken = term
    return taken > 0


def config_of(tmp_path: Path, **standby: Any) -> StoreConfig:
    token = tmp_path / "token"
    token.write_bytes(TOKEN)
    zone = {"id": "z", "name": "z", "kind": "entrance", "floor": "F", "polygon": [[0, 0], [1, 0], [1, 1]]}
    return StoreConfig.model_validate(
        {
            "store": {"id": "s1", "name": "one", "timezone": "Asia/Shanghai"},
            "floors": [{"id": "F", "name": "F"}],
            "zones": [zone],
            "mqtt": {"url": "mqtt://127.0.0.1:1"},
            "database": {"path": str(tmp_path / "store.db")},
            "forwarding": {"address": f"127.0.0.1:{free_port()}"},
            "standby": {"id": "b", "address": f"127.0.0.1:{free_port()}", "token_file": str(token)} | standby,
        }
    )


async def both(one: Any, other: Any) -> None:
    """What any register has to do."""
    assert await one.get() == Entry(0, None)
    first = await one.put(0, Held("a", 1, True))
    assert first
    assert await other.get() == Entry(first, Held("a", 1, True))
    assert await other.put(0, Held("b", 2, True)) is None
    second = await other.put(first, Held("b", 2, False))
    assert second
    assert second > first
    assert await one.put(first, Held("a", 1, False)) is None
    assert await one.get() == Entry(second, Held("b", 2, False))


async def test_a_witness_on_a_third_gateway(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    config = config_of(tmp_path, witness=address)
    file = tmp_path / "witness.json"
    task = asyncio.create_task(Witness(config, file).run())
    try:
        registers = [BoxRegister(Caller(address, None, "s1", "holder", who, TOKEN, "the witness")) for who in "ab"]

        async def answers() -> bool:
            try:
                await registers[0].get()
            except LinkFailure:
                return False
            return True

        async with asyncio.timeout(20):
            while not await answers():
                await asyncio.sleep(0.01)
        await both(*registers)
        stranger = BoxRegister(Caller(address, None, "s1", "holder", "c", TOKEN[::-1], "the witness"))
        with pytest.raises(LinkFailure, match="another one than that of the witness"):
            await stranger.get()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    with pytest.raises(LinkFailure, match=r"the witness at .* (has closed the connection|can't be reached)"):
        await registers[0].get()
    # It remembers, and they find it again.
    again = asyncio.create_task(Witness(config, file).run())
    try:
        async with asyncio.timeout(20):
            while not await answers():
                await asyncio.sleep(0.01)
        assert (await registers[1].get()).held == Held("b", 2, False)
    finally:
        again.cancel()
        await asyncio.gather(again, return_exceptions=True)
    file.write_text("{")
    with pytest.raises(Trouble, match="can't be read"):
        Witness(config, file)


@asynccontextmanager
async def witnessing(config: StoreConfig, file: Path) -> AsyncIterator[Caller]:
    """A witness; who may call it, once it answers."""
    address = config.standby.witness if config.standby else None
    assert address is not None
    caller = Caller(address, None, "s1", "holder", "a", TOKEN, "the witness")
    task = asyncio.create_task(Witness(config, file).run())
    try:
        async with asyncio.timeout(20):
            while True:
                with suppress(LinkFailure):
                    (await caller.call(0)).end()
                    break
                await asyncio.sleep(0.01)
        yield caller
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_connections_that_broke_unnoticed_do_not_keep_a_gateway_out(tmp_path: Path) -> None:
    config = config_of(tmp_path, witness=f"127.0.0.1:{free_port()}")
    async with witnessing(config, tmp_path / "witness.json") as caller:
        calls = [await caller.call(0) for _ in range(2 * CALLERS_MAX)]
        assert await BoxRegister(replace(caller, id="b")).get() == Entry(0, None)
        # Of one gateway only the newest is kept.
        assert await calls[0].reader.read() == b""
        calls[-1].writer.write(messages.framed(messages.Ask(0, None)))
        assert await messages.receive(calls[-1].reader) == messages.Found(0, b"", False)
        for call in calls:
            call.end()


async def test_strangers_at_a_witness_are_told_once_and_keep_nobody_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_of(tmp_path, witness=f"127.0.0.1:{free_port()}")
    assert config.standby is not None
    assert config.standby.witness is not None
    host, port = wire.host_port(config.standby.witness)
    async with witnessing(config, tmp_path / "witness.json") as caller:
        slow = [await asyncio.open_connection(host, port) for _ in range(CALLERS_MAX // 2)]
        for _ in range(3):
            with pytest.raises(LinkFailure, match="another one than that of the witness"):
                await replace(caller, token=TOKEN[::-1]).call(0)
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            with suppress(OSError):
                await reader.read()
            writer.close()
        for _, writer in slow:
            writer.write(b"\0")  # the first byte of a frame, and then nothing
        assert await BoxRegister(caller).put(0, Held("a", 1, True)) == 1
        for _, writer in slow:
            writer.close()
    told = [record.getMessage() for record in caplog.records if record.name == "tagtrail.witness"]
    assert sum("another one than that of the witness" in one for one in told) == 1
    assert sum("none of the store's gateways: a frame of 1195725856 bytes" in one for one in told) == 1


async def test_a_witness_that_can_not_write_says_so_and_promises_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, file = config_of(tmp_path, witness=f"127.0.0.1:{free_port()}"), tmp_path / "w" / "witness.json"
    blocked = file.with_name("witness.json.new")
    async with witnessing(config, file) as caller:
        register = BoxRegister(caller)
        blocked.mkdir(parents=True)
        for _ in range(3):
            with pytest.raises(LinkFailure, match="has closed the connection"):
                await register.put(0, Held("a", 1, True))
        assert await register.get() == Entry(0, None)
        blocked.rmdir()
        assert await register.put(0, Held("a", 1, True)) == 1
    assert sum("can't write" in record.getMessage() for record in caplog.records) == 1


async def test_a_witness_in_the_chains_log(tmp_path: Path) -> None:
    from edge.standby.nats_witness import NatsRegister

    async with Log(tmp_path / "nats", nodes=1) as log:
        one, other, stranger = (NatsRegister(log.servers, store) for store in ("s1", "s1", "s2."))
        await both(one, other)
        assert await stranger.get() == Entry(0, None)
    with pytest.raises(LinkFailure, match="the witness does not answer"):
        await one.get()


async def test_a_witness_in_a_log_of_three_nodes(tmp_path: Path) -> None:
    from edge.standby.nats_witness import NatsRegister

    held = Held("a", 3, True)

    async def put(register: NatsRegister) -> int:
        """As both gateways try it again and again."""
        while True:
            with suppress(LinkFailure, TimeoutError):
                async with asyncio.timeout(5):
                    if (revision := await register.put((await register.get()).revision, held)) is not None:
                        return revision
            await asyncio.sleep(0.05)

    async with Log(tmp_path / "nats", nodes=3) as log, asyncio.timeout(90):
        one, other = (NatsRegister(log.servers, "s1") for _ in range(2))
        await put(one)  # as soon as they have found each other
        await other.get()
        assert one._bucket is not None
        # Somebody deletes the key.
        assert (await one._bucket.status()).stream_info.config.num_replicas == 3
        await one._bucket.delete("s1/holder")
        gone = await other.get()
        assert (gone.held, await other.put(0, held)) == (None, None)
        assert await other.put(gone.revision, held) == gone.revision + 1
        # One node of three may fail, even the one that leads.
        leader = (await one._bucket.status()).stream_info.cluster.leader
        await log.nodes[int(leader.removeprefix("log-")) - 1].kill()
        before = await put(one)
        assert await put(other) > before
