"""The run through time: reads of many tags, second by second."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwell.compiled import Int, inner, inner_kernel, kernel
from dwell.markov.kernels.antennas import unknown_us
from dwell.markov.kernels.deciding import decide
from dwell.markov.kernels.figures import (
    BIAS_TICKS,
    CLEAR,
    DUPLICATES,
    ENDED,
    EVENTS,
    FADED,
    FROZEN,
    FROZEN_TICKS,
    HEARD_AGAIN,
    JOURNEY_ENDED,
    LONE_TICKS,
    LOST_TICKS,
    MERCHANDISE,
    NEVER,
    NONE,
    NOW,
    READ,
    READS,
    SEEK,
    STRAYS,
    STUCK_STATE,
    TAGS,
    WATCH_TICKS,
)
from dwell.markov.kernels.forward import (
    begin,
    emit_levels,
    follow_antennas,
    follow_tag,
    is_lost,
    jump,
    keep_silence,
    levels_heard,
    predict,
    settle,
    weigh,
)
from dwell.markov.kernels.index import classify, find, remove
from dwell.markov.kernels.pool import hold, next_decision
from dwell.markov.kernels.visits import close, emit, step
from dwell.markov.tables import Air, Limits, Radio, Scratch, Tags

ROOM = 2 * EVENTS + 4
"""Decisions that one call may make of a tag."""
MERCHANDISE_CLASS = 4
"""layout.TagClass.MERCHANDISE: such tags get no place at all."""


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


@inner
def patience_us(tag: Any, brief: Int, limits: Limits) -> Any:
    """Silence that ends the tag's journey."""
    if tag["state"] == STUCK_STATE:
        return limits.end_silence_us
    if tag["journey_us"] < 0:
        return limits.forget_us
    return limits.end_after_exit_us if brief else limits.end_silence_us


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
