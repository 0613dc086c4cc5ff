"""How sure a number is: shares with intervals, ranks with bands, and changes against what did not change. Pure.

Every interval is at LEVEL. "Not enough data" is an answer: None, never a number that nobody should act on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
ENOUGH = 30
"""A share or a quantile of fewer is not told."""
ENOUGH_DAYS = 3
"""A comparison needs so many days on each side."""
ENOUGH_COUNT = 30
"""… and so many counted on each side, in the zones looked at and in the control zones."""
RESAMPLES = 2_000
SEED = 20_240
"""The same days always give the same interval."""
TINY = 1e-3
"""In place of 0, which has no logarithm."""
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


def share(k: int, n: int, enough: int = ENOUGH, level: float = LEVEL) -> Share | None:
    """k of n; None if n is not enough. Wilson, J. Am. Stat. Assoc. 22 (1927) 209."""
    if n < max(enough, 1):
        return None
    z = normal_quantile(level)
    p, zz = k / n, z * z
    middle = (p + zz / (2 * n)) / (1 + zz / n)
    half = z / (1 + zz / n) * float(np.sqrt(p * (1 - p) / n + zz / (4 * n * n)))
    # Of none, the limit is 0: what rounding leaves of it would be told as 1 %.
    return Share(k, n, max(0.0, middle - half) if k else 0.0, min(1.0, middle + half) if k < n else 1.0)


def of_many(tests: int) -> float:
    """Level of each of so many intervals that all of them together hold at LEVEL (Bonferroni)."""
    return 1 - (1 - LEVEL) / max(tests, 1)


def certain(low: float | None, high: float | None) -> bool:
    """Return True if a change is not 0: its interval is known and does not include 0."""
    return low is not None and high is not None and (low > 0 or high < 0)


@dataclass(frozen=True)
class Difference:
    """Between which values a change lies; `low` and `high` are None if there are too few days to tell."""

    value: float
    low: float | None
    high: float | None

    @property
    def sure(self) -> bool:
        """Is 0 outside the interval."""
        return certain(self.low, self.high)


@dataclass(frozen=True)
class Usual:
    """How much a count usually differs between two days on which nothing has changed."""

    excess: float
    """Variance of the logarithm of a day's count, beyond that of independent arrivals (Poisson)."""
    pairs: int
    """Number of pairs of days that it was estimated from."""
    alike: bool
    """True if the days of each pair are of the same weekday."""

    @property
    def freedom(self) -> int:
        """Degrees of freedom: pairs that follow each other share a day, which leaves two thirds of their number.

        Von Neumann et al., Ann. Math. Stat. 12 (1941) 153: the variance of the mean square successive difference.
        """
        return 2 * self.pairs // 3


def usual(now: Sequence[int], before: Sequence[int], *, alike: bool) -> Usual | None:
    """Estimate it from pairs of days that follow each other, from their mean square difference, which a slow trend
    leaves nearly as it is; None with fewer than ENOUGH_DAYS pairs."""
    if len(now) < ENOUGH_DAYS:
        return None
    one, two = (np.array(side, np.float64) + 0.5 for side in (now, before))
    beyond = np.log(one / two) ** 2 - 1 / one - 1 / two
    return Usual(max(0.0, float(beyond.mean()) / 2), len(now), alike)


def ratio_change(
    now: Sequence[int], before: Sequence[int], level: float = LEVEL, usually: Usual | None = None
) -> Difference | None:
    """Relative change of a count over pairs of days; None if nothing was counted before.

    Σ now ÷ Σ before − 1, with the interval of a ratio estimator over days (Cochran, Sampling Techniques, 1977, §6.4) on
    the logarithmic scale and Student's t. Never narrower than that of independent arrivals (Poisson). Fewer than
    ENOUGH_DAYS pairs of days don't show how much they scatter: then the interval is made of how much days differ
    `usually`. Without that, or without ENOUGH_COUNT on either side, there is none.
    """
    total, base, pairs = sum(now), sum(before), len(now)
    if not base:
        return None
    ratio, chance = total / base, 1 / max(total, 1) + 1 / base
    if min(total, base) < ENOUGH_COUNT or (pairs < ENOUGH_DAYS and usually is None):
        return Difference(ratio - 1, None, None)
    if pairs < ENOUGH_DAYS and usually is not None:
        days = sum(n * n for n in now) / total**2 + sum(n * n for n in before) / base**2
        half = t_quantile(level, usually.freedom) * math.sqrt(chance + usually.excess * days)
    else:
        left = np.array(now, np.float64) - ratio * np.array(before, np.float64)
        scatter = float((left**2).sum()) * pairs / (pairs - 1) / (total * total)
        half = max(t_quantile(level, pairs - 1) * math.sqrt(scatter), normal_quantile(level) * math.sqrt(chance))
    return Difference(ratio - 1, ratio * math.exp(-half) - 1, ratio * math.exp(half) - 1)


def share_change(now: Share, before: Share) -> Difference:
    """Difference of two shares, whose intervals have the same level. Newcombe, Stat. Med. 17 (1998) 873, method 10."""
    value = now.value - before.value
    low = value - math.hypot(now.value - now.low, before.high - before.value)
    high = value + math.hypot(now.high - now.value, before.value - before.low)
    return Difference(value, low, high)


@dataclass(frozen=True)
class Pairs:
    """Two counts over days: sums, and sums of products, from which one tells how they vary together."""

    days: int
    k: int
    n: int
    kk: int
    kn: int
    nn: int


def per(found: Pairs, enough: int = ENOUGH, level: float = LEVEL) -> tuple[float, float, float] | None:
    """k per n, and between which values it lies, for counts of which one is no part of the other; None if n is not
    enough.

    The interval is at least that of independent events (Poisson, by Byar's approximation: Breslow & Day, Statistical
    Methods in Cancer Research II, 1987, §2.3). From ENOUGH_DAYS days on it is also that of a ratio estimator over days
    (as in `ratio_change`), so that days on which everything differs count as what they are.
    """
    if found.n < max(enough, 1):
        return None
    k, z, ratio = found.k, normal_quantile(level), found.k / found.n
    low = k * (1 - 1 / (9 * k) - z / (3 * math.sqrt(k))) ** 3 / found.n if k else 0.0
    high = (k + 1) * (1 - 1 / (9 * (k + 1)) + z / (3 * math.sqrt(k + 1))) ** 3 / found.n
    if k and found.days >= ENOUGH_DAYS:
        scatter = max(0.0, found.kk - 2 * ratio * found.kn + ratio * ratio * found.nn)
        error = math.sqrt(scatter * found.days / (found.days - 1)) / k
        half = t_quantile(level, found.days - 1) * error
        low, high = min(low, ratio * math.exp(-half)), max(high, ratio * math.exp(half))
    return ratio, low, high


def share_of_days(found: Pairs, enough: int = ENOUGH, level: float = LEVEL) -> Share | None:
    """k of n over days; None if n is not enough.

    The interval is at least that of independent cases (`share`). From ENOUGH_DAYS days on it is also that of a ratio
    estimator over days (as in `ratio_change`) on the scale of log odds, because what happens on one day has causes in
    common.
    """
    one = share(found.k, found.n, enough, level)
    if one is None or found.days < ENOUGH_DAYS or not 0 < found.k < found.n:
        return one
    p = one.value
    scatter = max(0.0, found.kk - 2 * p * found.kn + p * p * found.nn)
    error = math.sqrt(scatter * found.days / (found.days - 1)) / found.n
    half, odds = t_quantile(level, found.days - 1) * error / (p * (1 - p)), math.log(p / (1 - p))
    low, high = (1 / (1 + math.exp(-limit)) for limit in (odds - half, odds + half))
    return Share(found.k, found.n, min(one.low, low), max(one.high, high))


def median_change(
    now: tuple[float, float, float], before: tuple[float, float, float], *, enough: bool = True
) -> Difference:
    """Relative change of a median; both are (value, lower limit, upper limit) above 0, with limits of the same level.

    The interval joins theirs on the logarithmic scale, as `share_change` does those of shares (method of variance
    estimates recovery: Zou & Donner, Stat. Med. 27 (2008) 1693). There is none if there is not `enough` on both sides.
    """
    (one, low_1, high_1), (two, low_2, high_2) = ([math.log(max(x, TINY)) for x in side] for side in (now, before))
    if not enough:
        return Difference(math.expm1(one - two), None, None)
    low = one - two - math.hypot(one - low_1, high_2 - two)
    high = one - two + math.hypot(high_1 - one, two - low_2)
    return Difference(math.expm1(one - two), math.expm1(low), math.expm1(high))


def median_interval(counts: NDArray[np.integer[Any]], edges: Floats, level: float = LEVEL) -> tuple[float, float]:
    """Between which values the median lies: by order statistics, whatever the distribution (Conover 1999, §3.2).

    counts: (B,) a histogram with at least one entry; edges: (B + 1,) of its bins. Limits are edges of bins.
    """
    n = int(counts.sum())
    half = normal_quantile(level) * math.sqrt(n) / 2
    cumulative = np.cumsum(counts)
    low, high = max(1.0, math.floor(n / 2 - half)), min(float(n), math.ceil(n / 2 + half) + 1.0)
    return float(edges[np.searchsorted(cumulative, low)]), float(edges[np.searchsorted(cumulative, high) + 1])


@cache
def normal_quantile(level: float) -> float:
    """Half width, in standard deviations, of the interval that holds `level` of a normal distribution."""
    return NormalDist().inv_cdf((1 + level) / 2)


@cache
def t_quantile(level: float, freedom: int) -> float:
    """The same of Student's t, from its closed form (Abramowitz & Stegun 26.7.3, 26.7.4) by bisection."""
    low, high = 0.0, 1.0
    while t_within(high, freedom) < level:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_within(middle, freedom) < level else (low, middle)
    return high


def t_within(t: float, freedom: int) -> float:
    """Probability that |T| ≤ t."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, total, term = math.cos(angle), 0.0, 1.0
    if freedom % 2 == 0:
        for k in range(freedom // 2):
            total += term
            term *= cosine * cosine * (2 * k + 1) / (2 * k + 2)
        return math.sin(angle) * total
    for k in range((freedom - 1) // 2):
        total += term * cosine
        term *= cosine * cosine * (2 * k + 2) / (2 * k + 3)
    return 2 / math.pi * (angle + math.sin(angle) * total)


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
    joint: tuple[float, float]
    """Interval of each of several such changes that hold together at LEVEL."""

    @property
    def sure(self) -> bool:
        """True if 0 is outside the interval."""
        return certain(self.low, self.high)


def change(before: Sequence[DayCount], after: Sequence[DayCount], claims: int = 2) -> Change | None:
    """How the zones' counts changed from some days to others, relative to the control zones and weekday by weekday.

    A day's measure is log((zones + ½) / (controls + ½)); the change is the mean, over the later days, of its difference
    from the mean of the earlier days of the same weekday. The interval resamples days on both sides (bootstrap,
    Efron & Tibshirani 1993, residuals by weekday). None without enough days or counts. `claims`: number of changes
    whose joint intervals hold together.
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
    tail, tail_of_all = (1 - LEVEL) / 2, (1 - of_many(claims)) / 2
    low, high, low_of_all, high_of_all = np.quantile(drawn, (tail, 1 - tail, tail_of_all, 1 - tail_of_all))
    return Change(
        float(np.expm1(middle)),
        float(np.expm1(low)),
        float(np.expm1(high)),
        len(before),
        len(after),
        sum(day.zones for day in before),
        sum(day.zones for day in after),
        controlled,
        (float(np.expm1(low_of_all)), float(np.expm1(high_of_all))),
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
