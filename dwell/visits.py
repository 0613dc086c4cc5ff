"""VISIT, the array that the engine decides: one tag in one zone, from enter to exit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

VISIT = np.dtype(
    [
        ("enter_us", "<i8"),
        ("exit_us", "<i8"),
        ("journey_us", "<i8"),  # when the tag's journey began: with the EPC, the journey's identity
        ("epc", "<u8", (8,)),
        ("epc_bits", "<u2"),
        ("zone", "<i2"),
        ("tag_class", "u1"),  # layout.TagClass
        ("censored", "u1"),  # 1: an end of it was not seen (reader down, end of the recording)
        ("reads", "<u4"),  # reads that supported it
        ("confidence", "<f4"),  # mean probability of the decided zone, 0..1
    ]
)

Visits = NDArray[Any]
"""One-dimensional array of dtype VISIT."""
