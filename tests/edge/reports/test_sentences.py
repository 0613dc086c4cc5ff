"""What the pages say of figures: nothing beyond an interval, in both languages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shopdays import DATE, Day, busy, store_values

from config import StoreConfig
from dwell.aggregates import histogram
from dwell.compare import Change, Difference
from edge.days import counters as counters_of
from edge.days import facts, kept
from edge.days.against import Against, AgainstReport
from edge.days.changes import Comparison, ComparisonRow, Effect, Phase, Reference, Trial
from edge.days.facts import Totals
from edge.days.performance import CounterCourse, Course, Performance
from edge.reports import sentences
from edge.words.numbers import duration
from edge.words.tables import Words

CONFIG = StoreConfig.model_validate(store_values(Path()))
EN, ZH = Words(CONFIG, "en"), Words(CONFIG, "zh")


@pytest.fixture
def day(tmp_path: Path) -> Day:
    return Day(StoreConfig.model_validate(store_values(tmp_path)))


def visits(day: Day, zone: str, seconds: int, n: int, spread: int = 0) -> None:
    for i in range(n):
        at = f"{10 + i // 60}:{i % 60}"
        day.visit(f"{zone}{i}", zone, at, seconds + spread * (i % 21 - 10), journey=at)


def change(day: Day, statement: str) -> None:
    """Change visits that have been read already, which never happens outside tests."""
    day.conn.execute(statement)
    kept._made.clear()
    facts._kept.clear()


def test_the_longest_counter_is_only_named_as_such_if_that_is_certain(day: Day) -> None:
    visits(day, "shoes", 200, 100, 3)
    visits(day, "bags", 60, 100, 2)
    visits(day, "books", 58, 100, 2)
    day.covered("04:00", "28:00")
    day.watermark("33:00")
    (said,) = sentences.longest(EN, day.past.counters(DATE))
    assert said.startswith("Shoes holds people longest: median 3:1")
    change(day, "DELETE FROM visit WHERE zone = 'shoes'")
    (said,) = sentences.longest(EN, day.past.counters(DATE))
    assert said.endswith("but the difference from =Books() is not certain.")
    assert said.startswith("Bags has the longest median (")
    assert "还不显著" in sentences.longest(ZH, day.past.counters(DATE))[0]
    change(day, "DELETE FROM visit WHERE zone = 'books'")
    assert "is the only counter with enough visits" in sentences.longest(EN, day.past.counters(DATE))[0]
    change(day, "DELETE FROM visit WHERE zone = 'bags'")
    assert sentences.longest(EN, day.past.counters(DATE)) == [
        "There are too few visits to say which counter holds people longest."
    ]


def test_among_many_like_counters_none_is_called_the_longest(day: Day) -> None:
    """Twelve counters without a difference, 300 times: a claim in no more than 5 % of them, within chance."""
    values = store_values(Path())
    values["zones"] = [{**values["zones"][1], "id": f"z{n}", "name": f"z{n}"} for n in range(12)]
    values["readers"][0]["antennas"] = [{"port": 1, "zone": "z0", "position": [4, 0]}]
    config = StoreConfig.model_validate(values)
    rng, claims = np.random.default_rng(5), 0
    made = day.past.make(DATE).totals
    empty = day.past.counters(DATE)
    for _ in range(300):
        dwell = np.array([histogram((rng.lognormal(4, 1, 120) * 1e6).astype(np.int64)) for _ in range(12)])
        standings = counters_of._standings(config, replace(made, dwell=dwell.astype(np.int64)))
        (said,) = sentences.longest(Words(config, "en"), replace(empty, standings=standings))
        claims += "holds people longest" in said
    assert isinstance(made, Totals)
    assert claims <= 0.08 * 300


def beside(store: Difference | None, **zones: Difference) -> AgainstReport:
    rows = [Against("store", "s1", "journeys", 110, 100, store, 7)]
    rows += [Against("zone", zone, "visits", 11, 10, change, 7, change) for zone, change in zones.items()]
    return AgainstReport("2026-03-01", "2026-03-07", 7, 7, tuple(rows))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Difference(0.1, 0.02, 0.19), "More people came than on the days compared: +10 % (+2 % … +19 %)."),
        (Difference(-0.1, -0.2, -0.01), "Fewer people came than on the days compared: -10 % (-20 % … -1 %)."),
        (
            Difference(0.1, -0.02, 0.2),
            "The number of people differs by +10 % from the days compared; with -2 % … +20 %, that may be chance.",
        ),
        (
            Difference(0.1, None, None),
            "The number of people differs by +10 % from the days compared; so few days can't show whether",
        ),
    ],
)
def test_changes_are_certain_or_said_not_to_be(change: Difference, said: str) -> None:
    assert sentences.changes(EN, beside(change))[0].startswith(said)
    assert sentences.changes(ZH, beside(change))[0] != sentences.changes(EN, beside(change))[0]


def like(change: float | None, low: float | None, high: float | None, *, same: bool = True) -> Reference:
    return Reference("2026-03-07", same, 120, 100, change, low, high)


@pytest.mark.parametrize(
    ("last_week", "holiday", "said"),
    [
        (
            like(0.2, 0.05, 0.38),
            None,
            ["More people came than on the same weekday last week: +20 % (+5 % … +38 %)."],
        ),
        (
            like(-0.2, -0.3, -0.09),
            None,
            ["Fewer people came than on the same weekday last week: -20 % (-30 % … -9 %)."],
        ),
        (
            like(0.1, -0.1, 0.3, same=False),
            like(0.1, -0.1, 0.3),
            [
                "The number of people differs by +10 % from the same holiday last year; with -10 % … +30 %, that may be"
                " chance."
            ],
        ),
        (
            like(0.1, None, None),
            None,
            [
                "The number of people differs by +10 % from the same weekday last week; too few days are known to say"
                " whether that is chance."
            ],
        ),
        (like(None, None, None), None, []),
        (None, None, []),
    ],
)
def test_a_day_beside_its_like_is_told_with_its_interval(
    last_week: Reference | None, holiday: Reference | None, said: list[str]
) -> None:
    row = ComparisonRow("store", "s1", "journeys", 120, last_week, None, 0, None, None, holiday)
    found = Comparison("2026-03-14", 0, False, None, True, None, (row,))
    assert sentences.like_days(EN, found) == said
    assert len(sentences.like_days(ZH, found)) == len(said)


def test_zones_with_certain_changes_are_named() -> None:
    sure, chance = Difference(0.4, 0.1, 0.8), Difference(0.2, -0.1, 0.5)
    base = Difference(0.1, 0.02, 0.2)
    assert sentences.changes(EN, beside(base, shoes=sure, bags=chance, door=sure))[1:] == [
        "Certain changes of visits: Shoes +40 %."
    ]
    assert sentences.changes(EN, beside(base, shoes=chance))[1:] == ["No counter's visits have certainly changed."]
    assert sentences.changes(EN, beside(base, shoes=Difference(0.1, None, None)))[1:] == []
    assert sentences.changes(EN, beside(None)) == sentences.changes(EN, None) == []


def test_where_people_go_next(day: Day) -> None:
    for i in range(120):
        at = f"{10 + i // 60}:{i % 60}"
        day.visit(f"c{i}", "shoes", at, 40, journey=at)
        day.visit(f"c{i}", "books" if i < 90 else "bags", f"{at}:50", 40, journey=at)
    day.covered("04:00", "28:00")
    day.watermark("33:00")
    report = day.past.flows(DATE)
    assert sentences.onward(EN, report, "shoes")[0].startswith(
        "After Shoes, most of those who stay go to =Books(): 75 %"
    )
    assert sentences.onward(EN, report, "door") == []
    change(day, "UPDATE visit SET zone = 'bags' WHERE zone = 'books' AND id % 3 = 0")
    said = sentences.onward(EN, day.past.flows(DATE), "shoes")[0]
    assert "may be as frequent" in said


@pytest.mark.parametrize(
    ("visitors", "engaged", "said"),
    [
        (
            (0.33, 0.21, 0.48),
            (0.1, -0.02, 0.25),
            "More came (+33 %, +21 % … +48 %), no certain change in how many stayed (+10 %, -2 % … +25 %).",
        ),
        ((-0.2, -0.3, -0.1), None, "Fewer came (-20 %, -30 % … -10 %)."),
        (None, None, "There is not enough data yet to say what it did."),
    ],
)
def test_a_promotion_makes_two_claims(
    visitors: tuple[float, float, float] | None, engaged: tuple[float, float, float] | None, said: str
) -> None:
    def phase(told: tuple[float, float, float] | None) -> Phase:
        moved = told and Change(told[0], told[1] + 0.05, told[2] - 0.05, 9, 9, 99, 99, True, told[1:])
        return Phase(moved or None, 9, 0)

    effects = (Effect("visitors", phase(visitors), None), Effect("engaged_visitors", phase(engaged), None))
    trial = Trial("x", "promotion", ("shoes",), ("bags",), "2026-03-01", "2026-03-07", "over", effects)
    assert sentences.trial(EN, trial) == [said]
    assert sentences.trial(ZH, trial)[0].endswith("。")


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.1, 0.4, "more tickets (+"), (-0.4, -0.1, "fewer tickets (-"), (-0.1, 0.4, "no certain change in tickets (+")],
)
def test_tickets_are_a_third_claim_of_a_promotion(low: float, high: float, said: str) -> None:
    change = Change((low + high) / 2, low, high, 9, 9, 99, 99, True, (low, high))
    effects = tuple(
        Effect(measure, Phase(change, 9, 0), None) for measure in ("visitors", "engaged_visitors", "tickets")
    )
    trial = Trial("x", "promotion", ("shoes",), ("bags",), "2026-03-01", "2026-03-07", "over", effects)
    assert f", {said}" in sentences.trial(EN, trial)[0]
    assert "成交单数" in sentences.trial(ZH, trial)[0]


def course(value: float, sure: bool) -> Course:
    limits = (value - 0.05, value + 0.05) if sure else (-1.0, 1.0)
    return Course(10, 10, Difference(value, *limits), 7)


@pytest.mark.parametrize(
    ("shoes", "bags", "sold", "said"),
    [
        ((-0.3, -0.3, -0.3), (0, 0, 0), True, ["Certainly fewer visits and fewer tickets: Shoes."]),
        ((-0.3, 0, 0), (0, 0, -0.3), True, ["Certainly fewer visits: Shoes.", "Certainly fewer tickets: Bags."]),
        ((0, -0.3, 0), (0.3, 0, 0), True, ["Certainly shorter dwell only: Shoes."]),
        ((0, 0.3, 0), (0, 0, 0), True, ["No counter has certainly lost visits, dwell or tickets."]),
        (
            (-0.3, 0, 0),
            (-0.3, 0, 0),
            False,
            ["Certainly fewer visits: Shoes, Bags.", "No sales are known, so nothing can be said about tickets."],
        ),
    ],
)
def test_how_counters_fare_is_said_if_it_is_certain(
    shoes: tuple[float, ...], bags: tuple[float, ...], sold: bool, said: list[str]
) -> None:
    rows = []
    for zone, values in (("shoes", shoes), ("bags", bags)):
        visits_, dwell, tickets = (course(value, value != 0) for value in values)
        rows.append(CounterCourse(zone, "F1", visits_, dwell, tickets, None))
    found = Performance("2026-03-01", "2026-03-07", "2026-03-08", tuple(rows), 1, sold)
    assert sentences.course(EN, found) == said
    assert len(sentences.course(ZH, found)) == len(said)


def test_too_few_days_say_nothing_about_how_counters_fare() -> None:
    none = Course(10, 10, Difference(-0.5, None, None), 1)
    row = CounterCourse("shoes", "F1", none, Course(None, None, None, None), none, None)
    (said,) = sentences.course(EN, Performance("2026-03-01", "2026-03-01", "2026-03-08", (row,), 1, True))
    assert said.startswith("There are too few days to compare")


def test_nothing_is_said_of_visits_or_tickets_that_cannot_be_judged() -> None:
    """One pair of 28 days; dwell is of all visits together, and has an interval."""
    few, dwell = Course(10, 10, Difference(-0.5, None, None), 1), Course(60, 60, Difference(0, -0.2, 0.2), None)
    row = CounterCourse("shoes", "F1", few, dwell, few, None)
    found = Performance("2026-01-18", "2026-02-14", "2026-03-08", (row,), 1, True)
    assert (found.pairs, found.days) == (1, 28)
    assert sentences.course(EN, found) == [
        "No counter's dwell has certainly become shorter.",
        "Days with data on both sides: 1 of 28, too few to say whether visits have changed.",
        "Sales of too few days are known to say whether tickets have changed.",
    ]
    assert "28 天中只有 1 天" in "".join(sentences.course(ZH, found))
    judged = CounterCourse("shoes", "F1", course(0, False), dwell, few, None)
    assert sentences.course(EN, Performance("2026-03-01", "2026-03-07", "2026-03-08", (judged,), 1, True)) == [
        "No counter has certainly lost visits or dwell.",
        "Sales of too few days are known to say whether tickets have changed.",
    ]
    shorter = CounterCourse("shoes", "F1", few, Course(60, 90, Difference(-0.3, -0.4, -0.2), None), few, None)
    assert sentences.course(EN, Performance("2026-03-01", "2026-03-07", "2026-03-08", (shorter,), 1, False))[:2] == [
        "Certainly shorter dwell only: Shoes.",
        "Days with data on both sides: 1 of 7, too few to say whether visits have changed.",
    ]


def test_unserved_need_busy_hours_and_trust(day: Day) -> None:
    busy(day, people=40, engaged=20)
    day.visit("badge", "shoes", "10:00", 3600, cls="staff")
    day.covered("04:00", "28:00", bags=0.3, shoes=0.9)
    day.watermark("33:00")
    past = day.past
    kinds = ("counter",)
    assert sentences.unserved(EN, past.hours(DATE), kinds) == [
        "40 of 80 longer visits were in hours with hardly any staff, above all in =Books() from 11:00 (40)."
    ]
    assert sentences.busiest(EN, past.summary(DATE)) == ["Most people came to Ground in the hour from 10:00: 40."]
    told = sentences.trust(EN, past.summary(DATE))
    assert told[1:] == ["Nothing is known about Bags: covered for less than 50 %.", "Figures of Shoes lack some hours."]


def test_the_interval_that_is_told_is_that_of_the_tables(day: Day) -> None:
    for i in range(110):
        at = f"{10 + i // 60}:{i % 60}"
        day.visit(f"s{i}", "shoes", at, round(60 * 1.03**i), journey=at)
    visits(day, "bags", 60, 100, 2)
    visits(day, "books", 60, 100, 2)
    day.covered("04:00", "28:00")
    day.watermark("33:00")
    found = day.past.counters(DATE)
    row = next(one for one in found.zones if one.zone == "shoes")
    (widened,) = (one for one in found.standings if one.zone == "shoes")
    assert (row.median_low_s, row.median_high_s) != (widened.low_s, widened.high_s)
    own = f"({duration(row.median_low_s, 'en')} … {duration(row.median_high_s, 'en')})"
    assert own in sentences.longest(EN, found)[0]


def test_visits_that_met_nobody_are_told_with_where_most_of_them_were(day: Day) -> None:
    day.covered("04:00", "28:00")
    day.watermark("33:00")
    assert sentences.unmet(EN, day.past.need(DATE)) == []
    for i in range(4):
        day.visit(f"a{i}", "shoes", f"10:0{i}", 60)
    for i in range(7):
        day.visit(f"b{i}", "books", f"11:1{i}", 60)
    day.visit("badge", "books", "11:10", 200, cls="staff")
    kept._made.clear()
    facts._kept.clear()
    (said,) = sentences.unmet(EN, day.past.need(DATE))
    floors = {one.floor: one.unserved for one in day.past.need(DATE).floors}
    assert floors["F1"] == 4
    assert 0 < floors["F2"] < 7
    most = max(floors, key=lambda floor: floors[floor])
    at = {"F1": "Ground in the hour from 10:00 (4 of 4)", "F2": f"2 in the hour from 11:00 ({floors['F2']} of 7)"}[most]
    assert said == f"{sum(floors.values())} of 11 longer visits met nobody, above all on {at}."
    assert "无人接待" in sentences.unmet(ZH, day.past.need(DATE))[0]
    change(day, "DELETE FROM visit WHERE zone = 'shoes'")
    day.visit("badge 2", "books", "11:00", 3000, cls="staff")
    kept._made.clear()
    assert sentences.unmet(EN, day.past.need(DATE)) == ["Every visit long enough to expect service met staff."]
