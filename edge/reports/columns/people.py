"""Columns of tables about members, suspected tags, cues and service cases."""

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
    Column("members", INTEGER, _("Members"), "Members seen; over several days each day counts for itself."),
    Column("journeys", INTEGER, _("Journeys"), "Their journeys."),
    Column("visits", INTEGER, _("Visits"), "Their visits to zones."),
    Column("visit_share", SHARE, _("Share of visits"), "Of all visits of people."),
    Column("dwell_share", SHARE, _("Share of dwell"), "Of all presence of people."),
    Column("returning", SHARE, _("Returning"), "Members seen before ÷ members seen.", interval=True),
    MET,
    WAIT,
    WAIT_P75,
    Column("contact", SHARE, _("Contact coverage"), "Journeys with a staff contact ÷ journeys.", interval=True),
    ASSIST,
    Column("wait_target_s", SECONDS, _("Wait, target"), "The store file's target for the tier's wait, seconds."),
    Column(
        "wait_kept",
        SHARE,
        _("Wait within target"),
        "Visits that met staff within the target ÷ visits that wanted service.",
        interval=True,
    ),
    Column("assist_target_s", SECONDS, _("Assist, target"), "The store file's target for assistance, seconds."),
    Column(
        "assist_kept",
        SHARE,
        _("Assist as targeted"),
        "Visits assisted as long as the target ÷ visits that met staff.",
        interval=True,
    ),
)

# A tier's score, or the tier with its members.
MEMBERS = (
    TIER,
    Column("members", INTEGER, _("Members"), "Members seen; < and a number: fewer than are told.", _told),
)

# A suspected tag.
SUSPECTS = (
    Column(
        "tag",
        TEXT,
        _("Tag"),
        "Beginning of the tag's pseudonym; of most tags it is that of the day.",
        lambda row, _: row.tag[:8],
    ),
    Column("tag_class", TEXT, _("Class"), "Class of the tag."),
    Column("reasons", TEXT, _("Why"), "stuck, long (in the store), back_room.", joined("reasons")),
    Column("present_s", SECONDS, _("present"), "Time in zones, seconds."),
    Column("back_room_s", SECONDS, _("in back rooms"), "Time in back rooms, seconds."),
    Column("different_zones", INTEGER, _("Zones"), "Different zones that it was in."),
    Column("zone", TEXT, _("Longest in"), "Zone where it was longest, by its id in the store file."),
    Column("first_seen", MOMENT, _("first seen"), "Beginning of its first visit.", "first_us"),
    Column("last_seen", MOMENT, _("last seen"), "End of its last.", "last_us"),
    Column(
        "verdict",
        TEXT,
        _("Verdict"),
        "confirmed (no customer), cleared (counted), or empty: nothing was said.",
        _verdict,
    ),
)

# A service case. Neither members nor employees stand in it.
CASES = (
    Column("case", INTEGER, _("Case"), "Number of the service case.", "number"),
    Column("opened", MOMENT, _("Opened"), "When it was opened, ISO 8601 in the store's time.", "at_us"),
    Column(
        "about",
        TEXT,
        _("About"),
        "arrival or waiting: the cue that nobody followed; hand: written down by a manager.",
        "kind",
    ),
    *zone(),
    TIER,
    Column("case_state", TEXT, _("State"), "open, acknowledged, done or reviewed.", "state"),
    Column("note", TEXT, _("Note"), "Its newest note."),
)

# A cue, likewise.
CUES = (
    Column("made", MOMENT, _("Made"), "When the cue was made, ISO 8601 in the store's time.", "made_us"),
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
    Column("rule", TEXT, _("Rule"), "Rule that made it."),
    Column("rules_version", INTEGER, _("Version of the rules"), "Version of the rules.", "version"),
    Column(
        "answered_s",
        SECONDS,
        _("Answered after"),
        "From the cue until it was first acknowledged or done, seconds.",
        digits=6,
    ),
    Column(
        "took_ms",
        NUMBER,
        _("Read to cue"),
        "From the read, or the end of the target, to the cue, milliseconds.",
        "latency_ms",
        digits=6,
    ),
)
