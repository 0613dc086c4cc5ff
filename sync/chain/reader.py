"""Second readers of the log: each event once, whatever the log repeats, loses or forgets.

A reader keeps its own place, together with its results: the log need not know it. The place is a stream's sequence and,
because a log may repeat a message or be built anew, the numbers of the events seen so far, by store and epoch. A reader
that keeps both in the same transaction as its results has each event exactly once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from config import topics
from sync.chain import numbers
from sync.chain.log import ROOT, SILENT_S, SilentError, server_of, stream_of

FETCHED = 500
WAIT_S = 5.0
HEARTBEAT_S = 1.0
RETRY_S = 1.0
FORGET_S = 300.0
"""After this time without its reader the log forgets a consumer; it is made anew from the reader's place."""


class LogEvent(NamedTuple):
    """An event from the log; `payload` is its JSON as the store sent it."""

    class_: str
    store: str
    epoch: str
    seq: int
    committed_us: int
    payload: bytes


class Message(NamedTuple):
    """What a message of the log held that is new to the reader, and its place in the stream."""

    class_: str
    sequence: int
    events: list[LogEvent]


@dataclass
class Place:
    """A reader's place in one stream; `to_json` and `of_json` are for wherever the reader keeps it."""

    created: str = ""
    """When the stream was created: another time means another stream, with sequences of its own."""
    sequence: int = 0
    seen: dict[tuple[str, str], list[numbers.Range]] = field(default_factory=dict)
    """Numbers of events by store and epoch."""

    def to_json(self) -> dict[str, Any]:
        seen = [[store, epoch, ranges] for (store, epoch), ranges in self.seen.items()]
        return {"created": self.created, "sequence": self.sequence, "seen": seen}

    @classmethod
    def of_json(cls, told: dict[str, Any]) -> Place:
        seen = {(store, epoch): [(low, high) for low, high in ranges] for store, epoch, ranges in told["seen"]}
        return cls(told["created"], told["sequence"], seen)

    def take(self, class_: str, sequence: int, data: bytes) -> Message:
        """Take a message: returns what is new of it, and moves the place. Raises msgspec.MsgspecError for one that is
        none of a sink's."""
        head = _HEAD.decode(data)
        events = []
        if head.events:
            first, last = head.first, head.first + len(head.events) - 1
            seen = self.seen.setdefault((head.store, head.epoch), [])
            for low, high in numbers.outside(seen, first, last):
                for seq in range(low, high + 1):
                    payload = bytes(head.events[seq - first])
                    if payload != b"null":  # erased before it was published
                        events.append(LogEvent(class_, head.store, head.epoch, seq, head.committed_us, payload))
            numbers.add(seen, first, last)
        self.sequence = sequence
        return Message(class_, sequence, events)


class _Head(msgspec.Struct):
    store: str
    epoch: str
    first: int
    committed_us: int
    events: list[msgspec.Raw]


_HEAD = msgspec.json.Decoder(_Head)


async def follow(
    client: Client, class_: str, place: Place, shards: Sequence[int] = (), *, once: bool = False
) -> AsyncIterator[list[Message]]:
    """Yield messages of a class from a place on, some at a time, for ever, and move the place; an empty list from time
    to time if nothing comes. `shards`: only these. `once`: stop at the end of what is there. Raises SilentError if
    the server may be cut off from the others: connect to another one.
    """
    heard_s = time.monotonic()
    while True:
        try:
            async for messages in _consume(client, class_, place, shards, once):
                heard_s = time.monotonic()
                yield messages
            return
        except (NatsError, TimeoutError) as error:  # its leader went away, or the stream: from our own place again
            if client.is_closed:
                raise
            if time.monotonic() - heard_s > SILENT_S:
                raise SilentError(f"{server_of(client) or 'no server'}: {error or type(error).__name__}") from None
            yield []
            await asyncio.sleep(RETRY_S)


async def _consume(
    client: Client, class_: str, place: Place, shards: Sequence[int], once: bool
) -> AsyncIterator[list[Message]]:
    js = client.jetstream(timeout=5)
    stream = stream_of(class_)
    info = await js.stream_info(stream)
    created = str(info.created)
    if place.created != created:
        place.created, place.sequence = created, 0
    subjects = [f"{ROOT}.{class_}.{shard}.>" for shard in shards] if 0 < len(shards) < topics.SHARDS else []
    config = ConsumerConfig(
        ack_policy=AckPolicy.NONE,
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=place.sequence + 1,
        inactive_threshold=FORGET_S,
        mem_storage=True,
        num_replicas=1,
        filter_subjects=subjects or None,
    )
    consumer = await js.add_consumer(stream, config=config)
    subscription = await js.pull_subscribe_bind(consumer=consumer.name, stream=stream)
    try:
        while True:
            if once and (await js.consumer_info(stream, str(consumer.name))).num_pending == 0:
                return
            try:
                found = await subscription.fetch(FETCHED, timeout=WAIT_S, heartbeat=HEARTBEAT_S)
            except NatsTimeout:
                await js.consumer_info(stream, str(consumer.name))  # raises if it is gone
                yield []
                continue
            made = []
            for message in found:
                sequence = message.metadata.sequence.stream
                try:
                    made.append(place.take(class_, sequence, message.data))
                except msgspec.MsgspecError:  # somebody else's
                    place.sequence = sequence
            yield made
    finally:
        with contextlib.suppress(NatsError, TimeoutError):
            async with asyncio.timeout(1):
                await subscription.unsubscribe()
                await js.delete_consumer(stream, str(consumer.name))
