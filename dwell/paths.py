"""Ways through a store: flows between zones, cleaned paths, and what a member does again and again. Pure, mergeable.

A cleaned path is the order in which a journey first stopped at zones. Ways (aisles), passing-by and touches are no
stops; coming back to a zone adds nothing, so that loops (A A, A B C A) and palindromes (A B A) leave their first half.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwell.layout import ZoneKind
from dwell.stays import Ints, Mask, Place, Span, Stays, distinct, first_of_journey

Path = tuple[int, ...]
HABIT_JOURNEYS = 3
"""A path that a member walked so often is habitual."""


@dataclass(frozen=True)
class Flows:
    """What journeys that began in a span did between zones; Z zones."""

    links: NDArray[np.int64]
    """(Z + 1, Z + 1) straight from zone to zone; the last row is coming in, the last column going out."""
    link_journeys: NDArray[np.int64]
    """(Z + 1, Z + 1) journeys that did so."""
    unseen: int
    """Steps left out because the visit before or after was not fully seen."""
    paths: Mapping[Path, int]
    """Cleaned path → journeys."""
    unseen_paths: int
    """Journeys without a path, since a visit of theirs was not fully seen."""
    pathless: int = field(default=0)
    """Journeys that stopped nowhere."""

    def __add__(self, other: Flows) -> Flows:
        """Flows of two spans that don't overlap."""
        return Flows(
            self.links + other.links,
            self.link_journeys + other.link_journeys,
            self.unseen + other.unseen,
            Counter(self.paths) + Counter(other.paths),
            self.unseen_paths + other.unseen_paths,
            self.pathless + other.pathless,
        )


def nothing(zones: int) -> Flows:
    """Flows of an empty span."""
    none: NDArray[Any] = np.zeros((zones + 1, zones + 1), np.int64)
    return Flows(none, none.copy(), 0, {}, 0)


def flows(stays: Stays, place: Place, span: Span) -> Flows:
    """Flows of the journeys among `stays` (in order) that began in the span."""
    stays = stays[span.holds(stays["journey_us"])]
    if not len(stays):
        return nothing(place.zones)
    first = first_of_journey(stays)
    journey = np.cumsum(first) - 1
    last = np.append(first[1:], True)
    zone = stays["zone"].astype(np.int64)
    out = place.zones
    # Steps: into the store, from stay to stay, out of it. A step is seen if both its stays are.
    steps = np.flatnonzero(~first)
    steps = steps[zone[steps] != zone[steps - 1]]
    seen = stays["censored"] == 0
    inner = seen[steps] & seen[steps - 1]
    entries, exits = np.flatnonzero(first), np.flatnonzero(last)
    unseen = int((~inner).sum() + (~seen[entries]).sum() + (~seen[exits]).sum())
    steps, entries, exits = steps[inner], entries[seen[entries]], exits[seen[exits]]
    from_ = np.concatenate([zone[steps - 1], np.full(len(entries), out), zone[exits]])
    to = np.concatenate([zone[steps], zone[entries], np.full(len(exits), out)])
    of = np.concatenate([journey[steps], journey[entries], journey[exits]])
    size = out + 1
    link = from_ * size + to
    once = distinct(of * size * size + link) % (size * size)
    paths, unseen_paths, pathless = _paths(zone, journey, stops(stays, place), seen)
    return Flows(
        np.bincount(link, minlength=size * size).reshape(size, size),
        np.bincount(once, minlength=size * size).reshape(size, size),
        unseen,
        paths,
        unseen_paths,
        pathless,
    )


def stops(stays: Stays, place: Place) -> Mask:
    """(n,) is it a stop: at the doors any stay, elsewhere one of `visit_us`, on ways none."""
    doors = place.of_kind(ZoneKind.ENTRANCE, ZoneKind.EXIT)[stays["zone"]]
    ways = place.of_kind(ZoneKind.AISLE)[stays["zone"]]
    mask: Mask = doors | (~ways & (stays["exit_us"] - stays["enter_us"] >= place.visit_us))
    return mask


def cleaned(zones: Iterable[int]) -> Path:
    """Zones in the order in which they first come."""
    return tuple(dict.fromkeys(zones))


def habitual(paths: Iterable[Path]) -> tuple[Path, int] | None:
    """The path that most of a member's journeys took, and how many did; None if fewer than HABIT_JOURNEYS did."""
    counts = Counter(path for path in paths if path)
    if not counts:
        return None
    path, n = min(counts.items(), key=lambda item: (-item[1], item[0]))
    return (path, n) if n >= HABIT_JOURNEYS else None


def _paths(zone: Ints, journey: Ints, stop: Mask, seen: Mask) -> tuple[dict[Path, int], int, int]:
    journeys = int(journey[-1]) + 1
    whole = np.bincount(journey, weights=~seen, minlength=journeys) == 0
    kept = stop & whole[journey]
    counts: Counter[Path] = Counter()
    at = np.searchsorted(journey[kept], np.arange(journeys + 1))
    numbers = zone[kept].tolist()
    for number in np.flatnonzero(whole).tolist():
        counts[cleaned(numbers[at[number] : at[number + 1]])] += 1
    pathless = counts.pop((), 0)
    return dict(counts), int((~whole).sum()), pathless
