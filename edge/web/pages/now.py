"""The page "Now": live view as a page, and as a stream of changes."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from edge.access.users import Role, Session
from edge.web.drawings.now import LEVELS, for_eyes
from edge.web.gate import COOKIE
from edge.web.pages.service import said
from edge.web.site import Site, language, require

HEARTBEAT_S = 2.0
"""Maximum interval between messages of `/events`; browsers show a warning after a longer interval."""
STREAM_S = 6 * 3600.0
"""Maximum duration of a stream; the browser then opens another, which renews its cookie."""
ABOUT_MEMBERS = ("members", "recognitions", "cues")
PARTS = ("figures", "cues", "members", "recognitions", "readers", "sync")


class NowPages:
    def __init__(self, site: Site) -> None:
        self._site = site
        self._parts = ("status", *PARTS, *(f"plan-{plan.id}" for plan in site.plans))
        self.routes = [Route("/", self.now), Route("/events", self.events), Route("/api/now", self.api)]

    async def now(self, request: Request) -> Response:
        await self._note(request)
        return self._site.render(
            request,
            "now.html",
            plans=self._site.plans,
            levels=LEVELS,
            said=said(request),
            **self._site.live_parts(request, *self._parts[1:]),
        )

    async def events(self, request: Request) -> Response:
        """Send server-sent events: `regions` {id: HTML} with changes, `beat` without; `locked` if a PIN is needed.

        `parts`: the regions, default: those of "Now". From a page that is locked meanwhile they hide individuals.
        """
        asked = request.query_params.get("parts")
        names = self._parts if asked is None else asked.split(",")
        if not set(names) <= set(self._site.region_names()):
            raise HTTPException(400)
        if set(names) & set(ABOUT_MEMBERS):
            await self._note(request)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._events(request, names), headers=headers, media_type="text/event-stream")

    async def api(self, request: Request) -> Response:
        """Return the live state as JSON: with masked members for managers, counts only for other users."""
        now = self._site.live.now
        manager = require(request, *Role).manager
        told: dict[str, Any] = {"state": self._site.live.state.value, "service": None}
        if now is not None:
            await self._note(request)
            told["service"] = for_eyes(now, manager=manager).model_dump(exclude={"pid"})
            for cue in told["service"]["cues"]["open"]:
                del cue["who"]
        return JSONResponse(told, headers={"Cache-Control": "no-store"})

    async def _note(self, request: Request) -> None:
        """Log that a manager viewed members, even though only their last digits are shown."""
        if require(request, *Role).manager:
            await self._site.record_look(request, "watched members")

    async def _events(self, request: Request, names: Sequence[str]) -> AsyncIterator[str]:
        lang, token = language(request), request.cookies.get(COOKIE, "")
        sent: dict[str, str] = {}
        yield "retry: 2000\n\n"
        live, users = self._site.live, self._site.users
        ends_s = time.monotonic() + STREAM_S

        while not live.closing and time.monotonic() < ends_s:
            session = users.session(token, watching=True) if users.ever() else Session("", Role.VIEWER, "")
            if session is None:
                return
            manager = session.role is Role.MANAGER and not session.locked
            version = live.version
            regions = self._site.regions(lang, manager, names)
            changed = {name: html for name, html in regions.items() if sent.get(name) != html}
            if changed:
                sent = regions
            told = {"as_of": self._site.as_of(), "locked": session.locked}
            yield _event("regions", told | {"regions": changed}) if changed else _event("beat", told)
            await self._quiet(lang, manager, names, version, sent)

    async def _quiet(
        self, lang: str, manager: bool, names: Sequence[str], version: int, sent: Mapping[str, str]
    ) -> None:
        """Wait until a region differs from what was sent, or until a heartbeat is due."""
        live = self._site.live
        deadline = time.monotonic() + HEARTBEAT_S
        while (left := deadline - time.monotonic()) > 0 and not live.closing:
            if not await live.wait(version, left) or self._site.regions(lang, manager, names) != sent:
                return
            version = live.version


def _event(name: str, told: Mapping[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(told, ensure_ascii=False)}\n\n"
