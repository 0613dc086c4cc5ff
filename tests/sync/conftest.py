"""Fixtures of the tests of the outbox's way to the CRM."""

from __future__ import annotations

import pytest

from sync import in_flight, publisher


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits a minute in a test; the order of the waits stays."""
    monkeypatch.setattr(publisher, "BACKOFF_S", (0.1, 0.5))
    monkeypatch.setattr(in_flight, "SILENCE_S", (0.5, 2.0))
