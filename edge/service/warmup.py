"""Compile the kernels by running them once, so that the next start finds them in the cache."""

from __future__ import annotations

import time

import numpy as np

from drivers.llrp.decoder import ReportDecoder
from drivers.pushed.splitting import split_whole
from drivers.read import READ, Reads
from dwell.layout import Layout, Settings, ZoneKind
from dwell.markov.engine import ZoneEngine
from dwell.markov.field import Field
from dwell.markov.learner import look


def warm_up(*, learning: bool = False) -> float:
    """Compile all kernels and return the seconds taken, less than one with a warm cache; `learning`: those of the
    learning process too."""
    start = time.perf_counter()
    layout = Layout(
        antenna_zone=np.array([0, 1], np.int16),
        antenna_xy=np.zeros((2, 2), np.float32),
        zone_kind=np.array([ZoneKind.ENTRANCE, ZoneKind.COUNTER], np.uint8),
        zone_floor=np.zeros(2, np.int16),
        neighbours=~np.eye(2, dtype=np.bool_),
        rule_mask=np.zeros((1, 8), np.uint64),
        rule_value=np.zeros((1, 8), np.uint64),
        rule_class=np.ones(1, np.uint8),
    )
    engine = ZoneEngine(layout, Settings())
    reads = np.zeros(4, READ)
    reads["time_us"] = 1_000_000 * np.arange(4)
    reads["antenna"] = [0, 0, 1, 1]
    reads["count"], reads["epc_bits"] = 1, 96
    engine.feed(reads)
    engine.outage(np.array([0]), 2_000_000, False)
    engine.advance(60_000_000)
    ZoneEngine.restore(layout, Settings(), engine.state()).finish()
    if learning:
        look(layout, _crowd(), Field.prior(layout))
    ReportDecoder({1: 0}).decode(np.zeros(0, np.uint8), 0, 0)
    split_whole(b"{}")
    return time.perf_counter() - start


def _crowd() -> Reads:
    """As few tags and seconds as can be learnt from."""
    reads = np.zeros(200, READ)
    number = np.arange(len(reads))
    reads["time_us"], reads["epc"][:, 0], reads["antenna"] = number // 5 * 1_000_000, 1 + number % 5, number % 2
    reads["rssi_cdbm"], reads["count"], reads["epc_bits"] = -5500, 1, 96
    return reads
