"""Checkpoint of the engine: its arrays and the layout they refer to, in the database.

The stream is a line of JSON with what the arrays are called and mean, then each array as NumPy's header and its bytes,
compressed by Zstandard and cut into parts. Bytes of the same place in the number are put side by side, a block of
numbers at a time, because they resemble each other: that saves a third.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, cast

import numpy as np
import zstandard
from numpy.lib import format as npy
from numpy.typing import NDArray

from dwell.layout import Layout, Settings
from dwell.markov.engine import ZoneEngine
from dwell.markov.field import Field
from dwell.markov.tag_table import Sliced
from edge.store.compose import Shop

LAYOUT = "layout."
STATE = "state."
LEVEL = 1
"""Compression level: higher ones save a few per cent and take several times as long."""
PAGE_BYTES = 4096
PART_BYTES = 1 << 20
BLOCK = 1 << 16
"""Numbers whose bytes are put side by side."""


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


def save(conn: sqlite3.Connection, shop: Shop, watermark_us: int, state: Mapping[str, NDArray[Any] | Sliced]) -> int:
    """Replace the checkpoint, in the caller's transaction; return its size. Compresses, so call it in a thread, and let
    the engine rest meanwhile if its state is sliced."""
    arrays: dict[str, NDArray[Any] | Sliced] = {STATE + name: array for name, array in state.items()}
    arrays |= {LAYOUT + field.name: getattr(shop.layout, field.name) for field in fields(Layout)}
    meaning = {"zones": shop.zones, "floors": shop.floors, "settings": asdict(shop.settings), "arrays": list(arrays)}
    conn.execute(
        "INSERT INTO checkpoint VALUES (1, ?, ?) ON CONFLICT (id) DO UPDATE"
        " SET watermark_us = excluded.watermark_us, layout = excluded.layout",
        (watermark_us, shop.fingerprint()),
    )
    parts = _Parts(conn)
    with zstandard.ZstdCompressor(LEVEL).stream_writer(cast("Any", parts), closefd=False) as stream:
        stream.write(json.dumps(meaning).encode() + b"\n")
        for array in arrays.values():
            _write(stream, array)
    return parts.end()


def load(conn: sqlite3.Connection) -> Checkpoint | None:
    """Load the checkpoint, if there is one; Unreadable if it is corrupted or comes from an incompatible version."""
    row = conn.execute("SELECT watermark_us, layout FROM checkpoint").fetchone()
    if row is None:
        return None
    try:
        return _unpacked(row[0], row[1], _Stream(conn))
    except (ValueError, KeyError, TypeError, EOFError, zstandard.ZstdError) as error:
        raise Unreadable(str(error)) from error


def _unpacked(watermark_us: int, fingerprint: str, stream: _Stream) -> Checkpoint:
    meaning = json.loads(stream.line())
    arrays = {name: _read(stream) for name in meaning["arrays"]}
    return Checkpoint(
        watermark_us=watermark_us,
        fingerprint=fingerprint,
        zones=tuple(meaning["zones"]),
        floors=tuple(meaning["floors"]),
        layout=Layout(**{field.name: arrays[LAYOUT + field.name] for field in fields(Layout)}),
        settings=Settings(**meaning["settings"]),
        state={name.removeprefix(STATE): array for name, array in arrays.items() if name.startswith(STATE)},
    )


def _write(stream: Any, array: NDArray[Any] | Sliced) -> None:
    if isinstance(array, Sliced):
        head = npy.header_data_from_array_1_0(np.zeros(0, array.dtype)) | {"shape": array.shape}
        slices = array.slices()
    else:
        array = np.ascontiguousarray(array).reshape(array.shape)
        head, slices = npy.header_data_from_array_1_0(array), iter((array,))
    npy.write_array_header_1_0(stream, head)
    waiting: list[NDArray[np.uint8]] = []
    for numbers in slices:
        waiting.append(_bytes(numbers.reshape(-1)))
        if sum(map(len, waiting)) >= BLOCK:
            rest = np.concatenate(waiting)
            for start in range(0, len(rest) - BLOCK + 1, BLOCK):
                _write_block(stream, rest[start : start + BLOCK])
            waiting = [rest[len(rest) // BLOCK * BLOCK :]]
    if waiting:
        _write_block(stream, np.concatenate(waiting))


def _write_block(stream: Any, numbers: NDArray[np.uint8]) -> None:
    for place in numbers.T if len(numbers) else ():
        stream.write(place.tobytes())


def _bytes(numbers: NDArray[Any]) -> NDArray[np.uint8]:
    """(n, itemsize) the bytes of n numbers."""
    return numbers.view(np.uint8).reshape(len(numbers), numbers.itemsize)


def _read(stream: Any) -> NDArray[Any]:
    npy.read_magic(stream)
    shape, _, dtype = npy.read_array_header_1_0(stream)
    if dtype.hasobject:
        raise ValueError("the state contains objects")
    array = np.empty(shape, dtype)
    numbers = _bytes(array.reshape(-1))
    for start in range(0, len(numbers), BLOCK):
        block = numbers[start : start + BLOCK]
        block[:] = np.frombuffer(stream.read(block.size), np.uint8).reshape(block.shape[::-1]).T
    return array


class _Parts:
    """File object that writes to the table of parts, each in place of the one before."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        self._before: dict[int, int] = dict(conn.execute("SELECT n, length(part) FROM checkpoint_part").fetchall())
        self._waiting = bytearray()
        self._n = self._size = 0

    def write(self, packed: Any) -> int:
        self._waiting += packed
        self._size += len(packed)
        while len(self._waiting) >= PART_BYTES:
            self._put(bytes(self._waiting[:PART_BYTES]))
            del self._waiting[:PART_BYTES]
        return len(packed)

    def end(self) -> int:
        """Write the rest, delete what is left of the one before, and return the size."""
        before = self._before.get(self._n, 0)
        room = before if before // 2 < len(self._waiting) <= before else _room(len(self._waiting))
        self._put(bytes(self._waiting.ljust(room, b"\0")))
        self._conn.execute("DELETE FROM checkpoint_part WHERE n >= ?", (self._n,))
        return self._size

    def _put(self, part: bytes) -> None:
        # With the same length, it overwrites the previous one in place. Otherwise it would get new pages, and the old
        # pages would be written too, as free ones.
        self._conn.execute(
            "INSERT INTO checkpoint_part VALUES (?, ?) ON CONFLICT (n) DO UPDATE SET part = excluded.part",
            (self._n, part),
        )
        self._n += 1


def _room(size: int) -> int:
    """Return the size to reserve for a part that may grow by an eighth, in whole pages."""
    return min(PART_BYTES, -(-size * 9 // 8 // PAGE_BYTES) * PAGE_BYTES)


class _Stream:
    """File object that reads what the parts contain, one after the other."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._packed = _packed(conn)
        self._zstd = zstandard.ZstdDecompressor().decompressobj()
        self._waiting = bytearray()

    def line(self) -> bytes:
        while (end := self._waiting.find(b"\n")) < 0:
            self._more()
        return self.read(end + 1)

    def read(self, size: int) -> bytes:
        while len(self._waiting) < size:
            self._more()
        read = bytes(self._waiting[:size])
        del self._waiting[:size]
        return read

    def _more(self) -> None:
        part = next(self._packed, None)
        if part is None or self._zstd.eof:
            raise EOFError("the state is cut off")
        self._waiting += self._zstd.decompress(part)


def _packed(conn: sqlite3.Connection) -> Iterator[bytes]:
    n = 0
    while (row := conn.execute("SELECT part FROM checkpoint_part WHERE n = ?", (n,)).fetchone()) is not None:
        yield row[0]
        n += 1
