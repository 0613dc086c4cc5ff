"""Short-lived cache of analytics results for the page. NumPy is imported with the first query."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from config import StoreConfig
from edge.database.reader import NoDatabase, Past, reading
from edge.web.memory import give_back

if TYPE_CHECKING:
    from edge.days.against import AgainstReport
    from edge.days.changes import Comparison, Trial
    from edge.days.counters import Counters
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

T = TypeVar("T")
TRIALS = ("promotions", "layout_changes")
FRESH_S = 30.0
"""How long a result is cached."""
TRIALS_FRESH_S = 600.0
"""How long those about promotions and layout changes are, which only count days that are over."""
KEPT = 6


class Answers:
    """Thread-safe cache of query results; one query at a time. Results are None while there is no database."""

    def __init__(self, config: StoreConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[Any, ...], tuple[float, Any]] = OrderedDict()

    def summary(self, date: dt.date, days: int = 1) -> Summary | None:
        """Return the summary of days; cached for longer once they are over."""
        return cast("Summary | None", self._get("summary", date, days))

    def head(self, date: dt.date, days: int = 1) -> Head | None:
        return cast("Head | None", self._get("head", date, days))

    def counters(self, date: dt.date, days: int = 1) -> Counters | None:
        return cast("Counters | None", self._get("counters", date, days))

    def flows(self, date: dt.date, days: int = 1) -> FlowReport | None:
        return cast("FlowReport | None", self._get("flows", date, days))

    def lens(self, date: dt.date, days: int, measure: str, hour: int | None, other: dt.date | None) -> Lens | None:
        return cast("Lens | None", self._get("lens", date, days, measure, hour, other))

    def trends(self, date: dt.date) -> Mapping[str, tuple[TrendDay, ...]]:
        return self._get("trends", date) or {}

    def week(self, date: dt.date) -> Week | None:
        return cast("Week | None", self._get("week", date))

    def tree(self, date: dt.date, days: int, zone: str) -> Tree | None:
        return cast("Tree | None", self._get("tree", date, days, zone))

    def tiers(self, date: dt.date, days: int = 1) -> TierReport | None:
        return cast("TierReport | None", self._get("tiers", date, days))

    def service(self, date: dt.date, days: int = 1) -> ServiceReport | None:
        return cast("ServiceReport | None", self._get("service", date, days))

    def trials(self, kind: str, date: dt.date) -> tuple[Trial, ...]:
        """Return the trials of one kind (TRIALS); `date` is today and used as cache key only."""
        return self._get(kind, date) or ()

    def comparison(self, date: dt.date) -> Comparison | None:
        return cast("Comparison | None", self._get("comparison", date))

    def occupancy(self, date: dt.date) -> OccupancyReport | None:
        return cast("OccupancyReport | None", self._get("occupancy", date))

    def traffic(self, date: dt.date, days: int = 1) -> tuple[FloorTraffic, ...]:
        return self._get("traffic", date, days) or ()

    def occupancy_by_hour(self, date: dt.date, days: int = 1) -> OccupancyReport | None:
        return cast("OccupancyReport | None", self._get("occupancy_by_hour", date, days))

    def against(self, date: dt.date, days: int, other: dt.date) -> AgainstReport | None:
        return cast("AgainstReport | None", self._get("against", date, days, other))

    def performance(self, date: dt.date, days: int, other: dt.date | None) -> Performance | None:
        return cast("Performance | None", self._get("performance", date, days, other))

    def hours(self, date: dt.date, days: int = 1) -> HourReport | None:
        return cast("HourReport | None", self._get("hours", date, days))

    def sales(self, date: dt.date, days: int = 1) -> SalesReport | None:
        return cast("SalesReport | None", self._get("sales", date, days))

    def need(self, date: dt.date, days: int = 1) -> NeedReport | None:
        return cast("NeedReport | None", self._get("need", date, days))

    def suspects(self, date: dt.date) -> tuple[Suspect, ...]:
        return self._get("suspects", date) or ()

    def habit(self, member: str, date: dt.date) -> Habit | None:
        """Return a member's habitual route, not cached. Personal data: callers must audit every use."""
        from edge.days.history import history

        with history(self._config) as past:
            return past.habit(member, date)

    def read(self, question: Callable[[Past], T], none: T) -> T:
        """Run an uncached query about cues, cases or rules; return `none` while there is no database."""
        try:
            with reading(self._config) as past:
                return question(past)
        except NoDatabase:
            return none

    def forget(self) -> None:
        """Clear the cache after a change that affects results."""
        with self._lock:
            self._kept.clear()

    def _get(self, name: str, date: dt.date, *more: object) -> Any:
        """Return the cached result of a History method. Promotions and layout changes do not depend on the day."""
        key = (name, date, *more)
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and (name, getattr(kept[1], "complete", False)) == ("summary", True):
                return kept[1]
            if kept is not None and time.monotonic() - kept[0] < (TRIALS_FRESH_S if name in TRIALS else FRESH_S):
                return kept[1]
            from edge.days.history import history

            try:
                with history(self._config) as past:
                    answer = getattr(past, name)(*(() if name in TRIALS else (date, *more)))
            except NoDatabase:
                return None
            give_back()
            self._kept[key] = (time.monotonic(), answer)
            self._kept.move_to_end(key)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            return answer
