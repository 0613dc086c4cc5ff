"""How sure a number is: shares with intervals, ranks with bands, and changes against what did not change. Pure.

Every interval is at LEVEL. "Not enough data" is an answer: None, never a number that nobody should act on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
_Z = 1.959963984540054
"""Standard normal quantile of 1 − (1 − LEVEL) / 2."""
ENOUGH = 30
"""A share or a quantile of fewer is not told."""
ENOUGH_DAYS = 3
"""A comparison needs so many days on each side."""
ENOUGH_COUNT = 30
"""… and so many counted on each side, in the zones looked at and in the control zones."""
RESAMPLES = 2_000
SEED = 20_240
"""The same days always give the same interval."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Share:
    """`k` of `n`, and between which shares the truth may lie (Wilson's score interval)."""

    k: int
    n: int
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.k / self.n


def share(k: int, n: int, enough: int = ENOUGH) -> Share | None:
    """k of n; None if n is not enough. Wilson, J. Am. Stat. Assoc. 22 (1927) 209."""
    if n < max(enough, 1):
        return None
    p, zz = k / n, _Z * _Z
    middle = (p + zz / (2 * n)) / (1 + zz / n)
    half = _Z / (1 + zz / n) * float(np.sqrt(p * (1 - p) / n + zz / (4 * n * n)))
    return Share(k, n, max(0.0, middle - half), min(1.0, middle + half))


def rank_bands(shares: Sequence[Share | None]) -> list[tuple[int, int] | None]:
    """Best and worst rank (1 is the highest share) that each may have: those surely above it rank before it, those
    surely below it behind. None where there is not enough data; such ones take no rank from others."""
    known = [s for s in shares if s is not None]
    return [
        None
        if mine is None
        else (
            1 + sum(other.low > mine.high for other in known),
            len(known) - sum(other.high < mine.low for other in known),
        )
        for mine in shares
    ]


@dataclass(frozen=True)
class DayCount:
    """One business day of a comparison: what was counted in the zones looked at and in the control zones."""

    weekday: int
    """0 is Monday; days are compared within their kind. Holidays may have a number of their own."""
    zones: int
    controls: int | None
    """None in every day: there are no control zones."""


@dataclass(frozen=True)
class Change:
    """Relative change of the zones against the control zones: 0.1 is ten per cent more than was to be expected."""

    change: float
    low: float
    high: float
    days_before: int
    """Days that were compared: of weekdays that both sides have."""
    days_after: int
    zones_before: int
    zones_after: int
    controlled: bool


def change(before: Sequence[DayCount], after: Sequence[DayCount]) -> Change | None:
    """How the zones' counts changed from some days to others, relative to the control zones and weekday by weekday.

    A day's measure is log((zones + ½) / (controls + ½)); the change is the mean, over the later days, of its difference
    from the mean of the earlier days of the same weekday. The interval resamples days on both sides (bootstrap,
    Efron & Tibshirani 1993, residuals by weekday). None without enough days or counts.
    """
    kinds = {day.weekday for day in before} & {day.weekday for day in after}
    before = [day for day in before if day.weekday in kinds]
    after = [day for day in after if day.weekday in kinds]
    if min(len(before), len(after)) < ENOUGH_DAYS:
        return None
    controlled = all(day.controls is not None for day in (*before, *after))
    for days in (before, after):
        counted = [sum(day.zones for day in days)]
        if controlled:
            counted.append(sum(day.controls or 0 for day in days))
        if min(counted) < ENOUGH_COUNT:
            return None
    weekday_b, weekday_a = (np.array([day.weekday for day in days]) for days in (before, after))
    measure_b, measure_a = (_measure(days, controlled) for days in (before, after))
    mean = {kind: measure_b[weekday_b == kind].mean() for kind in kinds}
    size = {kind: int((weekday_b == kind).sum()) for kind in kinds}
    base_a = np.array([mean[kind] for kind in weekday_a])
    left_a = measure_a - base_a
    # The mean of a weekday's few days lies closer to them than the truth does.
    widen = np.array([np.sqrt(size[kind] / (size[kind] - 1)) if size[kind] > 1 else 0.0 for kind in weekday_b])
    left_b = (measure_b - np.array([mean[kind] for kind in weekday_b])) * widen
    left_b = left_b[widen > 0]
    middle = float(left_a.mean())
    scatter = left_a - middle
    scatter *= np.sqrt(len(scatter) / (len(scatter) - 1))
    # A later day differs by its own scatter and by that of the earlier days that it is held against.
    pool = np.concatenate([left_b, scatter]) if len(left_b) else scatter
    dice = Random(SEED)
    drawn = np.full(RESAMPLES, middle)
    drawn += _mean_of(pool, len(left_a), dice)
    for kind in kinds:
        weight = float((weekday_a == kind).sum()) / len(left_a)
        drawn -= weight * _mean_of(pool, size[kind], dice)
    low, high = np.quantile(drawn, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Change(
        float(np.expm1(middle)),
        float(np.expm1(low)),
        float(np.expm1(high)),
        len(before),
        len(after),
        sum(day.zones for day in before),
        sum(day.zones for day in after),
        controlled,
    )


def _mean_of(pool: Floats, n: int, dice: Random) -> Floats:
    """(RESAMPLES,) means of n drawn with replacement. NumPy's own generators would cost the page 3 MiB of memory."""
    numbers = np.frombuffer(dice.randbytes(4 * RESAMPLES * n), "<u4").reshape(RESAMPLES, n)
    means: Floats = pool[numbers % len(pool)].mean(axis=1)
    return means


def _measure(days: Sequence[DayCount], controlled: bool) -> Floats:
    zones = np.array([day.zones for day in days], np.float64)
    controls = np.array([day.controls or 0 for day in days], np.float64)
    measure: Floats = np.log((zones + 0.5) / (controls + 0.5)) if controlled else np.log(zones + 0.5)
    return measure
