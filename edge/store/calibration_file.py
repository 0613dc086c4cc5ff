"""A calibration at rest: JSON that names its version, the store and the layout that it was made for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dwell.layout import Layout
from edge.store.errors import Trouble

VERSION = 1
Port = tuple[str, int]
"""Reader and port of an antenna."""
GEOMETRY = (
    *("antenna_zone", "antenna_xy", "antenna_height_m", "antenna_tilt_deg", "antenna_azimuth_deg", "antenna_beam_deg"),
    *("zone_floor", "neighbours", "corner_zone", "corner_xy"),
)


def fingerprint(layout: Layout, zones: Sequence[str], ports: Sequence[Port]) -> str:
    """Changes when an antenna or a zone is added, moved or named otherwise."""
    digest = hashlib.sha256(repr((tuple(zones), tuple(ports))).encode())
    for name in GEOMETRY:
        digest.update(np.ascontiguousarray(getattr(layout, name)).tobytes())
    return digest.hexdigest()[:16]


def save(path: Path, store: str, layout: Layout, zones: Sequence[str], ports: Sequence[Port], reads: int) -> None:
    """Write the figures of a calibrated layout; Trouble if that can't be."""
    antennas = [
        {"reader": reader, "port": port, "offset_db": round(float(offset), 2), "rate": round(float(rate), 3)}
        for (reader, port), offset, rate in zip(ports, layout.antenna_offset_db, layout.antenna_rate, strict=True)
    ]
    made = {
        "tagtrail_calibration": VERSION,
        "store": store,
        "layout": fingerprint(layout, zones, ports),
        "reads": reads,
        "antennas": antennas,
    }
    try:
        path.write_text(json.dumps(made, indent=1) + "\n", "utf-8")
    except OSError as error:
        raise Trouble(f"cannot write {path}: {error.strerror}") from error


def apply(path: Path, store: str, layout: Layout, zones: Sequence[str], ports: Sequence[Port]) -> Layout:
    """The layout with a file's figures; Trouble if it can't be read or was made for another layout."""
    try:
        made = json.loads(path.read_text("utf-8"))
        version, of, for_layout = made["tagtrail_calibration"], made["store"], made["layout"]
        figures = {(a["reader"], a["port"]): (float(a["offset_db"]), float(a["rate"])) for a in made["antennas"]}
    except OSError as error:
        raise Trouble(f"cannot read the calibration {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Trouble(f"{path} is not a calibration that `tagtrail calibrate` has written") from error
    if version != VERSION:
        raise Trouble(f"{path} is a calibration of version {version}; this is for {VERSION}: calibrate again")
    if of != store:
        raise Trouble(f"{path} is the calibration of store {of!r}, not of {store!r}")
    if for_layout != fingerprint(layout, zones, ports) or figures.keys() != set(ports):
        raise Trouble(f"{path} was made for another layout: zones or antennas have changed since; calibrate again")
    offset, rate = np.array([figures[port] for port in ports], np.float32).reshape(-1, 2).T
    if not (np.isfinite(offset).all() and np.isfinite(rate).all() and (rate > 0).all()):
        raise Trouble(f"{path} holds figures that are none")
    return replace(layout, antenna_offset_db=offset.copy(), antenna_rate=rate.copy())
