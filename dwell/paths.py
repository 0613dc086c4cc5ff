"""Ways through a store: flows between zones, cleaned paths, and what a member does again and again. Pure, mergeable.

A cleaned path is the order in which a journey first stopped at zones. Ways (aisles), passing-by and touches are no
stops; coming back to a zone adds nothing, so that loops (A A, A B C A) and palindromes (A B A) leave their first half.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
    pathless: int
    """Journeys that stopped nowhere."""
    steps: NDArray[np.int64]
    """(Z + 1, Z + 1) from stop to next stop, whatever was walked through between them; row and column as in links."""
    step_journeys: NDArray[np.int64]
    """(Z + 1, Z + 1) journeys that did so."""
    unseen_steps: int
    """Steps left out because a visit at either end or between was not fully seen."""

    def __add__(self, other: Flows) -> Flows:
        """Flows of two spans that don't overlap."""
        return Flows(
            self.links + other.links,
            self.link_journeys + other.link_journeys,
            self.unseen + other.unseen,
            Counter(self.paths) + Counter(other.paths),
            self.unseen_paths + other.unseen_paths,
            self.pathless + other.pathless,
            self.steps + other.steps,
            self.step_journeys + other.step_journeys,
            self.unseen_steps + other.unseen_steps,
        )


def nothing(zones: int) -> Flows:
    """Flows of an empty span."""
    none: NDArray[Any] = np.zeros((zones + 1, zones + 1), np.int64)
    return Flows(none, none.copy(), 0, {}, 0, 0, none.copy(), none.copy(), 0)


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
    stop = stops(stays, place)
    paths, unseen_paths, pathless = _paths(zone, journey, stop, seen)
    links, link_journeys = _counted(of, link, size)
    steps, step_journeys, unseen_steps = _steps(zone, journey, stop, seen, size)
    return Flows(
        links,
        link_journeys,
        unseen,
        paths,
        unseen_paths,
        pathless,
        steps,
        step_journeys,
        unseen_steps,
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


def _counted(of: Ints, link: Ints, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(size, size) links, and journeys with each of them."""
    once = distinct(of * size * size + link) % (size * size)
    links, journeys = (np.bincount(one, minlength=size * size).reshape(size, size) for one in (link, once))
    return links, journeys


def _steps(zone: Ints, journey: Ints, stop: Mask, seen: Mask, size: int) -> tuple[NDArray[Any], NDArray[Any], int]:
    """(size, size) steps from stop to next stop and journeys with each, and how many were not fully seen.

    The last row is coming in, the last column going out. A stay on the way that was not fully seen may hide a stop.
    """
    at = np.flatnonzero(stop)
    journeys = distinct(journey[at])
    # A journey's steps are those between neighbours among: its beginning, its stops, its end.
    begin, end = np.searchsorted(journey, journeys), np.searchsorted(journey, journeys, "right") - 1
    place = np.concatenate([begin, at, end])
    rank = np.repeat((0, 1, 2), (len(begin), len(at), len(end)))
    what = np.concatenate([np.full(len(begin), size - 1), zone[at], np.full(len(end), size - 1)])
    order = np.lexsort((place, rank, journey[place]))
    place, what, of = place[order], what[order], journey[place[order]]
    step = np.flatnonzero((of[1:] == of[:-1]) & (what[1:] != what[:-1]))
    hidden = np.concatenate([[0], np.cumsum(~seen)])
    whole = hidden[place[step + 1] + 1] == hidden[place[step]]
    step, unseen = step[whole], int((~whole).sum())
    return *_counted(of[step], what[step] * size + what[step + 1], size), unseen


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
