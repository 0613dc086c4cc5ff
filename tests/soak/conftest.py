"""How long a soak lasts, and its table."""

from __future__ import annotations

from typing import Any

import pytest

TABLE: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--hours", type=float, default=1.0, help="Real time of the soak.")
    parser.addoption("--days", type=float, default=7.0, help="Days of the store in this time.")
    parser.addoption("--one-run", action="store_true", help="Let one process live through all days, without restarts.")


@pytest.fixture
def tell() -> Any:
    """Put a line into the table that is printed at the end."""
    return TABLE.append


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.section("soak")
    for line in TABLE:
        terminalreporter.write_line(line)
