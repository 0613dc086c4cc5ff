"""The columns of every table that the page shows and gives as a file: one list a table.

Above each list stands what a row of the table is. Headings are messages of the catalogues.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge.reports.columns import changes, people, ways, works, zones
from edge.words.tables import Column

COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "cues": people.CUES,
    "cases": people.CASES,
    "traffic": zones.TRAFFIC,
    "dwell": zones.DWELL,
    "flows": ways.FLOWS,
    "counters": zones.COUNTERS,
    "paths": ways.PATHS,
    "doors": ways.DOORS,
    "tiers": people.TIERS,
    "service": zones.SERVICE,
    "occupancy": zones.OCCUPANCY,
    "hours": zones.HOURS,
    "comparison": changes.COMPARISON,
    "promotions": changes.TRIALS,
    "layout": changes.TRIALS,
    "suspects": people.SUSPECTS,
    "members": people.MEMBERS,
    "quality": zones.QUALITY,
    "readers": works.READERS,
    "audit": works.AUDIT,
}
"""By the table's name."""
