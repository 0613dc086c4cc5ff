"""Chromium, and a page before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from shopdays import store_values
from sites import FLAGS, PASSWORD, SECTIONS, Site, browser, running

from config import StoreConfig
from edge.access.users import Role, Users, users_path


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Ended with the module: Playwright keeps an event loop running in this thread, where others want their own."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
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
    with with_users(tmp_path_factory.mktemp("guarded")) as found:
        yield found


@pytest.fixture(scope="module")
def wordy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The same in a store whose names are all 40 characters long, some without a blank."""
    folder = tmp_path_factory.mktemp("wordy")
    values = store_values(folder, **SECTIONS)
    named = [values["store"], *values["floors"], *values["zones"], *values["promotions"], *values["layout_changes"]]
    for number, one in enumerate(named):
        en = f"{number:02} Outdoor-jackets, boots and rain-proof trousers"[:40]
        en = en.replace(" ", "").ljust(40, "x") if number % 3 == 2 else en
        one["name"] = {"zh": f"{number:02}" + "户外服装与登山鞋及防水长裤专区" * 3, "en": en}
        one["name"]["zh"] = one["name"]["zh"][:40]
    with with_users(folder, StoreConfig.model_validate(values)) as found:
        yield found


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The same in a store of nine floors."""
    folder = tmp_path_factory.mktemp("tower")
    values = store_values(folder, **SECTIONS)
    for number in range(3, 10):
        values["floors"].append({"id": f"F{number}", "name": f"{number}"})
        square = [[0, 0], [6, 0], [6, 6], [0, 6]]
        values["zones"].append(
            {
                "id": f"c{number}",
                "name": f"Counter {number}",
                "kind": "counter",
                "floor": f"F{number}",
                "polygon": square,
            }
        )
    with running(folder, StoreConfig.model_validate(values)) as found:
        yield found


@contextmanager
def with_users(folder: Path, config: StoreConfig | None = None) -> Iterator[Site]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edge.access.passwords.SCRYPT_N", 16)
        with running(folder, config) as found:
            users = Users(users_path(found.config))
            for name, role in (("li", Role.MANAGER), ("wall", Role.VIEWER), ("chen", Role.IT)):
                users.put(name, role, PASSWORD)
            users.close()
            yield found
