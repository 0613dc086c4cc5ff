"""A store's radio at rest: JSON that names its version, the store and the layout that it was learnt for."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwell.layout import Layout
from dwell.markov import cells
from dwell.markov.field import Field
from edge.store.errors import Trouble

VERSION = 2
Port = tuple[str, int]
"""Reader and port of an antenna."""
GEOMETRY = (
    *("antenna_zone", "antenna_xy", "antenna_height_m", "antenna_tilt_deg", "antenna_azimuth_deg", "antenna_beam_deg"),
    *("zone_floor", "neighbours", "corner_zone", "corner_xy"),
)
FIGURES = {
    "level_3m_dbm": (-150.0, 30.0),
    "slope_db": (0.1, 200.0),
    "height_m": (-10.0, 100.0),
    "spread_db": (0.1, 60.0),
    "half_rate_dbm": (-150.0, 30.0),
    "block_db": (0.0, 100.0),
    "block_rate": (1e-9, 10.0),
    "slab_db": (0.0, 200.0),
    "beam_deg": (1.0, 3600.0),
    "behind_db": (0.0, 200.0),
}
"""The figures that all antennas share, with what is possible at all."""
OFFSET_DB = -100.0, 100.0


@dataclass(frozen=True)
class Calibration:
    """What was learnt of a store's radio, and what it was learnt from."""

    field: Field
    at_us: int
    """When, UTC; time of the last read that it was learnt from."""
    reads: int
    tags: int
    seconds: int
    """With reads, of all tags."""
    before: float
    """Nats a second that the reads of tags which were not learnt from were explained by before …"""
    after: float
    """… and are explained by with it."""


def fingerprint(layout: Layout, zones: Sequence[str], ports: Sequence[Port]) -> str:
    """Changes when an antenna or a zone is added, moved or named otherwise."""
    digest = hashlib.sha256(repr((tuple(zones), tuple(ports))).encode())
    for name in GEOMETRY:
        digest.update(np.ascontiguousarray(getattr(layout, name)).tobytes())
    return digest.hexdigest()[:16]


def kept_at(database: Path) -> Path:
    """Return where the service keeps what it has learnt."""
    return Path(f"{database}.radio.json")


def save(
    path: Path, store: str, layout: Layout, zones: Sequence[str], ports: Sequence[Port], made: Calibration
) -> None:
    """Write a calibration in place of what stands there; Trouble if that can't be."""
    field = made.field
    antennas = [
        {"reader": reader, "port": port, "offset_db": round(float(offset), 3), "rate": round(float(rate), 5)}
        for (reader, port), offset, rate in zip(ports, field.offset_db, field.rate, strict=True)
    ]
    told: dict[str, Any] = {
        "tagtrail_calibration": VERSION,
        "store": store,
        "layout": fingerprint(layout, zones, ports),
        "at_us": made.at_us,
        "reads": made.reads,
        "tags": made.tags,
        "seconds": made.seconds,
        "density_before": round(made.before, 4),
        "density_after": round(made.after, 4),
        "level_1m_dbm": round(field.level_1m_dbm, 3),
        **{name: round(float(getattr(field, name)), 6) for name in FIGURES},
        "antennas": antennas,
    }
    if field.table is not None:
        told["table_dbm"] = [[round(x, 2) if np.isfinite(x) else None for x in row] for row in field.table.tolist()]
    # A gateway may lose power at any moment: the old file stays until the new one is whole.
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(json.dumps(told, indent=1, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise Trouble(f"cannot write {path}: {error.strerror}") from error


def load(path: Path, store: str, layout: Layout, zones: Sequence[str], ports: Sequence[Port]) -> Calibration:
    """Read a calibration; Trouble if that can't be, or if it was made for another store or layout."""
    try:
        told = json.loads(path.read_text("utf-8"))
        version, of, for_layout = told["tagtrail_calibration"], told["store"], told["layout"]
    except OSError as error:
        raise Trouble(f"cannot read the calibration {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Trouble(_foreign(path)) from error
    if version != VERSION:
        raise Trouble(f"{path} is a calibration of version {version}; this is for {VERSION}: calibrate again")
    if of != store:
        raise Trouble(f"{path} is the calibration of store {of!r}, not of {store!r}")
    if for_layout != fingerprint(layout, zones, ports):
        raise Trouble(_elsewhere(path))
    try:
        figures = {(a["reader"], a["port"]): (float(a["offset_db"]), float(a["rate"])) for a in told["antennas"]}
        shared = {name: float(told[name]) for name in FIGURES}
        table = _table(told.get("table_dbm"))
        counts = {name: int(told[name]) for name in ("at_us", "reads", "tags", "seconds")}
        before, after = float(told["density_before"]), float(told["density_after"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise Trouble(_foreign(path)) from error
    if figures.keys() != set(ports):
        raise Trouble(_elsewhere(path))
    offset, rate = np.array([figures[port] for port in ports], np.float64).reshape(-1, 2).T
    possible = [
        *(low <= shared[name] <= high for name, (low, high) in FIGURES.items()),
        ((offset >= OFFSET_DB[0]) & (offset <= OFFSET_DB[1])).all(),
        ((rate > 0) & (rate <= 1)).all(),
        np.isfinite((before, after)).all(),
        table is None or table.shape == (len(ports), len(cells.build(layout))),
        table is None or not np.isnan(table).any(),
    ]
    if not all(possible):
        raise Trouble(f"{path} holds figures that are none: calibrate again")
    field = Field(**shared, offset_db=offset.copy(), rate=rate.copy(), table=table)
    return Calibration(field, **counts, before=before, after=after)


def _table(rows: Any) -> NDArray[np.float64] | None:
    """Levels by antenna and cell, where the layout has no positions; null: never heard there."""
    return None if rows is None else np.array([[-np.inf if x is None else float(x) for x in row] for row in rows])


def _foreign(path: Path) -> str:
    return f"{path} is not a calibration that `tagtrail calibrate` has written"


def _elsewhere(path: Path) -> str:
    return f"{path} was made for another layout: zones or antennas have changed since; calibrate again"
