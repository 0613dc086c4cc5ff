"""Ways from and to one zone as a tree of stops, from a read-only connection. See edge.days.counters."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from dwell.paths import Path
from edge.database.reader import Past
from edge.days.kept import around, ending
from edge.days.scope import Rate, Scope, over, rate

DEPTH = 3
"""Number of stops before and after the zone."""


@dataclass(frozen=True, slots=True)
class Branch:
    """A stop on the way, with the stops behind it; without a zone: there was no further stop."""

    zone: str | None
    n: int
    share: Rate | None
    """Share of the journeys of the branch that it grows from; None if these are too few."""
    branches: tuple[Branch, ...]
    others: int | None
    """Journeys on branches of fewer than small_cell journeys; None: there are some, but too few to be shown."""


@dataclass(frozen=True)
class Tree:
    """Where people came from before they stopped at a zone, and where they went, in the order of first stops."""

    scope: Scope
    zone: str
    n: int
    """Journeys with a stop at the zone."""
    before: Branch
    after: Branch


def tree(past: Past, date: dt.date, days: int, zone: str) -> Tree:
    """Compute the tree of a zone over the `days` business days ending with `date`."""
    config = past.config
    scope, _ = over(past, date, days)
    ids = [one.id for one in config.zones]
    before, after = around(past, ending(date, days), ids.index(zone), DEPTH)
    n, least = sum(after.values()), config.thresholds.small_cell
    return Tree(scope, zone, n, *(_branch(ids, zone, n, None, ways, least) for ways in (before, after)))


def _branch(
    ids: list[str], zone: str | None, n: int, share: Rate | None, ways: Mapping[Path, int], least: int
) -> Branch:
    """Grow a branch from the ways behind it; each way is a path with its number of journeys."""
    behind: dict[int, dict[Path, int]] = defaultdict(dict)
    for way, count in ways.items():
        if way:
            behind[way[0]][way[1:]] = count
    counts = {first: sum(rest.values()) for first, rest in behind.items()}
    shown = sorted((first for first in counts if counts[first] >= least), key=lambda first: (-counts[first], first))
    others = sum(counts.values()) - sum(counts[first] for first in shown)
    branches = tuple(
        _branch(ids, ids[at] if at >= 0 else None, counts[at], rate(counts[at], n), behind[at], least) for at in shown
    )
    return Branch(zone, n, share, branches, None if 0 < others < least else others)
