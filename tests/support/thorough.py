"""How much is tried where there is no end of what could be: a part by `make test`, all of it by `make coverage`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar
from zlib import crc32

SHARE = float(os.environ.get("TAGTRAIL_EXAMPLES", "0.3"))
"""Of the examples; 1 is all."""
LEAST = 12
T = TypeVar("T")


def examples(number: int) -> int:
    """Examples for hypothesis: of `number`, as many as are wanted in this run."""
    return max(round(number * SHARE), min(number, LEAST))


def some(values: Sequence[T], of: str) -> Sequence[T]:
    """A part of the values, another one for each thing that they are tried on, so that all get their turn."""
    step = max(1, round(1 / SHARE))
    return values[crc32(of.encode()) % step :: step]
