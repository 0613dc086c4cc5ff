"""Keep the memory use of a long-running service low: return memory of large arrays.

After the first large array has been freed, glibc raises the size from which it maps memory separately, up to 32 MiB.
Copies of the engine's state are then allocated on the heap, between small permanent objects, and the heap only grows.
glibc also creates heaps for threads, although Python runs one thread at a time. Both are configured here, see
mallopt(3). Measured with 64 readers and 5,000 tags: about 50 MiB less.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
from collections.abc import Callable

from edge.store.resident import let_go_of

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
LARGE_BYTES = 256 * 1024
COMPILER = "libllvmlite.so"
"""Library of which about 70 MiB are not needed once all kernels are loaded."""


def settle() -> None:
    """Configure malloc; must be called before threads and large arrays are created. Does nothing without glibc."""
    mallopt = _libc("mallopt")
    mallopt(_ARENA_MAX, 1)
    mallopt(_MMAP_THRESHOLD, LARGE_BYTES)
    mallopt(_TRIM_THRESHOLD, LARGE_BYTES)


def import_compiler() -> None:
    """Import the compiler and the kernels that are loaded when they are imported, which is when it takes most memory,
    and release what only that needs, before anything else takes memory."""
    importlib.import_module("dwell.compiled")
    importlib.import_module("drivers.llrp.decoder")
    let_go_of(COMPILER)


def let_go_of_bitcode() -> None:
    """Release the compiler's own form of the loaded kernels, which takes as much memory as all else of them: it is only
    for compiling further kernels that call them. Numba makes it anew of what was compiled in this process, and tells
    that it can't of what came from its cache, but after the warm-up nothing is compiled any more.
    """
    libraries = importlib.import_module("numba.core.codegen").CodeLibrary
    for library in gc.get_objects():
        if issubclass(type(library), libraries):  # others stand for weak references, which isinstance looks behind
            library._shared_module = None
    _libc("malloc_trim")(0)


def _libc(name: str) -> Callable[..., object]:
    """A function of glibc; without glibc one that does nothing."""
    try:
        function: Callable[..., object] = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return lambda *_: None
    return function
