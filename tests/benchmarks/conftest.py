"""Timings first: what follows counts, and can share the machine with other work."""

from __future__ import annotations

import os
from typing import Any

import pytest

COUNTING = ("test_accuracy.py", "test_shops.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name in COUNTING)


@pytest.fixture(autouse=True)
def _load(request: pytest.FixtureRequest, record_property: Any) -> None:
    if request.path.name not in COUNTING:
        record_property("load", round(os.getloadavg()[0], 1))
