"""Opening hours, kinds of days, and days before and after a change, against days written by hand."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shopdays import DATE, Day, busy, day_of, store_values, zone

from config import StoreConfig
from edge.days import kept
from edge.store.calendar import HOLIDAY, WORKING_WEEKEND, hours, kind_of_day, knows_year, same_holiday_before

ONE = dt.timedelta(days=1)
HOURS = [{"open": "10:00", "close": "22:00"}]


def test_closed_hours_do_not_lower_coverage(tmp_path: Path) -> None:
    special = [{"date": DATE + ONE}, {"date": DATE - ONE, "open": "12:00", "close": "13:00", "floors": ["F1"]}]
    day = day_of(tmp_path, opening_hours=HOURS, special_days=special)
    day.covered("09:45", "22:30")
    day.watermark("26:00")
    assert zone(day, "shoes").coverage == 1
    config = day.config
    assert hours(config, "F1", DATE + ONE).open_us == hours(config, "F1", DATE + ONE).close_us
    assert hours(config, "F1", DATE - ONE).close_us - hours(config, "F1", DATE - ONE).open_us == 3_600_000_000
    assert hours(config, "F2", DATE - ONE).close_us - hours(config, "F2", DATE - ONE).open_us == 12 * 3_600_000_000
    day.conn.close()


def test_opening_hours_past_midnight_and_closed_weekdays(tmp_path: Path) -> None:
    night = [
        {"open": "18:00", "close": "03:00", "days": ["sat"]},
        {"open": "02:00", "close": "03:00", "floors": ["F2"]},
    ]
    day = day_of(tmp_path, opening_hours=night)
    assert DATE.weekday() == 5
    late = hours(day.config, "F1", DATE)
    assert (late.open_us, late.close_us) == (day.us("18:00"), day.us("27:00"))
    upstairs = hours(day.config, "F2", DATE)
    assert (upstairs.open_us, upstairs.close_us) == (day.us("26:00"), day.us("27:00"))
    sunday = hours(day.config, "F1", DATE + ONE)
    assert sunday.open_us == sunday.close_us
    day.conn.close()


def test_days_of_one_kind(tmp_path: Path) -> None:
    values = store_values(tmp_path)
    config = StoreConfig.model_validate(values)
    spring, working = dt.date(2026, 2, 17), dt.date(2026, 2, 14)
    assert (kind_of_day(config, spring), kind_of_day(config, working)) == (1, 5)
    values["store"]["holidays"] = "CN"
    config = StoreConfig.model_validate(values)
    assert (kind_of_day(config, spring), kind_of_day(config, working)) == (HOLIDAY, WORKING_WEEKEND)
    assert kind_of_day(config, DATE) == 5
    assert same_holiday_before(config, spring) == dt.date(2025, 1, 30)  # third day off of both
    assert same_holiday_before(config, dt.date(2026, 9, 25)) == dt.date(2025, 10, 6)
    assert same_holiday_before(config, DATE) is None
    assert not knows_year(config, 2150)
    assert kind_of_day(config, dt.date(2150, 1, 1)) == dt.date(2150, 1, 1).weekday()


def test_a_day_is_compared_up_to_its_time_of_day(day: Day) -> None:
    for weeks, people in ((0, 30), (1, 20), (2, 10), (3, 40)):
        busy(day, -7 * weeks, people=people)
        busy(day, -7 * weeks, people=people, hour=15)
        day.covered(f"{4 - 168 * weeks}:00", f"{28 - 168 * weeks}:00")
    day.conn.execute("DELETE FROM aggregate WHERE window_us >= ?", (day.us("13:00"),))
    day.conn.execute("DELETE FROM visit WHERE enter_us >= ?", (day.us("13:00"),))
    day.conn.execute("DELETE FROM aggregate WHERE zone = 'bags' AND window_us < ?", (day.us("-140:00"),))
    day.watermark("13:07")
    found = day.past.comparison(DATE)
    assert found is not None
    assert (found.partial, found.until_us) == (True, day.us("13:00"))
    journeys = next(row for row in found.rows if row.measure == "journeys")
    assert journeys.last_week is not None
    assert (journeys.now, journeys.last_week.before, journeys.last_week.change) == (30, 20, 0.5)
    assert journeys.median_4w == 20
    assert journeys.median_change == pytest.approx(0.5)
    assert journeys.holiday is None
    rows = {(row.id, row.measure): row for row in found.rows}
    assert rows["bags", "visits"].last_week is None  # unknown then
    assert rows["attic", "visits"].now is None
    assert rows["F2", "comings"].now == 30


def test_after_a_long_holiday_the_weeks_before_it_are_looked_at(tmp_path: Path) -> None:
    values = store_values(tmp_path)
    values["store"]["holidays"] = "CN"
    day = Day(StoreConfig.model_validate(values))
    for weeks in range(13):  # of the last Saturdays, one was a holiday, and two were worked in exchange
        busy(day, -7 * weeks, people=10 + weeks)
        day.covered(f"{4 - 168 * weeks}:00", f"{28 - 168 * weeks}:00")
    day.watermark("28:00")
    found = day.past.comparison(DATE)
    assert found is not None
    journeys = next(row for row in found.rows if row.measure == "journeys")
    assert (journeys.median_days, journeys.median_from) == (4, "2026-01-24")
    assert journeys.median_4w == np.median([11, 15, 16, 17])
    day.conn.execute("DELETE FROM aggregate WHERE window_us < ?", (day.us("-24:00") - 4 * 7 * 86_400_000_000,))
    rows = day.past.comparison(DATE).rows
    journeys = next(row for row in rows if row.measure == "journeys")
    assert (journeys.median_4w, journeys.median_days, journeys.median_from) == (None, 1, "2026-03-07")
    day.conn.close()


def trial_day(folder: Path, **sections: Any) -> Day:
    """Eight weeks until DATE; shoes twice as engaged from DATE − 10 to DATE − 4, the others as ever."""
    day = day_of(folder, **sections)
    rng = np.random.default_rng(4)
    for offset in range(-50, 1):
        more = 2 if -10 <= offset <= -4 else 1
        for i in range(24):
            at = f"{24 * offset + 10 + i / 4}:00"
            for name, share in (("shoes", 0.4 * more), ("bags", 0.5), ("books", 0.5)):
                if rng.random() < share:
                    day.visit(f"{offset}-{i}", name, at, 130, journey=at)
    day.covered(f"{24 * -50 + 4}:00", "28:00")
    day.watermark("33:00")
    for offset in range(-50, 1):
        kept.save(day.conn, day.config, day.past.make(DATE + offset * ONE))
    return day


def test_every_day_of_a_trial_is_told_as_its_visits_say(tmp_path: Path) -> None:
    promotion: dict[str, Any] = {"id": "p", "name": "P", "zones": ["shoes"], "controls": ["bags", "books"]}
    promotion |= {"first_day": DATE - 10 * ONE, "last_day": DATE - 4 * ONE}
    running = {**promotion, "id": "r", "last_day": DATE + 5 * ONE}
    closed = [{"date": DATE - 7 * ONE}]
    day = trial_day(tmp_path, promotions=[promotion, running], special_days=closed)
    dark = DATE - 12 * ONE
    day.conn.execute("DELETE FROM day_summary WHERE date IN (?, ?)", (str(dark), str(DATE - 7 * ONE)))
    for at in range(4, 28):
        day.covered(f"{at - 24 * 12}:00", f"{at + 1 - 24 * 12}:00", books=0.1)
    for offset in range(-50, 0):
        for name in ("shoes", "bags", "books"):
            for hour in range(24):
                day.sold(name, f"{24 * offset + 4 + hour}:00", (offset + hour) % 3)
    day.conn.execute("DELETE FROM sales WHERE zone = 'bags' AND hour_us < ?", (day.us("-476:00"),))
    found, other = day.past.promotions()
    assert [one.measure for one in found.effects] == ["visitors", "engaged_visitors", "tickets"]
    dates = [DATE - n * ONE for n in reversed(range(39))]
    assert [one.date for one in found.days] == dates
    assert [one.phase for one in found.days] == ["before"] * 28 + ["during"] * 7 + ["after"] * 4
    for one in found.days:
        if one.date == dark:
            assert (one.state, one.counts) == ("unknown", {}), "a control zone was dark"
            continue
        if one.date == DATE - 7 * ONE:
            assert (one.state, one.counts) == ("closed", {})
            continue
        bounds = day.past.bounds_us(one.date)
        for measure, longer in (("visitors", 0), ("engaged_visitors", 120)):
            query = (
                "SELECT count(DISTINCT journey_us || tag) FROM visit WHERE zone = ? AND journey_us >= ?"
                f" AND journey_us < ? AND exit_us - enter_us >= {longer} * 1000000"
            )
            n = {name: day.conn.execute(query, (name, *bounds)).fetchone()[0] for name in ("shoes", "bags", "books")}
            assert one.counts[measure] == (n["shoes"], n["bags"] + n["books"])
        query = "SELECT zone, sum(tickets) FROM sales WHERE hour_us >= ? AND hour_us < ? GROUP BY zone"
        n = dict(day.conn.execute(query, bounds).fetchall())
        known = "bags" in n and one.date < DATE
        assert (one.counts.get("tickets")) == ((n["shoes"], n["bags"] + n["books"]) if known else None)
    assert [one.state for one in other.days][-6:] == ["measured"] + ["future"] * 5
    assert other.days[-1].date == DATE + 5 * ONE
    day.conn.close()


def test_promotions_and_layout_changes(tmp_path: Path) -> None:
    first, last = DATE - 10 * ONE, DATE - 4 * ONE
    promotion = {"id": "p", "name": "P", "first_day": first, "last_day": last}
    day = trial_day(
        tmp_path,
        promotions=[
            {**promotion, "zones": ["shoes"]},
            {**promotion, "id": "q", "zones": ["bags"], "controls": ["books"]},
            {**promotion, "id": "r", "zones": ["bags"], "first_day": DATE + 9 * ONE, "last_day": DATE + 9 * ONE},
        ],
        layout_changes=[{"id": "m", "name": "M", "date": DATE - ONE, "zones": ["books"]}],
    )
    p, q, r = day.past.promotions()
    assert (p.state, p.controls, r.state) == ("over", ("books",), "planned")  # bags are in another promotion
    engaged = p.effects[1]
    assert engaged.measure == "engaged_visitors"
    assert engaged.during.change is not None
    assert 0.4 < engaged.during.change.low < 1 < engaged.during.change.high
    assert (engaged.during.days_used, engaged.during.change.days_before) == (7, 28)
    assert engaged.after is not None
    assert engaged.after.change is not None
    assert engaged.after.change.low < 0 < engaged.after.change.high
    nothing = q.effects[1].during.change
    assert nothing is not None
    assert nothing.low < 0 < nothing.high
    assert r.effects[0].during.change is None
    (moved,) = day.past.layout_changes()
    assert moved.effects[0].during.change is None  # two days are not enough
    assert moved.effects[0].during.days_used == 2
    day.conn.execute("DELETE FROM day_summary WHERE date >= ?", (first.isoformat(),))
    day.conn.execute("UPDATE aggregate SET coverage = 0.1 WHERE zone = 'shoes'")
    dark = day.past.promotions()[0].effects[0].during
    assert (dark.change, dark.days_used, dark.days_left_out) == (None, 0, 7)
    day.conn.close()
