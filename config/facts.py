"""Constants that are the same in every store: zone kinds, tag classes, window length.

`dwell` may not import this module and defines the same values as numbers; a test checks that they agree.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, get_args


class ZoneKind(StrEnum):
    """Purpose of a zone; determines which thresholds and summaries apply."""

    ENTRANCE = "entrance"
    EXIT = "exit"
    COUNTER = "counter"
    AISLE = "aisle"
    FITTING_ROOM = "fitting_room"
    CHECKOUT = "checkout"
    SERVICE = "service"
    BACK_ROOM = "back_room"


SERVED = (ZoneKind.COUNTER, ZoneKind.FITTING_ROOM, ZoneKind.SERVICE)
"""Zone kinds in which customers wait for staff."""
DOORS = (ZoneKind.ENTRANCE, ZoneKind.EXIT)

PrintedClass = Literal["member", "cart", "staff", "merchandise"]
"""Tag classes defined by rules in the store file; all other tags are unknown."""
TagClassName = Literal["unknown", PrintedClass]
TAG_CLASSES: tuple[TagClassName, ...] = get_args(TagClassName)
"""Names of the numbers in `tag_class`, in the engine's order."""
PEOPLE: tuple[TagClassName, ...] = ("member", "unknown")
"""Classes that count as people; carts are counted separately, staff and merchandise not at all."""
COUNTED: tuple[TagClassName, ...] = (*PEOPLE, "cart")

WINDOW_US = 900_000_000
"""Length of a window: 15 minutes."""
