"""The models of the contract: what they take, what they refuse, and that they only grow."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from brokers import MAKERS, health
from pydantic import ValidationError

from sync.contract import CLASS_OF, CLASSES, Ack, Batch, Envelope, Event, EventClass, ReaderHealth, encode, event_id


def envelope(class_: EventClass, **changes: Any) -> Any:
    head = {"store": "s1", "epoch": "e", "class": class_, "first": 7, "n": 2, "sent_us": 1, "boot": "b", "mono_us": 1}
    return Envelope.model_validate(head | changes)


@pytest.mark.parametrize("term", [0, 1_796_000_000])
@pytest.mark.parametrize("class_", CLASSES)
def test_every_class_crosses_the_wire_unchanged(class_: EventClass, term: int) -> None:
    events = [MAKERS[class_](n).model_copy(update={"id": event_id("s1", "e", class_, 7 + n)}) for n in range(2)]
    message = encode(envelope(class_, term=term), [event.model_dump_json() for event in events])
    batch = Batch.model_validate_json(message)
    assert (batch.events, batch.term) == (events, term)
    unsaid = None if term else {"term"}  # of a store with one gateway
    assert batch.model_dump_json(by_alias=True, exclude=unsaid).encode() == message


def test_every_event_type_has_a_class() -> None:
    union, _ = get_args(Event)
    types = {model.model_fields["type"].default for model in get_args(union)}
    assert types == set(CLASS_OF)
    assert set(CLASS_OF.values()) == set(CLASSES)


@pytest.mark.parametrize(
    "changes", [{"n": 1}, {"first": 8}, {"store": "s2"}, {"epoch": "f"}, {"class": "agg"}, {"first": 0}, {"v": 2}]
)
def test_a_batch_whose_head_does_not_fit_its_events_is_refused(changes: Any) -> None:
    events = [health(n).model_copy(update={"id": event_id("s1", "e", "health", 7 + n)}) for n in range(2)]
    message = encode(envelope("health"), [event.model_dump_json() for event in events])
    Batch.model_validate_json(message)
    head = Batch.model_validate_json(message).model_dump(by_alias=True)
    with pytest.raises(ValidationError):
        Batch.model_validate(head | changes)


def test_what_a_reader_said_is_cut_not_refused() -> None:
    told = ReaderHealth(reader="r", link="down", reason="x" * 5000, since_us=0, clock_offset_us=None)
    assert len(told.reason) == 300


@pytest.mark.parametrize("payload", ['{"epoch":"e","upto":true}', '{"epoch":"e","upto":1e3}', '{"upto":1}', "1", '"e"'])
def test_an_ack_is_strict(payload: bytes) -> None:
    with pytest.raises(ValidationError):
        Ack.model_validate_json(payload, strict=True)


def test_an_ack_may_grow() -> None:
    assert Ack.model_validate_json('{"epoch":"e","upto":1,"later":2}', strict=True) == Ack(epoch="e", upto=1)
