"""TagTable: a row for each tag that is followed, found by its EPC."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwell.markov import kernels
from dwell.markov.tables import EVENT, LIFE, Tags

TAKEN = {"cells": "n_cells", "probs": "n_cells", "event": "n_events", "pool": "n_pool"}
"""Arrays with places for more than a tag has, and the column of `life` that says how many it has."""


PAGE = mmap.PAGESIZE


class TagTable:
    """The tags' rows, when each is to be looked at next (`due`), an index by EPC, and a stack of free rows.

    Kernels work on the arrays in place; `n_free` is what they return.
    """

    def __init__(self, rows: int) -> None:
        self.tags, self._pool = _rows(0)
        self.due = np.zeros(0, np.int64)
        self.index = np.zeros(0, np.int32)
        self.free = np.zeros(0, np.int32)
        self.n_free = 0
        self.grow(rows)

    def grow(self, rows: int) -> None:
        """Make room for `rows` more tags."""
        old = len(self.due)
        tags, pool = _rows(old + rows)
        for name in Tags._fields:
            before, after = getattr(self.tags, name), getattr(tags, name)
            if name not in TAKEN:
                after[:old] = before
                continue
            # What nobody has touched takes no memory: only the places that are taken are copied.
            for row, n in enumerate(np.where(self.tags.life["state"] != 0, self.tags.life[TAKEN[name]], 0).tolist()):
                after[row, :n] = before[row, :n]
        self.tags, self._pool = tags, pool
        self.due = np.concatenate([self.due, np.full(rows, kernels.NEVER, np.int64)])
        free = self.free[: self.n_free]
        more = np.arange(old + rows - 1, old - 1, -1)
        self.free = np.concatenate([free, more, np.zeros(old - len(free))]).astype(np.int32)
        self.n_free += rows
        self._reindex()

    def trim(self) -> None:
        """Give back the memory of places in the pool that tags have used once and don't use now.

        A tag of which little is known has thousands of cells in question, but not for long.
        """
        if self._pool is None or not hasattr(mmap, "MADV_DONTNEED"):
            return
        row_bytes, word = self.tags.pool.strides
        free = self.tags.life["state"] == 0
        used = -(-np.where(free, 0, self.tags.life["n_pool"]).astype(np.int64) * word // PAGE) * PAGE
        for row in np.flatnonzero(used < row_bytes).tolist():
            self._pool.madvise(mmap.MADV_DONTNEED, row * row_bytes + int(used[row]), row_bytes - int(used[row]))

    def state(self) -> dict[str, NDArray[Any]]:
        """The tags as plain arrays; of what has places for more, only the places that are taken."""
        used = np.flatnonzero(self.tags.life["state"] != 0)
        packed: dict[str, NDArray[Any]] = {"due": self.due[used]}
        for name, rows in self.tags._asdict().items():
            if name in TAKEN:
                parts = [rows[row, : self.tags.life[TAKEN[name]][row]] for row in used]
                packed[f"tags_{name}"] = np.concatenate([rows[:0, 0], *parts])
            else:
                packed[f"tags_{name}"] = rows[used]
        return packed

    def restore(self, state: dict[str, NDArray[Any]]) -> bool:
        """Take over the tags of a `state`, into an empty table; False if it is another version's."""
        life = state["tags_life"]
        if life.dtype != self.tags.life.dtype:
            return False
        if len(life) > len(self.due):
            self.grow(len(life) - len(self.due))
        for name, rows in self.tags._asdict().items():
            packed = state[f"tags_{name}"]
            if packed.dtype != rows.dtype:
                return False
            if name not in TAKEN:
                if packed.shape != (len(life), *rows.shape[1:]):
                    return False
                rows[: len(life)] = packed
                continue
            ends = np.cumsum(life[TAKEN[name]].astype(np.int64))
            if packed.shape != (ends[-1] if len(ends) else 0, *rows.shape[2:]):
                return False
            if len(life) and life[TAKEN[name]].max() > rows.shape[1]:
                return False
            for row, (start, end) in enumerate(zip(ends - life[TAKEN[name]], ends, strict=True)):
                rows[row, : end - start] = packed[start:end]
        self.due[: len(life)] = state["due"]
        self.n_free = len(self.due) - len(life)
        self.free[: self.n_free] = np.arange(len(life), len(self.due))[::-1]
        self._reindex()
        return True

    def _reindex(self) -> None:
        self.index = np.zeros(4 << (len(self.due) - 1).bit_length(), np.int32)
        kernels.rebuild(self.index, self.tags.life)


def _rows(n: int) -> tuple[Tags, mmap.mmap | None]:
    """Room for n tags, and the memory that the pool lies in: whole pages a row."""
    memory = mmap.mmap(-1, n * kernels.POOL * 8) if n else None
    pool = np.frombuffer(memory, np.uint64) if memory is not None else np.zeros(0, np.uint64)
    tags = Tags(
        life=np.zeros(n, LIFE),
        cells=np.zeros((n, kernels.CELLS), np.uint16),
        probs=np.zeros((n, kernels.CELLS, 4), np.float32),
        event=np.zeros((n, kernels.EVENTS), EVENT),
        pool=pool.reshape(n, kernels.POOL),
        recent_zone=np.zeros((n, kernels.RECENT, 3), np.int16),
        recent_p=np.zeros((n, kernels.RECENT, 3), np.float32),
    )
    return tags, memory
