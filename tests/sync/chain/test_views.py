"""The views say what the stores' own pages say, number for number, and what the reference tables say."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from brokers import journey, recognised, window
from chains import batch, dashboard_queries, message
from shopdays import DATE, day_of, morning, tell

from config.facts import TAG_CLASSES
from sync import latest
from sync.chain.decoding import decode
from sync.chain.ledger import Ledger
from sync.consumer import Delivery
from sync.consumer import Ledger as Reference
from sync.contract import Cue, CueOutcome, event_id

DASHBOARD = Path(__file__).parents[3] / "docs/chain/dashboard.json"


def take(conn: Any, events: Iterable[Any], epoch: str = "e") -> list[Delivery]:
    """Commit events of one store, `s1`; returns their messages."""
    by_class: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    from sync.contract import CLASS_OF

    for event in events:
        class_ = CLASS_OF[event.type]
        seq = len(by_class[class_]) + 1
        by_class[class_].append(event.model_dump(mode="json") | {"id": event_id("s1", epoch, class_, seq)})
    messages = [message("s1", 1, some, class_, epoch) for class_, some in by_class.items()]
    Ledger(conn, version="1").take([(decode(*one), 1) for one in messages])
    return [Delivery(topic, payload, 1) for topic, payload in messages]


def rows(conn: Any, view: str, *columns: str, where: str = "true") -> list[Any]:
    return conn.execute(f"SELECT {', '.join(columns)} FROM chain.{view} WHERE {where} ORDER BY 1, 2").fetchall()


def told(number: Any) -> Any:
    """A number as a store tells it: seconds to a tenth, shares to four places."""
    return pytest.approx(number, abs=0.05 if number > 1 else 5e-5) if isinstance(number, float) else number


async def test_days_have_the_stores_own_numbers(conn: Any, tmp_path: Path) -> None:
    targets = [{"tier": "A", "wait_s": 60, "assist_s": 90}]
    day = day_of(tmp_path, service_targets=targets)
    try:
        morning(day)
        events = await tell(day)
        take(conn, events)
        past = day.past
        cards = {zone.zone: zone for zone in past.counters(DATE).zones}
        names = ("zone", "floor", "coverage", "n", "pass_by", "touch", "visit", "engaged", "median_s", "p75_s")
        found = rows(conn, "zone_day", *names, "draw_k", "draw_n", "rank_best", where=f"day = '{DATE}'")
        assert len(found) == len(cards) == 6
        for zone, floor, coverage, *figures, draw_k, draw_n, best in found:
            card = cards[zone]
            assert (floor, coverage) == (card.floor, told(card.coverage))
            assert figures == [told(getattr(card, name)) for name in names[3:]], zone
            assert (draw_k, draw_n) == ((card.draw.k, card.draw.n) if card.draw else (None, None))
            assert best == (card.rank and card.rank[0])
        walked_ = past.flows(DATE)
        assert sorted(rows(conn, "flow", "from_zone", "to_zone", "n"), key=str) == sorted(
            ((link.from_zone, link.to_zone, link.n) for link in walked_.links), key=str
        )
        assert {(tuple(zones), n) for zones, n in rows(conn, "route", "zones", "n")} == {
            (tuple(path.zones), path.n) for path in walked_.paths
        }
        (mine,) = past.tiers(DATE).tiers
        (tier,) = rows(conn, "tier_mix", "tier", "members", "journeys", "wait_median_s", "wait_kept_k", "contact_n")
        kept, contact = mine.wait_kept, mine.contact
        assert tier == (
            mine.tier,
            mine.members,
            mine.journeys,
            told(mine.wait_median_s),
            kept and kept.k,
            contact and contact.n,
        )
        served = {zone.zone: zone for zone in past.service(DATE).zones}
        for zone, wanted, met_k, wait, staffed in rows(
            conn, "service", "zone", "wanted", "met_k", "wait_median_s", "staffed"
        ):
            one = served[zone]
            assert (wanted, met_k, wait) == (one.wanted, one.met and one.met.k, told(one.wait_median_s))
            assert staffed == told(one.staffed)
        floors = dict(rows(conn, "floor_day", "floor", '"unknown"'))
        assert floors["F1"] == 40
        ((coverage, unknown, zones),) = rows(conn, "coverage", "coverage", "zones_unknown", "zones")
        known = [card.coverage for card in cards.values() if card.coverage is not None]
        assert (coverage, unknown, zones) == (pytest.approx(sum(known) / len(known)), 6 - len(known), 6)
    finally:
        day.conn.close()


async def test_a_later_revision_of_a_day_replaces_it_whatever_comes_first(conn: Any, tmp_path: Path) -> None:
    day = day_of(tmp_path)
    try:
        morning(day)
        first = await tell(day)
        day.visit("late", "shoes", "15:00", 400, journey="15:00")
        day.conn.execute("UPDATE fact SET value = value")
        card = next(one for one in first if one.type == "scorecard" and one.zone == "shoes")
        later = card.model_copy(update={"revision": 3, "n": 99})
        stale = card.model_copy(update={"revision": 2, "n": 98})
        take(conn, [card, later, stale])
        assert rows(conn, "zone_day", "zone", "n", "revision") == [("shoes", 99, 3)]
    finally:
        day.conn.close()


@pytest.mark.parametrize("seed", range(3))
def test_windows_are_what_the_reference_tables_say(conn: Any, seed: int) -> None:
    """Revisions in any order, windows cut in parts, and two epochs."""
    dice = random.Random(seed)
    reference = Reference(":memory:", latest.keep, tables=latest.TABLES)
    for epoch in ("e", "f"):
        events = []
        for _ in range(120):
            made = {
                "zone": dice.choice(("a", "b")),
                "tag_class": dice.choice(TAG_CLASSES[:2]),
                "window_us": dice.choice((0, 900_000_000)),
                "revision": dice.choice((1, 2, 3)),
                "coverage": dice.choice((0.25, 0.5)),
                "business_date": "2026-03-14",
                "histogram": {str(dice.randrange(9)): 1},
            }
            events.append(window(dice.randrange(20)).model_copy(update=made))
        reference.take(take(conn, events, epoch))
    names = ("window_us", "zone", "tag_class", "revision", "entered", "present_us", "peak", "coverage")
    wanted = sorted(tuple(row[name] for name in names) for row in latest.windows(reference._conn, "s1", 0, 2**62))
    assert sorted(rows(conn, "zone_window", *names)) == [
        (*row[:-1], pytest.approx(row[-1], abs=1e-3)) for row in wanted
    ]
    entered = sum(row[4] for row in wanted)
    assert sum(row[1] for row in rows(conn, "zone_today", "zone", "entered")) == entered
    reference.close()


def test_members_visits_and_journeys(conn: Any) -> None:
    whole = journey(3).model_copy(update={"member": "M3"})
    take(conn, [whole, recognised(3)])
    found = rows(conn, "member_visit", "member", "zone", "dwell_s::double precision", "censored")
    assert found == sorted(
        (whole.member, stop.zone, (stop.exit_us - stop.enter_us) / 1e6, stop.censored) for stop in whole.stops
    )
    ((member, zones, complete),) = rows(conn, "member_journey", "member", "zones", "complete")
    assert (member, zones, complete) == (whole.member, [stop.zone for stop in whole.stops], True)
    part = whole.model_copy(update={"part": 1, "parts": 2})
    take(conn, [part], epoch="f")
    assert rows(conn, "member_journey", "complete", "member", where="epoch = 'f'") == [(False, whole.member)]


def test_a_cues_outcome_is_the_final_one(conn: Any) -> None:
    cue = Cue.model_validate(
        {"kind": "arrival", "member": "M1", "tier": "A", "zone": "z", "floor": "F", "since_us": 1, "due_us": 1}
        | {"made_us": 2, "expires_us": 9, "rule": "r", "rules_version": 1}
    )
    outcomes = [
        CueOutcome.model_validate({"cue": "s1/e/member/1", "member": "M1", "outcome": outcome, "at_us": at})
        for outcome, at in (("acknowledged", 3), ("done", 4), ("snoozed", 5))
    ]
    take(conn, [cue, cue, *outcomes])
    assert rows(conn, "cue_result", "seq", "outcome") == [(1, "done"), (2, None)]


def test_freshness_says_what_is_missing(conn: Any) -> None:
    ledger = Ledger(conn, version="1")
    ledger.take([(decode(*batch("s1", 1, 5)), 1_000_000), (decode(*batch("s1", 8, 2, lost=((7, 7),))), 2_000_000)])
    ledger.take([(decode(*batch("s2", 1, 1, "agg")), 1)])
    found = rows(
        conn, "freshness", "store", "behind", "lost", "received", "extract(epoch FROM heard)::bigint", "readers"
    )
    assert found == [("s1", 4, 1, 7, 2, 1), ("s2", 0, 0, 1, 0, None)]


def test_every_view_can_be_read(conn: Any) -> None:
    query = "SELECT viewname FROM pg_views WHERE schemaname = 'chain'"
    views = [name for (name,) in conn.execute(query)]
    assert len(views) >= 13
    for view in views:
        conn.execute(f"SELECT * FROM chain.{view}").fetchall()


def test_the_dashboards_queries_run(conn: Any) -> None:
    """As the reader: all that they need are the views."""
    queries = dashboard_queries(DASHBOARD)
    assert len(queries) >= 12
    views = {name for (name,) in conn.execute("SELECT viewname FROM pg_views WHERE schemaname = 'chain'")}
    for query in queries:
        assert set(re.findall(r"chain\.(\w+)", query)) <= views, query
        conn.execute(query.encode())
