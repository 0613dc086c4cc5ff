"""READ as the engine takes it. Drivers define the same dtype; a test holds both to it: neither imports the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

READ = np.dtype(
    [
        ("time_us", "<i8"),
        ("epc", "<u8", (8,)),
        ("antenna", "<u2"),
        ("rssi_cdbm", "<i2"),
        ("count", "<u2"),
        ("epc_bits", "<u2"),
    ]
)
ANTENNA_UNKNOWN = 0xFFFF
RSSI_UNKNOWN = -32768

Reads = NDArray[Any]
"""One-dimensional array of dtype READ."""


USUAL_WORDS = 2
"""Longer EPCs are rare."""
MIX = np.uint64(0xFF51AFD7ED558CCD)
"""Of EPCs to 64 bits: two tags that become one in a million years do no harm where this is used."""


def hashed(rows: Any, start: NDArray[np.uint64] | None = None) -> NDArray[np.uint64]:
    """(n,) 64-bit hashes of the EPCs of READ or VISIT rows; `start`: (n,) what else tells rows apart."""
    bits = rows["epc_bits"].astype(np.uint64)
    key: NDArray[np.uint64] = bits.copy()  # what it becomes is not the number of bits
    if start is not None:
        key ^= start * MIX
    longer: Any = slice(None)
    for word in range(rows["epc"].shape[1]):
        if word >= USUAL_WORDS:
            longer = np.flatnonzero(bits > 64 * word)
            if not len(longer):
                break
        mixed = (key[longer] ^ rows["epc"][longer, word]) * MIX
        key[longer] = mixed ^ mixed >> np.uint64(32)
    return key


def picked(reads: Reads, which: NDArray[np.bool_]) -> Reads:
    """The reads marked by `which` (n,), as reads[which] would, which takes twenty times as long over their dtype."""
    if which.all():
        return reads
    rows = np.ascontiguousarray(reads).view(np.uint64).reshape(len(reads), -1)
    return rows.compress(which, axis=0).view(READ).reshape(-1)


def joined(batches: Sequence[Reads]) -> Reads:
    """Batches as one, as numpy.concatenate would, which takes a hundred times as long over their dtype."""
    if len(batches) == 1:
        return batches[0]
    return np.frombuffer(bytearray().join(np.ascontiguousarray(batch).data for batch in batches), READ)


def split(batches: Sequence[Reads], before_us: int) -> tuple[list[Reads], list[Reads]]:
    """Batches of the reads before a time, and of the others. A batch is mostly of one second or two: those that are
    wholly on one side stay where they are.
    """
    ready, waiting = [], []
    for reads in batches:
        now = reads["time_us"] < before_us
        if now.all():
            ready.append(reads)
        elif now.any():
            ready.append(picked(reads, now))
            waiting.append(picked(reads, ~now))
        else:
            waiting.append(reads)
    return ready, waiting
