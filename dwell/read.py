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
SHORT = np.dtype([(name, ("<u8", (USUAL_WORDS,)) if name == "epc" else READ[name]) for name in READ.names or ()])
"""READ without the words that usual EPCs don't have: what waits takes 32 bytes a read instead of 80."""
_WORDS, _SHORT_WORDS = READ.itemsize // 8, SHORT.itemsize // 8
SECOND_US = 1_000_000
FEW_SECONDS = 8
"""A batch of more seconds is not cut: what a reader has stored."""
FEW_READS = 8
"""A smaller batch is kept as it is: that costs less than to make it smaller."""
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
    return _rows(reads).compress(which, axis=0).view(reads.dtype).reshape(-1)


def joined(batches: Sequence[Reads]) -> Reads:
    """Batches as one, as numpy.concatenate would, which takes a hundred times as long over their dtype; SHORT if all
    are."""
    if len(batches) == 1:
        return batches[0]
    dtype = SHORT if batches and all(batch.dtype == SHORT for batch in batches) else READ
    batches = batches if dtype == SHORT else [whole(batch) for batch in batches]
    return np.frombuffer(bytearray().join(np.ascontiguousarray(batch).data for batch in batches), dtype)


def kept(reads: Reads) -> list[Reads]:
    """Reads of either dtype as they are kept until they are weighed: SHORT where their EPCs are, and by seconds, since
    all of a second are weighed at once. They need not be cut then, so that whoever keeps them keeps the same arrays.
    """
    if len(reads) <= FEW_READS or reads.dtype == SHORT:
        return [reads] if len(reads) else []
    first, last = int(reads["time_us"].min()) // SECOND_US, int(reads["time_us"].max()) // SECOND_US
    pieces = [reads]
    if 0 < last - first < FEW_SECONDS:
        second = reads["time_us"] // SECOND_US
        pieces = [picked(reads, second == at) for at in range(first, last + 1)]
    found = []
    for piece in pieces:
        narrow = short(piece)
        if narrow.dtype == SHORT:
            found.append(narrow)
        else:
            long = piece["epc_bits"] > 64 * USUAL_WORDS
            found += [short(picked(piece, ~long)), picked(piece, long)]
    return [piece for piece in found if len(piece)]


def short(reads: Reads) -> Reads:
    """Reads of either dtype as SHORT, unless an EPC is longer."""
    if reads.dtype == SHORT or (len(reads) and reads["epc_bits"].max() > 64 * USUAL_WORDS):
        return reads
    rows, long = np.empty((len(reads), _SHORT_WORDS), np.uint64), _rows(reads)
    rows[:, :-1], rows[:, -1] = long[:, : _SHORT_WORDS - 1], long[:, -1]
    return rows.view(SHORT).reshape(-1)


def whole(reads: Reads) -> Reads:
    """Reads of either dtype as READ."""
    if reads.dtype == READ:
        return reads
    rows, narrow = np.zeros((len(reads), _WORDS), np.uint64), _rows(reads)
    rows[:, : _SHORT_WORDS - 1], rows[:, -1] = narrow[:, :-1], narrow[:, -1]
    return rows.view(READ).reshape(-1)


def _rows(reads: Reads) -> NDArray[np.uint64]:
    """(n, words) what the reads consist of: time, EPC, and the rest in one."""
    return np.ascontiguousarray(reads).view(np.uint64).reshape(len(reads), reads.dtype.itemsize // 8)


def split(batches: Sequence[Reads], before_us: int) -> tuple[list[Reads], list[Reads]]:
    """Batches of the reads before a time, and of the others. Those that are wholly on one side stay where they are."""
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
