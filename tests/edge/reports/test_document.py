"""The digest as a document: by command and by page, in both languages, self-contained and for one sheet."""

from __future__ import annotations

import datetime as dt
import re
from html.parser import HTMLParser

import forked
import pages
import pytest
import tomli_w
from pages import Page
from shopdays import DATE, Day, busy

from config import StoreConfig

config, page = pages.config, pages.page


class Whole(HTMLParser):
    """Checks that every element that is opened is closed, and collects addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def fill(config: StoreConfig) -> None:
    day = Day(config)
    for back in range(8):
        busy(day, -back, people=40 if back == 0 else 30)
        day.covered(f"{4 - 24 * back}:00", f"{28 - 24 * back}:00", bags=0)
    day.watermark("33:00")
    day.conn.close()


@pytest.mark.parametrize(("lang", "title"), [("en", "Digest of the day"), ("zh", "每日简报")])
async def test_the_page_has_the_digest_as_a_document(page: Page, lang: str, title: str) -> None:
    fill(page.config)
    status, headers, html = await page.get(f"/digest?date={DATE}&lang={lang}")
    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    whole = Whole()
    whole.feed(html)
    assert (whole.open, whole.addresses) == ([], ["/static/document.css"])
    assert "style=" not in html, "the page's policy allows none"
    assert title in html
    assert "<dd>40</dd>" in html
    assert "<dd>0 % <small>(0 % … 5 %)</small></dd>" in html
    assert html.count("<section>") == 4
    assert len(re.findall("<li>", html.split('class="says"')[1].split("</ul>")[0])) == 3
    assert "30<br><small>/ 30</small>" in html or "40<br><small>/ 40</small>" in html, "nobody was met"
    assert (await page.get("/static/document.css"))[2].count("@page") == 1
    assert f'href="/digest?date={DATE}"' in (await page.get(f"/today?date={DATE}&lang={lang}"))[2]
    assert (await page.get(f"/digest?date={DATE}&days=28"))[0] == 400
    assert "<dd>220</dd>" in (await page.get(f"/digest?date={DATE}&days=7&lang={lang}"))[2]
    dark = (await page.get(f"/digest?date={DATE - dt.timedelta(days=60)}&lang=en"))[2]
    assert "Nothing is known of these days" in dark


def test_the_command_prints_a_file_that_needs_nothing_else(config: StoreConfig) -> None:
    fill(config)
    file = config.database.path.with_name("store.toml")
    values = config.model_dump(mode="json", exclude_unset=True, exclude_none=True, by_alias=True)
    file.write_text(tomli_w.dumps(values), encoding="utf-8")
    printed = forked.run("summary", "--digest", "week", "--html", "--config", file)
    assert printed.returncode == 0, printed.stderr
    whole = Whole()
    whole.feed(printed.stdout)
    assert (whole.open, whole.addresses) == ([], [])
    assert "@page { size: A4" in printed.stdout
    assert f"{DATE - dt.timedelta(days=6)} – {DATE}" in printed.stdout, "up to the last day that is over"
    for wrong in (("--html",), ("--digest", "day", "--html", "--json")):
        refused = forked.run("summary", *wrong, "--config", file)
        assert refused.returncode == 2
        assert "--html" in refused.stderr
