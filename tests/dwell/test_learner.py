"""When a radio is learnt, and from which reads: neither depends on how the reads come."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dwell.layout import Layout, TagClass
from dwell.markov import learner as learner_
from dwell.markov.learner import CHUNK_US, MOMENTS_US, Learner, look
from dwell.markov.ticks import Ticks
from dwell.read import READ, Reads

T0 = 1_800_000_000_000_000
MINUTE_US = 60_000_000


def crowd(layout: Layout, minutes: float, tags: int = 40, seed: int = 0) -> Reads:
    rng = np.random.default_rng(seed)
    n = int(minutes * 60 * tags)
    reads = np.zeros(n, READ)
    reads["time_us"] = T0 + np.sort(rng.integers(0, int(minutes * MINUTE_US), n))
    reads["epc"][:, 0] = 1 + rng.integers(0, tags, n)
    reads["antenna"] = rng.integers(0, len(layout.antenna_zone), n)
    reads["rssi_cdbm"] = rng.normal(-6000, 500, n)
    reads["count"], reads["epc_bits"] = 1, 96
    return reads


def samples(layout: Layout, reads: Reads, cuts: int, late_us: int = 0) -> list[bytes]:
    """All that a learner takes of reads that come in so many batches."""
    learner, taken = Learner(layout), []
    for batch in np.array_split(reads, cuts):
        learner.feed(batch)
        complete_us = int(batch["time_us"].max()) - late_us
        while (due_us := learner.due_us) is not None and learner.due(min(complete_us, due_us)):
            taken.append(np.sort(learner.take(), order=["time_us", "epc", "antenna", "rssi_cdbm"]).tobytes())
        learner.due(complete_us)
    return taken


@pytest.mark.parametrize("room", [300, 6000])
def test_the_sample_is_the_same_in_any_cut_and_order(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr(learner_, "MOST_SECONDS", room)
    reads = crowd(layout, 33)
    whole = samples(layout, reads, 1)
    assert len(whole) == len(MOMENTS_US)
    assert samples(layout, reads, 500) == whole
    late = reads[np.argsort(reads["time_us"] + np.random.default_rng(1).integers(0, 2_000_000, len(reads)))]
    assert samples(layout, late, 100, 2_000_000) == whole


def test_moments_are_twice_two_ten_and_thirty_minutes_and_then_when_told(layout: Layout) -> None:
    learner: Any = Learner(layout)
    assert (learner.due_us, learner.due(T0)) == (None, False)
    reads = crowd(layout, 31)
    begin_us = int(reads["time_us"][0])
    learner.feed(reads)
    for number, minutes in enumerate((2, 2, 10, 30)):
        due_us = begin_us + minutes * MINUTE_US
        assert (learner.due_us, learner.first) == (due_us, number == 0)
        assert not learner.due(due_us - 1)
        assert learner.due(due_us)
        assert learner.take()["time_us"].max() < due_us
    assert learner.over
    assert not learner.due(due_us + 100 * MINUTE_US)
    learner.due_us = due_us + 60 * MINUTE_US
    assert learner.due(due_us + 60 * MINUTE_US)
    assert len(learner.take())
    assert not len(learner.take())
    assert Learner(layout, known=True).over


def test_a_full_store_is_learnt_from_sooner_the_first_time_only(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner_, "FULL_READS", 600)
    learner: Any = Learner(layout)
    reads = crowd(layout, 11)
    begin_us = int(reads["time_us"][0])
    learner.feed(reads)
    assert learner.due(begin_us + MINUTE_US)
    assert learner.take()["time_us"].max() < begin_us + MINUTE_US
    assert not learner.due(begin_us + 2 * MINUTE_US - 1)
    assert learner.due(begin_us + 2 * MINUTE_US)
    assert learner.take()["time_us"].max() > begin_us + MINUTE_US
    assert not learner.due(begin_us + 10 * MINUTE_US - 1)


def test_what_there_is_no_room_for_does_not_wait(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner_, "MOST_SECONDS", 400)
    learner: Any = Learner(layout)
    reads = crowd(layout, 8, tags=400)
    cut_us = T0 + 5 * MINUTE_US
    learner.feed(reads[reads["time_us"] < cut_us])
    while learner.due(cut_us):
        learner.take()
    learner.feed(reads[reads["time_us"] >= cut_us])
    assert sum(map(len, learner._waiting)) < len(reads) / 100


def test_the_sample_is_bounded_and_of_whole_chunks(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner_, "MOST_SECONDS", 2000)
    reads = crowd(layout, 33)
    learner = Learner(layout)
    for batch in np.array_split(reads, 50):
        learner.feed(batch)
        learner.keep_up(int(batch["time_us"].max()))
    sample = learner.finish()
    seconds = {(int(r["epc"][0]), int(r["time_us"]) // 1_000_000) for r in sample}
    assert 1500 < len(seconds) <= 2000
    chunk = np.stack([sample["epc"][:, 0], sample["time_us"].astype(np.uint64) // CHUNK_US])
    every = np.stack([reads["epc"][:, 0], reads["time_us"].astype(np.uint64) // CHUNK_US])
    for one in np.unique(chunk, axis=1).T:
        assert (one == chunk.T).all(axis=1).sum() == (one == every.T).all(axis=1).sum()
    assert len(np.unique(chunk[1])) > 8


def test_goods_and_unknown_antennas_are_left_out(layout: Layout) -> None:
    reads = crowd(layout, 5)
    reads["antenna"][::2] = 0xFFFF
    learner = Learner(layout)
    learner.feed(reads)
    assert len(learner.finish()) == len(reads) // 2


def test_a_clock_that_is_set_back_does_not_end_learning(layout: Layout) -> None:
    learner = Learner(layout, known=True)
    reads = crowd(layout, 5, tags=10)
    later = reads.copy()
    later["time_us"] += 10_000 * MINUTE_US
    learner.feed(later)
    learner.keep_up(int(later["time_us"].max()) + 1)
    learner.feed(reads)
    learner.keep_up(int(reads["time_us"].max()) + 1)
    assert len(learner.finish()) == 2 * len(reads)


def test_too_few_reads_teach_nothing(layout: Layout) -> None:
    assert look(layout, crowd(layout, 0.3, tags=1), None) is None
    assert look(layout, np.zeros(0, READ), None) is None


def test_one_tag_tells_usual_radios_apart_but_not_a_store_s_own(layout: Layout) -> None:
    found = look(layout, crowd(layout, 5, tags=1), None)
    assert found is not None
    assert found.tags == 1
    assert look(layout, crowd(layout, 5, tags=2), found.field) is None


def quiet_then_busy(layout: Layout) -> Reads:
    """One tag for 40 minutes, and a crowd from 80 minutes on."""
    busy = crowd(layout, 33, seed=1)
    busy["time_us"] += 80 * MINUTE_US
    return np.concatenate([crowd(layout, 40, tags=1), busy])


@pytest.mark.parametrize("cuts", [1, 700])
def test_moments_wait_until_there_is_enough_to_learn_from(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, cuts: int
) -> None:
    monkeypatch.setattr(learner_, "MOST_SECONDS", 1000)
    learner: Any = Learner(layout)
    reads = quiet_then_busy(layout)
    begin_us = int(reads["time_us"][0])
    moments: list[tuple[float, int, int]] = []
    for batch in np.array_split(reads, cuts):
        learner.feed(batch)
        while learner.due(int(batch["time_us"].max())):
            at_us = learner.due_us
            sample = learner.take()
            moments.append(
                ((at_us - begin_us) / MINUTE_US, len(np.unique(sample["epc"])), int(sample["time_us"].min()))
            )
    assert [minute for minute, _, _ in moments] == [2, 81, 89, 109]
    assert [tags > 5 for _, tags, _ in moments[1:]] == [True] * 3
    # Of what the lone tag said, what was too much isn't kept.
    assert all(first_us >= begin_us + 20 * MINUTE_US for _, _, first_us in moments[1:])


def test_a_clock_that_jumps_by_years_costs_no_time(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    def enough(ticks: Ticks, wanted: int) -> bool:
        looks.append(wanted)
        return False

    monkeypatch.setattr(learner_.learning, "enough", enough)
    learner: Any = Learner(layout)
    reads = crowd(layout, 3, tags=1)
    learner.feed(reads)
    assert learner.due(T0 + 4 * MINUTE_US)
    learner.take()
    assert not learner.due(T0 + 30 * 365 * 24 * 60 * MINUTE_US)
    assert 0 < len(looks) < 10
    assert T0 + 30 * 365 * 24 * 60 * MINUTE_US < learner.due_us < T0 + (30 * 365 * 24 * 60 + 3) * MINUTE_US


def test_a_flood_of_goods_makes_no_difference_to_the_cut(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is full of reads long before it tells anything of people."""
    monkeypatch.setattr(learner_, "FULL_READS", 3000)
    goods = crowd(layout, 6, tags=100, seed=2)
    goods["epc"][:, 0] += layout.rule_value[layout.rule_class == TagClass.MERCHANDISE][0, 0]
    people = crowd(layout, 5, tags=5, seed=3)
    people["time_us"] += 90_000_000
    reads = np.concatenate([goods, people])
    reads = reads[np.argsort(reads["time_us"], kind="stable")]
    taken = samples(layout, reads, 1)
    assert len(taken) == 2
    for cuts in (3, 20, 400):
        assert samples(layout, reads, cuts) == taken


def test_a_clock_that_is_set_back_does_not_put_off_learning_for_years(layout: Layout) -> None:
    learner: Any = Learner(layout)
    lone = crowd(layout, 1, tags=1)[:20]
    lone["time_us"] += 9 * 365 * 24 * 60 * MINUTE_US
    learner.feed(lone)
    assert not learner.due(int(lone["time_us"].max()) + 5 * MINUTE_US)
    reads = crowd(layout, 3)
    learner.feed(reads)
    assert learner.due(int(reads["time_us"].max()))
    assert len(learner.take()) > 1000
