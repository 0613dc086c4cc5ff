"""From stop to stop, and ways from and to a zone, against journeys told one by one."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from shopdays import DATE, Day

from edge.days import kept
from edge.days.tree import Branch

ZONES = ("door", "shoes", "bags", "hall", "books")


def walks(day: Day, dice: random.Random) -> Iterator[list[tuple[str, int, bool]]]:
    """Journeys as (zone, seconds, censored); most of a few kinds, so that some ways are frequent."""
    for number in range(240):
        kind = random.Random(dice.randrange(30))
        way = [(kind.choice(ZONES), kind.choice((3, 20, 45, 150)), dice.random() < 0.03) for _ in range(6)]
        at, began = 10 * 3600 + 120 * number, ""
        for step, (zone, seconds, censored) in enumerate(way):
            clock = f"{at // 3600}:{at % 3600 // 60}:{at % 60}"
            began = began if step else clock
            day.visit(f"t{number}", zone, clock, seconds, journey=began, censored=censored)
            at += seconds + 1
        yield way


def is_stop(zone: str, seconds: int) -> bool:
    return zone == "door" or (zone != "hall" and seconds >= 30)


@pytest.fixture
def journeys(day: Day) -> list[list[tuple[str, int, bool]]]:
    made = list(walks(day, random.Random(3)))
    day.covered("04:00", "28:00")
    day.watermark("33:00")
    return made


def test_steps_lead_from_stop_to_stop(day: Day, journeys: list[list[tuple[str, int, bool]]]) -> None:
    steps: Counter[tuple[str | None, str | None]] = Counter()
    carried: Counter[tuple[str | None, str | None]] = Counter()
    unseen = 0
    for way in journeys:
        stops = [n for n, (zone, seconds, _) in enumerate(way) if is_stop(zone, seconds)]
        if not stops:
            continue
        own: Counter[tuple[str | None, str | None]] = Counter()
        for a, b in pairwise([None, *stops, None] if stops else []):
            begin, end = 0 if a is None else a, len(way) - 1 if b is None else b
            pair = (None if a is None else way[a][0], None if b is None else way[b][0])
            if pair[0] == pair[1]:
                continue
            if any(censored for _, _, censored in way[begin : end + 1]):
                unseen += 1
            else:
                own[pair] += 1
        steps += own
        carried += Counter(own.keys())
    report = day.past.flows(DATE)
    shown = {(step.from_zone, step.to_zone): step.n for step in report.stops}
    assert shown == {pair: n for pair, n in steps.items() if carried[pair] >= 5}
    assert len(shown) > 8
    assert not any("hall" in pair for pair in shown)
    leaving = sum(n for (a, _), n in steps.items() if a == "shoes")
    told = next(step for step in report.stops if step.from_zone == "shoes")
    assert (told.leaving, told.n) == (leaving, shown["shoes", told.to_zone])
    assert report.folded.unseen == unseen
    inner = {pair: n for pair, n in steps.items() if None not in pair}
    assert (report.folded.n, report.folded.suppressed_n) == (
        sum(inner.values()),
        sum(n for pair, n in inner.items() if carried[pair] < 5),
    )
    made = day.past.make(DATE)
    for back in range(3):
        kept.save(day.conn, day.config, replace(made, date=DATE - back * kept.DAY))
    again = {(step.from_zone, step.to_zone): step.n for step in day.past.flows(DATE, 3).stops}
    assert {pair: n for pair, n in again.items() if pair in shown} == {pair: 3 * n for pair, n in shown.items()}


def test_ways_from_and_to_a_zone(day: Day, journeys: list[list[tuple[str, int, bool]]]) -> None:
    after: Counter[tuple[str, ...]] = Counter()
    before: Counter[tuple[str, ...]] = Counter()
    for way in journeys:
        if any(censored for _, _, censored in way):
            continue
        path = list(dict.fromkeys(zone for zone, seconds, _ in way if is_stop(zone, seconds)))
        if "shoes" in path:
            at = path.index("shoes")
            after[tuple([*path[at + 1 :], "end"][:3])] += 1
            before[tuple([*reversed(path[:at]), "end"][:3])] += 1
    found = day.past.tree(DATE, 1, "shoes")
    assert found.n == sum(after.values())
    for root, ways in ((found.before, before), (found.after, after)):
        told = {way: n for way, n, _ in listed(root)}
        wanted: Counter[tuple[str, ...]] = Counter()
        for path_, n in ways.items():
            for long in range(1, len(path_) + 1):
                wanted[path_[:long]] += n
        assert told == {
            way: n for way, n in wanted.items() if all(wanted[way[:k]] >= 5 for k in range(1, len(way))) and n >= 5
        }
        assert len(told) >= 4
        hidden = sum(n for way, n in wanted.items() if len(way) == 1 and n < 5)
        assert root.others == (None if 0 < hidden < 5 else hidden)
    made = day.past.make(DATE)
    kept.save(day.conn, day.config, made)
    kept.save(day.conn, day.config, replace(made, date=DATE - kept.DAY))
    twice = {way: n for way, n, _ in listed(day.past.tree(DATE, 2, "shoes").after)}
    once = {way: n for way, n, _ in listed(found.after)}
    assert {way: twice[way] for way in once} == {way: 2 * n for way, n in once.items()}


def listed(root: Branch, way: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int, Branch]]:
    for branch in root.branches:
        here = (*way, branch.zone or "end")
        yield here, branch.n, branch
        yield from listed(branch, here)
