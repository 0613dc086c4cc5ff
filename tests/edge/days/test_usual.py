"""How much days usually differ, and the intervals of a single day beside another, against days written by hand."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shopdays import DATE, Day, store_values

from config import StoreConfig
from dwell.compare import ratio_change, usual
from edge.days import kept
from edge.days.changes import Reference
from edge.days.kept import DAY

MORNING, EVENING = 10, 18


def people(back: int) -> int:
    """Journeys of a morning: three in four on weekdays, and no two weeks alike."""
    return (40 if (DATE - back * DAY).weekday() < 5 else 54) + back * 7 % 11


def shop(folder: Path, days: int, evening: Callable[[int], int] = lambda _: 0, **store: Any) -> Day:
    """DATE and `days` days before it, of which the facts are stored."""
    values = store_values(folder)
    values["store"] |= store
    day = Day(StoreConfig.model_validate(values))
    with day.together():
        for back in range(days + 1):
            for hour, n in ((MORNING, people(back)), (EVENING, evening(back))):
                for i in range(n):
                    at = f"{hour - 24 * back}:{i * 59 // max(n, 1)}"
                    day.visit(f"{back} {hour} {i}", "shoes", at, 60, journey=at)
    for back in range(days + 1):
        day.covered(f"{4 - 24 * back}:00", f"{28 - 24 * back}:00")
    day.watermark("33:00")
    for back in range(1, days + 1):
        kept.save(day.conn, day.config, replace(day.past.make(DATE - back * DAY), complete=True))
    return day


def last_week(day: Day) -> Reference:
    found = day.past.comparison(DATE)
    assert found is not None
    store = next(row for row in found.rows if row.measure == "journeys")
    assert store.last_week is not None
    return store.last_week


def test_a_day_is_judged_by_how_days_of_the_same_weekday_differ(tmp_path: Path) -> None:
    day = shop(tmp_path, 16)
    pairs = [(people(back), people(back + 7)) for back in range(1, 10)]
    usually = usual(*zip(*pairs, strict=True), alike=True)
    expected = ratio_change([people(0)], [people(7)], usually=usually)
    assert expected is not None
    told = last_week(day)
    assert (told.change, told.low, told.high) == pytest.approx((expected.value, expected.low, expected.high))
    found = day.past.comparison(DATE)
    assert found is not None
    assert found.usually == usually
    chosen = day.past.against(DATE, 1, DATE - 7 * DAY)
    for row in (chosen.row("store", "s1", "journeys"), chosen.row("zone", "shoes", "visits")):
        assert row is not None
        assert (row.change, row.usually, row.pairs) == (expected, usually, 1)
    assert row.joint is not None
    assert expected.low is not None
    assert row.joint.low is not None
    assert row.joint.low < expected.low, "of all zones together"
    week = day.past.against(DATE, 7, DATE - 7 * DAY).row("store", "s1", "journeys")
    assert week is not None
    assert (week.pairs, week.usually) == (7, None), "a week shows itself how much its days scatter"
    day.conn.close()


@pytest.mark.parametrize(("days", "alike"), [(8, False), (9, False), (10, True), (3, None)])
def test_a_young_store_is_judged_by_neighbouring_days_or_not_at_all(
    tmp_path: Path, days: int, alike: bool | None
) -> None:
    day = shop(tmp_path, days)
    found = day.past.comparison(DATE)
    assert found is not None
    if alike is None:
        assert found.usually is None
        return
    assert found.usually is not None
    assert (found.usually.alike, found.usually.pairs) == (alike, 3 if alike else days - 1)
    assert last_week(day).low is not None
    day.conn.close()


def test_only_the_hours_so_far_count(tmp_path: Path) -> None:
    day = shop(tmp_path, 16, evening=lambda back: back * 37 % 90)
    wild, evening = day.past.comparison(DATE), last_week(day)
    assert evening.low is not None
    assert evening.high is not None
    day.conn.execute("DELETE FROM aggregate WHERE window_us >= ?", (day.us("13:00"),))
    day.conn.execute("DELETE FROM visit WHERE enter_us >= ?", (day.us("13:00"),))
    day.watermark("13:07")
    calm, morning = day.past.comparison(DATE), last_week(day)
    assert wild is not None
    assert wild.usually is not None
    assert calm is not None
    assert calm.usually is not None
    assert wild.usually.excess > 0.05 > calm.usually.excess
    pairs = [(people(back), people(back + 7)) for back in range(1, 10)]
    assert calm.usually == usual(*zip(*pairs, strict=True), alike=True)
    assert (morning.now, morning.before) == (people(0), people(7))
    day.conn.close()


def test_holidays_are_left_out(tmp_path: Path) -> None:
    day = shop(tmp_path, 28, holidays="CN")
    found = day.past.comparison(DATE)
    assert found is not None
    assert found.usually is not None
    # Of 14 February to 13 March, 15 to 23 were holidays, and both Saturdays around them worked in exchange.
    ordinary = [date for n in range(1, 29) if (date := DATE - n * DAY) > dt.date(2026, 2, 23)]
    ordinary.remove(dt.date(2026, 2, 28))
    weekdays = {date.weekday() for date in ordinary}
    assert found.usually.pairs == len(ordinary) - len(weekdays)
    day.conn.close()
