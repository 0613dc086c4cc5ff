"""A takeover with forwarders on a clock that the test moves: the visits are as if there had been one service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forwarding import HandForwarder, reads_of, several, until
from gateways import Gateway, antennas, member_card
from pairs import SECOND, Active, Standby, at, elsewhere, pair_of, serving
from rigs import BAGS, OUT, SHOES, T0, HandClock, running, shop_of

from drivers.session import Link, ReaderStatus
from edge.forwarding import sender
from edge.standby import roles
from edge.standby.takeover import Plan
from edge.store.errors import Superseded, Trouble

SECOND_US = 1_000_000
READERS = [
    {"id": "r1", "driver": "llrp", "address": "r1", "antennas": antennas("door")},
    {"id": "r2", "driver": "llrp", "address": "r2", "antennas": [{**antennas("door", "shoes")[1], "port": 3}]},
    {"id": "r3", "driver": "llrp", "address": "r3", "antennas": antennas("bags", "out")},
]
PLACES = {"door": ("r1", 1), "shoes": ("r2", 3), "bags": ("r3", 1), "out": ("r3", 2)}
VIA = {"r1": "g1", "r2": "g2", "r3": "g3"}
VISITS = "SELECT zone, enter_us, exit_us, reads, tag_class, censored FROM visit ORDER BY enter_us, zone, reads"
JOURNEYS = "SELECT start_us, end_us, tag_class, censored, path FROM journey ORDER BY start_us, end_us"


class Store:
    """Forwarders of a store, and whichever of its two gateways runs the service."""

    def __init__(self, folder: Path) -> None:
        for name in ("a", "b"):
            (folder / name).mkdir()
        self.gateway, self.clock = gateway, clock = Gateway(folder / "a"), HandClock(time=[T0])
        self.shop = shop = shop_of(gateway, **(several(gateway, READERS, VIA) | pair_of(gateway)))
        self.config = elsewhere(shop.config, folder / "b")
        """Of the second gateway."""
        self.standby = Standby(self.config, clock)
        self.forwarders = [
            HandForwarder(shop, one.id, gateway.folder / one.id, clock) for one in shop.config.forwarders
        ]
        self.of = {reader: each for each in self.forwarders for reader in each.readers}
        self.active: Active | None = None

    @asynccontextmanager
    async def first(self) -> AsyncIterator[Active]:
        """The first gateway serves, with all readers up and everything on the second."""
        async with serving(self.shop, self.clock) as self.active:
            for each in self.forwarders:
                each.connect()
                each.up()
            self.standby.connect()
            await self.active.protected()
            await self.all_up()
            yield self.active

    @asynccontextmanager
    async def second(self, clock: HandClock | None = None) -> AsyncIterator[Active]:
        """The second gateway, which has taken over, serves."""
        async with serving(at(self.shop, self.config), clock or self.clock, SECOND) as self.active:
            await self.arrived()
            yield self.active

    async def see(self, card: bytes, place: str, seconds: int, *, arrive: bool = True) -> None:
        reader, port = PLACES[place]
        for start in range(0, seconds, 5):
            times = self.clock.now_us() + 250_000 * np.arange(4 * min(5, seconds - start))
            await self.of[reader].see(reader, reads_of(card, port, times))
            if arrive:
                await self.arrived()
            self.clock.time[0] += min(5, seconds - start) * SECOND_US

    async def arrived(self) -> None:
        active = self.active
        assert active is not None
        for each in self.forwarders:
            relay = active.receiver._known[each.id].relay
            await until(lambda each=each, relay=relay: relay.taken == (each.spool.life, each.spool.seq))
        await until(lambda: not active.rig.inbox._items)

    async def out(self) -> None:
        assert self.active is not None
        for _ in range(20):
            for each in self.forwarders:
                each.gathering.alive()
                each.gathering.alive()
            await self.arrived()
            await self.active.rig.wait(120)
        await self.active.rig.until(lambda: not len(self.active.rig.pipeline.engine.open_visits()))

    async def all_up(self) -> None:
        await until(lambda: all(s.link is Link.UP for s in self.active.rig.pipeline.readers.values()))

    async def end(self) -> None:
        for each in self.forwarders:
            await each.end()
        await self.standby.end()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    made = Store(tmp_path)
    yield made
    await made.end()


async def direct(folder: Path) -> tuple[list[Any], list[Any]]:
    """What one service without other gateways makes of the same walk."""
    folder.mkdir()
    gateway, clock = Gateway(folder), HandClock(time=[T0])
    shop = shop_of(gateway, readers=READERS)
    async with running(shop, clock) as rig:
        antenna = {"door": 0, "shoes": 1, "bags": 2, "out": 3}
        for reader in ("r2", "r3"):
            rig.inbox.status(ReaderStatus(reader, Link.UP, "taking inventory", clock.now_us()))

        async def see(card: bytes, place: str, seconds: int) -> None:
            for start in range(0, seconds, 5):
                times = clock.now_us() + 250_000 * np.arange(4 * min(5, seconds - start))
                await rig.inbox.reads(PLACES[place][0], reads_of(card, antenna[place], times))
                clock.time[0] += min(5, seconds - start) * SECOND_US

        for place, seconds in WALK:
            await see(member_card(1), place, seconds)
            await rig.wait(0)
        for _ in range(20):
            await rig.wait(120)
        await rig.until(lambda: not len(rig.pipeline.engine.open_visits()))
    return gateway.rows(VISITS), gateway.rows(JOURNEYS)


WALK = (("door", 10), ("shoes", 70), ("bags", 140), ("out", 20))


async def test_visits_go_on_through_a_takeover_as_if_there_was_one_service(store: Store, tmp_path: Path) -> None:
    card = member_card(1)
    async with store.first() as first:
        await store.see(card, "door", 10)
        await store.see(card, "shoes", 70)
        await store.see(card, "bags", 60)
        # The service is gone in the middle of a visit, as by a power cut: nothing it says from now on counts.
        await store.standby.cut()
        await store.standby.following.stop()
    await store.see(card, "bags", 30, arrive=False)
    term = await store.standby.take_over(exact=True)
    assert term > first.pairing.term
    async with store.second():
        await store.all_up()
        assert {each.spool.term for each in store.forwarders} == {term}
        await store.see(card, "bags", 50)
        await store.see(card, "out", 20)
        await store.out()
    second = Gateway(tmp_path / "b")
    assert (second.rows(VISITS), second.rows(JOURNEYS)) == await direct(tmp_path / "c")
    with pytest.raises(Trouble, match="has taken over already"):
        await Plan.of(store.config, SECOND)


async def test_the_former_service_becomes_the_standby_and_what_it_had_alone_is_kept(
    store: Store, tmp_path: Path
) -> None:
    gateway, card = store.gateway, member_card(1)
    async with store.first() as first:
        await store.see(card, "door", 20)
        # The network between the two is cut: the service goes on alone, and the other one takes over.
        await store.standby.cut()
        await until(lambda: not first.shipping.protected)
        await store.see(card, "shoes", 60)
        await store.out()
        alone = gateway.rows("SELECT count(*) FROM visit")[0][0]
        assert alone >= 2
        term = await store.standby.take_over(exact=False)
        async with serving(at(store.shop, store.config), store.clock, SECOND) as other:
            # Healed: each hears of the other. The one with the lower term is told, and stops.
            await other.pairing._look()
            await until(lambda: first.superseded)
            assert first.superseded[0][0] == term
            assert not other.superseded
            roles.fence(gateway.database, *first.superseded[0])
    # Only forwarders and the former service are left; it is made the standby.
    with pytest.raises(Superseded, match="has taken over the store's service"):
        roles.refuse(gateway.database, first.pairing.term)
    former = Standby(store.shop.config, store.clock, None)
    try:
        async with store.second() as second:
            former.connect()
            await second.protected()
            assert former.left["visits"] == alone
            assert not gateway.database.exists()
            kept = Gateway(tmp_path / "a")
            kept.database = gateway.database.with_name("store.db.replaced")
            assert kept.rows("SELECT count(*) FROM visit") == [(alone,)]
            assert roles.fenced(gateway.database) is None
            with pytest.raises(Superseded, match="this gateway is the standby"):
                roles.refuse_copy(gateway.database)
            # Forwarders no longer listen to the former one.
            assert all(each.spool.term == term for each in store.forwarders)
            assert await second.rig.query("SELECT count(*) FROM lost") == [(4,)]
    finally:
        await former.end()


async def test_forwarders_leave_a_service_that_does_not_know_that_it_was_taken_over_from(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cut off from everybody else, and its lease has ended: it acknowledges nothing."""
    monkeypatch.setattr(sender, "LOOK_S", 0.1)
    card = member_card(1)
    async with store.first() as first:
        await store.see(card, "door", 20)
        await store.standby.cut()
        first.shipping.stop()
        term = await store.standby.take_over(exact=True)
        await store.see(card, "shoes", 10, arrive=False)
        async with store.second():  # until everything has arrived there
            await store.all_up()
            assert {each.spool.term for each in store.forwarders} == {term}
            assert first.superseded[0][0] == term, "they have told it"


@pytest.mark.parametrize("ahead_s", [3600, -3600])
async def test_with_clocks_an_hour_apart_zones_are_unknown_and_nothing_is_twice(
    store: Store, tmp_path: Path, ahead_s: int
) -> None:
    card = member_card(1)
    async with store.first():
        await store.see(card, "shoes", 70)
        await store.standby.cut()
    await store.standby.take_over(exact=True)
    async with store.second(HandClock(time=[store.clock.time[0] + ahead_s * SECOND_US])) as active:
        await store.see(card, "shoes", 60)
        off = "behind that" if ahead_s > 0 else "ahead of that"
        await until(lambda: f"{off} of the service" in active.rig.pipeline.readers["r2"].reason)
        await store.arrived()
        told = {one["id"]: one for one in active.receiver.told()}
        assert told["g2"]["left_out"] >= 4 * 60
        assert not active.rig.pipeline.covered() & {SHOES, BAGS, OUT}  # a rig has the door's reader up
    second = Gateway(tmp_path / "b")
    rows = second.rows("SELECT enter_us, exit_us, reads FROM visit ORDER BY enter_us")
    assert sum(reads for *_, reads in rows) <= 4 * 70
    for (_, exit_us, _), (enter_us, _, _) in pairwise(rows):
        assert exit_us <= enter_us
