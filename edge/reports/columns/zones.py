"""Columns of tables per floor and zone."""

from __future__ import annotations

from typing import Any

from edge.reports.columns.sales import OF_ZONE
from edge.reports.columns.shared import (
    ASSIST,
    CARTS,
    CENSORED,
    COVERAGE,
    HOUR,
    MEASURED,
    MET,
    WAIT,
    WAIT_P75,
    bands,
    dwell,
    floor_name,
    n,
    per_staff_hour,
    place,
    zone,
)
from edge.words.languages import message as _
from edge.words.tables import INTEGER, MOMENT, NUMBER, QUOTIENT, SECONDS, SHARE, TEXT, Column, Interval, Words


def _conversion(row: Any, _: Words) -> Interval | None:
    return None if row.conversion is None else Interval(row.conversion, row.conversion_low, row.conversion_high)


def _rank(row: Any, _: Words) -> str | None:
    return row.rank and "–".join(dict.fromkeys(map(str, row.rank)))


def _level(row: Any, _: Words) -> str:
    return "floor" if row.of.floor else "zone"


# A floor's hour.
TRAFFIC = (
    Column("floor", TEXT, _("Floor id"), "Id of the floor in the store file.", "of.floor", key=True),
    floor_name("of.floor"),
    HOUR,
    Column("state", TEXT, _("State"), MEASURED, "part.state"),
    Column(
        "members", INTEGER, _("Member visits"), "Number of arrivals of members on the floor.", "part.entered.member"
    ),
    Column(
        "other_tags",
        INTEGER,
        _("Other tags"),
        "Number of arrivals of tags without a known class on the floor.",
        "part.entered.unknown",
    ),
    Column(
        "carts",
        INTEGER,
        _("Cart visits"),
        "Number of arrivals of carts on the floor; carts are not people.",
        "part.entered.cart",
    ),
    Column("coverage", SHARE, _("Coverage"), "Share of the hour in which the readers were up.", "part.coverage"),
)

# A zone's score.
DWELL = (*place(), n("n"), *dwell(), *bands(), CENSORED, CARTS, COVERAGE)

# A zone's score.
COUNTERS = (
    *place(),
    n(_("Visits")),
    CENSORED,
    *bands(),
    CARTS,
    *dwell(),
    Column("journeys", INTEGER, _("Journeys"), "Journeys of people that began while the zone was covered."),
    Column("visitors", INTEGER, _("Visitors"), "Journeys with a visit of a touch or longer to the zone."),
    Column("draw", SHARE, _("Draw"), "visitors ÷ journeys.", interval=True),
    Column(
        "conversion",
        QUOTIENT,
        _("Conversion"),
        "engaged ÷ (pass_by + touch + visit).",
        _conversion,
        interval=True,
    ),
    Column(
        "engaged_share", SHARE, _("Engaged"), "Journeys with an engaged visit to the zone ÷ journeys.", interval=True
    ),
    Column("bounce", SHARE, _("Bounce"), "touch ÷ (touch + visit + engaged).", interval=True),
    Column(
        "first_stop",
        SHARE,
        _("First stop"),
        "Journeys that stopped here before any other counter ÷ journeys that stopped at any counter.",
        interval=True,
    ),
    Column(
        "repeat",
        SHARE,
        _("Returning"),
        "Visiting members who had been in the store before ÷ visiting members.",
        interval=True,
    ),
    MET,
    WAIT,
    Column("rank", NUMBER, _("Rank"), "Best and worst possible rank by engaged_share.", _rank, in_files=False),
    Column(
        "rank_best",
        INTEGER,
        _("Best rank"),
        "Best possible rank by engaged_share, given the intervals.",
        lambda row, _: row.rank and row.rank[0],
    ),
    Column(
        "rank_worst",
        INTEGER,
        _("Worst rank"),
        "Worst possible rank by engaged_share, given the intervals.",
        lambda row, _: row.rank and row.rank[1],
    ),
    *OF_ZONE,
    COVERAGE,
)

# A zone's score.
QUALITY = (*place(), COVERAGE, n(_("Complete visits")), CENSORED)

# A zone's service.
SERVICE = (
    *place(),
    Column(
        "staffed", SHARE, _("Staffed"), "Share of the covered opening hours with at least one staff badge in the zone."
    ),
    Column("wanted", INTEGER, _("Visits"), "Visits long enough to expect service; null for zones without service."),
    MET,
    WAIT,
    WAIT_P75,
    Column(
        "assist_mean_s",
        SECONDS,
        _("Assist, mean"),
        "Mean time a staff badge was there for visits that met staff, seconds.",
    ),
    ASSIST,
    Column(
        "visits_per_staffed_hour",
        NUMBER,
        _("Visits per staffed hour"),
        "Visits of visit_s or longer per hour with at least one staff badge.",
    ),
    per_staff_hour(),
    COVERAGE,
)

UNSERVED = Column(
    "unserved_share",
    SHARE,
    _("Met nobody, share"),
    "unserved ÷ wanted, from 30 visits on; its interval is at least as wide as the days differ.",
    "part.share",
    interval=True,
)
# A floor's hour.
NEED = (
    Column("floor", TEXT, _("Floor id"), "Id of the floor in the store file.", "of.floor", key=True),
    floor_name("of.floor"),
    HOUR,
    Column("state", TEXT, _("State"), MEASURED, "part.state"),
    Column("wanted", INTEGER, _("Visits"), "Visits long enough to expect service.", "part.wanted"),
    Column("unserved", INTEGER, _("met nobody"), "Of these, visits that met no staff.", "part.unserved"),
    UNSERVED,
    Column(
        "wait_median_s", SECONDS, _("Wait, median"), "Median wait of the visits that met staff, seconds.", "part.wait_s"
    ),
)

# More staff for a zone, with what that assumes.
PROPOSALS = (
    Column("floor", TEXT, _("Floor id"), "Id of the floor in the store file.", "part.floor", key=True),
    floor_name("part.floor"),
    *zone("part.zone"),
    Column(
        "start", MOMENT, _("From hour"), "Beginning, ISO 8601 in the store's time, on the last day.", "part.start_us"
    ),
    Column("end", MOMENT, _("To hour"), "End.", "part.end_us"),
    Column("more", INTEGER, _("More staff"), "Proposed additional members of staff.", "part.more"),
    Column("unserved", INTEGER, _("met nobody"), "Visits that met no staff in these hours.", "part.unserved"),
    Column("wanted", INTEGER, _("Visits"), "Visits long enough to expect service in these hours.", "part.wanted"),
    UNSERVED,
    Column(
        "sure",
        TEXT,
        _("Certain"),
        "yes: there was enough to do at the lower limit of the share, too, all zones taken together; no: not certain.",
        lambda row, _: "yes" if row.part.sure else "no",
    ),
    Column(
        "per_staff_hour",
        NUMBER,
        _("Assumed visits per staff member and hour"),
        "Assumption: visits that one member of staff meets in an hour, as in the busiest quarter of the staffed hours.",
        "of.per_hour",
    ),
)

# A zone's hour.
HOURS = (
    *place("of."),
    HOUR,
    Column("state", TEXT, _("State"), MEASURED, "part.state"),
    n("n", "part.n"),
    *dwell("part."),
    *bands("part."),
    Column("staff_s", SECONDS, _("Staff present"), "Total presence of staff badges, seconds.", "part.staff_s"),
    per_staff_hour("part."),
)

# A window of a floor or zone.
OCCUPANCY = (
    Column("place", TEXT, _("Floor or zone"), "floor or zone: type of the place in this row.", _level),
    Column("id", TEXT, _("Id"), "Id of the place in the store file.", "of.place"),
    Column(
        "name",
        TEXT,
        _("Place"),
        "Name in the requested language.",
        lambda row, words: words.place(_level(row, words), row.of.place),
    ),
    Column("window", MOMENT, _("Window"), "Start of the 15 minutes, ISO 8601 in the store's time.", "part.start_us"),
    Column("state", TEXT, _("State"), MEASURED, "part.state"),
    Column("mean", NUMBER, _("mean"), "Mean number of people present in the window.", "part.mean"),
    Column("peak", INTEGER, _("peak"), "Highest number of people present at the same time.", "part.peak"),
    Column(
        "provisional",
        TEXT,
        _("Provisional"),
        "yes: visits in progress are not included yet.",
        lambda row, _: "yes" if row.part.provisional else "no",
    ),
)
