"""Fixtures for all tests come from modules in `support`."""

import os
from pathlib import Path

os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / ".numba"))  # as `make test` has it

pytest_plugins = ["brokers", "databases", "gateways", "nodetools"]
