"""People at the page in a test's process: they log in, look at pages and send forms."""

from __future__ import annotations

import asyncio
import http.client
import re
from collections.abc import AsyncIterator
from urllib.parse import urlencode

import pytest
from floors import Floor
from pages import Page, Service, fill

from config import StoreConfig
from edge.access.users import Role, Users, users_path
from edge.store.live_socket import socket_path
from edge.store.live_state import State

PASSWORD = "correct horse battery"


def cookie_of(headers: http.client.HTTPMessage, name: str) -> str:
    found = re.search(rf"(?:^|\n){name}=([^;]+)", "\n".join(headers.get_all("Set-Cookie") or []))
    return found[1] if found else ""


async def log_in(page: Page, name: str, password: str = PASSWORD, target: str = "/today") -> tuple[int, str, str]:
    """Status, place sent to, session cookie."""
    _, headers, html = await page.get(f"/login?next={target}")
    form = cookie_of(headers, "tagtrail-form")
    token = re.search(r'name="csrf" value="([^"]+)"', html)
    assert token is not None
    assert token[1] == form
    fields = urlencode({"csrf": form, "name": name, "password": password, "next": target})
    status, headers, _ = await page.get("/login", "POST", fields, Cookie=f"tagtrail-form={form}")
    return status, headers.get("Location", ""), cookie_of(headers, "tagtrail")


@pytest.fixture
async def floor(config: StoreConfig, service: Service) -> AsyncIterator[Floor]:
    fill(config)
    floor = Floor(config, service)
    running = asyncio.create_task(floor.run())
    while not socket_path(config, "orders").exists():
        await asyncio.sleep(0)
    yield floor
    running.cancel()
    await asyncio.wait([running])


class Visitor:
    """Somebody who is logged in."""

    def __init__(self, page: Page, name: str, role: Role) -> None:
        self.users = Users(users_path(page.config))
        self.users.put(name, role, PASSWORD)
        token = self.users.log_in(name, PASSWORD, "")
        assert token
        session = self.users.session(token)
        assert session
        self._page, self._cookie, self.csrf = page, f"tagtrail={token}", session.csrf

    async def get(self, path: str, lang: str = "en") -> str:
        status, _, text = await self._page.get(path, Cookie=self._cookie, Accept_Language=lang)
        assert status == 200, text
        return text

    async def post(self, path: str, csrf: str | None = None, **fields: str) -> tuple[int, str, str]:
        body = urlencode(
            {"csrf": self.csrf if csrf is None else csrf, **{k.replace("__", "-"): v for k, v in fields.items()}}
        )
        status, headers, text = await self._page.get(
            path,
            "POST",
            body,
            Cookie=self._cookie,
            Content_Type="application/x-www-form-urlencoded",
            Accept_Language="en",
        )
        return status, headers.get("location", ""), text

    def audited(self) -> list[tuple[str, str]]:
        return [(line.action, line.object) for line in self.users.audit()]


@pytest.fixture
async def manager(page: Page, floor: Floor) -> Visitor:
    await page.until(State.LIVE)
    return Visitor(page, "li", Role.MANAGER)
