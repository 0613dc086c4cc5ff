"""How a service that runs for months keeps memory: what large arrays leave goes back at once, the compiler's code too.

glibc raises by itself the size from which it maps memory apart, up to 32 MiB, after the first large array was freed.
From then on copies of the engine's state come from the heap, between small things that stay, and the heap only grows;
and it opens heaps of their own for threads, of which Python runs one at a time anyway. Both are set here once, see
mallopt(3). Measured at 64 readers and 5,000 tags: some 50 MiB less.
"""

from __future__ import annotations

import ctypes
import re
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
        lines = Path("/proc/self/smaps").read_text("utf-8", "replace").splitlines()
        madvise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    span: tuple[int, int] | None = None
    for line in lines:
        if mapping := re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) ", line):
            begin, end = int(mapping[1], 16), int(mapping[2], 16)
            span = (begin, end - begin) if line.endswith(f"/{library}") and "w" not in mapping[3] else None
        elif span is not None and line.split() == ["Anonymous:", "0", "kB"]:
            madvise(*span, _DONTNEED)
