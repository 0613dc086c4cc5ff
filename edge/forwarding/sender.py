"""A forwarder's connection to the service: sends the spool from where the service is, and deletes what it has."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from drivers.links import LinkFailure
from edge.forwarding import wire
from edge.forwarding.calling import Call, Caller, KeptUp
from edge.forwarding.records import Now, Record, encoded
from edge.forwarding.spool import Spool, Stamp

log = logging.getLogger("tagtrail.forwarder")

CHUNK_BYTES = 256 * 1024
RETRY_S = (0.25, 10.0)
STEPPED_US = 500_000
STEPPED_TIMES = 3
LOOK_S = 10.0
"""After so long without a new acknowledgement, it is asked whether another gateway has taken over."""


class Sender(KeptUp):
    """Keep sending until cancelled to whichever of the `callers`' services has the highest term."""

    def __init__(self, callers: Sequence[Caller], spool: Spool, now: Callable[[], Stamp], speed: float = 1.0) -> None:
        super().__init__(callers, spool.term, log, RETRY_S, "; reads are kept")
        self._speed = speed
        self._base, self._base_term = Base(speed), spool.term
        self._spool, self._now = spool, now
        self._more = asyncio.Event()
        self.acknowledged = "", 0

    def wake(self) -> None:
        """There is something new in the spool."""
        self._more.set()

    async def stay(self, caller: Caller, call: Call) -> None:
        try:
            if call.term > self._base_term:
                self._base, self._base_term = Base(self._speed), call.term  # another gateway's clock
            self._note(call.term)
            self._base.heard(call.welcome.at_us, self._now().mono_us)
            self.connected, self.reason = True, ""
            log.info("connected to %s", caller.peer)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._send(call.writer, call.welcome))
                both.create_task(self._listen(call.reader))
                both.create_task(self._look_elsewhere(caller))
        except Exception as error:
            raise caller.failure(error) or error from error
        finally:
            call.end()

    def _note(self, term: int) -> None:
        self.term = max(self.term, term)
        self._spool.note_term(term)

    async def _look_elsewhere(self, caller: Caller) -> None:
        """A service that acknowledges nothing may be cut off, and taken over from without knowing it."""
        while True:
            before = self.acknowledged
            await asyncio.sleep(LOOK_S)
            for other in self._callers if self.acknowledged == before else ():
                if other is not caller:
                    with suppress(LinkFailure):
                        call = await other.call(self.term)
                        call.end()
                        self._note(call.term)
            if self.term > self._base_term:
                raise LinkFailure(f"{caller.peer} is not the store's service any more: another gateway has taken over")

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
