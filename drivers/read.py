"""READ, the array type that every driver delivers: the contract between drivers and the rest of the service."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

READ = np.dtype(
    [
        ("time_us", "<i8"),  # UTC, microseconds since 1970, corrected for the reader's clock
        ("epc", "<u8", (8,)),  # the EPC's bits from the left, 64 a word, zeros behind: 496 bits fit whole
        ("antenna", "<u2"),  # global antenna number of the store, ANTENNA_UNKNOWN if the file has no such port
        ("rssi_cdbm", "<i2"),  # peak RSSI in 0.01 dBm, RSSI_UNKNOWN if the reader gave none
        ("count", "<u2"),  # times seen, saturating; at least 1
        ("epc_bits", "<u2"),  # length of the EPC in bits, at most 496 (Gen2)
    ]
)
ANTENNA_UNKNOWN = 0xFFFF
RSSI_UNKNOWN = -32768
EPC_BITS_MAX = 496
_ROW = struct.Struct("<q64sHhHH")
"""A row of READ, but for the order of the bytes in the EPC's words."""

Reads = NDArray[Any]
"""One-dimensional array of dtype READ."""


def epc_words(epc: bytes) -> NDArray[np.uint64]:
    """Convert an EPC to READ's eight words, shape (8,); ValueError beyond 62 bytes."""
    _check(epc)
    return np.frombuffer(epc.ljust(64, b"\0"), ">u8").astype(np.uint64)


def row(time_us: int, epc: bytes, antenna: int, rssi_cdbm: int, count: int) -> bytes:
    """Convert a read to bytes for `of_rows`; ValueError for an EPC beyond 62 bytes."""
    _check(epc)
    return _ROW.pack(time_us, epc, antenna, rssi_cdbm, count, 8 * len(epc))


def of_rows(rows: Sequence[bytes]) -> Reads:
    """Convert reads that are made one by one to an array, in a tenth of the time that NumPy takes for tuples."""
    reads = np.frombuffer(bytearray().join(rows), READ)
    reads["epc"] = reads["epc"].view(">u8")
    return reads


def epc_bytes(words: NDArray[np.uint64], bits: int) -> bytes:
    """Convert READ's words to the EPC's bytes: `bits` bits, rounded up to whole bytes."""
    return words.astype(">u8").tobytes()[: (bits + 7) // 8]


def _check(epc: bytes) -> None:
    if len(epc) * 8 > EPC_BITS_MAX:
        raise ValueError(f"EPC of {len(epc) * 8} bits; Gen2 allows {EPC_BITS_MAX}")
