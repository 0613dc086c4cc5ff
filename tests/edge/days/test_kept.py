"""What is stored of days that are over, against what their visits say."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
from shopdays import DATE, Day, busy, store_values, zone

from config import StoreConfig
from edge.database.writer import Database
from edge.days import kept
from edge.days.facts import DayFacts
from edge.days.history import History
from edge.service import housekeeping


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
                assert (x.steps == y.steps).all()
                assert (x.step_journeys == y.step_journeys).all()
                assert (x.unseen, x.unseen_paths, x.pathless) == (y.unseen, y.unseen_paths, y.pathless)
                assert x.unseen_steps == y.unseen_steps
            elif field.name in ("tier_wait", "tier_assist"):
                assert {k: v.tolist() for k, v in x.items()} == {k: v.tolist() for k, v in y.items()}
            else:
                assert x == y, field.name


def test_stored_facts_are_those_that_were_made(day: Day) -> None:
    busy(day)
    day.member("m", "A")
    day.visit("m", "shoes", "12:00", 90, cls="member", member="M-m")
    day.visit("s", "shoes", "12:01", 600, cls="staff")
    day.visit("x", "bags", "09:00", 36_000)
    day.covered("04:00", "28:00", bags=0.3)
    day.watermark("33:00")
    made = day.past.make(DATE)
    before = day.past.counters(DATE), day.past.flows(DATE), day.past.tiers(DATE)
    kept.save(day.conn, day.config, made)
    loaded = kept.load(day.past, [DATE])[DATE]
    same(made, loaded)
    assert made.by_hour is not None
    assert (made.by_hour.dwell.sum(axis=0) == made.totals.dwell).all()
    assert (made.by_hour.wait.sum(axis=0) == made.totals.wait).all()
    for what in ("dwell", "wait"):
        told = getattr(made.by_hour, what)
        assert (kept.histograms(day.past, [DATE], what=what)[: len(told)] == told).all()
        assert (kept.histograms(day.past, [DATE], 8, what)[0] == told[8]).all()
    ((_, hours),) = kept.hours(day.past, [DATE])
    for field in fields(hours):
        assert (getattr(hours, field.name) == getattr(made.by_hour.hours, field.name)).all(), field.name
    ranked = sorted(made.totals.flows.paths.items(), key=lambda item: (-item[1], item[0]))
    assert len(ranked) == 2
    for top in (1, 2, 3):
        assert kept.paths(day.past, [DATE], top) == (ranked[:top], sum(n for _, n in ranked))
    assert loaded.complete
    day.conn.execute("DELETE FROM visit")  # now only the stored facts know
    assert before == (
        day.past.counters(DATE),
        day.past.flows(DATE),
        day.past.tiers(DATE),
    )


def test_stored_facts_follow_their_zones(day: Day, tmp_path: Path) -> None:
    busy(day)
    day.covered("04:00", "28:00")
    day.watermark("33:00")
    before = {z.zone: z for z in day.past.counters(DATE).zones}
    kept.save(day.conn, day.config, day.past.make(DATE))
    values = store_values(tmp_path)
    values["zones"] = [{**values["zones"][0], "id": "new"}, *reversed(values["zones"][1:])]  # door is no more
    values["readers"][0]["antennas"] = values["readers"][0]["antennas"][1:]
    moved = StoreConfig.model_validate(values)
    found = {z.zone: z for z in History(day.conn, moved).counters(DATE).zones}
    assert found["new"].n is None
    assert all(asdict(found[name]) == asdict(before[name]) for name in ("shoes", "bags", "hall", "books"))
    report = History(day.conn, moved).flows(DATE)
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
    kept.save(day.conn, day.config, day.past.make(DATE))
    other = StoreConfig.model_validate(store_values(tmp_path, thresholds={"def_version": 2, "engaged_s": 151}))
    assert zone(day, "shoes").engaged == 20
    shoes = next(z for z in History(day.conn, other).counters(DATE).zones if z.zone == "shoes")
    assert (shoes.visit, shoes.engaged) == (40, 0)
    assert History(day.conn, other).missing() == DATE
    assert day.past.missing() is None


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
        assert day.past.missing() == DATE
        assert await housekeeping.sum_up(database, day.config)
        assert zone(day, "shoes").n == 4
        gone = await database.write(lambda conn: kept.prune(conn, day.config, day.us("12:00") + 500 * 86_400_000_000))
        assert gone == 2
    finally:
        database.close()


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
    assert day.past.counters(DATE).journeys == 46


async def test_the_day_in_progress_is_summed_up_for_a_while(day: Day) -> None:
    busy(day)
    day.covered("04:00", "12:00")
    day.watermark("12:30")
    made = zone(day, "shoes"), day.past.hours(DATE), day.past.flows(DATE), day.past.occupancy(DATE).floors
    database = Database(day.config.database.path, store="s1", quota_mb=64)
    try:
        assert await housekeeping.sum_up_so_far(database, day.config)
        assert not await housekeeping.sum_up_so_far(database, day.config), "nothing has happened since"
        kept._made.clear()
        busy(day, hour=11, people=7)  # not in the stored facts
        assert (zone(day, "shoes"), day.past.hours(DATE), day.past.flows(DATE), day.past.occupancy(DATE).floors) == made
        assert kept._made == {}, "nothing was computed"
        day.watermark("12:35")
        summary = day.past.summary(DATE)
        assert (summary.as_of_us, summary.complete, zone(day, "shoes").n) == (day.us("12:30"), False, 40)
        day.watermark("12:46")  # they are too old now
        summary = day.past.summary(DATE)
        assert (summary.as_of_us, zone(day, "shoes").n) == (day.us("12:46"), 47)
        assert await housekeeping.sum_up_so_far(database, day.config)
        assert zone(day, "shoes").n == 47
        day.covered("12:00", "28:00")
        day.watermark("33:00")
        assert day.past.missing() == DATE
        assert await housekeeping.sum_up(database, day.config)
        assert day.past.missing() is None
        assert day.past.summary(DATE).complete
    finally:
        database.close()
