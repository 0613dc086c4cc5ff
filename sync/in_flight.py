"""Flow control of one class: what is sent, what is acknowledged, when to send next. No I/O; monotonic time."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

from sync.contract import EventClass

WINDOW = 8
"""Maximum number of unacknowledged batches of a class."""
WEIGHTS: dict[EventClass, int] = {"journey": 4, "agg": 2, "health": 1}
"""Shares of the line for the classes that can wait, while all have something to send."""
SILENCE_S = (2.0, 60.0)
"""Time without an ack, after the broker has a batch, until all is sent again; doubles up to the second value."""
PATIENCE = 3.0
"""A slow CRM is given this many times as long as it lately took …"""
PATIENCE_MOST_S = 10.0
"""… up to this time."""
FADING = 0.7
"""Factor by which that time falls with each quicker ack."""


@dataclass
class _Batch:
    """Batch in flight, by its last number; `taken_s`: when the broker took it."""

    last: int
    taken_s: float | None = None


class InFlight:
    """Position of a class: `acked` ≤ `cursor` (sent up to) ≤ `highest` (ever sent, as far as known)."""

    def __init__(self, class_: EventClass) -> None:
        self.class_ = class_
        self.acked = self.cursor = self.highest = 0
        self.turn = 0  # changes whenever the cursor moves by other than sending: a batch read meanwhile is stale
        self.share = 0.0  # bytes sent by weight
        self.silences = 0
        """Number of consecutive silences."""
        self._window = WINDOW
        self._unacked: deque[_Batch] = deque()
        self._due_s: float | None = 0.0  # monotonic time at which to look into the outbox; None: nothing there
        self._paused_until_s = 0.0
        self._silence_s = SILENCE_S[0]
        self._took_s = 0.0  # how long the CRM lately took
        self._quiet_s = 0.0  # since when it has been silent
        self._heard_s = 0.0

    def wake(self, gather_s: float) -> None:
        due = time.monotonic() + gather_s
        self._due_s = due if self._due_s is None else min(self._due_s, due)

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until a batch may be sent, or the silence is over; infinite while only a wake, an ack or
        the broker's answer helps."""
        wait = float("inf")
        if self._due_s is not None and len(self._unacked) < self._window:
            wait = max(self._due_s, self._paused_until_s) - now_s
        if self._is_with_the_crm():
            wait = min(wait, max(self._heard_s + self._silence_s - now_s, 0.001))
        return wait

    def paused_s(self, now_s: float) -> float:
        """Return how long the CRM has paused the class."""
        return max(0.0, self._paused_until_s - now_s)

    def looking(self) -> None:
        """Note that the outbox is being read: until then, only a wake is a reason to read again."""
        self._due_s = None

    def sent(self, last: int, size: int, now_s: float) -> None:
        """Note that a batch up to `last` was sent; there may be more behind it."""
        self._unacked.append(_Batch(last))
        self.cursor = last
        self.highest = max(self.highest, last)
        self.share += size / WEIGHTS.get(self.class_, 1)
        self._due_s = now_s

    def taken(self, last: int, now_s: float) -> None:
        """Note that the broker took the batch up to `last`: the CRM's silence counts from now on."""
        for batch in self._unacked:
            if batch.last == last and batch.taken_s is None:
                batch.taken_s = now_s
                self._heard_s = max(self._heard_s, now_s)

    def take_ack(self, upto: int, pause_s: float, now_s: float) -> bool:
        """Take an ack; True if the class advanced."""
        lifted = not pause_s and self._paused_until_s > now_s
        self._paused_until_s = now_s + pause_s
        if pause_s or lifted or upto > self.acked:
            self._heard_s = self._paused_until_s
        if upto <= self.acked:
            return False
        self.acked = upto
        self._took_s *= FADING
        while self._unacked and self._unacked[0].last <= upto:
            taken_s = self._unacked.popleft().taken_s
            self._took_s = max(self._took_s, now_s - taken_s if taken_s else 0.0)
        if self.silences and upto > self.cursor:  # nothing was lost: it had it, and took its time
            self._took_s = min(now_s - self._quiet_s, PATIENCE_MOST_S)
        self.silences = 0
        self._silence_s, self._window = self._patience_s(), WINDOW
        if upto > self.cursor:
            self.cursor = upto
            self._due_s = now_s
            self.turn += 1
        return True

    def silent(self, now_s: float) -> bool:
        """Go back to what is acked and retry with one batch if the CRM has been silent for too long; True then."""
        if not self._is_with_the_crm() or now_s < self._heard_s + self._silence_s:
            return False
        if not self.silences:
            self._quiet_s = self._heard_s
        self.silences += 1
        self._silence_s = min(self._silence_s * 2, SILENCE_S[1])
        self._window = 1
        self._back()
        return True

    def rewind(self) -> None:
        """Go back to what is acked, on a new connection."""
        self._silence_s, self._window = self._patience_s(), WINDOW
        self._back()

    def _is_with_the_crm(self) -> bool:
        return bool(self._unacked) and all(batch.taken_s is not None for batch in self._unacked)

    def _patience_s(self) -> float:
        return max(SILENCE_S[0], min(PATIENCE * self._took_s, PATIENCE_MOST_S))

    def _back(self) -> None:
        self._unacked.clear()
        self.cursor = self.acked
        self._due_s = 0.0
        self.turn += 1
