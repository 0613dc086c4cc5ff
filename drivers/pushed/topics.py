"""Reads that a reader publishes to an MQTT broker."""

from __future__ import annotations

import asyncio
import ssl
import uuid
from collections.abc import Awaitable
from typing import Any, NoReturn, TypeVar

import aiomqtt

from drivers import tls as reader_tls
from drivers.links import HUNG_UP, LinkFailure, insecure, words
from drivers.pushed.session import GATHER_S, PushedSession, secret
from drivers.session import Push, ReaderSettings, Tls

CONNECT_S = 5.0
KEEPALIVE_S = 30
QUEUE_BYTES = 1 << 23
"""Messages that wait for the pipeline; more are dropped, and reported as a gap."""
BATCH = 1000

T = TypeVar("T")


class Topic:
    """Subscription to one reader's topic: mqtt://host:port/topic, with wildcards."""

    def __init__(self, settings: ReaderSettings) -> None:
        """Raises ValueError for an invalid address."""
        scheme, _, rest = settings.address.partition("://")
        broker, _, self._topic = rest.partition("/")
        host, colon, port = broker.rpartition(":")
        if not colon or "]" in port:
            host, port = broker, "8883" if scheme == "mqtts" else "1883"
        self._host = host.strip("[]")
        if not self._host or not self._topic or not port.isdecimal() or not 1 <= int(port) <= 65535:
            raise ValueError(f"reader {settings.id}: {settings.address!r} has no host, port or topic")
        self._port, self._id = int(port), settings.id
        self._push, self._tls = settings.push or Push(), (settings.tls or Tls()) if scheme == "mqtts" else None
        self._broker = f"{self._host}:{self._port}"
        self.waits = f"waiting for the reader to publish to {self._topic} at {self._broker}"

    async def run(self, session: PushedSession) -> NoReturn:
        """Receive until the connection to the broker is lost."""
        holds = self._push.holds
        queue = _Queue()
        client = Client(
            self._host,
            self._port,
            username=self._push.username,
            password=secret(self._push),
            # For kept messages the broker must know the gateway again.
            identifier=f"tagtrail-{self._id}-{uuid.getnode():012x}" if holds else None,
            clean_session=not holds,
            tls_context=reader_tls.context(self._tls) if self._tls is not None else None,
            keepalive=KEEPALIVE_S,
            timeout=CONNECT_S,
            queue_type=lambda maxsize: queue,
        )
        try:
            async with client:
                await client.subscribe(self._topic, qos=1 if holds else 0)
                session.open()
                await self._receive(client, queue, session)
        except HungUpError as error:
            raise LinkFailure(self._why_hung_up(error)) from error
        except aiomqtt.MqttError as error:
            raise LinkFailure(self._why(error)) from error
        except OSError as error:
            raise LinkFailure(f"the broker {self._broker} can't be reached: {words(error)}") from error
        raise LinkFailure(f"the connection to the broker {self._broker} has ended")

    async def _receive(self, client: aiomqtt.Client, queue: _Queue, session: PushedSession) -> None:
        loop = asyncio.get_running_loop()
        bodies: list[bytes] = []
        async for message in client.messages:
            # A retained message is as old as it likes.
            if not message.retain and isinstance(message.payload, bytes | bytearray):
                bodies.append(bytes(message.payload))
            if not queue.empty() and len(bodies) < BATCH:
                continue
            if bodies:
                await session.messages(bodies)
                bodies = []
            if queue.overflowed:
                queue.overflowed = False
                session.lost("the gateway could not keep up with the broker: reads were lost")
            await asyncio.sleep(GATHER_S - loop.time() % GATHER_S)

    def _why(self, error: aiomqtt.MqttError) -> str:
        cause = error.__context__  # of the connection, which aiomqtt keeps only as text
        if isinstance(cause, ssl.SSLError):
            return reader_tls.why_refused(cause, self._broker)
        if isinstance(cause, ConnectionResetError) and self._tls is not None:
            return insecure(cause, self._broker)
        if isinstance(cause, TimeoutError):
            return f"no answer from {self._broker} within {CONNECT_S:g} s: is it switched on and wired?"
        code = getattr(error, "rc", None)
        text = str(error)
        if code in (4, 5, 134, 135) or "authoriz" in text.lower() or "bad user" in text.lower():
            return f"the broker {self._broker} does not accept username and password"
        if "refused" in text:
            return f"the broker {self._broker} refused the connection: does it run there?"
        return f"the broker {self._broker} can't be used: {text}"

    def _why_hung_up(self, error: HungUpError) -> str:
        if self._tls is not None:
            return reader_tls.hung_up(self._broker, str(error))
        return f"{self._broker} hung up without an answer: does this port want TLS (mqtts)?"


class HungUpError(aiomqtt.MqttError):
    """The broker ended the connection before it had accepted it."""


class Client(aiomqtt.Client):
    """aiomqtt's client, with cancellation that isn't swallowed and without waiting for a broker that has hung up."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._disconnected.add_done_callback(self._hung_up)

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason_code: Any, properties: Any = None) -> None:
        self._refused(HUNG_UP)
        super()._on_disconnect(client, userdata, flags, reason_code, properties)

    def _hung_up(self, done: asyncio.Future[None]) -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            self._refused(words(error))

    def _refused(self, why: str) -> None:
        if not self._connected.done():
            self._connected.set_exception(HungUpError(why))

    async def _wait_for(self, fut: Awaitable[T], timeout: float | None) -> T:
        # Under Python 3.11 asyncio.wait_for, which this replaces, loses a cancellation that comes with the answer.
        try:
            async with asyncio.timeout(self.timeout if timeout is None else timeout):
                return await fut
        except TimeoutError:
            raise aiomqtt.MqttError("no answer in time") from None


class _Queue(asyncio.Queue[aiomqtt.Message]):
    """Queue limited by size in bytes."""

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)
        self.overflowed = False
        self._bytes = 0

    def full(self) -> bool:
        return self._bytes > QUEUE_BYTES

    def put_nowait(self, item: aiomqtt.Message) -> None:
        self.overflowed = self.overflowed or self.full()
        super().put_nowait(item)

    def _put(self, item: aiomqtt.Message) -> None:
        self._bytes += len(item.payload) if isinstance(item.payload, bytes | bytearray) else 64
        super()._put(item)

    def _get(self) -> aiomqtt.Message:
        item: aiomqtt.Message = super()._get()
        self._bytes -= len(item.payload) if isinstance(item.payload, bytes | bytearray) else 64
        return item
