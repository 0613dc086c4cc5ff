"""Split a stream into JSON values, whatever stands between them: newlines, spaces or nothing.

One pass over the bytes, which keeps its state from chunk to chunk. Brackets and strings are enough to find where a
value ends; whether it is valid is the parser's business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

VALUE_BYTES_MAX = 1 << 20
"""A longer value is given up."""
DEPTH_MAX = 32

_F = TypeVar("_F", bound=Callable[..., Any])
_DEPTH, _STRING, _ESCAPE = 0, 1, 2


class Split(NamedTuple):
    """Values in order, and the numbers of bytes and broken values between them."""

    values: list[bytes]
    skipped: int
    broken: int


class Splitter:
    """Splits one stream; `lines`: a newline ends every value, also an unfinished one."""

    def __init__(self, lines: bool = False) -> None:
        self._lines = lines
        self._left = b""
        self._state = np.zeros(3, np.int64)

    @property
    def pending(self) -> int:
        """Bytes of a value that has begun and not ended."""
        return len(self._left)

    def feed(self, chunk: bytes) -> Split:
        """Take the next bytes and return the values that they complete."""
        seen, stream = len(self._left), self._left + chunk
        spans = np.empty((len(chunk) // 2 + 1, 2), np.int64)
        tally = np.zeros(3, np.int64)
        start = split(np.frombuffer(bytearray(stream), np.uint8), seen, self._state, self._lines, spans, tally)
        count, skipped, broken = tally.tolist()
        values = [stream[at:end] for at, end in spans[:count].tolist()]
        self._left = stream[start:] if start >= 0 else b""
        if len(self._left) > VALUE_BYTES_MAX:
            skipped, broken = skipped + len(self._left), broken + 1
            self._left = b""
            self._state[:] = 0
        return Split(values, skipped, broken)


def split_whole(message: bytes) -> Split:
    """Split a message that is complete: what has begun and not ended is broken."""
    splitter = Splitter()
    values, skipped, broken = splitter.feed(message)
    return Split(values, skipped, broken + 1) if splitter.pending else Split(values, skipped, broken)


def kernel(signature: str) -> Callable[[_F], _F]:
    """Compile at import, or load from the cache."""
    return cast("Callable[[_F], _F]", njit(signature, cache=True, nogil=True, boundscheck=False, error_model="numpy"))


@kernel("int64(uint8[::1], int64, int64[::1], boolean, int64[:,::1], int64[::1])")
def split(
    stream: NDArray[Any], at: Any, state: NDArray[Any], lines: Any, spans: NDArray[Any], tally: NDArray[Any]
) -> Any:
    """Scan from `at`; a value that is under way began at 0. Fills `spans` with start and end of whole values, `tally`
    with their number, skipped bytes and broken values. Returns where an unfinished value begins, -1 if there is none.
    """
    depth, string, escape = state[_DEPTH], state[_STRING] != 0, state[_ESCAPE] != 0
    start: Any = 0 if depth else -1
    count: Any = 0
    skipped: Any = 0
    broken: Any = 0
    i, end = np.uint64(at), np.uint64(len(stream))
    while i < end:
        byte = stream[i]
        i += np.uint64(1)
        if string:
            while byte >= 0x20 and byte != 0x22 and byte != 0x5C and not escape and i < end:  # " \\
                byte = stream[i]
                i += np.uint64(1)
            if byte >= 0x20:
                string = byte != 0x22 or escape
                escape = byte == 0x5C and not escape
                continue
        elif byte == 0x22 and depth:
            string = True
            continue
        elif byte == 0x7B or byte == 0x5B:  # { [
            if depth == 0:
                start = np.int64(i) - 1
            depth += 1
            if depth <= DEPTH_MAX:
                continue
        elif (byte == 0x7D or byte == 0x5D) and depth:  # } ]
            depth -= 1
            if depth == 0:
                spans[count, 0], spans[count, 1] = start, np.int64(i)
                count += 1
                start = -1
            continue
        elif depth == 0:
            skipped += byte > 0x20 and byte != 0x2C  # white space, and commas between values
            continue
        elif byte != 0x0A or not lines:
            continue
        # A control character in a string, too deep, or a line that ends within a value
        broken += 1
        skipped += np.int64(i) - start
        depth, string, escape = 0, False, False
        start = -1
    state[_DEPTH], state[_STRING], state[_ESCAPE] = depth, string, escape
    tally[0], tally[1], tally[2] = count, skipped, broken
    return start
