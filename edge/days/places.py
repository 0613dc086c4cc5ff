"""Stored arrays of zones and floors, put in the order of the store file, which may have changed since."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config import StoreConfig


def moved(config: StoreConfig, names: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for each zone and floor of the store file its index in the stored facts; -1: not there."""
    zones, floors = ({name: n for n, name in enumerate(listed)} for listed in json.loads(names)[:2])
    return (
        np.array([zones.get(zone.id, -1) for zone in config.zones], np.int64),
        np.array([floors.get(floor.id, -1) for floor in config.floors], np.int64),
    )


def in_place(rows: NDArray[Any], at: NDArray[np.int64]) -> NDArray[Any]:
    """Return the rows at the given indices; zeros for -1."""
    if np.array_equal(at, np.arange(len(rows))):
        return rows  # the same zones in the same order
    out = np.zeros((len(at), *rows.shape[1:]), rows.dtype)
    out[at >= 0] = rows[at[at >= 0]]
    return out
