"""Columns that several tables have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from edge.words.languages import message as _
from edge.words.tables import INTEGER, MOMENT, NUMBER, SECONDS, SHARE, TEXT, Column, Words, follow


class Part(NamedTuple):
    """A row that is part of something: an hour of a floor, say."""

    of: Any
    part: Any


def floor_name(path: str = "floor") -> Column:
    """The floor's name; `path` leads to its id."""
    return Column(
        "floor_name",
        TEXT,
        _("Floor"),
        "The floor's name in the language asked for.",
        lambda row, words: words.floor(follow(row, path)),
        key=True,
    )


def zone(path: str = "zone") -> tuple[Column, Column]:
    """A zone's id and name; `path` leads to the id."""
    return (
        Column("zone", TEXT, _("Zone id"), "Zone, by its id in the store file.", path, key=True),
        Column("zone_name", TEXT, _("Zone"), "The zone's name in the language asked for.", zone_name(path), key=True),
    )


def zone_name(path: str) -> Callable[[Any, Words], str]:
    """Name of the zone whose id stands at the path; the id if the store file has no such zone."""
    return lambda row, words: words.zone(follow(row, path)) or str(follow(row, path))


def joined(path: str) -> Callable[[Any, Words], str]:
    """Texts with spaces between them."""
    return lambda row, _: " ".join(follow(row, path))


def place(path: str = "") -> tuple[Column, ...]:
    """Floor, zone and kind of zone; of rows that are parts, `path` leads to what has them."""
    return (
        Column("floor", TEXT, _("Floor id"), "Floor, by its id in the store file.", f"{path}floor", key=True),
        *zone(f"{path}zone"),
        Column("kind", TEXT, _("Kind"), "Kind of the zone: counter, aisle, entrance …", f"{path}kind", key=True),
    )


def n(heading: str, path: str = "n") -> Column:
    """Visits of people that bands and quantiles are made of."""
    return Column("n", INTEGER, heading, "Fully seen visits of people: those in bands and quantiles.", path)


def bands(path: str = "") -> tuple[Column, ...]:
    """Visits by how long they were."""
    return (
        Column("pass_by", INTEGER, _("Pass-by"), "Visits shorter than a touch.", f"{path}pass_by"),
        Column("touch", INTEGER, _("Touch"), "Visits as short as a touch.", f"{path}touch"),
        Column("visit", INTEGER, _("Visit"), "Visits longer than a touch that were not engaged.", f"{path}visit"),
        Column("engaged", INTEGER, _("Engaged"), "Engaged visits.", f"{path}engaged"),
    )


def dwell(path: str = "") -> tuple[Column, Column]:
    """How long visits were."""
    return (
        Column("median_s", SECONDS, _("Median"), "Median dwell, seconds.", f"{path}median_s"),
        Column("p75_s", SECONDS, "p75", "Third quartile of dwell, seconds.", f"{path}p75_s"),
    )


def per_staff_hour(path: str = "") -> Column:
    """How much a member of staff had to do."""
    return Column(
        "visits_per_staff_hour",
        NUMBER,
        _("Visits per member of staff and hour"),
        "Visits of visit_s or more per hour of one member of staff.",
        f"{path}visits_per_staff_hour",
    )


MEASURED = "measured, unknown (no reader was up: not zero) or future."
HOUR = Column(
    "hour", MOMENT, _("Hour"), "Beginning of the hour, ISO 8601 in the store's time.", "part.start_us", key=True
)
COVERAGE = Column(
    "coverage",
    SHARE,
    _("Coverage"),
    "Share of the opening time so far in which the readers were up, 0 to 1; null: closed, or not yet.",
)
CENSORED = Column("censored", INTEGER, _("Not fully seen"), "Visits not fully seen: in no band and no quantile.")
CARTS = Column("cart_visits", INTEGER, _("Cart visits"), "Visits of carts; carts are not people.")
TIER = Column("tier", TEXT, _("Tier"), "Tier of the chain's membership.", key=True)
MET = Column("met", SHARE, _("Met staff"), "Visits that met staff ÷ visits that wanted service.", interval=True)
WAIT = Column(
    "wait_median_s",
    SECONDS,
    _("Wait, median"),
    "Median wait until the first staff badge, seconds, of the visits that met staff.",
)
WAIT_P75 = Column("wait_p75_s", SECONDS, _("Wait, p75"), "Third quartile of the same.")
ASSIST = Column(
    "assist_median_s",
    SECONDS,
    _("Assist, median"),
    "Median of how long a badge was there too, seconds, of the visits that met staff.",
)
