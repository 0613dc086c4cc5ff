"""The service's metrics on the page's own address, for a monitoring system elsewhere, which has to log in."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from pathlib import Path

import h11
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge.store.live_socket import socket_path
from edge.web.site import Site

WAIT_S = 5.0
MOST_BYTES = 1 << 16
KIND = "text/plain; version=0.0.4; charset=utf-8"
AWAY = b"# HELP tagtrail_up 1 while the service answers.\n# TYPE tagtrail_up gauge\ntagtrail_up 0.0\n"


class Metrics:
    """`/metrics`, for whoever may log in: with HTTP Basic."""

    def __init__(self, site: Site) -> None:
        self._path = socket_path(site.config, "monitor")
        self.routes = [Route("/metrics", self.metrics)]

    async def metrics(self, _: Request) -> Response:
        text = await fetch(self._path)
        headers = {"Cache-Control": "no-store", "Content-Type": KIND}
        return Response(AWAY if text is None else text, headers=headers)


async def fetch(path: Path) -> bytes | None:
    """Return the metrics of the service that answers on a Unix socket; None if none does."""
    try:
        async with asyncio.timeout(WAIT_S):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                return await _ask(reader, writer)
            finally:
                writer.close()
    except (OSError, TimeoutError, h11.RemoteProtocolError):
        return None


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes | None:
    http = h11.Connection(h11.CLIENT)
    request = h11.Request(method="GET", target="/metrics", headers=[("Host", "service"), ("Connection", "close")])
    writer.write((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
    content, status = b"", 0
    while not isinstance(event := http.next_event(), h11.EndOfMessage | h11.ConnectionClosed):
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(MOST_BYTES))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            content += event.data
    return content if status == HTTPStatus.OK else None
