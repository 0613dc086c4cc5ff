"""How kernels are compiled: one place for the options of Numba.

Compiling all of them takes a new gateway half a minute. What a function is compiled for is most of it: the call of a
kernel hands over hundreds of values, since named tuples of arrays are passed piece by piece.

Numba keeps a compiled kernel for as long as its file is the same. Ours are compiled anew also when an option, a kernel
that they call, a figure that they use or the fields of a named tuple among their arguments have changed, in whatever
file that is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dis import get_instructions
from functools import cache
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numba.core.dispatcher import Dispatcher
from numba.core.types import unliteral as kind_of

F = TypeVar("F", bound=Callable[..., Any])
Int = int | np.integer[Any]
"""What kernels take for a whole number."""

OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
INNER: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""No ways in but from other kernels: a third of the time."""
LEAN: dict[str, Any] = {"_nrt": False}
"""References aren't counted, which took two fifths of the engine's time; arrays can't be made."""


def kernel(function: F) -> F:
    """Compile. With NUMBA_DISABLE_JIT=1 the function stays Python."""
    return _once(function, njit(**OPTIONS))


def inner_kernel(function: F) -> F:
    """Compile what is called by kernels only."""
    return _once(function, njit(**OPTIONS, **INNER))


def lean(function: F) -> F:
    """Compile what makes no array."""
    return _once(function, njit(**OPTIONS, **LEAN))


def inner(function: F) -> F:
    """Compile what makes no array and is called by kernels only."""
    return _once(function, njit(**OPTIONS, **LEAN, **INNER))


def part(function: F) -> F:
    """Compile a part of a kernel that makes no array, into wherever it is called."""
    return _once(function, njit(**OPTIONS, **LEAN, **INNER, forceinline=True))


def _once(function: F, jit: Callable[[F], Any]) -> F:
    """Compile by the types of arguments alone: a constant among them would have the function compiled for its value,
    which took a fifth of the time. Inlined, it is known as one anyway."""
    compiled: Any = jit(function)
    if hasattr(compiled, "get_call_template"):  # else compiling is off
        ask, kept = compiled.get_call_template, compiled._cache
        look = kept.load_overload

        def load(*asked: Any) -> Any:
            kept._cache_file._source_stamp = _made_of(compiled)
            return look(*asked)

        compiled.get_call_template = lambda args, kws: ask(tuple(map(kind_of, args)), kws)
        kept.load_overload = load
    return cast(F, compiled)


@cache
def _made_of(compiled: Any) -> bytes:
    """Digest of what a kernel is compiled from: its file and options, kernels, figures and named tuples of others.

    By the time of its first call, all of them exist.
    """
    function = compiled.py_func
    made = hashlib.sha256(compiled._cache._impl.locator.get_source_stamp())
    made.update(repr(sorted(compiled.targetoptions.items())).encode())
    for name in sorted({step.argval for step in get_instructions(function) if step.opname == "LOAD_GLOBAL"}):
        used = function.__globals__.get(name)
        if isinstance(used, Dispatcher):
            made.update(_made_of(used))
        elif isinstance(used, (int, float, str, tuple)):
            made.update(f"{name} {used!r}".encode())
    for name, kind in function.__annotations__.items():
        fields = getattr(function.__globals__.get(kind), "_fields", ())
        made.update(f"{name} {fields!r}".encode())  # they are found by their place
    return made.digest()
