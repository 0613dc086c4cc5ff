"""Trends: a line of the last days, the week by hour, and rows in the order of one column with ties marked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from markupsafe import Markup

from config import StoreConfig
from edge.web.drawings.charts import USUAL_HOURS
from edge.words.languages import catalogue
from edge.words.numbers import local

if TYPE_CHECKING:  # NumPy is imported with the first day
    from edge.days.against import AgainstReport
    from edge.days.changes import Comparison
    from edge.days.counters import CounterScore
    from edge.days.performance import CounterCourse, Course
    from edge.days.trends import TrendDay, Week

COURSE_ORDERS = (
    *("falls", "visits", "visits_change", "dwell", "dwell_change", "tickets", "tickets_change", "tickets_per_visit"),
)
"""Columns by which counters can be sorted that are compared with other days."""
REACH = (0.1, 1.0)
"""Least and greatest change at the edge of the pictures of changes."""
SHADES = 4
ORDERS = ("rank", "n", "draw", "engaged_share", "conversion", "bounce", "first_stop", "median_s", "p75_s")
"""Columns by which counters can be sorted."""


@dataclass(frozen=True)
class Cell:
    mean: float | None
    shade: int
    """1 (few) to SHADES (many); 0 without visits or unknown."""


@dataclass(frozen=True)
class WeekPicture:
    """The week of one zone."""

    labels: tuple[str, ...]
    days: tuple[tuple[Cell, ...], ...]
    """From Monday."""


def spark_line(days: Sequence[TrendDay], lang: str) -> Markup:
    """Draw the visits of the last days as a small line with gaps where they are unknown; nothing for fewer than two."""
    told = [day for day in days if day.visits is not None]
    if len(told) < 2:
        return Markup()
    most = max(*(day.visits or 0 for day in told), 1)
    points = [
        (round(2 + 96 * place / (len(days) - 1), 1), round(22 - 20 * day.visits / most, 1), day.date)
        for place, day in enumerate(days)
        if day.visits is not None
    ]
    parts = [
        f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>'
        for (x1, y1, one), (x2, y2, two) in pairwise(points)
        if (two - one).days == 1
    ]
    x, y, _ = points[-1]
    _ = catalogue(lang).gettext
    label = _("Visits a day from %(first)s to %(last)s: at least %(low)s, at most %(high)s") % {
        "first": told[0].date,
        "last": told[-1].date,
        "low": min(day.visits or 0 for day in told),
        "high": max(day.visits or 0 for day in told),
    }
    head = f'<svg class="spark" viewBox="0 0 100 24" role="img" aria-label="{label}"><title>{label}</title>'
    return Markup("".join((head, *parts, f'<circle cx="{x}" cy="{y}" r="2"/></svg>')))


def reach(day: Comparison | None, days: AgainstReport | None) -> float:
    """Return the change at the edge of all pictures of changes of the store and its floors: the farthest limit."""
    rows = [row for row in (day.rows if day else ()) if row.scope != "zone"]
    limits = [(one.low, one.high) for row in rows for one in (row.last_week, row.holiday) if one is not None]
    beside = [row.change for row in (days.rows if days else ()) if row.scope != "zone"]
    limits += [(one.low, one.high) for one in beside if one is not None]
    farthest = max((abs(limit) for both in limits for limit in both if limit is not None), default=0.0)
    return max(REACH[0], min(farthest, REACH[1]))


def week_picture(config: StoreConfig, found: Week, zone: str, start_us: int) -> WeekPicture | None:
    """Build the week of a zone in the usual hours, extended to all with visits; None with too few days."""
    days = found.zones.get(zone)
    if not days:
        return None
    labels = [f"{local(config, start_us + hour * 3_600_000_000):%H}" for hour in range(found.hours)]
    used = [
        hour
        for hour, label in enumerate(labels)
        if USUAL_HOURS[0] <= int(label) < USUAL_HOURS[1] or any(day[hour] for day in days)
    ]
    shown = range(min(used, default=0), max(used, default=-1) + 1)
    most = max((mean or 0 for day in days for mean in day), default=0) or 1

    def cell(mean: float | None) -> Cell:
        return Cell(mean, 0 if not mean else 1 + min(SHADES - 1, int(mean / most * SHADES)))

    return WeekPicture(
        tuple(labels[hour] for hour in shown), tuple(tuple(cell(day[hour]) for hour in shown) for day in days)
    )


def in_order(rows: Iterable[CounterScore], by: str) -> list[tuple[CounterScore, bool]]:
    """Sort counters by a column, highest first, unknown last; by rank: best first.

    Each comes with True if its interval overlaps with that of the row above, so that their order may be chance.
    """
    if by == "rank":
        best = sorted(rows, key=lambda row: (row.n is None, row.rank is None, row.rank or (0, 0), -(row.n or 0)))
        return [(row, False) for row in best]
    found = sorted(rows, key=lambda row: (_limits(row, by) is None, -(_limits(row, by) or (0, 0, 0))[0], row.zone))
    ties = [False, *(_tied(_limits(one, by), _limits(two, by)) for one, two in pairwise(found))]
    return list(zip(found, ties, strict=False))


def courses_in_order(rows: Iterable[CounterCourse], by: str) -> list[tuple[CounterCourse, bool]]:
    """Sort counters by a column, lowest first, unknown last, or as they come by `falls`; ties as `in_order` does."""
    if by == "falls":
        return [(row, False) for row in rows]
    known = [(_course(row, by), row) for row in rows]
    found = sorted(known, key=lambda one: (one[0] is None, (one[0] or (0.0,))[0], one[1].zone))
    ties = [False, *(_tied(two, one) for (one, _), (two, _) in pairwise(found))]
    return [(row, tied) for (_, row), tied in zip(found, ties, strict=False)]


def _course(row: CounterCourse, by: str) -> tuple[float, float, float] | None:
    """Return value, lower and upper limit of a column; figures without an interval are exact."""
    if by == "tickets_per_visit":
        rate = None if row.sales is None else row.sales.per_visit
        return None if rate is None else (rate.value, rate.low, rate.high)
    name, _, change = by.partition("_")
    found: Course = getattr(row, name)
    if not change:
        return None if found.now is None else (found.now, found.now, found.now)
    if found.change is None:
        return None
    low, high = found.change.low, found.change.high
    return found.change.value, float("-inf") if low is None else low, float("inf") if high is None else high


def _tied(above: tuple[float, float, float] | None, below: tuple[float, float, float] | None) -> bool:
    return above is not None and below is not None and above[1] <= below[2]


def _limits(row: CounterScore, by: str) -> tuple[float, float, float] | None:
    """Return value, lower and upper limit; counts are exact, and so are those of columns without an interval."""
    value = getattr(row, by)
    if value is None:
        return None
    if by == "median_s":
        return value, row.median_low_s or value, row.median_high_s or value
    if by == "conversion":
        return value, row.conversion_low or 0.0, float("inf") if row.conversion_high is None else row.conversion_high
    if isinstance(value, int | float):
        return value, value, value
    return value.value, value.low, value.high
