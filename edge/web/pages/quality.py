"""Pages about data quality, readers and the audit log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from edge.access.members import SHORT
from edge.access.users import Role
from edge.access.verdicts import say
from edge.reports import sentences
from edge.store.business_days import parse_date
from edge.web.gate import check_form
from edge.web.site import Site, before, language, require
from edge.words.numbers import local
from edge.words.tables import Words

if TYPE_CHECKING:
    from edge.days.suspects import Suspect

HISTORY = 200


class QualityPages:
    def __init__(self, site: Site) -> None:
        self._site = site
        self.routes = [
            Route("/quality", self.quality),
            Route("/quality/verdict", self.verdict, methods=["POST"]),
            Route("/readers", self.readers),
            Route("/audit", self.audit),
        ]

    async def quality(self, request: Request) -> Response:
        day = await self._site.day(request, summed=True)
        summary, config = day["summary"], self._site.config
        watched = {antenna.zone for reader in config.readers for antenna in reader.antennas}
        worst_first, hours = [], []
        suspects: tuple[Suspect, ...] = ()
        if summary is not None:
            # Zones without antennas last, because nothing can be wrong there.
            worst_first = sorted(
                summary.zones,
                key=lambda z: (z.zone not in watched, z.coverage is None, z.coverage or 0, -(z.censored or 0), z.zone),
            )
            if require(request, *Role).role is not Role.VIEWER and day["state"] == "ok":
                await self._site.record_look(request, "listed suspected tags", str(day["date"]))
                suspects = await run_in_threadpool(self._site.answers.suspects, day["date"])
            hours = [f"{local(config, hour.start_us):%H}" for hour in summary.floors[0].hours]
        says = []
        if day["state"] == "ok":
            says = sentences.trust(Words(config, language(request)), summary)
        return self._site.render(
            request,
            "quality.html",
            says=says,
            worst_first=worst_first,
            watched=watched,
            hours=hours,
            suspects=suspects,
            **day,
            **self._site.live_parts(request, "sync", "backlog"),
        )

    async def verdict(self, request: Request) -> Response:
        """Save the verdict of a manager or IT on a suspect tag, and audit it."""
        require(request, Role.MANAGER, Role.IT)
        fields = await check_form(request)
        site = self._site
        date, said = parse_date(fields.get("date", "")), fields.get("verdict")
        suspects = await run_in_threadpool(site.answers.suspects, date)
        tag = next((one.tag for one in suspects if one.tag == fields.get("tag")), None)
        if tag is None or said not in ("confirm", "clear"):
            raise HTTPException(404)
        await run_in_threadpool(say, site.config, date, bytes.fromhex(tag), said == "confirm")
        site.answers.forget()
        await site.record(
            request, "confirmed a suspected tag" if said == "confirm" else "cleared a suspected tag", tag[:SHORT]
        )
        return RedirectResponse(f"/quality?date={date}#suspects", 303)

    async def readers(self, request: Request) -> Response:
        return self._site.render(
            request,
            "readers.html",
            wired=self._site.config.readers,
            **self._site.live_parts(request, "sync", "machinery"),
        )

    async def audit(self, request: Request) -> Response:
        """Show part of the audit log, latest first; `before`: number of the line to continue below."""
        require(request, Role.IT)
        users, below = self._site.users, before(request)
        lines = await run_in_threadpool(users.audit, HISTORY + 1, below)
        return self._site.render(
            request,
            "audit.html",
            users=await run_in_threadpool(users.users),
            lines=lines[:HISTORY],
            older=lines[HISTORY - 1].id if len(lines) > HISTORY else None,
            newest=below is None,
        )
