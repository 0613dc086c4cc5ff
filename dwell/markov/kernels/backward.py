"""The backward pass: what later events say of those that wait."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwell.compiled import Int, inner, part
from dwell.markov.kernels.figures import NONE, WAYS
from dwell.markov.tables import Limits, Radio, Scratch, Tags


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
