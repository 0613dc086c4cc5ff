"""A machine, the shop around it, a gateway that works there; and the table of what was measured."""

from __future__ import annotations

from typing import Any

import pytest
import technician

gateway, machine, packages, shop = technician.gateway, technician.machine, technician.packages, technician.shop
ROWS: list[tuple[str, str]] = []


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Any:
    """Put a line into the table that is printed at the end."""
    return lambda text: ROWS.append((request.node.name, text))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.section("what was measured")
    for name, text in ROWS:
        terminalreporter.write_line(f"{name}: {text}")
