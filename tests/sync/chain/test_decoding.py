"""The sink's decoding accepts what the models accept, with the same values; structs alone never more."""

from __future__ import annotations

import gzip
import json
import random
from functools import cache
from typing import Any

import msgspec
import pytest
from chains import batch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from thorough import examples

from config import topics
from simulators.headquarters.inventor import Inventor
from sync.chain import decoding
from sync.chain.decoding import Bad, Good
from sync.chain.structs import event_decoder, type_of
from sync.consumer import decode as by_models
from sync.contract import CLASS_OF, Event, event_id

ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1.0,
    1.5,
    "1",
    "",
    "x" * 129,
    "x" * 301,
    "\u0000",
    "½",
    2**63 - 1,
    2**63,
    -(2**63),
    1e300,
    [],
    {},
)
STRUCTS = event_decoder()
MODELS: TypeAdapter[Event] = TypeAdapter(Event)


@cache
def invented() -> dict[str, dict[str, Any]]:
    """One event of every type."""
    inventor, found = Inventor(random.Random(5)), dict[str, dict[str, Any]]()
    while len(found) < len(CLASS_OF):
        class_, event = inventor.next()
        inventor.numbered(event, event_id("s1", "e", class_, 1))
        found[event.type] = json.loads(event.model_dump_json()) | {"id": event_id("s1", "e", class_, 1)}
    return found


def message(*events: Any, class_: str = "agg", first: int = 1, **others: Any) -> bytes:
    head = {"v": 1, "store": "s1", "epoch": "e", "class": class_, "first": first, "n": len(events), "sent_us": 1}
    return json.dumps(head | {"boot": "b", "mono_us": 1, "events": list(events)} | others, ensure_ascii=False).encode()


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every value in a document, by its path."""
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [*([path] if path else []), *(one for key, value in inner for one in places(value, (*path, key)))]


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """An event with one value replaced, removed or added."""
    event = json.loads(json.dumps(invented()[draw(st.sampled_from(sorted(CLASS_OF)))]))
    path = draw(st.sampled_from(places(event)))
    there = event
    for key in path[:-1]:
        there = there[key]
    what = draw(st.sampled_from(("replace", "remove", "add")))
    if what == "remove" and isinstance(there, dict):
        del there[path[-1]]
    elif what == "add" and isinstance(there, dict):
        there["later"] = draw(st.sampled_from(ODD))
    else:
        there[path[-1]] = draw(st.sampled_from(ODD))
    return event


@pytest.mark.parametrize("kind", sorted(CLASS_OF))
def test_every_type_of_event_is_judged_by_its_struct(kind: str) -> None:
    class_ = CLASS_OF[kind]
    topic = topics.topic("s1", f"up/{class_}")
    raw = message(invented()[kind], class_=class_)
    batch = decoding._quick(topic, raw)
    (one,) = batch.events
    assert isinstance(one, Good)
    assert (one.type, json.loads(one.raw)) == (kind, invented()[kind])
    assert batch.key == ("s1", "e", class_)


@settings(max_examples=examples(300), deadline=None)
@given(mutated())
def test_structs_accept_nothing_that_the_models_refuse(event: dict[str, Any]) -> None:
    raw = json.dumps(event, ensure_ascii=False).encode()
    try:
        struct = STRUCTS.decode(raw)
    except msgspec.MsgspecError:
        return
    model = MODELS.validate_json(raw)
    assert type_of(struct) == model.type
    assert json.loads(msgspec.json.encode(struct)) == model.model_dump(mode="json", by_alias=True)


@settings(max_examples=examples(300), deadline=None)
@given(mutated(), st.booleans())
def test_the_verdict_is_the_reference_consumers(event: dict[str, Any], sandwiched: bool) -> None:
    class_ = CLASS_OF.get(event["type"], "agg") if isinstance(event.get("type"), str) else "agg"
    topic = topics.topic("s1", f"up/{class_}")
    others = [{"id": event_id("s1", "e", class_, n), "type": "later"} for n in (2, 3)] if sandwiched else []
    raw = message(event, *others, class_=class_)
    try:
        envelope, items = by_models(topic, raw)
    except ValueError:
        with pytest.raises(ValueError):
            decoding.decode(topic, raw)
        return
    batch = decoding.decode(topic, raw)
    assert (batch.key, batch.first) == ((envelope.store, envelope.epoch, envelope.class_), envelope.first)
    for mine, theirs in zip(batch.events, items, strict=True):
        assert isinstance(mine, Bad) == isinstance(theirs.event, str), (mine, theirs)
        assert json.loads(mine.raw) == json.loads(theirs.raw)


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"store": "s2"},
        {"epoch": "a b"},
        {"epoch": "e\n"},
        {"class": "health"},
        {"first": 0},
        {"first": 2**63},
        {"n": 5},
        {"lost": [{"from": 1, "to": 1, "reason": "x"}]},
        {"lost": [{"from": 2, "to": 1, "reason": "x"}]},
        {"events": {}},
    ],
    ids=str,
)
def test_what_is_no_batch_is_refused_as_there(change: dict[str, Any]) -> None:
    topic = topics.topic("s1", "up/agg")
    event = invented()["zone_window"]
    raw = message(event, **change)
    for judge in (by_models, decoding.decode):
        with pytest.raises(ValueError):
            judge(topic, raw)


def test_keys_of_a_later_version_are_kept_and_cost_no_event() -> None:
    event = invented()["zone_window"] | {"later": {"x": [1]}}
    batch = decoding.decode(topics.topic("s1", "up/agg"), message(event, also="later"))
    (one,) = batch.events
    assert isinstance(one, Good)
    assert json.loads(one.raw)["later"] == {"x": [1]}
    assert one.event.zone == event["zone"]


@pytest.mark.parametrize("bad", [b"\xff", b'"\x01"', b"1e999999", b'"\xed\xa0\x80"'], ids=repr)
def test_bytes_that_are_no_json_reach_no_database(bad: bytes) -> None:
    raw = message(invented()["zone_window"] | {"zone": "@@"}).replace(b'"@@"', bad)
    try:
        batch = decoding.decode(topics.topic("s1", "up/agg"), raw)
    except ValueError:
        return
    assert all(isinstance(one, Bad) for one in batch.events)


def test_a_dead_letter_is_judged_as_in_its_batch() -> None:
    key = ("s1", "e", "agg")
    event = invented()["zone_window"] | {"id": event_id(*key, 7)}
    assert isinstance(decoding.judge(json.dumps(event).encode(), key, 7), Good)  # type: ignore[arg-type]
    bad = decoding.judge(json.dumps(event).encode(), key, 8)  # type: ignore[arg-type]
    assert isinstance(bad, Bad)
    later = decoding.judge(json.dumps(event | {"type": "later"}).encode(), key, 7)  # type: ignore[arg-type]
    assert isinstance(later, Bad)
    assert later.type == "later"
    assert isinstance(decoding.judge(b"{", key, 7), Bad)  # type: ignore[arg-type]


def test_the_models_convert_what_structs_refuse() -> None:
    event = invented()["zone_window"] | {"entered": "7"}
    with pytest.raises(msgspec.MsgspecError):
        STRUCTS.decode(json.dumps(event).encode())
    (one,) = decoding.decode(topics.topic("s1", "up/agg"), message(event)).events
    assert isinstance(one, Good)
    assert one.event.entered == 7


@pytest.mark.parametrize(
    "deep", [b"[" * 20_000 + b"]" * 20_000, b'{"a":' * 9_000 + b"1" + b"}" * 9_000], ids=["lists", "objects"]
)
def test_what_is_nested_too_deep_is_put_aside(deep: bytes) -> None:
    raw = message(invented()["zone_window"] | {"later": "@@"}).replace(b'"@@"', deep)
    with pytest.raises(ValueError):
        decoding.decode(topics.topic("s1", "up/agg"), raw)


def test_whose_a_batch_is_can_be_told_without_its_events() -> None:
    topic, payload = batch("s1", 7, 3)
    assert decoding.key_of(topic, payload) == decoding.decode(topic, payload).key
    assert decoding.key_of(topic, gzip.compress(payload)) == ("s1", "e", "health")
    for wrong in ((topic.replace("s1", "s2"), payload), (topic, payload[:-1]), (topic, b"[]")):
        with pytest.raises(ValueError):
            decoding.key_of(*wrong)
