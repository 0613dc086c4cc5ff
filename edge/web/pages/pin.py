"""PIN of a user: set and removed with the password, and entered to unlock a session that was not used for a while."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from edge.access.users import LOCK_S, PIN_DIGITS, Role, Throttled
from edge.store.errors import Trouble
from edge.web.gate import COOKIE, UNLOCK, ask_for_pin, ask_to_log_in, check_form, held_of, inside
from edge.web.site import Site, Who, address, require, who


class PinPages:
    def __init__(self, site: Site) -> None:
        self._site = site
        self.routes = [
            Route("/pin", self.show),
            Route("/pin", self.set, methods=["POST"]),
            Route(UNLOCK, self.ask),
            Route(UNLOCK, self.unlock, methods=["POST"]),
        ]

    async def show(self, request: Request) -> Response:
        require(request, Role.MANAGER, Role.IT)
        return self._page(request)

    async def set(self, request: Request) -> Response:
        """Set or remove the PIN; the button's value is `set` or `remove`."""
        someone = require(request, Role.MANAGER, Role.IT)
        fields = await check_form(request)
        pin = None if fields.get("act") == "remove" else fields.get("pin", "")
        if pin is not None and pin != fields.get("again", ""):
            return self._page(request, "again", 422)
        users, at = self._site.users, address(request)
        token, password = request.cookies.get(COOKIE, ""), fields.get("password", "")
        try:
            done = await run_in_threadpool(users.set_pin, token, password, pin)
        except Throttled:
            await run_in_threadpool(users.record_throttled, someone.name, at)
            return self._page(request, "wait", 429)
        except Trouble:
            return self._page(request, "poor", 422)
        if not done:
            await self._site.record(request, "login failed")
            return self._page(request, "wrong", 403)
        await self._site.record(request, "PIN removed" if pin is None else "PIN set")
        return RedirectResponse("/pin?said=done", 303)

    async def ask(self, request: Request) -> Response:
        target = inside(request.query_params.get("next", "/"))
        someone = who(request)
        if someone is None or not someone.locked:
            return RedirectResponse(target, 303)
        return ask_for_pin(self._site, request, target, status=200)

    async def unlock(self, request: Request) -> Response:
        """Unlock the session of this browser. After too many wrong PINs it has ended, and the password is needed."""
        fields = await check_form(request)
        users, token = self._site.users, request.cookies.get(COOKIE, "")
        target, held = inside(fields.get("next", "/")), held_of(fields)
        right = await run_in_threadpool(users.unlock, token, fields.get("pin", ""))
        session = users.session(token)
        if not right:
            await self._site.record(request, "wrong PIN" if session else "logged out by wrong PINs")
            if session is None:
                request.state.who = None
                return ask_to_log_in(self._site, request, target=target, failed="pins", held=held)
            return ask_for_pin(self._site, request, target, wrong=True, held=held)
        await self._site.record(request, "unlocked")
        if held is None or session is None:
            return RedirectResponse(target, 303)
        path, kept = held
        request.state.who = Who(session.name, session.role, session.csrf, session.pin)
        return self._site.render(request, "held.html", action=path, kept=kept, back=target, unlocked=True)

    def _page(self, request: Request, failed: str = "", status: int = 200) -> Response:
        least, most = PIN_DIGITS
        return self._site.render(
            request,
            "pin.html",
            status,
            failed=failed,
            said="done" if request.query_params.get("said") == "done" else None,
            least=least,
            most=most,
            minutes=round(LOCK_S / 60),
        )
