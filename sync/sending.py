"""Send batches of the outbox to the broker, class member first, as fast as the line allows."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from config import topics
from sync import outbox
from sync.contract import CLASSES, Envelope, EventClass, encode, pack
from sync.in_flight import SILENCE_S, WINDOW, InFlight
from sync.mqtt import BrokerError, MqttConnection, RefusedError
from sync.uplink import Uplink
from sync.writer import RETRY_S, Writer

BATCH_EVENTS = 500
MOST_BYTES = 32 * 1024
"""Maximum bytes of events in a batch, unless it is a single event."""
LANES: tuple[tuple[EventClass, ...], ...] = (("member",), ("journey", "agg", "health"))
REPLAY_LOOK_S = 1.0


def boot_id() -> str:
    """Return the id of this boot of the machine: monotonic times are comparable only within one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True)
class Identity:
    """Identity of the publisher: store and database epoch, and what `state` reports about the gateway."""

    store: str
    epoch: str
    version: str
    config_generation: str = ""
    boot: str = field(default_factory=boot_id)
    instance: str = field(default_factory=lambda: secrets.token_hex(8))
    term: int = 0
    """Of several gateways that may run the store's service, the one with the highest counts; 0: there are no others."""


class Sending:
    """Sends what is due over successive connections; `tell` takes messages about it by subject. `packed`: classes that
    the CRM accepts as gzip. `counters`: batches, events (including repetitions), silences, refused. `kept`: wait until
    what was read may leave, because a standby has it too.
    """

    def __init__(
        self,
        identity: Identity,
        writer: Writer,
        clock: Callable[[], int],
        clock_offset_us: Callable[[], int | None],
        in_flight: Mapping[EventClass, InFlight],
        packed: set[EventClass],
        counters: Counter[str],
        tell: Callable[[str, str], None],
        kept: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._kept = kept
        self._identity = identity
        self._writer = writer
        self._clock = clock
        self._clock_offset_us = clock_offset_us
        self._in_flight = in_flight
        self._packed = packed
        self._counters = counters
        self._tell = tell
        self._uplink = Uplink()
        self._changed = {lane: asyncio.Event() for lane in LANES}
        self._shrinks = dict.fromkeys(CLASSES, 1.0)
        self._tried = 0
        self._connection: MqttConnection | None = None
        self._replayed: Counter[EventClass] = Counter()
        self._heard_s: dict[EventClass, float] = {}
        self._news = asyncio.Event()
        self.trouble: str | None = None
        """Error of the database at the last read, empty if none."""

    def look(self, class_: EventClass) -> None:
        """Note that a class has new events or an ack."""
        self._changed[lane_of(class_)].set()

    def heard(self, class_: EventClass) -> None:
        """Note that the CRM has sent something about the class."""
        self._replayed[class_] = 0
        self._heard_s[class_] = time.monotonic()
        self._news.set()
        self.look(class_)

    async def run(self, connection: MqttConnection) -> None:
        """Send what is due on a connection, until cancelled or it is lost (BrokerError)."""
        for in_flight in self._in_flight.values():
            in_flight.rewind()
        self._connection = connection
        try:
            async with asyncio.TaskGroup() as tasks:
                for classes in LANES:
                    tasks.create_task(self._send(connection, classes, tasks))
        finally:
            self._connection = None
            self._uplink.broke()

    async def replay(self, class_: EventClass, first: int, last: int) -> dict[str, int]:
        """Send numbers `first` … `last` again, missing ones as lost; returns the numbers of events and lost ones. What
        wasn't sent yet isn't repeated. Respects pauses, and sends no more than a window ahead of the CRM. Raises
        BrokerError without a connection, or when the CRM is silent; the consumer then asks again.
        """
        events = lost = 0
        last = min(last, self._in_flight[class_].highest)
        after = first - 1
        while after < last:
            connection = await self._may_replay(class_)
            most = self._plain_bytes(class_)
            job = partial(outbox.kept, class_=class_, after=after, upto=last, max_events=BATCH_EVENTS, max_bytes=most)
            batch = await self._writer.read(job)
            if batch is None:
                break
            if self._kept is not None:
                await self._kept()
            self._replayed[class_] += 1
            await self._publish(connection, class_, self._message(class_, batch), "replay", refused=True)
            events += len(batch.payloads)
            lost += sum(gap.to - gap.from_ + 1 for gap in batch.lost)
            after = batch.last
        return {"events": events, "lost": lost}

    async def _may_replay(self, class_: EventClass) -> MqttConnection:
        """Wait until the class isn't paused, and earlier replayed batches are acknowledged."""
        began = time.monotonic()
        while True:
            now = time.monotonic()
            if self._connection is None:
                raise BrokerError("there is no connection to the broker")
            paused_s = self._in_flight[class_].paused_s(now)
            if not paused_s and self._replayed[class_] < WINDOW:
                return self._connection
            if paused_s:
                began = now
            elif now - max(began, self._heard_s.get(class_, 0.0)) > SILENCE_S[1]:
                self._replayed[class_] = 0
                raise BrokerError(f"the CRM has not acknowledged {class_} for {SILENCE_S[1]:g} s")
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(REPLAY_LOOK_S, paused_s) if paused_s else REPLAY_LOOK_S):
                    await self._news.wait()

    async def _send(
        self, connection: MqttConnection, classes: tuple[EventClass, ...], tasks: asyncio.TaskGroup
    ) -> None:
        """Send the classes of a lane: always the due one that has had the smallest share so far."""
        changed = self._changed[classes]
        while True:
            while (in_flight := self._due(classes)) is None:
                wait_s = min(self._in_flight[class_].wait_s(time.monotonic()) for class_ in classes)
                if not self._uplink.may_send(classes[0]):
                    wait_s = float("inf")  # until the broker answers
                changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if wait_s == float("inf") else max(wait_s, 0.0)):
                        await changed.wait()
            job = partial(
                outbox.pending,
                class_=in_flight.class_,
                after=in_flight.cursor,
                max_events=BATCH_EVENTS,
                max_bytes=self._plain_bytes(in_flight.class_),
            )
            turn = in_flight.turn
            in_flight.looking()
            try:
                batch = await self._read(in_flight.class_, job)
                if self._kept is not None and batch is not None:
                    await self._kept()
            except sqlite3.Error as error:
                self.trouble = str(error)
                in_flight.wake(RETRY_S)
                continue
            self.trouble = None
            if turn != in_flight.turn or batch is None:  # an ack or a rewind came in between; or there is nothing
                continue
            message = self._message(in_flight.class_, batch)
            in_flight.sent(batch.last, len(message), time.monotonic())
            self._counters["batches"] += 1
            self._counters["events"] += len(batch.payloads)
            tasks.create_task(self._deliver(connection, in_flight, batch.last, message))

    async def _deliver(self, connection: MqttConnection, in_flight: InFlight, last: int, message: bytes) -> None:
        await self._publish(connection, in_flight.class_, message, lane_of(in_flight.class_)[0])
        in_flight.taken(last, time.monotonic())
        self.look(in_flight.class_)

    async def _publish(
        self, connection: MqttConnection, class_: EventClass, message: bytes, lane: str, *, refused: bool = False
    ) -> None:
        """Publish a batch. A refused one is sent again after a silence, with backoff."""
        sent = self._uplink.send(lane, len(message), time.monotonic())
        try:
            await connection.publish(topics.topic(self._identity.store, f"up/{class_}"), message)
        except RefusedError as error:
            self._counters["refused"] += 1
            self._tell(f"refused {class_}", str(error))
            if refused:
                raise
        else:
            self._tell(f"refused {class_}", "")
        self._uplink.taken(sent, time.monotonic())

    def _due(self, classes: tuple[EventClass, ...]) -> InFlight | None:
        now = time.monotonic()
        for class_ in classes:
            if self._in_flight[class_].silent(now):
                self._counters["silences"] += 1
                self._packed.discard(class_)
        if not self._uplink.may_send(classes[0]):
            return None
        due = [in_flight for class_ in classes if (in_flight := self._in_flight[class_]).wait_s(now) <= 0]
        if not due:
            return None
        # A class that was quiet does not make up for it: it enters level with the one that is furthest behind.
        floor = min(in_flight.share for in_flight in due)
        for class_ in classes:
            self._in_flight[class_].share = max(self._in_flight[class_].share, floor)
        return min(due, key=lambda in_flight: in_flight.share)

    async def _read(
        self, class_: EventClass, job: Callable[[sqlite3.Connection], outbox.Pending | None]
    ) -> outbox.Pending | None:
        """Read a batch; windows that may be sent now are marked, so that they aren't merged any more."""
        batch = await self._writer.read(job)
        if class_ == "agg" and batch is not None and batch.last > self._tried:

            def mark(conn: sqlite3.Connection) -> tuple[int, outbox.Pending | None]:
                outbox.mark_tried(conn, class_)
                return outbox.depth(conn)[class_].sent, job(conn)

            self._tried, batch = await self._writer.write(mark)
        return batch

    def _plain_bytes(self, class_: EventClass) -> int:
        """Return the bytes of events for a message of the line's target size, from the compression ratio."""
        shrinks = self._shrinks[class_] if class_ in self._packed else 1.0
        return min(int(self._uplink.batch_bytes / shrinks), MOST_BYTES)

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
                "term": self._identity.term,
            }
        )
        message = encode(envelope, batch.payloads)
        if class_ not in self._packed:
            return message
        packed = pack(message)
        self._shrinks[class_] = (self._shrinks[class_] + len(packed) / len(message)) / 2
        return packed


def lane_of(class_: EventClass) -> tuple[EventClass, ...]:
    """Return the lane of a class."""
    return next(lane for lane in LANES if class_ in lane)
