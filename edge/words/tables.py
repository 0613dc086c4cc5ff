"""Tables: columns declared once, with their values for the page, terminals, files and the API."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from config import StoreConfig
from edge.words.languages import named
from edge.words.numbers import duration, iso, number, percent

Cell = str | int | float | None
BOM = "\ufeff"
PIECE_CHARS = 65_536
INTEGER, NUMBER, SECONDS, SHARE, QUOTIENT, RATIO, TEXT, MOMENT, DATE = (
    *("integer", "number", "seconds", "share", "quotient", "ratio", "text", "moment", "date"),
)
"""Column types. A share is between 0 and 1, a quotient of counts is 0 or more; a ratio is a change, which can be any
number. All three are shown in per cent.

Moments and dates are ISO 8601 texts in files other than workbooks.
"""


class Interval(NamedTuple):
    """A value with its 95 % confidence interval; None where there is no limit, or too little data for one."""

    value: float
    low: float | None
    high: float | None


class Words:
    """A store's names and local times in one language."""

    def __init__(self, config: StoreConfig, lang: str) -> None:
        self.config = config
        self.lang = lang
        self._store = {config.store.id: named(config.store.name, lang)}
        self._floors = {floor.id: named(floor.name, lang) for floor in config.floors}
        self._trials = {("promotion", one.id): named(one.name, lang) for one in config.promotions}
        self._trials |= {("layout", one.id): named(one.name, lang) for one in config.layout_changes}
        self._zones = {zone.id: named(zone.name, lang) for zone in config.zones}

    def zone(self, id_: str) -> str | None:
        """Return the name of a zone; None if the store file has no such id."""
        return self._zones.get(id_)

    def floor(self, id_: str) -> str | None:
        """Return the name of a floor; None if the store file has no such id."""
        return self._floors.get(id_)

    def place(self, scope: str, id_: str) -> str | None:
        """Return the name of the store, a floor or a zone; None if the store file has no such id."""
        return {"store": self._store, "floor": self._floors, "zone": self._zones}[scope].get(id_)

    def trial(self, kind: str, id_: str) -> str | None:
        """Return the name of a `promotion` or `layout` change; None if the store file has no such id."""
        return self._trials.get((kind, id_))

    def moment(self, at_us: int | None) -> str:
        """A moment as ISO 8601 in the store's time; empty for none."""
        return iso(self.config, at_us)


class Field(NamedTuple):
    """One column of a file. A column with an interval becomes three of these."""

    id: str
    type: str
    heading: str
    about: str
    limit: str = ""
    """low or high: limit of the interval of the column before."""


@dataclass(frozen=True)
class Column:
    """One column of a table, used by the page, files, the API and its description."""

    id: str
    """The same in every language, with the same meaning in every table."""
    type: str
    heading: str
    """In English; the catalogues have the translations."""
    about: str
    """Description for users of files and API, one or two sentences."""
    value: str | Callable[[Any, Words], Any] = ""
    """Path of attributes in a row (default: the column's id), or a function. Times are in microseconds."""
    digits: int | None = None
    """Decimals in files; None: the default of the type."""
    interval: bool = False
    """True if the value has a 95 % confidence interval: attributes `value`, `low` and `high`."""
    in_files: bool = True
    """False if the column is for display only, because files have the same data in other columns."""
    key: bool = False
    """True if the column identifies the row instead of containing a figure."""

    def of(self, row: Any, words: Words) -> Any:
        """Return the value in a row."""
        return follow(row, self.value or self.id) if isinstance(self.value, str) else self.value(row, words)

    @property
    def numeric(self) -> bool:
        """True for numbers and times, which are right-aligned."""
        return self.type != TEXT

    @property
    def fields(self) -> tuple[Field, ...]:
        """The columns in files that represent this column."""
        if not self.in_files:
            return ()
        own = Field(self.id, self.type, self.heading, self.about)
        if not self.interval:
            return (own,)
        low, high = "Lower limit of the 95 % confidence interval", "Upper limit of the 95 % confidence interval"
        return (
            own._replace(about=f"{self.about} Null: too little data."),
            Field(f"{self.id}_low", self.type, self.heading, f"{low} of {self.id}.", "low"),
            Field(f"{self.id}_high", self.type, self.heading, f"{high} of {self.id}; null: none.", "high"),
        )

    def cells(self, row: Any, words: Words) -> tuple[Cell, ...]:
        """Return the value in a row for files, one cell per field."""
        if not self.in_files:
            return ()
        value = self.of(row, words)
        if self.type == MOMENT:
            return (None if value is None else words.moment(value),)
        if not self.interval:
            return (self._rounded(value),)
        if value is None:
            return (None, None, None)
        return tuple(self._rounded(one) for one in (value.value, value.low, value.high))

    def text(self, row: Any, words: Words) -> str:
        """Format the value in a row for display, without its interval; a dash if it is unknown."""
        value = self.of(row, words)
        if value is not None and self.interval:
            value = value.value
        if value is None or isinstance(value, str):
            return value or "–"
        if self.type == MOMENT:
            return words.moment(value)
        if self.type in (SHARE, QUOTIENT, RATIO):
            return percent(value)
        if self.type == SECONDS:
            return duration(value, words.lang)
        return f"{value:.1f}" if self.type == NUMBER else number(value)

    def _rounded(self, value: Cell) -> Cell:
        digits = _DIGITS.get(self.type) if self.digits is None else self.digits
        return value if digits is None or not isinstance(value, float) else round(value, digits)


def follow(row: Any, path: str) -> Any:
    """Return the value at a path of attributes or keys, such as `part.n`; None if one of them is None."""
    for name in path.split("."):
        row = None if row is None else row[name] if isinstance(row, Mapping) else getattr(row, name)
    return row


_DIGITS = {NUMBER: 2, SECONDS: 1, SHARE: 4, QUOTIENT: 4, RATIO: 4}


def pick(columns: Iterable[Column], *ids: str) -> tuple[Column, ...]:
    """Select columns of a table by id, in this order; KeyError for an unknown id."""
    by_id = {column.id: column for column in columns}
    return tuple(by_id[id_] for id_ in ids)


def fields(columns: Iterable[Column]) -> tuple[Field, ...]:
    """Return the file columns of a table."""
    return tuple(field for column in columns for field in column.fields)


def cells(columns: Sequence[Column], rows: Iterable[Any], words: Words) -> Iterator[tuple[Cell, ...]]:
    """Yield the rows of a table as cells for files."""
    for row in rows:
        yield tuple(cell for column in columns for cell in column.cells(row, words))


def as_csv(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Render a table as CSV for spreadsheets: with a BOM, and without text that would be taken for a formula."""
    return "".join(csv_pieces(header, rows))


def csv_pieces(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Iterator[str]:
    """Render the same CSV in pieces, for tables that may not fit into memory."""
    out = io.StringIO(BOM)
    out.seek(0, io.SEEK_END)
    writer = csv.writer(out)
    writer.writerow(header)
    for row in rows:
        writer.writerow(map(formula_safe, row))
        if out.tell() >= PIECE_CHARS:
            yield out.getvalue()
            out.seek(0)
            out.truncate()
    yield out.getvalue()


def formula_safe(value: Cell) -> Cell:
    """Prefix text that a spreadsheet would take for a formula with an apostrophe."""
    if not isinstance(value, str) or not value:
        return value
    # Some programs run a formula even if blanks or invisible characters come before it.
    shown = next((char for char in value if unicodedata.category(char)[0] not in "ZC"), "")
    evil = value[0] in "\t\r\n" or unicodedata.normalize("NFKC", shown)[:1] in _FORMULA
    return f"'{value}" if evil else value


_FORMULA = frozenset("=+-@−")
"""First characters of a formula in Excel, LibreOffice and WPS; full-width forms count as well."""
