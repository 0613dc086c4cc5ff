"""A line's patience that bears a busy machine."""

from __future__ import annotations

import pytest

from drivers.serial import session


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ends of a line live in one process here: where that stands still, the line is silent within a frame."""
    monkeypatch.setattr(session, "GAP_S", 0.5)
