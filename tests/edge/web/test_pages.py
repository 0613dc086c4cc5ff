"""The page over real sockets: uvicorn in front, a live socket and a database behind."""

from __future__ import annotations

import asyncio
import datetime as dt
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import closing
from html import unescape
from pathlib import Path
from urllib.parse import parse_qsl

import pages
import pytest
import tomli_w
from pages import NOON_US, Page, Service, fill
from shopdays import DATE, Day, store_values

from config import StoreConfig
from edge.access.users import Role, Users, users_path
from edge.store.clock import Clock
from edge.store.errors import Trouble
from edge.store.live_socket import read_once, socket_path
from edge.store.live_state import LiveClient, State
from edge.web.serve import serve

config, page, service, cheap_passwords = pages.config, pages.page, pages.service, pages.cheap_passwords
PASSWORD = "correct horse battery"


async def test_now_shows_who_is_where_and_what_is_unknown(service: Service, page: Page) -> None:
    await page.until(State.LIVE)
    status, headers, html = await page.get("/", Accept_Language="en")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    zones = dict(re.findall(r'<polygon data-zone="(\w+)" ([^>]+)>', html))
    assert 'data-people="4"' in zones["shoes"]
    assert "lv2" in zones["shoes"]
    assert 'data-people="0"' in zones["door"]
    assert "lv0" in zones["door"]
    for unknown in ("bags", "books"):  # down, and not spoken of: never a number, whatever was told with it
        assert 'data-state="unknown" data-people=""' in zones[unknown]
        assert 'fill="url(#hatch-m)"' in zones[unknown]
    assert re.search(r"People in the store</dt>\s*<dd><span[^>]*>≥ </span>34</dd>", html)
    assert "3 zones unknown" in html
    assert "••••" not in html
    assert "no &lt;route&gt;" in html
    assert 'data-reader="r2" data-link="down"' in html
    assert 'data-state="live"' in html


async def test_machinery_that_wants_looking_at_is_named(service: Service, page: Page) -> None:
    await page.until(State.LIVE)
    assert "data-antenna" not in (await page.get("/readers"))[2]
    assert "<li>Shoes" not in (await page.get("/quality", Accept_Language="en"))[2]
    service.told["drifted"] = [{"reader": "r1", "port": 2, "zone": "shoes", "drift_db": -3.4}]
    service.told["resting"] = [{"zone": "shoes", "tag_class": "cart", "since_us": NOON_US - 18_000_000_000}]
    figures = {"level_1m_dbm": -44.6, "slope_db": 27.3, "half_rate_dbm": -71.8, "spread_db": 5}
    made = {"at_us": NOON_US, "reads": 9000, "tags": 160, "seconds": 3000, "before": -7.251, "after": -5.5}
    service.told["radio"] = {"source": "named", "since_us": NOON_US, **figures, **made, "worse_nats": 3.25}
    async for _, _ in page.events():
        if page.live.now is not None and page.live.now.resting:
            break
    told = (await page.get("/readers?lang=en"))[2]
    assert "From the calibration named in the store file." in told
    assert "-45 dBm at 1 m · 27 dB per decade · 50 % read rate at -72 dBm" in told
    assert "tags: 160, reads of 3,000 s · log likelihood per second -5.50, previously -7.25" in told
    assert "by 3.2 nats per second" in told
    assert re.search(r'data-antenna="r1/2">r1 2 → Shoes: -3.4 dB', (await page.get("/readers?lang=en"))[2])
    assert re.search(r"<li>Shoes <small>cart · since 03-14 07:00", (await page.get("/quality?lang=en"))[2])


async def test_what_an_examination_found_is_told_with_what_to_do(service: Service, page: Page) -> None:
    service.told["doctor"] = {"at_us": NOON_US, "found": []}
    await page.until(State.LIVE)
    assert "Nothing wrong was found. <small>" in (await page.get("/readers?lang=en"))[2]
    found = {"what": "clock", "state": "warning", "said": "no time service keeps the clock right"}
    service.told["doctor"]["found"] = [found | {"todo": "Restart the <service>."}]
    async for _, _ in page.events():
        if page.live.now is not None and page.live.now.doctor.found:
            break
    told = (await page.get("/readers?lang=en"))[2]
    assert (
        'class="banner warn" data-found="clock"><b>no time service keeps the clock right</b> Restart the &lt;' in told
    )
    assert "没有时间服务在校准时钟" in (await page.get("/readers?lang=zh"))[2]


async def test_a_reader_that_brings_more_tags_than_a_shop_has_is_named(service: Service, page: Page) -> None:
    service.told["readers"][0] |= {"flooded": True, "left_out": 12_345}
    await page.until(State.LIVE)
    html = html_text((await page.get("/readers?lang=en"))[2])
    assert "Reader r1 reports an implausible number of new tags. 12,345 of its reads were ignored." in html
    assert "Reader r2 reports" not in html


async def test_names_are_text_wherever_they_stand(tmp_path: Path) -> None:
    evil = "\"><img src=x onerror=alert(1)>'"
    values = store_values(tmp_path)
    values["store"]["name"] = evil
    for part in ("zones", "floors"):
        values[part][0]["name"] = evil
    config = StoreConfig.model_validate(values)
    fill(config)
    service = Service(socket_path(config))
    telling = asyncio.create_task(service.run())
    service.told["readers"][1]["reason"] = evil
    service.told["members"][0] |= {"tier": evil, "member": evil}
    async with pages.serving(config) as page:
        await page.until(State.LIVE)
        for path in pages.PATHS:
            html = (await page.get(path))[2]
            assert "&lt;img src=x" in html, path
            assert "<img src=x" not in html, path
            assert html.count('"><img') == 0, path
        async for _, told in page.events():
            assert "<img src=x" not in json.dumps(told)
            break
    telling.cancel()


async def test_a_members_number_is_never_shown_whole(service: Service, page: Page) -> None:
    await page.until(State.LIVE)
    async for _, told in page.events():
        assert "1234567" not in json.dumps(told)
        break
    for path in ("/", "/api/now", "/api/today", "/today"):
        assert "1234567" not in (await page.get(path))[2]


def cue_of_a_member() -> dict[str, object]:
    times = dict.fromkeys(("since_us", "due_us", "made_us"), NOON_US) | {"expires_us": NOON_US + 9_000_000}
    who = {"member": "M-1234567", "tier": "A", "zone": "shoes", "here": "bags", "who": "li"}
    return {"id": 1, "kind": "waiting", "rule": "r", "version": 1, "state": "open", **who, **times}


@pytest.mark.parametrize(("role", "sees"), [("manager", True), ("viewer", False), ("it", False), (None, False)])
async def test_only_managers_can_follow_single_members(
    service: Service, page: Page, config: StoreConfig, role: str | None, sees: bool
) -> None:
    """Others get no member, however masked, no place of one, and no count of a zone that is one member."""
    service.told["cues"] = {"version": 1, "rules": 1, "open": [cue_of_a_member()]}
    cookies = {}
    users = Users(users_path(config))
    if role is not None:
        users.put("li", Role(role), PASSWORD)
        cookies = {"Cookie": f"tagtrail={users.log_in('li', PASSWORD, 'here')}"}
    await page.until(State.LIVE)
    told = json.loads((await page.get("/api/now", **cookies))[2])
    assert told["state"] == "live"
    now = told["service"]
    one = {"member": "••••4567", "tier": "A", "zone": "shoes", "since_us": NOON_US - 60_000_000}
    assert now["members"] == ([one] if sees else [])
    assert [each["member"] for each in now["recognitions"]] == (["••••4567"] if sees else [])
    assert [(cue["member"], cue["here"], cue["zone"]) for cue in now["cues"]["open"]] == [
        ("••••4567", "bags", "shoes") if sees else ("", None, "shoes")
    ]
    shoes = next(zone for zone in now["zones"] if zone["id"] == "shoes")
    assert shoes["people"] == 4
    assert shoes["by_class"] == ({"member": 1, "cart": 2} if sees else {"cart": 2})
    for path in ("/", "/members", "/service"):
        html = (await page.get(f"{path}?lang=en", **cookies))[2]
        assert ("4567" in html) is sees, path
    html = (await page.get("/?lang=en", **cookies))[2]
    assert ("Individual members are shown to managers only." in html) is not sees
    assert re.search(r"Members here</dt><dd>1</dd>", html), "how many there are is no secret"
    async for _, told in page.events(cookie=cookies.get("Cookie", "")):
        assert ("4567" in json.dumps(told)) is sees
        break
    looks = [line.action for line in users.audit()]
    assert ("watched members" in looks) is sees


async def test_only_what_changed_is_sent(service: Service, page: Page) -> None:
    await page.until(State.LIVE)
    stream = page.events()
    name, told = await anext(stream)
    assert name == "regions"
    assert set(told["regions"]) == {
        *("status", "figures", "cues", "members", "recognitions", "readers", "sync", "plan-F1", "plan-F2"),
    }
    service.told["as_of_us"] += 30_000_000  # time alone is no news
    for _ in range(2):
        assert (await anext(stream))[0] == "beat"
    service.zone("shoes")["people"] += 1
    name, told = await anext(stream)
    while name == "beat":
        name, told = await anext(stream)
    assert set(told["regions"]) == {"figures", "plan-F1"}
    assert told["as_of"] == "12:00:30"
    assert 'data-people="5"' in told["regions"]["plan-F1"]
    await stream.aclose()


async def test_many_screens_are_one_listener_of_the_service(config: StoreConfig, page: Page) -> None:
    asked = 0

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        writer.write(json.dumps(Service(Path()).told).encode() + b"\n")

    server = await asyncio.start_unix_server(answer, socket_path(config))
    await page.until(State.LIVE)
    streams = [page.events() for _ in range(12)]
    first = await asyncio.gather(*(anext(stream) for stream in streams))
    assert all(name == "regions" for name, _ in first)
    assert asked == 1
    for stream in streams:
        await stream.aclose()
    server.close()


async def test_states_are_told_and_nothing_is_claimed_without_the_service(config: StoreConfig, page: Page) -> None:
    await page.until(State.OFFLINE)
    html = (await page.get("/?lang=en"))[2]
    assert "The Tagtrail service is not responding." in html
    assert html.count('data-state="unknown"') == 6
    assert "No members in the store" not in html

    service = Service(socket_path(config))
    running = asyncio.create_task(service.run())
    await page.until(State.LIVE)
    assert "not responding" not in (await page.get("/?lang=en"))[2]
    running.cancel()
    await page.until(State.OFFLINE)
    html = (await page.get("/?lang=en"))[2]
    assert "Last contact: 12:00:00." in html
    assert html.count('data-state="unknown"') == 6

    running = asyncio.create_task(service.run())
    await page.until(State.LIVE)
    running.cancel()
    await asyncio.wait([running])


async def test_a_service_that_is_stuck_is_stale(config: StoreConfig, page: Page) -> None:
    async def one_line(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps(Service(Path()).told).encode() + b"\n")

    server = await asyncio.start_unix_server(one_line, socket_path(config))
    await page.until(State.STALE)
    html = (await page.get("/?lang=en"))[2]
    assert "The service is responding slowly." in html
    assert "These figures are from 12:00:00." in html
    assert 'data-people="4"' in html
    server.close()


async def test_a_line_that_is_no_state_is_offline_not_the_end(config: StoreConfig, page: Page) -> None:
    lines = [b"garbage\n", b'{"as_of_us": 1}\n', json.dumps(Service(Path()).told).encode() + b"\n"]

    async def next_line(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(lines.pop(0))

    server = await asyncio.start_unix_server(next_line, socket_path(config))
    await page.until(State.LIVE)
    assert lines == []
    server.close()


async def test_an_unreachable_crm_is_told_with_what_waits(service: Service, page: Page) -> None:
    service.told["broker"] = {"connected": False, "reason": "refused", "since_us": NOON_US - 600_000_000}
    service.told["outbox"] = {"journey": {"sent": 9, "pending": 1200}, "agg": {"sent": 90, "pending": 34}}
    await page.until(State.LIVE)
    html = (await page.get("/?lang=en"))[2]
    assert "CRM unreachable since 11:50:00; events buffered: 1,234." in html


def html_text(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", html))


@pytest.mark.parametrize(
    ("lang", "job", "banner"),
    [
        ("en", "daily reports to the CRM", "Part of the service is failing and is being retried."),
        ("zh", "向 CRM 上报每日数据", "服务的部分功能出错，正在自动重试。"),
    ],
)
async def test_a_job_that_fails_is_told(service: Service, page: Page, lang: str, job: str, banner: str) -> None:
    since_us = NOON_US - 600_000_000
    failing = {"job": "day news", "reason": "ValueError at edge/x.py:1", "since_us": since_us, "times": 3}
    service.told["failing"] = [failing]
    await page.until(State.LIVE)
    html = (await page.get(f"/?lang={lang}"))[2]
    assert banner in html
    assert job in html


@pytest.mark.parametrize(
    ("headers", "path", "lang"),
    [
        ({"Accept_Language": "en-GB,en;q=0.9"}, "/", "en"),
        ({"Accept_Language": "fr,zh-TW;q=0.8,en;q=0.7"}, "/", "zh-CN"),
        ({"Accept_Language": "zh;q=0,en"}, "/", "en"),
        ({"Accept_Language": "xx;q=much"}, "/", "zh-CN"),
        ({"Accept_Language": "de-DE,de;q=0.9"}, "/", "en"),
        ({"Accept_Language": "ja, zh;q=0.1"}, "/", "zh-CN"),
        ({"Accept_Language": "*"}, "/", "zh-CN"),
        ({}, "/", "zh-CN"),
        ({"Cookie": "lang=en"}, "/", "en"),
        ({"Cookie": "lang=en"}, "/today?lang=zh", "zh-CN"),
        ({"Cookie": "lang=klingon", "Accept_Language": "en"}, "/", "en"),
    ],
)
async def test_language(page: Page, headers: dict[str, str], path: str, lang: str) -> None:
    _, answer, html = await page.get(path, **headers)
    assert f'<html lang="{lang}">' in html
    assert ("lang=" in answer.get("Set-Cookie", "")) == ("?lang" in path)


async def test_a_cue_leads_to_where_the_member_is(service: Service, page: Page, config: StoreConfig) -> None:
    service.told["cues"] = {"version": 1, "rules": 1, "open": [cue_of_a_member()]}
    users = Users(users_path(config))
    users.put("li", Role.MANAGER, PASSWORD)
    await page.until(State.LIVE)
    html = (await page.get("/service?lang=en", Cookie=f"tagtrail={users.log_in('li', PASSWORD, 'here')}"))[2]
    cue = html[html.index('data-cue="1"') :].split("</li>")[0]
    assert text_of(cue).startswith('data-cue="1" data-state="open"> A Bags ••••4567')
    assert "began in Shoes" in cue
    assert 'aria-label="Cue for ••••4567, Bags"' in cue


async def test_the_weeks_after_a_holiday_say_how_few_days_compare(tmp_path: Path) -> None:
    values = store_values(tmp_path)
    values["store"]["holidays"] = "CN"
    config = StoreConfig.model_validate(values)
    date = dt.date(2026, 3, 3)  # two weeks after the third of nine days off
    for weeks in (2, 1, 0):
        day = Day(config, date - dt.timedelta(days=7 * weeks))
        day.visit(f"{weeks}", "shoes", "08:00", 150, journey="08:00")
        day.covered("04:00", "28:00")
        day.watermark("33:00")
        day.conn.close()
    async with pages.serving(config) as page:
        html = (await page.get(f"/today?date={date}&lang=en"))[2]
        rows = json.loads((await page.get(f"/api/tables/comparison?date={date}"))[2])["rows"]
    against = html[html.index('id="against"') :].split("</table>")[0]
    assert "– <small>2 comparable days</small>" not in against
    told = next(row for row in rows if row["measure"] == "journeys")
    assert (told["median_4w"], told["median_days"]) == (None, 1)
    assert "– <small>1 comparable day</small>" in against


async def test_tiers_have_the_colours_of_the_store_file(tmp_path: Path) -> None:
    colours = {"Diamond": "#1b2a6b", "金卡": "#FFD700", "A": "#777777"}
    tiers = [{"tier": tier, "colour": colour} for tier, colour in colours.items()]
    config = StoreConfig.model_validate(store_values(tmp_path, web={"listen": "127.0.0.1:0", "tiers": tiers}))
    fill(config)
    day = Day(config)
    for tier in ("Diamond", "金卡", "A", "Bronze"):
        for number in range(9):
            day.member(f"{tier}{number}", tier)
            day.visit(f"{tier}{number}", "shoes", "11:00", 100, cls="member", member=f"M-{tier}{number}")
    day.conn.close()
    async with pages.serving(config) as page:
        html = (await page.get("/members?lang=en"))[2]
        (sheet,) = re.findall(r'href="(/static/tiers[^"]*)"', html)
        status, headers, styles = await page.get(sheet)
    assert (status, headers["Content-Type"]) == (200, "text/css; charset=utf-8")
    assert styles.splitlines() == [
        ".tier-0 { background: #1b2a6b; color: #ffffff; }",
        ".tier-1 { background: #FFD700; color: #000000; }",
        ".tier-2 { background: #777777; color: #000000; }",
    ]
    shown = dict(re.findall(r'<span class="tier (tier-\w+)">([^<]+)</span>', html))
    assert shown == {"tier-0": "Diamond", "tier-1": "金卡", "tier-2": "A", "tier-other": "Bronze"}


def test_a_tier_has_one_colour(tmp_path: Path) -> None:
    tiers = [{"tier": "A", "colour": "#777777"}] * 2
    with pytest.raises(ValueError, match="a tier has two colours"):
        StoreConfig.model_validate(store_values(tmp_path, web={"tiers": tiers}))


async def test_switching_language_keeps_the_day(page: Page) -> None:
    html = (await page.get("/today?date=2026-03-13&lang=en"))[2]
    assert 'href="?date=2026-03-13&amp;lang=zh"' in html


PATHS = (*pages.PATHS, "/nowhere")


@pytest.mark.parametrize("path", PATHS)
async def test_pages_need_nothing_that_the_policy_forbids(service: Service, page: Page, path: str) -> None:
    fill(page.config)
    _, headers, html = await page.get(path)
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", html)
    for url in re.findall(r'(?:src|href|action|data-events)="([^"]*)"', html):
        assert url.startswith(("/", "?", "#")), url
        if url.startswith("/static/"):
            status, answer, _ = await page.get(url)
            assert status == 200
            assert "immutable" in answer["Cache-Control"]


async def test_a_public_holiday_has_its_name_in_both_languages(tmp_path: Path) -> None:
    values = store_values(tmp_path)
    values["store"]["holidays"] = "CN"
    config = StoreConfig.model_validate(values)
    day = Day(config, dt.date(2026, 2, 17))
    day.visit("a", "shoes", "08:00", 150, journey="08:00")
    day.covered("04:00", "28:00")
    day.watermark("33:00")
    day.conn.close()
    async with pages.serving(config) as page:
        for lang, name in (("en", "Spring Festival"), ("zh", "春节")):
            assert f"<span>{name}</span>" in (await page.get(f"/today?date=2026-02-17&lang={lang}"))[2]


async def test_today_before_anything_was_recorded(page: Page) -> None:
    status, _, html = await page.get("/today?lang=en")
    assert status == 200
    assert "No data has been recorded yet." in html
    assert not page.config.database.path.exists()
    assert (await page.get("/api/today"))[0] == 503
    Day(page.config).conn.close()
    assert "No data has been recorded yet." in (await page.get("/today?lang=en"))[2]


async def test_today_gives_numbers_with_n_coverage_and_as_of(page: Page) -> None:
    fill(page.config)
    html = (await page.get("/today?lang=en"))[2]
    assert re.search(r"<h1>Today <small>2026-03-14 · Saturday", html)
    shoes = html[html.index('data-zone="shoes"') :].split("</tr>")[0]
    assert 'data-label="n">6<' in shoes.replace(" <", "<")
    assert 'data-label="Median">3:00<' in shoes
    assert 'data-label="p75">4:50<' in shoes
    assert "<small>0 · 0 · 1 · 5</small>" in shoes
    bags = html[html.index('data-zone="bags"') :].split("</tr>")[0]
    assert "unknown: no reader up" in bags
    assert 'data-label="n"' not in bags
    assert html.count('data-hour="09" data-state="unknown"') == 4
    assert html.count('data-hour="13" data-state="future"') == 4
    flows = json.loads(re.search(r'data-flows="([^"]*)"', html)[1].replace("&#34;", '"'))  # type: ignore[index]
    assert flows == {"labels": ["Door", "Shoes"], "floors": [0, 0], "from": [0], "to": [1], "n": [6]}
    assert html.count("as of</span>") + html.count("as of 12:00") >= 5
    assert "footfall" not in html.lower()


async def test_today_tells_what_doors_counted_and_how_much_was_watched(tmp_path: Path) -> None:
    values = store_values(tmp_path)
    values["readers"][0]["inputs"] = [{"port": 1, "zone": "door"}, {"port": 2, "zone": "shoes"}]
    config = StoreConfig.model_validate(values)
    fill(config)
    day = Day(config)
    for window in ("10:00", "10:15"):
        day.door("door", window, 700)
    day.conn.close()
    async with pages.serving(config) as page:
        html = (await page.get("/today?lang=en"))[2]
    (doors,) = re.findall(r'<p class="basis doors">(.*?)</p>', html)
    # Of the windows since 04:00 two were watched; what nobody watched is no zero.
    assert doors == "<b>Door counters</b><span>Door: 1,400 · coverage 6 %</span><span>Shoes: – · coverage 0 %</span>"


async def test_what_was_tried_is_told_even_if_it_proves_nothing(tmp_path: Path) -> None:
    tried = {"id": "spring", "name": "Spring", "zones": ["shoes"], "first_day": DATE, "last_day": DATE}
    moved = {"id": "move", "name": {"zh": "搬迁", "en": "The move"}, "zones": ["books"], "date": DATE}
    values = store_values(tmp_path, promotions=[tried], layout_changes=[moved])
    config = StoreConfig.model_validate(values)
    fill(config)
    async with pages.serving(config) as page:
        for path, name in (("/promotions", "Spring"), ("/layout", "The move")):
            status, _, html = await page.get(f"{path}?lang=en")
            assert status == 200
            assert f">{name} <small>" in html
            assert "not enough data" in html


def text_of(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


async def test_all_numbers_of_a_page_are_of_the_days_that_were_chosen(page: Page) -> None:
    for date, people in ((DATE - dt.timedelta(days=1), 50), (DATE, 40)):
        day = Day(page.config, date)
        for i in range(people):
            day.visit(f"{date}{i}", "door", f"08:{i}", 10, journey=f"08:{i}")
            day.visit(f"{date}{i}", "shoes", f"08:{i}:20", 150, journey=f"08:{i}")
        day.covered("04:00", "28:00")
        day.watermark("33:00")
        day.conn.close()
    for days, n in ((1, 40), (7, 90)):
        query = f"date={DATE}&days={days}&lang=en"
        html = (await page.get(f"/counters?{query}"))[2]
        card = text_of(html[html.index('<section class="card" id="shoes"') :].split("</section>")[0])
        assert f"n = {n} " in card
        assert f"Engaged {n} " in card
        assert f"Came from Door {n}" in card
        assert set(re.findall(r"n = (\d+)", card)) - {"0"} == {str(n)}
        html = (await page.get(f"/flows?{query}"))[2]
        assert set(re.findall(r"n = (\d+)", text_of(html))) == {str(n)}
        assert f'<td class="lv4">{n}</td>' in html
        drawn = re.search(r'data-flows="([^"]*)"', html)
        assert drawn is not None
        assert json.loads(unescape(drawn[1]))["n"] == [n]
        rows = json.loads((await page.get(f"/api/tables/flows?{query}"))[2])["rows"]
        assert [row["n"] for row in rows] == [n]
        for href in re.findall(r'href="(/export/[^"]*)"', html):
            assert ("days=7" in href) == (days == 7)
        assert re.search(rf'<b>{n}</b> <small>100 %</small></span><span class="route"><i>Door</i><i>Shoes</i>', html)
        html = (await page.get(f"/today?{query}"))[2]
        assert f"Journeys {n} " in text_of(html)
        assert f"Ground n = {n} " in text_of(html[html.index('id="traffic"') :])
        assert 'data-hour="08" data-state="measured"' in html
        assert re.search(rf'data-zone="shoes">.*?data-label="n">{n}</td>', html, re.DOTALL)
        drawn = re.search(r'data-flows="([^"]*)"', html)
        assert drawn is not None
        assert json.loads(unescape(drawn[1]))["n"] == [n]
        staffing = (await page.get(f"/service?{query}"))[2].split('data-staffed="shoes">')[1].split("</tr>")[0]
        assert f'<td class="sum">{n}</td>' in staffing


async def test_days_are_kept_from_page_to_page(page: Page) -> None:
    fill(page.config)
    for query, kept in (
        ("", ""),
        ("days=7", "?days=7"),
        ("days=28&date=2026-03-10&against=year", "?date=2026-03-10&amp;days=28&amp;against=year"),
        ("from=2026-03-01&date=2026-03-14", "?from=2026-03-01&amp;date=2026-03-14"),
        ("from=2026-03-08&date=2026-03-14", "?days=7"),
        ("days=month&date=2026-02-10", "?date=2026-02-28&amp;days=month"),
    ):
        for path in ("/", "/today", "/counters", "/flows", "/promotions", "/members", "/service", "/quality"):
            html = (await page.get(f"{path}?{query}&lang=en"))[2]
            nav = html.split('aria-label="Pages"')[1].split("</nav>")[0]
            assert set(re.findall(r'href="/\w*(\??[^"]*)"', nav)) == {kept}, (path, query)
            for href in re.findall(r'href="/export/[^?"]*\?([^"]*)"', html.split("<main")[1]):
                told = dict(parse_qsl(unescape(kept[1:])))
                assert dict(parse_qsl(unescape(href))) == {"date": str(DATE), "lang": "en", **told}, (path, query)
    for bad in ("days=0", "days=365", "days=week", "from=2024-01-01", "from=soon", "against=mine"):
        for path in ("/counters", "/export/counters.csv", "/api/tables/counters"):
            assert (await page.get(f"{path}?{bad}"))[0] == 400, (path, bad)


async def test_days_are_shown_beside_those_they_are_compared_with(page: Page) -> None:
    for back in range(14):
        day = Day(page.config, DATE - dt.timedelta(days=back))
        for i in range(50 if back < 7 else 40):
            day.visit(f"{back}-{i}", "shoes", f"08:{i}", 150 if i % 2 else 40, journey=f"08:{i}")
        day.covered("04:00", "28:00", bags=0.2)
        if not back:
            day.watermark("33:00")
        day.conn.close()
    html = (await page.get(f"/today?date={DATE}&days=7&against=before&lang=en"))[2]
    assert "compared with 2026-03-01 – 2026-03-07" in text_of(html)
    assert "Journeys 350 +25 % +7 % … +46 %" in text_of(html)
    counters = (await page.get(f"/counters?date={DATE}&days=7&against=before&lang=en"))[2]
    shoes = text_of(counters.split('<tr data-zone="shoes">')[1].split("</tr>")[0])
    assert "+25 %" in shoes
    assert "+0.0 pp" in shoes
    rows = json.loads((await page.get(f"/api/tables/against?date={DATE}&days=7&against=before"))[2])["rows"]
    visits = {row["id"]: row for row in rows if row["measure"] == "visits"}
    assert (visits["shoes"]["value"], visits["shoes"]["value_before"], visits["shoes"]["pairs"]) == (350, 280, 7)
    assert "bags" not in visits
    assert "no public holiday in these days" in (await page.get(f"/today?date={DATE}&against=holiday&lang=en"))[2]
    assert "nothing to compare with" in (await page.get(f"/today?date={DATE}&against=year&lang=en"))[2]


async def test_waiting_is_told_only_of_zones_where_people_are_served(tmp_path: Path) -> None:
    values = store_values(tmp_path)
    values["zones"][2]["kind"] = "checkout"  # bags
    config = StoreConfig.model_validate(values)
    day = Day(config)
    for zone, badge in (("shoes", "a"), ("bags", "b"), ("hall", "c")):
        for i in range(40):
            day.visit(f"{zone}{i}", zone, f"08:{i}", 150)
        day.visit(badge, zone, "08:00", 7200, cls="staff")
    day.covered("04:00", "12:00")
    day.watermark("12:00")
    day.conn.close()
    async with pages.serving(config) as page:
        html = (await page.get(f"/service?date={DATE}&lang=en"))[2]
        told = json.loads((await page.get(f"/api/tables/service?date={DATE}"))[2])["rows"]
    assert re.findall(r'<tr data-zone="(\w+)"', html) == ["shoes", "books"]
    staffing = html.split('id="staffing"')[1].split("</table>")[0]
    rows = [text_of(name) for name in re.findall(r'<th scope="row">(.*?)</th>', staffing)]
    assert rows == ["Ground", "Shoes", "2", "=Books()"]
    assert {row["zone"]: (row["wanted"], row["visits_per_staffed_hour"]) for row in told if row["staffed"]} == {
        "shoes": (40, 20.0),
        "bags": (None, 20.0),
        "hall": (None, 20.0),
    }


async def test_need_that_nobody_served_is_the_loudest_cell(page: Page) -> None:
    day = Day(page.config)
    for zone, hour, people in (("shoes", 8, 40), ("shoes", 9, 30), ("bags", 9, 7), ("books", 9, 5)):
        for i in range(people):
            day.visit(f"{zone}{hour}{i}", zone, f"{hour}:{i:02}", 150)
    day.visit("badge", "shoes", "08:00", 3600, cls="staff")
    day.visit("badge", "books", "09:00", 600, cls="staff")  # too short to have served an hour's visits
    day.covered("04:00", "12:00")
    day.watermark("12:00")
    day.conn.close()
    html = (await page.get(f"/service?date={DATE}&lang=en"))[2]
    table = html.split('class="grid staffing"')[1].split("</table>")[0]
    rows = dict(re.findall(r'data-staffed="(\w+)">(.*?)</tr>', table, re.DOTALL))
    red = {
        name: [text_of(cell) for cell in re.findall(r'<td class="unserved">(.*?)</td>', row)]
        for name, row in rows.items()
    }
    sums = {
        name: [text_of(cell) for cell in re.findall(r'<td class="sum[^"]*">(.*?)</td>', row)]
        for name, row in rows.items()
    }
    assert list(rows) == ["F1", "shoes", "bags", "F2", "books"]
    assert red == {
        "F1": [],
        "shoes": ["30! without staff"],
        "bags": ["7! without staff"],
        "F2": [],
        "books": ["5! without staff"],
    }
    assert sums == {
        "F1": ["77", "37"],
        "shoes": ["70", "30"],
        "bags": ["7", "7"],
        "F2": ["5", "5"],
        "books": ["5", "5"],
    }
    assert re.search(r'class="lv4">40<', rows["shoes"])


async def test_a_day_on_which_the_store_is_closed_is_not_one_without_antennas(tmp_path: Path) -> None:
    config = StoreConfig.model_validate(store_values(tmp_path, special_days=[{"date": DATE}]))
    fill(config)
    async with pages.serving(config) as page:
        html = (await page.get("/quality?lang=en"))[2]
    assert html.count("not covered by any antenna") == 1
    shoes = html[html.index('<tr data-zone="shoes"') :].split("</tr>")[0]
    assert [cell.strip() for cell in re.findall(r"<td[^>]*>([^<]*)</td>", shoes)] == ["–", "6", "0"]


async def test_other_days(page: Page) -> None:
    fill(page.config)
    assert "No reader was up on this day." in (await page.get("/today?lang=en&date=2026-03-13"))[2]
    assert "This day is in the future." in (await page.get("/today?lang=en&date=2026-03-15"))[2]
    for bad in ("yesterday", "2026-02-30", "0001-01-01", "9999-12-31"):
        status, _, html = await page.get(f"/today?lang=en&date={bad}")
        assert status == 400
        assert "Invalid request." in html
        status, _, text = await page.get(f"/api/today?date={bad}")
        assert status == 400
        assert bad in json.loads(text)["error"]


async def test_api(page: Page) -> None:
    fill(page.config)
    told = json.loads((await page.get(f"/api/today?date={DATE}"))[2])
    assert told["visits"] == 13
    assert next(zone for zone in told["zones"] if zone["zone"] == "shoes")["median_s"] == pytest.approx(180, rel=0.049)
    assert (await page.get("/api/today", method="POST"))[0] == 405


async def test_a_damaged_database_is_told(page: Page) -> None:
    page.config.database.path.write_bytes(b"no database, only something as long as one" * 200)
    status, _, html = await page.get("/today?lang=en")
    assert status == 400
    assert "cannot read the database" in html


async def test_another_sites_name_is_refused_on_loopback(page: Page) -> None:
    assert (await page.get("/", Host="evil.example"))[0] == 400
    for own in ("localhost:80", "127.0.0.1", f"[::1]:{page.port}"):
        assert (await page.get("/", Host=own))[0] == 200


async def test_answers_are_compressed_but_streams_are_not(service: Service, page: Page) -> None:
    def ask(path: str) -> str | None:
        with closing(http.client.HTTPConnection("127.0.0.1", page.port, timeout=20)) as connection:
            connection.request("GET", path, headers={"Accept-Encoding": "gzip"})
            return connection.getresponse().headers["Content-Encoding"]

    assert await asyncio.to_thread(ask, "/") == "gzip"
    assert await asyncio.to_thread(ask, "/events") is None


def test_the_page_needs_neither_numpy_nor_plotly_in_memory() -> None:
    large = ("numpy", "numba", "plotly", "aiomqtt", "sync.contract")
    look = f"import sys, edge.web.serve; print([m for m in {large} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", look], text=True).strip() == "[]"


def test_a_port_in_use_is_told(config: StoreConfig) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        busy = config.model_copy(update={"web": config.web.model_copy(update={"listen": listen})})
        with pytest.raises(Trouble, match=rf"cannot listen on {listen}: .*; choose another \[web\] listen"):
            serve(busy, fd=None, clock=Clock())


async def test_the_process_serves_an_inherited_socket_and_stops_at_once(tmp_path: Path, config: StoreConfig) -> None:
    file = tmp_path / "store.toml"
    file.write_text(tomli_w.dumps(store_values(tmp_path)))
    listening = socket.create_server(("127.0.0.1", 0))
    arguments = ["-m", "edge.web", "--config", str(file), "--fd", str(listening.fileno())]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, pass_fds=[listening.fileno()], stderr=subprocess.PIPE
    )
    page = Page(config, LiveClient(Path()), listening.getsockname()[1])
    listening.close()
    try:
        stream = page.events()
        assert (await anext(stream))[0] == "regions"
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            _, errors = await process.communicate()
        assert (process.returncode, errors) == (0, b"")
        await stream.aclose()
    finally:
        if process.returncode is None:
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()


async def test_both_ends_speak_the_same_socket(service: Service) -> None:
    told = await read_once(service.path)
    assert told is not None
    assert told["zones"][1]["people"] == 4
