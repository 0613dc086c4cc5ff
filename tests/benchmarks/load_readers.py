"""Many readers in one process, each with a steady rate of reads: `load_readers.py READERS RATE SECONDS ANNOUNCE`.

READERS is a number of LLRP readers, or of LLRP, pushing (JSON) and serial ones (5A over TCP), as in 40,16,8. Writes
their entries in a store file to ANNOUNCE, waits until all are inventorying, plays, and ends with a line of JSON.
5,000 tags stay where they are, under antennas 6 m apart that hear them the better the nearer; one new member a second
walks in.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from config.tags import gsrn96
from drivers.serial.hopeland_codec import FIVE_A
from simulators.readers.llrp import LlrpReader
from simulators.readers.observation import Observation
from simulators.readers.pushed import ServingReader
from simulators.readers.streaming_families import HopelandModule

TAGS = 5_000
STEP_S = 0.05
PREFIX = "0614141"
APART_M, HEIGHT_M = 6.0, 1.5
CHOICES = 64
"""Antennas that are drawn for a place, from which each read takes one."""


def now_us() -> int:
    return time.time_ns() // 1000


def heard_at(rng: random.Random) -> list[tuple[int, int]]:
    """Port and level of reads of a tag that stands somewhere under the four antennas of a reader."""
    at_m = rng.uniform(0, 4 * APART_M)
    away_m = [math.hypot(at_m - APART_M * (n + 0.5), HEIGHT_M) for n in range(4)]
    level_dbm = [-50 - 25 * math.log10(m) for m in away_m]
    ports = rng.choices(range(4), [10 ** (level / 15) for level in level_dbm], k=CHOICES)
    return [(port + 1, round(100 * rng.gauss(level_dbm[port], 3))) for port in ports]


class Pushing(ServingReader):
    """Impinj's HTTP stream."""

    lost = 0

    def __init__(self) -> None:
        super().__init__(now_us, "impinj", "http", 0)
        self.sent = 0

    @property
    def inventorying(self) -> bool:
        return self.running and bool(self._queues)

    def push(self, observations: Iterable[Observation]) -> None:
        seen = list(observations)
        self.sent += len(seen)
        super().push(seen)


class SerialServer:
    """A reader of the 5A kind behind a serial server, as fast as the network."""

    def __init__(self) -> None:
        self.sent = self.lost = 0
        self._module = HopelandModule(FIVE_A)
        self._out: asyncio.StreamWriter | None = None
        self._server: asyncio.Server | None = None

    @property
    def inventorying(self) -> bool:
        return self._module.searching

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    def push(self, observations: Iterable[Observation]) -> None:
        frames = [self._module.tag_frame(seen) for seen in observations]
        if self._out is None or not self._module.searching:
            self.lost += len(frames)
            return
        self.sent += len(frames)
        self._out.write(b"".join(frames))

    async def _serve(self, incoming: asyncio.StreamReader, outgoing: asyncio.StreamWriter) -> None:
        self._out = outgoing
        while chunk := await incoming.read(4096):
            outgoing.write(b"".join(self._module.receive(chunk)))
        self._out = None
        outgoing.close()


def made_of(given: str) -> list[tuple[Any, dict[str, str]]]:
    """Return the readers, and what the store file says of each but its id and address."""
    llrp, json_, serial = (*map(int, given.split(",")), 0, 0)[:3]
    made: list[tuple[Any, dict[str, str]]] = [(LlrpReader(now_us, name=f"r{n}"), {}) for n in range(llrp)]
    made += [(Pushing(), {"driver": "json", "profile": "impinj", "preset": "default"}) for _ in range(json_)]
    return made + [(SerialServer(), {"driver": "gx"}) for _ in range(serial)]


async def play(given: str, rate: int, seconds: float, announce: Path) -> dict[str, float]:
    rng = random.Random(1)
    kinds = made_of(given)
    made, readers = [reader for reader, _ in kinds], len(kinds)
    entries = {f"r{n}": {"address": await reader.start()} | more for n, (reader, more) in enumerate(kinds)}
    announce.with_suffix(".part").write_text(json.dumps(entries))
    announce.with_suffix(".part").rename(announce)
    while not all(reader.inventorying for reader in made):
        await asyncio.sleep(0.05)
    await asyncio.sleep(1)
    here = [[(gsrn96(PREFIX, n), heard_at(rng)) for n in range(r, TAGS, readers)] for r in range(readers)]
    per_step = round(rate * STEP_S)
    began = due = time.monotonic()
    steps = newcomers = 0
    behind_s = 0.0
    while time.monotonic() < began + seconds:
        if rate and steps % round(1 / STEP_S) == 0:
            here[newcomers % readers].append((gsrn96(PREFIX, TAGS + newcomers), heard_at(rng)))
            newcomers += 1
        at_us = now_us()
        for reader, tags in zip(made, here, strict=True) if rate else ():
            reader.push(
                Observation(at_us - round(STEP_S * 1e6 * (1 - i / per_step)), port, tag, level_cdbm, 1)
                for i, (tag, heard) in enumerate([tags[-1], *rng.choices(tags, k=per_step - 1)])
                for port, level_cdbm in [heard[(steps + i) % CHOICES]]
            )
        steps += 1
        due += STEP_S
        behind_s = max(behind_s, time.monotonic() - due)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    await asyncio.sleep(1)
    result = {
        "sent": sum(reader.sent for reader in made),
        "kept_back": sum(reader.lost for reader in made),
        "newcomers": newcomers,
        "seconds": steps * STEP_S,
        "behind_s": round(behind_s, 3),
    }
    print(json.dumps(result), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # connected until the counting is over
    for reader in made:
        await reader.stop()
    return result


if __name__ == "__main__":
    asyncio.run(play(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4])))
