"""What a floor manager acts on, beside the day's numbers: scorecards, service, and the day against its like."""

from __future__ import annotations

import datetime as dt
import io
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from config import StoreConfig
from edge.analytics import Counters, Rate, counters
from edge.analytics_changes import Comparison, Reference, comparison
from edge.analytics_service import ServiceReport, service
from edge.summary_forms import duration, local, number, percent
from edge.web.i18n import catalogue, named


@dataclass(frozen=True)
class Insights:
    """Of one business day; `comparison` None while nothing of it is known."""

    counters: Counters
    service: ServiceReport
    comparison: Comparison | None


def insights(conn: sqlite3.Connection, config: StoreConfig, date: dt.date) -> Insights:
    """The analytics that `tagtrail summary` tells."""
    return Insights(counters(conn, config, date), service(conn, config, date), comparison(conn, config, date))


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

    score = grid(
        _("Counters"),
        [*(_("Zone"), _("Rank"), _("Draw")), *(_("Conversion"), _("Bounce"), _("First stop"), _("Coverage"))],
    )
    for zone in sorted(found.counters.zones, key=lambda z: z.rank or (999, 999)):
        if zone.kind == "counter":
            rank = "–" if zone.rank is None else "–".join(dict.fromkeys(map(str, zone.rank)))
            rates = (_rate(zone.draw), percent(zone.conversion), _rate(zone.bounce), _rate(zone.first_stop))
            score.add_row(zones[zone.zone], rank, *rates, percent(zone.coverage))
    console.print(score)
    if found.counters.scope.suspected_staff:
        console.print(_("suspected staff left out: %(n)s") % {"n": found.counters.scope.suspected_staff})

    served = grid(_("Service"), [*(_("Zone"), "n", _("Met staff")), *(_("Wait, median"), _("Wait, p75"), _("Staffed"))])
    for desk in found.service.zones:
        if desk.wanted:
            waits = (duration(desk.wait_median_s), duration(desk.wait_p75_s))
            served.add_row(zones[desk.zone], number(desk.wanted), _rate(desk.met), *waits, percent(desk.staffed))
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
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _rate(rate: Rate | None) -> str:
    return "–" if rate is None else percent(rate.value)


def _change(reference: Reference | None) -> str:
    if reference is None:
        return "–"
    return f"{_signed(reference.change)} ({reference.before:,})"


def _signed(change: float | None) -> str:
    return "–" if change is None else f"{change * 100:+.0f} %"
