"""The session against the simulated reader on a real pseudo-terminal, through what lines and readers do."""

from __future__ import annotations

import asyncio
import os
import time
import tty
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from serial_hosts import Collector

from drivers.read import ANTENNA_UNKNOWN
from drivers.serial import session as serial_session
from drivers.serial import thingmagic
from drivers.serial.thingmagic import ThingMagicSession
from drivers.serial.thingmagic_codec import OP_ANTENNAS, OP_CONTINUOUS, OP_READ_MULTIPLE, OP_REGION, STATUS_OK
from drivers.session import Link, ReaderSettings
from simulators.readers.observation import Observation
from simulators.readers.thingmagic import Faults, Module, ThingMagicReader, reply

PORTS = {1: 7, 2: 8}
EPC = bytes.fromhex("E2000015860E028815408029")


def now_us() -> int:
    return time.time_ns() // 1000


@asynccontextmanager
async def session(
    address: str, sink: Collector, ports: dict[int, int] = PORTS, region: str | None = None
) -> AsyncIterator[None]:
    settings = ReaderSettings("gate", "thingmagic", address, ports, region=region)
    task = asyncio.create_task(ThingMagicSession(settings, sink, now_us).run())
    try:
        yield
    finally:
        assert not task.done(), task
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def sink() -> Collector:
    return Collector()


@pytest.fixture
async def reader() -> AsyncIterator[ThingMagicReader]:
    simulated = ThingMagicReader(now_us)
    yield simulated
    await simulated.stop()


def seen(number: int, port: int = 1, rssi_cdbm: int = -5500) -> Observation:
    return Observation(now_us(), port, number.to_bytes(12), rssi_cdbm, 1)


async def test_reads_arrive_with_tag_antenna_strength_and_time(reader: ThingMagicReader, sink: Collector) -> None:
    async with session(await reader.start(), sink):
        await sink.until_link(Link.UP)
        before_us = now_us()
        reader.push([Observation(now_us(), 1, EPC, -6000, 3), Observation(now_us(), 2, b"\x12\x34" * 31, -4500, 1)])
        await sink.until(lambda: len(sink.all) == 2)
        after_us = now_us()
    first, second = sink.all
    assert sink.epcs == [EPC, b"\x12\x34" * 31]
    assert (first["antenna"], first["rssi_cdbm"], first["count"], first["epc_bits"]) == (7, -6000, 3, 96)
    assert (second["antenna"], second["rssi_cdbm"], second["count"], second["epc_bits"]) == (8, -4500, 1, 496)
    assert before_us - 500_000 <= first["time_us"] <= after_us
    assert [state.link for state in sink.states] == [Link.CONNECTING, Link.CONNECTING, Link.UP]
    assert sink.states[-1].detail["firmware"] == "01.04.03.00"
    assert sink.states[-1].detail["baud"] == "115200"
    assert reader.module.antennas == (1, 2)


async def test_a_reader_without_region_gets_one_and_another_keeps_its_own(
    reader: ThingMagicReader, sink: Collector
) -> None:
    address = await reader.start()
    async with session(address, sink):
        await sink.until_link(Link.UP)
    assert reader.module.region == 6
    (text,) = sink.notices
    assert "was set to prc (China)" in text
    reader.module.region = 8
    told = len(sink.states)
    async with session(address, sink):
        await sink.until_link(Link.UP, told)
    assert reader.module.region == 8
    assert len(sink.notices) == 1


async def test_a_region_of_the_store_file_is_set(reader: ThingMagicReader, sink: Collector) -> None:
    address = await reader.start()
    reader.module.region = 6
    async with session(address, sink, region="eu3"):
        await sink.until_link(Link.UP)
    assert (reader.module.region, sink.notices) == (8, [])


async def test_a_region_of_the_store_file_that_is_refused_is_down(reader: ThingMagicReader, sink: Collector) -> None:
    reader.module = Scripted({OP_REGION: (0x0105, b"")})
    async with session(await reader.start(), sink, region="na"):
        assert "it refuses region na" in (await sink.until_link(Link.DOWN)).reason


async def test_it_stops_the_reader_when_cancelled(reader: ThingMagicReader, sink: Collector) -> None:
    async with session(await reader.start(), sink):
        await sink.until_link(Link.UP)
        assert reader.module.searching
    assert not reader.module.searching


async def test_a_reader_still_streaming_to_a_dead_host_is_stopped_first(
    reader: ThingMagicReader, sink: Collector
) -> None:
    address = await reader.start()
    reader.module.receive(thingmagic.START)
    old = [Observation(now_us(), 1, bytes((n,)) * 12, -5000, 1) for n in range(200)]
    reader.push(old)
    async with session(address, sink):
        await sink.until_link(Link.UP)
        reader.push([seen(1)])
        await sink.until(lambda: len(sink.all) > 0)
    assert sink.epcs == [(1).to_bytes(12)]


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(Faults(split=True), id="split"),
        pytest.param(Faults(garbage=0.3), id="garbage"),
        pytest.param(Faults(garbage=0.2, split=True, garbage_bytes=90), id="garbage and split"),
    ],
)
async def test_no_good_frame_is_lost_on_a_bad_line(faults: Faults, reader: ThingMagicReader, sink: Collector) -> None:
    async with session(await reader.start(), sink):
        await sink.until_link(Link.UP)
        reader.faults = faults
        reader.push([seen(n) for n in range(150)])
        await sink.until(lambda: len(sink.all) == 150)
    assert sorted(sink.epcs) == [n.to_bytes(12) for n in range(150)]


@pytest.mark.parametrize("faults", [Faults(lose_byte=0.2), Faults(flip_bit=0.2)], ids=["lost bytes", "flipped bits"])
async def test_a_spoilt_frame_costs_only_itself(faults: Faults, reader: ThingMagicReader, sink: Collector) -> None:
    async with session(await reader.start(), sink):
        await sink.until_link(Link.UP)
        reader.faults = faults
        reader.push([seen(n) for n in range(200)])
        # The line is drained when tags pushed behind the others have come; one of them may be spoilt itself.
        await sink.until(lambda: len(sink.all) > 100)
        reader.faults = Faults()
        reader.push([seen(1000)])
        await sink.until(lambda: (1000).to_bytes(12) in sink.epcs)
    numbers = [int.from_bytes(epc) for epc in sink.epcs]
    assert len(numbers) == len(set(numbers)) > 120
    assert set(numbers) <= {*range(200), 1000}


async def test_the_first_frame_after_half_a_frame_is_not_lost(reader: ThingMagicReader, sink: Collector) -> None:
    async with session(await reader.start(), sink):
        await sink.until_link(Link.UP)
        reader.send(b"\xff\xfa")  # announces 250 bytes that never come
        reader.push([seen(5)])
        await sink.until(lambda: len(sink.all) == 1)
    assert sink.epcs == [(5).to_bytes(12)]
    assert Link.DOWN not in [state.link for state in sink.states]


async def test_unplugged_is_down_and_replugged_is_up(
    reader: ThingMagicReader, sink: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serial_session, "RETRY_S", (0.05, 0.1))
    address = await reader.start()
    async with session(address, sink):
        await sink.until_link(Link.UP)
        await reader.stop()
        down = await sink.until_link(Link.DOWN)
        assert "unplugged" in down.reason
        await sink.until(lambda: "does not exist" in sink.states[-1].reason)
        assert sink.states[-1].since_us == down.since_us  # another reason, but down for as long
        told = len(sink.states)
        assert await reader.start() == address
        await sink.until_link(Link.UP, told)
        reader.push([seen(9)])
        await sink.until(lambda: len(sink.all) == 1)


async def test_a_silent_reader_is_started_again_then_reopened(
    reader: ThingMagicReader, sink: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ThingMagicSession, "SILENCE_S", 1.5)
    monkeypatch.setattr(serial_session, "RETRY_S", (0.05, 0.1))
    async with session(await reader.start(), sink):
        await sink.until_link(Link.UP)
        told = len(sink.states)
        reader.module.searching = False  # as after a brown-out
        assert "set up again" in (await sink.until_link(Link.DOWN, told)).reason
        await sink.until_link(Link.UP, told)
        monkeypatch.setattr(serial_session, "ANSWER_S", 0.2)
        monkeypatch.setattr(reader.module, "receive", lambda chunk: [])
        reader.module.searching = False
        await sink.until(lambda: any("answers" in state.reason for state in sink.states[told:]))
        told = len(sink.states)
        monkeypatch.undo()
        await sink.until_link(Link.UP, told)


class Scripted(Module):
    """A module that answers some commands in its own way."""

    def __init__(self, answers: dict[int, tuple[int, bytes]]) -> None:
        super().__init__(now_us)
        self.answers = answers

    def _obey(self, op: int, data: bytes) -> tuple[int, bytes]:
        return self.answers.get(op) or super()._obey(op, data)


async def test_a_refused_region_is_no_obstacle(reader: ThingMagicReader, sink: Collector) -> None:
    reader.module = Scripted({OP_REGION: (0x0105, b"")})
    async with session(await reader.start(), sink):
        await sink.until_link(Link.UP)


@pytest.mark.parametrize(
    ("op", "status", "sentence"),
    [
        (OP_ANTENNAS, 0x0105, "refuses antennas 1, 2"),
        (OP_CONTINUOUS, 0x0503, "no antenna is connected"),
        (OP_CONTINUOUS, 0x0504, "too hot"),
    ],
)
async def test_a_refusal_is_down_with_its_reason(
    op: int, status: int, sentence: str, reader: ThingMagicReader, sink: Collector
) -> None:
    reader.module = Scripted({op: (status, b"")})
    async with session(await reader.start(), sink):
        assert sentence in (await sink.until_link(Link.DOWN)).reason


async def test_a_port_that_the_family_does_not_have_is_said(reader: ThingMagicReader, sink: Collector) -> None:
    async with session(await reader.start(), sink, {17: 0}):
        assert "ports must be 1 to 16" in (await sink.until_link(Link.DOWN)).reason


async def test_an_error_while_reading_is_down_with_its_reason_then_up_again(
    reader: ThingMagicReader, sink: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serial_session, "RETRY_S", (0.05, 0.1))
    async with session(await reader.start(), sink):
        await sink.until_link(Link.UP)
        reader.send(reply(OP_READ_MULTIPLE, 0x0505))
        assert "reflects" in (await sink.until_link(Link.DOWN)).reason
        await sink.until_link(Link.UP, len(sink.states))


@pytest.mark.parametrize(
    "frame",
    [reply(OP_READ_MULTIPLE, STATUS_OK, bytes.fromhex("10001B001700")), reply(OP_READ_MULTIPLE, 0x0601)],
    ids=["end of search", "buffer full"],
)
async def test_a_search_that_ends_is_started_again(frame: bytes, reader: ThingMagicReader, sink: Collector) -> None:
    async with session(await reader.start(), sink):
        await sink.until_link(Link.UP)
        reader.module.searching = False
        reader.send(frame)
        async with asyncio.timeout(10):
            while not reader.module.searching:
                await asyncio.sleep(0.02)
        assert sink.states[-1].link is Link.UP


async def test_an_antenna_that_the_store_file_lacks_is_marked(reader: ThingMagicReader, sink: Collector) -> None:
    async with session(await reader.start(), sink, {1: 3}):
        await sink.until_link(Link.UP)
        reader.module.antennas = (1, 2)
        reader.push([seen(1, port=2)])
        await sink.until(lambda: len(sink.all) == 1)
    assert sink.all["antenna"].tolist() == [ANTENNA_UNKNOWN]


async def test_nobody_there_is_down_after_probing_every_speed(sink: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serial_session, "ANSWER_S", 0.1)
    monkeypatch.setattr(serial_session, "PROBE_S", 0.05)
    master, slave = os.openpty()
    try:
        tty.setraw(slave)
        async with session(os.ttyname(slave), sink):
            down = await sink.until_link(Link.DOWN)
    finally:
        os.close(master)
        os.close(slave)
    assert "no ThingMagic reader answers" in down.reason
    assert "460800" in down.reason


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("/dev/no-such-reader", "does not exist"),
        ("/dev/null", "not a serial port"),
        ("gate-1", "neither a device path"),
        ("tcp://127.0.0.1", "lacks a host or a port"),
        ("tcp://127.0.0.1:99999", "write tcp://host:port"),
        ("tcp://127.0.0.1:1", "refused the connection"),
    ],
)
async def test_an_address_that_cannot_be_opened_is_down_with_a_sentence(
    address: str, sentence: str, sink: Collector
) -> None:
    async with session(address, sink):
        assert sentence in (await sink.until_link(Link.DOWN)).reason


async def test_a_port_in_use_is_said(reader: ThingMagicReader, sink: Collector) -> None:
    address = await reader.start()
    other = Collector()
    async with session(address, sink):
        await sink.until_link(Link.UP)
        async with session(address, other):
            assert "in use by another program" in (await other.until_link(Link.DOWN)).reason
        reader.push([seen(1)])
        await sink.until(lambda: len(sink.all) == 1)


async def test_a_failing_sink_does_not_end_the_session(
    reader: ThingMagicReader, sink: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serial_session, "RETRY_S", (0.05, 0.1))
    working = sink.reads

    async def failing(*_: Any) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(sink, "reads", failing)
    async with session(await reader.start(), sink):
        await sink.until_link(Link.UP)
        reader.push([seen(1)])
        assert "no room" in (await sink.until_link(Link.DOWN)).reason
        monkeypatch.setattr(sink, "reads", working)
        await sink.until_link(Link.UP, len(sink.states))


async def test_the_same_session_works_through_a_serial_server(sink: Collector, tmp_path: Path) -> None:
    module = Module(now_us)
    lines: list[asyncio.StreamWriter] = []

    async def serve(incoming: asyncio.StreamReader, outgoing: asyncio.StreamWriter) -> None:
        lines.append(outgoing)
        while chunk := await incoming.read(4096):
            outgoing.write(b"".join(module.receive(chunk)))
        outgoing.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with session(f"tcp://127.0.0.1:{port}", sink):
            await sink.until_link(Link.UP)
            module.see([seen(4, port=2)])
            lines[-1].write(module.next_tag() or b"")
            await sink.until(lambda: len(sink.all) == 1)
            assert "baud" not in sink.states[-1].detail
            lines[-1].close()
            assert "closed by the other end" in (await sink.until_link(Link.DOWN)).reason
    assert sink.epcs == [(4).to_bytes(12)]
