"""Columns of tables by floor and zone."""

from __future__ import annotations

from typing import Any

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
)
from edge.words.languages import message as _
from edge.words.tables import INTEGER, MOMENT, NUMBER, RATIO, SECONDS, SHARE, TEXT, Column, Interval, Words


def _conversion(row: Any, _: Words) -> Interval | None:
    return None if row.conversion is None else Interval(row.conversion, row.conversion_low, row.conversion_high)


def _rank(row: Any, _: Words) -> str | None:
    return row.rank and "–".join(dict.fromkeys(map(str, row.rank)))


def _level(row: Any, _: Words) -> str:
    return "floor" if row.of.floor else "zone"


# A floor's hour.
TRAFFIC = (
    Column("floor", TEXT, _("Floor id"), "Floor, by its id in the store file.", "of.floor", key=True),
    floor_name("of.floor"),
    HOUR,
    Column("state", TEXT, _("State"), MEASURED, "part.state"),
    Column("members", INTEGER, _("Member visits"), "Times that a member came to the floor.", "part.entered.member"),
    Column(
        "other_tags",
        INTEGER,
        _("Other tags"),
        "Times that a carrier of a tag of no known class came to the floor.",
        "part.entered.unknown",
    ),
    Column(
        "carts",
        INTEGER,
        _("Cart visits"),
        "Times that a cart came to the floor; carts are not people.",
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
    Column("journeys", INTEGER, _("Journeys"), "Journeys of people that began while the zone was known."),
    Column("visitors", INTEGER, _("Visitors"), "Of them, those that stayed here for a touch or longer."),
    Column("draw", SHARE, _("Draw"), "visitors ÷ journeys.", interval=True),
    Column(
        "conversion",
        RATIO,
        _("Conversion"),
        "engaged ÷ (pass_by + touch + visit).",
        _conversion,
        interval=True,
    ),
    Column("engaged_share", SHARE, _("Engaged"), "Journeys engaged here ÷ journeys.", interval=True),
    Column("bounce", SHARE, _("Bounce"), "touch ÷ (touch + visit + engaged).", interval=True),
    Column(
        "first_stop",
        SHARE,
        _("First stop"),
        "Journeys that stopped here before any other counter ÷ journeys that stopped at any.",
        interval=True,
    ),
    Column(
        "repeat",
        SHARE,
        _("Returning"),
        "Members who came near and were in the store before ÷ members who came near.",
        interval=True,
    ),
    MET,
    WAIT,
    Column("rank", NUMBER, _("Rank"), "Best and worst place by engaged_share.", _rank, in_files=False),
    Column(
        "rank_best",
        INTEGER,
        _("Best rank"),
        "Best place by engaged_share that the intervals allow.",
        lambda row, _: row.rank and row.rank[0],
    ),
    Column(
        "rank_worst",
        INTEGER,
        _("Worst rank"),
        "Worst place that they allow.",
        lambda row, _: row.rank and row.rank[1],
    ),
    COVERAGE,
)

# A zone's score.
QUALITY = (*place(), COVERAGE, n(_("Visits fully seen")), CENSORED)

# A zone's service.
SERVICE = (
    *place(),
    Column("staffed", SHARE, _("Staffed"), "Share of the known opening time with at least one badge in the zone."),
    Column("wanted", INTEGER, _("Visits"), "Visits long enough to want service; null where nobody is served."),
    MET,
    WAIT,
    WAIT_P75,
    Column("assist_mean_s", SECONDS, _("Assist, mean"), "Mean of how long a badge was there too, seconds."),
    ASSIST,
    Column(
        "visits_per_staffed_hour",
        NUMBER,
        _("Visits per staffed hour"),
        "Visits of visit_s or more per hour with at least one badge.",
    ),
    per_staff_hour(),
    COVERAGE,
)

# A zone's hour.
HOURS = (
    *place("of."),
    HOUR,
    Column("state", TEXT, _("State"), MEASURED, "part.state"),
    n("n", "part.n"),
    *dwell("part."),
    *bands("part."),
    Column("staff_s", SECONDS, _("Staff present"), "Presence of staff badges, summed, seconds.", "part.staff_s"),
    per_staff_hour("part."),
)

# A window of a floor or zone.
OCCUPANCY = (
    Column("place", TEXT, _("Floor or zone"), "floor or zone: what the row is of.", _level),
    Column("id", TEXT, _("Id"), "Its id in the store file.", "of.place"),
    Column(
        "name",
        TEXT,
        _("Place"),
        "Its name in the language asked for.",
        lambda row, words: words.place(_level(row, words), row.of.place),
    ),
    Column(
        "window", MOMENT, _("Window"), "Beginning of the 15 minutes, ISO 8601 in the store's time.", "part.start_us"
    ),
    Column("state", TEXT, _("State"), MEASURED, "part.state"),
    Column("mean", NUMBER, _("mean"), "People at once, on average over the window.", "part.mean"),
    Column("peak", INTEGER, _("peak"), "Most people at once.", "part.peak"),
    Column(
        "provisional",
        TEXT,
        _("Provisional"),
        "yes: visits under way are not in it yet.",
        lambda row, _: "yes" if row.part.provisional else "no",
    ),
)
