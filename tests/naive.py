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

from dwell import kernels, lifecycle
from dwell.lifecycle import Event, State

NONE = -1
HOUR_LATER = 10**18


@dataclass
class Heard:
    """One event: what a tag's reads of one tick led to."""

    first_us: int
    last_us: int
    reads: int
    probs: dict[int, int]
    """Parts of kernels.PARTS of each state in question, likeliest first."""


@dataclass
class Tag:
    """A tag's life."""

    epc: tuple[int, ...]
    bits: int
    tag_class: int
    bias: float
    last_tick: int
    state: State = State.CANDIDATE
    probs: dict[int, float] = field(default_factory=dict)
    """Of each state in question, likeliest first."""
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
    censored: bool = False
    sure: list[float] = field(default_factory=list)
    reads: int = 0


class Naive:
    """All of one recording at once: `run` gives what the kernels give as OUT rows, as tuples sorted the same way."""

    def __init__(self, radio: kernels.Radio, limits: kernels.Limits) -> None:
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
        total = [defaultdict(lambda: 1e-3) for _ in range(self.limits.biases)]
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

    def weigh(self, tag: Tag, reads: list[tuple[int, int, int, int]]) -> dict[int, tuple[float, float, int]]:
        """Score, summed residual and number of antennas of each cell in range; reads: antenna, time, RSSI, count."""
        limits = self.limits
        b = math.floor((limits.bias_max_db - tag.bias) / limits.bias_step_db + 0.5)
        b = min(max(b, 0), limits.biases - 1)
        touched: dict[int, tuple[float, float, int]] = {}
        for antenna in sorted({read[0] for read in reads}):
            mine = [read for read in reads if read[0] == antenna]
            levels = [read[2] / 100.0 for read in mine if read[2] != -32768]
            level = sum(levels) / len(levels) if levels else None
            for cell, e in self.table[antenna]:
                share = math.log(float(self.radio.rate[b, e])) - self.norm[b][cell]
                score = limits.share_weight * max(share, limits.unheard_nats)
                far = limits.share_weight * limits.unheard_nats
                off = 0.0
                if level is not None:
                    off = level - float(self.radio.level[b, e])
                    q = (off * float(self.radio.sharp[b, e])) ** 2
                    score -= 0.5 * limits.tail * q / (q + limits.tail)
                    far -= 0.5 * limits.tail
                old_score, old_off, n = touched.get(cell, (0.0, 0.0, 0))
                touched[cell] = (old_score + (score - far), old_off + off, n + 1)
        return {
            cell: (score + (limits.none_nats if self.radio.cell_zone[cell] < 0 else 0.0), off, n)
            for cell, (score, off, n) in touched.items()
        }

    # The filter.

    def hear(self, tag: Tag, reads: list[tuple[int, int, int, int]], tick: int) -> None:
        """One event."""
        limits = self.limits
        tag.last_us = max(read[1] for read in reads)
        touched = self.weigh(tag, reads)
        top = max((score for score, _, _ in touched.values()), default=-math.inf)
        width = limits.beam_nats
        while sum(score >= top - width for score, _, _ in touched.values()) > kernels.WIDE and width * 0.7 >= 1e-3:
            width *= 0.7
        new = [(cell, score) for cell, (score, _, _) in touched.items() if score >= top - width][: kernels.WIDE]
        for cell in dict.fromkeys(state >> 1 for state in tag.probs):
            if cell not in {c for c, _ in new}:
                new.append((cell, touched[cell][0] if cell in touched else 0.0))
        if not new:
            return
        top = max(score for _, score in new)
        probs: dict[int, float] = {}
        for cell, score in new:
            for state in (2 * cell, 2 * cell + 1):
                before = 0.5
                if tag.probs:
                    before = sum(p * self.passage(tick - tag.last_tick, o, state) for o, p in tag.probs.items())
                probs[state] = before * math.exp(limits.temper * (score - top))
        kept = sorted(probs.items(), key=lambda item: (-item[1], item[0]))[: kernels.BEAM]
        kept = [(state, p) for state, p in kept if p >= kept[0][1] * limits.least]
        total = sum(p for _, p in kept)
        tag.probs = {state: p / total for state, p in kept}
        first_us = min(read[1] for read in reads)
        parts = {state: max(int(p * kernels.PARTS + 0.5), 1) for state, p in tag.probs.items()}
        tag.events.append(Heard(first_us, tag.last_us, len(reads), parts))
        tag.last_tick = tick
        tag.ticks += 1
        likeliest = next(iter(tag.probs)) >> 1
        if likeliest in touched:
            _, off, n = touched[likeliest]
            low = limits.bias_max_db - limits.bias_step_db * (limits.biases - 1)
            tag.bias = min(max(tag.bias + limits.bias_weight * off / n, low), limits.bias_max_db)

    def passage(self, ticks: int, source: int, target: int) -> float:
        """Probability of a state after another one, so many ticks later."""
        radio = self.radio
        a, b = source // 2, target // 2
        gap = radio.gap_bin[min(ticks, len(radio.gap_bin) - 1)]
        metres = min(int(radio.apart[a, b]), radio.way.shape[2] - 1)
        result = float(radio.way[radio.cell_kind[a], gap, metres, source % 2 * 2 + target % 2])
        if a != b:
            result *= float(radio.area[b])
        if target % 2 == 0 and (a != b or source % 2 == 1):
            result *= float(radio.stop[radio.cell_kind[b]])
        return result

    def decide(self, tag: Tag, upto_us: int, tick: int) -> None:
        """Decide the events up to a time, smoothed by all events that followed."""
        smoothed: list[dict[int, float]] = []
        for i in range(len(tag.events) - 1, -1, -1):
            event = tag.events[i]
            if not smoothed:
                smoothed.insert(0, {state: float(p) for state, p in event.probs.items()})
                continue
            ticks = tag.events[i + 1].last_us // self.limits.tick_us - event.last_us // self.limits.tick_us
            before = dict.fromkeys(event.probs, 0.0)
            for target, weight in smoothed[0].items():
                came = {o: p * self.passage(ticks, o, target) for o, p in event.probs.items()}
                for o, p in came.items():
                    before[o] += p * weight / sum(came.values())
            smoothed.insert(0, before)
        count = sum(event.last_us <= upto_us for event in tag.events)
        for event, probs in zip(tag.events[:count], smoothed[:count], strict=True):
            zones: dict[int, float] = {}
            for state, p in probs.items():
                zone = int(self.radio.cell_zone[state // 2])
                zones[zone] = zones.get(zone, 0.0) + p
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
                return
            self.close(tag, event.first_us, False, tick)
            if not tag.elsewhere:
                before = min(max(limits.allow_us, (gap - limits.walk_us) // 2), limits.fill_us)
                enter_us = event.first_us - before
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

    def close(self, tag: Tag, next_us: int | None, cut: bool, tick: int) -> None:
        """End the open visit; `next_us`: first read in the next zone; `cut`: its end was not seen."""
        limits = self.limits
        exit_us = tag.last_in_us + (0 if cut else limits.allow_us)
        if next_us is not None:
            gap = next_us - tag.last_in_us
            if not tag.elsewhere:
                fill = max(limits.allow_us, (gap - limits.walk_us) // 2)
                exit_us = tag.last_in_us + min(fill, limits.fill_us)
            exit_us = min(exit_us, tag.last_in_us + gap // 2)
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
        patience_us = limits.forget_us
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
