"""Summaries against days written by hand, and against brute force on the same visits."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import sqlite3
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shopdays import DATE, ZONES, Day, busy, day_of, store_values
from thorough import examples

from config import StoreConfig
from config.facts import TAG_CLASSES
from dwell.layout import TagClass
from edge.database.reader import connect
from edge.days import facts, kept
from edge.days.flows import ZoneTransition
from edge.days.history import history
from edge.days.summary import Summary
from edge.reports.insights import Insights
from edge.reports.render import render
from edge.reports.summary import TABLES, as_csv, as_json
from edge.store.business_days import business_days
from edge.store.errors import Trouble
from edge.words.numbers import duration, percent


def summarise(day: Day, date: dt.date = DATE) -> Summary:
    with history(day.config) as past:
        return past.summary(date)


def test_numbers_of_tag_classes_are_the_engines() -> None:
    assert tuple(TagClass(number).name.lower() for number in range(len(TagClass))) == TAG_CLASSES


def test_floor_visits_count_comings_not_zones(day: Day) -> None:
    for zone, at in (("door", "10:00"), ("shoes", "10:05"), ("hall", "10:20"), ("books", "10:30"), ("bags", "11:10")):
        day.visit("a", zone, at, journey="10:00", cls="member", member="M-a")
    day.visit("b", "door", "10:40", cls="cart")
    day.visit("c", "door", "10:40", cls="staff")
    day.visit("d", "door", "10:40", cls="merchandise")
    day.covered("10:00", "12:00")
    day.watermark("12:00")
    ground, first = summarise(day).floors
    by_hour = {hour.start_us: hour for hour in ground.hours}
    assert by_hour[day.us("10:00")].entered == {"member": 1, "unknown": 0, "cart": 1}
    assert by_hour[day.us("11:00")].entered == {"member": 1, "unknown": 0, "cart": 0}
    assert ground.entered == {"member": 2, "unknown": 0, "cart": 1}
    assert first.entered == {"member": 1, "unknown": 0, "cart": 0}


def test_an_hour_without_readers_is_unknown_one_without_visitors_is_zero(day: Day) -> None:
    day.covered("10:00", "12:00")
    day.covered("11:00", "12:00", door=0, shoes=0, bags=0)
    day.watermark("12:30")
    ground, first = summarise(day).floors
    states = {hour.start_us: hour for hour in ground.hours}
    nobody = {"member": 0, "unknown": 0, "cart": 0}
    assert states[day.us("09:00")].state == "unknown"  # the service did not run yet
    assert (states[day.us("10:00")].state, states[day.us("10:00")].entered) == ("measured", nobody)
    assert (states[day.us("11:00")].state, states[day.us("11:00")].entered) == ("unknown", None)
    assert states[day.us("13:00")].state == "future"
    assert next(hour for hour in first.hours if hour.start_us == day.us("11:00")).entered == nobody
    zones = {zone.zone: zone for zone in summarise(day).zones}
    assert zones["books"].n == 0
    assert zones["attic"].n is None  # no antenna looks at it
    assert zones["attic"].coverage is None


def test_a_zone_that_was_down_all_day_has_no_numbers(day: Day) -> None:
    day.covered("04:00", "12:00", shoes=0)
    day.watermark("12:05")
    shoes = next(zone for zone in summarise(day).zones if zone.zone == "shoes")
    assert (shoes.n, shoes.pass_by, shoes.cart_visits, shoes.coverage) == (None, None, None, 0)


def test_coverage_is_the_share_of_time_so_far(day: Day) -> None:
    day.covered("04:00", "08:00")
    day.covered("08:00", "12:00", door=0.5)
    day.watermark("12:05")
    summary = summarise(day)
    zones = {zone.zone: zone.coverage for zone in summary.zones}
    assert zones["door"] == pytest.approx(0.75)
    assert zones["shoes"] == 1
    assert summary.coverage == pytest.approx((0.75 + 4) / 5)
    assert summary.floors[0].coverage == pytest.approx((0.75 + 2) / 3)


@pytest.mark.parametrize("sections", [{}, {"special_days": [{"date": DATE}]}], ids=["open", "closed"])
@pytest.mark.parametrize("offset", [-1, 0, 1, 2])
@pytest.mark.parametrize("dark", [False, True])
def test_the_summary_says_of_zones_what_their_scorecards_say(
    tmp_path: Path, sections: dict[str, Any], offset: int, dark: bool
) -> None:
    """Open or closed, seen or not, before the first day, on one without readers and on one that has not come yet."""
    day = day_of(tmp_path, **sections)
    busy(day)
    day.visit("unseen end", "shoes", "10:30", 50, censored=True)
    day.covered("04:00", "28:00", shoes=0.3 if dark else 1.0)
    day.watermark("33:00")
    date = DATE + dt.timedelta(days=offset)
    told, scores = summarise(day, date), day.past.counters(date)
    staff, head = day.past.service(date), day.past.head(date)
    day.conn.close()
    assert told.zones == scores.zones
    assert told.coverage == scores.scope.coverage == staff.scope.coverage
    assert [zone.coverage for zone in told.zones] == [zone.coverage for zone in staff.zones]
    of_day = None if sections else pytest.approx(0.3) if dark else 1.0
    assert told.zones[1].coverage == {-1: 0, 0: of_day, 1: 0, 2: None}[offset]
    assert told.zones[1].n == (40 if offset == 0 and not dark else None)
    assert (head.unseen, head.coverage) == (offset in (-1, 1), told.coverage)


def test_a_closed_day_without_readers_is_unseen(tmp_path: Path) -> None:
    day = day_of(tmp_path, special_days=[{"date": DATE}])
    day.covered("04:00", "28:00", **dict.fromkeys((zone[0] for zone in ZONES), 0.0))
    day.watermark("33:00")
    told = day.past.head(DATE)
    day.conn.close()
    assert (told.coverage, told.unseen) == (None, True)


def test_flows_of_the_summary_are_those_of_the_report(day: Day) -> None:
    busy(day)
    for i in range(3):
        day.visit(f"few{i}", "bags", f"15:0{i}", journey=f"15:0{i}")
        day.visit(f"few{i}", "door", f"15:1{i}", journey=f"15:0{i}")
    day.covered("04:00", "28:00")
    day.watermark("33:00")
    report, told = day.past.flows(DATE), summarise(day).flows
    assert told == report.between
    inside = [link for link in report.links if link.from_zone is not None and link.to_zone is not None]
    assert [(link.from_zone, link.to_zone, link.n) for link in told.links] == [
        (link.from_zone, link.to_zone, link.n) for link in inside
    ]
    doors = 2 * report.with_path + 2 * report.without_stop
    assert (told.n, told.n + doors) == (3 * 40 + 3, report.steps)
    assert (told.suppressed_links, told.suppressed_n) == (1, 3)


def test_a_window_that_has_just_ended_is_not_yet_uncovered(day: Day) -> None:
    day.covered("04:00", "12:00")
    day.watermark("12:16")
    assert summarise(day).coverage == 1
    day.watermark("12:31")
    assert summarise(day).coverage == pytest.approx(32 / 33)


def test_the_business_day_is_cut_at_four(day: Day) -> None:
    day.visit("early", "door", "03:59:59")
    day.visit("first", "door", "04:00")
    day.visit("late", "door", "27:59:59")
    assert summarise(day).visits == 2
    assert summarise(day, DATE - dt.timedelta(days=1)).visits == 1


@pytest.mark.parametrize(("date", "hours"), [("2026-03-28", 23), ("2026-10-24", 25), ("2026-06-01", 24)])
def test_days_have_the_hours_that_the_clocks_gave_them(tmp_path: Path, date: str, hours: int) -> None:
    berlin = {"id": "s1", "name": "B", "timezone": "Europe/Berlin"}
    config = StoreConfig.model_validate(
        store_values(tmp_path, store=berlin, thresholds={"business_day_start": "01:00"})
    )
    day = Day(config, dt.date.fromisoformat(date) + dt.timedelta(days=1))
    # Clocks are changed between 2 and 3 in the night to Sunday: within the business day of that Sunday.
    summary = summarise(day, dt.date.fromisoformat(date) + dt.timedelta(days=1))
    day.conn.close()
    assert len(summary.floors[0].hours) == hours
    assert summary.end_us - summary.start_us == hours * 3_600_000_000


def test_flows_need_carriers_not_steps(day: Day) -> None:
    for step in range(8):  # one person to and fro between two zones: eight steps, one carrier
        day.visit("pacer", ("shoes", "bags")[step % 2], f"10:{step:02}", 30, journey="10:00")
    for carrier in range(5):
        day.visit(f"c{carrier}", "door", f"11:0{carrier}", 20, journey=f"11:0{carrier}")
        day.visit(f"c{carrier}", "hall", f"11:1{carrier}", 20, journey=f"11:0{carrier}")
    flows = summarise(day).flows
    assert flows.links == (ZoneTransition("door", "hall", 5),)
    assert (flows.n, flows.suppressed_links, flows.suppressed_n) == (12, 2, 7)


def test_flows_join_the_same_zone_and_leave_out_what_was_not_seen(day: Day) -> None:
    for carrier in range(5):
        tag, start = f"c{carrier}", f"1{carrier}:00"
        day.visit(tag, "door", start, journey=start)
        day.visit(tag, "door", f"1{carrier}:05", journey=start)
        day.visit(tag, "shoes", f"1{carrier}:10", journey=start)
        day.visit(tag, "bags", f"1{carrier}:15", journey=start, censored=True)
        day.visit(tag, "hall", f"1{carrier}:20", journey=start)
        day.visit(tag, "hall", f"1{carrier}:50")  # another journey: not a step
    flows = summarise(day).flows
    assert flows.links == (ZoneTransition("door", "shoes", 5),)
    assert (flows.n, flows.unseen) == (5, 10)


def test_a_step_across_the_cut_belongs_to_the_day_of_its_journey(day: Day) -> None:
    for carrier in range(5):
        day.visit(f"c{carrier}", "door", "03:50", journey="03:50")
        day.visit(f"c{carrier}", "shoes", "04:10", journey="03:50")
    assert summarise(day, DATE - dt.timedelta(days=1)).flows.links == (ZoneTransition("door", "shoes", 5),)
    day.watermark("12:00")
    day.covered("04:00", "12:00")
    summary = summarise(day)
    assert summary.flows.links == ()
    assert summary.floors[0].entered == {"member": 0, "unknown": 0, "cart": 0}  # they were on the floor already


@pytest.mark.parametrize(
    ("tiers", "shown"),
    [
        ({"A": 5, "B": 6, "C": 9}, {"A": 5, "B": 6, "C": 9}),
        ({"A": 4, "B": 6, "C": 9}, {"A": None, "B": None, "C": 9}),  # 19 − 6 − 9 would give the 4 away
        ({"A": 4, "B": 1, "C": 9}, {"A": None, "B": None, "C": 9}),
        ({"C": 3}, {"C": None}),
    ],
)
def test_few_members_of_a_tier_stay_hidden(day: Day, tiers: dict[str, int], shown: dict[str, int | None]) -> None:
    for tier, n in tiers.items():
        for i in range(n):
            day.member(f"{tier}{i}", tier)
            for at in ("10:00", "11:00"):  # seen twice, counted once
                day.visit(f"{tier}{i}", "door", at, cls="member", member=f"M-{tier}{i}")
    day.visit("no-consent", "door", "10:00", cls="member")
    summary = summarise(day)
    assert summary.members_seen == sum(tiers.values())
    assert {tier.tier: tier.members for tier in summary.tiers} == shown


def test_journeys_by_class(day: Day) -> None:
    day.visit("a", "door", "10:00", cls="member")
    day.visit("a", "shoes", "10:10", cls="member", journey="10:00")
    day.visit("b", "shoes", "05:00", journey="03:00")  # began on the day before
    day.visit("c", "door", "12:00", cls="cart")
    day.visit("d", "door", "12:00", cls="staff")
    assert summarise(day).journeys == {"member": 1, "unknown": 0, "cart": 1}


def test_as_of_and_complete(day: Day) -> None:
    assert summarise(day).as_of_us is None
    day.watermark("15:00")
    assert (summarise(day).as_of_us, summarise(day).complete) == (day.us("15:00"), False)
    day.watermark("31:30")
    assert (summarise(day).as_of_us, summarise(day).complete) == (day.us("28:00"), True)


visits = st.lists(
    st.tuples(
        st.integers(0, 5),  # tag
        st.sampled_from([zone[0] for zone in ZONES[:-1]]),  # who is in the attic is no customer
        st.floats(0.5, 400).map(lambda seconds: round(seconds, 3)),
        st.booleans(),  # censored
    ),
    max_size=60,
)


@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(walks=visits)
def test_dwell_and_flows_equal_brute_force(day: Day, walks: list[tuple[int, str, float, bool]]) -> None:
    day.conn.execute("DELETE FROM visit")
    kept._made.clear()  # ids are never given twice otherwise
    facts._kept.clear()
    day.covered("04:00", "23:00")
    day.watermark("23:00")
    for minute, (tag, zone, seconds, censored) in enumerate(walks):
        day.visit(str(tag), zone, f"10:{minute}", seconds, journey="10:00", censored=censored)
    summary = summarise(day)

    floor_of = {zone[0]: zone[3] for zone in ZONES}
    steps: Counter[tuple[str, str]] = Counter()
    carriers: dict[tuple[str, str], set[int]] = {}
    comings: Counter[str] = Counter()
    last: dict[int, tuple[str, bool]] = {}
    for tag, zone, _, censored in walks:
        before = last.get(tag)
        if before is None or floor_of[before[0]] != floor_of[zone]:
            comings[floor_of[zone]] += 1
        if before is not None and before[0] != zone and not before[1] and not censored:
            steps[before[0], zone] += 1
            carriers.setdefault((before[0], zone), set()).add(tag)
        last[tag] = (zone, censored)
    shown = {pair: n for pair, n in steps.items() if len(carriers[pair]) >= 5}
    assert {(link.from_zone, link.to_zone): link.n for link in summary.flows.links} == shown
    assert summary.flows.n == sum(steps.values())
    assert {floor.floor: (floor.entered or {}).get("unknown", 0) for floor in summary.floors} == {
        floor: comings[floor] for floor in ("F1", "F2")
    }
    for score in summary.zones:
        dwells = [seconds for _, of, seconds, censored in walks if of == score.zone and not censored]
        assert score.n == (None if score.zone == "attic" else len(dwells))
        if dwells:
            for q, told in ((0.5, score.median_s), (0.75, score.p75_s)):
                true = max(np.sort(dwells)[int(np.ceil(q * len(dwells))) - 1], 0.5)
                assert told == (None if len(dwells) < 5 else pytest.approx(true, rel=0.05 if true >= 1 else 1))
        if score.n is not None:
            edges = np.digitize(dwells, (5, 30, 120)) if dwells else np.zeros(0, int)
            bands = [int((edges == band).sum()) for band in range(4)]
            assert [score.pass_by, score.touch, score.visit, score.engaged] == bands


def test_csv_opens_in_a_spreadsheet_and_runs_nothing(day: Day) -> None:
    for tag, tier in (("x", "+A"), ("y", "＝A"), ("z", "\u3000＠A")):
        day.member(tag, tier)
        day.visit(tag, "books", "10:00", cls="member", member=f"M-{tag}")
    day.covered("04:00", "12:00")
    day.watermark("12:00")
    text = as_csv(summarise(day), day.config, "en", "dwell")
    assert text.startswith("\ufeffdate,floor,zone,zone_name,kind,n,median_s")
    books = next(row for row in csv.DictReader(io.StringIO(text[1:])) if row["zone"] == "books")
    assert (books["zone_name"], books["n"], books["median_s"], books["coverage"]) == ("'=Books()", "3", "", "1.0")
    for name in TABLES:
        for row in csv.reader(io.StringIO(as_csv(summarise(day), day.config, "en", name)[1:])):
            assert not any(cell.strip()[:1] in "=+-@＝＋－＠" for cell in row if cell), row
    rows = list(csv.DictReader(io.StringIO(as_csv(summarise(day), day.config, "zh")[1:])))
    assert {row["table"] for row in rows} == {"traffic", "dwell", "members"}
    n = [row for row in rows if row["zone"] == "books" and row["measure"] == "n"]
    assert [(row["value"], row["as_of"]) for row in n] == [("3", "2026-03-14T12:00:00+08:00")]
    assert [row["value"] for row in rows if row["table"] == "members"] == ["<5"] * 3


def test_json_says_unknown_as_null(day: Day) -> None:
    day.covered("04:00", "12:00", shoes=0)
    day.watermark("12:00")
    told = json.loads(as_json(summarise(day)))
    shoes = next(zone for zone in told["zones"] if zone["zone"] == "shoes")
    assert shoes["n"] is None
    assert told["service"] is None
    assert told["outbox"]["journey"] == {"sent": 0, "pending": 0}


def test_text_in_both_languages(day: Day) -> None:
    day.visit("a", "shoes", "10:00", 90)
    day.covered("04:00", "12:00")
    day.watermark("12:00")
    english = render(day.config, str(DATE), "text", "en")
    chinese = render(day.config, str(DATE), "text", "zh")
    assert "as of 2026-03-14 12:00:00" in english
    assert any(line.split()[:5] == ["Shoes", "Ground", "1", "–", "–"] for line in english.splitlines())
    assert any(line.split()[:3] == ["Shoes", "–", "–"] for line in english.splitlines())  # one visit is no rate
    assert "Up to 12:00, compared with similar days" in english
    assert "截至 12:00，与同类日期相比" in chinese
    assert "The service is not running" in english
    assert "截至 2026-03-14 12:00:00" in chinese
    assert any(line.split()[:3] == ["鞋", "一楼", "1"] for line in chinese.splitlines())


def test_what_cannot_be_rendered_is_told_in_a_line(tmp_path: Path) -> None:
    config = StoreConfig.model_validate(store_values(tmp_path))
    with pytest.raises(Trouble, match="no database"):
        render(config, None, "text", "en")
    assert list(tmp_path.iterdir()) == []
    Day(config).conn.close()
    with pytest.raises(Trouble, match="YYYY-MM-DD"):
        render(config, "14.3.2026", "text", "en")
    with pytest.raises(Trouble, match="0999"):
        render(config, "0999-01-01", "text", "en")
    with pytest.raises(Trouble, match="language"):
        render(config, str(DATE), "text", "fr")


def test_today_is_the_present_business_day(day: Day) -> None:
    told = json.loads(render(day.config, None, "json", "en"))
    assert set(told["insights"]) == {field.name for field in fields(Insights)}
    present = business_days(day.config).date(int(dt.datetime.now().timestamp() * 1e6))
    assert abs(dt.date.fromisoformat(told["date"]) - present) <= dt.timedelta(days=1)


def test_the_database_is_only_read(day: Day) -> None:
    conn = connect(day.config.database.path)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        conn.execute("DELETE FROM visit")
    conn.close()


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    config = StoreConfig.model_validate(store_values(tmp_path))
    config.database.path.write_bytes(b"not a database at all, but long enough to be taken for one" * 100)
    with pytest.raises(Trouble, match="cannot read the database"):
        connect(config.database.path)


@pytest.mark.parametrize(
    ("share", "text"), [(None, "–"), (0, "0 %"), (0.001, "1 %"), (0.5, "50 %"), (0.999, "99 %"), (1, "100 %")]
)
def test_per_cent_never_rounds_to_all_or_nothing(share: float | None, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "–"), (0.4, "0 s"), (59.4, "59 s"), (59.6, "1:00"), (125, "2:05"), (3725, "1:02:05")]
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
    assert duration(seconds, "zh") == text.replace(" s", " 秒")
