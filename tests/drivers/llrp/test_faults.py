"""Faults of wires, clocks and readers, over real sockets: what a session does about each."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from llrp_peers import CARD, QUICK, Obedient, Recorder, forever, now_us, peer, report, session, through
from llrpkit.emulator import EmulatedTag, LLRPEmulator
from llrpkit.protocol import messages, params

from drivers.read import epc_words
from drivers.session import Link
from simulators.readers.llrp import LlrpReader
from simulators.readers.observation import Observation

HOUR_US = 3_600_000_000


@pytest.mark.parametrize("jump_us", [HOUR_US, -HOUR_US])
async def test_clock_jump_of_an_hour(jump_us: int) -> None:
    speed, began_us = 20, now_us()

    def clock() -> int:
        return began_us + (now_us() - began_us) * speed

    jumped = asyncio.Event()

    async def then(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(report(CARD, at_us=clock() + jump_us * jumped.is_set()))
            await asyncio.sleep(0.02)

    async with (
        peer(Obedient(at_us=clock(), then=then)) as (port, _),
        session(port, clock=clock, clock_tolerance_us=2_000_000) as sink,
    ):
        await sink.until(lambda: len(sink.all) > 20)
        jumped.set()
        await sink.until(lambda: abs((sink.statuses[-1].clock_offset_us or 0) - jump_us) < 30_000_000, 20)
        seen = len(sink.all)
        await sink.until(lambda: len(sink.all) > seen + 20)
        ages = clock() - sink.all["time_us"][seen:]
        assert (np.abs(ages) < 120_000_000).all()
        # Nothing is seen later than it was received, whatever the clock says.
        assert sink.all["time_us"].max() <= clock() + 2_000_000
        assert set(sink.links[1:]) == {Link.UP}


def garble(data: bytes) -> list[bytes]:
    chance = random.Random(len(data))
    return [bytes(chance.randrange(256) if chance.random() < 0.05 else byte for byte in data)]


async def test_five_percent_garbage_and_then_none() -> None:
    noisy = True
    async with (
        LLRPEmulator(tags=[EmulatedTag(CARD, (1,))], reads_per_sec=100) as reader,
        through(reader.port, lambda data: garble(data) if noisy else [data]) as port,
        session(port, timing=replace(QUICK, answer_s=0.5, greeting_s=0.5)) as sink,
    ):
        await sink.until(lambda: Link.DOWN in sink.links)
        await asyncio.sleep(1)
        noisy = False
        await sink.until(lambda: sink.links[-1] is Link.UP, 20)
        seen = len(sink.all)
        await sink.until(lambda: len(sink.all) > seen + 20)
        assert (sink.all["epc"][seen:] == epc_words(CARD)).all()


async def test_a_half_open_link_is_given_up_and_taken_up_again() -> None:
    stuck = False

    async def then(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await forever(writer, report(CARD))

    async with (
        peer(Obedient(then=then)) as (far, _),
        through(far, lambda data: [] if stuck else [data]) as port,
        session(port, timing=replace(QUICK, keepalive_s=0.3, greeting_s=0.5)) as sink,
    ):
        await sink.until(lambda: len(sink.all) > 5)
        last_us = now_us()
        stuck = True
        assert "nothing heard for 0.6 s" in await sink.until_down()
        # It was of no use since the last byte, not since that was noticed.
        assert abs(sink.statuses[-1].since_us - last_us) < abs(now_us() - last_us)
        stuck = False
        await sink.until(lambda: sink.links[-1] is Link.UP, 20)


async def test_sixty_four_readers_flapping() -> None:
    chance = random.Random(64)

    async def then(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(report(CARD))
        await writer.drain()
        await asyncio.sleep(chance.random() * 0.3)
        if chance.random() < 0.5:
            writer.transport.abort()

    async with AsyncExitStack() as stack:
        port, _ = await stack.enter_async_context(peer(Obedient(then=then)))
        timing = replace(QUICK, retry_cap_s=1, connect_s=20, greeting_s=20, answer_s=20)
        sinks = [await stack.enter_async_context(session(port, timing)) for _ in range(64)]
        for sink in sinks:
            await sink.until(lambda sink=sink: sink.links.count(Link.UP) >= 2, 60)
        for sink in sinks:
            ups = sink.links.count(Link.UP)
            assert len(sink.all) >= ups - 1
            assert abs(sink.links.count(Link.DOWN) - ups) <= 1


async def test_a_consumer_too_slow_for_a_reader_that_overflows_gets_gaps_not_silence() -> None:
    class Slow(Recorder):
        async def reads(self, reader: str, batch: np.ndarray) -> None:
            await asyncio.sleep(0.02 if self.slow else 0)
            await super().reads(reader, batch)

        slow = True

    sink = Slow()
    reader = LlrpReader(now_us, held_max=2000)
    port = int((await reader.start()).rpartition(":")[2])
    try:
        async with session(port, sink=sink):
            await sink.until(lambda: Link.UP in sink.links)
            while not sink.gaps:
                reader.push([Observation(now_us(), 1, CARD, -5000)] * 500)
                await asyncio.sleep(0)
                sink.slow = reader.lost < 1000
            assert reader.lost > 0
            assert all(gap.from_us < gap.to_us for gap in sink.gaps)
            assert sink.links == [Link.CONNECTING, Link.UP]
    finally:
        await reader.stop()


@pytest.mark.parametrize(
    "event",
    [
        params.AntennaEvent(event_type=1, antenna_id=7).encode()[:-2],
        params.ReaderExceptionEvent(message="x" * 40).encode()[:20],
        b"\x00\xff\x00\x00",
        b"\x00\xf6\x00\x03",
        b"\x80",
    ],
    ids=["truncated antenna event", "truncated exception", "length 0", "length 3", "cut TV"],
)
async def test_events_that_cannot_be_read_do_no_harm(event: Any) -> None:
    inside = b"\x00\x80\x00\x0c" + now_us().to_bytes(8, "big") + event
    body = b"\x00\xf6" + (4 + len(inside)).to_bytes(2, "big") + inside
    message = b"\x04\x3f" + (10 + len(body)).to_bytes(4, "big") + bytes(4) + body

    async def then(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await forever(writer, message + report(CARD) + messages.KEEPALIVE().to_bytes(message_id=1))

    async with peer(Obedient(then=then)) as (port, _), session(port) as sink:
        await sink.until(lambda: len(sink.all) > 5)
        assert sink.links == [Link.CONNECTING, Link.UP]
