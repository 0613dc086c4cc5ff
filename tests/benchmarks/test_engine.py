"""The engine's speed: reads a second at full load and how it changes with the store, silence, single reads, memory;
beside the dense reference and the peers' rules on the same reads in the same run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import dense
import numpy as np
import pytest
from peers import PEERS, Heard
from recordings import recording

from dwell.layout import Layout, Settings, TagClass, ZoneKind
from dwell.markov.engine import ZoneEngine
from dwell.markov.field import Field
from dwell.read import READ, Reads
from simulators.shop.replays import ORIGIN_US

ZONES, TAGS, RATE = 200, 5_000, 4.0
"""The store that the budget speaks of: 4 antennas a zone, 4 reads a second and tag."""
BUDGET_TAG_SECOND_US, BUDGET_SILENCE_MS, BUDGET_CALL_US, BUDGET_TAG_BYTES = 8.0, 5.0, 5.0, 16_384
PER_FLOOR = 50
SECONDS = 12
Tell = Callable[[str, object], None]


def store(zones: int) -> Layout:
    """Counters of 5 × 5 m, 6 m apart, ten in a row, 50 a floor, with four antennas in each."""
    n = np.arange(zones)
    x, y = 6.0 * (n % PER_FLOOR % 10), 6.0 * (n % PER_FLOOR // 10)
    floor = n // PER_FLOOR
    near = (np.abs(x[:, None] - x) <= 6) & (np.abs(y[:, None] - y) <= 6) & (floor[:, None] == floor)
    np.fill_diagonal(near, False)
    spots = np.array([(1.25, 1.25), (3.75, 1.25), (1.25, 3.75), (3.75, 3.75)])
    corners = np.array([(0, 0), (5, 0), (5, 5), (0, 5)])
    kind = np.full(zones, ZoneKind.COUNTER, np.uint8)
    kind[0] = ZoneKind.ENTRANCE
    at = np.stack([x, y], axis=1)[:, None]
    return Layout(
        antenna_zone=np.repeat(n, 4).astype(np.int16),
        antenna_xy=(at + spots).reshape(-1, 2).astype(np.float32),
        zone_kind=kind,
        zone_floor=floor.astype(np.int16),
        neighbours=near,
        rule_mask=np.zeros((1, 8), np.uint64),
        rule_value=np.zeros((1, 8), np.uint64),
        rule_class=np.full(1, TagClass.MEMBER, np.uint8),
        corner_zone=np.repeat(n, 4).astype(np.int16),
        corner_xy=(at + corners).reshape(-1, 2).astype(np.float32),
    )


def seconds_of(layout: Layout, tags: int, rate: float, seed: int = 1) -> Iterator[Reads]:
    """Reads second by second: tags stand somewhere and move to another zone every minute or so; levels by distance."""
    rng = np.random.default_rng(seed)
    zones = len(layout.zone_kind)
    zone = rng.integers(zones, size=tags)
    place = rng.uniform(0, 5, (tags, 2))
    on_floor = layout.zone_floor[layout.antenna_zone]
    count = round(tags * rate)
    corner = layout.corner_xy.reshape(zones, 4, 2)[:, 0].astype(np.float64)
    near = np.zeros((zones, 12), np.int64)
    for z in range(zones):
        mine = np.flatnonzero(on_floor == layout.zone_floor[z])
        far = np.hypot(*(layout.antenna_xy[mine] - corner[z] - 2.5).T)
        near[z] = np.resize(mine[np.argsort(far)[:12]], 12)
    second = 0
    while True:
        moving = rng.random(tags) < 1 / 60
        zone[moving] = rng.integers(zones, size=int(moving.sum()))
        tag = rng.integers(tags, size=count)
        pick = np.minimum(rng.geometric(0.3, count) - 1, 11)
        antenna = near[zone[tag], pick]
        distance = np.hypot(*(corner[zone[tag]] + place[tag] - layout.antenna_xy[antenna]).T)
        reads = np.zeros(count, READ)
        reads["time_us"] = np.sort(ORIGIN_US + second * 1_000_000 + rng.integers(1_000_000, size=count))
        reads["antenna"] = antenna
        level = -60.7 - 21.5 * np.log10(np.hypot(distance, 1.5)) + rng.normal(0, 4, count)
        reads["rssi_cdbm"] = np.round(level * 2) * 50
        reads["epc"][:, 0] = 0x2F << 56
        reads["epc"][:, 1] = tag.astype(np.uint64) << np.uint64(32)
        reads["epc_bits"], reads["count"] = 96, 1
        yield reads
        second += 1


def filled(layout: Layout, tags: int, rate: float) -> tuple[ZoneEngine, Iterator[Reads]]:
    """An engine in which all tags are present, and the seconds that follow."""
    engine, seconds = ZoneEngine(layout, Settings()), seconds_of(layout, tags, rate)
    for _ in range(max(4, round(16 / rate))):
        step(engine, next(seconds))
    return engine, seconds


def step(engine: ZoneEngine, reads: Reads) -> int:
    engine.feed(reads)
    engine.advance(int(reads["time_us"][-1]) + Settings().lateness_us)
    return len(reads)


def speed(layout: Layout, tags: int, rate: float) -> tuple[float, float]:
    """Reads a second: by the median and by the best of some seconds."""
    engine, seconds = filled(layout, tags, rate)
    rates = []
    for reads, _ in zip(seconds, range(SECONDS), strict=False):
        began = time.perf_counter()
        step(engine, reads)
        rates.append(len(reads) / (time.perf_counter() - began))
    return float(np.median(rates)), float(max(rates))


def test_full_load(benchmark: Any, capsys: Any) -> None:
    """200 zones, 800 antennas, 5,000 tags, 20,000 reads a second."""
    engine, seconds = filled(store(ZONES), TAGS, RATE)
    benchmark.group = "engine, one second of 20,000 reads, 5,000 tags, 200 zones"
    benchmark.pedantic(step, setup=lambda: ((engine, next(seconds)), {}), rounds=40)
    assert engine.counters["tags_tracked"] >= TAGS
    per_s = TAGS * RATE / benchmark.stats.stats.median
    rows = {name: a for name, a in engine.state().items() if name.startswith("tags_") or name == "due"}
    size = sum(a.nbytes for a in rows.values()) // len(rows["due"]) + 16
    benchmark.extra_info.update(
        tag_second_us=round(benchmark.stats.stats.mean / TAGS * 1e6, 2),
        worst_ms=round(benchmark.stats.stats.max * 1e3, 1),
        reads_per_s=round(per_s),
        best_reads_per_s=round(TAGS * RATE / benchmark.stats.stats.min),
        tag_bytes=size,
    )
    with capsys.disabled():
        print(f"\nengine: {per_s / 1e6:.2f} M reads/s, {size} bytes a tag")
    assert size <= BUDGET_TAG_BYTES


def test_silence(benchmark: Any, capsys: Any) -> None:
    """One second without any read while 5,000 tags are present."""
    engine, seconds = filled(store(ZONES), TAGS, RATE)
    at_us = [int(next(seconds)["time_us"][0]) + Settings().lateness_us]

    def second() -> None:
        at_us[0] += 1_000_000
        engine.advance(at_us[0])

    for _ in range(60):  # what was heard is decided by now
        second()
    benchmark.group = "engine, one second of silence, 5,000 tags"
    benchmark.pedantic(second, rounds=60)
    assert engine.counters["tags_tracked"] >= 0.99 * TAGS  # some were found to be in no zone, and forgotten
    ms = benchmark.stats.stats.median * 1e3
    benchmark.extra_info.update(ms=round(ms, 3), worst_ms=round(benchmark.stats.stats.max * 1e3, 3))
    with capsys.disabled():
        print(f"\nsilence: {ms:.2f} ms a second, worst {benchmark.stats.stats.max * 1e3:.2f} ms")


def test_one_read_a_call(benchmark: Any, capsys: Any) -> None:
    """feed() with a single read, and advance() by less than a tick."""
    layout = store(ZONES)
    engine, seconds = filled(layout, TAGS, RATE)
    reads = next(seconds)
    ones = [reads[i : i + 1] for i in range(2000)]
    at_us = int(reads["time_us"][0]) + Settings().lateness_us - 1_000_000

    def calls() -> None:
        for one in ones:
            engine.feed(one)
            engine.advance(at_us)

    benchmark.group = "engine, one read a call"
    benchmark.pedantic(calls, rounds=10)
    us = benchmark.stats.stats.median / len(ones) * 1e6
    benchmark.extra_info.update(us=round(us, 2))
    with capsys.disabled():
        print(f"\none read a call: {us:.2f} µs")


@pytest.mark.benchmark_suite
@pytest.mark.parametrize(
    ("what", "values"), [("zones", (10, 50, 200, 400)), ("tags", (100, 1000, 5000, 20_000)), ("reads", (1, 4, 16, 64))]
)
def test_sweep(what: str, values: tuple[int, ...], record_property: Tell, capsys: Any) -> None:
    """One of zones (with 4 antennas each), tags, and reads a second and tag; the others as in 200, 1,000 and 4."""
    points = []
    for value in values:
        zones, tags, rate = (
            value if what == name else usual for name, usual in (("zones", 200), ("tags", 1000), ("reads", 4))
        )
        median, best = speed(store(zones), tags, float(rate))
        points.append([value, median, best])
    record_property("sweep", json.dumps({"what": what, "points": points}))
    with capsys.disabled():
        print(f"\n{what}: " + ", ".join(f"{value}: {median / 1e6:.2f} M/s" for value, median, _ in points))


@pytest.mark.benchmark_suite
def test_reference_and_peers(record_property: Tell, capsys: Any) -> None:
    """Half an hour of the demo's store: engine, dense reference (on a part) and peers, on the same reads."""
    it = recording("demo", "worn", 501, 30, 40)
    layout, settings = it.store.layout, it.store.settings

    def engine(reads: Reads) -> None:
        made = ZoneEngine(layout, settings)
        made.feed(reads)
        made.finish()

    heard = Heard.of(it.reads, layout.antenna_zone)
    rules: dict[str, Callable[[], object]] = {"Tagtrail": lambda: engine(it.reads)}
    rules |= {name: (lambda peer=peer: peer(heard, 30.0)) for name, peer in PEERS.items()}
    took = {}
    for name, rule in rules.items():
        rule()
        took[name] = min(_timed(rule) for _ in range(5))
    part = it.reads[: len(it.reads) // 20]
    field = Field.prior(layout)
    dense.decide(layout, field, part)  # compiles
    dense_s = _timed(lambda: dense.decide(layout, field, part))
    engine_s = min(_timed(lambda: engine(part)) for _ in range(3))
    per_s = {name: len(it.reads) / s for name, s in took.items()}
    told = {"reads_per_s": per_s, "dense_per_s": len(part) / dense_s, "ratio_dense": dense_s / engine_s}
    record_property("rules", json.dumps(told))
    with capsys.disabled():
        print("\n" + ", ".join(f"{name} {rate / 1e6:.2f} M/s" for name, rate in per_s.items()), end="")
        print(f"; dense reference: {dense_s / engine_s:.1f} times slower than the engine")


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
