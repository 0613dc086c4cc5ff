"""Recordings to score on: named worlds on three layouts, and the engine's and the peers' stays of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peers import PEERS, TIMEOUTS_S, Heard

from config import StoreConfig
from config.check import load
from drivers.read import epc_words
from dwell.layout import Layout
from dwell.markov.engine import ZoneEngine
from dwell.markov.field import Field
from dwell.read import READ, Reads
from edge.store.compose import Shop, compose
from simulators.shop.replays import ORIGIN_US
from simulators.shop.score import Score, Stay, score
from simulators.shop.world import SLICE_US, SimulatedShop
from simulators.shop.worlds import WORLDS

SEEDS = (501, 502, 503)
"""Used nowhere else: nothing was chosen by looking at them."""
ROOT = Path(__file__).parents[2]
RULES = [
    {"class": class_, "scheme": scheme, "company_prefix": "9521141"}
    for class_, scheme in (
        ("member", "gsrn-96"),
        ("staff", "gsrnp-96"),
        ("cart", "grai-96"),
        ("merchandise", "sgtin-96"),
    )
]


@dataclass(frozen=True)
class Recording:
    """Reads of a simulated shop in order of arrival, as a replay file has them, and the truth."""

    store: Shop
    reads: Reads
    truth: tuple[Stay, ...]
    until_us: int


def config(layout: str) -> StoreConfig:
    """demo: the demo's store. rooms: eight rooms with four antennas in the corners of each. large: four floors."""
    return {"demo": _demo, "rooms": _rooms, "large": _large}[layout]()


@cache
def recording(layout: str, world: str, seed: int, minutes: float, shoppers: int) -> Recording:
    """The same arguments give the same recording; kept, since several tests ask for it."""
    store = compose(config(layout))
    shop = SimulatedShop(store.config, WORLDS[world], seed=seed, shoppers=shoppers, origin_us=ORIGIN_US)
    until_us = ORIGIN_US + round(minutes * 60e6)
    rows = np.concatenate([shop.slice()[2] for _ in range(-(-(until_us - ORIGIN_US) // SLICE_US))])
    rows = rows[np.argsort(rows["arrival_us"], kind="stable")]
    rows = rows[rows["arrival_us"] < until_us]
    epcs = np.array([epc_words(epc) for epc in shop.epcs])
    bits = np.array([8 * len(epc) for epc in shop.epcs])
    reads = np.zeros(len(rows), READ)
    for name in ("time_us", "antenna", "rssi_cdbm"):
        reads[name] = rows[name]
    reads["epc"], reads["epc_bits"], reads["count"] = epcs[rows["tag"]], bits[rows["tag"]], 1
    return Recording(store, reads, tuple(shop.truth(until_us)), until_us)


def decided(it: Recording, field: Field | None = None) -> list[Stay]:
    """What the engine says of a recording, with what has been learnt of the store's radio."""
    engine = ZoneEngine(it.store.layout, it.store.settings, field=field)
    engine.feed(it.reads)
    parts = [engine.advance(it.until_us).closed, engine.finish().closed]
    return stays(it.store, np.concatenate(parts))


def stays(store: Shop, visits: NDArray[Any]) -> list[Stay]:
    """Visits as they are scored."""
    rows = zip(*(visits[n].tolist() for n in ("epc_bits", "zone", "enter_us", "exit_us")), strict=True)
    epcs = [epc.astype(">u8").tobytes().hex() for epc in visits["epc"]]
    return [Stay(epc[: n // 4], store.zones[z], a, b) for epc, (n, z, a, b) in zip(epcs, rows, strict=True)]


def peer_scores(recordings: list[Recording], layout: Layout | None = None) -> dict[str, tuple[int, list[Score]]]:
    """For each peer its best timeout on all of the recordings together, and the scores with it."""
    best: dict[str, tuple[int, list[Score]]] = {}
    heard = [Heard.of(it.reads, (layout or it.store.layout).antenna_zone) for it in recordings]
    for name, peer in PEERS.items():
        for timeout_s in TIMEOUTS_S:
            scores = []
            for it, h in zip(recordings, heard, strict=True):
                rows = [Stay(h.epc[t], it.store.zones[z], a, b) for t, z, a, b in peer(h, timeout_s).tolist()]
                scores.append(score(it.truth, rows))
            if name not in best or total(scores).f1 > total(best[name][1]).f1:
                best[name] = (timeout_s, scores)
    return best


def total(scores: list[Score]) -> Score:
    """Of several recordings: visits added up, the shares' means weighed by true visits."""
    true, decided_, matched = (sum(getattr(s, n) for s in scores) for n in ("true_visits", "visits", "matched"))
    means = {
        name: sum(getattr(s, name) * s.true_visits for s in scores) / true
        for name in ("dwell_wape", "zone_dwell_wape", "right_zone_share", "path_similarity")
    }
    return Score(
        true,
        decided_,
        matched,
        matched / decided_ if decided_ else 0.0,
        matched / true,
        2 * matched / (true + decided_),
        **means,
    )


def _demo() -> StoreConfig:
    return load(ROOT / "config/demo.toml", files=False)


def _store(zones: list[dict[str, Any]], readers: list[list[dict[str, Any]]], floors: int) -> StoreConfig:
    return StoreConfig.model_validate(
        {
            "store": {"id": "bench", "name": "bench", "timezone": "Asia/Shanghai"},
            "floors": [{"id": f"F{n}", "name": f"F{n}"} for n in range(floors)],
            "zones": zones,
            "readers": [
                {"id": f"r{n}", "driver": "llrp", "address": f"r{n}", "antennas": antennas}
                for n, antennas in enumerate(readers)
            ],
            "tag_classes": RULES,
            "mqtt": {"url": "mqtt://127.0.0.1:1883"},
            "database": {"path": "bench.db"},
        }
    )


def _zone(id_: str, kind: str, floor: int, box: tuple[float, float, float, float]) -> dict[str, Any]:
    left, bottom, right, top = box
    corners = ((left, bottom), (right, bottom), (right, top), (left, top))
    return {"id": id_, "name": id_, "kind": kind, "floor": f"F{floor}", "polygon": corners}


def _rooms() -> StoreConfig:
    """Rooms of 5 × 5 m on both sides of an aisle of 3 m, a reader's four antennas in each one's corners; one door."""
    zones = [_zone("door", "entrance", 0, (-5, 5, 0, 8)), _zone("aisle", "aisle", 0, (0, 5, 20, 8))]
    readers = [
        [
            *({"port": p + 1, "zone": "door", "position": (x, 6.5)} for p, x in enumerate((-3.5, -1.0))),
            *({"port": p + 3, "zone": "aisle", "position": (x, 6.5)} for p, x in enumerate((5.0, 15.0))),
        ]
    ]
    for n in range(8):
        x, y = 5.0 * (n % 4), 0.0 if n < 4 else 8.0
        zones.append(_zone(f"room{n}", "counter", 0, (x, y, x + 5, y + 5)))
        corners = ((x + dx, y + dy) for dx in (0.4, 4.6) for dy in (0.4, 4.6))
        readers.append([{"port": p, "zone": f"room{n}", "position": c} for p, c in enumerate(corners, 1)])
    return _store(zones, readers, 1)


def _large() -> StoreConfig:
    """Four floors of 60 × 32 m with 24 counters, two aisles and a checkout each; a reader for four counters."""
    zones: list[Any] = []
    readers: list[Any] = []
    for f in range(4):
        first = len(zones)
        for row, y in enumerate((10.0, 22.0)):
            zones.append(_zone(f"f{f}-aisle{row}", "aisle", f, (0, y, 60, y + 3)))
        for n in range(24):
            x, y = 7.5 * (n % 8), (2.0, 13.5, 25.5)[n // 8]
            zones.append(_zone(f"f{f}-c{n}", "counter", f, (x + 0.5, y, x + 7, y + 6.5 + (n // 8 == 0))))
        zones.append(_zone(f"f{f}-pay", "checkout", f, (60.5, 10, 66, 25)))
        if f == 0:
            zones.append(_zone("in", "entrance", f, (-6, 9, 0, 14)))
            zones.append(_zone("out", "exit", f, (-6, 20, 0, 26)))
        spots = []
        for zone in zones[first:]:
            (left, bottom), (right, top) = zone["polygon"][0], zone["polygon"][2]
            several = 6 if zone["kind"] == "aisle" else 2 if zone["kind"] != "counter" else 1
            step = (right - left) / several
            spots += [
                {"zone": zone["id"], "position": (left + step * (k + 0.5), (bottom + top) / 2)} for k in range(several)
            ]
        readers += [
            [{"port": p, **spot} for p, spot in enumerate(spots[at : at + 4], 1)] for at in range(0, len(spots), 4)
        ]
        if f:
            zones[first]["neighbours"] = [f"f{f - 1}-aisle0", f"f{f}-aisle1", *(f"f{f}-c{n}" for n in range(16))]
    return _store(zones, readers, 4)
