"""Which antennas can be heard, and which zones are unknown because theirs can't."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwell.compiled import Int, inner, kernel, lean
from dwell.markov.kernels.figures import DOWNS, NEVER, PAD, QUIET
from dwell.markov.tables import Air, Limits, Radio


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
