"""Compile the kernels by running them once, so that the next start finds them in the cache."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np

from drivers.llrp.decoder import ReportDecoder
from drivers.pushed.splitting import split_whole
from drivers.read import READ, Reads
from dwell.layout import Layout, Settings, ZoneKind
from dwell.markov.engine import ZoneEngine
from dwell.markov.field import Field
from dwell.markov.learner import look


def warm_up() -> float:
    """Compile the kernels of the service and return the seconds taken, less than one with a warm cache."""
    start = time.perf_counter()
    layout = _layout()
    engine = ZoneEngine(layout, Settings())
    reads = np.zeros(4, READ)
    reads["time_us"] = 1_000_000 * np.arange(4)
    reads["antenna"] = [0, 0, 1, 1]
    reads["count"], reads["epc_bits"] = 1, 96
    engine.feed(reads)
    engine.outage(np.array([0]), 2_000_000, False)
    engine.advance(60_000_000)
    ZoneEngine.restore(layout, Settings(), engine.state()).finish()
    ReportDecoder({1: 0}).decode(np.zeros(0, np.uint8), 0, 0)
    split_whole(b"{}")
    return time.perf_counter() - start


def warm_up_all() -> float:
    """Compile the kernels of the service, and beside them those of the learning process. RuntimeError if that fails."""
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, "-P", "-m", "edge.service.warmup"]) as learning:
        warm_up()
    if learning.returncode:
        raise RuntimeError(f"compiling the kernels for learning failed with exit code {learning.returncode}")
    return time.perf_counter() - start


def _learn() -> None:
    layout = _layout()
    look(layout, _crowd(), Field.prior(layout))


def _layout() -> Layout:
    return Layout(
        antenna_zone=np.array([0, 1], np.int16),
        antenna_xy=np.array([(0, 0), (4, 0)], np.float32),  # without positions learning needs no kernels
        zone_kind=np.array([ZoneKind.ENTRANCE, ZoneKind.COUNTER], np.uint8),
        zone_floor=np.zeros(2, np.int16),
        neighbours=~np.eye(2, dtype=np.bool_),
        rule_mask=np.zeros((1, 8), np.uint64),
        rule_value=np.zeros((1, 8), np.uint64),
        rule_class=np.ones(1, np.uint8),
    )


def _crowd() -> Reads:
    """As few tags and seconds as can be learnt from."""
    reads = np.zeros(200, READ)
    number = np.arange(len(reads))
    reads["time_us"], reads["epc"][:, 0], reads["antenna"] = number // 5 * 1_000_000, 1 + number % 5, number % 2
    reads["rssi_cdbm"], reads["count"], reads["epc_bits"] = -5500, 1, 96
    return reads


if __name__ == "__main__":
    _learn()
