"""Common parts of all reports about past days: scope, rates with intervals, suppression of small counts."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from dwell.aggregates import RELATIVE_ERROR, quantile
from dwell.compare import share
from edge.database.reader import Past
from edge.days.facts import Totals
from edge.days.kept import as_of_us, day, ending, total

ERROR_SHARE = RELATIVE_ERROR
"""Maximum relative error of medians and p75 from histograms (between 1 s and 12 h)."""


@dataclass(frozen=True, slots=True)
class Rate:
    """`k` of `n`, with its 95 % confidence interval."""

    value: float
    low: float
    high: float
    k: int
    n: int


@dataclass(frozen=True)
class Scope:
    """Days and coverage of a report."""

    first_day: str
    last_day: str
    days: int
    """Number of these days with any facts."""
    as_of_us: int | None
    """Everything before this time is counted."""
    def_version: int
    small_cell: int
    coverage: float | None
    """Coverage of all zones' opening hours so far; None before the first opening hour, or if all were closed."""
    error_share: float
    """Maximum relative error of medians and p75."""
    suspected_staff: int
    """Number of excluded tags, each day counted separately; `suspected_tags()` lists them."""


def hide(counts: dict[str, int], least: int) -> set[str]:
    """Select the counts to hide when their sum is shown: the small ones, and one more if only one would be hidden."""
    hidden = {name for name, n in counts.items() if n < least}
    if len(hidden) == 1 and len(counts) > 1:
        hidden.add(min((name for name in counts if name not in hidden), key=lambda name: (counts[name], name)))
    return hidden


def over(past: Past, date: dt.date, days: int) -> tuple[Scope, Totals]:
    """Return scope and facts of the `days` business days ending with `date`.

    If the service did not run on any of them, these are the facts of `date` itself, with everything unknown.
    """
    config = past.config
    dates = ending(date, days)
    found = total(past, dates)
    known = 0 if found is None else found.days
    if found is None:
        found = day(past, date).totals
    scope = Scope(
        first_day=dates[0].isoformat(),
        last_day=date.isoformat(),
        days=known,
        as_of_us=as_of_us(past, date),
        def_version=config.thresholds.def_version,
        small_cell=config.thresholds.small_cell,
        coverage=coverage(found.base),
        error_share=ERROR_SHARE,
        suspected_staff=found.suspects,
    )
    return scope, found


def history_days(past: Past, date: dt.date) -> int:
    """Return the number of days before a day for which members' journeys are stored, at most returning_days."""
    config = past.config
    oldest_us = past.conn.execute("SELECT MIN(start_us) FROM journey").fetchone()[0]
    if oldest_us is None:
        return 0
    back = (past.bounds_us(date)[0] - int(oldest_us)) // 86_400_000_000
    return max(0, min(config.thresholds.returning_days, back))


def rate(k: int, n: int, enough: int | None = None) -> Rate | None:
    """Return k of n with its interval; None if n is less than `enough`."""
    found = share(k, n) if enough is None else share(k, n, enough)
    return None if found is None else Rate(found.value, found.low, found.high, k, n)


def ratio(k: float, n: int) -> float | None:
    """Return k ÷ n; None if n is 0."""
    return k / n if n else None


def quantile_s(histogram: NDArray[Any] | None, q: float, least: int) -> float | None:
    """Return the quantile of a histogram in seconds; None if it has fewer than `least` entries."""
    if histogram is None or histogram.sum() < max(least, 1):
        return None
    return quantile(histogram, q)


def coverage(base: Any) -> float | None:
    """Return the coverage of one or more zones: the covered share of their opening hours; None if there are none."""
    return ratio(float(base["covered_us"].sum()), int(base["open_us"].sum()))
