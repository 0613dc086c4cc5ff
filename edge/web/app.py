"""Web application of the page: routes, headers, errors. Its data comes from the database and the live socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio.to_thread import current_default_thread_limiter
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from config import StoreConfig
from edge.access.users import Users, users_path
from edge.reports.document import STYLE
from edge.store.clock import Clock
from edge.store.errors import Trouble
from edge.store.live_state import LiveClient
from edge.web.exports.files import Exports
from edge.web.exports.metrics import Metrics
from edge.web.gate import FOR_PROGRAMS, Gate, Login
from edge.web.pages.day import DayPages
from edge.web.pages.now import NowPages
from edge.web.pages.people import PeoplePages
from edge.web.pages.pin import PinPages
from edge.web.pages.plan import PlanPages
from edge.web.pages.quality import QualityPages
from edge.web.pages.rules import RulesPages
from edge.web.pages.service import ServicePages
from edge.web.site import Site, stamp

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
THREADS = 2
"""Threads for database queries; more would not help, because queries are serialised and each thread needs memory."""
IMMUTABLE = "public, max-age=31536000, immutable"


def create_app(config: StoreConfig, live: LiveClient, clock: Clock, hosts: list[str]) -> Starlette:
    """Create the application.

    `hosts`: accepted Host headers, `*` unless it listens on loopback only; this prevents DNS rebinding by other sites.
    """
    users = Users(users_path(config))
    site = Site(config, live, clock, users)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        current_default_thread_limiter().total_tokens = THREADS
        reading = asyncio.create_task(live.run())
        try:
            yield
        finally:
            reading.cancel()
            users.close()

    async def static(request: Request) -> Response:
        if request.path_params["name"] == "tiers.css":
            return Response(site.tier_styles, media_type="text/css", headers={"Cache-Control": "no-cache"})
        if request.path_params["name"] == "document.css":
            return Response(STYLE, media_type="text/css", headers={"Cache-Control": "no-cache"})
        path = site.static.get(request.path_params["name"])
        if path is None:
            raise HTTPException(404)
        cached = IMMUTABLE if request.query_params.get("v") == stamp(path) else "no-cache"
        return FileResponse(path, headers={"Cache-Control": cached})

    async def error(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 400 if isinstance(error, Trouble) else 500
        said = str(error) if isinstance(error, Trouble) else ""
        if request.scope["path"].startswith(FOR_PROGRAMS):
            return JSONResponse({"error": said or HTTPException(status).detail}, status)
        return site.render(request, "error.html", status, status=status, said=said)

    return Starlette(
        routes=[
            *NowPages(site).routes,
            *DayPages(site).routes,
            *PlanPages(site).routes,
            *PeoplePages(site).routes,
            *ServicePages(site).routes,
            *RulesPages(site).routes,
            *QualityPages(site).routes,
            *PinPages(site).routes,
            *Exports(site).routes,
            *Metrics(site).routes,
            *Login(site).routes,
            Route("/static/{name}", static),
        ],
        middleware=[
            Middleware(_Headers),
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
            Middleware(GZipMiddleware, minimum_size=1024, compresslevel=5),
            Middleware(Gate, site=site, alone="*" not in hosts and config.web.public is None),
        ],
        exception_handlers={HTTPException: error, Trouble: error, Exception: error},
        lifespan=lifespan,
    )


class _Headers:
    """Middleware that adds HEADERS to every response, including streams; those that one has itself are kept."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, sending)
