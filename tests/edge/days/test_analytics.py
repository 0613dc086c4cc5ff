"""Analytics from the database against days written by hand, and against brute force on the same visits."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shopdays import DATE, ZONES, Day, busy, zone
from thorough import examples

from config import ZoneKind
from edge.access.users import Role, Users, users_path
from edge.access.verdicts import say
from edge.days import facts, kept
from edge.days.flows import Doors, DoorShare
from edge.days.history import History
from edge.days.scope import hide

ONE = dt.timedelta(days=1)
HOURS = [{"open": "10:00", "close": "22:00"}]


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


@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(walks=visits, dark=st.sampled_from([name[0] for name in ZONES[:-1]]))
def test_scorecards_equal_brute_force(day: Day, walks: list[tuple[int, str, int, bool, int]], dark: str) -> None:
    """`dark` is unknown in hour 2; a tag's journeys begin on the hour."""
    day.conn.execute("DELETE FROM visit")
    day.conn.execute("DELETE FROM aggregate")
    kept._made.clear()  # ids are never given twice otherwise
    facts._kept.clear()
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
    stopped: dict[tuple[int, int], str] = {}
    for tag, name, seconds, _, hour in walks:
        if seconds >= 30 and name in ("shoes", "bags", "books"):
            stopped.setdefault((tag, hour), name)
    for row in day.past.counters(DATE).zones[:-1]:
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
        if (row.n or 0) >= 30:
            assert row.conversion == pytest.approx(bands[3] / sum(bands[:3]))
        firsts = [j for j, name in stopped.items() if name == row.zone and j[1] != out]
        if row.first_stop is not None:
            assert (row.first_stop.k, row.first_stop.n) == (len(firsts), len([j for j in stopped if j[1] != out]))
        if len(whole) >= 5:
            assert row.median_s is not None
            exact = np.quantile(whole, 0.5, method="inverted_cdf")
            assert row.median_s == pytest.approx(exact, rel=0.049)


def test_a_week_is_its_days_together(day: Day) -> None:
    for offset in range(-2, 1):
        busy(day, offset, people=20 + offset)
    day.covered("-44:00", "28:00")
    day.watermark("33:00")
    dates = [DATE - n * ONE for n in (2, 1, 0)]
    for n in (0, 1):
        kept.save(day.conn, day.config, day.past.make(dates[n]))
    week = day.past.counters(DATE, days=7)
    singles = [day.past.counters(date) for date in dates]
    assert week.journeys == sum(one.journeys for one in singles) == 57
    assert week.scope.days == 3
    for number in range(len(ZONES) - 1):
        for name in ("n", "visitors", "touch", "engaged", "journeys"):
            assert getattr(week.zones[number], name) == sum(getattr(one.zones[number], name) for one in singles)
    report, parts = day.past.flows(DATE, days=7), [day.past.flows(date) for date in dates]
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
    assert next(z for z in day.past.service(DATE).zones if z.zone == "shoes").staffed is None
    report = day.past.occupancy(DATE)
    shoes = next(z for z in report.zones if z.place == "shoes")
    assert (shoes.mean, shoes.peak) == (None, None)
    assert {w.state for w in shoes.windows} == {"unknown", "future"}
    books = zone(day, "books")
    assert books.draw is not None
    assert (books.rank, books.draw.value) == ((1, 2), 1)  # no counter is surely better than the other


def test_before_the_first_day_nothing_is_known(day: Day) -> None:
    assert all(z.n is None for z in day.past.counters(DATE).zones)
    assert day.past.flows(DATE).links == ()
    assert day.past.tiers(DATE).tiers == ()
    assert all(z.wanted is None for z in day.past.service(DATE).zones)
    assert day.past.comparison(DATE) is None
    assert day.past.suspects(DATE) == ()


def test_few_are_hidden(day: Day) -> None:
    for i in range(9):
        start = f"10:{i}"
        day.visit(f"a{i}", "door", start, 10, journey=start)
        day.visit(f"a{i}", "shoes" if i < 5 else "bags", f"11:{i}", 60, journey=start)
    day.covered("04:00", "14:00")
    day.watermark("14:01")
    report = day.past.flows(DATE)
    assert {(link.from_zone, link.to_zone, link.n) for link in report.links} == {
        (None, "door", 9),
        ("door", "shoes", 5),
        ("shoes", None, 5),
    }
    assert (report.steps, report.suppressed_links, report.suppressed_steps) == (27, 2, 8)
    assert [(path.zones, path.n) for path in report.paths] == [(("door", "shoes"), 5)]
    assert report.other_paths == 4
    assert [(mix.zone, mix.n) for mix in report.exits] == [("bags", None), ("shoes", None)]  # 9 − 5 would tell
    assert report.ways_in.doors == (DoorShare("door", 9, None),)  # of nine no share is told
    assert (report.ways_in.elsewhere, report.ways_out) == (0, Doors((DoorShare("door", 0, None),), 9))


def test_shares_of_doors_are_of_who_was_seen_at_one(day: Day) -> None:
    own = tuple(z.model_copy(update={"kind": ZoneKind.EXIT}) if z.id == "books" else z for z in day.config.zones)
    config = day.config.model_copy(update={"zones": own})
    for i in range(60):
        start = f"10:{i}"
        if i < 50:
            day.visit(f"a{i}", "door", start, 10, journey=start)
        day.visit(f"a{i}", "shoes", f"11:{i}", 60, journey=start)
        if i < 40:
            day.visit(f"a{i}", "books" if i < 30 else "door", f"12:{i}", 10, journey=start)
    day.covered("04:00", "14:00")
    day.watermark("14:01")
    report = History(day.conn, config).flows(DATE)
    assert [(d.n, d.share and d.share.value) for d in report.ways_in.doors] == [(50, 1.0), (0, 0.0)]
    assert [(d.n, d.share and d.share.value) for d in report.ways_out.doors] == [(10, 0.25), (30, 0.75)]
    assert (report.ways_in.elsewhere, report.ways_out.elsewhere) == (10, 20)
    for i in range(60, 63):
        start = f"10:{i - 60}"
        day.visit(f"a{i}", "books", start, 10, journey=start)
        day.visit(f"a{i}", "shoes", f"11:{i - 60}", 60, journey=start)
    hidden = History(day.conn, config).flows(DATE).ways_in
    assert (hidden.doors[1], hidden.elsewhere) == (DoorShare("books", None, None), None)
    assert all(door.share is None for door in hidden.doors)


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 12), max_size=6), st.integers(0, 8))
def test_no_hidden_number_can_be_worked_out(counts: dict[str, int], least: int) -> None:
    hidden = hide(counts, least)
    assert all(n >= least for name, n in counts.items() if name not in hidden)
    assert len(hidden) != 1 or len(counts) == 1


@settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(walks=visits, badges=st.lists(st.tuples(st.integers(0, 239), st.integers(20, 1500)), max_size=8))
def test_hours_occupancy_and_targets_equal_brute_force(
    day: Day, walks: list[tuple[int, str, int, bool, int]], badges: list[tuple[int, int]]
) -> None:
    """Hour by hour and second by second, on the raw visits."""
    day.conn.execute("DELETE FROM visit")
    kept._made.clear()
    facts._kept.clear()
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
    found = next(z for z in day.past.hours(DATE).zones if z.zone == "shoes")
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
    told = next(zone for zone in day.past.occupancy(DATE).zones if zone.place == "shoes")
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
    (suspect,) = day.past.suspects(DATE)
    assert (suspect.reasons, suspect.confirmed, suspect.zone) == (("stuck",), None, "shoes")
    assert zone(day, "shoes").n == 1
    kept.save(day.conn, day.config, day.past.make(DATE))
    assert day.past.missing() is None
    say(day.config, DATE, b"lost card", confirmed=False)
    assert day.past.missing() == DATE
    assert zone(day, "shoes").n == 6
    assert day.past.counters(DATE).scope.suspected_staff == 0
    say(day.config, DATE, b"lost card", confirmed=True)
    assert zone(day, "shoes").n == 1
    day.visit("lost card", "bags", "34:00", 100)  # the next day, and no longer suspicious
    assert [s.confirmed for s in day.past.suspects(DATE + ONE)] == [True]
    say(day.config, DATE, b"lost card", confirmed=None)
    assert day.past.suspects(DATE + ONE) == ()
    assert day.past.missing() is None


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
    listed = day.past.suspects(DATE)
    assert [(s.present_s, s.back_room_s) for s in listed] == [(9 * 3300, 0), (740, 640)]
    assert day.past.counters(DATE).scope.suspected_staff == 2
    assert (zone(day, "shoes").n, zone(day, "shoes").engaged) == (1, 0)
    assert day.past.occupancy(DATE).zones[1].peak == 1


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
    report = day.past.tiers(DATE)
    assert report.history_days == 90
    assert [(t.tier, t.members) for t in report.tiers] == [("A", None), ("B", None)]  # 7 − 6 would tell of B
    for i in range(5):
        day.member(f"c{i}", "C")
        day.visit(f"c{i}", "shoes", "15:00", 100, cls="member", member=f"M-c{i}")
    for i in range(4):
        day.visit(f"bb{i}", "shoes", "15:00", 100, cls="member", member=f"M-bb{i}")
        day.member(f"bb{i}", "B")
    report = day.past.tiers(DATE)
    a = report.tiers[0]
    assert (a.tier, a.members, a.journeys, a.visits) == ("A", 6, 6, 12)
    assert a.returning is not None
    assert (a.returning.k, a.returning.n) == (1, 6)  # the other was too long ago
    assert a.met is not None
    assert (a.met.k, a.met.n) == (4, 6)
    assert a.contact is not None
    assert (a.contact.k, a.contact.n) == (4, 6)
    assert a.wait_median_s is None  # of four
    served = next(z for z in day.past.service(DATE).zones if z.zone == "shoes")
    assert served.met is not None
    assert (served.wanted, served.met.k) == (17, 4)
    found = day.past.habit("M-a0", DATE)
    assert found is not None
    assert (found.zones, found.n, found.journeys) == (("door", "shoes"), 3, 3)
    assert day.past.habit("M-a1", DATE) is None


def test_waits_and_staffed_time(day: Day) -> None:
    for i in range(6):
        day.visit(f"c{i}", "shoes", f"10:{10 * i}", 300)
        day.visit("badge", "shoes", f"10:{10 * i}:60", 120, cls="staff", journey="10:00")
    day.visit("passing", "shoes", "11:30", 300)
    day.visit("badge", "shoes", "11:31", 14, cls="staff", journey="10:00")
    day.covered("04:00", "12:00")
    day.watermark("12:01")
    shoes = next(z for z in day.past.service(DATE).zones if z.zone == "shoes")
    assert shoes.met is not None
    assert (shoes.wanted, shoes.met.k) == (7, 6)
    assert shoes.wait_median_s == pytest.approx(60, rel=0.049)
    assert shoes.assist_mean_s == 120
    assert shoes.staffed == pytest.approx((6 * 120 + 14) / 8 / 3600)
