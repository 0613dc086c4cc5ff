"""Keep the memory use of the page's process low: few threads, and memory returned after large queries.

Importing NumPy and the models touches some 15 MiB of libraries' code that no page needs again.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os

from edge.store.resident import let_go_of

MALLOC = {-8: 1, -3: 64 * 1024, -1: 128 * 1024}
"""Parameters for glibc's mallopt(3). M_ARENA_MAX: a thread's arena never returns memory. M_MMAP_THRESHOLD and
M_TRIM_THRESHOLD: memory of large arrays is returned to the system immediately."""

EVERY = 8
"""A collection takes 20 ms, and a page asks up to seven queries."""

_frozen = False
_queries = 0


def begin() -> None:
    """Configure memory allocation; must be called before large packages are imported."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when NumPy is imported
    with contextlib.suppress(OSError, AttributeError):  # glibc only
        libc = ctypes.CDLL(None)
        for parameter, value in MALLOC.items():
            libc.mallopt(parameter, value)


def give_back() -> None:
    """Return memory to the system after a large query; takes a millisecond or two and frees some MiB.

    Reference cycles are collected after every EVERY-th query. Python itself does that only after a quarter of all
    objects are new, which is several MiB here. Objects that exist after the first query are permanent; they are frozen,
    which saves 30 ms per collection, and the libraries' code that was needed until then is released.
    """
    global _frozen, _queries
    _queries += 1
    if _queries % EVERY == 1:
        gc.collect()
        if not _frozen:
            _frozen = True
            gc.freeze()
            let_go_of()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
