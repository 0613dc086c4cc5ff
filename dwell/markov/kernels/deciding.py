"""From probabilities to decisions: the zone of each event, and how long stays last."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwell.compiled import Int, inner
from dwell.markov.kernels.backward import look_back, share_of
from dwell.markov.kernels.figures import KNOWN_TICKS, LONE_TICKS, NONE, RECENT
from dwell.markov.kernels.visits import place
from dwell.markov.tables import Air, Limits, Radio, Scratch, Tags

AHEAD = 28
"""Events beyond the decided ones that are looked at to tell how long a short stay was."""


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
        for rank in range(3):
            if tags.recent_zone[row, k, rank] == zone:
                total += tags.recent_p[row, k, rank] * limits.tick_us
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
                for rank in range(3):
                    tags.recent_zone[row, k, rank] = tags.recent_zone[row, k - 1, rank]
                    tags.recent_p[row, k, rank] = tags.recent_p[row, k - 1, rank]
            for rank in range(3):
                tags.recent_zone[row, 0, rank] = room.top_zone[i, rank]
                tags.recent_p[row, 0, rank] = room.top_p[i, rank]
            tag["n_recent"] = min(np.int64(tag["n_recent"]) + 1, RECENT)
    for i in range(count):
        tag["n_pool"] -= np.int64(events[i]["n"])
    for i in range(count, known):
        events[i - count] = events[i]
    tag["n_events"] = known - count
    if tag["ticks"] >= KNOWN_TICKS:
        air.tags[tag["tag_class"], np.int64(tag["rate"]) * limits.biases + np.int64(tag["bias"])] += 1
    return n


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
