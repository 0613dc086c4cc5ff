"""The arrays that the kernels work on, and their scalars: shapes, units and meaning; no code."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dwell.visits import VISIT

LIFE = np.dtype(
    [
        ("epc", "<u8", (8,)),
        ("epc_bits", "<i4"),
        ("visit_zone", "<i2"),  # of the open visit, NONE without
        ("last_zone", "<i2"),  # of the last visit
        ("live_zone", "<i2"),  # where the tag seems to be, not waiting for what follows
        ("elsewhere", "i1"),  # 1: decided to be in no zone since last_in_us
        ("censored", "i1"),
        ("tag_class", "i1"),
        ("state", "i1"),
        ("moved", "i1"),  # events for which a stuck tag was elsewhere
        ("n_cells", "i1"),  # 0: not yet heard
        ("head", "i1"),  # oldest event in the ring
        ("n_ring", "i1"),
        ("bias", "<f8"),  # dB that this tag is heard louder than the model
        ("first_us", "<i8"),  # first and last read of the current life
        ("last_us", "<i8"),
        ("last_tick", "<i8"),  # of the last event
        ("journey_us", "<i8"),  # start, -1 without a journey
        ("enter_us", "<i8"),  # of the open visit; last_in_us: last decided read in its zone
        ("last_in_us", "<i8"),
        ("exit_us", "<i8"),  # of the visit before: visits don't overlap
        ("live_us", "<i8"),  # first read since the tag seems to be in live_zone
        ("sure", "<f8"),  # sum of decided probabilities over the visit's events
        ("events", "<i8"),
        ("ticks", "<i8"),  # events of the whole life
        ("reads", "<i8"),
    ],
    align=True,
)
"""One tag; `state` is lifecycle.State."""


class Tags(NamedTuple):
    """All tags, a row each: what is known of them, the cells in question now, and the ring of undecided events.

    Probabilities come in pairs: standing in the cell, walking in it. Records in records are slow to reach."""

    life: NDArray[Any]  # (R,) LIFE
    cells: NDArray[np.int16]  # (R, BEAM)
    probs: NDArray[np.float32]  # (R, BEAM, 2)
    ring_us: NDArray[np.int64]  # (R, EVENTS) first read
    ring_span_us: NDArray[np.uint32]  # (R, EVENTS) from there to the last
    ring_reads: NDArray[np.int32]  # (R, EVENTS)
    ring_gap: NDArray[np.int8]  # (R, EVENTS) since the event before, as moves.bins() has it
    ring_n: NDArray[np.int8]  # (R, EVENTS) cells in question then
    ring_cells: NDArray[np.int16]  # (R, EVENTS, BEAM)
    ring_probs: NDArray[
        np.uint8
    ]  # (R, EVENTS, BEAM, 2) given the reads up to then, as minus LOGS times their logarithm


OUT = np.dtype([*((name, VISIT[name]) for name in VISIT.names or ()), ("kind", "u1"), ("tick", "<i8")], align=True)
"""What was decided at a tick: a visit OPENED or CLOSED, a journey ENDED (enter_us, exit_us: its last visit's), or a tag
found to be STUCK, with the visit that is none."""


class Radio(NamedTuple):
    """What places say of reads: cells (parts of zones, or of the floor between them) by antenna, sparse rows."""

    row: NDArray[np.int32]  # (A + 1,) antenna a's entries are row[a]:row[a + 1]
    cell: NDArray[np.int32]  # (N,) cell within range, ascending
    level: NDArray[np.float64]  # (N,) mean dBm there of a tag without bias, before drift
    step: NDArray[np.uint8]  # (N,) mean level there for the first class of a tag's bias, in steps
    rate: NDArray[np.float64]  # (B, N) 0..1, of reads that get through, by class of bias
    fit: NDArray[np.float32]  # (LOUD + 1, LOUD) fit of a heard level (steps from loud_dbm, last: none) to a mean one
    mean: NDArray[np.float64]  # (LOUD,) dBm of what is heard at a mean level
    cell_zone: NDArray[np.int16]  # (C,) NONE: between zones
    cell_kind: NDArray[np.int64]  # (C,) moves.Kind: how long one stands there
    none: NDArray[np.float64]  # (C,) none_nats between zones, 0 in one
    apart: NDArray[np.uint8]  # (C, C) metres from cell to cell
    stop: NDArray[np.float64]  # (C,) how likely one stops there, against anywhere
    stand_at: NDArray[np.float64]  # (C,) the same, by the cell's size; and how likely one's way leads there
    walk_to: NDArray[np.float64]
    way: NDArray[np.float32]  # (kinds * gaps * metres, 4) moves.build()
    part: NDArray[np.float64]  # (256,) probabilities as the ring remembers them
    gap_bin: NDArray[np.int64]  # gap of each number of ticks
    rest_us: NDArray[np.int64]  # (tag classes,) a longer visit is nobody's
    stay_s: NDArray[np.float64]  # (Z,) how long people stay, by kind of zone
    antenna_zone: NDArray[np.int16]  # (A,)
    brief: NDArray[np.bool_]  # (Z,) journeys end soon after this zone
    rule_mask: NDArray[np.uint64]
    rule_value: NDArray[np.uint64]
    rule_class: NDArray[np.uint8]
    table: NDArray[np.uint8]  # lifecycle.transitions()


class Limits(NamedTuple):
    """Scalars of Tuning and Settings."""

    tick_us: int
    gaps: int
    metres: int
    loud_dbm: float
    loud_step_db: float
    bias_steps: int
    bias_weight: float
    bias_start_db: float
    bias_max_db: float
    bias_step_db: float
    biases: int
    share_weight: float
    repeat_weight: float
    repeat_most: float
    unheard_nats: float
    beam_nats: float
    temper: float
    least: float
    slight: float
    live_share: float
    lag_ticks: int
    batch_ticks: int
    hold_us: int
    forget_us: int
    allow_us: int
    walk_us: int
    fill_us: int
    join_gap_us: int
    visit_us: int
    end_after_exit_us: int
    end_silence_us: int


class Air(NamedTuple):
    """Which antennas are up, and what follows from it."""

    up: NDArray[np.uint8]  # (A,)
    share: NDArray[np.float32]  # (B, N) weighed log share of the antenna among all that are up and hear the cell
    drift: NDArray[
        np.int64
    ]  # (A, 2) what is louder than expected, against other antennas: 0.01 dB summed, and how often
    down: NDArray[np.int64]  # (Z, DOWNS, 2) times at which the zone was unknown, newest first; NEVER: until now


class Scratch(NamedTuple):
    """Room to work in; nothing in it outlives a tick."""

    cell: NDArray[np.float64]  # (C,) scores, 0 outside of an event
    cells: NDArray[np.int32]  # (C,) touched
    score: NDArray[np.float64]  # (C,) of those
    slot: NDArray[np.int8]  # (C,) 1: comes into question by this event; 0 outside of one
    antenna: NDArray[np.int32]  # (antennas of an event,) with a level
    level: NDArray[np.float64]
    off: NDArray[np.float64]  # (antennas,) dB above the expectation
    zone: NDArray[np.float64]  # (Z + 1,) probabilities, that of no zone last; 0 outside of a sum
    new_cell: NDArray[np.int32]  # (WIDE + BEAM,)
    new_score: NDArray[np.float64]
    new_prob: NDArray[np.float64]  # (WIDE + BEAM, 2)
    base: NDArray[np.int64]  # (BEAM,) where the ways from each cell begin
    now: NDArray[np.float64]  # (BEAM, 2) smoothed probabilities of an event and of the one before it
    before: NDArray[np.float64]
    came: NDArray[np.float64]  # (BEAM, 4)
    decided: NDArray[np.int64]  # (EVENTS,)
    sure: NDArray[np.float64]  # (EVENTS,)
