"""What the live page shows of the store and of the gateway, and what is sent to it."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pages
import pytest
from pages import NOON_US, Page, Service, fill, text_of
from shopdays import store_values

from config import StoreConfig
from edge.access.users import Role, Users, users_path
from edge.store.live_socket import socket_path
from edge.store.live_state import State

config, page, service, cheap_passwords = pages.config, pages.page, pages.service, pages.cheap_passwords

PASSWORD = "correct horse battery"

PATHS = (*pages.PATHS, "/nowhere")


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


@pytest.mark.parametrize(
    ("standby", "said", "chinese"),
    [
        ({"link": "up", "protected": True}, "before it leaves the store", "离开门店之前"),
        (
            {"link": "connecting", "protected": False, "reason": "the standby is being brought up to date"},
            "is being brought up to date",
            "正在同步",
        ),
        (
            {
                "link": "down",
                "protected": False,
                "reason": "the standby has stopped answering",
                "witness": {"valid": False, "reason": "the witness does not answer"},
            },
            "Nothing is sent to the CRM",
            "暂停向 CRM 发送数据",
        ),
    ],
)
async def test_whether_the_standby_has_everything_is_told(
    service: Service, page: Page, standby: dict[str, object], said: str, chinese: str
) -> None:
    await page.until(State.LIVE)
    assert "Standby" not in text_of((await page.get("/readers"))[2])
    service.told["standby"] = standby | {"since_us": NOON_US - 60_000_000}
    async with asyncio.timeout(15):
        while (now := page.live.now) is None or now.standby is None:
            await page.live.wait(page.live.version, 1)
    for lang, wanted in (("en", said), ("zh", chinese)):
        html = (await page.get("/readers", Cookie=f"lang={lang}"))[2]
        assert wanted in text_of(html)
        assert f'data-link="{standby["link"]}"' in html
        assert str(standby.get("reason", "")) in text_of(html) or lang == "zh"


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
    while name != "beat":  # rates need a second state
        name, _ = await anext(stream)
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


async def test_what_was_told_to_the_crm_is_a_click_from_now(service: Service, page: Page) -> None:
    service.told["outbox"] = {"member": {"sent": 400, "pending": 0}, "journey": {"sent": 900, "pending": 34}}
    await page.until(State.LIVE)
    assert 'href="/quality#crm"' in (await page.get("/?lang=en"))[2]
    html = (await page.get("/quality?lang=en"))[2]
    text = html_text(html)
    assert "The CRM has confirmed 1,266 of 1,300 events. 34 are still to be confirmed." in text
    assert re.search(r"created *confirmed *waiting.*journeys *900 *866 *34", text)
    table = html[html.index('id="crm"') :].partition("</table>")[0]
    assert re.findall(r'<rect width="([\d.]+)%"', table) == ["100.0", "96.2"]
    assert "CRM 已确认 1,300 条事件中的 1,266 条。" in (await page.get("/quality?lang=zh"))[2]


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
