"""The digest of cues and service cases for a terminal."""

from __future__ import annotations

import asyncio
import io
import json
import time
from contextlib import closing
from dataclasses import asdict

from rich import box
from rich.console import Console
from rich.table import Table

from config import StoreConfig
from edge.cues.digest import Digest, digest
from edge.database.reader import connect
from edge.store.business_days import business_days, parse_date
from edge.store.errors import Trouble
from edge.store.live_socket import read_once, socket_path
from edge.words.languages import LANGUAGES, catalogue, named
from edge.words.numbers import duration, local, number


def render(config: StoreConfig, date: str | None, days: int, form: str, lang: str) -> str:
    """For the terminal: `text` or `json`. Raises Trouble for what the caller can mend."""
    if lang not in LANGUAGES:
        raise Trouble(f"no language {lang!r}; there are {', '.join(LANGUAGES)}")
    line = asyncio.run(read_once(socket_path(config)))
    now_us = time.time_ns() // 1000 if line is None else int(line["as_of_us"])
    chosen = business_days(config).date(now_us) if date is None else parse_date(date)
    with closing(connect(config.database.path)) as conn:
        found = digest(conn, config, chosen, days, now_us)
    if form == "json":
        return json.dumps(asdict(found), ensure_ascii=False)
    return as_text(found, config, lang)


def as_text(found: Digest, config: StoreConfig, lang: str) -> str:
    """For a terminal, 120 columns."""
    _ = catalogue(lang).gettext
    out = io.StringIO()
    console = Console(file=out, width=120, color_system=None, highlight=False, markup=False, emoji=False)
    zones = {zone.id: named(zone.name, lang) for zone in config.zones}
    when = found.first_date if found.first_date == found.last_date else f"{found.first_date} – {found.last_date}"
    console.print(f"{_('Service digest')} {when}")
    names = {
        "arrival": _("Arrivals"),
        "waiting": _("Waits"),
        "done": _("done"),
        "attended": _("staff came"),
        "expired": _("nobody came"),
        "open": _("still open"),
    }
    told = " · ".join(f"{names[name]} {number(n)}" for name, n in {**found.cues, **found.outcomes}.items())
    console.print(told)
    took = "–" if found.cue_p95_ms is None else f"{found.cue_p95_ms:.0f} ms"
    console.print(f"{_('Answered after, median')} {duration(found.answer_median_s)} (n={found.answered}) · p95 {took}")
    for title, lines, named_ in ((_("By tier"), found.tiers, {}), (_("By zone"), found.zones, zones)):
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for n, column in enumerate(("", _("Arrivals"), _("Waits"), _("nobody came"), _("Answered after, median"))):
            table.add_column(column, justify="right" if n else "left")
        for line in lines:
            counts = (number(line.arrivals), number(line.waits), number(line.expired))
            table.add_row(named_.get(line.name, line.name), *counts, duration(line.answer_median_s))
        if lines:
            console.print(table)
    cases = Table(title=_("Service cases"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("#", _("When"), _("Zone"), _("State"), _("Note")):
        cases.add_column(column)
    states = {
        "open": _("open"),
        "acknowledged": _("acknowledged"),
        "done": _("done"),
        "reviewed": _("reviewed"),
    }
    for case in found.case_lines:
        at = local(config, case.at_us)
        cases.add_row(
            str(case.number), f"{at:%m-%d %H:%M}", zones.get(case.zone, case.zone), states[case.state], case.note
        )
    if found.case_lines:
        console.print(cases)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"
