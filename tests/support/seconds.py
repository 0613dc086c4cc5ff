"""Recordings judged second by second, where stays are short or everything is one room: tracks with true positions, and
quadrants of a room with an antenna in each corner and nothing else known.
"""

from __future__ import annotations

import csv
import gzip
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import hindsight
import numpy as np
from drawn import Decide, Learn, engine, learn
from numpy.typing import NDArray
from peers import PEERS, TIMEOUTS_S, Heard
from recordings import stays

from config import StoreConfig
from config.check import load
from drivers.read import epc_words
from dwell.layout import Layout
from dwell.markov import cells
from dwell.markov.field import Field
from dwell.read import READ, Reads
from edge.readers import read_file
from edge.store.compose import Shop as Store
from edge.store.compose import compose
from simulators.shop.antennas import Antennas, direction
from simulators.shop.draws import draw_world
from simulators.shop.plan import Plan
from simulators.shop.replays import ORIGIN_US
from simulators.shop.score import Stay
from simulators.shop.walkers import Walk
from simulators.shop.world import SLICE_US, SimulatedShop

STAND_S, WALKERS = 20.0, 6
GRIDS = 7
"""Positions of the grid of cells that tracks are judged on."""
ALONE_STEP = 10
"""Of the 81 choices of one of three receivers in each of four quadrants every tenth: each receiver in three of nine."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Seconds:
    """Reads to learn from and reads to judge by, in order of arrival; where each tag was at moments of the latter."""

    store: Store
    early: Reads
    late: Reads
    truth: dict[str, list[tuple[int, str]]]
    """EPC: (time_us, zone), a second apart."""
    places: dict[str, dict[int, tuple[float, float]]] | None = None
    """EPC: second and metres on the floor, where they are known."""


def tracks(folder: Path) -> Seconds:
    """`reads.csv.gz`, `store.toml` and `truth.csv.gz` (epc, time_us, …, zone) of a folder; learnt from themselves."""
    store = compose(load(folder / "store.toml", files=False))
    reads, _ = read_file.load(store, folder / "reads.csv.gz")
    truth: dict[str, list[tuple[int, str]]] = {}
    places: dict[str, dict[int, tuple[float, float]]] = {}
    with gzip.open(folder / "truth.csv.gz", "rt", newline="") as file:
        for line in csv.DictReader(file):
            epc, time_us = line["epc"].lower(), int(line["time_us"])
            truth.setdefault(epc, []).append((time_us, line["zone"]))
            places.setdefault(epc, {})[time_us // 1_000_000] = float(line["x_m"]), float(line["y_m"])
    return Seconds(store, reads, reads, truth, places)


def quadrants(seed: int, minutes: int = 20) -> Seconds:
    """A square room, an antenna in each corner for each quarter of it, and a store file without positions or polygons.

    Radio and bodies are drawn. People wander about and stand here and there; the first `minutes` are for learning.
    """
    rng = np.random.default_rng([seed, 4])
    side = float(rng.uniform(4, 9))
    corners = [(x, y) for x in (0.0, side) for y in (0.0, side)]
    config = _room(side, corners, int(rng.choice([1, 4])))
    plan, store = Plan(config), compose(config)
    azimuth = np.array([np.degrees(np.arctan2(side / 2 - x, side / 2 - y)) for x, y in corners])
    height, tilt = float(rng.uniform(0.8, 2.5)), float(rng.uniform(0, 40))
    antennas = replace(
        Antennas.of(config, plan),
        place=np.array([(*corner, height) for corner in corners]),
        look=direction(azimuth, np.full(4, tilt)),
        beam=np.radians(rng.uniform(50, 120, 1).repeat(4)),
    )
    world = replace(draw_world(rng, config, plan, antennas, seed, WALKERS), outages_per_hour=0.0, phantoms_per_hour=0.0)
    shop = SimulatedShop(config, world, seed=seed, shoppers=0, origin_us=ORIGIN_US, antennas=antennas)
    cut_us, end_us = ORIGIN_US + minutes * 60_000_000, ORIGIN_US + 2 * minutes * 60_000_000
    for number in range(WALKERS):
        walk = Walk(plan, world, rng, ORIGIN_US, number % 4, *plan.point_in(rng, number % 4))
        while walk.now_us < end_us:
            walk.go(int(rng.integers(4)))
            walk.stand(float(rng.exponential(STAND_S)))
        shop.bring(number, walk.track())
    rows = np.concatenate([shop.slice()[2] for _ in range((end_us - ORIGIN_US) // SLICE_US)])
    rows = rows[np.argsort(rows["arrival_us"], kind="stable")]
    epcs = np.array([epc_words(epc) for epc in shop.epcs])
    reads = np.zeros(len(rows), READ)
    for name in ("time_us", "antenna", "rssi_cdbm"):
        reads[name] = rows[name]
    reads["epc"], reads["epc_bits"], reads["count"] = epcs[rows["tag"]], 96, 1
    truth: dict[str, list[tuple[int, str]]] = {}
    for stay in shop.truth(end_us):
        first = max(cut_us, -(-stay.enter_us // 1_000_000) * 1_000_000)
        truth.setdefault(stay.epc, []).extend((t, stay.zone) for t in range(first, stay.exit_us, 1_000_000))
    early = reads["time_us"] < cut_us
    bare = replace(store, layout=_without_positions(store.layout, np.arange(4)))
    return Seconds(bare, reads[early], reads[~early], truth)


def alone(it: Seconds) -> list[Seconds]:
    """The same with one antenna a zone and nothing known of where: some of the choices, each antenna equally often."""
    antennas = [np.flatnonzero(it.store.layout.antenna_zone == zone) for zone in range(len(it.store.zones))]
    made = []
    for chosen in list(itertools.product(*antennas))[::ALONE_STEP]:
        number = np.full(len(it.store.layout.antenna_zone), -1)
        number[list(chosen)] = np.arange(len(chosen))
        bare = replace(it.store, layout=_without_positions(it.store.layout, np.array(chosen)))
        early, late = (_of_antennas(reads, number) for reads in (it.early, it.late))
        made.append(Seconds(bare, early, late, it.truth))
    return made


def right(it: Seconds, found: Sequence[Stay]) -> float:
    """Share of the seconds in which a tag is said to be in its zone and in no other."""
    said: dict[str, list[Stay]] = {}
    for stay in found:
        said.setdefault(stay.epc, []).append(stay)
    hits = [
        {s.zone for s in said.get(epc, ()) if s.enter_us <= t < s.exit_us} == {zone}
        for epc, seconds in it.truth.items()
        for t, zone in seconds
    ]
    return float(np.mean(hits))


def decided(it: Seconds, decide: Decide, taught: Learn | None = None) -> float:
    """Share of the seconds that a rule is right in, after learning if it can."""
    layout, settings = it.store.layout, it.store.settings
    learnt = taught(layout, settings, it.early) if taught else None
    return right(it, stays(it.store, decide(layout, settings, it.late, learnt)))


def on_grids(it: Seconds, decide: Decide, taught: Learn | None = None) -> float:
    """Mean of the same share over several positions of the grid of cells: where it happens to lie is luck."""
    extent, shares = cells._extent, []
    for number in range(GRIDS):

        def beside(layout: Layout, floor: int, metres: float = number / GRIDS) -> tuple[Floats, Floats] | None:
            found = extent(layout, floor)
            return (found[0] - metres, found[1]) if found else None

        with mock.patch.object(cells, "_extent", beside):
            shares.append(decided(it, decide, taught))
    return float(np.mean(shares))


def knowing(it: Seconds) -> float:
    """The same share of the engine, if its figures are fitted to where everybody was in the very seconds judged."""
    layout, settings = it.store.layout, it.store.settings
    if it.places:
        known = hindsight.of_places(
            layout, it.late, it.places, learn(layout, settings, it.early) or Field.prior(layout)
        )
    else:
        zones = it.store.zones
        numbers = {epc: [(t // 1_000_000, zones.index(zone)) for t, zone in rows] for epc, rows in it.truth.items()}
        known = hindsight.of_zones(layout, it.late, numbers)
    return right(it, stays(it.store, engine(layout, settings, it.late, known)))


def peers(it: Seconds) -> dict[str, tuple[int, float]]:
    """The best timeout of each peer, and its share of right seconds."""
    heard = Heard.of(it.late, it.store.layout.antenna_zone)
    best: dict[str, tuple[int, float]] = {}
    for name, peer in PEERS.items():
        for timeout_s in TIMEOUTS_S:
            found = [Stay(heard.epc[t], it.store.zones[z], a, b) for t, z, a, b in peer(heard, timeout_s).tolist()]
            if (share := right(it, found)) > best.get(name, (0, -1.0))[1]:
                best[name] = (timeout_s, share)
    return best


def _without_positions(layout: Layout, antennas: NDArray[np.int64]) -> Layout:
    """Some of the antennas, and neither positions nor polygons."""
    names = ("antenna_zone", "antenna_height_m", "antenna_tilt_deg", "antenna_azimuth_deg", "antenna_beam_deg")
    return replace(
        layout,
        **{name: getattr(layout, name)[antennas] for name in names},
        antenna_xy=np.zeros((len(antennas), 2), np.float32),
        corner_zone=np.zeros(0, np.int16),
        corner_xy=np.zeros((0, 2), np.float32),
    )


def _of_antennas(reads: Reads, number: NDArray[np.int64]) -> Reads:
    """The reads of some antennas, by their new numbers."""
    kept: Reads = reads[number[reads["antenna"]] >= 0].copy()
    kept["antenna"] = number[kept["antenna"]]
    return kept


def _room(side: float, corners: list[tuple[float, float]], ports: int) -> StoreConfig:
    zones, antennas = [], []
    for n, (x, y) in enumerate(corners):
        left, bottom = min(x, side / 2), min(y, side / 2)
        right_, top = left + side / 2, bottom + side / 2
        polygon = [(left, bottom), (right_, bottom), (right_, top), (left, top)]
        zones.append({"id": f"q{n}", "name": f"q{n}", "kind": "counter", "floor": "f", "polygon": polygon})
        antennas.append({"zone": f"q{n}", "position": (x, y)})
    parts = [antennas[at : at + ports] for at in range(0, 4, ports)]
    readers = [
        {
            "id": f"r{n}",
            "driver": "llrp",
            "address": f"r{n}",
            "antennas": [{"port": port, **antenna} for port, antenna in enumerate(part, 1)],
        }
        for n, part in enumerate(parts)
    ]
    return StoreConfig.model_validate(
        {
            "store": {"id": "room", "name": "room", "timezone": "UTC"},
            "floors": [{"id": "f", "name": "f"}],
            "zones": zones,
            "readers": readers,
            "mqtt": {"url": "mqtt://127.0.0.1:1883"},
            "database": {"path": "room.db"},
        }
    )
