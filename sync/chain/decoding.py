"""Decode batches for the sink: fully validated, at two microseconds an event.

Batches of known events with known keys, which is nearly all, are judged by structs. Whatever these refuse, or might
read differently, is judged by the models as in the reference consumer, so that both accept the same.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from pydantic_core import from_json

from config import topics
from sync.chain.structs import INT64, event_decoder, head_decoder, struct, type_of
from sync.consumer import decode as decode_by_models
from sync.contract import CLASS_OF, EventClass, event_id, unpack

_HEAD = head_decoder()
_EVENT = event_decoder()
_ESCAPE = b"\\u"
"""Escapes may name a NUL or half a character; stores send none but for control characters."""


class Good(NamedTuple):
    """Valid event: its JSON, its type, and the struct with its values."""

    raw: bytes
    type: str
    event: Any


class Bad(NamedTuple):
    """Invalid event, or one of a type that came after this version: `type` is empty if it has none."""

    raw: bytes
    type: str
    error: str


class LostRange(NamedTuple):
    first: int
    last: int
    reason: str


class Batch(NamedTuple):
    """Batch with its events in order, numbered from `first`; `key` is store, epoch and class."""

    key: tuple[str, str, EventClass]
    first: int
    events: list[Good | Bad]
    lost: list[LostRange]
    term: int = 0

    @property
    def last(self) -> int:
        return self.first + len(self.events) - 1


def decode(topic: str, payload: bytes) -> Batch:
    """Decode a message of `up/{class}`; ValueError if it is no valid batch. Its events are judged one by one."""
    message = unpack(payload)
    if _ESCAPE not in message:
        try:
            return _quick(topic, message)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, _UnclearError):
            pass
    envelope, items = decode_by_models(topic, message)
    lost = [LostRange(gap.from_, gap.to, gap.reason) for gap in envelope.lost]
    key = (envelope.store, envelope.epoch, envelope.class_)
    events: list[Good | Bad] = []
    for item in items:
        raw = item.raw.encode()
        if isinstance(item.event, str):
            events.append(Bad(raw, _type_in(raw), item.event))
        else:
            model = item.event
            made = msgspec.convert(model.model_dump(by_alias=True), struct(type(model), limited=False))
            events.append(Good(raw, model.type, made))
    return Batch(key, envelope.first, events, lost, envelope.term)


def key_of(topic: str, payload: bytes) -> tuple[str, str, EventClass]:
    """Return whose a batch is, without judging its events; ValueError if that can't be told."""
    try:
        head = _HEAD.decode(unpack(payload))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if topic != topics.topic(head.store, f"up/{head.class_}"):
        raise ValueError(f"{head.store} publishes on another topic: {topic}")
    return head.store, head.epoch, head.class_


def judge(raw: bytes, key: tuple[str, str, EventClass], seq: int) -> Good | Bad:
    """Judge an event by itself, e.g. a dead letter that this version may understand."""
    store, epoch, class_ = key
    head = {"v": 1, "store": store, "epoch": epoch, "class": class_, "first": seq, "n": 1, "sent_us": 0, "boot": ""}
    message = msgspec.json.encode(head | {"mono_us": 0, "events": [msgspec.Raw(raw)]})
    try:
        return decode(topics.topic(store, f"up/{class_}"), message).events[0]
    except ValueError as error:
        return Bad(raw, "", str(error))


class _UnclearError(Exception):
    """The models must judge."""


def _quick(topic: str, message: bytes) -> Batch:
    head = _HEAD.decode(message)
    store, class_, first = head.store, head.class_, head.first
    if topic != topics.topic(store, f"up/{class_}") or head.n != len(head.events) or first + head.n > INT64:
        raise _UnclearError
    lost = [LostRange(gap.from_, gap.to, gap.reason) for gap in head.lost]
    if any(gap.first > gap.last or gap.last >= first for gap in lost):
        raise _UnclearError
    stem = event_id(store, head.epoch, class_, "")
    events: list[Good | Bad] = []
    for seq, one in enumerate(head.events, first):
        raw = bytes(one)
        event = _EVENT.decode(raw)
        kind = type_of(event)
        if event.id != f"{stem}{seq}" or CLASS_OF[kind] != class_:  # type: ignore[attr-defined]
            raise _UnclearError
        events.append(Good(raw, kind, event))
    return Batch((store, head.epoch, class_), first, events, lost, head.term)


def _type_in(raw: bytes) -> str:
    kind = from_json(raw).get("type", "") if raw.startswith(b"{") else ""
    return kind[:128] if isinstance(kind, str) else ""
