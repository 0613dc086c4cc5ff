"""Everything that may be asked about business days, in one place.

    with history(config) as past:
        scores = past.counters(date, days=7)

All answers given within one `with` are of the same moment.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Container, Iterator
from contextlib import contextmanager

from config import StoreConfig
from config.facts import TagClassName
from edge.database.reader import Past, reading
from edge.days import (
    changes,
    counters,
    flows,
    habits,
    hours,
    kept,
    occupancy,
    service,
    summary,
    suspects,
    traffic,
    ways,
)
from edge.days.changes import Comparison, Trial
from edge.days.counters import Counters
from edge.days.facts import DayFacts, make
from edge.days.flows import FlowReport
from edge.days.habits import Habit
from edge.days.hours import HourReport
from edge.days.occupancy import OccupancyReport
from edge.days.service import ServiceReport, TierReport
from edge.days.summary import Summary
from edge.days.suspects import Suspect
from edge.days.traffic import FloorTraffic
from edge.days.ways import Ways


class History(Past):
    """The past by business days. Questions with `days` are about so many days that end with `date`."""

    def summary(self, date: dt.date) -> Summary:
        """A day in numbers: what `tagtrail summary` and the page "Today" show."""
        return summary.summary(self, date)

    def traffic(self, date: dt.date) -> tuple[FloorTraffic, ...]:
        """Comings to every floor by hour."""
        return traffic.traffic(self, date)

    def counters(self, date: dt.date, days: int = 1) -> Counters:
        """Scorecard of every zone."""
        return counters.counters(self, date, days)

    def flows(self, date: dt.date, days: int = 1) -> FlowReport:
        """Transitions, paths, and where people come in and go out."""
        return flows.flows(self, date, days)

    def ways(self, date: dt.date, tag_class: TagClassName) -> Ways:
        """Ways that carriers of one tag class took, none of few carriers."""
        return ways.ways(self, date, tag_class)

    def tiers(self, date: dt.date, days: int = 1) -> TierReport:
        """Who the members were, by tier, and how they were served."""
        return service.tiers(self, date, days)

    def service(self, date: dt.date, days: int = 1) -> ServiceReport:
        """Staffed time, waiting and assistance by zone."""
        return service.service(self, date, days)

    def hours(self, date: dt.date) -> HourReport:
        """Every zone by hour."""
        return hours.hours(self, date)

    def occupancy(self, date: dt.date) -> OccupancyReport:
        """People at once by window, floor and zone."""
        return occupancy.occupancy(self, date)

    def comparison(self, date: dt.date) -> Comparison | None:
        """A day against its like; None while nothing of it is known."""
        return changes.comparison(self, date)

    def promotions(self) -> tuple[Trial, ...]:
        """What came of every promotion of the store file."""
        return changes.promotions(self)

    def layout_changes(self) -> tuple[Trial, ...]:
        """What came of every layout change."""
        return changes.layout_changes(self)

    def suspects(self, date: dt.date) -> tuple[Suspect, ...]:
        """Tags suspected to be staff's or stuck, longest first."""
        return suspects.suspected_tags(self, date)

    def habit(self, member: str, date: dt.date) -> Habit | None:
        """A member's habitual route. It is about an individual: audit it."""
        return habits.habit(self, member, date)

    def day(self, date: dt.date) -> DayFacts:
        """A day's facts, as stored or made now."""
        return kept.day(self, date)

    def make(self, date: dt.date) -> DayFacts:
        """A day's facts, made anew from its visits and windows."""
        return make(self, date)

    def missing(self, besides: Container[str] = ()) -> dt.date | None:
        """The latest day, except `besides`, that is over and not summed up as the visits know it; None without one."""
        return kept.missing(self, besides)


@contextmanager
def history(config: StoreConfig) -> Iterator[History]:
    """Open a store's past; raises as edge.database.reader.reading."""
    with reading(config) as past:
        yield History(past.conn, past.config)
