"""Shop in real time: walkers, and one simulated reader for each of the store file."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from config import Reader, StoreConfig
from simulators.readers.llrp import LlrpReader
from simulators.readers.observation import Observation, SimulatedReader
from simulators.readers.serial_families import serial_reader
from simulators.shop import tills
from simulators.shop.antennas import Antennas
from simulators.shop.radio import ROW, Rows
from simulators.shop.score import write_stays
from simulators.shop.world import Member, SimulatedShop
from simulators.shop.worlds import World

PUSH_S = 0.02
SELL_S = 0.5
AHEAD_US = 12_000_000
"""Store time simulated ahead of delivery: more than a slice of the world."""


@dataclass(frozen=True)
class StoreClock:
    """UTC in microseconds: equal to wall time at `origin_us`, from there `speed` times as fast."""

    speed: float = 1.0
    origin_us: int = 0

    def __call__(self) -> int:
        wall_us = time.time_ns() // 1000
        return wall_us if self.speed == 1 else self.origin_us + round((wall_us - self.origin_us) * self.speed)


@dataclass(frozen=True)
class Plays:
    """Options of a shop; paths that are None are not written, no duration means until SIGTERM or SIGINT."""

    config: StoreConfig
    world: World
    seed: int
    shoppers: int
    clock: StoreClock
    announce: Path | None = None
    truth: Path | None = None
    members: Path | None = None
    duration_s: float | None = None
    tills: Path | None = None
    """Sales by zone and hour, written anew whenever an hour is over."""
    antennas: Antennas | None = None
    """Real mounting of antennas; as in the store file unless given."""


async def play(plays: Plays) -> dict[str, int]:
    """Run the shop; returns how many reads were pushed and how many people there were."""
    config = plays.config
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    # The first slice compiles its kernels: no reader must be asked meanwhile.
    await asyncio.to_thread(_open(plays, 1).slice)
    readers = {reader.id: _reader(reader, plays.clock) for reader in config.readers}
    try:
        addresses = {id_: await reader.start() for id_, reader in readers.items()}
        shop = _open(plays, plays.shoppers)
        if plays.members is not None:
            write_members(plays.members, shop.members)
        if plays.announce is not None:
            _write_atomically(plays.announce, json.dumps({"readers": addresses}) + "\n")
        player = _Player(shop, list(readers.values()), plays.clock)
        selling = asyncio.create_task(_sell(plays, shop, player))
        try:
            async with asyncio.timeout(plays.duration_s):
                await player.run(stopped)
        except TimeoutError:
            pass
        finally:
            selling.cancel()
            await asyncio.gather(selling, return_exceptions=True)
        if plays.truth is not None:
            write_stays(plays.truth, shop.truth(min(plays.clock(), player.made_us)))
        return {"reads": player.pushed, "walkers": shop.walkers}
    finally:
        await asyncio.gather(*(reader.stop() for reader in readers.values()))


async def _sell(plays: Plays, shop: SimulatedShop, player: _Player) -> None:
    """Write what the tills have sold, whenever an hour is over."""
    told = 0
    while plays.tills is not None:
        now_us = min(plays.clock(), player.made_us)
        over = len(tills.hours_over(plays.config, shop.origin_us, now_us))
        if over > told:
            stays = await asyncio.to_thread(shop.truth, now_us)
            found = tills.sales(plays.config, stays, shop.origin_us, now_us, plays.seed)
            tills.write(plays.tills, plays.config, found)
            told = over
        await asyncio.sleep(SELL_S)


def write_members(path: Path, members: Sequence[Member]) -> None:
    """Write a member directory `epc,member,tier,consent,hint` as the gateway imports it."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("epc", "member", "tier", "consent", "hint"))
        rows.writerows((m.epc.hex(), m.member, m.tier, int(m.consent), m.hint) for m in members)


class _Player:
    """Delivers the world's rows to the readers when they are due, and simulates outages."""

    def __init__(self, shop: SimulatedShop, readers: Sequence[SimulatedReader], clock: StoreClock) -> None:
        self.made_us = shop.origin_us
        self.pushed = 0
        self._shop = shop
        self._readers = readers
        self._clock = clock
        self._waiting = np.empty(0, ROW)
        self._down: dict[int, int] = {}
        self._outages_seen = 0

    async def run(self, stopped: asyncio.Event) -> None:
        making = asyncio.create_task(self._make_ahead())
        try:
            while not stopped.is_set() and not making.done():
                now_us = min(self._clock(), self.made_us)
                await self._switch(now_us)
                due = int(np.searchsorted(self._waiting["arrival_us"], now_us, side="right"))
                self._push(self._waiting[:due])
                self._waiting = self._waiting[due:]
                await asyncio.sleep(PUSH_S)
        finally:
            making.cancel()
            with suppress(asyncio.CancelledError):
                await making

    async def _make_ahead(self) -> None:
        while True:
            while self.made_us < self._clock() + AHEAD_US:
                # In a thread: while a slice is made, what was heard before must not wait.
                _, end_us, rows = await asyncio.shield(asyncio.to_thread(self._shop.slice))
                waiting = np.concatenate([self._waiting, rows])
                self._waiting = waiting[np.argsort(waiting["arrival_us"], kind="stable")]
                self.made_us = end_us
            await asyncio.sleep(PUSH_S)

    def _push(self, rows: Rows) -> None:
        antennas, epcs = self._shop.antennas, self._shop.epcs
        reader = antennas.reader[rows["antenna"]]
        for number, target in enumerate(self._readers):
            mine = rows[reader == number]
            if len(mine):
                times, tags, rssi = mine["time_us"].tolist(), mine["tag"].tolist(), mine["rssi_cdbm"].tolist()
                ports = antennas.port[mine["antenna"]].tolist()
                target.push(
                    [Observation(t, p, epcs[e], r) for t, p, e, r in zip(times, ports, tags, rssi, strict=True)]
                )
                self.pushed += len(mine)

    async def _switch(self, now_us: int) -> None:
        for number, start_us, end_us in self._shop.outages[self._outages_seen :]:
            if start_us > now_us:
                break
            self._outages_seen += 1
            if number not in self._down:
                await self._readers[number].stop()
            self._down[number] = end_us
        for number in [number for number, end_us in self._down.items() if end_us <= now_us]:
            del self._down[number]
            await self._readers[number].start()


def _open(plays: Plays, shoppers: int) -> SimulatedShop:
    return SimulatedShop(
        plays.config,
        plays.world,
        seed=plays.seed,
        shoppers=shoppers,
        origin_us=plays.clock(),
        antennas=plays.antennas,
    )


def _reader(reader: Reader, clock: StoreClock) -> SimulatedReader:
    ports = max(4, *(antenna.port for antenna in reader.antennas))
    if reader.driver == "llrp":
        return LlrpReader(clock, name=reader.id, ports=ports)
    if reader.driver == "json":
        from simulators.readers.pushed import json_reader

        return json_reader(clock, str(reader.profile), reader.address)
    return serial_reader(reader.driver, clock, ports)


def _write_atomically(path: Path, text: str) -> None:
    beside = path.with_name(path.name + ".new")
    beside.write_text(text)
    os.replace(beside, path)
