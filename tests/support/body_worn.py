"""Tags worn on the body in rooms with three or four antennas (UCI 427), with labels of where people were.

Odd trials teach which zone each antenna watches, and what a rule learns without labels; even ones are judged.
"""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from drawn import Decide, Learn
from peers import PEERS, TIMEOUTS_S, Heard

from drivers.read import epc_words
from dwell.layout import Layout, Settings, ZoneKind
from dwell.read import READ, Reads
from simulators.shop.replays import ORIGIN_US
from simulators.shop.score import Score, Stay, score

Lines = list[list[str]]
LABELS = {"1": "bed", "2": "chair", "3": "bed", "4": "walk"}
"""Lying and sitting on the bed are one place; walking is none."""
ZONES = ("bed", "chair", "between")


class Room:
    """One of the rooms: layout without positions, reads to learn from, and judged trials with their stays."""

    def __init__(self, name: str, trials: dict[str, Lines]) -> None:
        names = sorted(trials)
        self.name = name
        self.layout, ports = _room([trials[n] for n in names[::2]])
        self.early: Reads = np.concatenate([_trial(trials[n], n, ports)[0] for n in names[::2]])
        self.late = [_trial(trials[n], f"{name}{n}", ports) for n in names[1::2]]
        self.truth = [stay for _, known in self.late for stay in known]

    def decided(self, decide: Decide, learn: Learn | None = None) -> Score:
        """Score of a rule over the judged trials."""
        learnt = learn(self.layout, Settings(), self.early) if learn else None
        found: list[Stay] = []
        for reads, _ in self.late:
            visits = decide(self.layout, Settings(), reads, learnt)
            rows = zip(visits["epc"], *(visits[n].tolist() for n in ("zone", "enter_us", "exit_us")), strict=True)
            found += [Stay(e.astype(">u8").tobytes()[:12].hex(), ZONES[z], a, b) for e, z, a, b in rows]
        return score(self.truth, found, merchandise="")

    def peers(self) -> dict[str, tuple[int, Score]]:
        """The best timeout of each peer, and its score."""
        heard = [Heard.of(reads, self.layout.antenna_zone, goods="") for reads, _ in self.late]
        best: dict[str, tuple[int, Score]] = {}
        for name, peer in PEERS.items():
            for timeout_s in TIMEOUTS_S:
                rows = [(h.epc[t], z, a, b) for h in heard for t, z, a, b in peer(h, timeout_s).tolist() if z < 2]
                result = score(self.truth, [Stay(e, ZONES[z], a, b) for e, z, a, b in rows], merchandise="")
                if name not in best or result.f1 > best[name][1].f1:
                    best[name] = (timeout_s, result)
        return best


def rooms(folder: Path) -> list[Room]:
    """Of `uci427.csv.gz` in a folder."""
    lines: dict[str, dict[str, Lines]] = defaultdict(lambda: defaultdict(list))
    with gzip.open(folder / "uci427.csv.gz", "rt", newline="") as file:
        rows = csv.reader(file)
        next(rows)
        for row in rows:
            lines[row[0]][row[1]].append(row)
    return [Room(name, trials) for name, trials in lines.items()]


def _room(trials: list[Lines]) -> tuple[Layout, dict[str, int]]:
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
    return layout, ports


def _trial(lines: Lines, name: str, ports: dict[str, int]) -> tuple[Any, list[Stay]]:
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
