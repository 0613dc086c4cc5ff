"""Windows told to the CRM against the visits they are of: told anew where they have become something else."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter
from shopdays import DATE, Day

from config.facts import TAG_CLASSES, WINDOW_US
from dwell.aggregates import bins, tally
from dwell.layout import Settings
from dwell.stays import Span
from edge.access.users import Role, Users, users_path
from edge.access.verdicts import say
from edge.crm import corrections
from edge.database.reader import Past
from edge.database.writer import Database
from edge.days.facts import read_stays
from edge.intake.windows import COUNTS
from edge.service import housekeeping
from edge.store import layouts
from edge.store.business_days import business_days
from sync import outbox, quota
from sync.contract import Event, ZoneWindow
from sync.quota import GIVEN_UP, merge_windows

EVENT: TypeAdapter[Any] = TypeAdapter(Event)
MEMBER = TAG_CLASSES.index("member")


def tell_windows(day: Day) -> None:
    """The windows as the service tells them, of the visits that are there."""
    config = day.config
    span = Span(*business_days(config).bounds_us(DATE))
    stays, _ = read_stays(Past(day.conn, config), span)
    for window_us in span.windows_us.tolist():
        for row in tally(stays, stays["exit_us"], window_us, len(config.zones), Settings()):
            values = [int(row[name]) for name in COUNTS]
            if not any(values) and row["tag_class"] != MEMBER:
                continue
            zone = config.zones[row["zone"]].id
            day.conn.execute(
                f"INSERT INTO aggregate VALUES (?, ?, ?, {', '.join('?' * len(COUNTS))}, 0.75, 1, ?)",
                (window_us, zone, int(row["tag_class"]), *values, row["histogram"].astype("<u4").tobytes()),
            )
    day.watermark("33:00")


async def correct(day: Day) -> list[ZoneWindow]:
    """What the CRM is told anew, by the service's own housekeeping."""
    database = Database(day.config.database.path, store="s1", quota_mb=64)
    try:
        while await housekeeping.sum_up(database, day.config):
            pass
        while await housekeeping.tell_corrections(database, day.config):
            pass
        assert not await housekeeping.tell_corrections(database, day.config)
    finally:
        database.close()
    told = [json.loads(row[0]) for row in day.conn.execute("SELECT payload FROM outbox ORDER BY class, seq")]
    day.conn.execute("DELETE FROM outbox_agg")
    return [EVENT.validate_python(one) for one in told if one["type"] == "zone_window"]


def of(told: list[ZoneWindow], zone: str, day: Day, at: str, cls: str = "unknown") -> ZoneWindow:
    (one,) = (w for w in told if (w.zone, w.tag_class, w.window_us) == (zone, cls, day.us(at)))
    return one


async def test_windows_that_the_visits_agree_with_are_not_told_again(day: Day) -> None:
    day.visit("c", "shoes", "10:05", 2000)
    day.visit("m", "bags", "10:14:50", 20, cls="member")
    day.visit("badge", "bags", "03:59:50", 20, cls="staff")
    day.visit("goods", "bags", "10:15", 20, cls="merchandise")
    tell_windows(day)
    assert await correct(day) == []


async def test_a_visit_that_ended_late_changes_the_windows_it_is_of(day: Day) -> None:
    day.visit("c", "shoes", "10:05", 200)
    tell_windows(day)
    assert await correct(day) == []
    day.visit("held", "shoes", "10:10", 600, censored=True)  # 10:10 to 10:20, decided long after
    told = await correct(day)
    assert len(told) == 2
    first, second = of(told, "shoes", day, "10:00"), of(told, "shoes", day, "10:15")
    assert (first.entered, first.ended, first.engaged, first.present_us) == (2, 1, 1, 500_000_000)
    assert (second.entered, second.ended, second.censored, second.present_us) == (0, 1, 1, 300_000_000)
    assert {one.revision for one in told} == {2}
    assert (first.coverage, first.def_version, first.business_date) == (0.75, 1, DATE.isoformat())
    assert first.histogram == {str(int(bins(np.array([200_000_000]))[0])): 1}
    assert await correct(day) == []


async def test_passages_that_came_after_their_window_was_told_are_told(day: Day) -> None:
    tell_windows(day)
    for at, passages, told in (("10:00", 5, 3), ("10:15", 4, 4)):
        row = (day.us(at), passages, WINDOW_US, told, WINDOW_US)
        day.conn.execute(
            "INSERT INTO door (window_us, reader, port, zone, passages, covered_us, told, told_us)"
            " VALUES (?, 'r1', 1, 'shoes', ?, ?, ?, ?)",
            row,
        )
    (one,) = await correct(day)
    assert (one.zone, one.tag_class, one.window_us, one.revision) == ("shoes", "member", day.us("10:00"), 2)
    assert one.door is not None
    assert one.door.passages == 5
    assert day.conn.execute("SELECT told FROM door ORDER BY window_us").fetchall() == [(5,), (4,)]


async def test_a_stuck_tag_is_taken_out_of_its_windows_and_put_back_by_a_verdict(day: Day) -> None:
    day.visit("c", "bags", "10:05", 60)
    for hour in range(9, 18):
        day.visit("all day", "bags", f"{hour}:00", 3300, journey="09:00")
    tell_windows(day)
    out = await correct(day)
    assert {(one.zone, one.tag_class, one.revision) for one in out} == {("bags", "unknown", 2)}
    ten = of(out, "bags", day, "10:00")
    assert (ten.entered, ten.present_us, ten.peak) == (1, 60_000_000, 1)
    Users(users_path(day.config)).put("li", Role.MANAGER, "correct horse battery")
    (suspect,) = day.past.suspects(DATE)
    say(day.config, DATE, bytes.fromhex(suspect.tag), confirmed=False)
    back = await correct(day)
    assert {one.window_us for one in back} == {one.window_us for one in out}
    assert {one.revision for one in back} == {3}
    assert of(back, "bags", day, "10:00").entered == 2


async def test_many_windows_are_told_in_several_transactions_and_none_is_left(
    day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell_windows(day)
    assert await correct(day) == []
    for n in range(30):
        day.visit(f"late {n}", "shoes", f"{9 + n // 4}:{15 * (n % 4)}", 30)
    monkeypatch.setattr(corrections, "AT_ONCE", 7)
    assert len(await correct(day)) == 30


async def test_a_window_that_stands_in_a_longer_one_is_left_alone(day: Day) -> None:
    day.visit("c", "shoes", "10:05", 60)
    tell_windows(day)
    rows = "SELECT window_us, zone FROM aggregate WHERE tag_class = 1 AND zone = 'shoes'"
    windows = [
        window(day, zone=zone, window_us=window_us)
        for window_us, zone in day.conn.execute(rows).fetchall()
        if window_us < day.us("12:00")
    ]
    outbox.append(day.conn, "agg", windows)
    while merge_windows(day.conn):
        pass
    day.conn.execute("DELETE FROM outbox_agg")
    day.visit("late", "shoes", "10:05", 60)
    day.visit("later", "shoes", "13:05", 60)
    assert [one.window_us for one in await correct(day)] == [day.us("13:00")]


def window(day: Day, **values: Any) -> ZoneWindow:
    none = dict.fromkeys(COUNTS, 0) | {"coverage": 1.0, "histogram": {}, "def_version": 1}
    place = {"floor": "F1", "tag_class": "member", "length_us": WINDOW_US, "business_date": DATE.isoformat()}
    return ZoneWindow.model_validate(none | place | values)


def test_corrections_are_given_up_before_they_could_be_counted_beside_a_longer_window(day: Day) -> None:
    first, second = (window(day, zone="shoes", window_us=day.us(at), entered=1) for at in ("10:00", "10:15"))
    anew = first.model_copy(update={"revision": 2, "entered": 5})
    outbox.append(day.conn, "agg", [first, second, anew])
    while merge_windows(day.conn):
        pass
    (payload,) = (row[0] for row in day.conn.execute("SELECT payload FROM outbox"))
    merged = EVENT.validate_json(payload)
    assert (merged.entered, merged.length_us, merged.revision) == (2, 2 * WINDOW_US, 1)
    assert day.conn.execute("SELECT first, last, reason FROM lost WHERE reason = ?", (GIVEN_UP,)).fetchall() == [
        (3, 3, GIVEN_UP)
    ]


def test_corrections_that_come_long_after_what_they_correct_are_given_up_with_it(
    day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota, "MERGE_ROWS", 2)
    morning = [window(day, zone="shoes", window_us=day.us(at), entered=1) for at in ("10:00", "10:15")]
    evening = [window(day, zone="shoes", window_us=day.us(at), entered=1) for at in ("20:00", "20:15")]
    anew = [one.model_copy(update={"revision": 11, "entered": 5}) for one in (morning[0], evening[0])]
    outbox.append(day.conn, "agg", [*morning, *evening, *anew])
    assert merge_windows(day.conn) == 2  # there is room enough now
    left = [EVENT.validate_json(row[0]) for row in day.conn.execute("SELECT payload FROM outbox ORDER BY seq")]
    assert [(one.window_us, one.entered, one.revision) for one in left] == [
        (day.us("10:00"), 2, 1),
        (day.us("20:00"), 1, 1),
        (day.us("20:15"), 1, 1),
        (day.us("20:00"), 5, 11),
    ]
    assert day.conn.execute("SELECT first, last FROM lost WHERE reason = ?", (GIVEN_UP,)).fetchall() == [(5, 5)]
    held = "SELECT bytes, (SELECT sum(length(CAST(payload AS BLOB))) FROM outbox) FROM outbox_class WHERE class = 2"
    assert len(set(day.conn.execute(held).fetchone())) == 1


async def test_windows_that_were_merged_since_they_were_looked_at_are_left_alone(day: Day) -> None:
    tell_windows(day)
    assert await correct(day) == []
    day.visit("late", "shoes", "10:05", 60)
    day.visit("later", "shoes", "13:05", 60)
    database = Database(day.config.database.path, store="s1", quota_mb=64)
    while await housekeeping.sum_up(database, day.config):
        pass
    database.close()
    found = corrections.corrections(day.past)
    assert found is not None
    assert [event.window_us for event, _ in found.windows] == [day.us("10:00"), day.us("13:00")]
    day.conn.execute("INSERT INTO fact VALUES (?, ?)", (quota.MERGED_UNTIL, str(day.us("12:00"))))
    assert corrections.tell(day.conn, found)
    (payload,) = (row[0] for row in day.conn.execute("SELECT payload FROM outbox"))
    assert EVENT.validate_json(payload).window_us == day.us("13:00")


def test_windows_know_their_layout_and_days_all_of_theirs(day: Day) -> None:
    config = day.config
    layouts.note(day.conn, config, day.us("-24:00"))
    layouts.note(day.conn, config, day.us("09:00"))  # a restart: nothing new
    moved = config.model_copy(
        update={"zones": (config.zones[0].model_copy(update={"kind": "aisle"}), *config.zones[1:])}
    )
    named = config.model_copy(
        update={"floors": (config.floors[0].model_copy(update={"name": "G"}), *config.floors[1:])}
    )
    assert layouts.version(named) == layouts.version(config) != layouts.version(moved)
    layouts.note(day.conn, moved, day.us("12:00"))
    told = [json.loads(row[0]) for row in day.conn.execute("SELECT payload FROM outbox ORDER BY seq")]
    assert [(one["type"], one["floor"], one["floors"]) for one in told] == [
        ("layout", "F1", 2),
        ("layout", "F2", 2),
    ] * 2
    assert told[2]["zones"][0] == {
        "zone": "door",
        "name": {"zh": "正门", "en": "Door"},
        "kind": "aisle",
        "antennas": 1,
    }
    assert told[1]["zones"][-1]["antennas"] == 0
    span = business_days(config).bounds_us(DATE)
    both = layouts.during(day.conn, *span)
    assert [one.version for one in both] == [layouts.version(config), layouts.version(moved)]
    assert [one.from_us for one in both] == [day.us("-24:00"), day.us("12:00")]
    assert [one.version for one in layouts.during(day.conn, day.us("12:00"), day.us("13:00"))] == [both[1].version]
    assert layouts.current(day.conn) == layouts.version(moved)


def test_a_clock_set_back_does_not_bring_an_old_layout_back(day: Day) -> None:
    layouts.note(day.conn, day.config, day.us("12:00"))
    fewer = day.config.model_copy(update={"zones": day.config.zones[1:]})
    layouts.note(day.conn, fewer, day.us("11:00"))
    assert layouts.current(day.conn) == layouts.version(fewer)
