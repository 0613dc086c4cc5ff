"""Who gets in: over real sockets, with cookies, forms and certificates."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlencode

import pages
import pytest
import tomli_w
from pages import Page, Service, serving
from shopdays import store_values
from visitors import PASSWORD, cookie_of, log_in

from config import StoreConfig
from edge.access.users import FREE_TRIES, IDLE_S, Role, Users, users_path
from edge.store.errors import Trouble
from edge.web import patience
from edge.web.serve import serve

config, page, service, cheap_passwords = pages.config, pages.page, pages.service, pages.cheap_passwords


@pytest.fixture
def users(config: StoreConfig) -> Users:
    users = Users(users_path(config))
    users.put("li", Role.MANAGER, PASSWORD)
    users.put("wall", Role.VIEWER, PASSWORD)
    users.put("chen", Role.IT, PASSWORD)
    return users


async def test_without_users_loopback_is_open_for_viewers_and_says_so(page: Page) -> None:
    status, _, html = await page.get("/?lang=en")
    assert status == 200
    assert "No user has been created yet" in html


async def test_without_users_the_network_gets_only_how_to_make_one(config: StoreConfig) -> None:
    async with serving(config, ["*"]) as page:
        for path in ("/", "/today", "/api/today", "/events"):
            status, _, html = await page.get(f"{path}?lang=en")
            assert status == 403
            assert "tagtrail users set" in html
            assert "polygon" not in html


async def test_with_users_nothing_is_shown_to_strangers(users: Users, page: Page) -> None:
    for path in ("/", "/today", "/about", "/nowhere"):
        status, headers, _ = await page.get(path)
        assert (status, headers["Location"]) == (303, f"/login?next={path}")
    for path in ("/events", "/api/now", "/api/today"):
        assert (await page.get(path))[0] == 401
    assert (await page.get("/static/app.css"))[0] == 200


async def test_a_page_that_was_open_closes_when_the_first_user_is_made(page: Page, config: StoreConfig) -> None:
    assert (await page.get("/"))[0] == 200
    Users(users_path(config)).put("li", Role.MANAGER, PASSWORD)
    assert (await page.get("/"))[0] == 303


async def test_log_in_and_out(users: Users, page: Page) -> None:
    status, place, cookie = await log_in(page, "li")
    assert (status, place) == (303, "/today")
    status, _, html = await page.get("/?lang=en", Cookie=f"tagtrail={cookie}")
    assert status == 200
    assert "<b>li</b> <small>manager</small>" in html
    csrf = re.search(r'action="/logout"><input type="hidden" name="csrf" value="([^"]+)"', html)
    assert csrf is not None
    assert (await page.get("/logout", "POST", "csrf=guess", Cookie=f"tagtrail={cookie}"))[0] == 403
    assert (await page.get("/logout", "POST", urlencode({"csrf": csrf[1]}), Cookie=f"tagtrail={cookie}"))[0] == 303
    assert (await page.get("/", Cookie=f"tagtrail={cookie}"))[0] == 303
    assert [line.action for line in users.audit()] == ["logout", "watched members", "login"]


async def test_cookies_are_out_of_reach_of_scripts_and_other_sites(users: Users, page: Page) -> None:
    _, headers, _ = await page.get("/login")
    form = cookie_of(headers, "tagtrail-form")
    fields = urlencode({"csrf": form, "name": "li", "password": PASSWORD})
    _, headers, _ = await page.get("/login", "POST", fields, Cookie=f"tagtrail-form={form}")
    for line in headers.get_all("Set-Cookie") or []:
        if not line.startswith("tagtrail-form="):
            assert "HttpOnly" in line
            assert "SameSite=lax" in line


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
async def test_forms_of_other_sites_are_refused(users: Users, page: Page, headers: dict[str, str]) -> None:
    _, _, cookie = await log_in(page, "li")
    assert (await page.get("/logout", "POST", "", Cookie=f"tagtrail={cookie}", **headers))[0] == 403
    assert (await page.get("/", Cookie=f"tagtrail={cookie}"))[0] == 200


async def test_a_login_form_without_its_cookie_is_refused(users: Users, page: Page) -> None:
    fields = urlencode({"csrf": "x", "name": "li", "password": PASSWORD})
    for cookie in ("", "tagtrail-form=y"):
        status, headers, _ = await page.get("/login", "POST", fields, Cookie=cookie)
        assert status == 403
        assert cookie_of(headers, "tagtrail") == ""


async def test_wrong_passwords_are_refused_then_throttled_and_written_down(users: Users, page: Page) -> None:
    for _ in range(FREE_TRIES):
        assert (await log_in(page, "li", "wrong wrong wrong"))[0] == 403
    assert (await log_in(page, "li"))[0] == 429
    assert (await log_in(page, "wall"))[0] == 303, "others at the same address may"
    assert (await log_in(page, "li"))[0] == 429, "and buy nobody a guess by that"
    actions = [line.action for line in users.audit()]
    assert actions == ["login", "login throttled", *["login failed"] * FREE_TRIES], "one line however often one tries"


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/a\nb"]
)
async def test_after_the_login_nobody_is_sent_to_another_site(users: Users, page: Page, target: str) -> None:
    _, headers, _ = await page.get("/login")
    form = cookie_of(headers, "tagtrail-form")
    fields = urlencode({"csrf": form, "name": "li", "password": PASSWORD, "next": target})
    _, headers, _ = await page.get("/login", "POST", fields, Cookie=f"tagtrail-form={form}")
    assert headers["Location"] == "/"


async def test_programs_use_basic(users: Users, page: Page) -> None:
    def basic(name: str, password: str) -> str:
        return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()

    assert (await page.get("/api/now", Authorization=basic("wall", PASSWORD)))[0] == 200
    assert (await page.get("/api/now", Authorization=basic("wall", "wrong wrong wrong")))[0] == 401
    assert (await page.get("/", Authorization=basic("wall", PASSWORD)))[0] == 303
    users.put("wall", Role.VIEWER, "another horse battery")
    assert (await page.get("/api/now", Authorization=basic("wall", PASSWORD)))[0] == 401
    for bad in ("Basic !!!", "Basic /w==", "Bearer x", "Basic"):
        assert (await page.get("/api/now", Authorization=bad))[0] == 401
    while users.audit()[0].action != "login throttled":
        assert (await page.get("/api/now", Authorization=basic("li", "wrong wrong wrong")))[0] == 401
    assert {line.action for line in users.audit()} == {"login failed", "login throttled", "token refused"}


async def test_a_token_reads_figures_and_nothing_else(service: Service, users: Users, page: Page) -> None:
    token = users.make_token("reports")
    bearer = f"Bearer {token}"
    for path in (
        "/api/now",
        "/api/today",
        "/api/tables/counters",
        "/export/counters.csv",
        "/export/all.xlsx",
        "/metrics",
    ):
        assert (await page.load(path, Authorization=bearer))[0] in (200, 503), path
    told = (await page.get("/api/now", Authorization=bearer))[2]
    assert "4567" not in told, "no single members, not even masked"
    for path in ("/export/cues.csv", "/export/audit.csv", "/api/tables/suspects"):
        assert (await page.get(path, Authorization=bearer))[0] == 403, path
    for path in ("/", "/members", "/events", "/audit"):
        assert (await page.get(path, Authorization=bearer))[0] in (303, 401), path
    assert (await page.get("/service/cue", "POST", "cue=1", Authorization=bearer))[0] != 200
    used = [(line.name, line.role, line.object) for line in users.audit() if line.action == "token used"]
    assert ("token:reports", "viewer", "/api/now") in used
    assert len(used) == len(set(used)), "one line an hour"
    assert users.revoke_token("reports")
    for path in ("/api/now", "/export/counters.csv"):
        status, headers, text = await page.get(path, Authorization=bearer)
        assert status == 401
        assert "Bearer" in headers["WWW-Authenticate"]
        assert "revoked" in text
    assert [line.action for line in users.audit()].count("token refused") == 1


async def test_a_stream_ends_with_its_session(service: Service, users: Users, page: Page) -> None:
    _, _, cookie = await log_in(page, "wall")
    reader, writer = await asyncio.open_connection("127.0.0.1", page.port, limit=1 << 20)
    writer.write(f"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: tagtrail={cookie}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"200 OK" in head
    users.remove("wall")
    async with asyncio.timeout(30):
        assert await reader.read() is not None  # until the server ends it
    writer.close()


async def test_a_browser_that_is_known_lets_its_user_in_whatever_strangers_try(users: Users, page: Page) -> None:
    async def from_browser(password: str, device: str) -> tuple[int, str]:
        _, headers, _ = await page.get("/login")
        form = cookie_of(headers, "tagtrail-form")
        fields = urlencode({"csrf": form, "name": "li", "password": password})
        cookies = f"tagtrail-form={form}; tagtrail-device={device}"
        status, headers, _ = await page.get("/login", "POST", fields, Cookie=cookies)
        return status, cookie_of(headers, "tagtrail-device")

    status, device = await from_browser(PASSWORD, "")
    assert (status, len(device) > 20) == (303, True)
    for _ in range(FREE_TRIES):
        assert (await log_in(page, "li", "wrong wrong wrong"))[0] == 403
    assert (await log_in(page, "li"))[0] == 429
    assert (await from_browser(PASSWORD, device))[0] == 303
    assert (await from_browser(PASSWORD, "x" * len(device)))[0] == 429


async def test_cookies_are_renewed_as_long_as_the_page_is_used(service: Service, users: Users, page: Page) -> None:
    for name, days in (("wall", 30), ("li", 0.5)):
        _, _, cookie = await log_in(page, name)
        for path in ("/today", "/", "/api/today"):
            _, headers, _ = await page.get(path, Cookie=f"tagtrail={cookie}")
            assert cookie_of(headers, "tagtrail") == cookie, path
            assert f"Max-Age={days * 86_400:.0f}; " in headers["Set-Cookie"]
        reader, writer = await asyncio.open_connection("127.0.0.1", page.port)
        writer.write(f"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: tagtrail={cookie}\r\n\r\n".encode())
        assert f"tagtrail={cookie}".encode() in await reader.readuntil(b"\r\n\r\n")
        writer.close()
        _, headers, _ = await page.get("/static/app.css", Cookie=f"tagtrail={cookie}")
        assert "Set-Cookie" not in headers
    assert "Set-Cookie" not in (await page.get("/today", Cookie="tagtrail=made-up"))[1]


async def test_an_open_page_does_not_keep_a_manager_logged_in(
    service: Service, users: Users, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, cookie = await log_in(page, "li")
    reader, writer = await asyncio.open_connection("127.0.0.1", page.port, limit=1 << 20)
    writer.write(f"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: tagtrail={cookie}\r\n\r\n".encode())
    assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
    users._do("UPDATE session SET seen_s = seen_s - ?", (IDLE_S["manager"] + 1,))
    async with asyncio.timeout(30):
        await reader.read()  # until the server ends it
    writer.close()
    assert (await page.get("/events", Cookie=f"tagtrail={cookie}"))[0] == 401


@pytest.mark.parametrize("path", ["/", "/today", "/api/now", "/events", "/export/dwell.csv"])
async def test_once_there_was_a_user_loopback_is_closed_for_good(config: StoreConfig, users: Users, path: str) -> None:
    users.close()
    users_path(config).unlink()
    async with serving(config) as page:
        status, _, html = await page.get(path, Accept_Language="en")
        assert status == 403
        assert "damaged or missing" in html
        assert "tagtrail users set" in html


@pytest.mark.parametrize("host", ["localhost:/login?x=", "localhost/login?x=", "127.0.0.1/static/", "[::1]/login#"])
@pytest.mark.parametrize("path", ["/audit", "/api/now", "/events"])
async def test_the_door_goes_by_the_path_that_is_routed(users: Users, page: Page, host: str, path: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", page.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert (await reader.readline()).split()[1] in (b"303", b"400", b"401")
    writer.close()


# Behind a reverse proxy.

PUBLIC = "https://page.shop.example"


@pytest.fixture
async def proxied(tmp_path: Path) -> AsyncIterator[Page]:
    web = {"listen": "127.0.0.1:0", "public": PUBLIC}
    async with serving(StoreConfig.model_validate(store_values(tmp_path, web=web))) as page:
        yield page


@pytest.mark.parametrize("host", ["page.shop.example", "127.0.0.1"])
async def test_behind_a_proxy_people_log_in_under_the_public_name(proxied: Page, host: str) -> None:
    """Whether the proxy keeps the name that was asked for, or puts its own there."""
    users = Users(users_path(proxied.config))
    users.put("li", Role.MANAGER, PASSWORD)
    said = {"Host": host, "X_Forwarded_Proto": "https", "X_Forwarded_For": "10.9.8.7"}
    status, headers, _ = await proxied.get("/login", **said)
    assert status == 200
    form = cookie_of(headers, "tagtrail-form")
    fields = urlencode({"csrf": form, "name": "li", "password": PASSWORD})
    cookies = {"Cookie": f"tagtrail-form={form}"}
    for origin in ("https://evil.example", "http://page.shop.example"):
        assert (await proxied.get("/login", "POST", fields, **said, **cookies, Origin=origin))[0] == 403
    status, headers, _ = await proxied.get("/login", "POST", fields, **said, **cookies, Origin=PUBLIC)
    assert status == 303
    assert all("Secure" in line for line in headers.get_all("Set-Cookie") or [] if "tagtrail=" in line)
    assert [(line.action, line.address) for line in users.audit()] == [("login", "10.9.8.7")]


async def test_behind_a_proxy_the_page_is_open_to_nobody_without_users(proxied: Page) -> None:
    status, _, html = await proxied.get("/", Host="page.shop.example", Accept_Language="en")
    assert (status, "tagtrail users set" in html) == (403, True)
    assert (await proxied.get("/", Host="evil.example"))[0] == 400


async def test_only_a_proxy_is_believed_whom_it_asks_for(users: Users, page: Page, tmp_path: Path) -> None:
    for _ in range(2):
        await page.get("/api/now", Authorization="Basic bGk6eA==", X_Forwarded_For="10.9.8.7")
    assert {line.address for line in users.audit()} == {"127.0.0.1"}
    web = {"listen": "127.0.0.1:0", "public": PUBLIC, "proxies": ["192.0.2.1"]}
    config = StoreConfig.model_validate(store_values(tmp_path, web=web))
    async with serving(config) as elsewhere:
        await elsewhere.get("/api/now", Authorization="Basic bGk6eA==", X_Forwarded_For="10.9.8.7")
    assert {line.address for line in users.audit()} == {"127.0.0.1"}


async def test_a_damaged_users_file_shuts_the_page_until_users_are_set_anew(page: Page, config: StoreConfig) -> None:
    file = users_path(config)
    assert (await page.get("/"))[0] == 200, "open on loopback before there ever was a user"
    file.write_bytes(b"no database at all, but long enough to be looked at" * 99)
    status, _, text = await page.get("/")
    assert status == 503
    assert "Create the users again" in json.loads(text)["error"]
    assert file.with_name(f"{file.name}.corrupt-1").exists()
    for path in ("/", "/api/now", "/events"):
        status, _, text = await page.get(path, Accept_Language="en")
        assert status == 403
        assert "damaged or missing" in text
    Users(file).put("li", Role.MANAGER, PASSWORD)
    assert (await page.get("/"))[0] == 303


async def test_an_empty_users_file_does_not_open_the_page(page: Page, config: StoreConfig) -> None:
    """As a loss of power leaves it."""
    users_path(config).touch()
    assert (await page.get("/"))[0] == 403


async def test_with_a_certificate_the_page_speaks_https(tmp_path: Path) -> None:
    cert, key = tmp_path / "page.pem", tmp_path / "page.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    web = {"listen": "127.0.0.1:0", "cert": "page.pem", "key": "page.key"}
    file = tmp_path / "store.toml"
    file.write_text(tomli_w.dumps(store_values(tmp_path, web=web)))
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        port = listening.getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "edge.web", "--config", str(file), "--fd", str(listening.fileno())),
            pass_fds=[listening.fileno()],
        )
    try:

        def ask() -> tuple[int, str]:
            trust = ssl.create_default_context(cafile=str(cert))
            with closing(http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=trust)) as connection:
                connection.request("GET", "/login?lang=en")
                answer = connection.getresponse()
                return answer.status, answer.headers["Set-Cookie"]

        status, cookies = await asyncio.to_thread(ask)
        assert status == 303 or "Secure" in cookies
    finally:
        process.terminate()
        await process.wait()


def test_a_certificate_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "page.pem").write_text("nothing")
    web = {"listen": "127.0.0.1:0", "cert": str(tmp_path / "page.pem"), "key": str(tmp_path / "page.pem")}
    config = StoreConfig.model_validate(store_values(tmp_path, web=web))
    with pytest.raises(Trouble, match=r"certificate .* can't be used"):
        serve(config, fd=None, clock=pages.Noon())


async def test_who_sends_no_whole_request_is_hung_up_on(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "REQUEST_S", 0.3)
    half_reader, half = await asyncio.open_connection("127.0.0.1", page.port)
    half.write(b"GET /login HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
    _, idle = await asyncio.open_connection("127.0.0.1", page.port)
    assert await asyncio.wait_for(half_reader.read(), 30) == b""
    stream_reader, stream = await asyncio.open_connection("127.0.0.1", page.port)
    stream.write(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    for _ in range(3):  # beats, two seconds apart: who gets an answer is not idle
        assert b"event" in await asyncio.wait_for(stream_reader.readuntil(b"event"), 30)
    for writer in (half, idle, stream):
        writer.close()


async def test_nobody_takes_all_connections(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "CONNECTIONS", 2)
    monkeypatch.setattr(patience, "neighbour", lambda address: False)
    streams = [await asyncio.open_connection("127.0.0.1", page.port) for _ in range(2)]
    for reader, writer in streams:  # answers that go on: their places are taken
        writer.write(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
    reader, writer = await asyncio.open_connection("127.0.0.1", page.port)
    with suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 30) == b""
    for _, one in (*streams, (reader, writer)):
        one.close()
        with suppress(ConnectionError):
            await one.wait_closed()
    async with asyncio.timeout(30):
        while patience._open:
            await asyncio.sleep(0.01)
    assert (await page.get("/login"))[0] == 303


@pytest.mark.parametrize("remote", [True, False])
@pytest.mark.parametrize(
    "half",
    [b"", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: ", b"POST /login HTTP/1.1\r\nContent-Length: 99\r\n\r\nna"],
)
async def test_hundreds_of_half_sent_requests_keep_nobody_from_the_page(
    page: Page, monkeypatch: pytest.MonkeyPatch, half: bytes, remote: bool
) -> None:
    """Not even somebody at the same address, nor where they come from this machine or by way of a proxy."""
    monkeypatch.setattr(patience, "neighbour", lambda address: not remote)
    monkeypatch.setattr(patience, "_most", lambda: 100)
    held = []
    for n in range(400):
        held.append(await asyncio.open_connection("127.0.0.1", page.port))
        held[-1][1].write(half)
        if n % 50 == 0:
            assert (await asyncio.wait_for(page.get("/about"), 30))[0] == 200
    assert (await asyncio.wait_for(page.get("/about"), 30))[0] == 200
    assert len(patience._waiting) <= 100
    for _, writer in held:
        writer.transport.abort()


async def test_a_form_has_to_arrive(users: Users, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.web.site.FORM_S", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", page.port)
    writer.write(b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\nname=")
    assert (await asyncio.wait_for(reader.readline(), 30)).startswith(b"HTTP/1.1 408")
    writer.close()


async def test_a_form_that_is_cut_off_leaves_nothing_in_the_log(
    users: Users, page: Page, caplog: pytest.LogCaptureFixture
) -> None:
    for end in (b"", b"name=", b"name=%ff"):
        reader, writer = await asyncio.open_connection("127.0.0.1", page.port)
        writer.write(b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\n" + end)
        await writer.drain()
        writer.write_eof()
        await asyncio.wait_for(reader.read(), 30)
        writer.close()
    assert (await page.get("/login"))[0] == 200
    assert caplog.records == []
