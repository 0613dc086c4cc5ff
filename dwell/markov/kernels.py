"""Every compiled function of the engine.

They stand in one file because a cached kernel that calls a kernel of another file keeps its old code when that file
changes. For the same reason nothing here reads a figure or table of another module: they come as arguments.
Walks are tested uncompiled (tests/dwell/test_markov.py).

A tag's hidden state is the cell of the floor that it is in, whether its carrier stands or walks, and whether a body
blocks it. Each tick with reads is an *event*; so is each piece of the silence before one, which is weighed when the tag
is heard again. A tag keeps its active cells and their probabilities given all reads so far (the forward pass); with a
lag, the events that wait are smoothed by those that followed (the backward pass), and the likeliest zone of each is
decided. Rabiner, "A Tutorial on Hidden Markov Models", Proc. IEEE 77(2), 1989, section III.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwell.compiled import inner, inner_kernel, kernel, lean, part
from dwell.markov.tables import Air, Limits, Radio, Scratch, Tags

Int = int | np.integer[Any]


CELLS = 320
"""Active cells that a tag may have."""
EVENTS = 80
"""Undecided events that a tag may have."""
BLOCK = 32
"""Active cells are kept in blocks of so many."""
BLOCKS = CELLS // BLOCK
CHUNK, CHUNKS = 2048, 4
"""The pool of all tags' events is used in pieces of so many words, and so many pieces a tag are reserved."""
SPANS = 3
"""A silent event lasts 1, 4 or 16 ticks."""
WAYS = 8
"""Ways from a cell are a multiple of this many; those that don't exist lead back to it, and nobody takes them."""
RECENT = 6
"""Decided ticks that a tag remembers."""
HEARD = 24
"""Antennas that may hear a tag in a tick; more say nothing new."""
HALF, WIDE, PAD = 384, 512, 128
"""Tables by level differences have 2 · HALF columns, those by levels WIDE, beginning PAD steps below the lowest."""
QUIET = 65536
"""Log likelihoods of silence are summed as integers, so that an antenna can be taken out and put back exactly."""
BIAS_TICKS = 10
"""A tag's bias is followed each so many ticks."""
LOST_TICKS = 8
"""Whether a tag is somewhere else altogether is asked so often, and each tick once that seems possible."""
KNOWN_TICKS = 60
"""Events with reads after which a tag's bias and rate say something of others of its class."""
FAINT = 10.0
"""Walkers less likely than this, in multiples of what is dropped, aren't followed any farther."""
WATCH_TICKS = 4
"""So is what each antenna should have heard."""
MUTE_HITS, MUTE_TAGS = 25_000, 3
"""An antenna is taken for mute after so many expected hits (in thousandths) of so many tags."""
HEARD_AGAIN = 2
"""Of an antenna that was taken for mute."""
LONE_TICKS, FROZEN_TICKS = 10, 4
"""Reads with so many ticks of silence around them are lone; identical levels so far apart look frozen."""
STUCK_STATE = 7
"""lifecycle.State.STUCK."""
MOVED = 5
"""Events elsewhere after which a stuck tag isn't stuck any more."""
DOWNS = 8
"""Times of being unknown that a zone remembers."""
NONE = -1
"""In no zone."""
NEVER = np.iinfo(np.int64).max
SPARE, NOW, SEEK = 0, 1, 2
"""Tags.heads: how many blocks are spare, the present tick, and the first chunk that may be free."""
PLANE = 33_000
"""Room.work is cut into planes of so many numbers, one a cell. Their distance is known to the compiler, which could not
tell otherwise that they don't overlap, and would not use vectors. No multiple of 4 KiB: the caches hold few such."""
STANDS, STANDS_BLOCKED, WALKS, WALKS_BLOCKED = 0, PLANE, 2 * PLANE, 3 * PLANE
"""Probabilities of the support, in the order of its cells."""
CLEAR, BLOCKED = 4 * PLANE, 5 * PLANE
"""Emissions there."""
OTHER_CLEAR, OTHER_BLOCKED = 6 * PLANE, 7 * PLANE
"""Emissions for another class of bias or rate, or in cells aside; in predicting, walkers before they moved."""
WHOLE, LEAVE, STOP = 8 * PLANE, 9 * PLANE, 10 * PLANE
PLANES = 11

OPENED, CLOSED, ENDED, STUCK = 1, 2, 3, 4
READ, PLACED, CONFIRMED, STAYED, FADED, VISIT_CLOSED, JOURNEY_ENDED, RESTED = 0, 1, 2, 3, 4, 5, 6, 7
"""lifecycle.Event."""
# Tags by EPC: open addressing with linear probing; `index` holds row + 1, 0 is free.


@inner
def tag_hash(epc: NDArray[np.uint64], bits: Int) -> Any:
    """64-bit mix of an EPC and its length (multiply-xorshift over the words)."""
    value = np.uint64(bits) * np.uint64(0x9E3779B97F4A7C15)
    for w in range(min((bits + 63) // 64, 8)):
        value = (value ^ epc[w]) * np.uint64(0xFF51AFD7ED558CCD)
        value ^= value >> np.uint64(32)
    return value


@inner
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


@inner
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


# Antennas that can be heard.


@lean
def listen(radio: Radio, air: Air, limits: Limits) -> None:
    """Sum up afresh what the silence of all antennas says."""
    air.quiet_nats[:] = 0
    for a in range(radio.antenna_zone.shape[0]):
        air.heeded[a] = air.up[a] == 1 and air.mute[a] == 0
        if air.heeded[a]:
            sound(radio, air, limits, a, 1)
    hush(air, limits, NEVER)


@lean
def catch_up(radio: Radio, air: Air, limits: Limits, tick: Int) -> None:
    """Count the silence of antennas that have come up as evidence from this tick on, and no longer that of those that
    have gone down. Of all that change in a tick at once: what the sums make of each place takes longest.
    """
    heard = 0
    changed = 0
    for a in range(radio.antenna_zone.shape[0]):
        now = air.up[a] == 1 and air.mute[a] == 0
        heard += now
        changed += now != air.heeded[a]
    if not changed:
        return
    afresh = changed > heard
    if afresh:
        air.quiet_nats[:] = 0
    for a in range(radio.antenna_zone.shape[0]):
        now = air.up[a] == 1 and air.mute[a] == 0
        if now and (afresh or not air.heeded[a]):
            sound(radio, air, limits, a, 1)
        elif not now and air.heeded[a] and not afresh:
            sound(radio, air, limits, a, -1)
        air.heeded[a] = now
    hush(air, limits, tick)


@inner
def sound(radio: Radio, air: Air, limits: Limits, antenna: Int, sign: Int) -> None:
    """Add an antenna's silence to the sum (sign 1), or take it out (-1)."""
    for q in range(air.quiet.shape[0]):
        miss = radio.miss_nats[np.int64(radio.rate[q, antenna])]
        for b in range(air.quiet.shape[1]):
            for blocked in range(2):
                at = PAD + (b - limits.biases // 2) * limits.bias_steps - blocked * limits.block_steps
                for c in range(air.quiet.shape[3]):
                    level = np.int64(radio.level[antenna, c])
                    if level > 0:
                        air.quiet_nats[q, b, blocked, c] += sign * miss[level + at]


@inner
def hush(air: Air, limits: Limits, tick: Int) -> None:
    """What the sum makes of each place where it changed at a tick; NEVER: of all."""
    for q in range(air.quiet.shape[0]):
        for b in range(air.quiet.shape[1]):
            for blocked in range(2):
                for c in range(air.quiet.shape[3]):
                    if tick == NEVER or air.changed_tick[c] == tick:
                        air.quiet[q, b, blocked, c] = np.exp(limits.temper * air.quiet_nats[q, b, blocked, c] / QUIET)


@kernel
def switch(radio: Radio, air: Air, antennas: NDArray[np.int64], up: Int, mute: Int, tick: Int, at_us: Int) -> None:
    """Antennas go up or down at `at_us`, or are found to be mute: zones become unknown or known. `catch_up` follows."""
    for a in antennas:
        before = air.up[a] and not air.mute[a]
        air.up[a] = up
        air.mute[a] = mute
        air.missed[a] = 0
        air.missed_by[a] = 0
        after = air.up[a] and not air.mute[a]
        if before != after:
            for c in range(air.quiet.shape[3]):
                if radio.level[a, c] > 0:
                    air.changed_tick[c] = tick
    zones = air.down.shape[0]
    alive = np.zeros(zones, np.uint8)
    for a in range(radio.antenna_zone.shape[0]):
        if air.up[a] and not air.mute[a] and radio.antenna_zone[a] >= 0:
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


@inner
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


@part
def levels_heard(keys: NDArray[np.uint64], n: Int, limits: Limits, room: Scratch) -> Any:
    """Mean level and number of a tick's reads by antenna; returns how many antennas there are, and the loudest.

    `keys` are the n reads, sorted: antenna, time, RSSI, count from the highest bit down.
    """
    heard = 0
    loudest = 0
    i = 0
    while i < n and heard < HEARD:
        antenna = np.int64(keys[i] >> np.uint64(48))
        total = 0.0
        known = 0
        reads = 0
        while i < n and np.int64(keys[i] >> np.uint64(48)) == antenna:
            rssi = np.int64((keys[i] >> np.uint64(12)) & np.uint64(0xFFFF)) - 32768
            if rssi != -32768:
                total += rssi / 100.0
                known += 1
            reads += 1
            i += 1
        room.antenna[heard] = antenna
        room.level[heard] = NONE
        if known:
            step: Any = np.int64((total / known - limits.floor_dbm) / limits.step_db + 0.5)
            room.level[heard] = min(max(step, 0), 255)
        room.reads[heard] = min(max(known, 1), 4) - 1
        if room.level[heard] > room.level[loudest]:
            loudest = heard
        heard += 1
    return heard, loudest


@part
def emit_levels(
    n: Int, heard: Int, bias: Int, rate: Int, into: Int, radio: Radio, air: Air, limits: Limits, room: Scratch
) -> None:
    """Likelihood of a tick in each cell of the support, tempered: all antennas' silence, and for those that heard the
    tag a hit instead of a miss. `into`: the plane for clear tags, before that for blocked ones."""
    shift = (bias - limits.biases // 2) * limits.bias_steps
    block = np.int64(limits.block_steps)
    support, work = room.support, room.work
    quiet, quiet_blocked = air.quiet[rate, bias, 0], air.quiet[rate, bias, 1]
    clear, blocked = into, into + PLANE
    for j in range(n):
        c = support[j]
        work[clear + j] = quiet[c]
        work[blocked + j] = quiet_blocked[c]
    for h in range(heard):
        a = room.antenna[h]
        p = np.int64(radio.rate[rate, a]) if air.up[a] and not air.mute[a] else 0
        level = radio.level[a]
        at = PAD + shift
        if room.level[h] == NONE:
            unknown = radio.unknown[p]
            for j in range(n):
                m = np.int64(level[support[j]])
                work[clear + j] *= unknown[m + at]
                work[blocked + j] *= unknown[m + at - block]
        else:
            hit = radio.hit[room.reads[h]]
            spare = radio.spare[p]
            off = HALF + room.level[h] - shift
            for j in range(n):
                m = np.int64(level[support[j]])
                work[clear + j] *= hit[off - m] * spare[m + at]
                work[blocked + j] *= hit[off - m + block] * spare[m + at - block]


@part
def weigh(n: Int, room: Scratch) -> None:
    """Multiply the predicted state by the emissions."""
    work = room.work
    for j in range(n):
        work[STANDS + j] *= work[CLEAR + j]
        work[STANDS_BLOCKED + j] *= work[BLOCKED + j]
        work[WALKS + j] *= work[CLEAR + j]
        work[WALKS_BLOCKED + j] *= work[BLOCKED + j]


# The forward pass.


@inner
def begin(
    prior: NDArray[np.float32],
    heard: Int,
    loudest: Int,
    bias: Int,
    rate: Int,
    radio: Radio,
    air: Air,
    limits: Limits,
    room: Scratch,
) -> Any:
    """Put a tag wherever its loudest antenna may hear it; returns the number of cells."""
    level = radio.level[room.antenna[loudest]]
    work = room.work
    n = 0
    for c in range(level.shape[0]):
        if level[c] > 0 and prior[c] > 0.0:
            room.support[n] = c
            n += 1
    emit_levels(n, heard, bias, rate, CLEAR, radio, air, limits, room)
    on, off = radio.block[0, 0], radio.block[0, 1]
    share = on / (on + off)
    for j in range(n):
        c = room.support[j]
        stands: Any = radio.still[c]
        clear = prior[c] * work[CLEAR + j] * (np.float32(1.0) - share)
        blocked = prior[c] * work[BLOCKED + j] * share
        work[STANDS + j] = stands * clear
        work[STANDS_BLOCKED + j] = stands * blocked
        work[WALKS + j] = (np.float32(1.0) - stands) * clear
        work[WALKS_BLOCKED + j] = (np.float32(1.0) - stands) * blocked
    return n


@part
def enter(cell: Int, n: Int, room: Scratch) -> Any:
    """Place of a cell in the support, taken in if it isn't there; returns (place, length)."""
    at = np.int64(room.slot[cell]) - 1
    if at >= 0:
        return at, n
    room.slot[cell] = n + 1
    room.support[n] = cell
    room.work[STANDS + n] = 0.0
    room.work[STANDS_BLOCKED + n] = 0.0
    room.work[WALKS + n] = 0.0
    room.work[WALKS_BLOCKED + n] = 0.0
    return n, n + 1


@part
def predict(tags: Tags, row: Int, span: Int, radio: Radio, limits: Limits, room: Scratch) -> Any:
    """Where the tag may be an event of this span later, before its evidence; returns the number of cells."""
    count: Any = np.int64(tags.life[row]["n_cells"])
    work, support, slot = room.work, room.support, room.slot
    for first in range(0, count, BLOCK):
        block = tags.block[row, first // BLOCK]
        cells, probs = tags.cells[block], tags.probs[block]
        for i in range(min(BLOCK, count - first)):
            j = first + i
            support[j] = cells[i]
            slot[cells[i]] = j + 1
            work[STANDS + j] = probs[0, i]
            work[STANDS_BLOCKED + j] = probs[1, i]
            work[WALKS + j] = 0.0
            work[WALKS_BLOCKED + j] = 0.0
            work[OTHER_CLEAR + j] = probs[2, i]
            work[OTHER_BLOCKED + j] = probs[3, i]
    n = count
    faint = np.float32(FAINT * limits.least)
    one = np.float32(1.0)
    hops, moves, turn = radio.hop[span], radio.move[span], radio.turn
    for i in range(count):
        clear, blocked = work[OTHER_CLEAR + i], work[OTHER_BLOCKED + i]
        if clear + blocked < faint:
            work[WALKS + i] += clear
            work[WALKS_BLOCKED + i] += blocked
            continue
        c = support[i]
        move = moves[c]
        work[WALKS + i] += (one - move) * clear
        work[WALKS_BLOCKED + i] += (one - move) * blocked
        clear *= move
        blocked *= move
        for d in range(turn.shape[0]):
            to, n = enter(np.int64(hops[c, d]), n, room)
            work[WALKS + to] += turn[d] * clear
            work[WALKS_BLOCKED + to] += turn[d] * blocked
        if radio.stairs[c] >= 0:
            to, n = enter(np.int64(radio.stairs[c]), n, room)
            share = np.float32(limits.stairs)
            work[WALKS + to] += share * work[OTHER_CLEAR + i]
            work[WALKS_BLOCKED + to] += share * work[OTHER_BLOCKED + i]
    leaves, stops = radio.leave[span], radio.stop[span]
    for j in range(n):
        work[LEAVE + j] = leaves[support[j]]
        work[STOP + j] = stops[support[j]]
    on, off = radio.block[span, 0], radio.block[span, 1]
    for j in range(n):
        leave, stop = work[LEAVE + j], work[STOP + j]
        stands_clear, stands_blocked = work[STANDS + j], work[STANDS_BLOCKED + j]
        walks_clear, walks_blocked = work[WALKS + j], work[WALKS_BLOCKED + j]
        stays_clear = (one - leave) * stands_clear + stop * walks_clear
        stays_blocked = (one - leave) * stands_blocked + stop * walks_blocked
        goes_clear = (one - stop) * walks_clear + leave * stands_clear
        goes_blocked = (one - stop) * walks_blocked + leave * stands_blocked
        work[STANDS + j] = (one - on) * stays_clear + off * stays_blocked
        work[STANDS_BLOCKED + j] = on * stays_clear + (one - off) * stays_blocked
        work[WALKS + j] = (one - on) * goes_clear + off * goes_blocked
        work[WALKS_BLOCKED + j] = on * goes_clear + (one - off) * goes_blocked
    return n


@part
def is_lost(tag: Any, n: Int, heard: Int, loudest: Int, radio: Radio, air: Air, limits: Limits, room: Scratch) -> Any:
    """True if for some time places around the antennas that hear the tag have explained it far better than all cells
    in question (Page's cumulative sum). The state must hold the prediction times the emissions."""
    work = room.work
    total = 0.0
    for j in range(n):
        total += work[STANDS + j] + work[STANDS_BLOCKED + j] + work[WALKS + j] + work[WALKS_BLOCKED + j]
    # The support is put aside: emit_levels works on it.
    homes = radio.home[room.antenna[loudest]]
    count = 0
    for k in range(homes.shape[0]):
        if homes[k] >= 0:
            room.aside[count] = room.support[count]
            room.support[count] = homes[k]
            count += 1
    emit_levels(count, heard, np.int64(tag["bias"]), np.int64(tag["rate"]), OTHER_CLEAR, radio, air, limits, room)
    best = 0.0
    for k in range(count):
        room.support[k] = room.aside[k]
        best = max(best, work[OTHER_CLEAR + k])
    more = np.log(max(best, 1e-30)) - np.log(max(total, 1e-30)) - limits.lost_drift
    tag["lost"] = max(tag["lost"] + np.float32(more), np.float32(0.0))
    return tag["lost"] > limits.lost_nats


@inner
def jump(tag: Any, n: Int, heard: Int, loudest: Int, radio: Radio, air: Air, limits: Limits, room: Scratch) -> Any:
    """Bring in cells that nobody could have walked to; returns how many there are now. The state must hold the
    prediction times the emissions."""
    level = radio.level[room.antenna[loudest]]
    work = room.work
    first = n
    for c in range(level.shape[0]):
        if level[c] > 0 and room.slot[c] == 0 and radio.prior[c] > 0.0:
            room.support[n] = c
            n += 1
    emit_levels(n, heard, np.int64(tag["bias"]), np.int64(tag["rate"]), CLEAR, radio, air, limits, room)
    for j in range(first, n):
        work[STANDS + j] = 0.0
        work[STANDS_BLOCKED + j] = 0.0
        work[WALKS + j] = np.float32(limits.jump) * work[CLEAR + j]
        work[WALKS_BLOCKED + j] = 0.0
    tag["lost"] = 0.0
    return n


@part
def settle(
    tags: Tags,
    row: Int,
    n: Int,
    tick: Int,
    span: Int,
    reads: Int,
    jumped: Any,
    radio: Radio,
    limits: Limits,
    room: Scratch,
) -> Any:
    """Keep the likelier cells as the tag's active ones, and what looking back wants of the event; returns the
    likeliest cell."""
    tag = tags.life[row]
    work, support, slot, kept = room.work, room.support, room.slot, room.kept
    for j in range(n):
        work[WHOLE + j] = (work[STANDS + j] + work[STANDS_BLOCKED + j]) + (work[WALKS + j] + work[WALKS_BLOCKED + j])
    most = np.float32(0.0)
    best = 0
    for j in range(n):
        slot[support[j]] = 0
        whole = work[WHOLE + j]
        if whole > most or (whole == most and support[j] < support[best]):
            most = whole
            best = j
    if not most > 0.0:
        hold(tags, row, 0)
        return NONE
    bar = most * np.float32(limits.least)
    while True:
        count = 0
        for j in range(n):
            kept[count] = j
            count += 1 if work[WHOLE + j] >= bar else 0
        if count <= CELLS:
            break
        bar *= np.float32(3.0)
        if bar > most:
            kept[0] = best
            count = 1
            break
    zone = radio.cell_zone[support[best]]
    total = np.float32(0.0)
    for k in range(count):
        total += work[WHOLE + kept[k]]
    if reads and zone != tag["live_zone"]:
        there = np.float32(0.0)
        for k in range(count):
            if radio.cell_zone[support[kept[k]]] == zone:
                there += work[WHOLE + kept[k]]
        if there >= limits.live_share * total:
            tag["live_zone"] = zone
            tag["live_us"] = tick * limits.tick_us
    hold(tags, row, count)
    share = np.float32(1.0) / total
    for first in range(0, count, BLOCK):
        block = tags.block[row, first // BLOCK]
        cells, probs = tags.cells[block], tags.probs[block]
        for i in range(min(BLOCK, count - first)):
            j = kept[first + i]
            cells[i] = support[j]
            probs[0, i] = work[STANDS + j] * share
            probs[1, i] = work[STANDS_BLOCKED + j] * share
            probs[2, i] = work[WALKS + j] * share
            probs[3, i] = work[WALKS_BLOCKED + j] * share
    bar = max(bar, most * np.float32(limits.slight))
    at, pooled = remember(tags, next_decision(tag, tick, limits), count, most, bar, limits, room)
    event = tags.event[row, np.int64(tag["n_events"])]
    event["at"] = at
    event["tick"] = tick
    event["reads"] = min(reads, 65535)
    event["n"] = pooled
    event["span"] = span
    event["jump"] = 1 if jumped else 0
    tag["n_events"] += 1
    tag["n_pool"] += pooled
    tag["last_tick"] = tick
    return support[best]


@part
def remember(tags: Tags, until: Int, count: Int, most: Any, bar: Any, limits: Limits, room: Scratch) -> Any:
    """Write the likeliest of the `count` kept cells of an event into the pool, where they are wanted until a tick;
    returns where, and how many. What is left out can't come back in looking back, only in what follows."""
    work, support, kept, number, bits = room.work, room.support, room.kept, room.number, room.bits
    while True:
        n = 0
        loud = np.float32(0.0)
        for k in range(count):
            j = kept[k]
            if work[WHOLE + j] >= bar:
                loud = max(loud, max(work[CLEAR + j], work[BLOCKED + j]))
                if n < limits.remembered:
                    room.pooled[n] = j
                n += 1
        if n <= limits.remembered or bar * np.float32(3.0) > most:
            break
        bar *= np.float32(3.0)
    n = min(n, limits.remembered)
    at = reserve(tags, n, until)
    if at < 0:
        return 0, 0
    scale = np.float32(1.0) / most
    loud = np.float32(1.0) / loud if loud > 0.0 else np.float32(0.0)
    for k in range(n):
        j = room.pooled[k]
        number[k] = work[STANDS + j] * scale
        number[CELLS + k] = work[STANDS_BLOCKED + j] * scale
        number[2 * CELLS + k] = work[WALKS + j] * scale
        number[3 * CELLS + k] = work[WALKS_BLOCKED + j] * scale
        number[4 * CELLS + k] = work[CLEAR + j] * loud
        number[5 * CELLS + k] = work[BLOCKED + j] * loud
    pool = tags.pool
    for k in range(n):
        pool[at + k] = np.uint64(support[room.pooled[k]])
    for m in range(6):
        place = np.uint64(16 + 8 * m)
        for k in range(n):
            steps: Any = min((ONE_BITS - np.int64(bits[m * CELLS + k])) >> BIT_SHIFT, 255)
            pool[at + k] |= np.uint64(steps) << place
    return at, n


ONE_BITS, BIT_SHIFT = 0x3F800000, 20
"""Bits of 1.0 as float32, and how many of a number's last bits the pool leaves out: steps of an eighth of an octave."""


@part
def hold(tags: Tags, row: Int, count: Int) -> None:
    """Let a tag have as many blocks as so many active cells take."""
    have = (np.int64(tags.life[row]["n_cells"]) + BLOCK - 1) // BLOCK
    want = (count + BLOCK - 1) // BLOCK
    while have < want:
        tags.heads[SPARE] -= 1
        tags.block[row, have] = tags.spare[tags.heads[SPARE]]
        have += 1
    while have > want:
        have -= 1
        tags.spare[tags.heads[SPARE]] = tags.block[row, have]
        tags.heads[SPARE] += 1
    tags.life[row]["n_cells"] = count


@part
def reserve(tags: Tags, n: Int, until: Int) -> Any:
    """Where in the pool n words may be written that are wanted until a tick, NONE if it is full: beside others that are
    wanted just as long, or in the first chunk of which nothing is wanted any more."""
    until = max(until, tags.heads[NOW])
    stream = tags.stream[until % EVENTS]
    if tags.wanted[stream[0]] != until or stream[1] + n > CHUNK:
        chunk = tags.heads[SEEK]
        while chunk < tags.wanted.shape[0] and tags.wanted[chunk] >= tags.heads[NOW]:
            chunk += 1
        tags.heads[SEEK] = chunk
        if chunk == tags.wanted.shape[0]:
            return NONE
        tags.wanted[chunk] = until
        stream[0] = chunk
        stream[1] = 0
    at = stream[0] * CHUNK + stream[1]
    stream[1] += n
    return at


@lean
def compact(tags: Tags) -> Any:
    """Move active cells into the lowest blocks; returns how many are taken."""
    n_spare = tags.heads[SPARE]
    taken = tags.spare.shape[0] - n_spare
    seek = 0
    for row in range(tags.life.shape[0]):
        for i in range((np.int64(tags.life[row]["n_cells"]) + BLOCK - 1) // BLOCK):
            block = tags.block[row, i]
            if block < taken:
                continue
            while tags.spare[seek] >= taken:
                seek += 1
            to = tags.spare[seek]
            seek += 1
            for k in range(BLOCK):
                tags.cells[to, k] = tags.cells[block, k]
                for m in range(4):
                    tags.probs[to, m, k] = tags.probs[block, m, k]
            tags.block[row, i] = to
    for k in range(n_spare):
        tags.spare[k] = tags.spare.shape[0] - 1 - k
    return taken


@inner
def keep_silence(tags: Tags, row: Int, gap: Int, radio: Radio, air: Air, limits: Limits, room: Scratch) -> None:
    """Weigh `gap` ticks in which nobody heard the tag: piece by piece, short ones at both ends."""
    tag = tags.life[row]
    ones = np.int64(radio.steps[gap, 0])
    for piece in range(ones + np.int64(radio.steps[gap, 1]) + np.int64(radio.steps[gap, 2])):
        span = 0
        if piece >= (ones + 1) // 2:
            after = piece - (ones + 1) // 2
            if after < radio.steps[gap, 1]:
                span = 1
            elif after < np.int64(radio.steps[gap, 1]) + np.int64(radio.steps[gap, 2]):
                span = 2
        n = predict(tags, row, span, radio, limits, room)
        bias, rate = np.int64(tag["bias"]), np.int64(tag["rate"])
        tick = np.int64(tag["last_tick"])
        for j in range(n):
            c = room.support[j]
            clear: Any = np.float32(1.0)
            blocked: Any = np.float32(1.0)
            if air.changed_tick[c] <= tick:
                clear, blocked = air.quiet[rate, bias, 0, c], air.quiet[rate, bias, 1, c]
                for _ in range(2 * span):
                    clear *= clear
                    blocked *= blocked
            room.work[CLEAR + j] = clear
            room.work[BLOCKED + j] = blocked
        follow_tag(tag, n, 0, span, radio, air, limits, room)
        weigh(n, room)
        length = 1 << (2 * span)
        if settle(tags, row, n, tick + length, span, 0, False, radio, limits, room) < 0:
            return


@inner
def follow_tag(tag: Any, n: Int, heard: Int, span: Int, radio: Radio, air: Air, limits: Limits, room: Scratch) -> None:
    """Compare the tag's classes of bias and rate with their neighbours by how well they explain an event, and move to
    one that has done better for long. The state must hold the prediction, the emissions be those of the present
    classes; `span` is that of a silent event."""
    bias, rate = np.int64(tag["bias"]), np.int64(tag["rate"])
    work = room.work
    usual = 0.0
    for j in range(n):
        usual += work[CLEAR + j] * (work[STANDS + j] + work[WALKS + j])
        usual += work[BLOCKED + j] * (work[STANDS_BLOCKED + j] + work[WALKS_BLOCKED + j])
    keep = np.float32(limits.bias_keep)
    weight = np.float32(BIAS_TICKS if heard > 0 else 1)
    for way in range(4):
        to_bias = bias + (1 if way == 0 else -1 if way == 1 else 0)
        to_rate = rate + (1 if way == 2 else -1 if way == 3 else 0)
        if not (0 <= to_bias < limits.biases and 0 <= to_rate < air.quiet.shape[0]):
            continue
        emit_levels(n, heard, to_bias, to_rate, OTHER_CLEAR, radio, air, limits, room)
        total = 0.0
        for j in range(n):
            clear, blocked = work[OTHER_CLEAR + j], work[OTHER_BLOCKED + j]
            for _ in range(2 * span):
                clear *= clear
                blocked *= blocked
            total += clear * (work[STANDS + j] + work[WALKS + j])
            total += blocked * (work[STANDS_BLOCKED + j] + work[WALKS_BLOCKED + j])
        more = np.float32(np.log(max(total, 1e-30) / max(usual, 1e-30)))
        if way == 2:
            more += np.float32(heard * limits.temper * limits.rate_nats)
        elif way == 3:
            more -= np.float32(heard * limits.temper * limits.rate_nats)
        more *= weight
        if way == 0:
            tag["louder"] = tag["louder"] * keep + more
        elif way == 1:
            tag["quieter"] = tag["quieter"] * keep + more
        elif way == 2:
            tag["oftener"] = tag["oftener"] * keep + more
        else:
            tag["rarer"] = tag["rarer"] * keep + more
    off = bias - limits.biases // 2
    gains = (
        limits.bias_weight * tag["louder"] - limits.bias_prior * (2 * off + 1) if bias + 1 < limits.biases else -1.0,
        limits.bias_weight * tag["quieter"] - limits.bias_prior * (1 - 2 * off) if bias > 0 else -1.0,
        limits.bias_weight * tag["oftener"] if rate + 1 < air.quiet.shape[0] else -1.0,
        limits.bias_weight * tag["rarer"] if rate > 0 else -1.0,
    )
    best = 0
    for way in range(1, 4):
        if gains[way] > gains[best]:
            best = way
    if gains[best] <= limits.bias_hurdle:
        return
    if best == 0:
        tag["bias"] = bias + 1
    elif best == 1:
        tag["bias"] = bias - 1
    elif best == 2:
        tag["rate"] = rate + 1
    else:
        tag["rate"] = rate - 1
    tag["louder"] = 0.0
    tag["quieter"] = 0.0
    tag["oftener"] = 0.0
    tag["rarer"] = 0.0


@part
def follow_antennas(tag: Any, cell: Int, heard: Int, radio: Radio, air: Air, limits: Limits, room: Scratch) -> None:
    """Note which antennas should have heard a tag in its likeliest cell, and which are louder there than others: in
    integers, whose sums are the same in any order."""
    shift = (np.int64(tag["bias"]) - limits.biases // 2) * limits.bias_steps
    bit = np.uint64(1) << (tag_hash(tag["epc"], np.int64(tag["epc_bits"])) & np.uint64(63))
    for k in range(radio.watch.shape[1]):
        a = radio.watch[cell, k]
        if a < 0 or not air.up[a]:
            continue
        missed = True
        for h in range(heard):
            if room.antenna[h] == a:
                missed = False
        if missed:
            hears = radio.hears[np.int64(radio.rate[tag["rate"], a]), np.int64(radio.level[a, cell]) + shift + PAD]
            air.missed[a] += np.int64(1000.0 * hears)
            air.missed_by[a] |= bit
    total = 0
    n = 0
    for h in range(heard):
        m = np.int64(radio.level[room.antenna[h], cell]) + shift
        if room.level[h] != NONE and m >= limits.sure_steps:
            total += room.level[h] - m
            n += 1
    if n > 1:
        for h in range(heard):
            a = room.antenna[h]
            m = np.int64(radio.level[a, cell]) + shift
            if room.level[h] != NONE and m >= limits.sure_steps:
                off = (room.level[h] - m) - total / n
                air.drift[a, 0] += np.int64(100.0 * limits.step_db * off)
                air.drift[a, 1] += 1


# The backward pass.


@part
def look_back(tags: Tags, row: Int, wanted: Int, radio: Radio, limits: Limits, room: Scratch) -> None:
    """Smooth a tag's events: the likeliest zones of the first `wanted` and their probabilities, into room.top_*."""
    events = tags.event[row]
    count = np.int64(tags.life[row]["n_events"])
    back, turn, words = room.back, radio.turn, room.words
    one = np.float32(1.0)
    # All at once, since they come from far: one wait for many words instead of one for each event.
    end: Any = 0
    for i in range(count):
        at = np.int64(events[i]["at"])
        for k in range(np.int64(events[i]["n"])):
            words[end + k] = tags.pool[at + k]
        end += np.int64(events[i]["n"])
    first = end - np.int64(events[count - 1]["n"])
    mine = 0
    scale = one
    for k in range(end - first):
        for m in range(4):
            room.message[mine, k, m] = one
    for i in range(count - 1, -1, -1):
        n = np.int64(events[i]["n"])
        first = end - n
        message = room.message[mine]
        if i < wanted:
            zones_of(first, n, message, i, radio, room)
        if i == 0:
            break
        span = np.int64(events[i]["span"])
        on, off = radio.block[span, 0], radio.block[span, 1]
        leaves, stops = radio.leave[span], radio.stop[span]
        jumped = np.float32(0.0)
        for k in range(n):
            word = words[first + k]
            c = np.int64(word & np.uint64(0xFFFF))
            clear = radio.part[np.int64((word >> np.uint64(48)) & np.uint64(255))] * scale
            blocked = radio.part[np.int64(word >> np.uint64(56))] * scale
            clear_stands, clear_walks = clear * message[k, 0], clear * message[k, 2]
            blocked_stands, blocked_walks = blocked * message[k, 1], blocked * message[k, 3]
            stands_clear = (one - on) * clear_stands + on * blocked_stands
            stands_blocked = off * clear_stands + (one - off) * blocked_stands
            walks_clear = (one - on) * clear_walks + on * blocked_walks
            walks_blocked = off * clear_walks + (one - off) * blocked_walks
            leave, stop = leaves[c], stops[c]
            back[c, 0] = (one - leave) * stands_clear + leave * walks_clear
            back[c, 1] = (one - leave) * stands_blocked + leave * walks_blocked
            back[c, 2] = (one - stop) * walks_clear + stop * stands_clear
            back[c, 3] = (one - stop) * walks_blocked + stop * stands_blocked
            jumped += clear_walks
        jumped *= np.float32(limits.jump) if events[i]["jump"] else np.float32(0.0)
        before = np.int64(events[i - 1]["n"])
        other = room.message[1 - mine]
        hops, moves = radio.hop[span], radio.move[span]
        most = np.float32(0.0)
        for k in range(before):
            c = np.int64(words[first - before + k] & np.uint64(0xFFFF))
            went_clear = np.float32(0.0)
            went_blocked = np.float32(0.0)
            for way in range(0, turn.shape[0], WAYS):
                for d in range(WAYS):
                    to = np.int64(hops[c, way + d])
                    went_clear += turn[way + d] * back[to, 2]
                    went_blocked += turn[way + d] * back[to, 3]
            move = moves[c]
            walks_clear = (one - move) * back[c, 2] + move * went_clear
            walks_blocked = (one - move) * back[c, 3] + move * went_blocked
            if radio.stairs[c] >= 0:
                walks_clear += np.float32(limits.stairs) * back[radio.stairs[c], 2]
                walks_blocked += np.float32(limits.stairs) * back[radio.stairs[c], 3]
            stands_clear, stands_blocked = back[c, 0] + jumped, back[c, 1] + jumped
            walks_clear += jumped
            walks_blocked += jumped
            most = max(most, max(max(stands_clear, stands_blocked), max(walks_clear, walks_blocked)))
            other[k, 0] = stands_clear
            other[k, 1] = stands_blocked
            other[k, 2] = walks_clear
            other[k, 3] = walks_blocked
        for k in range(n):
            c = np.int64(words[first + k] & np.uint64(0xFFFF))
            for m in range(4):
                back[c, m] = 0.0
        scale = one
        if most > 0.0:
            scale = one / most
        else:  # nothing of what was kept before leads to what was kept here
            for k in range(before):
                for m in range(4):
                    other[k, m] = one
        mine = 1 - mine
        end = first


@part
def zones_of(first: Int, n: Int, message: NDArray[np.float32], event: Int, radio: Radio, room: Scratch) -> None:
    """The three likeliest zones of an event, of which "in none" may be one, and their smoothed probabilities."""
    none = room.mass.shape[0] - 1
    touched = 0
    total = np.float32(0.0)
    for k in range(n):
        word = room.words[first + k]
        c = np.int64(word & np.uint64(0xFFFF))
        stands = radio.part[np.int64((word >> np.uint64(16)) & np.uint64(255))] * message[k, 0]
        stands += radio.part[np.int64((word >> np.uint64(24)) & np.uint64(255))] * message[k, 1]
        walks = radio.part[np.int64((word >> np.uint64(32)) & np.uint64(255))] * message[k, 2]
        walks += radio.part[np.int64((word >> np.uint64(40)) & np.uint64(255))] * message[k, 3]
        total += stands + walks
        zone = np.int64(radio.cell_zone[c])
        if zone >= 0:
            if room.mass[zone] == 0.0:
                room.zones[touched] = zone
                touched += 1
            room.mass[zone] += stands + np.float32(1e-30)
        else:
            room.mass[none] += stands
        if radio.share[c, 0] == np.float32(1.0) and radio.share_zone[c, 0] == zone:
            room.mass[zone] += walks
            continue
        rest = walks
        for s in range(radio.share_zone.shape[1]):
            other = np.int64(radio.share_zone[c, s])
            if other < 0:
                break
            if room.mass[other] == 0.0:
                room.zones[touched] = other
                touched += 1
            part = walks * radio.share[c, s]
            room.mass[other] += part + np.float32(1e-30)
            rest -= part
        room.mass[none] += rest
    scale = np.float32(1.0) / total if total > 0.0 else np.float32(0.0)
    for place in range(3):
        room.top_zone[event, place] = NONE
        room.top_p[event, place] = 0.0
    room.top_p[event, 0] = room.mass[none] * scale
    room.mass[none] = 0.0
    for i in range(touched):
        zone = room.zones[i]
        p = room.mass[zone] * scale
        room.mass[zone] = 0.0
        for place in range(3):
            mine = room.top_p[event, place]
            if p > mine or (p == mine and zone < room.top_zone[event, place]):
                for lower in range(2, place, -1):
                    room.top_zone[event, lower] = room.top_zone[event, lower - 1]
                    room.top_p[event, lower] = room.top_p[event, lower - 1]
                room.top_zone[event, place] = zone
                room.top_p[event, place] = p
                break


@inner
def share_of(event: Int, zone: Int, room: Scratch) -> Any:
    """Smoothed probability that the tag was in a zone at an event."""
    for place in range(3):
        if room.top_zone[event, place] == zone and room.top_p[event, place] > 0.0:
            return room.top_p[event, place]
    return np.float32(0.0)


# Decisions.


@inner
def length_us(event: Any, limits: Limits) -> Any:
    """How long an event lasts."""
    return (1 << (2 * np.int64(event["span"]))) * limits.tick_us


@inner
def tidy(tags: Tags, row: Int, limits: Limits, room: Scratch) -> None:
    """Take back moments in another zone in the midst of a stay: of those that were no longer than a glance across the
    border one can't say that anybody was there."""
    known = np.int64(tags.life[row]["n_events"])
    before: Any = NONE
    if tags.life[row]["n_recent"] > 0:
        before = np.int64(tags.recent_zone[row, 0, 0])
    start = 0
    while start < known:
        zone = room.top_zone[start, 0]
        end = start + 1
        while end < known and room.top_zone[end, 0] == zone:
            end += 1
        amid = 0 <= zone != before and before >= 0 and end < known and room.top_zone[end, 0] == before
        if amid and expected_us(tags, row, start, end - 1, limits, room) < limits.glance_us:
            for i in range(start, end):
                room.top_zone[i, 0] = before
            zone = before
        before = np.int64(zone)
        start = end


@inner
def run_end(tags: Tags, row: Int, start: Int, limits: Limits, room: Scratch) -> Any:
    """Last event, as far as is known, of the stay that begins with event `start`, and whether anything but it lies in
    between: who comes back within the join gap hasn't left."""
    zone = room.top_zone[start, 0]
    last = start
    away_us = 0
    for i in range(start + 1, np.int64(tags.life[row]["n_events"])):
        if room.top_zone[i, 0] == zone:
            last = i
            away_us = 0
        else:
            away_us += length_us(tags.event[row, i], limits)
            if away_us > limits.join_gap_us:
                break
    whole = True
    for i in range(start, last + 1):
        if room.top_zone[i, 0] >= 0 and room.top_zone[i, 0] != zone:
            whole = False
    return last, whole


@inner
def expected_us(tags: Tags, row: Int, start: Int, last: Int, limits: Limits, room: Scratch) -> Any:
    """Expected time in the zone of event `start`, from RECENT ticks before it to RECENT ticks after event `last`."""
    zone = room.top_zone[start, 0]
    total = 0.0
    for i in range(start, last + 1):
        total += share_of(i, zone, room) * length_us(tags.event[row, i], limits)
    left_us: Any = RECENT * limits.tick_us
    i = start - 1
    while i >= 0 and left_us > 0:
        long_us = min(length_us(tags.event[row, i], limits), left_us)
        total += share_of(i, zone, room) * long_us
        left_us -= long_us
        i -= 1
    for k in range(np.int64(tags.life[row]["n_recent"])):
        if left_us <= 0:
            break
        for place in range(3):
            if tags.recent_zone[row, k, place] == zone:
                total += tags.recent_p[row, k, place] * limits.tick_us
        left_us -= limits.tick_us
    left_us = RECENT * limits.tick_us
    i = last + 1
    while i < np.int64(tags.life[row]["n_events"]) and left_us > 0:
        long_us = min(length_us(tags.event[row, i], limits), left_us)
        total += share_of(i, zone, room) * long_us
        left_us -= long_us
        i += 1
    return np.int64(total)


@inner
def is_lone(tags: Tags, row: Int, start: Int, last: Int, limits: Limits) -> Any:
    """True if a stay rests on a single tick with reads, long after the one before and long before the next."""
    heard = 0
    at = start
    for i in range(start, last + 1):
        if tags.event[row, i]["reads"] > 0:
            heard += 1
            at = i
    if heard != 1:
        return heard == 0
    tick = np.int64(tags.event[row, at]["tick"])
    for i in range(np.int64(tags.life[row]["n_events"])):
        apart = abs(np.int64(tags.event[row, i]["tick"]) - tick)
        if i != at and tags.event[row, i]["reads"] > 0 and apart <= LONE_TICKS:
            return False
    return at > 0 or tags.life[row]["n_recent"] == 0


@inner
def decide(
    tags: Tags,
    row: Int,
    upto_tick: Int,
    tick: Int,
    radio: Radio,
    air: Air,
    limits: Limits,
    room: Scratch,
    out: NDArray[Any],
    n: Int,
) -> Any:
    """Decide the events up to a tick, smoothed by all that is known; returns the new length of `out`."""
    tag = tags.life[row]
    events = tags.event[row]
    known = np.int64(tag["n_events"])
    count = 0
    while count < known and np.int64(events[count]["tick"]) <= upto_tick:
        count += 1
    if count == 0:
        return n
    wanted: Any = min(known, count + AHEAD)
    look_back(tags, row, wanted, radio, limits, room)
    for i in range(wanted, known):
        room.top_zone[i, 0] = NONE
        room.top_p[i, 0] = 0.0
    if tag["heard"] >= 2:  # a tag heard but once is a stray
        n = decide_events(tags, row, count, tick, radio, air, limits, room, out, n)
    for i in range(count):
        for _ in range(min(length_us(events[i], limits) // limits.tick_us, RECENT)):
            for k in range(RECENT - 1, 0, -1):
                for place in range(3):
                    tags.recent_zone[row, k, place] = tags.recent_zone[row, k - 1, place]
                    tags.recent_p[row, k, place] = tags.recent_p[row, k - 1, place]
            for place in range(3):
                tags.recent_zone[row, 0, place] = room.top_zone[i, place]
                tags.recent_p[row, 0, place] = room.top_p[i, place]
            tag["n_recent"] = min(np.int64(tag["n_recent"]) + 1, RECENT)
    for i in range(count):
        tag["n_pool"] -= np.int64(events[i]["n"])
    for i in range(count, known):
        events[i - count] = events[i]
    tag["n_events"] = known - count
    if tag["ticks"] >= KNOWN_TICKS:
        air.tags[tag["tag_class"], np.int64(tag["rate"]) * limits.biases + np.int64(tag["bias"])] += 1
    return n


AHEAD = 28
"""Events beyond the decided ones that are looked at to tell how long a short stay was."""


@inner
def decide_events(
    tags: Tags,
    row: Int,
    count: Int,
    tick: Int,
    radio: Radio,
    air: Air,
    limits: Limits,
    room: Scratch,
    out: NDArray[Any],
    n: Int,
) -> Any:
    """Put the first `count` smoothed events into the tag's visits; returns the new length of `out`."""
    tag = tags.life[row]
    known = np.int64(tag["n_events"])
    tidy(tags, row, limits, room)
    for i in range(count):
        event = tags.event[row, i]
        zone: Any = np.int64(room.top_zone[i, 0])
        end_us = (np.int64(event["tick"]) + 1) * limits.tick_us
        start_us = max(end_us - length_us(event, limits), tag["first_us"])
        early_us: Any = 0
        late_us: Any = 0
        if zone >= 0 and zone != tag["visit_zone"]:
            last, whole = run_end(tags, row, i, limits, room)
            if is_lone(tags, row, i, last, limits):
                for k in range(i, last + 1):
                    if room.top_zone[k, 0] == zone:
                        room.top_zone[k, 0] = NONE
                zone = NONE
            else:
                told_us = (np.int64(tags.event[row, last]["tick"]) + 1) * limits.tick_us - start_us
                if told_us < limits.short_us and last < known - 1:
                    more_us = expected_us(tags, row, i, last, limits, room) - told_us
                    if whole:
                        more_us = max(min(more_us, told_us), limits.tick_us - told_us)
                        early_us = more_us // 2
                        late_us = more_us - early_us
                    elif more_us < 0:  # it was only passed, now and again: once is enough
                        passed = False
                        for k in range(i, last + 1):
                            if room.top_zone[k, 0] != zone:
                                passed = True
                            elif passed:
                                room.top_zone[k, 0] = room.top_zone[k - 1, 0]
        n = place(
            tag,
            zone,
            room.top_p[i, 0],
            start_us,
            end_us,
            np.int64(event["reads"]),
            early_us,
            late_us,
            tick,
            radio,
            air,
            limits,
            out,
            n,
        )
    return n


# Visits.


@inner
def step(tag: Any, event: Int, radio: Radio) -> None:
    """The one place where a tag's state changes."""
    tag["state"] = radio.table[tag["state"], event]


@inner
def place(
    tag: Any,
    zone: Int,
    sure: float,
    start_us: Int,
    end_us: Int,
    reads: Int,
    early_us: Int,
    late_us: Int,
    tick: Int,
    radio: Radio,
    air: Air,
    limits: Limits,
    out: NDArray[Any],
    n: Int,
) -> Any:
    """Put one decided event into the tag's visits. A visit that it begins is taken to have begun `early_us` before it
    and to end `late_us` after its last event."""
    current = np.int64(tag["visit_zone"])
    if tag["state"] == STUCK_STATE:
        if reads > 0:
            tag["moved"] = tag["moved"] + 1 if 0 <= zone != tag["last_zone"] else 0
        if tag["moved"] < MOVED:
            return n
    enter_us = max(start_us - early_us, tag["exit_us"])
    if current >= 0:
        last_us = np.int64(tag["last_in_us"])
        if zone < 0:
            tag["elsewhere"] = 1
            if end_us - last_us - unknown_us(air, current, last_us, end_us) > limits.join_gap_us:
                return close(tag, NEVER, 0, tick, radio, air, limits, out, n)
            return n
        gap_us = start_us - last_us - unknown_us(air, current, last_us, start_us)
        if zone == current and gap_us <= (limits.join_gap_us if tag["elsewhere"] else limits.hold_us):
            tag["last_in_us"] = end_us
            tag["elsewhere"] = 0
            tag["sure"] += sure
            tag["events"] += 1
            tag["reads"] += reads
            if end_us - tag["enter_us"] >= limits.short_us:
                tag["late_us"] = 0
            step(tag, STAYED if end_us - tag["enter_us"] >= limits.visit_us else CONFIRMED, radio)
            if end_us - tag["enter_us"] >= radio.rest_us[tag["tag_class"]]:
                return rest(tag, tick, radio, out, n)
            return n
        n = close(tag, max(enter_us, tag["enter_us"] + 1), 0, tick, radio, air, limits, out, n)
        enter_us = max(enter_us, tag["exit_us"])
    elif zone < 0:
        return n
    tag["enter_us"] = enter_us
    tag["visit_zone"] = zone
    tag["last_zone"] = zone
    tag["last_in_us"] = max(end_us, enter_us + 1)
    tag["late_us"] = late_us
    tag["elsewhere"] = 0
    tag["sure"] = sure
    tag["events"] = 1
    tag["reads"] = reads
    before_us = enter_us - limits.join_gap_us
    tag["censored"] = 1 if unknown_us(air, zone, before_us, enter_us) > 0 else 0
    if tag["journey_us"] < 0:
        tag["journey_us"] = enter_us
    step(tag, PLACED, radio)
    return emit(tag, OPENED, tick, out, n)


@inner
def rest(tag: Any, tick: Int, radio: Radio, out: NDArray[Any], n: Int) -> Any:
    """A visit longer than anybody's: it is no visit, and the journey ended with the one before."""
    tag["exit_us"] = tag["last_in_us"]
    n = emit(tag, STUCK, tick, out, n)
    if tag["journey_us"] < tag["enter_us"]:
        n = emit(tag, ENDED, tick, out, n)
    tag["journey_us"] = -1
    tag["visit_zone"] = NONE
    tag["moved"] = 0
    step(tag, RESTED, radio)
    return n


@inner
def close(
    tag: Any, next_us: Int, cut: Int, tick: Int, radio: Radio, air: Air, limits: Limits, out: NDArray[Any], n: Int
) -> Any:
    """End the open visit, at the latest with `next_us`, the beginning of the next one; `cut`: end not seen."""
    last_us = np.int64(tag["last_in_us"])
    exit_us = max(last_us + tag["late_us"], tag["enter_us"] + 1)
    if next_us != NEVER:
        exit_us = min(exit_us, next_us)
    elif cut:
        exit_us = max(min(last_us, tag["last_us"]), tag["enter_us"])
    if cut or unknown_us(air, np.int64(tag["visit_zone"]), last_us, min(next_us, last_us + limits.join_gap_us)) > 0:
        tag["censored"] = 1
    tag["exit_us"] = exit_us
    n = emit(tag, CLOSED, tick, out, n)
    tag["visit_zone"] = NONE
    step(tag, VISIT_CLOSED, radio)
    return n


@inner
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
    row["exit_us"] = min(tag["last_in_us"], tag["last_us"]) if kind == OPENED else tag["exit_us"]
    row["reads"] = tag["reads"]
    row["censored"] = tag["censored"]
    row["confidence"] = tag["sure"] / tag["events"]
    row["kind"] = kind
    row["tick"] = tick
    return n + 1


@inner
def patience_us(tag: Any, brief: Int, limits: Limits) -> Any:
    """Silence that ends the tag's journey."""
    if tag["state"] == STUCK_STATE:
        return limits.end_silence_us
    if tag["journey_us"] < 0:
        return limits.forget_us
    return limits.end_after_exit_us if brief else limits.end_silence_us


@inner
def next_decision(tag: Any, tick: Int, limits: Limits) -> Any:
    """Tick at which an event of a tag is decided: each tag's at other ones than its neighbours', however reads come."""
    due = tick + limits.lag_ticks + 1
    own = np.int64(tag_hash(tag["epc"], np.int64(tag["epc_bits"])) >> np.uint64(32)) % limits.batch_ticks
    return due + (own - due) % limits.batch_ticks


@inner
def look(
    tags: Tags, row: Int, tick: Int, radio: Radio, air: Air, limits: Limits, room: Scratch, out: NDArray[Any], n: Int
) -> Any:
    """What time alone does to a tag; returns (length of `out`, tick of the next look, NEVER when it is gone)."""
    tag = tags.life[row]
    now_us = (tick + 1) * limits.tick_us
    while tag["n_events"] > 0:
        due = next_decision(tag, np.int64(tags.event[row, 0]["tick"]), limits)
        if due > tick:
            return n, due
        upto_tick = max(tick - limits.lag_ticks, np.int64(tags.event[row, 0]["tick"]))
        n = decide(tags, row, upto_tick, tick, radio, air, limits, room, out, n)
    silent_us = now_us - tag["last_us"]
    if tag["visit_zone"] >= 0:
        zone = np.int64(tag["visit_zone"])
        out_us = now_us - tag["last_in_us"]
        known_us = out_us - unknown_us(air, zone, np.int64(tag["last_in_us"]), now_us)
        if known_us < limits.hold_us and silent_us < limits.end_silence_us:
            if out_us >= limits.join_gap_us:
                step(tag, FADED, radio)
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
        n = emit(tag, ENDED, tick, out, n)
    step(tag, JOURNEY_ENDED, radio)
    return n, NEVER


# The run through time.

READS, MERCHANDISE, DUPLICATES, TAGS, STRAYS, FROZEN = 0, 1, 2, 3, 4, 5
COUNTERS = 6
ROOM = 2 * EVENTS + 4
"""Decisions that one call may make of a tag."""
MERCHANDISE_CLASS = 4
"""layout.TagClass.MERCHANDISE: such tags get no place at all."""


@inner_kernel
def enlarge(out: NDArray[Any], n: Int) -> Any:
    """`out` with room for twice as much."""
    larger = np.empty(2 * out.shape[0], out.dtype)
    larger[:n] = out[:n]
    return larger


@inner
def admit(
    tag: Any, epc: NDArray[np.uint64], bits: Int, tag_class: Int, tick: Int, radio: Radio, air: Air, limits: Limits
) -> None:
    """Begin a tag's life in a free row."""
    for w in range(8):
        tag["epc"][w] = epc[w]
    tag["epc_bits"] = bits
    tag["tag_class"] = tag_class
    tag["state"] = 0
    tag["n_cells"] = 0
    tag["ticks"] = 0
    tag["heard"] = 0
    usual = 0
    for k in range(air.tags.shape[1]):
        if air.tags[tag_class, k] > air.tags[tag_class, usual]:
            usual = k
    tag["bias"] = usual % limits.biases
    tag["rate"] = usual // limits.biases
    tag["louder"] = 0.0
    tag["quieter"] = 0.0
    tag["oftener"] = 0.0
    tag["rarer"] = 0.0
    tag["last_key"] = -1
    tag["repeats"] = 0
    tag["n_recent"] = 0
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
    tag["late_us"] = 0
    tag["n_events"] = 0
    tag["n_pool"] = 0
    step(tag, READ, radio)


@inner
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


@inner
def is_frozen(tag: Any, keys: NDArray[np.uint64], n: Int, tick: Int) -> Any:
    """True if a lone read repeats the antenna and the very level of the one before, as some readers do on and on with
    the last that they heard of a tag that has long gone."""
    key = np.int32(np.int64(keys[0] >> np.uint64(48)) << 16 | np.int64((keys[0] >> np.uint64(12)) & np.uint64(0xFFFF)))
    same = n == 1 and key == tag["last_key"] and tag["ticks"] > 0
    gap = tick - tag["last_us"] // 1_000_000 if tag["ticks"] > 0 else 0
    tag["last_key"] = key if n == 1 else -1
    if not same or gap < FROZEN_TICKS:
        tag["repeats"] = 0
        return False
    tag["repeats"] = min(tag["repeats"] + 1, 100)
    return tag["repeats"] > 1 or gap > 2 * LONE_TICKS


@inner
def hear(
    tags: Tags,
    row: Int,
    keys: NDArray[np.uint64],
    n_keys: Int,
    tick: Int,
    radio: Radio,
    air: Air,
    limits: Limits,
    room: Scratch,
) -> None:
    """One event of a tag from its sorted reads, and the silence before it."""
    tag = tags.life[row]
    first = np.int64((keys[0] >> np.uint64(28)) & np.uint64(0xFFFFF))
    last = first
    for i in range(1, n_keys):
        offset = np.int64((keys[i] >> np.uint64(28)) & np.uint64(0xFFFFF))
        first = min(first, offset)
        last = max(last, offset)
    start_us = tick * limits.tick_us
    if tag["first_us"] < 0:
        tag["first_us"] = start_us + first
    tag["last_us"] = start_us + last
    heard, loudest = levels_heard(keys, n_keys, limits, room)
    gap = np.int64(tick - tag["last_tick"] - 1)
    if gap > limits.lost_ticks:
        hold(tags, row, 0)
        tag["heard"] = 0
    if tag["n_cells"] > 0 and gap > 0:
        keep_silence(tags, row, gap, radio, air, limits, room)
    bias, rate = np.int64(tag["bias"]), np.int64(tag["rate"])
    jumped = False
    if tag["n_cells"] == 0:
        prior = radio.first if tag["ticks"] == 0 else radio.prior
        n = begin(prior, heard, loudest, bias, rate, radio, air, limits, room)
    else:
        n = predict(tags, row, 0, radio, limits, room)
        emit_levels(n, heard, bias, rate, CLEAR, radio, air, limits, room)
        if tag["ticks"] % BIAS_TICKS == 0:
            follow_tag(tag, n, heard, 0, radio, air, limits, room)
        weigh(n, room)
        if tag["lost"] > 0.0 or tag["ticks"] % LOST_TICKS == 0:
            jumped = is_lost(tag, n, heard, loudest, radio, air, limits, room)
        if jumped:
            n = jump(tag, n, heard, loudest, radio, air, limits, room)
    tag["ticks"] += 1
    tag["heard"] += 1
    cell = settle(tags, row, n, tick, 0, n_keys, jumped, radio, limits, room)
    if cell >= 0 and tag["ticks"] % WATCH_TICKS == 0 and tag["state"] != STUCK_STATE:
        follow_antennas(tag, cell, heard, radio, air, limits, room)
    for h in range(heard):
        a = room.antenna[h]
        air.missed[a] = 0
        air.missed_by[a] = 0
        if air.mute[a]:
            air.mute[a] = HEARD_AGAIN


@inner
def make_room(
    tags: Tags, row: Int, tick: Int, radio: Radio, air: Air, limits: Limits, room: Scratch, out: NDArray[Any], n: Int
) -> Any:
    """Decide a tag's older events early where the next ones would find no place; returns the new length of `out`."""
    tag = tags.life[row]
    gap: Any = max(np.int64(tick - tag["last_tick"] - 1), 0)
    if tag["n_cells"] == 0 or gap > limits.lost_ticks:
        gap = 0
    wanted = 1 + np.int64(radio.steps[gap, 0]) + np.int64(radio.steps[gap, 1]) + np.int64(radio.steps[gap, 2])
    while tag["n_events"] > 0 and tag["n_events"] + wanted > EVENTS:
        half = np.int64(tags.event[row, np.int64(tag["n_events"]) // 2]["tick"])
        n = decide(tags, row, half, tick, radio, air, limits, room, out, n)
    return n


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
    while tick < end_tick:
        here = tick
        next_read = reads[order[at]]["time_us"] // limits.tick_us if at < order.shape[0] else NEVER
        tick = min(next_read, next_look)
        if tick >= end_tick:
            tick = end_tick
            break
        tick = max(tick, here)
        tags.heads[NOW] = tick
        tags.heads[SEEK] = 0
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
                    admit(tags.life[row], read["epc"], bits, tag_class, tick, radio, air, limits)
            later[end] = row
            end += 1
        for i in range(at, end):
            row = later[i]
            if row < 0:
                counters[MERCHANDISE] += 1
                continue
            later[i] = chain[row]
            chain[row] = i
        heard = end > at
        counters[READS] += end - at
        at = end
        for row in range(chain.shape[0] if heard else 0):  # not as they came: what is near in memory comes after
            if chain[row] < 0:
                continue
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
            if is_frozen(tag, keys, kept, tick):
                counters[FROZEN] += 1
                continue
            if n + ROOM > out.shape[0]:
                out = enlarge(out, n)
            n = make_room(tags, row, tick, radio, air, limits, room, out, n)
            hear(tags, row, keys, kept, tick, radio, air, limits, room)
            due[row] = min(due[row], tick)
            if tag["n_events"] > 0:
                due[row] = next_decision(tag, np.int64(tags.event[row, 0]["tick"]), limits)
            next_look = min(next_look, due[row])
        if next_look <= tick:
            next_look = NEVER
            for row in range(tags.life.shape[0]):
                if due[row] <= tick:
                    if n + ROOM > out.shape[0]:
                        out = enlarge(out, n)
                    tag = tags.life[row]
                    n, due[row] = look(tags, row, tick, radio, air, limits, room, out, n)
                    if due[row] == NEVER:
                        if tag["last_zone"] < 0:
                            counters[STRAYS] += 1
                        remove(index, tags.life, row)
                        hold(tags, row, 0)
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
        if n + ROOM > out.shape[0]:
            out = enlarge(out, n)
        n = decide(tags, row, NEVER, tick, radio, air, limits, room, out, n)
        if tag["visit_zone"] >= 0:
            cut = 1 if end_us - tag["last_in_us"] <= limits.join_gap_us else 0
            n = close(tag, NEVER, cut, tick, radio, air, limits, out, n)
        if tag["journey_us"] >= 0:
            n = emit(tag, ENDED, tick, out, n)
        step(tag, JOURNEY_ENDED, radio)
        hold(tags, row, 0)
        tag["state"] = 0
    return out, n


# What a checkpoint keeps of blocks and pool: what is taken, tag by tag.


@lean
def pack_cells(tags: Tags, rows: NDArray[np.int64], cells: NDArray[Any], probs: NDArray[Any]) -> None:
    """Write down the active cells of tags."""
    n_cells = 0
    for row in rows:
        for i in range(np.int64(tags.life[row]["n_cells"])):
            block = tags.block[row, i // BLOCK]
            cells[n_cells] = tags.cells[block, i % BLOCK]
            for m in range(4):
                probs[n_cells, m] = tags.probs[block, m, i % BLOCK]
            n_cells += 1


@lean
def pack_pool(tags: Tags, rows: NDArray[np.int64], pool: NDArray[Any]) -> None:
    """Write down the words of tags' events."""
    n_pool = 0
    for row in rows:
        for i in range(np.int64(tags.life[row]["n_events"])):
            at = np.int64(tags.event[row, i]["at"])
            for k in range(np.int64(tags.event[row, i]["n"])):
                pool[n_pool] = tags.pool[at + k]
                n_pool += 1


@lean
def unpack(
    tags: Tags, due: NDArray[Any], cells: NDArray[Any], probs: NDArray[Any], pool: NDArray[Any], limits: Limits
) -> None:
    """Take over what was written down into the first rows, which have no blocks yet. They are looked at when `due`, but
    not later than their events are decided: another version may have done that later."""
    n_cells: Any = 0
    n_pool: Any = 0
    for row in range(due.shape[0]):
        if tags.life[row]["n_events"] > 0:
            due[row] = min(due[row], next_decision(tags.life[row], np.int64(tags.event[row, 0]["tick"]), limits))
        taken = np.int64(tags.life[row]["n_cells"])
        tags.life[row]["n_cells"] = 0
        hold(tags, row, taken)
        for i in range(taken):
            block = tags.block[row, i // BLOCK]
            tags.cells[block, i % BLOCK] = cells[n_cells]
            for m in range(4):
                tags.probs[block, m, i % BLOCK] = probs[n_cells, m]
            n_cells += 1
        for i in range(np.int64(tags.life[row]["n_events"])):
            event = tags.event[row, i]
            n = np.int64(event["n"])
            at: Any = reserve(tags, n, next_decision(tags.life[row], np.int64(event["tick"]), limits))
            if at < 0:
                tags.life[row]["n_pool"] -= n
                event["n"] = 0
                at = 0
            else:
                for k in range(n):
                    tags.pool[at + k] = pool[n_pool + k]
            event["at"] = at
            n_pool += n
