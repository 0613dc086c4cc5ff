"""TLS to readers, with certificates made here by openssl."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import warnings
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from llrp_peers import QUICK, Obedient, free_port, now_us, peer, session

from drivers.llrp.wire import Address
from drivers.session import Link, Tls
from simulators.readers.llrp import LlrpReader
from simulators.readers.observation import Observation

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command to make certificates with")


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)


class Certificates:
    """A CA, a reader's certificate for localhost from it, a gateway's, and a reader's self-signed one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._make("ca", "-x509", "-subj", "/CN=Shop CA", "-addext", "basicConstraints=critical,CA:TRUE")
        self._make("self", "-x509", "-subj", "/CN=reader")
        for name in ("reader", "gateway"):
            self._make(name, "-subj", f"/CN={name}")
            extensions = folder / "san.ext"
            extensions.write_text("subjectAltName=DNS:localhost\n")
            openssl(
                "x509", "-req", "-in", self[name], "-CA", self["ca"], "-CAkey", self.key("ca"), "-CAcreateserial",
                "-days", "2", "-extfile", extensions, "-out", folder / "signed.pem",
            )  # fmt: skip
            (folder / "signed.pem").rename(self[name])

    def __getitem__(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def pin(self, name: str) -> str:
        return sha256(ssl.PEM_cert_to_DER_cert(self[name].read_text())).hexdigest().upper()

    def reader(self, name: str, client: str | None = None) -> ssl.SSLContext:
        """The reader's end; `client`: it wants a certificate of that CA."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self[name], self.key(name))
        if client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self[client])
        return context

    def _make(self, name: str, *more: str) -> None:
        key = ("-newkey", "rsa:2048", "-nodes", "-keyout", self.key(name))
        openssl("req", *key, "-out", self[name], *more)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return Certificates(tmp_path_factory.mktemp("certificates"))


async def listening(tls: ssl.SSLContext) -> tuple[LlrpReader, int]:
    reader = LlrpReader(now_us, tls=tls)
    return reader, int((await reader.start()).rpartition(":")[2])


@pytest.mark.parametrize("how", ["pin", "ca", "client"])
async def test_reads_come_over_tls(certificates: Certificates, how: str) -> None:
    tls, host = {
        "pin": (Tls(pin=certificates.pin("self")), "127.0.0.1"),
        "ca": (Tls(ca=certificates["ca"]), "localhost"),
        "client": (
            Tls(ca=certificates["ca"], cert=certificates["gateway"], key=certificates.key("gateway")),
            "localhost",
        ),
    }[how]
    name = "self" if how == "pin" else "reader"
    reader, port = await listening(certificates.reader(name, client="ca" if how == "client" else None))
    try:
        async with session(port, host=host, tls=tls) as sink:
            await sink.until(lambda: Link.UP in sink.links)
            times = [now_us() + i for i in range(20_000)]
            reader.push([Observation(at_us, 1, bytes(12), -5000) for at_us in times])
            await sink.until(lambda: len(sink.all) == len(times))
            assert sink.all["time_us"].tolist() == times
            assert sink.links == [Link.CONNECTING, Link.UP]
    finally:
        await reader.stop()


async def test_a_reader_with_nothing_newer_than_rsa_key_exchange(certificates: Certificates) -> None:
    old = certificates.reader("self")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.set_ciphers("AES128-SHA:@SECLEVEL=0")
    reader, port = await listening(old)
    try:
        async with session(port, tls=Tls(pin=certificates.pin("self"))) as sink:
            await sink.until(lambda: Link.UP in sink.links)
    finally:
        await reader.stop()


async def test_another_certificate_than_the_pinned_one_gets_nothing(certificates: Certificates) -> None:
    reader = Obedient()
    async with (
        peer(reader, ssl=certificates.reader("self")) as (port, _),
        session(port, tls=Tls(pin=certificates.pin("reader"))) as sink,
    ):
        reason = await sink.until_down()
    assert certificates.pin("self") in reason
    assert "not the pinned one" in reason
    assert reader.asked == []


@pytest.mark.parametrize(
    ("name", "host", "words"),
    [("self", "localhost", "self-signed"), ("reader", "127.0.0.1", "IP address mismatch")],
)
async def test_a_certificate_that_the_ca_does_not_vouch_for(
    certificates: Certificates, name: str, host: str, words: str
) -> None:
    async with (
        peer(Obedient(), ssl=certificates.reader(name)) as (port, _),
        session(port, host=host, tls=Tls(ca=certificates["ca"])) as sink,
    ):
        assert words in await sink.until_down()


async def test_a_reader_that_wants_a_certificate_and_gets_none(certificates: Certificates) -> None:
    async with (
        peer(Obedient(), ssl=certificates.reader("self", client="ca")) as (port, _),
        session(port, tls=Tls(pin=certificates.pin("self"))) as sink,
    ):
        assert "does it want a certificate of the gateway" in await sink.until_down()
        assert Link.UP not in sink.links


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def hangs_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def speaks_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(10)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await reader.read()


@pytest.mark.parametrize(
    "behaviour", [Obedient(), silent, hangs_up, speaks_http], ids=["LLRP", "silent", "cut", "HTTP"]
)
async def test_a_port_that_speaks_no_tls_is_named(behaviour: Any) -> None:
    quick = replace(QUICK, connect_s=0.5)
    async with peer(behaviour) as (port, _), session(port, quick, tls=Tls(pin="00")) as sink:
        assert "does this port speak TLS?" in await sink.until_down()


async def test_a_reader_with_nothing_newer_than_tls_1_1_is_named(certificates: Certificates) -> None:
    old = certificates.reader("self")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    async with peer(Obedient(), ssl=old) as (port, _), session(port, tls=Tls(pin="00")) as sink:
        assert "agree on no secure connection" in await sink.until_down()


async def test_a_port_that_wants_tls_is_hinted_at(certificates: Certificates) -> None:
    quick = replace(QUICK, greeting_s=0.5)
    async with peer(Obedient(), ssl=certificates.reader("self")) as (port, _), session(port, quick) as sink:
        assert "does it want TLS?" in await sink.until_down()


async def test_files_that_are_of_no_use_are_named(certificates: Certificates, tmp_path: Path) -> None:
    for tls in (Tls(ca=tmp_path / "none.pem"), Tls(pin="00", cert=certificates["self"], key=certificates.key("ca"))):
        async with session(1, tls=tls) as sink:
            assert "can't be used" in await sink.until_down()


def test_the_port_of_tls_is_5085() -> None:
    assert Address.parse("gate", 5085) == Address("gate", 5085)
    assert Address.parse("fd00::1", 5085).port == 5085
    assert Address.parse("gate:7000", 5085).port == 7000


def listening_session(port: int, reader: LlrpReader, certificates: Certificates, **more: Any) -> Any:
    """A session that waits for a reader to connect by TLS, with the gateway's certificate."""
    tls = Tls(cert=certificates["gateway"], key=certificates.key("gateway"), **more)
    return session(port, host="listen://127.0.0.1", identity=reader.identity.hex(), tls=tls)


async def dial(reader: LlrpReader, port: int, tls: ssl.SSLContext | None) -> None:
    """Connect again and again, as readers do that are told to."""
    while True:
        with suppress(OSError):
            await reader.dial("localhost", port, tls)
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("own", [None, "self"], ids=["without certificate", "with its own"])
async def test_a_reader_connects_by_tls(certificates: Certificates, own: Any) -> None:
    port, reader = free_port(), LlrpReader(now_us)
    context = ssl.create_default_context(cafile=certificates["ca"])
    if own:
        context.load_cert_chain(certificates[own], certificates.key(own))
    async with listening_session(port, reader, certificates, ca=certificates[own] if own else None) as sink:
        dialling = asyncio.create_task(dial(reader, port, context))
        try:
            await sink.until(lambda: Link.UP in sink.links)
            reader.push([Observation(now_us(), 1, bytes(12), -5000)])
            await sink.until(lambda: len(sink.all) == 1)
        finally:
            dialling.cancel()
            await asyncio.wait([dialling])


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ("none", "peer did not return a certificate"),
        ("other", "the certificate of that caller is not accepted: self-signed certificate in certificate chain"),
        ("plain", "wrong version number"),
    ],
)
async def test_a_caller_without_the_right_certificate_is_no_reader_and_is_told(
    certificates: Certificates, own: Any, words: str
) -> None:
    port, right, wrong = free_port(), LlrpReader(now_us), LlrpReader(now_us)
    contexts = []
    for name in ("self", "reader" if own == "other" else None):
        context = ssl.create_default_context(cafile=certificates["ca"])
        if name:
            context.load_cert_chain(certificates[name], certificates.key(name))
        contexts.append(context)
    async with listening_session(port, right, certificates, ca=certificates["self"]) as sink:
        tasks = [asyncio.create_task(dial(wrong, port, None if own == "plain" else contexts[1]))]
        try:
            await sink.until(lambda: any("127.0.0.1 has connected" in s.reason for s in sink.statuses))
            assert words in sink.statuses[-1].reason
            assert set(sink.links) == {Link.CONNECTING}
            tasks.append(asyncio.create_task(dial(right, port, contexts[0])))
            await sink.until(lambda: Link.UP in sink.links)
            assert right.inventorying
            assert not wrong.inventorying
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def test_listening_with_files_that_are_of_no_use_is_told(certificates: Certificates, tmp_path: Path) -> None:
    tls = Tls(cert=tmp_path / "none.pem", key=tmp_path / "none.key")
    async with session(free_port(), host="listen://127.0.0.1", identity="AA", tls=tls) as sink:
        assert "can't be used: No such file" in await sink.until_down()
