"""A table of what long tests measured or counted, printed at the end."""

from __future__ import annotations

from typing import Any

import pytest

ROWS: list[tuple[str, str]] = []


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Any:
    """Put a line into the table."""
    return lambda text: ROWS.append((request.node.name, text))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.section("what was counted")
    for name, text in ROWS:
        terminalreporter.write_line(f"{name}: {text}")
