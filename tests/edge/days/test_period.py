"""Which days a page is about: by its query, and the query of its links."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shopdays import store_values

from config import StoreConfig
from edge.days.period import AGAINST, MOST_DAYS, SPANS, parse
from edge.store.errors import Trouble

PRESENT = dt.date(2026, 3, 14)
CONFIG = StoreConfig.model_validate(store_values(Path()))
VALUES = store_values(Path())
VALUES["store"]["holidays"] = "CN"
CHINA = StoreConfig.model_validate(VALUES)


@pytest.mark.parametrize(
    ("query", "first", "last", "kind"),
    [
        ({}, "2026-03-14", "2026-03-14", "1"),
        ({"date": "2026-02-28", "days": "7"}, "2026-02-22", "2026-02-28", "7"),
        ({"days": "month"}, "2026-03-01", "2026-03-14", "month"),
        ({"date": "2024-02-10", "days": "month"}, "2024-02-01", "2024-02-29", "month"),
        ({"days": "5"}, "2026-03-10", "2026-03-14", "range"),
        ({"from": "2026-03-14", "date": "2026-03-01", "days": "7"}, "2026-03-01", "2026-03-14", "range"),
        ({"from": "2026-03-08", "date": "2026-03-14"}, "2026-03-08", "2026-03-14", "7"),
    ],
)
def test_the_days_of_a_query(query: dict[str, str], first: str, last: str, kind: str) -> None:
    found = parse(query, PRESENT, CONFIG)
    assert (str(found.first), str(found.last), found.kind) == (first, last, kind)


queries = st.fixed_dictionaries(
    {},
    optional={
        "date": st.dates(dt.date(2024, 1, 1), PRESENT).map(str),
        "from": st.dates(dt.date(2025, 6, 1), PRESENT).map(str),
        "days": st.sampled_from([*SPANS, "3", "90"]),
        "against": st.sampled_from(AGAINST),
    },
)


@settings(deadline=None)
@given(queries)
def test_links_keep_the_days_and_steps_lead_back(query: dict[str, str]) -> None:
    try:
        found = parse(query, PRESENT, CHINA)
    except Trouble:
        assert "from" in query
        return
    assert parse(found.query, PRESENT, CHINA) == found
    for days in SPANS:
        asked = parse(found.asked(days=days), PRESENT, CHINA)
        assert (asked.kind, asked.against) == (days, found.against)
    before = parse(found.step(False), PRESENT, CHINA)
    assert before.last == found.first - dt.timedelta(days=1)
    assert parse(before.step(True), PRESENT, CHINA).last <= found.last
    if found.kind != "month":
        assert before.days == found.days
        assert parse(before.step(True), PRESENT, CHINA) == found
    if found.compared is not None:
        assert found.compared.days == found.days
        if found.against != "holiday":
            assert found.compared.last < found.first
            assert found.compared.first.weekday() == found.first.weekday()


def test_what_days_are_compared_with() -> None:
    def compared(**query: str) -> str | None:
        found = parse(query, PRESENT, CHINA).compared
        return None if found is None else found.text

    assert compared(against="before") == "2026-03-07"
    assert compared(days="7", against="before") == "2026-03-01_2026-03-07"
    assert compared(days="28", against="before") == "2026-01-18_2026-02-14"
    assert compared(date="2026-01-31", days="month", against="before") == "2025-11-27_2025-12-27"
    assert compared(days="7", against="year") == "2025-03-09_2025-03-15"
    assert compared(days="7", against="holiday") is None
    # The second day of Spring Festival: 2026-02-16 and 2025-01-29 are days of it, counted from the first day off.
    assert compared(date="2026-02-16", against="holiday") == "2025-01-29"
    assert compared(date="2026-02-17", days="7", against="holiday") == "2025-01-24_2025-01-30"


@pytest.mark.parametrize(
    "query", [{"days": "0"}, {"days": str(MOST_DAYS + 1)}, {"days": "٣"}, {"against": "x"}, {"from": "2020-01-01"}]
)
def test_what_is_no_days(query: dict[str, str]) -> None:
    with pytest.raises(Trouble):
        parse(query, PRESENT, CONFIG)
