"""Impatient publishers, and the table of what was counted."""

from __future__ import annotations

import pytest
from telling import pytest_terminal_summary, tell

from sync import in_flight, publisher

__all__ = ["pytest_terminal_summary", "tell"]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "BACKOFF_S", (0.1, 0.5))
    monkeypatch.setattr(in_flight, "SILENCE_S", (0.5, 2.0))
