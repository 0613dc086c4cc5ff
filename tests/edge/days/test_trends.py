"""The last four weeks of zones: day by day, and by weekday and hour."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest
from shopdays import DATE, Day, busy

from edge.days import kept
from edge.days.trends import LEAST_DAYS, TREND_DAYS

ONE = dt.timedelta(days=1)


def weeks(day: Day, days: int) -> None:
    """Store days before DATE with 30 visits of shoes at 10 o'clock, 60 on Saturdays."""
    if not day.conn.execute("SELECT 1 FROM visit").fetchone():
        busy(day, 0, people=30)
    day.covered("04:00", "28:00", bags=0)
    day.watermark("33:00")
    made = day.past.make(DATE)
    twice = made.by_hour
    assert twice is not None
    many = replace(twice, hours=twice.hours + twice.hours)
    for name in ("span_us", "known_windows"):
        many.hours.zones[name] //= 2
    for back in range(1, days + 1):
        date = DATE - back * ONE
        by_hour = many if date.weekday() == 5 else twice
        kept.save(day.conn, day.config, replace(made, date=date, by_hour=by_hour))


def test_the_line_of_a_zone_has_gaps_where_it_is_unknown(day: Day) -> None:
    weeks(day, 3)
    found = day.past.trends(DATE)
    assert len(found["shoes"]) == TREND_DAYS
    assert [one.visits for one in found["shoes"]][-5:] == [None, 30, 30, 30, 30]
    assert {one.visits for one in found["bags"]} == {None}
    assert day.past.trend(DATE, "shoes") == found["shoes"]
    busy(day, 0, people=31, hour=15)
    assert day.past.trends(DATE)["shoes"][-1].visits == 61, "the day in progress is never an old one"


def test_a_week_needs_two(day: Day) -> None:
    weeks(day, LEAST_DAYS - 1)
    assert day.past.week(DATE).zones == {}
    assert day.past.week(DATE).days == LEAST_DAYS - 1
    weeks(day, LEAST_DAYS)
    found = day.past.week(DATE)
    assert found.days == LEAST_DAYS
    ten = [hours[10 - 4] for hours in found.zones["shoes"]]
    assert ten == pytest.approx([30, 30, 30, 30, 30, 60, 30])
    assert {hour for hours in found.zones["bags"] for hour in hours} == {None}
