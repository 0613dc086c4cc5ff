"""What tags share: blocks of cells and the pool of events are taken, given back and used again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dwell.layout import Layout, Settings
from dwell.markov.engine import ZoneEngine
from dwell.markov.kernels import figures
from dwell.read import Reads

START_US = 1_767_232_800_000_000
Walk = Callable[..., Reads]


def visits(engine: ZoneEngine, reads: Reads, numbers: range, pieces: int = 20) -> list[bytes]:
    """Visits of these tags; all reads come in so many pieces."""
    closed = []
    for piece in np.array_split(reads, pieces):
        engine.feed(piece)
        closed.append(engine.advance(int(piece["time_us"].max())).closed)
    closed.append(engine.finish().closed)
    every = np.concatenate(closed)
    mine = every[np.isin(every["epc"][:, 0] & 0xFFFF, list(numbers))]
    return sorted(visit.tobytes() for visit in mine)


@pytest.fixture(scope="module")
def few(walk: Walk) -> Reads:
    """Four tags that walk about for ten minutes."""
    stays = [(1, 0, 150), (3, 152, 170), (2, 172, 330), (1, 335, 450), (0, 455, 600)]
    reads = np.concatenate([walk([(z, a + n, b + n) for z, a, b in stays], number=n) for n in range(4)])
    return reads[np.argsort(reads["time_us"], kind="stable")]


def test_many_others_who_come_and_go_make_no_difference(
    layout: Layout, settings: Settings, walk: Walk, few: Reads
) -> None:
    alone = visits(ZoneEngine(layout, settings), few, range(4))
    others = [walk([(2, 200 + n / 10, 215 + n / 10)], number=n) for n in range(10, 910)]
    both = np.concatenate([few, *others])
    engine = ZoneEngine(layout, settings)
    assert visits(engine, both[np.argsort(both["time_us"], kind="stable")], range(4)) == alone
    assert len(alone) >= 16
    spare = engine._table.tags.spare[: engine._table.tags.heads[figures.SPARE]]
    assert sorted(spare.tolist()) == list(range(len(engine._table.tags.spare)))  # all have been given back, once


@pytest.mark.parametrize("pieces", [1, 150, 700])
def test_how_reads_are_cut_makes_no_difference_to_many(
    layout: Layout, settings: Settings, walk: Walk, few: Reads, pieces: int
) -> None:
    """So many that antennas are taken for mute that don't hear them."""
    others = [walk([(2, 200 + n / 10, 215 + n / 10)], number=n) for n in range(10, 910)]
    both = np.concatenate([few, *others])
    both = both[np.argsort(both["time_us"], kind="stable")]
    expected = visits(ZoneEngine(layout, settings), both, range(910))
    assert visits(ZoneEngine(layout, settings), both, range(910), pieces) == expected


def test_what_has_been_decided_is_written_over(layout: Layout, settings: Settings, few: Reads) -> None:
    engine = ZoneEngine(layout, settings)
    words, last = 0, 0
    for second in range(600):
        now = few[(few["time_us"] - START_US) // 1_000_000 == second]
        engine.feed(now)
        engine.advance(START_US + second * 1_000_000)
        life = engine._table.tags.life
        words += max(int(life["n_pool"].sum()) - last, 0)
        last = int(life["n_pool"].sum())
    live = engine._table.tags.wanted >= 600 + START_US // 1_000_000 - 1
    assert words > 10 * figures.CHUNK
    assert 0 < live.sum() < figures.EVENTS
    assert np.flatnonzero(engine._table.tags.wanted >= 0).max() < figures.EVENTS + 10


def test_with_a_full_pool_the_engine_goes_on(layout: Layout, settings: Settings, few: Reads) -> None:
    engine = ZoneEngine(layout, settings)
    engine.feed(few)
    engine.advance(START_US + 100_000_000)
    tags = engine._table.tags
    before = tags.wanted.copy()
    tags.wanted[:] = figures.NEVER  # as if all of it were wanted for ever
    closed = engine.advance(START_US + 500_000_000).closed
    tags.wanted[:] = before
    closed = np.concatenate([closed, engine.advance(START_US + 700_000_000).closed, engine.finish().closed])
    assert len(np.unique(closed["epc"], axis=0)) == 4
    assert set(closed["zone"].tolist()) >= {0, 1}
