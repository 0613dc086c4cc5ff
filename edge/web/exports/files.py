"""Downloads and API: tables as CSV, XLSX and JSON."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from itertools import islice
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from edge.web.exports.openapi import openapi
from edge.web.exports.tables import EVERYBODY, TABLES, Source, Table
from edge.web.site import Site, before, language, who
from edge.words import tables as words
from edge.words.languages import LANGUAGES, catalogue, named
from edge.words.languages import message as _
from edge.words.numbers import iso
from edge.words.tables import DATE, INTEGER, MOMENT, QUOTIENT, RATIO, SHARE, TEXT, Cell, Field

CSV = "text/csv; charset=utf-8"
MOST_ROWS = 20_000
"""Maximum rows per answer or sheet. Longer tables return `next`, and are complete as CSV."""
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
FORMS = {
    SHARE: "0 %",
    QUOTIENT: "0 %",
    RATIO: "+0 %;-0 %;0 %",
    MOMENT: "yyyy-mm-dd hh:mm:ss",
    DATE: "yyyy-mm-dd",
}
"""Number formats of workbooks by column type."""
CODED = (
    "about",
    "case_state",
    "kind",
    "link",
    "measure",
    "outcome",
    "phase",
    "place",
    "role",
    "state",
    "sure",
    "tag_class",
    "trial_kind",
)
"""Columns with codes, which workbooks, and CSV with `lang`, show in words. JSON, and CSV without, keep the codes."""
CODES = (
    *(_("measured"), _("unknown"), _("future"), _("arrival"), _("open"), _("acknowledged")),
    *(_("done"), _("reviewed"), _("snoozed"), _("attended"), _("expired"), _("planned"), _("running"), _("over")),
    *(_("during"), _("after"), _("visitors"), _("engaged_visitors"), _("journeys"), _("comings"), _("visits")),
    *(_("yes"), _("no"), _("before"), _("closed"), _("tickets"), _("promotion"), _("layout")),
    *(_("engaged"), _("engaged_share"), _("store"), _("floor"), _("zone"), _("member"), _("cart"), _("staff")),
    *(_("up"), _("down"), _("connecting"), _("viewer"), _("manager"), _("it")),
    *(
        _("counter"),
        _("aisle"),
        _("entrance"),
        _("exit"),
        _("fitting_room"),
        _("checkout"),
        _("service"),
        _("back_room"),
    ),
)
"""Their values, as messages."""
DATE_OF = Field("date", DATE, _("Date"), "Business date; of several days, the last one.")
AS_OF = Field("as_of", MOMENT, _("as of"), "Everything that ended before this time is counted.")
DAYS = Field("days", INTEGER, _("Number of days"), "Number of business days.")
"""Columns of CSV files besides those of the table."""
SPAN = (
    Field("days_from", DATE, _("Days from"), "First business day of the table."),
    Field("days_to", DATE, _("Days to"), "Last business day of the table."),
)
"""Columns that every sheet about days ends with."""
PAGE_WORDS = {"waiting": "wait", "hand": "manual"}
"""Codes for which the page has another message."""
WORKBOOK = "all"
"""In place of a table name: one workbook with all tables that the user may see."""


class Exports:
    def __init__(self, site: Site) -> None:
        self._site = site
        self.routes = [
            Route("/export/{table}.csv", self.csv),
            Route("/export/{table}.xlsx", self.xlsx),
            Route("/api/tables/{table}", self.json),
            Route("/api/openapi.json", self.openapi),
        ]

    async def csv(self, request: Request) -> Response:
        table = self._table(request)
        source = await self._source(request, table.of_day)
        in_words = request.query_params.get("lang") in LANGUAGES
        if not table.bounded:
            return await self._file(request, source, table.name, "csv", csv_pieces(table, source, in_words), CSV)
        text = await run_in_threadpool(as_csv, table, source, in_words)
        return await self._file(request, source, table.name, "csv", text.encode(), CSV)

    async def xlsx(self, request: Request) -> Response:
        name = request.path_params["table"]
        all_ = [table for table in TABLES.values() if self._may(request, table)]
        tables = all_ if name == WORKBOOK else [self._table(request)]
        source = await self._source(request, any(table.of_day for table in tables))
        content = await run_in_threadpool(as_xlsx, tables, source)
        return await self._file(request, source, name, "xlsx", content, XLSX)

    async def json(self, request: Request) -> Response:
        table = self._table(request)
        source = await self._source(request, table.of_day)
        if table.roles != EVERYBODY:
            await self._site.record_look(request, "read", f"{table.name} {source.date}" if table.of_day else table.name)
        return JSONResponse(await run_in_threadpool(as_object, table, source), headers={"Cache-Control": "no-store"})

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(openapi(version("tagtrail")))

    def _table(self, request: Request) -> Table:
        table = TABLES.get(request.path_params["table"])
        if table is None:
            raise HTTPException(404)
        if not self._may(request, table):
            raise HTTPException(403)
        return table

    def _may(self, request: Request, table: Table) -> bool:
        someone = who(request)
        return someone is not None and someone.role in table.roles

    async def _source(self, request: Request, of_day: bool) -> Source:
        site = self._site
        period = site.period(request)
        head = await run_in_threadpool(site.answers.head, period.last) if of_day else None
        if of_day and head is None:
            raise HTTPException(503)
        return Source(
            *(site.config, language(request), period, head),
            *(site.present(), partial(site.users.whole_audit, before(request)), site.answers),
        )

    async def _file(
        self, request: Request, source: Source, name: str, end: str, content: bytes | Iterator[str], kind: str
    ) -> Response:
        spans = name == WORKBOOK or (name in TABLES and TABLES[name].spans)
        days = source.period.text if spans else str(source.date)
        file = f"tagtrail-{source.config.store.id}-{name}-{days}.{end}"
        await self._site.record(request, "export", file)
        headers = {"Content-Disposition": f'attachment; filename="{file}"', "Cache-Control": "no-store"}
        if isinstance(content, bytes):
            return Response(content, media_type=kind, headers=headers)
        return StreamingResponse(content, media_type=kind, headers=headers)


def as_csv(table: Table, source: Source, in_words: bool = False) -> str:
    """Render the table as CSV, with its last day, as_of and number of days in every row.

    `in_words`: with headings and values in the language asked for, for people; otherwise with ids and codes.
    """
    return "".join(csv_pieces(table, source, in_words))


def csv_pieces(table: Table, source: Source, in_words: bool = False) -> Iterator[str]:
    """Render the same CSV in pieces, because the audit log may exceed the page's memory."""
    date, as_of = str(source.date), _as_of(table, source)
    last: tuple[Cell, ...] = (as_of, table.days(source)) if table.of_day else (as_of,)
    fields = (DATE_OF, *table.fields, *(AS_OF, DAYS)[: len(last)])
    rows: Iterator[tuple[Cell, ...]] = ((date, *row, *last) for row in table.cells(source))
    if not in_words:
        return words.csv_pieces([field.id for field in fields], rows)
    said = catalogue(source.lang).gettext
    told = (tuple(_told(*pair, source.lang) for pair in zip(fields, row, strict=True)) for row in rows)
    return words.csv_pieces(_headings(fields, said), told)


def as_object(table: Table, source: Source) -> dict[str, Any]:
    """Build the table for JSON: its scope, and its rows by column."""
    told = source.head
    head: dict[str, Any] = {
        "store": source.config.store.id,
        "table": table.name,
        "as_of": _as_of(table, source) or None,
    }
    if table.of_day and told is not None:
        days = table.days(source)
        head |= {"date": str(source.date), "complete": told.complete, "coverage": _coverage(source, days)}
        head |= {"def_version": source.config.thresholds.def_version, "days": days}
    rows = [dict(zip(table.ids, row, strict=True)) for row in islice(table.cells(source), MOST_ROWS)]
    if not table.bounded:
        head["next"] = rows[-1][table.ids[0]] if len(rows) == MOST_ROWS else None
    return {**head, "rows": rows}


def as_xlsx(tables: list[Table], source: Source) -> bytes:
    """Build a workbook: the scope of the figures, then one sheet per table. Texts never become formulas or links."""
    import xlsxwriter

    out = io.BytesIO()
    book = xlsxwriter.Workbook(out, {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False})
    bold = book.add_format({"bold": True, "bottom": 1, "text_wrap": True, "valign": "top"})
    forms = {kind: book.add_format({"num_format": form}) for kind, form in FORMS.items()}
    said = catalogue(source.lang).gettext
    front = book.add_worksheet("tagtrail")
    facts: list[tuple[str, Cell, str]] = [(_("Store"), named(source.config.store.name, source.lang), TEXT)]
    if source.head is not None:
        facts += [(_("First day"), str(source.period.first), DATE), (_("Last day"), str(source.date), DATE)]
        facts += [(_("as of"), iso(source.config, source.head.as_of_us), MOMENT)]
        facts += [(_("Complete"), said(_("yes") if source.head.complete else _("no")), TEXT)]
        facts += [(_("Coverage"), _coverage(source, source.days), SHARE)]
        facts += [(_("Version of the definitions"), source.config.thresholds.def_version, INTEGER)]
    for row, (name, value, kind) in enumerate(facts):
        front.write_string(row, 0, said(name), bold)
        _write(front, row, 1, value, kind, forms)
    for row, table in enumerate(tables, len(facts) + 1):
        front.write_string(row, 0, said(table.title))
        front.write_string(row, 1, table.about if source.lang == "en" else table.name)
        if table.of_day:
            days = table.days(source)
            front.write_string(
                row, 2, catalogue(source.lang).ngettext("%(num)s day", "%(num)s days", days) % {"num": days}
            )
    front.set_column(0, 0, 26)
    front.set_column(1, 1, 60)
    for table in tables:
        sheet = book.add_worksheet(said(table.title))
        sheet.freeze_panes(1, 0)
        fields = (*table.fields, *(SPAN if table.of_day else ()))
        ends = (str(source.date - dt.timedelta(days=table.days(source) - 1)), str(source.date))
        headings = _headings(fields, said)
        widths = [min(_width(heading), 24) for heading in headings]
        for place, field in enumerate(fields):
            sheet.write_string(0, place, headings[place], bold)
            sheet.write_comment(0, place, f"{field.id}\n{field.about}")
        last = 0
        for last, values in enumerate(islice(table.cells(source), MOST_ROWS), 1):
            for place, (field, value) in enumerate(zip(fields, (*values, *ends), strict=False)):
                value = _told(field, value, source.lang)
                _write(sheet, last, place, value, field.type, forms)
                widths[place] = max(widths[place], min(_width(value), 40))
        for place, width in enumerate(widths):
            sheet.set_column(place, place, width + 2)
        sheet.autofilter(0, 0, max(last, 1), len(fields) - 1)
    book.close()
    return out.getvalue()


def _coverage(source: Source, days: int) -> float | None:
    """Return the coverage of all zones on the days of a table."""
    found = source.answers.head(source.date, days)
    return None if found is None else found.coverage


def _as_of(table: Table, source: Source) -> str:
    if table.of_day:
        return iso(source.config, source.head.as_of_us if source.head else None)
    return iso(source.config, source.now.as_of_us if source.now else None)


def _write(sheet: Any, row: int, column: int, value: Cell, kind: str, forms: Mapping[str, Any]) -> None:
    """Write a cell in its type; times are the store's local time, because workbooks know no time zones."""
    if isinstance(value, str) and value and kind in (MOMENT, DATE):
        sheet.write_datetime(row, column, dt.datetime.fromisoformat(value).replace(tzinfo=None), forms[kind])
    elif isinstance(value, str):
        sheet.write_string(row, column, value)
    elif value is not None:
        sheet.write_number(row, column, value, forms.get(kind))


def _told(field: Field, value: Cell, lang: str) -> Cell:
    """Return a code in the words of a language, and any other value as it is."""
    if field.type != TEXT or field.id not in CODED or not isinstance(value, str) or lang == "en":
        return value
    return catalogue(lang).gettext(PAGE_WORDS.get(value, value))


def _headings(fields: Sequence[Field], said: Callable[[str], str]) -> list[str]:
    """Return headings in the words of a language; where two are alike, with the ids of their columns."""
    found = [_heading(field, said) for field in fields]
    return [
        f"{text} ({field.id})" if found.count(text) > 1 else text for text, field in zip(found, fields, strict=True)
    ]


def _heading(field: Field, said: Callable[[str], str]) -> str:
    limits = {"low": _("lower limit"), "high": _("upper limit")}
    return said(field.heading) + (f", {said(limits[field.limit])}" if field.limit else "")


def _width(value: Cell) -> int:
    """Return the width of a text in columns; Chinese characters take two."""
    return sum(2 if ord(c) > 0x2E7F else 1 for c in str(value)) if value is not None else 0
