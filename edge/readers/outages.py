"""Outages of antennas for the engine, and the watermark limit while readers may still deliver buffered reads.

A reader that buffers reads while disconnected has missed nothing: if they still arrive in time, there was no outage. So
the watermark waits for it, for a while. Times `_us` are the store's, `_s` the loop's.

    link goes down, reader keeps reads       wait at that time; no outage yet
    … link up, reads from then on to come    wait with them, until the reader has handed over all: there was no outage
    … link up, none to come                  outage from then to the link's beginning
    … nothing for too long                   outage from then on; what comes later is late
    link goes down, reader keeps none        outage
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from drivers.session import Gap, Link, ReaderStatus

AWAY_S = 60.0
"""Maximum wait for a disconnected reader: a switch or a gateway restarts faster."""
HAND_OVER_S = 600.0
"""Maximum total wait for one that is delivering its backlog."""

Switch = Callable[[str, int, bool], None]
"""Tell the engine that a reader's antennas went down (False) or up at a time."""


@dataclass
class Wait:
    """Wait for a reader whose reads since `from_us` may still arrive."""

    from_us: int
    began_s: float
    up: bool = False


class Outages:
    """Turns the sessions' status into outages; one per pipeline. Every reader counts as up until reported down."""

    def __init__(self, readers: Iterable[str], switch: Switch) -> None:
        self._switch = switch
        self._up = dict.fromkeys(readers, True)
        self._waits: dict[str, Wait] = {}

    def begin(self, at_us: int, now_s: float | None) -> None:
        """Start without connected readers; `now_s`: an earlier run ended at `at_us`, and readers may have buffered
        reads since."""
        for reader in self._up:
            if now_s is None:
                self._change(reader, at_us, False)
            else:
                self._waits[reader] = Wait(at_us, now_s)

    def anew(self, at_us: int) -> None:
        """Start with a new engine at a time: tell it which readers are down; stop waiting for any."""
        for reader in self._waits:
            self._up[reader] = False
        self._waits.clear()
        for reader, up in self._up.items():
            if not up:
                self._switch(reader, at_us, False)

    def link(self, status: ReaderStatus, now_s: float) -> None:
        """Take a change of a reader's link, or of what may still arrive from it."""
        reader, wait = status.reader, self._waits.get(status.reader)
        if status.link is Link.UP:
            if wait is None:
                self._change(reader, status.since_us, True)
            elif status.reads_from_us is not None:
                wait.up = True
                wait.from_us = max(wait.from_us, status.reads_from_us)
            else:
                del self._waits[reader]
                if not wait.up:
                    self._change(reader, wait.from_us, False)
                self._change(reader, status.since_us, True)
        elif wait is not None:
            wait.up = False
            if status.link is Link.DOWN and not status.keeps:
                self._give_up(reader)
        elif self._up[reader]:
            if status.keeps:
                self._waits[reader] = Wait(status.since_us, now_s)
            else:
                self._change(reader, status.since_us, False)

    def gap(self, gap: Gap) -> None:
        """Take lost reads of a reader that is up."""
        wait = self._waits.get(gap.reader)
        if self._up[gap.reader]:
            # What was handed over before is in its place already.
            self._switch(gap.reader, max(gap.from_us, wait.from_us if wait is not None else 0), False)
            self._switch(gap.reader, gap.to_us, True)

    def step(self, from_us: int, to_us: int) -> None:
        """The clock was set, and what was there meanwhile is unknown: an outage of all readers that are up."""
        for reader, up in self._up.items():
            if up:
                self._switch(reader, from_us, False)
                self._switch(reader, to_us, True)

    def bound_us(self, now_s: float, now_us: int, *, hurry: bool) -> int | None:
        """Return the watermark limit because of readers; None: no limit. `hurry`: wait for none."""
        for reader, wait in list(self._waits.items()):
            if hurry or now_s - wait.began_s > (HAND_OVER_S if wait.up else AWAY_S):
                self._give_up(reader)
                if wait.up:
                    self._change(reader, now_us, True)
        return min((wait.from_us for wait in self._waits.values()), default=None)

    def _give_up(self, reader: str) -> None:
        self._change(reader, self._waits.pop(reader).from_us, False)

    def _change(self, reader: str, at_us: int, up: bool) -> None:
        if self._up[reader] != up:
            self._up[reader] = up
            self._switch(reader, at_us, up)
