"""Every page in a real browser: languages, sizes, colours, live updates, files, roles, paper."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from nodetools import installed
from pages import NOON_US, PATHS

AXE = Path(__file__).parent / "axe"
ARTEFACTS = Path(__file__).parents[2] / "artefacts"
SHOTS = bool(os.environ.get("TAGTRAIL_SHOTS"))
PASSWORD = "correct horse battery"
SIZES = {"desk": (1240, 860), "phone": (360, 740), "wall": (2560, 1440), "hd": (1920, 1080)}
LANGUAGES = {"zh": "zh-CN", "en": "en-GB"}
UNLABELLED = """() => [...document.querySelectorAll(
    'a, button, input:not([type=hidden]), select, [role=img], [role=region], [role=group]')]
  .filter(e => !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.textContent.trim()
    || e.closest('label')?.textContent.trim() || e.getAttribute('alt')))
  .map(e => e.outerHTML.slice(0, 120))"""
CUT = """() => [...document.querySelectorAll('td, th, dt, dd, h1, h2, p, button, .chip, nav a')]
  .filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 1 && getComputedStyle(e).overflowX !== 'visible'
    && !e.closest('.visually-hidden'))
  .map(e => e.textContent.trim().slice(0, 60))"""
CLIPPED = """() => [...document.querySelectorAll('.card table')].filter(e => !e.closest('.across, .scroll')
    && e.getBoundingClientRect().right > e.closest('.card').getBoundingClientRect().right)
  .map(e => e.closest('.card').textContent.trim().slice(0, 60))"""
LOST = """() => {
  const lost = new Set(), walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const skipped = '.visually-hidden, .skip, foreignObject, svg, script, noscript, option, #sankey, thead';
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const holder = node.parentElement;
    if (!node.data.trim() || !holder.checkVisibility() || holder.closest(skipped) && getComputedStyle(
      holder.closest(skipped)).position !== 'static') continue;
    if (holder.closest('svg, #sankey, foreignObject')) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (let box of range.getClientRects()) {
      for (let e = holder; e !== document.documentElement; e = e.parentElement) {
        const style = getComputedStyle(e), own = e.getBoundingClientRect();
        if (style.display === 'inline' || style.display === 'contents') continue;
        if (/auto|scroll/.test(style.overflow)) { box = own; continue; }
        const clips = style.overflowY === 'hidden' || style.overflowY === 'clip';
        if (box.right > own.right + 1.5 || box.left < own.left - 1.5 || clips
          && (box.bottom > own.bottom + 1.5 || box.top < own.top - 1.5))
          lost.add(e.tagName + '.' + e.className + ': ' + node.data.trim().slice(0, 50));
      }
      if (box.right > document.documentElement.clientWidth + 1) lost.add('page: ' + node.data.trim().slice(0, 50));
    }
  }
  return [...lost] }"""
"""Text that leaves its box, or that cannot be reached by scrolling."""
WIDTHS = (320, 360, 384, 410, 512, 620, 641, 720, 768, 820, 960, 1024, 1240, 1440, 1920)
"""Of phones, tablets and desks; half of a width is that width at 200 %."""
OUTSIDE = """() => [...document.querySelectorAll('.plan')].flatMap(plan => {
  const zones = [...plan.querySelectorAll('polygon')].map(e => e.getBoundingClientRect());
  return [...plan.querySelectorAll('foreignObject')].map(e => e.getBoundingClientRect())
    .filter((box, i) => box.left < zones[i].left - 2 || box.right > zones[i].right + 2
      || box.top < zones[i].top - 2 || box.bottom > zones[i].bottom + 2).map(() => plan.innerText.slice(0, 40)) })"""
"""Labels that do not lie on their zones."""
FOCUS = """() => (e => [e.tagName, getComputedStyle(e).outlineStyle, e.getAttribute('href') || '', e.outerHTML])(
    document.activeElement)"""
LANDMARKS = """() => ({main: document.querySelectorAll('main').length, h1: document.querySelectorAll('h1').length,
  nav: document.querySelectorAll('header nav[aria-label]').length, lang: document.documentElement.lang,
  ids: [...document.querySelectorAll('[id]')].map(e => e.id).filter((id, i, all) => all.indexOf(id) !== i),
  broken: [...document.querySelectorAll('[aria-labelledby]')].map(e => e.getAttribute('aria-labelledby'))
    .filter(id => !document.getElementById(id))})"""


@contextmanager
def opened(chromium: Any, lang: str = "en", size: str = "desk", **options: Any) -> Iterator[tuple[Any, list[str]]]:
    """A page of a fresh browser profile, and all that went wrong on it: console errors, requests elsewhere."""
    width, height = SIZES[size]
    context = chromium.new_context(
        viewport={"width": width, "height": height}, locale=LANGUAGES[lang], accept_downloads=True, **options
    )
    page, wrong = context.new_page(), []
    page.set_default_timeout(30_000)
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None if re.match(r"(http://127\.0\.0\.1:|data:|blob:)", request.url) else wrong.append(request.url)
        ),
    )
    yield page, wrong
    context.close()


def shoot(page: Any, name: str) -> None:
    """A picture for people to look at; only if TAGTRAIL_SHOTS is set, since it takes long."""
    if SHOTS:
        keep(f"{name}.png", page.screenshot(full_page=True))


def keep(name: str, made: bytes) -> None:
    """Keep a file in `artefacts` if TAGTRAIL_SHOTS is set."""
    if SHOTS:
        ARTEFACTS.mkdir(exist_ok=True)
        (ARTEFACTS / name).write_bytes(made)


@pytest.mark.parametrize("size", ["desk", "phone"])
@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_page(chromium: Any, site: Any, lang: str, size: str) -> None:
    with opened(chromium, lang, size) as (page, wrong):
        for path in PATHS:
            answer = page.goto(site.url + path)
            assert answer.status == 200, path
            if path in ("/today", "/flows"):
                page.wait_for_selector("#sankey svg.main-svg")
            if path == "/":
                page.wait_for_selector('[data-state="live"]')
            shoot(page, f"{path.strip('/').replace('/', '-') or 'now'}-{lang}-{size}")
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


@pytest.mark.timeout(300)
@pytest.mark.parametrize("lang", LANGUAGES)
def test_no_text_leaves_its_box_at_any_width(chromium: Any, wordy: Any, lang: str) -> None:
    with opened(chromium, lang) as (page, _):
        log_in(page, wordy.url, "li")
        found = {}
        for path in PATHS:
            page.goto(wordy.url + path)
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 900})
                wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                lost = page.evaluate(LOST)
                if lost or wider > 0:
                    found[path, width] = (wider, lost)
        assert found == {}


@pytest.mark.parametrize("size", ["wall"])
def test_dark_and_on_the_wall(chromium: Any, site: Any, size: str) -> None:
    with opened(chromium, "zh", size, color_scheme="dark") as (page, wrong):
        for path in ("/", "/today"):
            page.goto(site.url + path)
            shoot(page, f"{path.strip('/') or 'now'}-zh-{size}-dark")
            dark = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
            assert dark == "rgb(16, 21, 20)"
        assert wrong == []


@pytest.mark.parametrize("size", ["wall", "hd"])
@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_wall_screen_shows_all_at_once(chromium: Any, site: Any, lang: str, size: str) -> None:
    with opened(chromium, lang, size) as (page, wrong):
        page.goto(site.url + "/")
        page.click('a[href="/?wall=1"]')
        page.wait_for_selector('html.wall [data-state="live"]')
        shoot(page, f"now-wall-{lang}-{size}")
        assert page.evaluate("document.documentElement.scrollHeight - innerHeight") <= 0
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        assert page.evaluate(OUTSIDE) == []
        assert not page.is_visible("header nav")
        page.click(".legend a")
        page.wait_for_selector("header nav")
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
    with opened(chromium, java_script_enabled=False) as (page, wrong):
        page.goto(site.url + "/")
        assert page.locator(".fresh .chip:visible").all_inner_texts() == ["Refreshed every 10 s"]
        assert wrong == []


@pytest.mark.parametrize("path", ["/quality", "/flows", "/service"])
def test_no_heading_is_printed_without_its_table(chromium: Any, site: Any, path: str) -> None:
    with opened(chromium) as (page, _):
        page.goto(site.url + path)
        page.emulate_media(media="print")
        page.set_viewport_size({"width": 725, "height": 1054})  # A4 within its margins
        tables = page.locator(".card:has(h2):has(.grid)")
        assert tables.count()
        for card in tables.all():
            assert card.locator(".grid").is_visible(), card.inner_text()[:60]


def test_files_can_be_taken(chromium: Any, site: Any) -> None:
    with opened(chromium) as (page, wrong):
        page.goto(site.url + "/counters")
        for form, magic in (("csv", b"\xef\xbb\xbfdate,"), ("xlsx", b"PK")):
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


@pytest.mark.parametrize("name", ["today", "service/digest"])
def test_one_sheet_of_paper(chromium: Any, site: Any, name: str) -> None:
    for lang in LANGUAGES:
        with opened(chromium, lang) as (page, _):
            page.goto(f"{site.url}/{name}")
            if name == "today":
                page.wait_for_selector("#sankey svg.main-svg")
            paper = page.pdf(prefer_css_page_size=True, print_background=True)
            keep(f"{name.replace('/', '-')}-{lang}.pdf", paper)
            assert len(re.findall(rb"/Type\s*/Page\b", paper)) == 1
            box = re.search(rb"/MediaBox\s*\[0 0 ([\d.]+) ([\d.]+)\]", paper)
            assert box is not None
            assert (round(float(box[1])), round(float(box[2]))) in ((595, 842), (594, 842), (596, 842), (595, 841))


def test_a_bad_day_is_one_sheet_too(chromium: Any, site: Any) -> None:
    with closing(sqlite3.connect(site.config.database.path)) as conn, opened(chromium) as (page, wrong):
        conn.executemany(
            "INSERT INTO service_case (id, at_us, kind, zone, state, changed_us)"
            " VALUES (?, ?, 'hand', 'shoes', 'open', 0)",
            [(number, NOON_US - 60_000_000) for number in range(1000, 1060)],
        )
        conn.commit()
        page.goto(f"{site.url}/service/digest")
        assert page.locator("tr.off-paper").count() > 30
        assert len(re.findall(rb"/Type\s*/Page\b", page.pdf(prefer_css_page_size=True, print_background=True))) == 1
        page.goto(f"{site.url}/service")
        assert not page.is_visible('[data-case="1000"]'), "the newest first, the others on demand"
        page.click("text=and 44 more")
        assert page.is_visible('[data-case="1020"]')
        conn.execute("DELETE FROM service_case WHERE id >= 1000")
        conn.commit()
        assert wrong == []


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
        for link, answer, question in QUESTIONS:
            second, _, found = answer.rpartition(" >> ")
            page.click(f'nav a[href="{link}"], nav a[href^="{link}?"]')
            if second:
                page.click(f"main >> {second}")
            assert page.wait_for_selector(found).is_visible(), question
            if link == "/flows":
                page.wait_for_selector("#sankey .node-label")
                assert page.evaluate(OVERLAPS) == 0
        assert wrong == []


@pytest.fixture(scope="module")
def axe() -> str:
    """axe-core, from npm: a program to run in the page."""
    return (installed(AXE, 100) / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8")


@pytest.mark.timeout(240)
def test_nothing_keeps_people_from_using_a_page(chromium: Any, guarded: Any, axe: str) -> None:
    with opened(chromium, "zh", "phone", color_scheme="dark") as (page, _):
        log_in(page, guarded.url, "li")
        for path in sorted(set(PATHS) - {"/layout", "/flows"}):  # of which others have all parts
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


def log_in(page: Any, url: str, name: str, password: str = PASSWORD) -> None:
    page.goto(url + "/members")
    page.fill('input[name="name"]', name)
    page.fill('input[name="password"]', password)
    page.click("button.primary")


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
