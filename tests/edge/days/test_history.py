"""The past as one object: what it raises, and that all its answers are of one moment."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from shopdays import DATE, Day, busy, store_values

from config import StoreConfig
from edge.database.reader import NoDatabase, reading
from edge.days.history import history
from edge.store.errors import Trouble


def test_without_a_database_it_says_so(tmp_path: Path) -> None:
    config = StoreConfig.model_validate(store_values(tmp_path))
    with pytest.raises(NoDatabase, match="when the service first runs"), history(config):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_fails_within_is_told_as_trouble(day: Day) -> None:
    with pytest.raises(Trouble, match="cannot read the database: no such table"), reading(day.config) as past:
        past.conn.execute("SELECT * FROM nowhere")
    with pytest.raises(Trouble, match="readonly"), reading(day.config) as past:
        past.conn.execute("DELETE FROM visit")
    with pytest.raises(ZeroDivisionError), history(day.config):
        1 / 0  # noqa: B018


def test_all_answers_are_of_one_moment(day: Day) -> None:
    busy(day)
    day.covered("04:00", "14:00")
    day.watermark("14:01")
    with history(day.config) as past:
        before = past.counters(DATE)
        day.visit("late", "shoes", "12:00", 60)
        assert past.flows(DATE).scope == before.scope
        assert past.counters(DATE) == before
        assert past.summary(DATE).zones == before.zones
    with history(day.config) as past:
        assert past.counters(DATE).zones[1].n == (before.zones[1].n or 0) + 1


def test_it_answers_what_the_page_asks(day: Day) -> None:
    busy(day)
    day.covered("04:00", "28:00")
    day.watermark("33:00")
    with history(day.config) as past:
        summary, week = past.summary(DATE), past.counters(DATE, days=7)
        assert summary.floors == past.traffic(DATE)
        assert summary.zones == past.counters(DATE).zones
        assert summary.coverage == past.service(DATE).scope.coverage
        assert summary.members_seen == past.tiers(DATE).members == 0
        assert week.scope.first_day == (DATE - dt.timedelta(days=6)).isoformat()
        assert len(past.hours(DATE).zones) == len(past.occupancy(DATE).zones) == len(day.config.zones)
        assert past.comparison(DATE) is not None
        assert (past.promotions(), past.layout_changes(), past.suspects(DATE)) == ((), (), ())
        assert past.missing() == DATE
        assert past.day(DATE).totals.days == past.make(DATE).totals.days == 1
        assert past.habit("M-1", DATE) is None
