"""TagTable: a row for each tag that is followed, found by its EPC, and what the rows share."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dwell.markov.kernels import figures
from dwell.markov.kernels.index import rebuild
from dwell.markov.kernels.pool import compact, pack_cells, pack_pool, unpack
from dwell.markov.tables import EVENT, LIFE, Limits, Tags

ROWS = "life", "event", "recent_zone", "recent_p", "block"
"""Arrays with a row for each tag."""
KEPT_ROWS = "life", "recent_zone", "recent_p"
"""Those that a state keeps as they are."""
KEPT_EVENT = np.dtype([("tick", "<i8"), ("reads", "<u2"), ("n", "<u2"), ("span", "u1"), ("jump", "u1")], align=True)
"""An event in a state."""
NEVER_WANTED = -1
IDLE_TICKS = 30
"""Chunks that nothing has been written to for so long are more than are needed."""
SLICE_ROWS = 256
PAGE = mmap.PAGESIZE
PRIVATE = getattr(mmap, "MAP_PRIVATE", 0) | getattr(mmap, "MAP_ANONYMOUS", 0) | getattr(mmap, "MAP_NORESERVE", 0)


class Sliced(NamedTuple):
    """An array that is made a slice after the other, since an engine knows some 10 KB of each tag. The slices must be
    made before the engine goes on."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    slices: Callable[[], Iterator[NDArray[Any]]]

    def whole(self) -> NDArray[Any]:
        """All of it."""
        return np.concatenate([np.zeros((0, *self.shape[1:]), self.dtype), *self.slices()])


class TagTable:
    """The tags' rows, when each is to be looked at next (`due`), an index by EPC, and a stack of free rows.

    Kernels work on the arrays in place; `n_free` is what they return.
    """

    def __init__(self, rows: int) -> None:
        self._cells = _Memory(figures.BLOCKS * figures.BLOCK * 2)
        self._probs = _Memory(figures.BLOCKS * figures.BLOCK * 16)
        self._pool = _Memory(figures.CHUNKS * figures.CHUNK * 8)
        self.tags = self._tags(0)
        self.due = np.zeros(0, np.int64)
        self.index = np.zeros(0, np.int32)
        self.free = np.zeros(0, np.int32)
        self.n_free = 0
        self.grow(rows)

    def grow(self, rows: int) -> None:
        """Make room for `rows` more tags."""
        old = len(self.due)
        before, self.tags = self.tags, self._tags(0)  # nothing may look at memory that is to be moved
        before = before._replace(cells=self.tags.cells, probs=self.tags.probs, pool=self.tags.pool)
        self.tags = tags = self._tags(old + rows)
        for name in ROWS:
            getattr(tags, name)[:old] = getattr(before, name)
        n_spare, blocks = int(before.heads[figures.SPARE]), len(before.spare)
        tags.spare[: len(tags.spare) - blocks] = np.arange(len(tags.spare) - 1, blocks - 1, -1)
        tags.spare[len(tags.spare) - blocks :][:n_spare] = before.spare[:n_spare]
        tags.heads[:] = before.heads
        tags.heads[figures.SPARE] += len(tags.spare) - blocks
        tags.wanted[: len(before.wanted)] = before.wanted
        tags.stream[:] = before.stream
        self.due = np.concatenate([self.due, np.full(rows, figures.NEVER, np.int64)])
        free = self.free[: self.n_free]
        more = np.arange(old + rows - 1, old - 1, -1)
        self.free = np.concatenate([free, more, np.zeros(old - len(free))]).astype(np.int32)
        self.n_free += rows
        self._reindex()

    def trim(self, tick: int) -> None:
        """Give back the memory of blocks that tags have used once and don't use now, and of chunks of the pool that are
        idle for long.

        A tag of which little is known has many cells in question, but not for long.
        """
        tags = self.tags
        idle = (tags.wanted >= 0) & (tags.wanted + IDLE_TICKS < tick)
        for chunk in np.flatnonzero(idle).tolist():
            self._pool.give_back(chunk * figures.CHUNK * 8, (chunk + 1) * figures.CHUNK * 8)
        tags.wanted[idle] = NEVER_WANTED
        taken = compact(tags)
        for memory, array in ((self._cells, tags.cells), (self._probs, tags.probs)):
            memory.give_back(taken * array.strides[0], array.nbytes)

    def state(self) -> dict[str, NDArray[Any] | Sliced]:
        """The tags as plain arrays; of what has places for more, only the places that are taken."""
        used = np.flatnonzero(self.tags.life["state"] != 0)
        cells, events, words = (int(self.tags.life[name][used].sum()) for name in ("n_cells", "n_events", "n_pool"))

        def of(size: int, array: NDArray[Any], rows: Callable[[NDArray[np.int64]], NDArray[Any]]) -> Sliced:
            """So many like those of an array, made of some rows at a time."""
            starts = range(0, len(used), SLICE_ROWS)
            return Sliced(
                (size, *array.shape[1:]),
                array.dtype,
                lambda: (rows(used[start : start + SLICE_ROWS]) for start in starts),
            )

        return {
            **{f"tags_{name}": of(len(used), array, array.__getitem__) for name, array in self._kept_rows()},
            "due": self.due[used],
            "tags_event": of(events, np.zeros(0, KEPT_EVENT), self._events),
            "tags_cells": of(cells, np.zeros(0, np.uint16), lambda rows: self._active(rows)[0]),
            "tags_probs": of(cells, np.zeros((0, 4), np.float32), lambda rows: self._active(rows)[1]),
            "tags_pool": of(words, np.zeros(0, np.uint64), self._pools),
        }

    def _kept_rows(self) -> list[tuple[str, NDArray[Any]]]:
        return [(name, getattr(self.tags, name)) for name in KEPT_ROWS]

    def _events(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        taken = np.arange(figures.EVENTS) < self.tags.life["n_events"][rows][:, None]
        events = np.zeros(int(taken.sum()), KEPT_EVENT)
        for name in KEPT_EVENT.names or ():
            events[name] = self.tags.event[name][rows][taken]
        return events

    def _active(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
        n = int(self.tags.life["n_cells"][rows].sum())
        active = np.empty(n, np.uint16), np.empty((n, 4), np.float32)
        pack_cells(self.tags, rows, *active)
        return active

    def _pools(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        pool = np.empty(int(self.tags.life["n_pool"][rows].sum()), np.uint64)
        pack_pool(self.tags, rows, pool)
        return pool

    def restore(self, state: dict[str, NDArray[Any]], limits: Limits) -> bool:
        """Take over the tags of a `state`, into an empty table; False if it is another version's."""
        life, events = state["tags_life"], state["tags_event"]
        cells, probs, pool = state["tags_cells"], state["tags_probs"], state["tags_pool"]
        if life.dtype != LIFE or events.dtype != KEPT_EVENT:
            return False
        n_events = life["n_events"].astype(np.int64)
        n_cells, n_pool = int(life["n_cells"].sum()), int(events["n"].sum())
        shapes = (events, (int(n_events.sum()),)), (cells, (n_cells,)), (probs, (n_cells, 4)), (pool, (n_pool,))
        if any(array.shape != shape for array, shape in shapes) or n_pool != life["n_pool"].sum():
            return False
        if [cells.dtype, probs.dtype, pool.dtype] != [np.dtype(kind) for kind in (np.uint16, np.float32, np.uint64)]:
            return False
        if life["n_cells"].max(initial=0) > figures.CELLS or n_events.max(initial=0) > figures.EVENTS:
            return False
        if len(life) > len(self.due):
            self.grow(len(life) - len(self.due))
        tags = self.tags
        for name in KEPT_ROWS:
            kept, rows = state[f"tags_{name}"], getattr(tags, name)
            if kept.dtype != rows.dtype or kept.shape != (len(life), *rows.shape[1:]):
                return False
            rows[: len(life)] = kept
        taken = np.arange(figures.EVENTS) < n_events[:, None]
        for name in KEPT_EVENT.names or ():
            tags.event[name][: len(life)][taken] = events[name]
        tags.heads[figures.NOW] = life["last_tick"].max(initial=0)
        tags.heads[figures.SEEK] = 0
        self.due[: len(life)] = state["due"]
        unpack(tags, self.due[: len(life)], cells, probs, pool, limits)
        self.n_free = len(self.due) - len(life)
        self.free[: self.n_free] = np.arange(len(life), len(self.due))[::-1]
        self._reindex()
        return True

    def _reindex(self) -> None:
        self.index = np.zeros(4 << (len(self.due) - 1).bit_length(), np.int32)
        rebuild(self.index, self.tags.life)

    def _tags(self, n: int) -> Tags:
        """Room for n tags; shared memory as it is for none."""
        blocks = n * figures.BLOCKS
        return Tags(
            life=np.zeros(n, LIFE),
            event=np.zeros((n, figures.EVENTS), EVENT),
            recent_zone=np.zeros((n, figures.RECENT, 3), np.int16),
            recent_p=np.zeros((n, figures.RECENT, 3), np.float32),
            block=np.zeros((n, figures.BLOCKS), np.int32),
            cells=self._cells.array(n, np.uint16).reshape(blocks, figures.BLOCK),
            probs=self._probs.array(n, np.float32).reshape(blocks, 4, figures.BLOCK),
            spare=np.zeros(blocks, np.int32),
            pool=self._pool.array(n, np.uint64),
            wanted=np.full(n * figures.CHUNKS, NEVER_WANTED, np.int64),
            stream=np.zeros((figures.EVENTS, 2), np.int64),
            heads=np.zeros(3, np.int64),
        )


class _Memory:
    """So many bytes for each of a number of tags, which keep their place when there are more. What nobody has touched
    takes no memory."""

    def __init__(self, row_bytes: int) -> None:
        self._row_bytes = row_bytes
        self._memory: mmap.mmap | None = None

    def array(self, rows: int, dtype: Any) -> NDArray[Any]:
        """All of it, with room for so many tags. Arrays made before must be gone by then."""
        if not rows:
            return np.zeros(0, dtype)
        size = rows * self._row_bytes
        if self._memory is None:
            self._memory = _mapped(size)
        elif len(self._memory) < size:
            try:
                self._memory.resize(size)
            except (BufferError, OSError, SystemError, ValueError):  # not all systems can move it
                memory = _mapped(size)
                memory[: len(self._memory)] = self._memory[:]
                self._memory = memory
        return np.frombuffer(self._memory, dtype)

    def give_back(self, start: int, end: int) -> None:
        """Let go of the whole pages of a part that nobody uses."""
        start = -(-start // PAGE) * PAGE
        if self._memory is not None and hasattr(mmap, "MADV_DONTNEED") and start < end:
            self._memory.madvise(mmap.MADV_DONTNEED, start, end - start)


def _mapped(size: int) -> mmap.mmap:
    return mmap.mmap(-1, size, flags=PRIVATE) if PRIVATE else mmap.mmap(-1, size)
