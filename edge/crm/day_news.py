"""What the CRM is told of business days: scorecards, flows, tiers, service, floors, trials, suspected tags.

Told when a day has been summed up, each Sunday's week with it; told again, as the next revision, when it has become
something else: visits that came late, a verdict on a suspected tag, a trial that goes on.
"""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from config import StoreConfig
from config.facts import COUNTED
from dwell.compare import Change
from edge.access.verdicts import stamps
from edge.days.changes import Phase, Trial, layout_changes, promotions
from edge.days.counters import counters
from edge.days.flows import flows
from edge.days.hours import hours
from edge.days.kept import DAY, FORMAT, REMADE_DAYS, day
from edge.days.occupancy import occupancy
from edge.days.scope import Rate, Scope
from edge.days.service import service, tiers
from edge.days.suspects import suspected_tags
from edge.days.traffic import traffic
from edge.store import layouts
from edge.store.business_days import business_days
from sync import outbox
from sync.contract import CLASS_OF, CLASSES
from sync.contract_days import (
    MAX_LINKS,
    MAX_SUSPECTS,
    FloorDay,
    FloorWindow,
    FlowDay,
    FlowLink,
    FlowPath,
    LayoutInForce,
    OfDays,
    Proportion,
    Scorecard,
    ServiceDay,
    StaffHour,
    SuspectDay,
    SuspectedTag,
    TierDay,
    TierMix,
    TrialPhase,
    TrialResult,
)

SUNDAY = 6


@dataclass(frozen=True)
class News:
    """Something to tell, or to tell again."""

    key: str
    basis: str
    digest: str
    revision: int
    events: tuple[OfDays, ...]
    """Empty: it was made of something else, but says what it said."""


def news(conn: sqlite3.Connection, config: StoreConfig) -> News | None:
    """The next thing that the CRM does not know of the last REMADE_DAYS stored days; None if there is none."""
    told = {key: row for key, *row in conn.execute("SELECT key, basis, digest, revision FROM told")}
    for key, basis, (kind, date) in _subjects(conn, config):
        before = told.get(key)
        if before is not None and before[0] == basis:
            continue
        revision = 1 if before is None else int(before[2]) + 1
        events = _MAKERS[kind](conn, config, date, revision)
        digest = _digest(events)
        if before is not None and before[1] == digest:
            return News(key, basis, digest, int(before[2]), ())
        return News(key, basis, digest, revision, events)
    return None


def tell(conn: sqlite3.Connection, item: News) -> None:
    """Into the outbox, in the caller's transaction."""
    for class_ in CLASSES:
        mine = [event for event in item.events if CLASS_OF[event.type] == class_]  # type: ignore[attr-defined]
        if mine:
            outbox.append(conn, class_, mine)  # type: ignore[arg-type]
    conn.execute("INSERT OR REPLACE INTO told VALUES (?, ?, ?, ?)", (item.key, item.basis, item.digest, item.revision))


def forget(conn: sqlite3.Connection, config: StoreConfig, today: dt.date) -> int:
    """Forget what was told of days that are no longer kept; how many."""
    oldest = today - config.database.keep_days * DAY
    return conn.execute(
        "DELETE FROM told WHERE (key LIKE 'day/%' OR key LIKE 'week/%' OR key LIKE 'windows/%')"
        " AND substr(key, -10) < ?",
        (oldest.isoformat(),),
    ).rowcount


def summed_up(conn: sqlite3.Connection, config: StoreConfig) -> dict[dt.date, str]:
    """Days that are stored by the present definitions, the latest; with what changes when one is summed up anew."""
    said = stamps(config)
    return {
        dt.date.fromisoformat(date): f"{rows}/{verdicts}"
        for date, rows, verdicts in conn.execute(
            "SELECT date, rows, verdicts FROM day_summary WHERE format = ? AND def_version = ?"
            " ORDER BY date DESC LIMIT ?",
            (FORMAT, config.thresholds.def_version, 2 * REMADE_DAYS),
        )
        if verdicts == said.get(date, 0)
    }


def young(stored: Mapping[dt.date, str]) -> list[dt.date]:
    """Of stored days those that are told anew when they change, the oldest first."""
    return [date for date in sorted(stored) if date > max(stored) - REMADE_DAYS * DAY]


def _subjects(conn: sqlite3.Connection, config: StoreConfig) -> Iterator[tuple[str, str, tuple[str, dt.date]]]:
    """Key, basis, kind and date of all that may have to be told."""
    stored = summed_up(conn, config)
    if not stored:
        return
    last = max(stored)
    head = f"{FORMAT}/{config.thresholds.def_version}/{_digest_of(config)}"
    for date in young(stored):
        yield f"day/{date}", f"{head}/{stored[date]}", ("day", date)
        if date.weekday() == SUNDAY:
            week = [stored.get(date - n * DAY, "") for n in range(7)]
            yield f"week/{date}", f"{head}/{' '.join(week)}", ("week", date)
    if config.promotions or config.layout_changes:
        yield "trials", f"{head}/{last}/{stored[last]}", ("trials", last)


def _digest_of(config: StoreConfig) -> str:
    """Of what these numbers depend on beside thresholds: a name that changes is no news."""
    parts = (
        [(zone.id, zone.floor, zone.kind) for zone in config.zones],
        *(config.service_targets, config.promotions, config.layout_changes),
        *(config.opening_hours, config.special_days),
    )
    return blake2b(repr(parts).encode(), digest_size=6).hexdigest()


def _digest(events: Sequence[OfDays]) -> str:
    told = [event.model_dump(mode="json", exclude={"id", "revision", "as_of_us"}) for event in events]
    return blake2b(json.dumps(told).encode(), digest_size=12).hexdigest()


def _head(conn: sqlite3.Connection, config: StoreConfig, scope: Scope, revision: int) -> dict[str, Any]:
    days = business_days(config)
    first, last = (dt.date.fromisoformat(day) for day in (scope.first_day, scope.last_day))
    return {
        "first_day": scope.first_day,
        "last_day": scope.last_day,
        "days": scope.days,
        "revision": revision,
        "as_of_us": scope.as_of_us or 0,
        "def_version": scope.def_version,
        "small_cell": scope.small_cell,
        "layouts": layouts.during(conn, days.bounds_us(first)[0], days.bounds_us(last)[1]),
    }


def _day(conn: sqlite3.Connection, config: StoreConfig, date: dt.date, revision: int) -> tuple[OfDays, ...]:
    return (
        *_floors(conn, config, date, revision),
        _flows(conn, config, date, revision),
        *_scorecards(conn, config, date, revision, 1),
        *_service(conn, config, date, revision),
        _tiers(conn, config, date, revision),
        _suspects(conn, config, date, revision),
    )


def _week(conn: sqlite3.Connection, config: StoreConfig, date: dt.date, revision: int) -> tuple[OfDays, ...]:
    return tuple(_scorecards(conn, config, date, revision, 7))


def _floors(conn: sqlite3.Connection, config: StoreConfig, date: dt.date, revision: int) -> Iterator[FloorDay]:
    report, made = occupancy(conn, config, date), day(conn, config, date)
    covered = {floor.floor: floor.coverage for floor in traffic(conn, config, date)}
    for number, floor in enumerate(report.floors):
        facts = made.windows.floors[:, number]
        yield FloorDay(
            **_head(conn, config, report.scope, revision),
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


def _flows(conn: sqlite3.Connection, config: StoreConfig, date: dt.date, revision: int) -> FlowDay:
    report = flows(conn, config, date)
    return FlowDay(
        **_head(conn, config, report.scope, revision),
        links=[FlowLink(from_zone=link.from_zone, to_zone=link.to_zone, n=link.n) for link in report.links[:MAX_LINKS]],
        steps=report.steps,
        paths=[FlowPath(zones=list(path.zones), n=path.n) for path in report.paths],
        with_path=report.with_path,
        entries={mix.zone: mix.n for mix in report.entries},
        exits={mix.zone: mix.n for mix in report.exits},
    )


def _scorecards(
    conn: sqlite3.Connection, config: StoreConfig, date: dt.date, revision: int, days: int
) -> Iterator[Scorecard]:
    report = counters(conn, config, date, days)
    for zone in report.zones:
        best, worst = zone.rank or (None, None)
        yield Scorecard(
            **_head(conn, config, report.scope, revision),
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
        )


def _service(conn: sqlite3.Connection, config: StoreConfig, date: dt.date, revision: int) -> Iterator[ServiceDay]:
    report = service(conn, config, date)
    by_hour = {zone.zone: zone.hours for zone in hours(conn, config, date).zones}
    for zone in report.zones:
        yield ServiceDay(
            **_head(conn, config, report.scope, revision),
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


def _tiers(conn: sqlite3.Connection, config: StoreConfig, date: dt.date, revision: int) -> TierDay:
    report = tiers(conn, config, date)
    return TierDay(
        **_head(conn, config, report.scope, revision),
        journeys=counters(conn, config, date).journeys,
        tiers=[
            TierMix(
                tier=one.tier,
                members=one.members,
                journeys=one.journeys,
                visit_share=_rounded(one.visit_share),
                dwell_share=None if one.dwell_share is None else min(1.0, round(one.dwell_share, 4)),
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
        contact=_proportion(service(conn, config, date).contact),
        history_days=report.history_days,
    )


def _suspects(conn: sqlite3.Connection, config: StoreConfig, date: dt.date, revision: int) -> SuspectDay:
    scope = counters(conn, config, date).scope
    return SuspectDay(
        **_head(conn, config, scope, revision),
        n=scope.suspected_staff,
        tags=[
            SuspectedTag.model_validate(
                {
                    "tag": one.tag,
                    "tag_class": one.tag_class,
                    "reasons": one.reasons,
                    "present_s": round(one.present_s, 1),
                    "zone": one.zone,
                    "confirmed": one.confirmed,
                }
            )
            for one in suspected_tags(conn, config, date)[:MAX_SUSPECTS]
        ],
    )


def _trials(conn: sqlite3.Connection, config: StoreConfig, date: dt.date, revision: int) -> tuple[OfDays, ...]:
    scope, days = counters(conn, config, date).scope, business_days(config)

    def layouts_of(trial: Trial) -> list[LayoutInForce]:
        first, last = (dt.date.fromisoformat(str(day)) for day in (trial.first_day, trial.last_day))
        return layouts.during(conn, days.bounds_us(first)[0], days.bounds_us(last)[1])

    return tuple(
        TrialResult.model_validate(
            _head(conn, config, scope, revision)
            | {name: getattr(trial, name) for name in ("first_day", "last_day", "kind", "state", "zones", "controls")}
            | {"trial": trial.id, "phases": list(_phases(trial)), "layouts": layouts_of(trial)}
        )
        for trial in (*promotions(conn, config), *layout_changes(conn, config))
    )


def _phases(trial: Trial) -> Iterator[TrialPhase]:
    for effect in trial.effects:
        for name, phase in (("during", effect.during), ("after", effect.after)):
            if phase is not None:
                yield TrialPhase.model_validate({"measure": effect.measure, "phase": name} | _change(phase))


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


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(value, digits)


_MAKERS = {"day": _day, "week": _week, "trials": _trials}
