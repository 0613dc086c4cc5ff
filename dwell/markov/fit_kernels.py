"""The compiled part of learning a store's radio.

A *chunk* is up to two minutes of one tag; the cells where it may have been are its own list. Densities of a tick are
those of dwell.field, of a cell and of whether a body is in between: state 2 · cell + blocked.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dwell.compiled import Int, inner_kernel, kernel

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


LOUD = 320
"""Mean levels are told apart in so many steps …"""
LOUD_DBM, LOUD_STEP_DB = -140.0, 0.5
"""… of this size from here."""
OFF = 161
"""Steps in which `expect` counts how far reads lie off their mean level; the middle one is none."""
LEAST = 1e-8
"""States less likely than this are given up."""
FAR_NATS = 18.0
"""States less likely than the best by more add nothing."""


class Chunks(NamedTuple):
    """K chunks, T ticks (of a second, or several) in all, O observations, D stretches of antennas that were down."""

    tick: Ints
    """(K + 1,) first tick of each chunk."""
    counts: NDArray[np.bool_]
    """(T,) ticks that count in `weigh`."""
    start: Ints
    """(T + 1,) first observation of each tick."""
    antenna: Ints
    """(O,)"""
    level: Floats
    """(O,) dBm, NaN where unknown."""
    reads: Ints
    """(O,)"""
    heard: Ints
    """(O,) seconds of the tick in which the antenna has heard the tag."""
    cell: Ints
    """(K + 1,) first entry of each chunk in …"""
    cells: Ints
    """… the cells where its tag may have been."""
    near: Ints
    """(K + 1,) first entry of each chunk in …"""
    nears: Ints
    """… the antennas that may hear it there."""
    down: Ints
    """(K + 1,) first entry of each chunk in …"""
    downs: Ints
    """(D, 3) … antennas that were down, from which tick of T until before which."""


class Heard(NamedTuple):
    """What antennas hear, A antennas by C cells."""

    level: NDArray[np.float32]
    """(A, C) mean dBm of a usual tag."""
    miss: Floats
    """(A, LOUD) log probability of hearing nothing in a tick, by mean level."""
    rate: Floats
    """(A,) share of the seconds."""
    seconds: int
    """Of a tick."""
    through: Floats
    """(LOUD,) log share of the answers that aren't lost for weakness, by mean level."""
    area: Floats
    """(READS + 1,) logarithm of what makes levels' densities, by number of reads."""
    sharp: Floats
    """(READS + 1,) one over their variance."""
    prior: Floats
    """(C,) log odds of being in a cell at some moment."""
    half_rate_dbm: float
    width_db: float
    tail: float
    block_db: float
    blocked: float
    """Share of the time in which a body is in between."""


class Walk(NamedTuple):
    """How people move and bodies turn, a tick."""

    start: Ints
    """(C + 1,) first way out of each cell …"""
    to: Ints
    """… the cells that ways lead to …"""
    share: Floats
    """… and the share of walkers that takes each."""
    stop: Floats
    """(C,) share of walkers who stop there."""
    go: Floats
    """(C,) share of those who stand there that begin to walk."""
    block: float
    clear: float
    power: float
    """To which densities are raised: ticks partly say the same again."""


@inner_kernel
def _emit(chunks: Chunks, heard: Heard, k: Int, t: Int, bias: float, base: Floats, some: Ints, out: Floats) -> None:
    """(cells, 2) log density of tick t of T in some of the cells, given the base of silence of all antennas near."""
    c0 = chunks.cell[k]
    for c in some:
        out[c, 0] = base[c, 0]
        out[c, 1] = base[c, 1]
    for d in range(chunks.down[k], chunks.down[k + 1]):
        if chunks.downs[d, 1] <= t < chunks.downs[d, 2]:
            a = chunks.downs[d, 0]
            for c in some:
                for b in range(2):
                    m = heard.level[a, chunks.cells[c0 + c]] + bias - b * heard.block_db
                    out[c, b] -= heard.miss[a, _step(m)]
    for o in range(chunks.start[t], chunks.start[t + 1]):
        a, r = chunks.antenna[o], chunks.level[o]
        counted = 1.0
        for d in range(chunks.down[k], chunks.down[k + 1]):
            if chunks.downs[d, 0] == a and chunks.downs[d, 1] <= t < chunks.downs[d, 2]:
                counted = 0.0
        times = chunks.heard[o]
        silent = heard.seconds - times
        if np.isnan(r):
            for c in some:
                for b in range(2):
                    step = _step(heard.level[a, chunks.cells[c0 + c]] + bias - b * heard.block_db)
                    through = heard.rate[a] * np.exp(heard.through[step])
                    out[c, b] += times * np.log(through) + silent * np.log1p(-through) - counted * heard.miss[a, step]
            continue
        n = min(chunks.reads[o], len(heard.sharp) - 1)
        through = heard.rate[a] / (1.0 + np.exp((heard.half_rate_dbm - r) / heard.width_db))
        known = times * np.log(through) + silent * np.log1p(-through) - heard.area[n]
        sharp = heard.sharp[n]
        for c in some:
            for b in range(2):
                m = heard.level[a, chunks.cells[c0 + c]] + bias - b * heard.block_db
                q = (r - m) * (r - m) * sharp
                out[c, b] += known - 0.5 * heard.tail * q / (q + heard.tail) - counted * heard.miss[a, _step(m)]


@inner_kernel
def _step(level: float) -> Any:
    """Step of a mean level."""
    return np.int64(min(max((level - LOUD_DBM) / LOUD_STEP_DB + 0.5, 0.0), LOUD - 1.0))


@inner_kernel
def _silence(chunks: Chunks, heard: Heard, k: Int, bias: float, base: Floats) -> None:
    """(cells, 2) log probability that no antenna near hears a tag."""
    c0, c1 = chunks.cell[k], chunks.cell[k + 1]
    base[: c1 - c0] = 0.0
    for n in range(chunks.near[k], chunks.near[k + 1]):
        a = chunks.nears[n]
        for c in range(c1 - c0):
            level = heard.level[a, chunks.cells[c0 + c]] + bias
            base[c, 0] += heard.miss[a, _step(level)]
            base[c, 1] += heard.miss[a, _step(level - heard.block_db)]


@inner_kernel
def _total(heard: Heard, cells: Ints, prior: Floats, out: Floats) -> Any:
    """Log density of a tick, whatever its cell and whether blocked."""
    top = -np.inf
    for c in range(len(cells)):
        top = max(top, out[c, 0], out[c, 1])
    total = 0.0
    for c in range(len(cells)):
        weight = prior[c]
        if out[c, 0] > top - FAR_NATS:
            total += weight * (1.0 - heard.blocked) * np.exp(out[c, 0] - top)
        if out[c, 1] > top - FAR_NATS:
            total += weight * heard.blocked * np.exp(out[c, 1] - top)
    return top + np.log(total)


@kernel
def weigh(chunks: Chunks, heard: Heard, which: Ints, bias: Floats, result: Floats) -> None:
    """(len(which),) log density of the ticks that count, added up, of some chunks, each with its tag's bias."""
    most = 1
    for i in range(len(which)):
        k = which[i]
        most = max(most, chunks.cell[k + 1] - chunks.cell[k])
    base, out, prior = np.empty((most, 2)), np.empty((most, 2)), np.empty(most)
    for i in range(len(which)):
        k = which[i]
        cells = chunks.cells[chunks.cell[k] : chunks.cell[k + 1]]
        total = 0.0
        for c in range(len(cells)):
            prior[c] = np.exp(heard.prior[cells[c]])
            total += prior[c]
        for c in range(len(cells)):
            prior[c] /= total
        _silence(chunks, heard, k, bias[i], base)
        every = np.arange(len(cells))
        result[i] = 0.0
        silent, known = 0.0, False
        for t in range(chunks.tick[k], chunks.tick[k + 1]):
            if not chunks.counts[t]:
                continue
            alone = chunks.start[t] == chunks.start[t + 1] and chunks.down[k] == chunks.down[k + 1]
            if alone and known:
                result[i] += silent
                continue
            _emit(chunks, heard, k, t, bias[i], base, every, out)
            value = _total(heard, cells, prior, out)
            if alone:
                silent, known = value, True
            result[i] += value


@inner_kernel
def _walked(walk: Walk, cells: Ints, place: Ints, now: Floats, moved: Floats) -> None:
    """(cells, 2) where walkers are a tick later, who don't leave the chunk's cells."""
    n = len(cells)
    for c in range(n):
        moved[c, 0] = now[c, 0]
        moved[c, 1] = now[c, 1]
    for c in range(n):
        if now[c, 0] + now[c, 1] == 0.0:
            continue
        for w in range(walk.start[cells[c]], walk.start[cells[c] + 1]):
            to = place[walk.to[w]]
            if to >= 0:
                for b in range(2):
                    part = walk.share[w] * now[c, b]
                    moved[c, b] -= part
                    moved[to, b] += part


@inner_kernel
def _walked_back(walk: Walk, cells: Ints, place: Ints, then: Floats, moved: Floats) -> None:
    """The transpose of `_walked`."""
    for c in range(len(cells)):
        moved[c, 0] = then[c, 0]
        moved[c, 1] = then[c, 1]
        for w in range(walk.start[cells[c]], walk.start[cells[c] + 1]):
            to = place[walk.to[w]]
            if to >= 0:
                for b in range(2):
                    moved[c, b] += walk.share[w] * (then[to, b] - then[c, b])


@kernel
def follow(
    chunks: Chunks,
    heard: Heard,
    walk: Walk,
    k: Int,
    bias: float,
    place: Ints,
    ahead: NDArray[np.float32],
    odds: NDArray[np.float32],
) -> Any:
    """Forward pass over a chunk; returns its log score.

    A tick's density counts in each of its seconds, in equal parts. `place`: (C,) −1, kept so. If there is room: `ahead`
    (seconds, cells, 4) gets the probabilities of standing clear and
    blocked and of walking clear and blocked, given the reads so far, `odds` each tick's densities, clear and blocked.
    """
    kept = len(ahead) > 0
    cells = chunks.cells[chunks.cell[k] : chunks.cell[k + 1]]
    n, t0, t1 = len(cells), chunks.tick[k], chunks.tick[k + 1]
    for c in range(n):
        place[cells[c]] = c
    base, out, lift = np.empty((n, 2)), np.empty((n, 2)), np.empty((n, 2))
    _silence(chunks, heard, k, bias, base)
    stand, walks, moved = np.zeros((n, 2)), np.zeros((n, 2)), np.empty((n, 2))
    some = np.empty(n, np.int64)
    score, top, wide = 0.0, 0.0, heard.seconds
    power = walk.power / wide
    for second in range((t1 - t0) * wide):
        if second == 0:
            for c in range(n):
                first = np.exp(heard.prior[cells[c]])
                still = 0.8 if walk.stop[cells[c]] > 0.0 else 0.0
                for b in range(2):
                    side = heard.blocked if b else 1.0 - heard.blocked
                    stand[c, b] = first * still * side
                    walks[c, b] = first * (1.0 - still) * side
        else:
            _walked(walk, cells, place, walks, moved)
            for c in range(n):
                stop, go = walk.stop[cells[c]], walk.go[cells[c]]
                s0, s1 = stand[c, 0], stand[c, 1]
                a0 = s0 * (1.0 - go) + moved[c, 0] * stop
                a1 = s1 * (1.0 - go) + moved[c, 1] * stop
                b0 = s0 * go + moved[c, 0] * (1.0 - stop)
                b1 = s1 * go + moved[c, 1] * (1.0 - stop)
                stand[c, 0] = a0 * (1.0 - walk.block) + a1 * walk.clear
                stand[c, 1] = a0 * walk.block + a1 * (1.0 - walk.clear)
                walks[c, 0] = b0 * (1.0 - walk.block) + b1 * walk.clear
                walks[c, 1] = b0 * walk.block + b1 * (1.0 - walk.clear)
        if second % wide == 0:
            for c in range(n):
                lift[c, 0] = lift[c, 1] = 0.0
            active = 0
            for c in range(n):
                if wide > 1 or stand[c, 0] + stand[c, 1] + walks[c, 0] + walks[c, 1] > LEAST:
                    some[active] = c
                    active += 1
            _emit(chunks, heard, k, t0 + second // wide, bias, base, some[:active], out)
            top = -np.inf
            for c in some[:active]:
                top = max(top, out[c, 0], out[c, 1])
            for c in some[:active]:
                lift[c, 0] = np.exp(power * (out[c, 0] - top))
                lift[c, 1] = np.exp(power * (out[c, 1] - top))
        total = 0.0
        for c in range(n):
            if stand[c, 0] + stand[c, 1] + walks[c, 0] + walks[c, 1] > LEAST:
                for b in range(2):
                    stand[c, b] *= lift[c, b]
                    walks[c, b] *= lift[c, b]
                    total += stand[c, b] + walks[c, b]
            else:
                stand[c, 0] = stand[c, 1] = walks[c, 0] = walks[c, 1] = 0.0
        score += power * top + np.log(total)
        for c in range(n):
            for b in range(2):
                stand[c, b] /= total
                walks[c, b] /= total
                if kept:
                    ahead[second, c, b] = stand[c, b]
                    ahead[second, c, 2 + b] = walks[c, b]
                    odds[second, c, b] = lift[c, b]
    for c in range(n):
        place[cells[c]] = -1
    return score


@kernel
def smooth(
    chunks: Chunks,
    heard: Heard,
    walk: Walk,
    k: Int,
    bias: float,
    place: Ints,
    ahead: NDArray[np.float32],
    odds: NDArray[np.float32],
) -> None:
    """`odds` (seconds, cells, 4) gets the probabilities of standing clear and blocked and of walking clear and blocked,
    given all reads of a chunk. `place` and `ahead` as in `follow`."""
    follow(chunks, heard, walk, k, bias, place, ahead, odds)
    cells = chunks.cells[chunks.cell[k] : chunks.cell[k + 1]]
    n, t0, t1 = len(cells), chunks.tick[k], chunks.tick[k + 1]
    for c in range(n):
        place[cells[c]] = c
    lift, moved = np.empty((n, 2)), np.empty((n, 2))
    back_s, back_w = np.ones((n, 2)), np.ones((n, 2))
    for i in range((t1 - t0) * heard.seconds - 1, -1, -1):
        # The densities of this tick, before their room takes the result.
        for c in range(n):
            lift[c, 0], lift[c, 1] = odds[i, c, 0], odds[i, c, 1]
        total = 0.0
        for c in range(n):
            for b in range(2):
                odds[i, c, b] = ahead[i, c, b] * back_s[c, b]
                odds[i, c, 2 + b] = ahead[i, c, 2 + b] * back_w[c, b]
                total += odds[i, c, b] + odds[i, c, 2 + b]
        for c in range(n):
            for s in range(4):
                odds[i, c, s] /= total
        if i == 0:
            break
        top = 0.0
        for c in range(n):
            if ahead[i, c, 0] + ahead[i, c, 1] + ahead[i, c, 2] + ahead[i, c, 3] == 0.0:
                for b in range(2):
                    back_s[c, b] = back_w[c, b] = 0.0
                continue
            s0, s1 = back_s[c, 0] * lift[c, 0], back_s[c, 1] * lift[c, 1]
            w0, w1 = back_w[c, 0] * lift[c, 0], back_w[c, 1] * lift[c, 1]
            a0 = s0 * (1.0 - walk.block) + s1 * walk.block
            a1 = s0 * walk.clear + s1 * (1.0 - walk.clear)
            b0 = w0 * (1.0 - walk.block) + w1 * walk.block
            b1 = w0 * walk.clear + w1 * (1.0 - walk.clear)
            stop, go = walk.stop[cells[c]], walk.go[cells[c]]
            back_s[c, 0] = a0 * (1.0 - go) + b0 * go
            back_s[c, 1] = a1 * (1.0 - go) + b1 * go
            back_w[c, 0] = a0 * stop + b0 * (1.0 - stop)
            back_w[c, 1] = a1 * stop + b1 * (1.0 - stop)
            top = max(top, back_s[c, 0], back_s[c, 1], back_w[c, 0], back_w[c, 1])
        _walked_back(walk, cells, place, back_w, moved)
        for c in range(n):
            for b in range(2):
                back_s[c, b] /= top
                back_w[c, b] = moved[c, b] / top
    for c in range(n):
        place[cells[c]] = -1


@kernel
def expect(
    chunks: Chunks,
    heard: Heard,
    walk: Walk,
    which: Ints,
    bias: Floats,
    missed: Floats,
    off: Floats,
    times: Floats,
) -> None:
    """What smoothed states say of antennas, added up over some chunks.

    `missed`: (A, LOUD) ticks in which each antenna heard nothing, by mean level; `off`: (A, READS + 1, OFF) those in
    which it heard the tag, by how far that lay off its mean level; `times`: (A, seconds + 1, LOUD) by seconds in which
    it heard it, and how loud.
    """
    most, ticks, wide = 1, 1, heard.seconds
    for i in range(len(which)):
        k = which[i]
        most = max(most, chunks.cell[k + 1] - chunks.cell[k])
        ticks = max(ticks, chunks.tick[k + 1] - chunks.tick[k])
    place = np.full(heard.level.shape[1], -1, np.int64)
    ahead = np.empty((ticks * wide, most, 4), np.float32)
    odds = np.empty((ticks * wide, most, 4), np.float32)
    alls, some = np.empty((most, 2)), np.empty((most, 2))
    mean, up = np.empty((ticks, most, 2)), np.empty(ticks, np.bool_)
    for i in range(len(which)):
        k = which[i]
        cells = chunks.cells[chunks.cell[k] : chunks.cell[k + 1]]
        n, w0, w1 = len(cells), chunks.tick[k], chunks.tick[k + 1]
        smooth(chunks, heard, walk, k, bias[i], place, ahead, odds)
        alls[:n] = 0.0
        mean[: w1 - w0, :n] = 0.0
        for second in range((w1 - w0) * wide):
            for c in range(n):
                for b in range(2):
                    p = (odds[second, c, b] + odds[second, c, 2 + b]) / wide
                    mean[second // wide, c, b] += p
                    alls[c, b] += p
        for j in range(chunks.near[k], chunks.near[k + 1]):
            a = chunks.nears[j]
            for c in range(n):
                some[c, 0], some[c, 1] = alls[c, 0], alls[c, 1]
            up[: w1 - w0] = True
            for d in range(chunks.down[k], chunks.down[k + 1]):
                if chunks.downs[d, 0] == a:
                    for t in range(chunks.downs[d, 1] - w0, chunks.downs[d, 2] - w0):
                        up[t] = False
                        for c in range(n):
                            for b in range(2):
                                some[c, b] -= mean[t, c, b]
            for t in range(w1 - w0):
                for o in range(chunks.start[w0 + t], chunks.start[w0 + t + 1]):
                    if chunks.antenna[o] != a:
                        continue
                    r, reads = chunks.level[o], min(chunks.reads[o], len(heard.sharp) - 1)
                    if not np.isnan(r):
                        times[a, chunks.heard[o], _step(r)] += 1.0
                    for c in range(n):
                        for b in range(2):
                            p = mean[t, c, b]
                            if up[t]:
                                some[c, b] -= p
                            if p > 1e-6 and not np.isnan(r):
                                m = heard.level[a, cells[c]] + bias[i] - b * heard.block_db
                                far = (r - m) / LOUD_STEP_DB + OFF // 2 + 0.5
                                off[a, reads, np.int64(min(max(far, 0.0), OFF - 1.0))] += p
            for c in range(n):
                for b in range(2):
                    if some[c, b] > 1e-6:
                        m = heard.level[a, cells[c]] + bias[i] - b * heard.block_db
                        missed[a, _step(m)] += some[c, b]
