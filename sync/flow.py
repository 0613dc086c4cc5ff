"""One class on its way to the CRM: what was sent, what is acknowledged, when to send next. No I/O; monotonic time."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

from sync.contract import EventClass

WINDOW = 8
"""Batches of a class without an ack."""
WEIGHTS: dict[EventClass, int] = {"journey": 4, "agg": 2, "health": 1}
"""Shares of the line among the classes that can wait, while they all have something to send."""
SILENCE_S = (2.0, 60.0)
"""Without an ack for so long after the broker has a batch, all is sent again; doubles to the second."""
PATIENCE = 3.0
"""A CRM that takes its time is waited for so many times as long as it lately took …"""
PATIENCE_MOST_S = 10.0
"""… up to this."""
FADING = 0.7
"""By how much that falls with each quicker ack."""


@dataclass
class _Batch:
    """A batch on its way, by its last number; `taken_s`: since when the broker has it."""

    last: int
    taken_s: float | None = None


class Flow:
    """Where a class is: `acked` ≤ `cursor` (sent up to) ≤ `highest` (ever sent, as far as is known)."""

    def __init__(self, class_: EventClass) -> None:
        self.class_ = class_
        self.acked = self.cursor = self.highest = 0
        self.turn = 0  # changes whenever the cursor moves by other than sending: a batch read meanwhile is stale
        self.share = 0.0  # bytes sent by weight
        self.silences = 0
        """In a row."""
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
        """Seconds until a batch may be sent, or the silence be over; infinite while only a wake, an ack or the broker's
        answer helps."""
        wait = float("inf")
        if self._due_s is not None and len(self._unacked) < self._window:
            wait = max(self._due_s, self._paused_until_s) - now_s
        if self._is_with_the_crm():
            wait = min(wait, max(self._heard_s + self._silence_s - now_s, 0.001))
        return wait

    def paused_s(self, now_s: float) -> float:
        """For how long the CRM wants to hear nothing of the class."""
        return max(0.0, self._paused_until_s - now_s)

    def looking(self) -> None:
        """The outbox is being read: until more is known, only a wake makes it worth another look."""
        self._due_s = None

    def sent(self, last: int, size: int, now_s: float) -> None:
        """A batch up to `last` is on its way; there may be more behind it."""
        self._unacked.append(_Batch(last))
        self.cursor = last
        self.highest = max(self.highest, last)
        self.share += size / WEIGHTS.get(self.class_, 1)
        self._due_s = now_s

    def taken(self, last: int, now_s: float) -> None:
        """The broker has the batch up to `last`: only from now on can the CRM be silent about it."""
        for batch in self._unacked:
            if batch.last == last and batch.taken_s is None:
                batch.taken_s = now_s
                self._heard_s = max(self._heard_s, now_s)

    def take_ack(self, upto: int, pause_s: float, now_s: float) -> bool:
        """True if the class moved on."""
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
        """If the CRM has been silent for too long: go back to what it has acked, and try with one batch."""
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
        """A new connection: nothing of what was on its way counts."""
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
