"""ZoneEngine: reads in, visits, journeys and windows out. Time moves by the watermark; no clock, no I/O.

Reads wait until their tick is complete (watermark - lateness), so that neither how they are cut into batches nor the
order in which they arrive within the lateness makes a difference.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dwell import kernels, radio
from dwell.aggregates import FLOOR_WINDOW, WINDOW, Aggregates, Floors, Windows
from dwell.journeys import Journal, Journey
from dwell.layout import Layout, Settings
from dwell.lifecycle import State
from dwell.read import READ, Reads, joined
from dwell.tables import LIFE, OUT, Air, Tags
from dwell.tuning import TICK_US, Tuning
from dwell.visits import VISIT, Visits

ROWS = 256
"""Places for tags at first; doubled when they don't suffice."""
DRIFT_LEAST, DRIFT_PRIOR, DRIFT_SHARE, DRIFT_MOST_DB = 30, 300, 0.5, 6.0
"""Antennas drift: events wanted of one, those that speak against it, share followed in a window, and the most."""
IDLE_US = 86_400_000_000
"""Windows are left out when there is nothing at all for longer than this: the engine wasn't running."""
NEVER = kernels.NEVER


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


class ZoneEngine:
    """One store's engine. Every array that it is given must be of the stated dtype; ValueError otherwise."""

    def __init__(self, layout: Layout, settings: Settings, tuning: Tuning | None = None) -> None:
        tuning = tuning or radio.usual(layout)
        if not 0 < tuning.lag_ticks + tuning.batch_ticks < kernels.EVENTS - 1:
            raise ValueError(f"lag_ticks + batch_ticks must stay below {kernels.EVENTS - 1}")
        if settings.window_us % TICK_US:
            raise ValueError(f"window_us must be a multiple of {TICK_US}")
        self._layout, self._settings = layout, settings
        self._horizon_us = tuning.horizon_us()
        self._limits = radio.limits(tuning, settings)
        self._radio = radio.build(layout, settings, tuning)
        self._room = radio.scratch(self._radio)
        antennas, zones = len(layout.antenna_zone), len(layout.zone_kind)
        self._air = Air(
            up=np.ones(antennas, np.uint8),
            drift=np.zeros((antennas, 2), np.int64),
            share=np.zeros(self._radio.rate.shape, np.float32),
            down=np.full((zones, kernels.DOWNS, 2), NEVER, np.int64),
        )
        kernels.normalise(self._radio, self._air, self._limits)
        self._tuning = tuning
        self._drift_db = np.zeros(antennas)
        self._windows = Aggregates(layout, settings)
        self._journal = Journal(layout)
        self._tick = -1
        """First tick not yet processed, -1 before the first."""
        self._target = -1
        self._pending: list[Reads] = []
        self._outages: list[tuple[int, bool, NDArray[np.int64]]] = []
        self._counts = np.zeros(kernels.COUNTERS, np.int64)
        self._late = self._unknown_antenna = self._late_outages = 0
        self._visits = self._journeys = self._stuck = 0
        self._tags = _rows(0)
        self._due = np.zeros(0, np.int64)
        self._next_look = NEVER
        self._free = np.zeros(0, np.int32)
        self._n_free = 0
        self._grow(ROWS)

    @property
    def weighed_us(self) -> int:
        """All reads and outages before have been weighed; -1 before the first tick."""
        return self._tick * TICK_US if self._tick >= 0 else -1

    @property
    def decided_us(self) -> int:
        """Everything before is final, but for visits held open in zones that are unknown; -1 before the first tick."""
        return self._tick * TICK_US - self._horizon_us if self._tick >= 0 else -1

    @property
    def drift_db(self) -> NDArray[np.float64]:
        """(A,) how much louder than the layout says each antenna has lately been heard, within DRIFT_MOST_DB."""
        return self._drift_db.copy()

    @property
    def counters(self) -> dict[str, int]:
        """Since the beginning: reads weighed and dropped, tags and what became of them. `tags_present`: as of now."""
        counts = self._counts
        return {
            "reads": int(counts[kernels.READS]),
            "late": self._late,
            "unknown_antenna": self._unknown_antenna,
            "duplicates": int(counts[kernels.DUPLICATES]),
            "merchandise": int(counts[kernels.MERCHANDISE]),
            "tags": int(counts[kernels.TAGS]),
            "strays": int(counts[kernels.STRAYS]),
            "tags_tracked": len(self._tags.life) - self._n_free,
            "late_outages": self._late_outages,
            "visits": self._visits,
            "journeys": self._journeys,
            "stuck": self._stuck,
        }

    def feed(self, reads: Reads) -> None:
        """Take reads in any order; they are copied."""
        if reads.dtype != READ:
            raise ValueError(f"reads must have dtype {READ}")
        if len(reads):
            self._pending.append(reads.copy())

    def outage(self, antennas: NDArray[Any], at_us: int, up: bool) -> None:
        """Antennas went up or down at `at_us`; before what is processed already: from now on. All start up."""
        antennas = np.asarray(antennas, np.int64)
        if len(antennas) and not (antennas.min() >= 0 and antennas.max() < len(self._layout.antenna_zone)):
            raise ValueError("no such antenna")
        if self._tick >= 0 and at_us < self._tick * TICK_US:
            self._late_outages += 1
            at_us = self._tick * TICK_US
        self._outages.append((at_us, up, antennas.copy()))

    def advance(self, watermark_us: int) -> Decisions:
        """Nothing older than `watermark_us` - lateness will come: decide what that makes final."""
        target = (watermark_us - self._settings.lateness_us) // TICK_US
        if target <= max(self._tick, 0):
            return NOTHING
        return self._advance(target)

    def finish(self) -> Decisions:
        """The recording is over: open visits end with their last read, marked censored unless the tag had been silent
        for the join gap by then. Take a new engine afterwards."""
        last_us = max((int(reads["time_us"].max()) for reads in self._pending), default=-1)
        last_us = max([last_us, self._tick * TICK_US, *(at_us for at_us, _, _ in self._outages)])
        if last_us < 0:
            return NOTHING
        parts = [self._advance(last_us // TICK_US + 1)]
        out, n = kernels.end_all(
            self._tags,
            self._tick,
            last_us,
            self._radio,
            self._air,
            self._limits,
            self._room,
            np.empty(1024, OUT),
            0,
        )
        parts.append(self._sort_out(out[:n], cut=True))
        self._tags.life["state"] = 0
        self._due[:] = NEVER
        while 0 <= self._windows.next_us <= last_us:
            windows, floors = self._windows.window(np.zeros(0, VISIT), np.zeros(0, np.int16))
            parts.append(Decisions(windows=windows, floors=floors))
        return _join(parts)

    def open_visits(self) -> Visits:
        """Visits under way; exit_us is the last read that was decided to be in it."""
        tags = self._tags.life
        tags = tags[(tags["state"] != 0) & (tags["visit_zone"] >= 0)]
        return _by_tag(_visits(tags, exit_us=tags["last_in_us"], zone=tags["visit_zone"]))

    def whereabouts(self) -> Visits:
        """Where each tag seems to be, a second or two after the fact: a forecast of `open_visits`, which waits for what
        follows and is right more often. Tags that may be strays, that are in no zone, or that have been silent for
        long are left out. enter_us: since when; exit_us: last read."""
        tags = self._tags.life
        silent_us = self._tick * TICK_US - tags["last_us"]
        here = ~np.isin(tags["state"], (State.UNSEEN, State.STUCK)) & (tags["live_zone"] >= 0) & (tags["ticks"] > 1)
        tags = tags[here & (silent_us < self._limits.hold_us)]
        known = tags["visit_zone"] == tags["live_zone"]
        visits = _visits(
            tags,
            enter_us=np.where(known, tags["enter_us"], tags["live_us"]),
            exit_us=tags["last_us"],
            zone=tags["live_zone"],
            reads=np.where(known, tags["reads"], 0),
            confidence=self._limits.live_share,
        )
        return _by_tag(visits)

    def stuck_tags(self) -> Visits:
        """Tags that are stuck now: where, since when, until the last read."""
        tags = self._tags.life[self._tags.life["state"] == State.STUCK]
        visits = _visits(tags, exit_us=tags["last_us"], zone=tags["last_zone"], journey_us=-1, censored=False)
        return _by_tag(visits)

    def tags_under_way(self) -> NDArray[Any]:
        """(n,) epc, epc_bits, tag_class and journey_us of the tags whose journey goes on, in a zone or between two."""
        states = (State.PRESENT, State.DWELLING, State.LEAVING, State.ABSENT)
        going_on = self._tags.life[np.isin(self._tags.life["state"], states)]
        return going_on[["epc", "epc_bits", "tag_class", "journey_us"]]

    def state(self, *, pending: bool = True) -> dict[str, NDArray[Any]]:
        """All that the engine knows, as plain arrays; `restore` goes on from it as if nothing had happened.

        Without `pending` the reads that are not yet weighed are left out: those from `weighed_us` on are then lost.
        """
        used = self._tags.life["state"] != 0
        outages = [(at_us, int(up), a) for at_us, up, antennas in self._outages for a in antennas]
        scalars = (self._tick, self._target, self._next_look, self._late, self._unknown_antenna, self._late_outages)
        return {
            **{f"tags_{name}": rows[used] for name, rows in self._tags._asdict().items()},
            "due": self._due[used],
            "up": self._air.up.copy(),
            "drift": self._air.drift.copy(),
            "drift_db": self._drift_db.copy(),
            "down": self._air.down.copy(),
            "reads": joined(self._pending if pending else ()),
            "outages": np.array(outages, np.int64).reshape(-1, 3),
            "counts": self._counts.copy(),
            "scalars": np.array([*scalars, self._visits, self._journeys, self._stuck], np.int64),
            **self._windows.state(),
            **self._journal.state(),
        }

    @classmethod
    def restore(
        cls, layout: Layout, settings: Settings, state: dict[str, NDArray[Any]], tuning: Tuning | None = None
    ) -> Self:
        """An engine that goes on from `state`, which must come from the same layout, settings and tuning."""
        self = cls(layout, settings, tuning)
        tags = Tags(*(state[f"tags_{name}"] for name in Tags._fields))
        pairs: list[tuple[NDArray[Any], NDArray[Any]]] = list(zip(tags, self._tags, strict=True))
        same = all(a.dtype == b.dtype and a.shape[1:] == b.shape[1:] for a, b in pairs)
        if not same or state["up"].shape != self._air.up.shape:
            raise ValueError("the state comes from another layout or version")
        n = len(tags.life)
        if n > len(self._tags.life):
            self._grow(n - len(self._tags.life))
        for name in Tags._fields:
            getattr(self._tags, name)[:n] = getattr(tags, name)
        self._due[:n] = state["due"]
        self._n_free = len(self._due) - n
        self._free[: self._n_free] = np.arange(n, len(self._due))[::-1]
        self._reindex()
        self._air.up[:], self._air.down[:] = state["up"], state["down"]
        self._air.drift[:], self._drift_db[:] = state["drift"], state["drift_db"]
        radio.louder(self._radio, layout, self._tuning, self._drift_db)
        kernels.normalise(self._radio, self._air, self._limits)
        self._pending = [state["reads"].copy()] if len(state["reads"]) else []
        self._outages = [(int(at_us), bool(up), np.array([a])) for at_us, up, a in state["outages"]]
        self._counts[:] = state["counts"]
        (
            self._tick,
            self._target,
            self._next_look,
            self._late,
            self._unknown_antenna,
            self._late_outages,
            self._visits,
            self._journeys,
            self._stuck,
        ) = (int(x) for x in state["scalars"])
        self._windows.restore(state)
        self._journal.restore(state)
        return self

    def _advance(self, target: int) -> Decisions:
        """Process the ticks before `target`, stopping wherever antennas go up or down or a window is due."""
        reads, ticks = self._ready(target)
        order = np.argsort(ticks, kind="stable")
        chain, later = np.full(len(self._due), -1, np.int64), np.empty(len(reads), np.int64)
        keys = np.empty(max(len(reads), 1), np.uint64)
        self._outages.sort(key=lambda outage: outage[0])
        first = min([int(ticks.min())] if len(ticks) else [], default=target)
        if self._outages:
            first = min(first, self._outages[0][0] // TICK_US)
        if self._tick < 0:
            self._tick = min(first, target)
        parts: list[Decisions] = []
        at = 0
        out = np.empty(256, OUT)
        while self._tick < target:
            while self._outages and self._outages[0][0] // TICK_US <= self._tick:
                self._switch(*self._outages.pop(0))
            stop = target
            if self._outages:
                stop = min(stop, self._outages[0][0] // TICK_US)
            if at < len(order):
                self._windows.begin(int(ticks[order[at]]) * TICK_US - self._limits.allow_us)
            self._skip_idle(int(ticks[order[at]]) if at < len(order) else target)
            window_tick = self._window_tick()
            if window_tick <= self._tick:
                parts.append(self._window())
                continue
            stop = min(stop, window_tick)
            while self._tick < stop:
                self._tick, at, self._next_look, self._n_free, out, n = kernels.run(
                    reads,
                    order,
                    at,
                    self._tick,
                    stop,
                    self._next_look,
                    self._tags,
                    self._due,
                    self._index,
                    self._free,
                    self._n_free,
                    chain,
                    later,
                    keys,
                    self._counts,
                    self._radio,
                    self._air,
                    self._limits,
                    self._room,
                    out,
                    0,
                )
                parts.append(self._sort_out(out[:n], cut=False))
                if self._tick < stop:
                    self._grow(len(self._due))
                    chain = np.full(len(self._due), -1, np.int64)
        return _join(parts)

    def _ready(self, target: int) -> tuple[Reads, NDArray[np.int64]]:
        """Take the reads of ticks before `target` out of those that wait; late and foreign ones are counted."""
        ready, waiting = [], []
        for reads in self._pending:
            # A batch is mostly of one tick or two: what waits on stays where it is.
            now = reads["time_us"] < target * TICK_US
            if now.all():
                ready.append(reads)
            elif now.any():
                ready.append(reads[now])
                waiting.append(reads[~now])
            else:
                waiting.append(reads)
        self._pending = waiting
        reads = joined(ready)
        ticks = reads["time_us"] // TICK_US
        known = reads["antenna"] < len(self._layout.antenna_zone)
        known[known] = self._layout.antenna_zone[reads["antenna"][known]] >= 0
        late = known & (ticks < max(self._tick, 0))
        if not (wanted := known & ~late).all():
            self._unknown_antenna += len(reads) - int(known.sum())
            self._late += int(late.sum())
            reads, ticks = reads[wanted], ticks[wanted]
        return reads, ticks

    def _switch(self, at_us: int, up: bool, antennas: NDArray[np.int64]) -> None:
        self._windows.begin(at_us - self._limits.allow_us)
        self._windows.outage(antennas, at_us, up)
        kernels.switch(self._radio, self._air, self._limits, antennas, int(up), at_us)

    def _window_tick(self) -> int:
        """Tick at which the next window is final."""
        if self._windows.next_us < 0:
            return NEVER
        return -(-(self._windows.next_us + self._settings.window_us + self._horizon_us) // TICK_US)

    def _skip_idle(self, tick: int) -> None:
        """Leave out windows in which there was nothing at all: a jump of the clock isn't a week of empty windows."""
        if self._n_free == len(self._due) and 0 <= self._windows.next_us < tick * TICK_US - IDLE_US:
            self._windows.next_us = -1
            self._windows.begin(tick * TICK_US - self._limits.allow_us)

    def _window(self) -> Decisions:
        open_visits = self.open_visits()
        open_visits["exit_us"] += self._limits.allow_us
        self._follow_drift()
        windows, floors = self._windows.window(open_visits, self._journal.before(open_visits))
        return Decisions(windows=windows, floors=floors)

    def _follow_drift(self) -> None:
        """Once a window, which is an absolute time, so that the same reads give the same figures: part of what antennas
        were louder than expected, bounded."""
        total, n = self._air.drift.T
        known = n >= DRIFT_LEAST
        if not known.any():
            return
        share = DRIFT_SHARE * n[known] / (n[known] + DRIFT_PRIOR)
        self._drift_db[known] += share * total[known] / (100.0 * n[known])
        np.clip(self._drift_db, -DRIFT_MOST_DB, DRIFT_MOST_DB, out=self._drift_db)
        self._air.drift[known] = 0
        radio.louder(self._radio, self._layout, self._tuning, self._drift_db)
        kernels.normalise(self._radio, self._air, self._limits)

    def _sort_out(self, out: NDArray[Any], cut: bool) -> Decisions:
        """Decisions in an order that depends on nothing but the reads."""
        if not len(out):
            return NOTHING
        out = out[np.lexsort((out["epc_bits"], *out["epc"].T[::-1], out["tick"]))]
        visits = np.zeros(len(out), VISIT)
        for name in VISIT.names or ():
            visits[name] = out[name]
        opened, closed = visits[out["kind"] == kernels.OPENED], visits[out["kind"] == kernels.CLOSED]
        self._visits += len(closed)
        stuck = visits[out["kind"] == kernels.STUCK]
        self._stuck += len(stuck)
        journeys, before = [], [np.zeros(0, np.int16)]
        for n, (visit, kind) in enumerate(zip(visits, out["kind"], strict=True)):
            if kind == kernels.CLOSED:
                before.append(self._journal.before(visits[n : n + 1]))
                self._journal.closed([visit])
            elif kind == kernels.ENDED:
                journeys.append(self._journal.ended(visit, cut))
        self._windows.closed(closed, np.concatenate(before))
        self._journeys += len(journeys)
        return Decisions(opened, closed, opened[opened["enter_us"] == opened["journey_us"]], journeys, stuck)

    def _grow(self, rows: int) -> None:
        """Make room for `rows` more tags."""
        old, tags = len(self._due), _rows(len(self._due) + rows)
        for name in Tags._fields:
            # Zeros that nobody has touched take no memory: half of the rows may never be wanted.
            getattr(tags, name)[:old] = getattr(self._tags, name)
        self._tags = tags
        self._due = np.concatenate([self._due, np.full(rows, NEVER, np.int64)])
        free = self._free[: self._n_free]
        self._free = np.concatenate([free, np.arange(old + rows - 1, old - 1, -1), np.zeros(old - len(free))]).astype(
            np.int32
        )
        self._n_free += rows
        self._reindex()

    def _reindex(self) -> None:
        self._index = np.zeros(4 << (len(self._due) - 1).bit_length(), np.int32)
        kernels.rebuild(self._index, self._tags.life)


def _visits(tags: NDArray[Any], **other: Any) -> Visits:
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


def _by_tag(visits: Visits) -> Visits:
    """In an order that depends on the visits alone."""
    words = visits["epc"].T
    words = words[words.any(axis=1)]  # most EPCs are short, and a key of zeros costs as much as any other
    return visits[np.lexsort((visits["epc_bits"], *words[::-1], visits["enter_us"]))]


def _rows(n: int) -> Tags:
    """Room for n tags."""
    events, beam = kernels.EVENTS, kernels.BEAM
    return Tags(
        life=np.zeros(n, LIFE),
        cells=np.zeros((n, beam), np.int16),
        probs=np.zeros((n, beam, 2), np.float32),
        ring_us=np.zeros((n, events), np.int64),
        ring_span_us=np.zeros((n, events), np.uint32),
        ring_reads=np.zeros((n, events), np.int32),
        ring_gap=np.zeros((n, events), np.int8),
        ring_n=np.zeros((n, events), np.int8),
        ring_cells=np.zeros((n, events, beam), np.int16),
        ring_probs=np.zeros((n, events, beam, 2), np.uint8),
    )


def _join(parts: list[Decisions]) -> Decisions:
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
