"""Events that wait to be decided: their cells lie in one pool for all tags, together with those of the same tick."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwell.compiled import Int, inner, lean, part
from dwell.markov.kernels.figures import (
    BIT_SHIFT,
    BLOCK,
    BLOCKED,
    CELLS,
    CHUNK,
    CLEAR,
    EVENTS,
    NONE,
    NOW,
    ONE_BITS,
    SEEK,
    SPARE,
    STANDS,
    STANDS_BLOCKED,
    WALKS,
    WALKS_BLOCKED,
    WHOLE,
)
from dwell.markov.kernels.index import tag_hash
from dwell.markov.tables import Limits, Scratch, Tags


@inner
def next_decision(tag: Any, tick: Int, limits: Limits) -> Any:
    """Tick at which an event of a tag is decided: each tag's at other ones than its neighbours', however reads come."""
    due = tick + limits.lag_ticks + 1
    own = np.int64(tag_hash(tag["epc"], np.int64(tag["epc_bits"])) >> np.uint64(32)) % limits.batch_ticks
    return due + (own - due) % limits.batch_ticks


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
