"""A store's antennas learnt from its own reads, without labels: how loud each is, and which share of the reads it gets.

Expectation and maximisation in turn. The engine says where tags were (visits); within a visit's zone each event (a few
seconds of one tag) has odds over the zone's cells, and each visit over the classes of how loud its tag is. Given these,
an antenna's offset is the mean of what it heard above the model, held back towards zero where there is little of it,
and its rate is the reads it got over those that were to be expected of it. A walk test puts its own zones in the place
of the engine's. Pure: arrays in, figures out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwell import radio
from dwell.engine import ZoneEngine
from dwell.layout import Layout, Settings, TagClass
from dwell.read import RSSI_UNKNOWN, Reads
from dwell.tuning import Tuning
from dwell.visits import Visits

ROUNDS = 3
"""Of engine and figures in turn; later ones change hundredths of a decibel."""
EVENT_US = 4_000_000
"""Reads of a tag within it are taken to come from one place."""
SAMPLE_DB = 6.0
"""Of one visit's mean level at an antenna: shadowing is frozen, so that longer visits don't make it surer."""
PRIOR_DB = 2.5
"""Between antennas, as measured (Tuning.spread_db)."""
MEASURED_DB = 6.0
"""Of a tag's levels in a place: shadowing 3.7, slow fading and the body's side 4, antennas' offsets."""
OFFSET_SHARE = 0.5
"""Of what is found that is taken to be the antenna's: the rest is the shadow of the places where people stood."""
MOST_DB = 8.0
"""An antenna that is further off has a fault that should not be calibrated away."""
RATE_READS = 200.0
"""Reads that count as much as the belief that all antennas of a place get their share."""
RATE_RANGE = (0.25, 4.0)
READS_WANTED = 50
"""Antennas with fewer reads within visits keep their figures."""
MIX = np.uint64(0xFF51AFD7ED558CCD)
"""Of EPCs to 64 bits: two tags that become one in a million years do no harm here."""
COUNT_MOST = 3
"""Reads of an event by one antenna that count; fading is frozen for so short a time."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Calibration:
    """One figure an antenna; `reads`: how many of its reads they come from."""

    offset_db: Floats
    rate: Floats
    reads: Ints

    def apply(self, layout: Layout) -> Layout:
        """The layout with these figures."""
        return replace(
            layout, antenna_offset_db=self.offset_db.astype(np.float32), antenna_rate=self.rate.astype(np.float32)
        )


@dataclass(frozen=True)
class Findings:
    """What a store's reads are like, given where the engine puts the tags; by zone of the antenna against the tag's."""

    own_dbm: Floats
    """RSSI quantiles (10, 50, 90 %) of reads by the zone's own antennas …"""
    near_dbm: Floats
    """… by those of neighbouring zones …"""
    far_dbm: Floats
    """… and by others."""
    own_share: float
    """Of reads that come from the own zone's antennas."""
    silence_s: Floats
    """Quantiles (50, 90, 99, 99.9 %) of the silences within visits."""
    silent_share: float
    """Of the time in visits that lies in silences over 10 s."""


def calibrate(
    layout: Layout,
    settings: Settings,
    reads: Reads,
    *,
    tuning: Tuning | None = None,
    walk: Visits | None = None,
    progress: Callable[[float], None] = lambda done: None,
) -> Calibration:
    """Learn from `reads` (any order within the lateness); `walk`: stays (VISIT) known to be true, of tags in `reads`.

    The layout's own calibration is where it starts from. ValueError if no tag makes a visit.
    """
    tuning = tuning or radio.usual(layout)
    antennas = len(layout.antenna_zone)
    now = Calibration(
        layout.antenna_offset_db.astype(np.float64),
        layout.antenna_rate.astype(np.float64),
        np.zeros(antennas, np.int64),
    )
    for turn in range(ROUNDS):
        there = now.apply(layout)
        visits = visits_of(there, settings, reads, tuning)
        if walk is not None:
            visits = _with_walk(visits, walk)
        if not len(visits):
            raise ValueError("no tag makes a visit in these reads")
        now = _learn(there, _measured(tuning), _Events.of(reads, visits), now)
        progress((turn + 1) / ROUNDS)
    return replace(now, offset_db=now.offset_db * OFFSET_SHARE)


def visits_of(layout: Layout, settings: Settings, reads: Reads, tuning: Tuning | None = None) -> Visits:
    """All visits that the engine makes of a recording, whose rows may be in any order."""
    engine = ZoneEngine(layout, settings, tuning)
    engine.feed(reads)
    last_us = int(reads["time_us"].max()) if len(reads) else 0
    parts = [engine.advance(last_us + settings.lateness_us).closed, engine.finish().closed]
    return np.concatenate(parts)


def likelihood(layout: Layout, settings: Settings, reads: Reads, tuning: Tuning | None = None) -> float:
    """How well a layout explains reads, whoever was where: mean log density of an event, natural logarithm."""
    tuning = tuning or radio.usual(layout)
    return _explained(layout, _measured(tuning), _Events.of(reads, visits_of(layout, settings, reads, tuning)))


def _measured(tuning: Tuning) -> Tuning:
    """Levels spread as they were measured to; in deciding, a little more makes up for what repeats itself."""
    return replace(tuning, spread_db=min(tuning.spread_db, MEASURED_DB))


def findings(layout: Layout, reads: Reads, visits: Visits) -> Findings:
    """What `reads` are like in `visits`."""
    place, reads = _placed(reads, visits)
    zone = visits["zone"][place].astype(np.int64)
    heard_in = layout.antenna_zone[reads["antenna"]]
    known = reads["rssi_cdbm"] != RSSI_UNKNOWN
    own = heard_in == zone
    near = ~own & layout.neighbours[zone, heard_in]
    level = reads["rssi_cdbm"] / 100.0
    gap_s = np.diff(reads["time_us"])[place[1:] == place[:-1]] / 1e6
    total = float(gap_s.sum())
    return Findings(
        own_dbm=_quantiles(level[known & own], (10, 50, 90)),
        near_dbm=_quantiles(level[known & near], (10, 50, 90)),
        far_dbm=_quantiles(level[known & ~own & ~near], (10, 50, 90)),
        own_share=float(own.mean()) if len(own) else 0.0,
        silence_s=_quantiles(gap_s, (50, 90, 99, 99.9)),
        silent_share=float(gap_s[gap_s > 10].sum()) / total if total else 0.0,
    )


def _quantiles(values: Floats, percent: tuple[float, ...]) -> Floats:
    return np.percentile(values, percent) if len(values) else np.full(len(percent), np.nan)


def _tags(*arrays: NDArray[Any]) -> list[Ints]:
    """Numbers of the tags in arrays with epc and epc_bits, the same in all of them."""
    mixed = []
    for a in arrays:
        key = a["epc_bits"].astype(np.uint64)
        for word in range(a["epc"].shape[1]):
            key = (key ^ a["epc"][:, word]) * MIX
            key ^= key >> np.uint64(32)
        mixed.append(key)
    _, number = np.unique(np.concatenate(mixed), return_inverse=True)
    return np.split(number.reshape(-1).astype(np.int64), np.cumsum([len(a) for a in arrays])[:-1])


def _placed(reads: Reads, visits: Visits) -> tuple[Ints, Reads]:
    """The reads within visits, by tag and time, and the number of the visit of each."""
    tag, visitor = _tags(reads, visits)
    order = np.lexsort((reads["time_us"], tag))
    reads, tag = reads[order], tag[order]
    base = min(int(reads["time_us"].min(initial=0)), int(visits["enter_us"].min(initial=0)))
    span = max(int(reads["time_us"].max(initial=0)), int(visits["exit_us"].max(initial=0))) - base + 1
    by_enter = np.lexsort((visits["enter_us"], visitor))
    starts = visitor[by_enter] * span + (visits["enter_us"][by_enter] - base)
    at = np.searchsorted(starts, tag * span + (reads["time_us"] - base), side="right") - 1
    if not len(visits):
        return np.zeros(0, np.int64), reads[:0]
    place = by_enter[np.maximum(at, 0)]
    within = (at >= 0) & (visitor[place] == tag) & (reads["time_us"] <= visits["exit_us"][place])
    return place[within], reads[within]


def _with_walk(visits: Visits, walk: Visits) -> Visits:
    """Decided visits, with those of the walker's tags replaced by what is known."""
    decided, known = _tags(visits, walk)
    return np.concatenate([visits[~np.isin(decided, known)], walk])


@dataclass(frozen=True)
class _Events:
    """What antennas heard of tags in events; observations are sorted by event, events by visit, visits by zone."""

    antenna: Ints
    reads: Ints
    level_dbm: Floats
    """(O,) mean of an observation, NaN where the reader gave none."""
    start: Ints
    """(E,) first observation of each event."""
    visit: Ints
    """(E,) rank of its visit."""
    zone: Ints
    """(E,)"""

    @staticmethod
    def of(reads: Reads, visits: Visits) -> _Events:
        """Staff stand at one place all day and would count too much."""
        customers = visits["tag_class"] != TagClass.STAFF
        visits = visits[customers] if customers.any() else visits
        place, reads = _placed(reads, visits)
        rank = np.empty(len(visits), np.int64)
        rank[np.lexsort((visits["enter_us"], visits["zone"]))] = np.arange(len(visits))
        visit = rank[place]
        order = np.lexsort((reads["antenna"], reads["time_us"] // EVENT_US, visit))
        visit, reads, place = visit[order], reads[order], place[order]
        event = np.stack([visit, reads["time_us"] // EVENT_US])
        new_event = np.append(True, (event[:, 1:] != event[:, :-1]).any(axis=0))[: len(reads)]
        new = new_event | np.append(True, reads["antenna"][1:] != reads["antenna"][:-1])[: len(reads)]
        first = np.flatnonzero(new)
        known = reads["rssi_cdbm"] != RSSI_UNKNOWN
        count, levels = (_sums(x, first) for x in (known.astype(np.float64), known * (reads["rssi_cdbm"] / 100.0)))
        with np.errstate(invalid="ignore", divide="ignore"):
            level = levels / count
        return _Events(
            antenna=reads["antenna"][first].astype(np.int64),
            reads=np.diff(np.append(first, len(reads))),
            level_dbm=level,
            start=np.flatnonzero(new_event[first]),
            visit=visit[new_event],
            zone=visits["zone"][place[new_event]].astype(np.int64),
        )

    def observations(self, events: slice) -> slice:
        """Those of a run of events."""
        ends = np.append(self.start, len(self.antenna))
        return slice(int(ends[events.start]), int(ends[events.stop]))


def _sums(values: Floats, first: Ints) -> Floats:
    return np.add.reduceat(values, first) if len(first) else np.zeros(0)


@dataclass(frozen=True)
class _Tables:
    """radio.expect's figures, dense: (B, A, C); rate 0 and level NaN out of range."""

    level: Floats
    sharp: Floats
    rate: Floats
    gain: Floats
    """dB that what is heard moves with a dB of offset: less than one where weak reads don't get through."""
    cell_zone: Ints

    @staticmethod
    def of(layout: Layout, tuning: Tuning) -> _Tables:
        known = radio.expect(layout, tuning)
        antennas, cells, biases = len(layout.antenna_zone), len(known.cell_zone), known.rate.shape[0]

        def dense(values: Floats, empty: float) -> Floats:
            table = np.full((biases, antennas, cells), empty)
            table[:, known.antenna, known.cell] = values
            return table

        return _Tables(
            level=dense(known.level, np.nan),
            sharp=dense(known.sharp, np.nan),
            rate=dense(known.rate, 0.0),
            gain=dense(-np.gradient(known.level, tuning.bias_step_db, axis=0), 0.0),
            cell_zone=known.cell_zone,
        )

    def odds(self, events: _Events, run: slice, cells: Ints, tuning: Tuning) -> Floats:
        """(B, E, cells) log density of a run of events, given class of bias and cell."""
        seen = events.observations(run)
        antenna, level = events.antenna[seen], events.level_dbm[seen, None]
        weight = np.minimum(events.reads[seen], COUNT_MOST)[:, None].astype(np.float64)
        first = events.start[run] - seen.start
        result = np.empty((len(self.rate), len(first), len(cells)))
        for b in range(len(self.rate)):
            rate, sharp = self.rate[b][:, cells], self.sharp[b][:, cells][antenna]
            share = np.log(np.maximum(rate / (rate.sum(axis=0) + 1e-3), np.exp(tuning.unheard_nats)))[antenna]
            q = ((level - self.level[b][:, cells][antenna]) * sharp) ** 2
            fit = np.log(sharp) - 0.5 * tuning.tail * q / (q + tuning.tail)
            worst = -0.5 * tuning.tail - np.log(tuning.spread_db)
            fit = np.where(np.isnan(level), 0.0, np.where(np.isnan(fit), worst, fit))
            result[b] = np.add.reduceat(weight * share + fit, first, axis=0)
        return result


def _runs(keys: Ints) -> list[slice]:
    """Runs of equal keys."""
    cuts = [0, *(np.flatnonzero(keys[1:] != keys[:-1]) + 1).tolist(), len(keys)]
    return [slice(a, b) for a, b in pairwise(cuts) if b > a]


def _spread(odds: Floats, visit: Ints, prior: Floats) -> tuple[Floats, Floats]:
    """(B, E, C) odds of class and cell, the class being one for a visit; (visits,) log density of each."""
    top = odds.max(axis=2, keepdims=True)
    cell = np.exp(odds - top)
    sums = cell.sum(axis=2, keepdims=True)
    event = (top + np.log(sums))[:, :, 0] - np.log(odds.shape[2])
    first = np.array([run.start for run in _runs(visit)])
    by_visit = np.add.reduceat(event, first, axis=1) + prior[:, None]
    best = by_visit.max(axis=0)
    class_ = np.exp(by_visit - best)
    density = best + np.log(class_.sum(axis=0))
    class_ /= class_.sum(axis=0)
    each = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(visit))))
    return class_[:, each, None] * cell / sums, density


def _prior(tuning: Tuning) -> Floats:
    """Log odds of the classes of bias, about the tags that the engine expects."""
    db = tuning.bias_max_db - tuning.bias_step_db * np.arange(tuning.biases)
    odds = -0.5 * ((db - tuning.bias_start_db) / tuning.spread_db) ** 2
    return np.asarray(odds - np.log(np.exp(odds).sum()))


def _learn(layout: Layout, tuning: Tuning, events: _Events, now: Calibration) -> Calibration:
    """One step of maximisation."""
    antennas = len(layout.antenna_zone)
    tables = _Tables.of(layout, tuning)
    prior = _prior(tuning)
    got, due = np.zeros(antennas), np.zeros(antennas)
    slope, curve = np.zeros(antennas), np.zeros(antennas)
    for run in _runs(events.zone):
        cells = np.flatnonzero(tables.cell_zone == events.zone[run.start])
        if not len(cells):
            continue
        odds, _ = _spread(tables.odds(events, run, cells, tuning), events.visit[run], prior)
        seen = events.observations(run)
        antenna, level = events.antenna[seen], events.level_dbm[seen]
        each = np.repeat(np.arange(odds.shape[1]), np.diff(np.append(events.start[run], seen.stop)))
        weight = np.minimum(events.reads[seen], COUNT_MOST).astype(np.float64)
        expected, gain, reach = np.zeros((3, len(antenna)))
        of_event = np.bincount(each, weight, minlength=odds.shape[1])
        for b in range(len(prior)):
            rate, mean = tables.rate[b][:, cells], tables.level[b][:, cells]
            due += ((of_event @ odds[b]) * (rate / (rate.sum(axis=0) + 1e-3))).sum(axis=1)
            there = odds[b][each] * np.isfinite(mean)[antenna]
            expected += (there * np.nan_to_num(mean)[antenna]).sum(axis=1)
            gain += (there * tables.gain[b][:, cells][antenna]).sum(axis=1)
            reach += there.sum(axis=1)
        np.add.at(got, antenna, weight)
        fits = np.isfinite(level) & (reach > 0.5)
        visit = events.visit[run][each][fits]
        off, gain = level[fits] - expected[fits] / reach[fits], gain[fits] / reach[fits]
        pair, each_pair, n = np.unique(visit * antennas + antenna[fits], return_inverse=True, return_counts=True)
        np.add.at(slope, pair % antennas, np.bincount(each_pair, gain * off) / n)
        np.add.at(curve, pair % antennas, np.bincount(each_pair, gain * gain) / n)
    prior_samples = (SAMPLE_DB / PRIOR_DB) ** 2
    step = (slope - prior_samples * now.offset_db) / (curve + prior_samples)
    offset = np.clip(now.offset_db + step, -MOST_DB, MOST_DB)
    ratio = (got + RATE_READS) / (due + RATE_READS)
    rate = np.clip(now.rate * ratio, *RATE_RANGE)
    known = got >= READS_WANTED
    if known.any():  # what all antennas have in common is the tags' matter: the engine follows it tag by tag
        offset = offset - np.average(offset[known], weights=got[known])
    offset, rate = np.where(known, offset, now.offset_db), np.where(known, rate, now.rate)
    return Calibration(offset, rate / np.median(rate), got.astype(np.int64))


def _explained(layout: Layout, tuning: Tuning, events: _Events) -> float:
    tables = _Tables.of(layout, tuning)
    prior = _prior(tuning)
    total, n = 0.0, 0
    for run in _runs(events.zone):
        cells = np.flatnonzero(tables.cell_zone == events.zone[run.start])
        if len(cells):
            _, density = _spread(tables.odds(events, run, cells, tuning), events.visit[run], prior)
            total, n = total + float(density.sum()), n + run.stop - run.start
    return total / max(n, 1)
