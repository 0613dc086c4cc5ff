"""How the C library keeps memory for a service that runs for months: what large arrays leave goes back at once.

glibc raises by itself the size from which it maps memory apart, up to 32 MiB, after the first large array was freed.
From then on copies of the engine's state come from the heap, between small things that stay, and the heap only grows;
and it opens heaps of their own for threads, of which Python runs one at a time anyway. Both are set here once, see
mallopt(3). Measured at 64 readers and 5,000 tags: some 50 MiB less.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
LARGE_BYTES = 256 * 1024


def settle() -> None:
    """Before threads and large arrays; does nothing where the C library is another one than glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_ARENA_MAX, 1)
    mallopt(_MMAP_THRESHOLD, LARGE_BYTES)
    mallopt(_TRIM_THRESHOLD, LARGE_BYTES)
