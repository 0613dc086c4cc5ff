"""Reads hashed, picked and joined: as plain Python and NumPy would, only faster."""

from __future__ import annotations

import numpy as np
import pytest

from dwell.read import MIX, READ, Reads, hashed, joined, picked


def some(n: int, seed: int = 0) -> Reads:
    rng = np.random.default_rng(seed)
    reads = np.frombuffer(rng.bytes(n * READ.itemsize), READ).copy()
    reads["epc_bits"] = 16 * rng.integers(0, 33, n)
    return reads


def plainly(words: list[int], bits: int, start: int | None) -> int:
    """The hash of one EPC by whole numbers: of the words that it has, at least two."""
    key = bits if start is None else start * int(MIX) % 2**64 ^ bits
    for word in words[: max(2, -(-bits // 64))]:
        key = (key ^ word) * int(MIX) % 2**64
        key ^= key >> 32
    return key


@pytest.mark.parametrize("several", [False, True])
def test_a_hash_is_of_the_words_that_an_epc_has(several: bool) -> None:
    reads = some(200)
    start = np.arange(200, dtype=np.uint64) if several else None
    before = reads.tobytes()
    expected = [
        plainly(read["epc"].tolist(), int(read["epc_bits"]), number if several else None)
        for number, read in enumerate(reads)
    ]
    assert hashed(reads, start).tolist() == expected
    assert reads.tobytes() == before
    rest = reads.copy()
    rest["epc"][:, 2:][rest["epc_bits"] <= 128] = 7
    assert hashed(rest, start).tolist() == expected


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_picked_reads_are_those_that_are_marked(share: float) -> None:
    reads = some(100)
    which = np.random.default_rng(1).random(100) < share
    assert picked(reads, which).tobytes() == reads[which].tobytes()
    assert picked(reads[::2], which[::2]).tobytes() == reads[::2][which[::2]].tobytes()


def test_joined_batches_are_one_and_may_be_written() -> None:
    batches = [some(5), some(0), some(7, seed=1)[::3], some(1, seed=2)]
    whole = joined(batches)
    assert whole.dtype == READ
    assert whole.tobytes() == b"".join(batch.tobytes() for batch in batches)
    whole["count"] = 1
    assert not len(joined([]))
