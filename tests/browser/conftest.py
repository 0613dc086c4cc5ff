"""Chromium, and a page before it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sites import FLAGS, PASSWORD, Site, browser, running

from edge.access.users import Role, Users, users_path

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Ended with the module: Playwright keeps an event loop running in this thread, where others want their own."""
    path = browser()
    if path is None:
        pytest.skip("chromium is not installed: apt install chromium-headless-shell")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Nobody has been made a user."""
    with running(tmp_path_factory.mktemp("open")) as found:
        yield found


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """With a manager, a viewer and IT."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edge.access.users.SCRYPT_N", 16)
        with running(tmp_path_factory.mktemp("guarded")) as found:
            users = Users(users_path(found.config))
            for name, role in (("li", Role.MANAGER), ("wall", Role.VIEWER), ("chen", Role.IT)):
                users.put(name, role, PASSWORD)
            users.close()
            yield found
