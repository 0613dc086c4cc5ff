"""Bytes of a serial line to whole frames, for every family: how one is looked for, and what happens to the rest.

A family gives a *probe*: whether a frame begins at a place of the buffer. On a bad checksum one byte is given up, never
the frame that it claims to be: the true frame may begin inside the false one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

F = TypeVar("F")

GAP_S = 0.1
"""A partial frame that gets no byte for so long is no frame: readers send a frame in one go."""

NO_FRAME = "no whole frame begins here"
CUT = "the bytes end before its frame does"

Probe = Callable[[bytes, int], tuple[F, int] | str | None]
"""The frame that begins at a place of a buffer and its size in bytes; None if its rest has not come yet; or why none
begins there, "" where there is nothing to say of this byte alone."""


class Scan(NamedTuple, Generic[F]):
    """What a scanner found: frames in order, bytes used up (frames and rubbish), bytes of rubbish among them."""

    frames: list[F]
    used: int
    skipped: int


class Piece(NamedTuple, Generic[F]):
    """`size` bytes from `at`: a frame, or rubbish (frame None) and why it is that."""

    at: int
    size: int
    frame: F | None
    reason: str


def walk(buffer: bytes, probe: Probe[F], whole: bool = False) -> Iterator[Piece[F]]:
    """Frames and rubbish of `buffer` in order, one behind the other.

    Ends before what may be the beginning of a frame; with `whole` nothing more will come, and that is rubbish too.
    """
    at = start = 0
    why = ""
    while at < len(buffer):
        found = probe(buffer, at)
        if found is None:
            if not whole:
                break
            found = CUT
        begins = not isinstance(found, str) or (found not in ("", CUT) and at > start)
        if begins and at > start:
            yield Piece(start, at - start, None, why)
            start = at
        if isinstance(found, str):
            if at == start:
                why = found or NO_FRAME
            at += 1
        else:
            frame, size = found
            yield Piece(at, size, frame, "")
            at = start = at + size
    if at > start:
        yield Piece(start, at - start, None, why)


def scan(buffer: bytes, probe: Probe[F]) -> Scan[F]:
    """All frames of `buffer`."""
    frames: list[F] = []
    used = skipped = 0
    for piece in walk(buffer, probe):
        used = piece.at + piece.size
        if piece.frame is None:
            skipped += piece.size
        else:
            frames.append(piece.frame)
    return Scan(frames, used, skipped)


class Framer(Generic[F]):
    """Keeps the bytes that a sans-io `scan` could not use yet: never more than the beginning of one frame."""

    def __init__(self, scan: Callable[[bytes], Scan[F]]) -> None:
        self._scan = scan
        self._buffer = b""
        self.skipped = 0
        """Bytes that belonged to no frame, so far."""

    @property
    def pending(self) -> bool:
        """Whether the beginning of a frame is waiting for its rest."""
        return bool(self._buffer)

    def feed(self, chunk: bytes) -> list[F]:
        """Frames that `chunk` completes."""
        self._buffer += chunk
        found = self._scan(self._buffer)
        self._buffer = self._buffer[found.used :]
        self.skipped += found.skipped
        return found.frames

    def gap(self) -> list[F]:
        """Call after GAP_S without a byte: gives up one, since what looks like a beginning may hide whole frames."""
        if self._buffer:
            self._buffer = self._buffer[1:]
            self.skipped += 1
        return self.feed(b"")
