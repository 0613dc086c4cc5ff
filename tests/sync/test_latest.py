"""Corrections at the consumer: the newest revision holds and parts add up, whatever comes in which order how often."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from brokers import window
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from config import topics
from sync import latest
from sync.consumer import Delivery, Ledger
from sync.contract import Event, ZoneWindow
from sync.contract_days import SuspectDay


def told(n: int, revision: int = 1, **changes: Any) -> ZoneWindow:
    made: ZoneWindow = window(n).model_copy(
        update={"window_us": 900_000_000, "revision": revision, "coverage": 0.25} | changes
    )
    return made


def batch(seq: int, event: Event, epoch: str = "e") -> Delivery:
    head = {"v": 1, "store": "s1", "epoch": epoch, "class": event_class(event), "first": seq, "n": 1, "sent_us": 1}
    numbered = event.model_copy(update={"id": f"s1/{epoch}/{event_class(event)}/{seq}"})
    message = head | {"boot": "b", "mono_us": 1, "events": [numbered.model_dump(mode="json")]}
    return Delivery(topics.topic("s1", f"up/{event_class(event)}"), json.dumps(message).encode(), 1)


def event_class(event: Event) -> str:
    return "health" if isinstance(event, SuspectDay) else "agg"


def suspects(revision: int, day: str = "2026-01-01") -> SuspectDay:
    head = {"first_day": day, "last_day": day, "days": 1, "revision": revision, "as_of_us": 1, "def_version": 1}
    return SuspectDay.model_validate(head | {"small_cell": 5, "n": revision, "tags": []})


def kept(deliveries: list[Delivery]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    ledger = Ledger(":memory:", latest.keep, tables=latest.TABLES)
    for delivery in deliveries:
        ledger.take([delivery])
    found = latest.windows(ledger._conn, "s1", 0, 2**60), latest.days(ledger._conn, "s1", "2026-01-01")
    ledger.close()
    return found


STORY = [
    batch(1, told(3, layout_version="a")),
    batch(2, told(4, layout_version="b")),  # the layout was changed: two parts
    batch(3, told(6, revision=2)),  # a visit ended late
    batch(4, told(5, revision=3)),  # a stuck tag was taken out
    batch(1, told(9, zone="shoes"), epoch="e"),  # a repetition under a number that is there: never looked at
    batch(5, told(7, zone="shoes")),
    batch(1, told(2, zone="shoes"), epoch="f"),  # a gateway was replaced within the window
    batch(1, suspects(1)),
    batch(2, suspects(2)),
    batch(3, suspects(1, "2026-01-02")),
]


@settings(deadline=None, max_examples=examples(60))
@given(st.permutations([n for n in range(len(STORY)) if n != 4]), st.data())
def test_the_newest_revision_holds_in_any_order(order: list[int], data: st.DataObject) -> None:
    again = data.draw(st.lists(st.sampled_from(order), max_size=5))
    windows, days = kept([STORY[n] for n in [*order, *again]])
    cosmetics, shoes = windows
    assert (cosmetics["zone"], cosmetics["entered"], cosmetics["peak"], cosmetics["revision"]) == ("cosmetics", 5, 5, 3)
    assert cosmetics["histogram"] == {"3": 5}
    assert (shoes["zone"], shoes["entered"], shoes["peak"], shoes["coverage"]) == ("shoes", 9, 7, 0.5)
    assert [day["revision"] for day in days] == [2]


@settings(deadline=None, max_examples=examples(20))
@given(st.permutations([0, 1]))
def test_parts_of_a_window_add_up(order: list[int]) -> None:
    ((whole,), _) = kept([STORY[n] for n in order])
    assert (whole["entered"], whole["present_us"], whole["peak"], whole["coverage"]) == (7, 7, 4, 0.5)
    assert (whole["histogram"], whole["layout_version"]) == ({"3": 7}, "b")


def test_definitions_are_kept_apart() -> None:
    windows, _ = kept([batch(1, told(1)), batch(2, told(2, def_version=2))])
    assert [(one["def_version"], one["entered"]) for one in windows] == [(1, 1), (2, 2)]


def test_a_number_that_is_there_is_not_counted_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "crm.db", latest.keep, tables=latest.TABLES)
    for _ in range(3):
        ledger.take([STORY[0], STORY[4]])
    assert [one["entered"] for one in latest.windows(ledger._conn, "s1", 0, 2**60)] == [3]
    ledger.close()
    again = Ledger(tmp_path / "crm.db", latest.keep, tables=latest.TABLES)
    again.take([STORY[1]])
    assert [one["entered"] for one in latest.windows(again._conn, "s1", 0, 2**60)] == [7]
    again.close()
