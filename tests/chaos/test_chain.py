"""A thousand stores on one broker that dies and keeps nothing: all come back, and everything is counted once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from brokers import MakeCrm, MosquittoBroker, Until, need_mosquitto
from fleets import Fleet

STORES = 1_000


async def test_reconnect_storm(tmp_path: Path, crm: MakeCrm, until: Until, tell: Callable[[str], None]) -> None:
    need_mosquitto()
    options = "allow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 100"
    async with MosquittoBroker(tmp_path / "broker", options, persistent=False) as broker:
        fleet, consumer = Fleet(broker.url, tmp_path / "fleet.log", STORES, 0.1), crm(broker.url)
        await consumer.start()
        await until(consumer.ready)
        await fleet.start()

        async def connected(stores: int) -> None:
            await until(lambda: fleet.told("connected") == stores, within_s=180)

        try:
            await connected(STORES)
            took_s = []
            for away_s in (0, 5):
                await broker.kill()
                await connected(0)
                await asyncio.sleep(away_s)
                await broker.start()
                began = time.monotonic()
                await connected(STORES)
                took_s.append(time.monotonic() - began)
            totals = await fleet.last()
        finally:
            await fleet.close()
        assert totals["pending"] == 0
        last = await consumer.stop()
    assert (last["received"], last["gaps"], last["lost"], last["dead"]) == (totals["sent"], 0, 0, 0)
    tell(
        f"{STORES:,} stores, 2 kills: all connected again after {took_s[0]:.0f} and {took_s[1]:.0f} s; "
        f"{last['received']:,} of {totals['sent']:,} once, {last['duplicates']:,} repetitions absorbed"
    )
