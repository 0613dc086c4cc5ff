"""Congestion control towards the broker: how many bytes may be in flight, learnt from how fast they get through. No
I/O.

A shop's uplink may carry 16 kbit/s or a gigabit, and its modem may buffer many seconds of data. Only so much is in
flight as gets through within AHEAD_S: then a recognition waits no longer, and neither side takes the line for dead. On
a fast line this is no limit in practice.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

AHEAD_S = 2.0
LIMIT_BYTES = (8 * 1024, 128 * 1024)
"""Minimum and maximum bytes that a lane has in flight; the maximum is 1 s on a line of 1 Mbit/s."""
START_BYTES = 32 * 1024
"""Limit before the first message, which goes alone, has shown how fast the line is."""
BATCH_BYTES = (4 * 1024, 32 * 1024)
"""Size of a batch: a tenth of a smaller one would be envelope, a larger one would delay recognitions."""
SHARE = 4
"""Batches that a lane has in flight, so that the line isn't idle while one is answered."""


class Sent(NamedTuple):
    """Message in flight: lane, size, time sent, and bytes in flight including it."""

    lane: str
    size: int
    at_s: float
    under_way: int


class Uplink:
    """Bytes in flight by lane: a lane never waits because of another."""

    def __init__(self) -> None:
        self.limit = START_BYTES
        self._known = False
        self._under_way: Counter[str] = Counter()

    @property
    def batch_bytes(self) -> int:
        """Target size of a message."""
        return min(max(self.limit // SHARE, BATCH_BYTES[0]), BATCH_BYTES[1])

    def may_send(self, lane: str) -> bool:
        """True if the lane may send a batch now; with nothing in flight it always may."""
        under_way = self._under_way[lane]
        return not under_way or (self._known and under_way + self.batch_bytes <= self.limit)

    def send(self, lane: str, size: int, now_s: float) -> Sent:
        """Note that a message is handed to the connection."""
        self._under_way[lane] += size
        return Sent(lane, size, now_s, self._under_way.total())

    def taken(self, sent: Sent, now_s: float) -> None:
        """Note that the broker has a message, and learn from the time that it took with those before it."""
        self._under_way[sent.lane] = max(self._under_way[sent.lane] - sent.size, 0)
        took_s = max(now_s - sent.at_s, 1e-3)
        fits = int(AHEAD_S * sent.under_way / took_s)
        self._known = True
        if fits >= self.limit:
            self.limit = min(fits, LIMIT_BYTES[1])
        elif took_s > AHEAD_S or sent.under_way > self.limit // 2:  # else it was no more because there was no more
            self.limit = max((self.limit + fits) // 2, LIMIT_BYTES[0])

    def broke(self) -> None:
        """Note that the connection is lost with everything in flight, perhaps because it was too much."""
        if self._under_way.total():
            self.limit = max(self.limit // 2, LIMIT_BYTES[0])
        self._under_way.clear()
