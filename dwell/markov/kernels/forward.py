"""The forward pass: what a tick says of a tag, and where the tag is, given all reads so far."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwell.compiled import Int, inner, part
from dwell.markov.kernels.figures import (
    BIAS_TICKS,
    BLOCK,
    BLOCKED,
    CELLS,
    CLEAR,
    FAINT,
    HALF,
    HEARD,
    LEAVE,
    NONE,
    OTHER_BLOCKED,
    OTHER_CLEAR,
    PAD,
    PLANE,
    STANDS,
    STANDS_BLOCKED,
    STOP,
    WALKS,
    WALKS_BLOCKED,
    WHOLE,
)
from dwell.markov.kernels.index import tag_hash
from dwell.markov.kernels.pool import hold, next_decision, remember
from dwell.markov.tables import Air, Limits, Radio, Scratch, Tags


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
