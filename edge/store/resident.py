"""Release the memory of libraries' code that was needed once, such as a compiler or what imports packages."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from pathlib import Path

_DONTNEED = 4


def let_go_of(library: str = "") -> None:
    """Release the memory of a library's code and constants, by default of all libraries'; pages that are needed again
    are read from their files.

    Only pages that have not been written may be released, see madvise(2). Does nothing without /proc.
    """
    try:
        smaps = Path("/proc/self/smaps").read_text("utf-8", "replace")
        madvise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for begin, size in unwritten(smaps, library):
        madvise(begin, size, _DONTNEED)


def unwritten(smaps: str, library: str = "") -> Iterator[tuple[int, int]]:
    """Return address and size of read-only mappings without modified pages, of one library or of all; see proc(5).

    The loader writes addresses into constants before it makes them read-only. Such pages count as anonymous or, after
    being idle for long, as swapped out; their contents are not in the file.
    """
    named = re.compile(rf"/{re.escape(library)}$" if library else r"/[^/]+\.so(\.[\d.]+)?$")
    for mapping in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", smaps, flags=re.MULTILINE):
        head, _, counts = mapping.partition("\n")
        place = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) ", head)
        if place is None or "w" in place[3] or not named.search(head):
            continue
        if all(re.search(rf"^{written}: +0 kB$", counts, re.MULTILINE) for written in ("Anonymous", "Swap")):
            begin, end = int(place[1], 16), int(place[2], 16)
            yield begin, end - begin
