"""A store with sixteen readers whose days pass in minutes: members come, stay at counters, and go. The store's clock is
faster than ours; everything but the service is in this process.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from gateways import member_card

from edge.store.clock import Clock
from simulators.readers.llrp import LlrpReader
from simulators.readers.observation import Observation

ZONE = ZoneInfo("Asia/Shanghai")
READERS, PORTS = 16, 2
TICK_S = 0.05
READ_EVERY_S = 15.0
"""Of the store's time: a tag at rest in a shop full of tags is read about so often in a compressed day."""
OPEN = range(10, 22)
STAYS_S = (180, 1200)
COUNTERS_A_VISIT = 3
RETURNS = 0.3
"""Share of members who have been there before; everybody else is new …"""
AWAY_US = 3 * 3_600_000_000
"""… and so long ago at least."""


@dataclass
class Walker:
    """A member in the store: antennas in order, and until when at each."""

    card: bytes
    way: list[tuple[int, int]]
    read_us: int = 0


class BusyStore:
    """Readers, and members who come `per_hour` while it is open. `run` until cancelled."""

    def __init__(self, clock: Clock, per_hour: float, members: int, seed: int = 1) -> None:
        self._clock = clock
        self._per_hour = per_hour
        self._members = members
        self._chance = random.Random(seed)
        self.readers = [LlrpReader(clock.now_us, name=f"r{n:02}", ports=PORTS) for n in range(READERS)]
        self.here: list[Walker] = []
        self._left: list[tuple[int, int]] = []
        """When members left, or will have left, and who."""
        self._new = 0
        self.came = 0
        self.pushed = 0

    async def start(self) -> list[str]:
        """Start the readers; return their addresses."""
        return [await reader.start() for reader in self.readers]

    async def stop(self) -> None:
        for reader in self.readers:
            await reader.stop()

    async def run(self) -> None:
        """Let members come and go, and be read."""
        before_us = self._clock.now_us()
        while True:
            await asyncio.sleep(TICK_S)
            now_us = self._clock.now_us()
            if self._hour(now_us) in OPEN:
                expected = self._per_hour * (now_us - before_us) / 3600e6
                for _ in range(int(expected) + (self._chance.random() < expected % 1)):
                    self._enter(now_us)
            before_us = now_us
            self._read(now_us)

    async def reboot(self, reader: int, for_s: float) -> None:
        """Switch a reader off and on again."""
        await self.readers[reader].stop()
        await asyncio.sleep(for_s)
        await self.readers[reader].start()

    def _hour(self, now_us: int) -> int:
        return dt.datetime.fromtimestamp(now_us / 1e6, ZONE).hour

    def _enter(self, now_us: int) -> None:
        number = self._who(now_us)
        self.came += 1
        way, at_us = [], now_us
        counters = self._chance.sample(range(2, READERS * PORTS), COUNTERS_A_VISIT)
        for antenna, stay_s in [(0, 60), *((each, self._chance.uniform(*STAYS_S)) for each in counters), (1, 90)]:
            at_us += round(stay_s * 1e6)
            way.append((antenna, at_us))
        self._left.append((at_us, number))
        self.here.append(Walker(member_card(number), way))

    def _who(self, now_us: int) -> int:
        """Somebody new, or who was here some hours ago: a journey of their own, not the same again."""
        gone = next((n for n, (at_us, _) in enumerate(self._left) if now_us - at_us < AWAY_US), len(self._left))
        if (gone and self._chance.random() < RETURNS) or self._new >= self._members:
            return self._left.pop(self._chance.randrange(gone))[1]
        self._new += 1
        return self._new - 1

    def _read(self, now_us: int) -> None:
        heard: dict[int, list[Observation]] = {}
        for walker in self.here:
            while walker.way and walker.way[0][1] <= now_us:
                walker.way.pop(0)
            if not walker.way or now_us - walker.read_us < READ_EVERY_S * 1e6:
                continue
            walker.read_us = now_us
            antenna = walker.way[0][0]
            level = round(self._chance.gauss(-5400, 250))
            heard.setdefault(antenna // PORTS, []).append(Observation(now_us, 1 + antenna % PORTS, walker.card, level))
        self.here = [walker for walker in self.here if walker.way]
        for reader, observations in heard.items():
            self.pushed += len(observations)
            self.readers[reader].push(observations)


class Calendar:
    """Calls what happens at an hour of each store day, once. Hours are those of the store."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._events: list[tuple[float, Callable[[int], object]]] = []
        self._done: set[tuple[int, float]] = set()
        self._first = self._now()[0]

    def daily(self, hour: float, what: Callable[[int], object]) -> None:
        """Call `what` with the number of the day, counted from 0."""
        self._events.append((hour, what))

    def look(self) -> None:
        day, hour = self._now()
        for at, what in self._events:
            if hour >= at and (day, at) not in self._done:
                self._done.add((day, at))
                what(day - self._first)

    def _now(self) -> tuple[int, float]:
        now = dt.datetime.fromtimestamp(self._clock.now_us() / 1e6, ZONE)
        return now.toordinal(), now.hour + now.minute / 60


def started_at(hour: int) -> int:
    """Return the last moment, in microseconds, at which it was so late in the store."""
    now = dt.datetime.fromtimestamp(time.time(), ZONE)
    begin = now.replace(hour=hour, minute=0, second=0, microsecond=0)
    return round((begin if begin <= now else begin - dt.timedelta(days=1)).timestamp() * 1e6)
