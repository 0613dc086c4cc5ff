"""The line to the broker: how many bytes may be under way on it, learnt from how fast they get through. No I/O.

A shop's uplink may carry 16 kbit/s or a gigabit, and its modem may keep many seconds' worth. So little is sent ahead
that it gets through within AHEAD_S: a recognition comes through as soon, and neither the broker nor we take the line
for dead. On a fast line that is all that a lane ever puts on its way.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

AHEAD_S = 2.0
ROOM_BYTES = (8 * 1024, 128 * 1024)
"""Least and most that a lane has under way; the most is 1 s on a line of 1 Mbit/s."""
START_BYTES = 32 * 1024
"""… before the first message, which goes alone, has shown how fast it is."""
BATCH_BYTES = (4 * 1024, 32 * 1024)
"""A smaller batch would be a tenth envelope, a larger one holds up a recognition."""
SHARE = 4
"""Batches that a lane has under way: while one is answered the line is not idle."""


class Sent(NamedTuple):
    """A message on its way: of which lane, how large, sent when, with how many bytes before it and its own."""

    lane: str
    size: int
    at_s: float
    under_way: int


class Line:
    """What is under way, by lane: one lane's messages never wait for room that another's take."""

    def __init__(self) -> None:
        self.room = START_BYTES
        self._known = False
        self._under_way: Counter[str] = Counter()

    @property
    def batch_bytes(self) -> int:
        """How large a message shall be."""
        return min(max(self.room // SHARE, BATCH_BYTES[0]), BATCH_BYTES[1])

    def has_room(self, lane: str) -> bool:
        """Whether the lane may send a batch now; when nothing is under way it may send any."""
        under_way = self._under_way[lane]
        return not under_way or (self._known and under_way + self.batch_bytes <= self.room)

    def send(self, lane: str, size: int, now_s: float) -> Sent:
        """Note that a message is handed to the link."""
        self._under_way[lane] += size
        return Sent(lane, size, now_s, self._under_way.total())

    def taken(self, sent: Sent, now_s: float) -> None:
        """Note that the broker has a message, and learn from how long it, and what was before it, took."""
        self._under_way[sent.lane] = max(self._under_way[sent.lane] - sent.size, 0)
        took_s = max(now_s - sent.at_s, 1e-3)
        fits = int(AHEAD_S * sent.under_way / took_s)
        self._known = True
        if fits >= self.room:
            self.room = min(fits, ROOM_BYTES[1])
        elif took_s > AHEAD_S or sent.under_way > self.room // 2:  # else it was no more because there was no more
            self.room = max((self.room + fits) // 2, ROOM_BYTES[0])

    def broke(self) -> None:
        """Note that the link is lost, and all that was under way with it: perhaps it was too much."""
        if self._under_way.total():
            self.room = max(self.room // 2, ROOM_BYTES[0])
        self._under_way.clear()
