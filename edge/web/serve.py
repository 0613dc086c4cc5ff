"""Run the page's server."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.types import ASGIApp

from config import StoreConfig
from edge.access.page_file import prove
from edge.access.users import users_path
from edge.store.clock import Clock
from edge.store.errors import Trouble
from edge.store.live_socket import socket_path
from edge.store.live_state import LiveClient
from edge.store.page_socket import listen
from edge.web import memory
from edge.web.app import create_app
from edge.web.patience import REQUEST_S, Patience

BACKLOG = 64
"""Maximum number of connections that asyncio accepts at once, before any of them can be closed in favour of newer ones:
more could use up all file descriptors, and each failure to accept is logged."""
LOCAL_NAMES = ["localhost", "127.0.0.1", "[::1]", "::1"]


def serve(config: StoreConfig, *, fd: int | None, clock: Clock) -> None:
    """Serve the page until SIGTERM or SIGINT, on an inherited listening socket or on [web] listen."""
    if config.web.cert is not None and config.web.key is not None:
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(config.web.cert, config.web.key)
        except (OSError, ssl.SSLError) as error:
            raise Trouble(f"the page's certificate {config.web.cert} can't be used with its key: {error}") from error
    memory.begin()
    with contextlib.suppress(Trouble):  # already reported; the page stays closed
        prove(users_path(config))
    listening = socket.socket(fileno=fd) if fd is not None else listen(config.web.listen)
    with asyncio.Runner(loop_factory=_Loop) as runner:
        runner.run(_serve(config, listening, clock))


async def _serve(config: StoreConfig, listening: socket.socket, clock: Clock) -> None:
    live = LiveClient(socket_path(config))
    app = create_app(config, live, clock, hosts(config, listening))
    await _Server(settings(config, app), live, asyncio.get_running_loop()).serve(sockets=[listening])


def settings(config: StoreConfig, app: ASGIApp) -> uvicorn.Config:
    """Return the settings of the server. Forwarded client addresses are accepted from the configured proxy only."""
    proxies = [str(address) for address in config.web.proxies]
    return uvicorn.Config(
        app,
        loop="asyncio",
        http=type("Patience", (Patience,), {"proxies": frozenset(proxies if config.web.public else ())}),
        ws="none",
        log_config=None,
        log_level="error",  # otherwise strangers could fill the log with invalid requests
        access_log=False,
        backlog=BACKLOG,
        server_header=False,
        proxy_headers=config.web.public is not None,
        forwarded_allow_ips=proxies,
        ssl_certfile=config.web.cert,
        ssl_keyfile=config.web.key,
        timeout_graceful_shutdown=2,
    )


class _Loop(asyncio.SelectorEventLoop):
    """Event loop with the time limit of a request for TLS handshakes; uvicorn allows a minute."""

    async def create_server(self, *args: Any, **options: Any) -> Any:
        if options.get("ssl"):
            options.setdefault("ssl_handshake_timeout", REQUEST_S)
        return await super().create_server(*args, **options)


class _Server(uvicorn.Server):
    """Server that ends streams on shutdown, because uvicorn would wait for them forever."""

    def __init__(self, settings: uvicorn.Config, live: LiveClient, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(settings)
        self._live = live
        self._loop = loop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
        self._loop.call_soon_threadsafe(self._live.close)


def hosts(config: StoreConfig, listening: socket.socket) -> list[str]:
    """Return the accepted host names; on loopback only its own, to prevent access by other sites in a browser."""
    if listening.family in (socket.AF_INET, socket.AF_INET6):
        address = listening.getsockname()[0]
        if ipaddress.ip_address(address).is_loopback:
            public = urlsplit(config.web.public or "").hostname
            return [*LOCAL_NAMES, address, *([public] if public else [])]
    return ["*"]
