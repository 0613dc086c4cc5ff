"""Columns of tables about how people walk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge.reports.columns.shared import zone
from edge.words.languages import message as _
from edge.words.tables import INTEGER, SHARE, TEXT, Column, Words

if TYPE_CHECKING:  # the page does without NumPy until somebody asks for a day
    from edge.days.flows import FlowReport, ZoneFlows, ZoneTransition
    from edge.days.scope import Rate

SUPPRESSED = "suppressed"
"""Stands for the zones of all flows that too few carriers walked."""


@dataclass(frozen=True)
class DoorWay:
    """How many came in, or went out, by a door; without a zone, those who were first or last seen elsewhere."""

    way: str
    zone: str
    n: int | None
    door_share: Rate | None


def flow_rows(flows: ZoneFlows) -> Iterator[ZoneTransition]:
    """Flows between zones; all that too few carriers walked together in the last row."""
    from edge.days.flows import ZoneTransition

    yield from flows.links
    if flows.suppressed_links:
        yield ZoneTransition(SUPPRESSED, SUPPRESSED, flows.suppressed_n)


def door_rows(report: FlowReport) -> Iterator[DoorWay]:
    """Ways in, then ways out."""
    for way, found in (("in", report.ways_in), ("out", report.ways_out)):
        for door in found.doors:
            yield DoorWay(way, door.zone, door.n, door.share)
        yield DoorWay(way, "", found.elsewhere, None)


def _end(name: str) -> Callable[[Any, Words], str | None]:
    return lambda row, words: words.zone(getattr(row, name))


# A flow.
FLOWS = (
    Column("from_zone", TEXT, _("From, id"), f"Where they came from; `{SUPPRESSED}`: all flows of too few.", key=True),
    Column("from_name", TEXT, _("From"), "Its name.", _end("from_zone"), key=True),
    Column("to_zone", TEXT, _("To, id"), "Where they went.", key=True),
    Column("to_name", TEXT, _("To"), "Its name.", _end("to_zone"), key=True),
    Column("n", INTEGER, "n", "Steps straight from the one to the other."),
)

# A path with its count.
PATHS = (
    Column(
        "path", TEXT, _("Way, ids"), "Zones by id in the order of first stops.", lambda row, _: " > ".join(row.zones)
    ),
    Column(
        "path_names",
        TEXT,
        _("Way"),
        "Their names.",
        lambda row, words: " > ".join(words.zone(zone) or zone for zone in row.zones),
    ),
    Column("n", INTEGER, "n", "Journeys that took it."),
    Column("share", SHARE, _("Share"), "Of all journeys with a path."),
)

# A DoorWay.
DOORS = (
    Column("way", TEXT, _("In or out"), "in or out."),
    *zone(),
    Column("n", INTEGER, _("Journeys"), "Journeys that began or ended here; without a zone: elsewhere."),
    Column("door_share", SHARE, _("Share"), "Journeys seen at this door ÷ those seen at any.", interval=True),
)
