"""Tags that don't move like customers: staff without a badge, and tags that lie somewhere. Pure.

Such tags would outweigh many customers in presence, dwell and occupancy. They are left out of every number, and listed.
What is judged is one span (a business day) by its visits; a tag that is still being read has no visit yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dwell.layout import TagClass, ZoneKind
from dwell.stays import Place, Span, Stays, people, presence

LONG, BACK_ROOM, STUCK = "long", "back_room", "stuck"
REASONS = (STUCK, LONG, BACK_ROOM)
"""The strongest first."""
STUCK_ZONES = 2
"""A tag that lies between two zones is now in the one, now in the other; a customer has been to more."""


@dataclass(frozen=True)
class Limits:
    """From when on a tag is suspected, within one span."""

    long_us: int
    """People in zones for so long …"""
    back_room_us: int
    """… or so long in back rooms: staff without a badge."""
    stuck_us: int
    """People and carts for so long in at most STUCK_ZONES zones: a tag that was lost or hangs on something."""


@dataclass(frozen=True)
class Suspicion:
    """Why one carrier is suspected."""

    reasons: tuple[str, ...]
    """Of REASONS, at least one, the strongest first."""
    present_us: int
    back_room_us: int
    zones: int
    """Different zones that it was in."""


def suspicions(stays: Stays, place: Place, span: Span, limits: Limits) -> Mapping[int, Suspicion]:
    """Carrier → why it is suspected; of `stays` in any order."""
    inside = (stays["exit_us"] > span.start_us) & (stays["enter_us"] < span.end_us)
    stays = stays[inside & (people(stays) | (stays["tag_class"] == TagClass.CART))]
    _, first = np.unique(stays["carrier"], return_index=True)
    person = people(stays[first])
    behind, back_us = presence(stays[place.of_kind(ZoneKind.BACK_ROOM)[stays["zone"]]], span)
    back = dict(zip(behind.tolist(), back_us.tolist(), strict=True))
    pairs = np.unique(stays["carrier"].astype(np.int64) * place.zones + stays["zone"]) // place.zones
    carriers, zones = np.unique(pairs, return_counts=True)
    found = {}
    rows = zip(carriers.tolist(), person.tolist(), presence(stays, span)[1].tolist(), zones.tolist(), strict=True)
    for carrier, a_person, long_us, many in rows:
        back_room_us = back.get(carrier, 0)
        holds = {
            STUCK: many <= STUCK_ZONES and long_us >= limits.stuck_us,
            LONG: a_person and long_us >= limits.long_us,
            BACK_ROOM: a_person and back_room_us >= limits.back_room_us,
        }
        if reasons := tuple(reason for reason in REASONS if holds[reason]):
            found[carrier] = Suspicion(reasons, long_us, back_room_us, many)
    return found
