"""What the CRM is told of business days: once, again when it changed, and the same numbers as the page."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from shopdays import DATE, Day, morning, store_values, tell
from thorough import examples

from config import StoreConfig
from config.facts import TAG_CLASSES
from config.model import Privacy
from edge.access.users import Role, Users, users_path
from edge.access.verdicts import say
from edge.crm import day_news
from edge.database.writer import Database
from edge.days import kept
from edge.days.history import History
from edge.service import housekeeping
from sync.contract import Event
from sync.quota import merge_windows

EVENT: TypeAdapter[Any] = TypeAdapter(Event)
ONE = dt.timedelta(days=1)
ZONES = ("door", "shoes", "bags", "hall", "books")
VISITS = st.lists(
    st.tuples(
        st.sampled_from([("member", "A"), ("member", "B"), ("unknown", None), ("staff", None)]),
        st.integers(0, 5),
        st.sampled_from(ZONES),
        st.integers(0, 24 * 60 - 1),
        st.sampled_from([0, 3, 40, 200, 5_000, 60_000, 100_000]),
        st.booleans(),
    ),
    max_size=25,
)
"""Class and tier, tag, zone, minute of the business day, seconds, censored."""
UNWATCHED = st.lists(
    st.tuples(st.sampled_from(ZONES), st.integers(0, 95), st.sampled_from([0.0, 0.33, 0.79])), max_size=12
)
"""Zone, window of the business day, coverage."""


@pytest.fixture
def day(tmp_path: Path) -> Iterator[Day]:
    trial = {"id": "sale", "name": "Sale", "zones": ["shoes"], "first_day": DATE, "last_day": DATE + 3 * ONE}
    targets = [{"tier": "A", "wait_s": 60, "assist_s": 90}]
    day = Day(StoreConfig.model_validate(store_values(tmp_path, promotions=[trial], service_targets=targets)))
    yield day
    day.conn.close()


async def test_a_day_that_is_over_is_told_with_the_pages_numbers(day: Day) -> None:
    morning(day)
    assert day.past.counters(DATE).zones[1].repeat is None, "nothing is known of the days before"
    day.conn.execute(
        "INSERT INTO journey (tag, tag_class, start_us, end_us, censored, path) VALUES (x'00', 0, ?, ?, 0, '[]')",
        (day.us("10:00") - 3 * 86_400_000_000,) * 2,
    )
    told = await tell(day)
    kinds = Counter(event.type for event in told)
    assert kinds == {
        "floor_day": 2,
        "flow_day": 1,
        "scorecard": 6,
        "service_day": 6,
        "tier_day": 1,
        "trial": 1,
        "suspect_day": 1,
    }
    assert {event.revision for event in told} == {1}
    of = {(event.type, getattr(event, "zone", getattr(event, "floor", ""))): event for event in told}
    score = next(zone for zone in day.past.counters(DATE).zones if zone.zone == "shoes")
    card = of["scorecard", "shoes"]
    assert (card.n, card.engaged, card.rank_best) == (score.n, score.engaged, score.rank and score.rank[0])
    assert score.draw is not None
    assert (card.draw.k, card.draw.n) == (score.draw.k, score.draw.n)
    assert card.repeat.n == 6
    assert of["scorecard", "attic"].n is None
    walked = day.past.flows(DATE)
    assert [(link.from_zone, link.to_zone, link.n) for link in of["flow_day", ""].links] == [
        (link.from_zone, link.to_zone, link.n) for link in walked.links
    ]
    (tier,) = of["tier_day", ""].tiers
    mine = day.past.tiers(DATE).tiers[0]
    assert mine.wait_kept is not None
    assert (tier.wait_target_s, tier.wait_kept.k, tier.wait_kept.n) == (60, mine.wait_kept.k, 6)
    assert tier.assist_kept.k == 6
    shoes = of["service_day", "shoes"]
    assert sum(hour.visits or 0 for hour in shoes.hours) == shoes.wanted == 46
    assert sum(hour.staff_s or 0 for hour in shoes.hours) == 6 * 120
    ground = of["floor_day", "F1"]
    assert sum(window.unknown or 0 for window in ground.windows) == 40
    assert len(ground.windows) == 96
    (stuck,) = of["suspect_day", ""].tags
    assert (stuck.reasons, stuck.zone) == (["stuck", "long"], "bags")
    assert b"all day".hex() not in stuck.tag, "nothing that is known by it elsewhere"
    assert of["trial", ""].phases[0].change is None


async def test_suspected_staff_are_counted_and_not_told_of_one_by_one(day: Day) -> None:
    morning(day)
    for hour in range(9, 18):
        for n, zone in enumerate(("door", "shoes", "bags", "hall", "books")):
            day.visit("no badge", zone, f"{hour}:{12 * n}", 700, journey="09:00")
    suspects = {one.tag: one.reasons for one in day.past.suspects(DATE)}
    assert suspects[b"no badge".hex()] == ("long",)
    told = next(event for event in await tell(day) if event.type == "suspect_day")
    assert (told.n, [tag.reasons for tag in told.tags]) == (2, [["stuck", "long"]])


def walk(day: Day, tag: str, zones: str, cls: str, at: str = "10:00") -> None:
    """A journey through zones, a minute in each."""
    start_us = day.us(at)
    times = [start_us + 70_000_000 * n for n in range(len(zones.split()))]
    path = [[zone, at_us, at_us + 60_000_000] for zone, at_us in zip(zones.split(), times, strict=True)]
    day.conn.execute(
        "INSERT INTO journey (tag, tag_class, start_us, end_us, censored, path) VALUES (?, ?, ?, ?, 0, ?)",
        (tag.encode(), TAG_CLASSES.index(cls), start_us, path[-1][2], json.dumps(path)),
    )


def walked(day: Day) -> None:
    morning(day)
    for n in range(6):
        walk(day, f"u{n}", "door hall shoes bags", "unknown")
        walk(day, "one who comes often", "door books shoes", "unknown", f"1{n}:00")
    for n in range(4):
        walk(day, f"few{n}", "door books", "unknown")
        walk(day, f"s{n}", "shoes bags", "staff")
    walk(day, "s4", "shoes bags", "staff")
    for n in range(9):
        walk(day, f"m{n}", "door bags", "member")
    walk(day, "all day", "door hall shoes bags", "unknown")


async def test_ways_of_others_are_told_only_if_the_store_says_so_and_of_many_at_once(day: Day) -> None:
    """By default of nobody; and never one that few carriers took, however often."""
    walked(day)
    assert not [event for event in await tell(day) if event.type in ("way_day", "journey")]
    day.config = day.config.model_copy(update={"privacy": Privacy(ways=("unknown", "staff"))})
    told = {event.tag_class: event for event in await tell(day) if event.type == "way_day"}
    assert {name: [(way.zones, way.n) for way in event.ways] for name, event in told.items()} == {
        "unknown": [(["door", "shoes", "bags"], 6)],  # the tag that lies there all day is nobody
        "staff": [(["shoes", "bags"], 5)],
    }
    assert told["unknown"].with_path == 16
    assert told["unknown"].small_cell == 5


@pytest.mark.parametrize(("small_cell", "ways"), [(4, 2), (0, 2), (7, 0)])
def test_one_carriers_way_is_never_told_however_low_the_threshold(day: Day, small_cell: int, ways: int) -> None:
    walked(day)
    limits = day.config.thresholds.model_copy(update={"small_cell": small_cell})
    found = History(day.conn, day.config.model_copy(update={"thresholds": limits})).ways(DATE, "unknown")
    assert len(found.counts) == ways


async def test_nothing_is_told_twice_and_what_changed_is_the_next_revision(day: Day) -> None:
    morning(day)
    assert await tell(day)
    assert await tell(day) == []
    Users(users_path(day.config)).put("li", Role.MANAGER, "correct horse battery")
    (suspect,) = day.past.suspects(DATE)
    say(day.config, DATE, bytes.fromhex(suspect.tag), confirmed=False)
    told = await tell(day)
    assert {event.revision for event in told} == {2}
    bags = next(event for event in told if event.type == "scorecard" and event.zone == "bags")
    assert bags.n == 9
    assert next(event for event in told if event.type == "suspect_day").tags[0].confirmed is False
    day.visit("late", "door", "15:00", cls="staff")  # in nobody's numbers but the staff's
    day.visit("goods", "door", "15:00", cls="merchandise")
    assert {event.type for event in await tell(day)} == {event.type for event in told} - {"trial"}
    day.visit("more goods", "door", "15:00", cls="merchandise")
    assert await tell(day) == []  # summed up anew, and the same


async def test_sales_are_told_beside_visits_and_again_when_they_change(day: Day) -> None:
    morning(day)
    before = {event.zone: event for event in await tell(day) if event.type == "scorecard"}
    assert {event.sales for event in before.values()} == {None}
    for hour in range(4, 28):
        day.sold("shoes", f"{hour}:00", 2 if hour < 20 else 0)
    told = {event.zone: event for event in await tell(day) if event.type == "scorecard"}
    assert {event.revision for event in told.values()} == {2}
    assert told["bags"].sales is None
    found = told["shoes"].sales
    score = next(zone for zone in day.past.counters(DATE).zones if zone.zone == "shoes").sales
    assert score is not None
    assert score.per_visit is not None
    assert (found.days, found.tickets, found.units, found.amount) == (1, 32, None, None)
    assert (found.per_visit.k, found.per_visit.n) == (score.per_visit.k, score.per_visit.n) == (32, 46)
    assert found.per_visit.high == pytest.approx(score.per_visit.high, abs=1e-4)
    assert await tell(day) == []
    day.sold("shoes", "10:00", 2)
    assert await tell(day) == [], "the same again is no news"
    day.sold("shoes", "10:00", 3)
    again = {event.zone: event for event in await tell(day) if event.type == "scorecard"}
    assert (again["shoes"].revision, again["shoes"].sales.tickets) == (3, 33)


async def test_tickets_of_a_promotion_are_told_if_sales_are_known(tmp_path: Path) -> None:
    """Four days with three times the tickets of the same weekdays before."""
    promotion = {"id": "sale", "name": "Sale", "zones": ["shoes"], "first_day": DATE - 3 * ONE, "last_day": DATE}
    day = Day(StoreConfig.model_validate(store_values(tmp_path, promotions=[promotion])))
    backs = [back + week for back in range(4) for week in (0, 7, 14)]
    for back in backs:
        for i in range(30):
            for zone in ("shoes", "bags"):
                day.visit(f"{back} {zone} {i}", zone, f"{10 - 24 * back + i % 8}:{i}", 60)
        day.covered(f"{4 - 24 * back}:00", f"{28 - 24 * back}:00")
    day.watermark("33:00")

    async def trial() -> Any:
        return next((event for event in await tell(day) if event.type == "trial"), None)

    first = await trial()
    assert (first.tickets, len(first.phases)) == ([], 4)
    for back in backs:
        for hour in range(4, 28):
            for zone in ("shoes", "bags", "books"):
                day.sold(zone, f"{hour - 24 * back}:00", 6 if (back < 4 and zone == "shoes") else 2)
    told = await trial()
    page = next(effect for effect in day.past.promotions()[0].effects if effect.measure == "tickets")
    assert told.revision == 2
    assert page.during.change is not None
    during, after = told.tickets
    assert (during.phase, during.days_used, during.days_left_out) == ("during", 4, 0)
    assert during.change == pytest.approx(page.during.change.change, abs=1e-4)
    assert during.change == pytest.approx(2, abs=0.1)
    assert (during.low, during.high) == pytest.approx((page.during.change.low, page.during.change.high), abs=1e-4)
    assert (after.phase, after.change) == ("after", None)
    day.sold("bags", f"{10 - 24 * 17}:00", 90)
    assert (await trial()).revision == 3, "sales of weeks ago change what it is compared with"
    day.conn.close()


async def test_sundays_tell_the_week(day: Day) -> None:
    morning(day)
    sunday = Day(day.config, DATE + ONE)  # 15 March 2026
    sunday.visit("s", "shoes", "11:00", 150)
    sunday.covered("04:00", "28:00")
    sunday.watermark("33:00")
    sunday.conn.close()
    week = [event for event in await tell(day) if event.type == "scorecard" and event.first_day != event.last_day]
    assert {(event.first_day, event.last_day, event.days) for event in week} == {("2026-03-09", "2026-03-15", 2)}
    assert next(event.n for event in week if event.zone == "shoes") == 47


async def test_days_are_left_alone_when_windows_are_merged(day: Day) -> None:
    morning(day)
    database = Database(day.config.database.path, store="s1", quota_mb=64)
    try:
        while await housekeeping.sum_up(database, day.config) or await housekeeping.tell_days(database, day.config):
            pass
        before = day.conn.execute("SELECT payload FROM outbox ORDER BY class, seq").fetchall()
        while await database.write(merge_windows):
            pass
    finally:
        database.close()
    assert day.conn.execute("SELECT payload FROM outbox ORDER BY class, seq").fetchall() == before


def test_what_was_told_of_days_long_gone_is_forgotten(day: Day) -> None:
    day.conn.execute("INSERT INTO told VALUES ('day/2024-01-01', '', '', 1), ('trials', '', '', 1)")
    with closing(day.conn.cursor()):
        assert day_news.forget(day.conn, day.config, DATE) == 1
    assert day.conn.execute("SELECT key FROM told").fetchall() == [("trials",)]


@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(VISITS, UNWATCHED)
def test_whatever_a_day_was_like_it_can_be_told(day: Day, visits: Any, unwatched: Any) -> None:
    """Shares are of one and the same: nothing is more than all."""
    for name in ("visit", "journey", "aggregate", "directory", "told", "day_summary"):
        day.conn.execute(f"DELETE FROM {name}")
    for (cls, tier), number, zone, minute, seconds, censored in visits:
        tag = f"{cls}{tier}{number}"
        member = f"M-{tag}" if tier else None
        if tier and not day.conn.execute("SELECT 1 FROM directory WHERE member = ?", (member,)).fetchone():
            day.member(tag, tier)
        at = f"{4 + minute // 60}:{minute % 60}"
        day.visit(tag, zone, at, seconds, cls=cls, member=member, censored=censored)
    day.covered("04:00", "28:00")
    for zone, window, share in unwatched:
        start_us = day.us("04:00") + 900_000_000 * window
        day.conn.execute("UPDATE aggregate SET coverage = ? WHERE zone = ? AND window_us = ?", (share, zone, start_us))
    day.watermark("33:00")
    config = StoreConfig.model_validate(day.config.model_dump(by_alias=True) | {"thresholds": {"small_cell": 0}})
    past = History(day.conn, config)
    kept.save(day.conn, config, past.make(DATE))
    events: list[Any] = []
    while (item := day_news.news(past)) is not None:
        day_news.tell(day.conn, item)
        events += item.events
    (mix,) = [event for event in events if event.type == "tier_day"]
    for share in ("visit_share", "dwell_share"):
        assert sum(getattr(tier, share) or 0 for tier in mix.tiers) <= 1.001


def test_forty_members_of_one_tier_and_a_window_that_was_hardly_watched(day: Day) -> None:
    for i in range(40):
        day.member(f"m{i}", "A")
        day.visit(f"m{i}", "door", f"10:{i}", 20, cls="member", member=f"M-m{i}")
        day.visit(f"m{i}", "shoes", f"10:{i}:30", 100, cls="member", member=f"M-m{i}", journey=f"10:{i}")
    day.covered("04:00", "28:00")
    day.conn.execute("UPDATE aggregate SET coverage = 0.33 WHERE zone = 'shoes' AND window_us = ?", (day.us("10:30"),))
    day.watermark("33:00")
    (tier,) = day.past.tiers(DATE).tiers
    assert (tier.visits, tier.visit_share, tier.dwell_share) == (80, 1.0, 1.0)
