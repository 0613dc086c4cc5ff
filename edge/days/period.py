"""Parse which business days a page or file is about, and which other days they are compared with.

    period = parse({"date": "2026-03-14", "days": "7", "against": "before"}, present, config)
    period.first, period.days, period.compared

Query parameters, which all links keep (`Period.query`): `date` is the last day (default: the present one); `days` a
number of days ending with it, or `month` for its calendar month; `from` the first day of any other range; `against`
one of AGAINST.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, replace

from config import StoreConfig
from edge.store.business_days import parse_date
from edge.store.calendar import DAY, holiday, same_holiday_before
from edge.store.errors import Trouble

SPANS = ("1", "7", "28", "month")
"""Values of `days` that pages offer; any other number up to MOST_DAYS is a range."""
RANGE = "range"
AGAINST = ("before", "year", "holiday")
"""Compared with: the same weekdays directly before, the same weekdays a year before, the same holiday a year before."""
PARAMETERS = ("date", "days", "from", "against")
MOST_DAYS = 52 * 7
"""So that no day is compared with one of the same days."""
YEAR = MOST_DAYS * DAY
"""A year in whole weeks, so that weekdays are compared with their like."""


@dataclass(frozen=True)
class Days:
    """Consecutive business days."""

    first: dt.date
    last: dt.date

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1

    @property
    def dates(self) -> tuple[dt.date, ...]:
        return tuple(self.first + n * DAY for n in range(self.days))

    @property
    def text(self) -> str:
        """`2026-03-14`, or `2026-03-08_2026-03-14`: for file names."""
        return str(self.last) if self.first == self.last else f"{self.first}_{self.last}"

    def moved(self, by: dt.timedelta) -> Days:
        return Days(self.first + by, self.last + by)


@dataclass(frozen=True)
class Period(Days):
    """The days that were asked for."""

    kind: str
    """One of SPANS, or RANGE."""
    present: dt.date
    against: str | None
    """One of AGAINST; None: compared with nothing."""
    compared: Days | None
    """Days for comparison, in the same order; None without any: no holiday among the days, or none a year before."""

    @property
    def before(self) -> Days:
        """The same weekdays directly before."""
        return self.moved(-(-(-self.days // 7) * 7 * DAY))

    @property
    def query(self) -> dict[str, str]:
        """Query parameters of these days, as few as possible: without a date, they follow the present day."""
        found = {"from": str(self.first)} if self.kind == RANGE else {}
        if self.last != self.present or found:
            found["date"] = str(self.last)
        if self.kind not in (RANGE, SPANS[0]):
            found["days"] = self.kind
        return found | ({"against": self.against} if self.against else {})

    def asked(self, **parameters: str) -> dict[str, str]:
        """Return the query with some parameters replaced; those that are empty are left out."""
        kept = {**self.query, **parameters}
        if "days" in parameters:
            kept.pop("from", None)
        return {key: value for key, value in kept.items() if value and (key, value) != ("days", SPANS[0])}

    def step(self, forward: bool) -> dict[str, str]:
        """Return the query of the days of the same length directly before or after."""
        if self.kind == "month":
            day = _end_of_month(self.first) + DAY if forward else self.first - DAY
            return self.asked(date=str(min(_end_of_month(day), self.present) if forward else day))
        there = self.moved((self.days if forward else -self.days) * DAY)
        last = min(there.last, self.present) if forward else there.last
        more = {"from": str(last - (self.days - 1) * DAY)} if self.kind == RANGE else {}
        return self.asked(date=str(last), **more)


def parse(query: Mapping[str, str], present: dt.date, config: StoreConfig) -> Period:
    """Parse the query of a page or file; Trouble if it is invalid."""
    last = parse_date(query["date"]) if query.get("date") else present
    days = query.get("days") or SPANS[0]
    if query.get("from"):
        first = parse_date(query["from"])
        if first > last:
            first, last = last, first
        days = str((last - first).days + 1)
        kind = days if days in SPANS else RANGE
        if (last - first).days >= MOST_DAYS:
            raise Trouble(f"at most {MOST_DAYS} days can be shown together")
    elif days == "month":
        first, kind = last.replace(day=1), "month"
        last = max(first, min(_end_of_month(last), present))
    elif days.isascii() and days.isdecimal() and len(days) <= 3 and 1 <= int(days) <= MOST_DAYS:
        first, kind = last - (int(days) - 1) * DAY, days if days in SPANS else RANGE
    else:
        raise Trouble(f"days must be a number up to {MOST_DAYS}, or month")
    against = query.get("against") or None
    if against is not None and against not in AGAINST:
        raise Trouble(f"against must be one of {', '.join(AGAINST)}")
    made = Period(first, last, kind, present, against, None)
    return replace(made, compared=_compared(made, config) if against else None)


def _compared(period: Period, config: StoreConfig) -> Days | None:
    """Shift the days by whole weeks, so that each is compared with the same weekday; or to the same holiday."""
    if period.against == "holiday":
        for date in period.dates:
            if holiday(config.store.holidays, date) is not None:
                before = same_holiday_before(config, date)
                return None if before is None else period.moved(before - date)
        return None
    return period.moved(-YEAR) if period.against == "year" else period.before


def _end_of_month(date: dt.date) -> dt.date:
    return (date.replace(day=1) + 31 * DAY).replace(day=1) - DAY
