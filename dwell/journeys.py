"""Journeys: a tag's visits from its first to its last, and the flows between zones that they add up to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwell.layout import Layout, ZoneKind
from dwell.visits import VISIT, Visits


@dataclass(frozen=True)
class Journey:
    """One tag in the store; `visits` in order of time, never overlapping."""

    epc: NDArray[np.uint64]
    """(8,) words as in READ."""
    epc_bits: int
    tag_class: int
    start_us: int
    end_us: int
    censored: bool
    """Its first or last visit is, or the recording ended before it did."""
    visits: Visits


class Journal:
    """Closed visits of journeys under way."""

    def __init__(self, layout: Layout) -> None:
        self._final = {int(z) for z in np.flatnonzero(np.isin(layout.zone_kind, (ZoneKind.ENTRANCE, ZoneKind.EXIT)))}
        self._visits: dict[bytes, list[Any]] = {}

    def closed(self, visits: Iterable[Any]) -> None:
        """Take visits that ended."""
        for visit in visits:
            self._visits.setdefault(_key(visit), []).append(visit)

    def before(self, visits: Visits) -> NDArray[np.int16]:
        """(n,) zone of the last closed visit of each one's journey; -1 if it has none."""
        last = (self._visits.get(_key(visit)) for visit in visits)
        return np.array([-1 if not there else there[-1]["zone"] for there in last], np.int16)

    def ended(self, last: Any, cut: bool) -> Journey:
        """The journey of a tag whose last visit is `last`; `cut`: by the end of the recording."""
        visits = np.array(self._visits.pop(_key(last)), VISIT)
        cut = cut and int(visits["zone"][-1]) not in self._final
        return Journey(
            epc=visits["epc"][0],
            epc_bits=int(visits["epc_bits"][0]),
            tag_class=int(visits["tag_class"][0]),
            start_us=int(visits["enter_us"][0]),
            end_us=int(visits["exit_us"][-1]),
            censored=bool(cut or visits["censored"][0] or visits["censored"][-1]),
            visits=visits,
        )

    def state(self) -> dict[str, NDArray[Any]]:
        """All of it as arrays."""
        rows = [visit for key in sorted(self._visits) for visit in self._visits[key]]
        return {"journeys.visits": np.array(rows, VISIT)}

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        """Go on from `state`."""
        self._visits = {}
        self.closed(state["journeys.visits"])


def transitions(paths: Iterable[Visits], zones: int) -> NDArray[np.int64]:
    """(zones + 1, zones + 1) how often journeys went from zone to zone; the last row is coming in, the last column
    going out. Mergeable by adding; a stay in one zone in several visits is no transition."""
    counts = np.zeros((zones + 1, zones + 1), np.int64)
    for visits in paths:
        path = visits["zone"][np.append(True, np.diff(visits["zone"]) != 0)].astype(np.int64)
        stops = np.concatenate([[zones], path, [zones]])
        np.add.at(counts, (stops[:-1], stops[1:]), 1)
    return counts


def _key(visit: Any) -> bytes:
    return bytes(visit["epc_bits"].tobytes() + visit["epc"].tobytes())
