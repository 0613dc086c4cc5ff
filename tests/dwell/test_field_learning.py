"""A store's radio is found again from reads whose places nobody tells, and so is an antenna that was down."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dense
import numpy as np
import pytest

from dwell.layout import Layout, ZoneKind
from dwell.markov import field as radio
from dwell.markov import fit, ticks
from dwell.markov.field import Field
from dwell.read import READ, Reads

STAY_S, START_S = 60, 1_780_000_000


@pytest.fixture(scope="module")
def layout() -> Layout:
    """Four counters of 5 × 5 m side by side, an antenna over the middle of each."""
    boxes = [[(6 * z, 0), (6 * z + 5, 0), (6 * z + 5, 5), (6 * z, 5)] for z in range(4)]
    return Layout(
        antenna_zone=np.arange(4, dtype=np.int16),
        antenna_xy=np.array([(6 * z + 2.5, 2.5) for z in range(4)], np.float32),
        zone_kind=np.full(4, ZoneKind.COUNTER, np.uint8),
        zone_floor=np.zeros(4, np.int16),
        neighbours=np.abs(np.subtract.outer(np.arange(4), np.arange(4))) == 1,
        rule_mask=np.zeros((0, 8), np.uint64),
        rule_value=np.zeros((0, 8), np.uint64),
        rule_class=np.zeros(0, np.uint8),
        corner_zone=np.repeat(np.arange(4), 4).astype(np.int16),
        corner_xy=np.array([corner for box in boxes for corner in box], np.float32),
    )


@pytest.fixture(scope="module")
def reads(layout: Layout) -> Reads:
    """Twelve tags that stand for a minute in one counter after the other: −50 dBm at 3 m, 30 dB a decade, 4 in 10."""
    rng = np.random.default_rng(3)
    rows: list[tuple[int, int, int, int]] = []
    for tag in range(12):
        for turn in range(8):
            zone = (tag + turn) % 4
            at = np.array([6 * zone, 0]) + rng.uniform(0.5, 4.5, 2)
            away = np.sqrt(((layout.antenna_xy - at) ** 2).sum(axis=1) + 1.4**2)
            mean = -50.0 - 30.0 * np.log10(away / 3.0) + rng.normal(0, 3)
            for second in range(STAY_S):
                level = mean + rng.normal(0, 3, 4)
                got = (rng.random(4) < 0.4) & (rng.random(4) < 1 / (1 + np.exp((-65 - level) / 2)))
                time = START_S + turn * STAY_S + second
                rows += [(time, tag, int(a), round(100 * level[a])) for a in np.flatnonzero(got)]
    made = np.zeros(len(rows), READ)
    made["time_us"] = [t * 1_000_000 for t, *_ in rows]
    made["epc"][:, 0] = [(0x2F << 56) + tag for _, tag, *_ in rows]
    made["antenna"], made["rssi_cdbm"] = [r[2] for r in rows], [r[3] for r in rows]
    made["epc_bits"], made["count"] = 96, 1
    return made


KNOWN: dict[str, Any] = {"level_3m_dbm": -50.0, "slope_db": 30.0, "half_rate_dbm": -65.0, "beam_deg": 360.0}
"""What the reads were made with; a narrow beam and a high level can say the same of the places that matter."""


def test_levels_and_rates_are_found(layout: Layout, reads: Reads) -> None:
    field = fit.learn_field(layout, ticks.of(layout, reads))
    cells = fit.floor.build(layout)
    true = radio.levels(cells, layout, replace(Field.prior(layout), **KNOWN))
    off = (radio.levels(cells, layout, field) - true)[:, cells.zone >= 0]
    near = true[:, cells.zone >= 0] > -62
    common = float(np.median(off[near]))  # of all places alike: that is the tags' own loudness as well
    assert abs(common) < fit.BIAS_DB
    assert np.median(np.abs(off[near] - common)) < 2.5
    assert 0.3 < field.rate.mean() < 0.5


def test_the_same_reads_teach_the_same(layout: Layout, reads: Reads) -> None:
    first, again = (fit.learn_field(layout, ticks.of(layout, some)) for some in (reads, reads[::-1]))
    assert radio.levels(fit.floor.build(layout), layout, first).tobytes() == (
        radio.levels(fit.floor.build(layout), layout, again).tobytes()
    )


def test_stays_are_told_where_they_were(layout: Layout, reads: Reads) -> None:
    known = replace(Field.prior(layout), rate=np.full(4, 0.4), **KNOWN)
    _, stays = dense.decide(layout, known, reads)
    long = [s for s in stays if s.exit - s.enter > STAY_S / 2]
    right = [s for s in long if (s.tag + ((s.enter + s.exit) // 2 - START_S) // STAY_S) % 4 == s.zone]
    assert len(long) > 80
    assert len(right) > 0.9 * len(long)


def test_an_antenna_that_falls_silent_is_down(layout: Layout, reads: Reads) -> None:
    dead_s = START_S + 4 * STAY_S
    heard = reads[(reads["antenna"] != 1) | (reads["time_us"] < dead_s * 1_000_000)]
    found = ticks.of(layout, heard).down
    assert found[:, 0].tolist() == [1]
    assert abs(int(found[0, 1]) - dead_s) < 20
