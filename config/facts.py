"""What is so in every store: kinds of zones, classes of tags, the length of windows.

`dwell` may not import this and has the same as numbers; a test holds the two together.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, get_args


class ZoneKind(StrEnum):
    """What a zone is for; decides which thresholds and summaries apply to it."""

    ENTRANCE = "entrance"
    EXIT = "exit"
    COUNTER = "counter"
    AISLE = "aisle"
    FITTING_ROOM = "fitting_room"
    CHECKOUT = "checkout"
    SERVICE = "service"
    BACK_ROOM = "back_room"


SERVED = (ZoneKind.COUNTER, ZoneKind.FITTING_ROOM, ZoneKind.SERVICE)
"""Kinds of zones where customers wait for a member of staff."""
DOORS = (ZoneKind.ENTRANCE, ZoneKind.EXIT)

PrintedClass = Literal["member", "cart", "staff", "merchandise"]
"""Classes that the store file tells tags by; every other tag is unknown."""
TagClassName = Literal["unknown", PrintedClass]
TAG_CLASSES: tuple[TagClassName, ...] = get_args(TagClassName)
"""Names of the numbers in `tag_class`, in the engine's order."""
PEOPLE: tuple[TagClassName, ...] = ("member", "unknown")
"""Classes that stand for people; carts are counted apart, staff and merchandise not at all."""
COUNTED: tuple[TagClassName, ...] = (*PEOPLE, "cart")

WINDOW_US = 900_000_000
"""Length of a window, 15 minutes: what visits are counted by."""
