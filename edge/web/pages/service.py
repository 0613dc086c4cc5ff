"""Service page: open cues, service cases and their digest."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from edge.access.users import Role
from edge.cues.book import CASE_STEPS, MAX_NOTE, CaseState
from edge.cues.digest import digest
from edge.cues.orders import give
from edge.days.period import Days
from edge.store.live_socket import socket_path
from edge.web.drawings.now import mask
from edge.web.gate import check_form, way_back
from edge.web.pages.people import ask, individual
from edge.web.site import Site, Who, language, require

CASES_SHOWN = 50
SAID = ("done", "gone", "stale", "unknown", "invalid", "database", "offline")
"""Possible results of an action; the templates contain their texts."""


@dataclass(frozen=True)
class Step:
    """One step of a case. `who` is shown to managers only."""

    at_us: int
    state: str
    who: str
    note: str


@dataclass(frozen=True)
class CaseRow:
    """A service case with its steps and possible next states."""

    number: int
    at_us: int
    kind: str
    zone: str
    tier: str | None
    state: CaseState
    steps: tuple[Step, ...]
    may: tuple[CaseState, ...]


class ServicePages:
    def __init__(self, site: Site) -> None:
        self._site = site
        self.routes = [
            Route("/service/cue", self.cue, methods=["POST"]),
            Route("/service/look", self.look, methods=["POST"]),
            Route("/service/case", self.case, methods=["POST"]),
            Route("/service/digest", self.digest),
        ]

    async def cue(self, request: Request) -> Response:
        """Acknowledge, snooze or close a cue; the button's value is `NUMBER ACTION [SECONDS]`."""
        someone = require(request, Role.MANAGER)
        fields = await check_form(request)
        words = fields.get("act", "").split(" ")
        if len(words) not in (2, 3) or words[1] not in ("acknowledge", "snooze", "done"):
            raise HTTPException(400)
        order: dict[str, object] = {"do": words[1], "cue": _whole(words[0])}
        if len(words) == 3:
            order["seconds"] = _whole(words[2])
        refused = await order_of(self._site, someone, order)
        if refused is None:
            await self._site.record(request, f"cue {words[1]}", f"#{words[0]}")
        return back(way_back(fields, "/service"), refused)

    async def look(self, request: Request) -> Response:
        """Show the member of a cue. This is a form, not a link, so that following a link can't cause a view."""
        require(request, Role.MANAGER)
        fields = await check_form(request)
        site, number = self._site, _whole(fields.get("cue", ""))
        rows = await run_in_threadpool(ask, site, "SELECT member, made_us FROM cue WHERE id = ?", (number,))
        if not rows:
            raise HTTPException(404)
        member, made_us = rows[0]
        date = site.business_date_of(made_us)
        signed = await run_in_threadpool(site.users.digest, member)
        await site.record(request, "looked at a member", f"{mask(member)} #{signed} {date}")
        found = await run_in_threadpool(individual, site, member, date, language(request))
        limits = site.config.thresholds
        return site.render(request, "member.html", found=found, date=date, days=limits.returning_days)

    async def case(self, request: Request) -> Response:
        """Open a case manually, or change the state of a case."""
        someone = require(request, Role.MANAGER)
        fields = await check_form(request)
        note = fields.get("note", "").strip()[:MAX_NOTE]
        if "zone" in fields:
            refused = await order_of(self._site, someone, {"do": "open case", "zone": fields["zone"], "note": note})
            about = fields["zone"][:64]
            done = "case open"
        else:
            number, _, to = fields.get("act", "").partition(" ")
            order = {"do": "move case", "case": _whole(number), "to": to, "note": note}
            refused = await order_of(self._site, someone, order)
            about, done = f"#{number[:12]}", f"case {to[:12]}"
        if refused is None:
            await self._site.record(request, done, about)
        return back("/service", refused)

    async def digest(self, request: Request) -> Response:
        """Show the digest of a day or a week, printable on one page."""
        site = self._site
        text = request.query_params.get("days", "1")
        if text not in ("1", "7"):
            raise HTTPException(400)
        date = site.period(request).last
        found = await run_in_threadpool(
            site.answers.read, lambda past: digest(past, date, int(text), site.clock.now_us()), None
        )
        return site.render(request, "digest.html", found=found, date=date, days=int(text), present=site.business_date())


async def floor_parts(site: Site, request: Request, period: Days) -> dict[str, Any]:
    """Collect the cues and cases for the Service page."""
    if require(request, *Role).manager:
        await site.record_look(request, "watched members")
    return {
        "cases": await run_in_threadpool(_cases, site, period),
        "zones": site.config.zones,
        "max_note": MAX_NOTE,
        "said": said(request),
        **site.live_parts(request, "cues"),
    }


def _cases(site: Site, period: Days) -> tuple[CaseRow, ...]:
    """Return the cases of the days and those not yet reviewed, newest first."""
    start_us, end_us = site.bounds_us(period.first)[0], site.bounds_us(period.last)[1]
    return site.answers.read(lambda past: cases(past.conn, start_us, end_us), ())


def cases(conn: sqlite3.Connection, start_us: int, end_us: int) -> tuple[CaseRow, ...]:
    """Return at most CASES_SHOWN cases opened in a period, and older ones not yet reviewed, newest first."""
    rows = conn.execute(
        "SELECT id, at_us, kind, zone, tier, state FROM service_case WHERE at_us < ? AND (at_us >= ?"
        " OR state <> 'reviewed') ORDER BY state = 'reviewed', id DESC LIMIT ?",
        (end_us, start_us, CASES_SHOWN),
    ).fetchall()
    query = "SELECT at_us, state, who, note FROM case_step WHERE case_id = ? ORDER BY id"
    found = []
    for number, at_us, kind, zone, tier, state in rows:
        steps = tuple(Step(*step) for step in conn.execute(query, (number,)))
        found.append(CaseRow(number, at_us, kind, zone, tier, state, steps, CASE_STEPS[state]))
    return tuple(found)


async def order_of(site: Site, someone: Who, order: Mapping[str, object]) -> str | None:
    """Send an action to the service on behalf of a user; return the reason if it was refused."""
    return await give(socket_path(site.config, "orders"), {**order, "who": someone.name})


def back(path: str, refused: str | None) -> RedirectResponse:
    """Redirect to the page of the action, which then shows the result."""
    return RedirectResponse(f"{path}?said={refused or 'done'}", 303)


def said(request: Request) -> str | None:
    """Return the result of the last action, from the query added by `back`."""
    text = request.query_params.get("said")
    return text if text in SAID else None


def _whole(text: str) -> int:
    if not text.isdecimal() or not text.isascii() or len(text) > 15:
        raise HTTPException(400)
    return int(text)
