"""A clock that is set by hand, for all rigs of this folder, and a small store's day without rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rigs import T0, HandClock
from shopdays import Day, day_of


@pytest.fixture
def clock() -> HandClock:
    return HandClock(time=[T0])


@pytest.fixture
def day(tmp_path: Path) -> Iterator[Day]:
    day = day_of(tmp_path)
    yield day
    day.conn.close()
