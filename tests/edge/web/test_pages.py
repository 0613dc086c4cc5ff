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
from pathlib import Path

import pages
import pytest
import tomli_w
from pages import Page, Service, fill
from shopdays import DATE, Day, store_values

from config import StoreConfig
from edge.store.clock import Clock
from edge.store.errors import Trouble
from edge.store.live_socket import read_once
from edge.store.live_state import LiveClient
from edge.web.serve import serve

config, page, service, cheap_passwords = pages.config, pages.page, pages.service, pages.cheap_passwords


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
