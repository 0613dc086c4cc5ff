"""Where staff was missing: unserved visits, waits and proposals, against days written by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from shopdays import DATE, Day, day_of

from dwell.compare import share
from edge.days import kept
from edge.reports import sentences
from edge.words.tables import Words


def served(day: Day, zone: str, hour: int, people: int, staff: bool) -> None:
    """People who stop at a zone for two minutes each, with or without a badge for the hour."""
    for i in range(people):
        day.visit(f"{zone}{hour}-{i}", zone, f"{hour}:{i}", 60, journey=f"{hour}:{i}")
    if staff:
        day.visit(f"badge {zone} {hour}", zone, f"{hour}:00", 3600, cls="staff")


def test_more_staff_is_proposed_where_customers_met_nobody(tmp_path: Path) -> None:
    day = day_of(tmp_path)
    for hour in (10, 11, 12):
        served(day, "shoes", hour, 20, staff=True)
    for hour in (15, 16):
        served(day, "books", hour, 40, staff=False)
    served(day, "books", 18, 3, staff=False)
    day.covered("04:00", "28:00")
    day.watermark("33:00")
    found = day.past.need(DATE)
    upstairs = next(floor for floor in found.floors if floor.floor == "F2")
    hours = {hour.start_us: hour for hour in upstairs.hours}
    three = hours[day.us("15:00")]
    assert (three.wanted, three.unserved, three.wait_s) == (40, 40, None)
    assert (upstairs.wanted, upstairs.unserved) == (83, 83)
    assert three.share == share(40, 40)
    assert upstairs.share == share(83, 83)
    assert hours[day.us("18:00")].share is None, "of three visits no share is told"
    assert found.share == share(83, 143)
    downstairs = next(floor for floor in found.floors if floor.floor == "F1")
    assert (downstairs.wanted, downstairs.unserved) == (60, 0)
    assert found.per_hour == pytest.approx(20)
    (one,) = found.proposals
    assert (one.zone, one.start_us, one.end_us) == ("books", day.us("15:00"), day.us("17:00"))
    assert (one.more, one.unserved, one.wanted) == (2, 80, 80), "three visits at six are not worth a member of staff"
    assert (one.share, one.sure) == (share(80, 80), True)
    said = sentences.proposals(Words(day.config, "en"), found)
    assert said[0].startswith("15:00–17:00")
    assert "perhaps" not in said[0]
    assert said[0].endswith("+2 at =Books(); 80 of 80 visits met nobody (100 %, 95 % … 100 %).")
    (unmet,) = sentences.unmet(Words(day.config, "en"), found)
    assert unmet.startswith("83 of 143 longer visits met nobody (58 %, 50 % … 66 %), above all on 2 in the hour from")
    assert unmet.endswith("(40 of 40: 100 %, 91 % … 100 %).")
    assert said[-1].startswith("Assumed: a member of staff meets 20.0 visits an hour")
    assert "80 次无人接待" in sentences.proposals(Words(day.config, "zh"), found)[0]
    day.conn.close()


def test_over_several_days_the_share_is_as_uncertain_as_its_days_differ(tmp_path: Path) -> None:
    """The same visits: served or not by whole days, and half of them on each day."""
    found = []
    for name in ("days", "halves"):
        (tmp_path / name).mkdir()
        day = day_of(tmp_path / name)
        for back in range(6):
            for i in range(20):
                at = f"{15 - 24 * back}:{2 * i}"
                day.visit(f"{back} {i}", "books", at, 60, journey=at)
                if (back if name == "days" else i) % 2:
                    day.visit(f"badge {back} {i}", "books", at, 60, cls="staff")
        day.covered(f"{4 - 24 * 5}:00", "28:00")
        day.watermark("33:00")
        for back in range(1, 6, 2):
            kept.save(day.conn, day.config, replace(day.past.make(DATE - back * kept.DAY), complete=True))
        report = day.past.need(DATE, 6)
        floor = next(floor for floor in report.floors if floor.floor == "F2")
        cell = next(hour for hour in floor.hours if hour.wanted)
        assert (cell.unserved, cell.wanted) == (60, 120)
        assert cell.share is not None
        assert cell.share == floor.share == report.share
        found.append(cell.share)
        day.conn.close()
    days, halves = found
    assert halves == share(60, 120)
    assert days.low < 0.15 < halves.low < halves.high < 0.85 < days.high


def test_what_may_be_chance_is_proposed_as_such(tmp_path: Path) -> None:
    day = day_of(tmp_path)
    for hour in range(10, 14):
        served(day, "shoes", hour, 50, staff=True)
    for i in range(50):  # half an hour's work and a little more
        day.visit(f"alone {i}", "books", f"15:{i}:30", 60, journey=f"15:{i}:30")
        if i >= 26:
            day.visit(f"badge {i}", "books", f"15:{i}:30", 60, cls="staff")
    day.covered("04:00", "28:00")
    day.watermark("33:00")
    found = day.past.need(DATE)
    (one,) = found.proposals
    assert (one.unserved, one.wanted, one.sure) == (26, 50, False)
    for lang, words in (("en", "perhaps +1 at"), ("zh", "也许 +1 人")):
        assert words in sentences.proposals(Words(day.config, lang), found)[0]
    day.conn.close()


def test_nothing_is_proposed_without_knowing_what_one_can_do(tmp_path: Path) -> None:
    day = day_of(tmp_path)
    served(day, "books", 15, 40, staff=False)
    day.covered("04:00", "28:00")
    day.watermark("33:00")
    found = day.past.need(DATE)
    assert (found.per_hour, found.proposals) == (None, ())
    assert sentences.proposals(Words(day.config, "en"), found) == [
        "Too few visits met staff to say how many more members of staff would help."
    ]
    day.conn.close()
