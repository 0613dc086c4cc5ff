"""Checkpoint of the engine: its arrays and the layout they refer to, in one row of the database."""

from __future__ import annotations

import io
import json
import sqlite3
import zipfile
import zlib
from dataclasses import asdict, dataclass, fields
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from dwell.layout import Layout, Settings
from dwell.markov.engine import ZoneEngine
from dwell.markov.field import Field
from edge.store.compose import Shop

LAYOUT = "layout."
STATE = "state."
LEVEL = 3
"""Compression level: a sixth less to write than with level 1, in the same time."""
PAGE_BYTES = 4096


class Unreadable(Exception):
    """Raised for a checkpoint that this version can't restore."""


@dataclass(frozen=True)
class Checkpoint:
    """State of an engine for the shop with this `fingerprint`."""

    watermark_us: int
    fingerprint: str
    zones: tuple[str, ...]
    floors: tuple[str, ...]
    layout: Layout
    settings: Settings
    state: dict[str, NDArray[Any]]

    def engine(self, field: Field | None = None) -> ZoneEngine:
        """Restore the engine, with the radio model `field` if there is one; Unreadable if it comes from an
        incompatible version."""
        try:
            return ZoneEngine.restore(self.layout, self.settings, self.state, field=field)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise Unreadable(str(error)) from error


def save(conn: sqlite3.Connection, shop: Shop, watermark_us: int, state: dict[str, NDArray[Any]]) -> int:
    """Replace the checkpoint, in the caller's transaction; return its size. Compresses, so call it in a thread."""
    arrays = {STATE + name: array for name, array in state.items()}
    arrays |= {LAYOUT + field.name: getattr(shop.layout, field.name) for field in fields(Layout)}
    meaning = {"zones": shop.zones, "floors": shop.floors, "settings": asdict(shop.settings)}
    arrays["meaning"] = np.frombuffer(json.dumps(meaning).encode(), np.uint8)
    packer = _Packer()
    # Like np.savez, which requires a readable file.
    with zipfile.ZipFile(cast("BinaryIO", packer), "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
    packed = packer.packed()
    size = len(packed)
    before = conn.execute("SELECT length(state) FROM checkpoint").fetchone()
    room = before[0] if before is not None and before[0] // 2 < size <= before[0] else _room(size)
    packed += bytes(room - size)  # in place: with thousands of tags each copy is some 20 MiB
    # With the same length, it overwrites the previous one in place. Otherwise it would get new pages, and the old pages
    # would be written too, as free ones.
    conn.execute(
        "INSERT INTO checkpoint VALUES (1, ?, ?, ?) ON CONFLICT (id) DO UPDATE"
        " SET watermark_us = excluded.watermark_us, layout = excluded.layout, state = excluded.state",
        (watermark_us, shop.fingerprint(), packed),
    )
    return size


def _room(size: int) -> int:
    """Return the size to reserve for a state that may grow by an eighth, in whole pages."""
    return -(-size * 9 // 8 // PAGE_BYTES) * PAGE_BYTES


class _Packer(io.RawIOBase):
    """File object that compresses what is written to it."""

    def __init__(self) -> None:
        self._zlib = zlib.compressobj(LEVEL)
        self._packed = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, part: Any) -> int:
        self._packed += self._zlib.compress(part)
        return memoryview(part).nbytes

    def packed(self) -> bytearray:
        self._packed += self._zlib.flush()
        return self._packed


def load(conn: sqlite3.Connection) -> Checkpoint | None:
    """Load the checkpoint, if there is one; Unreadable if it is corrupted or comes from an incompatible version."""
    row = conn.execute("SELECT watermark_us, layout, state FROM checkpoint").fetchone()
    if row is None:
        return None
    try:
        return _unpack(*row)
    except (ValueError, KeyError, TypeError, OSError, zlib.error) as error:
        raise Unreadable(str(error)) from error


def _unpack(watermark_us: int, fingerprint: str, packed: bytes) -> Checkpoint:
    with np.load(io.BytesIO(zlib.decompress(packed)), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    meaning = json.loads(arrays["meaning"].tobytes())
    return Checkpoint(
        watermark_us=watermark_us,
        fingerprint=fingerprint,
        zones=tuple(meaning["zones"]),
        floors=tuple(meaning.get("floors", ())),
        layout=Layout(**{field.name: arrays[LAYOUT + field.name] for field in fields(Layout)}),
        settings=Settings(**meaning["settings"]),
        state={name.removeprefix(STATE): array for name, array in arrays.items() if name.startswith(STATE)},
    )
