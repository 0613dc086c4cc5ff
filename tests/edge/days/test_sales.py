"""Sales beside visits, against days written by hand and against brute force on the same rows."""

from __future__ import annotations

import datetime as dt
import math
import random
from pathlib import Path
from statistics import NormalDist, median_low

import pytest
from shopdays import DATE, Day, day_of, zone
from thorough import examples

from edge.database.retention import prune
from edge.database.writer import Database
from edge.days import kept, sold
from edge.days.sales import ZoneSales, currency
from edge.service import housekeeping

ONE = dt.timedelta(days=1)
HOURS = [{"open": "10:00", "close": "20:00"}]
DAY_H = 24


def trade(day: Day, back: int, seed: int, zones: tuple[str, ...] = ("shoes", "bags", "books"), more: float = 1) -> None:
    """A day before DATE: visits and sales in each hour from 10 to 20, `more` times the tickets."""
    dice = random.Random(f"{seed} {back}")
    for hour in range(10, 20):
        at = hour - DAY_H * back
        for name in zones:
            for i in range(dice.randrange(4, 12)):
                seconds = dice.choice((10, 40, 90, 150, 300))
                day.visit(f"{back}{hour}{name}{i}", name, f"{at}:{dice.randrange(60)}", seconds)
            day.sold(name, f"{at}:00", round(more * dice.randrange(6)), units=dice.randrange(9))


def days_of(day: Day, last: int, **dark: float) -> None:
    for back in range(last + 1):
        day.covered(f"{4 - DAY_H * back}:00", f"{28 - DAY_H * back}:00", **dark)
    day.watermark("33:00")


def recomputed(day: Day, days: int, name: str, base: str = "all") -> tuple[int, int, list[tuple[int, int]]]:
    """Tickets of all hours; and tickets and visits of each day whose hours are known of both, from the rows."""
    tickets, pairs = 0, []
    for back in range(days):
        both = []
        for hour in range(4, 28):
            start_us = day.us(f"{hour - DAY_H * back}:00")
            end_us = start_us + 3_600_000_000
            found = day.conn.execute(
                "SELECT tickets FROM sales WHERE hour_us = ? AND zone = ?", (start_us, name)
            ).fetchone()
            tickets += found[0] if found else 0
            (dark,) = day.conn.execute(
                "SELECT count(*) FROM aggregate WHERE window_us >= ? AND window_us < ? AND zone = ? AND coverage < 0.5",
                (start_us, end_us, name),
            ).fetchone()
            longer = 120_000_000 if base == "engaged" else 0
            (came,) = day.conn.execute(
                "SELECT count(*) FROM visit WHERE enter_us >= ? AND enter_us < ? AND zone = ? AND tag_class IN (0, 1)"
                " AND exit_us - enter_us >= ? AND (? = 'all' OR NOT censored)",
                (start_us, end_us, name, longer, base),
            ).fetchone()
            if found and not dark:
                both.append((hour, found[0], came))
        if sum(10 <= hour < 20 for hour, _, _ in both) >= 0.8 * 10:
            pairs.append((sum(n for _, n, _ in both), sum(came for _, _, came in both)))
    return tickets, len(pairs), pairs


def ratio(pairs: list[tuple[int, int]]) -> tuple[float, float, float]:
    """A ratio of counts with its interval, from the formulas in docs/definitions.md."""
    k, n, m = sum(k for k, _ in pairs), sum(n for _, n in pairs), len(pairs)
    z = NormalDist().inv_cdf(0.975)
    low = k * (1 - 1 / (9 * k) - z / (3 * math.sqrt(k))) ** 3 / n if k else 0.0
    high = (k + 1) * (1 - 1 / (9 * (k + 1)) + z / (3 * math.sqrt(k + 1))) ** 3 / n
    if k and m >= 3:
        scatter = sum((one - k / n * of) ** 2 for one, of in pairs) * m / (m - 1)
        t = {6: 2.446912, 5: 2.570582, 4: 2.776445, 3: 3.182446, 2: 4.302653, 27: 2.051831}[m - 1]
        half = t * math.sqrt(scatter) / k
        low, high = min(low, k / n * math.exp(-half)), max(high, k / n * math.exp(half))
    return k / n, low, high


@pytest.mark.parametrize("seed", range(examples(3)))
def test_tickets_per_visit_equal_brute_force(tmp_path: Path, seed: int) -> None:
    day = day_of(tmp_path, opening_hours=HOURS)
    for back in range(7):
        trade(day, back, seed)
    days_of(day, 6)
    day.covered("12:00", "13:00", bags=0.2)
    day.covered(f"{10 - DAY_H}:00", f"{13 - DAY_H}:00", books=0.2)
    day.conn.execute(
        "DELETE FROM sales WHERE zone = 'shoes' AND hour_us BETWEEN ? AND ?", (day.us("10:00"), day.us("13:00"))
    )
    day.conn.execute("UPDATE visit SET censored = 1 WHERE id % 11 = 0")
    for name in ("shoes", "bags", "books"):
        found = zone(day, name, days=7).sales
        assert found is not None
        tickets, days, _ = recomputed(day, 7, name)
        assert (found.tickets, found.pairs) == (tickets, days)
        for rate, base in ((found.per_visit, "all"), (found.per_engaged, "engaged")):
            assert rate is not None
            of = recomputed(day, 7, name, base)[2]
            assert (rate.k, rate.n) == (sum(k for k, _ in of), sum(n for _, n in of))
            assert (rate.value, rate.low, rate.high) == pytest.approx(ratio(of), rel=1e-5)
    assert zone(day, "shoes", days=7).sales.days == 6
    assert zone(day, "books", days=7).sales.pairs == 6
    assert zone(day, "hall", days=7).sales is None
    day.conn.close()


def test_an_hour_that_was_not_told_is_unknown_and_not_without_sales(tmp_path: Path) -> None:
    day = day_of(tmp_path, opening_hours=HOURS)
    for i in range(60):
        day.visit(f"{i}", "shoes", f"{10 + i % 10}:{i}", 60)
    days_of(day, 0)
    for hour in range(10, 17):
        day.sold("shoes", f"{hour}:00", 3)
    found = zone(day, "shoes").sales
    assert found == ZoneSales(0, 21, None, None, 0, None, None), "seven of ten hours are too few"
    day.sold("shoes", "17:00", 0)
    found = zone(day, "shoes").sales
    assert found is not None
    assert (found.days, found.tickets, found.pairs) == (1, 21, 1)
    assert found.per_visit is not None
    assert (found.per_visit.k, found.per_visit.n) == (21, 48), "visits of hours that were not told don't count"
    (hours,) = day.past.sales(DATE).zones
    told = {hour.start_us: hour for hour in hours.hours}
    assert (told[day.us("17:00")].state, told[day.us("17:00")].tickets) == ("measured", 0)
    assert (told[day.us("18:00")].state, told[day.us("18:00")].tickets) == ("unknown", None)
    day.covered("15:00", "17:00", shoes=0.1)
    kept._made.clear()  # which never changes without a new window otherwise
    found = zone(day, "shoes").sales
    assert found is not None
    assert (found.days, found.pairs, found.per_visit) == (1, 0, None), "readers were down for too long"
    day.conn.close()


def test_a_zone_without_readers_still_has_its_tickets(day: Day) -> None:
    day.covered("04:00", "28:00")
    day.watermark("33:00")
    day.sold("attic", "10:00", 4)
    found = zone(day, "attic")
    assert found.n is None
    assert found.sales is not None
    assert (found.sales.tickets, found.sales.per_visit) == (4, None)


def test_units_and_amounts_are_only_told_if_known_of_all_hours(day: Day) -> None:
    day.covered("04:00", "28:00")
    day.watermark("33:00")
    day.sold("shoes", "10:00", 4, units=5, cents=12_350, currency="CNY")
    day.sold("shoes", "11:00", 1, units=0, cents=1, currency="CNY")
    found = zone(day, "shoes").sales
    assert found is not None
    assert (found.tickets, found.units, found.amount, currency(day.past)) == (5, 5, 123.51, "CNY")
    day.sold("shoes", "12:00", 1, units=1)
    found = zone(day, "shoes").sales
    assert found is not None
    assert (found.tickets, found.units, found.amount) == (6, 6, None)


async def test_stored_facts_are_those_made_and_follow_every_change(tmp_path: Path) -> None:
    day = day_of(tmp_path, opening_hours=HOURS)
    for back in (1, 2):
        trade(day, back, 4)
    days_of(day, 2)
    database = Database(day.config.database.path, store="s1", quota_mb=64)

    async def housekeep() -> int:
        while await housekeeping.sum_up(database, day.config):
            pass
        made = 0
        while await housekeeping.sum_up_sales(database, day.config):
            made += 1
        return made

    dates = [DATE - ONE, DATE - 2 * ONE]
    assert await housekeep() == 2
    assert await housekeep() == 0
    made = [sold.make(day.past, date) for date in dates]
    assert set(sold._split(day.past, dates)[0]) == set(dates)
    for part, find in (("days", sold.of_days), ("hours", sold.of_hours)):
        found = find(day.past, dates)
        one, two = (getattr(facts, part) for facts in made)
        assert found is not None
        assert all((found[name] == one[name] + two[name]).all() for name in sold.SOLD.names or ())
    before = zone(day, "shoes", days=3).sales
    day.sold("shoes", "-14:00", 500)  # yesterday at ten
    assert set(sold._split(day.past, dates)[0]) == {DATE - 2 * ONE}
    after = zone(day, "shoes", days=3).sales
    assert before is not None
    assert after is not None
    assert after.tickets > before.tickets
    assert await housekeep() == 1
    assert zone(day, "shoes", days=3).sales == after
    day.visit("late", "shoes", "-13:30", 60)
    assert await housekeep() == 1, "the visits of the day have changed"
    again = zone(day, "shoes", days=3).sales
    assert again is not None
    assert after.per_visit is not None
    assert again.per_visit is not None
    assert again.per_visit.n == after.per_visit.n + 1
    database.close()
    day.conn.close()


def test_facts_follow_zones_that_were_removed_or_put_elsewhere(tmp_path: Path) -> None:
    day = day_of(tmp_path, opening_hours=HOURS)
    trade(day, 1, 5)
    days_of(day, 1)
    kept.save(day.conn, day.config, day.past.make(DATE - ONE))
    found = sold.missing(day.past)
    assert found is not None
    sold.save(day.conn, day.config, *found, sold.make(day.past, DATE - ONE))
    before = zone(day, "books", days=2).sales
    zones = tuple(z for z in reversed(day.config.zones) if z.id != "bags")
    other = Day(day.config.model_copy(update={"zones": zones}))
    assert sold._split(other.past, [DATE - ONE])[0]
    assert zone(other, "books", days=2).sales == before
    other.conn.close()
    day.conn.close()


def test_sales_are_kept_as_long_as_windows_and_no_longer(day: Day) -> None:
    day.sold("shoes", "10:00", 1)
    day.sold("shoes", f"{10 - DAY_H}:00", 1)
    now_us = day.us("11:00") + day.config.database.keep_days * 86_400_000_000
    prune(day.conn, day.config, now_us)
    sold.prune(day.conn, day.config, now_us)
    assert day.conn.execute("SELECT hour_us FROM sales").fetchall() == []
    assert day.conn.execute("SELECT date FROM sales_day").fetchall() == [(str(DATE),)]


def test_how_counters_fare_equals_brute_force(tmp_path: Path) -> None:
    day = day_of(tmp_path, opening_hours=HOURS)
    for back in range(14):
        trade(day, back, 6, more=1 if back < 7 else 3)
    for i in range(400):
        day.visit(f"more{i}", "bags", f"{10 + i % 8 - DAY_H * (8 + i % 5)}:{i % 60}", 200)
    days_of(day, 13)
    found = day.past.performance(DATE, 7, DATE - 7 * ONE)
    assert (found.first_day, found.last_day, found.sold) == ("2026-03-01", "2026-03-07", True)
    rows = {row.zone: row for row in found.counters}
    assert set(rows) == {"shoes", "bags", "books"}
    for name, row in rows.items():
        now, before = recomputed(day, 7, name)[2], recomputed(day, 14, name)[2][7:]
        for course, side in ((row.tickets, 0), (row.visits, 1)):
            assert (course.now, course.before, course.pairs) == (
                sum(p[side] for p in now),
                sum(p[side] for p in before),
                7,
            )
            assert course.change is not None
            assert course.change.value == pytest.approx(course.now / course.before - 1)  # type: ignore[operator]
        assert row.tickets.falls
        assert not row.visits.rises
    assert found.counters[0].zone == "bags", "fewer visits, shorter dwell and fewer tickets"
    assert rows["bags"].visits.falls
    assert rows["bags"].dwell.falls
    assert not rows["shoes"].dwell.falls
    assert rows["shoes"].dwell.change is not None
    assert rows["shoes"].dwell.change.low < 0 < rows["shoes"].dwell.change.high  # type: ignore[operator]
    one = day.past.performance(DATE, 1, DATE - 7 * ONE).counters[0]
    assert one.visits.change is not None
    assert one.visits.change.low is None, "one pair of days proves nothing"
    alone = day.past.performance(DATE, 14)
    halves = day.past.performance(DATE, 7, DATE - 7 * ONE)
    assert (alone.halves, alone.since, alone.days, alone.pairs) == (True, "2026-03-08", 7, 7)
    assert (alone.first_day, alone.last_day) == (halves.first_day, halves.last_day)
    for half, whole in zip(halves.counters, alone.counters, strict=True):
        assert half.courses == whole.courses
        assert (half.sales, whole.sales) == tuple(zone(day, half.zone, days=n).sales for n in (7, 14))
    assert day.past.performance(DATE, 7) == halves, "these have days before them"
    assert not day.past.performance(DATE - 10 * ONE, 14).halves, "halves of four days and nothing have no pairs"
    day.conn.execute("DELETE FROM sales_day")
    nothing = day.past.performance(DATE, 7, DATE - 7 * ONE)
    assert not nothing.sold
    assert {(row.tickets.now, row.tickets.change, row.sales) for row in nothing.counters} == {(None, None, None)}
    day.conn.close()


def test_trends_have_dwell_and_tickets_of_each_day(tmp_path: Path) -> None:
    day = day_of(tmp_path, opening_hours=HOURS)
    for back in range(3):
        trade(day, back, 7)
    days_of(day, 3)
    day.conn.execute("DELETE FROM sales WHERE zone = 'bags' AND hour_us > ?", (day.us("15:00"),))
    found = day.past.trends(DATE)
    for back in range(3):
        one = found["shoes"][-1 - back]
        tickets = recomputed(day, back + 1, "shoes")[0] - (recomputed(day, back, "shoes")[0] if back else 0)
        assert (one.date, one.tickets) == (DATE - back * ONE, tickets)
        bounds = day.us(f"{4 - DAY_H * back}:00"), day.us(f"{28 - DAY_H * back}:00")
        query = "SELECT exit_us - enter_us FROM visit WHERE zone = 'shoes' AND enter_us >= ? AND enter_us < ?"
        dwell_s = median_low(us / 1e6 for (us,) in day.conn.execute(query, bounds))
        assert one.median_s == pytest.approx(dwell_s, rel=0.05)
    assert found["shoes"][-4].tickets is None
    assert found["bags"][-1].tickets is None, "half of the opening hours are too few"
    assert found["bags"][-2].tickets is not None
    day.conn.close()


@pytest.mark.parametrize("measure", ["tickets", "per_visit", "per_engaged"])
def test_the_plan_can_be_coloured_by_sales(tmp_path: Path, measure: str) -> None:
    day = day_of(tmp_path, opening_hours=HOURS)
    for back in range(3):
        trade(day, back, 8)
    days_of(day, 2)
    whole = {shade.zone: shade for shade in day.past.lens(DATE, 3, measure).zones}
    found = zone(day, "shoes", days=3).sales
    assert found is not None
    if measure == "tickets":
        assert whole["shoes"].value == found.tickets
    else:
        rate = getattr(found, measure)
        assert (whole["shoes"].value, whole["shoes"].low, whole["shoes"].n) == (rate.value, rate.low, rate.n)
    assert (whole["hall"].known, whole["hall"].value) == (False, None)
    noon = {shade.zone: shade for shade in day.past.lens(DATE, 3, measure, 8).zones}
    n = sum(
        day.conn.execute(
            "SELECT tickets FROM sales WHERE zone = 'bags' AND hour_us = ?", (day.us(f"{12 - 24 * b}:00"),)
        ).fetchone()[0]
        for b in range(3)
    )
    if measure == "tickets":
        assert noon["bags"].value == n
    day.conn.close()
