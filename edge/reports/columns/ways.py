"""Columns of tables about flows, paths and doors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge.reports.columns.shared import zone
from edge.words.languages import message as _
from edge.words.tables import INTEGER, SHARE, TEXT, Column, Words

if TYPE_CHECKING:  # keeps NumPy out of the page process until a day is requested
    from edge.days.flows import FlowReport, ZoneFlows, ZoneTransition
    from edge.days.scope import Rate

SUPPRESSED = "suppressed"
"""Placeholder zone for the total of all flows with too few carriers."""


@dataclass(frozen=True)
class DoorWay:
    """Number of entries or exits by one door; without a zone: first or last seen elsewhere."""

    way: str
    zone: str
    n: int | None
    door_share: Rate | None


def flow_rows(flows: ZoneFlows) -> Iterator[ZoneTransition]:
    """Yield the flows between zones; the last row is the total of flows with too few carriers."""
    from edge.days.flows import ZoneTransition

    yield from flows.links
    if flows.suppressed_links:
        yield ZoneTransition(SUPPRESSED, SUPPRESSED, flows.suppressed_n)


def door_rows(report: FlowReport) -> Iterator[DoorWay]:
    """Yield the entries by door, then the exits."""
    for way, found in (("in", report.ways_in), ("out", report.ways_out)):
        for door in found.doors:
            yield DoorWay(way, door.zone, door.n, door.share)
        yield DoorWay(way, "", found.elsewhere, None)


def _end(name: str) -> Callable[[Any, Words], str | None]:
    return lambda row, words: words.zone(getattr(row, name) or "")


# A flow.
FLOWS = (
    Column(
        "from_zone",
        TEXT,
        _("From, id"),
        f"Id of the zone of origin; `{SUPPRESSED}`: all flows with too few people.",
        key=True,
    ),
    Column("from_name", TEXT, _("From"), "Name of the zone.", _end("from_zone"), key=True),
    Column("to_zone", TEXT, _("To, id"), "Id of the destination zone.", key=True),
    Column("to_name", TEXT, _("To"), "Name of the zone.", _end("to_zone"), key=True),
    Column("n", INTEGER, "n", "Number of direct transitions."),
)

# From a stop to the next one.
STEPS = (
    Column("from_zone", TEXT, _("From, id"), "Id of the zone of origin; empty: from outside.", key=True),
    Column("from_name", TEXT, _("From"), "Name of the zone.", _end("from_zone"), key=True),
    Column("to_zone", TEXT, _("To, id"), "Id of the next stop; empty: out of the store.", key=True),
    Column("to_name", TEXT, _("To"), "Name of the zone.", _end("to_zone"), key=True),
    Column("n", INTEGER, "n", "Number of steps."),
    Column("step_share", SHARE, _("Share"), "Share of all steps from the zone of origin.", "share", interval=True),
    Column("back_share", SHARE, _("Share of arrivals"), "Share of all steps to that stop.", "back", interval=True),
)

# A path with its count.
PATHS = (
    Column(
        "path", TEXT, _("Route, ids"), "Zone ids in the order of first stops.", lambda row, _: " > ".join(row.zones)
    ),
    Column(
        "path_names",
        TEXT,
        _("Route"),
        "Zone names in the order of first stops.",
        lambda row, words: " > ".join(words.zone(zone) or zone for zone in row.zones),
    ),
    Column("n", INTEGER, "n", "Number of journeys with this path."),
    Column("share", SHARE, _("Share"), "Share of all journeys with a path."),
)

# A DoorWay.
DOORS = (
    Column("way", TEXT, _("Direction"), "in or out."),
    *zone(),
    Column("n", INTEGER, _("Journeys"), "Journeys that began or ended here; without a zone: elsewhere."),
    Column(
        "door_share",
        SHARE,
        _("Share"),
        "Journeys observed at this door ÷ journeys observed at any door.",
        interval=True,
    ),
)
