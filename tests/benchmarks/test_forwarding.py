"""What forwarding costs: the same reads straight into a pipeline, and through a forwarder in the same process."""

from __future__ import annotations

import json
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forwarding import HandForwarder, receiving, several, until
from gateways import Gateway
from rigs import T0, HandClock, running, shop_of

from drivers.read import READ
from drivers.session import Link, ReaderStatus

READERS, BATCH, ROUNDS, TAGS = 64, 20, 500, 5_000
"""Batches of 20 reads, as a reader with 1,000 reads a second delivers every 20 ms; 500 rounds are 10 s of the store."""
ROUND_US = 20_000


async def cpu_s(folder: Path, forwarded: bool) -> float:
    gateway, clock = Gateway(folder), HandClock(time=[T0])
    spots = [{"port": 1, "zone": zone, "position": [at, 3]} for zone, at in (("door", 3), ("shoes", 11), ("bags", 19))]
    readers = [
        {"id": f"r{n}", "driver": "llrp", "address": f"r{n}", "antennas": [spots[n % 3]]} for n in range(1, READERS + 1)
    ]
    via = {one["id"]: "g2" for one in readers[1:]} if forwarded else {}
    shop = shop_of(gateway, **several(gateway, readers, via))  # type: ignore[arg-type]
    chance = np.random.default_rng(1)
    epcs = chance.integers(0, 1 << 62, (TAGS, 8), np.uint64)
    epcs[:, 2:] = 0
    epcs[:, 1] &= np.uint64(0xFFFFFFFF00000000)
    async with AsyncExitStack() as stack:
        rig = await stack.enter_async_context(running(shop, clock))
        forwarder = None
        if forwarded:
            await stack.enter_async_context(receiving(rig))
            forwarder = HandForwarder(shop, "g2", folder / "g2", clock)
            stack.push_async_callback(forwarder.end)
            forwarder.connect()
            forwarder.up()
        else:
            for one in readers[1:]:
                rig.inbox.status(ReaderStatus(str(one["id"]), Link.UP, "taking inventory", T0))
        await until(lambda: all(one.link is Link.UP for one in rig.pipeline.readers.values()))
        began_s = time.process_time()
        for at in range(ROUNDS):
            batch = np.zeros((READERS, BATCH), READ)
            tags = chance.integers(0, TAGS, (READERS, BATCH))
            batch["time_us"] = clock.time[0] + np.sort(chance.integers(0, ROUND_US, (READERS, BATCH)), axis=1)
            batch["epc"], batch["epc_bits"] = epcs[tags], 96
            batch["rssi_cdbm"] = chance.integers(-7000, -4500, (READERS, BATCH))
            batch["count"] = 1
            for n in range(READERS):
                rows = batch[n].copy()
                if forwarder is not None and n > 0:
                    rows["antenna"] = 1
                    await forwarder.gathering.reads(f"r{n + 1}", rows)
                else:
                    rows["antenna"] = n
                    await rig.inbox.reads(f"r{n + 1}", rows)
            if forwarder is not None:
                forwarder.gathering.flush()
            clock.time[0] += ROUND_US
            if at % 10 == 0:
                await until(lambda at=at: sum(rig.pipeline.reads_of.values()) >= at * READERS * BATCH)
        await until(lambda: sum(rig.pipeline.reads_of.values()) == ROUNDS * READERS * BATCH)
        return time.process_time() - began_s


@pytest.mark.benchmark_suite
async def test_forwarding(tmp_path: Path, record_property: Any, capsys: Any) -> None:
    seconds = {}
    for name in ("warm", "direct", "forwarded"):
        (tmp_path / name).mkdir()
        seconds[name] = await cpu_s(tmp_path / name, name != "direct")
    reads = READERS * BATCH * ROUNDS
    figures = {
        "reads": reads,
        "direct_us_per_read": round(1e6 * seconds["direct"] / reads, 3),
        "forwarded_us_per_read": round(1e6 * seconds["forwarded"] / reads, 3),
        "ratio": round(seconds["forwarded"] / seconds["direct"], 2),
        "forwarded_reads_per_cpu_s": round(reads / seconds["forwarded"]),
    }
    for name, value in figures.items():
        record_property(name, value)
    with capsys.disabled():
        print("\n" + json.dumps(figures))
