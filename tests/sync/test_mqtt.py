"""The connection to the broker: what it refuses is noticed, and when it dies everybody knows at once."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from brokers import Listening, MakeStore, MosquittoBroker, Until, need_mosquitto

from config import topics
from simulators.headquarters.broker import NatsBroker
from sync import in_flight, mqtt
from sync.mqtt import BrokerError, MqttSettings, RefusedError, connect

CONNACK = bytes([0x20, 2, 0, 0])


def settings(url: str, client: Any = "test", **others: Any) -> Any:
    return MqttSettings.from_url(url, client, **others)


@pytest.mark.parametrize(
    ("url", "host", "port", "tls"),
    [
        ("mqtt://broker", "broker", 1883, False),
        ("mqtts://broker", "broker", 8883, True),
        ("mqtt://10.0.0.1:1", "10.0.0.1", 1, False),
        ("mqtts://[::1]:99", "::1", 99, True),
    ],
)
def test_a_url_gives_host_port_and_tls(url: str, host: str, port: int, tls: bool) -> None:
    parsed = settings(url)
    assert (parsed.host, parsed.port, parsed.tls) == (host, port, tls)


@pytest.mark.parametrize("url", ["broker:1883", "http://broker", "mqtt://", "mqtt://broker:0x1"])
def test_a_url_that_is_no_broker_s_is_an_error(url: str) -> None:
    with pytest.raises(ValueError):
        settings(url)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mqtt://127.0.0.1:1", "refused"),
        ("mqtt://no..host", "no..host"),
    ],
)
async def test_nobody_there(url: str, said: str) -> None:
    with pytest.raises(BrokerError, match=f"(?i){said}"):
        async with connect(settings(url)):
            pass


@contextlib.asynccontextmanager
async def fake_broker(answer: bytes = CONNACK) -> AsyncIterator[Any]:
    """A broker that greets and then says nothing; yields its URL and the writers of its connections."""
    writers, gone = [], asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.read(100)
        writer.write(answer)
        while await reader.read(4096):
            pass
        gone.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}", writers, gone


def publish(topic: str, payload: bytes, number: int | None = None, qos: int = 1) -> bytes:
    """A PUBLISH packet of MQTT 3.1.1."""
    name = topic.encode()
    body = len(name).to_bytes(2, "big") + name + (number.to_bytes(2, "big") if number is not None else b"") + payload
    length, rest = b"", len(body)
    while True:
        rest, digit = divmod(rest, 128)[0], rest % 128
        length += bytes([digit | (128 if rest else 0)])
        if not rest:
            return bytes([0x30 | (qos << 1 if number is not None else 0)]) + length + body


@contextlib.asynccontextmanager
async def talking_broker() -> AsyncIterator[Any]:
    """A broker that greets and sends what it is told; yields its URL, its writers, and what came back."""
    writers, came = [], bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(CONNACK)
        writers.append(writer)
        while data := await reader.read(4096):
            came.extend(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}", writers, came


@pytest.mark.parametrize("size", [300_000, 5_000_000])
async def test_a_message_that_is_too_large_is_read_past_and_acknowledged(
    size: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with talking_broker() as (url, writers, came), connect(settings(url)) as connection:
        held = 0
        receive = connection._client.paho._sock_recv

        def watched(bufsize: Any) -> Any:
            nonlocal held
            held = max(held, len(connection._client.paho._in_packet["packet"]))
            return receive(bufsize)

        monkeypatch.setattr(connection._client.paho, "_sock_recv", watched)
        writers[0].write(publish("a/command", b"x" * size, 7) + publish("a/command", b"y" * size))
        writers[0].write(publish("a/command", b"small", 8))
        (message,) = await connection.receive()
        assert (message.topic, message.payload) == ("a/command", b"small")
        assert connection.dropped == 2
        assert held < 10_000 + mqtt.BITE_BYTES
        async with asyncio.timeout(10):
            while bytes(came).count(b"\x40\x02") < 2:
                await asyncio.sleep(0.01)
        assert bytes.fromhex("40020007") in came, "else the broker would send it again at every connection"
    assert f"dropped a message of {size + 13} bytes on a/command" in caplog.text


async def test_the_largest_message_that_is_taken_is_taken_whole() -> None:
    async with talking_broker() as (url, writers, _), connect(settings(url)) as connection:
        payload = bytes(range(256)) * 1023
        writers[0].write(publish("t", payload, 1))
        (message,) = await connection.receive()
        assert message.payload == payload
        assert connection.dropped == 0


async def test_what_is_waiting_has_a_limit_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "MAX_INBOX_BYTES", 1_000_000)
    async with talking_broker() as (url, writers, came), connect(settings(url)) as connection:
        for number in range(1, 21):
            writers[0].write(publish("t", b"x" * 200_000, number))
        async with asyncio.timeout(20):
            while bytes(came).count(b"\x40\x02") < 20:
                await asyncio.sleep(0.01)
        assert [len(message.payload) for message in await connection.receive()] == [200_000] * 5
        assert connection.dropped == 15
        writers[0].write(publish("t", b"x", 21))
        assert len(await connection.receive()) == 1


async def test_messages_at_qos_2_for_which_nobody_asked_end_the_link() -> None:
    async with talking_broker() as (url, writers, _), connect(settings(url)) as connection:
        writers[0].write(publish("t", b"x" * 1000, 1, qos=2))
        with pytest.raises(BrokerError):
            await connection.receive()
        assert not connection._client.paho._in_messages


async def test_publishes_on_their_way_fail_as_soon_as_the_link_dies() -> None:
    async with fake_broker() as (url, writers, _):
        async with connect(settings(url)) as connection:
            waiting = [asyncio.create_task(connection.publish("t", b"x")) for _ in range(30)]
            receiving = asyncio.create_task(connection.receive())
            await asyncio.sleep(0)
            writers[0].transport.abort()
            async with asyncio.timeout(mqtt.TIMEOUT_S / 2):
                ends = await asyncio.gather(*waiting, receiving, return_exceptions=True)
                reason = await connection.closed
        assert all(isinstance(end, BrokerError) for end in ends)
        assert "lost" in reason


async def test_a_broker_that_answers_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "TIMEOUT_S", 0.2)
    async with fake_broker() as (url, _, _), connect(settings(url)) as connection:
        with pytest.raises(BrokerError, match="not answered"):
            await connection.publish("t", b"x")


async def test_a_broker_that_does_not_greet_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "TIMEOUT_S", 0.2)
    async with fake_broker(answer=b"") as (url, _, gone):
        with pytest.raises(BrokerError, match="no answer"):
            async with connect(settings(url)):
                pass
        await gone.wait()


async def test_cancelled_while_the_broker_does_not_greet_leaves_no_socket() -> None:
    async with fake_broker(answer=b"") as (url, writers, gone):

        async def greet() -> None:
            async with connect(settings(url)):
                pass

        task = asyncio.create_task(greet())
        while not writers:
            await asyncio.sleep(0.01)
        task.cancel()
        assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
        await gone.wait()


async def test_a_flood_is_bounded_and_counted(nats: NatsBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "MAX_INBOX", 10)
    async with connect(settings(nats.url, "in")) as receiver, connect(settings(nats.url, "out")) as sender:
        await receiver.subscribe(["t"])
        await asyncio.gather(*(sender.publish("t", b"x") for _ in range(50)))
        while receiver.dropped < 40:
            await asyncio.sleep(0.01)
        assert len(await receiver.receive()) == 10


async def test_the_last_will_is_published_when_nobody_said_goodbye(broker: NatsBroker | MosquittoBroker) -> None:
    async with connect(settings(broker.url, "watcher")) as watcher:
        await watcher.subscribe(["will"])
        async with connect(settings(broker.url, "mortal"), will=("will", b"gone")) as connection:
            connection._client.drop()
        assert [message.payload for message in await watcher.receive()] == [b"gone"]
    async with connect(settings(broker.url, "late")) as late:
        await late.subscribe(["will"])
        assert [(message.payload, message.retained) for message in await late.receive()] == [(b"gone", True)]


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Any]:
    """Mosquitto with a password file and access rules: user s1 may write everything but class health."""
    need_mosquitto()
    passwords, rules = tmp_path / "passwords", tmp_path / "rules"
    subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "s1", "secret"], check=True, capture_output=True)
    (tmp_path / "password").write_text("secret\n")
    stem = f"tagtrail/v1/{topics.shard('s1')}/s1"
    rules.write_text(
        f"user s1\ntopic write {stem}/up/member\ntopic write {stem}/state\ntopic read {stem}/down/#\n"
        "topic read tagtrail/v1/+/+/#\n"
    )
    options = f"allow_anonymous false\npassword_file {passwords}\nacl_file {rules}"
    for path in (passwords, rules):
        path.chmod(0o644)
    async with MosquittoBroker(tmp_path / "mosquitto", options) as running:
        yield running


async def test_a_wrong_password_is_said(guarded: MosquittoBroker, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("guess")
    with pytest.raises(BrokerError, match=r"(?i)not authori"):
        async with connect(settings(guarded.url, username="s1", password_file=tmp_path / "password")):
            pass
    with pytest.raises(BrokerError, match="credential"):
        async with connect(settings(guarded.url, username="s1", password_file=tmp_path / "none")):
            pass


async def test_a_refused_publish_is_an_error_and_the_link_lives_on(guarded: MosquittoBroker, tmp_path: Path) -> None:
    mine = settings(guarded.url, version="5", username="s1", password_file=tmp_path / "password")
    async with connect(mine) as connection:
        with pytest.raises(RefusedError, match=r"(?i)not authori"):
            await connection.publish(topics.topic("s1", "up/health"), b"{}")
        await connection.publish(topics.topic("s1", "up/member"), b"{}")


async def test_the_publisher_tells_of_a_refusal_and_delivers_when_it_is_lifted(
    guarded: MosquittoBroker,
    store: MakeStore,
    listening: Listening,
    until: Until,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(in_flight, "SILENCE_S", (0.2, 1.0))
    gateway = store(guarded.url, version="5", username="s1", password_file=tmp_path / "password")
    async with gateway.online() as running:
        await gateway.commit("health", 3)
        await until(lambda: running.counters["refused"] >= 2)
        assert running.status.connected
        assert "up/health" in running.status.reason
        assert await gateway.pending() == 3
        rules = tmp_path / "rules"
        rules.write_text("user s1\ntopic readwrite tagtrail/v1/#\n")
        guarded.signal(signal.SIGHUP)
        monkeypatch.setattr(
            "brokers.MqttSettings.from_url",
            lambda url, client: MqttSettings(
                "127.0.0.1", guarded.port, client, username="s1", password_file=tmp_path / "password"
            ),
        )
        async with listening(guarded.url, gateway) as crm:
            crm.acking = True
            await until(gateway.empty)
            assert set(crm.seqs("health")) == {1, 2, 3}
        assert running.status.reason == ""


async def test_the_access_rules_in_the_document_keep_stores_apart(tmp_path: Path) -> None:
    need_mosquitto()
    document = Path(__file__).parents[2] / "docs" / "contract" / "README.md"
    rules = [line for line in document.read_text().splitlines() if line.startswith("pattern ")]
    assert len(rules) == 4
    (tmp_path / "rules").write_text("\n".join(rules) + "\ntopic readwrite tagtrail/#\n")
    (tmp_path / "rules").chmod(0o644)
    options = f"allow_anonymous true\nacl_file {tmp_path}/rules"
    async with (
        MosquittoBroker(tmp_path / "mosquitto", options) as running,
        connect(settings(running.url, "store", version="5", username="s1")) as gateway,
        connect(settings(running.url, "crm")) as crm,  # anonymous: the last rule
    ):
        await crm.subscribe([topics.topic("+", "up/+"), topics.topic("+", "state")])
        await gateway.subscribe([topics.topic(store, "down/ack/+") for store in ("s1", "s2")])
        for rest in ("up/member", "up/health", "state"):
            await gateway.publish(topics.topic("s1", rest), b"{}")
            with pytest.raises(RefusedError):
                await gateway.publish(topics.topic("s2", rest), b"{}")
        with pytest.raises(RefusedError):
            await gateway.publish(topics.topic("s1", "down/ack/member"), b"{}")
        for store in ("s2", "s1"):
            await crm.publish(topics.topic(store, "down/ack/member"), b"{}")
        assert [message.topic for message in await gateway.receive()] == [topics.topic("s1", "down/ack/member")]


async def test_mqtt_5_delivers(
    mosquitto: MosquittoBroker, store: MakeStore, listening: Listening, until: Until
) -> None:
    gateway = store(mosquitto.url, version="5")
    async with listening(mosquitto.url, gateway) as crm:
        crm.acking = True
        async with gateway.online():
            await gateway.commit("member", 2)
            await gateway.commit("agg", 400)
            await until(gateway.empty)
        assert set(crm.seqs("agg")) == set(range(1, 401))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A CA, a server's certificate for 127.0.0.1 and a client's, by the openssl command."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Test CA", "-days", "2")
    for name, subject in (("server", "/CN=127.0.0.1"), ("client", "/CN=s1")):
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
        (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1\n")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-out", f"{name}.pem", "-days", "2", "-extfile", "extensions"),
        )
    return folder


async def test_tls_with_a_client_certificate(certificates: Path, tmp_path: Path) -> None:
    need_mosquitto()
    options = "\n".join(
        [
            f"cafile {certificates}/ca.pem",
            f"certfile {certificates}/server.pem",
            f"keyfile {certificates}/server.key",
            "require_certificate true",
            "use_identity_as_username true",
        ]
    )
    files = {"ca": certificates / "ca.pem", "cert": certificates / "client.pem", "key": certificates / "client.key"}
    async with MosquittoBroker(tmp_path / "mosquitto", options) as running:
        url = running.url.replace("mqtt:", "mqtts:")
        async with connect(settings(url, **files)) as connection:
            await connection.subscribe(["t"])
            await connection.publish("t", b"x" * 60_000)
            assert len((await connection.receive())[0].payload) == 60_000
        with pytest.raises(BrokerError, match=r"(?i)certificate verify failed"):
            async with connect(settings(url)):
                pass
        with pytest.raises(BrokerError, match=r"(?i)closed the connection"):
            async with connect(settings(url, ca=files["ca"])):
                pass
        with pytest.raises(BrokerError, match=r"(?i)match"):
            async with connect(settings(url.replace("127.0.0.1", "localhost"), **files)):
                pass
