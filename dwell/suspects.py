"""Tags that don't move like customers: staff without a badge, and tags that lie somewhere. Pure.

Such tags would outweigh many customers in presence, dwell and occupancy. They are left out of every number, and listed.
What is judged is one span (a business day) by its visits; a tag that is still being read has no visit yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dwell.layout import TagClass, ZoneKind
from dwell.stays import Place, Span, Stays, distinct, people, presence

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
    pairs = distinct(stays["carrier"].astype(np.int64) * place.zones + stays["zone"]) // place.zones
    carriers, zones = np.unique(pairs, return_counts=True)
    long_us = presence(stays, span)[1]
    back_us = np.zeros_like(long_us)
    behind, behind_us = presence(stays[place.of_kind(ZoneKind.BACK_ROOM)[stays["zone"]]], span)
    back_us[np.searchsorted(carriers, behind)] = behind_us
    holds = {
        STUCK: (zones <= STUCK_ZONES) & (long_us >= limits.stuck_us),
        LONG: person & (long_us >= limits.long_us),
        BACK_ROOM: person & (back_us >= limits.back_room_us),
    }
    return {
        int(carriers[i]): Suspicion(
            tuple(reason for reason in REASONS if holds[reason][i]), int(long_us[i]), int(back_us[i]), int(zones[i])
        )
        for i in np.flatnonzero(np.any(list(holds.values()), axis=0)).tolist()
    }
