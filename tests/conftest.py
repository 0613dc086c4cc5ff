"""What holds for all tests: fixtures from modules in `support`, and stable names."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / ".numba"))  # as `make test` has it

pytest_plugins = ["brokers", "databases", "gateways", "nodetools"]


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name bytes by their length unless they are text: messages hold times, and all workers must see the same names."""
    if not isinstance(val, bytes):
        return None
    text = val.decode("ascii", "replace")
    return text.strip() if text.strip().isprintable() else f"{len(val)} bytes"
