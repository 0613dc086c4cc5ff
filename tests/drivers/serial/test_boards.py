"""What only some boards do: banks of ports, signs of life, tags to be confirmed, and silence in an empty shop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
from serial_hosts import Collector

from drivers import open_session
from drivers.serial import hopeland_codec as hopeland
from drivers.serial import metratec_codec as metratec
from drivers.serial import nordicid_codec as nur
from drivers.serial import r2000_codec as r2000
from drivers.serial import session as serial_session
from drivers.serial import tsl_codec as tsl
from drivers.serial.framing import Framer, scan
from drivers.serial.streaming import StreamingSession
from drivers.serial.tags import TagRead
from drivers.session import Link, ReaderSettings
from simulators.readers.observation import Observation
from simulators.readers.polled_families import MetratecModule, NurModule, TslModule, metratec_round
from simulators.readers.serial_families import R2000Module, serial_reader
from simulators.readers.serial_line import SerialReader
from simulators.readers.streaming_families import ChainwayModule, HopelandModule, hopeland_tag

SOME_TAG = bytes.fromhex("E28068940000501234567890")


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


async def test_a_chainway_that_reads_gets_signs_of_life(sink: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StreamingSession, "ALIVE_S", 0.1)
    reader = serial_reader("chainway", now_us)
    received: list[bytes] = []
    receive = reader.module.receive

    def noted(chunk: bytes) -> list[bytes]:
        received.append(chunk)
        return receive(chunk)

    monkeypatch.setattr(reader.module, "receive", noted)
    async with reading("chainway", reader, sink, {1: 7}):
        await heard(reader, sink, {1: 7})
        received.clear()
        async with asyncio.timeout(10):
            while received.count(b"\0") < 3:
                reader.push([Observation(now_us(), 1, (1).to_bytes(12), -5500, 1)])
                await asyncio.sleep(0.02)
        assert Link.DOWN not in [state.link for state in sink.states]


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


# Readers that are asked for each round.


@pytest.mark.parametrize(("old", "ports"), [(False, (1, 2, 30)), (True, (1, 4))], ids=["new", "old"])
async def test_a_nordic_id_is_told_its_antennas(old: bool, ports: tuple[int, ...], sink: Collector) -> None:
    module = NurModule(4 if old else 32, old)
    reader = SerialReader(module)
    wanted = {port: port for port in ports}
    async with reading("nordicid", reader, sink, wanted):
        await heard(reader, sink, wanted)
    assert module.antennas == set(ports)
    assert sink.states[-1].detail["model"] == "STIX"
    assert sink.states[-1].detail["firmware"] == "5.10-A"


async def test_a_nordic_id_that_lacks_an_antenna_is_told(sink: Collector) -> None:
    async with reading("nordicid", SerialReader(NurModule(2)), sink, {1: 1, 3: 2}):
        assert "it refuses ports 1, 3 (status 05)" in (await sink.until_link(Link.DOWN)).reason


async def test_a_nordic_id_that_restarts_is_set_up_again(sink: Collector) -> None:
    module = NurModule()
    reader = SerialReader(module)
    async with reading("nordicid", reader, sink, {2: 1, 3: 2}):
        await heard(reader, sink, {2: 1, 3: 2})
        reader.send(module.restart())
        await sink.until(lambda: any("it has restarted" in state.reason for state in sink.states))
        async with asyncio.timeout(10):
            while module.antennas != {2, 3}:
                await asyncio.sleep(0.01)


def test_what_a_nordic_id_wants_to_be_acknowledged_is() -> None:
    boot = nur.Frame(nur.BOOT, b"\0", nur.UNASKED | nur.WANTS_ACK)
    assert nur.reply(boot).hex().upper() == "A5030000005902B2C1"
    assert nur.reply(nur.Frame(nur.BOOT, b"\0", nur.UNASKED)) == b""


def test_a_nordic_ids_tags_may_carry_memory_and_protocol_words() -> None:
    def block(pc: str, body: str, memory: int) -> bytes:
        told = bytes.fromhex("C8 32 0100 2C370D00") + bytes((memory,)) + bytes.fromhex(pc)[::-1] + b"\x03\x01"
        told += bytes.fromhex(body)
        return bytes((len(told),)) + told

    data = b"\0" + block("3000", "E2801160600002094ED74AA6 E280 1160", 4) + block("1A00", "0001 ABCD1234", 0)
    (frame,) = scan(nur.encode(nur.Frame(nur.FETCH, data, nur.MEMORY)), nur.frame_at).frames
    first, second = nur.read(frame).tags
    assert (first.epc.hex(), first.rssi_cdbm, first.antenna) == ("e2801160600002094ed74aa6", -5600, 2)
    assert second.epc.hex() == "abcd1234"


async def test_a_tsl_takes_one_port(sink: Collector) -> None:
    async with reading("tsl", serial_reader("tsl", now_us), sink, {1: 1, 2: 2}):
        assert "it has one antenna" in (await sink.until_link(Link.DOWN)).reason


def test_a_tsl_tells_its_failures() -> None:
    def content(line: str) -> Any:
        (frame,) = scan(line.encode() + b"\r\n", tsl.frame_at).frames
        return tsl.read(frame)

    assert content("ER: 008").failure == "no antenna is connected (error 008)"
    assert content("ER:001").failure == "it does not know the command (error 001)"
    assert content("ER: 005").failure == ""
    assert content("ME: Battery low EP: x").note == "line ME"


async def test_a_tag_of_a_tsl_does_not_wait_for_the_end_of_a_long_round(sink: Collector) -> None:
    reader = SerialReader(TslModule(round_s=3600))
    async with reading("tsl", reader, sink, {1: 5}):
        await sink.until(lambda: bool(sink.states) and sink.states[-1].reason == "reader answers, setting it up")
        async with asyncio.timeout(30):
            while not len(sink.all):
                reader.push([Observation(now_us(), 1, SOME_TAG, -6100, 1)])
                await asyncio.sleep(2 * serial_session.GAP_S)
    assert sink.all["rssi_cdbm"][0] == -6100


@pytest.mark.parametrize(
    ("rest", "rssi_cdbm", "left"),
    [(b"", None, 0), (b"R", None, 1), (b"RI: -6", None, 6), (b"RI: -61\r\n", -6100, 0), (b"RI: -61\r\nCR", -6100, 2)],
)
def test_a_tag_of_a_tsl_is_whole_once_the_line_is_quiet(rest: bytes, rssi_cdbm: int | None, left: int) -> None:
    framer = Framer(partial(scan, probe=tsl.frame_at))
    assert framer.feed(b"EP: E28068940000501234567890\r\n" + rest) == []
    (frame,) = framer.gap()
    assert tsl.read(frame).tags == (TagRead(SOME_TAG, rssi_cdbm=rssi_cdbm),)
    skipped = framer.skipped
    while framer.pending:
        assert framer.gap() == []
    assert framer.skipped - skipped == left


@pytest.mark.parametrize("ports", [{1: 5}, {3: 5}, {1: 5, 2: 6, 4: 7}], ids=str)
async def test_a_metratec_searches_its_antennas_in_turn(ports: dict[int, int], sink: Collector) -> None:
    module = MetratecModule(4)
    reader = SerialReader(module)
    async with reading("metratec", reader, sink, ports):
        await heard(reader, sink, ports)
    assert module.turns == (tuple(ports) if len(ports) == 1 else (1, 2, 3, 4))
    assert sink.states[-1].detail == {"model": "PULSAR_MX", "hardware": "0100", "firmware": "0315", "baud": "115200"}


@pytest.mark.parametrize("ports", [{1: 5}, {1: 5, 2: 6}], ids=["one", "two"])
async def test_a_metratec_without_a_switch_takes_one_port(ports: dict[int, int], sink: Collector) -> None:
    reader = SerialReader(MetratecModule(1))
    async with reading("metratec", reader, sink, ports):
        if len(ports) == 1:
            await heard(reader, sink, ports)
        else:
            assert "it has one antenna" in (await sink.until_link(Link.DOWN)).reason


async def test_a_metratec_that_restarts_is_set_up_again(sink: Collector) -> None:
    module = MetratecModule()
    reader = SerialReader(module)
    async with reading("metratec", reader, sink, {1: 5}):
        await heard(reader, sink, {1: 5})
        module.searching = False
        reader.send(b"SRT 01\r")
        await sink.until(lambda: any("it has restarted" in state.reason for state in sink.states))
        async with asyncio.timeout(10):
            while not module.searching:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("lines", "tags"),
    [
        ("E200A1B2 -58 ARP 02 IVF 01", [("e200a1b2", -5800, 3)]),
        ("E200A1B2 E200A1B2 -58 3000AAAA 3000AAAA -61 IVF 02", [("e200a1b2", -5800, None), ("3000aaaa", -6100, None)]),
        ("E200A1B2 E200A1B2 3000AAAA 3000AAAA ARP 00 IVF 02", [("e200a1b2", None, 1), ("3000aaaa", None, 1)]),
        ("TOE 3000AAAA -61 IVF 01", [("3000aaaa", -6100, None)]),
        ("ARP 01 IVF 00", []),
    ],
    ids=["once", "twice", "without strength", "one lost", "none"],
)
def test_a_metratec_round_is_read_line_by_line(lines: str, tags: list[Any]) -> None:
    words = lines.replace("ARP ", "ARP_").replace("IVF ", "IVF_").split()
    raw = b"".join(word.replace("_", " ").encode() + b"\r" for word in words)
    for end in (b"", b"\n"):
        frame, *_ = scan(raw + end, metratec.frame_at).frames
        assert [(tag.epc.hex(), tag.rssi_cdbm, tag.antenna) for tag in metratec.read(frame).tags] == tags


def test_a_metratec_line_that_belongs_to_no_round_ends_none() -> None:
    seen = Observation(0, 1, bytes.fromhex("E200A1B2"), -5800)
    found = scan(b"3000AAAA\rHBT\r" + metratec_round([seen]), metratec.frame_at)
    assert [len(metratec.read(frame).tags) for frame in found.frames][-1] == 1
    assert found.skipped == len(b"3000AAAA")
