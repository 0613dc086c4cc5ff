"""Fixtures of the service's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import brokers
import pytest
from gateways import Gateway
from rigs import T0, HandClock

mosquitto, nats = brokers.mosquitto, brokers.nats


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path)
    yield gateway
    if gateway.process is not None and gateway.process.poll() is None:
        gateway.process.kill()
        gateway.process.wait()


@pytest.fixture
def clock() -> HandClock:
    return HandClock(time=[T0])
