"""LLRP session: keeps one reader connected and reconnects after every failure. See connection for a single
connection."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from typing import NoReturn

from drivers import tls as reader_tls
from drivers.links import LinkFailure, keep_trying
from drivers.llrp import codec
from drivers.llrp.connection import LlrpConnection
from drivers.llrp.listening import LISTEN, ListeningPort, listening_ports
from drivers.llrp.profiles import choose
from drivers.llrp.state import Memory, Phase, Timing
from drivers.llrp.wire import DEFAULT_PORT, TLS_PORT, Address, Wire, connect
from drivers.session import Clock, Link, ReaderSettings, ReaderStatus, Sink, Tables

__all__ = ["LlrpSession", "Phase", "Timing"]


class LlrpSession:
    """Session with one LLRP reader; `run` continues until cancelled."""

    def __init__(self, settings: ReaderSettings, sink: Sink, clock: Clock, timing: Timing | None = None) -> None:
        """Raises ValueError for an invalid address, or if a reader that connects to us has no identity."""
        tls = settings.tls
        if settings.address.startswith(LISTEN) and (
            settings.identity is None or (tls is not None and tls.cert is None)
        ):
            raise ValueError(f"reader {settings.id}: {LISTEN} needs an identity, and a certificate of ours for TLS")
        self._settings, self._sink, self._clock = settings, sink, clock
        self._timing = (timing or Timing()).patient(choose(0, settings.profile).patience)
        self._listens = settings.address.startswith(LISTEN)
        self._address = Address.parse(
            settings.address.removeprefix(LISTEN), DEFAULT_PORT if settings.tls is None else TLS_PORT
        )
        self._port: ListeningPort | None = None
        self._status: ReaderStatus | None = None
        self._past: Counter[str] = Counter()
        self._connection: LlrpConnection | None = None
        self._up_since_s: float | None = None
        """Of the last connection, loop time."""
        self._memory = Memory()

    async def run(self) -> None:
        """Connect, and reconnect after each failure with a backoff of up to a minute, for ever."""
        if not self._listens:
            self._say(Link.CONNECTING, f"connecting to {self._address}")
            await self._go_on()
        self._say(Link.CONNECTING, f"waiting for the reader to connect to port {self._address.port} here")
        identity = self._settings.identity or ""
        self._port = listening_ports().enter(self._address, identity, self._clock, self._settings.tls)
        try:
            await self._go_on()
        finally:
            self._port.leave(identity)

    async def _go_on(self) -> NoReturn:
        timing = self._timing
        await keep_trying(
            self._settings.id, self._once, self._failed, self._was_steady, (timing.retry_first_s, timing.retry_cap_s)
        )

    async def _once(self) -> None:
        connection = LlrpConnection(
            self._settings, self._open, self._sink, self._clock, self._timing, self._memory, self._up, self._idle
        )
        self._connection = connection
        try:
            await connection.run()
        finally:
            self._past.update(connection.counters)
            self._connection = None
            self._up_since_s = connection.up_since_s

    def _was_steady(self) -> bool:
        up_since_s = self._up_since_s
        return up_since_s is not None and asyncio.get_running_loop().time() - up_since_s >= self._timing.steady_s

    def _failed(self, reason: str, since_us: int | None) -> bool:
        new = self._status is None or self._status.reason != reason
        self._say(Link.DOWN, reason, since_us)
        return new

    def switch(self, port: int, high: bool) -> None:
        """Switch an output, now or as soon as the reader is connected."""
        self._memory.outputs[port] = high
        if self._connection is not None:
            self._connection.light()

    @property
    def counters(self) -> dict[str, int]:
        """Numbers of decoded and rejected items by reason (decoder.COUNTERS), since the session began."""
        now = Counter(self._connection.counters) if self._connection else Counter[str]()
        return dict(self._past + now)

    async def _open(self) -> Wire:
        if self._listens:
            assert self._settings.identity is not None
            assert self._port is not None
            return await self._port.admit(self._settings.identity, self._others)
        tls = self._settings.tls
        if tls is None:
            return await connect(self._address, self._clock, self._timing.connect_s)
        try:
            wire = await connect(self._address, self._clock, self._timing.connect_s, reader_tls.context(tls))
        except ssl.SSLError as error:
            raise LinkFailure(reader_tls.why_refused(error, str(self._address))) from error
        if tls.pin is not None:
            try:
                reader_tls.check_pin(tls.pin, wire.certificate(), str(self._address))
            except LinkFailure as failure:
                wire.drop(str(failure))
                raise
        return wire

    def _up(self, offset_us: int | None, reads_from_us: int | None) -> None:
        self._tell(Link.UP, "taking inventory", None, offset_us, reads_from_us)

    def _idle(self, reason: str, since_us: int) -> None:
        self._tell(Link.DOWN, reason, since_us, None, None, idle=True)

    def _others(self, callers: str) -> None:
        assert self._status is not None
        port, wanted = self._address.port, codec.shown(self._settings.identity)
        self._say(
            self._status.link,
            f"waiting for the reader to connect to port {port} here: {wanted} in the store file; {callers}",
        )

    def _say(self, link: Link, reason: str, since_us: int | None = None) -> None:
        self._tell(link, reason, since_us, None, None)

    def _tell(
        self,
        link: Link,
        reason: str,
        since_us: int | None,
        offset_us: int | None,
        reads_from_us: int | None,
        idle: bool = False,
    ) -> None:
        """Report a state; `idle`: the reader takes no inventory, so it buffers nothing."""
        last, memory = self._status, self._memory
        if last is not None and last.link is link:
            since_us = last.since_us
        elif since_us is None:
            since_us = self._clock()
        up = link is Link.UP
        status = ReaderStatus(
            self._settings.id,
            link,
            reason,
            since_us,
            offset_us,
            dict(memory.detail) if up else {},
            keeps=memory.keeps and not up and not idle,
            reads_from_us=reads_from_us,
            inputs=memory.inputs if up else frozenset(),
            tables=memory.tables if up else Tables(),
        )
        if status != last:
            self._status = status
            self._sink.status(status)
