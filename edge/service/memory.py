"""Keep the memory use of a long-running service low: return memory of large arrays.

After the first large array has been freed, glibc raises the size from which it maps memory separately, up to 32 MiB.
Copies of the engine's state are then allocated on the heap, between small permanent objects, and the heap only grows.
glibc also creates heaps for threads, although Python runs one thread at a time. Both are configured here, see
mallopt(3). Measured with 64 readers and 5,000 tags: about 50 MiB less.
"""

from __future__ import annotations

import ctypes
import importlib

from edge.store.resident import let_go_of

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
LARGE_BYTES = 256 * 1024
COMPILER = "libllvmlite.so"
"""Library of which about 70 MiB are not needed once all kernels are loaded."""


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
