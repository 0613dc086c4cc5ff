"""What decisions make of a tag: its visits and its journey."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwell.compiled import Int, inner
from dwell.markov.kernels.antennas import unknown_us
from dwell.markov.kernels.figures import (
    CLOSED,
    CONFIRMED,
    ENDED,
    MOVED,
    NEVER,
    NONE,
    OPENED,
    PLACED,
    RESTED,
    STAYED,
    STUCK,
    STUCK_STATE,
    VISIT_CLOSED,
)
from dwell.markov.tables import Air, Limits, Radio


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
