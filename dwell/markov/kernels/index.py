"""Tags by EPC: open addressing with linear probing; `index` holds row + 1, 0 is free."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwell.compiled import Int, inner, kernel
from dwell.markov.tables import Radio


@inner
def tag_hash(epc: NDArray[np.uint64], bits: Int) -> Any:
    """64-bit mix of an EPC and its length (multiply-xorshift over the words)."""
    value = np.uint64(bits) * np.uint64(0x9E3779B97F4A7C15)
    for w in range(min((bits + 63) // 64, 8)):
        value = (value ^ epc[w]) * np.uint64(0xFF51AFD7ED558CCD)
        value ^= value >> np.uint64(32)
    return value


@inner
def find(index: NDArray[np.int32], tags: NDArray[Any], epc: NDArray[np.uint64], bits: Int) -> Any:
    """Place in `index` of a tag, or of the free place where it would go."""
    mask = index.shape[0] - 1
    at = np.int64(tag_hash(epc, bits) & np.uint64(mask))
    while True:
        row = index[at] - 1
        if row < 0:
            return at
        tag = tags[row]
        if tag["epc_bits"] == bits:
            same = True
            for w in range(8):
                if tag["epc"][w] != epc[w]:
                    same = False
                    break
            if same:
                return at
        at = (at + 1) & mask


@inner
def remove(index: NDArray[np.int32], tags: NDArray[Any], row: Int) -> None:
    """Free a tag's place, closing the gap so that later tags of its run stay findable."""
    mask = index.shape[0] - 1
    hole = find(index, tags, tags[row]["epc"], np.int64(tags[row]["epc_bits"]))
    at = hole
    while True:
        at = (at + 1) & mask
        other = index[at] - 1
        if other < 0:
            break
        home = np.int64(tag_hash(tags[other]["epc"], np.int64(tags[other]["epc_bits"])) & np.uint64(mask))
        if ((at - home) & mask) >= ((at - hole) & mask):
            index[hole] = index[at]
            hole = at
    index[hole] = 0


@kernel
def rebuild(index: NDArray[np.int32], tags: NDArray[Any]) -> None:
    """Fill an empty index."""
    for row in range(tags.shape[0]):
        if tags[row]["state"] != 0:
            index[find(index, tags, tags[row]["epc"], np.int64(tags[row]["epc_bits"]))] = row + 1


@kernel
def classify(radio: Radio, epc: NDArray[np.uint64]) -> Any:
    """Class of the first rule that matches, 0 without."""
    for r in range(radio.rule_mask.shape[0]):
        same = True
        for w in range(8):
            if (epc[w] & radio.rule_mask[r, w]) != radio.rule_value[r, w]:
                same = False
                break
        if same:
            return np.int64(radio.rule_class[r])
    return 0
