"""Keep the memory use of a long-running service low: return memory of large arrays and of the compiler.

After the first large array has been freed, glibc raises the size from which it maps memory separately, up to 32 MiB.
Copies of the engine's state are then allocated on the heap, between small permanent objects, and the heap only grows.
glibc also creates heaps for threads, although Python runs one thread at a time. Both are configured here, see
mallopt(3). Measured with 64 readers and 5,000 tags: about 50 MiB less.
"""

from __future__ import annotations

import ctypes
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
LARGE_BYTES = 256 * 1024
COMPILER = "libllvmlite.so"
_DONTNEED = 4


def settle() -> None:
    """Configure malloc; must be called before threads and large arrays are created. Does nothing without glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_ARENA_MAX, 1)
    mallopt(_MMAP_THRESHOLD, LARGE_BYTES)
    mallopt(_TRIM_THRESHOLD, LARGE_BYTES)


def import_compiler() -> None:
    """Import the compiler, and release what only importing it needs, before anything else takes memory."""
    importlib.import_module("dwell.compiled")
    let_go_of(COMPILER)


def let_go_of(library: str) -> None:
    """Release the memory of a library's code and constants; pages that are needed again are read from its file.

    Once all kernels are loaded, about 70 MiB of the compiler are not needed. Only pages that have not been written may
    be released, see madvise(2). Does nothing without /proc.
    """
    try:
        smaps = Path("/proc/self/smaps").read_text("utf-8", "replace")
        madvise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for begin, size in unwritten(smaps, library):
        madvise(begin, size, _DONTNEED)


def unwritten(smaps: str, library: str) -> Iterator[tuple[int, int]]:
    """Return address and size of a library's read-only mappings without modified pages, see proc(5).

    The loader writes addresses into constants before it makes them read-only. Such pages count as anonymous or, after
    being idle for long, as swapped out; their contents are not in the file.
    """
    for mapping in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", smaps, flags=re.MULTILINE):
        head, _, counts = mapping.partition("\n")
        place = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) ", head)
        if place is None or "w" in place[3] or not head.endswith(f"/{library}"):
            continue
        if all(re.search(rf"^{written}: +0 kB$", counts, re.MULTILINE) for written in ("Anonymous", "Swap")):
            begin, end = int(place[1], 16), int(place[2], 16)
            yield begin, end - begin
