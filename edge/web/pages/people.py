"""Members page: members by tier, members in the store, and for managers single members, with every view audited."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge.access.users import Role
from edge.reports import sentences
from edge.store.business_days import parse_date
from edge.web.drawings.now import clock_time, mask, masks
from edge.web.gate import check_form
from edge.web.site import Site, language, require
from edge.words.tables import Words

if TYPE_CHECKING:
    from edge.days.habits import Habit

SHOWN = 200
"""Maximum number of members listed for a day."""


@dataclass(frozen=True)
class Seen:
    """A member seen on a day, without the member number; forms use `ref` instead."""

    ref: str
    masked: str
    tier: str
    first: str
    last: str
    zones: int


@dataclass(frozen=True)
class Stay:
    zone: str
    enter: str
    exit: str
    seconds: float
    censored: bool


@dataclass(frozen=True)
class Individual:
    """One member on one day, with the habitual route."""

    member: str
    tier: str
    hint: str | None
    """The CRM's hint for greeting the member, while it is valid."""
    stays: tuple[Stay, ...]
    habit: Habit | None


class PeoplePages:
    def __init__(self, site: Site) -> None:
        self._site = site
        self.routes = [
            Route("/members", self.members),
            Route("/members/look", self.look, methods=["POST"]),
        ]

    async def members(self, request: Request) -> Response:
        day = await self._site.day(request, summed=True)
        someone = require(request, *Role)
        seen: tuple[Seen, ...] = ()
        if someone.manager and day["state"] == "ok":
            await self._site.record_look(request, "listed members", str(day["date"]))
            seen = await run_in_threadpool(self._seen, day["date"])
        good = day["state"] == "ok"
        tiers = await run_in_threadpool(self._site.answers.tiers, day["date"], day["days"]) if good else None
        parts = self._site.live_parts(request, "members", "recognitions")
        says = []
        if tiers is not None:
            says = sentences.targets(Words(self._site.config, language(request)), tiers)
        return self._site.render(
            request, "members.html", says=says, seen=seen, shown=SHOWN, report=tiers, **day, **parts
        )

    async def look(self, request: Request) -> Response:
        """Show one member. This is a form, not a link, so that following a link can't cause a view."""
        require(request, Role.MANAGER)
        fields = await check_form(request)
        date = parse_date(fields.get("date", ""))
        found = await run_in_threadpool(self._find, date, fields.get("ref", ""), language(request))
        if found is None:
            raise HTTPException(404)
        digest = await run_in_threadpool(self._site.users.digest, found.member)
        await self._site.record(request, "looked at a member", f"{mask(found.member)} #{digest} {date}")
        return self._site.render(
            request, "member.html", found=found, date=date, days=self._site.config.thresholds.returning_days
        )

    def _seen(self, date: dt.date) -> tuple[Seen, ...]:
        config = self._site.config
        rows = self._ask(
            "SELECT member, MIN(enter_us), MAX(exit_us), COUNT(DISTINCT zone),"
            " (SELECT tier FROM directory WHERE directory.member = visit.member LIMIT 1) FROM visit"
            " WHERE enter_us >= ? AND enter_us < ? AND member IS NOT NULL GROUP BY member ORDER BY 2 DESC LIMIT ?",
            (*self._site.bounds_us(date), SHOWN),
        )
        masked = masks(row[0] for row in rows)
        return tuple(
            Seen(
                *(self._site.users.digest(member), masked[member], tier or "?"),
                *(clock_time(config, first)[:5], clock_time(config, last)[:5], zones),
            )
            for member, first, last, zones, tier in rows
        )

    def _find(self, date: dt.date, ref: str, lang: str) -> Individual | None:
        site = self._site
        start_us, end_us = site.bounds_us(date)
        members = self._ask(
            "SELECT DISTINCT member FROM visit WHERE enter_us >= ? AND enter_us < ? AND member IS NOT NULL",
            (start_us, end_us),
        )
        member = next((m for (m,) in members if site.users.digest(m) == ref), None)
        if member is None:
            return None
        return individual(site, member, date, lang)

    def _ask(self, sql: str, values: tuple[object, ...]) -> list[tuple]:  # type: ignore[type-arg]
        return ask(self._site, sql, values)


def individual(site: Site, member: str, date: dt.date, lang: str) -> Individual:
    """Collect the data about a member on a day. Personal data: callers must audit every use."""
    names = site.zone_names(lang)
    now_us = site.clock.now_us()
    known = ask(site, "SELECT tier, hint, hint_until_us FROM directory WHERE member = ? LIMIT 1", (member,))
    tier, hint, until_us = known[0] if known else ("?", None, None)
    visits = ask(
        site,
        "SELECT zone, enter_us, exit_us, censored FROM visit"
        " WHERE enter_us >= ? AND enter_us < ? AND member = ? ORDER BY enter_us",
        (*site.bounds_us(date), member),
    )
    return Individual(
        member=member,
        tier=tier,
        hint=hint if until_us is None or now_us < until_us else None,
        stays=tuple(
            Stay(
                *(names.get(zone, zone), clock_time(site.config, enter_us), clock_time(site.config, exit_us)),
                *((exit_us - enter_us) / 1e6, bool(censored)),
            )
            for zone, enter_us, exit_us, censored in visits
        ),
        habit=site.answers.habit(member, date),
    )


def ask(site: Site, sql: str, values: tuple[object, ...] = ()) -> list[tuple]:  # type: ignore[type-arg]
    """Query the store's database; returns no rows while there is no database."""
    none: list[tuple] = []  # type: ignore[type-arg]
    return site.answers.read(lambda past: past.conn.execute(sql, values).fetchall(), none)
