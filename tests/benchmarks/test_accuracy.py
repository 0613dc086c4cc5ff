"""Visits against the truth: the engine, the peers each with its best timeout, and what calibration changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
from drawn import engine, learn
from recordings import SEEDS, decided, peer_scores, recording, stays, total

from simulators.shop.replays import ORIGIN_US
from simulators.shop.score import Score, score

MINUTES = 30
CASES = [
    ("demo", "mild", 40, SEEDS),
    ("demo", "worn", 40, SEEDS),
    ("demo", "harsh", 40, SEEDS),
    ("rooms", "worn", 20, SEEDS[:2]),
    ("rooms", "harsh", 20, SEEDS[:2]),
    ("large", "worn", 120, SEEDS[:1]),
]
Tell = Callable[[str, object], None]


def row(name: str, result: Score, **more: Any) -> dict[str, Any]:
    return {"rule": name, **more, **{key: round(value, 4) for key, value in asdict(result).items()}}


@pytest.mark.benchmark_suite
@pytest.mark.parametrize(("layout", "world", "shoppers", "seeds"), CASES, ids=lambda x: str(x))
def test_accuracy(
    layout: str, world: str, shoppers: int, seeds: tuple[int, ...], record_property: Tell, capsys: Any
) -> None:
    made = [recording(layout, world, seed, MINUTES, shoppers) for seed in seeds]
    engine = total([score(it.truth, decided(it)) for it in made])
    peers = {name: (timeout, total(scores)) for name, (timeout, scores) in peer_scores(made).items()}
    best = max(result.f1 for _, result in peers.values())
    rows = [row("Tagtrail", engine), *(row(name, result, timeout_s=t) for name, (t, result) in peers.items())]
    ratio = (1 - engine.f1) / (1 - best)
    reads = sum(len(it.reads) for it in made)
    told = {"layout": layout, "world": world, "reads": reads, "ratio": ratio, "rows": rows}
    record_property("accuracy", json.dumps(told))
    with capsys.disabled():
        print(f"\n{layout}, {world}: F1 {engine.f1:.3f}, best peer {best:.3f}, ratio of errors {ratio:.2f}")
    assert engine.f1 > best


@pytest.mark.benchmark_suite
@pytest.mark.parametrize(("layout", "world", "shoppers", "seeds"), CASES[:5], ids=lambda x: str(x))
def test_calibration(
    layout: str, world: str, shoppers: int, seeds: tuple[int, ...], record_property: Tell, capsys: Any
) -> None:
    """Learnt from the first half hour without labels, judged on the second."""
    before: list[Any] = []
    after: list[Any] = []
    for seed in seeds:
        whole = recording(layout, world, seed, 2 * MINUTES, shoppers)
        cut_us = ORIGIN_US + MINUTES * 60_000_000
        early = whole.reads["time_us"] < cut_us
        later = tuple(s._replace(enter_us=max(s.enter_us, cut_us)) for s in whole.truth if s.exit_us > cut_us)
        plain, settings = whole.store.layout, whole.store.settings
        for learnt, scores in ((None, before), (learn(plain, settings, whole.reads[early]), after)):
            scores.append(score(later, stays(whole.store, engine(plain, settings, whole.reads[~early], learnt))))
    rows = [row("before", total(before)), row("after", total(after))]
    each = [[b.f1, a.f1] for b, a in zip(before, after, strict=True)]
    told = {"layout": layout, "world": world, "rows": rows, "f1": each}
    record_property("calibration", json.dumps(told))
    with capsys.disabled():
        print(f"\n{layout}, {world}: F1 {total(before).f1:.3f} before calibration, {total(after).f1:.3f} after")
