"""Visits against the truth: the engine, the peers each with its best timeout, and what calibration changes."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peers import PEERS, TIMEOUTS_S, Heard
from recordings import SEEDS, decided, peer_scores, recording, stays, total

from drivers.read import epc_words
from dwell import calibration
from dwell.engine import ZoneEngine
from dwell.layout import Layout, Settings, ZoneKind
from dwell.read import READ
from simulators.shop.replays import ORIGIN_US
from simulators.shop.score import Score, Stay, score

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
    before, after, density = [], [], np.zeros((len(seeds), 2))
    for n, seed in enumerate(seeds):
        whole = recording(layout, world, seed, 2 * MINUTES, shoppers)
        cut_us = ORIGIN_US + MINUTES * 60_000_000
        early = whole.reads["time_us"] < cut_us
        later = tuple(s._replace(enter_us=max(s.enter_us, cut_us)) for s in whole.truth if s.exit_us > cut_us)
        held_out = replace(whole, reads=whole.reads[~early], truth=later)
        plain, settings = whole.store.layout, whole.store.settings
        learnt = calibration.calibrate(plain, settings, whole.reads[early]).apply(plain)
        before.append(score(later, decided(held_out)))
        after.append(score(later, decided(held_out, learnt)))
        density[n] = [calibration.likelihood(each, settings, held_out.reads) for each in (plain, learnt)]
    rows = [row("before", total(before)), row("after", total(after))]
    each = [[b.f1, a.f1] for b, a in zip(before, after, strict=True)]
    told = {"layout": layout, "world": world, "rows": rows, "f1": each, "density": density.mean(axis=0).tolist()}
    record_property("calibration", json.dumps(told))
    with capsys.disabled():
        print(f"\n{layout}, {world}: F1 {total(before).f1:.3f} before calibration, {total(after).f1:.3f} after")


# Against reality: body-worn tags in rooms with three or four antennas (UCI 427).

FOLDER = os.environ.get("TAGTRAIL_UCI")
LABELS = {"1": "bed", "2": "chair", "3": "bed", "4": "walk"}
"""Lying and sitting on the bed are one place; walking is none."""


@pytest.mark.benchmark_suite
@pytest.mark.skipif(not FOLDER, reason="TAGTRAIL_UCI names no folder; docs/benchmarks.md says where the data set is")
def test_recorded_rooms(record_property: Tell, capsys: Any) -> None:
    """Odd trials teach which zone each antenna watches and how loud it is; even ones are judged."""
    rooms: dict[str, dict[str, list[list[str]]]] = defaultdict(lambda: defaultdict(list))
    with gzip.open(Path(str(FOLDER)) / "uci427.csv.gz", "rt", newline="") as file:
        lines = csv.reader(file)
        next(lines)
        for line in lines:
            rooms[line[0]][line[1]].append(line)
    truth: list[Stay] = []
    found: dict[str, list[Stay]] = defaultdict(list)
    for room, trials in rooms.items():
        names = sorted(trials)
        layout, ports = _learn_room([trials[name] for name in names[::2]])
        for name in names[1::2]:
            reads, known = _trial(trials[name], f"{room}{name}", ports)
            truth += known
            engine = ZoneEngine(layout, Settings())
            engine.feed(reads)
            end_us = int(reads["time_us"].max())
            closed = np.concatenate([engine.advance(end_us).closed, engine.finish().closed])
            found["Tagtrail"] += _named(closed)
            heard = Heard.of(reads, layout.antenna_zone, goods="")
            for peer_name, peer in PEERS.items():
                for timeout_s in TIMEOUTS_S:
                    found[f"{peer_name} {timeout_s} s"] += [
                        Stay(heard.epc[t], ZONES[z], a, b) for t, z, a, b in peer(heard, timeout_s).tolist() if z < 2
                    ]
    results = {name: score(truth, given, merchandise="") for name, given in found.items()}
    best = {p: max((n for n in results if n.startswith(p)), key=lambda n: results[n].f1) for p in PEERS}
    rows = [row("Tagtrail", results["Tagtrail"]), *(row(best[p], results[best[p]]) for p in PEERS)]
    record_property("recorded", json.dumps({"rows": rows}))
    with capsys.disabled():
        for each in rows:
            print(f"\n{each['rule']}: {each['visits']} visits for {each['true_visits']}, F1 {each['f1']:.3f}", end="")


ZONES = ("bed", "chair", "between")


def _learn_room(trials: list[list[list[str]]]) -> tuple[Layout, dict[str, int]]:
    """A layout without positions: each antenna watches the zone in which it has the largest share of the reads."""
    ports = {port: n for n, port in enumerate(sorted({line[4] for trial in trials for line in trial}))}
    counts = np.zeros((len(ports), 3))
    for trial in trials:
        for line in trial:
            counts[ports[line[4]], ZONES.index(LABELS[line[8]].replace("walk", "between"))] += 1
    share = counts / np.maximum(counts.sum(axis=0), 1)
    zone = share[:, :2].argmax(axis=1)
    for z in range(2):  # no zone without an antenna
        if not (zone == z).any():
            zone[share[:, z].argmax()] = z
    layout = Layout(
        antenna_zone=zone.astype(np.int16),
        antenna_xy=np.zeros((len(ports), 2), np.float32),
        zone_kind=np.full(2, ZoneKind.COUNTER, np.uint8),
        zone_floor=np.zeros(2, np.int16),
        neighbours=~np.eye(2, dtype=np.bool_),
        rule_mask=np.zeros((0, 8), np.uint64),
        rule_value=np.zeros((0, 8), np.uint64),
        rule_class=np.zeros(0, np.uint8),
    )
    reads = np.concatenate([_trial(trial, f"{n}", ports)[0] for n, trial in enumerate(trials)])
    return calibration.calibrate(layout, Settings(), reads).apply(layout), ports


def _trial(lines: list[list[str]], name: str, ports: dict[str, int]) -> tuple[Any, list[Stay]]:
    """Reads of a trial, and its stays by its labels; the tag is named after it."""
    epc = name.encode().ljust(12, b"\0")[:12]
    reads = np.zeros(len(lines), READ)
    reads["time_us"] = [ORIGIN_US + round(float(line[3]) * 1e6) for line in lines]
    reads["antenna"] = [ports.get(line[4], 0) for line in lines]
    reads["rssi_cdbm"] = [round(float(line[5]) * 100) for line in lines]
    reads["epc"], reads["epc_bits"], reads["count"] = epc_words(epc), 96, 1
    known: list[Stay] = []
    for at_us, line in zip(reads["time_us"].tolist(), lines, strict=True):
        place = LABELS[line[8]]
        if known and known[-1].zone == place:
            known[-1] = known[-1]._replace(exit_us=at_us)
        else:
            if known:
                known[-1] = known[-1]._replace(exit_us=at_us)
            known.append(Stay(epc.hex(), place, at_us, at_us))
    return reads, [stay for stay in known if stay.zone != "walk"]


def _named(visits: Any) -> list[Stay]:
    class Two:
        zones = ZONES

    return stays(Two(), visits)  # type: ignore[arg-type]
