"""Shared by all pages: the store, the live state, templates in two languages, and the current user."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import cache
from hashlib import file_digest, sha256
from importlib.metadata import distribution, version
from importlib.resources import files
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response

from config import StoreConfig
from edge.access.users import Role, Users
from edge.days.period import AGAINST, PARAMETERS, SPANS, Period, parse
from edge.reports.columns import COLUMNS
from edge.store.business_days import business_days
from edge.store.clock import Clock
from edge.store.errors import Trouble
from edge.store.live_state import LiveClient, Now, State
from edge.web.answers import Answers
from edge.web.drawings.hours import bars
from edge.web.drawings.now import Picture, clock_time, take
from edge.web.drawings.plan import plans
from edge.web.drawings.tiers import tier_class, tier_styles
from edge.words.languages import HTML_LANG, LANGUAGES, catalogue, named, negotiate, reason
from edge.words.numbers import duration, in_words, local, number, percent
from edge.words.tables import Words, pick

if TYPE_CHECKING:  # NumPy is imported with the first day
    from edge.days.summary import Summary

MAX_FORM_BYTES = 65_536
MAX_FIELDS = 600
FORM_S = 10.0
"""Time limit for receiving a form."""
REGIONS = (*("status", "figures", "members", "recognitions", "readers", "sync", "machinery", "backlog", "cues"),)
"""Regions about members show individuals to managers only, and counts to other users."""
LEAST_DAY_US = 3_600_000_000
"""A session that begins so shortly before the end of a business day lasts until the end of the next."""


@dataclass(frozen=True)
class Who:
    """The current user. Until users are created, everyone on the machine itself is an unnamed viewer.

    `pin`: the user has a PIN. `locked`: it is needed; until then, the user is a viewer.
    """

    name: str
    role: Role
    csrf: str
    pin: bool = False
    locked: bool = False

    @property
    def manager(self) -> bool:
        return self.role is Role.MANAGER

    @property
    def it(self) -> bool:
        return self.role is Role.IT


@dataclass
class _Regions:
    version: int
    picture: Picture
    html: dict[str, str]


class Site:
    """State shared by the handlers of all pages; created once."""

    def __init__(self, config: StoreConfig, live: LiveClient, clock: Clock, users: Users) -> None:
        self.config = config
        self.live = live
        self.clock = clock
        self.users = users
        self.plans = plans(config)
        self.answers = Answers(config)
        self.static = _static_files()
        self.tier_styles = tier_styles(config)
        self._regions: dict[tuple[str, bool], _Regions] = {}
        self.templates = {lang: self._environment(lang) for lang in LANGUAGES}

    def render(self, request: Request, template: str, code: int = 200, **values: Any) -> HTMLResponse:
        """Render a page in the request's language; never cached."""
        lang = language(request)
        html = (
            self.templates[lang]
            .get_template(template)
            .render(
                path=request.scope["path"],
                query=_kept_query(request),
                chosen=_chosen(request),
                who=who(request),
                **({"period": self._kept_period(request, code)} | values),
            )
        )
        response = HTMLResponse(
            html,
            code,
            headers={"Cache-Control": "no-store", "Vary": "Accept-Language, Cookie", "Content-Language": lang},
        )
        if request.query_params.get("lang") in LANGUAGES:
            set_cookie(request, response, "lang", lang, 31_536_000)
        return response

    def _kept_period(self, request: Request, code: int) -> Period:
        """Return the days that the page's links keep; on the page of an error, those of today if they are the error."""
        try:
            return self.period(request)
        except Trouble:
            if code < 400:
                raise
            return parse({}, self.business_date(), self.config)

    def regions(self, lang: str, manager: bool, names: Iterable[str]) -> dict[str, str]:
        """Render live regions of pages as HTML, for managers or for other users.

        Each region is rendered once per change, for any number of clients.
        """
        kept = self._regions.get((lang, manager))
        if kept is None or kept.version != self.live.version:
            picture = take(self.config, self.plans, self.live, lang, manager=manager)
            kept = self._regions[lang, manager] = _Regions(self.live.version, picture, {})
        for name in names:
            if name not in kept.html:
                kept.html[name] = self._region(lang, name, kept.picture)
        return {name: kept.html[name] for name in names}

    def _region(self, lang: str, name: str, picture: Picture) -> str:
        template, _, floor_id = name.partition("-")
        values: dict[str, Any] = {"picture": picture}
        if floor_id:
            values["floor"] = next(floor for floor in picture.floors if floor.plan.id == floor_id)
        return self.templates[lang].get_template(f"_{template}.html").render(values)

    def region_names(self) -> tuple[str, ...]:
        """Names of all regions."""
        return (*REGIONS, *(f"plan-{plan.id}" for plan in self.plans))

    async def day(self, request: Request, *, summed: bool = False) -> dict[str, Any]:
        """Return the template values common to all pages of a period: how much is known of it.

        `summed`: also its summary.
        """
        period = self.period(request)
        head = await run_in_threadpool(self.answers.head, period.last, period.days)
        as_of = None if head is None else local(self.config, head.as_of_us)
        if head is None or as_of is None or head.as_of_us is None:
            state = "nothing"
        elif head.as_of_us <= self.bounds_us(period.first)[0]:
            state = "future"
        elif head.unseen:
            state = "unseen"
        else:
            state = "ok"
        summary = await self.summary(period) if summed else None
        against = None
        if state == "ok" and period.compared is not None:
            against = await run_in_threadpool(self.answers.against, period.last, period.days, period.compared.last)
        return {
            "date": period.last,
            "days": period.days,
            "present": period.present,
            "head": head,
            "summary": summary,
            "as_of": as_of,
            "state": state,
            "beside": against,
        }

    def live_parts(self, request: Request, *names: str) -> dict[str, Any]:
        """Return the template values for showing and updating these regions."""
        someone = who(request)
        manager = someone is not None and someone.manager
        return {"live": self.regions(language(request), manager, ("status", *names)), "live_as_of": self.as_of()}

    def present(self) -> Now | None:
        """Return the latest live state, if the service is responding."""
        return self.live.now if self.live.state in (State.LIVE, State.STALE) else None

    def bounds_us(self, date: dt.date) -> tuple[int, int]:
        return business_days(self.config).bounds_us(date)

    def as_of(self) -> str:
        return clock_time(self.config, self.live.now.as_of_us) if self.live.now else ""

    def business_date(self) -> dt.date:
        return self.business_date_of(self.clock.now_us())

    def business_date_of(self, at_us: int) -> dt.date:
        return business_days(self.config).date(at_us)

    def day_left_s(self) -> float:
        """Return how long the business day still lasts, in real time."""
        now_us = self.clock.now_us()
        end_us = self.bounds_us(self.business_date_of(now_us + LEAST_DAY_US))[1]
        return (self.clock.wall_us(end_us) - self.clock.wall_us(now_us)) / 1e6

    def period(self, request: Request) -> Period:
        """Return the requested business days; default: the current one."""
        return parse(request.query_params, self.business_date(), self.config)

    async def summary(self, period: Period) -> Summary | None:
        return await run_in_threadpool(self.answers.summary, period.last, period.days)

    def zone_names(self, lang: str) -> dict[str, str]:
        return {zone.id: named(zone.name, lang) for zone in self.config.zones}

    def floor_names(self, lang: str) -> dict[str, str]:
        return {floor.id: named(floor.name, lang) for floor in self.config.floors}

    async def record(self, request: Request, action: str, object_: str = "") -> None:
        """Write a line to the audit log; does nothing if there are no users."""
        someone = who(request)
        if someone is not None and someone.name:
            await run_in_threadpool(
                self.users.record, someone.name, someone.role.value, address(request), action, object_
            )

    async def record_look(self, request: Request, action: str, object_: str = "") -> None:
        """Log that a list of individuals was viewed: at most once an hour for each list."""
        someone = who(request)
        if someone is not None and someone.name:
            look = (someone.name, someone.role.value, address(request), action, object_)
            await run_in_threadpool(self.users.record_look, *look)

    def _environment(self, lang: str) -> Environment:
        environment = Environment(
            loader=_compiled(),
            auto_reload=False,
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
            duration=lambda seconds: duration(seconds, lang),
            reason=lambda said: reason(said, lang),
            words=lambda seconds: in_words(seconds, lang),
            translated=catalogue(lang).gettext,
            clock=lambda us: clock_time(self.config, us),
            day=lambda us: f"{local(self.config, us):%Y-%m-%d}",
            moment=lambda us: f"{local(self.config, us):%m-%d %H:%M}",
        )
        zones, floors = self.zone_names(lang), self.floor_names(lang)
        environment.globals.update(
            lang=lang,
            spans=SPANS,
            ways_to_compare=AGAINST,
            html_lang=HTML_LANG[lang],
            store_name=named(self.config.store.name, lang),
            static=lambda name: f"/static/{name}?v={stamp(self.static[name])}",
            tagtrail_version=version("tagtrail"),
            zone_name=lambda id_: zones.get(id_, id_),
            floor_name=lambda id_: floors.get(id_, id_),
            columns=lambda table, *ids: pick(COLUMNS[table], *ids),
            words=Words(self.config, lang),
            bars=lambda chart: bars(chart, lang),
            tier_class=lambda tier: tier_class(self.config, tier),
            tiers_css=self.tier_styles and f"/static/tiers.css?v={sha256(self.tier_styles.encode()).hexdigest()[:12]}",
        )
        return environment


class _Compiled(PackageLoader):
    """Loader that compiles a template once for all; messages, filters and names are resolved at run time."""

    def __init__(self, package: str) -> None:
        super().__init__(package)
        self._codes: dict[str, CodeType] = {}

    def load(self, environment: Environment, name: str, globals: MutableMapping[str, Any] | None = None) -> Template:
        if name not in self._codes:
            source, path, _ = self.get_source(environment, name)
            self._codes[name] = environment.compile(source, name, path)
        return environment.template_class.from_code(environment, self._codes[name], globals or {})


@cache
def _compiled() -> _Compiled:
    """Return the loader of all environments, which are alike in what a template's code depends on."""
    return _Compiled("edge.web")


def language(request: Request) -> str:
    """Return the language of a request: from the query, the cookie, or the browser."""
    wanted = (request.query_params.get("lang"), request.cookies.get("lang"))
    return negotiate(request.headers.get("accept-language", ""), wanted)


def who(request: Request) -> Who | None:
    """Return the current user; None only on pages before login."""
    found: Who | None = getattr(request.state, "who", None)
    return found


def before(request: Request) -> int | None:
    """Return the number of the line of the audit log to continue below; None: start with the latest."""
    text = request.query_params.get("before")
    if text is not None and not (text.isdecimal() and text.isascii() and len(text) < 16):
        raise HTTPException(400)
    return None if text is None else int(text)


def require(request: Request, *roles: Role) -> Who:
    """Return the current user if it has one of these roles; otherwise 403."""
    someone = who(request)
    if someone is None or someone.role not in roles:
        raise HTTPException(403)
    return someone


def set_cookie(
    request: Request, response: Response, name: str, value: str, max_age: int | None = None, path: str = "/"
) -> None:
    """Set a cookie that scripts and other sites can't read; TLS-only if the page uses TLS."""
    secure = request.scope["scheme"] == "https"
    response.set_cookie(name, value, max_age=max_age, path=path, httponly=True, samesite="lax", secure=secure)


def address(request: Request) -> str:
    return request.client.host if request.client else ""


async def form(request: Request) -> dict[str, str]:
    """Read the fields of a form; 413 if it is too large, 408 if it does not arrive in time, 400 if it is malformed or
    cut off."""
    body = b""
    try:
        async with asyncio.timeout(FORM_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_FORM_BYTES:
                    raise HTTPException(413)
    except TimeoutError as error:
        raise HTTPException(408) from error
    except ClientDisconnect as error:  # else anyone could fill the log with tracebacks
        raise HTTPException(400) from error
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError as error:
        raise HTTPException(400) from error


@cache
def stamp(path: Path) -> str:
    """Return a short hash of a file, which must not change at run time."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()[:12]


def _chosen(request: Request) -> Mapping[str, str]:
    """Return what else was chosen on a page, which its links to other days keep."""
    return {key: value for key, value in _kept_query(request).items() if key not in (*PARAMETERS, "said", "wall")}


def _kept_query(request: Request) -> Mapping[str, str]:
    """Return the query parameters that are kept when the language is switched."""
    return {key: value for key, value in request.query_params.items() if key != "lang"}


def _static_files() -> dict[str, Path]:
    """Map names to static files: our own, and plotly.min.js from the installed wheel, without importing plotly."""
    ours = {path.name: Path(str(path)) for path in files("edge.web").joinpath("static").iterdir()}
    return ours | {"plotly.min.js": Path(str(distribution("plotly").locate_file("plotly/package_data/plotly.min.js")))}
