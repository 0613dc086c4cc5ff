"""Shop calendar: opening hours, holidays, and which days are comparable."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import lru_cache

from config import StoreConfig
from config.model import WEEKDAYS
from edge.store.business_days import business_days

DAY = dt.timedelta(days=1)
WORKING_WEEKEND = 7
"""Kinds of days beside weekdays 0 (Monday) to 6: a weekend day worked in exchange for a holiday …"""
HOLIDAY = 8
"""… and public holidays."""


@dataclass(frozen=True)
class Holiday:
    """Public holiday; the `day`-th (from 1) of consecutive ones with the same name."""

    name: str
    day: int


@lru_cache(maxsize=4096)
def holiday(country: str | None, date: dt.date) -> Holiday | None:
    """Return the holiday of a day, None if it isn't one. Ordinary weekends aren't."""
    name = _off(country, date)
    if name is None:
        return None
    day = 1
    while _off(country, date - day * DAY) == name:
        day += 1
    return Holiday(name, day)


def kind_of_day(config: StoreConfig, date: dt.date) -> int:
    """Return the kind of a day: 0 Monday … 6 Sunday, WORKING_WEEKEND, HOLIDAY. Days of the same kind are comparable."""
    country = config.store.holidays
    if holiday(country, date) is not None:
        return HOLIDAY
    if date.weekday() >= 5 and country is not None and _known(date.year):
        import chinese_calendar

        if chinese_calendar.is_workday(date):
            return WORKING_WEEKEND
    return date.weekday()


def same_holiday_before(config: StoreConfig, date: dt.date) -> dt.date | None:
    """Return the same day of the same holiday in the year before: by lunar date, where the holiday follows the moon."""
    country = config.store.holidays
    now = holiday(country, date)
    if now is None:
        return None
    year = date.replace(day=1) - dt.timedelta(days=366)
    # Lunar holidays move by up to a month.
    near = [year + n * DAY for n in range(-40, 72)]
    found = [day for day in near if holiday(country, day) == now and day < date - 300 * DAY]
    return min(found, key=lambda day: abs((date - day).days - 365)) if found else None


def knows_year(config: StoreConfig, year: int) -> bool:
    """Return whether the public holidays of a year are known: they are announced late in the year before."""
    return config.store.holidays is None or _known(year)


@dataclass(frozen=True)
class Hours:
    """Opening hours of a floor on one business day, UTC microseconds; empty if closed."""

    open_us: int
    close_us: int


def hours(config: StoreConfig, floor: str, date: dt.date) -> Hours:
    """Return the opening hours of a floor on a business day; the whole day if the store file has none."""
    start_us, end_us = business_days(config).bounds_us(date)
    for special in reversed(config.special_days):
        if special.date == date and (special.floors is None or floor in special.floors):
            if special.open is None or special.close is None:
                return Hours(start_us, start_us)
            return _hours(config, date, special.open, special.close, start_us, end_us)
    for usual in reversed(config.opening_hours):
        if WEEKDAYS[date.weekday()] in usual.days and (usual.floors is None or floor in usual.floors):
            return _hours(config, date, usual.open, usual.close, start_us, end_us)
    if any(usual.floors is None or floor in usual.floors for usual in config.opening_hours):
        return Hours(start_us, start_us)
    return Hours(start_us, end_us)


def _hours(config: StoreConfig, date: dt.date, open_: str, close: str, start_us: int, end_us: int) -> Hours:
    cut = dt.time.fromisoformat(config.thresholds.business_day_start)
    opens, closes = dt.time.fromisoformat(open_), dt.time.fromisoformat(close)
    first = date if opens >= cut else date + DAY
    last = first if closes > opens else first + DAY
    moments = (
        round(dt.datetime.combine(day, time, config.store.tz).timestamp()) * 1_000_000
        for day, time in ((first, opens), (last, closes))
    )
    begin, end = moments
    return Hours(max(begin, start_us), max(min(end, end_us), max(begin, start_us)))


def _off(country: str | None, date: dt.date) -> str | None:
    if country is None or not _known(date.year):
        return None
    import chinese_calendar

    off, name = chinese_calendar.get_holiday_detail(date)
    return str(name) if off and name is not None else None


@lru_cache(maxsize=64)
def _known(year: int) -> bool:
    import chinese_calendar

    try:
        chinese_calendar.is_holiday(dt.date(year, 1, 1))
    except NotImplementedError:
        return False
    return True
