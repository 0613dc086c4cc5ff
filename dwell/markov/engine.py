"""ZoneEngine: reads in, visits, journeys and windows out. Time moves by the watermark; no clock, no I/O.

Reads wait until their tick is complete (watermark - lateness), so that neither how they are cut into batches nor the
order in which they arrive within the lateness makes a difference.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dwell.aggregates import Aggregates
from dwell.journeys import Journal
from dwell.layout import Layout, Settings
from dwell.lifecycle import State
from dwell.markov import field as field_
from dwell.markov import radio
from dwell.markov.decisions import NOTHING, Decisions, by_tag, join, visits_of
from dwell.markov.field import Field
from dwell.markov.kernels import figures
from dwell.markov.kernels.antennas import catch_up, listen, switch
from dwell.markov.kernels.run import end_all, run
from dwell.markov.radio import Model
from dwell.markov.tables import OUT
from dwell.markov.tag_table import Sliced, TagTable
from dwell.markov.tuning import TICK_US, Tuning
from dwell.read import READ, SHORT, Reads, joined, kept, picked, split, whole
from dwell.visits import VISIT, Visits

ROWS = 256
"""Places for tags at first; doubled when they don't suffice."""
DRIFT_LEAST, DRIFT_PRIOR, DRIFT_SHARE, DRIFT_MOST_DB = 30, 300, 0.5, 6.0
"""Antennas drift: events wanted of one, those that speak against it, share followed in a window, and the most."""
MUTE_TICKS = 5
"""Antennas are looked at so often whether they have gone silent for everybody."""
TRIM_TICKS = 2
"""Memory that tags no longer use is given back so often."""
IDLE_US = 86_400_000_000
"""Windows are left out when there is nothing at all for longer than this: the engine wasn't running."""
HOLD_US = 180_000_000
"""Reads are held back for a first idea of the radio at most for so long, …"""
HOLD_TAGS = 1_000
"""… and of so many tags: while reads are held back, tags take twice the memory."""
CATCH_UP_TICKS = 4
"""What was held back is decided in pieces of so many ticks, so that nobody waits for long."""
FEW_TICKS = 8
"""So few are weighed one after the other: reads that are weighed take more room than those that wait."""
AIR = ("up", "mute", "missed", "missed_by", "drift", "tags", "changed_tick", "down")
"""What of Air belongs to the engine's state; the rest follows from it."""
SCALARS = "_tick", "_next_look", "_late", "_unknown_antenna", "_late_outages", "_visits", "_journeys", "_stuck"
COUNTED = ("READS", "DUPLICATES", "MERCHANDISE", "TAGS", "STRAYS", "FROZEN")
"""Counters of the kernels."""
NEVER = figures.NEVER


class ZoneEngine:
    """One store's engine. Every array that it is given must be of the stated dtype; ValueError otherwise."""

    def __init__(
        self,
        layout: Layout,
        settings: Settings,
        tuning: Tuning | None = None,
        field: Field | None = None,
        *,
        hold: int = 0,
    ) -> None:
        """`field`: what has been learnt of the store's radio; None: nothing. `hold`: decide nothing until `adopt` or
        `release` is called, HOLD_US is over, so many reads wait or HOLD_TAGS are there; meanwhile a usual radio tells
        the `whereabouts`."""
        tuning = tuning or Tuning()
        if not 0 < tuning.lag_ticks + tuning.batch_ticks < figures.EVENTS - 1:
            raise ValueError(f"lag_ticks + batch_ticks must stay below {figures.EVENTS - 1}")
        if settings.window_us % TICK_US:
            raise ValueError(f"window_us must be a multiple of {TICK_US}")
        self._layout, self._settings, self._tuning = layout, settings, tuning
        self._horizon_us = tuning.horizon_us()
        self._model = radio.build(layout, settings, tuning, field)
        self._air = radio.air(self._model, len(layout.zone_kind))
        self._room = radio.scratch(self._model)
        self._drift_db = np.zeros(len(layout.antenna_zone))
        self._windows = Aggregates(layout, settings)
        self._journal = Journal(layout)
        self._tick = -1
        """First tick not yet processed, -1 before the first."""
        self._pending: list[Reads] = []
        self._outages: list[tuple[int, bool, NDArray[np.int64]]] = []
        self._counts = np.zeros(figures.COUNTERS, np.int64)
        self._late = self._unknown_antenna = self._late_outages = 0
        self._visits = self._journeys = self._stuck = 0
        self._table = TagTable(ROWS)
        self._next_look = NEVER
        self._next_trim = 0
        self._guess = type(self)(layout, settings, tuning, field) if hold else None
        """Answers for this engine while it holds reads back."""
        self._hold, self._held_reads, self._released = hold, 0, False

    @property
    def field(self) -> Field:
        """What the engine takes the store's radio to be."""
        return self._model.field

    def model(self, field: Field) -> Model:
        """The tables for another field. They take a second or two to make, without touching the engine: in a thread of
        their own nobody waits for them."""
        return radio.build(self._layout, self._settings, self._tuning, field)

    def adopt(self, model: Model) -> None:
        """Go on with tables that `model` made; whoever is under way stays so."""
        self._model = model
        self._released = True
        listen(model.radio, self._air, model.limits)

    def release(self) -> None:
        """Hold nothing back any longer."""
        self._released = True

    @property
    def weighed_us(self) -> int:
        """All reads and outages before have been weighed; -1 before the first tick."""
        if self._guess is not None:
            return self._guess.weighed_us
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
        """Since the beginning: reads weighed and dropped, tags and what became of them; `tags_tracked`: now."""
        if self._guess is not None:
            return self._guess.counters
        counts = self._counts
        return {
            **{name.lower(): int(counts[getattr(figures, name)]) for name in COUNTED},
            "late": self._late,
            "unknown_antenna": self._unknown_antenna,
            "tags_tracked": len(self._table.due) - self._table.n_free,
            "late_outages": self._late_outages,
            "visits": self._visits,
            "journeys": self._journeys,
            "stuck": self._stuck,
        }

    def feed(self, reads: Reads) -> None:
        """Take reads in any order, READ or as `kept`; they must not change afterwards."""
        if reads.dtype not in (READ, SHORT):
            raise ValueError(f"reads must have dtype {READ}")
        pieces = kept(reads)
        self._pending += pieces
        self._held_reads += len(reads)
        if self._guess is not None:
            self._guess._pending += pieces

    def outage(self, antennas: NDArray[Any], at_us: int, up: bool) -> None:
        """Antennas went up or down at `at_us`; before what is processed already: from now on. All start up."""
        antennas = np.asarray(antennas, np.int64)
        if len(antennas) and not (antennas.min() >= 0 and antennas.max() < len(self._layout.antenna_zone)):
            raise ValueError("no such antenna")
        if self._guess is not None:
            self._guess.outage(antennas, at_us, up)
        if self._tick >= 0 and at_us < self._tick * TICK_US:
            self._late_outages += 1
            at_us = self._tick * TICK_US
        self._outages.append((at_us, up, antennas.copy()))

    def advance(self, watermark_us: int) -> Decisions:
        """Nothing older than `watermark_us` - lateness will come: decide what that makes final."""
        target = (watermark_us - self._settings.lateness_us) // TICK_US
        if self._guess is not None:
            target = self._caught_up(watermark_us, target)
        if target <= max(self._tick, 0):
            return NOTHING
        start = self._tick if self._tick >= 0 else self._first_tick()
        steps = range(start + 1, target) if target - start <= FEW_TICKS else ()
        return join([self._advance(step) for step in (*steps, target)])

    def finish(self) -> Decisions:
        """The recording is over: open visits end with their last read, marked censored unless the tag had been silent
        for the join gap by then. Take a new engine afterwards."""
        self._guess = None
        last_us = max((int(reads["time_us"].max()) for reads in self._pending), default=-1)
        last_us = max([last_us, self._tick * TICK_US, *(at_us for at_us, _, _ in self._outages)])
        if last_us < 0:
            return NOTHING
        parts = [self._advance(last_us // TICK_US + 1)]
        out, n = end_all(
            self._table.tags,
            self._tick,
            last_us,
            self._model.radio,
            self._air,
            self._model.limits,
            self._room,
            np.empty(1024, OUT),
            0,
        )
        parts.append(self._sort_out(out[:n], cut=True))
        self._table.tags.life["state"] = 0
        self._table.due[:] = NEVER
        while 0 <= self._windows.next_us <= last_us:
            windows, floors = self._windows.window(np.zeros(0, VISIT), np.zeros(0, np.int16))
            parts.append(Decisions(windows=windows, floors=floors))
        return join(parts)

    def open_visits(self) -> Visits:
        """Visits under way; exit_us is the last read that was decided to be in it."""
        tags = self._table.tags.life
        tags = tags[(tags["state"] != 0) & (tags["visit_zone"] >= 0)]
        return by_tag(visits_of(tags, exit_us=tags["last_in_us"], zone=tags["visit_zone"]))

    def whereabouts(self) -> Visits:
        """Where each tag seems to be, a second or two after the fact: a forecast of `open_visits`, which waits for what
        follows and is right more often. Tags that may be strays, that are in no zone, or that have been silent for
        long are left out. enter_us: since when; exit_us: last read."""
        if self._guess is not None:
            return self._guess.whereabouts()
        tags = self._table.tags.life
        silent_us = self._tick * TICK_US - tags["last_us"]
        here = ~np.isin(tags["state"], (State.UNSEEN, State.STUCK)) & (tags["live_zone"] >= 0) & (tags["ticks"] > 1)
        tags = tags[here & (silent_us < self._model.limits.hold_us)]
        known = tags["visit_zone"] == tags["live_zone"]
        visits = visits_of(
            tags,
            enter_us=np.where(known, tags["enter_us"], tags["live_us"]),
            exit_us=tags["last_us"],
            zone=tags["live_zone"],
            reads=np.where(known, tags["reads"], 0),
            confidence=self._model.limits.live_share,
        )
        return by_tag(visits)

    def stuck_tags(self) -> Visits:
        """Tags that are stuck now: where, since when, until the last read."""
        if self._guess is not None:
            return self._guess.stuck_tags()
        tags = self._table.tags.life[self._table.tags.life["state"] == State.STUCK]
        visits = visits_of(tags, exit_us=tags["last_us"], zone=tags["last_zone"], journey_us=-1, censored=False)
        return by_tag(visits)

    def tags_under_way(self) -> NDArray[Any]:
        """(n,) epc, epc_bits, tag_class and journey_us of the tags whose journey goes on, in a zone or between two."""
        if self._guess is not None:
            return self._guess.tags_under_way()
        states = (State.PRESENT, State.DWELLING, State.LEAVING, State.ABSENT)
        going_on = self._table.tags.life[np.isin(self._table.tags.life["state"], states)]
        return going_on[["epc", "epc_bits", "tag_class", "journey_us"]]

    def state(self, *, pending: bool = True) -> dict[str, NDArray[Any]]:
        """All that the engine knows, as plain arrays; `restore` goes on from it as if nothing had happened.

        Without `pending` the reads that are not yet weighed are left out: those from `weighed_us` on are then lost.
        """
        state = self.sliced_state(pending=pending)
        return {name: value.whole() if isinstance(value, Sliced) else value for name, value in state.items()}

    def sliced_state(self, *, pending: bool = True) -> dict[str, NDArray[Any] | Sliced]:
        """The `state`, of which large arrays are yet to be made, before the engine goes on."""
        waiting = self._pending[:] if pending or self._guess is not None else []
        outages = [(at_us, int(up), a) for at_us, up, antennas in self._outages for a in antennas]
        return {
            **self._table.state(),
            **field_.packed(self._model.field),
            "drift_db": self._drift_db.copy(),
            **{f"air_{name}": getattr(self._air, name).copy() for name in AIR},
            "reads": Sliced((sum(map(len, waiting)),), READ, lambda: map(whole, waiting)),
            "held": np.array([self._guess is not None, self._released, self._hold, self._held_reads], np.int64),
            "outages": np.array(outages, np.int64).reshape(-1, 3),
            "counts": self._counts.copy(),
            "scalars": np.array([getattr(self, name) for name in SCALARS], np.int64),
            **self._windows.state(),
            **self._journal.state(),
        }

    @classmethod
    def restore(
        cls,
        layout: Layout,
        settings: Settings,
        state: dict[str, NDArray[Any]],
        tuning: Tuning | None = None,
        field: Field | None = None,
    ) -> Self:
        """An engine that goes on from `state`, which must come from the same layout, settings and tuning; `field`: what
        is known of the radio now, None: what was known then."""
        self = cls(layout, settings, tuning, field or field_.unpacked(state))
        alike = all(state[f"air_{name}"].shape == getattr(self._air, name).shape for name in AIR)
        if not alike or not self._table.restore(state, self._model.limits):
            raise ValueError("the state comes from another layout or version")
        self._drift_db[:] = state["drift_db"]
        for name in AIR:
            getattr(self._air, name)[:] = state[f"air_{name}"]
        listen(self._model.radio, self._air, self._model.limits)
        self._pending = kept(state["reads"].copy())
        self._outages = [(int(at_us), bool(up), np.array([a])) for at_us, up, a in state["outages"]]
        self._counts[:] = state["counts"]
        for name, value in zip(SCALARS, state["scalars"].tolist(), strict=True):
            setattr(self, name, value)
        self._windows.restore(state)
        self._journal.restore(state)
        holding, released, self._hold, self._held_reads = (int(x) for x in state["held"])
        self._released = bool(released)
        if holding:
            self._guess = cls(layout, settings, tuning)
            self._guess._pending += self._pending
            for at_us, up, antennas in self._outages:
                self._guess.outage(antennas, at_us, up)
        return self

    def _caught_up(self, watermark_us: int, target: int) -> int:
        """How far to decide while reads are held back, or what was held back is decided piece by piece."""
        guess = self._guess
        assert guess is not None
        before = guess._tick
        guess.advance(watermark_us)
        if not self._released:
            self._released = (
                self._held_reads >= self._hold
                or guess._tick - self._first_tick() >= HOLD_US // TICK_US
                or guess.counters["tags_tracked"] >= HOLD_TAGS
            )
        if not self._released:
            return -1
        start = self._tick if self._tick >= 0 else self._first_tick()
        piece = start + CATCH_UP_TICKS + 2 * max(guess._tick - max(before, 0), 0)
        if piece < target:
            return piece
        self._guess = None
        return target

    def _first_tick(self) -> int:
        """Of all that waits to be weighed; NEVER if there is nothing."""
        reads = min((int(reads["time_us"].min()) for reads in self._pending), default=NEVER)
        return min(reads, min((at_us for at_us, _, _ in self._outages), default=NEVER)) // TICK_US

    def _advance(self, target: int) -> Decisions:
        """Process the ticks before `target`, stopping wherever antennas go up or down or a window is due."""
        reads, ticks = self._ready(target)
        order = np.argsort(ticks, kind="stable")
        chain, later = np.full(len(self._table.due), -1, np.int64), np.empty(len(reads), np.int64)
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
            self._switch()
            stop = target
            if self._outages:
                stop = min(stop, self._outages[0][0] // TICK_US)
            if at < len(order):
                self._windows.begin(int(ticks[order[at]]) * TICK_US - TICK_US)
            self._skip_idle(int(ticks[order[at]]) if at < len(order) else target)
            window_tick = self._window_tick()
            if window_tick <= self._tick:
                parts.append(self._window())
                continue
            stop = min(stop, window_tick)
            if at < len(order):
                # While nobody is heard nothing is missed either.
                heard = max(int(ticks[order[at]]), self._tick)
                stop = min(stop, heard - heard % MUTE_TICKS + MUTE_TICKS)
            if self._tick % MUTE_TICKS == 0:
                self._find_mute()
            if self._tick >= self._next_trim:
                self._table.trim(self._tick)
                self._next_trim = self._tick + TRIM_TICKS
            while self._tick < stop:
                self._tick, at, self._next_look, self._table.n_free, out, n = run(
                    reads,
                    order,
                    at,
                    self._tick,
                    stop,
                    self._next_look,
                    self._table.tags,
                    self._table.due,
                    self._table.index,
                    self._table.free,
                    self._table.n_free,
                    chain,
                    later,
                    keys,
                    self._counts,
                    self._model.radio,
                    self._air,
                    self._model.limits,
                    self._room,
                    out,
                    0,
                )
                parts.append(self._sort_out(out[:n], cut=False))
                if self._tick < stop:
                    self._table.grow(len(self._table.due))
                    chain = np.full(len(self._table.due), -1, np.int64)
        return join(parts)

    def _ready(self, target: int) -> tuple[Reads, NDArray[np.int64]]:
        """Take the reads of ticks before `target` out of those that wait; late and foreign ones are counted."""
        ready, self._pending = split(self._pending, target * TICK_US)
        reads = whole(joined(ready))
        ticks = reads["time_us"] // TICK_US
        known = reads["antenna"] < len(self._layout.antenna_zone)
        known[known] = self._layout.antenna_zone[reads["antenna"][known]] >= 0
        late = known & (ticks < max(self._tick, 0))
        if not (wanted := known & ~late).all():
            self._unknown_antenna += len(reads) - int(known.sum())
            self._late += int(late.sum())
            reads, ticks = picked(reads, wanted), ticks[wanted]
        return reads, ticks

    def _switch(self) -> None:
        """Antennas go up or down that are due to."""
        due = 0
        while due < len(self._outages) and self._outages[due][0] // TICK_US <= self._tick:
            at_us, up, antennas = self._outages[due]
            self._windows.begin(at_us - TICK_US)
            self._windows.outage(antennas, at_us, up)
            switch(self._model.radio, self._air, antennas, int(up), 0, self._tick, at_us)
            due += 1
        if due:
            del self._outages[:due]
            catch_up(self._model.radio, self._air, self._model.limits, self._tick)

    def _find_mute(self) -> None:
        """Take antennas for down that nobody has been heard by for as long as several tags should have been, and for up
        again when they hear one."""
        air = self._air
        missed = (air.missed > figures.MUTE_HITS) & (air.up == 1)
        if not (missed.any() or air.mute.any()):
            return
        bits = np.unpackbits(air.missed_by.view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1)
        silent = missed & (bits >= figures.MUTE_TAGS)
        for antennas, mute in (
            (np.flatnonzero(silent & (air.mute == 0)), 1),
            (np.flatnonzero(air.mute == figures.HEARD_AGAIN), 0),
        ):
            if len(antennas):
                at_us = self._tick * TICK_US
                switch(self._model.radio, air, antennas, 1, mute, self._tick, at_us)
        catch_up(self._model.radio, air, self._model.limits, self._tick)

    def _window_tick(self) -> int:
        """Tick at which the next window is final."""
        if self._windows.next_us < 0:
            return NEVER
        return -(-(self._windows.next_us + self._settings.window_us + self._horizon_us) // TICK_US)

    def _skip_idle(self, tick: int) -> None:
        """Leave out windows in which there was nothing at all: a jump of the clock isn't a week of empty windows."""
        if self._table.n_free == len(self._table.due) and 0 <= self._windows.next_us < tick * TICK_US - IDLE_US:
            self._windows.next_us = -1
            self._windows.begin(tick * TICK_US - TICK_US)

    def _window(self) -> Decisions:
        open_visits = self.open_visits()
        open_visits["exit_us"] += TICK_US
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

    def _sort_out(self, out: NDArray[Any], cut: bool) -> Decisions:
        """Decisions in an order that depends on nothing but the reads."""
        if not len(out):
            return NOTHING
        out = out[np.lexsort((out["epc_bits"], *out["epc"].T[::-1], out["tick"]))]
        visits = np.zeros(len(out), VISIT)
        for name in VISIT.names or ():
            visits[name] = out[name]
        opened, closed = visits[out["kind"] == figures.OPENED], visits[out["kind"] == figures.CLOSED]
        self._visits += len(closed)
        stuck = visits[out["kind"] == figures.STUCK]
        self._stuck += len(stuck)
        journeys, before = [], [np.zeros(0, np.int16)]
        for n, (visit, kind) in enumerate(zip(visits, out["kind"], strict=True)):
            if kind == figures.CLOSED:
                before.append(self._journal.before(visits[n : n + 1]))
                self._journal.closed([visit])
            elif kind == figures.ENDED:
                journeys.append(self._journal.ended(visit, cut))
        self._windows.closed(closed, np.concatenate(before))
        self._journeys += len(journeys)
        return Decisions(opened, closed, opened[opened["enter_us"] == opened["journey_us"]], journeys, stuck)
