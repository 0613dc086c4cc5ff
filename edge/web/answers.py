"""Answers of the analytics for the page, kept for a moment. NumPy comes in with the first question, not before."""

from __future__ import annotations

import datetime as dt
import sqlite3
import threading
import time
from collections import OrderedDict
from contextlib import closing
from typing import TYPE_CHECKING, Any, cast

from config import StoreConfig
from edge.database.reader import NoDatabase, connect
from edge.store.errors import Trouble
from edge.web.memory import give_back

if TYPE_CHECKING:
    from edge.days.changes import Comparison, Trial
    from edge.days.counters import Counters
    from edge.days.flows import FlowReport
    from edge.days.habits import Habit
    from edge.days.hours import HourReport
    from edge.days.occupancy import OccupancyReport
    from edge.days.service import ServiceReport, TierReport
    from edge.days.summary import Summary
    from edge.days.suspects import Suspect

FRESH_S = 5.0
"""How long an answer is given again."""
KEPT = 6


class Answers:
    """Asked from several threads; one question at a time. None while there is no database."""

    def __init__(self, config: StoreConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, dt.date, int], tuple[float, Any]] = OrderedDict()

    def summary(self, date: dt.date) -> Summary | None:
        """Kept for longer than a moment once the day is over."""
        return cast("Summary | None", self._get("summary", date, 1))

    def counters(self, date: dt.date, days: int = 1) -> Counters | None:
        return cast("Counters | None", self._get("counters", date, days))

    def flows(self, date: dt.date, days: int = 1) -> FlowReport | None:
        return cast("FlowReport | None", self._get("flows", date, days))

    def tiers(self, date: dt.date, days: int = 1) -> TierReport | None:
        return cast("TierReport | None", self._get("tiers", date, days))

    def service(self, date: dt.date, days: int = 1) -> ServiceReport | None:
        return cast("ServiceReport | None", self._get("service", date, days))

    def trials(self, kind: str, date: dt.date) -> tuple[Trial, ...]:
        """Of kind `promotions` or `layout_changes`; `date` is today, only to keep the answer for."""
        return self._get(kind, date, 1) or ()

    def comparison(self, date: dt.date) -> Comparison | None:
        return cast("Comparison | None", self._get("comparison", date, 1))

    def occupancy(self, date: dt.date) -> OccupancyReport | None:
        return cast("OccupancyReport | None", self._get("occupancy", date, 1))

    def hours(self, date: dt.date) -> HourReport | None:
        return cast("HourReport | None", self._get("hours", date, 1))

    def suspects(self, date: dt.date) -> tuple[Suspect, ...]:
        return self._get("suspects", date, 1) or ()

    def habit(self, member: str, date: dt.date) -> Habit | None:
        """About an individual: whoever asks has it audited. Not kept."""
        from edge.days.habits import habit

        with self._reading() as conn:
            return habit(conn, self._config, member, date)

    def forget(self) -> None:
        """Forget every answer: something was said that changes them."""
        with self._lock:
            self._kept.clear()

    def _get(self, name: str, date: dt.date, days: int) -> Any:
        key = (name, date, days)
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and (name, getattr(kept[1], "complete", False)) == ("summary", True):
                return kept[1]
            if kept is not None and time.monotonic() - kept[0] < FRESH_S:
                return kept[1]
            try:
                with self._reading() as conn:
                    answer = self._ask(conn, name, date, days)
            except NoDatabase:
                return None
            give_back()
            self._kept[key] = (time.monotonic(), answer)
            self._kept.move_to_end(key)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            return answer

    def _ask(self, conn: sqlite3.Connection, name: str, date: dt.date, days: int) -> Any:
        from edge.days import changes, counters, flows, hours, occupancy, service, summary, suspects

        config = self._config
        try:
            match name:
                case "summary":
                    return summary.today(conn, config, date)
                case "counters":
                    return counters.counters(conn, config, date, days)
                case "flows":
                    return flows.flows(conn, config, date, days)
                case "tiers":
                    return service.tiers(conn, config, date, days)
                case "service":
                    return service.service(conn, config, date, days)
                case "promotions":
                    return changes.promotions(conn, config)
                case "layout_changes":
                    return changes.layout_changes(conn, config)
                case "occupancy":
                    return occupancy.occupancy(conn, config, date)
                case "hours":
                    return hours.hours(conn, config, date)
                case "comparison":
                    return changes.comparison(conn, config, date)
                case _:
                    return suspects.suspected_tags(conn, config, date)
        except sqlite3.Error as error:
            raise Trouble(f"cannot read the database: {error}") from error

    def _reading(self) -> closing[sqlite3.Connection]:
        return closing(connect(self._config.database.path))
