"""The same reads give the same decisions: however they are cut, shuffled within the lateness, or interrupted."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from thorough import examples

from dwell.layout import Layout, Settings
from dwell.markov.decisions import Decisions
from dwell.markov.engine import ZoneEngine
from dwell.read import READ, Reads

START_US = 1_767_232_800_000_000
few = hypothesis_settings(max_examples=examples(15), deadline=None, suppress_health_check=[HealthCheck.too_slow])


def play(layout: Layout, settings: Settings, batches: Iterable[Reads], *, restart: bool = False) -> bytes:
    """Decisions of a run with outages, as bytes."""
    engine = ZoneEngine(layout, settings)
    parts: list[Decisions] = []
    for at_s, antennas, up in ((50, [1, 2], False), (70, [3], False), (170, [1, 2], True), (175, [3], True)):
        engine.outage(np.array(antennas), START_US + at_s * 1_000_000, up)
    watermark_us = 0
    for batch in batches:
        engine.feed(batch)
        if len(batch):
            watermark_us = max(watermark_us, int(batch["time_us"].max()))
            parts.append(engine.advance(watermark_us))
        if restart:
            file = io.BytesIO()
            np.savez(file, allow_pickle=False, **engine.state())
            file.seek(0)
            with np.load(file, allow_pickle=False) as state:
                engine = ZoneEngine.restore(layout, settings, dict(state))
    assert engine.counters["late"] == 0
    parts.append(engine.advance(watermark_us + 1_200_000_000))
    parts.append(engine.finish())
    kinds = [np.concatenate([getattr(p, name) for p in parts]) for name in ("opened", "closed", "arrivals", "windows")]
    journeys = [
        (j.epc.tobytes(), j.epc_bits, j.start_us, j.end_us, j.censored, j.visits.tobytes())
        for p in parts
        for j in p.journeys
    ]
    assert len(kinds[1]) > 10
    assert len(kinds[3]) > 10
    return b"".join(kind.tobytes() for kind in kinds) + repr(journeys).encode()


@given(cuts=st.lists(st.integers(0, 10**9), max_size=60))
@few
def test_cuts_do_not_matter(layout: Layout, settings: Settings, crowd: Reads, cuts: list[int]) -> None:
    at = np.sort(np.array(cuts, np.int64) % len(crowd))
    assert play(layout, settings, np.split(crowd, at)) == play(layout, settings, [crowd])


@given(seed=st.integers(0, 2**32), batch=st.integers(1, 500))
@few
def test_order_within_the_lateness_does_not_matter(
    layout: Layout, settings: Settings, crowd: Reads, seed: int, batch: int
) -> None:
    delay = np.random.default_rng(seed).integers(0, settings.lateness_us - 500_000, len(crowd))
    shuffled = crowd[np.argsort(crowd["time_us"] + delay)]
    batches = np.split(shuffled, np.arange(batch, len(shuffled), batch))
    assert play(layout, settings, batches) == play(layout, settings, [crowd])


@given(cuts=st.lists(st.integers(0, 10**9), min_size=1, max_size=12))
@few
def test_a_restart_changes_nothing(layout: Layout, settings: Settings, crowd: Reads, cuts: list[int]) -> None:
    at = np.sort(np.array(cuts, np.int64) % len(crowd))
    assert play(layout, settings, np.split(crowd, at), restart=True) == play(layout, settings, [crowd])


reads_of_anything = st.lists(
    st.tuples(
        st.integers(0, 600_000_000),
        st.integers(0, 5),
        st.sampled_from((16, 96, 128, 496)),
        st.integers(0, 9),
        st.sampled_from((-32768, -32767, -8000, -7000, -6000, -5000, 0, 32767)),
        st.integers(0, 65535),
    ),
    max_size=200,
)


@given(rows=reads_of_anything)
@few
def test_whatever_comes_visits_stay_in_order(layout: Layout, settings: Settings, rows: list[tuple[int, ...]]) -> None:
    reads = np.zeros(len(rows), READ)
    for read, (time_us, tag, bits, antenna, rssi, count) in zip(reads, rows, strict=True):
        read["time_us"], read["epc"][0], read["epc_bits"] = START_US + time_us, tag, bits
        read["antenna"], read["rssi_cdbm"], read["count"] = antenna, rssi, count
    engine = ZoneEngine(layout, settings)
    parts = []
    for batch in np.array_split(reads, 5):
        engine.feed(batch)
        parts.append(engine.advance(START_US + 300_000_000))
    parts.append(engine.finish())
    closed = np.concatenate([part.closed for part in parts])
    assert (closed["exit_us"] >= closed["enter_us"]).all()
    assert sum(len(part.opened) for part in parts) == len(closed)
    journeys = [journey for part in parts for journey in part.journeys]
    assert sum(len(journey.visits) for journey in journeys) == len(closed)
    for journey in journeys:
        visits = journey.visits
        assert (visits["enter_us"][1:] >= visits["exit_us"][:-1]).all()
        assert int((visits["exit_us"] - visits["enter_us"]).sum()) <= journey.end_us - journey.start_us
        assert (visits["journey_us"] == journey.start_us).all()
    presence = sum(int(part.windows["present_us"].sum()) for part in parts)
    assert presence == int((closed["exit_us"] - closed["enter_us"]).sum())
    counters = engine.counters
    dropped = counters["late"] + counters["unknown_antenna"]
    assert counters["reads"] + dropped == len(reads)
    assert counters["tags_tracked"] >= 0
