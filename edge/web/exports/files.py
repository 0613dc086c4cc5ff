"""Tables as files and for programs: CSV, XLSX, JSON."""

from __future__ import annotations

import csv
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
from edge.web.exports.tables import ABOUT, COLUMNS, EVERYBODY, KINDS, SHARE, Kind, Source, iso
from edge.web.site import Site, before, language, span, who
from edge.words.formulas import formula_safe
from edge.words.tables import BOM, Cell

CSV = "text/csv; charset=utf-8"
PIECE_CHARS = 65_536
MOST_ROWS = 20_000
"""In one answer, or one sheet; a table that may have more says where to go on, and has all of them as CSV."""
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
WORKBOOK = "all"
"""Instead of a table's name: one workbook with every table that may be seen."""


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
        kind = self._kind(request)
        source = await self._source(request, kind.of_day)
        if not kind.bounded:
            return await self._file(request, source, kind.name, "csv", csv_pieces(kind, source), CSV)
        text = await run_in_threadpool(as_csv, kind, source)
        return await self._file(request, source, kind.name, "csv", text.encode(), CSV)

    async def xlsx(self, request: Request) -> Response:
        name = request.path_params["table"]
        kinds = [k for k in KINDS.values() if self._may(request, k)] if name == WORKBOOK else [self._kind(request)]
        source = await self._source(request, any(kind.of_day for kind in kinds))
        content = await run_in_threadpool(as_xlsx, kinds, source)
        return await self._file(request, source, name, "xlsx", content, XLSX)

    async def json(self, request: Request) -> Response:
        kind = self._kind(request)
        source = await self._source(request, kind.of_day)
        if kind.roles != EVERYBODY:
            await self._site.record_look(request, "read", f"{kind.name} {source.date}" if kind.of_day else kind.name)
        return JSONResponse(await run_in_threadpool(as_object, kind, source), headers={"Cache-Control": "no-store"})

    async def openapi(self, _: Request) -> Response:
        return JSONResponse(openapi(version("tagtrail")))

    def _kind(self, request: Request) -> Kind:
        kind = KINDS.get(request.path_params["table"])
        if kind is None:
            raise HTTPException(404)
        if not self._may(request, kind):
            raise HTTPException(403)
        return kind

    def _may(self, request: Request, kind: Kind) -> bool:
        someone = who(request)
        return someone is not None and someone.role in kind.roles

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


def as_csv(kind: Kind, source: Source) -> str:
    """The table for spreadsheets: UTF-8 with a BOM, and no text that one would take for a formula."""
    return "".join(csv_pieces(kind, source))


def csv_pieces(kind: Kind, source: Source) -> Iterator[str]:
    """The same, some rows at a time: the audit log may be longer than the page's memory bears."""
    out = io.StringIO(BOM)
    out.seek(0, io.SEEK_END)
    writer = csv.writer(out)
    as_of = _as_of(kind, source)
    writer.writerow(["date", *kind.columns, "as_of"])
    for row in kind.make(source):
        writer.writerow([str(source.date), *map(formula_safe, row), as_of])
        if out.tell() >= PIECE_CHARS:
            yield out.getvalue()
            out.seek(0)
            out.truncate()
    yield out.getvalue()


def as_object(kind: Kind, source: Source) -> dict[str, Any]:
    """The table for programs: what it is of, and rows by column."""
    summary = source.summary
    head: dict[str, Any] = {"store": source.config.store.id, "table": kind.name, "as_of": _as_of(kind, source) or None}
    if kind.of_day and summary is not None:
        head |= {"date": summary.date, "complete": summary.complete, "coverage": summary.coverage}
        head |= {"def_version": summary.def_version, "days": source.days}
    rows = [dict(zip(kind.columns, row, strict=True)) for row in islice(kind.make(source), MOST_ROWS)]
    if not kind.bounded:
        head["next"] = rows[-1][kind.columns[0]] if len(rows) == MOST_ROWS else None
    return {**head, "rows": rows}


def as_xlsx(kinds: list[Kind], source: Source) -> bytes:
    """A workbook: what the numbers are of, then a sheet a table. Texts are never formulas or links."""
    import xlsxwriter

    out = io.BytesIO()
    book = xlsxwriter.Workbook(out, {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False})
    bold = book.add_format({"bold": True, "bottom": 1, "text_wrap": True, "valign": "top"})
    share = book.add_format({"num_format": "0 %"})
    front = book.add_worksheet("tagtrail")
    facts: list[tuple[str, Cell]] = [("store", source.config.store.id)]
    if source.summary is not None:
        facts += [("date", source.summary.date), ("as_of", iso(source.config, source.summary.as_of_us))]
        facts += [("complete", str(source.summary.complete).lower()), ("coverage", source.summary.coverage)]
        facts += [("def_version", source.summary.def_version), ("days", source.days)]
    for row, (name, value) in enumerate(facts):
        front.write_string(row, 0, name, bold)
        _write(front, row, 1, value, share if name == "coverage" else None)
    for row, kind in enumerate(kinds, len(facts) + 1):
        front.write_string(row, 0, kind.name)
        front.write_string(row, 1, ABOUT[kind.name])
    front.set_column(0, 0, 14)
    front.set_column(1, 1, 60)
    for kind in kinds:
        sheet = book.add_worksheet(kind.name)
        sheet.freeze_panes(1, 0)
        widths = [len(id_) for id_ in kind.columns]
        for place, id_ in enumerate(kind.columns):
            sheet.write_string(0, place, id_, bold)
            sheet.write_comment(0, place, COLUMNS[id_][1])
        last = 0
        for last, values in enumerate(islice(kind.make(source), MOST_ROWS), 1):
            for place, value in enumerate(values):
                _write(sheet, last, place, value, share if COLUMNS[kind.columns[place]][0] == SHARE else None)
                widths[place] = max(widths[place], min(_width(value), 40))
        for place, width in enumerate(widths):
            sheet.set_column(place, place, width + 2)
        sheet.autofilter(0, 0, max(last, 1), len(kind.columns) - 1)
    book.close()
    return out.getvalue()


def _as_of(kind: Kind, source: Source) -> str:
    if kind.of_day:
        return iso(source.config, source.summary.as_of_us if source.summary else None)
    return iso(source.config, source.now.as_of_us if source.now else None)


def _write(sheet: Any, row: int, column: int, value: Cell, form: Any) -> None:
    if isinstance(value, str):
        sheet.write_string(row, column, value)
    elif value is not None:
        sheet.write_number(row, column, value, form)


def _width(value: Cell) -> int:
    """Columns that a text takes: Chinese characters take two."""
    return sum(2 if ord(c) > 0x2E7F else 1 for c in str(value)) if value is not None else 0
