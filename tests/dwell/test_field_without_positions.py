"""Without positions the level of each pair of an antenna and a zone is learnt, from reads whose places nobody tells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dwell.layout import Layout, Settings, ZoneKind
from dwell.markov import fit, learning, ticks
from dwell.markov.engine import ZoneEngine
from dwell.markov.field import Field
from dwell.read import READ, Reads

ZONES, STAY_S, START_S = 4, 40, 1_780_000_000
TRUE_DBM: NDArray[np.float64] = np.array(
    [
        [-52.0, -63.0, -75.0, -78.0],
        [-64.0, -66.0, -58.0, -77.0],
        [-76.0, -62.0, -50.0, -64.0],
        [-79.0, -75.0, -66.0, -47.0],
    ]
)
"""(antennas, zones): antenna 1 hears zone 2 better than its own."""


@pytest.fixture(scope="module")
def layout() -> Layout:
    """Four counters in a row, an antenna each, no polygon and no position."""
    return Layout(
        antenna_zone=np.arange(ZONES, dtype=np.int16),
        antenna_xy=np.zeros((ZONES, 2), np.float32),
        zone_kind=np.full(ZONES, ZoneKind.COUNTER, np.uint8),
        zone_floor=np.zeros(ZONES, np.int16),
        neighbours=np.abs(np.subtract.outer(np.arange(ZONES), np.arange(ZONES))) == 1,
        rule_mask=np.zeros((0, 8), np.uint64),
        rule_value=np.zeros((0, 8), np.uint64),
        rule_class=np.zeros(0, np.uint8),
        corner_zone=np.zeros(0, np.int16),
        corner_xy=np.zeros((0, 2), np.float32),
    )


@pytest.fixture(scope="module")
def reads() -> Reads:
    """Sixteen tags that go up and down the row, 40 s a counter; shadows of 4 dB that last for five seconds."""
    rng = np.random.default_rng(5)
    rows: list[tuple[int, int, int, float]] = []
    for tag in range(16):
        loud = rng.normal(0, 2)
        for second in range(12 * STAY_S):
            if second % 5 == 0:
                shadow = rng.normal(0, 4, ZONES)
            level = TRUE_DBM[:, zone(tag, second)] + loud + shadow + rng.normal(0, 1.5, ZONES)
            got = (rng.random(ZONES) < 0.5) & (rng.random(ZONES) < 1 / (1 + np.exp((-70 - level) / 2)))
            rows += [(START_S + second, tag, int(a), float(level[a])) for a in np.flatnonzero(got)]
    made = np.zeros(len(rows), READ)
    made["time_us"] = [t * 1_000_000 for t, *_ in rows]
    made["epc"][:, 0] = [(0x2F << 56) + tag for _, tag, *_ in rows]
    made["antenna"], made["rssi_cdbm"] = [r[2] for r in rows], [round(100 * r[3]) for r in rows]
    made["epc_bits"], made["count"] = 96, 1
    return made[np.argsort(made["time_us"], kind="stable")]


def zone(tag: int, second: int) -> int:
    """Where a tag is: 0 1 2 3 2 1 0 …, each tag begins elsewhere."""
    return (0, 1, 2, 3, 2, 1)[(tag + second // STAY_S) % 6]


def right(layout: Layout, reads: Reads, field: Field | None) -> float:
    """Share of the seconds for which the engine tells a tag's zone."""
    made = ZoneEngine(layout, Settings(), field=field)
    made.feed(reads)
    visits: NDArray[Any] = np.concatenate([made.advance(int(reads["time_us"].max())).closed, made.finish().closed])
    told = np.full((16, 12 * STAY_S), -1)
    for visit in visits:
        a, b = (int(visit[name]) // 1_000_000 - START_S for name in ("enter_us", "exit_us"))
        told[int(visit["epc"][0]) & 0xFF, max(a, 0) : b] = visit["zone"]
    true = [[zone(tag, second) for second in range(12 * STAY_S)] for tag in range(16)]
    return float((told == np.array(true)).mean())


def test_an_antenna_that_hears_another_zone_better_is_found_out(layout: Layout, reads: Reads) -> None:
    table = fit.learn_field(layout, ticks.of(layout, reads)).table
    assert table is not None
    zones = table[:, :ZONES]
    heard = TRUE_DBM > -68  # weaker ones are hardly ever read
    off = (zones - TRUE_DBM)[heard]
    assert np.abs(off - np.median(off)).max() < 4.0
    assert zones[1, 2] > zones[1, 1] + 3.0
    assert (table[:, ZONES] < zones.min(axis=1)).all()  # in no zone a tag is heard least


def test_what_is_learnt_decides_better(layout: Layout, reads: Reads) -> None:
    learnt = learning.learn(layout, reads)
    assert learnt.better
    before, after = right(layout, reads, None), right(layout, reads, learnt.field)
    assert after > 0.9
    assert after > before


def test_order_of_the_reads_does_not_matter(layout: Layout, reads: Reads) -> None:
    one, other = (fit.learn_field(layout, ticks.of(layout, some)).table for some in (reads, reads[::-1]))
    assert one is not None
    assert other is not None
    assert one.tobytes() == other.tobytes()


def test_an_antenna_that_was_down_is_not_taken_for_a_weak_one(layout: Layout, reads: Reads) -> None:
    dead = (reads["antenna"] == 3) & (reads["time_us"] > (START_S + 3 * STAY_S) * 1_000_000)
    table = fit.learn_field(layout, ticks.of(layout, reads[~dead])).table
    whole = fit.learn_field(layout, ticks.of(layout, reads)).table
    assert table is not None
    assert whole is not None
    assert abs(table[3, 3] - whole[3, 3]) < 3.0


def test_with_few_reads_the_usual_differences_stay(layout: Layout, reads: Reads) -> None:
    few = ticks.of(layout, reads[reads["time_us"] < (START_S + 20) * 1_000_000])
    field = fit.learn_field(layout, few)
    assert field.table is not None
    own = np.diag(field.table[:, :ZONES])
    assert (own - field.table[:, :ZONES].T >= 0).all()


def test_bodies_that_hide_tags_do_not_make_antennas_seem_slow(layout: Layout, reads: Reads) -> None:
    tag, second = (reads["epc"][:, 0] & 0xFF).astype(np.int64), reads["time_us"] // 1_000_000
    hidden = (second // 6 + 7 * tag) % 5 < 3
    field = fit.learn_field(layout, ticks.of(layout, reads[~hidden]))
    assert field.rate.min() > 0.35  # 0.5 of what is loud enough is read
    assert right(layout, reads[~hidden], field) > 0.77
