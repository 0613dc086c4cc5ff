"""Where staff was missing: unserved visits, waits and proposals, against days written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from shopdays import DATE, Day, day_of

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
    downstairs = next(floor for floor in found.floors if floor.floor == "F1")
    assert (downstairs.wanted, downstairs.unserved) == (60, 0)
    assert found.per_hour == pytest.approx(20)
    (one,) = found.proposals
    assert (one.zone, one.start_us, one.end_us) == ("books", day.us("15:00"), day.us("17:00"))
    assert (one.more, one.unserved, one.wanted) == (2, 80, 80), "three visits at six are not worth a member of staff"
    said = sentences.proposals(Words(day.config, "en"), found)
    assert said[0].startswith("15:00–17:00")
    assert "+2" in said[0]
    assert said[-1].startswith("Assumed: a member of staff meets 20.0 visits an hour")
    assert "80 次无人接待" in sentences.proposals(Words(day.config, "zh"), found)[0]
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
