"""Stores to simulate."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from config import StoreConfig
from config.check import load


@pytest.fixture(scope="session")
def demo_file() -> Iterator[Any]:
    with resources.as_file(resources.files("config") / "demo.toml") as path:
        yield path


@pytest.fixture(scope="session")
def demo_store(demo_file: Path) -> Any:
    return load(demo_file, files=False)


@pytest.fixture(scope="session")
def square() -> Any:
    """A function making a room of four zones with an antenna in each of `ports` corners, all on one reader."""

    def make(side_m: float = 4.6, ports: Any = 4) -> Any:
        half = side_m / 2
        corners = {"a": (0, 0), "b": (side_m, 0), "c": (0, side_m), "d": (side_m, side_m)}
        zones = []
        for name, (x, y) in corners.items():
            x0, y0 = min(x, half), min(y, half)
            polygon = [(x0, y0), (x0 + half, y0), (x0 + half, y0 + half), (x0, y0 + half)]
            zones.append({"id": name, "name": name, "kind": "counter", "floor": "f", "polygon": polygon})
        antennas = [
            {"port": i, "zone": name, "position": place}
            for i, (name, place) in enumerate(list(corners.items())[:ports], 1)
        ]
        return StoreConfig.model_validate(
            {
                "store": {"id": "s", "name": "s", "timezone": "UTC"},
                "floors": [{"id": "f", "name": "f"}],
                "zones": zones,
                "readers": [{"id": "r", "driver": "llrp", "address": "reader", "antennas": antennas}],
                "mqtt": {"url": "mqtt://broker:1883"},
                "database": {"path": "x.db"},
            }
        )

    return make
