"""What is learnt of a store's radio, and whether it may be used: only if it explains the reads of other tags better."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dwell.layout import Layout
from dwell.markov import fit
from dwell.markov import ticks as ticks_
from dwell.markov.cells import placed
from dwell.markov.field import Field
from dwell.markov.ticks import Ticks
from dwell.read import Reads

TAGS_WANTED = 3
"""Fewer people say too little of a store's own radio; which of the usual ones is nearest, even one of them tells."""
TICKS_WANTED = 30
"""Seconds with reads: fewer can't tell one radio from another."""
HELD_OUT = 4
"""Every so manieth tag is not learnt from, but judged by."""


@dataclass(frozen=True)
class Learnt:
    """A field, and how it was found. Densities are in nats a second of a tag that was not learnt from."""

    field: Field
    tags: int
    ticks: int
    """Seconds with reads, of all tags."""
    before: float
    """Density with what was known before."""
    after: float

    @property
    def better(self) -> bool:
        """True if the field explains reads that it has not seen at least as well as what was known before."""
        return self.after >= self.before


def first(layout: Layout, reads: Reads) -> Field:
    """The best of some usual radios: all that the first minutes can tell. The prior one if there are too few reads.

    Without positions and with fewer than TAGS_WANTED tags: the usual differences between zones, at the levels heard.
    """
    ticks = ticks_.of(layout, reads)
    if not some(ticks):
        return Field.prior(layout)
    return fit.profile(layout, ticks) if enough(ticks) or placed(layout) else fit.guess(layout, ticks)


def learn(layout: Layout, reads: Reads, *, known: Field | None = None, seed: int = 0) -> Learnt:
    """Learn a store's field from its reads, without labels; `known`: what it is compared with, else `first`.

    ValueError if there are too few reads.
    """
    ticks = ticks_.of(layout, reads)
    if not enough(ticks):
        raise ValueError(
            f"too little to learn from: {len(ticks.epc)} tags in {len(ticks.tag)} seconds with reads; at least "
            f"{TICKS_WANTED} seconds are needed, of which each tag counts for {TICKS_WANTED // TAGS_WANTED} at most"
        )
    number = np.arange(len(ticks.epc))
    taught, judged = ticks.of_tags(number % HELD_OUT > 0), ticks.of_tags(number % HELD_OUT == 0)
    before = known or fit.profile(layout, taught)
    tried = fit.learn_field(layout, taught, seed=seed)
    field = fit.learn_field(layout, ticks, seed=seed)
    return Learnt(
        field, len(ticks.epc), len(ticks.tag), fit.density(layout, judged, before), fit.density(layout, judged, tried)
    )


def some(ticks: Ticks) -> bool:
    """True if there are enough seconds to choose among usual radios."""
    return len(ticks.tag) >= TICKS_WANTED


def enough(ticks: Ticks, wanted: int = TICKS_WANTED) -> bool:
    """True if there are so many seconds with reads to learn from, of each tag at most a TAGS_WANTED-th of them."""
    each = np.bincount(ticks.tag, minlength=1)
    return int(np.minimum(each, wanted // TAGS_WANTED).sum()) >= wanted
