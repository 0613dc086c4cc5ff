"""The simulated ThingMagic reader, as a client sees it that knows only bytes."""

from __future__ import annotations

import asyncio
import os
import tty
from collections.abc import AsyncIterator

import pytest

from drivers.serial.thingmagic_codec import command
from simulators.readers.observation import Observation
from simulators.readers.thingmagic import BYTES_PER_S, ThingMagicReader, tag_reply

UNKNOWN_COMMAND = command(0x77)
START = bytes.fromhex("FF102F00000122000005072210001B03E801FFDD2B")
STOP = bytes.fromhex("FF032F0000025E86")
CAPTURED = bytes.fromhex(
    "FF2822000010001B01FF0101C4110E16400000012700000500000F00803000000000000000000000001545E94A561D"
)
"""A real reader's frame: one read at -60 dBm on antenna 1, 295 ms into the search, carrier 923.2 MHz."""
VERSION = bytes.fromhex("FF00031D0C")


class Wire:
    """The host's end of the line, as bare as can be."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self.fd)
        self.got = b""

    async def until(self, wanted: int) -> bytes:
        """The next `wanted` bytes."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(10):
            while len(self.got) < wanted:
                ready = loop.create_future()
                loop.add_reader(self.fd, lambda f=ready: f.done() or f.set_result(None))
                await ready
                loop.remove_reader(self.fd)
                self.got += os.read(self.fd, 4096)
        answer, self.got = self.got[:wanted], self.got[wanted:]
        return answer


@pytest.fixture
async def reader() -> AsyncIterator[ThingMagicReader]:
    simulated = ThingMagicReader(lambda: 1_000_000)
    yield simulated
    await simulated.stop()


@pytest.fixture
async def wire(reader: ThingMagicReader) -> AsyncIterator[Wire]:
    line = Wire(await reader.start())
    yield line
    os.close(line.fd)


async def test_it_answers_what_it_is(wire: Wire) -> None:
    os.write(wire.fd, VERSION)
    assert (await wire.until(27)).hex().startswith("ff14030000")


async def test_an_unknown_command_is_refused_and_a_broken_one_ignored(wire: Wire) -> None:
    os.write(wire.fd, b"\xff\x00\x03\x00\x00" + UNKNOWN_COMMAND)
    assert (await wire.until(7)).hex().startswith("ff00770101")


async def test_it_streams_only_between_start_and_stop(reader: ThingMagicReader, wire: Wire) -> None:
    tag = Observation(1_295_000, 1, bytes.fromhex("000000000000000000001545"), -6000, 1)
    reader.push([tag])
    os.write(wire.fd, START)
    assert (await wire.until(8)).hex().startswith("ff012f000001")
    reader.push([tag, tag._replace(port=3)])  # port 3 is not in its antenna list
    assert await wire.until(47) == CAPTURED
    os.write(wire.fd, STOP)
    assert b"\xff\x01\x2f\x00\x00\x02" in await wire.until(8)
    reader.push([tag])
    os.write(wire.fd, VERSION)
    assert (await wire.until(27))[2] == 0x03


async def test_it_says_every_second_that_it_is_alive(wire: Wire) -> None:
    os.write(wire.fd, START)
    await wire.until(8)
    assert (await wire.until(7)).hex().startswith("ff00220400")


async def test_it_is_as_slow_as_its_line(reader: ThingMagicReader, wire: Wire) -> None:
    loop = asyncio.get_running_loop()
    os.write(wire.fd, START)
    await wire.until(8)
    tags = [Observation(1_000_000, 1, n.to_bytes(12), -5000, 1) for n in range(100)]
    size = sum(len(tag_reply(tag, 0, 0x01FF)) for tag in tags)
    began_s = loop.time()
    reader.push(tags)
    await wire.until(size)
    assert loop.time() - began_s > 0.9 * size / BYTES_PER_S  # slower it may be, on a loaded machine


async def test_tags_that_wait_for_the_line_are_counted_up(reader: ThingMagicReader, wire: Wire) -> None:
    os.write(wire.fd, START)
    await wire.until(8)
    tag = Observation(1_000_000, 1, bytes(12), -5000, 2)
    reader.push([tag] * 5)
    assert (await wire.until(47))[11] == 10


async def test_it_keeps_its_address_and_goes_on_when_the_host_has_gone(reader: ThingMagicReader) -> None:
    address = await reader.start()
    first = Wire(address)
    os.write(first.fd, START)
    await first.until(8)
    os.close(first.fd)
    assert reader.module.searching
    await reader.stop()
    assert not os.path.lexists(address)
    assert await reader.start() == address
