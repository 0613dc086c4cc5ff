"""What every answer about past days shares: its scope, rates with intervals, and what is hidden."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from dwell.aggregates import RELATIVE_ERROR, quantile
from dwell.compare import share
from edge.database.reader import Past
from edge.days.facts import Totals
from edge.days.kept import DAY, day, totals

ERROR_SHARE = RELATIVE_ERROR
"""Medians and p75 from histograms are off by at most this share of themselves (between 1 s and 12 h)."""


@dataclass(frozen=True, slots=True)
class Rate:
    """`k` of `n`, with the interval that holds the truth with 95 %."""

    value: float
    low: float
    high: float
    k: int
    n: int


@dataclass(frozen=True)
class Scope:
    """What an answer is about."""

    first_day: str
    last_day: str
    days: int
    """Of them, those with any facts."""
    as_of_us: int | None
    """Everything before is counted."""
    def_version: int
    small_cell: int
    coverage: float | None
    """Of all zones' opening time so far; None while none of it is over, or if all of them were closed."""
    error_share: float
    """Of every median and p75."""
    suspected_staff: int
    """Tags left out, each day counted for itself; `suspected_tags()` lists them."""


def hide(counts: dict[str, int], least: int) -> set[str]:
    """Which of some counts, whose sum is told, to hide: the small ones, and one more if only one would be hidden."""
    hidden = {name for name, n in counts.items() if n < least}
    if len(hidden) == 1 and len(counts) > 1:
        hidden.add(min((name for name in counts if name not in hidden), key=lambda name: (counts[name], name)))
    return hidden


def over(past: Past, date: dt.date, days: int) -> tuple[Scope, Totals]:
    """Return the facts of the `days` business days that end with `date`, and what they are about.

    If the service ran on none of them, they are the facts of `date` itself, in which nothing is known.
    """
    config = past.config
    dates = [date - n * DAY for n in reversed(range(days))]
    found: Totals | None = None
    for _, one in totals(past, dates):  # one at a time: a day of a large store is a quarter of a MiB
        found = one if found is None else found + one
    known = 0 if found is None else found.days
    if found is None:
        found = day(past, date).totals
    now_us, end_us = past.watermark_us, past.bounds_us(date)[1]
    scope = Scope(
        first_day=dates[0].isoformat(),
        last_day=date.isoformat(),
        days=known,
        as_of_us=None if now_us is None else min(now_us, end_us),
        def_version=config.thresholds.def_version,
        small_cell=config.thresholds.small_cell,
        coverage=coverage(found.base),
        error_share=ERROR_SHARE,
        suspected_staff=found.suspects,
    )
    return scope, found


def history_days(past: Past, date: dt.date) -> int:
    """How far back from the beginning of a day returning members can be known; at most returning_days."""
    config = past.config
    oldest_us = past.conn.execute("SELECT MIN(start_us) FROM journey").fetchone()[0]
    if oldest_us is None:
        return 0
    back = (past.bounds_us(date)[0] - int(oldest_us)) // 86_400_000_000
    return max(0, min(config.thresholds.returning_days, back))


def rate(k: int, n: int, enough: int | None = None) -> Rate | None:
    """k of n with its interval; None if n is not `enough`."""
    found = share(k, n) if enough is None else share(k, n, enough)
    return None if found is None else Rate(found.value, found.low, found.high, k, n)


def ratio(k: float, n: int) -> float | None:
    """k ÷ n; None of nothing."""
    return k / n if n else None


def quantile_s(histogram: NDArray[Any] | None, q: float, least: int) -> float | None:
    """Quantile of a histogram in seconds; None of fewer than `least`."""
    if histogram is None or histogram.sum() < max(least, 1):
        return None
    return quantile(histogram, q)


def coverage(base: Any) -> float | None:
    """Coverage of one zone, or of several together: the covered share of their opening time; None without any."""
    return ratio(float(base["covered_us"].sum()), int(base["open_us"].sum()))
