"""Sessions with readers that are called or that publish, simulated and others that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path
from ssl import PEM_cert_to_DER_cert
from typing import Any, NoReturn

import aiomqtt
import pushed_peers
import pytest
from aiohttp import web
from certificates import Authority
from llrp_peers import Recorder, free_port
from pushed_peers import EPC, message, now_us, password, receiving, seen, until_up

from drivers import open_session
from drivers import tls as reader_tls
from drivers.links import LinkFailure
from drivers.pushed import session
from drivers.pushed.formats import FORMATS
from drivers.read import epc_bytes
from drivers.session import Link, Push, ReaderSettings, Tls
from simulators.headquarters.broker import NatsBroker
from simulators.readers.pushed import ServingReader, json_reader

quick = pushed_peers.quick


@asynccontextmanager
async def serving(profile: str = "impinj", scheme: str = "http") -> AsyncIterator[ServingReader]:
    reader = ServingReader(now_us, profile, scheme, 0)
    await reader.start()
    try:
        yield reader
    finally:
        await reader.stop()


async def read_by(sink: Recorder, reader: Any, number: int = 1) -> None:
    """Have the reader see a tag until reads arrive."""
    have = len(sink.all)
    while len(sink.all) < have + number:
        reader.push([seen(2)])
        await asyncio.sleep(0.05)


# HTTP stream


async def test_a_stream_brings_reads_and_a_preset_is_started_and_stopped() -> None:
    async with serving() as reader:
        async with receiving(reader.address, "impinj", preset="default") as sink:
            await until_up(sink)
            await read_by(sink, reader)
            assert reader.started == ["default"]
        assert not reader.running, "an inventory that nobody hears is ended"
    read = sink.all[0]
    assert (epc_bytes(read["epc"], 96), read["antenna"], read["rssi_cdbm"]) == (EPC, 20, -5700)
    assert abs(int(read["time_us"]) - now_us()) < 60_000_000
    assert sink.statuses[0].link is Link.CONNECTING
    assert sink.statuses[-1].detail["serial"] == "37020340091"


async def test_without_a_preset_it_says_that_nothing_runs() -> None:
    async with serving() as reader, receiving(reader.address, "impinj") as sink:
        assert "takes no inventory" in await sink.until_down()
        reader.running = True
        await until_up(sink)
        await read_by(sink, reader)
    assert not reader.started
    assert reader.running, "it was not we who started it"


async def test_an_inventory_that_ends_is_started_again() -> None:
    async with serving() as reader, receiving(reader.address, "impinj", preset="shop") as sink:
        await until_up(sink)
        reader.end_inventory()
        await sink.until_down()
        await until_up(sink)
        await read_by(sink, reader)
        assert reader.started == ["shop", "shop"]


async def test_a_missing_preset_is_named() -> None:
    async with serving() as reader, receiving(reader.address, "impinj", preset="none") as sink:
        assert "has no /api/v1/profiles/inventory/presets/none/start" in await sink.until_down()


async def test_it_returns_after_the_reader_was_away() -> None:
    async with serving() as reader, receiving(reader.address, "impinj", preset="default") as sink:
        await until_up(sink)
        await reader.stop()
        await sink.until_down()
        reader.running = False
        await reader.start()
        await until_up(sink)
        await read_by(sink, reader)


async def test_wrong_and_right_passwords(tmp_path: Path) -> None:
    async with serving() as reader:
        reader.login = ("root", "impinj")
        wrong: dict[str, Any] = {"username": "root", "password_file": password(tmp_path, "guess"), "preset": "default"}
        async with receiving(reader.address, "impinj", **wrong) as sink:
            assert "does not accept username and password (HTTP 401)" in await sink.until_down()
        async with receiving(reader.address, "impinj", **wrong | {"password_file": tmp_path / "none"}) as sink:
            assert "password_file of the reader can't be read" in await sink.until_down()
        password(tmp_path, "impinj")
        async with receiving(reader.address, "impinj", **wrong) as sink:
            await until_up(sink)


async def test_a_closed_port_and_something_else_are_told_apart() -> None:
    async with receiving(f"http://127.0.0.1:{free_port()}", "impinj") as sink:
        assert "refused the connection" in await sink.until_down()
    async with serving("zebra") as reader, receiving(f"http://127.0.0.1:{reader.port}/nothing", "zebra") as sink:
        assert "has no /nothing (HTTP 404)" in await sink.until_down()

    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(rude, "127.0.0.1", 0)
    async with server, receiving(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x", "zebra") as sink:
        assert "does not speak HTTP as expected" in await sink.until_down()


async def test_silence_longer_than_two_heartbeats_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "GRACE_S", 0.2)
    async with (
        serving("zebra") as reader,
        receiving(reader.address, "zebra", heartbeat_s=0.01) as sink,
    ):
        await until_up(sink)
        assert "nothing heard from the reader" in await sink.until_down()


async def test_phase_goes_beside_the_reads() -> None:
    class Keeping(Recorder):
        turns: list[int] = []

        def phases(self, reader: str, phases: Any) -> None:
            self.turns += phases.tolist()

    async with serving() as reader:
        sink = Keeping()
        settings = ReaderSettings(
            "g", "json", reader.address, {2: 20}, profile="impinj", phase=True, push=Push(preset="default")
        )
        task = asyncio.create_task(open_session(settings, sink, now_us).run())
        await until_up(sink)
        await read_by(sink, reader)
        task.cancel()
        await asyncio.wait([task])
    assert set(sink.turns) == {2376}
    assert len(sink.turns) == len(sink.all)


async def test_tls_with_a_ca_or_a_pin(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert = authority.issue("reader")
    context = reader_tls.listening(Tls(cert=cert, key=cert.with_suffix(".key")))

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(message())
        await asyncio.sleep(60)
        return response

    handlers = web.Server(answer)
    server = await asyncio.get_running_loop().create_server(handlers, "127.0.0.1", 0, ssl=context)
    address = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
    pin = sha256(PEM_cert_to_DER_cert(cert.read_text()[cert.read_text().index("-----BEGIN") :])).hexdigest().upper()
    try:
        for tls in (Tls(ca=authority.folder / "ca.pem"), Tls(pin=pin)):
            async with receiving(address, tls=tls) as sink:
                await sink.until(lambda sink=sink: len(sink.all) == 1)
        async with receiving(address, tls=Tls(pin="00" * 32)) as sink:
            assert f"has the fingerprint {pin}, not the pinned one" in await sink.until_down()
        other = Authority(tmp_path / "other")
        async with receiving(address, tls=Tls(ca=other.folder / "ca.pem")) as sink:
            assert "is not accepted" in await sink.until_down()
        async with receiving(address.replace("https", "http"), tls=None) as sink:
            await sink.until_down()
    finally:
        server.close()
        await handlers.shutdown(0.1)


# WebSocket


async def test_a_websocket_brings_reads_with_nothing_between() -> None:
    async with serving("zebra", "ws") as reader, receiving(reader.address, "zebra") as sink:
        await until_up(sink)
        reader.push([seen(1), seen(2), seen(2)])
        await sink.until(lambda: len(sink.all) == 3)
        assert sink.all["antenna"].tolist() == [10, 20, 20]
        await reader.stop()
        await sink.until_down()
        await reader.start()
        await until_up(sink)


# MQTT


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[NatsBroker]:
    async with NatsBroker(tmp_path / "broker") as running:
        yield running


async def test_a_topic_brings_reads_and_the_session_survives_the_broker(broker: NatsBroker) -> None:
    address = f"{broker.url}/shop/gate-1"
    async with receiving(address, "impinj") as sink:
        await sink.until(lambda: len(sink.statuses) == 2)
        assert "waiting for the reader to publish to shop/gate-1" in sink.statuses[1].reason
        reader = json_reader(now_us, "impinj", address)
        await reader.start()
        await read_by(sink, reader)
        await broker.stop()
        await sink.until_down()
        await broker.start()
        await read_by(sink, reader)
        await reader.stop()


async def test_retained_messages_are_no_reads(broker: NatsBroker) -> None:
    async with aiomqtt.Client("127.0.0.1", broker.port) as client:
        await client.publish("gate", message(epc="AABB"), qos=1, retain=True)
        async with receiving(f"{broker.url}/gate") as sink:
            await sink.until(lambda: len(sink.statuses) == 2)
            while not len(sink.all):
                await client.publish("gate", message(), qos=1)
                await asyncio.sleep(0.05)
    assert set(sink.all["epc_bits"].tolist()) == {96}


async def test_a_broker_that_keeps_messages_delivers_them_later(broker: NatsBroker) -> None:
    address = f"{broker.url}/gate"
    async with receiving(address, holds=True) as sink:
        await sink.until(lambda: len(sink.statuses) == 2)
    async with aiomqtt.Client("127.0.0.1", broker.port) as client:
        for number in range(1, 4):
            await client.publish("gate", message(number), qos=1)
    async with receiving(address, holds=True) as sink:
        await sink.until(lambda: len(sink.all) == 3)


async def test_no_broker_is_told() -> None:
    async with receiving(f"mqtt://127.0.0.1:{free_port()}/gate") as sink:
        assert "the broker 127.0.0.1" in await sink.until_down()


# Addresses


@pytest.mark.parametrize(
    "address",
    ["ftp://h/x", "http://", "mqtt://h", "mqtt://h:0/t", "listen://h", "listen://h:99999/x", "10.0.0.5", "http://h:0/"],
)
def test_impossible_addresses_are_refused(address: str) -> None:
    with pytest.raises(ValueError, match="reader a"):
        open_session(ReaderSettings("a", "json", address, {1: 1}, profile="zebra"), Recorder(), now_us)


def test_unknown_profiles_are_refused() -> None:
    with pytest.raises(ValueError, match="profile"):
        open_session(ReaderSettings("a", "json", "http://h/x", {1: 1}, profile="alien"), Recorder(), now_us)


async def test_what_was_counted_is_counted_once_while_it_waits_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "RETRY_S", (60.0, 60.0))

    class Once:
        waits = ""

        async def run(self, to: session.PushedSession) -> NoReturn:
            await to.messages([b'{"data": {"idHex": "E2C451A3A5011FA00F354693", "antenna": 1}}'])
            raise LinkFailure("gone")

    sink = Recorder()
    settings = ReaderSettings("gate-1", "json", "http://127.0.0.1", {1: 10})
    found = session.PushedSession(settings, FORMATS["zebra"], Once(), sink, now_us)
    task = asyncio.create_task(found.run())
    assert await sink.until_down() == "gone"
    assert (found.counters["messages"], found.counters["reads"]) == (1, 1)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
