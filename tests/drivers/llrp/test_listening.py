"""Readers that connect to us, and who they are: identity before address, over real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from llrp_peers import OK, QUICK, Obedient, Recorder, free_port, greeting, now_us, peer, session
from llrpkit.protocol import messages, params

from drivers.llrp import listening
from drivers.llrp.codec import shown
from drivers.llrp.session import LlrpSession
from drivers.session import Link, ReaderSettings, Tls
from simulators.readers.llrp import LlrpReader
from simulators.readers.observation import Observation


def identity_of(reader: LlrpReader) -> str:
    """As the label has it."""
    return shown(reader.identity.hex().upper()).split("MAC ")[1].rstrip(")")


@asynccontextmanager
async def waiting(port: int, identity: str, name: str = "gate-1") -> AsyncIterator[Any]:
    sink = Recorder()
    settings = ReaderSettings(name, "llrp", f"listen://127.0.0.1:{port}", {1: 100}, identity=identity)
    running = asyncio.create_task(LlrpSession(settings, sink, now_us, QUICK).run())
    try:
        yield sink
        assert not running.done(), running
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def dial(reader: LlrpReader, port: int) -> None:
    """Connect again and again, as readers do that are told to."""
    while True:
        with suppress(OSError):
            await reader.dial("127.0.0.1", port)
        await asyncio.sleep(0.02)


@asynccontextmanager
async def dialling(port: int, *readers: LlrpReader) -> AsyncIterator[Any]:
    tasks = [asyncio.create_task(dial(reader, port)) for reader in readers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def hear(reader: LlrpReader) -> None:
    reader.push([Observation(now_us(), 1, reader.identity + bytes(4), -5000)])


async def test_readers_that_connect_to_one_port_are_told_apart_by_identity() -> None:
    port = free_port()
    one, two, stranger = (LlrpReader(now_us, name=name) for name in ("one", "two", "stranger"))
    async with (
        waiting(port, identity_of(one)) as first,
        waiting(port, identity_of(two), "gate-2") as second,
        dialling(port, two, stranger, one),
    ):
        for reader, sink in ((one, first), (two, second)):
            await sink.until(lambda sink=sink: Link.UP in sink.links)
            assert sink.statuses[-1].detail["identity"] == reader.identity.hex().upper()
            hear(reader)
            await sink.until(lambda sink=sink: len(sink.all) == 1)
            assert sink.all["epc"][0, 0] == int.from_bytes(reader.identity, "big")
            assert sink.statuses[0].reason == f"waiting for the reader to connect to port {port} here"
        assert not stranger.inventorying


async def test_a_reader_that_connects_anew_replaces_its_dead_connection() -> None:
    port, reader = free_port(), LlrpReader(now_us)
    async with waiting(port, identity_of(reader)) as sink:
        async with dialling(port, reader):
            await sink.until(lambda: Link.UP in sink.links)
        # The new connection comes while the old one still stands.
        twin = LlrpReader(now_us)
        twin.identity = reader.identity
        async with dialling(port, twin):
            await sink.until(lambda: sink.links.count(Link.UP) == 2)
            hear(twin)
            await sink.until(lambda: len(sink.all) == 1)


async def test_callers_that_are_no_readers_do_no_harm() -> None:
    port, reader = free_port(), LlrpReader(now_us)
    async with waiting(port, identity_of(reader)) as sink:
        await sink.until(lambda: Link.CONNECTING in sink.links)
        callers = []
        for words in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"",
            greeting(2),
            b"\x04\x3f\xff\xff\xff\xff\0\0\0\0",
            greeting()[:20],
        ):
            stream, writer = await connected(port)
            writer.write(words)
            callers.append((stream, writer))
        async with dialling(port, reader):
            await sink.until(lambda: Link.UP in sink.links)
        for _, writer in callers:
            writer.close()


async def connected(port: int) -> Any:
    async with asyncio.timeout(10):
        while True:
            try:
                return await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("form", ["label", "told", "ieee", "bare"])
async def test_a_reader_that_connects_is_known_by_its_mac_in_any_form(form: Any) -> None:
    port, reader = free_port(), LlrpReader(now_us)
    told = reader.identity.hex().upper()
    written = {
        "label": identity_of(reader),
        "told": told,
        "ieee": f"{told[:6]}FFFE{told[10:]}",
        "bare": told[:6].lower() + told[10:].lower(),
    }[form]
    async with waiting(port, written) as sink, dialling(port, reader):
        await sink.until(lambda: Link.UP in sink.links)


async def test_a_reader_that_tells_its_mac_bare_is_known_too() -> None:
    port, reader = free_port(), LlrpReader(now_us)
    label = identity_of(reader)
    reader.identity = bytes.fromhex(label.replace(":", ""))
    async with waiting(port, label) as sink, dialling(port, reader):
        await sink.until(lambda: Link.UP in sink.links)
        assert sink.statuses[-1].detail["identity"] == label.replace(":", "")


async def test_who_waits_is_told_who_has_come_instead() -> None:
    port, reader, stranger = free_port(), LlrpReader(now_us), LlrpReader(now_us, name="stranger")
    async with waiting(port, identity_of(reader)) as sink:
        async with dialling(port, stranger):
            await sink.until(lambda: any("127.0.0.1 has connected" in s.reason for s in sink.statuses))
        reason = sink.statuses[-1].reason
        assert f"{identity_of(reader)} in the store file" in reason
        assert f"which is {stranger.identity.hex().upper()} (MAC {identity_of(stranger)})" in reason
        assert set(sink.links) == {Link.CONNECTING}
        told = len(sink.statuses)
        async with dialling(port, stranger):
            await asyncio.sleep(0.3)  # some calls more of the same
        assert len(sink.statuses) == told
        async with dialling(port, reader):
            await sink.until(lambda: Link.UP in sink.links)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "sends bytes that are not LLRP"),
        (greeting(2), "another client is connected to the reader"),
        (greeting()[:20], "has not told within"),
    ],
)
async def test_what_callers_do_wrong_is_told(words: str, told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "IDENTIFY_S", 0.5)
    port = free_port()
    async with waiting(port, "0016251125D6") as sink:
        await sink.until(lambda: Link.CONNECTING in sink.links)
        _, writer = await connected(port)
        writer.write(words)
        await sink.until(lambda: told in sink.statuses[-1].reason)
        writer.close()


@pytest.mark.parametrize("before", ["antenna", "keepalive"])
async def test_a_caller_may_say_something_else_before_it_greets(before: Any) -> None:
    class Talkative(LlrpReader):
        def _event(self, **event: Any) -> None:
            if "connection_attempt_event" in event:
                if before == "antenna":
                    super()._event(antenna_event=params.AntennaEvent(event_type=1, antenna_id=1))
                else:
                    self.say(messages.KEEPALIVE().to_bytes(message_id=0))
            super()._event(**event)

    port, reader = free_port(), Talkative(now_us)
    async with waiting(port, identity_of(reader)) as sink, dialling(port, reader):
        await sink.until(lambda: Link.UP in sink.links)


async def test_a_port_in_use_is_told_and_tried_again() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port, reader = taken.getsockname()[1], LlrpReader(now_us)
        async with waiting(port, identity_of(reader)) as sink:
            assert "can't listen on" in await sink.until_down()
            taken.close()
            async with dialling(port, reader):
                await sink.until(lambda: Link.UP in sink.links)


async def test_the_port_is_free_again_when_the_last_session_ends() -> None:
    port, reader = free_port(), LlrpReader(now_us)
    async with waiting(port, identity_of(reader)) as sink, dialling(port, reader):
        await sink.until(lambda: Link.UP in sink.links)
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))
        again.listen()


def test_listening_needs_an_identity() -> None:
    cases: list[dict[str, Any]] = [{}, {"identity": "AA", "tls": Tls(ca=Path("ca.pem"))}]
    for more in cases:
        with pytest.raises(ValueError, match="identity"):
            LlrpSession(ReaderSettings("a", "llrp", "listen://0.0.0.0:5084", {1: 1}, **more), Recorder(), now_us)


def identified(identity: bytes) -> messages.GET_READER_CONFIG_RESPONSE:
    return messages.GET_READER_CONFIG_RESPONSE(
        llrp_status=OK, identification=params.Identification(id_type=0, reader_id=identity)
    )


@pytest.mark.parametrize("there", [bytes(8), None])
async def test_another_reader_than_the_store_file_names_gets_no_inventory(there: Any) -> None:
    answers = {"GET_READER_CONFIG": identified(there)} if there else {}
    reader = Obedient(answers=answers)
    async with peer(reader) as (port, _), session(port, identity="0200FFFE00000001") as sink:
        reason = await sink.until_down()
    assert "not 0200FFFE00000001 as the store file says" in reason
    assert "ADD_ROSPEC" not in reader.asked


async def test_a_changed_identity_is_health() -> None:
    async def then(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader.answers["GET_READER_CONFIG"] = identified(bytes([*range(1, 9)]))

    reader = Obedient(answers={"GET_READER_CONFIG": identified(bytes(8))}, then=then)
    async with peer(reader) as (port, _), session(port) as sink:
        await sink.until(lambda: bool(sink.notices))
        assert "0102030405060708 instead of 0000000000000000" in sink.notices[0]
        await sink.until(lambda: sink.links.count(Link.UP) >= 2)
