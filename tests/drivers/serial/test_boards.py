"""What only some boards do: banks of ports, signs of life, tags to be confirmed, and silence in an empty shop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from serial_hosts import Collector

from drivers import open_session
from drivers.serial import hopeland_codec as hopeland
from drivers.serial import r2000_codec as r2000
from drivers.serial import session as serial_session
from drivers.serial.framing import scan
from drivers.serial.streaming import StreamingSession
from drivers.session import Link, ReaderSettings
from simulators.readers.observation import Observation
from simulators.readers.serial_families import R2000Module, serial_reader
from simulators.readers.serial_line import SerialReader
from simulators.readers.streaming_families import ChainwayModule, HopelandModule, hopeland_tag


@pytest.fixture
def sink() -> Collector:
    return Collector()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serial_session, "RETRY_S", (0.05, 0.1))
    monkeypatch.setattr(serial_session, "ANSWER_S", 0.3)
    monkeypatch.setattr(StreamingSession, "SILENCE_S", 0.4)


def now_us() -> int:
    return time.time_ns() // 1000


@asynccontextmanager
async def reading(family: str, reader: SerialReader[Any], sink: Collector, ports: dict[int, int]) -> AsyncIterator[Any]:
    address = await reader.start()
    running = open_session(ReaderSettings("gate", family, address, ports), sink, now_us)
    task = asyncio.create_task(running.run())
    try:
        yield running
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await reader.stop()


async def heard(reader: SerialReader[Any], sink: Collector, ports: dict[int, int]) -> None:
    """Until every antenna has been heard, each by its own tag."""
    async with asyncio.timeout(30):
        while set(sink.all["antenna"].tolist()) < set(ports.values()):
            reader.push([Observation(now_us(), port, port.to_bytes(12), -5500, 1) for port in ports])
            await asyncio.sleep(0.05)
    for epc, antenna in zip(sink.epcs, sink.all["antenna"].tolist(), strict=True):
        assert ports[epc[-1]] == antenna


# Sixteen ports of an R2000 board.


@pytest.mark.parametrize("second", [0x10, 0x01])
@pytest.mark.parametrize("wanted", [range(1, 17), (1, 9), (9, 12), (12,), (1, 2)], ids=str)
async def test_ports_in_two_banks_are_read_in_turns(wanted: Any, second: int, sink: Collector) -> None:
    ports = {port: 20 + port for port in wanted}
    reader = SerialReader(R2000Module(16, round_s=0.1, second=second))
    async with reading("r2000", reader, sink, ports):
        await heard(reader, sink, ports)
    assert sink.states[-1].link is Link.UP
    assert sink.states[-1].reason == f"reading on antennas {', '.join(map(str, wanted))}"


async def test_a_board_without_banks_refuses_ports_above_eight(sink: Collector) -> None:
    async with reading("r2000", SerialReader(R2000Module(8)), sink, {9: 1}):
        down = await sink.until_link(Link.DOWN)
    assert down.reason.startswith("it refuses ports above 8: a parameter is invalid")


async def test_a_board_that_falls_back_into_its_first_bank_is_not_believed_for_long(sink: Collector) -> None:
    module = R2000Module(16, round_s=0.1)
    reader = SerialReader(module)
    async with reading("r2000", reader, sink, {9: 1, 10: 2}):
        await heard(reader, sink, {9: 1, 10: 2})
        module.bank = 0  # lost its power for a moment
        async with asyncio.timeout(10):
            while not module.bank:
                await asyncio.sleep(0.01)


async def test_a_missing_antenna_of_the_second_bank_is_told_by_its_port(sink: Collector) -> None:
    module = R2000Module(16, round_s=0.1)
    module.unconnected = {10}
    async with reading("r2000", SerialReader(module), sink, {1: 1, 10: 2}):
        await sink.until(lambda: any("nothing is connected to port 10" in s.reason for s in sink.states))


def test_banks_and_their_rounds_are_what_a_makers_program_sends() -> None:
    """To a board with 16 ports; recorded from the program's line."""
    assert r2000.encode(1, r2000.SET_BANK, b"\x00").hex().upper() == "A004016C00EF"
    assert r2000.encode(1, r2000.SET_BANK, b"\x10").hex().upper() == "A004016C10DF"
    told = "A015018A0001010102010301040105010601070100019B"
    assert r2000.inventory_fast(1, list(range(1, 9)), 1, banks=True).hex().upper() == told


# Readers that stream.


@pytest.mark.parametrize("family", ["chainway", "hopeland", "gx"])
async def test_an_empty_shop_is_no_failure_and_a_dead_reader_is(
    family: str, sink: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = serial_reader(family, now_us)
    async with reading(family, reader, sink, {1: 7}):
        await sink.until_link(Link.UP)
        await asyncio.sleep(1.2)  # three silences
        assert [state.link for state in sink.states].count(Link.DOWN) == 0
        monkeypatch.setattr(reader.module, "receive", lambda chunk: [])
        down = await sink.until_link(Link.DOWN)
        assert down.reason == "it has sent nothing for 0.4 s and does not answer"
        assert down.since_us < now_us() - 400_000, "unknown since its last word"


@pytest.mark.parametrize("family", ["chainway", "hopeland", "gx"])
async def test_ports_that_the_reader_lacks_are_refused(family: str, sink: Collector) -> None:
    async with reading(family, serial_reader(family, now_us, 4), sink, {1: 1, 6: 2}):
        down = await sink.until_link(Link.DOWN)
    assert ("it refuses ports 1, 6" if family == "chainway" else "does not have the antennas") in down.reason


async def test_a_module_that_knows_no_mainboard_reads(sink: Collector) -> None:
    class Alone(ChainwayModule):
        def obey(self, command: Any) -> list[bytes]:
            return [] if command.command == 0xC8 else super().obey(command)

    reader = SerialReader(Alone())
    async with reading("chainway", reader, sink, {1: 7}):
        await heard(reader, sink, {1: 7})
    assert sink.states[-1].detail == {"firmware": "7.40.1", "baud": "115200"}


@pytest.mark.parametrize("dialect", [hopeland.AA, hopeland.FIVE_A], ids=["hopeland", "gx"])
async def test_numbered_tags_are_confirmed(dialect: hopeland.Dialect, sink: Collector) -> None:
    module = HopelandModule(dialect, numbers=True)
    reader = SerialReader(module)
    async with reading("hopeland" if dialect is hopeland.AA else "gx", reader, sink, {1: 7}):
        await heard(reader, sink, {1: 7})
        async with asyncio.timeout(10):
            while module.unconfirmed:
                await asyncio.sleep(0.01)


def test_a_sign_of_life_is_sent_back() -> None:
    """A network connection without this is closed by the reader."""
    alive = hopeland.Frame(1, hopeland.CONFIRM, bytes.fromhex("00000152"), unasked=True, dialect=hopeland.FIVE_A)
    (frame,) = scan(hopeland.encode(alive), hopeland.five_a_at).frames
    assert hopeland.encode(alive)[:11].hex() == "5a00011112000400000152"
    (back,) = scan(hopeland.reply(frame), hopeland.five_a_at).frames
    assert (back.kind, back.id, back.data, back.unasked) == (1, hopeland.CONFIRM, alive.data, False)
    tag = hopeland_tag(Observation(0, 1, bytes(12), -5000), hopeland.FIVE_A)
    (frame,) = scan(tag, hopeland.five_a_at).frames
    assert hopeland.reply(frame) == b""


@pytest.mark.parametrize(
    ("message", "ends", "failure"),
    [
        (hopeland.Frame(2, hopeland.OVER, b"\0", True), True, ""),
        (hopeland.Frame(2, hopeland.OVER, b"\1", True), True, ""),
        (hopeland.Frame(2, hopeland.OVER, b"\2", True), True, "its hardware failed (reason 02)"),
        (hopeland.Frame(2, hopeland.INVENTORY, b"\1"), True, "it does not have the antennas in the store file"),
        (hopeland.Frame(0, 0, b"\2"), False, ""),
    ],
    ids=["done", "stopped", "failed", "refused", "error"],
)
def test_ends_and_refusals_are_told(message: hopeland.Frame, ends: bool, failure: str) -> None:
    content = hopeland.read(message)
    assert content.ends == ends
    assert failure in content.failure


@pytest.mark.parametrize("address", [None, 0, 7])
@pytest.mark.parametrize("dialect", [hopeland.AA, hopeland.FIVE_A], ids=["hopeland", "gx"])
def test_frames_on_rs485_have_an_address(dialect: hopeland.Dialect, address: int | None) -> None:
    probe = hopeland.aa_at if dialect is hopeland.AA else hopeland.five_a_at
    sent = hopeland.Frame(2, hopeland.TAG, b"\0\2\xab\xcd\x08\0\3", True, address, dialect)
    (frame,) = scan(hopeland.encode(sent), probe).frames
    assert frame == sent
    (tag,) = hopeland.read(frame).tags
    assert (tag.epc, tag.antenna) == (b"\xab\xcd", 3)
