"""Pages about a business day, and the glossary."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from functools import cache
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from config.facts import SERVED
from edge.reports import sentences
from edge.reports.summary import as_json
from edge.web.drawings.charts import counter_cards, dwell_bands, flow_matrix, sankey, traffic_charts
from edge.web.drawings.hours import dwell_charts, need_table, occupancy_charts, staffing
from edge.web.drawings.lines import trial_lines
from edge.web.drawings.medians import holds
from edge.web.drawings.trends import COURSE_ORDERS, ORDERS, courses_in_order, in_order, reach, spark_line
from edge.web.pages.service import floor_parts
from edge.web.site import Site, language
from edge.words.languages import named
from edge.words.tables import Words

if TYPE_CHECKING:
    from edge.database.reader import Past
    from edge.days.flows import FlowReport, ZoneFlows
    from edge.days.trends import TrendDay


WEEK = dt.timedelta(days=7)


class DayPages:
    def __init__(self, site: Site) -> None:
        self._site = site
        self.routes = [
            Route("/today", self.today),
            Route("/counters", self.counters),
            Route("/flows", self.flows),
            Route("/service", self.service),
            Route("/promotions", self.promotions),
            Route("/layout", self.layout),
            Route("/digest", self.digest),
            Route("/about", self.about),
            Route("/api/today", self.api_today),
        ]

    async def today(self, request: Request) -> Response:
        site, lang = self._site, language(request)
        day = await site.day(request, summed=True)
        drawn: dict[str, Any] = {"charts": (), "dwell": (), "occupancy": ()}
        if day["summary"] is not None:
            drawn["charts"] = traffic_charts(site.config, day["summary"].floors, lang)
            drawn["dwell"] = dwell_bands(site.config, day["summary"].zones, lang)
        good = day["state"] == "ok"
        # A day has its like even if no comparison was chosen.
        alone = good and day["days"] == 1
        against = await run_in_threadpool(site.answers.comparison, day["date"]) if alone else None
        if good:
            together = await run_in_threadpool(site.answers.occupancy_by_hour, day["date"], day["days"])
            drawn["occupancy"] = () if together is None else occupancy_charts(site.config, together, lang)
        whole = [row for row in (against.rows if against else ()) if row.scope != "zone"]
        report = await run_in_threadpool(site.answers.flows, day["date"], day["days"]) if good else None
        flows = self._flows(None if report is None else report.folded, lang)
        scope = None if report is None else report.scope
        says = []
        if good:
            words = Words(site.config, lang)
            like = [] if against is None else sentences.like_days(words, against)
            says = sentences.changes(words, day["beside"]) if day["beside"] else like
            says += sentences.busiest(words, day["summary"])
        values: dict[str, Any] = {"against": against, "whole": whole, "scope": scope, "says": says}
        values["reach"] = reach(against, day["beside"])
        values["far_back"] = (day["date"] - 4 * WEEK).isoformat()
        return site.render(request, "today.html", **values, **day, **drawn, **flows)

    async def counters(self, request: Request) -> Response:
        """Show the counters: draw, engagement and rank range, and where people came from and went to."""
        site, lang = self._site, language(request)
        view = request.query_params.get("view")
        if view not in (None, "trend"):
            raise HTTPException(400)
        if view is not None:
            return await self._performance(request)
        day = await site.day(request)
        days = day["days"]
        good = day["state"] == "ok"
        scores = await run_in_threadpool(site.answers.counters, day["date"], days) if good else None
        report = await run_in_threadpool(site.answers.flows, day["date"], days) if good else None
        cards = counter_cards(site.config, scores.zones, report.stops, lang) if scores and report else ()
        hours = await run_in_threadpool(site.answers.hours, day["date"], days) if good else None
        by_hour = {} if hours is None else dwell_charts(site.config, hours)
        order = request.query_params.get("sort", "rank")
        if order not in ORDERS:
            raise HTTPException(400)
        rows = in_order((row for row in (scores.zones if scores else ()) if row.kind == "counter"), order)
        trends = await run_in_threadpool(site.answers.trends, day["date"]) if good else {}
        says = []
        if scores is not None:
            words = Words(site.config, lang)
            says = [*sentences.longest(words, scores), *sentences.changes(words, day["beside"])]
        return site.render(
            request,
            "counters.html",
            says=says,
            holds=() if scores is None else holds(scores),
            enough_days="28"
            if any(day.visits is not None for days in trends.values() for day in days[: WEEK.days])
            else "7",
            scores=scores,
            rows=rows,
            order=order,
            orders=ORDERS,
            sold=any(row.sales is not None for row, _ in rows),
            trends={zone: spark_line(days, lang) for zone, days in trends.items()},
            cards=cards,
            by_hour=by_hour,
            **day,
        )

    async def _performance(self, request: Request) -> Response:
        """Show how the counters fare: visits, dwell and tickets beside those of other days, the weakest first."""
        site, lang, period = self._site, language(request), self._site.period(request)
        day = await site.day(request)
        order = request.query_params.get("sort", COURSE_ORDERS[0])
        if order not in COURSE_ORDERS:
            raise HTTPException(400)
        found = None
        trends: Mapping[str, tuple[TrendDay, ...]] = {}
        if day["state"] == "ok":
            other = None if period.compared is None else period.compared.last
            found = await run_in_threadpool(site.answers.performance, period.last, period.days, other)
            trends = await run_in_threadpool(site.answers.trends, period.last)
        return site.render(
            request,
            "performance.html",
            says=[] if found is None else sentences.course(Words(site.config, lang), found),
            found=found,
            rows=[] if found is None else courses_in_order(found.counters, order),
            order=order,
            orders=COURSE_ORDERS,
            trends={zone: spark_line(days, lang) for zone, days in trends.items()},
            **day,
        )

    async def flows(self, request: Request) -> Response:
        site, lang = self._site, language(request)
        day = await site.day(request)
        days = day["days"]
        good = day["state"] == "ok"
        report = await run_in_threadpool(site.answers.flows, day["date"], days) if good else None
        flows = None if report is None else report.folded
        chosen = self._zone(request, report)
        tree = await run_in_threadpool(site.answers.tree, day["date"], days, chosen) if good and chosen else None
        says = []
        if report is not None:
            says = sentences.onward(Words(site.config, lang), report, chosen)
        return site.render(
            request,
            "flows.html",
            says=says,
            matrix=((), ()) if flows is None else flow_matrix(site.config, flows),
            report=report,
            tree=tree,
            zones=site.config.zones,
            **day,
            **self._flows(flows, lang),
        )

    def _zone(self, request: Request, report: FlowReport | None) -> str | None:
        """Return the zone whose ways are asked for; default: the counter with most steps away from it."""
        known = {zone.id: zone.kind.value for zone in self._site.config.zones}
        asked = request.query_params.get("zone")
        if asked is not None:
            if asked not in known:
                raise HTTPException(400)
            return asked
        busy = (step.from_zone for step in (report.stops if report else ()))
        return next((zone for zone in busy if zone is not None and known[zone] == "counter"), None)

    async def service(self, request: Request) -> Response:
        """Show waiting and assistance by zone and tier, never by employee."""
        site = self._site
        period = site.period(request)
        day = await site.day(request)
        days = day["days"]
        good = day["state"] == "ok"
        report = await run_in_threadpool(site.answers.service, day["date"], days) if good else None
        tiers = await run_in_threadpool(site.answers.tiers, day["date"], days) if good else None
        served = [z for z in (report.zones if report else ()) if z.kind in SERVED]
        floor = await floor_parts(site, request, period)
        hours = await run_in_threadpool(site.answers.hours, day["date"], days) if good else None
        staffed = staffing(site.config, hours, SERVED) if hours is not None else ((), ())
        need = await run_in_threadpool(site.answers.need, day["date"], days) if good else None
        words = Words(site.config, language(request))
        says = [] if need is None else sentences.unmet(words, need)
        says += [] if hours is None else sentences.unserved(words, hours, SERVED)
        return site.render(
            request,
            "service.html",
            says=says,
            report=report,
            tiers=tiers,
            served=served,
            staffed=staffed,
            need=need if need is not None and need.floors else None,
            need_table=((), ()) if need is None else need_table(site.config, need),
            proposals=[] if need is None else sentences.proposals(words, need),
            kept_targets=[] if tiers is None else sentences.targets(words, tiers),
            **day,
            **floor,
        )

    async def promotions(self, request: Request) -> Response:
        return await self._trials(request, "promotions")

    async def layout(self, request: Request) -> Response:
        return await self._trials(request, "layout_changes")

    async def _trials(self, request: Request, kind: str) -> Response:
        """Show promotions or layout changes, compared with control zones."""
        site = self._site
        trials = await run_in_threadpool(site.answers.trials, kind, site.business_date())
        names = {tried.id: named(tried.name, language(request)) for tried in getattr(site.config, kind)}
        says = {}
        if trials:
            words = Words(site.config, language(request))
            says = {trial.id: sentences.trial(words, trial) for trial in trials if trial.state != "planned"}
        lines = {trial.id: trial_lines(trial, language(request)) for trial in trials}
        values: dict[str, Any] = {"kind": kind, "trials": trials, "names": names, "says": says, "lines": lines}
        return site.render(request, "trials.html", as_of=site.as_of(), **values)

    def _flows(self, flows: ZoneFlows | None, lang: str) -> dict[str, Any]:
        site = self._site
        return {
            "flows": flows,
            "sankey": "{}" if flows is None else sankey(site.config, flows, lang),
            "floors": site.config.floors,
            "plotly_styles": plotly_styles(site.static["plotly.min.js"]),
        }

    async def digest(self, request: Request) -> Response:
        """Show the digest of a day or a week as a document of its own, to be printed or saved."""
        site, lang, period = self._site, language(request), self._site.period(request)
        if period.days not in (1, 7):
            raise HTTPException(400)

        def draw(past: Past) -> str:
            from edge.days.history import History
            from edge.reports.document import document

            return document(History(past.conn, past.config), period.last, period.days, lang, "/static/document.css")

        html = await run_in_threadpool(site.answers.read, draw, "")
        if not html:
            raise HTTPException(503)
        return Response(html, media_type="text/html", headers={"Cache-Control": "no-store"})

    async def about(self, request: Request) -> Response:
        return self._site.render(request, "about.html", limits=self._site.config.thresholds)

    async def api_today(self, request: Request) -> Response:
        summary = await self._site.summary(self._site.period(request))
        if summary is None:
            return JSONResponse({"error": "there is no database yet"}, 503)
        return Response(as_json(summary, self._site.live.now), media_type="application/json")


@cache
def plotly_styles(path: Path) -> tuple[str, ...]:
    """Return the ids of style elements that Plotly would insert; the page provides them because the CSP forbids it."""
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as text:
        guarded = [id_.decode() for id_ in re.findall(rb'getElementById\("([0-9a-f]{64})"\)', text)]
    return ("plotly.js-style-global", *sorted(set(guarded)))
