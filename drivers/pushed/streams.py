"""Streams that the gateway opens: an HTTP response that does not end, or a WebSocket; beside them Impinj's REST
interface, over which an inventory is looked after and started.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, NoReturn
from urllib.parse import urlsplit

import aiohttp
import msgspec

from drivers import tls as reader_tls
from drivers.links import HUNG_UP, LinkFailure, insecure, words
from drivers.pushed.formats import Format
from drivers.pushed.session import GATHER_S, PushedSession, secret
from drivers.session import Push, ReaderSettings, Tls

CONNECT_S = 5.0
ANSWER_S = 10.0
GATHER_BYTES = 1 << 18
"""Reading pauses for GATHER_S after each arrival, unless this much has come."""
BUFFER_BYTES = 1 << 20
"""aiohttp stops receiving beyond this, and TCP slows down the reader."""
LOOK_S = 15.0
"""Interval at which the state of the inventory is asked for."""
ANSWER_BYTES_MAX = 1 << 16
PING_S = 10.0
_RUNNING = "running"


class Stream:
    """HTTP stream or WebSocket of one reader, and its REST interface if it has one."""

    waits = ""

    def __init__(self, settings: ReaderSettings, form: Format) -> None:
        """Raises ValueError for an invalid address."""
        parts = urlsplit(settings.address)
        if not parts.hostname or parts.port == 0:
            raise ValueError(f"reader {settings.id}: {settings.address!r} has no host, or an invalid port")
        self._push, self._tls = settings.push or Push(), settings.tls
        self._secure = parts.scheme in ("https", "wss")
        self._socket = parts.scheme in ("ws", "wss")
        self._peer = parts.netloc
        self._base = f"{'https' if self._secure else 'http'}://{parts.netloc}"
        path = parts.path if parts.path not in ("", "/") else form.stream_path
        self._path = path + (f"?{parts.query}" if parts.query else "")
        self._rest = form.rest and not self._socket
        self._started = self._answered = False

    async def run(self, session: PushedSession) -> NoReturn:
        """Receive until the connection is lost."""
        context, fingerprint = _context(self._tls) if self._secure else (None, None)
        connector = aiohttp.TCPConnector(
            ssl=aiohttp.Fingerprint(fingerprint) if fingerprint is not None else True, limit=4, force_close=False
        )
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, headers=_login(self._push), read_bufsize=BUFFER_BYTES
        ) as http:
            self._http, self._context, self._answered = http, context, False
            try:
                await self._receive(session)
            except aiohttp.ClientError as error:
                raise LinkFailure(self._why(error)) from error
            except TimeoutError:
                raise LinkFailure(f"{self._peer} did not answer within {ANSWER_S:g} s") from None
            finally:
                if self._started:
                    await asyncio.shield(self._stop())
        raise LinkFailure("the reader ended the stream")

    async def _receive(self, session: PushedSession) -> None:
        if self._rest:
            await self._look(session, first=True)
        looking = asyncio.create_task(self._keep_looking(session)) if self._rest else None
        try:
            loop = asyncio.get_running_loop()
            async for data in self._socket_data(session) if self._socket else self._stream_data(session):
                if self._socket:
                    await session.messages([data])
                else:
                    await session.chunk(data)
                    if len(data) < GATHER_BYTES:
                        await asyncio.sleep(GATHER_S - loop.time() % GATHER_S)
                if looking is not None and looking.done():
                    looking.result()
        finally:
            if looking is not None:
                looking.cancel()
                await asyncio.gather(looking, return_exceptions=True)

    async def _stream_data(self, session: PushedSession) -> AsyncIterator[bytes]:
        url = self._base + self._path
        async with self._http.get(url, ssl=self._ssl, allow_redirects=False) as answer:
            self._accepted(answer.status, self._path)
            if not self._rest:
                session.open()
            async for data in answer.content.iter_any():
                yield data

    async def _socket_data(self, session: PushedSession) -> AsyncIterator[bytes]:
        try:
            async with self._http.ws_connect(
                self._base + self._path, ssl=self._ssl, heartbeat=PING_S, max_msg_size=BUFFER_BYTES
            ) as socket:
                session.open()
                async for message in socket:
                    if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                        yield message.data.encode() if isinstance(message.data, str) else message.data
                    elif message.type is aiohttp.WSMsgType.ERROR:
                        raise LinkFailure(f"the WebSocket of {self._peer} failed: {socket.exception()}")
        except aiohttp.WSServerHandshakeError as error:
            self._accepted(error.status, self._path)
            raise

    @property
    def _ssl(self) -> Any:
        return self._context if self._context is not None else True

    # Impinj's REST interface

    async def _keep_looking(self, session: PushedSession) -> NoReturn:
        while True:
            await asyncio.sleep(LOOK_S)
            await self._look(session)

    async def _look(self, session: PushedSession, first: bool = False) -> None:
        """Ask for the state of the inventory; start the preset if none runs."""
        state = await self._ask("GET", "/api/v1/status")
        if serial := state.get("serialNumber"):
            session.knows(serial=str(serial)[:64])
        if state.get("status") == _RUNNING:
            session.up()
            return
        preset = self._push.preset
        if preset is None:
            session.idle("the reader takes no inventory: start one, or name a preset in the store file")
            return
        if not first:
            session.idle("the reader has stopped its inventory: it is started again")
        await self._ask("POST", f"/api/v1/profiles/inventory/presets/{preset}/start")
        self._started = True
        session.up()

    async def _stop(self) -> None:
        """Stop the inventory that we started: without a listener its reads are lost anyway."""
        self._started = False
        with suppress(LinkFailure, aiohttp.ClientError, TimeoutError):
            await self._ask("POST", "/api/v1/profiles/stop")

    async def _ask(self, method: str, path: str) -> dict[str, Any]:
        async with asyncio.timeout(ANSWER_S):
            async with self._http.request(method, self._base + path, ssl=self._ssl, allow_redirects=False) as answer:
                body = await answer.content.read(ANSWER_BYTES_MAX)
                self._accepted(answer.status, path, body)
        try:
            told = msgspec.json.decode(body) if body else {}
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise LinkFailure(
                f"{self._peer} answers {path} with something that is not JSON: is it this kind?"
            ) from None
        return told if isinstance(told, dict) else {}

    def _accepted(self, status: int, path: str, body: bytes = b"") -> None:
        self._answered = True
        if 200 <= status < 300 or status == 101:
            return
        if status in (401, 403):
            raise LinkFailure(f"{self._peer} does not accept username and password (HTTP {status})")
        if status == 404:
            raise LinkFailure(f"{self._peer} has no {path} (HTTP 404): check the path, and the interface that is set")
        if not body:
            raise LinkFailure(f"{self._peer} answered {path} with HTTP {status}")
        raise LinkFailure(f"{self._peer} answered {path} with HTTP {status}: {body[:120].decode('utf-8', 'replace')}")

    def _why(self, error: aiohttp.ClientError) -> str:
        if isinstance(error, aiohttp.ServerFingerprintMismatch):
            return reader_tls.other_pin(bytes(error.got).hex().upper(), self._peer)
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return reader_tls.why_refused(error.certificate_error, self._peer)  # type: ignore[arg-type]
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return f"the name {urlsplit(self._base).hostname} was not found"
        cause = error.__cause__
        if isinstance(error, aiohttp.ClientConnectorSSLError) and isinstance(cause, ssl.SSLError):
            return insecure(cause, self._peer)
        if isinstance(error, aiohttp.ServerTimeoutError):
            return f"no answer from {self._peer} within {CONNECT_S:g} s: is it switched on and wired?"
        if isinstance(error, aiohttp.ClientConnectorError):
            if self._secure and isinstance(error.os_error, ConnectionResetError):
                return insecure(error.os_error, self._peer)
            if isinstance(error.os_error, ConnectionRefusedError):
                return f"{self._peer} refused the connection: is its interface switched on, is the port right?"
            return f"{self._peer} can't be reached: {words(error.os_error)}"
        if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError | aiohttp.ClientOSError):
            if self._answered:
                return "the connection broke: the reader ended the stream"
            if self._secure:
                return reader_tls.hung_up(self._peer, words(cause) if cause is not None else HUNG_UP)
            return f"{self._peer} hung up without an answer: does this port want TLS (https, wss)?"
        return f"{self._peer} does not speak HTTP as expected: {error}"


def _login(push: Push) -> dict[str, str]:
    """Return the header with the credentials; LinkFailure if the password can't be read."""
    password = secret(push)
    if password is None:
        return {}
    if push.username is None:
        return {"Authorization": f"Bearer {password}"}
    login = base64.b64encode(f"{push.username}:{password}".encode()).decode()
    return {"Authorization": f"Basic {login}"}


def _context(tls: Tls | None) -> tuple[ssl.SSLContext, bytes | None]:
    tls = tls or Tls()
    context = reader_tls.context(tls)
    return context, bytes.fromhex(tls.pin) if tls.pin is not None else None
