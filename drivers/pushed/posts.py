"""Listening ports for readers that send their reads by HTTP POST, each port for any number of readers.

Readers are told apart by the path that they send to. A request is answered once its reads have been taken, so that a
full pipeline slows the readers down.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
import re
import ssl
from typing import NoReturn
from weakref import WeakKeyDictionary

from aiohttp import web

from drivers import tls as reader_tls
from drivers.links import LinkFailure, words
from drivers.pushed.session import PushedSession, secret
from drivers.session import Push, ReaderSettings, Tls

BODY_BYTES_MAX = 1 << 20
BODY_S = 20.0
"""Longest time for a request to arrive whole, also for its head on a new connection."""
AT_ONCE_MAX = 8
"""Requests of one reader at a time; more are asked to come later."""
CONNECTIONS_MAX = 256
KEEPALIVE_S = 75.0
STRANGERS_MAX = 3
"""Rejected senders that are reported; others are only counted."""
PORTS = {False: 8484, True: 8485}
"""Ports without and with TLS."""

_SILENT = logging.getLogger(f"{__name__}.http")
_SILENT.setLevel(logging.CRITICAL)  # else each request that is no HTTP would fill the journal
_NOBODY = "an unknown address"
_TLS_HELLO = b"\x16\x03"
Place = tuple[str, int, Tls | None]


class Posts:
    """One reader's path at a listening port: listen://host:port/path."""

    def __init__(self, settings: ReaderSettings) -> None:
        """Raises ValueError for an invalid address, or for TLS without a certificate."""
        found = re.fullmatch(r"listen://(\[[^\]]+\]|[^:/\[\]]+)(?::(\d{1,5}))?(/\S+)", settings.address)
        tls = settings.tls
        port = int(found[2]) if found and found[2] else PORTS[tls is not None]
        if found is None or not 0 < port < 65536:
            raise ValueError(f"reader {settings.id}: {settings.address!r} is not listen://host:port/path")
        if tls is not None and tls.cert is None:
            raise ValueError(f"reader {settings.id}: listen:// with TLS needs a certificate of ours")
        self.place: Place = (found[1].strip("[]"), port, tls)
        self.path, self.push = found[3], settings.push or Push()
        self.waits = f"waiting for the reader to send to port {port}, path {self.path} here"
        self.under_way = 0
        self.session: PushedSession
        self.password: str | None = None
        self._failed: asyncio.Future[NoReturn]

    async def run(self, session: PushedSession) -> NoReturn:
        """Take requests until something fails."""
        self.session, self.password = session, secret(self.push)
        self._failed = asyncio.get_running_loop().create_future()
        port = await _ports().enter(self)
        try:
            session.open()
            await self._failed
        finally:
            await _ports().leave(port, self)
        raise AssertionError("only failures end it")

    async def take(self, body: bytes) -> None:
        """Take the body of a request."""
        try:
            await self.session.messages([body])
        except Exception as error:
            if not self._failed.done():
                self._failed.set_exception(error)
            raise

    def strange(self, told: str) -> None:
        """Note that others have sent to this port."""
        self.session.notice(f"requests that belong to no reader in the store file: {told}")

    def admits(self, request: web.BaseRequest) -> int:
        """Return 0, or the HTTP status with which a request is refused."""
        if self.push.source is not None and request.remote != self.push.source:
            return 403
        if self.password is None:
            return 0
        given = request.headers.get("Authorization", "")
        user, password = self.push.username, ""
        if given.startswith("Bearer "):
            password = given.removeprefix("Bearer ").strip()
        else:
            try:
                login = base64.b64decode(given.removeprefix("Basic "), validate=True).decode()
            except ValueError:
                return 401
            name, _, password = login.partition(":")
            if user is not None and not hmac.compare_digest(name.encode(), user.encode()):
                return 401
        return 0 if hmac.compare_digest(password.encode(), self.password.encode()) else 401


class _Port:
    """A listening port and the readers expected there, by path."""

    def __init__(self, place: Place) -> None:
        self.doors: dict[str, Posts] = {}
        self._place = place
        self._handlers = web.Server(self._handle, keepalive_timeout=KEEPALIVE_S, access_log=None, logger=_SILENT)
        self._server: asyncio.Server | None = None
        self._context = reader_tls.listening(place[2]) if place[2] is not None else None
        self._strangers: dict[str, str] = {}
        self._securing: set[asyncio.Task[None]] = set()
        self._silent: dict[web.RequestHandler, asyncio.TimerHandle] = {}

    async def open(self) -> None:
        host, port, _ = self._place
        try:
            self._server = await asyncio.get_running_loop().create_server(
                self._connection, host, port, reuse_address=True
            )
        except OSError as error:
            raise LinkFailure(f"the gateway can't listen on {host}:{port} for readers: {words(error)}") from error

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for timer in self._silent.values():
            timer.cancel()
        for task in self._securing:
            task.cancel()
        await self._handlers.shutdown(1.0)

    def _connection(self) -> asyncio.Protocol:
        if len(self._handlers.connections) + len(self._securing) >= CONNECTIONS_MAX:
            return _Full()
        connection = self._handlers()
        self._silent[connection] = asyncio.get_running_loop().call_later(BODY_S, self._give_up, connection)
        return _Caller(self, connection)

    def opened(self, caller: _Caller, transport: asyncio.Transport) -> None:
        """Begin a connection; with TLS once it is secure."""
        if self._context is None:
            caller.begin(transport)
            return
        transport.pause_reading()
        task = asyncio.create_task(self._secure(caller, transport, self._context))
        self._securing.add(task)
        task.add_done_callback(self._securing.discard)

    async def _secure(self, caller: _Caller, transport: asyncio.Transport, context: ssl.SSLContext) -> None:
        try:
            secured = await asyncio.get_running_loop().start_tls(
                transport, caller, context, server_side=True, ssl_handshake_timeout=BODY_S
            )
        except OSError as error:
            transport.abort()
            self.turned_away(caller, f"{caller.who}: no secure connection, {words(error)}")
            return
        assert secured is not None
        caller.begin(secured)

    def turned_away(self, caller: _Caller, told: str) -> None:
        """Note a connection that came to nothing."""
        if (timer := self._silent.pop(caller.handler, None)) is not None:
            timer.cancel()
        self._note(caller.who, told)

    def _give_up(self, connection: web.RequestHandler) -> None:
        """End a connection on which no request has come in time."""
        self._silent.pop(connection, None)
        if connection.transport is not None:
            connection.transport.abort()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if (timer := self._silent.pop(request.protocol, None)) is not None:
            timer.cancel()
        door = self.doors.get(request.path)
        who, path = request.remote or _NOBODY, request.path[:60]
        if door is None:
            return self._refuse(request, 404, f"{who}: no reader in the store file has the path {path}")
        if request.method not in ("POST", "PUT"):
            return web.Response(status=405, headers={"Allow": "POST, PUT"})
        if status := door.admits(request):
            if status == 401:
                return self._refuse(request, status, f"{who} at {path}: username, password or token are wrong")
            return self._refuse(request, status, f"{who} at {path}: its address is not the source")
        if door.under_way >= AT_ONCE_MAX:
            return web.Response(status=503, headers={"Retry-After": "1"})
        door.under_way += 1
        try:
            async with asyncio.timeout(BODY_S):
                body = await _body(request)
            if body is None:
                return web.Response(status=413)
            await door.take(body)
        except TimeoutError:
            return web.Response(status=408, headers={"Connection": "close"})
        except LinkFailure as failure:
            return web.Response(status=409, text=str(failure))
        finally:
            door.under_way -= 1
        return web.Response(status=200)

    def _refuse(self, request: web.BaseRequest, status: int, told: str) -> web.Response:
        self._note(request.remote or _NOBODY, told)
        headers = {"WWW-Authenticate": 'Basic realm="tagtrail"'} if status == 401 else {}
        return web.Response(status=status, headers=headers)

    def _note(self, caller: str, told: str) -> None:
        known = self._strangers
        if known.get(caller) != told and (caller in known or len(known) < STRANGERS_MAX):
            known[caller] = told
            for door in self.doors.values():
                door.strange("; ".join(known.values()))


class _Caller(asyncio.Protocol):
    """A connection up to its first bytes, which is then left to the HTTP server."""

    def __init__(self, port: _Port, handler: web.RequestHandler) -> None:
        self.handler, self.who = handler, _NOBODY
        self._port = port
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._lost = False

    def begin(self, transport: asyncio.Transport) -> None:
        """Take the transport for requests, secure where it must be."""
        if self._lost:
            return
        self._transport = transport
        self.handler.connection_made(transport)
        early, self._early = b"".join(self._early), []
        if early:
            self.data_received(early)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.who = str((transport.get_extra_info("peername") or [_NOBODY])[0])
        self._port.opened(self, transport)

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        if transport is None:  # secured just now
            self._early.append(data)
        elif data.startswith(_TLS_HELLO):
            self._port.turned_away(self, f"{self.who} speaks TLS, and the store file has no tls there")
            transport.abort()
        else:
            transport.set_protocol(self.handler)
            self.handler.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if self._transport is not None:
            self.handler.connection_lost(exc)


class _Full(asyncio.Protocol):
    """Connection beyond the limit."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


async def _body(request: web.BaseRequest) -> bytes | None:
    """Return the body, also a compressed one; None if it is too long."""
    if (request.content_length or 0) > BODY_BYTES_MAX:
        return None
    parts, size = [], 0
    async for part in request.content.iter_any():
        size += len(part)
        if size > BODY_BYTES_MAX:
            return None
        parts.append(part)
    return b"".join(parts)


class _Ports:
    """Listening ports of one event loop, each open while readers are expected there."""

    def __init__(self) -> None:
        self._open: dict[Place, _Port] = {}
        self._opening = asyncio.Lock()

    async def enter(self, door: Posts) -> _Port:
        """Return the port of a reader, opened; LinkFailure if that is not possible."""
        async with self._opening:
            port = self._open.get(door.place)
            if port is None:
                port = _Port(door.place)
                await port.open()
                self._open[door.place] = port
            port.doors[door.path] = door
            return port

    async def leave(self, port: _Port, door: Posts) -> None:
        """End a reader's reception; the last one closes the port."""
        async with self._opening:
            if port.doors.get(door.path) is door:
                del port.doors[door.path]
            if not port.doors and self._open.get(door.place) is port:
                del self._open[door.place]
                await port.close()


_all: WeakKeyDictionary[asyncio.AbstractEventLoop, _Ports] = WeakKeyDictionary()


def _ports() -> _Ports:
    return _all.setdefault(asyncio.get_running_loop(), _Ports())
