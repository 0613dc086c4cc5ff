"""Door counters: changes of readers' inputs to passages per 15 minutes, with their coverage.

The times of the changes count, so that those that a reader buffered while disconnected fall into their window.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from dataclasses import dataclass

from config.readers import Input
from drivers.session import Contact
from edge.store.compose import Shop


@dataclass
class _Counter:
    reader: str
    place: Input
    passages: int = 0
    """Passages since the service started."""
    last_us: int | None = None
    """Time of the last change in either direction."""
    deaf: bool = False
    """True if the reader doesn't report it."""


class DoorCounters:
    """Collects counts until the next commit: call `write` in its transaction, and `clear` after the commit."""

    def __init__(self, shop: Shop) -> None:
        self._window_us = shop.settings.window_us
        self._counters = {
            (reader.id, place.port): _Counter(reader.id, place)
            for reader in shop.config.readers
            for place in reader.inputs
        }
        self._of: dict[str, list[_Counter]] = defaultdict(list)
        for counter in self._counters.values():
            self._of[counter.reader].append(counter)
        self._up = dict.fromkeys(self._of, True)
        self._later: dict[str, list[tuple[int, bool]]] = {reader: [] for reader in self._of}
        self._upto_us: int | None = None
        self._passages: dict[tuple[int, str, int, str], int] = defaultdict(int)
        self._covered: dict[tuple[int, str, int, str], int] = defaultdict(int)

    def begin(self, at_us: int) -> None:
        """Start counting (again) at a time; every reader counts as up until reported down, as in Outages."""
        self._upto_us = at_us
        self._up = dict.fromkeys(self._of, True)
        for changes in self._later.values():
            changes.clear()

    def take(self, contact: Contact) -> None:
        """Take a change of an input: a passage if it became active after a pause."""
        counter = self._counters.get((contact.reader, contact.port))
        if counter is None:
            return
        before_us, counter.last_us = counter.last_us, contact.at_us
        quiet = before_us is None or abs(contact.at_us - before_us) >= counter.place.debounce_s * 1e6
        if quiet and contact.high == (counter.place.active == "high"):
            counter.passages += 1
            self._passages[self._key(counter, contact.at_us)] += 1

    def watched(self, reader: str, inputs: frozenset[int]) -> None:
        """Set the inputs that a connected reader reports."""
        for counter in self._of.get(reader, ()):
            counter.deaf = counter.place.port not in inputs

    def switch(self, reader: str, at_us: int, up: bool) -> None:
        """Note that a reader went down or up at a time, which may be past."""
        if reader not in self._up:
            return
        if self._upto_us is None or at_us > self._upto_us:
            self._later[reader].append((at_us, up))
        elif self._up[reader] != up:
            self._up[reader] = up
            self._cover(reader, at_us, self._upto_us, 1 if up else -1)

    def advance(self, watermark_us: int) -> None:
        """Note that everything up to a time is known."""
        if self._upto_us is None or watermark_us <= self._upto_us:
            return
        for reader, changes in self._later.items():
            from_us = self._upto_us
            while changes and changes[0][0] <= watermark_us:
                at_us, up = changes.pop(0)
                if self._up[reader] and not up:
                    self._cover(reader, from_us, at_us, 1)
                from_us = max(from_us, at_us)
                self._up[reader] = up
            if self._up[reader]:
                self._cover(reader, from_us, watermark_us, 1)
        self._upto_us = watermark_us

    def passages(self, reader: str) -> dict[int, int]:
        """Return the passages since the service started, by input."""
        return {counter.place.port: counter.passages for counter in self._of.get(reader, ())}

    def write(self, conn: sqlite3.Connection) -> None:
        """Add the collected counts to the windows."""
        keys = dict.fromkeys([*self._passages, *self._covered])
        conn.executemany(
            "INSERT INTO door (window_us, reader, port, zone, passages, covered_us) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE"
            " SET passages = passages + excluded.passages, covered_us = covered_us + excluded.covered_us",
            [(*key, self._passages.get(key, 0), self._covered.get(key, 0)) for key in keys],
        )

    def clear(self) -> None:
        """Drop the committed counts."""
        self._passages.clear()
        self._covered.clear()

    def _key(self, counter: _Counter, at_us: int) -> tuple[int, str, int, str]:
        return at_us // self._window_us * self._window_us, counter.reader, counter.place.port, counter.place.zone

    def _cover(self, reader: str, from_us: int, to_us: int, sign: int) -> None:
        while from_us < to_us:
            next_us = min(to_us, from_us // self._window_us * self._window_us + self._window_us)
            for counter in self._of[reader]:
                if not counter.deaf:
                    self._covered[self._key(counter, from_us)] += sign * (next_us - from_us)
            from_us = next_us
