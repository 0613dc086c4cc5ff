"""Analytics for `tagtrail summary`: scorecards, flows, service, comparison with similar days, suspect tags."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, dataclass, replace
from typing import Any

from config import StoreConfig, ZoneKind
from edge.days.changes import Comparison, Reference, Trial
from edge.days.counters import Counters, CounterScore
from edge.days.flows import FlowReport
from edge.days.history import History
from edge.days.occupancy import Occupancy
from edge.days.service import ServiceReport, TierReport
from edge.days.suspects import Suspect
from edge.reports.columns import people, zones
from edge.reports.columns.shared import Part
from edge.reports.terminal import Terminal
from edge.words.languages import catalogue
from edge.words.numbers import duration, local, number
from edge.words.tables import Words, pick

PATHS_SHOWN = 10
SUSPECTS_SHOWN = 20
"""Maximum number of suspect tags listed on a terminal."""


@dataclass(frozen=True)
class Insights:
    """Analytics of one business day; `comparison` is None while the day has no data."""

    counters: Counters
    flows: FlowReport
    tiers: TierReport
    service: ServiceReport
    occupancy: tuple[Occupancy, ...]
    """One entry per floor."""
    comparison: Comparison | None
    promotions: tuple[Trial, ...]
    layout_changes: tuple[Trial, ...]
    suspects: tuple[Suspect, ...]


def insights(past: History, date: dt.date) -> Insights:
    """Collect the analytics that `tagtrail summary` prints."""
    return Insights(
        counters=past.counters(date),
        flows=past.flows(date),
        tiers=past.tiers(date),
        service=past.service(date),
        occupancy=past.occupancy(date).floors,
        comparison=past.comparison(date),
        promotions=past.promotions(),
        layout_changes=past.layout_changes(),
        suspects=tuple(replace(one, tag=one.tag[:8]) for one in past.suspects(date)),
    )


def as_values(found: Insights) -> dict[str, Any]:
    """Convert to plain values for JSON, without the flows between zones, which are in the summary and exports."""
    told = asdict(found)
    for name in ("folded", "stops", "direct"):
        del told["flows"][name]
    del told["counters"]["standings"]
    return told


def as_text(found: Insights, config: StoreConfig, lang: str) -> str:
    """Render as text for a terminal."""
    words = Words(config, lang)
    out, _ = Terminal(words), catalogue(lang).gettext
    together = pick(zones.OCCUPANCY, "name", "mean", "peak")
    out.table(_("Occupancy"), together, (Part(floor, floor) for floor in found.occupancy))
    ranked = sorted((zone for zone in found.counters.zones if zone.kind == ZoneKind.COUNTER), key=_by_rank)
    scores = pick(
        *(zones.COUNTERS, "zone_name", "rank", "draw", "conversion", "bounce", "first_stop"),
        *("wait_median_s", "repeat", "coverage"),
    )
    out.table(_("Counters"), scores, ranked)
    if found.flows.paths:
        walked = [
            (" → ".join(str(words.zone(zone)) for zone in path.zones), number(path.n))
            for path in found.flows.paths[:PATHS_SHOWN]
        ]
        out.grid(_("Routes through the store"), [_("Route"), "n"], walked)
    if found.tiers.tiers:
        served = pick(
            *(people.TIERS, "tier", "members", "visit_share", "dwell_share", "returning"),
            *("wait_median_s", "wait_kept", "assist_median_s", "contact"),
        )
        out.table(_("Service by tier"), served, found.tiers.tiers)
    desks = pick(
        *(zones.SERVICE, "zone_name", "wanted", "met", "wait_median_s", "wait_p75_s", "assist_median_s"),
        *("staffed", "visits_per_staff_hour"),
    )
    out.table(_("Service"), desks, (zone for zone in found.service.zones if zone.wanted))

    if found.comparison is not None:
        until = local(config, found.comparison.until_us)
        title = _("Up to {time}, compared with similar days").format(time=f"{until:%H:%M}")
        against = [
            (
                *(str(words.place(row.scope, row.id)), number(row.now)),
                *(_change(row.last_week), _signed(row.median_change)),
            )
            for row in found.comparison.rows
            if row.scope in ("store", "floor")
        ]
        out.grid(title, [_("Floor"), "n", _("Last week"), _("Median of four like days")], against)

    for title, trials in ((_("Promotions"), found.promotions), (_("Layout"), found.layout_changes)):
        tried = []
        for trial in trials:
            effect = next(effect for effect in trial.effects if effect.measure == "visitors").during.change
            told = (_("not enough data"), "")
            if effect is not None:
                told = (_signed(effect.change), f"{_signed(effect.low)} … {_signed(effect.high)}")
            when = f"{trial.first_day} – {trial.last_day}"
            tried.append((str(words.trial(trial.kind, trial.id)), when, *told))
        if tried:
            out.grid(title, [_("What"), _("When"), _("Change"), _("Interval")], tried)

    if found.suspects:
        why = {"stuck": _("does not move"), "long": _("too long in the store"), "back_room": _("in back rooms")}
        left_out = []
        for one in found.suspects[:SUSPECTS_SHOWN]:
            reasons = _("cleared: included") if one.confirmed is False else ", ".join(why[r] for r in one.reasons)
            left_out.append((one.tag, reasons, str(words.zone(one.zone)), duration(one.present_s, lang)))
        columns = [_("Tag"), _("Why"), _("Longest in"), _("present")]
        out.grid(_("Excluded: suspected staff and stuck tags"), columns, left_out)
    return out.text()


def _by_rank(zone: CounterScore) -> tuple[int, int]:
    return zone.rank or (999, 999)


def _change(reference: Reference | None) -> str:
    if reference is None:
        return "–"
    between = "" if reference.low is None else f" {_signed(reference.low)} … {_signed(reference.high)}"
    return f"{_signed(reference.change)}{between} ({reference.before:,})"


def _signed(change: float | None) -> str:
    return "–" if change is None else f"{change * 100:+.0f} %"
