"""Tables for CSV, XLSX, JSON and OpenAPI: their columns and the source of their rows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from config import StoreConfig
from config.model import Zone
from edge.access.users import Entry, Role
from edge.days.period import Period
from edge.reports.columns import COLUMNS
from edge.reports.columns.changes import line_rows, trial_rows
from edge.reports.columns.sales import WeekHour
from edge.reports.columns.shared import Part
from edge.reports.columns.ways import door_rows, flow_rows
from edge.store.business_days import business_days
from edge.store.live_state import Now
from edge.web.answers import TRIALS, Answers
from edge.web.exports import service_rows
from edge.words.languages import message as _
from edge.words.numbers import local
from edge.words.tables import Cell, Column, Field, Words, cells, fields

if TYPE_CHECKING:
    from edge.days.summary import Head

EVERYBODY = (Role.VIEWER, Role.MANAGER, Role.IT)


class Sold(NamedTuple):
    """A zone's hour with the currency of its amount."""

    of: Any
    part: Any
    currency: str | None


class Place(NamedTuple):
    """A zone of the store file."""

    zone: str
    floor: str
    kind: str


@dataclass(frozen=True)
class Source:
    """Input for tables. `head` (of the last day) is None for live tables."""

    config: StoreConfig
    lang: str
    period: Period
    """Business days, for tables that can span several; others are of the last one."""
    head: Head | None
    now: Now | None
    audit: Callable[[], Iterable[Entry]]
    answers: Answers

    @property
    def date(self) -> dt.date:
        """The last day."""
        return self.period.last

    @property
    def days(self) -> int:
        return self.period.days


@dataclass(frozen=True)
class Table:
    """A table that can be requested."""

    name: str
    title: str
    """Name of the sheet in workbooks, in English; the catalogues have the translations."""
    about: str
    rows: Callable[[Source], Iterable[Any]]
    roles: tuple[Role, ...] = EVERYBODY
    of_day: bool = True
    """True if the table is for a business day, False if it is live."""
    spans: bool = False
    """True if the table can span several business days."""
    bounded: bool = True
    """False if the table may be too long for the page's memory."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """Columns on the page."""
        return COLUMNS[self.name]

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """Columns in files."""
        return fields(self.columns)

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the columns in files."""
        return tuple(field.id for field in self.fields)

    def days(self, source: Source) -> int:
        """Return the number of business days that the rows cover."""
        return source.days if self.spans else 1

    def cells(self, source: Source) -> Iterator[tuple[Cell, ...]]:
        """Yield the rows as cells for files."""
        return cells(self.columns, self.rows(source), Words(source.config, source.lang))


def _traffic(source: Source) -> Iterator[Part]:
    for floor in source.answers.traffic(source.date, source.days):
        for hour in floor.hours:
            yield Part(floor, hour)


def _scores(source: Source) -> Iterable[Any]:
    found = source.answers.counters(source.date, source.days)
    return found.zones if found else ()


def _flows(source: Source) -> Iterable[Any]:
    found = source.answers.flows(source.date, source.days)
    return flow_rows(found.between) if found else ()


def _paths(source: Source) -> Iterable[Any]:
    found = source.answers.flows(source.date, source.days)
    return found.paths if found else ()


def _doors(source: Source) -> Iterable[Any]:
    found = source.answers.flows(source.date, source.days)
    return door_rows(found) if found else ()


def _tiers(source: Source) -> Iterable[Any]:
    found = source.answers.tiers(source.date, source.days)
    return found.tiers if found else ()


def _service(source: Source) -> Iterable[Any]:
    found = source.answers.service(source.date, source.days)
    return found.zones if found else ()


def _occupancy(source: Source) -> Iterator[Part]:
    answers, days = source.answers, source.days
    found = answers.occupancy(source.date) if days == 1 else answers.occupancy_by_hour(source.date, days)
    for place in (*found.floors, *found.zones) if found else ():
        for window in place.windows:
            if window.state != "future":
                yield Part(place, window)


def _hours(source: Source) -> Iterator[Part]:
    found = source.answers.hours(source.date, source.days)
    return _begun(found.zones if found else ())


def _steps(source: Source) -> Iterable[Any]:
    found = source.answers.flows(source.date, source.days)
    return found.stops if found else ()


def _need(source: Source) -> Iterator[Part]:
    found = source.answers.need(source.date, source.days)
    return _begun(found.floors if found else ())


def _proposals(source: Source) -> Iterator[Part]:
    found = source.answers.need(source.date, source.days)
    for proposal in found.proposals if found else ():
        yield Part(found, proposal)


def _sales(source: Source) -> Iterator[Sold]:
    found = source.answers.sales(source.date, source.days)
    for zone, hour in _begun(found.zones if found else ()):
        yield Sold(zone, hour, None if hour.amount is None or found is None else found.currency)


def _performance(source: Source) -> Iterator[Part]:
    other = source.period.compared
    found = source.answers.performance(source.date, source.days, None if other is None else other.last)
    for counter in found.counters if found else ():
        yield Part(found, counter)


def _trends(source: Source) -> Iterator[Part]:
    found = source.answers.trends(source.date)
    for zone in source.config.zones:
        for day in found.get(zone.id, ()):
            yield Part(_place(zone), day)


def _weekdays(source: Source) -> Iterator[Part]:
    found = source.answers.week(source.date)
    start_us = business_days(source.config).bounds_us(source.date)[0]
    for zone in source.config.zones:
        for weekday, hours in enumerate(found.zones.get(zone.id, ()) if found else (), 1):
            for hour, mean in enumerate(hours):
                at = local(source.config, start_us + hour * 3_600_000_000)
                yield Part(_place(zone), WeekHour(weekday, f"{at:%H:%M}", mean))


def _lines(source: Source) -> Iterator[Any]:
    for kind in TRIALS:
        yield from line_rows(source.answers.trials(kind, source.date))


def _against(source: Source) -> Iterable[Any]:
    other = source.period.compared
    found = None if other is None else source.answers.against(source.date, source.days, other.last)
    return found.rows if found else ()


def _comparison(source: Source) -> Iterable[Any]:
    found = source.answers.comparison(source.date)
    return found.rows if found else ()


def _readers(source: Source) -> Iterator[Part]:
    told = {reader.id: reader for reader in (source.now.readers if source.now else ())}
    for reader in source.config.readers:
        yield Part(reader, told.get(reader.id))


def _begun(places: Iterable[Any]) -> Iterator[Part]:
    """Yield the hours of places that aren't in the future."""
    for place in places:
        for hour in place.hours:
            if hour.state != "future":
                yield Part(place, hour)


def _place(zone: Zone) -> Place:
    return Place(zone.id, zone.floor, zone.kind.value)


TOGETHER = "Over several days, by hour of the day, all days together, with the times of the last one."

_MADE = (
    Table(
        "cues",
        _("Cues"),
        "Cues created on the business days, and their outcomes.",
        lambda source: source.answers.read(lambda past: service_rows.cues(past, source.period), []),
        roles=(Role.MANAGER,),
        spans=True,
    ),
    Table(
        "cases",
        _("Service cases"),
        "Service cases opened on the business days.",
        lambda source: source.answers.read(lambda past: service_rows.cases(past, source.period), []),
        spans=True,
    ),
    Table("traffic", _("Traffic"), f"Arrivals on each floor by hour. {TOGETHER}", _traffic, spans=True),
    Table("dwell", _("Dwell"), "Dwell of people in each zone.", _scores, spans=True),
    Table(
        "flows",
        _("Flows"),
        "Transitions of people between zones; those with too few carriers are only included in a total.",
        _flows,
        spans=True,
    ),
    Table(
        "steps",
        _("Stop to stop"),
        "From each stop to the next one, whatever was walked through between; without a zone: outside the store.",
        _steps,
        spans=True,
    ),
    Table("counters", _("Counters"), "Scorecard of each zone.", _scores, spans=True),
    Table("paths", _("Routes"), "Most frequent paths through the store.", _paths, spans=True),
    Table(
        "doors",
        _("Entries and exits"),
        "Entries and exits by door; without a zone: journeys first or last seen elsewhere.",
        _doors,
        spans=True,
    ),
    Table(
        "tiers",
        _("Service by tier"),
        "Members by tier: visits, dwell, service. Small numbers are withheld.",
        _tiers,
        spans=True,
    ),
    Table(
        "service",
        _("Service"),
        "Staff, waiting and assistance by zone. Being in the same zone indicates service but does not prove it.",
        _service,
        spans=True,
    ),
    Table(
        "occupancy",
        _("Occupancy"),
        f"Occupancy of each floor and zone, by 15 minutes. {TOGETHER}",
        _occupancy,
        spans=True,
    ),
    Table(
        "hours",
        _("Zones by hour"),
        f"Each zone by hour: dwell, and visits per staff member. {TOGETHER}",
        _hours,
        spans=True,
    ),
    Table(
        "need",
        _("Staff missing"),
        f"Visits that met nobody, and waits, by floor and hour. {TOGETHER}",
        _need,
        spans=True,
    ),
    Table(
        "proposals",
        _("Staff proposed"),
        "Where one more member of staff would have had enough to do, and what that assumes.",
        _proposals,
        spans=True,
    ),
    Table(
        "sales",
        _("Sales by hour"),
        f"Tickets of zones whose sales are known, beside their visits, by hour. {TOGETHER}",
        _sales,
        spans=True,
    ),
    Table(
        "performance",
        _("Trend and sales"),
        "Visits, dwell and tickets of the counters beside the days that `against` names; default: the days before, or,"
        " while there are too few of these, the second half of the days beside the first.",
        _performance,
        spans=True,
    ),
    Table("trends", _("28 days"), "Each zone on each of the 28 days up to the date.", _trends),
    Table(
        "weekdays",
        _("By weekday and hour"),
        "Mean visits of each zone by weekday and hour, over the 28 days before; empty with fewer than two weeks.",
        _weekdays,
    ),
    Table(
        "against",
        _("Compared days"),
        "The days beside those that `against` names, over hours known on both; empty without it.",
        _against,
        spans=True,
    ),
    Table(
        "comparison",
        _("Other days"),
        "Comparison of the day with last week, four weeks and the same holiday.",
        _comparison,
    ),
    Table(
        "promotions",
        _("Promotions"),
        "Effects of promotions, compared with control zones.",
        lambda source: trial_rows(source.answers.trials("promotions", source.date)),
    ),
    Table(
        "layout",
        _("Layout"),
        "Effects of layout changes, compared with control zones.",
        lambda source: trial_rows(source.answers.trials("layout_changes", source.date)),
    ),
    Table(
        "lines",
        _("Promotions day by day"),
        "Promotions and layout changes day by day, beside their control zones: before, during and after.",
        _lines,
    ),
    Table(
        "suspects",
        _("Excluded tags"),
        "Tags excluded from the day's figures: suspected staff and stuck tags, with reasons.",
        lambda source: source.answers.suspects(source.date),
        roles=(Role.MANAGER, Role.IT),
    ),
    Table("members", _("Members"), "Members seen by tier; small numbers are withheld.", _tiers, spans=True),
    Table("quality", _("Coverage"), "Coverage of each zone.", _scores, spans=True),
    Table("readers", _("Readers"), "Current state of the readers.", _readers, of_day=False),
    Table(
        "audit",
        _("Audit"),
        "Audit log: logins, views of individual members, downloads; all lines kept, latest first.",
        lambda source: source.audit(),
        roles=(Role.IT,),
        of_day=False,
        bounded=False,
    ),
)
TABLES: Mapping[str, Table] = {table.name: table for table in _MADE}
"""Table name → table; COLUMNS has the same names."""
