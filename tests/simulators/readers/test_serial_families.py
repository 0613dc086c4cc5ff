"""Simulated serial readers, as a client sees them that knows only bytes."""

from __future__ import annotations

import asyncio
import os
import tty
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from config.readers import SERIAL_DRIVERS
from simulators.readers.observation import Observation
from simulators.readers.serial_families import CfModule, M100Module, R2000Module, UhfModule, serial_reader
from simulators.readers.serial_line import SerialReader

EPC = bytes.fromhex("E2000015860E028815408029")
TAG = "A0130189043000E2000015860E0288154080294537"
END_OF_ROUND = "A00A018900000000000000CC"


@asynccontextmanager
async def wire(reader: SerialReader[Any]) -> AsyncIterator[Callable[[str, str], Awaitable[str]]]:
    """Ask, and wait until an answer is there, both in hex: the host's end of the line, as bare as can be."""
    fd = os.open(await reader.start(), os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    tty.setraw(fd)
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(fd, readable.set)

    async def ask(question: str, answer: str) -> str:
        os.write(fd, bytes.fromhex(question))
        got = b""
        async with asyncio.timeout(20):
            while bytes.fromhex(answer) not in got:
                readable.clear()
                await readable.wait()
                with suppress(BlockingIOError):
                    got += os.read(fd, 4096)
        return got.hex().upper()

    try:
        yield ask
    finally:
        loop.remove_reader(fd)
        os.close(fd)
        await reader.stop()


@pytest.mark.parametrize("family", sorted(SERIAL_DRIVERS))
async def test_every_serial_driver_of_a_store_file_has_a_reader(family: str) -> None:
    reader = serial_reader(family, lambda: 0, 4)
    address = await reader.start()
    assert os.path.exists(address)
    await reader.stop()
    assert not os.path.lexists(address)


def test_there_is_no_reader_of_another_family() -> None:
    with pytest.raises(ValueError, match="llrp"):
        serial_reader("llrp", lambda: 0)


async def test_an_r2000_reads_for_a_round_and_says_that_it_has() -> None:
    reader = SerialReader(R2000Module())
    async with wire(reader) as ask:
        await ask("A003FF72EC", "A00501720802DE")
        reader.push([Observation(0, 1, EPC, -6000)])  # not asked yet: lost
        assert await ask("A004018901D1", END_OF_ROUND) == END_OF_ROUND
        reader.push([Observation(0, 1, EPC, -6000)])
        assert await ask("A004018901D1", END_OF_ROUND) == TAG + END_OF_ROUND


@pytest.mark.parametrize(("ports", "tag"), [(0, "13000103010C"), (4, "1500010301010C")])
async def test_a_uhfreader18_and_a_288_answer_in_their_own_ways(ports: int, tag: str) -> None:
    reader = SerialReader(UhfModule(ports), baud=57600)
    async with wire(reader) as ask:
        await ask("040021D96A", "11002100" if ports else "0D002100")
        end = "0700010101001E4B" if ports else "050001FB"
        await ask("040001DB4B", end)
        reader.push([Observation(0, 1, EPC, -6000)])
        assert tag + EPC.hex().upper() in await ask("040001DB4B", end)


async def test_a_chafon_is_stopped_and_asked_as_published() -> None:
    async with wire(SerialReader(CfModule())) as ask:
        await ask("CFFF000200E761", "CF00000201009EEA")
        await ask("CFFF0070002415", "CF0000702100")


async def test_an_m100_polls_until_it_is_told_to_stop() -> None:
    reader = SerialReader(M100Module())
    async with wire(reader) as ask:
        await ask("BB00270003222710837E", "BB01FF000115167E")
        reader.push([Observation(0, 1, EPC, -6000)])
        await ask("", EPC.hex())
        await ask("BB00280000287E", "BB01280001002A7E")
        assert not reader.module.searching
