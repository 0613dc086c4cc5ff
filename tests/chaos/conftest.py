"""Impatient publishers, and the table of what was counted."""

from __future__ import annotations

from typing import Any

import pytest

from sync import in_flight, publisher

ROWS: list[tuple[str, str]] = []


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "BACKOFF_S", (0.1, 0.5))
    monkeypatch.setattr(in_flight, "SILENCE_S", (0.5, 2.0))


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Any:
    """Put a line into the table that is printed at the end."""
    return lambda text: ROWS.append((request.node.name, text))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.section("what was counted")
    for name, text in ROWS:
        terminalreporter.write_line(f"{name}: {text}")
