"""Columns shared by several tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from edge.words.languages import message as _
from edge.words.tables import INTEGER, MOMENT, NUMBER, QUOTIENT, SECONDS, SHARE, TEXT, Column, Words, follow


class Part(NamedTuple):
    """A row for a part of something, such as an hour of a floor."""

    of: Any
    part: Any


def floor_name(path: str = "floor") -> Column:
    """Column with the floor's name; `path` is the path to its id."""
    return Column(
        "floor_name",
        TEXT,
        _("Floor"),
        "Name of the floor in the requested language.",
        lambda row, words: words.floor(follow(row, path)),
        key=True,
    )


def zone(path: str = "zone") -> tuple[Column, Column]:
    """Columns with a zone's id and name; `path` is the path to the id."""
    return (
        Column("zone", TEXT, _("Zone id"), "Id of the zone in the store file.", path, key=True),
        Column("zone_name", TEXT, _("Zone"), "Name of the zone in the requested language.", zone_name(path), key=True),
    )


def zone_name(path: str) -> Callable[[Any, Words], str]:
    """Return a function for the name of the zone with the id at `path`; the id itself if there is no such zone."""
    return lambda row, words: words.zone(follow(row, path)) or str(follow(row, path))


def joined(path: str) -> Callable[[Any, Words], str]:
    """Return a function that joins the texts at `path` with spaces."""
    return lambda row, _: " ".join(follow(row, path))


def place(path: str = "") -> tuple[Column, ...]:
    """Columns for floor, zone and zone kind; `path` is the prefix of their attributes in rows that are parts."""
    return (
        Column("floor", TEXT, _("Floor id"), "Id of the floor in the store file.", f"{path}floor", key=True),
        *zone(f"{path}zone"),
        Column("kind", TEXT, _("Kind"), "Kind of the zone: counter, aisle, entrance …", f"{path}kind", key=True),
    )


def n(heading: str, path: str = "n") -> Column:
    """Column with the number of people's visits that bands and quantiles are based on."""
    return Column("n", INTEGER, heading, "Complete visits of people, which bands and quantiles are based on.", path)


def bands(path: str = "") -> tuple[Column, ...]:
    """Columns with the number of visits by dwell band."""
    return (
        Column("pass_by", INTEGER, _("Pass-by"), "Visits shorter than a touch.", f"{path}pass_by"),
        Column("touch", INTEGER, _("Touch"), "Visits in the touch band.", f"{path}touch"),
        Column(
            "visit",
            INTEGER,
            _("Visit"),
            "Visits longer than a touch and shorter than an engaged visit.",
            f"{path}visit",
        ),
        Column("engaged", INTEGER, _("Engaged"), "Engaged visits.", f"{path}engaged"),
    )


def dwell(path: str = "") -> tuple[Column, Column]:
    """Columns with the median and third quartile of dwell."""
    return (
        Column("median_s", SECONDS, _("Median"), "Median dwell, seconds.", f"{path}median_s"),
        Column("p75_s", SECONDS, "p75", "Third quartile of dwell, seconds.", f"{path}p75_s"),
    )


def per_staff_hour(path: str = "") -> Column:
    """Column with the workload per member of staff."""
    return Column(
        "visits_per_staff_hour",
        NUMBER,
        _("Visits per staff member and hour"),
        "Visits of visit_s or longer per staff member and hour.",
        f"{path}visits_per_staff_hour",
    )


def sold(path: str) -> tuple[Column, ...]:
    """Columns with what was sold; `path` is the prefix of their attributes."""
    return (
        Column("tickets", INTEGER, _("Tickets"), "Receipts of the tills, of all customers.", f"{path}tickets"),
        Column("units", INTEGER, _("Units"), "Articles sold; null if not told for all hours.", f"{path}units"),
        Column("amount", NUMBER, _("Amount"), "Value of the tickets, in the currency.", f"{path}amount"),
    )


def per_visit(path: str) -> Column:
    """Column with tickets per visit."""
    return Column(
        "tickets_per_visit",
        QUOTIENT,
        _("Tickets per visit"),
        "tickets ÷ visits of people, over hours in which both are known; may exceed 1, as not everybody carries a tag.",
        f"{path}per_visit",
        interval=True,
    )


MEASURED = "measured, unknown (no reader was up; not zero) or future."
HOUR = Column(
    "hour", MOMENT, _("Hour"), "Beginning of the hour, ISO 8601 in the store's time.", "part.start_us", key=True
)
COVERAGE = Column(
    "coverage",
    SHARE,
    _("Coverage"),
    "Share of the opening hours so far in which the readers were up, 0 to 1; null: closed, or not open yet.",
)
CENSORED = Column("censored", INTEGER, _("Incomplete"), "Incomplete visits, not included in bands and quantiles.")
CARTS = Column("cart_visits", INTEGER, _("Cart visits"), "Visits of carts; carts are not people.")
TIER = Column("tier", TEXT, _("Tier"), "Membership tier.", key=True)
MET = Column(
    "met", SHARE, _("Met staff"), "Visits that met staff ÷ visits long enough to expect service.", interval=True
)
WAIT = Column(
    "wait_median_s",
    SECONDS,
    _("Wait, median"),
    "Median wait until the first staff badge for visits that met staff, seconds.",
)
WAIT_P75 = Column("wait_p75_s", SECONDS, _("Wait, p75"), "Third quartile of the wait, seconds.")
ASSIST = Column(
    "assist_median_s",
    SECONDS,
    _("Assist, median"),
    "Median time a staff badge was there for visits that met staff, seconds.",
)
