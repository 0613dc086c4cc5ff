"""Memory of the page's process, which runs for years on a small gateway: few threads, and what a large question took is
given back."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import time

MALLOC = {-8: 1, -3: 64 * 1024, -1: 128 * 1024}
"""glibc's mallopt(3). M_ARENA_MAX: the arena of a thread keeps what it once had. M_MMAP_THRESHOLD, M_TRIM_THRESHOLD:
large arrays go back to the system at once."""

COLLECT_S = 5.0
"""Python waits with it until a quarter of all objects are new, which are MiB here; a look at all takes some 30 ms."""
_collected_s = 0.0


def begin() -> None:
    """Before anything large is imported."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when NumPy is first needed
    with contextlib.suppress(OSError, AttributeError):  # of glibc; elsewhere malloc does as it likes
        libc = ctypes.CDLL(None)
        for parameter, value in MALLOC.items():
            libc.mallopt(parameter, value)


def give_back() -> None:
    """After a large question: a millisecond, and some MiB; now and then also what only refers to itself."""
    global _collected_s
    if time.monotonic() - _collected_s > COLLECT_S:
        _collected_s = time.monotonic()
        gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
