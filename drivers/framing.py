"""Bytes of a serial line to whole frames, for every family that has a scanner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

F = TypeVar("F")

GAP_S = 0.1
"""A partial frame that gets no byte for so long is no frame: readers send a frame in one go."""


class Scan(NamedTuple, Generic[F]):
    """What a scanner found: frames in order, bytes used up (frames and rubbish), bytes of rubbish among them."""

    frames: list[F]
    used: int
    skipped: int


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
