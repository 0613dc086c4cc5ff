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
        ("bias", "i1"),  # class of the tag's bias
        ("rate", "i1"),  # class of how often it answers
        ("repeats", "i1"),  # lone reads in a row that repeat the very same level
        ("n_recent", "i1"),
        ("n_cells", "<i2"),  # active cells; 0: not yet heard, or silent for too long
        ("n_events", "<i2"),
        ("n_pool", "<i4"),  # words of the pool that the events use
        ("louder", "<f4"),  # evidence for the next louder class of bias against the present one, in nats
        ("quieter", "<f4"),
        ("oftener", "<f4"),  # … and for the next class of rate
        ("rarer", "<f4"),
        ("lost", "<f4"),  # evidence that the tag is in none of its active cells
        ("last_key", "<i4"),  # antenna and level of the last read
        ("heard", "<i4"),  # events with reads since the tag was last lost
        ("first_us", "<i8"),  # first and last read of the current life
        ("last_us", "<i8"),
        ("last_tick", "<i8"),  # up to which the filter has come
        ("journey_us", "<i8"),  # start, -1 without a journey
        ("enter_us", "<i8"),  # of the open visit
        ("last_in_us", "<i8"),  # end of the last event that was decided to be in the open visit
        ("late_us", "<i8"),  # by which the open visit ends later than its last event (negative: earlier)
        ("exit_us", "<i8"),  # of the visit before: visits don't overlap
        ("live_us", "<i8"),  # first read since the tag seems to be in live_zone
        ("sure", "<f8"),  # sum of decided probabilities over the visit's events
        ("events", "<i8"),
        ("ticks", "<i8"),  # events with reads of the whole life
        ("reads", "<i8"),
    ],
    align=True,
)
"""One tag; `state` is lifecycle.State."""

EVENT = np.dtype(
    [
        ("at", "<u4"),  # where in the pool its cells are
        ("tick", "<u4"),  # last tick of the event
        ("reads", "<u2"),  # 0: silent
        ("n", "<u2"),  # cells in question
        ("span", "u1"),  # index of SPANS: how many ticks the event lasts
        ("jump", "u1"),  # 1: came about by a jump, not on foot
    ],
    align=True,
)


class Tags(NamedTuple):
    """All tags: what is known of them, the active cells now, and the undecided events.

    Probabilities come in fours: standing and clear, standing and blocked, walking and clear, walking and blocked.
    Records in records are slow to reach. The first five have a row each tag, the others are shared: a tag has a third
    of a block of cells or all that it may. What is decided at the same tick lies together in the pool, in chunks that
    are free again after that.
    """

    life: NDArray[Any]  # (R,) LIFE
    event: NDArray[Any]  # (R, EVENTS) EVENT, oldest first
    recent_zone: NDArray[np.int16]  # (R, RECENT, 3) likeliest zones of the last decided ticks, newest first
    recent_p: NDArray[np.float32]  # (R, RECENT, 3) and their probabilities
    block: NDArray[np.int32]  # (R, BLOCKS) the blocks that the tag has, as many as n_cells takes
    cells: NDArray[np.uint16]  # (R * BLOCKS, BLOCK) active cells
    probs: NDArray[np.float32]  # (R * BLOCKS, 4, BLOCK) given the reads up to now
    spare: NDArray[np.int32]  # (R * BLOCKS,) stack of the blocks that nobody has
    pool: NDArray[np.uint64]  # (R * CHUNKS * CHUNK,) the events' cells: number, probabilities and emissions in steps
    wanted: NDArray[np.int64]  # (R * CHUNKS,) tick until which anything in a chunk of the pool is wanted
    stream: NDArray[np.int64]  # (EVENTS, 2) the chunk for what is wanted until each tick, and how much is in it
    heads: NDArray[np.int64]  # (3,) SPARE, NOW, SEEK


OUT = np.dtype([*((name, VISIT[name]) for name in VISIT.names or ()), ("kind", "u1"), ("tick", "<i8")], align=True)
"""What was decided at a tick: a visit OPENED or CLOSED, a journey ENDED (enter_us, exit_us: its last visit's), or a tag
found to be STUCK, with the visit that is none."""


class Radio(NamedTuple):
    """What places say of reads and of each other. Levels are in steps of STEP_DB from FLOOR_DBM."""

    level: NDArray[np.uint8]  # (A, C) mean level of a tag without bias; 0: never heard there
    hit: NDArray[np.float32]  # (4, 2 * HALF) by reads in the tick: likelihood of a level, by how far it is off the mean
    spare: NDArray[np.float32]  # (P, WIDE) by class of rate: one over the likelihood of a miss, by mean level
    unknown: NDArray[np.float32]  # (P, WIDE) likelihood of a read without a level against that of a miss
    miss_nats: NDArray[np.int32]  # (P, WIDE) log likelihood of a miss, in 1/QUIET
    hears: NDArray[np.float32]  # (P, WIDE) probability of a hit
    rate: NDArray[np.uint8]  # (Q, A) class of the antenna's rate, by how often the tag answers
    cell_zone: NDArray[np.int16]  # (C,) NONE: between zones
    share_zone: NDArray[np.int16]  # (C, 4) zones that a walker in the cell may be in, NONE: no more
    share: NDArray[np.float32]  # (C, 4)
    hop: NDArray[np.uint16]  # (SPANS, C, D) where a walker gets to; the cell itself beyond the edge of the floor
    turn: NDArray[np.float32]  # (D,) share of those who leave a cell that go each of these ways
    stairs: NDArray[np.int32]  # (C,) cell on another floor, or NONE
    move: NDArray[np.float32]  # (SPANS, C) probability of a walker's leaving the cell
    leave: NDArray[np.float32]  # (SPANS, C) of beginning to walk
    stop: NDArray[np.float32]  # (SPANS, C) of stopping
    block: NDArray[np.float32]  # (SPANS, 2) of becoming blocked, and clear again
    first: NDArray[np.float32]  # (C,) how likely a tag is heard there for the first time
    still: NDArray[np.float32]  # (C,) probability that who is there stands
    prior: NDArray[np.float32]  # (C,) where a tag is when it is first heard
    watch: NDArray[np.int32]  # (C, 4) antennas that hear the cell best, NONE: no more
    home: NDArray[np.int32]  # (A, HOMES) cells around the antenna, near and far ones, NONE: no more
    part: NDArray[np.float32]  # (256,) probabilities as the pool remembers them
    steps: NDArray[np.uint8]  # (SILENT + 1, 3) how a silence of so many ticks is cut: how many of each span
    rest_us: NDArray[np.int64]  # (tag classes,) a longer visit is nobody's
    antenna_zone: NDArray[np.int16]  # (A,)
    brief: NDArray[np.bool_]  # (Z,) journeys end soon after this zone
    rule_mask: NDArray[np.uint64]
    rule_value: NDArray[np.uint64]
    rule_class: NDArray[np.uint8]
    table: NDArray[np.uint8]  # lifecycle.transitions()


class Limits(NamedTuple):
    """Scalars of Tuning, Settings and the field."""

    tick_us: int
    floor_dbm: float
    step_db: float
    sure_steps: int
    biases: int
    bias_steps: int
    """Steps of level from one class of bias to the next; the middle class has none."""
    block_steps: int
    bias_weight: float
    bias_prior: float
    bias_keep: float
    bias_hurdle: float
    rate_nats: float
    temper: float
    least: float
    slight: float
    jump: float
    lost_drift: float
    lost_nats: float
    stairs: float
    live_share: float
    remembered: int
    lag_ticks: int
    batch_ticks: int
    lost_ticks: int
    short_us: int
    glance_us: int
    hold_us: int
    forget_us: int
    join_gap_us: int
    visit_us: int
    end_after_exit_us: int
    end_silence_us: int


class Air(NamedTuple):
    """Which antennas are up, and what follows from it."""

    up: NDArray[np.uint8]  # (A,)
    mute: NDArray[np.uint8]  # (A,) 1: silent for everybody, though nothing says that it is down
    missed: NDArray[np.int64]  # (A,) expected hits since it last heard a tag, in thousandths
    missed_by: NDArray[np.uint64]  # (A,) which tags, a bit each by their hash
    drift: NDArray[np.int64]  # (A, 2) louder than expected, against other antennas: 0.01 dB summed, and how often
    heeded: NDArray[np.uint8]  # (A,) 1: its silence is in quiet_nats
    quiet_nats: NDArray[np.int32]  # (Q, B, 2, C) log likelihood of silence there, clear or blocked, in 1/QUIET
    quiet: NDArray[np.float32]  # (Q, B, 2, C) the same as a factor, tempered
    tags: NDArray[np.int64]  # (tag classes, Q * B) how often tags of a class were found to be of each rate and bias
    changed_tick: NDArray[np.int64]  # (C,) since when the quiet there has been as it is
    down: NDArray[np.int64]  # (Z, DOWNS, 2) times at which the zone was unknown, newest first; NEVER: until now


class Scratch(NamedTuple):
    """Room to work in; nothing in it outlives an event."""

    slot: NDArray[np.int32]  # (C,) place in the support, plus one; 0 outside of an event
    support: NDArray[np.int32]  # (C,) cells in question
    work: NDArray[np.float32]  # (PLANES * PLANE,) numbers by place in the support
    kept: NDArray[np.int32]  # (C,) places that stay
    pooled: NDArray[np.int32]  # (CELLS,) and that are remembered
    aside: NDArray[np.int32]  # (HOMES,)
    antenna: NDArray[np.int32]  # (HEARD,) antennas that heard the tag in this tick
    level: NDArray[np.int32]  # (HEARD,) mean level in steps, NONE if unknown
    reads: NDArray[np.int32]  # (HEARD,) class of how many
    number: NDArray[np.float32]  # (6 * CELLS,) what is remembered, and the same memory as bits
    bits: NDArray[np.int32]
    back: NDArray[np.float32]  # (C, 4) backward messages, 0 outside of a pass
    words: NDArray[np.uint64]  # (EVENTS * CELLS,) the cells of all of a tag's events
    message: NDArray[np.float32]  # (2, CELLS, 4)
    mass: NDArray[np.float32]  # (Z + 1,) probabilities of zones, that of no zone last; 0 outside of a sum
    zones: NDArray[np.int32]  # (Z + 1,) touched
    top_zone: NDArray[np.int16]  # (EVENTS, 3) likeliest zones of each event
    top_p: NDArray[np.float32]  # (EVENTS, 3)
