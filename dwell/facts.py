"""Facts about a span of time in a store: counts by window, zone and floor, and histograms. Pure; they merge by adding.

`facts(a, c) == facts(a, b) + facts(b, c)` exactly, given the same stays: see dwell.stays for what counts where. People
are members and tags of no known class; who is to be left out (suspected staff) is told by the caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwell.aggregates import BINS, bins, peaks
from dwell.layout import TagClass, ZoneKind
from dwell.paths import Flows, flows
from dwell.service import Contacts, contacts, staffed
from dwell.stays import COUNTED, Ints, Mask, Place, Span, Stays, first_of_journey, people, pieces

_N = "<i8"
ZONE_FACTS = np.dtype(
    [
        *((name, _N) for name in ("member", "unknown", "cart")),  # visits that began, by class
        ("censored", _N),  # of people, not fully seen; the others are in exactly one band
        *((name, _N) for name in ("pass_by", "touch", "visit", "engaged")),
        ("visitors", _N),  # people's journeys with a stay of touch_us or more here
        ("stoppers", _N),  # … of visit_us or more
        ("engaged_visitors", _N),  # … of engaged_us or more
        ("first_stops", _N),  # journeys that stopped at this counter before any other
        ("entries", _N),  # journeys whose first visit was here
        ("exits", _N),  # … whose last was
        ("present_us", _N),  # people's presence, summed
        ("peak", _N),  # most people at once
        ("staffed_us", _N),  # time with at least one staff badge
        ("staff_us", _N),  # presence of staff badges, summed
        ("wanted", _N),  # visits that staff might have served
        ("met", _N),  # of them, those with a contact
        ("assist_us", _N),  # how long staff was there too, summed over those
    ]
)
FLOOR_FACTS = np.dtype(
    [
        *((name, _N) for name in ("member", "unknown", "cart")),  # comings, from outside or another floor
        ("present_us", _N),
        ("peak", _N),
    ]
)
STORE_FACTS = np.dtype(
    [
        *((name, _N) for name in ("member", "unknown", "cart")),  # journeys that began
        ("stopped", _N),  # people's journeys that stopped at a counter
        ("met", _N),  # members' journeys with at least one staff contact
        ("present_us", _N),
        ("peak", _N),
    ]
)
Table = NDArray[Any]


@dataclass(frozen=True)
class Facts:
    """W windows, Z zones, F floors."""

    windows_us: Ints
    """(W,) starts."""
    zones: Table
    """(W, Z) of dtype ZONE_FACTS."""
    floors: Table
    """(W, F) of dtype FLOOR_FACTS."""
    store: Table
    """(W,) of dtype STORE_FACTS."""
    dwell: NDArray[np.uint32]
    """(W, Z, BINS) dwell of people's fully seen visits."""
    wait: NDArray[np.uint32]
    """(W, Z, BINS) waits of the visits that met staff."""
    assist: NDArray[np.uint32]
    """(W, Z, BINS) how long staff was there too, of the visits that met staff."""
    flows: Flows

    def __add__(self, other: Facts) -> Facts:
        """Facts of two spans that don't overlap; they may share a window."""
        windows = np.union1d(self.windows_us, other.windows_us)

        def both(one: Table, two: Table) -> Table:
            out = np.zeros((len(windows), *one.shape[1:]), one.dtype)
            add(out, np.searchsorted(windows, self.windows_us), one)
            add(out, np.searchsorted(windows, other.windows_us), two)
            return out

        return Facts(
            windows,
            both(self.zones, other.zones),
            both(self.floors, other.floors),
            both(self.store, other.store),
            both(self.dwell, other.dwell),
            both(self.wait, other.wait),
            both(self.assist, other.assist),
            self.flows + other.flows,
        )


def facts(stays: Stays, place: Place, span: Span, with_staff: Contacts | None = None) -> Facts:
    """Facts of the span from `stays` (in order): all that touch it, and all of the journeys that began in it.

    `with_staff`: their contacts, if the caller has them already.
    """
    who = people(stays)
    with_staff = with_staff or contacts(stays, place)
    return Facts(
        span.windows_us,
        _zones(stays, who, with_staff, place, span),
        _floors(stays, who, place, span),
        _store(stays, who, with_staff, place, span),
        _histograms(stays, stays["exit_us"] - stays["enter_us"], who & (stays["censored"] == 0), place, span),
        _histograms(stays, with_staff.wait_us, with_staff.wanted & with_staff.met, place, span),
        _histograms(stays, with_staff.assist_us, with_staff.wanted & with_staff.met, place, span),
        flows(stays[who], place, span),
    )


def merge(parts: list[Facts]) -> Facts:
    """Facts of all the spans together; ValueError without any."""
    if not parts:
        raise ValueError("no facts to merge")
    return reduce(Facts.__add__, parts)


def add(into: Table, at: Ints, what: Table) -> None:
    """Add rows `what` to the rows `at`, no row twice; of peaks the higher one."""
    if into.dtype.names is None:
        into[at] += what
        return
    for name in into.dtype.names:
        if name == "peak":
            into[name][at] = np.maximum(into[name][at], what[name])
        else:
            into[name][at] += what[name]


def total(table: Table, known: Mask | None = None) -> Table:
    """Facts of all windows (axis 0) together; without those not `known`, a mask that broadcasts to the table."""
    out = np.zeros(table.shape[1:], table.dtype)
    for name in table.dtype.names or ():
        column = table[name] if known is None else np.where(known, table[name], 0)
        out[name] = column.max(axis=0, initial=0) if name == "peak" else column.sum(axis=0)
    return out


def _zones(stays: Stays, who: Mask, staff: Contacts, place: Place, span: Span) -> Table:
    out = np.zeros((len(span.windows_us), place.zones), ZONE_FACTS)
    zone = stays["zone"].astype(np.int64)
    began = span.holds(stays["enter_us"])
    long_us = stays["exit_us"] - stays["enter_us"]
    whole = who & (stays["censored"] == 0)
    band = np.digitize(long_us, (place.touch_us, place.visit_us, place.engaged_us))

    def count(name: str, mask: Mask, at_us: Ints, weights: Ints | int = 1) -> None:
        chosen = np.flatnonzero(mask)
        value = weights if isinstance(weights, int) else weights[chosen]
        np.add.at(out[name], (span.window(at_us[chosen]), zone[chosen]), value)

    enter_us, journey_us = stays["enter_us"], stays["journey_us"]
    for tag_class in COUNTED:
        count(tag_class.name.lower(), began & (stays["tag_class"] == tag_class), enter_us)
    count("censored", began & who & ~whole, enter_us)
    for number, name in enumerate(("pass_by", "touch", "visit", "engaged")):
        count(name, began & whole & (band == number), enter_us)
    count("wanted", began & staff.wanted, enter_us)
    count("met", began & staff.wanted & staff.met, enter_us)
    count("assist_us", began & staff.wanted, enter_us, staff.assist_us)

    ours = who & span.holds(journey_us)
    first = first_of_journey(stays)
    journey = np.cumsum(first) - 1
    for name, least_us in (
        ("visitors", place.touch_us),
        ("stoppers", place.visit_us),
        ("engaged_visitors", place.engaged_us),
    ):
        count(name, _once(ours & (long_us >= least_us), journey * place.zones + zone), journey_us)
    count("first_stops", _once(ours & counter_stop(stays, place), journey), journey_us)
    count("entries", ours & first, journey_us)
    count("exits", ours & np.append(first[1:], True), journey_us)

    out["staffed_us"] = staffed(stays, place, span)
    staff_there = stays["tag_class"] == TagClass.STAFF
    out["staff_us"], _ = _occupancy(stays[staff_there], zone[staff_there], place.zones, span)
    out["present_us"], out["peak"] = _occupancy(stays[who], zone[who], place.zones, span)
    return out


def _floors(stays: Stays, who: Mask, place: Place, span: Span) -> Table:
    out = np.zeros((len(span.windows_us), place.floors), FLOOR_FACTS)
    floor = place.zone_floor[stays["zone"]].astype(np.int64)
    coming = first_of_journey(stays)
    coming[1:] |= floor[1:] != floor[:-1]
    coming &= span.holds(stays["enter_us"])
    for tag_class in COUNTED:
        chosen = coming & (stays["tag_class"] == tag_class)
        np.add.at(out[tag_class.name.lower()], (span.window(stays["enter_us"][chosen]), floor[chosen]), 1)
    out["present_us"], out["peak"] = _occupancy(stays[who], floor[who], place.floors, span)
    return out


def _store(stays: Stays, who: Mask, staff: Contacts, place: Place, span: Span) -> Table:
    out = np.zeros(len(span.windows_us), STORE_FACTS)
    first = first_of_journey(stays)
    journey = np.cumsum(first) - 1
    ours = span.holds(stays["journey_us"])
    window = span.window(stays["journey_us"])
    for tag_class in COUNTED:
        np.add.at(out[tag_class.name.lower()], window[first & ours & (stays["tag_class"] == tag_class)], 1)
    np.add.at(out["stopped"], window[_once(ours & who & counter_stop(stays, place), journey)], 1)
    member = stays["tag_class"] == TagClass.MEMBER
    np.add.at(out["met"], window[_once(ours & member & staff.met, journey)], 1)
    present, peak = _occupancy(stays[who], np.zeros(int(who.sum()), np.int64), 1, span)
    out["present_us"], out["peak"] = present[:, 0], peak[:, 0]
    return out


def counter_stop(stays: Stays, place: Place) -> Mask:
    """(n,) is it a stay of `visit_us` or more at a counter."""
    long = stays["exit_us"] - stays["enter_us"] >= place.visit_us
    mask: Mask = long & place.of_kind(ZoneKind.COUNTER)[stays["zone"]]
    return mask


def _once(mask: Mask, key: Ints) -> Mask:
    """Of the chosen ones with the same key, the first."""
    chosen = np.flatnonzero(mask)
    _, first = np.unique(key[chosen], return_index=True)
    out = np.zeros(len(mask), np.bool_)
    out[chosen[first]] = True
    return out


def _occupancy(stays: Stays, row: Ints, rows: int, span: Span) -> tuple[Ints, Ints]:
    """(W, rows) presence, and most at once."""
    of, window, low, high = pieces(stays["enter_us"], stays["exit_us"], span)
    key = window * rows + row[of]
    shape = (len(span.windows_us), rows)
    present = np.zeros(shape[0] * rows, np.int64)
    np.add.at(present, key, high - low)
    return present.reshape(shape), peaks(key, low, high, len(present)).reshape(shape)


def _histograms(stays: Stays, long_us: Ints, mask: Mask, place: Place, span: Span) -> NDArray[np.uint32]:
    out = np.zeros((len(span.windows_us), place.zones, BINS), np.uint32)
    chosen = np.flatnonzero(mask & span.holds(stays["enter_us"]))
    at = (span.window(stays["enter_us"][chosen]), stays["zone"][chosen], bins(long_us[chosen]))
    np.add.at(out, at, 1)
    return out
