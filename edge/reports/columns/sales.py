"""Columns of tables about sales, and about how counters fare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edge.reports.columns.shared import HOUR, per_visit, place, sold, zone
from edge.words.languages import catalogue
from edge.words.languages import message as _
from edge.words.tables import (
    DATE,
    INTEGER,
    NUMBER,
    QUOTIENT,
    RATIO,
    SECONDS,
    TEXT,
    Column,
    Interval,
    Words,
    follow,
)

WEEKDAY_NAMES = (*(_("Monday"), _("Tuesday"), _("Wednesday"), _("Thursday"), _("Friday"), _("Saturday"), _("Sunday")),)
KNOWN = "measured (the tills told the hour), unknown (they did not; not zero) or future."


def _change(figure: str) -> Callable[[Any, Words], Interval | None]:
    def of(row: Any, _: Words) -> Interval | None:
        found = follow(row, f"part.{figure}.change")
        return None if found is None else Interval(found.value, found.low, found.high)

    return of


def _course(id_: str, kind: str, heading: str, change: str, what: str) -> tuple[Column, ...]:
    """Columns with a figure now, before, and its change."""
    return (
        Column(id_, kind, heading, f"{what}, of these days.", f"part.{id_}.now"),
        Column(f"{id_}_before", kind, _("before"), f"{what}, of the other days.", f"part.{id_}.before"),
        Column(
            f"{id_}_change",
            RATIO,
            change,
            f"Relative change of {id_}; all changes of all counters together hold with 95 %.",
            _change(id_),
            interval=True,
        ),
    )


# A zone's hour.
SALES = (
    *place("of."),
    HOUR,
    Column("state", TEXT, _("State"), KNOWN, "part.state"),
    *sold("part."),
    Column("currency", TEXT, _("Currency"), "Currency of the amount, ISO 4217.", "currency"),
    Column(
        "visits", INTEGER, _("Visits"), "Visits of people in this hour, on days on which both are known.", "part.visits"
    ),
    per_visit("part."),
)

# A zone's sales over the days, beside its visits.
OF_ZONE = (
    *sold("sales."),
    Column(
        "sales_days",
        INTEGER,
        _("Days with sales"),
        "Days on which sales are known for 80 % of the opening hours.",
        "sales.days",
    ),
    per_visit("sales."),
    Column(
        "tickets_per_engaged",
        QUOTIENT,
        _("Tickets per engaged visit"),
        "tickets ÷ engaged visits, over hours in which both are known; may exceed 1.",
        "sales.per_engaged",
        interval=True,
    ),
)

# A counter now and before.
PERFORMANCE = (
    Column("floor", TEXT, _("Floor id"), "Id of the floor in the store file.", "part.floor", key=True),
    *zone("part.zone"),
    *_course(
        "visits", INTEGER, _("Visits"), _("Visits, change"), "Visits of people in hours known on both days of a pair"
    ),
    *_course("dwell", SECONDS, _("Dwell, median"), _("Dwell, change"), "Median dwell, seconds"),
    *_course("tickets", INTEGER, _("Tickets"), _("Tickets, change"), "Tickets in hours known on both days of a pair"),
    per_visit("part.sales."),
    Column(
        "pairs", INTEGER, _("Pairs of days"), "Number of pairs of days whose visits were compared.", "part.visits.pairs"
    ),
    Column(
        "ticket_pairs",
        INTEGER,
        _("Pairs with sales"),
        "Number of pairs of days whose tickets were compared.",
        "part.tickets.pairs",
    ),
    Column(
        "since", DATE, _("Compared from"), "First of the days compared: of all, or of their second half.", "of.since"
    ),
    Column("before_from", DATE, _("with days from"), "First of the days they are compared with.", "of.first_day"),
    Column("before_to", DATE, _("with days to"), "Last of these.", "of.last_day"),
)

# A zone's day.
TRENDS = (
    *place("of."),
    Column("day", DATE, _("Day"), "Business day.", lambda row, _: row.part.date.isoformat(), key=True),
    Column("visits", INTEGER, _("Visits"), "Visits of people; null: not sufficiently covered.", "part.visits"),
    Column("median_s", SECONDS, _("Median"), "Median dwell, seconds.", "part.median_s"),
    Column(
        "tickets",
        INTEGER,
        _("Tickets"),
        "Tickets; null: sales not known for 80 % of the opening hours.",
        "part.tickets",
    ),
)


@dataclass(frozen=True)
class WeekHour:
    """One hour of a weekday of a zone."""

    weekday: int
    """1: Monday."""
    clock: str
    mean: float | None


# A WeekHour of a zone.
WEEKDAYS = (
    *place("of."),
    Column("weekday", INTEGER, _("Weekday, 1 to 7"), "1 Monday to 7 Sunday.", "part.weekday", key=True),
    Column(
        "weekday_name",
        TEXT,
        _("Weekday"),
        "Name in the requested language.",
        lambda row, words: catalogue(words.lang).gettext(WEEKDAY_NAMES[row.part.weekday - 1]),
        key=True,
    ),
    Column("clock", TEXT, _("Hour"), "Beginning of the hour, in the store's time.", "part.clock", key=True),
    Column(
        "mean_visits",
        NUMBER,
        _("Visits, mean"),
        "Mean visits of people, over the 28 days before; null: fewer than two such hours were known throughout.",
        "part.mean",
    ),
)
