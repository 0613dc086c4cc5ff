"""The page's application: routes, languages, headers. What it shows comes from the database or the live socket."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import re
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from functools import cache
from hashlib import sha256
from importlib.metadata import distribution, version
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from config import StoreConfig
from edge.clock import Clock
from edge.errors import Trouble
from edge.summary import NoDatabase, Summary, business_days, connect, parse_date, today
from edge.summary_forms import TABLES, as_csv, as_json, duration, local, number, percent
from edge.web.charts import dwell_bands, sankey, traffic_charts
from edge.web.i18n import HTML_LANG, LANGUAGES, catalogue, named, negotiate
from edge.web.live_client import LiveClient
from edge.web.picture import LEVELS, clock_time, mask, take
from edge.web.plan import plans

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
HEARTBEAT_S = 2.0
"""Longest silence of `/events`; a browser that hears nothing for longer says so."""
FRESH_S = 5.0
"""How long a summary of a day that still changes is served again."""
KEPT_DAYS = 8
IMMUTABLE = "public, max-age=31536000, immutable"


def create_app(config: StoreConfig, live: LiveClient, clock: Clock, hosts: list[str]) -> Starlette:
    """The application. `hosts`: names that a browser may call it by; another name is another site's trick."""
    page = _Pages(config, live, clock)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        reading = asyncio.create_task(live.run())
        try:
            yield
        finally:
            reading.cancel()

    return Starlette(
        routes=[
            Route("/", page.now),
            Route("/today", page.today),
            Route("/about", page.about),
            Route("/events", page.events),
            Route("/api/now", page.api_now),
            Route("/api/today", page.api_today),
            Route("/csv/{table}", page.csv),
            Route("/static/{name}", page.static),
        ],
        middleware=[
            Middleware(_Headers),
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
            Middleware(GZipMiddleware, minimum_size=1024, compresslevel=5),
        ],
        exception_handlers={HTTPException: page.error, Trouble: page.error, Exception: page.error},
        lifespan=lifespan,
    )


class _Pages:
    def __init__(self, config: StoreConfig, live: LiveClient, clock: Clock) -> None:
        self._config = config
        self._live = live
        self._clock = clock
        self._plans = plans(config)
        self._days = _Days(config)
        self._static = _static_files()
        self._templates = {lang: self._environment(lang) for lang in LANGUAGES}
        self._regions: dict[str, tuple[int, dict[str, str]]] = {}

    # Pages

    async def now(self, request: Request) -> Response:
        lang = _language(request)
        regions = self._render_regions(lang)
        return self._page(request, "now.html", regions=regions, plans=self._plans, as_of=self._as_of(), levels=LEVELS)

    async def today(self, request: Request) -> Response:
        lang = _language(request)
        present = self._business_date()
        date = self._date(request) or present
        summary = await self._summary(date)
        config = self._config
        drawn: dict[str, Any] = {"charts": (), "dwell": (), "sankey": "{}"}
        if summary is not None:
            drawn["charts"] = traffic_charts(config, summary, lang)
            drawn["dwell"] = dwell_bands(config, summary, lang)
            drawn["sankey"] = sankey(config, summary.flows, lang)
        return self._page(
            request,
            "today.html",
            summary=summary,
            date=date,
            present=present,
            as_of=None if summary is None else local(config, summary.as_of_us),
            zones={zone.id: named(zone.name, lang) for zone in config.zones},
            plotly_styles=_plotly_styles(self._static["plotly.min.js"]),
            **drawn,
        )

    async def about(self, request: Request) -> Response:
        return self._page(request, "about.html", limits=self._config.thresholds)

    async def events(self, request: Request) -> Response:
        """Server-sent events: `regions` {id: HTML} with what changed, `beat` when nothing did."""
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._events(_language(request)), headers=headers, media_type="text/event-stream")

    async def _events(self, lang: str) -> AsyncIterator[str]:
        sent: dict[str, str] = {}
        yield "retry: 2000\n\n"
        while not self._live.closing:
            version = self._live.version
            regions = self._render_regions(lang)
            changed = {name: html for name, html in regions.items() if sent.get(name) != html}
            if changed:
                sent = regions
                yield _event("regions", {"as_of": self._as_of(), "regions": changed})
            else:
                yield _event("beat", {"as_of": self._as_of()})
            await self._quiet(lang, version, sent)

    async def _quiet(self, lang: str, version: int, sent: Mapping[str, str]) -> None:
        """Waits until a region differs from what was sent, or a heartbeat is due."""
        deadline = time.monotonic() + HEARTBEAT_S
        while (left := deadline - time.monotonic()) > 0 and not self._live.closing:
            if not await self._live.wait(version, left) or self._render_regions(lang) != sent:
                return
            version = self._live.version

    # For programs

    async def api_now(self, _: Request) -> Response:
        now = self._live.now
        told: dict[str, Any] = {"state": self._live.state.value, "service": None}
        if now is not None:
            told["service"] = now.model_dump(exclude={"pid"})
            for who in (*told["service"]["members"], *told["service"]["recognitions"]):
                who["member"] = mask(who["member"])
        return JSONResponse(told, headers={"Cache-Control": "no-store"})

    async def api_today(self, request: Request) -> Response:
        summary = await self._summary(self._date(request) or self._business_date())
        if summary is None:
            return JSONResponse({"error": "there is no database yet"}, 503)
        return Response(as_json(summary, self._live.now), media_type="application/json")

    async def csv(self, request: Request) -> Response:
        table = request.path_params["table"]
        date = self._date(request) or self._business_date()
        if table not in TABLES:
            raise HTTPException(404)
        summary = await self._summary(date)
        if summary is None:
            raise HTTPException(503)
        name = f"tagtrail-{self._config.store.id}-{table}-{date}.csv"
        return Response(
            as_csv(summary, self._config, _language(request), table),
            media_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    async def static(self, request: Request) -> Response:
        path = self._static.get(request.path_params["name"])
        if path is None:
            raise HTTPException(404)
        cached = IMMUTABLE if request.query_params.get("v") == _stamp(path) else "no-cache"
        return FileResponse(path, headers={"Cache-Control": cached})

    async def error(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 400 if isinstance(error, Trouble) else 500
        said = str(error) if isinstance(error, Trouble) else ""
        if request.url.path.startswith("/api/"):
            return JSONResponse({"error": said or HTTPException(status).detail}, status)
        response = self._page(request, "error.html", status=status, said=said)
        response.status_code = status
        return response

    # Parts

    def _environment(self, lang: str) -> Environment:
        environment = Environment(
            loader=PackageLoader("edge.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.i18n"],
        )
        environment.install_gettext_translations(catalogue(lang), newstyle=True)  # type: ignore[attr-defined]
        environment.filters.update(
            number=number,
            percent=percent,
            duration=duration,
            clock=lambda us: clock_time(self._config, us),
        )
        environment.globals.update(
            lang=lang,
            html_lang=HTML_LANG[lang],
            store_name=named(self._config.store.name, lang),
            static=lambda name: f"/static/{name}?v={_stamp(self._static[name])}",
            tagtrail_version=version("tagtrail"),
        )
        return environment

    def _page(self, request: Request, template: str, **values: Any) -> HTMLResponse:
        lang = _language(request)
        query = {key: value for key, value in request.query_params.items() if key == "date"}
        html = self._templates[lang].get_template(template).render(path=request.url.path, query=query, **values)
        response = HTMLResponse(
            html, headers={"Cache-Control": "no-store", "Vary": "Accept-Language, Cookie", "Content-Language": lang}
        )
        if request.query_params.get("lang") in LANGUAGES:
            response.set_cookie("lang", lang, max_age=31_536_000, httponly=True, samesite="lax")
        return response

    def _render_regions(self, lang: str) -> dict[str, str]:
        """The parts of "Now" that live, as HTML; rendered once a language however many screens look."""
        kept = self._regions.get(lang)
        if kept is not None and kept[0] == self._live.version:
            return kept[1]
        picture = take(self._config, self._plans, self._live, lang)
        templates = self._templates[lang]
        regions = {
            name: templates.get_template(f"_{name}.html").render(picture=picture)
            for name in ("status", "figures", "members", "recognitions", "readers", "sync")
        }
        plan = templates.get_template("_plan.html")
        regions |= {f"plan-{floor.plan.id}": plan.render(picture=picture, floor=floor) for floor in picture.floors}
        self._regions[lang] = (self._live.version, regions)
        return regions

    def _as_of(self) -> str:
        return clock_time(self._config, self._live.now.as_of_us) if self._live.now else ""

    def _business_date(self) -> dt.date:
        return business_days(self._config).date(self._clock.now_us())

    def _date(self, request: Request) -> dt.date | None:
        text = request.query_params.get("date")
        return parse_date(text) if text else None

    async def _summary(self, date: dt.date) -> Summary | None:
        return await run_in_threadpool(self._days.get, date)


class _Days:
    """Summaries of days, kept while they can't have changed much."""

    def __init__(self, config: StoreConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._kept: OrderedDict[dt.date, tuple[float, Summary]] = OrderedDict()

    def get(self, date: dt.date) -> Summary | None:
        """The summary of a day, None while there is no database."""
        with self._lock:
            kept = self._kept.get(date)
            if kept is not None and (kept[1].complete or time.monotonic() - kept[0] < FRESH_S):
                return kept[1]
            try:
                with closing(connect(self._config)) as conn:
                    summary = today(conn, self._config, date)
            except NoDatabase:
                return None
            except sqlite3.Error as error:
                raise Trouble(f"cannot read the database: {error}") from error
            self._kept[date] = (time.monotonic(), summary)
            self._kept.move_to_end(date)
            while len(self._kept) > KEPT_DAYS:
                self._kept.popitem(last=False)
            return summary


class _Headers:
    """Puts HEADERS on every response, streams included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self._app(scope, receive, sending)


def _language(request: Request) -> str:
    wanted = (request.query_params.get("lang"), request.cookies.get("lang"))
    return negotiate(request.headers.get("accept-language", ""), wanted)


def _event(name: str, told: Mapping[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(told, ensure_ascii=False)}\n\n"


def _static_files() -> dict[str, Path]:
    """Name → file: ours, and plotly.min.js of the installed wheel, found without importing plotly."""
    ours = {path.name: Path(str(path)) for path in files("edge.web").joinpath("static").iterdir()}
    return ours | {"plotly.min.js": Path(str(distribution("plotly").locate_file("plotly/package_data/plotly.min.js")))}


@cache
def _stamp(path: Path) -> str:
    """Short hash of a file that never changes while we run."""
    return sha256(path.read_bytes()).hexdigest()[:12]


@cache
def _plotly_styles(path: Path) -> tuple[str, ...]:
    """Ids of style elements that Plotly inserts unless they are there: the CSP forbids it, so the page has them."""
    guarded = re.findall(r'getElementById\("([0-9a-f]{64})"\)', path.read_text("utf-8"))
    return ("plotly.js-style-global", *sorted(set(guarded)))
