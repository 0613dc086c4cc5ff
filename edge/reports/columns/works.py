"""Columns of the tables of readers and of the audit log."""

from __future__ import annotations

from typing import Any

from edge.words.languages import message as _
from edge.words.tables import INTEGER, MOMENT, NUMBER, TEXT, Column, Words, follow


def _offset_ms(row: Any, _: Words) -> float | None:
    us = follow(row, "part.clock_offset_us")
    return None if us is None else us / 1e3


# A reader in the store file with its live state; None while the service is not responding.
READERS = (
    Column("reader", TEXT, _("Reader"), "Id of the reader in the store file.", "of.id"),
    Column("driver", TEXT, _("Protocol"), "Protocol of the reader.", "of.driver"),
    Column(
        "link",
        TEXT,
        _("Connection"),
        "up, connecting, down, or unknown while the service is not responding.",
        lambda row, _: follow(row, "part.link") or "unknown",
    ),
    Column("reason", TEXT, _("Why"), "Reason for the state of the connection.", "part.reason"),
    Column(
        "since",
        MOMENT,
        _("Connection since"),
        "Time of the last change of this state, ISO 8601 in the store's time.",
        "part.since_us",
    ),
    Column(
        "zones",
        TEXT,
        _("Zones"),
        "Zones covered by its antennas.",
        lambda row, _: " ".join(dict.fromkeys(antenna.zone for antenna in row.of.antennas)),
    ),
    Column("reads", INTEGER, _("Reads"), "Reads since the service started.", "part.reads"),
    Column("reads_per_s", NUMBER, _("Reads/s"), "Reads per second.", "part.reads_per_s", digits=1),
    Column(
        "clock_offset_ms",
        NUMBER,
        _("Clock offset"),
        "Reader's clock minus the store's clock, milliseconds.",
        _offset_ms,
        digits=1,
    ),
)

# A line of the audit log.
AUDIT = (
    Column("line", INTEGER, _("Line"), "Number of the line, in ascending order of time.", "id"),
    Column("at", MOMENT, _("When"), "Time, ISO 8601 in the store's time.", lambda row, _: round(row.at_s * 1e6)),
    Column("user", TEXT, _("Name"), "Name of the user.", "name"),
    Column("role", TEXT, _("Role"), "Role of the user."),
    Column("address", TEXT, _("Address"), "Client address."),
    Column("action", TEXT, _("What"), "Action."),
    Column("object", TEXT, _("Object"), "Object of the action."),
)
