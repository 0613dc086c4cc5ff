"""Health and metrics over HTTP for programs on this machine: on a Unix socket, and on a loopback port if the store
file names one. Part of the service itself, so that it answers while the page is down.

`/health`: 200 while the service works, whatever is missing around it, else 503; `/ready`: 200 while it takes reads,
else 503; `/metrics`: in Prometheus' text format. No login, and nothing that names a person, a card or a tag.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

import h11

from edge.doctor.health import judge
from edge.service import metrics
from edge.service.metrics import Antennas
from edge.store.live_socket import open_socket
from edge.store.live_state import Now
from edge.store.page_socket import listen

log = logging.getLogger("tagtrail.monitor")

REQUEST_S = 5.0
"""Time for one request, from its connection to its answer."""
HEAD_BYTES = 8192
MOST_CLIENTS = 16
"""Further connections are closed at once: nobody may take all file descriptors."""
PATHS = ("/health", "/ready", "/metrics")
Phase = Literal["starting", "serving", "stopping"]
Answer = tuple[HTTPStatus, str, bytes]


class Monitor:
    """Answers from `snapshot()`, the live state, and `antennas()`, the antennas of each reader. `phase` says how far
    the service is."""

    def __init__(self, snapshot: Callable[[], dict[str, Any]], antennas: Callable[[], Antennas]) -> None:
        self._snapshot = snapshot
        self._antennas = antennas
        self._clients = 0
        self._failed: set[type[Exception]] = set()
        self.phase: Phase = "starting"

    async def on_socket(self, path: Path) -> None:
        """Answer on a Unix socket until cancelled."""
        try:
            await _forever(await open_socket(path, self._client))
        finally:
            path.unlink(missing_ok=True)

    async def on_port(self, address: str) -> None:
        """Answer on `host:port` until cancelled; Trouble if it can't be opened."""
        await _forever(
            await asyncio.start_server(self._client, sock=listen(address, "[monitoring] listen", "monitoring"))
        )

    def answer(self, path: str) -> Answer:
        """Return status, content type and content for a path."""
        if path not in PATHS:
            return HTTPStatus.NOT_FOUND, "text/plain", f"there are: {', '.join(PATHS)}\n".encode()
        if path == "/ready":
            status = HTTPStatus.OK if self.phase == "serving" else HTTPStatus.SERVICE_UNAVAILABLE
            return status, "application/json", _json({"ready": status is HTTPStatus.OK, "phase": self.phase})
        if self.phase == "starting":  # asking the engine would compile its kernels here and now
            if path == "/health":
                return HTTPStatus.OK, "application/json", _json({"status": "ok", "phase": self.phase})
            return HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"starting\n"
        now = Now.model_validate(self._snapshot())
        if path == "/metrics":
            return HTTPStatus.OK, *metrics.render(now, self._antennas())
        health = judge(now)
        told = {"status": health.status, "fails": health.fails, "missing": health.missing}
        about = {"store": now.store, "version": now.version, "phase": self.phase}
        status = HTTPStatus.SERVICE_UNAVAILABLE if health.fails else HTTPStatus.OK
        return status, "application/json", _json(told | about)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._clients >= MOST_CLIENTS:
            writer.transport.abort()
            return
        self._clients += 1
        try:
            async with asyncio.timeout(REQUEST_S):
                await self._converse(reader, writer)
        except (TimeoutError, OSError):  # of no use to anyone who is gone
            writer.transport.abort()
        finally:
            self._clients -= 1
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http, head = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES), False
        try:
            while (event := http.next_event()) is h11.NEED_DATA:
                http.receive_data(await reader.read(HEAD_BYTES))
            if not isinstance(event, h11.Request):
                return
            head = event.method == b"HEAD"
            status, kind, content = self._respond(event)
        except h11.RemoteProtocolError as error:
            status, kind, content = HTTPStatus(error.error_status_hint), "text/plain", b"not an HTTP request\n"
        headers = [("Content-Type", kind), ("Content-Length", str(len(content)))]
        headers += [("Cache-Control", "no-store"), ("Connection", "close")]
        writer.write(http.send(h11.Response(status_code=status, reason=status.phrase, headers=headers)) or b"")
        writer.write(b"" if head else content)
        await writer.drain()

    def _respond(self, request: h11.Request) -> Answer:
        if request.method not in (b"GET", b"HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"GET and HEAD only\n"
        try:
            return self.answer(request.target.decode("ascii").partition("?")[0])
        except Exception as error:
            if type(error) not in self._failed:  # it is asked again every few seconds
                self._failed.add(type(error))
                log.exception("the gateway's state can't be told")
            return HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", b"the state can't be told, see the log\n"


async def _forever(server: asyncio.Server) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        server.close()


def _json(told: dict[str, Any]) -> bytes:
    return json.dumps(told, ensure_ascii=False).encode() + b"\n"
