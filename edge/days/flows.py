"""Transitions between zones, paths, entries and exits, from a read-only connection. See edge.days.counters."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from config import StoreConfig
from config.facts import DOORS
from edge.database.reader import Past
from edge.days.kept import ending
from edge.days.kept import paths as paths_of
from edge.days.scope import Rate, Scope, hide, over, rate

TOP_PATHS = 20


class Transition(NamedTuple):
    """Direct transition between two zones; `from_zone` None: entering the store, `to_zone` None: leaving it."""

    from_zone: str | None
    to_zone: str | None
    n: int
    share: float
    """Share of all transitions from `from_zone`, including suppressed ones."""


class Step(NamedTuple):
    """From a stop to the next one, whatever was walked through between; None: from outside, or out of the store."""

    from_zone: str | None
    to_zone: str | None
    n: int
    leaving: int
    """Number of all steps from `from_zone`."""
    coming: int
    """Number of all steps to `to_zone`."""

    @property
    def share(self) -> Rate | None:
        """Share of all steps from `from_zone`; None if they are too few."""
        return rate(self.n, self.leaving)

    @property
    def back(self) -> Rate | None:
        """Share of all steps to `to_zone`; None if they are too few."""
        return rate(self.n, self.coming)


@dataclass(frozen=True, slots=True)
class PathCount:
    """A cleaned path: the order of first stops, without loops and returns."""

    zones: tuple[str, ...]
    n: int
    share: float
    """Share of all journeys with a path."""


@dataclass(frozen=True)
class Mix:
    """Number of journeys that began or ended in a zone; n None: fewer than small_cell."""

    zone: str
    n: int | None


@dataclass(frozen=True)
class DoorShare:
    """An entrance or exit with its share of the journeys observed at any door."""

    zone: str
    n: int | None
    """None if fewer than small_cell."""
    share: Rate | None
    """Share of the journeys that began (or ended) at a door; None if too few, or if a door is hidden."""


@dataclass(frozen=True)
class Doors:
    """Entries or exits by door, as far as they were observed there."""

    doors: tuple[DoorShare, ...]
    """In the order of the store file; in a store without entrances and exits, every zone counts as one."""
    elsewhere: int | None
    """Journeys that began (or ended) elsewhere: not observed at a door. None if it would reveal a hidden door."""


@dataclass(frozen=True, slots=True)
class ZoneTransition:
    """Direct transition between two zones, `n` times."""

    from_zone: str
    to_zone: str
    n: int


@dataclass(frozen=True)
class ZoneFlows:
    """Transitions between zones, without entering and leaving the store, as drawn on the page."""

    links: tuple[ZoneTransition, ...]
    """Most frequent first; only those of at least small_cell journeys."""
    n: int
    """Number of all transitions between zones, including suppressed ones."""
    suppressed_links: int
    suppressed_n: int
    unseen: int
    """Transitions left out because the visit before or after was incomplete."""


@dataclass(frozen=True)
class FlowReport:
    scope: Scope
    folded: ZoneFlows
    """From stop to stop, with aisles and passing-by folded, as drawn on the page."""
    stops: tuple[Step, ...]
    """The same including entering and leaving. Most frequent first; only those of at least small_cell journeys."""
    links: tuple[Transition, ...]
    """Including entering and leaving. Most frequent first; only those of at least small_cell journeys."""
    steps: int
    suppressed_links: int
    suppressed_steps: int
    unseen: int
    """Transitions left out because the visit before or after was incomplete."""
    paths: tuple[PathCount, ...]
    """The TOP_PATHS most frequent paths of at least small_cell journeys."""
    with_path: int
    other_paths: int
    """Number of journeys with a path that is not listed."""
    without_stop: int
    unseen_paths: int
    entries: tuple[Mix, ...]
    exits: tuple[Mix, ...]
    ways_in: Doors
    ways_out: Doors
    direct: tuple[int, int]
    """Number of pairs of zones with direct transitions, and number of these transitions, between zones only."""

    @cached_property
    def between(self) -> ZoneFlows:
        """Transitions between zones, without entering and leaving the store."""
        return _between(self.links, *self.direct, self.unseen)


def flows(past: Past, date: dt.date, days: int = 1) -> FlowReport:
    """Compute transitions, most frequent paths, entries and exits."""
    config = past.config
    scope, found = over(past, date, days)
    ids = [zone.id for zone in config.zones]
    names: list[str | None] = [*ids, None]
    least = config.thresholds.small_cell
    made = found.flows
    leaving, coming = made.steps.sum(axis=1), made.steps.sum(axis=0)
    shown = (made.links > 0) & (made.link_journeys >= least)
    links = _transitions(names, made.links, shown)
    stepped = (made.steps > 0) & (made.step_journeys >= least)
    a, b = _ordered(names, made.steps, stepped)
    told = zip(a.tolist(), b.tolist(), made.steps[a, b].tolist(), leaving[a].tolist(), coming[b].tolist(), strict=True)
    stops = [Step(names[one], names[two], n, left, came) for one, two, n, left, came in told]
    steps = int(made.links.sum())
    counted, with_path = paths_of(past, ending(date, days), TOP_PATHS)
    paths = tuple(PathCount(tuple(ids[z] for z in path), n, n / with_path) for path, n in counted if n >= least)
    return FlowReport(
        scope=scope,
        folded=_between(stops, *_size(made.steps), made.unseen_steps),
        stops=tuple(stops),
        links=tuple(links),
        steps=steps,
        suppressed_links=int(((made.links > 0) & ~shown).sum()),
        suppressed_steps=steps - int(made.links[shown].sum()),
        unseen=made.unseen,
        paths=paths,
        with_path=with_path,
        other_paths=with_path - sum(path.n for path in paths),
        without_stop=made.pathless,
        unseen_paths=made.unseen_paths,
        entries=_mix(config, found.zones["entries"]),
        exits=_mix(config, found.zones["exits"]),
        ways_in=_doors(config, found.zones["entries"]),
        ways_out=_doors(config, found.zones["exits"]),
        direct=_size(made.links),
    )


def between(past: Past, date: dt.date, days: int = 1) -> ZoneFlows:
    """Compute the transitions between zones only."""
    made, config = over(past, date, days)[1].flows, past.config
    shown = (made.links > 0) & (made.link_journeys >= config.thresholds.small_cell)
    links = _transitions([*(zone.id for zone in config.zones), None], made.links, shown)
    return _between(links, *_size(made.links), made.unseen)


def _size(n: NDArray[np.int64]) -> tuple[int, int]:
    """Return the number of pairs of zones with any steps, and of the steps, without those from and to outside."""
    return int((n[:-1, :-1] > 0).sum()), int(n[:-1, :-1].sum())


def _transitions(names: list[str | None], n: NDArray[np.int64], shown: NDArray[np.bool_]) -> list[Transition]:
    a, b = _ordered(names, n, shown)
    counts, shares = n[a, b].tolist(), (n[a, b] / n.sum(axis=1)[a]).tolist()
    links = zip(a.tolist(), b.tolist(), counts, shares, strict=True)
    return [Transition(names[one], names[two], count, share) for one, two, count, share in links]


def _ordered(
    names: list[str | None], n: NDArray[np.int64], shown: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return rows and columns of the links that are shown: most frequent first, then by name."""
    alphabetical = sorted(range(len(names)), key=lambda at: names[at] or "")
    place = np.empty(len(names), np.intp)
    place[alphabetical] = np.arange(len(names))
    a, b = np.nonzero(shown)
    order = np.lexsort((place[b], place[a], -n[a, b]))
    return a[order], b[order]


def _between(links: Sequence[Transition | Step], pairs: int, n: int, unseen: int) -> ZoneFlows:
    """Select the transitions between zones from the visible links, in their order."""
    flows = tuple(
        ZoneTransition(link.from_zone, link.to_zone, link.n)
        for link in links
        if link.from_zone is not None and link.to_zone is not None
    )
    return ZoneFlows(flows, n, pairs - len(flows), n - sum(flow.n for flow in flows), unseen)


def _mix(config: StoreConfig, counts: NDArray[Any]) -> tuple[Mix, ...]:
    by_zone: dict[str, int] = defaultdict(int)
    for zone, n in zip(config.zones, counts.tolist(), strict=True):
        if n:
            by_zone[zone.id] = n
    hidden = hide(dict(by_zone), config.thresholds.small_cell)
    rows = [Mix(zone, None if zone in hidden else n) for zone, n in by_zone.items()]
    return tuple(sorted(rows, key=lambda mix: (-(mix.n or 0), mix.zone)))


def _doors(config: StoreConfig, counts: NDArray[Any]) -> Doors:
    """Summarise by door, hiding at least what `_mix` hides, so that neither reveals what the other withholds."""
    told = {mix.zone: mix.n for mix in _mix(config, counts)}
    doors = [zone.id for zone in config.zones if zone.kind in DOORS]
    doors = doors or [zone.id for zone in config.zones]
    seen = [told.get(zone, 0) for zone in doors]
    if None in seen:
        return Doors(tuple(DoorShare(zone, n, None) for zone, n in zip(doors, seen, strict=True)), None)
    known = [n for n in seen if n is not None]
    of = sum(known)
    found = tuple(DoorShare(zone, n, rate(n, of)) for zone, n in zip(doors, known, strict=True))
    return Doors(found, int(counts.sum()) - of)
