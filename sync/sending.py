"""Sending: batches of the outbox on their way to the broker, class member before all others, as the line bears it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from config import topics
from sync import outbox
from sync.contract import CLASSES, Envelope, EventClass, encode, pack
from sync.flow import SILENCE_S, WINDOW, Flow
from sync.line import Line
from sync.mqtt import BrokerError, Link, RefusedError
from sync.writer import RETRY_S, Writer

BATCH_EVENTS = 500
MOST_BYTES = 32 * 1024
"""Most bytes of events in a batch, unless it is one event."""
LANES: tuple[tuple[EventClass, ...], ...] = (("member",), ("journey", "agg", "health"))
REPLAY_LOOK_S = 1.0


def boot_id() -> str:
    """Id of this boot of the machine: monotonic times compare only within one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True)
class Identity:
    """Who publishes: store and the database's epoch, and what `state` tells of the gateway."""

    store: str
    epoch: str
    version: str
    config_generation: str = ""
    boot: str = field(default_factory=boot_id)
    instance: str = field(default_factory=lambda: secrets.token_hex(8))


class Sending:
    """Sends what is due on one link after the other; `tell` is what there is to say of it, by what it is about.

    `packed`: classes that the CRM takes as gzip. `counters`: batches, events (repeated ones too), silences, refused.
    """

    def __init__(
        self,
        identity: Identity,
        writer: Writer,
        clock: Callable[[], int],
        clock_offset_us: Callable[[], int | None],
        flows: Mapping[EventClass, Flow],
        packed: set[EventClass],
        counters: Counter[str],
        tell: Callable[[str, str], None],
    ) -> None:
        self._identity = identity
        self._writer = writer
        self._clock = clock
        self._clock_offset_us = clock_offset_us
        self._flows = flows
        self._packed = packed
        self._counters = counters
        self._tell = tell
        self._line = Line()
        self._changed = {lane: asyncio.Event() for lane in LANES}
        self._shrinks = dict.fromkeys(CLASSES, 1.0)
        self._tried = 0
        self._link: Link | None = None
        self._replayed: Counter[EventClass] = Counter()
        self._heard_s: dict[EventClass, float] = {}
        self._news = asyncio.Event()
        self.trouble: str | None = None
        """What the database refused when it was last looked into."""

    def look(self, class_: EventClass) -> None:
        """Something about the class has changed: there are events, or an ack came."""
        self._changed[lane_of(class_)].set()

    def heard(self, class_: EventClass) -> None:
        """The CRM said something about the class."""
        self._replayed[class_] = 0
        self._heard_s[class_] = time.monotonic()
        self._news.set()
        self.look(class_)

    async def run(self, link: Link) -> None:
        """Send what is due on a link, until cancelled or it is lost (BrokerError)."""
        for flow in self._flows.values():
            flow.rewind()
        self._link = link
        try:
            async with asyncio.TaskGroup() as tasks:
                for classes in LANES:
                    tasks.create_task(self._send(link, classes, tasks))
        finally:
            self._link = None
            self._line.broke()

    async def replay(self, class_: EventClass, first: int, last: int) -> dict[str, int]:
        """Send numbers `first` … `last` once more, what is no longer there as lost; how many events and lost numbers.

        What was not sent yet is not repeated. A pause holds it, and no more than a window goes out unheard. Raises
        BrokerError without a connection, or when the CRM is silent. A consumer that misses some then asks again.
        """
        events = lost = 0
        last = min(last, self._flows[class_].highest)
        after = first - 1
        while after < last:
            link = await self._may_replay(class_)
            most = self._plain_bytes(class_)
            job = partial(outbox.kept, class_=class_, after=after, upto=last, max_events=BATCH_EVENTS, max_bytes=most)
            batch = await self._writer.read(job)
            if batch is None:
                break
            self._replayed[class_] += 1
            await self._publish(link, class_, self._message(class_, batch), "replay", refused=True)
            events += len(batch.payloads)
            lost += sum(gap.to - gap.from_ + 1 for gap in batch.lost)
            after = batch.last
        return {"events": events, "lost": lost}

    async def _may_replay(self, class_: EventClass) -> Link:
        """Wait until the class is not paused, and what was replayed before has been heard of."""
        began = time.monotonic()
        while True:
            now = time.monotonic()
            if self._link is None:
                raise BrokerError("there is no connection to the broker")
            paused_s = self._flows[class_].paused_s(now)
            if not paused_s and self._replayed[class_] < WINDOW:
                return self._link
            if paused_s:
                began = now
            elif now - max(began, self._heard_s.get(class_, 0.0)) > SILENCE_S[1]:
                self._replayed[class_] = 0
                raise BrokerError(f"the CRM has not acknowledged {class_} for {SILENCE_S[1]:g} s")
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(REPLAY_LOOK_S, paused_s) if paused_s else REPLAY_LOOK_S):
                    await self._news.wait()

    async def _send(self, link: Link, classes: tuple[EventClass, ...], tasks: asyncio.TaskGroup) -> None:
        """Send the classes of a lane, whichever is due and has had the smallest share so far."""
        changed = self._changed[classes]
        while True:
            while (flow := self._due(classes)) is None:
                wait_s = min(self._flows[class_].wait_s(time.monotonic()) for class_ in classes)
                if not self._line.has_room(classes[0]):
                    wait_s = float("inf")  # an answer of the broker makes room
                changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if wait_s == float("inf") else max(wait_s, 0.0)):
                        await changed.wait()
            job = partial(
                outbox.pending,
                class_=flow.class_,
                after=flow.cursor,
                max_events=BATCH_EVENTS,
                max_bytes=self._plain_bytes(flow.class_),
            )
            turn = flow.turn
            flow.looking()
            try:
                batch = await self._read(flow.class_, job)
            except sqlite3.Error as error:
                self.trouble = str(error)
                flow.wake(RETRY_S)
                continue
            self.trouble = None
            if turn != flow.turn or batch is None:  # an ack or a rewind came in between; or there is nothing
                continue
            message = self._message(flow.class_, batch)
            flow.sent(batch.last, len(message), time.monotonic())
            self._counters["batches"] += 1
            self._counters["events"] += len(batch.payloads)
            tasks.create_task(self._deliver(link, flow, batch.last, message))

    async def _deliver(self, link: Link, flow: Flow, last: int, message: bytes) -> None:
        await self._publish(link, flow.class_, message, lane_of(flow.class_)[0])
        flow.taken(last, time.monotonic())
        self.look(flow.class_)

    async def _publish(
        self, link: Link, class_: EventClass, message: bytes, lane: str, *, refused: bool = False
    ) -> None:
        """Hand a batch to the broker. One that it refuses is sent again after a silence, ever more rarely."""
        sent = self._line.send(lane, len(message), time.monotonic())
        try:
            await link.publish(topics.topic(self._identity.store, f"up/{class_}"), message)
        except RefusedError as error:
            self._counters["refused"] += 1
            self._tell(f"refused {class_}", str(error))
            if refused:
                raise
        else:
            self._tell(f"refused {class_}", "")
        self._line.taken(sent, time.monotonic())

    def _due(self, classes: tuple[EventClass, ...]) -> Flow | None:
        now = time.monotonic()
        for class_ in classes:
            if self._flows[class_].silent(now):
                self._counters["silences"] += 1
                self._packed.discard(class_)
        if not self._line.has_room(classes[0]):
            return None
        due = [flow for class_ in classes if (flow := self._flows[class_]).wait_s(now) <= 0]
        if not due:
            return None
        # A class that was quiet does not make up for it: it enters level with the one that is furthest behind.
        floor = min(flow.share for flow in due)
        for class_ in classes:
            self._flows[class_].share = max(self._flows[class_].share, floor)
        return min(due, key=lambda flow: flow.share)

    async def _read(
        self, class_: EventClass, job: Callable[[sqlite3.Connection], outbox.Pending | None]
    ) -> outbox.Pending | None:
        """Read a batch; windows that may leave the house now are marked, for they must not be merged any more."""
        batch = await self._writer.read(job)
        if class_ == "agg" and batch is not None and batch.last > self._tried:

            def mark(conn: sqlite3.Connection) -> tuple[int, outbox.Pending | None]:
                outbox.mark_tried(conn, class_)
                return outbox.depth(conn)[class_].sent, job(conn)

            self._tried, batch = await self._writer.write(mark)
        return batch

    def _plain_bytes(self, class_: EventClass) -> int:
        """Bytes of events that make a message as large as the line wants it, by how far they shrink when packed."""
        shrinks = self._shrinks[class_] if class_ in self._packed else 1.0
        return min(int(self._line.batch_bytes / shrinks), MOST_BYTES)

    def _message(self, class_: EventClass, batch: outbox.Pending) -> bytes:
        envelope = Envelope.model_validate(
            {
                "store": self._identity.store,
                "epoch": self._identity.epoch,
                "class": class_,
                "first": batch.first,
                "n": len(batch.payloads),
                "sent_us": self._clock(),
                "boot": self._identity.boot,
                "mono_us": time.monotonic_ns() // 1000,
                "clock_offset_us": self._clock_offset_us(),
                "lost": batch.lost,
            }
        )
        message = encode(envelope, batch.payloads)
        if class_ not in self._packed:
            return message
        packed = pack(message)
        self._shrinks[class_] = (self._shrinks[class_] + len(packed) / len(message)) / 2
        return packed


def lane_of(class_: EventClass) -> tuple[EventClass, ...]:
    """The lane of a class."""
    return next(lane for lane in LANES if class_ in lane)
