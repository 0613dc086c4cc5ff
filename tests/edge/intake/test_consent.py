"""Whose journeys go to the CRM, and what becomes of one in the middle of which consent is given or taken back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from erasing import erase
from gateways import Gateway, member_card
from rigs import BAGS, DOOR, OUT, SHOES, HandClock, Rig, running, shop_of

from edge.crm.directory_csv import import_csv
from edge.store.compose import Shop

CARD = member_card(1)


def give(gateway: Gateway, shop: Shop, *, member: str = "M1", consent: int = 1) -> None:
    file = gateway.folder / "members.csv"
    file.write_text(f"epc,member,tier,consent,hint\n{CARD.hex()},{member},gold,{consent},\n")
    import_csv(shop.config, file)


async def closed(rig: Rig, visits: int) -> None:
    await rig.until(lambda: len(rig.database.write_now(visits_of)) >= visits)


Rows = list[tuple[Any, ...]]


def visits_of(conn: sqlite3.Connection) -> Rows:
    return conn.execute("SELECT tag, member, zone, journey_us, enter_us FROM visit ORDER BY enter_us").fetchall()


def journeys_of(conn: sqlite3.Connection) -> Rows:
    return conn.execute("SELECT tag, member, start_us, path FROM journey").fetchall()


async def finish(rig: Rig) -> tuple[Rows, Rows, list[dict[str, Any]]]:
    """Visits, journeys and events of journeys once all is over."""
    await rig.see(CARD, OUT, 20)
    await rig.wait(40 * 60)
    await rig.until(lambda: not len(rig.pipeline.engine.tags_under_way()))
    await rig.until(lambda: not rig.pipeline._ledger._decisions)
    events = await rig.query("SELECT payload FROM outbox WHERE class = 1")
    visits, journeys = await rig.database.read(lambda conn: (visits_of(conn), journeys_of(conn)))
    return visits, journeys, [json.loads(payload) for (payload,) in events]


def cannot_be_joined(named: Rows, rest: Rows, journeys: Rows) -> None:
    """By no tag, by no start of a journey, and by no path that holds stays of both."""
    assert named
    assert rest
    assert not {visit[0] for visit in named} & {visit[0] for visit in rest}
    assert not {visit[3] for visit in named} & {visit[3] for visit in rest}
    assert min(visit[3] for visit in rest) > min(visit[4] for visit in named) or max(visit[4] for visit in rest) < min(
        visit[4] for visit in named
    )
    for _, _, _, path in journeys:
        enters = {stay[1] for stay in json.loads(path)}
        assert not (enters & {visit[4] for visit in named} and enters & {visit[4] for visit in rest})


async def withdraw(rig: Rig, gateway: Gateway) -> None:
    give(gateway, rig.pipeline.shop, consent=0)
    await rig.pipeline.recheck()


async def leave(rig: Rig, gateway: Gateway) -> None:
    def job(conn: sqlite3.Connection) -> int:
        return conn.execute("DELETE FROM directory").rowcount

    await rig.database.write(job)
    await rig.pipeline.recheck()


async def run_out(rig: Rig, gateway: Gateway) -> None:
    """The directory's time is over."""
    await rig.database.write(lambda conn: conn.execute("UPDATE directory_state SET expired = 1").rowcount)
    await rig.pipeline.recheck()


Change = Callable[[Rig, Gateway], object]


@pytest.mark.parametrize("change", [withdraw, leave, run_out])
@pytest.mark.parametrize("restart", [False, True])
async def test_what_follows_a_withdrawal_cannot_be_joined_to_what_was_before(
    gateway: Gateway, clock: HandClock, change: Change, restart: bool
) -> None:
    shop = shop_of(gateway)
    give(gateway, shop)
    async with running(shop, clock) as rig:
        await rig.see(CARD, DOOR, 30)
        await rig.see(CARD, SHOES, 90)
        await rig.see(CARD, BAGS, 60)
        await closed(rig, 2)
        await change(rig, gateway)
        assert not rig.pipeline.recognitions
        if not restart:
            await rig.see(CARD, SHOES, 90)
            visits, journeys, events = await finish(rig)
    if restart:
        async with running(shop, clock) as rig:
            await rig.see(CARD, SHOES, 90)
            visits, journeys, events = await finish(rig)
    named, rest = [v for v in visits if v[1]], [v for v in visits if not v[1]]
    assert {v[2] for v in named} >= {"door", "shoes"}
    assert {v[2] for v in rest} >= {"shoes", "out"}
    cannot_be_joined(named, rest, journeys)
    assert len({v[3] for v in rest}) == 1, "what follows is one journey"
    assert events == []
    assert gateway.rows("SELECT count(*) FROM recognised WHERE member <> ''") == [(0,)]


async def test_a_withdrawal_after_the_last_visit_leaves_no_journey_by_name(gateway: Gateway, clock: HandClock) -> None:
    shop = shop_of(gateway)
    give(gateway, shop)
    async with running(shop, clock) as rig:
        await rig.see(CARD, SHOES, 90)
        await rig.see(CARD, OUT, 20)
        await rig.wait(6 * 60)  # gone, and the journey goes on for who comes back
        await closed(rig, 2)
        await withdraw(rig, gateway)
        await rig.wait(40 * 60)
        await rig.until(lambda: not len(rig.pipeline.engine.tags_under_way()))
        await rig.until(lambda: not rig.pipeline._ledger._decisions)
        assert await rig.database.read(journeys_of) == []
        assert await rig.query("SELECT * FROM outbox WHERE class = 1") == []


@pytest.mark.parametrize("restart", [False, True])
async def test_consent_that_is_given_meanwhile_names_nothing_of_before(
    gateway: Gateway, clock: HandClock, restart: bool
) -> None:
    shop = shop_of(gateway)
    give(gateway, shop, consent=0)
    async with running(shop, clock) as rig:
        await rig.see(CARD, DOOR, 30)
        await rig.see(CARD, SHOES, 90)
        await rig.see(CARD, BAGS, 60)
        await closed(rig, 2)
        give(gateway, shop)
        await rig.pipeline.recheck()
        if not restart:
            await rig.see(CARD, SHOES, 90)
            visits, journeys, events = await finish(rig)
    if restart:
        async with running(shop, clock) as rig:
            await rig.see(CARD, SHOES, 90)
            visits, journeys, events = await finish(rig)
    named, before = [v for v in visits if v[1]], [v for v in visits if not v[1]]
    cannot_be_joined(named, before, journeys)
    (event,) = events
    assert event["member"] == "M1"
    assert event["start_us"] == min(v[4] for v in named) == min(stop["enter_us"] for stop in event["stops"])


async def test_a_card_that_becomes_somebody_elses_begins_anew(gateway: Gateway, clock: HandClock) -> None:
    shop = shop_of(gateway)
    give(gateway, shop)
    async with running(shop, clock) as rig:
        await rig.see(CARD, SHOES, 90)
        await rig.see(CARD, BAGS, 60)
        await closed(rig, 1)
        give(gateway, shop, member="M2")
        await rig.pipeline.recheck()
        await rig.see(CARD, SHOES, 90)
        visits, _, events = await finish(rig)
    first, second = ([v for v in visits if v[1] == who] for who in ("M1", "M2"))
    assert not {v[3] for v in first} & {v[3] for v in second}
    assert [(event["member"], event["start_us"]) for event in events] == [("M2", min(v[4] for v in second))]


async def test_an_erased_member_who_is_here_goes_on_as_somebody_else(gateway: Gateway, clock: HandClock) -> None:
    shop = shop_of(gateway)
    give(gateway, shop)
    async with running(shop, clock) as rig:
        await rig.see(CARD, DOOR, 30)
        await rig.see(CARD, SHOES, 90)
        await rig.see(CARD, BAGS, 60)
        await closed(rig, 2)
        before = {v[4] for v in await rig.database.read(visits_of)}
        await erase(rig.database, shop.config, "M1", rig.pipeline.recheck)
        await rig.see(CARD, SHOES, 90)
        visits, journeys, events = await finish(rig)
    assert {v[1] for v in visits} == {None}
    earlier, rest = [v for v in visits if v[4] in before], [v for v in visits if v[4] not in before]
    assert not {v[0] for v in earlier} & {v[0] for v in rest}
    assert not {v[3] for v in earlier} & {v[3] for v in rest}
    assert events == []
    assert not any(member for _, member, _, _ in journeys)


async def test_only_journeys_of_members_with_consent_go_to_the_crm(gateway: Gateway, clock: HandClock) -> None:
    shop = shop_of(
        gateway,
        tag_classes=[
            {"class": "member", "scheme": "gsrn-96", "company_prefix": "0614141"},
            {"class": "staff", "epc_prefix": "2E"},
            {"class": "cart", "epc_prefix": "33"},
        ],
    )
    give(gateway, shop)
    others = [
        member_card(2),
        *(bytes.fromhex(f"{prefix}14257BF4499602D2000000") for prefix in ("2E", "33", "E2")),
    ]
    async with running(shop, clock) as rig:
        for card in (CARD, *others):
            await rig.see(card, SHOES, 60)
            await rig.see(card, OUT, 20)
        visits, journeys, events = await finish(rig)
    assert len({tag for tag, *_ in visits}) == 5, "all are counted"
    assert [event["member"] for event in events] == ["M1"]
    assert sum(member is not None for _, member, _, _ in journeys) == 1
    windows = gateway.rows("SELECT DISTINCT json_extract(payload, '$.tag_class') FROM outbox WHERE class = 2")
    assert {tag_class for (tag_class,) in windows} >= {"member", "staff", "cart", "unknown"}, "and told as sums"
