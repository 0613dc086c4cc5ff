"""Compile the kernels by a little work, so that the next start finds them in the cache."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np

from dwell.engine import NOTHING, Decisions, ZoneEngine
from dwell.layout import Layout, Settings, ZoneKind
from dwell.read import READ


def compile_all() -> float:
    """Seconds that it took; on several cores by two processes that begin at the two ends of a read's way.

    What the engine does last is half of what there is to compile. Each process finds in the cache what the other has
    put there; what both have missed is compiled here.
    """
    start = time.perf_counter()
    if len(os.sched_getaffinity(0)) > 1:
        code = "from edge.service import warmup; warmup.{}()"
        both = [subprocess.Popen([sys.executable, "-c", code.format(end)]) for end in ("warm_up", "warm_up_the_end")]
        for process in both:
            process.wait()
    warm_up()
    return time.perf_counter() - start


def warm_up() -> float:
    """Load all kernels into this process, or compile them; seconds, with a warm cache under one."""
    start = time.perf_counter()
    from drivers.llrp.decoder import ReportDecoder

    ReportDecoder({1: 0}).decode(np.zeros(0, np.uint8), 0, 0)
    engine = ZoneEngine(_layout(), Settings())
    reads = np.zeros(4, READ)
    reads["time_us"] = 1_000_000 * np.arange(4)
    reads["antenna"] = [0, 0, 1, 1]
    reads["count"], reads["epc_bits"] = 1, 96
    engine.feed(reads)
    engine.outage(np.array([0]), 2_000_000, False)
    engine.advance(60_000_000)
    ZoneEngine.restore(_layout(), Settings(), engine.state()).finish()
    return time.perf_counter() - start


def warm_up_the_end() -> None:
    """Compile what the engine does last."""
    engine = _Over(_layout(), Settings())
    engine.outage(np.array([0]), 2_000_000, False)
    engine.finish()


class _Over(ZoneEngine):
    """An engine that has nothing left to do but to end."""

    def _advance(self, target: int) -> Decisions:
        return NOTHING


def _layout() -> Layout:
    return Layout(
        antenna_zone=np.array([0, 1], np.int16),
        antenna_xy=np.zeros((2, 2), np.float32),
        zone_kind=np.array([ZoneKind.ENTRANCE, ZoneKind.COUNTER], np.uint8),
        zone_floor=np.zeros(2, np.int16),
        neighbours=~np.eye(2, dtype=np.bool_),
        rule_mask=np.zeros((1, 8), np.uint64),
        rule_value=np.zeros((1, 8), np.uint64),
        rule_class=np.ones(1, np.uint8),
    )
