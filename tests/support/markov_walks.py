"""Walks through a small shop as the Markov engine decides them, told as JSON: run in a process of its own, uncompiled
(NUMBA_DISABLE_JIT=1), since compiling takes a minute and these walks take seconds."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np

from dwell.layout import Layout, Settings, TagClass, ZoneKind
from dwell.markov.decisions import Decisions
from dwell.markov.engine import ZoneEngine
from dwell.markov.field import Field
from dwell.read import READ, Reads

START_US = 1_767_232_800_000_000
SIDES = ((0, 0, 5, 5), (5, 0, 10, 5), (10, 0, 15, 5))
SPOTS = ((2.5, 2.5), (7.5, 2.5), (12.5, 2.5))
NAMES = ("left", "middle", "right", "above")
LEVEL_3M_DBM, SLOPE_DB = -58.0, 28.0


def layout(floors: int = 1) -> Layout:
    """Three counters in a row; with two floors, another one above the first."""
    sides, spots = SIDES + SIDES[:1] * (floors - 1), SPOTS + SPOTS[:1] * (floors - 1)
    zones = len(sides)
    near = np.abs(np.subtract.outer(np.arange(zones), np.arange(zones))) == 1
    corners = [(z, x, y) for z, (a, b, c, d) in enumerate(sides) for x, y in ((a, b), (c, b), (c, d), (a, d))]
    return Layout(
        antenna_zone=np.arange(zones, dtype=np.int16),
        antenna_xy=np.array(spots, np.float32),
        zone_kind=np.full(zones, ZoneKind.COUNTER, np.uint8),
        zone_floor=np.array([0, 0, 0, 1][:zones], np.int16),
        neighbours=near,
        rule_mask=np.zeros((1, 8), np.uint64),
        rule_value=np.zeros((1, 8), np.uint64),
        rule_class=np.full(1, TagClass.MEMBER, np.uint8),
        corner_zone=np.array([z for z, _, _ in corners], np.int16),
        corner_xy=np.array([(x, y) for _, x, y in corners], np.float32),
    )


def field(shop: Layout) -> Field:
    return replace(Field.prior(shop), level_3m_dbm=LEVEL_3M_DBM, slope_db=SLOPE_DB, half_rate_dbm=-76.0, behind_db=0.0)


def reads(shop: Layout, stays: list[tuple[int, float, float]], *, rate: float = 0.5, seed: int = 1) -> Reads:
    """What antennas hear, second by second, of a tag that stands beside the middle of zones for some time."""
    rng = np.random.default_rng(seed)
    rows = []
    for zone, start_s, end_s in stays:
        x, y = SPOTS[zone % 3][0] + 0.8, SPOTS[zone % 3][1] - 0.6
        for a, (ax, ay) in enumerate(shop.antenna_xy):
            storeys = abs(int(shop.zone_floor[a]) - int(shop.zone_floor[zone]))
            away = np.sqrt((ax - x) ** 2 + (ay - y) ** 2 + (1.4 + 4.0 * storeys) ** 2)
            mean = LEVEL_3M_DBM - SLOPE_DB * np.log10(away / 3.0) - 8.0 * storeys + rng.normal(0, 1.5)
            for second in np.arange(start_s, end_s):
                level = mean + rng.normal(0, 3)
                if rng.random() < rate / (1 + np.exp((-76.0 - level) / 2.0)):
                    rows.append((START_US + int((second + rng.random()) * 1e6), a, round(level * 2) * 50))
    return made(rows)


def made(rows: list[tuple[int, int, int]]) -> Reads:
    found = np.zeros(len(rows), READ)
    found["time_us"], found["antenna"], found["rssi_cdbm"] = np.array(rows, np.int64).reshape(-1, 3).T
    found["epc"][:, 0], found["epc_bits"], found["count"] = 0x2F << 56, 96, 1
    return found[np.argsort(found["time_us"], kind="stable")]


def decided(shop: Layout, taken: Reads, cuts: int = 1) -> list[tuple[str, float, float]]:
    """Closed visits: zone, from and to in seconds after the start."""
    engine = ZoneEngine(shop, Settings(), field=field(shop))
    parts = []
    for part in np.array_split(taken, cuts):
        engine.feed(part)
        if len(part) and cuts > 1:
            parts.append(engine.advance(int(part["time_us"].max())))
    return told([*parts, engine.finish()])


def told(parts: list[Decisions]) -> list[tuple[str, float, float]]:
    visits = np.sort(np.concatenate([part.closed for part in parts]), order="enter_us")
    return [
        (NAMES[v["zone"]], float(v["enter_us"] - START_US) / 1e6, float(v["exit_us"] - START_US) / 1e6) for v in visits
    ]


def restored(shop: Layout, taken: Reads) -> list[tuple[str, float, float]]:
    """As `decided`, but stopped in the middle and gone on with from the engine's state."""
    first = ZoneEngine(shop, Settings(), field=field(shop))
    half = len(taken) // 2
    first.feed(taken[:half])
    before = first.advance(int(taken["time_us"][half - 1]))
    second = ZoneEngine.restore(shop, Settings(), first.state(), field=field(shop))
    second.feed(taken[half:])
    return told([before, second.finish()])


def main() -> dict[str, Any]:
    shop, two = layout(), layout(2)
    walk = reads(shop, [(0, 0, 60), (1, 66, 120), (2, 128, 200)])
    late = np.random.default_rng(5).permutation(walk)
    late = late[np.argsort(late["time_us"] // 1_500_000, kind="stable")]  # in time, but out of order
    there = reads(shop, [(0, 0, 120)])
    lone = made([(START_US + s * 1_000_000, s % 3, -7000 - s % 7 * 100) for s in range(300, 3600, 170)])
    frozen = made([(START_US + s * 1_000_000, 0, -6150) for s in range(150, 1350, 30)])
    return {
        "walk": decided(shop, walk),
        "cut": decided(shop, walk, 40),
        "late": decided(shop, late),
        "restored": restored(shop, walk),
        "back": decided(shop, reads(shop, [(2, 0, 100), (0, 106, 200)])),
        "ghosts": decided(shop, np.concatenate([there, lone])),
        "frozen": decided(shop, np.concatenate([there, frozen])),
        "floors": decided(two, reads(two, [(3, 0, 200)])),
    }


if __name__ == "__main__":
    json.dump(main(), sys.stdout)
