"""A summary as text, JSON and CSV: the same tables for the command line and for the page's downloads."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from config import StoreConfig
from edge.words.formulas import formula_safe
from edge.words.languages import catalogue, named

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from edge.days.summary import Summary
    from edge.store.live_state import Now
from edge.words.numbers import duration, local, number, percent
from edge.words.tables import BOM, Cell, Table

TABLES = ("traffic", "dwell", "flows", "members")


def tables(summary: Summary, config: StoreConfig, lang: str) -> dict[str, Table]:
    """Every table of the summary, by its name in TABLES. Names in `lang`, column ids the same in every language."""
    floors = {floor.id: named(floor.name, lang) for floor in config.floors}
    zones = {zone.id: named(zone.name, lang) for zone in config.zones}

    def rounded(value: float | None, digits: int) -> float | None:
        return None if value is None else round(value, digits)

    traffic = [
        (
            *(floor.floor, floors[floor.floor], _iso(config, hour.start_us)),
            *(hour.state, *((hour.entered or {}).get(name) for name in ("member", "unknown", "cart"))),
            rounded(hour.coverage, 3),
        )
        for floor in summary.floors
        for hour in floor.hours
    ]
    dwell = [
        (
            *(zone.floor, zone.zone, zones[zone.zone], zone.kind),
            *(zone.n, rounded(zone.median_s, 1), rounded(zone.p75_s, 1)),
            *(zone.pass_by, zone.touch, zone.visit, zone.engaged),
            *(zone.censored, zone.cart_visits, rounded(zone.coverage, 3)),
        )
        for zone in summary.zones
    ]
    flows: list[tuple[Cell, ...]] = [
        (link.from_zone, zones.get(link.from_zone), link.to_zone, zones.get(link.to_zone), link.n)
        for link in summary.flows.links
    ]
    if summary.flows.suppressed_links:
        flows.append(("suppressed", None, "suppressed", None, summary.flows.suppressed_n))
    hidden = f"<{summary.small_cell}"
    members = [(tier.tier, hidden if tier.members is None else tier.members) for tier in summary.tiers]
    return {
        "traffic": Table(
            ("floor", "floor_name", "hour", "state", "members", "other_tags", "carts", "coverage"), 3, tuple(traffic)
        ),
        "dwell": Table(
            (
                *("floor", "zone", "zone_name", "kind", "n", "median_s", "p75_s"),
                *("pass_by", "touch", "visit", "engaged", "censored", "cart_visits", "coverage"),
            ),
            4,
            tuple(dwell),
        ),
        "flows": Table(("from_zone", "from_name", "to_zone", "to_name", "n"), 4, tuple(flows)),
        "members": Table(("tier", "members"), 1, tuple(members)),
    }


def as_json(summary: Summary, now: Now | None = None, insights: Mapping[str, object] | None = None) -> str:
    """The summary's fields, and `service`: the broker and the outbox as they are now, null when no service runs.

    `insights` (edge.reports.insights) under their own name, if there are any.
    """
    more = {} if insights is None else {"insights": insights}
    return json.dumps({**asdict(summary), "service": _service(now), **more}, ensure_ascii=False, indent=2) + "\n"


def as_csv(summary: Summary, config: StoreConfig, lang: str, table: str | None = None) -> str:
    """One table, or all of them as rows of table, key, measure and value. For spreadsheets: BOM, no formulas."""
    out = io.StringIO()
    writer = csv.writer(out)
    as_of = _iso(config, summary.as_of_us)
    every = tables(summary, config, lang)
    if table is not None:
        chosen = every[table]
        writer.writerow(["date", *chosen.columns, "as_of"])
        writer.writerows([summary.date, *map(formula_safe, row), as_of] for row in chosen.rows)
        return BOM + out.getvalue()
    keys = list(dict.fromkeys(column for t in every.values() for column in t.columns[: t.keys]))
    writer.writerow(["date", "table", *keys, "measure", "value", "as_of"])
    for name, t in every.items():
        for row in t.rows:
            of = dict(zip(t.columns[: t.keys], row[: t.keys], strict=True))
            for measure, value in zip(t.columns[t.keys :], row[t.keys :], strict=True):
                row_of = (*map(of.get, keys), measure, value)
                writer.writerow([summary.date, name, *map(formula_safe, row_of), as_of])
    return BOM + out.getvalue()


def as_text(summary: Summary, config: StoreConfig, lang: str, now: Now | None) -> str:
    """The summary for a terminal, 120 columns."""
    from rich import box  # not at the top: the page needs none of it
    from rich.console import Console
    from rich.table import Table as RichTable

    _ = catalogue(lang).gettext
    out = io.StringIO()
    console = Console(file=out, width=120, color_system=None, highlight=False, markup=False, emoji=False)
    as_of = local(config, summary.as_of_us)
    floors = {floor.id: named(floor.name, lang) for floor in config.floors}
    zones = {zone.id: named(zone.name, lang) for zone in config.zones}

    console.print(f"{named(config.store.name, lang)} · {summary.date}")
    console.print(
        f"{_('as of')} {as_of:%Y-%m-%d %H:%M:%S}" if as_of else _("Nothing has been recorded yet."),
        f"· {_('coverage')} {percent(summary.coverage)} · {_('definitions')} {summary.def_version}",
    )
    people = summary.journeys["member"] + summary.journeys["unknown"]
    console.print(
        f"{_('Journeys')} {people} · {_('Cart journeys')} {summary.journeys['cart']} ·"
        f" {_('Zone visits')} {summary.visits} · {_('Members seen')} {summary.members_seen}",
    )
    console.print(_service_line(config, lang, summary, now))

    def grid(title: str, columns: Sequence[str], left: int) -> RichTable:
        table = RichTable(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for place, column in enumerate(columns):
            table.add_column(column, justify="left" if place < left else "right")
        return table

    traffic = grid(_("Traffic"), [_("Floor"), _("Member visits"), _("Other tags"), _("Cart visits"), _("Coverage")], 1)
    for floor in summary.floors:
        counts = [number((floor.entered or {}).get(name)) for name in ("member", "unknown", "cart")]
        traffic.add_row(floors[floor.floor], *counts, percent(floor.coverage))
    console.print(traffic)
    if summary.doors:
        doors = grid(_("Door counters"), [_("Zone"), _("Passages"), _("Coverage")], 1)
        for door in summary.doors:
            doors.add_row(zones[door.zone], number(door.passages), percent(door.coverage))
        console.print(doors)
    dwell = grid(
        _("Dwell"),
        [
            *(_("Zone"), _("Floor"), "n", _("Median"), "p75"),
            *(_("Pass-by"), _("Touch"), _("Visit"), _("Engaged"), _("Carts"), _("Coverage")),
        ],
        2,
    )
    for zone in summary.zones:
        dwell.add_row(
            *(zones[zone.zone], floors[zone.floor], number(zone.n), duration(zone.median_s), duration(zone.p75_s)),
            *(number(n) for n in (zone.pass_by, zone.touch, zone.visit, zone.engaged, zone.cart_visits)),
            percent(zone.coverage),
        )
    console.print(dwell)
    flows = grid(_("Flows"), [_("From"), _("To"), "n"], 2)
    for link in summary.flows.links[:20]:
        flows.add_row(zones.get(link.from_zone, link.from_zone), zones.get(link.to_zone, link.to_zone), str(link.n))
    if summary.flows.suppressed_links:
        flows.add_row(
            f"({_('fewer than {n} journeys').format(n=summary.small_cell)})", "", str(summary.flows.suppressed_n)
        )
    console.print(flows)
    if summary.tiers:
        tiers = grid(_("Members by tier"), [_("Tier"), _("Members")], 1)
        for tier in summary.tiers:
            tiers.add_row(tier.tier, f"<{summary.small_cell}" if tier.members is None else str(tier.members))
        console.print(tiers)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _iso(config: StoreConfig, at_us: int | None) -> str:
    at = local(config, at_us)
    return "" if at is None else at.isoformat(timespec="seconds")


def _service(now: Now | None) -> Mapping[str, object] | None:
    if now is None:
        return None
    return {
        "as_of_us": now.as_of_us,
        "broker": now.broker.model_dump(),
        "outbox": {name: backlog.model_dump() for name, backlog in now.outbox.items()},
        "readers": {reader.id: reader.link for reader in now.readers},
    }


def _service_line(config: StoreConfig, lang: str, summary: Summary, now: Now | None) -> str:
    _ = catalogue(lang).gettext
    pending = sum(depth["pending"] for depth in summary.outbox.values())
    if now is None:
        return _("The service is not running; {n} events wait for the CRM.").format(n=pending)
    pending = sum(backlog.pending for backlog in now.outbox.values())
    down = [reader.id for reader in now.readers if reader.link != "up"]
    readers = _("Readers up: {up} of {all}").format(up=len(now.readers) - len(down), all=len(now.readers))
    if down:
        readers += f" ({', '.join(down)})"
    if now.broker.connected:
        return f"{readers} · {_('CRM connected; {n} events not yet acknowledged').format(n=pending)}"
    since = local(config, now.broker.since_us)
    text = _("CRM unreachable since {time}: buffering {n} events").format(time=f"{since:%Y-%m-%d %H:%M:%S}", n=pending)
    return f"{readers} · {text}" + (f" ({now.broker.reason})" if now.broker.reason else "")
