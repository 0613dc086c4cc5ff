"""Business days, and parsing of dates."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from edge.store.errors import Trouble

if TYPE_CHECKING:  # what sorts directories in a process of its own loads no models
    from config.model import StoreConfig


class BusinessDay:
    """Calendar of business days, which change at `start` local time, not at midnight."""

    def __init__(self, zone: ZoneInfo, start: str) -> None:
        self.zone = zone
        hours, minutes = start.split(":")
        self._cut = dt.timedelta(hours=int(hours), minutes=int(minutes))

    def date(self, time_us: int) -> dt.date:
        """Return the business date of a time."""
        return (dt.datetime.fromtimestamp(time_us / 1e6, self.zone).replace(tzinfo=None) - self._cut).date()

    def bounds_us(self, day: dt.date) -> tuple[int, int]:
        """Return the first microsecond of a business day and of the next."""
        return self._start_us(day), self._start_us(day + dt.timedelta(days=1))

    def _start_us(self, day: dt.date) -> int:
        local = dt.datetime(day.year, day.month, day.day) + self._cut
        return round(local.replace(tzinfo=self.zone).timestamp()) * 1_000_000


def business_days(config: StoreConfig) -> BusinessDay:
    """Return the store's business days."""
    return BusinessDay(config.store.tz, config.thresholds.business_day_start)


def parse_date(text: str) -> dt.date:
    """Parse a business date as typed by people; Trouble if it is invalid."""
    try:
        date = dt.date.fromisoformat(text)
    except ValueError as error:
        raise Trouble(f"not a date: {text!r}; write YYYY-MM-DD") from error
    if not 2000 <= date.year < 2100:
        raise Trouble(f"no store has records of {text}")
    return date
