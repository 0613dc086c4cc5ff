"""Staff and customers in one zone: waiting, assistance, staffed time. Pure, mergeable.

Being in one zone together is an indicator of service, not its proof; nothing here tells one badge from another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dwell.layout import TagClass, ZoneKind
from dwell.stays import Ints, Mask, Place, Span, Stays, distinct, people, pieces, union

NEVER = np.iinfo(np.int64).max
SERVED = (ZoneKind.COUNTER, ZoneKind.FITTING_ROOM, ZoneKind.SERVICE)
"""Kinds of zones where customers wait for somebody."""
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Contacts:
    """Of each stay: n of them, as they were given."""

    wanted: Mask
    """(n,) is it a fully seen stay of a person, of `visit_us` or more, in a zone where people are served."""
    wait_us: Ints
    """(n,) from its beginning until the first badge came that stayed for `assist_us` of it; NEVER without one."""
    assist_us: Ints
    """(n,) how long a badge, whichever, was there too; 0 without contact."""

    @property
    def met(self) -> Mask:
        """(n,) was there a contact."""
        mask: Mask = self.wait_us < NEVER
        return mask


def contacts(stays: Stays, place: Place) -> Contacts:
    """Which stays of people met staff in their zone."""
    staff = stays[stays["tag_class"] == TagClass.STAFF]
    whom = people(stays)
    served = place.of_kind(*SERVED)[stays["zone"]]
    long = stays["exit_us"] - stays["enter_us"] >= place.visit_us
    wait = np.full(len(stays), NEVER, np.int64)
    assist = np.zeros(len(stays), np.int64)
    for zone in distinct(staff["zone"]).tolist():
        there = staff[staff["zone"] == zone]
        mine = np.flatnonzero(whom & (stays["zone"] == zone))
        step = max(1, _CHUNK // len(there))
        for cut in range(0, len(mine), step):
            part = mine[cut : cut + step]
            wait[part] = _waits(stays["enter_us"][part], stays["exit_us"][part], there, place.assist_us)
        met = mine[wait[mine] < NEVER]
        _, low, high = union(np.zeros(len(there), np.int64), there["enter_us"], there["exit_us"])
        assist[met] = _staffed(low, high, stays["exit_us"][met]) - _staffed(low, high, stays["enter_us"][met])
    return Contacts(whom & served & long & (stays["censored"] == 0), wait, assist)


def staffed(stays: Stays, place: Place, span: Span) -> NDArray[np.int64]:
    """(W, Z) microseconds of each window in which at least one badge was in the zone."""
    staff = stays[stays["tag_class"] == TagClass.STAFF]
    zone, low, high = union(staff["zone"].astype(np.int64), staff["enter_us"], staff["exit_us"])
    of, window, low, high = pieces(low, high, span)
    total = np.zeros((len(span.windows_us), place.zones), np.int64)
    np.add.at(total, (window, zone[of]), high - low)
    return total


def _waits(enter_us: Ints, exit_us: Ints, staff: Stays, assist_us: int) -> Ints:
    begin = np.maximum(enter_us[:, None], staff["enter_us"][None, :])
    end = np.minimum(exit_us[:, None], staff["exit_us"][None, :])
    waits: Ints = np.where(end - begin >= assist_us, begin - enter_us[:, None], NEVER).min(axis=1)
    return waits


def _staffed(low_us: Ints, high_us: Ints, at_us: Ints) -> Ints:
    """Staffed time before each moment, of disjoint intervals in order."""
    before = np.concatenate([[0], np.cumsum(high_us - low_us)])
    number = np.searchsorted(low_us, at_us, side="right")
    inside = np.maximum(np.append(0, high_us)[number] - at_us, 0)
    total: Ints = before[number] - np.where(number > 0, inside, 0)
    return total
