"""Business days and pseudonyms."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.store.business_days import BusinessDay
from edge.store.pseudonyms import Pseudonyms

SHANGHAI = BusinessDay(ZoneInfo("Asia/Shanghai"), "04:00")
BERLIN = BusinessDay(ZoneInfo("Europe/Berlin"), "04:00")


def us(text: str) -> int:
    return round(dt.datetime.fromisoformat(text).timestamp() * 1e6)


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        ("2026-11-21T03:59:59+08:00", "2026-11-20"),
        ("2026-11-21T04:00:00+08:00", "2026-11-21"),
        ("2026-11-22T00:30:00+08:00", "2026-11-21"),
    ],
)
def test_the_day_changes_at_four(moment: str, day: str) -> None:
    assert SHANGHAI.date(us(moment)).isoformat() == day


@given(st.integers(0, 4_000_000_000_000_000))
def test_a_moment_lies_within_its_business_day(moment_us: int) -> None:
    for days in (SHANGHAI, BERLIN):
        start, end = days.bounds_us(days.date(moment_us))
        assert start <= moment_us < end


def test_days_of_clock_changes_have_their_own_length() -> None:
    start, end = BERLIN.bounds_us(dt.date(2026, 3, 28))
    assert end - start == 23 * 3_600_000_000
    start, end = BERLIN.bounds_us(dt.date(2026, 10, 24))
    assert end - start == 25 * 3_600_000_000


def test_pseudonyms_hide_and_tell_keys_and_lengths_apart() -> None:
    pseudonyms = Pseudonyms(b"k" * 32)
    epc = bytes.fromhex("2D14257BF4499602D2000000")
    monday, tuesday = b"m" * 32, b"t" * 32
    assert pseudonyms.member(epc, 96) == pseudonyms.member(epc, 96)
    assert pseudonyms.daily(epc, 96, monday) == pseudonyms.daily(epc, 96, monday)
    assert len({pseudonyms.daily(epc, 96, monday), pseudonyms.daily(epc, 96, tuesday), pseudonyms.member(epc, 96)}) == 3
    assert pseudonyms.member(epc, 96) != pseudonyms.member(epc, 95)
    other = Pseudonyms(b"l" * 32)
    assert pseudonyms.member(epc, 96) != other.member(epc, 96)
    assert pseudonyms.daily(epc, 96, monday) != other.daily(epc, 96, monday), "a day's key alone tells nothing"
