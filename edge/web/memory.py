"""Memory of the page's process, which runs for years on a small gateway: few threads, and what a large question took is
given back."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os

MALLOC = {-8: 1, -3: 64 * 1024, -1: 128 * 1024}
"""glibc's mallopt(3). M_ARENA_MAX: the arena of a thread keeps what it once had. M_MMAP_THRESHOLD, M_TRIM_THRESHOLD:
large arrays go back to the system at once."""

_frozen = False


def begin() -> None:
    """Before anything large is imported."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when NumPy is first needed
    with contextlib.suppress(OSError, AttributeError):  # of glibc; elsewhere malloc does as it likes
        libc = ctypes.CDLL(None)
        for parameter, value in MALLOC.items():
            libc.mallopt(parameter, value)


def give_back() -> None:
    """After a large question: some milliseconds, and some MiB.

    Python by itself waits with what only refers to itself until a quarter of all objects are new, which are MiB here.
    What is there after the first question stays for good: set aside, nobody looks at it again (30 ms each time).
    """
    global _frozen
    gc.collect()
    if not _frozen:
        _frozen = True
        gc.freeze()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
