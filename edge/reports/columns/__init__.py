"""Column declarations of every table on the page and in downloads, one list per table.

The comment above each list says what a row stands for. Headings are catalogue messages.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge.reports.columns import changes, people, sales, ways, works, zones
from edge.words.tables import Column

COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "cues": people.CUES,
    "cases": people.CASES,
    "traffic": zones.TRAFFIC,
    "dwell": zones.DWELL,
    "flows": ways.FLOWS,
    "steps": ways.STEPS,
    "counters": zones.COUNTERS,
    "paths": ways.PATHS,
    "doors": ways.DOORS,
    "tiers": people.TIERS,
    "service": zones.SERVICE,
    "occupancy": zones.OCCUPANCY,
    "hours": zones.HOURS,
    "need": zones.NEED,
    "proposals": zones.PROPOSALS,
    "sales": sales.SALES,
    "performance": sales.PERFORMANCE,
    "trends": sales.TRENDS,
    "weekdays": sales.WEEKDAYS,
    "against": changes.AGAINST,
    "comparison": changes.COMPARISON,
    "promotions": changes.TRIALS,
    "layout": changes.TRIALS,
    "lines": changes.LINES,
    "suspects": people.SUSPECTS,
    "members": people.MEMBERS,
    "quality": zones.QUALITY,
    "readers": works.READERS,
    "audit": works.AUDIT,
}
"""Table name → columns."""
