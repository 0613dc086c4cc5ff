"""A forwarder's connection to the service: sends the spool from where the service is, and deletes what it has."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import secrets
import ssl
import time
from collections.abc import Callable
from contextlib import suppress

from drivers.links import LinkFailure, insecure, keep_trying, words
from edge.forwarding import wire
from edge.forwarding.records import Malformed, Now, Record, encoded
from edge.forwarding.spool import Spool, Stamp

log = logging.getLogger("tagtrail.forwarder")

CHUNK_BYTES = 256 * 1024
RETRY_S = (0.25, 10.0)
STEPPED_US = 500_000
STEPPED_TIMES = 3


class Sender:
    """Keep sending until cancelled. `connected`, and `reason` if it isn't: a sentence for store IT."""

    def __init__(
        self,
        address: str,
        context: ssl.SSLContext | None,
        store: str,
        id_: str,
        token: bytes,
        spool: Spool,
        now: Callable[[], Stamp],
        speed: float = 1.0,
    ) -> None:
        self._base = Base(speed)
        self._host, self._port = wire.host_port(address)
        self._peer = f"the service at {address}"
        self._context, self._store, self._id, self._token = context, store, id_, token
        self._spool, self._now = spool, now
        self._more = asyncio.Event()
        self.connected = False
        self.reason = "not yet connected"
        self.acknowledged = "", 0

    def wake(self) -> None:
        """There is something new in the spool."""
        self._more.set()

    async def run(self) -> None:
        """Connect again and again."""
        steady = False

        async def once() -> None:
            nonlocal steady
            steady = False
            try:
                await self._connect()
            finally:
                steady, self.connected = self.connected, False

        await keep_trying(self._id, once, self._failed, lambda: steady, RETRY_S)

    def _failed(self, reason: str, _: int | None) -> bool:
        news = reason != self.reason
        self.reason = reason
        if news:
            log.warning("not connected to %s: %s; reads are kept", self._peer, reason)
        return news

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(wire.GREETING_S):
                reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._context)
        except TimeoutError as error:
            raise LinkFailure(f"{self._peer} does not answer") from error
        except ssl.SSLCertVerificationError as error:
            raise LinkFailure(f"the certificate of {self._peer} is not accepted: {error.verify_message}") from error
        except ssl.SSLError as error:
            raise LinkFailure(insecure(error, self._peer)) from error
        except OSError as error:
            raise LinkFailure(f"{self._peer} can't be reached: {words(error)}") from error
        try:
            async with asyncio.timeout(wire.GREETING_S):
                welcome = await self._greet(reader, writer)
            self.connected, self.reason = True, ""
            log.info("connected to %s", self._peer)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._send(writer, welcome))
                both.create_task(self._listen(reader))
        except* TimeoutError as errors:
            raise LinkFailure(f"{self._peer} has stopped answering") from errors
        except* (EOFError, ConnectionError) as errors:
            raise LinkFailure(f"{self._peer} has closed the connection") from errors
        except* Malformed as errors:
            raise LinkFailure(f"{self._peer} is not a Tagtrail service: {errors.exceptions[0]}") from errors
        except* OSError as errors:
            raise LinkFailure(f"the connection to {self._peer} is lost: {errors.exceptions[0]}") from errors
        except* LinkFailure as errors:
            raise LinkFailure(str(errors.exceptions[0])) from errors
        finally:
            writer.transport.abort()

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> wire.Welcome:
        challenge = await wire.expect(reader, wire.Challenge)
        if challenge.version != wire.VERSION:
            raise LinkFailure(f"{self._peer} runs another release: install the same on both gateways")
        if challenge.store != self._store:
            raise LinkFailure(f"{self._peer} is that of store {challenge.store!r}, not of {self._store!r}")
        nonce = secrets.token_bytes(wire.NONCE_BYTES)
        both = self._store, self._id, challenge.nonce, nonce
        ours = wire.proof(self._token, "forwarder", *both)
        writer.write(wire.framed(wire.Hello(wire.VERSION, self._id, nonce, ours)))
        welcome = await wire.expect(reader, wire.Welcome)
        if not hmac.compare_digest(welcome.proof, wire.proof(self._token, "service", *both)):
            raise LinkFailure(f"{self._peer} does not have the token of {self._id}")
        self._base.heard(welcome.at_us, self._now().mono_us)
        return welcome

    async def _send(self, writer: asyncio.StreamWriter, welcome: wire.Welcome) -> None:
        writer.write(self._time())
        told_s = time.monotonic()
        file, at = self._spool.file_after(welcome.life, welcome.seq), 0
        source = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while True:
                self._more.clear()
                while data := os.pread(source, CHUNK_BYTES, at):
                    at += len(data)
                    writer.write(data)
                    await writer.drain()
                following = self._spool.next_file(file.number)
                if following is not None:
                    # Nothing is added to a file once another has begun, but perhaps just before.
                    if not os.pread(source, 1, at):
                        os.close(source)
                        file, at = following, 0
                        source = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
                    continue
                if time.monotonic() - told_s >= wire.EVERY_S:
                    told_s = time.monotonic()
                    writer.write(self._time())
                    await writer.drain()
                with suppress(TimeoutError):
                    async with asyncio.timeout(wire.EVERY_S / 2):
                        await self._more.wait()
        finally:
            os.close(source)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while True:
            async with asyncio.timeout(wire.SILENT_S):
                ack = await wire.expect(reader, wire.Ack)
            self._base.heard(ack.at_us, self._now().mono_us)
            if ack.life and (ack.life, ack.seq) != self.acknowledged:
                self.acknowledged = ack.life, ack.seq
                self._spool.acknowledged(ack.life, ack.seq)

    def _time(self) -> bytes:
        spool, stamp = self._spool, self._now()
        now = Now(spool.life, spool.seq, spool.boot, self._base.us, spool.size)
        return encoded(Record(0, stamp.at_us, stamp.mono_us, stamp.trusted, now))


class Base:
    """The service's store time minus our monotonic time. A message's delay makes it smaller, so that of several the
    greatest counts; after STEPPED_TIMES that are all much smaller the service's clock was set back."""

    def __init__(self, speed: float) -> None:
        self.us: int | None = None
        self._speed = speed
        self._smaller: list[int] = []

    def heard(self, at_us: int, mono_us: int) -> None:
        """A message of the service has come, sent at `at_us`."""
        heard_us = at_us - round(mono_us * self._speed)
        if self.us is None or heard_us >= self.us - STEPPED_US * self._speed:
            self._smaller.clear()
            # Two monotonic clocks drift apart, too: a smaller one is approached.
            less_us = 0 if self.us is None else self.us - heard_us
            self.us = heard_us + max(0, less_us - max(50, less_us // 64))
            return
        self._smaller.append(heard_us)
        if len(self._smaller) >= STEPPED_TIMES:
            self.us = max(self._smaller)
            self._smaller.clear()
