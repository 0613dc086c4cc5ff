"""Readers of other gateways beside the service's own: over real sockets and spools, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forwarding import TOKEN, HandForwarder, reads_of, receiving, several, until
from gateways import Gateway, antennas, member_card
from rigs import T0, HandClock, Rig, running, shop_of

from drivers.session import Contact, Link, Notice, ReaderStatus
from edge.forwarding import wire
from edge.forwarding.receiver import Receiver
from edge.store.compose import Shop

SECOND_US = 1_000_000
AHEAD_S = 8
"""Reads may be so far ahead of the clock."""
READERS = [
    {"id": "r1", "driver": "llrp", "address": "r1", "antennas": antennas("door")},
    {"id": "r2", "driver": "llrp", "address": "r2", "antennas": [{**antennas("door", "shoes")[1], "port": 3}]},
    {"id": "r3", "driver": "llrp", "address": "r3", "antennas": [{**antennas("door", "shoes", "bags")[2], "port": 1}]},
    {
        "id": "r4",
        "driver": "llrp",
        "address": "r4",
        "antennas": [{**antennas("door", "shoes", "bags", "out")[3], "port": 2}],
    },
]
PLANS: dict[str, dict[str, str]] = {
    "none": {},
    "one": {"r2": "g2", "r3": "g2", "r4": "g2"},
    "two": {"r2": "g2", "r3": "g3", "r4": "g3"},
    "four": {"r1": "g1", "r2": "g2", "r3": "g3", "r4": "g4"},
}
PLACES = {"door": ("r1", 1), "shoes": ("r2", 3), "bags": ("r3", 1), "out": ("r4", 2)}
ANTENNA = {"door": 0, "shoes": 1, "bags": 2, "out": 3}
WALK = (("door", 10), ("shoes", 70), ("bags", 140), ("out", 20))
VISITS = "SELECT zone, enter_us, exit_us, reads, tag_class, censored FROM visit ORDER BY enter_us, zone, reads"
JOURNEYS = "SELECT start_us, end_us, tag_class, censored, path FROM journey ORDER BY start_us, end_us"


class Several:
    """A rig with forwarders; `see` puts a card before an antenna, wherever its reader is."""

    def __init__(self, rig: Rig, receiver: Receiver | None, forwarders: list[HandForwarder]) -> None:
        self.rig, self.receiver, self.forwarders = rig, receiver, forwarders
        self.of = {reader: each for each in forwarders for reader in each.readers}

    async def up(self) -> None:
        now_us = self.rig.clock.now_us()
        for reader in ("r2", "r3", "r4"):
            if reader not in self.of:
                self.rig.inbox.status(ReaderStatus(reader, Link.UP, "taking inventory", now_us))
        for each in self.forwarders:
            each.connect()
            each.up()
        await self.arrived()

    async def see(self, card: bytes, place: str, seconds: int, *, arrive: bool = True) -> None:
        """`arrive`: wait until its reads are with the service."""
        reader, port = PLACES[place]
        forwarder = self.of.get(reader)
        for at in range(0, seconds, AHEAD_S):
            length = min(AHEAD_S, seconds - at)
            times = self.rig.clock.now_us() + 250_000 * np.arange(4 * length)
            if forwarder is None:
                await self.rig.inbox.reads(reader, reads_of(card, ANTENNA[place], times))
            else:
                for part in np.array_split(times + forwarder.ahead_us, 3):
                    await forwarder.see(reader, reads_of(card, port, part))
                if arrive:
                    await self.arrived()
            self.rig.clock.time[0] += length * SECOND_US

    async def end(self) -> None:
        for each in self.forwarders:
            await each.end()

    def relay(self, forwarder: HandForwarder) -> Any:
        assert self.receiver is not None
        return self.receiver._known[forwarder.id].relay

    async def arrived(self) -> None:
        """All that the forwarders have kept is with the service, and the pipeline has it."""
        for each in self.forwarders:
            await until(lambda each=each: self.relay(each).taken == (each.spool.life, each.spool.seq))
        await until(lambda: not self.rig.inbox._items)

    async def out(self) -> None:
        """Let everybody's journey end; the forwarders live on meanwhile."""
        for _ in range(20):
            for each in self.forwarders:
                each.gathering.alive()
                each.gathering.alive()
            await self.arrived()
            await self.rig.wait(120)
        await self.rig.until(lambda: not len(self.rig.pipeline.engine.open_visits()))


class shop_with:
    """A rig on a store whose readers are at forwarders by a plan."""

    def __init__(self, gateway: Gateway, clock: HandClock, plan: str, shop: Shop | None = None) -> None:
        self.gateway, self.clock = gateway, clock
        self.shop = shop or shop_of(gateway, **several(gateway, READERS, PLANS[plan]))
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Several:
        rig = await self._stack.enter_async_context(running(self.shop, self.clock))
        if not self.shop.config.forwarders:
            return Several(rig, None, [])
        receiver = await self._stack.enter_async_context(receiving(rig))
        ids = [each.id for each in self.shop.config.forwarders]
        forwarders = [HandForwarder(self.shop, id_, self.gateway.folder / id_, self.clock) for id_ in ids]
        it = Several(rig, receiver, forwarders)
        self._stack.push_async_callback(it.end)
        return it

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.__aexit__(*error)


def coverage(gateway: Gateway, zone: str) -> float:
    """Of the first quarter of an hour."""
    rows = gateway.rows(f"SELECT coverage FROM aggregate WHERE zone = '{zone}' ORDER BY window_us LIMIT 1")
    return float(rows[0][0])


async def walk(it: Several, cards: int = 3) -> None:
    for number in range(cards):
        for place, seconds in WALK:
            await it.see(member_card(number), place, seconds)
        await it.rig.wait(0)


async def walked(gateway: Gateway, clock: HandClock, plan: str) -> tuple[list[Any], list[Any]]:
    async with shop_with(gateway, clock, plan) as it:
        await it.up()
        await walk(it)
        await it.out()
    return gateway.rows(VISITS), gateway.rows(JOURNEYS)


async def test_the_same_reads_give_the_same_visits_through_any_number_of_forwarders(tmp_path: Path) -> None:
    found = {}
    for plan in PLANS:
        folder = tmp_path / plan
        folder.mkdir()
        found[plan] = await walked(Gateway(folder), HandClock(time=[T0]), plan)
    visits, journeys = found["none"]
    assert len(visits) >= 12
    assert len(journeys) == 3
    assert found["one"] == found["two"] == found["four"] == found["none"]


async def test_what_is_kept_during_a_short_cut_comes_as_if_there_had_been_none(tmp_path: Path) -> None:
    found = []
    for cut in (False, True):
        folder = tmp_path / str(cut)
        folder.mkdir()
        gateway, clock = Gateway(folder), HandClock(time=[T0])
        async with shop_with(gateway, clock, "one") as it:
            await it.up()
            card, g2 = member_card(1), it.forwarders[0]
            await it.see(card, "door", 10)
            await it.see(card, "shoes", 30)
            if cut:
                await g2.cut()
                await until(lambda: it.rig.pipeline.readers["r2"].link is Link.DOWN)
            await it.see(card, "shoes", 40, arrive=False)
            await it.see(card, "bags", 140, arrive=False)
            if cut:
                # The watermark waits: what is kept has been before it.
                assert it.rig.pipeline.engine.weighed_us <= T0 + 41 * SECOND_US
                g2.connect()
            await it.arrived()
            await until(lambda: it.rig.pipeline.readers["r2"].link is Link.UP)
            await it.see(card, "out", 20)
            await it.out()
            assert it.rig.pipeline.engine.counters["late"] == 0
        found.append((gateway.rows(VISITS), gateway.rows(JOURNEYS)))
    assert found[0] == found[1]
    assert not any(censored for *_, censored in found[0][0])


async def test_a_long_cut_is_unknown_and_never_a_second_visit(
    gateway: Gateway, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shop_with(gateway, clock, "one") as it:
        await it.up()
        card, g2 = member_card(1), it.forwarders[0]
        relay = it.relay(g2)
        now_s = [0.0]
        relay._now_s = lambda: now_s[0]
        await it.see(card, "shoes", 60)
        await g2.cut()
        await until(lambda: it.rig.pipeline.readers["r2"].link is Link.DOWN)
        it.rig.pipeline._outages.bound_us(1e12, clock.now_us(), hurry=True)  # as after a minute
        await it.see(card, "shoes", 300, arrive=False)
        await it.rig.wait(0)
        now_s[0] = 300
        g2.connect()
        await it.arrived()
        await until(lambda: it.rig.pipeline.readers["r2"].link is Link.UP)
        await it.see(card, "shoes", 60)
        await it.out()
    rows = gateway.rows("SELECT enter_us, exit_us, censored FROM visit WHERE zone = 'shoes' ORDER BY enter_us")
    for (_, exit_us, _), (enter_us, _, _) in pairwise(rows):
        assert exit_us <= enter_us
    # Five minutes of the quarter are unknown; nothing is of the door, whose reader is the service's own.
    assert coverage(gateway, "shoes") < coverage(gateway, "door") - 0.3


async def test_a_forwarder_that_was_killed_goes_on_where_it_was(gateway: Gateway, clock: HandClock) -> None:
    async with shop_with(gateway, clock, "one") as it:
        await it.up()
        card, g2 = member_card(1), it.forwarders[0]
        await it.see(card, "shoes", 30)
        await g2.cut()
        await until(lambda: it.rig.pipeline.readers["r2"].link is Link.DOWN)
        await it.see(card, "shoes", 30, arrive=False)
        # kill -9: what is in the spool stays, and half a record at its end.
        g2.spool.close()
        with g2.spool.files[-1].path.open("ab") as file:
            file.write(b"\0\0\1\0torn")
        clock.time[0] += 5 * SECOND_US
        again = HandForwarder(it.rig.pipeline.shop, "g2", gateway.folder / "g2", clock)
        it.forwarders[0] = again
        it.of = dict.fromkeys(("r2", "r3", "r4"), again)
        again.connect()
        again.up()
        await it.arrived()
        await it.see(card, "shoes", 30)
        await it.see(card, "out", 20)
        await it.out()
        counters = it.rig.pipeline.engine.counters
        assert counters["late"] == 0
        assert it.rig.pipeline.reads_of["r2"] == 3 * 30 * 4
    assert gateway.rows("SELECT sum(reads) FROM visit") == [((3 * 30 + 20) * 4,)]
    assert coverage(gateway, "shoes") < coverage(gateway, "door")  # the five seconds


@pytest.mark.parametrize("graceful", [True, False])
async def test_a_service_that_starts_again_has_every_read_once(
    gateway: Gateway, clock: HandClock, tmp_path: Path, graceful: bool
) -> None:
    card = member_card(1)
    first = shop_with(gateway, clock, "one")
    saved = tmp_path / "saved"
    saved.mkdir()
    async with first as it:
        await it.up()
        await it.see(card, "shoes", 60)
        await it.rig.until(lambda: it.rig.pipeline.forwarded.committed.get("g2"))
        if not graceful:
            [(at,)] = gateway.rows("SELECT count(*) FROM checkpoint")
            assert at == 1
            for file in (*gateway.folder.glob("store.db*"),):
                if file.is_file():
                    shutil.copy(file, saved / file.name)
            kept = {file.path.name: file.path.read_bytes() for file in it.forwarders[0].spool.files}
        await it.see(card, "shoes", 60)
    if not graceful:
        for file in saved.iterdir():
            shutil.copy(file, gateway.folder / file.name)
        for name, content in kept.items():  # nothing after the copy was acknowledged
            path = gateway.folder / "g2" / name
            if not path.exists():
                path.write_bytes(content)
    async with shop_with(gateway, clock, "one", first.shop) as it:
        g2 = it.forwarders[0]
        g2.connect()
        g2.up()
        await it.arrived()
        await it.see(card, "shoes", 60)
        await it.see(card, "out", 20)
        await it.out()
    assert gateway.rows("SELECT sum(reads) FROM visit") == [((3 * 60 + 20) * 4,)]


@pytest.mark.parametrize("ahead_s", [3600, -3600, 5])
async def test_a_clock_apart_is_unknown_and_never_a_visit(gateway: Gateway, clock: HandClock, ahead_s: int) -> None:
    async with shop_with(gateway, clock, "one") as it:
        g2 = it.forwarders[0]
        await it.up()
        card = member_card(1)
        g2.ahead_us = ahead_s * SECOND_US
        await it.see(card, "shoes", 60)
        await until(lambda: "the clock of g2 is" in it.rig.pipeline.readers["r2"].reason)
        assert it.receiver is not None
        assert it.receiver.told()[0]["left_out"] == 240
        await it.see(card, "door", 30)
        assert it.rig.pipeline.reads_of["r2"] == 0
        g2.ahead_us = 0
        await it.see(card, "shoes", 60)
        await until(lambda: it.rig.pipeline.readers["r2"].link is Link.UP)
        await it.out()
    rows = gateway.rows("SELECT zone, enter_us, exit_us FROM visit ORDER BY enter_us")
    assert [zone for zone, *_ in rows] == ["door", "shoes"]
    assert all(T0 + 55 * SECOND_US < enter_us < exit_us < T0 + 160 * SECOND_US for _, enter_us, exit_us in rows)


async def test_a_forwarder_that_does_not_know_the_time_is_unknown(gateway: Gateway, clock: HandClock) -> None:
    async with shop_with(gateway, clock, "one") as it:
        await it.up()
        it.forwarders[0].trusted = False
        await it.see(member_card(1), "shoes", 5)
        await until(lambda: it.rig.pipeline.readers["r3"].reason == "g2 does not know the time")
        assert it.rig.pipeline.reads_of["r2"] == 0


async def test_contacts_and_notices_come_through(gateway: Gateway, clock: HandClock) -> None:
    doors = [READERS[0], READERS[1] | {"inputs": [{"port": 1, "zone": "door"}]}, *READERS[2:]]
    shop = shop_of(gateway, **several(gateway, doors, PLANS["two"]))
    async with shop_with(gateway, clock, "two", shop) as it:
        await it.up()
        g2 = it.forwarders[0]
        g2.gathering.contact(Contact("r2", 1, clock.now_us(), True))
        g2.gathering.notice(Notice("r2", clock.now_us(), "the fan is loud"))
        await it.arrived()
        await it.rig.until(lambda: it.rig.pipeline.doors.passages("r2") == {1: 1})
        await it.rig.until(lambda: any("the fan" in str(row) for row in gateway.rows("SELECT payload FROM outbox")))


async def garbage(port: int, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        async with asyncio.timeout(20):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_nobody_else_can_send_reads(gateway: Gateway, clock: HandClock, monkeypatch: pytest.MonkeyPatch) -> None:
    async with shop_with(gateway, clock, "one") as it:
        await it.up()
        address = it.rig.pipeline.shop.config.forwarding.address
        port = int(address.rpartition(":")[2])
        monkeypatch.setattr(wire, "GREETING_S", 1.0)
        hello = wire.framed(wire.Hello(wire.VERSION, "forwarder", "g2", 0, b"n" * 32, b"p" * 32))
        answers = await asyncio.gather(
            garbage(port, b"GET / HTTP/1.1\r\n\r\n"),
            garbage(port, os.urandom(5000)),
            garbage(port, b"\xff" * 8),
            garbage(port, b"\0\0\0\5\0\0\0\0hello"),
            garbage(port, hello),
            garbage(port, b""),
            *(garbage(port, b"") for _ in range(60)),
        )
        assert b"no such forwarder" in answers[4]
        assert it.receiver is not None
        assert it.receiver.told()[0]["link"] == "up"
        await it.see(member_card(1), "shoes", 5)
        await until(lambda: it.rig.pipeline.reads_of["r2"] == 20)


async def test_a_forwarder_with_another_token_is_refused_and_said_so(gateway: Gateway, clock: HandClock) -> None:
    async with shop_with(gateway, clock, "one") as it:
        g2 = it.forwarders[0]
        g2.sender._callers[0] = replace(g2.sender._callers[0], token=TOKEN[::-1])
        g2.connect()
        await until(lambda: "its token is another one" in g2.sender.reason)
        assert it.receiver is not None
        assert it.receiver.told()[0]["reason"] == "a caller of this name has another token"


async def test_a_forwarder_speaks_for_its_own_readers_only(gateway: Gateway, clock: HandClock) -> None:
    async with shop_with(gateway, clock, "two") as it:
        await it.up()
        g2 = it.forwarders[0]
        g2.gathering.reads_of["r3"] = 0
        await g2.see("r3", reads_of(member_card(1), 1, [clock.now_us()]))
        g2.gathering._keep()
        await it.arrived()
        assert it.rig.pipeline.reads_of["r3"] == 0
        assert it.receiver is not None
        assert it.receiver.told()[0]["foreign"] == ["r3"]
