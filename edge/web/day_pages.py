"""The pages of a day and of what words mean."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edge.summary_forms import as_json, local
from edge.web.charts import dwell_bands, sankey, traffic_charts
from edge.web.site import Site, language


class DayPages:
    def __init__(self, site: Site) -> None:
        self._site = site
        self.routes = [
            Route("/today", self.today),
            Route("/about", self.about),
            Route("/api/today", self.api_today),
        ]

    async def today(self, request: Request) -> Response:
        site, lang = self._site, language(request)
        date = site.date(request)
        summary = await site.summary(date)
        drawn: dict[str, Any] = {"charts": (), "dwell": (), "sankey": "{}"}
        if summary is not None:
            drawn["charts"] = traffic_charts(site.config, summary, lang)
            drawn["dwell"] = dwell_bands(site.config, summary, lang)
            drawn["sankey"] = sankey(site.config, summary.flows, lang)
        return site.render(
            request,
            "today.html",
            summary=summary,
            date=date,
            present=site.business_date(),
            as_of=None if summary is None else local(site.config, summary.as_of_us),
            zones=site.zone_names(lang),
            plotly_styles=plotly_styles(site.static["plotly.min.js"]),
            **drawn,
        )

    async def about(self, request: Request) -> Response:
        return self._site.render(request, "about.html", limits=self._site.config.thresholds)

    async def api_today(self, request: Request) -> Response:
        summary = await self._site.summary(self._site.date(request))
        if summary is None:
            return JSONResponse({"error": "there is no database yet"}, 503)
        return Response(as_json(summary, self._site.live.now), media_type="application/json")


@cache
def plotly_styles(path: Path) -> tuple[str, ...]:
    """Ids of style elements that Plotly inserts unless they are there: the CSP forbids it, so the page has them."""
    guarded = re.findall(r'getElementById\("([0-9a-f]{64})"\)', path.read_text("utf-8"))
    return ("plotly.js-style-global", *sorted(set(guarded)))
