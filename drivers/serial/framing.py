"""Find whole frames in the bytes of a serial line, for every family, and skip the rest.

A family gives a *probe*: whether a frame begins at a place of the buffer. On a bad checksum one byte is given up, never
the frame that it claims to be: the true frame may begin inside the false one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

F = TypeVar("F")

GAP_S = 0.1
"""A partial frame without a new byte for this long isn't one: readers send a frame in one go …"""
NETWORK_GAP_S = 0.5
"""… but a network may send the rest again only after 0.2 s or more (Linux's shortest retransmission time-out)."""

NO_FRAME = "no whole frame begins here"
CUT = "the bytes end before its frame does"


class Extensible(NamedTuple, Generic[F]):
    """A frame that is whole as it is, but to which what arrives next may belong."""

    frame: F
    size: int


Probe = Callable[[bytes, int], tuple[F, int] | Extensible[F] | str | None]
"""Probe a position of a buffer: the frame that begins there and its size in bytes; None if its rest has not arrived
yet; or the reason why none begins there, "" if there is nothing to say about this byte alone."""


class Scan(NamedTuple, Generic[F]):
    """Result of a scan: frames in order, bytes consumed (frames and garbage), and how many of them are garbage."""

    frames: list[F]
    used: int
    skipped: int
    extensible: Extensible[F] | None = None
    """The frame after them, if nothing more arrives."""


class Piece(NamedTuple, Generic[F]):
    """`size` bytes from `at`: a frame, or garbage (frame None) with the reason."""

    at: int
    size: int
    frame: F | None
    reason: str


def walk(buffer: bytes, probe: Probe[F], whole: bool = False) -> Iterator[Piece[F]]:
    """Iterate over frames and garbage of `buffer`, without gaps. Ends before a possible beginning of a frame; with
    `whole`, nothing more will arrive, and that is garbage too.
    """
    at = start = 0
    why = ""
    while at < len(buffer):
        found = probe(buffer, at)
        if found is None or isinstance(found, Extensible):
            if not whole:
                break
            found = found or CUT
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
    """Find all frames of `buffer`."""
    frames: list[F] = []
    at = skipped = 0
    found: tuple[F, int] | Extensible[F] | str | None = None
    while at < len(buffer):
        found = probe(buffer, at)
        if isinstance(found, str):
            at += 1
            skipped += 1
        elif found is None or isinstance(found, Extensible):
            break
        else:
            frame, size = found
            frames.append(frame)
            at += size
    return Scan(frames, at, skipped, found if isinstance(found, Extensible) else None)


class Framer(Generic[F]):
    """Buffer for a sans-I/O `scan`: keeps at most the beginning of one frame."""

    def __init__(self, scan: Callable[[bytes], Scan[F]]) -> None:
        self._scan = scan
        self._buffer = b""
        self._extensible: Extensible[F] | None = None
        self.skipped = 0
        """Number of bytes outside frames, so far."""

    @property
    def pending(self) -> bool:
        """True while the beginning of a frame waits for its rest."""
        return bool(self._buffer)

    @property
    def extensible(self) -> bool:
        """True while a frame that is whole as it is waits for what may belong to it."""
        return self._extensible is not None

    def feed(self, chunk: bytes) -> list[F]:
        """Add received bytes; returns the frames that they complete."""
        self._buffer += chunk
        found = self._scan(self._buffer)
        self._buffer = self._buffer[found.used :]
        self._extensible = found.extensible
        self.skipped += found.skipped
        return found.frames

    def gap(self) -> list[F]:
        """Take a frame as it is after a gap, or skip one byte, since what looks like a beginning may hide
        whole frames; returns the frames found."""
        if self._extensible is not None:
            frame, size = self._extensible
            self._buffer = self._buffer[size:]
            return [frame, *self.feed(b"")]
        if self._buffer:
            self._buffer = self._buffer[1:]
            self.skipped += 1
        return self.feed(b"")
