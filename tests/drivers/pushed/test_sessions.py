"""Sessions over all transports, with simulated readers and with others that misbehave."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path
from ssl import PEM_cert_to_DER_cert
from typing import Any, NoReturn

import aiohttp
import aiomqtt
import pytest
from aiohttp import web
from certificates import Authority
from llrp_peers import Recorder, free_port
from pushed_peers import EPC, now_us, password, receiving, seen

from drivers import open_session
from drivers import tls as reader_tls
from drivers.links import LinkFailure
from drivers.pushed import posts, session, streams
from drivers.pushed.formats import FORMATS
from drivers.read import ANTENNA_UNKNOWN, epc_bytes
from drivers.session import Link, Push, ReaderSettings, Tls
from simulators.headquarters.broker import NatsBroker
from simulators.readers.pushed import ServingReader, json_reader


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "RETRY_S", (0.05, 0.2))
    monkeypatch.setattr(session, "TICK_S", 0.02)
    monkeypatch.setattr(streams, "LOOK_S", 0.05)


@asynccontextmanager
async def serving(profile: str = "impinj", scheme: str = "http") -> AsyncIterator[ServingReader]:
    reader = ServingReader(now_us, profile, scheme, 0)
    await reader.start()
    try:
        yield reader
    finally:
        await reader.stop()


async def until_up(sink: Recorder) -> None:
    await sink.until(lambda: sink.links[-1:] == [Link.UP])


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


# POST


def message(number: int = 1, epc: str = EPC.hex(), **more: Any) -> bytes:
    stamp = more.pop("timestamp", now_us())
    return json.dumps({"data": {"eventNum": number, "idHex": epc, "antenna": 1} | more, "timestamp": stamp}).encode()


def door(port: int, path: str = "/gate-1") -> str:
    return f"listen://127.0.0.1:{port}{path}"


async def post(port: int, body: bytes, path: str = "/gate-1", **more: Any) -> int:
    async with aiohttp.ClientSession() as http:
        try:
            async with http.post(f"http://127.0.0.1:{port}{path}", data=body, **more) as answer:
                return answer.status
        except aiohttp.ClientError:
            return 0


def basic(user: str, word: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{word}".encode()).decode()}


@pytest.mark.parametrize("profile", ["impinj", "zebra", "keonn", "speedway"])
async def test_readers_post(profile: str) -> None:
    port = free_port()
    async with receiving(door(port), profile) as sink:
        reader = json_reader(now_us, profile, door(port))
        await reader.start()
        reader.push([seen(2), seen(1)])
        await sink.until(lambda: len(sink.all) == 2)
        await reader.stop()
    assert [status.link for status in sink.statuses[:2]] == [Link.CONNECTING, Link.CONNECTING]
    assert f"waiting for the reader to send to port {port}, path /gate-1" in sink.statuses[1].reason
    assert sink.all["antenna"].tolist() == [20, 10]
    assert sink.all["rssi_cdbm"].tolist() == [-5700, -5700]


async def test_readers_share_a_port_and_are_known_by_their_path() -> None:
    port = free_port()
    async with receiving(door(port, "/a"), id_="a") as first, receiving(door(port, "/b"), id_="b") as second:
        await first.until(lambda: len(first.statuses) == 2)
        await second.until(lambda: len(second.statuses) == 2)
        assert await post(port, message(), "/b") == 200
        assert await post(port, message(), "/c") == 404
        assert len(second.all) == 1
        assert not len(first.all)
        assert any("no reader in the store file has the path /c" in text for text in first.notices)
    assert await post(port, message(), "/a") == 0, "the port is closed"


async def test_requests_leave_the_journal_alone(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    with caplog.at_level(logging.INFO):
        async with receiving(door(port)) as sink:
            await sink.until(lambda: len(sink.statuses) == 2)
            assert await post(port, message()) == 200
            assert await post(port, message(), "/c") == 404
            for nonsense in (
                b"\x00" * 100,
                b"GET / HTTP/9.9\r\n\r\n",
                b"POST /gate-1 HTTP/1.1\r\nA" + b"a" * 20_000 + b"\r\n\r\n",
            ):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(nonsense)
                assert b" 400 " in await reader.read()
                writer.close()
    assert not [record for record in caplog.records if "pushed" in record.name or "aiohttp" in record.name]


async def test_credentials_and_source(tmp_path: Path) -> None:
    port, file = free_port(), password(tmp_path)
    async with receiving(door(port), username="gate", password_file=file) as sink:
        await sink.until(lambda: len(sink.statuses) == 2)
        assert await post(port, message()) == 401
        assert await post(port, message(), headers=basic("gate", "guess")) == 401
        assert await post(port, message(), headers=basic("other", "secret")) == 401
        assert not len(sink.all)
        assert await post(port, message(), headers=basic("gate", "secret")) == 200
        assert any("username, password or token are wrong" in text for text in sink.notices)
    async with receiving(door(port), password_file=file) as sink:
        await sink.until(lambda: len(sink.statuses) == 2)
        assert await post(port, message(), headers={"Authorization": "Bearer guess"}) == 401
        assert await post(port, message(), headers={"Authorization": "Bearer secret"}) == 200
        assert await post(port, message(), headers=basic("any", "secret")) == 200
    async with receiving(door(port), source="127.0.0.2") as sink:
        await sink.until(lambda: len(sink.statuses) == 2)
        assert await post(port, message()) == 403


async def test_a_client_certificate_is_asked_for(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, client = authority.issue("gateway"), authority.issue("reader")
    port = free_port()
    tls = Tls(ca=authority.folder / "ca.pem", cert=cert, key=cert.with_suffix(".key"))
    async with receiving(door(port), tls=tls) as sink:
        await sink.until(lambda: len(sink.statuses) == 2)
        for own, expected in ((None, 0), (client, 200)):
            context = reader_tls.context(
                Tls(ca=authority.folder / "ca.pem", cert=own, key=own.with_suffix(".key") if own else None)
            )
            async with aiohttp.ClientSession() as http:
                try:
                    async with http.post(f"https://localhost:{port}/gate-1", data=message(), ssl=context) as answer:
                        assert answer.status == expected
                except aiohttp.ClientError:
                    assert expected == 0


async def test_bodies_are_limited_in_size_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posts, "BODY_S", 0.3)
    port = free_port()

    async def slow() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"{"
            await asyncio.sleep(0.1)

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield b" " * 65536

    async with receiving(door(port)) as sink:
        await sink.until(lambda: len(sink.statuses) == 2)
        assert await post(port, b"x" * (posts.BODY_BYTES_MAX + 1)) in (413, 0)
        assert await post(port, endless()) in (413, 0)  # type: ignore[arg-type]
        assert await post(port, slow()) in (408, 0)  # type: ignore[arg-type]
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/gate-1") as answer:
            assert answer.status == 405
        silent, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await asyncio.wait_for(silent.read(), 10) == b"", "a connection without a request is ended"
        writer.close()
        assert await post(port, b"{" * 1000 + b"}") == 200
        assert await post(port, message()) == 200
        assert len(sink.all) == 1


async def test_a_compressed_bomb_is_refused() -> None:
    port = free_port()
    bomb = zlib.compress(b" " * (64 << 20))
    async with receiving(door(port)) as sink:
        await sink.until(lambda: len(sink.statuses) == 2)
        assert await post(port, bomb, headers={"Content-Encoding": "deflate"}) in (413, 400, 0)
        assert await post(port, message()) == 200


async def test_a_full_pipeline_slows_a_reader_down() -> None:
    class Full(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.room = asyncio.Event()

        async def reads(self, reader: str, batch: Any) -> None:
            await self.room.wait()
            await super().reads(reader, batch)

    port, sink = free_port(), Full()
    settings = ReaderSettings("g", "json", door(port), {1: 10}, profile="zebra", push=Push())
    task = asyncio.create_task(open_session(settings, sink, now_us).run())
    await sink.until(lambda: len(sink.statuses) == 2)
    waiting = [asyncio.create_task(post(port, message(i))) for i in range(1, posts.AT_ONCE_MAX + 1)]
    while await asyncio.wait_for(post(port, message()), 5) != 503:
        await asyncio.sleep(0.02)
    sink.room.set()
    assert set(await asyncio.gather(*waiting)) == {200}
    task.cancel()
    await asyncio.wait([task])


async def test_another_readers_messages_are_not_used() -> None:
    port = free_port()
    async with receiving(door(port), identity="001625142FF4") as sink:
        await sink.until(lambda: len(sink.statuses) == 2)
        assert await post(port, message(MAC="C4:7D:CC:FF:FF:FF")) == 409
        assert "is C47DCCFFFFFF, not 001625142FF4" in await sink.until_down()
        assert not len(sink.all)
        while await post(port, message(MAC="00:16:25:14:2F:F4")) != 200:
            await asyncio.sleep(0.02)
        await sink.until(lambda: len(sink.all) == 1)


async def test_a_port_in_use_is_told() -> None:
    port = free_port()
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", port)
    async with server, receiving(door(port)) as sink:
        assert "the gateway can't listen on" in await sink.until_down()


async def test_a_read_without_an_antenna_needs_a_single_port() -> None:
    port = free_port()
    body = json.dumps({"data": {"idHex": EPC.hex()}}).encode()
    async with receiving(door(port)) as sink:
        await sink.until(lambda: len(sink.statuses) == 2)
        assert await post(port, body) == 409
        assert "does not say which antenna" in await sink.until_down()
    async with receiving(door(port), ports={3: 7}) as sink:
        await sink.until(lambda: len(sink.statuses) == 2)
        assert await post(port, body) == 200
        assert sink.all["antenna"].tolist() == [7]
    assert ANTENNA_UNKNOWN not in sink.all["antenna"]


async def test_missing_numbers_are_a_gap() -> None:
    port = free_port()
    async with receiving(door(port)) as sink:
        await sink.until(lambda: len(sink.statuses) == 2)
        for number in (1, 2, 5, 6, 1, 2):
            assert await post(port, message(number)) == 200
    times = sink.all["time_us"].tolist()
    assert [(gap.from_us, gap.to_us) for gap in sink.gaps] == [(times[1], times[2])]
    assert "2 messages are missing" in sink.gaps[0].reason


async def test_a_wrong_clock_is_corrected_and_told() -> None:
    port, ahead_us = free_port(), 3_600_000_000
    async with receiving(door(port)) as sink:
        await sink.until(lambda: len(sink.statuses) == 2)
        for _ in range(3):
            assert await post(port, message(timestamp=now_us() + ahead_us)) == 200
        assert abs(sink.all["time_us"] - now_us()).max() < 10_000_000
        await sink.until(lambda: sink.statuses[-1].clock_offset_us is not None)
        assert abs((sink.statuses[-1].clock_offset_us or 0) - ahead_us) < 10_000_000


async def test_what_was_held_keeps_its_times() -> None:
    port, old_us = free_port(), now_us() - 300_000_000
    async with receiving(door(port), holds=True) as sink:
        await sink.until(lambda: len(sink.statuses) == 2)
        assert sink.statuses[1].keeps
        assert await post(port, b"".join(message(i, timestamp=old_us + i) for i in range(1, 5))) == 200
        assert sink.statuses[2].reads_from_us == 0
        await sink.until(lambda: sink.links[-1] is Link.UP and sink.statuses[-1].reads_from_us is None)
        assert await post(port, message(5)) == 200
    assert sink.all["time_us"][:4].tolist() == [old_us + i for i in range(1, 5)]


@pytest.mark.parametrize(
    ("profile", "sign"),
    [("zebra", b'{"data":{"cpu":3},"type":"heartbeat"}'), ("impinj", b"[]")],
    ids=["a heartbeat", "the empty batch of an R700's webhook"],
)
async def test_silence_after_heartbeats_is_down_and_a_message_ends_it(
    profile: str, sign: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "GRACE_S", 0.3)
    port = free_port()
    async with receiving(door(port), profile, heartbeat_s=0.01) as sink:
        await sink.until(lambda: len(sink.statuses) == 2)
        assert await post(port, sign) == 200
        await until_up(sink)
        assert "nothing heard from the reader" in await sink.until_down()
        assert await post(port, message()) == 200
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
