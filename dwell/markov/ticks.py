"""Reads as seconds of tags: which antennas heard each tag in a second, how loud and how often, and which were down.

Silence is evidence only of antennas that work. One that hears nobody, for longer than the tags that its neighbours hear
meanwhile allow, is taken to have been down.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwell.layout import Layout, TagClass
from dwell.markov.tuning import TICK_US
from dwell.read import RSSI_UNKNOWN, Reads, hashed, whole

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

TOGETHER = 10
"""Seconds in which two antennas heard the same tag that make them neighbours."""
SILENT_TICKS = 10
"""Shorter silences of an antenna aren't looked at."""
BLOCK_TICKS = 60
"""Of one tag in so long a time …"""
BLOCK_READS = 1.5
"""… no more seconds than this count: a body may be in between all the while."""
DOWN_READS = 6.0
"""Seconds with reads that an antenna must have missed to be down …"""
DOWN_TIMES = 12.0
"""… and so many times more than in its silences' median: people aren't always where it hears them."""


@dataclass(frozen=True)
class Ticks:
    """N seconds of tags with reads in them, by tag and time; O observations, each of one antenna in one such second."""

    tag: NDArray[np.int64]
    """(N,) number of the tag."""
    tick: NDArray[np.int64]
    """(N,) seconds of UTC (TICK_US)."""
    start: NDArray[np.int64]
    """(N + 1,) first observation of each."""
    antenna: NDArray[np.int64]
    """(O,)"""
    level_dbm: NDArray[np.float64]
    """(O,) mean RSSI, NaN where the reader gave none."""
    reads: NDArray[np.int64]
    """(O,)"""
    heard: NDArray[np.int64]
    """(O,) seconds in which the antenna has heard the tag: 1, unless ticks are wider."""
    epc: NDArray[np.uint64]
    """(tags, 8) words as in READ."""
    epc_bits: NDArray[np.uint16]
    """(tags,)"""
    down: NDArray[np.int64]
    """(D, 3) antenna, first tick and the tick after the last in which it was down."""

    def of_tags(self, wanted: NDArray[np.bool_]) -> Ticks:
        """Only some tags, which keep their numbers."""
        kept = wanted[self.tag]
        seen = np.repeat(kept, np.diff(self.start))
        start = np.concatenate([[0], np.cumsum(np.diff(self.start)[kept])])
        return replace(
            self,
            tag=self.tag[kept],
            tick=self.tick[kept],
            start=start,
            antenna=self.antenna[seen],
            level_dbm=self.level_dbm[seen],
            reads=self.reads[seen],
            heard=self.heard[seen],
        )

    def wider(self, seconds: int) -> Ticks:
        """In ticks of several seconds; an antenna that was down in one of them was down in all."""
        row = np.repeat(np.arange(len(self.tick)), np.diff(self.start))
        made = _gathered_rows(
            self.tag[row], self.tick[row] // seconds, self.antenna, self.level_dbm, self.reads, self.heard
        )
        down = np.column_stack([self.down[:, 0], self.down[:, 1] // seconds, -(-self.down[:, 2] // seconds)])
        return replace(self, **made, down=down.reshape(-1, 3))


def of(layout: Layout, reads: Reads, *, down: Ints | None = None) -> Ticks:
    """From reads in any order; goods and reads of antennas that the layout doesn't know are left out.

    `down`: (D, 3) as in Ticks, of antennas known to have been down, in addition to those that are found.
    """
    known = reads["antenna"] < len(layout.antenna_zone)
    known[known] = layout.antenna_zone[reads["antenna"][known]] >= 0
    every = _gathered(reads[known])
    silent = outages(every, len(layout.antenna_zone))
    if down is not None:
        silent = np.concatenate([silent, down])
    goods = classes(layout, every.epc) == TagClass.MERCHANDISE
    return replace(every.of_tags(~goods), down=silent)


def classes(layout: Layout, epc: NDArray[np.uint64]) -> NDArray[np.int64]:
    """(n,) TagClass of EPCs given as READ's words, by the first rule that matches; (n, 8), or less without zeros."""
    words = epc.shape[1]
    found = np.full(len(epc), TagClass.UNKNOWN, np.int64)
    for mask, value, class_ in zip(
        layout.rule_mask[::-1], layout.rule_value[::-1], layout.rule_class[::-1], strict=True
    ):
        if not value[words:].any():
            found[((epc & mask[:words]) == value[:words]).all(axis=1)] = class_
    return found


def outages(ticks: Ticks, antennas: int) -> Ints:
    """(D, 3) antenna, first tick and the tick after the last of silences that only an antenna's being down explains.

    How often an antenna hears a tag that another one hears is known from all seconds; over a silence that tells how
    many it should have heard.
    """
    if not len(ticks.tick):
        return np.zeros((0, 3), np.int64)
    row = np.repeat(np.arange(len(ticks.tick)), np.diff(ticks.start))
    begin, end = int(ticks.tick.min()), int(ticks.tick.max()) + 1
    heard = np.bincount(ticks.antenna, minlength=antennas)
    by_antenna = np.argsort(ticks.antenna, kind="stable")
    first = np.concatenate([[0], np.cumsum(heard)])
    block = ticks.tag * ((end - begin) // BLOCK_TICKS + 1) + (ticks.tick - begin) // BLOCK_TICKS
    found: list[tuple[int, int, int]] = []
    for a in range(antennas):
        mine = row[by_antenna[first[a] : first[a + 1]]]
        if not len(mine):
            found.append((a, begin, end))
            continue
        at = np.unique(ticks.tick[mine])
        gaps = np.diff(np.concatenate([[begin - 1], at, [end]])) > SILENT_TICKS
        edges = np.stack([np.concatenate([[begin], at + 1]), np.concatenate([at, [end]])], axis=1)[gaps]
        if not len(edges):
            continue
        together = _together(ticks, mine, antennas)
        others = np.flatnonzero((together >= TOGETHER) & (np.arange(antennas) != a))
        if not len(others):
            continue
        due = np.zeros(len(ticks.tick))
        for b in others:
            theirs = row[by_antenna[first[b] : first[b + 1]]]
            up = ~_within(ticks.tick[theirs], edges)
            due[theirs] = np.maximum(due[theirs], together[b] / max(int(up.sum()), int(together[b])))
        inside = np.flatnonzero(_within(ticks.tick, edges) & (due > 0))
        gap = np.searchsorted(edges[:, 0], ticks.tick[inside], side="right") - 1
        pair, place = np.unique(np.stack([gap, block[inside]]), axis=1, return_inverse=True)
        missed = np.minimum(np.bincount(place.reshape(-1), due[inside]), BLOCK_READS)
        total = np.bincount(pair[0], missed, minlength=len(edges))
        rest = np.sort(total)[:-1]  # or an outage that is the only silence would be its own measure
        most = max(DOWN_READS, DOWN_TIMES * float(np.median(rest)) if len(rest) else 0.0)
        found += [(a, int(edges[g, 0]), int(edges[g, 1])) for g in np.flatnonzero(total >= most)]
    return np.array(found, np.int64).reshape(-1, 3)


def _together(ticks: Ticks, rows: Ints, antennas: int) -> Ints:
    """(antennas,) in how many of some rows each antenna has heard the tag."""
    length = ticks.start[rows + 1] - ticks.start[rows]
    at = np.repeat(ticks.start[rows] - np.cumsum(length) + length, length) + np.arange(int(length.sum()))
    return np.bincount(ticks.antenna[at], minlength=antennas)


def _within(tick: Ints, edges: Ints) -> NDArray[np.bool_]:
    """Which ticks lie in one of some spans, which are in order and don't overlap."""
    at = np.searchsorted(edges[:, 0], tick, side="right") - 1
    return np.asarray((at >= 0) & (tick < edges[np.maximum(at, 0), 1]))


def _gathered(reads: Reads) -> Ticks:
    tag, epc, bits = _numbered(reads)
    known = reads["rssi_cdbm"] != RSSI_UNKNOWN
    level = np.where(known, reads["rssi_cdbm"] / 100.0, np.nan)
    count = np.maximum(reads["count"].astype(np.int64), 1)
    antenna, tick = reads["antenna"].astype(np.int64), reads["time_us"] // TICK_US
    made = _gathered_rows(tag, tick, antenna, level, count, np.ones(0, np.int64))
    return Ticks(**made, epc=epc, epc_bits=bits, down=np.zeros((0, 3), np.int64))


def _gathered_rows(
    tag: Ints, tick: Ints, antenna: Ints, level: Floats, count: Ints, heard: Ints
) -> dict[str, NDArray[Any]]:
    """Columns of Ticks: rows of the same tag, tick and antenna taken together; without `heard` as one second."""
    order = np.lexsort((antenna, tick, tag))
    tag, tick, antenna, count = tag[order], tick[order], antenna[order], count[order]
    known = np.isfinite(level[order])
    level = np.where(known, level[order], 0.0)
    new_row = np.append(True, (tag[1:] != tag[:-1]) | (tick[1:] != tick[:-1]))[: len(tag)]
    new = new_row | np.append(True, antenna[1:] != antenna[:-1])[: len(tag)]
    first, rows = np.flatnonzero(new), np.flatnonzero(new_row)
    of = np.cumsum(new) - 1
    weight = np.bincount(of, known * count, minlength=len(first))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(of, level * known * count, minlength=len(first)) / weight
    seconds = np.bincount(of, heard[order], minlength=len(first)) if len(heard) else np.ones(len(first))
    return {
        "tag": tag[rows],
        "tick": tick[rows],
        "start": np.append(np.searchsorted(first, rows), len(first)).astype(np.int64),
        "antenna": antenna[first],
        "level_dbm": mean,
        "reads": np.bincount(of, count, minlength=len(first)).astype(np.int64),
        "heard": seconds.astype(np.int64),
    }


def _numbered(reads: Reads) -> tuple[Ints, NDArray[Any], NDArray[Any]]:
    """Number of each read's tag, by the tags' EPCs in ascending order; the tags' EPCs and their lengths."""
    _, first, number = np.unique(hashed(reads), return_index=True, return_inverse=True)
    epc, bits = whole(reads[first])["epc"], reads["epc_bits"][first]
    order = np.lexsort((bits, *epc.T[::-1]))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[number.reshape(-1)], epc[order], bits[order]
