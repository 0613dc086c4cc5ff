"""What other gateways cost: the same reads straight into a pipeline and through a forwarder in the same process, and
recognitions of a service without a standby and of one that waits for its own."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forwarding import HandForwarder, reads_of, receiving, several, until
from gateways import Gateway, member_card
from pairs import Standby, elsewhere, pair_of, serving
from rigs import DOOR, T0, HandClock, Rig, running, shop_of

from drivers.read import READ
from drivers.session import Link, ReaderStatus
from edge.crm.directory_csv import import_csv
from edge.intake.pipeline import ADVANCE_S
from sync.contract import EventClass

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
        rig = await stack.enter_async_context(running(shop, clock, advance_s=ADVANCE_S))
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


MEMBERS = 200


class Recognising:
    """A service to which members come. `kept`: what a recognition waits for once it is committed."""

    def __init__(self) -> None:
        self.rig: Rig
        self.kept: Callable[[], Awaitable[None]] | None = None
        self.seconds: list[float] = []
        self._committed = asyncio.Event()

    def wake(self, class_: EventClass) -> None:
        if class_ == "member":
            self._committed.set()

    async def see(self, number: int) -> None:
        """A member comes in; measured until the CRM may be told."""
        self._committed.clear()
        began_s = time.perf_counter()
        await self.rig.inbox.reads("r1", reads_of(member_card(number), DOOR, [self.rig.clock.now_us()] * 4))
        await self._committed.wait()
        if self.kept is not None:
            await self.kept()
        self.seconds.append(time.perf_counter() - began_s)


@pytest.mark.benchmark_suite
async def test_waiting_for_the_standby(tmp_path: Path, record_property: Any, capsys: Any) -> None:
    services = {"alone": Recognising(), "with_standby": Recognising()}
    async with AsyncExitStack() as stack:
        for name, service in services.items():
            (tmp_path / name).mkdir()
            gateway, clock = Gateway(tmp_path / name), HandClock(time=[T0])
            shop = shop_of(gateway, **(pair_of(gateway) if name == "with_standby" else {}))
            opened: Any = running if name == "alone" else serving
            made = await stack.enter_async_context(opened(shop, clock, advance_s=ADVANCE_S, wake=service.wake))
            if name == "alone":
                service.rig = made
            else:
                service.rig, service.kept = made.rig, made.shipping.kept
                (tmp_path / "copy").mkdir()
                standby = Standby(elsewhere(shop.config, tmp_path / "copy"), clock)
                stack.push_async_callback(standby.end)
                standby.connect()
                await made.protected()
            members = tmp_path / f"{name}.csv"
            rows = [f"{member_card(number).hex()},M{number},gold,1," for number in range(MEMBERS)]
            members.write_text("\n".join(["epc,member,tier,consent,hint", *rows]))
            import_csv(shop.config, members)
            await service.rig.pipeline.recheck()
        for number in range(MEMBERS):
            for service in services.values():
                await service.see(number)
        assert made.shipping.protected
    figures: dict[str, float] = {"members": MEMBERS}
    for name, service in services.items():
        p50, p99 = np.percentile(service.seconds, (50, 99)) * 1e3
        figures |= {f"{name}_p50_ms": round(p50, 1), f"{name}_p99_ms": round(p99, 1)}
    figures["ratio"] = round(figures["with_standby_p50_ms"] / figures["alone_p50_ms"], 2)
    for key, value in figures.items():
        record_property(f"standby_{key}", value)
    with capsys.disabled():
        print("\n" + json.dumps(figures))
