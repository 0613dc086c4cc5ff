"""What holds for all tests: fixtures from modules in `support`, and stable names."""

from __future__ import annotations

import gc
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import forked
import pytest
from hypothesis import settings

# No examples fail for being slow: a machine may be busy.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
ROOT = Path(__file__).parents[1]
os.environ.setdefault("NUMBA_CACHE_DIR", str(ROOT / ".numba"))  # as `make test` has it
# Processes started in `tests` would take its folders for the packages of the same names.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))

LONGEST = (
    "sync/chain/test_sink.py",
    "sync/test_postgres.py",
    "edge/forwarding/test_forwarding.py",
    "edge/days/test_truth.py",
    "sync/test_delivery.py",
    "edge/service/test_service.py",
    "edge/intake/test_clock.py",
    "edge/crm/test_down.py",
    "browser/test_pages.py",
    "browser/test_shapes.py",
    "edge/web/test_hostile.py",
    "edge/web/test_day_pages.py",
    "edge/web/test_now.py",
    "sync/test_documents.py",
    "simulators/shop/test_draws.py",
    "edge/crm/test_directory.py",
    "edge/readers/test_calibrate.py",
    "browser/test_signed_in.py",
    "dwell/test_field_without_positions.py",
    "dwell/test_invariance.py",
    "edge/cli/test_readers.py",
    "edge/intake/test_consent.py",
    "edge/backup/test_backup.py",
    "dwell/test_markov.py",
    "drivers/serial/test_sessions.py",
    "edge/standby/test_takeover.py",
    "sync/test_uplink.py",
    "sync/chain/test_fleet.py",
    "dwell/test_long_runs.py",
)
"""Files that take the longest, in this order."""

pytest_plugins = ["brokers", "costs", "databases", "gateways", "nodetools"]


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        forked.server()  # one for all workers
    gc.disable()  # nothing that is collected goes away before the end …


def pytest_collection_finish() -> None:
    gc.freeze()  # … nor need it be looked through again and again
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: list[Any]) -> None:
    """Fork workers, too, but not for coverage, which wants to see what they import."""
    if not config.getoption("cov_source", None):
        for spec in specs:
            spec.python = shlex.join([sys.executable, "-S", str(ROOT / "tests/support/forked_python.py")])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files: a worker takes whole files, and a long one at the end would be waited for."""
    turn = {ROOT / "tests" / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: turn.get(item.path, len(turn)))


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name bytes by their length unless they are text: messages hold times, and all workers must see the same names."""
    if not isinstance(val, bytes):
        return None
    text = val.decode().strip() if val.isascii() else "\n"
    return text if text.isprintable() else f"{len(val)} bytes"
