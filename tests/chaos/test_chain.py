"""A thousand stores on one broker that dies and keeps nothing: all come back, and everything is counted once."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from pathlib import Path

from brokers import MosquittoBroker, need_mosquitto

STORES = 1_000


class Fleet:
    """`tagtrail simulate fleet` as a process."""

    def __init__(self, url: str, log: Path) -> None:
        self._url = url
        self._log = log

    async def start(self) -> None:
        arguments = ["--broker", self._url, "--stores", str(STORES), "--rate", "0.1"]
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "edge",
                "simulate",
                "fleet",
                *arguments,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )

    def connected(self) -> int:
        told = re.findall(r"connected (\d+)", self._log.read_text())
        return int(told[-1]) if told else 0

    async def last(self) -> dict[str, int]:
        self._process.terminate()
        out, _ = await self._process.communicate()
        return dict(json.loads(out.splitlines()[-1]))

    async def close(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


async def test_reconnect_storm(tmp_path, crm, until, tell):
    need_mosquitto()
    options = "allow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 100"
    async with MosquittoBroker(tmp_path / "broker", options, persistent=False) as broker:
        fleet, consumer = Fleet(broker.url, tmp_path / "fleet.log"), crm(broker.url)
        await consumer.start()
        await until(consumer.ready)
        await fleet.start()
        try:
            await until(lambda: fleet.connected() == STORES, within_s=180)
            took_s = []
            for away_s in (0, 5):
                await broker.kill()
                await until(lambda: fleet.connected() == 0, within_s=60)
                await asyncio.sleep(away_s)
                await broker.start()
                began = time.monotonic()
                await until(lambda: fleet.connected() == STORES, within_s=180)
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
