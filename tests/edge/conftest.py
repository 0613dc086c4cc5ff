"""A clock that is set by hand, for all rigs of this folder."""

from __future__ import annotations

import pytest
from rigs import T0, HandClock


@pytest.fixture
def clock() -> HandClock:
    return HandClock(time=[T0])
