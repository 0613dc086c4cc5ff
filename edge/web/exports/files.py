"""Downloads and API: tables as CSV, XLSX and JSON."""

from __future__ import annotations

import io
from collections.abc import Iterator
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
from edge.web.site import Site, before, language, span, who
from edge.words import tables as words
from edge.words.languages import catalogue
from edge.words.numbers import iso
from edge.words.tables import SHARE, Cell

CSV = "text/csv; charset=utf-8"
MOST_ROWS = 20_000
"""Maximum rows per answer or sheet. Longer tables return `next`, and are complete as CSV."""
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
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
        if not table.bounded:
            return await self._file(request, source, table.name, "csv", csv_pieces(table, source), CSV)
        text = await run_in_threadpool(as_csv, table, source)
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

    async def openapi(self, _: Request) -> Response:
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
        date = site.date(request)
        summary = await site.summary(date) if of_day else None
        if of_day and summary is None:
            raise HTTPException(503)
        return Source(
            *(site.config, language(request), date, summary),
            *(site.present(), partial(site.users.whole_audit, before(request)), site.answers, span(request)),
        )

    async def _file(
        self, request: Request, source: Source, name: str, end: str, content: bytes | Iterator[str], kind: str
    ) -> Response:
        file = f"tagtrail-{source.config.store.id}-{name}-{source.date}.{end}"
        await self._site.record(request, "export", file)
        headers = {"Content-Disposition": f'attachment; filename="{file}"', "Cache-Control": "no-store"}
        if isinstance(content, bytes):
            return Response(content, media_type=kind, headers=headers)
        return StreamingResponse(content, media_type=kind, headers=headers)


def as_csv(table: Table, source: Source) -> str:
    """Render the table as CSV, with its date and as_of in every row."""
    return "".join(csv_pieces(table, source))


def csv_pieces(table: Table, source: Source) -> Iterator[str]:
    """Render the same CSV in pieces, because the audit log may exceed the page's memory."""
    date, as_of = str(source.date), _as_of(table, source)
    return words.csv_pieces(("date", *table.ids, "as_of"), ((date, *row, as_of) for row in table.cells(source)))


def as_object(table: Table, source: Source) -> dict[str, Any]:
    """Build the table for JSON: its scope, and its rows by column."""
    summary = source.summary
    head: dict[str, Any] = {
        "store": source.config.store.id,
        "table": table.name,
        "as_of": _as_of(table, source) or None,
    }
    if table.of_day and summary is not None:
        days = table.days(source)
        head |= {"date": summary.date, "complete": summary.complete, "coverage": _coverage(source, days)}
        head |= {"def_version": summary.def_version, "days": days}
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
    share = book.add_format({"num_format": "0 %"})
    heading = catalogue(source.lang).gettext
    front = book.add_worksheet("tagtrail")
    facts: list[tuple[str, Cell]] = [("store", source.config.store.id)]
    if source.summary is not None:
        facts += [("date", source.summary.date), ("as_of", iso(source.config, source.summary.as_of_us))]
        facts += [("complete", str(source.summary.complete).lower())]
        facts += [("coverage", _coverage(source, source.days))]
        facts += [("def_version", source.summary.def_version), ("days", source.days)]
    for row, (name, value) in enumerate(facts):
        front.write_string(row, 0, name, bold)
        _write(front, row, 1, value, share if name == "coverage" else None)
    for row, table in enumerate(tables, len(facts) + 1):
        front.write_string(row, 0, table.name)
        front.write_string(row, 1, table.about)
        if table.of_day:
            front.write_string(row, 2, f"days: {table.days(source)}")
    front.set_column(0, 0, 14)
    front.set_column(1, 1, 60)
    for table in tables:
        sheet = book.add_worksheet(table.name)
        sheet.freeze_panes(1, 0)
        widths = [len(id_) for id_ in table.ids]
        for place, field in enumerate(table.fields):
            sheet.write_string(0, place, field.id, bold)
            sheet.write_comment(0, place, f"{heading(field.heading)}\n{field.about}")
        last = 0
        for last, values in enumerate(islice(table.cells(source), MOST_ROWS), 1):
            for place, (field, value) in enumerate(zip(table.fields, values, strict=True)):
                _write(sheet, last, place, value, share if field.type == SHARE else None)
                widths[place] = max(widths[place], min(_width(value), 40))
        for place, width in enumerate(widths):
            sheet.set_column(place, place, width + 2)
        sheet.autofilter(0, 0, max(last, 1), len(table.ids) - 1)
    book.close()
    return out.getvalue()


def _coverage(source: Source, days: int) -> float | None:
    """Return the coverage of all zones on the days of a table."""
    if days == 1:
        return None if source.summary is None else source.summary.coverage
    found = source.answers.counters(source.date, days)
    return None if found is None else found.scope.coverage


def _as_of(table: Table, source: Source) -> str:
    if table.of_day:
        return iso(source.config, source.summary.as_of_us if source.summary else None)
    return iso(source.config, source.now.as_of_us if source.now else None)


def _write(sheet: Any, row: int, column: int, value: Cell, form: Any) -> None:
    if isinstance(value, str):
        sheet.write_string(row, column, value)
    elif value is not None:
        sheet.write_number(row, column, value, form)


def _width(value: Cell) -> int:
    """Return the width of a text in columns; Chinese characters take two."""
    return sum(2 if ord(c) > 0x2E7F else 1 for c in str(value)) if value is not None else 0
