"""Tables: columns that are declared once, and their values for the page, for terminals, for files and for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from config import StoreConfig
from edge.words.languages import named
from edge.words.numbers import duration, iso, number, percent

Cell = str | int | float | None
BOM = "\ufeff"
INTEGER, NUMBER, SECONDS, SHARE, RATIO, TEXT, MOMENT = (
    *("integer", "number", "seconds", "share", "ratio", "text", "moment"),
)
"""Types of columns. A share is of a whole, 0 to 1; a ratio may be any number, and people read it in per cent too."""


class Interval(NamedTuple):
    """A value and its 95 % confidence interval; without an upper limit `high` is None."""

    value: float
    low: float
    high: float | None


class Words:
    """A store's names and times of day in one language."""

    def __init__(self, config: StoreConfig, lang: str) -> None:
        self.config = config
        self.lang = lang
        self._store = {config.store.id: named(config.store.name, lang)}
        self._floors = {floor.id: named(floor.name, lang) for floor in config.floors}
        self._trials = {("promotion", one.id): named(one.name, lang) for one in config.promotions}
        self._trials |= {("layout", one.id): named(one.name, lang) for one in config.layout_changes}
        self._zones = {zone.id: named(zone.name, lang) for zone in config.zones}

    def zone(self, id_: str) -> str | None:
        """Name of a zone; None if the store file has none of that id."""
        return self._zones.get(id_)

    def floor(self, id_: str) -> str | None:
        """Name of a floor, likewise."""
        return self._floors.get(id_)

    def place(self, scope: str, id_: str) -> str | None:
        """Name of the store, a floor or a zone, likewise."""
        return {"store": self._store, "floor": self._floors, "zone": self._zones}[scope].get(id_)

    def trial(self, kind: str, id_: str) -> str | None:
        """Name of a `promotion` or `layout` change, likewise."""
        return self._trials.get((kind, id_))

    def moment(self, at_us: int | None) -> str:
        """A moment as ISO 8601 in the store's time; empty for none."""
        return iso(self.config, at_us)


class Field(NamedTuple):
    """One column of a file: what a column without interval is, and each of the three that one with interval becomes."""

    id: str
    type: str
    heading: str
    about: str


@dataclass(frozen=True)
class Column:
    """One column of a table, read by everything that shows or describes the table."""

    id: str
    """The same in every language. Where several tables have it, it means the same."""
    type: str
    heading: str
    """English; the catalogues have the others."""
    about: str
    """One or two sentences for whoever reads the file."""
    value: str | Callable[[Any, Words], Any] = ""
    """How a row has it: path of attributes, by default the column's id, or a function. Moments are in microseconds."""
    digits: int | None = None
    """Decimals in files; None: as many as its type usually has."""
    interval: bool = False
    """The value has a 95 % confidence interval: attributes `value`, `low` and `high`."""
    in_files: bool = True
    """Or only for people: what files have in other columns."""
    key: bool = False
    """Says what the row is of, instead of telling a number of it."""

    def of(self, row: Any, words: Words) -> Any:
        """The value in a row."""
        return follow(row, self.value or self.id) if isinstance(self.value, str) else self.value(row, words)

    @property
    def numeric(self) -> bool:
        """True for numbers and moments, which stand at the right of a column."""
        return self.type != TEXT

    @property
    def fields(self) -> tuple[Field, ...]:
        """The columns that files have of it."""
        if not self.in_files:
            return ()
        own = Field(self.id, self.type, self.heading, self.about)
        if not self.interval:
            return (own,)
        low, high = "Lower limit of the 95 % confidence interval", "Upper limit"
        return (
            own._replace(about=f"{self.about} Null: too few to say."),
            Field(f"{self.id}_low", self.type, self.heading, f"{low} of {self.id}."),
            Field(f"{self.id}_high", self.type, self.heading, f"{high} of the same; null: none."),
        )

    def cells(self, row: Any, words: Words) -> tuple[Cell, ...]:
        """The value in a row as files have it, one cell a field."""
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
        """The value in a row as a person reads it, without its interval; a dash for what nobody knows."""
        value = self.of(row, words)
        if value is not None and self.interval:
            value = value.value
        if value is None or isinstance(value, str):
            return value or "–"
        if self.type == MOMENT:
            return words.moment(value)
        if self.type in (SHARE, RATIO):
            return percent(value)
        if self.type == SECONDS:
            return duration(value)
        return f"{value:.1f}" if self.type == NUMBER else number(value)

    def _rounded(self, value: Cell) -> Cell:
        digits = _DIGITS.get(self.type) if self.digits is None else self.digits
        return value if digits is None or not isinstance(value, float) else round(value, digits)


def follow(row: Any, path: str) -> Any:
    """Value at the end of a path of attributes or keys, such as `part.n`; None where one of them is None."""
    for name in path.split("."):
        row = None if row is None else row[name] if isinstance(row, Mapping) else getattr(row, name)
    return row


_DIGITS = {NUMBER: 2, SECONDS: 1, SHARE: 4, RATIO: 4}


def pick(columns: Iterable[Column], *ids: str) -> tuple[Column, ...]:
    """Some of a table's columns, in this order; KeyError for one that it has not."""
    by_id = {column.id: column for column in columns}
    return tuple(by_id[id_] for id_ in ids)


def fields(columns: Iterable[Column]) -> tuple[Field, ...]:
    """The columns that files of a table have."""
    return tuple(field for column in columns for field in column.fields)


def cells(columns: Sequence[Column], rows: Iterable[Any], words: Words) -> Iterator[tuple[Cell, ...]]:
    """The rows of a table as files have them."""
    for row in rows:
        yield tuple(cell for column in columns for cell in column.cells(row, words))


def as_csv(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A table for spreadsheets: UTF-8 with a BOM, and no text that one would take for a formula."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(header)
    writer.writerows(map(formula_safe, row) for row in rows)
    return BOM + out.getvalue()


def formula_safe(value: Cell) -> Cell:
    """Text that a spreadsheet would take for a formula gets an apostrophe before it."""
    if isinstance(value, str) and (value.lstrip()[:1] in tuple("=+-@") or value[:1] in ("\t", "\r", "\n")) and value:
        return f"'{value}"
    return value
