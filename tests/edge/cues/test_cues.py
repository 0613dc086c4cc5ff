"""Cues: made once a journey, with the recognition or after too long a wait; ended by people, badges or time."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import numpy as np
import pytest
from erasing import erase
from gateways import Gateway, member_card
from hypothesis import given
from hypothesis import strategies as st
from rigs import BAGS, DOOR, SHOES, HandClock, Rig, running, shop_of

from config.cues import is_quiet, pick
from config.model import Cues, ZoneKind
from drivers.read import READ, epc_words
from edge.crm.directory_csv import import_csv
from edge.cues import book
from edge.cues.book import Refused
from edge.cues.waits import NEVER, p95, waited

BADGE = b"\x2e" + bytes(11)
RULES: dict[str, Any] = {
    "rules": [
        {"id": "vip", "kind": "arrival", "tiers": ["gold"], "expires_s": 120, "action": {"zh": "迎接", "en": "Greet"}},
        {"id": "alone", "kind": "waiting", "tiers": ["gold"], "wait_s": 60, "expires_s": 300},
    ]
}
MINUTE = 60_000_000


def shop_with(gateway: Gateway, cues: dict[str, Any] = RULES, tier: str = "gold", **parts: Any) -> Any:
    shop = shop_of(gateway, cues=cues, **parts)
    file = gateway.folder / "members.csv"
    rows = "".join(f"{member_card(n).hex()},M{n},{tier},1,\n" for n in (1, 2))
    file.write_text(f"epc,member,tier,consent,hint\n{rows}")
    import_csv(shop.config, file)
    return shop


async def cues(rig: Rig) -> list[Any]:
    return await rig.query("SELECT kind, zone, state FROM cue ORDER BY id")


async def told(rig: Rig) -> list[dict[str, Any]]:
    rows = await rig.query("SELECT payload FROM outbox WHERE class = 0 ORDER BY seq")
    return [json.loads(payload) for (payload,) in rows]


async def test_an_arrival_is_a_cue_once_a_journey_and_its_end_is_told(gateway: Gateway, clock: HandClock) -> None:
    async with running(shop_with(gateway), clock) as rig:
        await rig.see(member_card(1), DOOR, 10)
        await rig.see(member_card(1), SHOES, 20)
        assert await cues(rig) == [("arrival", "door", "open")]
        recognised, cue = await told(rig)
        assert (recognised["type"], cue["type"], cue["rule"], cue["rules_version"]) == ("recognised", "cue", "vip", 1)
        assert cue["action"] == {"zh": "迎接", "en": "Greet"}
        assert cue["expires_us"] - cue["due_us"] == 2 * MINUTE
        id_ = rig.pipeline.desk.going[0].id
        now = clock.now_us()
        await rig.pipeline.order(lambda conn: book.acknowledge(conn, id_, "li", MINUTE, now))
        await rig.pipeline.order(lambda conn: book.done(conn, id_, "li", now))
        with pytest.raises(Refused, match="gone"):
            await rig.pipeline.order(lambda conn: book.done(conn, id_, "li", now))
        outcomes = (await told(rig))[2:]
        assert [(o["outcome"], o["cue"], o["member"]) for o in outcomes] == [
            ("acknowledged", cue["id"], "M1"),
            ("done", cue["id"], "M1"),
        ]
        assert rig.pipeline.desk.going == ()
        await rig.until(lambda: not rig.pipeline.desk.untold_ms)
    assert gateway.rows("SELECT who, latency_ms IS NOT NULL FROM cue") == [("li", 1)]
    assert gateway.rows("SELECT value FROM fact WHERE name = 'recognised'") == [("1",)]


async def test_a_wait_without_staff_is_a_cue_and_then_a_case(gateway: Gateway, clock: HandClock) -> None:
    async with running(shop_with(gateway), clock) as rig:
        await rig.see(member_card(1), SHOES, 50)
        assert await cues(rig) == [("arrival", "shoes", "open")]
        await rig.see(member_card(1), SHOES, 20)
        await rig.until(lambda: len(rig.pipeline.desk.going) == 2)
        for _ in range(3):
            await rig.see(member_card(1), SHOES, 120)
        await rig.until(lambda: not rig.pipeline.desk.going)
        assert await cues(rig) == [("arrival", "shoes", "expired"), ("waiting", "shoes", "expired")]
        waited_s = await rig.query("SELECT (due_us - since_us) / 1e6 FROM cue WHERE kind = 'waiting'")
        assert waited_s == [(60.0,)]
        cases = await rig.query("SELECT kind, zone, tier, state FROM service_case ORDER BY id")
        assert sorted(cases) == [("arrival", "shoes", "gold", "open"), ("waiting", "shoes", "gold", "open")]
        outcomes = [event["outcome"] for event in await told(rig) if event["type"] == "cue_outcome"]
        assert outcomes == ["expired", "expired"]


async def test_a_badge_that_stays_attends_and_nobody_is_called(gateway: Gateway, clock: HandClock) -> None:
    async with running(shop_with(gateway), clock) as rig:
        await rig.see(BADGE, SHOES, 10)
        for _ in range(4):
            await rig.see(member_card(1), SHOES, 20)
            await rig.see(BADGE, SHOES, 5)
        await rig.until(lambda: not rig.pipeline.desk.going)
        assert await cues(rig) == [("arrival", "shoes", "attended")]
        assert (await told(rig))[-1]["outcome"] == "attended"
        assert await rig.query("SELECT count(*) FROM service_case") == [(0,)]


@pytest.mark.parametrize("why", ["tier", "quiet", "no rules"])
async def test_nobody_is_called_without_a_rule_that_says_so(gateway: Gateway, clock: HandClock, why: str) -> None:
    all_day = {"quiet": [{"begin": "00:00", "end": "12:00"}, {"begin": "12:00", "end": "00:00"}]}
    rules = {"tier": RULES, "quiet": RULES | all_day, "no rules": {}}[why]
    async with running(shop_with(gateway, rules, "silver" if why == "tier" else "gold"), clock) as rig:
        await rig.see(member_card(1), SHOES, 90)
        assert await cues(rig) == []
        assert [event["type"] for event in await told(rig)] == ["recognised"]


async def test_what_was_read_long_ago_is_history(gateway: Gateway, clock: HandClock) -> None:
    """A reader that kept its reads through an outage hands them over."""
    async with running(shop_with(gateway), clock) as rig:
        reads = np.zeros(4, READ)
        reads["time_us"], reads["epc"], reads["antenna"] = clock.now_us(), epc_words(member_card(1)), DOOR
        reads["count"], reads["epc_bits"] = 1, 96
        clock.time[0] += 3 * MINUTE
        await rig.inbox.reads("r1", reads)
        await rig.until(lambda: rig.pipeline.recognitions)
        assert await cues(rig) == []


async def test_snoozed_comes_back_and_lives_longer(gateway: Gateway, clock: HandClock) -> None:
    async with running(shop_with(gateway), clock) as rig:
        await rig.see(member_card(1), DOOR, 5)
        (cue,) = rig.pipeline.desk.going
        now = clock.now_us()
        await rig.pipeline.order(lambda conn: book.snooze(conn, cue.id, "li", 3 * MINUTE, now))
        assert rig.pipeline.desk.going[0].state == "snoozed"
        await rig.wait(185)
        await rig.until(lambda: rig.pipeline.desk.going and rig.pipeline.desk.going[0].state == "open")
        assert rig.pipeline.desk.going[0].expires_us == cue.expires_us + 3 * MINUTE
        await rig.wait(300)
        await rig.until(lambda: not rig.pipeline.desk.going)
    assert gateway.rows("SELECT state FROM cue") == [("expired",)]


async def test_a_restart_repeats_no_cue_and_forgets_none(gateway: Gateway, clock: HandClock) -> None:
    shop = shop_with(gateway)
    async with running(shop, clock) as rig:
        await rig.see(member_card(1), SHOES, 75)
        await rig.until(lambda: len(rig.pipeline.desk.going) == 2)
    async with running(shop, clock) as rig:
        assert [cue.kind for cue in rig.pipeline.desk.going] == ["arrival", "waiting"]
        await rig.see(member_card(1), SHOES, 60)
        await rig.see(member_card(1), BAGS, 90)
        assert [kind for kind, *_ in await cues(rig)] == ["arrival", "waiting"]
        assert rig.pipeline.desk.told({}, clock.now_us())["took_ms"]["arrival"]["n"] == 1


async def test_who_takes_consent_back_or_is_erased_is_no_cue_any_more(gateway: Gateway, clock: HandClock) -> None:
    shop = shop_with(gateway)
    async with running(shop, clock) as rig:
        await rig.see(member_card(1), DOOR, 5)
        await rig.see(member_card(2), DOOR, 5)
        await rig.database.write(lambda conn: conn.execute("UPDATE directory SET consent = 0 WHERE member = 'M1'"))
        await rig.pipeline.recheck()
        assert [cue.member for cue in rig.pipeline.desk.going] == ["M2"]
        assert (await erase(rig.database, shop.config, "M2", rig.pipeline.recheck))["cues"] == 1
        assert rig.pipeline.desk.going == ()
        assert await rig.query("SELECT count(*) FROM cue") == [(0,)]


async def test_the_last_change_of_rules_holds_wherever_it_was_made(gateway: Gateway, clock: HandClock) -> None:
    async with running(shop_with(gateway), clock) as rig:
        other = Cues.model_validate(RULES | {"rules": RULES["rules"][:1]})
        await rig.pipeline.order(lambda conn: book.change(conn, other, 1, "li", "no waits", clock.now_us()))
        with pytest.raises(Refused, match="stale"):
            await rig.pipeline.order(lambda conn: book.change(conn, other, 1, "wu", "", clock.now_us()))
        assert (rig.pipeline.desk.rules.version, rig.pipeline.desk.rules.cues) == (2, other)
        await rig.see(member_card(1), SHOES, 90)
        assert await cues(rig) == [("arrival", "shoes", "open")]
    async with running(shop_with(gateway), clock) as rig:  # the file is as it was: the page's rules stay
        assert (rig.pipeline.desk.rules.version, rig.pipeline.desk.rules.who) == (2, "li")
    changed = RULES | {"quiet": [{"begin": "22:00", "end": "09:00"}]}
    async with running(shop_with(gateway, changed), clock) as rig:
        assert (rig.pipeline.desk.rules.version, rig.pipeline.desk.rules.who) == (3, "")
        assert len(rig.pipeline.desk.rules.cues.quiet) == 1


# Waiting, by itself.


@pytest.mark.parametrize(
    ("staff", "due"),
    [
        ([], 100),
        ([(10, 40)], None),  # a contact
        ([(10, 20)], 100),  # walked by
        ([(95, 105)], 105),  # near when the target passed, left again
        ([(95, 105), (104, 112)], 112),
        ([(95, 200)], None),  # near, and stayed
        ([(95, NEVER)], None),
        ([(120, NEVER)], 100),  # came too late
        ([(-50, 5)], 100),  # of before the visit
        ([(-50, 16)], None),
    ],
)
def test_when_a_wait_was_too_long(staff: list[tuple[int, int]], due: int | None) -> None:
    assert waited(0, 1000, staff, 100, 15) == due
    assert waited(0, 99, staff, 100, 15) is None


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), max_size=6), st.integers(1, 40))
def test_waits_by_brute_force(stays: list[tuple[int, int]], wait: int) -> None:
    """Second by second: too long when the target is over, nobody is near and nobody has been long enough."""
    staff = [(begin, begin + length) for begin, length in stays]
    expected = None
    for now in range(200):
        if any(begin <= max(now, 0) and end - begin >= 10 and (begin <= now) for begin, end in staff):
            break
        if now >= wait and not any(begin <= now < end for begin, end in staff):
            expected = now
            break
    found = waited(0, 199, staff, wait, 10)
    assert (found is None) == (expected is None)
    if found is not None:
        assert found == expected


def test_the_first_rule_that_fits_holds() -> None:
    rules = Cues.model_validate(
        {
            "rules": [
                {"id": "a", "kind": "waiting", "tiers": ["A"], "zones": ["shoes"], "wait_s": 30},
                {"id": "b", "kind": "waiting", "wait_s": 90},
                {"id": "c", "kind": "arrival", "tiers": ["A"], "zones": ["door"]},
            ]
        }
    )

    def which(kind: Any, tier: str, zone: str, of: ZoneKind) -> str | None:
        rule = pick(rules, kind, tier, zone, of)
        return rule.id if rule else None

    assert which("waiting", "A", "shoes", ZoneKind.COUNTER) == "a"
    assert which("waiting", "B", "shoes", ZoneKind.COUNTER) == "b"
    assert which("waiting", "A", "hall", ZoneKind.AISLE) is None
    assert which("arrival", "A", "door", ZoneKind.ENTRANCE) == "c"
    assert which("arrival", "A", "back", ZoneKind.ENTRANCE) is None


@pytest.mark.parametrize(("at", "quiet"), [("21:59", False), ("22:00", True), ("03:00", True), ("09:30", False)])
def test_quiet_hours_go_over_midnight(at: str, quiet: bool) -> None:
    rules = Cues.model_validate({"quiet": [{"begin": "22:00", "end": "09:30"}]})
    assert is_quiet(rules, dt.time.fromisoformat(at)) is quiet


def test_p95_is_a_value_that_was_seen() -> None:
    assert p95([]) is None
    assert p95([3.0]) == 3.0
    assert p95(range(1, 101)) == 95
