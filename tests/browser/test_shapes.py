"""Every page at every width, on the wall and on paper."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import Any

import pytest
from browsing import LANGUAGES, SIZES, keep, log_in, opened, shoot
from pages import NOON_US, PATHS
from thorough import some

LOST = """() => {
  const lost = new Set(), walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const page = document.documentElement, boxes = new Map();
  const measured = e => {  // once, however many texts it holds
    if (!boxes.has(e)) {
      const style = getComputedStyle(e);
      boxes.set(e, {own: e.getBoundingClientRect(), none: style.display === 'inline' || style.display === 'contents',
        scrolls: /auto|scroll/.test(style.overflow), clips: /hidden|clip/.test(style.overflowY)});
    }
    return boxes.get(e);
  };
  const skipped = '.visually-hidden, .skip, foreignObject, svg, script, noscript, option, #sankey, thead';
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const holder = node.parentElement;
    if (!node.data.trim() || !holder.checkVisibility() || holder.closest(skipped) && getComputedStyle(
      holder.closest(skipped)).position !== 'static') continue;
    if (holder.closest('svg, #sankey, foreignObject')) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (let box of range.getClientRects()) {
      for (let e = holder; e !== page; e = e.parentElement) {
        const {own, none, scrolls, clips} = measured(e);
        if (none) continue;
        if (scrolls) { box = own; continue; }
        if (box.right > own.right + 1.5 || box.left < own.left - 1.5 || clips
          && (box.bottom > own.bottom + 1.5 || box.top < own.top - 1.5))
          lost.add(e.tagName + '.' + e.className + ': ' + node.data.trim().slice(0, 50));
      }
      if (box.right > page.clientWidth + 1) lost.add('page: ' + node.data.trim().slice(0, 50));
    }
  }
  return [page.scrollWidth - page.clientWidth, [...lost]] }"""
"""Pixels that are beyond the screen; text that leaves its box, or that cannot be reached by scrolling."""
FILLED = """() => {
  const table = document.querySelector('table.many'), wrong = [];
  for (const cell of table.querySelectorAll('tbody td.n:not(:has(svg))')) {
    const label = cell.dataset.label;
    if (label === 'Visits') cell.innerHTML = '12,805';
    else if (label === 'Rank') cell.innerHTML = '10–12';
    else if (label === 'Median') cell.innerHTML = '1:03 <small>55 s–1:13</small>';
    else if (/change/.test(label)) cell.innerHTML = '<span class="change">+9 % <small>-100 % … +1302 %</small></span>';
    else if (label !== 'Coverage') cell.innerHTML = '<span>32 % <small>28–38 %</small></span>';
  }
  for (const name of table.querySelectorAll('tbody th a')) name.textContent = 'Childrenswear';
  for (const name of table.querySelectorAll('tbody th a'))
    if (name.getClientRects().length > 1) wrong.push('a word is broken');
  const card = table.closest('.card').getBoundingClientRect(), own = table.getBoundingClientRect();
  if (own.right > card.right - 11) wrong.push(`${own.right - card.right + 12} px are out of the card`);
  for (const small of table.querySelectorAll('td small')) {
    const over = small.getBoundingClientRect().right - small.closest('td').getBoundingClientRect().right;
    if (small.checkVisibility() && over > 1.5) wrong.push('a cell is too narrow');
  }
  return wrong }"""
"""What is wrong with a table of counters that has the longest figures."""
WIDTHS = (320, 360, 384, 410, 512, 620, 641, 720, 768, 820, 960, 1024, 1240, 1440, 1920)
"""Of phones, tablets and desks; half of a width is that width at 200 %."""
SHOWN = "[...document.querySelectorAll('.plan')].filter(e => e.checkVisibility()).map(e => e.innerText)"
SMALL = """() => [...document.querySelectorAll(
    'button, input:not([type=hidden], [type=checkbox], [type=radio]), select, summary, nav a, .button, .csv, .spans a')]
  .filter(e => e.checkVisibility() && e.getBoundingClientRect().height < 43.5).map(e => e.outerHTML.slice(0, 90))"""
"""What a thumb can hardly hit."""
OUTSIDE = """() => [...document.querySelectorAll('.plan')].flatMap(plan => {
  const zones = [...plan.querySelectorAll('polygon')].map(e => e.getBoundingClientRect());
  return [...plan.querySelectorAll('foreignObject')].map(e => e.getBoundingClientRect())
    .filter((box, i) => box.left < zones[i].left - 2 || box.right > zones[i].right + 2
      || box.top < zones[i].top - 2 || box.bottom > zones[i].bottom + 2).map(() => plan.innerText.slice(0, 40)) })"""
"""Labels that do not lie on their zones."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("lang", LANGUAGES)
def test_no_text_leaves_its_box_at_any_width(chromium: Any, wordy: Any, lang: str) -> None:
    with opened(chromium, lang) as (page, _):
        log_in(page, wordy.url, "li")
        found = {}
        for path in (*PATHS, "/counters?view=trend", "/counters?against=before", "/plan?measure=per_visit&zone=shoes"):
            page.goto(wordy.url + path)
            for width in some(WIDTHS, lang + path):
                page.set_viewport_size({"width": width, "height": 900})
                wider, lost = page.evaluate(LOST)
                if lost or wider > 0:
                    found[path, width] = (wider, lost)
        assert found == {}


@pytest.mark.parametrize("path", ["/counters?days=7", "/counters?days=7&against=before"])
def test_all_columns_have_room_and_names_are_whole(chromium: Any, site: Any, path: str) -> None:
    """With figures as long as those of a large store, which a test's few visits don't make."""
    with opened(chromium, "en") as (page, _):
        for width in (360, 641, 768, 1024, 1180, 1240, 1300, 1440, 1920):
            page.set_viewport_size({"width": width, "height": 900})
            page.goto(site.url + path)
            assert page.evaluate(FILLED) == [], width


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_counter_that_was_tapped_shows_where_people_came_from_and_went(chromium: Any, site: Any, lang: str) -> None:
    with opened(chromium, lang, "phone") as (page, wrong):
        page.goto(site.url + "/counters")
        names = page.locator('#hold >> xpath=../.. >> tbody th a[href^="#"]')
        for name in names.all():
            card = page.locator(name.get_attribute("href"))
            if card.count():
                page.evaluate("history.replaceState(null, '', location.pathname), scrollTo(0, 0)")
                name.click()
                page.wait_for_function("e => e.getBoundingClientRect().top < 40", arg=card.element_handle())
                box = card.locator(".halves").bounding_box()
                assert box["y"] >= 0
                assert box["y"] + box["height"] <= page.evaluate("document.querySelector('nav').offsetTop")
        assert wrong == []


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_hour_of_missing_staff_is_in_sight_at_every_width(chromium: Any, site: Any, lang: str) -> None:
    with opened(chromium, lang, "phone") as (page, _):
        page.goto(site.url + "/service")
        for width in (320, 360, 641, 768, 820, 1024):
            page.set_viewport_size({"width": width, "height": 900})
            hidden = page.evaluate("(e => e.scrollWidth - e.clientWidth)(document.querySelector('.across:has(.need)'))")
            assert hidden <= 0, width
            hours, cells = (page.locator(f".need {row} > *").all() for row in ("thead tr", "tbody tr:first-child"))
            below = [hour.bounding_box()["y"] for hour in hours[1:]]
            assert (len(set(below)) > 1) == (width < 1000), "hours stand below each other"
            if width < 1000:
                assert [cell.bounding_box()["y"] for cell in cells[1:]] == below
                assert all(cell.evaluate("e => e.scrollHeight <= e.clientHeight + 1") for cell in cells)


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
        assert page.locator(".by").count(), "there are cues"
        assert not page.locator(".by").first.is_visible(), "from afar nobody needs the version of a rule"
        page.click(".legend a")
        page.wait_for_selector("header nav")
        assert wrong == []


def test_a_wall_screen_shows_nine_floors_within_a_minute(chromium: Any, tower: Any) -> None:
    with opened(chromium, "en", "hd", own={}) as (page, wrong):
        page.clock.install()  # for all pages of the profile
        page.goto(tower.url + "/?wall=1")
        page.wait_for_selector(".plans > .plan[hidden]", state="attached")
        seen: set[str] = set()
        for _ in range(4):
            shown = page.evaluate(
                "[...document.querySelectorAll('.plan')].filter(e => e.checkVisibility()).map(e => e.innerText)"
            )
            assert 1 <= len(shown) <= 4
            seen.update(text.splitlines()[0] for text in shown)
            page.clock.run_for(19_000)
        assert len(seen) == 9
        assert wrong == []


@pytest.mark.parametrize("path", ["/", "/counters", "/flows", "/members", "/service"])
def test_on_a_phone_pages_are_under_the_thumb(chromium: Any, wordy: Any, path: str) -> None:
    with opened(chromium, "zh", "phone") as (page, wrong):
        log_in(page, wordy.url, "li")
        page.goto(wordy.url + path)
        assert page.locator("header.top").bounding_box()["height"] <= 72
        bar = page.locator("header nav").bounding_box()
        assert (bar["x"], bar["width"], round(bar["y"] + bar["height"])) == (0, SIZES["phone"][0], SIZES["phone"][1])
        tabs = [*page.locator("header nav > ul >> nth=0 >> a").all(), page.locator("header nav .more")]
        assert len(tabs) == 5
        assert [tab.is_visible() for tab in tabs] == [True] * 5
        here = page.locator("header nav a[aria-current]")
        name = here.text_content()
        assert name in [tab.text_content() for tab in tabs], "the page that is open is not in the bar"
        if not here.is_visible():
            page.click("header nav .more")
            assert here.is_visible()
            page.keyboard.press("Escape")
        small = page.evaluate(SMALL)
        assert small == []
        assert wrong == []


@pytest.mark.parametrize("path", ["/counters", "/members", "/service"])
def test_on_a_phone_cards_unfold(chromium: Any, site: Any, path: str) -> None:
    """With a tap, by keyboard, and by a link to one of them; on paper and on desks nothing is folded."""
    with opened(chromium, "en", "phone") as (page, wrong):
        page.goto(site.url + path)
        row = page.locator("[data-fold] > tbody > tr:has(.fold)").first
        figures = "row => [...row.querySelectorAll('td')].filter(e => e.checkVisibility()).length"
        few, fold = row.evaluate(figures), row.locator(".fold")
        assert fold.get_attribute("aria-expanded") == "false"
        fold.focus()
        page.keyboard.press("Enter")
        assert row.evaluate(figures) > few
        assert fold.get_attribute("aria-expanded") == "true"
        fold.click()
        assert row.evaluate(figures) == few
        if path == "/counters":
            card = page.locator(".cards > .card").first
            assert not card.locator(".pairs").first.is_visible()
            page.goto(f"{site.url}{path}#{card.get_attribute('id')}")
            assert card.locator(".pairs").first.is_visible()
        page.emulate_media(media="print")
        assert row.evaluate(figures) > few
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


@pytest.mark.parametrize("name", ["today", "service/digest", "digest"])
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
