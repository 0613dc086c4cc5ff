"""What a floor manager acts on, beside the day's numbers: scorecards, service, and the day against its like."""

from __future__ import annotations

import datetime as dt
import io
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from config import StoreConfig
from edge.days.changes import Comparison, Reference, Trial, comparison, layout_changes, promotions
from edge.days.counters import Counters, counters
from edge.days.flows import FlowReport, flows
from edge.days.occupancy import Occupancy, occupancy
from edge.days.scope import Rate
from edge.days.service import ServiceReport, TierReport, service, tiers
from edge.days.suspects import Suspect, suspected_tags
from edge.words.languages import catalogue, named
from edge.words.numbers import duration, local, number, percent


@dataclass(frozen=True)
class Insights:
    """Of one business day; `comparison` None while nothing of it is known."""

    counters: Counters
    flows: FlowReport
    tiers: TierReport
    service: ServiceReport
    occupancy: tuple[Occupancy, ...]
    """Of floors."""
    comparison: Comparison | None
    promotions: tuple[Trial, ...]
    layout_changes: tuple[Trial, ...]
    suspects: tuple[Suspect, ...]


def insights(conn: sqlite3.Connection, config: StoreConfig, date: dt.date) -> Insights:
    """The analytics that `tagtrail summary` tells."""
    return Insights(
        counters=counters(conn, config, date),
        flows=flows(conn, config, date),
        tiers=tiers(conn, config, date),
        service=service(conn, config, date),
        occupancy=occupancy(conn, config, date).floors,
        comparison=comparison(conn, config, date),
        promotions=promotions(conn, config),
        layout_changes=layout_changes(conn, config),
        suspects=tuple(replace(one, tag=one.tag[:8]) for one in suspected_tags(conn, config, date)),
    )


def as_values(found: Insights) -> dict[str, Any]:
    """For JSON."""
    return asdict(found)


def as_text(found: Insights, config: StoreConfig, lang: str) -> str:
    """For a terminal, 120 columns."""
    _ = catalogue(lang).gettext
    out = io.StringIO()
    console = Console(file=out, width=120, color_system=None, highlight=False, markup=False, emoji=False)
    zones = {zone.id: named(zone.name, lang) for zone in config.zones}
    floors = {floor.id: named(floor.name, lang) for floor in config.floors}

    def grid(title: str, columns: Sequence[str]) -> Table:
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for n, column in enumerate(columns):
            table.add_column(column, justify="right" if n else "left")
        return table

    together = grid(_("People at once"), [_("Floor"), _("mean"), _("peak")])
    for floor in found.occupancy:
        together.add_row(floors[floor.place], "–" if floor.mean is None else f"{floor.mean:.1f}", number(floor.peak))
    console.print(together)

    score = grid(
        _("Counters"),
        [
            *(_("Zone"), _("Rank"), _("Draw"), _("Conversion"), _("Bounce")),
            *(_("First stop"), _("Wait, median"), _("Returning"), _("Coverage")),
        ],
    )
    for zone in sorted(found.counters.zones, key=lambda z: z.rank or (999, 999)):
        if zone.kind == "counter":
            rank = "–" if zone.rank is None else "–".join(dict.fromkeys(map(str, zone.rank)))
            rates = (_rate(zone.draw), percent(zone.conversion), _rate(zone.bounce), _rate(zone.first_stop))
            more = (duration(zone.wait_median_s), _rate(zone.repeat), percent(zone.coverage))
            score.add_row(zones[zone.zone], rank, *rates, *more)
    console.print(score)

    if found.flows.paths:
        ways = grid(_("Ways through the store"), [_("Way"), "n"])
        for path in found.flows.paths[:10]:
            ways.add_row(" → ".join(zones[zone] for zone in path.zones), number(path.n))
        console.print(ways)

    if found.tiers.tiers:
        mix = grid(
            _("Service by tier"),
            [
                *(_("Tier"), _("Members"), _("Share of visits"), _("Share of dwell"), _("Returning")),
                *(_("Wait, median"), _("Wait within target"), _("Assist, median"), _("Contact coverage")),
            ],
        )
        for tier in found.tiers.tiers:
            shares = (percent(tier.visit_share), percent(tier.dwell_share), _rate(tier.returning))
            kept = (duration(tier.wait_median_s), _rate(tier.wait_kept), duration(tier.assist_median_s))
            mix.add_row(tier.tier, number(tier.members), *shares, *kept, _rate(tier.contact))
        console.print(mix)

    served = grid(
        _("Service"),
        [
            *(_("Zone"), "n", _("Met staff"), _("Wait, median"), _("Wait, p75"), _("Assist, median")),
            *(_("Staffed"), _("Visits per member of staff and hour")),
        ],
    )
    for desk in found.service.zones:
        if desk.wanted:
            waits = (duration(desk.wait_median_s), duration(desk.wait_p75_s))
            load = "–" if desk.visits_per_staff_hour is None else f"{desk.visits_per_staff_hour:.1f}"
            worked = (duration(desk.assist_median_s), percent(desk.staffed), load)
            served.add_row(zones[desk.zone], number(desk.wanted), _rate(desk.met), *waits, *worked)
    console.print(served)

    if found.comparison is not None:
        until = local(config, found.comparison.until_us)
        title = _("Up to {time}, against days of its kind").format(time=f"{until:%H:%M}")
        against = grid(title, [_("Floor"), "n", _("Last week"), _("Four weeks, median")])
        for row in found.comparison.rows:
            if row.scope in ("store", "floor"):
                name = floors[row.id] if row.scope == "floor" else named(config.store.name, lang)
                against.add_row(name, number(row.now), _change(row.last_week), _signed(row.median_change))
        console.print(against)

    for title, kind, trials in (
        (_("Promotions"), config.promotions, found.promotions),
        (_("Layout"), config.layout_changes, found.layout_changes),
    ):
        names = {one.id: named(one.name, lang) for one in kind}
        tried = grid(title, [_("What"), _("When"), _("Change"), _("Interval")])
        for trial in trials:
            effect = next(effect for effect in trial.effects if effect.measure == "visitors").during.change
            told = (_("not enough data"), "")
            if effect is not None:
                told = (_signed(effect.change), f"{_signed(effect.low)} … {_signed(effect.high)}")
            tried.add_row(names[trial.id], f"{trial.first_day} – {trial.last_day}", *told)
        if trials:
            console.print(tried)

    if found.suspects:
        why = {"stuck": _("does not move"), "long": _("here for long"), "back_room": _("in back rooms")}
        left_out = grid(
            _("Left out: suspected staff and stuck tags"), [_("Tag"), _("Why"), _("Longest in"), _("present")]
        )
        for one in found.suspects[:20]:
            reasons = _("cleared: counted") if one.confirmed is False else ", ".join(why[r] for r in one.reasons)
            left_out.add_row(one.tag, reasons, zones[one.zone], duration(one.present_s))
        console.print(left_out)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _rate(rate: Rate | None) -> str:
    return "–" if rate is None else percent(rate.value)


def _change(reference: Reference | None) -> str:
    if reference is None:
        return "–"
    return f"{_signed(reference.change)} ({reference.before:,})"


def _signed(change: float | None) -> str:
    return "–" if change is None else f"{change * 100:+.0f} %"
