"""Charts by hour of the day: occupancy of floors, dwell at counters, visits per staff member."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from markupsafe import Markup

from config import StoreConfig
from edge.web.drawings.charts import TOP_PERCENT, USUAL_HOURS
from edge.words.languages import catalogue, named
from edge.words.numbers import duration

if TYPE_CHECKING:
    from edge.days.hours import HourReport, ZoneHour, ZoneHours
    from edge.days.need import FloorNeed, NeedHour, NeedReport
    from edge.days.occupancy import OccupancyReport

LEVELS = 4
"""Number of shades in the staffing table."""
LATE_SHADES = 3
"""Number of shades of unserved visits."""


@dataclass(frozen=True)
class Column:
    """One hour of a chart, in per cent of its size: `height` of the bar, `tick`: height of the mark."""

    label: str
    x: float
    width: float
    state: str
    height: float
    tick: float | None
    value: float | None
    """Value of the bar."""
    mark: float | None
    """Value of the mark."""
    provisional: bool = False


@dataclass(frozen=True)
class HourChart:
    id: str
    name: str
    total: float | None
    """Total for the day: mean, or n."""
    peak: int | None
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class StaffCell:
    state: str
    per_hour: float | None
    shade: int
    """1 (few visits per staff member) to LEVELS (many); 0 without a value."""
    wanted: int
    """Number of visits long enough to expect service."""
    unserved: int
    """Number of these while there was hardly any staff in the zone."""


@dataclass(frozen=True)
class NeedCell:
    hour: NeedHour
    shade: int
    """1 (few unserved visits) to LATE_SHADES; 0 without."""


@dataclass(frozen=True)
class StaffRow:
    """Hours and totals of a zone; of a floor, if `zone` is None."""

    floor: str
    zone: str | None
    cells: tuple[StaffCell, ...]

    @property
    def wanted(self) -> int:
        return sum(cell.wanted for cell in self.cells)

    @property
    def unserved(self) -> int:
        return sum(cell.unserved for cell in self.cells)


def occupancy_charts(config: StoreConfig, report: OccupancyReport, lang: str) -> tuple[HourChart, ...]:
    """Build the occupancy charts of all floors by hour: mean as bar, peak as mark, with a common scale."""
    shown = _shown(config, [[(hour.start_us, hour.mean) for hour in floor.windows] for floor in report.floors])
    most = max((hour.peak or 0 for floor in report.floors for hour in floor.windows), default=0) or 1
    names = {floor.id: named(floor.name, lang) for floor in config.floors}
    charts = []
    for floor in report.floors:
        columns = []
        for place, i in enumerate(shown):
            hour = floor.windows[i]
            columns.append(
                Column(
                    *(_label(config, hour.start_us), *_across(place, len(shown)), hour.state),
                    round((hour.mean or 0) / most * TOP_PERCENT, 2),
                    None if hour.peak is None else round(hour.peak / most * TOP_PERCENT, 2),
                    *(hour.mean, hour.peak, hour.provisional),
                )
            )
        charts.append(HourChart(floor.place, names[floor.place], floor.mean, floor.peak, tuple(columns)))
    return tuple(charts)


def dwell_charts(config: StoreConfig, report: HourReport) -> dict[str, HourChart]:
    """Build for each counter the chart of visits by hour, with the median dwell."""
    return {zone.zone: zone_chart(config, zone) for zone in report.zones if zone.kind == "counter"}


def zone_chart(config: StoreConfig, zone: ZoneHours) -> HourChart:
    """Build the chart of a zone's visits by hour, with the median dwell."""
    shown = _shown(config, [[(hour.start_us, hour.n) for hour in zone.hours]])
    most = max((hour.n or 0 for hour in zone.hours), default=0) or 1
    columns = [
        Column(
            *(_label(config, zone.hours[i].start_us), *_across(place, len(shown)), zone.hours[i].state),
            round((zone.hours[i].n or 0) / most * TOP_PERCENT, 2),
            None,
            *(zone.hours[i].n, zone.hours[i].median_s),
        )
        for place, i in enumerate(shown)
    ]
    return HourChart(zone.zone, "", sum(hour.n or 0 for hour in zone.hours), None, tuple(columns))


def bars(chart: HourChart, lang: str) -> Markup:
    """Draw the chart of a zone's visits by hour as SVG; for dozens of them, a template takes ten times as long."""
    _ = catalogue(lang).gettext
    told = ", ".join(f"{bar.label}:00 {bar.value}" for bar in chart.columns if bar.value)
    parts = [f'<svg class="bars low" role="img" aria-label="{_("Visits by hour")}: {told}">']
    unknown, not_yet, median = _("unknown: no reader up"), _("not yet"), _("Median")
    for bar in chart.columns:
        title = unknown if bar.state == "unknown" else not_yet
        if bar.state == "unknown":
            parts.append(f'<g><rect x="{bar.x}%" y="0" width="{bar.width}%" height="100%" fill="url(#hatch)"/>')
        else:
            parts.append("<g>")
        if bar.state == "measured":
            title = f"n = {bar.value} · {median} {duration(bar.mark, lang)}"
            if bar.height:
                size = f'width="{bar.width}%" height="{bar.height}%"'
                parts.append(f'<rect class="b-visit" x="{bar.x}%" y="{100 - bar.height}%" {size}/>')
        if bar.mark is not None:
            text = (
                f'<text x="{bar.x + bar.width / 2}%" y="{100 - bar.height}%" dy="-4">{duration(bar.mark, lang)}</text>'
            )
            parts.append(text)
        parts.append(f"<title>{bar.label}:00 · {title}</title></g>")
    parts.append('</svg><svg class="hours" aria-hidden="true" focusable="false">')
    for place, bar in enumerate(chart.columns):
        minor = ' class="minor"' if place % 2 else ""
        parts.append(f'<text x="{bar.x + bar.width / 2}%" y="13"{minor}>{bar.label}</text>')
    return Markup("".join((*parts, "</svg>")))


def staffing(
    config: StoreConfig, report: HourReport, kinds: Sequence[str]
) -> tuple[tuple[str, ...], tuple[StaffRow, ...]]:
    """Build the staffing table: labels of the hours, and for each floor its total and its zones of the given kinds.

    A floor's cells add up the visits of its zones.
    """
    zones = [zone for zone in report.zones if zone.kind in kinds]
    if not zones:
        return (), ()
    shown = _shown(config, [[(hour.start_us, hour.n) for hour in zone.hours] for zone in zones])
    most = max((hour.visits_per_staff_hour or 0 for zone in zones for hour in zone.hours), default=0) or 1

    def cell(hour: ZoneHour) -> StaffCell:
        value = hour.visits_per_staff_hour
        shade = 0 if value is None else 1 + min(LEVELS - 1, int(value / most * LEVELS))
        wanted = (hour.visit or 0) + (hour.engaged or 0)
        return StaffCell(hour.state, value, shade, wanted, wanted if value is None else 0)

    rows = [StaffRow(zone.floor, zone.zone, tuple(cell(zone.hours[i]) for i in shown)) for zone in zones]
    floors = [floor.id for floor in config.floors if any(row.floor == floor.id for row in rows)]
    return (
        tuple(_label(config, zones[0].hours[i].start_us) for i in shown),
        tuple(row for floor in floors for row in _of_floor(floor, [row for row in rows if row.floor == floor])),
    )


def need_table(
    config: StoreConfig, report: NeedReport
) -> tuple[tuple[str, ...], tuple[tuple[FloorNeed, tuple[NeedCell, ...]], ...]]:
    """Build the table of unserved visits: labels of the hours from the first visit to the last, and each floor with its
    cells."""
    if not report.floors:
        return (), ()
    by_hour = zip(*(floor.hours for floor in report.floors), strict=True)
    used = [i for i, floors in enumerate(by_hour) if any(hour.wanted for hour in floors)]
    shown = range(min(used, default=0), max(used, default=-1) + 1)
    most = max((hour.unserved or 0 for floor in report.floors for hour in floor.hours), default=0) or 1

    def cell(hour: NeedHour) -> NeedCell:
        return NeedCell(hour, ceil(LATE_SHADES * (hour.unserved or 0) / most))

    return (
        tuple(_label(config, report.floors[0].hours[i].start_us) for i in shown),
        tuple((floor, tuple(cell(floor.hours[i]) for i in shown)) for floor in report.floors),
    )


def _of_floor(floor: str, rows: Sequence[StaffRow]) -> tuple[StaffRow, ...]:
    """Return the total of a floor's zones, before them."""

    def total(cells: Sequence[StaffCell]) -> StaffCell:
        states = {cell.state for cell in cells}
        state = "measured" if "measured" in states else cells[0].state
        wanted, unserved = sum(cell.wanted for cell in cells), sum(cell.unserved for cell in cells)
        return StaffCell(state, None, 0, wanted, unserved)

    return (
        StaffRow(floor, None, tuple(total(cells) for cells in zip(*(row.cells for row in rows), strict=True))),
        *rows,
    )


def _shown(config: StoreConfig, series: Sequence[Sequence[tuple[int, float | None]]]) -> range:
    """Return the range of the usual hours, extended to all hours with values."""
    used = [
        i
        for i, (at_us, _) in enumerate(series[0])
        if USUAL_HOURS[0] <= dt.datetime.fromtimestamp(at_us / 1e6, config.store.tz).hour < USUAL_HOURS[1]
        or any(one[i][1] for one in series)
    ]
    return range(min(used), max(used) + 1)


def _label(config: StoreConfig, at_us: int) -> str:
    return f"{dt.datetime.fromtimestamp(at_us / 1e6, config.store.tz):%H}"


def _across(place: int, many: int) -> tuple[float, float]:
    step = 100 / many
    return round(place * step + step * 0.12, 2), round(step * 0.76, 2)
