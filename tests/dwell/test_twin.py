"""Kernels against their plain twin, and compiled against interpreted."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dwell import kernels, radio, tables
from dwell.engine import ZoneEngine
from dwell.layout import Layout, Settings
from dwell.read import Reads
from dwell.tuning import Tuning

START_US = 1_767_232_800_000_000
TESTS = Path(__file__).parent.parent
OUTAGES = [(START_US + 50_000_000, [1, 2], False), (START_US + 170_000_000, [1, 2], True)]


@pytest.fixture(scope="module")
def naive() -> ModuleType:
    spec = importlib.util.spec_from_file_location("naive", TESTS / "support/naive.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["naive"] = module
    spec.loader.exec_module(module)
    return module


def compare(naive: ModuleType, layout: Layout, settings: Settings, tuning: Tuning, reads: Reads) -> int:
    # Mirrored cells are equally likely, and which of them the beam cuts would hang on the last bit of an exp().
    crooked = np.random.default_rng(3).normal(0, 0.15, layout.antenna_xy.shape).astype(np.float32)
    layout = replace(layout, antenna_xy=layout.antenna_xy + crooked)
    engine = ZoneEngine(layout, settings, tuning)
    for at_us, antennas, up in OUTAGES:
        engine.outage(np.array(antennas), at_us, up)
    engine.feed(reads)
    decided = engine.finish()
    end_us = max(int(reads["time_us"].max()), OUTAGES[-1][0])
    plain = naive.Naive(radio.build(layout, settings, tuning), radio.limits(tuning, settings))
    rows = plain.run(reads, OUTAGES, end_us)
    assert (plain.duplicates, plain.merchandise) == (engine.counters["duplicates"], engine.counters["merchandise"])
    told = ((kernels.OPENED, decided.opened), (kernels.CLOSED, decided.closed), (kernels.STUCK, decided.stuck))
    for kind, visits in told:
        mine: list[Any] = [row for row in rows if row[3] == kind]
        assert len(mine) == len(visits)
        for row, visit in zip(mine, visits, strict=True):
            _, epc, bits, _, zone, enter_us, exit_us, journey_us, n, censored, tag_class, confidence = row
            assert tuple(visit["epc"].tolist()) == epc
            assert visit["epc_bits"] == bits
            names = ("zone", "enter_us", "exit_us", "journey_us", "reads", "censored", "tag_class")
            values = (zone, enter_us, exit_us, journey_us, n, int(censored), tag_class)
            assert dict(zip(names, visit[list(names)].item(), strict=True)) == dict(zip(names, values, strict=True))
            assert float(visit["confidence"]) == pytest.approx(
                confidence, abs=1e-3
            )  # exp rounds differently: the beam cuts even states elsewhere
    assert len(decided.journeys) == sum(row[3] == kernels.ENDED for row in rows)
    return len(decided.closed)


def test_a_crowd(naive: ModuleType, layout: Layout, settings: Settings, crowd: Reads) -> None:
    repeated = np.concatenate([crowd, crowd[::9]])
    assert compare(naive, layout, settings, Tuning(), repeated) > 10


def test_other_figures(naive: ModuleType, layout: Layout, settings: Settings, crowd: Reads) -> None:
    tuning = Tuning(lag_ticks=6, batch_ticks=1, temper=0.4, bias_weight=0.2, beam_nats=3.0, hold_us=40_000_000)
    assert compare(naive, layout, settings, tuning, crowd) > 10


def test_tags_that_rest(naive: ModuleType, layout: Layout, settings: Settings, crowd: Reads) -> None:
    assert compare(naive, layout, replace(settings, stuck_us=40_000_000), Tuning(), crowd) > 5


@given(seed=st.integers(0, 2**32))
@hypothesis_settings(max_examples=6, deadline=None)
def test_thinned_and_mixed(naive: ModuleType, layout: Layout, settings: Settings, crowd: Reads, seed: int) -> None:
    rng = np.random.default_rng(seed)
    reads = crowd[rng.random(len(crowd)) < rng.choice((0.05, 0.3))].copy()
    mixed = rng.random(len(reads)) < 0.2
    reads["antenna"][mixed] = rng.integers(0, len(layout.antenna_zone), mixed.sum())
    compare(naive, layout, settings, Tuning(), reads)


SCRIPT = """
import importlib.util, sys
import numpy as np
from dwell.engine import ZoneEngine
from dwell.layout import Layout, Settings
given = np.load(sys.argv[1], allow_pickle=False)
layout = Layout(**{name: given[name] for name in Layout.__dataclass_fields__})
engine = ZoneEngine(layout, Settings())
engine.feed(given["reads"])
decided = engine.finish()
np.savez(sys.argv[2], opened=decided.opened, closed=decided.closed, windows=decided.windows)
"""


def test_interpreted_is_the_same(layout: Layout, crowd: Reads, tmp_path: Path) -> None:
    reads = crowd[crowd["time_us"] < START_US + 60_000_000]
    arrays = {name: getattr(layout, name) for name in Layout.__dataclass_fields__}
    np.savez(tmp_path / "in.npz", reads=reads, **arrays)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
    subprocess.run(command, check=True, cwd=TESTS.parent, env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, timeout=60)
    engine = ZoneEngine(layout, Settings())
    engine.feed(reads)
    decided = engine.finish()
    assert len(decided.closed) > 3
    with np.load(tmp_path / "out.npz") as out:
        for name in ("opened", "closed"):
            ours, theirs = getattr(decided, name), out[name]
            for column in ours.dtype.names:
                if column == "confidence":
                    np.testing.assert_allclose(ours[column], theirs[column], atol=1e-4)
                else:
                    np.testing.assert_array_equal(ours[column], theirs[column])
        assert decided.windows.tobytes() == out["windows"].tobytes()


def test_tags_stay_findable_when_others_leave() -> None:
    rng = np.random.default_rng(1)
    tags = np.zeros(300, tables.LIFE)
    index = np.zeros(1024, np.int32)
    tags["epc"] = rng.integers(0, 4, (300, 8))  # few values: many collisions in parts of it
    tags["epc"][:, 3] = np.arange(300)
    tags["epc_bits"] = 496
    tags["state"] = 1
    kernels.rebuild(index, tags)
    left = set(range(300))
    for row in rng.permutation(300).tolist():
        kernels.remove(index, tags, row)
        left.discard(row)
        for other in left if len(left) % 25 == 0 else ():
            assert index[kernels.find(index, tags, tags[other]["epc"], 496)] == other + 1
        assert index[kernels.find(index, tags, tags[row]["epc"], 496)] == 0
    assert not index.any()
