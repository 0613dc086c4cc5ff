"""Reports to the CRM about business days: scorecards, flows, tiers, service, floors, trials, suspect tags.

They are sent when a day has been summarised, on Sundays also for the week, and again as the next revision when
something has changed: late visits, a verdict on a suspect tag, a running trial.
"""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from config import StoreConfig
from config.facts import COUNTED
from dwell.compare import Change
from edge.access.verdicts import stamps
from edge.database.reader import Past
from edge.days.changes import BASE_DAYS, MEASURES, TICKETS, Phase, Trial
from edge.days.history import History
from edge.days.kept import DAY, FORMAT, REMADE_DAYS
from edge.days.sales import ZoneSales
from edge.days.scope import Rate, Scope
from edge.days.sold import changes
from edge.store import layouts
from edge.store.errors import NotMade
from sync import outbox
from sync.contract import CLASS_OF, CLASSES
from sync.contract_days import (
    MAX_LINKS,
    MAX_SUSPECTS,
    MAX_WAYS,
    FloorDay,
    FloorWindow,
    FlowDay,
    FlowLink,
    FlowPath,
    LayoutInForce,
    OfDays,
    Proportion,
    Quotient,
    Scorecard,
    ServiceDay,
    StaffHour,
    SuspectDay,
    SuspectedTag,
    TicketPhase,
    TierDay,
    TierMix,
    TrialPhase,
    TrialResult,
    WayDay,
)
from sync.contract_days import ZoneSales as SalesOfZone

SUNDAY = 6
REACH = BASE_DAYS * DAY
"""Days before and after a promotion or layout change that it is judged by."""


@dataclass(frozen=True)
class News:
    """A report to be sent or re-sent."""

    key: str
    basis: str
    digest: str
    revision: int
    events: tuple[OfDays, ...]
    """Empty if the input has changed but the result has not."""


def news(past: History, besides: Container[str] = ()) -> News | None:
    """Find the next report about the last REMADE_DAYS stored days that has to be sent; None if there is none.

    `besides`: keys to skip. Raises NotMade if a report fails.
    """
    told = {key: row for key, *row in past.conn.execute("SELECT key, basis, digest, revision FROM told")}
    for key, basis, (kind, date) in _subjects(past):
        before = told.get(key)
        if key in besides or (before is not None and before[0] == basis):
            continue
        revision = 1 if before is None else int(before[2]) + 1
        try:
            events = _MAKERS[kind](past, date, revision)
        except sqlite3.Error:
            raise
        except Exception as error:
            raise NotMade(key, error) from error
        digest = _digest(events)
        if before is not None and before[1] == digest:
            return News(key, basis, digest, int(before[2]), ())
        return News(key, basis, digest, revision, events)
    return None


def tell(conn: sqlite3.Connection, item: News) -> None:
    """Add the report to the outbox, in the caller's transaction."""
    for class_ in CLASSES:
        mine = [event for event in item.events if CLASS_OF[event.type] == class_]  # type: ignore[attr-defined]
        if mine:
            outbox.append(conn, class_, mine)  # type: ignore[arg-type]
    conn.execute("INSERT OR REPLACE INTO told VALUES (?, ?, ?, ?)", (item.key, item.basis, item.digest, item.revision))


def forget(conn: sqlite3.Connection, config: StoreConfig, today: dt.date) -> int:
    """Delete the records of reports about days that are no longer stored; return their number."""
    oldest = today - config.database.keep_days * DAY
    return conn.execute(
        "DELETE FROM told WHERE (key LIKE 'day/%' OR key LIKE 'week/%' OR key LIKE 'windows/%')"
        " AND substr(key, -10) < ?",
        (oldest.isoformat(),),
    ).rowcount


def summed_up(past: Past) -> dict[dt.date, str]:
    """Return the latest days stored with the current definitions, with a value that changes with their facts."""
    config = past.config
    said = stamps(config)
    return {
        dt.date.fromisoformat(date): f"{rows}/{verdicts}"
        for date, rows, verdicts in past.conn.execute(
            "SELECT date, rows, verdicts FROM day_summary WHERE format = ? AND def_version = ?"
            " ORDER BY date DESC LIMIT ?",
            (FORMAT, config.thresholds.def_version, 2 * REMADE_DAYS),
        )
        if verdicts == said.get(date, 0)
    }


def young(stored: Mapping[dt.date, str]) -> list[dt.date]:
    """Return the stored days that are re-sent when they change, oldest first."""
    return [date for date in sorted(stored) if date > max(stored) - REMADE_DAYS * DAY]


def _subjects(past: History) -> Iterator[tuple[str, str, tuple[str, dt.date]]]:
    """Yield key, basis, kind and date of all possible reports."""
    config = past.config
    stored = summed_up(past)
    if not stored:
        return
    last = max(stored)
    sales = changes(past, young(stored))
    head = f"{FORMAT}/{config.thresholds.def_version}/{_digest_of(config)}"
    for date in young(stored):
        yield f"day/{date}", f"{head}/{stored[date]}{sales.get(date, '')}", ("day", date)
        if date.weekday() == SUNDAY:
            dates = [date - n * DAY for n in range(7)]
            week = " ".join(stored.get(day, "") for day in dates)
            sold = "".join(changes(past, dates).values())
            yield f"week/{date}", f"{head}/{week}{sold}", ("week", date)
    if config.promotions or config.layout_changes:
        yield "trials", f"{head}/{last}/{stored[last]}{_sales_of_trials(past)}", ("trials", last)


def _sales_of_trials(past: Past) -> str:
    """Return a text that changes with the sales of any day that a promotion or layout change is judged by."""
    config = past.config
    spans = [(tried.first_day, tried.last_day) for tried in config.promotions]
    spans += [(tried.date, tried.date) for tried in config.layout_changes]
    first, last = min(first for first, _ in spans) - REACH, max(last for _, last in spans) + REACH
    known = changes(past, [first + n * DAY for n in range((last - first).days + 1)])
    return f" {blake2b(repr(known).encode(), digest_size=6).hexdigest()}" if known else ""


def _digest_of(config: StoreConfig) -> str:
    """Return a digest of the configuration that affects the figures, besides thresholds; names are not included."""
    parts = (
        [(zone.id, zone.floor, zone.kind) for zone in config.zones],
        *(config.service_targets, config.promotions, config.layout_changes, config.privacy),
        *(config.opening_hours, config.special_days),
    )
    return blake2b(repr(parts).encode(), digest_size=6).hexdigest()


def _digest(events: Sequence[OfDays]) -> str:
    told = [event.model_dump(mode="json", exclude={"id", "revision", "as_of_us"}) for event in events]
    return blake2b(json.dumps(told).encode(), digest_size=12).hexdigest()


def _head(past: History, scope: Scope, revision: int) -> dict[str, Any]:
    first, last = (dt.date.fromisoformat(day) for day in (scope.first_day, scope.last_day))
    return {
        "first_day": scope.first_day,
        "last_day": scope.last_day,
        "days": scope.days,
        "revision": revision,
        "as_of_us": scope.as_of_us or 0,
        "def_version": scope.def_version,
        "small_cell": scope.small_cell,
        "layouts": layouts.during(past.conn, past.bounds_us(first)[0], past.bounds_us(last)[1]),
    }


def _day(past: History, date: dt.date, revision: int) -> tuple[OfDays, ...]:
    return (
        *_floors(past, date, revision),
        _flows(past, date, revision),
        *_ways(past, date, revision),
        *_scorecards(past, date, revision, 1),
        *_service(past, date, revision),
        _tiers(past, date, revision),
        _suspects(past, date, revision),
    )


def _week(past: History, date: dt.date, revision: int) -> tuple[OfDays, ...]:
    return tuple(_scorecards(past, date, revision, 7))


def _floors(past: History, date: dt.date, revision: int) -> Iterator[FloorDay]:
    report, made = past.occupancy(date), past.day(date)
    covered = {floor.floor: floor.coverage for floor in past.traffic(date)}
    for number, floor in enumerate(report.floors):
        facts = made.windows.floors[:, number]
        yield FloorDay(
            **_head(past, report.scope, revision),
            floor=floor.place,
            coverage=_rounded(covered[floor.place]),
            windows=[
                FloorWindow(
                    window_us=cell.start_us,
                    **{name: int(facts[name][n]) if cell.state == "measured" else None for name in COUNTED},
                    mean=_rounded(cell.mean, 2),
                    peak=cell.peak,
                )
                for n, cell in enumerate(floor.windows)
            ],
        )


def _flows(past: History, date: dt.date, revision: int) -> FlowDay:
    report = past.flows(date)
    return FlowDay(
        **_head(past, report.scope, revision),
        links=[FlowLink(from_zone=link.from_zone, to_zone=link.to_zone, n=link.n) for link in report.links[:MAX_LINKS]],
        steps=report.steps,
        paths=[FlowPath(zones=list(path.zones), n=path.n) for path in report.paths],
        with_path=report.with_path,
        entries={mix.zone: mix.n for mix in report.entries},
        exits={mix.zone: mix.n for mix in report.exits},
    )


def _ways(past: History, date: dt.date, revision: int) -> Iterator[WayDay]:
    for tag_class in past.config.privacy.ways:
        found = past.ways(date, tag_class)
        yield WayDay(
            **_head(past, past.flows(date).scope, revision),
            tag_class=tag_class,
            ways=[FlowPath(zones=list(way), n=n) for way, n in found.counts[:MAX_WAYS]],
            with_path=found.with_path,
        )


def _scorecards(past: History, date: dt.date, revision: int, days: int) -> Iterator[Scorecard]:
    report = past.counters(date, days)
    for zone in report.zones:
        best, worst = zone.rank or (None, None)
        yield Scorecard(
            **_head(past, report.scope, revision),
            zone=zone.zone,
            floor=zone.floor,
            coverage=_rounded(zone.coverage),
            **{name: getattr(zone, name) for name in ("n", "pass_by", "touch", "visit", "engaged")},
            median_s=_rounded(zone.median_s, 1),
            p75_s=_rounded(zone.p75_s, 1),
            draw=_proportion(zone.draw),
            conversion=_rounded(zone.conversion),
            engaged_share=_proportion(zone.engaged_share),
            bounce=_proportion(zone.bounce),
            first_stop=_proportion(zone.first_stop),
            repeat=_proportion(zone.repeat),
            wait_median_s=_rounded(zone.wait_median_s, 1),
            met=_proportion(zone.met),
            rank_best=best,
            rank_worst=worst,
            sales=_sales(zone.sales),
        )


def _service(past: History, date: dt.date, revision: int) -> Iterator[ServiceDay]:
    report = past.service(date)
    by_hour = {zone.zone: zone.hours for zone in past.hours(date).zones}
    for zone in report.zones:
        yield ServiceDay(
            **_head(past, report.scope, revision),
            zone=zone.zone,
            floor=zone.floor,
            coverage=_rounded(zone.coverage),
            staffed=_rounded(zone.staffed),
            wanted=zone.wanted,
            met=_proportion(zone.met),
            wait_median_s=_rounded(zone.wait_median_s, 1),
            wait_p75_s=_rounded(zone.wait_p75_s, 1),
            assist_median_s=_rounded(zone.assist_median_s, 1),
            visits_per_staff_hour=_rounded(zone.visits_per_staff_hour, 2),
            hours=[
                StaffHour(
                    start_us=hour.start_us,
                    visits=None if hour.n is None else (hour.visit or 0) + (hour.engaged or 0),
                    staff_s=_rounded(hour.staff_s, 1),
                )
                for hour in by_hour[zone.zone]
            ],
        )


def _tiers(past: History, date: dt.date, revision: int) -> TierDay:
    report = past.tiers(date)
    return TierDay(
        **_head(past, report.scope, revision),
        journeys=past.counters(date).journeys,
        tiers=[
            TierMix(
                tier=one.tier,
                members=one.members,
                journeys=one.journeys,
                visit_share=_rounded(one.visit_share),
                dwell_share=_rounded(one.dwell_share),
                returning=_proportion(one.returning),
                met=_proportion(one.met),
                wait_median_s=_rounded(one.wait_median_s, 1),
                wait_target_s=one.wait_target_s,
                wait_kept=_proportion(one.wait_kept),
                assist_median_s=_rounded(one.assist_median_s, 1),
                assist_target_s=one.assist_target_s,
                assist_kept=_proportion(one.assist_kept),
                contact=_proportion(one.contact),
            )
            for one in report.tiers
        ],
        contact=_proportion(past.service(date).contact),
        history_days=report.history_days,
    )


def _suspects(past: History, date: dt.date, revision: int) -> SuspectDay:
    scope = past.counters(date).scope
    return SuspectDay(
        **_head(past, scope, revision),
        n=scope.suspected_staff,
        tags=[
            SuspectedTag.model_validate(
                {
                    "tag": blake2b(f"{one.tag} {date}".encode(), digest_size=16).hexdigest(),
                    "tag_class": one.tag_class,
                    "reasons": one.reasons,
                    "present_s": round(one.present_s, 1),
                    "zone": one.zone,
                    "confirmed": one.confirmed,
                }
            )
            for one in past.suspects(date)
            if "stuck" in one.reasons
        ][:MAX_SUSPECTS],
    )


def _trials(past: History, date: dt.date, revision: int) -> tuple[OfDays, ...]:
    scope = past.counters(date).scope

    def layouts_of(trial: Trial) -> list[LayoutInForce]:
        first, last = (dt.date.fromisoformat(str(day)) for day in (trial.first_day, trial.last_day))
        return layouts.during(past.conn, past.bounds_us(first)[0], past.bounds_us(last)[1])

    return tuple(
        TrialResult.model_validate(
            _head(past, scope, revision)
            | {name: getattr(trial, name) for name in ("first_day", "last_day", "kind", "state", "zones", "controls")}
            | {"trial": trial.id, "phases": list(_phases(trial)), "layouts": layouts_of(trial)}
            | {"tickets": [TicketPhase.model_validate(told) for _, told in _told(trial, (TICKETS,))]}
        )
        for trial in (*past.promotions(), *past.layout_changes())
    )


def _phases(trial: Trial) -> Iterator[TrialPhase]:
    for measure, told in _told(trial, MEASURES):
        yield TrialPhase.model_validate(told | {"measure": measure})


def _told(trial: Trial, measures: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for effect in trial.effects:
        if effect.measure in measures:
            for name, phase in (("during", effect.during), ("after", effect.after)):
                if phase is not None:
                    yield effect.measure, {"phase": name} | _change(phase)


def _change(phase: Phase) -> dict[str, Any]:
    found: Change | None = phase.change
    return {
        "change": None if found is None else round(found.change, 4),
        "low": None if found is None else round(found.low, 4),
        "high": None if found is None else round(found.high, 4),
        "days_before": None if found is None else found.days_before,
        "days_after": None if found is None else found.days_after,
        "days_used": phase.days_used,
        "days_left_out": phase.days_left_out,
    }


def _proportion(found: Rate | None) -> Proportion | None:
    return (
        None if found is None else Proportion(k=found.k, n=found.n, low=round(found.low, 4), high=round(found.high, 4))
    )


def _sales(found: ZoneSales | None) -> SalesOfZone | None:
    if found is None:
        return None
    told = {name: getattr(found, name) for name in ("days", "tickets", "units", "amount")}
    return SalesOfZone(**told, per_visit=_quotient(found.per_visit), per_engaged=_quotient(found.per_engaged))


def _quotient(found: Rate | None) -> Quotient | None:
    return None if found is None else Quotient(k=found.k, n=found.n, low=round(found.low, 4), high=round(found.high, 4))


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(value, digits)


_MAKERS = {"day": _day, "week": _week, "trials": _trials}
