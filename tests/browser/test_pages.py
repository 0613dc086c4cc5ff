"""Every page in a real browser: languages, live updates, files, keyboard, questions of a floor manager."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from browsing import LANGUAGES, UNLABELLED, opened, shoot
from pages import PATHS

CUT = """() => [...document.querySelectorAll('td, th, dt, dd, h1, h2, p, button, .chip, nav a')]
  .filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 1 && getComputedStyle(e).overflowX !== 'visible'
    && !e.closest('.visually-hidden'))
  .map(e => e.textContent.trim().slice(0, 60))"""
CLIPPED = """() => [...document.querySelectorAll('.card table')].filter(e => !e.closest('.across, .scroll')
    && e.getBoundingClientRect().right > e.closest('.card').getBoundingClientRect().right)
  .map(e => e.closest('.card').textContent.trim().slice(0, 60))"""
FOCUS = """() => (e => [e.tagName, getComputedStyle(e).outlineStyle, e.getAttribute('href') || '', e.outerHTML])(
    document.activeElement)"""
LANDMARKS = """() => ({main: document.querySelectorAll('main').length, h1: document.querySelectorAll('h1').length,
  nav: document.querySelectorAll('header nav[aria-label]').length, lang: document.documentElement.lang,
  ids: [...document.querySelectorAll('[id]')].map(e => e.id).filter((id, i, all) => all.indexOf(id) !== i),
  broken: [...document.querySelectorAll('[aria-labelledby]')].map(e => e.getAttribute('aria-labelledby'))
    .filter(id => !document.getElementById(id))})"""


@pytest.mark.parametrize("size", ["desk", "phone"])
@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_page(chromium: Any, site: Any, lang: str, size: str) -> None:
    with opened(chromium, lang, size) as (page, wrong):
        for path in (*PATHS, "/counters?view=trend"):
            answer = page.goto(site.url + path)
            assert answer.status == 200, path
            if path in ("/today", "/flows"):
                page.wait_for_selector("#sankey svg.main-svg")
            if path == "/":
                page.wait_for_selector('[data-state="live"]')
            shoot(page, f"{path.strip('/').replace('/', '-').replace('?', '-') or 'now'}-{lang}-{size}")
            found = page.evaluate(LANDMARKS)
            assert (found["main"], found["h1"], found["nav"]) == (1, 1, 1), path
            assert found["lang"] == LANGUAGES[lang].replace("en-GB", "en")
            assert (found["ids"], found["broken"]) == ([], []), path
            assert page.evaluate(UNLABELLED) == [], path
            assert page.evaluate(CUT) == [], path
            assert page.evaluate(CLIPPED) == [], path
            wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wider <= 0, f"{path} is {wider} px wider than the screen"
            text = page.inner_text("main")
            assert re.search("[一-鿿]", text) if lang == "zh" else not re.search("[一-鿿]", text), path
        assert wrong == []


def test_numbers_arrive_without_a_reload(chromium: Any, site: Any) -> None:
    with opened(chromium) as (page, wrong):
        page.goto(site.url + "/")
        page.wait_for_selector('[data-state="live"]')
        page.evaluate("document.body.dataset.same = 'yes'")
        zone = site.service.zone("shoes")
        for people in (17, 4):
            zone["people"] = people
            page.wait_for_selector(f'polygon[data-zone="shoes"][data-people="{people}"]', state="attached")
        reader = site.service.told["readers"][0]
        reader["link"] = "down"
        page.wait_for_selector('[data-reader="r1"][data-link="down"]')
        reader["link"] = "up"
        page.wait_for_selector('[data-reader="r1"][data-link="up"]')
        assert page.evaluate("document.body.dataset.same") == "yes"
        assert wrong == []


def test_a_page_without_connection_is_not_called_live(chromium: Any, site: Any) -> None:
    with opened(chromium) as (page, _):
        page.route("**/events?*", lambda route: route.abort())
        page.goto(site.url + "/")
        page.wait_for_selector("#lost")
        assert not page.is_visible(".chip.live")
        assert page.is_visible("text=Not connected")


def test_a_page_without_scripts_is_not_called_live(chromium: Any, site: Any) -> None:
    with opened(chromium, own={"java_script_enabled": False}) as (page, wrong):
        page.goto(site.url + "/")
        assert page.locator(".fresh .chip:visible").all_inner_texts() == ["Refreshed every 10 s"]
        assert wrong == []


def test_files_can_be_taken(chromium: Any, site: Any) -> None:
    with opened(chromium) as (page, wrong):
        page.goto(site.url + "/counters")
        for form, magic in (("csv", b"\xef\xbb\xbfDate,"), ("xlsx", b"PK")):
            with page.expect_download() as taken:
                page.click(f'a[href^="/export/counters.{form}"]')
            assert taken.value.suggested_filename.endswith(f".{form}")
            assert Path(taken.value.path()).read_bytes().startswith(magic)
        assert wrong == []


def test_the_date_and_the_language_can_be_changed(chromium: Any, site: Any) -> None:
    with opened(chromium) as (page, wrong):
        page.goto(site.url + "/counters")
        page.click("text=7 days")
        page.click('a[lang="zh-CN"]')
        page.wait_for_selector('html[lang="zh-CN"]')
        assert "days=7" in page.url
        page.click('form a[aria-label="更早"]')
        page.wait_for_selector("text=没有读写器在线")
        page.click('nav a[href^="/flows?"]')
        assert page.input_value('.jump input[name="date"]') == "2026-03-07"
        assert wrong == []


def test_by_keyboard(chromium: Any, site: Any) -> None:
    with opened(chromium) as (page, _):
        page.goto(site.url + "/today")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        seen = set()
        for _ in range(40):
            page.keyboard.press("Tab")
            where = page.evaluate(FOCUS)
            if where[0] != "BODY":
                assert where[1] != "none", f"focus cannot be seen on {where}"
            seen.add(where[2])
        assert any(href.startswith("/export/") for href in seen)


QUESTIONS = (
    ("/today", "#traffic", "many come to each floor, and when"),
    ("/", "[data-region=figures] dl", "full is it now"),
    ("/today", "#together", "full was it"),
    ("/flows", "#paths", "ways people take"),
    ("/flows", "#tree summary", "people go after a counter"),
    ("/plan", '#lens [data-zone="shoes"]', "it is full on the plan"),
    ("/plan", "a[href*=dwell] >> #lens .lv5", "they stay longest"),
    ("/counters", "a[href='#shoes'] >> #shoes svg.bars", "long they stay, at which hour"),
    ("/promotions", "#trial-sale", "a promotion did"),
    ("/layout", "#trial-moved", "a move did"),
    ("/members", "#served", "tiers do"),
    ("/service", "#bytier", "tiers are served in time"),
    ("/service", "#staffing", "there is too little staff"),
    ("/quality", "#covered", "far the numbers can be trusted"),
    ("/quality", "#left-out", "was left out"),
    ("/today", "#against", "the day is against others"),
    ("/about", "dl.glossary", "numbers mean"),
    ("/counters", 'a[href*="days=7"] >> #hold', "counters draw and hold"),
    ("/counters", 'a[href*="view=trend"] >> #fare', "counters fare badly, also by sales"),
    ("/counters", '[data-zone="shoes"] td[data-label]', "visits become sales"),
)
"""Link of the navigation, then what answers; before `>>` the second click."""
OVERLAPS = """() => {
  const boxes = [...document.querySelectorAll('#sankey .node-label')].map(e => e.getBoundingClientRect());
  return boxes.flatMap((a, i) => boxes.slice(i + 1).filter(b => a.left < b.right - 1 && b.left < a.right - 1
    && a.top < b.bottom - 1 && b.top < a.bottom - 1)).length }"""


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_question_is_answered_in_two_clicks(chromium: Any, site: Any, lang: str) -> None:
    with opened(chromium, lang) as (page, wrong):
        page.goto(site.url + "/about")
        # What a page answers by itself is asked of it together. Then second clicks: links keep what some choose.
        by_page = sorted(QUESTIONS, key=lambda one: (1, "") if " >> " in one[1] else (0, one[0]))
        here = ""
        for link, answer, question in by_page:
            second, _, found = answer.rpartition(" >> ")
            if second or link != here:
                page.click(f'nav a[href="{link}"], nav a[href^="{link}?"]')
            here = link
            if second:
                page.click(f"main >> {second}")
            assert page.wait_for_selector(found).is_visible(), question
            if link == "/flows":
                page.wait_for_selector("#sankey .node-label")
                assert page.evaluate(OVERLAPS) == 0
        assert wrong == []
