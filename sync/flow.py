"""One class on its way to the CRM: what was sent, what is acknowledged, when to send next. No I/O; monotonic time."""

from __future__ import annotations

import time
from collections import deque

from sync.contract import EventClass

WINDOW = 8
"""Batches of a class without an ack."""
WEIGHTS: dict[EventClass, int] = {"journey": 4, "agg": 2, "health": 1}
"""Shares of the line among the classes that can wait, while they all have something to send."""
SILENCE_S = (2.0, 60.0)
"""Without an ack for so long, all is sent again; doubles to the second."""


class Flow:
    """Where a class is: `acked` ≤ `cursor` (sent up to) ≤ `highest` (known to have been numbered)."""

    def __init__(self, class_: EventClass) -> None:
        self.class_ = class_
        self.acked = self.cursor = self.highest = 0
        self.turn = 0  # changes whenever the cursor moves by other than sending: a batch read meanwhile is stale
        self.share = 0.0  # bytes sent by weight
        self._window = WINDOW
        self._unacked: deque[int] = deque()  # last number of each batch on its way
        self._due_s: float | None = 0.0  # monotonic time at which to look into the outbox; None: nothing there
        self._paused_until_s = 0.0
        self._silence_s = SILENCE_S[0]
        self._heard_s = 0.0

    def wake(self, gather_s: float) -> None:
        due = time.monotonic() + gather_s
        self._due_s = due if self._due_s is None else min(self._due_s, due)

    def wait_s(self, now_s: float) -> float:
        """Seconds until a batch may be sent, or the silence be over; infinite while only a wake or an ack helps."""
        wait = float("inf")
        if self._due_s is not None and len(self._unacked) < self._window:
            wait = max(self._due_s, self._paused_until_s) - now_s
        if self._unacked:
            wait = min(wait, max(self._heard_s + self._silence_s - now_s, 0.001))
        return wait

    def looking(self) -> None:
        """The outbox is being read: until more is known, only a wake makes it worth another look."""
        self._due_s = None

    def sent(self, last: int, size: int, now_s: float) -> None:
        """A batch up to `last` is on its way; there may be more behind it."""
        if not self._unacked:
            self._heard_s = now_s
        self._unacked.append(last)
        self.cursor = last
        self.highest = max(self.highest, last)
        self.share += size / WEIGHTS.get(self.class_, 1)
        self._due_s = now_s

    def take_ack(self, upto: int, pause_s: float, now_s: float) -> bool:
        """True if the class moved on."""
        self._paused_until_s = now_s + pause_s
        if pause_s or upto > self.acked:
            self._heard_s = self._paused_until_s
        if upto <= self.acked:
            return False
        self.acked = upto
        self._silence_s, self._window = SILENCE_S[0], WINDOW
        while self._unacked and self._unacked[0] <= upto:
            self._unacked.popleft()
        if upto > self.cursor:
            self.cursor = upto
            self._due_s = now_s
            self.turn += 1
        return True

    def silent(self, now_s: float) -> bool:
        """If the CRM has been silent for too long: go back to what it has acked, and try with one batch."""
        if not self._unacked or now_s < self._heard_s + self._silence_s:
            return False
        self._silence_s = min(self._silence_s * 2, SILENCE_S[1])
        self._window = 1
        self._back()
        return True

    def rewind(self) -> None:
        """A new connection: nothing of what was on its way counts."""
        self._silence_s, self._window = SILENCE_S[0], WINDOW
        self._back()

    def _back(self) -> None:
        self._unacked.clear()
        self.cursor = self.acked
        self._due_s = 0.0
        self.turn += 1
