"""The rules that the engine is compared with do what their descriptions say."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dwell.read import READ

SHOES, BAGS = 0, 1


@pytest.fixture(scope="module")
def peers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("peers", Path(__file__).parents[1] / "support/peers.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["peers"] = module
    spec.loader.exec_module(module)
    return module


def heard(peers: ModuleType, *parts: tuple[int, float, float, float, float]) -> Any:
    """Parts: antenna, from, to, every (seconds), dBm; one tag; antenna 0 watches SHOES, 1 and 2 BAGS."""
    rows = [(t, a, dbm) for a, start, end, every, dbm in parts for t in np.arange(start, end, every)]
    reads = np.zeros(len(rows), READ)
    reads["time_us"] = [round(t * 1e6) for t, _, _ in rows]
    reads["antenna"] = [a for _, a, _ in rows]
    reads["rssi_cdbm"] = [round(dbm * 100) for _, _, dbm in rows]
    reads["epc"][:, 0], reads["epc_bits"] = 0x2F << 56, 96
    return peers.Heard.of(reads, np.array([SHOES, BAGS, BAGS], np.int16))


def stays(rows: Any) -> list[tuple[int, int, int]]:
    return [(z, a // 1_000_000, b // 1_000_000) for _, z, a, b in sorted(rows.tolist(), key=lambda r: r[2])]


@pytest.mark.parametrize("name", ["EdgeX mobility", "RSSI EMA", "SMURF", "strongest mean"])
def test_who_walks_over_is_in_one_zone_and_then_in_the_other(peers: ModuleType, name: str) -> None:
    it = heard(peers, (0, 0, 30, 0.2, -55), (1, 0, 30, 1.7, -67), (0, 30, 60, 1.7, -67), (1, 30, 60, 0.2, -55))
    (first, _, left), (second, entered, end) = stays(peers.PEERS[name](it, 10.0))
    assert (first, second) == (SHOES, BAGS)
    assert 30 <= left <= 36
    assert 30 <= entered <= 36
    assert end == 59


def test_the_strongest_mean_looks_ahead_and_lets_go_after_the_last_read(peers: ModuleType) -> None:
    it = heard(peers, (0, 0, 20, 0.5, -60), (1, 8, 12, 0.5, -50), (1, 60, 70, 0.5, -60))
    assert stays(peers.strongest(it, 2.0)) == [(SHOES, 0, 7), (BAGS, 7, 13), (SHOES, 13, 21), (BAGS, 59, 69)]


def test_edgex_holds_against_a_little_louder_antenna_until_its_own_has_been_silent(peers: ModuleType) -> None:
    steady = heard(peers, (0, 0, 30, 0.2, -60), (1, 10, 30, 0.2, -56))
    assert [z for z, _, _ in stays(peers.edgex(steady, 30.0))] == [SHOES]
    silent = heard(peers, (0, 0, 10, 0.2, -60), (1, 10, 30, 0.2, -56))
    assert [z for z, _, _ in stays(peers.edgex(silent, 30.0))] == [SHOES, BAGS]


def test_the_ema_needs_three_decibels(peers: ModuleType) -> None:
    for louder, zones in ((2.0, [SHOES]), (5.0, [SHOES, BAGS])):
        it = heard(peers, (0, 0, 30, 0.5, -60), (1, 10, 30, 0.5, -60 + louder))
        assert [z for z, _, _ in stays(peers.ema(it, 10.0))] == zones


def test_the_tracker_may_have_a_tag_in_two_zones_and_wants_three_reads(peers: ModuleType) -> None:
    it = heard(peers, (0, 0, 30, 0.5, -60), (1, 5, 20, 0.5, -60), (2, 3, 4, 0.5, -60))
    assert stays(peers.presence(it, 2.0)) == [(SHOES, 0, 29), (BAGS, 5, 19)]


def test_smurfs_window_bridges_a_weak_antennas_misses(peers: ModuleType) -> None:
    it = heard(peers, (0, 0, 4, 0.15, -60), (0, 4, 60, 3.1, -60))
    assert len(stays(peers.smurf(it, 10.0))) < len(stays(peers.smurf(it, 1.0)))


@pytest.mark.parametrize("name", ["EdgeX mobility", "RSSI EMA", "SMURF", "presence tracker"])
def test_silence_beyond_the_timeout_ends_a_stay(peers: ModuleType, name: str) -> None:
    it = heard(peers, (0, 0, 20, 0.2, -60), (0, 60, 80, 0.2, -60))
    assert [z for z, _, _ in stays(peers.PEERS[name](it, 20.0))] == [SHOES, SHOES]
