"""Every compiled function of the engine.

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
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dwell.tables import Air, Limits, Radio, Scratch, Tags

F = TypeVar("F", bound=Callable[..., Any])
Int = int | np.integer[Any]


def kernel(function: F) -> F:
    """Compile; the one place for compiler flags. With NUMBA_DISABLE_JIT=1 the function stays Python."""
    compiled: Any = njit(cache=True, nogil=True, error_model="numpy")(function)
    return cast(F, compiled)


BEAM = 16
"""Cells that are kept in question for a tag."""
WIDE = 16
"""Cells that an event may bring into question."""
EVENTS = 44
"""Undecided events that a tag may have."""
LOGS = 16
"""Probabilities of undecided events are remembered as their logarithms, in steps of one over this."""
LOUD = 256
"""Levels of reads and of places are told apart in so many steps."""
LEAST_NATS = 1e-3
"""Whatever is within range says something: a cell that scores nothing wasn't touched."""
STUCK_STATE = 7
"""lifecycle.State.STUCK."""
MOVED = 5
"""Events elsewhere after which a stuck tag isn't stuck any more."""
DRIFT_EVENTS = 8
"""One event of so many of a tag says how loud antennas are."""
DOWNS = 8
"""Times of being unknown that a zone remembers."""
NONE = -1
"""In no zone."""
NEVER = np.iinfo(np.int64).max

OPENED, CLOSED, ENDED, STUCK = 1, 2, 3, 4
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
    """Which share of a cell's reads each antenna gets, of those that are up, against the odds of reflections."""
    total = np.empty(radio.cell_zone.shape[0])
    for b in range(air.share.shape[0]):
        total[:] = 1e-3
        for a in range(radio.antenna_zone.shape[0]):
            if air.up[a]:
                for e in range(radio.row[a], radio.row[a + 1]):
                    total[radio.cell[e]] += radio.rate[b, e]
        for e in range(radio.cell.shape[0]):
            share = np.log(radio.rate[b, e]) - np.log(total[radio.cell[e]])
            air.share[b, e] = limits.share_weight * max(share - limits.unheard_nats, LEAST_NATS)


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
def weigh(bias: Any, keys: NDArray[np.uint64], n: Int, radio: Radio, air: Air, limits: Limits, room: Scratch) -> Any:
    """Score the cells within range of the antennas that heard the tag in this tick, against those that are not.

    `keys` are its n reads, sorted: antenna, time, RSSI, count from the highest bit down. Returns how many cells and how
    many antennas with a level there are.
    """
    n_cells = 0
    n_levels = 0
    i = 0
    b = bias_class(bias, limits)
    shift = b * limits.bias_steps
    while i < n:
        antenna = np.int64(keys[i] >> np.uint64(48))
        total = 0.0
        known = 0
        at = i
        while i < n and np.int64(keys[i] >> np.uint64(48)) == antenna:
            rssi = np.int64((keys[i] >> np.uint64(12)) & np.uint64(0xFFFF)) - 32768
            if rssi != -32768:
                total += rssi / 100.0
                known += 1
            i += 1
        first, last = radio.row[antenna], radio.row[antenna + 1]
        again = np.float32(min(1.0 + limits.repeat_weight * (i - at - 1), limits.repeat_most))
        heard: Any = LOUD  # a row of zeros, for reads without a level
        if known:
            level = total / known
            room.antenna[n_levels] = antenna
            room.level[n_levels] = level
            n_levels += 1
            heard = min(max(np.int64((level - limits.loud_dbm) / limits.loud_step_db + 0.5), 0), LOUD - 1)
        for e in range(first, last):
            c = radio.cell[e]
            before = room.cell[c]
            if before == 0.0:
                room.cells[n_cells] = c
                n_cells += 1
            room.cell[c] = before + (again * air.share[b, e] + radio.fit[heard, radio.step[e] - shift])
    return n_cells, n_levels


@kernel
def bias_class(bias: Any, limits: Limits) -> Any:
    """Row of the radio tables for a tag's bias."""
    return min(max(np.int64(np.floor((limits.bias_max_db - bias) / limits.bias_step_db + 0.5)), 0), limits.biases - 1)


# The filter.


@kernel
def bring(tags: Tags, row: Int, n_touched: Int, radio: Radio, limits: Limits, room: Scratch) -> Any:
    """Cells that come into question by this event, beside those in question already; returns how many there are."""
    top = -np.inf
    for i in range(n_touched):
        c = room.cells[i]
        score = room.cell[c] + radio.none[c]
        room.score[i] = score
        top = max(top, score)
    width = limits.beam_nats
    n = WIDE + 1
    while n > WIDE:
        n = 0
        for i in range(n_touched):
            if room.score[i] >= top - width:
                n += 1
        if n > WIDE:
            width *= 0.7
            if width < 1e-3:
                break
    n = 0
    for i in range(n_touched):
        if room.score[i] >= top - width and n < WIDE:
            c = room.cells[i]
            room.slot[c] = 1
            room.new_cell[n] = c
            room.new_score[n] = room.score[i]
            n += 1
    brought = n
    for j in range(np.int64(tags.life[row]["n_cells"])):
        c = np.int32(tags.cells[row, j])
        if room.slot[c] == 0:
            room.new_cell[n] = c
            room.new_score[n] = room.cell[c] + radio.none[c] if room.cell[c] != 0.0 else 0.0
            n += 1
    for i in range(brought):
        room.slot[room.new_cell[i]] = 0
    return n


@kernel
def predict(tags: Tags, row: Int, n_new: Int, gap: Int, radio: Radio, limits: Limits, room: Scratch) -> None:
    """How likely each cell in question is now, standing and walking, by where the tag was before."""
    n_old = np.int64(tags.life[row]["n_cells"])
    for j in range(n_old):
        room.base[j] = (radio.cell_kind[tags.cells[row, j]] * limits.gaps + gap) * limits.metres
    for i in range(n_new):
        b = room.new_cell[i]
        stands = 0.0
        walks = 0.0
        same_stands = 0.0
        same_walks = 0.0
        kept = 0.0
        for j in range(n_old):
            a = tags.cells[row, j]
            at = room.base[j] + radio.apart[a, b]
            stood = tags.probs[row, j, 0]
            walked = tags.probs[row, j, 1]
            if a == b:
                kept = stood * radio.way[at, 0]
                same_stands = walked * radio.way[at, 2]
                same_walks = stood * radio.way[at, 1] + walked * radio.way[at, 3]
            else:
                stands += stood * radio.way[at, 0] + walked * radio.way[at, 2]
                walks += stood * radio.way[at, 1] + walked * radio.way[at, 3]
        if n_old == 0:
            kept = 0.5
            same_walks = 0.5
        room.new_prob[i, 0] = kept + radio.stop[b] * same_stands + radio.stand_at[b] * stands
        room.new_prob[i, 1] = same_walks + radio.walk_to[b] * walks


@kernel
def advance_tag(
    tags: Tags,
    row: Int,
    n_new: Int,
    tick: Int,
    first_us: Int,
    last_us: Int,
    reads: Int,
    radio: Radio,
    limits: Limits,
    room: Scratch,
) -> Any:
    """One event: the probabilities of the cells in question, the BEAM likeliest kept; returns the likeliest."""
    tag = tags.life[row]
    gap = radio.gap_bin[min(tick - tag["last_tick"], radio.gap_bin.shape[0] - 1)]
    predict(tags, row, n_new, gap, radio, limits, room)
    top = -np.inf
    for i in range(n_new):
        top = max(top, room.new_score[i])
    most = 0.0
    for i in range(n_new):
        evidence = np.exp(limits.temper * (room.new_score[i] - top))
        room.new_prob[i, 0] *= evidence
        room.new_prob[i, 1] *= evidence
        room.new_score[i] = room.new_prob[i, 0] + room.new_prob[i, 1]
        most = max(most, room.new_score[i])
    kept = 0
    for i in range(n_new):
        if room.new_score[i] >= most * limits.least:
            room.new_cell[kept] = room.new_cell[i]
            room.new_score[kept] = room.new_score[i]
            room.new_prob[kept, 0] = room.new_prob[i, 0]
            room.new_prob[kept, 1] = room.new_prob[i, 1]
            kept += 1
    while kept > BEAM:
        worst = 0
        for i in range(1, kept):
            lead = room.new_score[i] - room.new_score[worst]
            if lead < 0.0 or (lead == 0.0 and room.new_cell[i] > room.new_cell[worst]):
                worst = i
        kept -= 1
        room.new_cell[worst] = room.new_cell[kept]
        room.new_score[worst] = room.new_score[kept]
        room.new_prob[worst, 0] = room.new_prob[kept, 0]
        room.new_prob[worst, 1] = room.new_prob[kept, 1]
    total = 0.0
    best = 0
    for k in range(kept):
        total += room.new_score[k]
        lead = room.new_score[k] - room.new_score[best]
        if lead > 0.0 or (lead == 0.0 and room.new_cell[k] < room.new_cell[best]):
            best = k
    at = (np.int64(tag["head"]) + np.int64(tag["n_ring"])) % EVENTS
    for k in range(kept):
        c = room.new_cell[k]
        tags.cells[row, k] = c
        tags.ring_cells[row, at, k] = c
        for m in range(2):
            prob = room.new_prob[k, m] / total
            tags.probs[row, k, m] = prob
            steps: Any = np.int64(0.5 - LOGS * np.log(prob))
            tags.ring_probs[row, at, k, m] = min(steps, 255)
        room.zone[radio.cell_zone[c]] += room.new_score[k]
    zone = radio.cell_zone[room.new_cell[best]]
    if zone != tag["live_zone"] and room.zone[zone] >= limits.live_share * total:
        tag["live_zone"] = zone
        tag["live_us"] = first_us
    for k in range(kept):
        room.zone[radio.cell_zone[room.new_cell[k]]] = 0.0
    tags.ring_us[row, at] = first_us
    tags.ring_span_us[row, at] = last_us - first_us
    tags.ring_reads[row, at] = reads
    tags.ring_n[row, at] = kept
    tags.ring_gap[row, at] = gap
    tag["n_ring"] += 1
    tag["n_cells"] = kept
    tag["ticks"] += 1
    tag["last_tick"] = tick
    return room.new_cell[best]


@kernel
def follow_bias(tag: Any, cell: Int, n_levels: Int, radio: Radio, air: Air, limits: Limits, room: Scratch) -> None:
    """Move the tag's bias towards what its likeliest cell leaves unexplained; now and then, for shadows there stay the
    same, note which antennas are louder than others: in integers, whose sums are the same in any order."""
    shift = bias_class(tag["bias"], limits) * limits.bias_steps
    total = 0.0
    n = 0
    for i in range(n_levels):
        first, last = radio.row[room.antenna[i]], radio.row[room.antenna[i] + 1]
        e = first + np.searchsorted(radio.cell[first:last], cell)
        if e < last and radio.cell[e] == cell:
            room.off[n] = room.level[i] - radio.mean[radio.step[e] - shift]
            room.antenna[n] = room.antenna[i]
            total += room.off[n]
            n += 1
    if n > 1 and tag["ticks"] % DRIFT_EVENTS == 0 and tag["state"] != STUCK_STATE:
        for i in range(n):
            air.drift[room.antenna[i], 0] += np.int64(100.0 * (room.off[i] - total / n))
            air.drift[room.antenna[i], 1] += 1
    if n:
        low = limits.bias_max_db - limits.bias_step_db * (limits.biases - 1)
        tag["bias"] = min(max(tag["bias"] + limits.bias_weight * total / n, low), limits.bias_max_db)


# Looking back.


@kernel
def smooth(tags: Tags, row: Int, later: Int, at: Int, radio: Radio, limits: Limits, room: Scratch) -> None:
    """From the probabilities of event `later` given all reads (room.now) to those of `at`, the one before it
    (Rauch, Tung and Striebel's backward step, on a discrete state)."""
    gap = np.int64(tags.ring_gap[row, later])
    n = np.int64(tags.ring_n[row, at])
    for k in range(n):
        room.base[k] = (radio.cell_kind[tags.ring_cells[row, at, k]] * limits.gaps + gap) * limits.metres
        room.before[k, 0] = 0.0
        room.before[k, 1] = 0.0
    for m in range(np.int64(tags.ring_n[row, later])):
        if room.now[m, 0] + room.now[m, 1] < limits.slight:
            continue
        b = tags.ring_cells[row, later, m]
        stands = 0.0
        walks = 0.0
        for k in range(n):
            a = tags.ring_cells[row, at, k]
            way = room.base[k] + radio.apart[a, b]
            stood = radio.part[tags.ring_probs[row, at, k, 0]]
            walked = radio.part[tags.ring_probs[row, at, k, 1]]
            kept = stood * radio.way[way, 0]
            left = stood * radio.way[way, 1]
            stopped = walked * radio.way[way, 2]
            went = walked * radio.way[way, 3]
            if a == b:
                stopped *= radio.stop[b]
            else:
                kept *= radio.stand_at[b]
                left *= radio.walk_to[b]
                stopped *= radio.stand_at[b]
                went *= radio.walk_to[b]
            room.came[k, 0] = kept
            room.came[k, 1] = left
            room.came[k, 2] = stopped
            room.came[k, 3] = went
            stands += kept + stopped
            walks += left + went
        stands = room.now[m, 0] / stands
        walks = room.now[m, 1] / walks
        for k in range(n):
            room.before[k, 0] += room.came[k, 0] * stands + room.came[k, 1] * walks
            room.before[k, 1] += room.came[k, 2] * stands + room.came[k, 3] * walks
    for k in range(n):
        room.now[k, 0] = room.before[k, 0]
        room.now[k, 1] = room.before[k, 1]


@kernel
def likeliest(tags: Tags, row: Int, at: Int, radio: Radio, room: Scratch) -> Any:
    """Zone of an event with the greatest probability in room.now, and that probability; the first of equal ones."""
    n = np.int64(tags.ring_n[row, at])
    for k in range(n):
        room.zone[radio.cell_zone[tags.ring_cells[row, at, k]]] += room.now[k, 0] + room.now[k, 1]
    zone: Any = NONE
    most = -1.0
    whole = 0.0
    for k in range(n):
        whole += room.now[k, 0] + room.now[k, 1]
        mine = np.int64(radio.cell_zone[tags.ring_cells[row, at, k]])
        if room.zone[mine] > most:
            most = room.zone[mine]
            zone = mine
    for k in range(n):
        room.zone[radio.cell_zone[tags.ring_cells[row, at, k]]] = 0.0
    return zone, most / whole


@kernel
def decide(
    tags: Tags,
    row: Int,
    upto_us: Int,
    tick: Int,
    radio: Radio,
    air: Air,
    limits: Limits,
    room: Scratch,
    out: NDArray[Any],
    n: Int,
) -> Any:
    """Decide the events up to `upto_us`, smoothed by all that is known; returns the new length of `out`."""
    tag = tags.life[row]
    head = np.int64(tag["head"])
    count = 0
    later: Any = -1
    alone = tag["ticks"] < 2  # a tag heard but once is a stray
    for i in range(np.int64(tag["n_ring"]) - 1, -1, -1):
        at = (head + i) % EVENTS
        if later < 0:
            for k in range(np.int64(tags.ring_n[row, at])):
                room.now[k, 0] = radio.part[tags.ring_probs[row, at, k, 0]]
                room.now[k, 1] = radio.part[tags.ring_probs[row, at, k, 1]]
        else:
            smooth(tags, row, later, at, radio, limits, room)
        later = at
        if tags.ring_us[row, at] + np.int64(tags.ring_span_us[row, at]) <= upto_us:
            count = max(count, i + 1)
            room.decided[i], room.sure[i] = likeliest(tags, row, at, radio, room)
    for i in range(0 if alone else count):
        at = (head + i) % EVENTS
        first_us, reads = tags.ring_us[row, at], tags.ring_reads[row, at]
        last_us = first_us + np.int64(tags.ring_span_us[row, at])
        n = place(tag, room.decided[i], room.sure[i], first_us, last_us, reads, tick, radio, air, limits, out, n)
    tag["head"] = (head + count) % EVENTS
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
    if tag["state"] == STUCK_STATE:
        tag["moved"] = tag["moved"] + 1 if 0 <= zone != tag["last_zone"] else 0
        if tag["moved"] < MOVED:
            return n
    if current >= 0:
        gap = first_us - tag["last_in_us"] - unknown_us(air, current, np.int64(tag["last_in_us"]), first_us)
        if zone < 0:
            tag["elsewhere"] = 1
            if gap > limits.join_gap_us:
                return close(tag, NEVER, NONE, 0, tick, radio, air, limits, out, n)
            return n
        if zone == current and gap <= (limits.join_gap_us if tag["elsewhere"] else limits.hold_us):
            tag["last_in_us"] = last_us
            tag["elsewhere"] = 0
            tag["sure"] += sure
            tag["events"] += 1
            tag["reads"] += reads
            step(tag, 3 if last_us - tag["enter_us"] >= limits.visit_us else 2, radio)
            if last_us - tag["enter_us"] >= radio.rest_us[tag["tag_class"]]:
                return rest(tag, tick, radio, out, n)
            return n
        n = close(tag, first_us, zone, 0, tick, radio, air, limits, out, n)
        if tag["elsewhere"] == 0:
            before = fill_us(gap, zone, current, radio, limits)
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
def rest(tag: Any, tick: Int, radio: Radio, out: NDArray[Any], n: Int) -> Any:
    """A visit longer than anybody's: it is no visit, and the journey ended with the one before."""
    tag["exit_us"] = tag["last_in_us"]
    n = emit(tag, 4, tick, out, n)
    if tag["journey_us"] < tag["enter_us"]:
        n = emit(tag, 3, tick, out, n)
    tag["journey_us"] = -1
    tag["visit_zone"] = NONE
    tag["moved"] = 0
    step(tag, 7, radio)
    return n


@kernel
def fill_us(gap_us: Int, zone: Int, other: Int, radio: Radio, limits: Limits) -> Any:
    """What a zone gets of the silence between it and another one: by how long people stay in each."""
    share = radio.stay_s[zone] / (radio.stay_s[zone] + radio.stay_s[other])
    return min(max(limits.allow_us, np.int64((gap_us - limits.walk_us) * share)), limits.fill_us)


@kernel
def close(
    tag: Any,
    next_us: Int,
    next_zone: Int,
    cut: Int,
    tick: Int,
    radio: Radio,
    air: Air,
    limits: Limits,
    out: NDArray[Any],
    n: Int,
) -> Any:
    """End the open visit, at the latest with `next_us`, the first read in another zone; `cut`: end not seen."""
    last_us = np.int64(tag["last_in_us"])
    zone = np.int64(tag["visit_zone"])
    exit_us = last_us + limits.allow_us
    if next_us != NEVER:
        most_us = (next_us - last_us) // 2
        if tag["elsewhere"] == 0:
            exit_us = last_us + fill_us(next_us - last_us, zone, next_zone, radio, limits)
            most_us = next_us - last_us - fill_us(next_us - last_us, next_zone, zone, radio, limits)
        exit_us = min(exit_us, last_us + max(most_us, (next_us - last_us) // 2))
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
    if tag["state"] == STUCK_STATE:
        return limits.end_silence_us
    if tag["journey_us"] < 0:
        return limits.forget_us
    return limits.end_after_exit_us if brief else limits.end_silence_us


@kernel
def look(
    tags: Tags, row: Int, tick: Int, radio: Radio, air: Air, limits: Limits, room: Scratch, out: NDArray[Any], n: Int
) -> Any:
    """What time alone does to a tag; returns (length of `out`, tick of the next look, NEVER when it is gone)."""
    tag = tags.life[row]
    now_us = (tick + 1) * limits.tick_us
    while tag["n_ring"] > 0:
        oldest_us = tags.ring_us[row, tag["head"]]
        oldest = oldest_us // limits.tick_us
        if oldest + limits.lag_ticks + limits.batch_ticks > tick and tag["n_ring"] < EVENTS:
            return n, oldest + limits.lag_ticks + limits.batch_ticks
        upto_us = max((tick - limits.lag_ticks + 1) * limits.tick_us - 1, (oldest + 1) * limits.tick_us - 1)
        n = decide(tags, row, upto_us, tick, radio, air, limits, room, out, n)
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
        n = close(tag, NEVER, NONE, 0, tick, radio, air, limits, out, n)
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
    tag["n_cells"] = 0
    tag["ticks"] = 0
    tag["bias"] = limits.bias_start_db
    tag["first_us"] = -1
    tag["last_us"] = -1
    tag["last_tick"] = tick - 1
    tag["journey_us"] = -1
    tag["exit_us"] = -1
    tag["visit_zone"] = NONE
    tag["last_zone"] = NONE
    tag["live_zone"] = NONE
    tag["live_us"] = -1
    tag["moved"] = 0
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
    tags: Tags,
    row: Int,
    keys: NDArray[np.uint64],
    n: Int,
    tick: Int,
    radio: Radio,
    air: Air,
    limits: Limits,
    room: Scratch,
) -> None:
    """One event of a tag from its n sorted reads."""
    tag = tags.life[row]
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
    n_touched, n_levels = weigh(tag["bias"], keys, n, radio, air, limits, room)
    n_new = bring(tags, row, n_touched, radio, limits, room)
    for i in range(n_touched):
        room.cell[room.cells[i]] = 0.0
    if n_new:
        cell = advance_tag(tags, row, n_new, tick, start_us + first, start_us + last, n, radio, limits, room)
        follow_bias(tag, cell, n_levels, radio, air, limits, room)


@kernel
def run(
    reads: NDArray[Any],
    order: NDArray[np.int64],
    at: Int,
    tick: Int,
    end_tick: Int,
    next_look: Int,
    tags: Tags,
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
            place_at = find(index, tags.life, read["epc"], bits)
            row = index[place_at] - 1
            if row < 0:
                tag_class = classify(radio, read["epc"])
                if tag_class != MERCHANDISE_CLASS:
                    if n_free == 0:
                        return tick, at, next_look, n_free, out, n
                    n_free -= 1
                    row = free[n_free]
                    index[place_at] = row + 1
                    admit(tags.life[row], read["epc"], bits, tag_class, tick, radio, limits)
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
            tag = tags.life[row]
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
            hear(tags, row, keys, kept, tick, radio, air, limits, room)
            if tag["n_ring"] > 0:
                oldest = tags.ring_us[row, tag["head"]] // limits.tick_us
                due[row] = oldest + limits.lag_ticks + limits.batch_ticks
            else:  # heard by antennas that reach no cell only
                due[row] = min(due[row], tick)
            next_look = min(next_look, due[row])
        if next_look <= tick:
            next_look = NEVER
            for row in range(tags.life.shape[0]):
                if due[row] <= tick:
                    if n + EVENTS * 2 + 4 > out.shape[0]:
                        out = enlarge(out, n)
                    tag = tags.life[row]
                    n, due[row] = look(tags, row, tick, radio, air, limits, room, out, n)
                    if due[row] == NEVER:
                        if tag["last_zone"] < 0:
                            counters[STRAYS] += 1
                        remove(index, tags.life, row)
                        tag["state"] = 0
                        free[n_free] = row
                        n_free += 1
                next_look = min(next_look, due[row])
        tick += 1
    return tick, at, next_look, n_free, out, n


@kernel
def end_all(
    tags: Tags,
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
    for row in range(tags.life.shape[0]):
        tag = tags.life[row]
        if tag["state"] == 0:
            continue
        if n + EVENTS * 2 + 4 > out.shape[0]:
            out = enlarge(out, n)
        n = decide(tags, row, NEVER, tick, radio, air, limits, room, out, n)
        if tag["visit_zone"] >= 0:
            cut = 1 if end_us - tag["last_in_us"] <= limits.join_gap_us else 0
            n = close(tag, NEVER, NONE, cut, tick, radio, air, limits, out, n)
        if tag["journey_us"] >= 0:
            n = emit(tag, 3, tick, out, n)
        step(tag, 6, radio)
        tag["state"] = 0
    return out, n
