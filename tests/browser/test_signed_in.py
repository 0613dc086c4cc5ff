"""Pages of people who have logged in: what they may see and do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from browsing import UNLABELLED, log_in, opened, shoot
from nodetools import installed
from pages import PATHS

AXE = Path(__file__).parent / "axe"


@pytest.fixture(scope="module")
def axe() -> str:
    """axe-core, from npm: a program to run in the page."""
    return (installed(AXE, 100) / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8")


@pytest.mark.timeout(240)
def test_nothing_keeps_people_from_using_a_page(chromium: Any, guarded: Any, axe: str) -> None:
    with opened(chromium, "zh", "phone", color_scheme="dark") as (page, _):
        log_in(page, guarded.url, "li")
        for path in sorted({*PATHS, "/pin"} - {"/layout", "/flows"}):  # of which others have all parts
            page.goto(guarded.url + path)
            page.evaluate(axe)
            found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
            assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found] == [], path


def test_a_suspected_tag_is_counted_when_a_manager_says_so(chromium: Any, guarded: Any) -> None:
    with opened(chromium) as (page, wrong):
        log_in(page, guarded.url, "li")
        page.click('nav a[href="/quality"]')
        row = page.wait_for_selector("tr[data-tag]")
        assert "does not move" in row.inner_text()
        shoot(page, "quality-manager-en-desk")
        page.click('button[value="clear"]')
        page.wait_for_selector("text=cleared: included")
        page.click('button[value="confirm"]')
        page.wait_for_selector("text=confirmed: excluded")
        assert wrong == []


def test_log_in_look_and_log_out(chromium: Any, guarded: Any) -> None:
    with opened(chromium) as (page, wrong):
        log_in(page, guarded.url, "li", "wrong wrong wrong")
        page.wait_for_selector("text=Incorrect name or password.")
        shoot(page, "login-en-desk")
        wrong.clear()  # Chromium reports the 403 itself
        log_in(page, guarded.url, "li")
        page.wait_for_selector("h1:has-text('Members')")
        shoot(page, "members-manager-en-desk")
        assert not re.search(r"M-1\d{6}", page.content())
        page.click("td button >> nth=0")
        page.wait_for_selector("text=This view has been logged.")
        assert re.search(r"M-1\d{6}", page.content())
        shoot(page, "member-en-desk")
        page.goto(guarded.url + "/audit")
        page.wait_for_selector("text=Your role does not allow this.")
        wrong.clear()
        page.click("text=Log out")
        page.wait_for_selector("h1:has-text('Log in')")
        page.goto(guarded.url + "/members")
        assert "/login" in page.url
        assert wrong == []


@pytest.mark.parametrize(("name", "audit"), [("wall", False), ("chen", True)])
def test_others_see_no_individuals(chromium: Any, guarded: Any, name: str, audit: bool) -> None:
    with opened(chromium) as (page, wrong):
        log_in(page, guarded.url, name)
        page.wait_for_selector("text=Individual members are shown to managers")
        assert page.query_selector('form[action="/members/look"]') is None
        assert (page.query_selector('nav a[href="/audit"]') is not None) == audit
        if audit:
            page.goto(guarded.url + "/audit")
            page.wait_for_selector("text=logged in")
            shoot(page, "audit-en-desk")
        assert wrong == []


def test_cues_come_by_themselves_and_are_answered_by_keyboard(chromium: Any, guarded: Any) -> None:
    with opened(chromium, "zh", "phone") as (page, wrong):
        log_in(page, guarded.url, "li")
        page.goto(guarded.url + "/service")
        page.wait_for_selector('[data-state="live"]')
        page.evaluate("document.body.dataset.same = 'yes'")
        before = page.locator("[data-cue]").count()
        number = guarded.floor.call("c")
        cue = f'[data-cue="{number}"]'
        page.wait_for_selector(cue)
        assert (page.locator("[data-cue]").count(), page.evaluate("document.body.dataset.same")) == (before + 1, "yes")
        shoot(page, "service-manager-zh-phone")
        page.focus(f"{cue} button >> nth=0")
        gone = guarded.floor.end_first()
        page.wait_for_selector(f'[data-cue="{gone}"]', state="detached")
        assert page.evaluate("document.activeElement.closest('[data-cue]').dataset.cue") == str(number)
        page.keyboard.press("Enter")
        page.wait_for_selector('[data-said="done"]')
        page.wait_for_selector(f'{cue}[data-state="acknowledged"]')
        page.click(f'{cue} button[value$=" done"]')
        page.wait_for_selector(cue, state="detached")
        assert page.evaluate(UNLABELLED) == []
        assert wrong == []


def test_rules_in_a_form(chromium: Any, guarded: Any) -> None:
    with opened(chromium) as (page, wrong):
        log_in(page, guarded.url, "li")
        page.goto(guarded.url + "/service/rules")
        assert page.evaluate(UNLABELLED) == []
        page.fill('input[name="rule-2-id"]', "cold")
        page.select_option('select[name="rule-2-kind"]', "waiting")
        page.click("text=Save and activate")
        page.wait_for_selector("#problems >> text=wait_s is required for")
        wrong.clear()  # Chromium reports the 422 itself
        page.fill('input[name="rule-2-wait"]', "600")
        page.click("text=Test with yesterday's data")
        page.wait_for_selector("[data-trial]")
        page.click("text=Save and activate")
        page.wait_for_selector('[data-said="done"]')
        shoot(page, "service-rules-manager-en-desk")
        assert page.input_value('input[name="rule-2-id"]') == "cold"
        page.click('[data-version="1"] button')
        page.wait_for_selector('[data-version="3"]')
        assert page.query_selector('input[name="rule-2-wait"]').input_value() == ""
        assert wrong == []


CUT_OFF = """() => { const bottom = document.querySelector('.side').getBoundingClientRect().bottom;
  return [...document.querySelectorAll('.side :is(li, tr, p)')].filter(e => e.checkVisibility()
    && e.getBoundingClientRect().bottom > Math.min(bottom, innerHeight) + 1).map(e => e.innerText.slice(0, 60)) }"""
"""What the side of a wall screen shows in part, or below its end."""


@pytest.mark.parametrize("height", [900, 700])
def test_a_wall_screen_says_how_many_members_it_has_no_room_for(chromium: Any, guarded: Any, height: int) -> None:
    told, usual = guarded.service.told, guarded.service.told["members"]
    many = [{**usual[0], "member": f"M-{1_000_000 + n}"} for n in range(40)]
    with opened(chromium, "en", "hd") as (page, wrong):
        log_in(page, guarded.url, "li")
        page.set_viewport_size({"width": 1920, "height": height})
        try:
            told["members"] = many
            page.goto(guarded.url + "/?wall=1")
            members = page.locator("[data-region=members]")
            left = members.locator("[data-more]")
            left.wait_for(state="visible")
            shown = members.locator("tbody tr:visible").count()
            assert left.inner_text() == f"and {40 - shown} other members"
            assert page.evaluate(CUT_OFF) == []
            page.wait_for_selector(".cue")
            told["members"] = usual
            left.wait_for(state="hidden")
            assert members.locator("tbody tr:visible").count() == len(usual)
            assert page.evaluate(CUT_OFF) == []
        finally:
            told["members"] = usual
        assert wrong == []
