"""SQLite's write-ahead log as a stream of transactions, which a copy elsewhere takes in with the same bytes.

    file   header (32 bytes) | frame | frame | …                              https://www.sqlite.org/fileformat2.html
    frame  page number | pages of the database if it ends a transaction, else 0 | two salts | two checksums | page

A checksum covers everything before it, so that a log is what it was, up to where its chain breaks. When all of a log is
in the database, SQLite begins it anew from the start, with other salts.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
LITTLE, BIG = 0x377F0682, 0x377F0683
"""First word of a log, by the order of the bytes that its checksums are made of."""
READ_FRAMES = 16, 256
"""Frames read at once: at first, and at most."""
MASK = 0xFFFFFFFF

Sums = tuple[int, int]
Linear = tuple[tuple[int, ...], NDArray[np.uint32]]


class BadLog(Exception):
    """Bytes that aren't a log, or don't follow on what came before."""


@dataclass(frozen=True)
class Part:
    """Whole transactions of a log. `begins`: a header and the frames from the first on; else the next frames."""

    begins: bool
    data: bytes


@dataclass(frozen=True)
class Place:
    """A place in a log, between two transactions."""

    header: bytes = b""
    size: int = 0
    """Bytes up to there."""
    sums: Sums = (0, 0)


class Chain:
    """A log from its header on: `extend` by the bytes that follow. `pages`: of the database after the last
    transaction. Raises BadLog for a header that isn't one."""

    def __init__(self, header: bytes) -> None:
        if len(header) != HEADER_BYTES:
            raise BadLog("no header")
        magic, _, page_bytes, _, *salts, first, second = struct.unpack(">8I", header)
        if magic not in (LITTLE, BIG) or not 512 <= page_bytes <= 65_536:
            raise BadLog("no header of a log")
        self._order = "<u4" if magic == LITTLE else ">u4"
        self.header = header
        self.page_bytes = page_bytes
        self.frame_bytes = FRAME_HEADER_BYTES + page_bytes
        self.salts = struct.pack(">2I", *salts)
        self.sums: Sums = (first, second)
        self.size = HEADER_BYTES
        self.pages = 0
        if _chained((0, 0), np.frombuffer(header[:24], self._order)[None, :], _linear(0, 3)) != [self.sums]:
            raise BadLog("the header of a log is damaged")

    @property
    def place(self) -> Place:
        """Return the end of what was taken."""
        return Place(self.header, self.size, self.sums)

    def extend(self, data: bytes) -> tuple[int, bool]:
        """Take the whole transactions at the beginning of `data`. Returns their bytes, and whether the chain was
        unbroken to the end of `data`."""
        frames = self._frames(data)
        salted = (frames[:, 8:16] == np.frombuffer(self.salts, np.uint8)).all(axis=1)
        n = len(frames) if salted.all() else int(np.argmin(salted))
        frames = frames[:n]
        sums = _chained(self.sums, frames.view(self._order), _linear(1, self.page_bytes // 8))
        said = np.ascontiguousarray(frames[:, 16:24]).view(">u4")
        pages = np.ascontiguousarray(frames[:, 4:8]).view(">u4")[:, 0]
        whole = good = 0
        for good, (found, (first, second)) in enumerate(zip(sums, said.tolist(), strict=True), 1):
            if found != (first, second):
                good -= 1
                break
            if pages[good - 1]:
                whole = good
        if whole:
            self.sums, self.pages = sums[whole - 1], int(pages[whole - 1])
            self.size += whole * self.frame_bytes
        return whole * self.frame_bytes, good == len(data) // self.frame_bytes

    def pages_of(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Yield the number of each page in frames, from 1 on, and where it is in `data`."""
        for at, number in enumerate(np.ascontiguousarray(self._frames(data)[:, :4]).view(">u4")[:, 0].tolist()):
            yield number, at * self.frame_bytes + FRAME_HEADER_BYTES

    def _frames(self, data: bytes) -> NDArray[np.uint8]:
        n = len(data) // self.frame_bytes
        return np.frombuffer(data, np.uint8, n * self.frame_bytes).reshape(n, self.frame_bytes)


class Tail:
    """What is committed to the log of a database. Used in the thread of its writer only, between transactions or with
    the right to write, so that nobody else begins the log anew meanwhile. It never opens the database itself: closing
    that would take SQLite's locks away."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(f"{database.name}-wal")
        self._file = -1
        self._chain: Chain | None = None

    def close(self) -> None:
        """Close the log."""
        if self._file >= 0:
            os.close(self._file)
        self._file, self._chain = -1, None

    @property
    def unbroken(self) -> bool:
        """True if the log has not begun anew since the last look."""
        return self._chain is not None and os.pread(self._file, HEADER_BYTES, 0) == self._chain.header

    def start(self) -> Part | None:
        """Return the whole log as it is now, and go on behind it; None if it is empty."""
        self.close()
        return self.more()

    def resume(self, place: Place) -> Part | None:
        """Go on at a place, and return what has followed; BadLog if it isn't in the log."""
        self.close()
        whole = self.more()
        if whole is None or whole.data[:HEADER_BYTES] != place.header or place.size > len(whole.data):
            raise BadLog("the log has begun anew since")
        assert self._chain is not None
        if place.size > HEADER_BYTES:
            end = place.size - self._chain.frame_bytes + 16
            if struct.unpack(">2I", whole.data[end : end + 8]) != place.sums:
                raise BadLog("the log has other transactions")
        rest = whole.data[place.size :]
        return Part(False, rest) if rest else None

    def more(self) -> Part | None:
        """Return what was committed since; None if nothing was."""
        if self._file < 0:
            try:
                self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
        header = os.pread(self._file, HEADER_BYTES, 0)
        begins = self._chain is None or header != self._chain.header
        if begins:
            try:
                chain = Chain(header)
            except BadLog:  # it has been cut off, and nothing was written since
                return None
        else:
            assert self._chain is not None
            chain = self._chain
        data = self._read(chain)
        if not data:
            return None
        self._chain = chain
        return Part(begins, header + data if begins else data)

    def _read(self, chain: Chain) -> bytes:
        """Read whole transactions behind the end of a chain."""
        made = bytearray()
        waiting = b""
        frames, most = READ_FRAMES
        while True:
            at = chain.size + len(waiting)
            data = waiting + os.pread(self._file, frames * chain.frame_bytes, at)
            data = data[: len(data) // chain.frame_bytes * chain.frame_bytes]
            if len(data) == len(waiting):
                return bytes(made)
            taken, unbroken = chain.extend(data)
            made += data[:taken]
            if not unbroken:
                return bytes(made)
            waiting = data[taken:]
            frames = min(2 * frames, most)


def transactions(data: bytes, chain: Chain) -> int:
    """Extend a chain by frames; BadLog unless they are whole transactions that follow on it. Returns their bytes."""
    taken, _ = chain.extend(data)
    if taken != len(data):
        raise BadLog("what came is not what follows")
    return taken


def _chained(sums: Sums, words: NDArray[Any], linear: Linear) -> list[Sums]:
    """Return the checksums after each row of words, each on those before.

    SQLite's are s0 += x[i] + s1; s1 += x[i+1] + s0 over pairs of words. That is linear, so that a row is a product.
    """
    (a, b, c, d), weights = linear
    shares = [np.einsum("ij,j->i", words, each, dtype=np.uint32, casting="unsafe").tolist() for each in weights]
    made = []
    first, second = sums
    for share0, share1 in zip(*shares, strict=True):
        first, second = (a * first + b * second + share0) & MASK, (c * first + d * second + share1) & MASK
        made.append((first, second))
    return made


@cache
def _linear(head: int, pairs: int) -> Linear:
    """Return what pairs of words make of the sums before, and the weights of the words in both. `head`: so many pairs
    are followed by two that don't count: salts and checksums."""
    step = np.array([[1, 1], [1, 2]], dtype=object)
    power: Any = np.array([[1, 0], [0, 1]], dtype=object)
    rows = []
    for at in reversed(range(head + pairs)):
        rows.append(power @ np.array([[1, 0], [1, 1]], dtype=object) % (MASK + 1))
        power = power @ step % (MASK + 1)
        if at == head and head:
            rows += [np.zeros((2, 2), dtype=object)] * 2
    weights = np.concatenate([row.T for row in reversed(rows)]).astype(np.uint32)
    return tuple(power.reshape(-1).tolist()), np.ascontiguousarray(weights.T)
