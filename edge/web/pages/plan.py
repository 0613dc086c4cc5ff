"""Plan page: every zone coloured by one figure, of all hours or of one, of the chosen days; and the card of a zone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from config.floor_image import POLICY
from edge.reports import sentences
from edge.web.drawings.charts import NEIGHBOURS, USUAL_HOURS, dwell_bands
from edge.web.drawings.hours import zone_chart
from edge.web.drawings.lens import figure, keys, lens_floors, spark
from edge.web.drawings.plan import picture, version
from edge.web.drawings.trends import week_picture
from edge.web.site import Site, language
from edge.words.numbers import local
from edge.words.tables import Words

if TYPE_CHECKING:
    import datetime as dt

    from edge.database.reader import Past
    from edge.days.against import AgainstReport
    from edge.days.flows import Step


class PlanPages:
    def __init__(self, site: Site) -> None:
        self._site = site
        self.routes = [Route("/plan", self.plan), Route("/plan/image/{floor}", self.image)]

    async def plan(self, request: Request) -> Response:
        site, lang = self._site, language(request)
        period = site.period(request)
        measure, zone = request.query_params.get("measure", "visits"), request.query_params.get("zone")
        hours = self._hours(period.last)
        hour = request.query_params.get("hour") or None
        if hour not in (None, *hours) or zone not in (None, *(one.id for one in site.config.zones)):
            raise HTTPException(400)
        from edge.days.lens import MEASURES, SOLD

        if measure not in (*MEASURES, *SOLD):
            raise HTTPException(400)
        with_sales = await run_in_threadpool(site.answers.read, _any_sales, False)
        day = await site.day(request)
        found, card = None, {}
        stops: tuple[Step, ...] = ()
        says: list[str] = []
        if day["state"] == "ok":
            other = None if period.compared is None else period.compared.last
            place = None if hour is None else hours.index(hour)
            found = await run_in_threadpool(site.answers.lens, period.last, period.days, measure, place, other)
            says = await run_in_threadpool(self._says, period.last, period.days, measure, day["beside"], lang)
            if zone is not None:
                report = await run_in_threadpool(site.answers.flows, period.last, period.days)
                stops = () if report is None else report.stops
                card = await run_in_threadpool(self._card, period.last, period.days, zone, stops, lang)
        return site.render(
            request,
            "plan.html",
            measure=measure,
            measures=(*MEASURES, *(SOLD if with_sales else ())),
            hour=hour,
            zone=zone,
            card=card,
            found=found,
            says=says,
            hours=[label for label in hours if USUAL_HOURS[0] <= int(label) < USUAL_HOURS[1] or label == hour],
            floors=() if found is None else lens_floors(site.config, site.plans, found, lang, zone, stops),
            keys=() if found is None else keys(site.config, found, lang),
            figure=lambda value: figure(measure, value, lang),
            **day,
        )

    async def image(self, request: Request) -> Response:
        """Return the picture of a floor, which may do nothing but be drawn, even if it is opened by itself."""
        floor = next((one for one in self._site.config.floors if one.id == request.path_params["floor"]), None)
        found = None if floor is None else await run_in_threadpool(picture, floor)
        if found is None:
            raise HTTPException(404)
        fresh = request.query_params.get("v") == version(found)
        kept = "private, max-age=31536000, immutable" if fresh else "no-cache"
        headers = {"Cache-Control": kept, "Content-Security-Policy": POLICY}
        return Response(found.content, media_type=found.type, headers=headers)

    def _says(self, date: dt.date, days: int, measure: str, beside: AgainstReport | None, lang: str) -> list[str]:
        """Return the sentences about a figure."""
        words = Words(self._site.config, lang)
        if measure == "dwell":
            scores = self._site.answers.counters(date, days)
            return [] if scores is None else sentences.longest(words, scores)
        return sentences.changes(words, beside)

    def _hours(self, date: dt.date) -> list[str]:
        """Return the labels of the hours of a business day."""
        start_us, end_us = self._site.bounds_us(date)
        return [f"{local(self._site.config, at_us):%H}" for at_us in range(start_us, end_us, 3_600_000_000)]

    def _card(self, date: dt.date, days: int, zone: str, stops: tuple[Step, ...], lang: str) -> dict[str, Any]:
        """Collect what there is to know about one zone."""
        site = self._site
        scores = site.answers.counters(date, days)
        service = site.answers.service(date, days)
        hours = site.answers.hours(date, days)
        if scores is None or service is None or hours is None:
            return {}
        week = site.answers.week(date)
        row = next(row for row in dwell_bands(site.config, scores.zones, lang) if row.zone.zone == zone)
        return {
            "row": row,
            "served": next(one for one in service.zones if one.zone == zone),
            "chart": zone_chart(site.config, next(one for one in hours.zones if one.zone == zone)),
            "spark": spark(site.answers.trends(date).get(zone, ())),
            "known_days": 0 if week is None else week.days,
            "week": None if week is None else week_picture(site.config, week, zone, site.bounds_us(date)[0]),
            "came_from": [step for step in stops if step.to_zone == zone][:NEIGHBOURS],
            "went_to": [step for step in stops if step.from_zone == zone][:NEIGHBOURS],
        }


def _any_sales(past: Past) -> bool:
    from edge.days.sales import any_known  # NumPy is imported with the first day

    return any_known(past)
