"""The morning's or the week's digest as a document: one A4 page of HTML with sentences, pictures, and what to do.

It needs nothing from elsewhere: pictures are SVG, and the style is in it, or at an address of the same site.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from config import StoreConfig
from edge.cues.digest import digest
from edge.reports import sentences
from edge.words.languages import HTML_LANG, catalogue, named
from edge.words.numbers import duration, local, number, percent
from edge.words.tables import Words

if TYPE_CHECKING:  # keeps NumPy out of the page process until a day is requested
    from dwell.compare import Share
    from edge.days.counters import Counters, CounterScore
    from edge.days.history import History
    from edge.days.need import NeedReport
    from edge.days.scope import Rate
    from edge.days.summary import Head, Summary
    from edge.days.traffic import FloorTraffic

SENTENCES = 3
BACK = 7
"""Days from the days compared to those of the digest."""
COUNTERS = 6
WIDE, HIGH = 640, 110
"""Size of the picture of arrivals, in its own units."""
TABLE = '<div class="across"><table><thead><tr><th>{}</th>{}</tr></thead><tbody>{}</tbody></table></div>'
BAR = '<svg viewBox="0 0 100 8" preserveAspectRatio="none"><rect class="bar" width="{}" height="8"/></svg>'
STYLE = """
@page { size: A4; margin: 11mm 14mm; }
body { font: 10.5pt/1.45 system-ui, "Noto Sans SC", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif;
  color: #1b2321; background: #fff; max-width: 182mm; margin: 0 auto; padding: 4mm; }
h1 { font-size: 17pt; margin: 0; } h2 { font-size: 11.5pt; margin: 5mm 0 1.5mm; }
.basis, .note { color: #56615d; font-size: 9pt; margin: 1mm 0; }
.says { font-size: 11.5pt; margin: 3mm 0; padding-left: 5mm; } .says li, .todo li { margin: 1mm 0; }
.todo { padding-left: 5mm; }
dl { display: flex; gap: 9mm; margin: 3mm 0; } dt { color: #56615d; font-size: 9pt; } dd { margin: 0; font-size: 15pt; }
svg { display: block; width: 100%; height: auto; } svg text { font-size: 10px; fill: #56615d; text-anchor: middle; }
svg .bar { fill: #0e7268; } svg .dark { fill: #d9dedb; }
table { border-collapse: collapse; width: 100%; font-size: 9pt; line-height: 1.2; }
td small { font-size: 7.5pt; } th { font-weight: 600; text-align: left; }
td, thead th:not(:first-child) { text-align: right; padding: .6mm 1.2mm; white-space: nowrap; }
tbody tr { border-top: .2mm solid #d9dedb; }
dd small { font-size: 8.5pt; } :is(dd, td) small { color: #56615d; font-weight: 400; }
td.late { background: #f6d9d6; font-weight: 700; } section { break-inside: avoid; }
@media print { body { padding: 0; font-size: 9.5pt; line-height: 1.3; } h1 { font-size: 15pt; }
  h2 { margin: 3mm 0 1mm; }
  svg[role=img] { max-height: 24mm; } td, thead th:not(:first-child) { padding: .3mm 1.2mm; }
  dl { margin: 2mm 0; } .says { font-size: 10.5pt; margin: 2mm 0; } .todo { margin: 1mm 0; } }
@media (max-width: 600px) { dl { flex-wrap: wrap; gap: 3mm 7mm; } .across { overflow-x: auto; }
  svg[role=img] text { font-size: 17px; } tbody th, th:first-child { min-width: 5.5em; } }
"""


def document(past: History, date: dt.date, days: int, lang: str, style: str | None = None) -> str:
    """Render the digest of the `days` business days ending with `date`.

    `style`: address of STYLE, where a page must not contain any.
    """
    words = Words(past.config, lang)
    head = past.head(date, days)
    store, title, when = heading(past.config, date, days, lang)
    sheet = Markup("<style>{}</style>").format(Markup(STYLE))
    if style is not None:
        sheet = Markup('<link rel="stylesheet" href="{}">').format(style)
    parts = [
        Markup('<!doctype html><html lang="{}"><head><meta charset="utf-8">').format(HTML_LANG[lang]),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup("<title>{} · {} {}</title>{}</head><body>").format(store, title, when, sheet),
        Markup("<h1>{} <small>{}</small></h1>").format(store, when),
    ]
    if not _known(past, head, date, days):
        parts.append(Markup("<p>{}</p></body></html>").format(_nothing(lang)))
        return Markup("").join(parts)
    parts.append(Markup('<p class="basis">{}</p>').format(_basis(past.config, head, date, days, lang)))
    parts += _content(past, date, days, words)
    return Markup("").join((*parts, Markup("</body></html>")))


def plain(past: History, date: dt.date, days: int, lang: str) -> str:
    """Render figures, sentences and what to do as plain text, for a mail that carries the document."""
    words, head = Words(past.config, lang), past.head(date, days)
    store, _title, when = heading(past.config, date, days, lang)
    lines = [f"{store} {when}", ""]
    if not _known(past, head, date, days):
        return "\n".join((*lines, _nothing(lang), ""))
    summary, need = past.summary(date, days), past.need(date, days)
    lines += [_basis(past.config, head, date, days, lang), ""]
    lines += [f"{name}: {value}" for name, value in _figures(past, date, days, words, summary, need)]
    lines += ["", *(f"- {one}" for one in _says(past, date, days, words, summary, past.counters(date, days), need))]
    if todo := _todo(past, date, days, words, need):
        lines += ["", f"{catalogue(lang).gettext('What to do')}:", *(f"- {one}" for one in todo)]
    return "\n".join((*lines, ""))


def heading(config: StoreConfig, date: dt.date, days: int, lang: str) -> tuple[str, str, str]:
    """Return the store's name, the title, and the days that a digest is about."""
    _ = catalogue(lang).gettext
    first = date - dt.timedelta(days=days - 1)
    title = _("Digest of the day") if days == 1 else _("Digest of the week")
    return named(config.store.name, lang), title, str(date) if days == 1 else f"{first} – {date}"


def _known(past: History, head: Head, date: dt.date, days: int) -> bool:
    """Return whether anything is known of these days, which the service may not have reached yet."""
    first_us = past.bounds_us(date - dt.timedelta(days=days - 1))[0]
    return head.as_of_us is not None and head.as_of_us > first_us and not head.unseen


def _nothing(lang: str) -> str:
    _ = catalogue(lang).gettext
    return _("Nothing is known of these days: no reader was up.")


def _basis(config: StoreConfig, head: Head, date: dt.date, days: int, lang: str) -> str:
    _ = catalogue(lang).gettext
    title = heading(config, date, days, lang)[1]
    as_of = "–" if head.as_of_us is None else f"{local(config, head.as_of_us):%Y-%m-%d %H:%M}"
    first, last = (day - dt.timedelta(days=BACK) for day in (date - dt.timedelta(days=days - 1), date))
    other = _("compared with %(days)s") % {"days": first if days == 1 else f"{first} – {last}"}
    return f"{title} · {_('as of')} {as_of} · {_('coverage')} {percent(head.coverage)} · {other}"


def _figures(
    past: History, date: dt.date, days: int, words: Words, summary: Summary, need: NeedReport
) -> tuple[tuple[str, Markup | str], ...]:
    _ = catalogue(words.lang).gettext
    service = past.service(date, days)
    wanted = sum(floor.wanted for floor in need.floors)
    unserved = sum(floor.unserved for floor in need.floors)
    people = summary.journeys["member"] + summary.journeys["unknown"]
    from dwell.compare import share  # NumPy comes with the first day that is asked for

    return (
        (_("Journeys of people"), number(people)),
        (_("Members seen"), number(summary.members_seen)),
        (_("Met staff"), _share(share(wanted - unserved, wanted))),
        (_("Members with contact"), _share(service.contact)),
    )


def _share(found: Share | Rate | None) -> Markup | str:
    """Return a share with its interval in small."""
    if found is None:
        return "–"
    between = f"({percent(found.low)} … {percent(found.high)})"
    return Markup("{} <small>{}</small>").format(percent(found.value), between)


def _says(
    past: History, date: dt.date, days: int, words: Words, summary: Summary, scores: Counters, need: NeedReport
) -> list[str]:
    """Return the sentences that matter most."""
    beside = past.against(date, days, date - dt.timedelta(days=BACK))
    says = [
        *sentences.changes(words, beside)[:1],
        *sentences.longest(words, scores),
        *sentences.unmet(words, need),
        *sentences.busiest(words, summary),
    ]
    return says[:SENTENCES]


def _content(past: History, date: dt.date, days: int, words: Words) -> list[Markup]:
    _ = catalogue(words.lang).gettext
    summary, scores, need = past.summary(date, days), past.counters(date, days), past.need(date, days)
    figures = _figures(past, date, days, words, summary, need)
    says = _says(past, date, days, words, summary, scores, need)
    todo = _todo(past, date, days, words, need)
    counters = sorted((row for row in scores.zones if row.kind == "counter"), key=lambda row: (-(row.n or 0), row.zone))
    return [
        Markup("<dl>{}</dl>").format(_each("<div><dt>{}</dt><dd>{}</dd></div>", figures)),
        Markup('<ul class="says">{}</ul>').format(_each("<li>{}</li>", ((one,) for one in says))),
        _section(_("Arrivals on the floors by hour"), _arrivals(words, summary.floors)),
        _section(_("Which counters drew and held them"), _counters(words, counters[:COUNTERS])),
        _section(_("Where staff was missing"), _needs(words, need)),
        _section(
            _("What to do"), Markup('<ul class="todo">{}</ul>').format(_each("<li>{}</li>", ((one,) for one in todo)))
        ),
    ]


def _arrivals(words: Words, floors: Sequence[FloorTraffic]) -> Markup:
    """Draw the arrivals on all floors by hour."""
    _ = catalogue(words.lang).gettext
    hours = []
    for parts in zip(*(floor.hours for floor in floors), strict=True):
        told = [one.entered["member"] + one.entered["unknown"] for one in parts if one.entered is not None]
        hours.append((f"{local(words.config, parts[0].start_us):%H}", sum(told) if told else None, parts[0].state))
    used = [place for place, (_label, n, _state) in enumerate(hours) if n]
    if not used:
        return Markup("<p>{}</p>").format(_("Nobody was counted."))
    shown = hours[min(used) : max(used) + 1]
    most, step = max(n or 0 for _label, n, _state in shown), WIDE / len(shown)
    bars = []
    for place, (label, n, state) in enumerate(shown):
        x, high = place * step, (n or 0) / most * (HIGH - 32)
        kind, top = ("dark", 0.0) if n is None and state == "unknown" else ("bar", HIGH - 16 - high)
        middle = round(x + step / 2, 1)
        size = (round(x + step * 0.12, 1), round(top, 1), round(step * 0.76, 1), round(HIGH - 16 - top, 1))
        bars.append(Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(kind, *size))
        bars.append(Markup('<text x="{}" y="{}">{}</text>').format(middle, HIGH - 4, label))
        bars.append(Markup('<text x="{}" y="{}">{}</text>').format(middle, round(top - 3, 1), "?" if n is None else n))
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDE, HIGH, _("Arrivals on the floors by hour"), Markup("").join(bars)
    )


def _counters(words: Words, rows: Sequence[CounterScore]) -> Markup:
    """Draw the visits of the most visited counters, with the median dwell and its interval."""
    _ = catalogue(words.lang).gettext
    most = max((row.n or 0 for row in rows), default=0) or 1
    lines = []
    for row in rows:
        median: Markup | str = "–"
        if row.median_s is not None:
            limits = (duration(row.median_low_s, words.lang), duration(row.median_high_s, words.lang))
            small = Markup("{} <small>({} … {})</small>")
            median = small.format(duration(row.median_s, words.lang), *limits)
        engaged = _share(row.engaged_share)
        drawn = Markup(BAR).format(round(100 * (row.n or 0) / most, 1))
        lines.append((words.zone(row.zone), drawn, "?" if row.n is None else number(row.n), engaged, median))
    headings = _each("<th>{}</th>", ((text,) for text in ("", _("Visits"), _("Engaged"), _("Median"))))
    body = _each('<tr><th>{}</th><td width="30%">{}</td><td>{}</td><td>{}</td><td>{}</td></tr>', lines)
    return Markup(
        '<div class="across"><table><thead><tr><th>{}</th>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(_("Counter"), headings, body)


def _needs(words: Words, need: NeedReport) -> Markup:
    """Draw unserved visits by floor and hour."""
    _ = catalogue(words.lang).gettext
    used = [place for floor in need.floors for place, hour in enumerate(floor.hours) if hour.wanted]
    if not used:
        return Markup("<p>{}</p>").format(_("No visit was long enough to expect service."))
    shown = range(min(used), max(used) + 1)
    labels = [f"{local(words.config, need.floors[0].hours[place].start_us):%H}" for place in shown]
    most = max(hour.unserved or 0 for floor in need.floors for hour in floor.hours) or 1
    lines = []
    for floor in need.floors:
        cells = []
        for hour in (floor.hours[place] for place in shown):
            late = Markup(' class="late"') if (hour.unserved or 0) > most / 2 else ""
            text: str | Markup = "?" if hour.state == "unknown" else ""
            if hour.wanted:
                text = Markup("{}<br><small>/ {}</small>").format(hour.unserved, hour.wanted)
            cells.append((late, text))
        lines.append((words.floor(floor.floor), _each("<td{}>{}</td>", cells)))
    table = Markup(
        '<div class="across"><table><thead><tr><th>{}</th>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(_("Floor"), _each("<th>{}</th>", ((label,) for label in labels)), _each("<tr><th>{}</th>{}</tr>", lines))
    note = _("Visits that met nobody, of those long enough to expect service.")
    return table + Markup('<p class="note">{}</p>').format(note)


def _todo(past: History, date: dt.date, days: int, words: Words, need: NeedReport) -> list[str]:
    """List proposals, service cases that are not reviewed, and zones whose readers need a look."""
    _ = catalogue(words.lang).gettext
    lines = sentences.proposals(words, need)
    now_us = past.watermark_us
    if now_us is not None:
        cases = digest(past, date, days, now_us).cases
        left = cases["opened"] - cases["reviewed"]
        if left:
            lines.append(_("Review service cases: {n} of {all} are left.").format(n=left, all=cases["opened"]))
    return lines + sentences.trust(words, past.summary(date, days))[1:]


def _section(title: str, content: Markup) -> Markup:
    return Markup("<section><h2>{}</h2>{}</section>").format(title, content)


def _each(form: str, rows: Iterable[Sequence[object]]) -> Markup:
    """Fill a piece of HTML with each row, escaped, and put the pieces together."""
    return Markup("").join(Markup(form).format(*(escape(one) for one in row)) for row in rows)
