"""Sessions with readers that post, simulated and others that misbehave."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pushed_peers
import pytest
from certificates import Authority
from llrp_peers import Recorder, free_port
from pushed_peers import EPC, message, now_us, password, receiving, seen, until_up

from drivers import open_session
from drivers import tls as reader_tls
from drivers.pushed import posts, session
from drivers.read import ANTENNA_UNKNOWN
from drivers.session import Link, Push, ReaderSettings, Tls
from simulators.readers.pushed import json_reader

quick = pushed_peers.quick


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
