"""Cue rules: active rules, history of changes, a form for managers, and a dry run with yesterday's data."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from config.cues import parse
from config.facts import SERVED
from config.lines import Place
from config.model import Cues
from edge.access.users import Role
from edge.cues import book
from edge.cues.book import MAX_NOTE, Rules
from edge.cues.dry_run import DryRun, try_out
from edge.web.gate import check_form
from edge.web.pages.service import back, order_of, said
from edge.web.site import Site, require

SHOWN = 100
"""Maximum number of dry-run cues listed."""
MOST_TIERS = 20


@dataclass(frozen=True)
class Typed:
    """The form as filled in, with its errors: (rule number or None, field, text)."""

    raw: Mapping[str, Any]
    what: str
    base: int
    problems: tuple[tuple[int | None, str, str], ...] = ()


class RulesPages:
    def __init__(self, site: Site) -> None:
        self._site = site
        self._zones = {zone.id: zone.kind.value for zone in site.config.zones}
        self.routes = [
            Route("/service/rules", self.rules),
            Route("/service/rules", self.change, methods=["POST"]),
            Route("/service/rules/back", self.roll_back, methods=["POST"]),
        ]

    async def rules(self, request: Request) -> Response:
        versions = await run_in_threadpool(self._versions)
        newest = versions[0] if versions else Rules(0, Cues(), 0, "", "")
        raw = newest.cues.model_dump(mode="json", exclude_none=True)
        return await self._page(request, Typed(raw, "", newest.version), versions=versions)

    async def change(self, request: Request) -> Response:
        """Run the form's rules on yesterday's data, or save and activate them."""
        someone = require(request, Role.MANAGER)
        fields = await check_form(request)
        raw = rules_of(fields)
        base = fields.get("base", "")
        typed = Typed(raw, fields.get("what", "")[:MAX_NOTE], int(base) if base.isdecimal() and len(base) < 9 else 0)
        cues, problems = parse(raw, self._zones)
        if cues is None:
            told = tuple(_told(place, what) for place, what in problems)
            return await self._page(request, Typed(raw, typed.what, typed.base, told), code=422)
        if fields.get("do") != "save":
            date = self._site.business_date() - dt.timedelta(days=1)
            return await self._page(request, typed, trial=await run_in_threadpool(self._try, cues, date))
        order = {"do": "set rules", "base": typed.base, "what": typed.what, "rules": raw}
        refused = await order_of(self._site, someone, order)
        if refused is None:
            await self._site.record(request, "rules changed", typed.what)
        return back("/service/rules", refused)

    async def roll_back(self, request: Request) -> Response:
        """Restore an older version."""
        someone = require(request, Role.MANAGER)
        fields = await check_form(request)
        numbers = [fields.get(name, "") for name in ("base", "to")]
        if not all(number.isdecimal() and len(number) < 9 for number in numbers):
            return back("/service/rules", "invalid")
        order = {"do": "roll back", "base": int(numbers[0]), "to": int(numbers[1])}
        refused = await order_of(self._site, someone, order)
        if refused is None:
            await self._site.record(request, "rules changed", f"= {numbers[1]}")
        return back("/service/rules", refused)

    async def _page(
        self,
        request: Request,
        typed: Typed,
        *,
        versions: tuple[Rules, ...] | None = None,
        trial: DryRun | None = None,
        code: int = 200,
    ) -> Response:
        if versions is None:
            versions = await run_in_threadpool(self._versions)
        return self._site.render(
            request,
            "rules.html",
            code,
            typed=typed,
            versions=versions,
            trial=trial,
            by_hour=trial.by_hour(self._site.config) if trial else {},
            shown=SHOWN,
            zones=self._site.config.zones,
            served=[zone.id for zone in self._site.config.zones if zone.kind in SERVED],
            tiers=await run_in_threadpool(self._tiers),
            max_note=MAX_NOTE,
            said=said(request),
        )

    def _versions(self) -> tuple[Rules, ...]:
        return self._site.answers.read(lambda past: book.versions(past.conn), ())

    def _try(self, cues: Cues, date: dt.date) -> DryRun:
        return self._site.answers.read(lambda past: try_out(past, cues, date), DryRun(date, 0, ()))

    def _tiers(self) -> list[str]:
        query = "SELECT DISTINCT tier FROM (SELECT tier FROM directory LIMIT 20000) ORDER BY 1 LIMIT ?"
        none: list[str] = []
        return self._site.answers.read(lambda past: [t for (t,) in past.conn.execute(query, (MOST_TIERS,))], none)


def rules_of(fields: Mapping[str, str]) -> dict[str, Any]:
    """Build rules from the form's fields (`rule-0-id` and so on), without rows that are empty or to be deleted."""
    quiet = [
        {"begin": row.get("begin", "").strip(), "end": row.get("end", "").strip()}
        for row in _rows(fields, "quiet")
        if row.get("begin", "").strip() or row.get("end", "").strip()
    ]
    rules = []
    for row in _rows(fields, "rule"):
        id_ = row.get("id", "").strip()
        if "drop" in row or not id_:
            continue
        rule: dict[str, Any] = {"id": id_, "kind": row.get("kind", "")}
        if tiers := [tier for tier in re.split(r"[\s,，、]+", row.get("tiers", "").strip()) if tier]:
            rule["tiers"] = tiers
        if zones := [name.removeprefix("zone-") for name in row if name.startswith("zone-")]:
            rule["zones"] = zones
        if row.get("wait", "").strip() and rule["kind"] != "arrival":
            rule["wait_s"] = _number(row["wait"])
        if row.get("expires", "").strip():
            rule["expires_s"] = _number(row["expires"])
        zh, en = row.get("zh", "").strip(), row.get("en", "").strip()
        if zh or en:
            rule["action"] = {"zh": zh or en, "en": en or zh}
        rules.append(rule)
    return {"quiet": quiet, "rules": rules}


def _rows(fields: Mapping[str, str], name: str) -> list[dict[str, str]]:
    rows: dict[int, dict[str, str]] = {}
    for key, value in fields.items():
        found = re.fullmatch(rf"{name}-(\d{{1,3}})-([\w.-]+)", key)
        if found:
            rows.setdefault(int(found[1]), {})[found[2]] = value
    return [rows[number] for number in sorted(rows)]


def _number(text: str) -> float | str:
    try:
        return float(text.strip())
    except ValueError:
        return text.strip()


def _told(place: Place, what: str) -> tuple[int | None, str, str]:
    """Convert a problem to (rule number from 1, field, text)."""
    if place[:1] == ("rules",) and len(place) > 1:
        return int(place[1]) + 1, str(place[2]) if len(place) > 2 else "", what
    return None, str(place[0]) if place else "", what
