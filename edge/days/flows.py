"""Transitions between zones, paths, and where people come in and go out, from a read-only connection. As in
edge.days.counters."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config import StoreConfig
from config.facts import DOORS
from edge.database.reader import Past
from edge.days.kept import DAY
from edge.days.kept import paths as paths_of
from edge.days.scope import Rate, Scope, hide, over, rate

TOP_PATHS = 20


@dataclass(frozen=True, slots=True)
class Transition:
    """Straight from one zone to another; `from_zone` None is coming in, `to_zone` None going out."""

    from_zone: str | None
    to_zone: str | None
    n: int
    share: float
    """Of all steps out of `from_zone`, the suppressed ones included."""


@dataclass(frozen=True, slots=True)
class PathCount:
    """A cleaned path: the order of first stops, without loops and there-and-back."""

    zones: tuple[str, ...]
    n: int
    share: float
    """Of all journeys with a path."""


@dataclass(frozen=True)
class Mix:
    """In which zone journeys began or ended; n None: fewer than small_cell."""

    zone: str
    n: int | None


@dataclass(frozen=True)
class DoorShare:
    """An entrance or exit, and how many of those seen at any came, or went, this way."""

    zone: str
    n: int | None
    """None: fewer than small_cell."""
    share: Rate | None
    """Of the journeys that began, or ended, at a door; None: too few, or a door is hidden."""


@dataclass(frozen=True)
class Doors:
    """By which doors people came in, or went out, as far as they were seen there."""

    doors: tuple[DoorShare, ...]
    """In the order of the store file; in a store without entrances and exits every zone is one."""
    elsewhere: int | None
    """Journeys that began, or ended, elsewhere: the door was crossed unseen. None: it would tell a hidden one."""


@dataclass(frozen=True, slots=True)
class ZoneTransition:
    """Straight from one zone to another, `n` times."""

    from_zone: str
    to_zone: str
    n: int


@dataclass(frozen=True)
class ZoneFlows:
    """Steps between zones alone, without coming in and going out: what the page draws of a report."""

    links: tuple[ZoneTransition, ...]
    """Most walked first; only those of at least small_cell journeys."""
    n: int
    """All steps between zones, the suppressed ones included."""
    suppressed_links: int
    suppressed_n: int
    unseen: int
    """Steps left out because a visit before or after was not fully seen."""


@dataclass(frozen=True)
class FlowReport:
    scope: Scope
    between: ZoneFlows
    links: tuple[Transition, ...]
    """Coming in and going out too. Most walked first; only those of at least small_cell journeys."""
    steps: int
    suppressed_links: int
    suppressed_steps: int
    unseen: int
    """Steps left out because a visit before or after was not fully seen."""
    paths: tuple[PathCount, ...]
    """The TOP_PATHS most walked, of at least small_cell journeys."""
    with_path: int
    other_paths: int
    """Journeys with a path that is not listed."""
    without_stop: int
    unseen_paths: int
    entries: tuple[Mix, ...]
    exits: tuple[Mix, ...]
    ways_in: Doors
    ways_out: Doors


def flows(past: Past, date: dt.date, days: int = 1) -> FlowReport:
    """Transitions, top paths, and where people come in and go out."""
    config = past.config
    scope, found = over(past, date, days)
    ids = [zone.id for zone in config.zones]
    names: list[str | None] = [*ids, None]
    least = config.thresholds.small_cell
    made = found.flows
    leaving = made.links.sum(axis=1)
    shown = (made.links > 0) & (made.link_journeys >= least)
    links = [
        Transition(names[a], names[b], int(made.links[a, b]), float(made.links[a, b] / leaving[a]))
        for a, b in np.argwhere(shown).tolist()
    ]
    links.sort(key=lambda link: (-link.n, link.from_zone or "", link.to_zone or ""))
    steps = int(made.links.sum())
    counted, with_path = paths_of(past, [date - n * DAY for n in range(days)], TOP_PATHS)
    paths = tuple(PathCount(tuple(ids[z] for z in path), n, n / with_path) for path, n in counted if n >= least)
    return FlowReport(
        scope=scope,
        between=_between(links, made.links[:-1, :-1], made.unseen),
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
    )


def _between(links: list[Transition], steps: NDArray[np.int64], unseen: int) -> ZoneFlows:
    """Of the links shown, in their order, and of all (Z, Z) steps, those between zones."""
    flows = [
        ZoneTransition(link.from_zone, link.to_zone, link.n)
        for link in links
        if link.from_zone is not None and link.to_zone is not None
    ]
    n, shown_n = int(steps.sum()), sum(flow.n for flow in flows)
    return ZoneFlows(tuple(flows), n, int((steps > 0).sum()) - len(flows), n - shown_n, unseen)


def _mix(config: StoreConfig, counts: NDArray[Any]) -> tuple[Mix, ...]:
    by_zone: dict[str, int] = defaultdict(int)
    for zone, n in zip(config.zones, counts.tolist(), strict=True):
        if n:
            by_zone[zone.id] = n
    hidden = hide(dict(by_zone), config.thresholds.small_cell)
    rows = [Mix(zone, None if zone in hidden else n) for zone, n in by_zone.items()]
    return tuple(sorted(rows, key=lambda mix: (-(mix.n or 0), mix.zone)))


def _doors(config: StoreConfig, counts: NDArray[Any]) -> Doors:
    """What `_mix` tells and no more: who sees both can work out nothing that either hides."""
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
