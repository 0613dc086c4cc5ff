"""What the engine decided: visits, journeys and windows that are final."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwell.aggregates import FLOOR_WINDOW, WINDOW, Floors, Windows
from dwell.journeys import Journey
from dwell.visits import VISIT, Visits


@dataclass(frozen=True)
class Decisions:
    """What became final. Concatenated over calls, the same for the same reads."""

    opened: Visits = field(default_factory=lambda: np.zeros(0, VISIT))
    """Visits that began; exit_us, reads and confidence as of the decision."""
    closed: Visits = field(default_factory=lambda: np.zeros(0, VISIT))
    arrivals: Visits = field(default_factory=lambda: np.zeros(0, VISIT))
    """Those of `opened` with which a journey began."""
    journeys: list[Journey] = field(default_factory=list)
    stuck: Visits = field(default_factory=lambda: np.zeros(0, VISIT))
    """Tags that have rested in one zone for longer than anybody does: how far they did is no visit and in no count."""
    windows: Windows = field(default_factory=lambda: np.zeros(0, WINDOW))
    floors: Floors = field(default_factory=lambda: np.zeros(0, FLOOR_WINDOW))
    """Of the same windows."""


NOTHING = Decisions()


def join(parts: list[Decisions]) -> Decisions:
    """One after the other."""
    parts = [part for part in parts if part is not NOTHING]
    if len(parts) <= 1:
        return parts[0] if parts else NOTHING
    return Decisions(
        opened=np.concatenate([part.opened for part in parts]),
        closed=np.concatenate([part.closed for part in parts]),
        arrivals=np.concatenate([part.arrivals for part in parts]),
        journeys=[journey for part in parts for journey in part.journeys],
        stuck=np.concatenate([part.stuck for part in parts]),
        windows=np.concatenate([part.windows for part in parts]),
        floors=np.concatenate([part.floors for part in parts]),
    )


def visits_of(tags: NDArray[Any], **other: Any) -> Visits:
    """What is known of these tags as visits, with `other` columns in place of the tags' own."""
    visits = np.zeros(len(tags), VISIT)
    for name in VISIT.names or ():
        if name in other:
            visits[name] = other[name]
        elif name == "confidence":
            visits[name] = tags["sure"] / np.maximum(tags["events"], 1)
        else:
            visits[name] = tags[name]
    return visits


def by_tag(visits: Visits) -> Visits:
    """In an order that depends on the visits alone."""
    words = visits["epc"].T
    words = words[words.any(axis=1)]  # most EPCs are short, and a key of zeros costs as much as any other
    return visits[np.lexsort((visits["epc_bits"], *words[::-1], visits["enter_us"]))]
