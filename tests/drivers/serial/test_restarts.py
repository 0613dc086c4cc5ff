"""Serial readers that restart, forget, end at once or are pulled out, on real pseudo-terminals and sockets."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
import tty
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from serial_hosts import Collector

from drivers import open_session
from drivers.open import SERIAL, serial_family
from drivers.read import ANTENNA_UNKNOWN
from drivers.serial import chafon_cf_codec as cf
from drivers.serial import nordicid_codec as nur
from drivers.serial import r2000_codec as r2000
from drivers.serial import session as serial_session
from drivers.serial import thingmagic_codec as tm
from drivers.serial import uhfreader18_codec as uhf
from drivers.serial.thingmagic import ThingMagicSession
from drivers.serial.thingmagic_codec import Command
from drivers.serial.transport import TransportError, open_line
from drivers.session import Link, ReaderSettings
from simulators.readers.observation import Observation
from simulators.readers.serial_families import M100Module, R2000Module, serial_reader
from simulators.readers.serial_line import SerialReader
from simulators.readers.thingmagic import Module, ThingMagicReader, reply

FOUR = {1: 11, 2: 12, 3: 13, 4: 14}


def now_us() -> int:
    return time.time_ns() // 1000


@pytest.fixture
def sink() -> Collector:
    return Collector()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serial_session, "RETRY_S", (0.05, 0.2))


@asynccontextmanager
async def session(family: str, address: str, sink: Collector, ports: dict[int, int]) -> AsyncIterator[Any]:
    running = open_session(ReaderSettings("gate", family, address, ports), sink, now_us)
    task = asyncio.create_task(running.run())
    try:
        yield running
        assert not task.done(), task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def plugged(reader: SerialReader[Any]) -> AsyncIterator[str]:
    try:
        yield await reader.start()
    finally:
        await reader.stop()


def seen(port: int) -> Observation:
    return Observation(now_us(), port, port.to_bytes(12), -5500, 1)


async def heard_on(reader: SerialReader[Any], sink: Collector, ports: dict[int, int]) -> None:
    """Every antenna is heard from now on."""
    told = len(sink.all)
    async with asyncio.timeout(30):
        while set(sink.all["antenna"][told:].tolist()) != set(ports.values()):
            reader.push([seen(port) for port in ports])
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("says", [True, False], ids=["says so", "says nothing"])
async def test_a_thingmagic_that_restarts_while_reading_is_set_up_anew(
    says: bool, sink: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ThingMagicSession, "SILENCE_S", 1.5)
    reader = ThingMagicReader(now_us)
    async with plugged(reader) as address, session("thingmagic", address, sink, FOUR):
        await sink.until_link(Link.UP)
        await heard_on(reader, sink, FOUR)
        boot = reader.module.restart()
        assert reader.module.antennas == (1,)
        if says:
            reader.send(boot)
        words = "it has restarted" if says else "it has sent nothing for"
        await sink.until(lambda: any(words in state.reason for state in sink.states))
        down = next(state for state in sink.states if words in state.reason)
        assert down.link is Link.DOWN, "its zones are unknown until it reads again"
        await heard_on(reader, sink, FOUR)
        assert list(reader.module.antennas) == [1, 2, 3, 4]
        assert sink.states[-1].link is Link.UP


async def test_silence_is_unknown_from_the_last_word_on(sink: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ThingMagicSession, "SILENCE_S", 1.5)
    reader = ThingMagicReader(now_us)
    async with plugged(reader) as address, session("thingmagic", address, sink, FOUR):
        await sink.until_link(Link.UP)
        reader.module.restart()
        down = await sink.until_link(Link.DOWN)
        assert down.since_us < now_us() - 1_000_000


async def test_one_that_restarts_while_it_is_set_up_is_set_up_once_more(sink: Collector) -> None:
    class Weak(Module):
        restarts = 1

        def obey(self, command: Command) -> list[bytes]:
            answers = super().obey(command)
            if command.op == tm.OP_OPTION and self.restarts:
                self.restarts -= 1
                answers.insert(0, self.restart())
            return answers

    reader = ThingMagicReader(now_us)
    reader.module = Weak(now_us)
    async with plugged(reader) as address, session("thingmagic", address, sink, FOUR):
        await heard_on(reader, sink, FOUR)


async def test_what_it_says_at_its_start_before_we_ask_is_no_restart(sink: Collector) -> None:
    reader = ThingMagicReader(now_us)
    async with plugged(reader) as address:
        reader.send(reader.module.restart())
        async with session("thingmagic", address, sink, FOUR):
            await heard_on(reader, sink, FOUR)
    assert Link.DOWN not in [state.link for state in sink.states]


async def test_one_that_restarts_again_and_again_is_set_up_more_rarely(sink: Collector) -> None:
    reader = ThingMagicReader(now_us)
    waits: list[float] = []

    async with plugged(reader) as address, session("thingmagic", address, sink, FOUR) as running:
        pause = running._pause

        async def counted() -> None:
            waits.append(running._retry_s)
            await pause()

        running._pause = counted
        for n in range(1, 5):
            await sink.until(lambda n=n: [state.link for state in sink.states].count(Link.UP) == n)
            reader.send(reader.module.restart())
        await sink.until(lambda: len(waits) == 4)
    assert waits == [0.05, 0.1, 0.2, 0.2]


async def test_after_a_steady_minute_it_is_tried_soon_again(sink: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = ThingMagicReader(now_us)
    async with plugged(reader) as address, session("thingmagic", address, sink, FOUR) as running:
        await sink.until_link(Link.UP)
        running._retry_s = 0.2
        monkeypatch.setattr(serial_session, "STEADY_S", 0.0)
        reader.send(reader.module.restart())
        await sink.until(lambda: [state.link for state in sink.states].count(Link.UP) == 2)
        assert running._retry_s == 0.1


@pytest.mark.parametrize("searching", [False, True], ids=["and stops", "and goes on"])
async def test_an_r2000_that_forgets_its_antenna_gets_it_again(
    searching: bool, sink: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serial_session.SerialSession, "SILENCE_S", 0.6)
    module = R2000Module()
    reader = SerialReader(module)
    async with plugged(reader) as address, session("r2000", address, sink, {3: 13}):
        await heard_on(reader, sink, {3: 13})
        module.antennas = (1,)
        module.searching = searching
        await heard_on(reader, sink, {3: 13})
        assert module.antennas == (3,)


async def test_a_reader_that_searches_where_it_was_not_told_is_set_up_anew_once_a_while(sink: Collector) -> None:
    class Stubborn(Module):
        def listens(self, port: int) -> bool:
            return self.searching and port == 2

    reader = ThingMagicReader(now_us)
    reader.module = Stubborn(now_us)
    async with plugged(reader) as address, session("thingmagic", address, sink, {1: 11}):
        async with asyncio.timeout(30):
            while len(sink.all) < 20:
                reader.push([seen(2)])
                await asyncio.sleep(0.02)
        assert set(sink.all["antenna"].tolist()) == {ANTENNA_UNKNOWN}
        assert sum("it has restarted" in state.reason for state in sink.states) == 1


# Rounds that end at once.


def cf_answer(command: bytes) -> bytes:
    for number, data in ((cf.DEVICE, b"\0CP-202910\0"), (cf.STOP, b"\0"), (cf.INVENTORY, b"\x12")):
        if command[2:4] == number.to_bytes(2):
            return cf.encode(0, number, data)
    return b""


def uhf_answer(command: bytes) -> bytes:
    if command[2] == uhf.READER:
        return uhf.encode(0, uhf.READER, bytes.fromhex("00 030D 2603 3180 1E00 01000001"))
    return uhf.encode(0, uhf.INVENTORY, bytes((uhf.NO_TAG,)))


def r2000_answer(command: bytes) -> bytes:
    data = {r2000.GET_VERSION: b"\1\7", r2000.SET_ANTENNA: b"\x10"}.get(command[3], bytes(7))
    return r2000.encode(1, command[3], data)


def nur_answer(command: bytes) -> bytes:
    data = {nur.INVENTORY: bytes((nur.NO_TAG,)), nur.READER_INFO: bytes(20)}.get(command[6], b"\0")
    return nur.encode(nur.Frame(command[6], data))


def tsl_answer(command: bytes) -> bytes:
    over = b"ER: 005" if command == b".iv\r\n" else b"OK:"
    return b"CS: " + command + over + b"\r\n\r\n"


def thingmagic_answer(command: bytes) -> bytes:
    op = command[2]
    data = {tm.OP_VERSION: bytes(20), tm.OP_GET_REGION: b"\x08", tm.OP_CONTINUOUS: b"\x01"}.get(op, b"")
    ended = reply(tm.OP_READ_MULTIPLE, data=bytes.fromhex("10 001B 0017 00")) if op == tm.OP_CONTINUOUS else b""
    return reply(op, data=data) + ended


@pytest.mark.parametrize(
    ("family", "answer", "is_round"),
    [
        ("chafon-cf", cf_answer, lambda command: command[2:4] == b"\0\1"),
        ("uhfreader18", uhf_answer, lambda command: command[2] == uhf.INVENTORY),
        ("nordicid", nur_answer, lambda command: command[6] == nur.INVENTORY),
        ("tsl", tsl_answer, lambda command: command == b".iv\r\n"),
        ("r2000", r2000_answer, lambda command: command[3] == r2000.INVENTORY),
        ("thingmagic", thingmagic_answer, lambda command: command[2] == tm.OP_CONTINUOUS and len(command) > 10),
    ],
)
async def test_rounds_that_end_at_once_are_asked_for_with_a_breath(
    family: str, answer: Callable[[bytes], bytes], is_round: Callable[[bytes], bool], sink: Collector
) -> None:
    asked_s: list[float] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while command := await reader.read(512):
            if is_round(command):
                asked_s.append(time.monotonic())
            writer.write(answer(command))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, session(family, f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}", sink, {1: 7}):
        async with asyncio.timeout(30):
            while len(asked_s) < 8:
                await asyncio.sleep(0.02)
        assert sink.states[-1].link is Link.UP
    assert asked_s[7] - asked_s[0] > 7 * 0.04


# Several antennas of an M100.


async def test_an_m100_that_tells_antennas_may_have_several_ports(sink: Collector) -> None:
    reader = SerialReader(M100Module(tells=True))
    async with plugged(reader) as address, session("m100", address, sink, FOUR):
        await sink.until_link(Link.UP)
        await heard_on(reader, sink, FOUR)


async def test_an_m100_that_tells_none_takes_one_port(sink: Collector) -> None:
    reader = SerialReader(M100Module())
    async with plugged(reader) as address, session("m100", address, sink, FOUR):
        await sink.until_link(Link.UP)
        reader.push([seen(1)])
        await sink.until(lambda: "it has one antenna" in sink.states[-1].reason)
        links = [state.link for state in sink.states]
        assert (links.count(Link.UP), links[-1]) == (1, Link.DOWN), "it does not flap"
        assert len(sink.all) == 0


# Power lost for a moment, while the line stays: settings and search are gone, and nothing is said.


def ports_of(family: str) -> dict[int, int]:
    return {1: 11} if family in ("m100", "tsl") else {1: 11, 2: 12}


class Off:
    """What is on the line of a reader that is off or boots: it hears nothing and says nothing."""

    def receive(self, chunk: bytes) -> list[bytes]:
        return []

    def see(self, observations: Any) -> None: ...

    def next_tag(self) -> None: ...

    def idle(self, quiet_s: float) -> None: ...


NOISE = bytes.fromhex("00FFFE00") + b"\r\nboot v1.2 A5 5A\r\n" + bytes.fromhex("A0BBCF5AAA00FF")
"""What a line carries while a reader's supply comes up and its boot loader speaks: also the heads of frames."""


@pytest.mark.parametrize("boots", ["at once", "in a second", "with noise"])
@pytest.mark.parametrize("family", sorted(SERIAL))
async def test_a_reader_that_has_lost_its_power_reads_on_all_its_antennas_again(
    family: str, boots: str, sink: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serial_family(family), "SILENCE_S", 0.6)
    monkeypatch.setattr(serial_session, "ANSWER_S", 0.4)
    ports = ports_of(family)
    reader = serial_reader(family, now_us)
    async with plugged(reader) as address, session(family, address, sink, ports):
        await heard_on(reader, sink, ports)
        if boots == "in a second":
            reader.module = Off()
            await asyncio.sleep(1.0)
        if boots == "with noise":
            reader.send(NOISE)
        reader.module = serial_reader(family, now_us).module
        await heard_on(reader, sink, ports)
        assert sink.states[-1].link is Link.UP


@pytest.mark.parametrize("command", [1, 2, 3, 4])
@pytest.mark.parametrize("family", sorted(SERIAL))
async def test_a_reader_that_loses_its_power_while_it_is_asked_or_set_up_reads_after_all(
    family: str, command: int, sink: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each of its first commands, as far as it is asked that much; the answer is lost with all that came before."""
    monkeypatch.setattr(serial_family(family), "SILENCE_S", 0.6)
    monkeypatch.setattr(serial_session, "ANSWER_S", 0.4)
    ports = ports_of(family)
    reader = serial_reader(family, now_us)
    receive, heard = reader.module.receive, 0

    def failing(chunk: bytes) -> list[bytes]:
        nonlocal heard
        heard += 1
        if heard < command:
            return list(receive(chunk))
        reader.module = serial_reader(family, now_us).module
        return []

    monkeypatch.setattr(reader.module, "receive", failing)
    async with plugged(reader) as address, session(family, address, sink, ports):
        await heard_on(reader, sink, ports)
        assert heard <= command, "after that another one answers"
        assert sink.states[-1].link is Link.UP


@pytest.mark.parametrize("family", sorted(SERIAL))
async def test_a_serial_server_that_wants_tls_is_down_with_words(
    family: str, sink: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serial_session, "ANSWER_S", 0.1)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(bytes.fromhex("1503010002 0246"))  # an alert: not a ClientHello
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        address = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with session(family, address, sink, {1: 7}):
            down = await sink.until_link(Link.DOWN)
    assert "closed by the other end" in down.reason or "no " in down.reason


# Pulled out.


@pytest.mark.parametrize("family", sorted(SERIAL))
async def test_pulling_a_reader_out_is_told_without_a_traceback(
    family: str, sink: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    reader = serial_reader(family, now_us)
    async with plugged(reader) as address, session(family, address, sink, {1: 7}):
        await sink.until_link(Link.UP)
        await reader.stop()
        await sink.until(lambda: any("was unplugged" in state.reason for state in sink.states))
        await sink.until(lambda: "does not exist" in sink.states[-1].reason)
    gc.collect()  # what nobody asked a task for is logged when it is thrown away
    await asyncio.sleep(0)
    assert [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR] == []


async def test_writing_to_one_that_was_pulled_out_is_told_without_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    far, near = os.openpty()
    tty.setraw(near)
    line = await open_line(os.ttyname(near))
    os.close(near)
    os.close(far)

    async def write_on() -> None:
        while True:
            await line.write(bytes(64))
            await asyncio.sleep(0)

    with pytest.raises(TransportError, match="was unplugged"):
        await write_on()
    await line.close()
    gc.collect()
    await asyncio.sleep(0)
    assert [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR] == []
