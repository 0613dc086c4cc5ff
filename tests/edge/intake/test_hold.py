"""A restart of the service loses no read that a reader kept: the service as a process, the reader simulated."""

from __future__ import annotations

import asyncio
import csv
import signal
import time
from typing import Any

import pytest
from gateways import Gateway, antennas, member_card
from llrpkit.protocol import LLRPMessage

from edge.store.clock import Clock
from simulators.readers.llrp import LlrpReader
from simulators.readers.observation import Observation

DOOR, SHOES = 1, 2
CARD = member_card(7)
SPEED = 10
"""Of the clock of store and reader: nothing here depends on how long it takes."""
LATENESS_S = 20


class Greeting(LlrpReader):
    """Knows in `heard_us` by what time the service has heard its greeting: later, it takes the clock to be slow."""

    greeted_us = heard_us = 0

    def _event_bytes(self, **event: Any) -> bytes:
        if "connection_attempt_event" in event:
            self.greeted_us, self.heard_us = self.clock(), 0
        return super()._event_bytes(**event)

    def _answer(self, message: LLRPMessage) -> LLRPMessage | None:
        self.heard_us = self.heard_us or self.clock()
        return super()._answer(message)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_a_restart_loses_no_read_that_the_reader_kept(gateway: Gateway, how: int) -> None:
    clock = Clock(SPEED, time.time_ns() // 1000)
    now_us, fast = clock.now_us, ("--clock-speed", str(SPEED), "--clock-origin-us", str(clock.origin_us))
    reader = Greeting(now_us)
    gateway.configure(
        readers=[
            {
                "id": "r1",
                "driver": "llrp",
                "address": await reader.start(),
                "antennas": antennas("door", "shoes", "bags", "out"),
            }
        ],
        thresholds={"lateness_s": LATENESS_S},
    )
    visits = gateway.folder / "visits.csv"
    try:
        gateway.start("--no-web", *fast)
        await gateway.until(lambda s: s["readers"][0]["link"] == "up")
        first_us = now_us()
        reader.push([Observation(first_us, DOOR, CARD, -5000)])
        state = await gateway.until(lambda s: s["watermark_us"] > first_us + 2_500_000)
        assert (state["counters"]["reads"], state["counters"]["late"]) == (1, 0)
        # What was not committed when it is killed is kept nowhere.
        await gateway.until(lambda s: gateway.rows("SELECT watermark_us FROM checkpoint")[0][0] > first_us + 2_000_000)
        gateway.end(how)
        async with asyncio.timeout(10):
            while reader.connected:
                await asyncio.sleep(0.01)
        left_us = now_us()
        for second in range(8):
            for half in (0, 500_000):
                at_us = left_us + second * 1_000_000 + half
                reader.push([Observation(at_us, SHOES, CARD, -5000)])
        async with asyncio.timeout(30):
            while now_us() < left_us + 9_000_000:
                await asyncio.sleep(0.1)
        gateway.start("--no-web", "--visits", str(visits), *fast)
        state = await gateway.until(lambda s: s["watermark_us"] > left_us + 13_000_000)
        assert (state["counters"]["reads"], state["counters"]["late"]) == (17, 0)
        assert gateway.end() == 0, gateway.log()
    finally:
        await reader.stop()
    slow_us = reader.heard_us - reader.greeted_us  # at most: by so much the reads are set later
    (shoes,) = [row for row in csv.DictReader(visits.open()) if row["zone"] == "shoes"]
    # The silence since the read at the door, or some of it, counts for where people stay, if there was any.
    assert first_us - 1_000_000 <= int(shoes["enter_us"]) <= left_us + slow_us + 2_000_000
    assert left_us < int(shoes["exit_us"]) < left_us + slow_us + 9_000_000
    # Nothing was unknown meanwhile: the reader watched.
    assert gateway.rows("SELECT min(coverage) FROM aggregate") in ([(None,)], [(1.0,)])
