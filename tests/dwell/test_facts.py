"""Facts, flows and staff contact against brute force on the same stays, second by second where that is the meaning."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from dwell import facts as F
from dwell import paths, service
from dwell.aggregates import bins
from dwell.layout import TagClass, ZoneKind
from dwell.stays import STAY, Place, Span, Stays, in_order, presence

S = 1_000_000
W = 900 * S
K = ZoneKind
PLACE = Place(
    zone_kind=np.array([K.ENTRANCE, K.AISLE, K.COUNTER, K.COUNTER, K.CHECKOUT, K.EXIT], np.uint8),
    zone_floor=np.array([0, 0, 0, 1, 1, 0], np.int16),
    floors=2,
)
ZONES = PLACE.zones
PEOPLE = (TagClass.UNKNOWN, TagClass.MEMBER)


@st.composite
def days(draw: st.DrawFn) -> Stays:
    """Some tags' journeys: stays one after the other, some of them across windows."""
    rows = []
    for carrier in range(draw(st.integers(0, 7))):
        tag_class = draw(st.sampled_from((0, 0, 1, 1, 2, 3, 3, 4)))
        at = draw(st.integers(0, 4000)) * S
        for _ in range(draw(st.integers(1, 2))):
            journey = at
            for _ in range(draw(st.integers(1, 7))):
                long = draw(st.sampled_from((3, 12, 30, 45, 119, 120, 400, 1000))) * S
                zone = draw(st.integers(0, ZONES - 1))
                rows.append((at, at + long, journey, carrier, zone, tag_class, draw(st.integers(0, 9)) == 0))
                at += long + draw(st.sampled_from((0, 0, 7, 40))) * S
            at += 2000 * S
    order = draw(st.permutations(range(len(rows))))
    return in_order(np.array([rows[i] for i in order], STAY))


spans = st.tuples(st.integers(0, 9000), st.integers(1, 9000)).map(lambda s: Span(s[0] * S, (s[0] + s[1]) * S, W))


def journeys(stays: Stays) -> list[list[np.void]]:
    found: dict[tuple[int, int], list[np.void]] = defaultdict(list)
    for stay in stays:
        found[int(stay["carrier"]), int(stay["journey_us"])].append(stay)
    return [sorted(own, key=lambda stay: stay["enter_us"]) for own in found.values()]


def long(stay: np.void) -> int:
    return int(stay["exit_us"] - stay["enter_us"])


@settings(max_examples=examples(120), deadline=None)
@given(days(), spans)
def test_counts_equal_brute_force(stays: Stays, span: Span) -> None:
    made = F.facts(stays, PLACE, span)
    zones, floors, store = (F.total(table) for table in (made.zones, made.floors, made.store))
    expect = np.zeros(ZONES, F.ZONE_FACTS)
    floor = np.zeros(2, F.FLOOR_FACTS)
    whole = np.zeros((), F.STORE_FACTS)
    dwell = np.zeros((ZONES, made.dwell.shape[2]), np.int64)
    for own in journeys(stays):
        tag_class = TagClass(own[0]["tag_class"])
        before = None
        for stay in own:
            here = expect[stay["zone"]]
            if span.start_us <= stay["enter_us"] < span.end_us and tag_class in (*PEOPLE, TagClass.CART):
                here[tag_class.name.lower()] += 1
                if PLACE.zone_floor[stay["zone"]] != before:
                    floor[PLACE.zone_floor[stay["zone"]]][tag_class.name.lower()] += 1
                if tag_class in PEOPLE and stay["censored"]:
                    here["censored"] += 1
                elif tag_class in PEOPLE:
                    names = ("pass_by", "touch", "visit", "engaged")
                    here[names[sum(long(stay) >= limit * S for limit in (5, 30, 120))]] += 1
                    dwell[stay["zone"], bins(np.array([long(stay)]))[0]] += 1
            before = PLACE.zone_floor[stay["zone"]]
        if not span.start_us <= own[0]["journey_us"] < span.end_us:
            continue
        if tag_class in (*PEOPLE, TagClass.CART):
            whole[tag_class.name.lower()] += 1
        if tag_class in PEOPLE:
            expect[own[0]["zone"]]["entries"] += 1
            expect[own[-1]["zone"]]["exits"] += 1
            for name, least in (("visitors", 5), ("stoppers", 30), ("engaged_visitors", 120)):
                for zone in {int(stay["zone"]) for stay in own if long(stay) >= least * S}:
                    expect[zone][name] += 1
            at_counters = [s for s in own if long(s) >= 30 * S and PLACE.zone_kind[s["zone"]] == K.COUNTER]
            if at_counters:
                whole["stopped"] += 1
                expect[at_counters[0]["zone"]]["first_stops"] += 1
    for name in ("member", "unknown", "cart", "censored", "pass_by", "touch", "visit", "engaged"):
        assert zones[name].tolist() == expect[name].tolist(), name
    for name in ("visitors", "stoppers", "engaged_visitors", "first_stops", "entries", "exits"):
        assert zones[name].tolist() == expect[name].tolist(), name
    for name in ("member", "unknown", "cart"):
        assert floors[name].tolist() == floor[name].tolist()
        assert store[name] == whole[name]
    assert store["stopped"] == whole["stopped"]
    assert (made.dwell.sum(axis=0) == dwell).all()


@settings(max_examples=examples(60), deadline=None)
@given(days(), spans)
def test_presence_peaks_and_staffed_time_equal_a_look_at_every_second(stays: Stays, span: Span) -> None:
    """All times are whole seconds, so that a look at each second sees all."""
    made = F.facts(stays, PLACE, span)
    for number, window_us in enumerate(made.windows_us.tolist()):
        at = np.arange(max(window_us, span.start_us), min(window_us + W, span.end_us), S)
        there = (stays["enter_us"][:, None] <= at) & (at < stays["exit_us"][:, None])
        for zone in range(ZONES):
            ours = there & (stays["zone"] == zone)[:, None]
            people = (ours & np.isin(stays["tag_class"], PEOPLE)[:, None]).sum(axis=0)
            badges = (ours & (stays["tag_class"] == TagClass.STAFF)[:, None]).sum(axis=0)
            row = made.zones[number, zone]
            assert row["present_us"] == people.sum() * S
            assert row["peak"] == people.max(initial=0)
            assert row["staffed_us"] == (badges > 0).sum() * S
            assert row["staff_us"] == badges.sum() * S
        people = there & np.isin(stays["tag_class"], PEOPLE)[:, None]
        for floor in range(2):
            on = (people & (PLACE.zone_floor[stays["zone"]] == floor)[:, None]).sum(axis=0)
            assert made.floors[number, floor]["peak"] == on.max(initial=0)
            assert made.floors[number, floor]["present_us"] == on.sum() * S
        assert made.store[number]["peak"] == people.sum(axis=0).max(initial=0)


@settings(max_examples=examples(60), deadline=None)
@given(days())
def test_contacts_equal_a_look_at_every_second(stays: Stays) -> None:
    made = service.contacts(stays, PLACE)
    for number, stay in enumerate(stays):
        seconds = np.arange(stay["enter_us"], stay["exit_us"], S)
        staff = [s for s in stays if s["tag_class"] == TagClass.STAFF and s["zone"] == stay["zone"]]
        if stay["tag_class"] not in PEOPLE:
            assert not made.wanted[number]
            continue
        began, together = [], np.zeros(len(seconds), bool)
        for badge in staff:
            both = (seconds >= badge["enter_us"]) & (seconds < badge["exit_us"])
            together |= both
            if both.sum() >= 15:
                began.append(seconds[both][0] - stay["enter_us"])
        assert made.wait_us[number] == min(began, default=service.NEVER)
        assert made.assist_us[number] == (together.sum() * S if began else 0)
        served = PLACE.zone_kind[stay["zone"]] == K.COUNTER and long(stay) >= 30 * S and not stay["censored"]
        assert made.wanted[number] == served


@settings(max_examples=examples(60), deadline=None)
@given(days(), spans)
def test_waits_and_assistance_are_those_of_the_contacts(stays: Stays, span: Span) -> None:
    made, met = F.facts(stays, PLACE, span), service.contacts(stays, PLACE)
    for name, long_us in (("wait", met.wait_us), ("assist", met.assist_us)):
        expect = np.zeros(made.wait.shape[1:], np.int64)
        for number, stay in enumerate(stays):
            if met.wanted[number] and met.met[number] and span.start_us <= stay["enter_us"] < span.end_us:
                expect[stay["zone"], bins(long_us[number : number + 1])[0]] += 1
        assert (getattr(made, name).sum(axis=0) == expect).all(), name


@settings(max_examples=examples(80), deadline=None)
@given(days(), spans)
def test_flows_equal_brute_force(stays: Stays, span: Span) -> None:
    ours = stays[np.isin(stays["tag_class"], PEOPLE)]
    made = paths.flows(ours, PLACE, span)
    links: Counter[tuple[int, int]] = Counter()
    walked: dict[tuple[int, int], set[int]] = defaultdict(set)
    routes: Counter[tuple[int, ...]] = Counter()
    unseen = unseen_paths = pathless = 0
    for number, own in enumerate(journeys(ours)):
        if not span.start_us <= own[0]["journey_us"] < span.end_us:
            continue
        for one, two in pairwise([None, *own, None]):
            from_, to = (ZONES if stay is None else int(stay["zone"]) for stay in (one, two))
            if from_ == to:
                continue
            if any(stay is not None and stay["censored"] for stay in (one, two)):
                unseen += 1
            else:
                links[from_, to] += 1
                walked[from_, to].add(number)
        if any(stay["censored"] for stay in own):
            unseen_paths += 1
            continue
        route: list[int] = []
        for stay in own:
            kind = PLACE.zone_kind[stay["zone"]]
            stop = kind in (K.ENTRANCE, K.EXIT) or (kind != K.AISLE and long(stay) >= 30 * S)
            if stop and stay["zone"] not in route:
                route.append(int(stay["zone"]))
        if route:
            routes[tuple(route)] += 1
        else:
            pathless += 1
    assert {(int(a), int(b)): int(made.links[a, b]) for a, b in np.argwhere(made.links)} == links
    assert {pair: int(made.link_journeys[pair]) for pair in links} == {pair: len(n) for pair, n in walked.items()}
    assert (made.unseen, made.unseen_paths, made.pathless) == (unseen, unseen_paths, pathless)
    assert made.paths == routes


def same(one: F.Facts, two: F.Facts) -> None:
    for name in ("windows_us", "zones", "floors", "store", "dwell", "wait", "assist"):
        assert (getattr(one, name) == getattr(two, name)).all(), name
    assert (one.flows.links == two.flows.links).all()
    assert (one.flows.link_journeys == two.flows.link_journeys).all()
    assert one.flows.paths == two.flows.paths
    assert (one.flows.unseen, one.flows.unseen_paths, one.flows.pathless) == (
        two.flows.unseen,
        two.flows.unseen_paths,
        two.flows.pathless,
    )


@settings(max_examples=examples(80), deadline=None)
@given(days(), st.lists(st.integers(0, 9000), min_size=3, max_size=5, unique=True).map(sorted))
def test_parts_of_a_span_add_up_to_the_span(stays: Stays, cuts: list[int]) -> None:
    """Wherever it is cut, within a window, a visit or a journey."""
    parts = [F.facts(stays, PLACE, Span(a * S, b * S, W)) for a, b in pairwise(cuts)]
    same(F.merge(parts), F.facts(stays, PLACE, Span(cuts[0] * S, cuts[-1] * S, W)))
    same(F.merge(parts[::-1]), F.merge(parts))


@settings(max_examples=examples(60), deadline=None)
@given(days(), spans)
def test_presence_is_the_time_in_zones(stays: Stays, span: Span) -> None:
    carriers, total = presence(stays, span)
    expect: Counter[int] = Counter()
    for stay in stays:
        inside = min(int(stay["exit_us"]), span.end_us) - max(int(stay["enter_us"]), span.start_us)
        expect[int(stay["carrier"])] += max(inside, 0)
    assert dict(zip(carriers.tolist(), total.tolist(), strict=True)) == expect


@pytest.mark.parametrize(
    ("walked", "path"),
    [
        ((0, 2, 2, 3, 5), (0, 2, 3, 5)),
        ((0, 2, 3, 2, 5), (0, 2, 3, 5)),
        ((0, 2, 3, 4, 3, 2, 0), (0, 2, 3, 4)),
        ((2, 3, 4, 2, 5), (2, 3, 4, 5)),
        ((), ()),
    ],
)
def test_loops_and_palindromes_leave_their_first_half(walked: tuple[int, ...], path: tuple[int, ...]) -> None:
    assert paths.cleaned(walked) == path


def test_a_route_is_habitual_from_the_third_journey_on() -> None:
    assert paths.habitual([(0, 2), (0, 2), (0, 3)]) is None
    assert paths.habitual([(0, 2), (0, 3), (0, 2), (0, 3), (0, 2)]) == ((0, 2), 3)
    assert paths.habitual([(), (), ()]) is None
    assert paths.habitual([(0, 3)] * 3 + [(0, 2)] * 3) == ((0, 2), 3)


def test_no_facts_do_not_merge() -> None:
    with pytest.raises(ValueError, match="no facts"):
        F.merge([])


def test_windows_that_are_not_known_are_left_out() -> None:
    stays = np.array([(0, 50 * S, 0, 0, 2, 0, 0), (W, W + 200 * S, 0, 0, 2, 0, 0)], STAY)
    made = F.facts(stays, PLACE, Span(0, 2 * W, W))
    known = np.array([[True], [False]])
    assert F.total(made.zones, known)[2]["visit"] == 1
    assert F.total(made.zones, known)[2]["engaged"] == 0
    assert F.total(made.zones)[2]["engaged"] == 1
