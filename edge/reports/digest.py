"""Print the digest of cues and service cases on a terminal, or that of the store as a document."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict

from config import StoreConfig
from edge.cues.digest import DAY, Digest, digest
from edge.database.reader import reading
from edge.reports.terminal import Terminal
from edge.store.business_days import business_days, parse_date
from edge.store.errors import Trouble
from edge.store.live_socket import read_once, socket_path
from edge.words.languages import LANGUAGES, catalogue
from edge.words.numbers import duration, local, number
from edge.words.tables import Words


def render(config: StoreConfig, date: str | None, days: int, form: str, lang: str) -> str:
    """Render the digest as `text` or `json`. Raises Trouble for errors that the caller can correct."""
    if lang not in LANGUAGES:
        raise Trouble(f"no language {lang!r}; there are {', '.join(LANGUAGES)}")
    line = asyncio.run(read_once(socket_path(config)))
    now_us = time.time_ns() // 1000 if line is None else int(line["as_of_us"])
    chosen = business_days(config).date(now_us) if date is None else parse_date(date)
    with reading(config) as past:
        found = digest(past, chosen, days, now_us)
    if form == "json":
        return json.dumps(asdict(found), ensure_ascii=False)
    return as_text(found, config, lang)


def as_html(config: StoreConfig, date: str | None, days: int, lang: str) -> str:
    """Render the digest as one A4 page of HTML; by default of the last business day that is over. Raises Trouble."""
    from edge.days.history import history
    from edge.reports.document import document

    if lang not in LANGUAGES:
        raise Trouble(f"no language {lang!r}; there are {', '.join(LANGUAGES)}")
    with history(config) as past:
        if date is not None:
            return document(past, parse_date(date), days, lang)
        now_us = time.time_ns() // 1000 if past.watermark_us is None else past.watermark_us
        return document(past, business_days(config).date(now_us) - DAY, days, lang)


def as_text(found: Digest, config: StoreConfig, lang: str) -> str:
    """Render the digest as text for a terminal."""
    words = Words(config, lang)
    out, _ = Terminal(words), catalogue(lang).gettext
    when = found.first_date if found.first_date == found.last_date else f"{found.first_date} – {found.last_date}"
    out.say(f"{_('Service digest')} {when}")
    names = {
        "arrival": _("Arrivals"),
        "waiting": _("Waits"),
        "done": _("done"),
        "attended": _("staff came"),
        "expired": _("nobody came"),
        "open": _("still open"),
    }
    out.say(" · ".join(f"{names[name]} {number(n)}" for name, n in {**found.cues, **found.outcomes}.items()))
    took = "–" if found.cue_p95_ms is None else f"{found.cue_p95_ms:.0f} ms"
    out.say(f"{_('Response time, median')} {duration(found.answer_median_s, lang)} (n={found.answered}) · p95 {took}")
    columns = ("", _("Arrivals"), _("Waits"), _("nobody came"), _("Response time, median"))
    for title, lines, zones in ((_("By tier"), found.tiers, False), (_("By zone"), found.zones, True)):
        rows = [
            (
                *(((zones and words.zone(line.name)) or line.name), number(line.arrivals), number(line.waits)),
                *(number(line.expired), duration(line.answer_median_s, lang)),
            )
            for line in lines
        ]
        if rows:
            out.grid(title, columns, rows)
    states = {
        "open": _("open"),
        "acknowledged": _("acknowledged"),
        "done": _("done"),
        "reviewed": _("reviewed"),
    }
    cases = [
        (
            *(str(case.number), f"{local(config, case.at_us):%m-%d %H:%M}", words.zone(case.zone) or case.zone),
            *(states[case.state], case.note),
        )
        for case in found.case_lines
    ]
    if cases:
        headings = ("#", _("When"), _("Zone"), _("State"), _("Note"))
        out.grid(_("Service cases"), headings, cases, left=len(headings))
    return out.text()
