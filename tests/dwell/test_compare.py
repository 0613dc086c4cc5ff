"""Shares, ranks and changes: against known values, and whether intervals hold the truth as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwell.compare import (
    DayCount,
    Difference,
    Pairs,
    Share,
    change,
    median_change,
    median_interval,
    normal_quantile,
    of_many,
    per,
    rank_bands,
    ratio_change,
    share,
    share_change,
    share_of_days,
    t_quantile,
    usual,
)


def test_wilsons_interval() -> None:
    found = share(15, 50)
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.3, 0.1910, 0.4375), abs=1e-4)
    assert share(0, 40) is not None
    assert share(29, 29) is None
    assert share(0, 0, 0) is None


@given(st.integers(30, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_share_lies_in_its_interval(of: tuple[int, int]) -> None:
    found = share(*of)
    assert found is not None
    assert 0 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1


def test_none_and_all_are_exactly_the_limits() -> None:
    for n in range(30, 3_000):
        none, all_ = share(0, n), share(n, n)
        assert none is not None
        assert all_ is not None
        assert (none.low, all_.high) == (0, 1), n


@given(st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 60), st.integers(60, 900))), max_size=8))
def test_rank_bands_hold_the_rank(given_: list[tuple[int, int] | None]) -> None:
    shares = [None if pair is None else share(*pair) for pair in given_]
    known = [s for s in shares if s is not None]
    for mine, band in zip(shares, rank_bands(shares), strict=True):
        if mine is None:
            assert band is None
            continue
        assert band is not None
        best, worst = band
        above = sum(other.value > mine.value for other in known)
        assert 1 <= best <= above + 1 <= worst <= len(known)


def pairs_of(pairs: list[tuple[int, int]]) -> Pairs:
    k, n = (np.array(side) for side in zip(*pairs, strict=True))
    return Pairs(len(pairs), *(int(x) for x in (k.sum(), n.sum(), (k * k).sum(), (k * n).sum(), (n * n).sum())))


def test_a_quotient_of_counts_has_poissons_interval() -> None:
    """Exact limits of a mean of 10: 4.795 and 18.39 (Garwood, Biometrika 28 (1936) 437)."""
    found = per(Pairs(1, 10, 100, 100, 1000, 10_000))
    assert found == pytest.approx((0.1, 0.04795, 0.1839), rel=2e-3)
    assert per(Pairs(1, 0, 100, 0, 0, 10_000)) == pytest.approx((0, 0, 0.03689), rel=2e-2)
    assert per(Pairs(1, 200, 100, 40_000, 20_000, 10_000))[0] == 2  # type: ignore[index]
    assert per(Pairs(1, 5, 29, 25, 145, 841)) is None
    assert per(Pairs(0, 0, 0, 0, 0, 0), enough=0) is None


@pytest.mark.parametrize("varies", [0.0, 0.4])
def test_a_quotients_interval_holds_the_truth_also_if_days_differ(varies: float) -> None:
    rng = np.random.default_rng(3)
    held = narrow = 0
    for _ in range(400):
        n = rng.poisson(60, 14)
        k = rng.poisson(0.3 * n * rng.lognormal(-varies * varies / 2, varies, 14))
        made = pairs_of(list(zip(k.tolist(), n.tolist(), strict=True)))
        found, alone = per(made), per(Pairs(1, *list(vars(made).values())[1:]))
        assert found is not None
        assert alone is not None
        held += found[1] <= 0.3 <= found[2]
        narrow += alone[1] <= 0.3 <= alone[2]
    assert 0.91 <= held / 400 <= 0.995
    assert varies == 0 or narrow < held - 20, "days that differ would be taken for certainty"


def test_a_change_of_medians_joins_their_intervals() -> None:
    change_ = median_change((60.0, 50.0, 70.0), (60.0, 50.0, 70.0))
    assert change_.value == 0
    assert not change_.sure
    assert change_.low == pytest.approx(-1 + 1 / (1 + change_.high))  # type: ignore[operator]
    halved = median_change((30.0, 28.0, 32.0), (60.0, 55.0, 65.0))
    assert halved.value == pytest.approx(-0.5)
    assert halved.sure
    assert median_change((30.0, 28.0, 32.0), (60.0, 55.0, 65.0), enough=False).low is None
    assert median_change((0.5, 0.0, 1.0), (60.0, 55.0, 65.0)).sure


def test_clear_differences_give_clear_ranks() -> None:
    shares = [share(10, 1000), share(300, 1000), share(290, 1000), None]
    assert rank_bands(shares) == [(3, 3), (1, 2), (1, 2), None]
    assert rank_bands([Share(1, 2, 0, 1)]) == [(1, 1)]


def days(rng: np.random.Generator, weeks: int, level: float, *, controls: bool = True) -> list[DayCount]:
    """Weeks with busy weekends, and days that are good or bad for the whole store and for the zones alone."""
    out = []
    for day in range(7 * weeks):
        store = (1.6 if day % 7 >= 5 else 1.0) * float(np.exp(rng.normal(0, 0.2)))
        zones = rng.poisson(120 * store * level * float(np.exp(rng.normal(0, 0.08))))
        out.append(DayCount(day % 7, int(zones), int(rng.poisson(600 * store)) if controls else None))
    return out


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    held = false_alarms = 0
    changes = []
    for _ in range(200):
        found = change(days(rng, 4, 1.0), days(rng, 2, 1.2))
        none = change(days(rng, 4, 1.0), days(rng, 1, 1.0))
        assert found is not None
        assert none is not None
        held += found.low <= 0.2 <= found.high
        false_alarms += not none.low <= 0 <= none.high
        changes.append(found.change)
    assert 182 <= held <= 199
    assert false_alarms <= 20
    assert np.mean(changes) == pytest.approx(0.2, abs=0.01)


def test_control_zones_take_away_what_happened_to_the_whole_store() -> None:
    before = [DayCount(day % 7, 100, 500) for day in range(28)]
    after = [DayCount(day, 200, 1000) for day in range(7)]
    found = change(before, after)
    assert found is not None
    assert found.change == pytest.approx(0, abs=0.01)
    alone = change(
        [DayCount(d.weekday, d.zones, None) for d in before], [DayCount(d.weekday, d.zones, None) for d in after]
    )
    assert alone is not None
    assert not alone.controlled
    assert alone.change == pytest.approx(1, abs=0.01)


def test_weekdays_are_compared_with_themselves() -> None:
    """Only a busy Saturday against a week: the level of Saturdays counts, not the week's."""
    before = [DayCount(day % 7, 500 if day % 7 == 5 else 100, 1000) for day in range(28)]
    found = change(before, [DayCount(5, 500, 1000)] * 3)
    assert found is not None
    assert found.change == pytest.approx(0, abs=1e-9)
    assert (found.days_before, found.days_after, found.zones_before) == (4, 3, 2000)


def test_not_enough_is_an_answer() -> None:
    week = [DayCount(day, 100, 500) for day in range(7)]
    assert change(week, week[:2]) is None
    assert change(week, [DayCount(9, 100, 500)] * 5) is None  # no weekday in common
    assert change(week, [DayCount(day, 1, 500) for day in range(7)]) is None
    assert change(week, [DayCount(day, 100, 1) for day in range(7)]) is None
    assert change(week, week) is not None


def test_the_same_days_give_the_same_interval() -> None:
    rng = np.random.default_rng(5)
    before, after = days(rng, 4, 1), days(rng, 1, 1.1)
    assert change(before, after) == change(before, after)


@pytest.mark.parametrize(
    ("level", "freedom", "t"),
    [
        (0.95, 1, 12.7062),
        (0.95, 2, 4.3027),
        (0.95, 6, 2.4469),
        (0.95, 27, 2.0518),
        (0.999, 9, 4.7809),
        (0.9, 30, 1.6973),
    ],
)
def test_students_quantiles(level: float, freedom: int, t: float) -> None:
    assert t_quantile(level, freedom) == pytest.approx(t, abs=1e-4)


def test_many_intervals_are_wider_than_one() -> None:
    assert of_many(1) == 0.95
    assert of_many(10) == pytest.approx(0.995)
    assert normal_quantile(of_many(10)) > normal_quantile(0.95) == pytest.approx(1.959964)


def test_the_difference_of_two_shares() -> None:
    """Newcombe's table II, row (a): 56/70 and 48/80."""
    one, two = share(56, 70), share(48, 80)
    assert one is not None
    assert two is not None
    found = share_change(one, two)
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    assert found.sure


@pytest.mark.parametrize(("pairs", "spread", "rate"), [(7, 0.0, 60), (7, 0.2, 60), (28, 0.2, 400), (4, 0.1, 30)])
def test_a_change_over_days_lies_in_its_interval_as_often_as_it_says(pairs: int, spread: float, rate: float) -> None:
    rng, missed, rounds = np.random.default_rng(pairs), 0, 1500
    for _ in range(rounds):
        busy = np.exp(rng.normal(0, 0.3, pairs))  # both weeks have their busy days
        before = rng.poisson(rate * busy * np.exp(rng.normal(0, spread, pairs)))
        now = rng.poisson(1.2 * rate * busy * np.exp(rng.normal(0, spread, pairs)))
        found = ratio_change(now.tolist(), before.tolist())
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        missed += not found.low <= 0.2 <= found.high
    assert missed / rounds <= 0.075


def test_a_change_of_few_days_or_counts_has_no_interval() -> None:
    assert ratio_change([5], [0]) is None
    alone = ratio_change([120, 130], [100, 100])
    assert alone is not None
    assert (alone.value, alone.low, alone.sure) == (0.25, None, False)
    assert ratio_change([5, 5, 5], [5, 5, 5]).low is None


def saturdays(
    rng: np.random.Generator, weeks: int, rate: float, spread: float, change: float = 0.0
) -> tuple[Difference | None, float]:
    """A Saturday beside the one before, after so many weeks whose days differ by more than chance; and the truth."""
    busy = rate * np.exp(rng.normal(0, 0.3, 7))
    before = rng.poisson(busy * np.exp(rng.normal(0, spread, (weeks, 7))))
    now = int(rng.poisson((1 + change) * busy[5] * np.exp(rng.normal(0, spread))))
    usually = usual(before[1:].ravel().tolist(), before[:-1].ravel().tolist(), alike=True)
    return ratio_change([now], [int(before[-1, 5])], usually=usually), change


@pytest.mark.parametrize(
    ("weeks", "rate", "spread"), [(2, 400, 0.1), (3, 150, 0.2), (5, 400, 0.1), (9, 2_000, 0.15), (9, 150, 0.0)]
)
def test_a_day_beside_another_lies_in_its_interval_as_often_as_it_says(weeks: int, rate: float, spread: float) -> None:
    rng, rounds = np.random.default_rng(weeks), 1500
    missed = 0
    for _ in range(rounds):
        found, truth = saturdays(rng, weeks, rate, spread)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        missed += not found.low <= truth <= found.high
    assert 0.01 <= missed / rounds <= 0.07


def test_a_day_that_has_changed_is_told_from_one_that_has_not() -> None:
    """With four weeks whose days scatter by 10 %, an increase by two thirds is found four times in five."""
    rng, found = np.random.default_rng(3), {0.0: 0, 0.67: 0}
    for more in found:
        for _ in range(600):
            day, _truth = saturdays(rng, 4, 400, 0.1, more)
            assert day is not None
            found[more] += day.sure
    assert found[0.0] <= 0.07 * 600
    assert found[0.67] >= 0.8 * 600


def test_a_slow_trend_hardly_widens_what_is_usual() -> None:
    rising = [100_000 * 1.03**week for week in range(9)]
    flat = usual([100_000] * 8, [100_000] * 8, alike=True)
    found = usual([round(n) for n in rising[1:]], [round(n) for n in rising[:-1]], alike=True)
    assert flat is not None
    assert found is not None
    assert flat.excess == 0
    assert found.excess < 0.03**2 / 2
    assert usual([100, 90], [100, 100], alike=True) is None


@pytest.mark.parametrize(("days", "spread"), [(7, 1.0), (28, 0.7), (7, 0.0), (1, 0.0)])
def test_a_share_over_days_lies_in_its_interval_as_often_as_it_says(days: int, spread: float) -> None:
    """What is common to the visits of one day, such as who was at work, makes shares of days differ."""
    rng, missed, rounds = np.random.default_rng(days), 0, 1500
    odds = rng.normal(0, spread, 200_000)
    truth = float(np.mean(1 / (1 + np.exp(0.8 - odds))))
    for _ in range(rounds):
        n = rng.poisson(60, days)
        k = rng.binomial(n, 1 / (1 + np.exp(0.8 - rng.normal(0, spread, days))))
        sums = [int(one.sum()) for one in (k, n, k * k, k * n, n * n)]
        found = share_of_days(Pairs(days, *sums))
        assert found is not None
        missed += not found.low <= truth <= found.high
    assert missed / rounds <= 0.075


def test_a_share_over_days_is_never_surer_than_that_of_independent_cases() -> None:
    for k, n in ((0, 40), (40, 40), (12, 40)):
        alike = share_of_days(Pairs(4, 4 * k, 4 * n, 4 * k * k, 4 * k * n, 4 * n * n))
        assert alike == share(4 * k, 4 * n)
    assert share_of_days(Pairs(7, 9, 29, 81, 261, 841)) is None


def test_a_median_lies_in_its_interval_as_often_as_it_says() -> None:
    rng, edges = np.random.default_rng(4), np.arange(0.0, 41.0)
    for n in (20, 300):
        missed = 0
        for _ in range(800):
            counts = np.histogram(rng.exponential(10, n), edges)[0]
            low, high = median_interval(counts, edges)
            missed += not low <= 10 * np.log(2) <= high
        assert missed / 800 <= 0.06
    assert median_interval(np.array([0, 1, 0]), np.arange(4.0)) == (1.0, 2.0)
