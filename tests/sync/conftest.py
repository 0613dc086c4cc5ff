"""Fixtures of the tests of sync that run a whole service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from gateways import Gateway


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path)
    yield gateway
    if gateway.process is not None and gateway.process.poll() is None:
        gateway.process.kill()
        gateway.process.wait()
