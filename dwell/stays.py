"""STAY, a visit as summaries see it: carriers and journeys are numbers, whoever they stand for. Pure.

A *span* is what is summed up, cut into windows. What belongs to a visit counts in the window in which the visit began;
what belongs to a journey in the window in which the journey began. So facts about two spans that follow each other add
up, exactly, to the facts about both together, wherever the cut is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwell.layout import Settings, TagClass, ZoneKind

STAY = np.dtype(
    [
        ("enter_us", "<i8"),
        ("exit_us", "<i8"),
        ("journey_us", "<i8"),  # when its journey began
        ("carrier", "<i4"),  # number of the tag
        ("zone", "<i2"),
        ("tag_class", "u1"),  # layout.TagClass
        ("censored", "u1"),
    ]
)
Stays = NDArray[Any]
"""One-dimensional array of dtype STAY."""
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
PEOPLE = (TagClass.UNKNOWN, TagClass.MEMBER)
COUNTED = (TagClass.MEMBER, TagClass.UNKNOWN, TagClass.CART)


@dataclass(frozen=True)
class Place:
    """What summaries need to know of a store, Z zones on F floors, and of its definitions."""

    zone_kind: NDArray[np.uint8]
    """(Z,) layout.ZoneKind."""
    zone_floor: NDArray[np.int16]
    """(Z,) floor number."""
    floors: int
    touch_us: int = 5_000_000
    visit_us: int = 30_000_000
    engaged_us: int = 120_000_000
    assist_us: int = 15_000_000

    @property
    def zones(self) -> int:
        return len(self.zone_kind)

    def of_kind(self, *kinds: ZoneKind) -> Mask:
        """(Z,) is the zone of one of these kinds."""
        mask: Mask = np.isin(self.zone_kind, kinds)
        return mask


@dataclass(frozen=True)
class Span:
    """From `start_us` to `end_us`, in windows that begin at multiples of `window_us`."""

    start_us: int
    end_us: int
    window_us: int = Settings.window_us

    @property
    def first_us(self) -> int:
        """Start of the first window; before `start_us` if that cuts it."""
        return self.start_us // self.window_us * self.window_us

    @property
    def windows_us(self) -> Ints:
        """(W,) starts of the windows."""
        return np.arange(self.first_us, max(self.end_us, self.first_us + 1), self.window_us, dtype=np.int64)

    def holds(self, at_us: Ints) -> Mask:
        """Which moments lie in the span."""
        mask: Mask = (at_us >= self.start_us) & (at_us < self.end_us)
        return mask

    def window(self, at_us: Ints) -> Ints:
        """Number of the window that holds each moment."""
        return (np.asarray(at_us, np.int64) - self.first_us) // self.window_us


def in_order(stays: Stays) -> Stays:
    """By journey, then by time: the order that everything else here wants. Ties stay as they were."""
    return stays[np.lexsort((stays["enter_us"], stays["journey_us"], stays["carrier"]))]


def distinct(values: NDArray[Any]) -> NDArray[Any]:
    """Sorted, each once. Asked for that alone, np.unique looks for masked arrays, and their package takes a MiB."""
    return np.unique(values, return_index=True)[0]


def first_of_journey(stays: Stays) -> Mask:
    """(n,) is a stay, of stays in order, the first of its journey."""
    first = np.ones(len(stays), np.bool_)
    first[1:] = (stays["carrier"][1:] != stays["carrier"][:-1]) | (stays["journey_us"][1:] != stays["journey_us"][:-1])
    return first


def people(stays: Stays) -> Mask:
    """(n,) is the carrier a person: a member or of no known class."""
    mask: Mask = np.isin(stays["tag_class"], PEOPLE)
    return mask


def presence(stays: Stays, span: Span) -> tuple[Ints, Ints]:
    """(C,) carriers, and how long each was in a zone within the span, in microseconds. Mergeable by adding."""
    low = np.maximum(stays["enter_us"], span.start_us)
    long_us = np.maximum(np.minimum(stays["exit_us"], span.end_us) - low, 0)
    carriers, number = np.unique(stays["carrier"], return_inverse=True)
    total = np.zeros(len(carriers), np.int64)
    np.add.at(total, number, long_us)
    return carriers.astype(np.int64), total


def pieces(low_us: Ints, high_us: Ints, span: Span) -> tuple[Ints, Ints, Ints, Ints]:
    """Intervals cut at the windows of a span: (interval number, window, from, to) of each piece."""
    low = np.maximum(low_us, span.start_us)
    high = np.minimum(high_us, span.end_us)
    there = np.flatnonzero(high > low)
    low, high = low[there], high[there]
    first = span.window(low)
    many = span.window(high - 1) - first + 1
    of = np.repeat(np.arange(len(there)), many)
    window = first[of] + np.arange(len(of)) - np.repeat(np.cumsum(many) - many, many)
    start = span.first_us + window * span.window_us
    return there[of], window, np.maximum(low[of], start), np.minimum(high[of], start + span.window_us)


def union(row: Ints, low_us: Ints, high_us: Ints) -> tuple[Ints, Ints, Ints]:
    """Union of the intervals of each row, as disjoint intervals in order: (row, from, to)."""
    there = high_us > low_us
    row, low_us, high_us = row[there], low_us[there], high_us[there]
    who = np.concatenate([row, row])
    when = np.concatenate([low_us, high_us])
    change = np.repeat((1, -1), len(row))
    order = np.lexsort((-change, when, who))  # what begins where another ends goes on
    who, when = who[order], when[order]
    depth = np.cumsum(change[order])
    ends = depth == 0
    begins = np.append(True, ends[:-1]) if len(ends) else ends
    return who[begins], when[begins], when[ends]
