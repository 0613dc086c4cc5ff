"""Summarise repeated changes: a link that fails every two seconds would be 80,000 events and log lines a day."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

SINGLY = 6
"""This many changes of a kind are reported one by one …"""
TOGETHER_S = 600.0
"""… within this many seconds; further ones are summarised at the end …"""
CALM_S = 60.0
"""… or once nothing has changed for this long."""


@dataclass(frozen=True)
class Pace:
    """How much is told of a subject."""

    singly: int = SINGLY
    together_s: float = TOGETHER_S
    calm_s: float = CALM_S


JOURNAL = Pace(singly=8, together_s=7200, calm_s=900)
"""Of the log, which people read: a hundred lines a day of a subject at most, and twenty if it changes all the time."""


@dataclass
class _Run(Generic[T]):
    since_s: float
    left: int
    changed_s: float = 0.0
    newest: T | None = None
    kept: int = 0


class Flapping(Generic[T]):
    """Changes by subject; the newest stands for those held back. Times are the loop's."""

    def __init__(self, pace: Pace | None = None) -> None:
        self._pace = pace or Pace()
        self._runs: dict[Hashable, _Run[T]] = {}

    def now(self, of: Hashable, change: T, now_s: float) -> bool:
        """Return whether to report a change now; otherwise `due` returns it later."""
        run = self._runs.setdefault(of, _Run(now_s, self._pace.singly))
        if run.left:
            run.left -= 1
            return True
        run.newest, run.changed_s = change, now_s
        run.kept += 1
        return False

    def due(self, now_s: float, *, all_: bool = False) -> Iterator[tuple[T, int]]:
        """Return the changes to report now, and how many each stands for; `all_`: including those held back."""
        for of, run in list(self._runs.items()):
            over = now_s - run.since_s >= self._pace.together_s
            if run.newest is not None and (over or all_ or now_s - run.changed_s >= self._pace.calm_s):
                yield run.newest, run.kept
                # Who goes on like that is told of but once in each such time.
                self._runs[of] = _Run(now_s, 0)
            elif over:
                del self._runs[of]
