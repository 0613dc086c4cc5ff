"""A small store of two floors, and reads of tags that stand and walk in it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dwell.layout import Layout, Settings, TagClass, ZoneKind
from dwell.read import READ, RSSI_UNKNOWN, Reads

START_US = 1_767_232_800_000_000
ENTRANCE, SHOES, BAGS, AISLE, UPSTAIRS, STORE_ROOM = range(6)
SIDES = ((0, 0, 6, 6), (8, 0, 14, 6), (16, 0, 22, 6), (0, 9, 22, 13), (0, 0, 8, 8), (30, 0, 36, 6))
FLOORS = (0, 0, 0, 0, 1, 0)
KINDS = (
    ZoneKind.ENTRANCE, ZoneKind.COUNTER, ZoneKind.COUNTER, ZoneKind.AISLE, ZoneKind.COUNTER, ZoneKind.BACK_ROOM,
)  # fmt: skip
WATCHED = ((0, 3, 3), (1, 10, 3), (1, 12, 3), (2, 19, 3), (3, 4, 11), (3, 11, 11), (3, 18, 11), (4, 4, 4))
"""zone, x, y of each antenna; nothing watches the store room."""
MEMBER = 0x2F << 56
GOODS = 0x30 << 56


@pytest.fixture(scope="session")
def layout() -> Layout:
    """Zones as above; EPCs beginning 2F are members', 30 goods."""
    zones = len(SIDES)
    neighbours = np.zeros((zones, zones), np.bool_)
    for a, b in ((0, 1), (1, 2), (0, 3), (1, 3), (2, 3), (3, 4)):
        neighbours[a, b] = neighbours[b, a] = True
    mask = np.zeros((2, 8), np.uint64)
    mask[:, 0] = 0xFF << 56
    value = np.zeros((2, 8), np.uint64)
    value[:, 0] = MEMBER, GOODS
    corners = [(z, x, y) for z, (l, b, r, t) in enumerate(SIDES) for x, y in ((l, b), (r, b), (r, t), (l, t))]  # noqa: E741
    return Layout(
        antenna_zone=np.array([z for z, _, _ in WATCHED], np.int16),
        antenna_xy=np.array([(x, y) for _, x, y in WATCHED], np.float32),
        zone_kind=np.array(KINDS, np.uint8),
        zone_floor=np.array(FLOORS, np.int16),
        neighbours=neighbours,
        rule_mask=mask,
        rule_value=value,
        rule_class=np.array([TagClass.MEMBER, TagClass.MERCHANDISE], np.uint8),
        corner_zone=np.array([z for z, _, _ in corners], np.int16),
        corner_xy=np.array([(x, y) for _, x, y in corners], np.float32),
    )


@pytest.fixture(scope="session")
def settings() -> Settings:
    """Defaults, but journeys end soon enough for a test."""
    return Settings(journey_end_after_exit_us=200_000_000, journey_end_silence_us=400_000_000)


Walk = Callable[..., Reads]


@pytest.fixture(scope="session")
def walk(layout: Layout) -> Walk:
    """walk([(zone, from_s, to_s), …], number=…, seed=…, rate=…): what antennas hear of a tag that stands in the
    middle of each zone for a time; nothing in between."""

    def reads_of(
        stays: list[tuple[int, float, float]], *, number: int = 1, seed: int = 0, rate: float = 3.0, epc: int = MEMBER
    ) -> Reads:
        rng = np.random.default_rng([seed, number])
        parts = []
        for zone, from_s, to_s in stays:
            left, bottom, right, top = SIDES[zone]
            x, y = (left + right) / 2, (bottom + top) / 2
            for antenna, (own, ax, ay) in enumerate(WATCHED):
                if FLOORS[own] != FLOORS[zone]:
                    continue
                level = -56.7 - 21.5 * np.log10(np.hypot(np.hypot(ax - x, ay - y), 1.4)) + rng.normal(0, 1.5)
                n = rng.poisson((to_s - from_s) * rate)
                rssi = level + rng.normal(0, 2.5, n)
                rssi = rssi[rng.random(n) < 1 / (1 + np.exp((-69 - rssi) / 1.5))]
                part = np.zeros(len(rssi), READ)
                part["time_us"] = START_US + rng.uniform(from_s * 1e6, to_s * 1e6, len(rssi)).astype(np.int64)
                part["antenna"], part["rssi_cdbm"] = antenna, np.round(rssi * 2) * 50
                parts.append(part)
        reads = np.concatenate(parts)
        reads["epc"][:, 0], reads["epc_bits"], reads["count"] = epc + number, 96, 1
        reads = reads[np.argsort(reads["time_us"], kind="stable")]
        assert RSSI_UNKNOWN not in reads["rssi_cdbm"]
        return reads

    return reads_of


@pytest.fixture(scope="session")
def crowd(walk: Walk) -> Reads:
    """Eight tags for some minutes, strays and goods among them; in order of time."""
    rng = np.random.default_rng(7)
    parts = []
    for number in range(8):
        at, stays = float(rng.uniform(0, 60)), []
        for zone in rng.choice(5, 5):
            stay = float(rng.choice((4.0, 12.0, 40.0, 90.0)))
            stays.append((int(zone), at, at + stay))
            at += stay + float(rng.choice((1.0, 5.0, 45.0)))
        parts.append(walk(stays, number=number, rate=float(rng.choice((0.5, 2.0, 8.0)))))
    parts.append(walk([(SHOES, 10, 100)], number=50, epc=GOODS, rate=0.3))
    parts += [walk([(BAGS, 20 * n, 20 * n + 0.4)], number=60 + n) for n in range(6)]
    reads = np.concatenate(parts)
    reads["rssi_cdbm"][rng.random(len(reads)) < 0.02] = RSSI_UNKNOWN
    return reads[np.argsort(reads["time_us"], kind="stable")]
