"""Sessions of the serial families against simulated readers on real pseudo-terminals, through what lines do."""

from __future__ import annotations

import asyncio
import os
import termios
import time
import tty
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from serial_hosts import Collector

from drivers import open_session
from drivers.read import ANTENNA_UNKNOWN, RSSI_UNKNOWN
from drivers.serial import framing
from drivers.serial import session as serial_session
from drivers.serial import uhfreader18_codec as uhf
from drivers.serial.m100 import M100Session
from drivers.serial.streaming import StreamingSession
from drivers.serial.transport import PIECE_BYTES, open_line
from drivers.session import Link, ReaderSettings
from simulators.readers.observation import Observation
from simulators.readers.serial_families import M100Module, R2000Module, UhfModule, serial_reader
from simulators.readers.serial_line import Faults, RoundModule, SerialReader

FAMILIES = ("r2000", "uhfreader18", "chafon-cf", "m100", "chainway", "hopeland", "gx", "nordicid", "tsl", "metratec")
ALONE = ("m100", "tsl")
"""Families with one antenna."""
IN_ONE = ("nordicid", "metratec")
"""Families that tell all tags of a round in one frame, which is rarely disturbed."""
TWO_PORTS = {1: 7, 2: 8}


def now_us() -> int:
    return time.time_ns() // 1000


@asynccontextmanager
async def session(family: str, address: str, sink: Collector, ports: dict[int, int]) -> AsyncIterator[Any]:
    running = open_session(ReaderSettings("gate", family, address, ports), sink, now_us)
    task = asyncio.create_task(running.run())
    try:
        yield running
    finally:
        assert not task.done(), task
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def sink() -> Collector:
    return Collector()


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serial_session, "RETRY_S", (0.05, 0.1))
    monkeypatch.setattr(StreamingSession, "SILENCE_S", 0.8)


@asynccontextmanager
async def plugged(reader: SerialReader[Any]) -> AsyncIterator[str]:
    try:
        yield await reader.start()
    finally:
        await reader.stop()


async def reading(reader: SerialReader[Any], sink: Collector, after: int = 0) -> None:
    """Until the session is up and its reader obeys: some don't answer the command to start."""
    await sink.until_link(Link.UP, after)
    async with asyncio.timeout(20):
        while not reader.module.searching and not isinstance(reader.module, RoundModule):
            await asyncio.sleep(0.01)


def ports_of(family: str) -> dict[int, int]:
    return {1: 7} if family in ALONE else TWO_PORTS


def seen(number: int, port: int = 1, rssi_cdbm: int = -5500) -> Observation:
    return Observation(now_us(), port, number.to_bytes(12), rssi_cdbm, 1)


@pytest.mark.parametrize("family", FAMILIES)
async def test_reads_arrive_with_what_the_family_knows_of_them(family: str, sink: Collector) -> None:
    reader = serial_reader(family, now_us)
    async with plugged(reader) as address, session(family, address, sink, ports_of(family)):
        await reading(reader, sink)
        before_us = now_us()
        reader.push([seen(1, 1, -6000), Observation(now_us(), 2, b"\x12\x34" * 31, -4500, 1)])
        await sink.until(lambda: len(sink.all) == 2)
        after_us = now_us()
    assert sink.epcs == [(1).to_bytes(12), b"\x12\x34" * 31]
    assert sink.all["epc_bits"].tolist() == [96, 496]
    assert sink.all["antenna"].tolist() == ([7, 7] if family in ALONE else [7, 8])
    assert sink.all["rssi_cdbm"].tolist() == (
        [RSSI_UNKNOWN] * 2 if family in ("uhfreader18", "hopeland") else [-6000, -4500]
    )
    assert sink.all["count"].tolist() == [1, 1]
    assert ((sink.all["time_us"] >= before_us) & (sink.all["time_us"] <= after_us)).all()
    assert [state.link for state in sink.states] == [Link.CONNECTING, Link.CONNECTING, Link.UP]
    assert sink.states[-1].detail["baud"] == ("57600" if family == "uhfreader18" else "115200")


@pytest.mark.parametrize("family", FAMILIES)
async def test_reading_goes_on_round_after_round(family: str, sink: Collector) -> None:
    reader = serial_reader(family, now_us)
    async with plugged(reader) as address, session(family, address, sink, ports_of(family)):
        await reading(reader, sink)
        for number in range(8):
            reader.push([seen(number)])
            await sink.until(lambda n=number: len(sink.all) == n + 1)
            await asyncio.sleep(0.03)
    assert sink.epcs == [number.to_bytes(12) for number in range(8)]
    assert {state.link for state in sink.states[2:]} == {Link.UP}


@pytest.mark.parametrize("faults", [Faults(split=True), Faults(garbage=0.3, split=True)], ids=["split", "garbage"])
@pytest.mark.parametrize("family", FAMILIES)
async def test_no_good_frame_is_lost_on_a_bad_line(
    family: str, faults: Faults, sink: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What garbage claims is waited for: meanwhile the reader must not forget what it has seen.
    monkeypatch.setattr(RoundModule, "MEMORY_S", 60.0)
    reader = serial_reader(family, now_us, seed=1)
    async with plugged(reader) as address, session(family, address, sink, ports_of(family)) as running:
        await reading(reader, sink)
        reader.faults = faults
        reader.push([seen(n) for n in range(30)])
        await sink.until(lambda: len(set(sink.epcs)) == 30)
        if family not in IN_ONE:
            assert (running.counters["skipped_bytes"] > 0) == bool(faults.garbage)
    assert {n.to_bytes(12) for n in range(30)} <= set(sink.epcs)


async def test_a_noisy_line_is_told_and_a_clean_one_is_not(sink: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serial_session, "NOISE_S", 0.3)
    monkeypatch.setattr(serial_session, "MUCH_NOISE_S", 0.3)
    reader = serial_reader("chafon-cf", now_us)
    async with plugged(reader) as address, session("chafon-cf", address, sink, TWO_PORTS) as running:
        async with asyncio.timeout(20):
            while running.counters.get("without_tag", 0) < 4:
                await asyncio.sleep(0.02)
        assert sink.notices == []
        reader.faults = Faults(garbage=1)
        await sink.until(lambda: bool(sink.notices))
    assert "of what came over its line was no frame" in sink.notices[0]


@pytest.mark.parametrize("family", FAMILIES)
async def test_unplugged_is_down_and_replugged_reads_again(family: str, sink: Collector) -> None:
    reader = serial_reader(family, now_us)
    async with plugged(reader) as address, session(family, address, sink, ports_of(family)):
        await reading(reader, sink)
        await reader.stop()
        assert "unplugged" in (await sink.until_link(Link.DOWN)).reason
        await sink.until(lambda: "does not exist" in sink.states[-1].reason)
        told = len(sink.states)
        assert await reader.start() == address
        await reading(reader, sink, told)
        reader.push([seen(9)])
        await sink.until(lambda: len(sink.all) == 1)


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_reader_that_forgets_its_round_is_started_again(
    family: str, sink: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(M100Session, "SILENCE_S", 0.6)
    monkeypatch.setattr(serial_session.SerialSession, "SILENCE_S", 0.6)
    reader = serial_reader(family, now_us)
    async with plugged(reader) as address, session(family, address, sink, ports_of(family)):
        await reading(reader, sink)
        reader.module.searching = False  # as after a brown-out: no end of the round will come
        reader.push([])
        async with asyncio.timeout(20):
            while not reader.module.searching:
                await asyncio.sleep(0.02)
        reader.push([seen(3)])
        await sink.until(lambda: len(sink.all) == 1)
        monkeypatch.setattr(serial_session, "ANSWER_S", 0.2)
        told = len(sink.states)
        monkeypatch.setattr(reader.module, "receive", lambda chunk: [])
        reader.module.searching = False
        assert (await sink.until_link(Link.DOWN, told)).reason


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_reader_busy_for_a_dead_host_is_taken_over(
    family: str, sink: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = serial_reader(family, now_us)
    first = Collector()
    async with plugged(reader) as address:
        running = open_session(ReaderSettings("gate", family, address, ports_of(family)), first, now_us)
        task = asyncio.create_task(running.run())
        await first.until_link(Link.UP)
        reader.push([seen(n) for n in range(30)])

        async def dead(*_: Any) -> None: ...

        monkeypatch.setattr(running, "_hush", dead)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        async with session(family, address, sink, ports_of(family)):
            await reading(reader, sink)
            reader.push([seen(1000)])
            await sink.until(lambda: (1000).to_bytes(12) in sink.epcs)


@pytest.mark.parametrize("family", FAMILIES)
async def test_nobody_there_is_down_with_the_family_and_the_speeds_tried(
    family: str, sink: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serial_session, "ANSWER_S", 0.1)
    monkeypatch.setattr(serial_session, "PROBE_S", 0.05)
    reader = serial_reader(family, now_us)
    monkeypatch.setattr(reader.module, "receive", lambda chunk: [])
    async with plugged(reader) as address, session(family, address, sink, ports_of(family)):
        down = await sink.until_link(Link.DOWN)
    assert "reader answers on" in down.reason
    assert "115200" in down.reason


async def test_a_uhfreader18_reads_on_its_one_port_without_strength(sink: Collector) -> None:
    reader = SerialReader(UhfModule(0))
    async with plugged(reader) as address, session("uhfreader18", address, sink, {3: 5}):
        await sink.until_link(Link.UP)
        reader.push([seen(1)])
        await sink.until(lambda: len(sink.all) == 1)
    assert sink.all["antenna"].tolist() == [5]
    assert sink.all["rssi_cdbm"].tolist() == [RSSI_UNKNOWN]
    assert sink.states[-1].detail["model"] == "UHFReader18 type 0C"


async def test_a_uhfreader18_with_two_ports_is_refused(sink: Collector) -> None:
    reader = SerialReader(UhfModule(0))
    async with plugged(reader) as address, session("uhfreader18", address, sink, TWO_PORTS):
        assert "one antenna" in (await sink.until_link(Link.DOWN)).reason


async def test_a_288_that_refuses_the_long_command_is_asked_shortly(sink: Collector) -> None:
    class Old(UhfModule):
        def obey(self, command: uhf.Frame) -> list[bytes]:
            if command.command == uhf.INVENTORY and command.data:
                return [uhf.encode(0, uhf.INVENTORY, b"\xfe")]
            return super().obey(command)

    reader = SerialReader(Old(4))
    async with plugged(reader) as address, session("uhfreader18", address, sink, {1: 7}):
        async with asyncio.timeout(20):
            while not reader.module.searching:
                await asyncio.sleep(0.02)
        reader.push([seen(1)])
        await sink.until(lambda: len(sink.all) == 1)


async def test_a_reader_in_active_mode_is_listened_to(sink: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serial_session, "ANSWER_S", 0.3)
    monkeypatch.setattr(serial_session.SerialSession, "SILENCE_S", 0.2)

    class Active(UhfModule):
        def obey(self, command: uhf.Frame) -> list[bytes]:
            return []

        def idle(self, quiet_s: float) -> bytes | None:
            return uhf.encode(0, uhf.ACTIVE, bytes.fromhex("00 2000708C2B380B2D00000000")) if quiet_s > 0.05 else None

    reader = SerialReader(Active())
    async with plugged(reader) as address, session("uhfreader18", address, sink, {1: 7}):
        await sink.until(lambda: len(sink.all) >= 3)
    assert set(sink.epcs) == {bytes.fromhex("2000708C2B380B2D00000000")}
    assert sink.states[-1].detail["mode"] == "active"


@pytest.mark.parametrize(
    ("family", "module"), [("r2000", R2000Module()), ("uhfreader18", UhfModule(4))], ids=["r2000", "288m"]
)
async def test_a_port_without_antenna_is_said_and_the_others_read_on(family: str, module: Any, sink: Collector) -> None:
    module.unconnected = {2}
    reader = SerialReader(module)
    async with plugged(reader) as address, session(family, address, sink, TWO_PORTS):
        await sink.until(lambda: any("nothing is connected to port 2" in state.reason for state in sink.states))
        reader.push([seen(1, 1), seen(2, 2)])
        await sink.until(lambda: len(sink.all) == 1)
    assert sink.states[-1].link is Link.UP
    assert sink.states[-1].reason == "reading on antennas 1; nothing is connected to port 2"


async def test_an_only_port_without_antenna_is_down(sink: Collector) -> None:
    module = R2000Module()
    module.unconnected = {1}
    reader = SerialReader(module)
    async with plugged(reader) as address, session("r2000", address, sink, {1: 7}):
        assert "no antenna is connected" in (await sink.until_link(Link.DOWN)).reason


async def test_eight_antennas_of_an_r2000(sink: Collector) -> None:
    reader = SerialReader(R2000Module(8))
    async with plugged(reader) as address, session("r2000", address, sink, {n: 10 + n for n in range(1, 9)}):
        await sink.until_link(Link.UP)
        reader.push([seen(n, n) for n in range(1, 9)])
        await sink.until(lambda: len(sink.all) == 8)
    assert sink.all["antenna"].tolist() == [10 + n for n in range(1, 9)]


async def test_one_antenna_of_an_r2000_is_chosen_and_read(sink: Collector) -> None:
    module = R2000Module()
    reader = SerialReader(module)
    async with plugged(reader) as address, session("r2000", address, sink, {3: 4}):
        await sink.until_link(Link.UP)
        reader.push([seen(1, 3), seen(2, 1)])
        await sink.until(lambda: len(sink.all) == 1)
    assert module.antennas == (3,)
    assert sink.all["antenna"].tolist() == [4]


async def test_an_antenna_that_the_store_file_lacks_is_marked(sink: Collector) -> None:
    reader = serial_reader("chafon-cf", now_us)
    async with plugged(reader) as address, session("chafon-cf", address, sink, TWO_PORTS):
        await sink.until_link(Link.UP)
        reader.push([seen(1, 4)])
        await sink.until(lambda: len(sink.all) == 1)
    assert sink.all["antenna"].tolist() == [ANTENNA_UNKNOWN]


async def test_polls_that_are_used_up_are_given_again(sink: Collector) -> None:
    module = M100Module()
    reader = SerialReader(module)
    async with plugged(reader) as address, session("m100", address, sink, {1: 7}):
        await sink.until_link(Link.UP)
        module.polls_left = 1
        reader.push([seen(1)])
        await sink.until(lambda: len(sink.all) == 1)
        async with asyncio.timeout(20):
            while module.polls_left < 5000:
                await asyncio.sleep(0.02)
        reader.push([seen(2)])
        await sink.until(lambda: len(sink.all) == 2)
    assert {state.link for state in sink.states[2:]} == {Link.UP}


@pytest.mark.parametrize("family", FAMILIES)
async def test_the_same_session_works_through_a_serial_server(family: str, sink: Collector) -> None:
    reader = serial_reader(family, now_us)
    module = reader.module

    async def serve(incoming: asyncio.StreamReader, outgoing: asyncio.StreamWriter) -> None:
        async def say() -> None:
            while True:
                if frame := module.next_tag() or module.idle(1.0):
                    outgoing.write(frame)
                await asyncio.sleep(0.02)

        saying = asyncio.create_task(say())
        while chunk := await incoming.read(4096):
            outgoing.write(b"".join(module.receive(chunk)))
        saying.cancel()
        outgoing.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with session(family, f"tcp://127.0.0.1:{port}", sink, ports_of(family)):
            await reading(reader, sink)
            reader.push([seen(4)])
            await sink.until(lambda: len(sink.all) == 1)
    assert sink.epcs == [(4).to_bytes(12)]


@pytest.mark.parametrize("what", ["rubbish", "frames"])
async def test_a_flooding_line_leaves_the_others_their_turn(
    what: str, sink: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = uhf.encode(0, uhf.ACTIVE, bytes.fromhex("00 2000708C2B380B2D00000000"))
    flood = {"rubbish": b"\xfe" * 65536, "frames": pushed * 3000}[what]
    monkeypatch.setattr(serial_session, "ANSWER_S", 0.3)

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while True:
                writer.write(flood)
                await writer.drain()

    turns = [0]
    handled = Counter[int]()
    feed = framing.Framer.feed

    def counted(framer: framing.Framer[Any], chunk: bytes) -> list[Any]:
        handled[turns[0]] += len(chunk)
        return feed(framer, chunk)

    async def others() -> None:
        while True:
            turns[0] += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(framing.Framer, "feed", counted)
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    ticking = asyncio.create_task(others())
    try:
        async with session("uhfreader18", f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}", sink, {1: 7}):
            async with asyncio.timeout(60):
                while handled.total() < 300_000 or (what == "frames" and not len(sink.all)):
                    await asyncio.sleep(0.01)
        assert max(handled.values()) <= PIECE_BYTES
    finally:
        ticking.cancel()
        server.close()


async def test_a_frame_that_a_network_delivers_in_two_pieces_is_whole(
    sink: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its second piece was lost, and came again after TCP's shortest time-out."""
    frame = uhf.encode(0, uhf.ACTIVE, bytes.fromhex("00 2000708C2B380B2D00000000"))
    monkeypatch.setattr(serial_session, "GAP_S", 0.02)
    told = []

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while True:
                writer.write(frame[:9])
                await asyncio.sleep(0.25)
                writer.write(frame[9:])
                await writer.drain()
                told.append(frame)
                await asyncio.sleep(0.01)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        address = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with session("uhfreader18", address, sink, {1: 7}) as running:
            await sink.until(lambda: len(sink.all) >= 4)
            assert running.counters["skipped_bytes"] < 2 * len(frame)  # what came before the session asked
    finally:
        server.close()
    assert len(told) >= 4


async def test_bytes_that_terminals_take_for_flow_control_arrive() -> None:
    """Antenna 1 of a ThingMagic is byte 11: XON."""
    far, near = os.openpty()
    tty.setraw(far)
    line = await open_line(os.ttyname(near))
    try:
        assert not termios.tcgetattr(near)[0] & (termios.IXON | termios.IXOFF | termios.IXANY)
        os.write(far, b"\x11\x13\x11\xff")
        got = b""
        while len(got) < 4:
            got += await line.read(10)
        assert got == b"\x11\x13\x11\xff"
    finally:
        await line.close()
        os.close(far)
        os.close(near)
