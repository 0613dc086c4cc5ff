"""Pack arrays of counts into bytes: a line of JSON that describes them, then their numbers in as few bytes as needed.

Counts of a day are small numbers and mostly zero. Each column of integers is stored in the narrowest type that holds
it, which makes it several times as fast to read back as the arrays themselves.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray


def pack(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Pack arrays, also those of structured types, by name."""
    head, body = [], []
    for name, array in arrays.items():
        columns = [array] if array.dtype.names is None else [array[field] for field in array.dtype.names]
        narrow = [_narrowed(column) for column in columns]
        kinds = [column.dtype.str for column in narrow]
        head.append([name, np.lib.format.dtype_to_descr(array.dtype), array.shape, kinds])
        body += [np.ascontiguousarray(column).tobytes() for column in narrow]
    return zlib.compress(json.dumps(head).encode() + b"\n" + b"".join(body), 6)


def unpack(packed: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays with the types that they had."""
    raw = zlib.decompress(packed)
    at = raw.index(b"\n") + 1
    arrays: dict[str, NDArray[Any]] = {}
    for name, described, shape, kinds in json.loads(raw[:at]):
        dtype = _dtype(described if isinstance(described, str) else tuple(tuple(one) for one in described))
        n = math.prod(shape)
        found = []
        for kind in kinds:
            column = np.frombuffer(raw, kind, n, at).reshape(shape)
            at += column.nbytes
            found.append(column)
        if dtype.names is None:
            arrays[name] = found[0].astype(dtype, copy=False)
        else:
            arrays[name] = np.empty(shape, dtype)
            for field, column in zip(dtype.names, found, strict=True):
                arrays[name][field] = column
    return arrays


@cache
def _dtype(descr: str | tuple[tuple[str, str], ...]) -> np.dtype[Any]:
    return np.dtype(descr if isinstance(descr, str) else list(descr))


def _narrowed(column: NDArray[Any]) -> NDArray[Any]:
    if column.dtype.kind not in "iu" or not column.size:
        return column
    low, high = int(column.min()), int(column.max())
    kinds = "u1", "<u2", "<u4", "<u8"
    if low < 0:
        kinds = "i1", "<i2", "<i4", "<i8"
    fits = (kind for kind in kinds if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)
    return column.astype(next(fits), copy=False)
