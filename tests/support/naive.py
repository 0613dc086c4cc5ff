"""A plain twin of dwell.kernels: the same mathematics on dicts and lists, one tag after the other, nothing pruned or
packed for speed that isn't part of the definition. Slow; only for comparison.

It takes the same tables (dwell.radio) and is otherwise independent of the kernels.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dwell import kernels, lifecycle, tables
from dwell.lifecycle import Event, State

Pair = tuple[float, float]
"""Standing in a cell, and walking in it."""
NONE = -1
HOUR_LATER = 10**18
Row = tuple[int, int, int, int]


@dataclass
class Heard:
    """One event: what a tag's reads of one tick led to."""

    first_us: int
    last_us: int
    reads: int
    ticks: int
    """Since the event before."""
    probs: dict[int, Pair]
    """Of each cell in question, in steps of its logarithm."""


@dataclass
class Tag:
    """A tag's life."""

    epc: tuple[int, ...]
    bits: int
    tag_class: int
    bias: float
    last_tick: int
    state: State = State.CANDIDATE
    probs: dict[int, Pair] = field(default_factory=dict)
    """Of each cell in question."""
    live_zone: int = NONE
    live_us: int = -1
    events: list[Heard] = field(default_factory=list)
    ticks: int = 0
    last_us: int = -1
    journey_us: int = -1
    zone: int = NONE
    last_zone: int = NONE
    enter_us: int = -1
    last_in_us: int = -1
    exit_us: int = -1
    elsewhere: bool = False
    moved: int = 0
    censored: bool = False
    sure: list[float] = field(default_factory=list)
    reads: int = 0


def remembered(prob: float) -> float:
    """As undecided events keep it."""
    return math.exp(-min(math.floor(0.5 - kernels.LOGS * math.log(prob)), 255) / kernels.LOGS)


class Naive:
    """All of one recording at once: `run` gives what the kernels give as OUT rows, as tuples sorted the same way."""

    def __init__(self, radio: tables.Radio, limits: tables.Limits) -> None:
        self.radio, self.limits = radio, limits
        antennas = range(len(radio.antenna_zone))
        self.table = {a: [(int(radio.cell[e]), e) for e in range(radio.row[a], radio.row[a + 1])] for a in antennas}
        self.up = set(antennas)
        self.down: dict[int, list[list[int]]] = defaultdict(list)
        self.out: list[tuple[Any, ...]] = []
        self.duplicates = self.merchandise = 0
        self.normalise()

    # Outages.

    def switch(self, antennas: list[int], up: bool, at_us: int) -> None:
        """Antennas go up or down; a zone is unknown while none of its antennas is up."""
        self.up = self.up | set(antennas) if up else self.up - set(antennas)
        alive = {int(self.radio.antenna_zone[a]) for a in self.up}
        for zone in range(len(self.radio.brief)):
            times = self.down[zone]
            unknown = bool(times) and times[-1][1] == HOUR_LATER
            if zone not in alive and not unknown:
                times.append([at_us, HOUR_LATER])
            elif zone in alive and unknown:
                times[-1][1] = at_us
        self.normalise()

    def normalise(self) -> None:
        """Log of each cell's summed rate over the antennas that are up, by bias class."""
        total: list[dict[int, float]] = [defaultdict(lambda: 1e-3) for _ in range(self.limits.biases)]
        for a in sorted(self.up):
            for cell, e in self.table[a]:
                for b in range(self.limits.biases):
                    total[b][cell] += float(self.radio.rate[b, e])
        self.norm = [defaultdict(lambda: math.log(1e-3), {c: math.log(x) for c, x in t.items()}) for t in total]

    def unknown_us(self, zone: int, from_us: int, to_us: int) -> int:
        """How long the zone was unknown within a time."""
        return sum(max(0, min(to_us, b) - max(from_us, a)) for a, b in self.down[zone][-kernels.DOWNS :])

    # Evidence.

    def classify(self, epc: tuple[int, ...]) -> int:
        """Class of the first rule that matches."""
        rules = zip(self.radio.rule_mask, self.radio.rule_value, self.radio.rule_class, strict=True)
        for mask, value, tag_class in rules:
            if all(w & int(m) == int(v) for w, m, v in zip(epc, mask, value, strict=True)):
                return int(tag_class)
        return 0

    def weigh(self, tag: Tag, reads: list[Row]) -> tuple[dict[int, float], dict[int, float]]:
        """Score of each cell in range, and the antennas' mean levels; reads: antenna, time, RSSI, count."""
        limits = self.limits
        b = self.bias_class(tag)
        scores: dict[int, float] = {}
        levels: dict[int, float] = {}
        for antenna in sorted({read[0] for read in reads}):
            mine = [read for read in reads if read[0] == antenna]
            known = [read[2] / 100.0 for read in mine if read[2] != -32768]
            again = float(np.float32(min(1.0 + limits.repeat_weight * (len(mine) - 1), limits.repeat_most)))
            if known:
                levels[antenna] = sum(known) / len(known)
            for cell, e in self.table[antenna]:
                share = math.log(float(self.radio.rate[b, e])) - self.norm[b][cell] - limits.unheard_nats
                score = again * limits.share_weight * max(share, kernels.LEAST_NATS)
                if known:
                    heard = math.floor((levels[antenna] - limits.loud_dbm) / limits.loud_step_db + 0.5)
                    expected = int(self.radio.step[e]) - b * limits.bias_steps
                    score += float(self.radio.fit[min(max(heard, 0), kernels.LOUD - 1), expected])
                scores[cell] = scores.get(cell, 0.0) + score
        return {cell: score + float(self.radio.none[cell]) for cell, score in scores.items()}, levels

    def bias_class(self, tag: Tag) -> int:
        """Row of the radio tables for a tag's bias."""
        b = math.floor((self.limits.bias_max_db - tag.bias) / self.limits.bias_step_db + 0.5)
        return min(max(b, 0), self.limits.biases - 1)

    # The filter.

    def hear(self, tag: Tag, reads: list[Row], tick: int) -> None:
        """One event."""
        limits = self.limits
        tag.last_us = max(read[1] for read in reads)
        scores, levels = self.weigh(tag, reads)
        top = max(scores.values(), default=-math.inf)
        width = limits.beam_nats
        while sum(score >= top - width for score in scores.values()) > kernels.WIDE and width * 0.7 >= 1e-3:
            width *= 0.7
        new = dict([(cell, score) for cell, score in scores.items() if score >= top - width][: kernels.WIDE])
        for cell in tag.probs:
            new.setdefault(cell, scores.get(cell, 0.0))
        if not new:
            return
        top = max(new.values())
        ticks = tick - tag.last_tick
        probs: dict[int, Pair] = {}
        for cell, score in new.items():
            before = (0.5, 0.5)
            if tag.probs:
                ways = [(p, self.passage(ticks, a, cell)) for a, p in tag.probs.items()]
                before = tuple(sum(p[0] * way[0][m] + p[1] * way[1][m] for p, way in ways) for m in (0, 1))  # type: ignore[assignment]
            evidence = math.exp(limits.temper * (score - top))
            probs[cell] = (before[0] * evidence, before[1] * evidence)
        kept = sorted(probs.items(), key=lambda item: (-sum(item[1]), item[0]))
        kept = [(cell, p) for cell, p in kept if sum(p) >= sum(kept[0][1]) * limits.least][: kernels.BEAM]
        total = sum(sum(p) for _, p in kept)
        exact = {cell: (p[0] / total, p[1] / total) for cell, p in kept}
        tag.probs = {cell: (float(np.float32(p[0])), float(np.float32(p[1]))) for cell, p in exact.items()}
        first_us = min(read[1] for read in reads)
        kept_now = {cell: (remembered(p[0]), remembered(p[1])) for cell, p in exact.items()}
        tag.events.append(Heard(first_us, tag.last_us, len(reads), ticks, kept_now))
        tag.last_tick = tick
        tag.ticks += 1
        likeliest = kept[0][0]
        zone = int(self.radio.cell_zone[likeliest])
        share = sum(sum(p) for cell, p in tag.probs.items() if self.radio.cell_zone[cell] == zone)
        if zone != tag.live_zone and share >= limits.live_share:
            tag.live_zone, tag.live_us = zone, first_us
        self.follow_bias(tag, likeliest, levels)

    def follow_bias(self, tag: Tag, cell: int, levels: dict[int, float]) -> None:
        """Move the tag's bias towards what its likeliest cell leaves unexplained."""
        limits = self.limits
        shift = self.bias_class(tag) * limits.bias_steps
        entries = [(level, e) for a, level in levels.items() for c, e in self.table[a] if c == cell]
        off = [level - float(self.radio.mean[int(self.radio.step[e]) - shift]) for level, e in entries]
        if off:
            low = limits.bias_max_db - limits.bias_step_db * (limits.biases - 1)
            tag.bias = min(max(tag.bias + limits.bias_weight * sum(off) / len(off), low), limits.bias_max_db)

    def passage(self, ticks: int, a: int, b: int) -> tuple[Pair, Pair]:
        """Probability of standing and of walking in b, having stood or having walked in a, so many ticks before."""
        radio, limits = self.radio, self.limits
        gap = radio.gap_bin[min(ticks, len(radio.gap_bin) - 1)]
        at = (int(radio.cell_kind[a]) * limits.gaps + gap) * limits.metres + int(radio.apart[a, b])
        kept, left, stopped, went = (float(x) for x in radio.way[at])
        if a == b:
            return (kept, left), (stopped * float(radio.stop[b]), went)
        stand_at, walk_to = float(radio.stand_at[b]), float(radio.walk_to[b])
        return (kept * stand_at, left * walk_to), (stopped * stand_at, went * walk_to)

    def decide(self, tag: Tag, upto_us: int, tick: int) -> None:
        """Decide the events up to a time, smoothed by all events that followed."""
        smoothed: list[dict[int, Pair]] = []
        for i in range(len(tag.events) - 1, -1, -1):
            event = tag.events[i]
            if not smoothed:
                smoothed.insert(0, dict(event.probs))
                continue
            before = {cell: [0.0, 0.0] for cell in event.probs}
            for target, weights in smoothed[0].items():
                if sum(weights) < self.limits.slight:
                    continue
                ways = {a: self.passage(tag.events[i + 1].ticks, a, target) for a in event.probs}
                for m in (0, 1):
                    came = {a: [p[k] * ways[a][k][m] for k in (0, 1)] for a, p in event.probs.items()}
                    total = sum(sum(x) for x in came.values())
                    for a, x in came.items():
                        for k in (0, 1):
                            before[a][k] += x[k] * weights[m] / total
            smoothed.insert(0, {a: (x[0], x[1]) for a, x in before.items()})
        count = sum(event.last_us <= upto_us for event in tag.events)
        for event, probs in zip(tag.events[:count], smoothed[:count], strict=True):
            zones: dict[int, float] = {}
            for cell, p in probs.items():
                zone = int(self.radio.cell_zone[cell])
                zones[zone] = zones.get(zone, 0.0) + sum(p)
            best = max(zones, key=lambda zone: zones[zone])
            if tag.ticks > 1:
                self.place(tag, best, zones[best] / sum(zones.values()), event, tick)
        tag.events = tag.events[count:]

    # Visits.

    def step(self, tag: Tag, event: Event) -> None:
        """KeyError if the event can't happen in the tag's state."""
        tag.state = lifecycle.TABLE[tag.state][event]

    def place(self, tag: Tag, zone: int, sure: float, event: Heard, tick: int) -> None:
        """Put one decided event into the tag's visits."""
        limits = self.limits
        enter_us = event.first_us - limits.allow_us
        if tag.state is State.STUCK:
            tag.moved = tag.moved + 1 if zone not in (NONE, tag.last_zone) else 0
            if tag.moved < kernels.MOVED:
                return
        if tag.zone != NONE:
            gap = event.first_us - tag.last_in_us - self.unknown_us(tag.zone, tag.last_in_us, event.first_us)
            if zone == NONE:
                tag.elsewhere = True
                if gap > limits.join_gap_us:
                    self.close(tag, None, False, tick)
                return
            if zone == tag.zone and gap <= (limits.join_gap_us if tag.elsewhere else limits.hold_us):
                tag.last_in_us, tag.elsewhere = event.last_us, False
                tag.sure.append(sure)
                tag.reads += event.reads
                long = event.last_us - tag.enter_us >= limits.visit_us
                self.step(tag, Event.STAYED if long else Event.CONFIRMED)
                if event.last_us - tag.enter_us >= self.radio.rest_us[tag.tag_class]:
                    self.rest(tag, tick)
                return
            other = tag.zone
            self.close(tag, event.first_us, False, tick, zone)
            if not tag.elsewhere:
                enter_us = event.first_us - self.fill_us(gap, zone, other)
        elif zone == NONE:
            return
        tag.zone = tag.last_zone = zone
        tag.enter_us = max(enter_us, tag.exit_us)
        tag.last_in_us, tag.elsewhere = event.last_us, False
        tag.sure, tag.reads = [sure], event.reads
        tag.censored = self.unknown_us(zone, tag.enter_us - limits.join_gap_us, tag.enter_us) > 0
        if tag.journey_us < 0:
            tag.journey_us = tag.enter_us
        self.step(tag, Event.PLACED)
        self.emit(tag, kernels.OPENED, tag.last_in_us, tick)

    def rest(self, tag: Tag, tick: int) -> None:
        """A visit longer than anybody's is none, and the journey ended with the one before."""
        tag.exit_us = tag.last_in_us
        self.emit(tag, kernels.STUCK, tag.exit_us, tick)
        if tag.journey_us < tag.enter_us:
            self.emit(tag, kernels.ENDED, tag.exit_us, tick)
        tag.journey_us, tag.zone, tag.moved = -1, NONE, 0
        self.step(tag, Event.RESTED)

    def fill_us(self, gap_us: int, zone: int, other: int) -> int:
        """What a zone gets of the silence between it and another one."""
        stay_s = self.radio.stay_s
        share = float(stay_s[zone]) / (float(stay_s[zone]) + float(stay_s[other]))
        return min(max(self.limits.allow_us, int((gap_us - self.limits.walk_us) * share)), self.limits.fill_us)

    def close(self, tag: Tag, next_us: int | None, cut: bool, tick: int, next_zone: int = NONE) -> None:
        """End the open visit; `next_us`: first read in the next zone; `cut`: its end was not seen."""
        limits = self.limits
        exit_us = tag.last_in_us + (0 if cut else limits.allow_us)
        if next_us is not None:
            gap = next_us - tag.last_in_us
            most = gap // 2
            if not tag.elsewhere:
                exit_us = tag.last_in_us + self.fill_us(gap, tag.zone, next_zone)
                most = max(most, gap - self.fill_us(gap, next_zone, tag.zone))
            exit_us = min(exit_us, tag.last_in_us + most)
        until = tag.last_in_us + limits.join_gap_us
        until = until if next_us is None else min(next_us, until)
        if cut or self.unknown_us(tag.zone, tag.last_in_us, until) > 0:
            tag.censored = True
        tag.exit_us = exit_us
        self.emit(tag, kernels.CLOSED, exit_us, tick)
        tag.zone = NONE
        self.step(tag, Event.CLOSED)

    def emit(self, tag: Tag, kind: int, exit_us: int, tick: int) -> None:
        """Write down a decision."""
        confidence = sum(tag.sure) / len(tag.sure)
        visit = (tag.zone, tag.enter_us, exit_us, tag.journey_us, tag.reads, tag.censored, tag.tag_class, confidence)
        self.out.append((tick, tag.epc, tag.bits, kind, *visit))

    def look(self, tag: Tag, tick: int) -> bool:
        """What time alone does to a tag, looked at in every tick; True when it is gone."""
        limits = self.limits
        now_us = (tick + 1) * limits.tick_us
        if tag.events:
            if tag.events[0].last_us // limits.tick_us + limits.lag_ticks + limits.batch_ticks > tick:
                return False
            self.decide(tag, (tick - limits.lag_ticks + 1) * limits.tick_us - 1, tick)
            if tag.events:
                return False
        silent_us = now_us - tag.last_us
        if tag.zone != NONE:
            out_us = now_us - tag.last_in_us
            known_us = out_us - self.unknown_us(tag.zone, tag.last_in_us, now_us)
            if known_us < limits.hold_us and silent_us < limits.end_silence_us:
                if out_us >= limits.join_gap_us:
                    self.step(tag, Event.FADED)
                return False
            self.close(tag, None, False, tick)
        patience_us = limits.end_silence_us if tag.state is State.STUCK else limits.forget_us
        if tag.journey_us >= 0:
            brief = tag.last_zone != NONE and bool(self.radio.brief[tag.last_zone])
            patience_us = limits.end_after_exit_us if brief else limits.end_silence_us
        if silent_us < patience_us:
            return False
        self.end(tag, tick)
        return True

    def end(self, tag: Tag, tick: int) -> None:
        """The tag's life ends."""
        if tag.journey_us >= 0:
            self.emit(tag, kernels.ENDED, tag.exit_us, tick)
        self.step(tag, Event.ENDED)

    def run(
        self, reads: np.ndarray[Any, Any], outages: list[tuple[int, list[int], bool]], end_us: int
    ) -> list[tuple[Any, ...]]:
        """Weigh all reads and outages (at_us, antennas, up), end the recording at `end_us`."""
        tick_us = self.limits.tick_us
        by_tick: dict[int, dict[tuple[Any, ...], set[tuple[int, int, int, int]]]] = defaultdict(
            lambda: defaultdict(set)
        )
        for read in reads:
            key = (tuple(int(w) for w in read["epc"]), int(read["epc_bits"]))
            if self.classify(key[0]) == kernels.MERCHANDISE_CLASS:
                self.merchandise += 1
                continue
            row = (int(read["antenna"]), int(read["time_us"]), int(read["rssi_cdbm"]), min(int(read["count"]), 4095))
            mine = by_tick[row[1] // tick_us][key]
            self.duplicates += row in mine
            mine.add(row)
        tags: dict[tuple[Any, ...], Tag] = {}
        waiting = sorted(outages, key=lambda outage: outage[0])
        first = min([*by_tick, *(at_us // tick_us for at_us, _, _ in waiting)], default=0)
        last = end_us // tick_us
        for tick in range(first, last + 1):
            while waiting and waiting[0][0] // tick_us <= tick:
                at_us, antennas, up = waiting.pop(0)
                self.switch(antennas, up, at_us)
            for key, rows in by_tick.get(tick, {}).items():
                if key not in tags:
                    epc, bits = key
                    tags[key] = Tag(epc, bits, self.classify(epc), self.limits.bias_start_db, tick - 1)
                self.hear(tags[key], sorted(rows), tick)
            for key in [key for key, tag in tags.items() if self.look(tag, tick)]:
                del tags[key]
        for tag in tags.values():
            self.decide(tag, HOUR_LATER, last + 1)
            if tag.zone != NONE:
                self.close(tag, None, end_us - tag.last_in_us <= self.limits.join_gap_us, last + 1)
            self.end(tag, last + 1)
        order = sorted(range(len(self.out)), key=lambda i: (self.out[i][:3], i))
        return [self.out[i] for i in order]
