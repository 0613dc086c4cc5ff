"""Columns of tables about members, suspect tags, cues and service cases."""

from __future__ import annotations

from typing import Any

from edge.reports.columns.shared import ASSIST, MET, TIER, WAIT, WAIT_P75, joined, zone
from edge.words.languages import message as _
from edge.words.tables import INTEGER, MOMENT, NUMBER, SECONDS, SHARE, TEXT, Column, Words


def _told(row: Any, words: Words) -> int | str:
    return f"<{words.config.thresholds.small_cell}" if row.members is None else int(row.members)


def _verdict(row: Any, _: Words) -> str:
    return {None: "", True: "confirmed", False: "cleared"}[row.confirmed]


# A tier's score.
TIERS = (
    TIER,
    Column("members", INTEGER, _("Members"), "Members seen; over several days, each day is counted separately."),
    Column("journeys", INTEGER, _("Journeys"), "Journeys of these members."),
    Column("visits", INTEGER, _("Visits"), "Visits of these members to zones."),
    Column("visit_share", SHARE, _("Share of visits"), "Share of all visits of people."),
    Column("dwell_share", SHARE, _("Share of dwell"), "Share of the total duration of all visits of people."),
    Column(
        "returning",
        SHARE,
        _("Returning"),
        "Members also seen in the previous returning_days ÷ members seen.",
        interval=True,
    ),
    MET,
    WAIT,
    WAIT_P75,
    Column("contact", SHARE, _("Contact coverage"), "Journeys with a staff contact ÷ journeys.", interval=True),
    ASSIST,
    Column("wait_target_s", SECONDS, _("Wait, target"), "Target wait of the tier in the store file, seconds."),
    Column(
        "wait_kept",
        SHARE,
        _("Wait within target"),
        "Visits that met staff within the target ÷ visits long enough to expect service.",
        interval=True,
    ),
    Column(
        "assist_target_s",
        SECONDS,
        _("Assist, target"),
        "Target assistance time of the tier in the store file, seconds.",
    ),
    Column(
        "assist_kept",
        SHARE,
        _("Assist target met"),
        "Visits with assistance of at least the target time ÷ visits that met staff.",
        interval=True,
    ),
)

# A tier's score, or a tier with its number of members.
MEMBERS = (
    TIER,
    Column(
        "members", INTEGER, _("Members"), "Members seen; '<' and a number: fewer than this number, withheld.", _told
    ),
)

# A suspect tag.
SUSPECTS = (
    Column(
        "tag",
        TEXT,
        _("Tag"),
        "First characters of the tag's pseudonym, which changes daily for most tags.",
        lambda row, _: row.tag[:8],
    ),
    Column("tag_class", TEXT, _("Class"), "Tag class."),
    Column("reasons", TEXT, _("Why"), "stuck, long (too long in the store), back_room.", joined("reasons")),
    Column("present_s", SECONDS, _("present"), "Time in zones, seconds."),
    Column("back_room_s", SECONDS, _("in back rooms"), "Time in back rooms, seconds."),
    Column("different_zones", INTEGER, _("Zones"), "Number of different zones visited."),
    Column("zone", TEXT, _("Longest in"), "Id of the zone with the longest stay."),
    Column("first_seen", MOMENT, _("first seen"), "Start of the first visit.", "first_us"),
    Column("last_seen", MOMENT, _("last seen"), "End of the last visit.", "last_us"),
    Column(
        "verdict",
        TEXT,
        _("Verdict"),
        "confirmed (not a customer), cleared (included), or empty: no verdict.",
        _verdict,
    ),
)

# A service case, without members or employees.
CASES = (
    Column("case", INTEGER, _("Case"), "Number of the service case.", "number"),
    Column("opened", MOMENT, _("Opened"), "When it was opened, ISO 8601 in the store's time.", "at_us"),
    Column(
        "about",
        TEXT,
        _("About"),
        "arrival or waiting: kind of the cue that nobody acted on; hand: entered by a manager.",
        "kind",
    ),
    *zone(),
    TIER,
    Column("case_state", TEXT, _("State"), "open, acknowledged, done or reviewed.", "state"),
    Column("note", TEXT, _("Note"), "Latest note."),
)

# A cue, without members or employees.
CUES = (
    Column("made", MOMENT, _("Created"), "When the cue was created, ISO 8601 in the store's time.", "made_us"),
    Column("about", TEXT, _("About"), "arrival or waiting.", "kind"),
    *zone(),
    TIER,
    Column(
        "outcome",
        TEXT,
        _("Outcome"),
        "done, attended (a badge stayed), expired; or open, acknowledged, snoozed.",
        "state",
    ),
    Column("rule", TEXT, _("Rule"), "Rule that created the cue."),
    Column("rules_version", INTEGER, _("Rule version"), "Version of the rules.", "version"),
    Column(
        "answered_s",
        SECONDS,
        _("Response time"),
        "Time from creation until the cue was first acknowledged or done, seconds.",
        digits=6,
    ),
    Column(
        "took_ms",
        NUMBER,
        _("Read to cue"),
        "Time from the read, or from the end of the target wait, to the cue, milliseconds.",
        "latency_ms",
        digits=6,
    ),
)
