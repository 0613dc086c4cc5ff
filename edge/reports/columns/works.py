"""Columns of tables about readers and users."""

from __future__ import annotations

from typing import Any

from edge.words.languages import message as _
from edge.words.tables import INTEGER, MOMENT, NUMBER, TEXT, Column, Words, follow


def _offset_ms(row: Any, _: Words) -> float | None:
    us = follow(row, "part.clock_offset_us")
    return None if us is None else us / 1e3


# A reader of the store file, and what the service says of it; None while it says nothing.
READERS = (
    Column("reader", TEXT, _("Reader"), "Reader, by its id in the store file.", "of.id"),
    Column("driver", TEXT, _("Protocol"), "The reader's protocol.", "of.driver"),
    Column(
        "link",
        TEXT,
        _("Link"),
        "up, connecting, down, or unknown while the service does not answer.",
        lambda row, _: follow(row, "part.link") or "unknown",
    ),
    Column("reason", TEXT, _("Why"), "Why it is not up.", "part.reason"),
    Column(
        "since", MOMENT, _("Link since"), "Since when the link is so, ISO 8601 in the store's time.", "part.since_us"
    ),
    Column(
        "zones",
        TEXT,
        _("Zones"),
        "Zones that its antennas watch.",
        lambda row, _: " ".join(dict.fromkeys(antenna.zone for antenna in row.of.antennas)),
    ),
    Column("reads", INTEGER, _("Reads"), "Reads since the service started.", "part.reads"),
    Column("reads_per_s", NUMBER, _("Reads/s"), "Reads a second.", "part.reads_per_s", digits=1),
    Column(
        "clock_offset_ms",
        NUMBER,
        _("Clock offset"),
        "The reader's clock against the store's, milliseconds.",
        _offset_ms,
        digits=1,
    ),
)

# A line of the audit log.
AUDIT = (
    Column("at", MOMENT, _("When"), "When, ISO 8601 in the store's time.", lambda row, _: round(row.at_s * 1e6)),
    Column("user", TEXT, _("Name"), "Who.", "name"),
    Column("role", TEXT, _("Role"), "In which role."),
    Column("address", TEXT, _("Address"), "From which address."),
    Column("action", TEXT, _("What"), "What was done."),
    Column("object", TEXT, _("To what"), "To what."),
)
