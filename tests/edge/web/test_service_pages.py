"""Service on the page: cues answered by managers, cases, rules with their dry run, digests."""

from __future__ import annotations

import datetime as dt
import re
from urllib.parse import urlencode

import pytest
from floors import Floor
from pages import Page, cheap_passwords, config, fill, page, service
from shopdays import Day
from visitors import PASSWORD, Visitor, floor, manager

from config import StoreConfig
from edge.access.users import Role
from edge.cues.orders import give
from edge.store.live_socket import socket_path
from edge.store.live_state import State
from edge.web.pages.rules import rules_of

__all__ = ["cheap_passwords", "config", "floor", "manager", "page", "service"]


async def test_a_manager_answers_a_cue_and_the_outcome_is_told_once(manager: Visitor, floor: Floor, page: Page) -> None:
    text = await manager.get("/service")
    assert re.search(r'data-took="arrival">[^<]*<b>84 ms</b>', text)
    ids = [int(number) for number in re.findall(r'data-cue="(\d+)"', text)]
    assert len(ids) == 2
    assert await manager.post("/service/cue", act=f"{ids[0]} acknowledge 120") == (303, "/service?said=done", "")
    assert await manager.post("/service/cue", act=f"{ids[0]} acknowledge 120") == (303, "/service?said=gone", "")
    assert await manager.post("/service/cue", act=f"{ids[0]} done") == (303, "/service?said=done", "")
    assert await manager.post("/service/cue", act=f"{ids[0]} done") == (303, "/service?said=gone", "")
    assert await manager.post("/service/cue", act=f"{ids[1]} snooze 300") == (303, "/service?said=done", "")
    query = "SELECT json_extract(payload, '$.outcome') FROM outbox WHERE class = 0 AND payload LIKE '%cue_outcome%'"
    assert floor.rows(query) == [("acknowledged",), ("done",), ("snoozed",)]
    assert ("cue done", f"#{ids[0]}") in manager.audited()
    version = page.live.version
    while 'data-state="snoozed"' not in (text := await manager.get("/service?said=gone")):
        await page.live.wait(version, 5)
        version = page.live.version
    assert "someone else has already changed this" in text
    assert f'data-cue="{ids[0]}"' not in text


async def test_a_cue_is_answered_where_it_is_seen(manager: Visitor, floor: Floor) -> None:
    text = await manager.get("/")
    number = re.findall(r'data-cue="(\d+)"', text)[0]
    assert '<form id="act"' in text
    assert '<input type="hidden" name="back" value="/">' in text
    place = await manager.post("/service/cue", act=f"{number} acknowledge 120", back="/")
    assert place == (303, "/?said=done", "")
    assert 'data-said="done"' in await manager.get("/?said=done")
    for elsewhere in ("//elsewhere.example", "https://elsewhere.example/", "/audit", ""):
        place = await manager.post("/service/cue", act=f"{number} acknowledge 120", back=elsewhere)
        assert place == (303, "/service?said=gone", "")


async def test_an_answer_outlives_its_session(manager: Visitor, floor: Floor, page: Page) -> None:
    (number,) = floor.rows("SELECT id FROM cue ORDER BY id")[0]
    manager.users.log_out(manager._cookie.removeprefix("tagtrail="))
    status, _, asked = await manager.post("/service/cue", act=f"{number} acknowledge 120", back="/")
    assert (status, "What you entered is kept" in asked) == (403, True)

    async def log_in(asked: str, password: str) -> tuple[int, str, str]:
        fields = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', asked))
        status, headers, text = await page.get(
            "/login",
            "POST",
            urlencode(fields | {"name": "li", "password": password}),
            Cookie=f"tagtrail-form={fields['csrf']}",
            Content_Type="application/x-www-form-urlencoded",
            Accept_Language="en",
        )
        return status, next((c for c in headers.get_all("set-cookie") or () if c.startswith("tagtrail=")), ""), text

    status, _, asked = await log_in(asked, "wrong wrong wrong")
    assert status == 403
    status, cookie, text = await log_in(asked, PASSWORD)
    assert (status, "Your response to a cue" in text) == (200, True)
    assert floor.rows(f"SELECT state FROM cue WHERE id = {number}") == [("open",)], "not before it is sent again"
    fields = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', text.split("<main")[1]))
    status, headers, _ = await page.get(
        "/service/cue",
        "POST",
        urlencode(fields),
        Cookie=cookie.split(";")[0],
        Content_Type="application/x-www-form-urlencoded",
    )
    assert (status, headers["location"]) == (303, "/?said=done")
    assert floor.rows(f"SELECT state FROM cue WHERE id = {number}") == [("acknowledged",)]


async def test_a_session_that_ended_leads_to_a_page_that_exists(manager: Visitor) -> None:
    manager.users.log_out(manager._cookie.removeprefix("tagtrail="))
    assert (await manager.post("/logout"))[:2] == (303, "/login")


@pytest.mark.parametrize("act", ["", "1", "x done", "1 open", "1 done 3 4", "١ done", "1 acknowledge -5"])
async def test_nonsense_is_no_order(manager: Visitor, act: str) -> None:
    assert (await manager.post("/service/cue", act=act))[0] == 400


async def test_only_managers_act_and_see_who_it_is(manager: Visitor, page: Page, floor: Floor) -> None:
    paths = ("/service/cue", "/service/look", "/service/case", "/service/rules", "/service/rules/back")
    for name, role in (("wall", Role.VIEWER), ("chen", Role.IT)):
        other = Visitor(page, name, role)
        for path in paths:
            assert (await other.post(path, act="1 done", cue="1"))[0] == 403
        text = await other.get("/service")
        assert ('form="act"' in text, "data-cue=" in text, "••••" in text) == (False, True, False)
        assert "Active rules" in await other.get("/service/rules")
    for path in paths:
        assert (await manager.post(path, csrf="forged"))[0] == 403
    assert floor.rows("SELECT DISTINCT state FROM cue") == [("open",)]
    assert "M-1234567" not in await manager.get("/service")
    (number,) = floor.rows("SELECT id FROM cue WHERE kind = 'arrival'")[0]
    status, _, text = await manager.post("/service/look", cue=str(number))
    assert (status, "M-1234567" in text, "Habitual route" in text) == (200, True, True)
    assert "No visit has ended yet" not in text
    action, object_ = manager.audited()[0]
    assert (action, object_[:8]) == ("looked at a member", "••••4567")
    (other_number,) = floor.rows("SELECT id FROM cue WHERE kind = 'waiting'")[0]
    assert "No visit has ended yet" in (await manager.post("/service/look", cue=str(other_number)))[2]
    assert (await manager.post("/service/look", cue="999"))[0] == 404


async def test_without_users_nobody_acts(page: Page, floor: Floor) -> None:
    await page.until(State.LIVE)
    status, _, text = await page.get("/service", Accept_Language="en")
    assert (status, 'form="act"' in text, "Managers respond to cues" in text) == (200, False, True)
    assert (await page.get("/service/cue", "POST", "act=1+done"))[0] == 403


async def test_a_case_goes_its_way(manager: Visitor, floor: Floor) -> None:
    assert (await manager.post("/service/case", act="1 acknowledged", note="Asked the counter"))[
        1
    ] == "/service?said=done"
    assert (await manager.post("/service/case", act="1 reviewed"))[1] == "/service?said=gone"
    assert (await manager.post("/service/case", act="1 done"))[1] == "/service?said=done"
    assert (await manager.post("/service/case", act="1 reviewed", note="<b>two at noon</b>"))[1] == "/service?said=done"
    assert (await manager.post("/service/case", zone="shoes", note="Nobody at the till"))[1] == "/service?said=done"
    assert (await manager.post("/service/case", zone="moon", note="x"))[1] == "/service?said=unknown"
    assert (await manager.post("/service/case", zone="shoes", note=" "))[1] == "/service?said=invalid"
    assert (await manager.post("/service/case", act="7 done"))[1] == "/service?said=unknown"
    assert floor.rows("SELECT kind, zone, state FROM service_case") == [
        ("waiting", "bags", "reviewed"),
        ("hand", "shoes", "open"),
    ]
    text = await manager.get("/service")
    assert "&lt;b&gt;two at noon&lt;/b&gt;" in text
    assert "· li: Asked the counter" in text
    digest = await manager.get("/service/digest")
    assert "Nobody at the till" in digest
    assert "li" not in re.findall(r"<td>(\w+)</td>", digest)


async def test_cues_and_cases_are_tables_without_anybody_s_name(manager: Visitor, page: Page) -> None:
    cues = await manager.get("/export/cues.csv")
    assert "arrival,door,Door,A,open,vip,1" in cues
    assert "M-1234567" not in cues
    assert "waiting,bags,Bags,B,open," in await manager.get("/export/cases.csv")
    viewer = Visitor(page, "wall", Role.VIEWER)
    assert (await page.get("/export/cues.csv", Cookie=viewer._cookie))[0] == 403
    assert "Bags" in await viewer.get("/export/cases.csv")
    assert 'href="/export/cases.csv' in await viewer.get("/service/digest")


async def test_no_service_no_change(page: Page, config: StoreConfig) -> None:
    fill(config)
    manager = Visitor(page, "li", Role.MANAGER)
    assert (await manager.post("/service/cue", act="1 done"))[1] == "/service?said=offline"
    assert "Not saved: the service is not responding." in await manager.get("/service?said=offline")


FORM = {
    "quiet__0__begin": "22:00", "quiet__0__end": "09:00",
    "rule__0__id": "vip", "rule__0__kind": "arrival", "rule__0__tiers": "A，B", "rule__0__en": "Say hello",
    "rule__1__id": "alone", "rule__1__kind": "waiting", "rule__1__wait": "40", "rule__1__zone-shoes": "1",
    "rule__2__id": "old", "rule__2__kind": "arrival", "rule__2__drop": "1", "rule__3__kind": "arrival",
}  # fmt: skip


def test_the_form_is_read_as_rules() -> None:
    assert rules_of({key.replace("__", "-"): value for key, value in FORM.items()}) == {
        "quiet": [{"begin": "22:00", "end": "09:00"}],
        "rules": [
            {"id": "vip", "kind": "arrival", "tiers": ["A", "B"], "action": {"zh": "Say hello", "en": "Say hello"}},
            {"id": "alone", "kind": "waiting", "zones": ["shoes"], "wait_s": 40.0},
        ],
    }


async def test_rules_are_tried_saved_versioned_and_taken_back(
    manager: Visitor, floor: Floor, config: StoreConfig
) -> None:
    assert (await manager.post("/service/rules", base="1", what="test", do="save", **FORM))[
        1
    ] == "/service/rules?said=done"
    assert floor.rows("SELECT version, who, what FROM cue_rules") == [(1, "", ""), (2, "li", "test")]
    assert (await manager.post("/service/rules", base="1", do="save", **FORM))[1] == "/service/rules?said=stale"
    assert (await manager.post("/service/rules/back", base="2", to="1"))[1] == "/service/rules?said=done"
    assert floor.rows(
        "SELECT max(version), (SELECT rules FROM cue_rules WHERE version = 1) = rules FROM cue_rules"
    ) == [(3, 1)]
    text = await manager.get("/service/rules")
    assert re.findall(r'data-version="(\d)"', text) == ["3", "2", "1"]
    assert ("rules changed", "= 1") in manager.audited()


async def test_bad_rules_are_told_and_what_was_typed_stays(manager: Visitor, floor: Floor) -> None:
    wrong = FORM | {"rule__0__id": "alone", "rule__1__wait": "soon", "rule__1__zone-moon": "1", "quiet__0__end": "9 pm"}
    status, _, text = await manager.post("/service/rules", base="1", do="save", **wrong)
    assert status == 422
    told = re.sub(r"<[^>]+>", "", text)
    for problem in (
        "Quiet hours: Enter two times, such as 22:00 and 09:30. quiet is &#34;9 pm&#34;; expected: &#34;HH:MM&#34;",
        "Rule 2: Enter seconds above 0 for a wait; leave it empty for an arrival.",
        "wait_s is &#34;soon&#34;; expected: a number",
        "Rule 2: The store has no such zone. zones no zone &#34;moon&#34;",
        "Rule 2: Enter a unique name of letters, digits, - and _. id id &#34;alone&#34; is already used",
    ):
        assert problem in told
    assert 'value="9 pm"' in text
    assert floor.rows("SELECT max(version) FROM cue_rules") == [(1,)]


async def test_a_dry_run_says_what_yesterday_would_have_been(
    manager: Visitor, config: StoreConfig, floor: Floor
) -> None:
    day = Day(config, dt.date(2026, 3, 13))
    for tag, tier in (("m1", "A"), ("m2", "C")):
        day.member(tag, tier)
        day.visit(tag, "door", "10:00", 20, cls="member", member=f"M-{tag}")
        day.visit(tag, "shoes", "10:05", 120, cls="member", member=f"M-{tag}", journey="10:00")
    day.visit("m1", "shoes", "21:59", 300, cls="member", member="M-m1", journey="21:59")
    day.visit("badge", "shoes", "22:10", 300, cls="staff")
    day.visit("m2", "shoes", "12:00", 300, cls="member", member="M-m2")
    day.visit("badge", "shoes", "12:00:10", 100, cls="staff")
    day.conn.close()
    status, _, text = await manager.post("/service/rules", base="1", do="try", **FORM)
    found = re.findall(r'<td class="mono">([\d:]+)</td><td>(\w+)</td>', text)
    # m1 comes twice, and at 21:59 waits before quiet hours begin. m2 is of no tier to greet, and met staff at noon.
    assert (status, found) == (
        200,
        [
            ("10:00:00", "arrival"),
            ("10:05:40", "wait"),
            ("10:05:40", "wait"),
            ("21:59:00", "arrival"),
            ("21:59:40", "wait"),
        ],
    )
    assert "5 cues" in text
    assert floor.rows("SELECT max(version) FROM cue_rules") == [(1,)]


async def test_what_is_no_order_is_refused(floor: Floor, config: StoreConfig) -> None:
    path = socket_path(config, "orders")
    for order in ({}, {"do": "done", "cue": 1}, {"do": "done", "cue": "1", "who": "li"}, {"do": "fly", "who": "li"}):
        assert await give(path, order) == "invalid"
    assert path.stat().st_mode & 0o7 == 0
