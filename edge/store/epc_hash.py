"""A number for each EPC, by which tags are told apart quickly."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def hashes(rows: Any) -> NDArray[np.uint64]:
    """(n,) 64-bit hashes of the EPCs of READ or VISIT rows."""
    words = max(2, -(-int(rows["epc_bits"].max(initial=0)) // 64))  # there is nothing but zeros behind
    mixed: NDArray[np.uint64] = (rows["epc"][:, :words] * _MIX[:words]).sum(axis=1, dtype=np.uint64)
    lengths: NDArray[np.uint64] = rows["epc_bits"].astype(np.uint64) * _MIX[0]
    return mixed ^ lengths


_MIX = np.random.default_rng(8).integers(1, 2**64, 8, np.uint64, endpoint=False) | np.uint64(1)
