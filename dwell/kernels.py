"""Every compiled function of the engine, and the arrays that they work on.

They stand in one file because a cached kernel that calls a kernel of another file keeps its old code when that file
changes. For the same reason nothing here reads a figure or table of another module: they come as arguments.
Each has a plain twin in tests/naive.py.

A tag's tick with reads is an *event*. Its hidden state is a cell of the floor and whether its carrier stands or walks,
numbered 2 · cell + walking. For each event the tag's row keeps the likeliest states and their probabilities given all
reads so far; with a lag, at most EVENTS long, they are smoothed backwards by the reads that followed, and the likeliest
zone is decided.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dwell.visits import VISIT

F = TypeVar("F", bound=Callable[..., Any])
Int = int | np.integer[Any]


def kernel(function: F) -> F:
    """Compile; the one place for compiler flags. With NUMBA_DISABLE_JIT=1 the function stays Python."""
    compiled: Any = njit(cache=True, nogil=True, error_model="numpy")(function)
    return cast(F, compiled)


BEAM = 20
"""States that are kept in question for a tag."""
WIDE = 16
"""Cells that an event may bring into question."""
EVENTS = 36
"""Undecided events that a tag may have."""
PARTS = 65535
"""Probabilities are remembered in units of one over this."""
DOWNS = 8
"""Times of being unknown that a zone remembers."""
NONE = -1
"""In no zone."""
APART = 255
"""Distance of cells between which there is no way."""
NEVER = np.iinfo(np.int64).max

TAG = np.dtype(
    [
        ("epc", "<u8", (8,)),
        ("prob", "<f8", (BEAM,)),  # of each state in question, likeliest first
        ("bias", "<f8"),  # dB that this tag is heard louder than the model
        ("first_us", "<i8"),  # first and last read of the current life
        ("last_us", "<i8"),
        ("last_tick", "<i8"),  # of the last event
        ("journey_us", "<i8"),  # start, -1 without a journey
        ("enter_us", "<i8"),  # of the open visit; last_in_us: last decided read in its zone
        ("last_in_us", "<i8"),
        ("exit_us", "<i8"),  # of the visit before: visits don't overlap
        ("sure", "<f8"),  # sum of decided probabilities over the visit's events
        ("events", "<i8"),
        ("ticks", "<i8"),  # events of the whole life
        ("reads", "<i8"),
        ("epc_bits", "<i4"),
        ("visit_zone", "<i2"),  # of the open visit, NONE without
        ("last_zone", "<i2"),  # of the last visit
        ("elsewhere", "i1"),  # 1: decided to be in no zone since last_in_us
        ("censored", "i1"),
        ("tag_class", "i1"),
        ("state", "i1"),
        ("states", "<i2", (BEAM,)),
        ("n_states", "i1"),  # 0: not yet heard
        ("head", "i1"),  # oldest event in the ring
        ("n_ring", "i1"),
        ("ring_first_us", "<i8", (EVENTS,)),
        ("ring_last_us", "<i8", (EVENTS,)),
        ("ring_reads", "<i4", (EVENTS,)),
        ("ring_n", "i1", (EVENTS,)),
        ("ring_state", "<i2", (EVENTS, BEAM)),
        ("ring_prob", "<u2", (EVENTS, BEAM)),
    ],
    align=True,
)
"""One tag; `state` is lifecycle.State."""

OPENED, CLOSED, ENDED = 1, 2, 3
OUT = np.dtype([*((name, VISIT[name]) for name in VISIT.names or ()), ("kind", "u1"), ("tick", "<i8")], align=True)
"""What was decided at a tick: a visit OPENED or CLOSED, or a journey ENDED (enter_us, exit_us: its last visit's)."""


class Radio(NamedTuple):
    """What places say of reads: cells (parts of zones, or of the floor between them) by antenna, sparse rows."""

    row: NDArray[np.int32]  # (A + 1,) antenna a's entries are row[a]:row[a + 1]
    cell: NDArray[np.int32]  # (N,) cell within range
    level: NDArray[np.float64]  # (B, N) mean dBm of what is heard there, by class of the tag's bias
    sharp: NDArray[np.float64]  # (B, N) one over its spread in dB
    rate: NDArray[np.float64]  # (B, N) 0..1, of reads that get through
    cell_zone: NDArray[np.int16]  # (C,) NONE: between zones
    apart: NDArray[np.uint8]  # (C, C) metres from cell to cell; APART: no way
    cell_kind: NDArray[np.int64]  # (C,) moves.Kind: how long one stands there
    area: NDArray[np.float64]  # (C,) of the cell, in whole cells
    way: NDArray[np.float32]  # (kinds, gaps, metres, 4) moves.build()
    gap_bin: NDArray[np.int64]  # gap of each number of ticks
    stop: NDArray[np.float64]  # (kinds,) how likely one stops there, against anywhere
    antenna_zone: NDArray[np.int16]  # (A,)
    brief: NDArray[np.bool_]  # (Z,) journeys end soon after this zone
    rule_mask: NDArray[np.uint64]
    rule_value: NDArray[np.uint64]
    rule_class: NDArray[np.uint8]
    table: NDArray[np.uint8]  # lifecycle.transitions()


class Limits(NamedTuple):
    """Scalars of Tuning and Settings."""

    tick_us: int
    tail: float
    bias_weight: float
    bias_start_db: float
    bias_max_db: float
    bias_step_db: float
    biases: int
    share_weight: float
    unheard_nats: float
    none_nats: float
    beam_nats: float
    temper: float
    least: float
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
    share: NDArray[np.float64]  # (B, N) log share of the antenna among all that are up and hear the cell
    down: NDArray[np.int64]  # (Z, DOWNS, 2) times at which the zone was unknown, newest first; NEVER: until now


class Scratch(NamedTuple):
    """Room to work in; nothing in it outlives a tick."""

    cell: NDArray[np.float64]  # (C,) scores
    residual: NDArray[np.float64]  # (C,) dB above the model, summed
    cell_n: NDArray[np.int32]  # (C,) antennas that reach the cell
    cells: NDArray[np.int32]  # (C,) touched
    now: NDArray[np.float64]  # (BEAM,) smoothed probabilities of an event and of the one before it
    before: NDArray[np.float64]  # (BEAM,)
    came: NDArray[np.float64]  # (BEAM,)
    decided: NDArray[np.int64]  # (EVENTS,)
    sure: NDArray[np.float64]  # (EVENTS,)
    new_cell: NDArray[np.int32]  # (WIDE + BEAM,)
    new_score: NDArray[np.float64]
    new_state: NDArray[np.int32]  # (2 * (WIDE + BEAM),)
    new_prob: NDArray[np.float64]


# Tags by EPC: open addressing with linear probing; `index` holds row + 1, 0 is free.


@kernel
def tag_hash(epc: NDArray[np.uint64], bits: Int) -> Any:
    """64-bit mix of an EPC and its length (multiply-xorshift over the words)."""
    value = np.uint64(bits) * np.uint64(0x9E3779B97F4A7C15)
    for w in range(min((bits + 63) // 64, 8)):
        value = (value ^ epc[w]) * np.uint64(0xFF51AFD7ED558CCD)
        value ^= value >> np.uint64(32)
    return value


@kernel
def find(index: NDArray[np.int32], tags: NDArray[Any], epc: NDArray[np.uint64], bits: Int) -> Any:
    """Place in `index` of a tag, or of the free place where it would go."""
    mask = index.shape[0] - 1
    at = np.int64(tag_hash(epc, bits) & np.uint64(mask))
    while True:
        row = index[at] - 1
        if row < 0:
            return at
        tag = tags[row]
        if tag["epc_bits"] == bits:
            same = True
            for w in range(8):
                if tag["epc"][w] != epc[w]:
                    same = False
                    break
            if same:
                return at
        at = (at + 1) & mask


@kernel
def remove(index: NDArray[np.int32], tags: NDArray[Any], row: Int) -> None:
    """Free a tag's place, closing the gap so that later tags of its run stay findable."""
    mask = index.shape[0] - 1
    hole = find(index, tags, tags[row]["epc"], np.int64(tags[row]["epc_bits"]))
    at = hole
    while True:
        at = (at + 1) & mask
        other = index[at] - 1
        if other < 0:
            break
        home = np.int64(tag_hash(tags[other]["epc"], np.int64(tags[other]["epc_bits"])) & np.uint64(mask))
        if ((at - home) & mask) >= ((at - hole) & mask):
            index[hole] = index[at]
            hole = at
    index[hole] = 0


@kernel
def rebuild(index: NDArray[np.int32], tags: NDArray[Any]) -> None:
    """Fill an empty index."""
    for row in range(tags.shape[0]):
        if tags[row]["state"] != 0:
            index[find(index, tags, tags[row]["epc"], np.int64(tags[row]["epc_bits"]))] = row + 1


@kernel
def classify(radio: Radio, epc: NDArray[np.uint64]) -> Any:
    """Class of the first rule that matches, 0 without."""
    for r in range(radio.rule_mask.shape[0]):
        same = True
        for w in range(8):
            if (epc[w] & radio.rule_mask[r, w]) != radio.rule_value[r, w]:
                same = False
                break
        if same:
            return np.int64(radio.rule_class[r])
    return 0


# Outages.


@kernel
def switch(radio: Radio, air: Air, limits: Limits, antennas: NDArray[np.int64], up: Int, at_us: Int) -> None:
    """Antennas go up or down at `at_us`: zones become unknown or known, shares are taken among those that are up."""
    zones = air.down.shape[0]
    for a in antennas:
        air.up[a] = up
    alive = np.zeros(zones, np.uint8)
    for a in range(radio.antenna_zone.shape[0]):
        if air.up[a] and radio.antenna_zone[a] >= 0:
            alive[radio.antenna_zone[a]] = 1
    for z in range(zones):
        unknown = air.down[z, 0, 1] == NEVER and air.down[z, 0, 0] != NEVER
        if alive[z] == 0 and not unknown:
            for i in range(DOWNS - 1, 0, -1):
                air.down[z, i] = air.down[z, i - 1]
            air.down[z, 0, 0] = at_us
            air.down[z, 0, 1] = NEVER
        elif alive[z] == 1 and unknown:
            air.down[z, 0, 1] = at_us
    normalise(radio, air, limits)


@kernel
def normalise(radio: Radio, air: Air, limits: Limits) -> None:
    """Which share of a cell's reads each antenna gets, of those that are up; never below the odds of reflections."""
    total = np.empty(radio.cell_zone.shape[0])
    for b in range(air.share.shape[0]):
        total[:] = 1e-3
        for a in range(radio.antenna_zone.shape[0]):
            if air.up[a]:
                for e in range(radio.row[a], radio.row[a + 1]):
                    total[radio.cell[e]] += radio.rate[b, e]
        for e in range(radio.cell.shape[0]):
            share = np.log(radio.rate[b, e]) - np.log(total[radio.cell[e]])
            air.share[b, e] = max(share, limits.unheard_nats)


@kernel
def unknown_us(air: Air, zone: Int, from_us: Int, to_us: Int) -> Any:
    """How long the zone was unknown within a time."""
    total = 0
    for i in range(DOWNS):
        start: Any = max(from_us, air.down[zone, i, 0])
        end: Any = min(to_us, air.down[zone, i, 1])
        if end > start:
            total += end - start
    return total


# Evidence.


@kernel
def weigh(tag: Any, keys: NDArray[np.uint64], n: Int, radio: Radio, air: Air, limits: Limits, room: Scratch) -> Any:
    """Score the cells within range of the antennas that heard the tag in this tick; returns how many cells.

    `keys` are its n reads, sorted: antenna, time, RSSI, count from the highest bit down.
    """
    n_cells = 0
    i = 0
    b = bias_class(tag["bias"], limits)
    while i < n:
        antenna = np.int64(keys[i] >> np.uint64(48))
        total = 0.0
        known = 0
        while i < n and np.int64(keys[i] >> np.uint64(48)) == antenna:
            rssi = np.int64((keys[i] >> np.uint64(12)) & np.uint64(0xFFFF)) - 32768
            if rssi != -32768:
                total += rssi / 100.0
                known += 1
            i += 1
        far = limits.unheard_nats * limits.share_weight - (0.5 * limits.tail if known else 0.0)
        level = total / known if known else 0.0
        for e in range(radio.row[antenna], radio.row[antenna + 1]):
            c = radio.cell[e]
            if room.cell_n[c] == 0:
                room.cells[n_cells] = c
                n_cells += 1
                room.cell[c] = 0.0
                room.residual[c] = 0.0
            room.cell_n[c] += 1
            score = limits.share_weight * air.share[b, e] - far
            if known:
                off = level - radio.level[b, e]
                q = (off * radio.sharp[b, e]) ** 2
                score -= 0.5 * limits.tail * q / (q + limits.tail)
                room.residual[c] += off
            room.cell[c] += score
    return n_cells


@kernel
def bias_class(bias: Any, limits: Limits) -> Any:
    """Row of the radio tables for a tag's bias."""
    return min(max(np.int64(np.floor((limits.bias_max_db - bias) / limits.bias_step_db + 0.5)), 0), limits.biases - 1)


# The filter.


@kernel
def bring(tag: Any, n_touched: Int, radio: Radio, limits: Limits, room: Scratch) -> Any:
    """Cells that come into question by this event, beside those in question already; returns how many there are."""
    top = -np.inf
    for i in range(n_touched):
        c = room.cells[i]
        if radio.cell_zone[c] < 0:
            room.cell[c] += limits.none_nats
        top = max(top, room.cell[c])
    width = limits.beam_nats
    count = WIDE + 1
    while count > WIDE:
        count = 0
        for i in range(n_touched):
            if room.cell[room.cells[i]] >= top - width:
                count += 1
        if count > WIDE:
            width *= 0.7
            if width < 1e-3:
                break
    n = 0
    for i in range(n_touched):
        c = room.cells[i]
        if room.cell[c] >= top - width and n < WIDE:
            room.new_cell[n] = c
            room.new_score[n] = room.cell[c]
            n += 1
    for j in range(np.int64(tag["n_states"])):
        c = np.int32(tag["states"][j] >> 1)
        heard = room.cell_n[c] > 0
        known = False
        for i in range(n):
            known = known or room.new_cell[i] == c
        if not known:
            room.new_cell[n] = c
            room.new_score[n] = room.cell[c] if heard else 0.0
            n += 1
    return n


@kernel
def passage(radio: Radio, gap: Int, source: Int, target: Int) -> Any:
    """Probability of a state after another one, `gap` bins of ticks later."""
    a, b = source >> 1, target >> 1
    metres = min(np.int64(radio.apart[a, b]), radio.way.shape[2] - 1)
    result = np.float64(radio.way[radio.cell_kind[a], gap, metres, (source & 1) * 2 + (target & 1)])
    if a != b:
        result *= radio.area[b]
    if target & 1 == 0 and (a != b or source & 1 == 1):
        result *= radio.stop[radio.cell_kind[b]]
    return result


@kernel
def advance_tag(
    tag: Any,
    n_new: Int,
    tick: Int,
    first_us: Int,
    last_us: Int,
    reads: Int,
    radio: Radio,
    limits: Limits,
    room: Scratch,
) -> None:
    """One event: the probabilities of the states in question, the BEAM likeliest kept, likeliest first."""
    n_old = np.int64(tag["n_states"])
    gap = radio.gap_bin[min(tick - tag["last_tick"], radio.gap_bin.shape[0] - 1)]
    top = -np.inf
    for i in range(n_new):
        top = max(top, room.new_score[i])
    states, probs = tag["states"], tag["prob"]  # a view taken in a loop costs as much as the loop
    ring_state, ring_prob = tag["ring_state"], tag["ring_prob"]
    for i in range(n_new):
        evidence = np.exp(limits.temper * (room.new_score[i] - top))
        state = 2 * np.int64(room.new_cell[i])
        stands = 0.5 if n_old == 0 else 0.0
        walks = stands
        for j in range(n_old):
            stands += probs[j] * passage(radio, gap, np.int64(states[j]), state)
            walks += probs[j] * passage(radio, gap, np.int64(states[j]), state + 1)
        room.new_state[2 * i] = state
        room.new_state[2 * i + 1] = state + 1
        room.new_prob[2 * i] = stands * evidence
        room.new_prob[2 * i + 1] = walks * evidence
    at = (np.int64(tag["head"]) + np.int64(tag["n_ring"])) % EVENTS
    tag["n_ring"] += 1
    tag["ring_first_us"][at] = first_us
    tag["ring_last_us"][at] = last_us
    tag["ring_reads"][at] = reads
    n_new = 2 * n_new
    total = 0.0
    kept = 0
    for k in range(min(n_new, BEAM)):
        best = k
        for i in range(k + 1, n_new):
            lead = room.new_prob[i] - room.new_prob[best]
            if lead > 0.0 or (lead == 0.0 and room.new_state[i] < room.new_state[best]):
                best = i
        state, prob = room.new_state[best], room.new_prob[best]
        room.new_state[best] = room.new_state[k]
        room.new_prob[best] = room.new_prob[k]
        if k > 0 and prob < probs[0] * limits.least:
            break
        states[k] = state
        probs[k] = prob
        total += prob
        kept += 1
    for k in range(kept):
        probs[k] /= total
        ring_state[at, k] = states[k]
        ring_prob[at, k] = max(np.int64(probs[k] * PARTS + 0.5), 1)
    tag["ring_n"][at] = kept
    tag["n_states"] = kept
    tag["ticks"] += 1
    tag["last_tick"] = tick


@kernel
def follow_bias(tag: Any, limits: Limits, room: Scratch) -> None:
    """Move the tag's bias towards what its likeliest cell leaves unexplained."""
    c = tag["states"][0] >> 1
    if room.cell_n[c] > 0:
        step = limits.bias_weight * room.residual[c] / room.cell_n[c]
        tag["bias"] = min(
            max(tag["bias"] + step, limits.bias_max_db - limits.bias_step_db * (limits.biases - 1)), limits.bias_max_db
        )


@kernel
def clear(n_touched: Int, room: Scratch) -> None:
    """Leave the scratch as it was found."""
    for i in range(n_touched):
        room.cell_n[room.cells[i]] = 0


@kernel
def smooth(tag: Any, later: Int, at: Int, radio: Radio, limits: Limits, room: Scratch) -> None:
    """From the probabilities of event `later` given all reads (room.now) to those of `at`, the one before it
    (Rauch, Tung and Striebel's backward step, on a discrete state)."""
    ticks = tag["ring_last_us"][later] // limits.tick_us - tag["ring_last_us"][at] // limits.tick_us
    gap = radio.gap_bin[min(ticks, radio.gap_bin.shape[0] - 1)]
    n = np.int64(tag["ring_n"][at])
    ring_state, ring_prob = tag["ring_state"], tag["ring_prob"]
    for k in range(n):
        room.before[k] = 0.0
    for m in range(np.int64(tag["ring_n"][later])):
        state = np.int64(ring_state[later, m])
        total = 0.0
        for k in range(n):
            came = ring_prob[at, k] * passage(radio, gap, np.int64(ring_state[at, k]), state)
            room.came[k] = came
            total += came
        for k in range(n):
            room.before[k] += room.came[k] * (room.now[m] / total)
    for k in range(n):
        room.now[k] = room.before[k]


@kernel
def likeliest(tag: Any, at: Int, radio: Radio, room: Scratch) -> Any:
    """Zone of an event with the greatest probability in room.now, and that probability; the first of equal ones."""
    n = np.int64(tag["ring_n"][at])
    states = tag["ring_state"][at]
    zone: Any = NONE
    most = -1.0
    whole = 0.0
    for k in range(n):
        whole += room.now[k]
        mine = np.int64(radio.cell_zone[states[k] >> 1])
        total = 0.0
        for m in range(n):
            if radio.cell_zone[states[m] >> 1] == mine:
                total += room.now[m]
        if total > most:
            most = total
            zone = mine
    return zone, most / whole


@kernel
def decide(
    tag: Any, upto_us: Int, tick: Int, radio: Radio, air: Air, limits: Limits, room: Scratch, out: NDArray[Any], n: Int
) -> Any:
    """Decide the events up to `upto_us`, smoothed by all that is known; returns the new length of `out`."""
    count = 0
    later: Any = -1
    for i in range(np.int64(tag["n_ring"]) - 1, -1, -1):
        at = (np.int64(tag["head"]) + i) % EVENTS
        if later < 0:
            for k in range(np.int64(tag["ring_n"][at])):
                room.now[k] = tag["ring_prob"][at, k]
        else:
            smooth(tag, later, at, radio, limits, room)
        later = at
        if tag["ring_last_us"][at] <= upto_us:
            count = max(count, i + 1)
            room.decided[i], room.sure[i] = likeliest(tag, at, radio, room)
    alone = tag["ticks"] < 2  # a tag heard but once is a stray
    for i in range(0 if alone else count):
        at = (np.int64(tag["head"]) + i) % EVENTS
        n = place(
            tag,
            room.decided[i],
            room.sure[i],
            np.int64(tag["ring_first_us"][at]),
            np.int64(tag["ring_last_us"][at]),
            np.int64(tag["ring_reads"][at]),
            tick,
            radio,
            air,
            limits,
            out,
            n,
        )
    tag["head"] = (np.int64(tag["head"]) + count) % EVENTS
    tag["n_ring"] = np.int64(tag["n_ring"]) - count
    return n


# Visits.


@kernel
def step(tag: Any, event: Int, radio: Radio) -> None:
    """The one place where a tag's state changes."""
    tag["state"] = radio.table[tag["state"], event]


@kernel
def place(
    tag: Any,
    zone: Int,
    sure: float,
    first_us: Int,
    last_us: Int,
    reads: Int,
    tick: Int,
    radio: Radio,
    air: Air,
    limits: Limits,
    out: NDArray[Any],
    n: Int,
) -> Any:
    """Put one decided event into the tag's visits."""
    current = np.int64(tag["visit_zone"])
    if current >= 0:
        gap = first_us - tag["last_in_us"] - unknown_us(air, current, np.int64(tag["last_in_us"]), first_us)
        if zone < 0:
            tag["elsewhere"] = 1
            if gap > limits.join_gap_us:
                return close(tag, NEVER, 0, tick, radio, air, limits, out, n)
            return n
        if zone == current and gap <= (limits.join_gap_us if tag["elsewhere"] else limits.hold_us):
            tag["last_in_us"] = last_us
            tag["elsewhere"] = 0
            tag["sure"] += sure
            tag["events"] += 1
            tag["reads"] += reads
            step(tag, 3 if last_us - tag["enter_us"] >= limits.visit_us else 2, radio)
            return n
        n = close(tag, first_us, 0, tick, radio, air, limits, out, n)
        if tag["elsewhere"] == 0:
            before = min(max(limits.allow_us, (gap - limits.walk_us) // 2), limits.fill_us)
            tag["enter_us"] = max(first_us - before, tag["exit_us"])
        else:
            tag["enter_us"] = max(first_us - limits.allow_us, tag["exit_us"])
    elif zone < 0:
        return n
    else:
        tag["enter_us"] = max(first_us - limits.allow_us, tag["exit_us"])
    tag["visit_zone"] = zone
    tag["last_zone"] = zone
    tag["last_in_us"] = last_us
    tag["elsewhere"] = 0
    tag["sure"] = sure
    tag["events"] = 1
    tag["reads"] = reads
    before_us = tag["enter_us"] - limits.join_gap_us
    tag["censored"] = 1 if unknown_us(air, zone, before_us, tag["enter_us"]) > 0 else 0
    if tag["journey_us"] < 0:
        tag["journey_us"] = tag["enter_us"]
    step(tag, 1, radio)
    return emit(tag, 1, tick, out, n)


@kernel
def close(
    tag: Any, next_us: Int, cut: Int, tick: Int, radio: Radio, air: Air, limits: Limits, out: NDArray[Any], n: Int
) -> Any:
    """End the open visit, at the latest halfway to `next_us`, the first read in another zone; `cut`: end not seen."""
    last_us = np.int64(tag["last_in_us"])
    exit_us = last_us + limits.allow_us
    if next_us != NEVER:
        if tag["elsewhere"] == 0:
            exit_us = last_us + min(max(limits.allow_us, (next_us - last_us - limits.walk_us) // 2), limits.fill_us)
        exit_us = min(exit_us, last_us + (next_us - last_us) // 2)
    elif cut:
        exit_us = last_us
    if cut or unknown_us(air, np.int64(tag["visit_zone"]), last_us, min(next_us, last_us + limits.join_gap_us)) > 0:
        tag["censored"] = 1
    tag["exit_us"] = exit_us
    n = emit(tag, 2, tick, out, n)
    tag["visit_zone"] = NONE
    step(tag, 5, radio)
    return n


@kernel
def emit(tag: Any, kind: Int, tick: Int, out: NDArray[Any], n: Int) -> Any:
    """Write down a decision."""
    row = out[n]
    for w in range(8):
        row["epc"][w] = tag["epc"][w]
    row["epc_bits"] = tag["epc_bits"]
    row["tag_class"] = tag["tag_class"]
    row["journey_us"] = tag["journey_us"]
    row["zone"] = tag["visit_zone"]
    row["enter_us"] = tag["enter_us"]
    row["exit_us"] = tag["last_in_us"] if kind == 1 else tag["exit_us"]
    row["reads"] = tag["reads"]
    row["censored"] = tag["censored"]
    row["confidence"] = tag["sure"] / tag["events"]
    row["kind"] = kind
    row["tick"] = tick
    return n + 1


@kernel
def patience_us(tag: Any, brief: Int, limits: Limits) -> Any:
    """Silence that ends the tag's journey."""
    if tag["journey_us"] < 0:
        return limits.forget_us
    return limits.end_after_exit_us if brief else limits.end_silence_us


@kernel
def look(tag: Any, tick: Int, radio: Radio, air: Air, limits: Limits, room: Scratch, out: NDArray[Any], n: Int) -> Any:
    """What time alone does to a tag; returns (length of `out`, tick of the next look, NEVER when it is gone)."""
    now_us = (tick + 1) * limits.tick_us
    while tag["n_ring"] > 0:
        oldest = tag["ring_last_us"][tag["head"]] // limits.tick_us
        if oldest + limits.lag_ticks + limits.batch_ticks > tick and tag["n_ring"] < EVENTS:
            return n, oldest + limits.lag_ticks + limits.batch_ticks
        upto_us = max((tick - limits.lag_ticks + 1) * limits.tick_us - 1, tag["ring_last_us"][tag["head"]])
        n = decide(tag, upto_us, tick, radio, air, limits, room, out, n)
    silent_us = now_us - tag["last_us"]
    if tag["visit_zone"] >= 0:
        zone = np.int64(tag["visit_zone"])
        out_us = now_us - tag["last_in_us"]
        known_us = out_us - unknown_us(air, zone, np.int64(tag["last_in_us"]), now_us)
        if known_us < limits.hold_us and silent_us < limits.end_silence_us:
            if out_us >= limits.join_gap_us:
                step(tag, 4, radio)
            wait_us = limits.hold_us - known_us
            if tag["state"] != 4:
                wait_us = min(wait_us, limits.join_gap_us - out_us)
            return n, tick + max(1, wait_us // limits.tick_us)
        n = close(tag, NEVER, 0, tick, radio, air, limits, out, n)
    brief = 1 if tag["last_zone"] >= 0 and radio.brief[tag["last_zone"]] else 0
    left_us = patience_us(tag, brief, limits) - silent_us
    if left_us > 0:
        return n, tick + max(1, left_us // limits.tick_us)
    if tag["journey_us"] >= 0:
        n = emit(tag, 3, tick, out, n)
    step(tag, 6, radio)
    return n, NEVER


# The run through time.

READS, MERCHANDISE, DUPLICATES, TAGS, STRAYS = 0, 1, 2, 3, 4
COUNTERS = 5
MERCHANDISE_CLASS = 4
"""layout.TagClass.MERCHANDISE: such tags get no place at all."""


@kernel
def enlarge(out: NDArray[Any], n: Int) -> Any:
    """`out` with room for twice as much."""
    larger = np.empty(2 * out.shape[0], out.dtype)
    larger[:n] = out[:n]
    return larger


@kernel
def admit(
    tag: Any, epc: NDArray[np.uint64], bits: Int, tag_class: Int, tick: Int, radio: Radio, limits: Limits
) -> None:
    """Begin a tag's life in a free row."""
    for w in range(8):
        tag["epc"][w] = epc[w]
    tag["epc_bits"] = bits
    tag["tag_class"] = tag_class
    tag["state"] = 0
    tag["n_states"] = 0
    tag["ticks"] = 0
    tag["bias"] = limits.bias_start_db
    tag["first_us"] = -1
    tag["last_us"] = -1
    tag["last_tick"] = tick - 1
    tag["journey_us"] = -1
    tag["exit_us"] = -1
    tag["visit_zone"] = NONE
    tag["last_zone"] = NONE
    tag["head"] = 0
    tag["n_ring"] = 0
    step(tag, 0, radio)


@kernel
def sort_keys(keys: NDArray[np.uint64], n: Int) -> Any:
    """Sort the first n keys and drop repeated ones; returns how many remain."""
    gap = 1
    while gap < n // 3:
        gap = 3 * gap + 1
    while gap > 0:  # shellsort: most ticks have a handful of reads
        for i in range(gap, n):
            key = keys[i]
            j = i
            while j >= gap and keys[j - gap] > key:
                keys[j] = keys[j - gap]
                j -= gap
            keys[j] = key
        gap //= 3
    m = 0
    for i in range(n):
        if i == 0 or keys[i] != keys[m - 1]:
            keys[m] = keys[i]
            m += 1
    return m


@kernel
def hear(
    tag: Any, keys: NDArray[np.uint64], n: Int, tick: Int, radio: Radio, air: Air, limits: Limits, room: Scratch
) -> None:
    """One event of a tag from its n sorted reads."""
    first = np.int64((keys[0] >> np.uint64(28)) & np.uint64(0xFFFFF))
    last = first
    for i in range(1, n):
        offset = np.int64((keys[i] >> np.uint64(28)) & np.uint64(0xFFFFF))
        first = min(first, offset)
        last = max(last, offset)
    start_us = tick * limits.tick_us
    if tag["first_us"] < 0:
        tag["first_us"] = start_us + first
    tag["last_us"] = start_us + last
    n_touched = weigh(tag, keys, n, radio, air, limits, room)
    n_new = bring(tag, n_touched, radio, limits, room)
    if n_new:
        advance_tag(tag, n_new, tick, start_us + first, start_us + last, n, radio, limits, room)
        follow_bias(tag, limits, room)
    clear(n_touched, room)


@kernel
def run(
    reads: NDArray[Any],
    order: NDArray[np.int64],
    at: Int,
    tick: Int,
    end_tick: Int,
    next_look: Int,
    tags: NDArray[Any],
    due: NDArray[np.int64],
    index: NDArray[np.int32],
    free: NDArray[np.int32],
    n_free: Int,
    chain: NDArray[np.int64],
    later: NDArray[np.int64],
    keys: NDArray[np.uint64],
    counters: NDArray[np.int64],
    radio: Radio,
    air: Air,
    limits: Limits,
    room: Scratch,
    out: NDArray[Any],
    n: Int,
) -> Any:
    """Ticks [tick, end_tick) of reads, which `order` puts in order of their ticks from `at` on.

    Returns (tick, at, next_look, n_free, out, n): a tick before end_tick when there are no free rows for its tags;
    call again with more. `chain` (rows) and `later` (reads) link a tick's reads by tag; `chain` is -1 throughout.
    """
    touched = np.empty(chain.shape[0], np.int64)
    while tick < end_tick:
        here = tick
        next_read = reads[order[at]]["time_us"] // limits.tick_us if at < order.shape[0] else NEVER
        tick = min(next_read, next_look)
        if tick >= end_tick:
            tick = end_tick
            break
        tick = max(tick, here)
        # Rows for all tags of the tick first: if they don't suffice, nothing has happened yet.
        end = at
        while end < order.shape[0] and reads[order[end]]["time_us"] // limits.tick_us == tick:
            read = reads[order[end]]
            bits = np.int64(read["epc_bits"])
            place_at = find(index, tags, read["epc"], bits)
            row = index[place_at] - 1
            if row < 0:
                tag_class = classify(radio, read["epc"])
                if tag_class != MERCHANDISE_CLASS:
                    if n_free == 0:
                        return tick, at, next_look, n_free, out, n
                    n_free -= 1
                    row = free[n_free]
                    index[place_at] = row + 1
                    admit(tags[row], read["epc"], bits, tag_class, tick, radio, limits)
            later[end] = row
            end += 1
        n_touched = 0
        for i in range(at, end):
            row = later[i]
            if row < 0:
                counters[MERCHANDISE] += 1
                continue
            if chain[row] < 0:
                touched[n_touched] = row
                n_touched += 1
            later[i] = chain[row]
            chain[row] = i
        counters[READS] += end - at
        at = end
        for t in range(n_touched):
            row = touched[t]
            tag = tags[row]
            m = 0
            i = chain[row]
            while i >= 0:
                read = reads[order[i]]
                offset = read["time_us"] - tick * limits.tick_us
                keys[m] = (
                    (np.uint64(read["antenna"]) << np.uint64(48))
                    | (np.uint64(offset) << np.uint64(28))
                    | (np.uint64(np.int64(read["rssi_cdbm"]) + 32768) << np.uint64(12))
                    | np.uint64(min(read["count"], 4095))
                )
                m += 1
                i = later[i]
            chain[row] = -1
            kept = sort_keys(keys, m)
            counters[DUPLICATES] += m - kept
            if tag["first_us"] < 0:
                counters[TAGS] += 1
            hear(tag, keys, kept, tick, radio, air, limits, room)
            if tag["n_ring"] > 0:
                due[row] = tag["ring_last_us"][tag["head"]] // limits.tick_us + limits.lag_ticks + limits.batch_ticks
            else:  # heard by antennas that reach no cell only
                due[row] = min(due[row], tick)
            next_look = min(next_look, due[row])
        if next_look <= tick:
            next_look = NEVER
            for row in range(tags.shape[0]):
                if due[row] <= tick:
                    if n + EVENTS * 2 + 4 > out.shape[0]:
                        out = enlarge(out, n)
                    tag = tags[row]
                    n, due[row] = look(tag, tick, radio, air, limits, room, out, n)
                    if due[row] == NEVER:
                        if tag["journey_us"] < 0:
                            counters[STRAYS] += 1
                        remove(index, tags, row)
                        tag["state"] = 0
                        free[n_free] = row
                        n_free += 1
                next_look = min(next_look, due[row])
        tick += 1
    return tick, at, next_look, n_free, out, n


@kernel
def end_all(
    tags: NDArray[Any],
    tick: Int,
    end_us: Int,
    radio: Radio,
    air: Air,
    limits: Limits,
    room: Scratch,
    out: NDArray[Any],
    n: Int,
) -> Any:
    """The recording is over: decide everything, close every visit and journey; returns (out, n)."""
    for row in range(tags.shape[0]):
        tag = tags[row]
        if tag["state"] == 0:
            continue
        if n + EVENTS * 2 + 4 > out.shape[0]:
            out = enlarge(out, n)
        n = decide(tag, NEVER, tick, radio, air, limits, room, out, n)
        if tag["visit_zone"] >= 0:
            cut = 1 if end_us - tag["last_in_us"] <= limits.join_gap_us else 0
            n = close(tag, NEVER, cut, tick, radio, air, limits, out, n)
        if tag["journey_us"] >= 0:
            n = emit(tag, 3, tick, out, n)
        step(tag, 6, radio)
        tag["state"] = 0
    return out, n
