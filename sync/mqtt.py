"""Connection to the broker, with refusals and losses reported. The only module that uses aiomqtt.

aiomqtt 2.5 drops the reason codes of PUBACK, so that a message refused by an access rule looks delivered, and keeps
publishes waiting on a dead connection until they time out: both are corrected here. It also acknowledges incoming
messages before they are processed; where none may be lost, acknowledgements of one's own are needed
(sync.contract.Ack).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import socket
import ssl
import struct
import termios
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeVar
from urllib.parse import urlsplit

import aiomqtt
from paho.mqtt.client import MQTT_ERR_SUCCESS, PUBACK, error_string
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

KEEPALIVE_S = 30
"""Brokers drop a client after 1.5 times as long without a whole packet; the largest takes 32 s at 16 kbit/s."""
TIMEOUT_S = 10.0
"""Timeout for an answer; for publishing, counted while no bytes move, since a slow line isn't dead."""
LOOK_S = 0.5
"""Interval at which progress is checked."""
IN_FLIGHT = 20
"""Maximum unacknowledged publishes: brokers were fastest there (5 to 100 is flat), and Mosquitto accepts no more."""
MAX_INBOX = 10_000
"""Maximum number of waiting incoming messages; more are dropped and counted …"""
MAX_INBOX_BYTES = 16 * 1024 * 1024
"""… as they are beyond this many bytes."""
MAX_DEFERRED_BYTES = 64 * 1024 * 1024
"""The same with `deferred`."""
MAX_PACKET_BYTES = 256 * 1024
"""A larger message is skipped and dropped: with MQTT 3.1.1 the broker can't be told not to send one."""
KEPT_BYTES = 4096
"""Kept bytes of a message that is too large: enough for its topic and packet id, which must be acknowledged."""
BITE_BYTES = 64 * 1024
PACKETS_AT_ONCE = 200
SESSION_EXPIRY_S = 14 * 86400
"""Time that the broker keeps a durable session (MQTT 5; a 3.1.1 broker decides by itself)."""

T = TypeVar("T")

log = logging.getLogger("tagtrail.mqtt")
_SILENT = logging.getLogger("sync.mqtt")
_SILENT.setLevel(logging.CRITICAL)  # whatever goes wrong is raised here, and told by who catches it


class BrokerError(Exception):
    """The broker could not be reached, refused, or was lost; the text is for store IT."""


class RefusedError(BrokerError):
    """The broker took the message and refused it; the connection lives on."""


@dataclass(frozen=True)
class MqttSettings:
    """Address of a broker, and our credentials. Files are reread at every connection, so that they can be replaced."""

    host: str
    port: int
    client_id: str
    tls: bool = False
    version: Literal["3.1.1", "5"] = "3.1.1"
    username: str | None = None
    password_file: Path | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    @classmethod
    def from_url(cls, url: str, client_id: str, **others: Any) -> Self:
        """Create settings from `mqtt://host[:1883]` or `mqtts://host[:8883]`; `others` are fields by name."""
        parts = urlsplit(url)
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
            raise ValueError(f"not a broker's address: {url!r}; write mqtt://host:port or mqtts://host:port")
        tls = parts.scheme == "mqtts"
        return cls(parts.hostname, parts.port or (8883 if tls else 1883), client_id, tls=tls, **others)


class Incoming(NamedTuple):
    """Message; `mid` is for MqttConnection.done."""

    topic: str
    payload: bytes
    retained: bool
    mid: int = 0


class MqttConnection:
    """Open connection, until `closed` is done; every call on a dead one raises BrokerError at once."""

    def __init__(self, client: _Client) -> None:
        self._client = client
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._handed = 0  # bytes, to the client
        self._gone = 0  # of them, no longer with us: on their way or arrived
        self._moved_s = 0.0
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Future with the reason, done as soon as the connection is lost."""

    @property
    def dropped(self) -> int:
        """Number of messages that were too large, or arrived faster than they were processed."""
        return self._client.dropped

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish at QoS 1; returns when the broker has the message, RefusedError if it refuses."""
        async with self._slots:
            self._check()
            if not self._client.unanswered:
                self._moved_s = time.monotonic()
            self._handed += len(payload)
            sent = self._client.paho.publish(topic, payload, 1, retain)
            if sent.rc != MQTT_ERR_SUCCESS:
                raise BrokerError(f"could not send: {error_string(sent.rc)}")
            answer: asyncio.Future[ReasonCode] = asyncio.get_running_loop().create_future()
            self._client.unanswered[sent.mid] = answer
            try:
                while not answer.done():
                    await asyncio.wait([answer], timeout=LOOK_S)
                    if not answer.done() and self._still_s() > TIMEOUT_S:
                        raise BrokerError(f"the broker has not answered for {TIMEOUT_S:g} s")
                reason = answer.result()
                self._moved_s = time.monotonic()
            finally:
                self._client.unanswered.pop(sent.mid, None)
        if reason.is_failure:
            raise RefusedError(f"the broker refused {topic}: {reason}")

    def post(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish at QoS 1 without waiting for the broker: for what may be lost with the connection."""
        self._check()
        self._client.paho.publish(topic, payload, 1, retain)

    @property
    def unanswered(self) -> int:
        """Number of publishes that the broker has not acknowledged, or that wait to be sent."""
        return len(self._client.paho._out_messages)

    def done(self, mids: Iterable[int]) -> None:
        """Acknowledge incoming messages to the broker, on a connection with `deferred`."""
        packets = b"".join(struct.pack("!BBH", PUBACK, 2, mid) for mid in mids if mid)
        if packets and not self.closed.done():
            # All at once: by paho's ack each would be a system call of its own.
            self._client.paho._packet_queue(PUBACK, packets, 0, 0)

    @property
    def until_s(self) -> float | None:
        """Until when the broker's certificate holds, seconds since 1970; None without TLS."""
        sock = self._client.paho.socket()
        cert = sock.getpeercert() if isinstance(sock, ssl.SSLSocket) else None
        return ssl.cert_time_to_seconds(str(cert["notAfter"])) if cert else None

    async def subscribe(self, topics: Sequence[str]) -> None:
        """Subscribe at QoS 1; RefusedError if the broker doesn't grant one of the topics."""
        self._check()
        try:
            granted = await self._client.subscribe([(topic, 1) for topic in topics], timeout=TIMEOUT_S)
        except aiomqtt.MqttError as error:
            raise BrokerError(f"could not subscribe: {error}") from None
        for topic, code in zip(topics, granted, strict=True):
            if isinstance(code, ReasonCode) and code.is_failure:
                raise RefusedError(f"the broker refused to subscribe us to {topic}: {code}")

    async def unsubscribe(self, topics: Sequence[str]) -> None:
        """Cancel subscriptions that a durable session may have."""
        self._check()
        try:
            await self._client.unsubscribe(list(topics), timeout=TIMEOUT_S)
        except aiomqtt.MqttError as error:
            raise BrokerError(f"could not unsubscribe: {error}") from None

    async def receive(self) -> list[Incoming]:
        """Return all messages received since the last call; waits for at least one."""
        while not self._client.inbox:
            self._check()
            self._client.arrived.clear()
            await self._client.arrived.wait()
        return self._client.taken()

    def _still_s(self) -> float:
        """Return how long nothing was answered and no bytes left for the broker."""
        gone = self._handed - self._client.unsent()
        if gone > self._gone:
            self._gone = gone
            self._moved_s = time.monotonic()
        return time.monotonic() - self._moved_s

    def _check(self) -> None:
        if self.closed.done():
            raise BrokerError(self.closed.result())

    def _lost(self, disconnected: asyncio.Future[None]) -> None:
        error = None if disconnected.cancelled() else disconnected.exception()
        reason = f"connection lost: {error}" if error else "connection closed"
        if not self.closed.done():
            self.closed.set_result(reason)
        for answer in self._client.unanswered.values():
            if not answer.done():
                answer.set_exception(BrokerError(reason))
        self._client.arrived.set()


@contextlib.asynccontextmanager
async def connect(
    settings: MqttSettings, *, will: tuple[str, bytes] | None = None, durable: bool = False, deferred: int = 0
) -> AsyncIterator[MqttConnection]:
    """Connect, with an optional retained last will; `durable` keeps subscriptions and queue while disconnected.

    `deferred`: incoming messages are acknowledged to the broker by MqttConnection.done, not on arrival, and with MQTT 5
    it sends no more than so many without that.
    """
    client = _client(settings, will, durable, deferred)
    try:
        try:
            await client.__aenter__()
        except (aiomqtt.MqttError, ValueError) as error:  # ValueError: a host name that cannot be one
            raise BrokerError(f"{settings.host}:{settings.port}: {error}") from None
        connection = MqttConnection(client)
        client.disconnected.add_done_callback(connection._lost)
        try:
            yield connection
        finally:
            with contextlib.suppress(aiomqtt.MqttError, TimeoutError):
                async with asyncio.timeout(1):
                    await client.__aexit__(None, None, None)
    finally:
        client.drop()


def _client(settings: MqttSettings, will: tuple[str, bytes] | None, durable: bool, deferred: int) -> _Client:
    v5 = settings.version == "5"
    properties = None
    if v5:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.MaximumPacketSize = MAX_PACKET_BYTES
        properties.SessionExpiryInterval = SESSION_EXPIRY_S if durable else 0
        if deferred:
            properties.ReceiveMaximum = deferred
    try:
        password = settings.password_file and settings.password_file.read_text().strip()
        context = _tls_context(settings) if settings.tls else None
    except (OSError, ValueError) as error:
        raise BrokerError(f"a credential of the broker cannot be read: {error}") from None
    client = _Client(
        settings.host,
        settings.port,
        identifier=settings.client_id,
        username=settings.username,
        password=password,
        tls_context=context,
        protocol=aiomqtt.ProtocolVersion.V5 if v5 else aiomqtt.ProtocolVersion.V311,
        will=aiomqtt.Will(will[0], will[1], qos=1, retain=True) if will else None,
        logger=_SILENT,
        timeout=TIMEOUT_S,
        keepalive=KEEPALIVE_S,
        properties=properties,
        max_inflight_messages=IN_FLIGHT,
        # Else a message waits up to 40 ms for the acknowledgement of the TCP segment before it.
        socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        **({"clean_start": not durable} if v5 else {"clean_session": not durable}),
    )
    if deferred:
        client.defer(deferred)
    return client


def _tls_context(settings: MqttSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.ca)
    if settings.cert:
        context.load_cert_chain(settings.cert, settings.key)
    return context


class _Client(aiomqtt.Client):
    """aiomqtt's client with reason codes, a bounded inbox, and cancellation that isn't swallowed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.paho = self._client
        self.paho.connect_timeout = TIMEOUT_S
        self._receive = self.paho._sock_recv
        self.paho._sock_recv = self._bite  # type: ignore[method-assign]
        self.unanswered: dict[int, asyncio.Future[ReasonCode]] = {}
        self.inbox: deque[Incoming] = deque()
        self.arrived = asyncio.Event()
        self.dropped = 0
        self._inbox_bytes = 0
        self._limits = MAX_INBOX, MAX_INBOX_BYTES
        self._deferred = False
        self._ahead = memoryview(b"")
        self._too_large = 0
        self._dropped_out = False

    @property
    def disconnected(self) -> asyncio.Future[None]:
        return self._disconnected

    def unsent(self) -> int:
        """Return the bytes not yet sent, or not yet acknowledged by the peer's TCP."""
        waiting = sum(int(packet["to_process"]) for packet in list(self.paho._out_packet))
        sock = self.paho.socket()
        if sock is not None:
            with contextlib.suppress(OSError, ValueError):
                (kept,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
                waiting += kept
        return waiting

    def defer(self, most: int) -> None:
        """Leave acknowledging to our user, and read many packets at a time: thousands come in a second."""
        self._deferred = True
        self._limits = most, MAX_DEFERRED_BYTES
        self.paho.manual_ack_set(True)
        self._receive_some, self._receive = self._receive, self._buffered
        self._read_one = self.paho.loop_read
        self.paho.loop_read = self._read_many  # type: ignore[method-assign]

    def _buffered(self, bufsize: int) -> bytes:
        if not self._ahead:
            self._ahead = memoryview(self._receive_some(BITE_BYTES))
        taken, self._ahead = self._ahead[:bufsize], self._ahead[bufsize:]
        return bytes(taken)

    def _read_many(self, max_packets: int = 1) -> MQTTErrorCode:
        code = self._read_one()
        for _ in range(PACKETS_AT_ONCE):
            if code != MQTT_ERR_SUCCESS or not self._ahead:
                return code
            code = self._read_one()
        self._loop.call_soon(self._read_on)  # the socket alone would not say that there is more
        return code

    def _read_on(self) -> None:
        try:
            self._read_many()
        except Exception as error:
            if not self._disconnected.done():
                self._disconnected.set_exception(error)

    def drop(self) -> None:
        """Close the socket in any state; otherwise a cancelled connect leaves it open."""
        self._dropped_out = True
        if self.paho.socket() is not None:
            self.paho._sock_close()

    def _client_connect(self) -> None:
        super()._client_connect()
        if self._dropped_out:  # nobody waits for this thread any more
            self._loop.call_soon_threadsafe(self.drop)

    async def _wait_for(self, fut: Awaitable[T], timeout: float | None) -> T:
        # Under Python 3.11 asyncio.wait_for, which this replaces, can swallow a cancellation.
        try:
            async with asyncio.timeout(TIMEOUT_S if timeout is None else timeout):
                return await fut
        except TimeoutError:
            raise aiomqtt.MqttError(f"no answer for {TIMEOUT_S:g} s") from None

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason_code: Any, properties: Any = None) -> None:
        if not self._connected.done():  # aiomqtt would wait for a greeting that cannot come
            self._connected.set_exception(aiomqtt.MqttError("the broker closed the connection before it greeted"))
            return
        super()._on_disconnect(client, userdata, flags, reason_code, properties)

    def _on_publish(
        self, client: Any, userdata: Any, mid: int, reason_code: ReasonCode, properties: Properties
    ) -> None:
        answer = self.unanswered.get(mid)
        if answer is not None and not answer.done():
            answer.set_result(reason_code)

    def taken(self) -> list[Incoming]:
        """Empty the inbox and return its messages."""
        taken = list(self.inbox)
        self.inbox.clear()
        self._inbox_bytes = 0
        return taken

    def _bite(self, bufsize: int) -> bytes:
        """Receive for paho, which buffers whole packets, however large: of too large ones only the beginning is
        kept."""
        packet = self.paho._in_packet
        bite = self._receive(min(bufsize, BITE_BYTES))
        length = packet["remaining_length"] if packet["have_remaining"] else 0
        if packet["command"] & 0xF4 == 0x34:  # at QoS 2, for which nobody asked, paho would keep messages for ever
            raise ConnectionError("the broker sent a message at QoS 2")
        if length <= MAX_PACKET_BYTES or not bite:
            return bite
        self._too_large = length
        kept = bite[: max(1, KEPT_BYTES - len(packet["packet"]))]  # none at all would be the end of the connection
        packet["to_process"] -= len(bite) - len(kept)
        return kept

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        too_large, self._too_large = self._too_large, 0
        if too_large:
            log.warning("dropped a message of %d bytes on %s: too large", too_large, message.topic[:200])
        messages, size = self._limits
        if too_large or len(self.inbox) >= messages or self._inbox_bytes + len(message.payload) > size:
            self.dropped += 1
            if self._deferred:
                self.paho.ack(message.mid, message.qos)
            return
        self._inbox_bytes += len(message.payload)
        mid = message.mid if message.qos else 0
        self.inbox.append(Incoming(message.topic, message.payload, message.retain, mid))
        self.arrived.set()
