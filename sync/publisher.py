"""Publisher: takes the outbox to the CRM, for ever, through every failure of the broker.

The rules, for each class on its own:
1. Batches go out in the order of their numbers, at most WINDOW of them without the CRM's ack.
2. An ack of the CRM, and nothing else, moves the class on and lets the outbox delete; MQTT's own proves nothing.
3. After silence, and on every new connection, all that is not acked is sent again, in order (go-back-N). While the
   silence lasts it is one batch at a time, ever more rarely: a CRM that is away finds no heap of repetitions.
4. `pause_ms` of an ack holds the class back.
5. A database that refuses stops nothing: what is acked is kept in memory, what can't be read is tried again.
6. Of two gateways with one identity the one that started later is silent, and both say so.
7. Batches are packed once an ack has said that the CRM takes that, until one doesn't say so, or there is silence.
Class member has a lane of its own. The others share one, by weight, that puts so few bytes on the way to the broker
that a recognition gets through at once on a slow line as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
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
from sync.acks import Acks
from sync.contract import CLASSES, GZIP, MAX_EVENT_BYTES, Envelope, EventClass, State, encode, pack
from sync.flow import Flow
from sync.mqtt import BrokerError, Incoming, Link, MqttSettings, RefusedError, connect
from sync.sayings import Sayings
from sync.twins import TwinError, Twins
from sync.writer import RETRY_S, Writer

log = logging.getLogger("tagtrail.publisher")

BATCH_EVENTS = 500
BULK_BYTES = 32 * 1024
"""Bytes of events in a batch of a class that can wait, BULK_LANE of them on their way: 1 s on a line of 1 Mbit/s."""
BULK_LANE = 4
MEMBER_LANE = 8
GATHER_S = 0.2
"""How long the others wait for company after a wake; member never does."""
BACKOFF_S = (0.5, 60.0)
"""Reconnecting: the most that is waited after the first failure and after many."""
STEADY_S = 10.0
"""A link that lived so long starts the backoff anew."""
TWIN_WAIT_S = 60.0
"""How long the younger of two gateways with one identity keeps away before it looks again."""
REPLAY_BYTES = 32 * 1024

Handler = Callable[[Incoming], Awaitable[None]]


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
    directory_generation: int = 0
    boot: str = field(default_factory=boot_id)
    instance: str = field(default_factory=lambda: secrets.token_hex(8))


@dataclass(frozen=True)
class Status:
    """The link to the broker since `since_us` (store clock). A reason may stand while connected: a refusal."""

    connected: bool
    reason: str
    since_us: int


class Publisher:
    """Sends what is in the outbox; `run` goes on until cancelled and raises nothing because of broker or database.

    `handlers`: by name, who takes what comes on `down/{name}` and below. `trouble` says what the database refuses.
    `clock_offset_us`: the clock minus true time, if that is known.
    """

    def __init__(
        self,
        settings: MqttSettings,
        identity: Identity,
        writer: Writer,
        clock: Callable[[], int],
        handlers: Mapping[str, Handler] | None = None,
        clock_offset_us: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._writer = writer
        self._clock = clock
        self._clock_offset_us = clock_offset_us
        self._flows = {class_: Flow(class_) for class_ in CLASSES}
        self._changed = {lane: asyncio.Event() for lane in LANES}
        self._refused: set[EventClass] = set()
        self._packed: set[EventClass] = set()
        self._handlers = {} if handlers is None else handlers
        self._link: Link | None = None
        self._sayings = Sayings()
        self._tried = 0
        self._started_us = clock()
        self._twins = Twins(identity.instance, self._started_us)
        self.trouble: str | None = None
        self.status = Status(False, "not yet connected", clock())
        self.counters: Counter[str] = Counter()
        """connections, batches, events (repeated ones too), silences, refused, acks, acks_bad, acks_beyond, twins,
        down_bad: messages at which we failed."""
        self._acks = Acks(identity.store, identity.epoch, writer, self._flows, self.counters, self._note)

    def wake(self, class_: EventClass) -> None:
        """Events of the class were committed. Member goes at once, the others gather for up to GATHER_S."""
        self._flows[class_].wake(0.0 if class_ == "member" else GATHER_S)
        self._changed[_lane(class_)].set()

    def acked(self, class_: EventClass) -> int:
        """Number up to which the CRM has the class; the outbox writes it down up to acks.EVERY_S later."""
        return self._flows[class_].acked

    def say(self, rest: str, message: bytes, *, retain: bool = False) -> None:
        """Publish at QoS 1 when there is a connection; what is retained is said anew on every one."""
        self._sayings.add(rest, message, retain=retain)

    async def replay(self, class_: EventClass, first: int, last: int) -> dict[str, int]:
        """Send numbers `first` … `last` once more, what is no longer there as lost; how many events and lost numbers.

        Raises BrokerError without a connection. Not repeated by itself: a consumer that misses some asks again.
        """
        events = lost = 0
        last = min(last, (await self._writer.read(outbox.depth))[class_].sent)
        after = first - 1
        while after < last:
            job = partial(
                outbox.kept, class_=class_, after=after, upto=last, max_events=BATCH_EVENTS, max_bytes=REPLAY_BYTES
            )
            batch = await self._writer.read(job)
            if batch is None:
                break
            if self._link is None:
                raise BrokerError("the connection to the broker was lost")
            await self._link.publish(topics.topic(self._identity.store, f"up/{class_}"), self._message(class_, batch))
            events += len(batch.payloads)
            lost += sum(gap.to - gap.from_ + 1 for gap in batch.lost)
            after = batch.last
        return {"events": events, "lost": lost}

    async def run(self) -> None:
        """Connect, send, reconnect; until cancelled, which says goodbye to the broker and keeps the last acks."""
        failures = 0
        try:
            await self._recall()
            while True:
                began = time.monotonic()
                twin = False
                try:
                    # In a task of its own: Python 3.11's task groups spoil `cancelling` of the task they run in.
                    await asyncio.create_task(self._session())
                except* BrokerError as group:
                    reason = str(_first(group))
                    twin = isinstance(_first(group), TwinError)
                if (task := asyncio.current_task()) and task.cancelling():
                    raise asyncio.CancelledError  # a session that fails while it is cancelled forgets that it was
                failures = 1 if time.monotonic() - began > STEADY_S else failures + 1
                self._tell(False, reason)
                await asyncio.sleep(TWIN_WAIT_S if twin else backoff_s(failures))
        finally:
            self._tell(False, "stopped")
            await self._acks.write(self._clock())

    async def _recall(self) -> None:
        """Where the outbox stands, as soon as the database tells."""
        while True:
            try:
                await self._acks.recall()
            except sqlite3.Error as error:
                self.trouble = str(error)
                await asyncio.sleep(RETRY_S)
            else:
                self.trouble = None
                return

    async def _session(self) -> None:
        """One connection, from the greeting until it is lost (BrokerError) or we are cancelled."""
        store = self._identity.store
        here, gone = (self._state(online) for online in (True, False))
        state = topics.topic(store, "state")
        self._twins.connected()
        async with connect(self._settings, will=(state, gone)) as link:
            below = [topics.topic(store, f"down/{name}/#") for name in self._handlers]
            await link.subscribe([topics.topic(store, "down/ack/+"), state, *below])
            await link.publish(state, here, retain=True)
            self.counters["connections"] += 1
            self._refused.clear()
            self._tell(True, "")
            for flow in self._flows.values():
                flow.rewind()
            self._link = link
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._watch(link))
                    tasks.create_task(self._listen(link))
                    tasks.create_task(self._acks.keep(self._clock))
                    tasks.create_task(self._sayings.run(partial(self._utter, link)))
                    for classes in LANES:
                        tasks.create_task(self._send(link, classes, tasks))
            except asyncio.CancelledError:
                with contextlib.suppress(BrokerError, TimeoutError):
                    async with asyncio.timeout(1):
                        await link.publish(state, gone, retain=True)
                raise
            finally:
                self._link = None

    async def _utter(self, link: Link, rest: str, message: bytes, retain: bool) -> None:
        try:
            await link.publish(topics.topic(self._identity.store, rest), message, retain=retain)
        except RefusedError as error:
            self.counters["refused"] += 1
            self._tell(True, str(error))

    async def _watch(self, link: Link) -> None:
        raise BrokerError(await asyncio.shield(link.closed))

    async def _send(self, link: Link, classes: tuple[EventClass, ...], tasks: asyncio.TaskGroup) -> None:
        """Send the classes of a lane, whichever is due and has had the smallest share so far."""
        slots = asyncio.Semaphore(MEMBER_LANE if classes == LANES[0] else BULK_LANE)
        changed = self._changed[classes]
        while True:
            await slots.acquire()
            while (flow := self._due(classes)) is None:
                wait_s = min(self._flows[class_].wait_s(time.monotonic()) for class_ in classes)
                changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if wait_s == float("inf") else wait_s):
                        await changed.wait()
            job = partial(
                outbox.pending,
                class_=flow.class_,
                after=flow.cursor,
                max_events=BATCH_EVENTS,
                max_bytes=MAX_EVENT_BYTES if flow.class_ == "member" else BULK_BYTES,
            )
            turn = flow.turn
            flow.looking()
            try:
                batch = await self._look(flow.class_, job)
            except sqlite3.Error as error:
                self.trouble = str(error)
                flow.wake(RETRY_S)
                slots.release()
                continue
            if turn != flow.turn or batch is None:  # an ack or a rewind came in between; or there is nothing
                slots.release()
                continue
            message = self._message(flow.class_, batch)
            flow.sent(batch.last, len(message), time.monotonic())
            self.counters["batches"] += 1
            self.counters["events"] += len(batch.payloads)
            tasks.create_task(self._publish(link, flow.class_, message)).add_done_callback(lambda _: slots.release())

    async def _look(
        self, class_: EventClass, job: Callable[[sqlite3.Connection], outbox.Pending | None]
    ) -> outbox.Pending | None:
        """Read a batch; windows that may leave the house now are marked, for they must not be merged any more."""
        batch = await self._writer.read(job)
        if class_ == "agg" and batch is not None and batch.last > self._tried:

            def mark(conn: sqlite3.Connection) -> tuple[int, outbox.Pending | None]:
                outbox.mark_tried(conn, class_)
                return outbox.depth(conn)[class_].sent, job(conn)

            self._tried, batch = await self._writer.write(mark)
        self.trouble = self.trouble if self._acks.unwritten else None
        return batch

    async def _publish(self, link: Link, class_: EventClass, message: bytes) -> None:
        try:
            await link.publish(topics.topic(self._identity.store, f"up/{class_}"), message)
        except RefusedError as error:  # the silence that follows sends it again, ever more rarely
            self.counters["refused"] += 1
            self._refused.add(class_)
            self._tell(True, str(error))
        else:
            self._refused.discard(class_)
            if not self._refused and self.status.reason:
                self._tell(True, "")

    def _due(self, classes: tuple[EventClass, ...]) -> Flow | None:
        now = time.monotonic()
        for class_ in classes:
            if self._flows[class_].silent(now):
                self.counters["silences"] += 1
                self._packed.discard(class_)
        due = [flow for class_ in classes if (flow := self._flows[class_]).wait_s(now) <= 0]
        if not due:
            return None
        # A class that was quiet does not make up for it: it enters level with the one that is furthest behind.
        floor = min(flow.share for flow in due)
        for class_ in classes:
            self._flows[class_].share = max(self._flows[class_].share, floor)
        return min(due, key=lambda flow: flow.share)

    async def _listen(self, link: Link) -> None:
        while True:
            for incoming in await link.receive():
                try:
                    await self._take(incoming)
                except BrokerError:
                    raise
                except Exception:  # else one retained message would end the service at every start
                    self.counters["down_bad"] += 1
                    log.exception("a message on %s could not be taken", incoming.topic[:200])

    async def _take(self, incoming: Incoming) -> None:
        name = incoming.topic.split("/", 6)[4:6]
        if name == ["state"]:
            self._take_state(incoming)
        elif name[:1] == ["down"] and (handler := self._handlers.get(name[-1])):
            await handler(incoming)
        else:
            await self._take_ack(incoming)

    def _take_state(self, incoming: Incoming) -> None:
        try:
            twin = self._twins.look(incoming.payload)
        except TwinError:
            self.counters["twins"] += 1
            raise
        if twin is not None:
            self.counters["twins"] += 1
            self._tell(True, twin)

    async def _take_ack(self, incoming: Incoming) -> None:
        if (taken := await self._acks.take(incoming)) is not None:
            class_, ack = taken
            (self._packed.add if GZIP in ack.accepts else self._packed.discard)(class_)
            self._changed[_lane(class_)].set()

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
        return pack(message) if class_ in self._packed else message

    def _state(self, online: bool) -> bytes:
        me = self._identity
        state = State(
            store=me.store,
            online=online,
            version=me.version,
            epoch=me.epoch,
            config_generation=me.config_generation,
            directory_generation=me.directory_generation,
            instance=me.instance,
            started_us=self._started_us,
        )
        return state.model_dump_json().encode()

    def _note(self, trouble: str | None) -> None:
        self.trouble = trouble

    def _tell(self, connected: bool, reason: str) -> None:
        if (connected, reason) != (self.status.connected, self.status.reason):
            since = self.status.since_us if connected == self.status.connected else self._clock()
            self.status = Status(connected, reason, since)


def backoff_s(failures: int) -> float:
    """Wait before attempt number `failures` + 1: random, so that a fleet does not come back as one."""
    first, most = BACKOFF_S
    return random.uniform(first / 2, min(most, first * 2 ** min(failures - 1, 30)))


LANES: tuple[tuple[EventClass, ...], ...] = (("member",), ("journey", "agg", "health"))


def _lane(class_: EventClass) -> tuple[EventClass, ...]:
    return next(lane for lane in LANES if class_ in lane)


def _first(group: BaseExceptionGroup[BrokerError]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
