"""The last few results of costly computations, by key, within a limit of bytes; for several threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Generic, TypeVar

import numpy as np

T = TypeVar("T")


class Lately(Generic[T]):
    """Keeps the results that were asked for last: at most `most`, whose arrays take at most `limit` bytes together.

    The last result is kept however large it is.
    """

    def __init__(self, most: int, limit: int) -> None:
        self._most, self._limit = most, limit
        self._kept: OrderedDict[Hashable, tuple[int, T]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return the result of a key; compute it if it is not kept, without keeping others waiting."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][1]
        found = compute()
        with self._lock:
            self._kept[key] = array_bytes(found), found
            self._kept.move_to_end(key)
            while len(self._kept) > 1 and (len(self._kept) > self._most or self.bytes > self._limit):
                self._kept.popitem(last=False)
        return found

    @property
    def bytes(self) -> int:
        """Bytes that the arrays of all kept results take."""
        return sum(size for size, _ in self._kept.values())


def array_bytes(found: Any) -> int:
    """Return the bytes that the arrays in a result take: in dataclasses, mappings, lists and tuples, however deep."""
    if isinstance(found, np.ndarray):
        return int(found.nbytes)
    if is_dataclass(found):
        return sum(array_bytes(getattr(found, field.name)) for field in fields(found))
    if isinstance(found, Mapping):
        return sum(map(array_bytes, found.values()))
    return sum(map(array_bytes, found)) if isinstance(found, list | tuple) else 0
