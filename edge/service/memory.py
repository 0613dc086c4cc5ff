"""How a service that runs for months keeps memory: what large arrays leave goes back at once, the compiler's code too.

glibc raises by itself the size from which it maps memory apart, up to 32 MiB, after the first large array was freed.
From then on copies of the engine's state come from the heap, between small things that stay, and the heap only grows;
and it opens heaps of their own for threads, of which Python runs one at a time anyway. Both are set here once, see
mallopt(3). Measured at 64 readers and 5,000 tags: some 50 MiB less.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
LARGE_BYTES = 256 * 1024
COMPILER = "libllvmlite.so"
_DONTNEED = 4


def settle() -> None:
    """Before threads and large arrays; does nothing where the C library is another one than glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_ARENA_MAX, 1)
    mallopt(_MMAP_THRESHOLD, LARGE_BYTES)
    mallopt(_TRIM_THRESHOLD, LARGE_BYTES)


def let_go_of(library: str) -> None:
    """Unmap what has been paged in of a library's code and constants; what is needed again comes from its file.

    Once all kernels are loaded, some 70 MiB of the compiler stand there for nothing. Only pages that nobody has written
    to may go so, see madvise(2); does nothing where there is no /proc.
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
    """Address and size of a library's mappings that can't be written, and of which no page was before, see proc(5).

    The loader writes addresses into constants before it locks them. Such pages count as anonymous, or, after they were
    idle for long, as swapped out; their file has not what is in them.
    """
    for mapping in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", smaps, flags=re.MULTILINE):
        head, _, counts = mapping.partition("\n")
        place = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) ", head)
        if place is None or "w" in place[3] or not head.endswith(f"/{library}"):
            continue
        if all(re.search(rf"^{written}: +0 kB$", counts, re.MULTILINE) for written in ("Anonymous", "Swap")):
            begin, end = int(place[1], 16), int(place[2], 16)
            yield begin, end - begin
