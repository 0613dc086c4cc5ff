"""Analytics from the database against days written by hand, and against brute force on the same visits."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, fields
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shopdays import DATE, ZONES, Day, store_values

from config import StoreConfig
from edge import dayfacts, daystore, housekeeping
from edge.analytics import CounterScore, counters, flows, habit, hide
from edge.analytics_changes import comparison, layout_changes, promotions
from edge.analytics_hours import hours as hours_of
from edge.analytics_occupancy import occupancy
from edge.analytics_service import service, suspected_tags, tiers
from edge.calendar import HOLIDAY, WORKING_WEEKEND, hours, kind_of_day, knows_year, same_holiday_before
from edge.database import Database
from edge.dayfacts import DayFacts, make
from edge.verdicts import say
from edge.web.users import Role, Users, users_path

ONE = dt.timedelta(days=1)
HOURS = [{"open": "10:00", "close": "22:00"}]


@pytest.fixture
def day(tmp_path: Path) -> Iterator[Day]:
    day = store(tmp_path)
    yield day
    day.conn.close()


def store(folder: Path, **sections: Any) -> Day:
    return Day(StoreConfig.model_validate(store_values(folder, **sections)))


def zone(day: Day, name: str, **kwargs: Any) -> CounterScore:
    return next(z for z in counters(day.conn, day.config, DATE, **kwargs).zones if z.zone == name)


visits = st.lists(
    st.tuples(
        st.integers(0, 45),  # tag
        st.sampled_from([name[0] for name in ZONES[:-1]]),
        st.sampled_from((3, 8, 29, 31, 90, 130, 400)),
        st.booleans().map(lambda yes: yes),
        st.integers(0, 3),  # hour
    ),
    max_size=150,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(walks=visits, dark=st.sampled_from([name[0] for name in ZONES[:-1]]))
def test_scorecards_equal_brute_force(day: Day, walks: list[tuple[int, str, int, bool, int]], dark: str) -> None:
    """`dark` is unknown in hour 2; a tag's journeys begin on the hour."""
    day.conn.execute("DELETE FROM visit")
    day.conn.execute("DELETE FROM aggregate")
    daystore._made.clear()  # ids are never given twice otherwise
    dayfacts._kept.clear()
    day.covered("04:00", "23:00")
    day.covered("12:00", "13:00", **{dark: 0.2})
    day.watermark("23:00")
    walks = sorted(walks, key=lambda walk: walk[4])
    for number, (tag, name, seconds, censored, hour) in enumerate(walks):
        day.visit(
            str(tag),
            name,
            f"{10 + hour}:{number * 59 / len(walks)}",
            seconds,
            journey=f"{10 + hour}:00",
            censored=censored,
        )
    journeys = {(tag, hour) for tag, *_, hour in walks}
    stopped = {}
    for tag, name, seconds, _, hour in walks:
        if seconds >= 30 and name in ("shoes", "bags", "books"):
            stopped.setdefault((tag, hour), name)
    for row in counters(day.conn, day.config, DATE).zones[:-1]:
        out = 2 if row.zone == dark else None
        mine = [walk for walk in walks if walk[1] == row.zone and walk[4] != out]
        whole = [seconds for _, _, seconds, censored, _ in mine if not censored]
        bands = np.bincount(np.digitize(whole, (5, 30, 120)), minlength=4).tolist() if whole else [0] * 4
        assert [row.pass_by, row.touch, row.visit, row.engaged] == bands
        assert (row.n, row.censored) == (len(whole), len(mine) - len(whole))
        assert row.journeys == len({j for j in journeys if j[1] != out})
        assert row.visitors == len({(tag, hour) for tag, _, seconds, _, hour in mine if seconds >= 5})
        if row.journeys >= 30:
            assert row.draw is not None
            assert row.draw.value == row.visitors / row.journeys
        else:
            assert row.draw is None
        if row.n >= 30:
            assert row.conversion == pytest.approx(bands[3] / sum(bands[:3]))
        firsts = [j for j, name in stopped.items() if name == row.zone and j[1] != out]
        if row.first_stop is not None:
            assert (row.first_stop.k, row.first_stop.n) == (len(firsts), len([j for j in stopped if j[1] != out]))
        if len(whole) >= 5:
            assert row.median_s is not None
            exact = np.quantile(whole, 0.5, method="inverted_cdf")
            assert row.median_s == pytest.approx(exact, rel=0.049)


def same(one: DayFacts, two: DayFacts) -> None:
    for part in ("totals", "windows"):
        a, b = getattr(one, part), getattr(two, part)
        for field in fields(a):
            x, y = getattr(a, field.name), getattr(b, field.name)
            if isinstance(x, np.ndarray):
                equal = (x == y) | ((x != x) & (y != y)) if x.dtype.names is None else x == y
                assert np.all(equal), field.name
            elif field.name == "flows":
                assert (x.links == y.links).all()
                assert (x.link_journeys == y.link_journeys).all()
                assert (x.unseen, x.unseen_paths, x.pathless) == (y.unseen, y.unseen_paths, y.pathless)
            elif field.name in ("tier_wait", "tier_assist"):
                assert {k: v.tolist() for k, v in x.items()} == {k: v.tolist() for k, v in y.items()}
            else:
                assert x == y, field.name


def busy(day: Day, date_offset: int = 0, people: int = 40, engaged: int = 20, hour: int = 10) -> None:
    """People who come in at the door, look at shoes (the first `engaged` of them for long) and go up to the books."""
    at = 24 * date_offset + hour
    for i in range(people):
        tag, start = f"{date_offset}-{hour}-{i}", f"{at}:{i}"
        day.visit(tag, "door", start, 10, journey=start)
        day.visit(tag, "shoes", f"{at}:{i}:20", 150 if i < engaged else 40, journey=start)
        day.visit(tag, "hall", f"{at + 1}:{i}", 20, journey=start)
        day.visit(tag, "books", f"{at + 1}:{i}:30", 60, journey=start)


def test_stored_facts_are_those_that_were_made(day: Day) -> None:
    busy(day)
    day.member("m", "A")
    day.visit("m", "shoes", "12:00", 90, cls="member", member="M-m")
    day.visit("s", "shoes", "12:01", 600, cls="staff")
    day.visit("x", "bags", "09:00", 36_000)
    day.covered("04:00", "28:00", bags=0.3)
    day.watermark("33:00")
    made = make(day.conn, day.config, DATE)
    before = counters(day.conn, day.config, DATE), flows(day.conn, day.config, DATE), tiers(day.conn, day.config, DATE)
    daystore.save(day.conn, day.config, made)
    loaded = daystore.load(day.conn, day.config, [DATE])[DATE]
    same(made, loaded)
    assert made.by_hour is not None
    assert (daystore.by_hour(day.conn, day.config, DATE) == made.by_hour).all()
    assert (made.by_hour.sum(axis=0) == made.totals.dwell).all()
    ranked = sorted(made.totals.flows.paths.items(), key=lambda item: (-item[1], item[0]))
    assert len(ranked) == 2
    for top in (1, 2, 3):
        assert daystore.paths(day.conn, day.config, [DATE], top) == (ranked[:top], sum(n for _, n in ranked))
    assert loaded.complete
    day.conn.execute("DELETE FROM visit")  # now only the stored facts know
    assert before == (
        counters(day.conn, day.config, DATE),
        flows(day.conn, day.config, DATE),
        tiers(day.conn, day.config, DATE),
    )


def test_stored_facts_follow_their_zones(day: Day, tmp_path: Path) -> None:
    busy(day)
    day.covered("04:00", "28:00")
    day.watermark("33:00")
    before = {z.zone: z for z in counters(day.conn, day.config, DATE).zones}
    daystore.save(day.conn, day.config, make(day.conn, day.config, DATE))
    values = store_values(tmp_path)
    values["zones"] = [{**values["zones"][0], "id": "new"}, *reversed(values["zones"][1:])]  # door is no more
    values["readers"][0]["antennas"] = values["readers"][0]["antennas"][1:]
    moved = StoreConfig.model_validate(values)
    found = {z.zone: z for z in counters(day.conn, moved, DATE).zones}
    assert found["new"].n is None
    assert all(asdict(found[name]) == asdict(before[name]) for name in ("shoes", "bags", "hall", "books"))
    report = flows(day.conn, moved, DATE)
    assert {(link.from_zone, link.to_zone) for link in report.links} == {
        ("shoes", "hall"),
        ("hall", "books"),
        ("books", None),
    }
    assert report.paths == ()


def test_facts_made_by_other_definitions_are_not_used(day: Day, tmp_path: Path) -> None:
    busy(day)
    day.covered("04:00", "28:00")
    day.watermark("33:00")
    daystore.save(day.conn, day.config, make(day.conn, day.config, DATE))
    other = StoreConfig.model_validate(store_values(tmp_path, thresholds={"def_version": 2, "engaged_s": 151}))
    assert zone(day, "shoes").engaged == 20
    shoes = next(z for z in counters(day.conn, other, DATE).zones if z.zone == "shoes")
    assert (shoes.visit, shoes.engaged) == (40, 0)
    assert daystore.missing(day.conn, other) == DATE
    assert daystore.missing(day.conn, day.config) is None


async def test_the_service_sums_up_each_day_that_is_over(day: Day) -> None:
    for offset in (0, 1, 2):
        busy(day, offset, people=3)
    day.covered("04:00", "72:00")
    day.watermark("78:00")  # the third day is not over
    database = Database(day.config.database.path, store="s1", quota_mb=64)
    try:
        rounds = 0
        while await housekeeping.sum_up(database, day.config):
            rounds += 1
        assert rounds == 2
        day.visit("late", "shoes", "12:00", journey="12:00")
        assert daystore.missing(day.conn, day.config) == DATE
        assert await housekeeping.sum_up(database, day.config)
        assert zone(day, "shoes").n == 4
        gone = await database.write(
            lambda conn: daystore.prune(conn, day.config, day.us("12:00") + 500 * 86_400_000_000)
        )
        assert gone == 2
    finally:
        database.close()


def test_a_week_is_its_days_together(day: Day) -> None:
    for offset in range(-2, 1):
        busy(day, offset, people=20 + offset)
    day.covered("-44:00", "28:00")
    day.watermark("33:00")
    dates = [DATE - n * ONE for n in (2, 1, 0)]
    for n in (0, 1):
        daystore.save(day.conn, day.config, make(day.conn, day.config, dates[n]))
    week = counters(day.conn, day.config, DATE, days=7)
    singles = [counters(day.conn, day.config, date) for date in dates]
    assert week.journeys == sum(one.journeys for one in singles) == 57
    assert week.scope.days == 3
    for number in range(len(ZONES) - 1):
        for name in ("n", "visitors", "touch", "engaged", "journeys"):
            assert getattr(week.zones[number], name) == sum(getattr(one.zones[number], name) for one in singles)
    report, parts = flows(day.conn, day.config, DATE, days=7), [flows(day.conn, day.config, date) for date in dates]
    assert report.steps == sum(part.steps for part in parts)
    assert Counter({path.zones: path.n for path in report.paths}) == reduce(
        add, (Counter({path.zones: path.n for path in part.paths}) for part in parts)
    )


def test_a_zone_without_readers_has_no_numbers(day: Day) -> None:
    busy(day)
    day.covered("04:00", "14:00", shoes=0.4)
    day.watermark("14:01")
    assert (zone(day, "shoes").n, zone(day, "shoes").draw, zone(day, "shoes").rank) == (None, None, None)
    assert zone(day, "shoes").coverage == pytest.approx(0.4)
    assert zone(day, "attic").coverage is None
    assert next(z for z in service(day.conn, day.config, DATE).zones if z.zone == "shoes").staffed is None
    report = occupancy(day.conn, day.config, DATE)
    shoes = next(z for z in report.zones if z.place == "shoes")
    assert (shoes.mean, shoes.peak) == (None, None)
    assert {w.state for w in shoes.windows} == {"unknown", "future"}
    books = zone(day, "books")
    assert books.draw is not None
    assert (books.rank, books.draw.value) == ((1, 2), 1)  # no counter is surely better than the other


def test_before_the_first_day_nothing_is_known(day: Day) -> None:
    assert all(z.n is None for z in counters(day.conn, day.config, DATE).zones)
    assert flows(day.conn, day.config, DATE).links == ()
    assert tiers(day.conn, day.config, DATE).tiers == ()
    assert all(z.wanted is None for z in service(day.conn, day.config, DATE).zones)
    assert comparison(day.conn, day.config, DATE) is None
    assert suspected_tags(day.conn, day.config, DATE) == ()


def test_few_are_hidden(day: Day) -> None:
    for i in range(9):
        start = f"10:{i}"
        day.visit(f"a{i}", "door", start, 10, journey=start)
        day.visit(f"a{i}", "shoes" if i < 5 else "bags", f"11:{i}", 60, journey=start)
    day.covered("04:00", "14:00")
    day.watermark("14:01")
    report = flows(day.conn, day.config, DATE)
    assert {(link.from_zone, link.to_zone, link.n) for link in report.links} == {
        (None, "door", 9),
        ("door", "shoes", 5),
        ("shoes", None, 5),
    }
    assert (report.steps, report.suppressed_links, report.suppressed_steps) == (27, 2, 8)
    assert [(path.zones, path.n) for path in report.paths] == [(("door", "shoes"), 5)]
    assert report.other_paths == 4
    assert [(mix.zone, mix.n) for mix in report.exits] == [("bags", None), ("shoes", None)]  # 9 − 5 would tell


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 12), max_size=6), st.integers(0, 8))
def test_no_hidden_number_can_be_worked_out(counts: dict[str, int], least: int) -> None:
    hidden = hide(counts, least)
    assert all(n >= least for name, n in counts.items() if name not in hidden)
    assert len(hidden) != 1 or len(counts) == 1


def test_what_comes_later_is_read_alone_and_what_is_deleted_is_forgotten(day: Day) -> None:
    busy(day)
    day.covered("04:00", "14:00")
    day.watermark("14:01")
    assert zone(day, "shoes").n == 40
    busy(day, hour=12, people=7)
    day.visit("x", "shoes", "-10:00")  # another day's
    assert zone(day, "shoes").n == 47
    day.conn.execute("DELETE FROM visit WHERE tag IN (CAST('0-10-1' AS BLOB), CAST('0-12-1' AS BLOB))")
    busy(day, hour=13, people=1)
    assert zone(day, "shoes").n == 46
    assert counters(day.conn, day.config, DATE).journeys == 46


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(walks=visits, badges=st.lists(st.tuples(st.integers(0, 239), st.integers(20, 1500)), max_size=8))
def test_hours_occupancy_and_targets_equal_brute_force(
    day: Day, walks: list[tuple[int, str, int, bool, int]], badges: list[tuple[int, int]]
) -> None:
    """Hour by hour and second by second, on the raw visits."""
    day.conn.execute("DELETE FROM visit")
    daystore._made.clear()
    dayfacts._kept.clear()
    first = day.us("10:00")
    rows = []
    for minute, (tag, name, seconds, _, hour) in enumerate(walks):
        day.visit(
            f"t{tag}", name, f"{10 + hour}:{minute % 60}:{tag}", seconds, journey=f"{10 + hour}:{minute % 60}:{tag}"
        )
        rows.append((name, (hour * 60 + minute % 60) * 60 + tag, seconds))
    for n, (minute, seconds) in enumerate(badges):
        day.visit(f"b{n}", "shoes", f"10:{minute}", seconds, cls="staff")
    day.covered("04:00", "23:00")
    day.watermark("23:00")
    found = next(z for z in hours_of(day.conn, day.config, DATE).zones if z.zone == "shoes")
    for hour in range(4):
        cell = next(cell for cell in found.hours if cell.start_us == first + hour * 3_600_000_000)
        dwells = [long for name, at, long in rows if name == "shoes" and at // 3600 == hour]
        assert cell.n == len(dwells)
        assert cell.engaged == sum(long >= 120 for long in dwells)
        if len(dwells) >= 5:
            assert cell.median_s == pytest.approx(np.quantile(dwells, 0.5, method="inverted_cdf"), rel=0.049)
        staff = sum(
            max(0, min(minute * 60 + long, (hour + 1) * 3600) - max(minute * 60, hour * 3600))
            for minute, long in badges
        )
        assert cell.staff_s == staff
        served = sum(long >= 30 for long in dwells)
        assert cell.visits_per_staff_hour == (pytest.approx(served / (staff / 3600)) if staff >= 900 else None)
    at = np.arange(0, 5 * 3600)
    there = sum((((begin <= at) & (at < begin + long)) * 1 for name, begin, long in rows if name == "shoes"), 0 * at)
    told = next(zone for zone in occupancy(day.conn, day.config, DATE).zones if zone.place == "shoes")
    for window in told.windows:
        start = (window.start_us - first) // 1_000_000
        if 0 <= start < 5 * 3600 and window.state == "measured":
            assert window.peak == there[start : start + 900].max()
            assert window.mean == pytest.approx(there[start : start + 900].mean())


def test_what_a_manager_said_of_a_suspected_tag_holds(day: Day) -> None:
    Users(users_path(day.config)).put("li", Role.MANAGER, "correct horse battery")
    for hour in range(9, 14):
        day.visit("lost card", "shoes", f"{hour}:00", 3500, journey="09:00")
    day.visit("anybody", "shoes", "10:00", 100)
    day.covered("04:00", "28:00")
    day.watermark("33:00")
    (suspect,) = suspected_tags(day.conn, day.config, DATE)
    assert (suspect.reasons, suspect.confirmed, suspect.zone) == (("stuck",), None, "shoes")
    assert zone(day, "shoes").n == 1
    daystore.save(day.conn, day.config, make(day.conn, day.config, DATE))
    assert daystore.missing(day.conn, day.config) is None
    say(day.config, DATE, b"lost card", confirmed=False)
    assert daystore.missing(day.conn, day.config) == DATE
    assert zone(day, "shoes").n == 6
    assert counters(day.conn, day.config, DATE).scope.suspected_staff == 0
    say(day.config, DATE, b"lost card", confirmed=True)
    assert zone(day, "shoes").n == 1
    day.visit("lost card", "bags", "34:00", 100)  # the next day, and no longer suspicious
    assert [s.confirmed for s in suspected_tags(day.conn, day.config, DATE + ONE)] == [True]
    say(day.config, DATE, b"lost card", confirmed=None)
    assert suspected_tags(day.conn, day.config, DATE + ONE) == ()
    assert daystore.missing(day.conn, day.config) is None


def test_suspected_staff_is_left_out_and_listed(day: Day) -> None:
    day.visit("couple", "shoes", "10:00", 100)
    for hour in range(9, 18):
        day.visit("all day", "shoes", f"{hour}:00", 3300, journey="09:00")
    day.visit("store room", "shoes", "10:00", 100)
    day.visit("store room", "attic", "10:05", 640, journey="10:00")
    day.visit("through the wall", "attic", "10:05", 160)
    day.visit("badge", "shoes", "09:00", 36_000, cls="staff")
    day.covered("04:00", "22:00")
    day.watermark("22:00")
    listed = suspected_tags(day.conn, day.config, DATE)
    assert [(s.present_s, s.back_room_s) for s in listed] == [(9 * 3300, 0), (740, 640)]
    assert counters(day.conn, day.config, DATE).scope.suspected_staff == 2
    assert (zone(day, "shoes").n, zone(day, "shoes").engaged) == (1, 0)
    assert occupancy(day.conn, day.config, DATE).zones[1].peak == 1


def test_tiers_returning_contact_and_habits(day: Day) -> None:
    for i in range(6):
        day.member(f"a{i}", "A")
        start = f"12:{i}"
        day.visit(f"a{i}", "door", start, 10, cls="member", member=f"M-a{i}", journey=start)
        day.visit(f"a{i}", "shoes", f"13:{10 * i}", 300, cls="member", member=f"M-a{i}", journey=start)
    day.member("b", "B")
    day.visit("b", "shoes", "12:00", 100, cls="member", member="M-b")
    day.visit("anybody", "shoes", "12:00", 400)
    day.visit("badge", "shoes", "13:01", 1800, cls="staff")  # meets four of six, the first after a minute
    insert = (
        "INSERT INTO journey (tag, tag_class, member, start_us, end_us, censored, path)"
        " VALUES (x'00', 1, ?, ?, ?, ?, ?)"
    )
    path = '[["door",0,1000000],["hall",1000000,90000000],["shoes",90000000,190000000],["door",0,1]]'
    for member, days_ago, censored in (("M-a0", 9, 0), ("M-a0", 8, 0), ("M-a0", 7, 0), ("M-a0", 6, 1), ("M-a1", 95, 0)):
        at = day.us("12:00") - days_ago * 86_400_000_000
        day.conn.execute(insert, (member, at, at + 1, censored, path))
    day.covered("04:00", "22:00")
    day.watermark("22:00")
    report = tiers(day.conn, day.config, DATE)
    assert report.history_days == 90
    assert [(t.tier, t.members) for t in report.tiers] == [("A", None), ("B", None)]  # 7 − 6 would tell of B
    for i in range(5):
        day.member(f"c{i}", "C")
        day.visit(f"c{i}", "shoes", "15:00", 100, cls="member", member=f"M-c{i}")
    for i in range(4):
        day.visit(f"bb{i}", "shoes", "15:00", 100, cls="member", member=f"M-bb{i}")
        day.member(f"bb{i}", "B")
    report = tiers(day.conn, day.config, DATE)
    a = report.tiers[0]
    assert (a.tier, a.members, a.journeys, a.visits) == ("A", 6, 6, 12)
    assert a.returning is not None
    assert (a.returning.k, a.returning.n) == (1, 6)  # the other was too long ago
    assert a.met is not None
    assert (a.met.k, a.met.n) == (4, 6)
    assert a.contact is not None
    assert (a.contact.k, a.contact.n) == (4, 6)
    assert a.wait_median_s is None  # of four
    served = next(z for z in service(day.conn, day.config, DATE).zones if z.zone == "shoes")
    assert served.met is not None
    assert (served.wanted, served.met.k) == (17, 4)
    found = habit(day.conn, day.config, "M-a0", DATE)
    assert found is not None
    assert (found.zones, found.n, found.journeys) == (("door", "shoes"), 3, 3)
    assert habit(day.conn, day.config, "M-a1", DATE) is None


def test_waits_and_staffed_time(day: Day) -> None:
    for i in range(6):
        day.visit(f"c{i}", "shoes", f"10:{10 * i}", 300)
        day.visit("badge", "shoes", f"10:{10 * i}:60", 120, cls="staff", journey="10:00")
    day.visit("passing", "shoes", "11:30", 300)
    day.visit("badge", "shoes", "11:31", 14, cls="staff", journey="10:00")
    day.covered("04:00", "12:00")
    day.watermark("12:01")
    shoes = next(z for z in service(day.conn, day.config, DATE).zones if z.zone == "shoes")
    assert shoes.met is not None
    assert (shoes.wanted, shoes.met.k) == (7, 6)
    assert shoes.wait_median_s == pytest.approx(60, rel=0.049)
    assert shoes.assist_mean_s == 120
    assert shoes.staffed == pytest.approx((6 * 120 + 14) / 8 / 3600)


def test_closed_hours_do_not_lower_coverage(tmp_path: Path) -> None:
    special = [{"date": DATE + ONE}, {"date": DATE - ONE, "open": "12:00", "close": "13:00", "floors": ["F1"]}]
    day = store(tmp_path, opening_hours=HOURS, special_days=special)
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
    day = store(tmp_path, opening_hours=night)
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
    found = comparison(day.conn, day.config, DATE)
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


def trial_store(folder: Path, **sections: Any) -> Day:
    """Eight weeks until DATE; shoes twice as engaged from DATE − 10 to DATE − 4, the others as ever."""
    day = store(folder, **sections)
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
        daystore.save(day.conn, day.config, make(day.conn, day.config, DATE + offset * ONE))
    return day


def test_promotions_and_layout_changes(tmp_path: Path) -> None:
    first, last = DATE - 10 * ONE, DATE - 4 * ONE
    promotion = {"id": "p", "name": "P", "first_day": first, "last_day": last}
    day = trial_store(
        tmp_path,
        promotions=[
            {**promotion, "zones": ["shoes"]},
            {**promotion, "id": "q", "zones": ["bags"], "controls": ["books"]},
            {**promotion, "id": "r", "zones": ["bags"], "first_day": DATE + 9 * ONE, "last_day": DATE + 9 * ONE},
        ],
        layout_changes=[{"id": "m", "name": "M", "date": DATE - ONE, "zones": ["books"]}],
    )
    p, q, r = promotions(day.conn, day.config)
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
    (moved,) = layout_changes(day.conn, day.config)
    assert moved.effects[0].during.change is None  # two days are not enough
    assert moved.effects[0].during.days_used == 2
    day.conn.execute("DELETE FROM day_summary WHERE date >= ?", (first.isoformat(),))
    day.conn.execute("UPDATE aggregate SET coverage = 0.1 WHERE zone = 'shoes'")
    dark = promotions(day.conn, day.config)[0].effects[0].during
    assert (dark.change, dark.days_used, dark.days_left_out) == (None, 0, 7)
    day.conn.close()
