"""`/metrics` of the page: what the service says on its own socket, for whoever may log in."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator

import pages
import pytest
from pages import Page

from config import StoreConfig
from edge.access.users import Role, Users, users_path
from edge.store.live_socket import open_socket, socket_path

config, page, cheap_passwords = pages.config, pages.page, pages.cheap_passwords
SAID = b"# TYPE tagtrail_up gauge\ntagtrail_up 1.0\n"


@pytest.fixture
async def service(config: StoreConfig) -> AsyncIterator[list[bytes]]:
    """The service's monitoring socket; the test says how it answers."""
    answers = [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(SAID), SAID)]

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readline()).startswith(b"GET /metrics ")
        writer.write(answers[-1])
        writer.close()

    server = await open_socket(socket_path(config, "monitor"), client)
    yield answers
    server.close()


async def up(page: Page, **headers: str) -> float:
    status, answer, text = await page.get("/metrics", **headers)
    assert status == 200
    assert answer["Content-Type"].startswith("text/plain; version=")
    return float(text.split()[-1])


async def test_what_the_service_measures_is_passed_on(service: list[bytes], page: Page) -> None:
    assert await up(page) == 1


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n", b"nonsense\r\n\r\n"])
async def test_a_service_that_has_no_answer_is_not_up(service: list[bytes], page: Page, answer: bytes) -> None:
    service.append(answer)
    assert await up(page) == 0


async def test_without_the_service_only_that_is_known(page: Page) -> None:
    assert await up(page) == 0


async def test_with_users_it_wants_one(page: Page, config: StoreConfig) -> None:
    users = Users(users_path(config))
    users.put("prometheus", Role.VIEWER, "correct horse battery")
    users.close()
    status, answer, _ = await page.get("/metrics")
    assert (status, answer["WWW-Authenticate"]) == (401, 'Basic realm="tagtrail", Bearer')
    basic = base64.b64encode(b"prometheus:correct horse battery").decode()
    assert await up(page, Authorization=f"Basic {basic}") in (0, 1)
