"""How far the numbers can be trusted, and the machinery behind them: data quality, readers, the audit log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge.summary_forms import local
from edge.web.site import Site, require
from edge.web.users import Role

if TYPE_CHECKING:
    from edge.analytics_service import Suspect

HISTORY = 200


class WorksPages:
    def __init__(self, site: Site) -> None:
        self._site = site
        self.routes = [
            Route("/quality", self.quality),
            Route("/readers", self.readers),
            Route("/audit", self.audit),
        ]

    async def quality(self, request: Request) -> Response:
        day = await self._site.day(request)
        summary, config = day["summary"], self._site.config
        worst_first, hours = [], []
        suspects: tuple[Suspect, ...] = ()
        if summary is not None:
            # Zones that nobody watches last: nothing can be wrong there.
            worst_first = sorted(
                summary.zones, key=lambda z: (z.coverage is None, z.coverage or 0, -z.censored, z.zone)
            )
            if require(request, *Role).role is not Role.VIEWER and day["state"] == "ok":
                suspects = await run_in_threadpool(self._site.answers.suspects, day["date"])
            hours = [f"{local(config, hour.start_us):%H}" for hour in summary.floors[0].hours]
        return self._site.render(
            request,
            "quality.html",
            worst_first=worst_first,
            hours=hours,
            suspects=suspects,
            **day,
            **self._site.live_parts(request, "sync", "backlog"),
        )

    async def readers(self, request: Request) -> Response:
        return self._site.render(
            request,
            "readers.html",
            wired=self._site.config.readers,
            **self._site.live_parts(request, "sync", "machinery"),
        )

    async def audit(self, request: Request) -> Response:
        require(request, Role.IT)
        users = self._site.users
        return self._site.render(
            request,
            "audit.html",
            users=await run_in_threadpool(users.users),
            lines=await run_in_threadpool(users.audit, HISTORY),
        )
