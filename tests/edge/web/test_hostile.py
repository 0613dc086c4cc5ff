"""Every date, number and choice that a page or the API takes, with values that none of them means: refused, never an
error of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

import pages
import pytest
from pages import Page, fill
from shopdays import DATE
from starlette.datastructures import QueryParams
from starlette.routing import Route
from thorough import some

from config import StoreConfig
from edge.access.users import Role, Users, users_path
from edge.days.period import PARAMETERS
from edge.store.clock import Clock
from edge.store.live_socket import socket_path
from edge.store.live_state import LiveClient
from edge.web import site
from edge.web.app import create_app
from edge.web.exports.tables import TABLES
from edge.web.gate import COOKIE

PASSWORD = "correct horse battery"
config, page, service, cheap_passwords = pages.config, pages.page, pages.service, pages.cheap_passwords
DATES = ("9999-12-31", "9999-01-01", "0001-01-01", "1970-01-01", "1999-12-31", "2100-01-01", "2026-02-30", "2026-13-01")
NUMBERS = ("-1", "0", "1.5", "1e9", "NaN", "inf", "9" * 400, str(2**63), str(2**31), "٣", "1 ", "+1")
TEXTS = (
    " ",
    "x",
    "\0",
    "%",
    "../../etc/passwd",
    "'",
    '"><b>',
    "\ud7ff",
    "😀" * 50,
    "a,b",
    "members,,status",
    "None",
    "[]",
)
HOSTILE = (*DATES, *NUMBERS, *TEXTS)
DOINGS = (*HOSTILE, *(f"{value} done" for value in NUMBERS), *(f"1 snooze {value}" for value in NUMBERS))
EDGES = ("2000-01-01", "2099-12-31", "2026-03-29", "2026-10-25")
"""Dates that there are: nothing was recorded, but that's an answer."""
STREAM = "/events"
WORDLESS = ("/", "/today", "/service", "/login", "/static/app.css", "/api/now", "/api/openapi.json")


def routes(config: StoreConfig) -> Iterator[tuple[str, str]]:
    """Method and path of everything, the tables one by one."""
    app = create_app(config, LiveClient(socket_path(config)), Clock(), ["*"])
    for route in app.routes:
        assert isinstance(route, Route)
        method = "POST" if "POST" in (route.methods or ()) else "GET"
        names = TABLES if "{table}" in route.path else ("app.css",)
        yield from ((method, re.sub(r"\{\w+\}", name, route.path)) for name in names)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of parameters that a page has looked at."""
    names: set[str] = set()
    get = QueryParams.get

    def noting(self: QueryParams, key: str, default: Any = None) -> Any:
        names.add(key)
        return get(self, key, default)

    monkeypatch.setattr(QueryParams, "get", noting)
    return names


@pytest.fixture
def fields(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of form fields that a page has looked at."""
    names: set[str] = set()

    class Noting(dict[str, str]):
        def get(self, key: str, default: Any = None) -> Any:
            names.add(key)
            return super().get(key, default)

        def __getitem__(self, key: str) -> str:
            names.add(key)
            return super().__getitem__(key)

        def __contains__(self, key: object) -> bool:
            names.add(str(key))
            return super().__contains__(key)

        def items(self) -> Any:
            names.update(self)
            return super().items()

    monkeypatch.setattr(site, "dict", Noting, raising=False)
    return names


@pytest.fixture
def cookies(config: StoreConfig) -> Iterator[dict[Role, tuple[str, str]]]:
    """Role → cookie, and the token of its forms."""
    users = Users(users_path(config))
    found = {}
    for role in Role:
        users.put(f"one-{role}", role, PASSWORD)
        token = users.log_in(f"one-{role}", PASSWORD, "a") or ""
        session = users.session(token)
        assert session is not None
        found[role] = (f"{COOKIE}={token}", session.csrf)
    yield found
    users.close()


@pytest.mark.timeout(400)  # every page with every odd value
async def test_pages_refuse_what_is_no_date_or_choice(
    service: object, page: Page, config: StoreConfig, asked: set[str], cookies: dict[Role, tuple[str, str]]
) -> None:
    fill(config)
    await page.until(pages.State.LIVE)
    refused: set[tuple[str, str]] = set()
    for path in [path for method, path in routes(config) if method == "GET"]:
        for role, (cookie, _) in cookies.items():
            asked.clear()
            plain = STREAM in path or (await page.load(path, Cookie=cookie))[0]
            if plain == 403:
                continue
            for name in {"parts"} if path == STREAM else asked - {"lang", "v", "said", "next"}:
                shown = role is Role.MANAGER and path[:5] not in ("/api/", "/expo")
                values = some(HOSTILE, path + name) if shown else HOSTILE[::11]
                if name in PARAMETERS and name in {tried for _, tried in refused}:
                    values = ("x",)  # one module parses them for all
                for value in values:
                    status, *_ = await page.load(f"{path}?{name}={quote(value)}", Cookie=cookie)
                    good = name == "before" and value in ("0", str(2**31))
                    assert status == 200 if good else status in (400, 404), (path, role, name, value, status)
                    refused.add((path, name))
                for value in EDGES if name == "date" and path in pages.PATHS else ():
                    status, *_ = await page.load(f"{path}?{name}={value}", Cookie=cookie)
                    assert status == 200, (path, role, value)
    assert {("/today", "date"), ("/counters", "days"), ("/audit", "before"), (STREAM, "parts")} <= refused
    assert {(f"/api/tables/{name}", "date") for name in TABLES} <= refused


async def test_what_only_chooses_words_is_ignored(page: Page) -> None:
    for value in HOSTILE:
        for name in ("lang", "said", "next", "v", "made-up"):
            for path in some(WORDLESS, value + name):
                status, *_ = await page.get(f"{path}?{name}={quote(value)}")
                assert status in (200, 303), (path, name, value)
        status, *_ = await page.get(f"/{quote(value, safe='')}")
        assert status in (400, 404), value
        for path in ("/api/tables/", "/export/", "/static/"):
            status, *_ = await page.get(f"{path}{quote(value, safe='')}")
            assert status == 404, (path, value)


async def test_forms_refuse_it_too(
    service: object, page: Page, config: StoreConfig, fields: set[str], cookies: dict[Role, tuple[str, str]]
) -> None:
    fill(config)
    good = {
        "date": str(DATE),
        "ref": "0" * 32,
        "tag": "00" * 16,
        "verdict": "clear",
        "cue": "1",
        "act": "1 done",
        "from": str(DATE),
    }
    good |= {"base": "1", "to": "1", "do": "try", "what": "w", "zone": "shoes", "note": "n", "name": "li", "next": "/"}
    good |= {"held": "/service/cue", "held-act": "1 done", "back": "/", "pin": "2580", "again": "2580"}
    good |= {
        "rule-0-id": "r",
        "rule-0-kind": "waiting",
        "rule-0-wait": "60",
        "rule-0-expires": "60",
        "quiet-0-begin": "1",
    }
    templates = "".join(file.read_text("utf-8") for file in files("edge.web").joinpath("templates").iterdir())
    of_forms = set(re.findall(r'<(?:input|select|textarea|button)[^>]*\sname="([a-z]+)"', templates))
    assert of_forms - {"csrf", "days", "password"} <= set(good), "a field that is not tried"
    looked_at: set[tuple[str, str]] = set()

    async def post(path: str, cookie: str, csrf: str, **odd: str) -> int:
        body = urlencode({**good, **odd, "csrf": csrf})
        kind = "application/x-www-form-urlencoded"
        status, *_ = await page.get(path, "POST", body, Cookie=cookie, Content_Type=kind)
        return int(status)

    for path in [path for method, path in routes(config) if method == "POST" and path != "/logout"]:
        for role, (cookie, csrf) in cookies.items():
            fields.clear()
            tried: set[str] = set()
            await post(path, cookie, csrf)
            while left := sorted(fields & good.keys() - tried):
                name = left[0]
                tried.add(name)
                values = some(DOINGS if name == "act" else HOSTILE, path + name)
                for value in values if role is Role.MANAGER else HOSTILE[::11]:
                    status = await post(path, cookie, csrf, **{name: value})
                    assert status < 500, (path, role, name, value)
            looked_at |= {(path, name) for name in tried}
    assert {("/members/look", "date"), ("/quality/verdict", "verdict"), ("/service/cue", "act")} <= looked_at
    assert {name for _, name in looked_at} == good.keys()
    for path in ("/members/look", "/quality/verdict"):
        for value in DATES:
            assert await post(path, *cookies[Role.MANAGER], date=value) == 400
