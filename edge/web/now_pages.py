""" "Now": the live picture, as a page and as a stream of what changed."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from edge.web.door import COOKIE
from edge.web.picture import LEVELS, mask, take
from edge.web.site import Site, language

HEARTBEAT_S = 2.0
"""Longest silence of `/events`; a browser that hears nothing for longer says so."""
REGIONS = ("status", "figures", "members", "recognitions", "readers", "sync")


class NowPages:
    def __init__(self, site: Site) -> None:
        self._site = site
        self._rendered: dict[str, tuple[int, dict[str, str]]] = {}
        self.routes = [Route("/", self.now), Route("/events", self.events), Route("/api/now", self.api)]

    async def now(self, request: Request) -> Response:
        return self._site.render(
            request,
            "now.html",
            regions=self._regions(language(request)),
            plans=self._site.plans,
            as_of=self._site.as_of(),
            levels=LEVELS,
        )

    async def events(self, request: Request) -> Response:
        """Server-sent events: `regions` {id: HTML} with what changed, `beat` when nothing did."""
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._events(request), headers=headers, media_type="text/event-stream")

    async def api(self, _: Request) -> Response:
        now = self._site.live.now
        told: dict[str, Any] = {"state": self._site.live.state.value, "service": None}
        if now is not None:
            told["service"] = now.model_dump(exclude={"pid"})
            for someone in (*told["service"]["members"], *told["service"]["recognitions"]):
                someone["member"] = mask(someone["member"])
        return JSONResponse(told, headers={"Cache-Control": "no-store"})

    async def _events(self, request: Request) -> AsyncIterator[str]:
        lang, token = language(request), request.cookies.get(COOKIE, "")
        sent: dict[str, str] = {}
        yield "retry: 2000\n\n"
        live, users = self._site.live, self._site.users
        while not live.closing and (not users.anyone() or users.session(token)):
            version = live.version
            regions = self._regions(lang)
            changed = {name: html for name, html in regions.items() if sent.get(name) != html}
            if changed:
                sent = regions
                yield _event("regions", {"as_of": self._site.as_of(), "regions": changed})
            else:
                yield _event("beat", {"as_of": self._site.as_of()})
            await self._quiet(lang, version, sent)

    async def _quiet(self, lang: str, version: int, sent: Mapping[str, str]) -> None:
        """Waits until a region differs from what was sent, or a heartbeat is due."""
        live = self._site.live
        deadline = time.monotonic() + HEARTBEAT_S
        while (left := deadline - time.monotonic()) > 0 and not live.closing:
            if not await live.wait(version, left) or self._regions(lang) != sent:
                return
            version = live.version

    def _regions(self, lang: str) -> dict[str, str]:
        """The parts that live, as HTML; rendered once a language however many screens look."""
        site = self._site
        kept = self._rendered.get(lang)
        if kept is not None and kept[0] == site.live.version:
            return kept[1]
        picture = take(site.config, site.plans, site.live, lang)
        regions = {name: site.region(lang, f"_{name}.html", picture=picture) for name in REGIONS}
        regions |= {
            f"plan-{floor.plan.id}": site.region(lang, "_plan.html", picture=picture, floor=floor)
            for floor in picture.floors
        }
        self._rendered[lang] = (site.live.version, regions)
        return regions


def _event(name: str, told: Mapping[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(told, ensure_ascii=False)}\n\n"
