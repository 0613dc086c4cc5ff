"""What is restored from a checkpoint is what the engine knew, however it was cut."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from gateways import STORE, antennas, member_card

from config.model import StoreConfig
from drivers.read import READ
from dwell.markov import tag_table
from dwell.markov.engine import ZoneEngine
from edge.database.writer import Database
from edge.intake import checkpoint
from edge.store.compose import Shop, compose

T0 = 1_800_000_000_000_000
TAGS, SECONDS = 30, 40


@pytest.fixture
def shop() -> Shop:
    readers = [{"id": "r", "driver": "llrp", "address": "127.0.0.1", "antennas": antennas("door", "shoes", "bags")}]
    return compose(StoreConfig.model_validate(STORE | {"database": {"path": "unused.db"}, "readers": readers}))


def busy(shop: Shop) -> ZoneEngine:
    rng = np.random.default_rng(1)
    reads = np.zeros(TAGS * SECONDS, READ)
    reads["time_us"] = T0 + rng.integers(0, SECONDS * 1_000_000, len(reads))
    cards = np.frombuffer(b"".join(member_card(n).ljust(64, b"\0") for n in range(TAGS)), ">u8").reshape(TAGS, 8)
    reads["epc"] = cards[rng.integers(0, TAGS, len(reads))]
    reads["antenna"] = rng.integers(0, 3, len(reads))
    reads["rssi_cdbm"] = rng.normal(-6000, 600, len(reads))
    reads["count"], reads["epc_bits"] = 1, 96
    engine = ZoneEngine(shop.layout, shop.settings)
    engine.feed(reads)
    engine.advance(T0 + SECONDS * 1_000_000)
    return engine


@pytest.mark.parametrize(("block", "rows"), [(1 << 16, 256), (7, 4), (64, 1)])
def test_a_state_made_in_slices_is_restored_whole(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, rows: int
) -> None:
    monkeypatch.setattr(checkpoint, "BLOCK", block)
    monkeypatch.setattr(tag_table, "SLICE_ROWS", rows)
    engine = busy(shop)
    state = engine.state()
    assert len(state["tags_pool"]) > 1000
    database = Database(tmp_path / "s.db", store="s1", quota_mb=100)

    def save(conn: sqlite3.Connection) -> checkpoint.Checkpoint | None:
        checkpoint.save(conn, shop, engine.weighed_us, engine.sliced_state())
        return checkpoint.load(conn)

    saved = database.write_now(save)
    database.close()
    assert saved is not None
    assert saved.state.keys() == state.keys()
    for name, array in state.items():
        assert (array.dtype, array.shape) == (saved.state[name].dtype, saved.state[name].shape)
        np.testing.assert_array_equal(array, saved.state[name], name)
