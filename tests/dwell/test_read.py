"""Reads hashed, picked and joined: as plain Python and NumPy would, only faster."""

from __future__ import annotations

import numpy as np
import pytest

from dwell.read import FEW_READS, MIX, READ, SECOND_US, SHORT, Reads, hashed, joined, kept, picked, whole


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


@pytest.mark.parametrize("seconds", [1, 3, 100])
def test_kept_reads_are_the_same_by_seconds_and_short_where_they_can_be(seconds: int) -> None:
    reads = some(300)
    reads["time_us"] = np.random.default_rng(2).integers(0, seconds * SECOND_US, len(reads))
    reads["epc"][:, 2:][reads["epc_bits"] <= 128] = 0
    pieces = kept(reads)
    assert {piece.dtype for piece in pieces} == {READ, SHORT}
    assert all((piece["epc_bits"] > 128).all() == (piece.dtype == READ) for piece in pieces)
    if seconds < 100:
        assert all(len(np.unique(piece["time_us"] // SECOND_US)) == 1 for piece in pieces)
    else:
        assert len(pieces) == 2  # what a reader has stored isn't cut into a hundred pieces
    assert sorted(read.tobytes() for read in whole(joined(pieces))) == sorted(read.tobytes() for read in reads)
    for piece in pieces:
        assert kept(piece)[0] is piece
        assert (hashed(piece) == hashed(whole(piece))).all()
        which = piece["count"] % 2 == 0
        assert picked(piece, which).tobytes() == piece[which].tobytes()


def test_joined_reads_are_short_if_all_are() -> None:
    reads = some(50)
    reads["time_us"] = 0
    short, long = kept(reads)
    assert joined([short, short]).dtype == SHORT
    assert joined([short, long]).tobytes() == whole(short).tobytes() + long.tobytes()
    assert SHORT.itemsize == 32


def test_a_few_reads_are_kept_as_they_are() -> None:
    reads = np.zeros(FEW_READS, READ)
    assert kept(reads)[0] is reads
    assert kept(reads[:0]) == []
