"""What is said of readers and brokers with which no secure connection comes about."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest
from certificates import Authority
from llrp_peers import free_port
from pushed_peers import receiving

from drivers import tls as reader_tls
from drivers.links import HUNG_UP
from drivers.pushed import streams, topics
from drivers.session import Tls
from edge.words.languages import reason

PATHS = {"https": "", "wss": "/events", "mqtts": "/gate-1"}


class Ours(NamedTuple):
    """An authority with the certificates of a reader, and another authority."""

    authority: Authority
    other: Authority
    reader: Path


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Ours:
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority(folder / "ours")
    return Ours(authority, Authority(folder / "other"), authority.issue("reader"))


def context(ours: Ours, *, wants: bool = False, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """The reader's end; `wants`: a certificate of the other authority."""
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.load_cert_chain(ours.reader, ours.reader.with_suffix(".key"))
    made.maximum_version = newest
    if wants:
        made.load_verify_locations(ours.other.folder / "ca.pem")
        made.verify_mode = ssl.CERT_REQUIRED
    return made


@asynccontextmanager
async def listening(secure: ssl.SSLContext | None, says: bytes = b"") -> AsyncIterator[int]:
    """A port that says something to the first bytes, and nothing more."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(100) and says:
            writer.write(says)
        elif not says:
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=secure)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def said(scheme: str, port: int, tls: Tls | None) -> str:
    address = f"{scheme}://localhost:{port}{PATHS.get(scheme) or PATHS.get(scheme + 's', '')}"
    async with receiving(address, "impinj" if scheme.startswith("http") else "zebra", tls=tls) as sink:
        text = await sink.until_down()
    assert f"localhost:{port}" in text
    chinese = reason(text, "zh")
    assert chinese != text
    assert not any(word in chinese for word in ("the ", "does ", "hung"))
    return text


Peer = Callable[[Ours], tuple[ssl.SSLContext | None, bytes, Tls]]


def trusting(ours: Ours) -> Tls:
    return Tls(ca=ours.authority.folder / "ca.pem")


PEERS: dict[str, tuple[Peer, str]] = {
    "of another CA": (
        lambda ours: (context(ours), b"", Tls(ca=ours.other.folder / "ca.pem")),
        "is not accepted: unable to get local issuer certificate",
    ),
    "plain": (
        lambda ours: (None, b"HTTP/1.1 400 Bad Request\r\n\r\n", trusting(ours)),
        "agree on no secure connection (wrong version number): does this port speak TLS?",
    ),
    "wants a certificate": (
        lambda ours: (context(ours, wants=True), b"", trusting(ours)),
        "does it want a certificate of the gateway, or another one?",
    ),
    "wants a certificate, TLS 1.2": (
        lambda ours: (context(ours, wants=True, newest=ssl.TLSVersion.TLSv1_2), b"", trusting(ours)),
        "agree on no secure connection (",
    ),
}


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("scheme", PATHS)
async def test_no_secure_connection_comes_about(ours: Ours, scheme: str, peer: str) -> None:
    make, words = PEERS[peer]
    secure, says, tls = make(ours)
    async with listening(secure, says) as port:
        assert words in await said(scheme, port, tls)


@pytest.mark.parametrize("scheme", ["https", "wss"])
async def test_another_certificate_than_the_pinned_one(ours: Ours, scheme: str) -> None:
    async with listening(context(ours)) as port:
        assert "not the pinned one: was the reader replaced or reset" in await said(scheme, port, Tls(pin="00" * 32))


@pytest.mark.parametrize("scheme", PATHS)
async def test_another_name_than_that_of_the_certificate(ours: Ours, scheme: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    elsewhere = Ours(authority, authority, authority.issue("elsewhere", names="DNS:elsewhere"))
    async with listening(context(elsewhere)) as port:
        assert "is not accepted: Hostname mismatch" in await said(scheme, port, trusting(elsewhere))


@pytest.mark.parametrize("scheme", ["http", "ws", "mqtt"])
async def test_a_port_that_wants_tls(ours: Ours, scheme: str) -> None:
    async with listening(context(ours)) as port:
        assert "hung up without an answer: does this port want TLS" in await said(scheme, port, None)


@pytest.mark.parametrize("scheme", ["https", "mqtts"])
async def test_a_port_that_says_nothing(ours: Ours, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (streams, topics):
        monkeypatch.setattr(module, "CONNECT_S", 0.3)
    async with listening(None) as port:
        assert "no answer from" in await said(scheme, port, trusting(ours))


async def _http(port: int) -> None:
    async with aiohttp.ClientSession() as http, http.post(f"http://localhost:{port}/gate-1", data=b"{}"):
        pass


def _https(tls: Tls) -> Callable[[int], Awaitable[None]]:
    async def call(port: int) -> None:
        secure = reader_tls.context(tls)
        url = f"https://localhost:{port}/gate-1"
        async with aiohttp.ClientSession() as http, http.post(url, data=b"{}", ssl=secure):
            pass

    return call


async def _hang_up(port: int) -> None:
    _, writer = await asyncio.open_connection("localhost", port)
    writer.write(b"\x16\x03\x01")
    await writer.drain()
    writer.close()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda ours: _http, "no secure connection, http request"),
        (lambda ours: _https(Tls(ca=ours.other.folder / "ca.pem")), "no secure connection, "),
        (lambda ours: _https(trusting(ours)), "no secure connection, peer did not return a certificate"),
        (lambda ours: _hang_up, f"no secure connection, {HUNG_UP}"),
    ],
    ids=["plain", "of another CA", "without a certificate", "hangs up"],
)
async def test_a_caller_that_comes_to_no_secure_connection_is_told(
    ours: Ours, call: Callable[[Ours], Callable[[int], Awaitable[None]]], words: str
) -> None:
    port = free_port()
    tls = Tls(ca=ours.authority.folder / "ca.pem", cert=ours.reader, key=ours.reader.with_suffix(".key"))
    async with receiving(f"listen://127.0.0.1:{port}/gate-1", tls=tls) as sink:
        await sink.until(lambda: len(sink.statuses) == 2)
        with suppress(aiohttp.ClientError, OSError):
            await call(ours)(port)
        await sink.until(lambda: bool(sink.notices))
        assert "requests that belong to no reader in the store file: 127.0.0.1: " in sink.notices[0]
        assert words in sink.notices[0]
        assert "未能建立安全连接" in reason(sink.notices[0], "zh")


async def test_a_caller_that_speaks_tls_at_a_plain_port_is_told(ours: Ours) -> None:
    port = free_port()
    async with receiving(f"listen://127.0.0.1:{port}/gate-1") as sink:
        await sink.until(lambda: len(sink.statuses) == 2)
        with pytest.raises(aiohttp.ClientError):
            await _https(trusting(ours))(port)
        await sink.until(lambda: bool(sink.notices))
        assert "127.0.0.1 speaks TLS, and the store file has no tls there" in sink.notices[0]
        await _http(port)
