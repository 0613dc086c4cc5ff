"""Access control of the page: session cookies; for programs tokens or HTTP Basic; login and logout; CSRF protection.

- Until the first user is created, the page on loopback is open to everyone as a viewer, and says so. On any other
  address, behind a proxy, and once there has been a user, it only shows how to create one.
- A form sent after its session has ended is kept in the login page. After login it is sent by one more press: nothing
  entered is lost, and nothing is done in the name of someone else who logs in. The same with a session that is locked.
- A locked session has the rights of a viewer until its user's PIN is entered; see edge.access.users.
- A form counts only if it comes from this site (Origin, Sec-Fetch-Site) and carries the session's token. The form of
  the login, before any session, carries the token of a cookie that only a visit of the login page sets.
- A program's token reads figures and downloads as a viewer does: GET only, and no individual members.
- Paths are taken from the scope, which is used for routing, because `request.url` also depends on the Host header.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge.access.users import DEVICE_S, IDLE_S, Role, Throttled
from edge.store.errors import Trouble
from edge.web.site import Site, Who, address, form, set_cookie, who

COOKIE = "tagtrail"
FORM_COOKIE = "tagtrail-form"
DEVICE_BYTES, DEVICE_CHARS = 24, 32
DEVICE_COOKIE = "tagtrail-device"
"""Cookie of a browser in which users have logged in: wrong passwords elsewhere don't lock them out of it."""
BASIC_S = 60.0
"""How long a verified password of a program is cached."""
HELD = "held-"
"""Prefix of the fields of a form that waits for login."""
FORMS = (
    "/service/cue",
    "/service/look",
    "/service/case",
    "/service/rules",
    "/service/rules/back",
    "/members/look",
    "/quality/verdict",
)
"""Forms that are kept until their sender has logged in again."""
UNLOCK = "/unlock"
BACKS = ("/", "/service")
"""Pages with buttons for cues, to which an answer leads back."""
BY_BASIC = ("/api/", "/metrics")
"""Paths with HTTP Basic for programs."""
BY_TOKEN = (*BY_BASIC, "/export/")
"""Paths with tokens of programs."""
FOR_PROGRAMS = (*BY_TOKEN, "/events")


Held = tuple[str, Mapping[str, str]]
"""A form that waits for login: path and fields."""


class Gate:
    """Middleware: puts a Who on every request that may pass, and answers the others.

    `alone`: requests can come from this machine only.
    """

    def __init__(self, app: ASGIApp, site: Site, alone: bool) -> None:
        self._app = app
        self._site = site
        self._alone = alone
        self._basic: dict[bytes, tuple[float, Who]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/static/"):
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            answer = await self._refusal(request)
        except Trouble as trouble:
            answer = JSONResponse({"error": str(trouble)}, 503)
        await (answer or self._app)(scope, receive, self._renewing(request, send))

    async def _refusal(self, request: Request) -> Response | None:
        path = request.scope["path"]
        if request.method not in ("GET", "HEAD") and not self._from_here(request):
            return JSONResponse({"error": "this form comes from another site"}, 403)
        someone = await self._known(request)
        request.state.who = someone
        if someone is not None and someone.locked and request.method == "POST" and path in FORMS:
            try:
                fields = await form(request)
            except HTTPException:
                return RedirectResponse(UNLOCK, 303)
            return ask_for_pin(self._site, request, target=way_back(fields, back_of(path)), held=(path, fields))
        if someone is not None or path == "/login":
            return None
        if not self._site.users.anyone():
            return self._site.render(request, "setup.html", 403, lost=self._site.users.ever())
        if request.method == "POST" and path in (*FORMS, UNLOCK):
            try:
                fields = await form(request)
            except HTTPException:
                return RedirectResponse("/login", 303)
            if path == UNLOCK:  # the day has ended meanwhile
                target, held = inside(fields.get("next", "/")), held_of(fields)
            else:
                target, held = way_back(fields, back_of(path)), (path, fields)
            return ask_to_log_in(self._site, request, target=target, held=held)
        if path.startswith(FOR_PROGRAMS):
            # Without Basic for downloads, or browsers would ask for a password in a window of their own.
            ways = ['Basic realm="tagtrail"'] * path.startswith(BY_BASIC) + ["Bearer"] * path.startswith(BY_TOKEN)
            error = "log in" if _bearer(request) is None else "this token is unknown, revoked or has expired"
            return JSONResponse({"error": error}, 401, {"WWW-Authenticate": ", ".join(ways)} if ways else {})
        if request.method not in ("GET", "HEAD"):
            return RedirectResponse("/login", 303)
        target = quote(path) + (f"?{request.scope['query_string'].decode()}" if request.scope["query_string"] else "")
        return RedirectResponse(f"/login?next={quote(target)}", 303)

    async def _known(self, request: Request) -> Who | None:
        users = self._site.users
        if not users.ever():
            return Who("", Role.VIEWER, "") if self._alone else None
        session = users.session(request.cookies.get(COOKIE, ""), watching=request.scope["path"] == "/events")
        if session is not None:
            role = Role.VIEWER if session.locked else session.role
            return Who(session.name, role, session.csrf, session.pin, session.locked)
        if _bearer(request) is not None:
            return await self._by_token(request)
        if request.scope["path"].startswith(BY_BASIC):
            return await self._by_basic(request)
        return None

    async def _by_token(self, request: Request) -> Who | None:
        path = request.scope["path"]
        if request.method not in ("GET", "HEAD") or not path.startswith(BY_TOKEN):
            return None
        users, at = self._site.users, address(request)
        program = await run_in_threadpool(users.program, _bearer(request) or "")
        if program is None:
            await run_in_threadpool(users.record_refused, at)
            return None
        # No user can have this name, because a colon is not allowed in one.
        someone = Who(f"token:{program.name}", Role.VIEWER, "")
        await run_in_threadpool(users.record_look, someone.name, someone.role.value, at, "token used", path)
        return someone

    async def _by_basic(self, request: Request) -> Who | None:
        scheme, _, coded = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            name, _, password = base64.b64decode(coded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        user = next((user for user in self._site.users.users() if user.name == name), None)
        proof = hashlib.sha256(f"{name}\0{password}\0{user and user.changed_s}".encode()).digest()
        kept = self._basic.get(proof)
        if kept and time.monotonic() - kept[0] < BASIC_S:
            return kept[1]
        users, at = self._site.users, address(request)
        # Programs keep no cookies, so they are identified by name and address.
        device = f"basic {name} {at}"
        try:
            token = await run_in_threadpool(users.log_in, name, password, at, device)
        except Throttled:
            await run_in_threadpool(users.record_throttled, name, at)
            return None
        if token is None or user is None:
            await run_in_threadpool(users.record, name, "", at, "login failed")
            return None
        users.log_out(token)
        await run_in_threadpool(users.trust, name, device)
        self._basic = {key: value for key, value in self._basic.items() if time.monotonic() - value[0] < BASIC_S}
        self._basic[proof] = (time.monotonic(), Who(name, user.role, ""))
        return self._basic[proof][1]

    def _renewing(self, request: Request, send: Send) -> Send:
        """Send the session cookie again with every page, so that it lasts as long as the session."""
        token = request.cookies.get(COOKIE, "")

        async def sending(message: Message) -> None:
            someone = who(request)
            renews = someone is not None and someone.csrf and not someone.locked
            if message["type"] == "http.response.start" and someone is not None and renews and token:
                headers = MutableHeaders(scope=message)
                if not any(line.startswith(f"{COOKIE}=") for line in headers.getlist("set-cookie")):
                    renewed = Response()
                    set_cookie(request, renewed, COOKIE, token, IDLE_S[someone.role])
                    headers.append("set-cookie", renewed.headers["set-cookie"])
            await send(message)

        return sending

    def _from_here(self, request: Request) -> bool:
        site = request.headers.get("sec-fetch-site")
        if site is not None and site != "same-origin":
            return False
        origin = request.headers.get("origin")
        own = f"{request.scope['scheme']}://{request.headers.get('host')}"
        return origin is None or origin.casefold() in (own.casefold(), (self._site.config.web.public or own).casefold())


class Login:
    """Pages before login."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.routes = [
            Route("/login", self.ask),
            Route("/login", self.log_in, methods=["POST"]),
            Route("/logout", self.log_out, methods=["POST"]),
        ]

    async def ask(self, request: Request) -> Response:
        if who(request) is not None:
            return RedirectResponse(inside(request.query_params.get("next", "/")), 303)
        return self._form(request)

    async def log_in(self, request: Request) -> Response:
        fields = await form(request)
        name, target = fields.get("name", ""), inside(fields.get("next", "/"))
        held = held_of(fields)
        cookie = request.cookies.get(FORM_COOKIE, "")
        if not cookie or not hmac.compare_digest(cookie.encode(), fields.get("csrf", "").encode()):
            return self._form(request, name, target, "again", 403, held)
        users, at = self._site.users, address(request)
        device = request.cookies.get(DEVICE_COOKIE, "")
        try:
            token = await run_in_threadpool(
                users.log_in, name, fields.get("password", ""), at, device, self._site.day_left_s()
            )
        except Throttled as throttled:
            await run_in_threadpool(users.record_throttled, name, at)
            refused = self._form(request, name, target, "wait", 429, held)
            refused.headers["Retry-After"] = str(int(throttled.wait_s) + 1)
            return refused
        if token is None:
            if users.anyone():
                await run_in_threadpool(users.record, name, "", at, "login failed")
            return self._form(request, name, target, "wrong", 403, held)
        session = users.session(token)
        role = session.role if session else Role.VIEWER
        await run_in_threadpool(users.record, name, role.value, at, "login")
        await run_in_threadpool(users.prune)
        if len(device) != DEVICE_CHARS:
            device = secrets.token_urlsafe(DEVICE_BYTES)
        await run_in_threadpool(users.trust, name, device)
        response: Response = RedirectResponse(target, 303)
        if held is not None and session is not None:
            request.state.who = Who(session.name, session.role, session.csrf)
            path, kept = held
            response = self._site.render(request, "held.html", action=path, kept=kept, back=target, unlocked=False)
        set_cookie(request, response, COOKIE, token, IDLE_S[role])
        set_cookie(request, response, DEVICE_COOKIE, device, DEVICE_S, path="/login")
        response.delete_cookie(FORM_COOKIE, path="/login")
        return response

    async def log_out(self, request: Request) -> Response:
        await check_form(request)
        await self._site.record(request, "logout")
        self._site.users.log_out(request.cookies.get(COOKIE, ""))
        response = RedirectResponse("/login", 303)
        response.delete_cookie(COOKIE)
        return response

    def _form(
        self,
        request: Request,
        name: str = "",
        target: str = "",
        failed: str = "",
        status: int = 200,
        held: Held | None = None,
    ) -> Response:
        target = target or inside(request.query_params.get("next", "/"))
        return ask_to_log_in(self._site, request, name, target, failed, status, held)


def ask_to_log_in(
    site: Site,
    request: Request,
    name: str = "",
    target: str = "/",
    failed: str = "",
    status: int = 403,
    held: Held | None = None,
) -> Response:
    """Render the login page. `held`: a form that can be sent after login; `target`: the page after login."""
    token = secrets.token_urlsafe(24)
    action, kept = held or ("", {})
    values = {"csrf": token, "name": name, "next": target, "failed": failed, "action": action, "kept": kept}
    response = site.render(request, "login.html", status, **values, prefix=HELD)
    set_cookie(request, response, FORM_COOKIE, token, path="/login")
    return response


def ask_for_pin(
    site: Site, request: Request, target: str = "/", wrong: bool = False, status: int = 403, held: Held | None = None
) -> Response:
    """Render the page on which a locked session is unlocked. `held`: a form that can be sent then."""
    action, kept = held or ("", {})
    values = {"next": target, "wrong": wrong, "action": action, "kept": kept, "prefix": HELD}
    return site.render(request, "unlock.html", status, **values)


def way_back(fields: Mapping[str, str], otherwise: str) -> str:
    """Return the page from which a form was sent, if it says so."""
    return fields["back"] if fields.get("back") in BACKS else otherwise


def back_of(path: str) -> str:
    """Return the page with the form that is sent to this path."""
    return (
        "/service/rules"
        if path == "/service/rules/back"
        else path
        if path == "/service/rules"
        else path[: path.rindex("/")]
    )


async def check_form(request: Request) -> dict[str, str]:
    """Read the fields of a logged-in user's form; 403 unless it carries the session's token."""
    fields = await form(request)
    someone = who(request)
    if (
        someone is None
        or not someone.csrf
        or not hmac.compare_digest(someone.csrf.encode(), fields.get("csrf", "").encode())
    ):
        raise HTTPException(403)
    return fields


def _bearer(request: Request) -> str | None:
    """Return the token of a request of a program (RFC 6750); None if it has none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def held_of(fields: Mapping[str, str]) -> Held | None:
    """Return the form that waits in the fields of a login, or None."""
    path = fields.get("held", "")
    if path not in FORMS:
        return None
    return path, {key.removeprefix(HELD): value for key, value in fields.items() if key.startswith(HELD)}


def inside(target: str) -> str:
    """Restrict a redirect target to this site, to prevent redirects to other sites after login."""
    parts = urlsplit(target)
    good = target.startswith("/") and not target.startswith(("//", "/\\")) and not parts.netloc and not parts.scheme
    return target if good and target.isprintable() and "\\" not in target else "/"
