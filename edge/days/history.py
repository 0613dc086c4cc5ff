"""Queries about business days, in one place.

    with history(config) as past:
        scores = past.counters(date, days=7)

All results within one `with` block are from the same moment.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager

from config import StoreConfig
from config.facts import TagClassName
from edge.database.reader import Past, reading
from edge.days import (
    against,
    changes,
    counters,
    flows,
    habits,
    hours,
    kept,
    lens,
    need,
    occupancy,
    performance,
    sales,
    service,
    summary,
    suspects,
    traffic,
    tree,
    trends,
    ways,
)
from edge.days.against import AgainstReport
from edge.days.changes import Comparison, Trial
from edge.days.counters import Counters
from edge.days.facts import DayFacts, make
from edge.days.flows import FlowReport
from edge.days.habits import Habit
from edge.days.hours import HourReport
from edge.days.lens import Lens
from edge.days.need import NeedReport
from edge.days.occupancy import OccupancyReport
from edge.days.performance import Performance
from edge.days.sales import SalesReport
from edge.days.service import ServiceReport, TierReport
from edge.days.summary import Head, Summary
from edge.days.suspects import Suspect
from edge.days.traffic import FloorTraffic
from edge.days.tree import Tree
from edge.days.trends import TrendDay, Week
from edge.days.ways import Ways


class History(Past):
    """Past business days. Queries with `days` cover that number of days, ending with `date`."""

    def summary(self, date: dt.date, days: int = 1) -> Summary:
        """Summarise days, for `tagtrail summary` and the page "Today"."""
        return summary.summary(self, date, days)

    def head(self, date: dt.date, days: int = 1) -> Head:
        """Return how much is known of days."""
        return summary.head(self, date, days)

    def traffic(self, date: dt.date, days: int = 1) -> tuple[FloorTraffic, ...]:
        """Return the arrivals on every floor by hour of the day."""
        return traffic.traffic(self, date, days)

    def counters(self, date: dt.date, days: int = 1) -> Counters:
        """Return the scorecard of every zone."""
        return counters.counters(self, date, days)

    def flows(self, date: dt.date, days: int = 1) -> FlowReport:
        """Return transitions, paths, entries and exits."""
        return flows.flows(self, date, days)

    def lens(
        self, date: dt.date, days: int, measure: str, hour: int | None = None, other: dt.date | None = None
    ) -> Lens:
        """Return one figure of every zone."""
        return lens.lens(self, date, days, measure, hour, other)

    def trend(self, date: dt.date, zone: str) -> tuple[TrendDay, ...]:
        """Return a zone's visits day by day."""
        return trends.trend(self, date, zone)

    def trends(self, date: dt.date) -> Mapping[str, tuple[TrendDay, ...]]:
        """Return every zone's visits day by day."""
        return trends.trends(self, date)

    def week(self, date: dt.date) -> Week:
        """Return every zone's visits by weekday and hour."""
        return trends.week(self, date)

    def tree(self, date: dt.date, days: int, zone: str) -> Tree:
        """Return the ways from and to a zone."""
        return tree.tree(self, date, days, zone)

    def ways(self, date: dt.date, tag_class: TagClassName) -> Ways:
        """Return the paths of one tag class, without rare ones."""
        return ways.ways(self, date, tag_class)

    def tiers(self, date: dt.date, days: int = 1) -> TierReport:
        """Return members by tier, and how they were served."""
        return service.tiers(self, date, days)

    def service(self, date: dt.date, days: int = 1) -> ServiceReport:
        """Return staffed time, waiting and assistance by zone."""
        return service.service(self, date, days)

    def need(self, date: dt.date, days: int = 1) -> NeedReport:
        """Return unserved visits and waits by floor and hour, and proposals for more staff."""
        return need.need(self, date, days)

    def sales(self, date: dt.date, days: int = 1) -> SalesReport:
        """Return tickets and tickets per visit of every zone by hour of the day."""
        return sales.sales(self, date, days)

    def hours(self, date: dt.date, days: int = 1) -> HourReport:
        """Return the figures of every zone by hour of the day."""
        return hours.hours(self, date, days)

    def occupancy(self, date: dt.date) -> OccupancyReport:
        """Return the occupancy by window, floor and zone."""
        return occupancy.occupancy(self, date)

    def occupancy_by_hour(self, date: dt.date, days: int = 1) -> OccupancyReport:
        """Return the occupancy by hour of the day, floor and zone."""
        return occupancy.by_hour(self, date, days)

    def against(self, date: dt.date, days: int, other: dt.date) -> AgainstReport:
        """Compare days with as many days ending with `other`."""
        return against.against(self, date, days, other)

    def performance(self, date: dt.date, days: int, other: dt.date | None = None) -> Performance:
        """Compare the counters' visits, dwell and tickets with those of as many days ending with `other`, or before."""
        return performance.performance(self, date, days, other)

    def comparison(self, date: dt.date) -> Comparison | None:
        """Compare a day with similar days; None while the day has no data."""
        return changes.comparison(self, date)

    def promotions(self) -> tuple[Trial, ...]:
        """Return the effects of every promotion in the store file."""
        return changes.promotions(self)

    def layout_changes(self) -> tuple[Trial, ...]:
        """Return the effects of every layout change."""
        return changes.layout_changes(self)

    def suspects(self, date: dt.date) -> tuple[Suspect, ...]:
        """Return the tags suspected to be staff or stuck, longest first."""
        return suspects.suspected_tags(self, date)

    def habit(self, member: str, date: dt.date) -> Habit | None:
        """Return a member's habitual route. Personal data: audit every use."""
        return habits.habit(self, member, date)

    def day(self, date: dt.date) -> DayFacts:
        """Return a day's facts, as stored or computed now."""
        return kept.day(self, date)

    def make(self, date: dt.date) -> DayFacts:
        """Recompute a day's facts from its visits and windows."""
        return make(self, date)

    def missing(self, besides: Container[str] = ()) -> dt.date | None:
        """Return the latest completed day, except `besides`, without up-to-date stored facts; None if there is none."""
        return kept.missing(self, besides)


@contextmanager
def history(config: StoreConfig) -> Iterator[History]:
    """Open a store's history; raises the same errors as edge.database.reader.reading."""
    with reading(config) as past:
        yield History(past.conn, past.config)
