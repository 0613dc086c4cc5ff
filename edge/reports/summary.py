"""Render a summary as text, JSON and CSV, with the same tables for the command line and the page's downloads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from config import StoreConfig
from config.facts import PEOPLE
from edge.reports.columns import people, ways, zones
from edge.reports.columns.shared import Part, floor_name
from edge.words import tables
from edge.words.languages import catalogue, named
from edge.words.numbers import iso, local, number, percent
from edge.words.tables import Cell, Words, cells, fields, pick

if TYPE_CHECKING:
    from edge.days.summary import Summary
    from edge.store.live_state import Now

FLOWS_SHOWN = 20
"""Maximum number of flows listed on a terminal."""
TABLES = {"traffic": zones.TRAFFIC, "dwell": zones.DWELL, "flows": ways.FLOWS, "members": people.MEMBERS}
"""Columns of the tables in a summary."""
ZONE = tuple(column.id for column in zones.DWELL if column.id != "zone_name")
"""Fields of a zone's score in JSON; the others are in `insights`. Answers to the CRM must fit in one message."""


def rows(summary: Summary, table: str) -> Iterable[Any]:
    """Return the rows of one of TABLES."""
    match table:
        case "traffic":
            return (Part(floor, hour) for floor in summary.floors for hour in floor.hours)
        case "dwell":
            return summary.zones
        case "flows":
            return ways.flow_rows(summary.flows)
        case _:
            return summary.tiers


def as_json(summary: Summary, now: Now | None = None, insights: Mapping[str, object] | None = None) -> str:
    """Render the summary's fields as JSON, plus `service`: current broker and outbox, null without a service.

    `insights` (edge.reports.insights) are added under that name, if given.
    """
    more = {} if insights is None else {"insights": insights}
    told = asdict(summary)
    told["zones"] = [{name: zone[name] for name in ZONE} for zone in told["zones"]]
    return json.dumps({**told, "service": _service(now), **more}, ensure_ascii=False, indent=2) + "\n"


def as_csv(summary: Summary, config: StoreConfig, lang: str, table: str | None = None) -> str:
    """Render one table, or all tables with one value per row: date, table, subject, measure, value."""
    words, as_of = Words(config, lang), iso(config, summary.as_of_us)
    if table is not None:
        ids = [field.id for field in fields(TABLES[table])]
        found = cells(TABLES[table], rows(summary, table), words)
        return tables.as_csv(("date", *ids, "as_of"), ((summary.date, *row, as_of) for row in found))
    keys = list(dict.fromkeys(column.id for columns in TABLES.values() for column in columns if column.key))

    def values() -> Iterator[tuple[Cell, ...]]:
        for name, columns in TABLES.items():
            ids = [field.id for field in fields(columns)]
            own = {column.id for column in columns if column.key}
            for found in cells(columns, rows(summary, name), words):
                row = dict(zip(ids, found, strict=True))
                of = [row[key] if key in own else None for key in keys]
                for id_ in ids:
                    if id_ not in own:
                        yield (summary.date, name, *of, id_, row[id_], as_of)

    return tables.as_csv(("date", "table", *keys, "measure", "value", "as_of"), values())


def as_text(summary: Summary, config: StoreConfig, lang: str, now: Now | None) -> str:
    """Render the summary as text for a terminal."""
    from edge.reports.terminal import Terminal  # imported here because the web page does not need it

    words = Words(config, lang)
    out, _ = Terminal(words), catalogue(lang).gettext
    as_of = local(config, summary.as_of_us)
    out.say(f"{named(config.store.name, lang)} · {summary.date}")
    out.say(
        f"{_('as of')} {as_of:%Y-%m-%d %H:%M:%S}" if as_of else _("No data has been recorded yet."),
        f"· {_('coverage')} {percent(summary.coverage)} · {_('definitions')} {summary.def_version}",
    )
    journeys = sum(summary.journeys[name] for name in PEOPLE)
    out.say(
        f"{_('Journeys')} {journeys} · {_('Cart journeys')} {summary.journeys['cart']} ·"
        f" {_('Zone visits')} {summary.visits} · {_('Members seen')} {summary.members_seen}",
    )
    out.say(_service_line(config, lang, summary, now))
    traffic = pick(zones.TRAFFIC, "floor_name", "members", "other_tags", "carts", "coverage")
    out.table(_("Traffic"), traffic, (Part(floor, floor) for floor in summary.floors))
    if summary.doors:
        passages = [
            (str(words.zone(door.zone)), number(door.passages), percent(door.coverage)) for door in summary.doors
        ]
        out.grid(_("Door counters"), [_("Zone"), _("Passages"), _("Coverage")], passages)
    dwell = pick(
        zones.DWELL, "n", "median_s", "p75_s", "pass_by", "touch", "visit", "engaged", "cart_visits", "coverage"
    )
    out.table(_("Dwell"), (*pick(zones.DWELL, "zone_name"), floor_name(), *dwell), summary.zones, left=2)
    few = f"({_('fewer than {n} journeys').format(n=summary.small_cell)})"
    out.table(
        _("Flows"),
        pick(ways.FLOWS, "from_name", "to_name", "n"),
        summary.flows.links[:FLOWS_SHOWN],
        *([(few, "", str(summary.flows.suppressed_n))] if summary.flows.suppressed_links else []),
        left=2,
    )
    if summary.tiers:
        out.table(_("Members by tier"), people.MEMBERS, summary.tiers)
    return out.text()


def _service(now: Now | None) -> Mapping[str, object] | None:
    if now is None:
        return None
    return {
        "as_of_us": now.as_of_us,
        "broker": now.broker.model_dump(),
        "outbox": {name: backlog.model_dump() for name, backlog in now.outbox.items()},
        "readers": {reader.id: reader.link for reader in now.readers},
        "failing": {one.job: one.reason for one in now.failing},
    }


def _service_line(config: StoreConfig, lang: str, summary: Summary, now: Now | None) -> str:
    _ = catalogue(lang).gettext
    pending = sum(depth["pending"] for depth in summary.outbox.values())
    if now is None:
        return _("The service is not running; events waiting for the CRM: {n}.").format(n=pending)
    pending = sum(backlog.pending for backlog in now.outbox.values())
    down = [reader.id for reader in now.readers if reader.link != "up"]
    readers = _("Readers up: {up} of {all}").format(up=len(now.readers) - len(down), all=len(now.readers))
    if down:
        readers += f" ({', '.join(down)})"
    if now.failing:
        jobs = ", ".join(f"{one.job} ({one.reason})" for one in now.failing)
        readers += f" · {_('Failing, being retried: {jobs}').format(jobs=jobs)}"
    if now.broker.connected:
        return f"{readers} · {_('CRM connected; events not yet acknowledged: {n}').format(n=pending)}"
    since = local(config, now.broker.since_us)
    text = _("CRM unreachable since {time}; events buffered: {n}").format(time=f"{since:%Y-%m-%d %H:%M:%S}", n=pending)
    return f"{readers} · {text}" + (f" ({now.broker.reason})" if now.broker.reason else "")
