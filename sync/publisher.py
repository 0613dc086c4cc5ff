"""Publisher: takes the outbox to the CRM, for ever, through every failure of the broker.

The rules, for each class on its own:
1. Batches go out in the order of their numbers, at most WINDOW of them without the CRM's ack.
2. An ack of the CRM, and nothing else, moves the class on and lets the outbox delete; MQTT's own proves nothing.
3. After silence, and on every new connection, all that is not acked is sent again, in order (go-back-N). While the
   silence lasts it is one batch at a time, ever more rarely: a CRM that is away finds no heap of repetitions.
4. `pause_ms` of an ack holds the class back.
Class member has a lane of its own. The others share one, by weight, that puts so few bytes on the way to the broker
that a recognition gets through at once on a slow line as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import ValidationError

from config import topics
from sync import outbox
from sync.contract import CLASSES, MAX_ACK_BYTES, MAX_EVENT_BYTES, Ack, Envelope, EventClass, State, encode
from sync.mqtt import BrokerError, Incoming, Link, MqttSettings, RefusedError, connect

WINDOW = 8
"""Batches of a class without an ack."""
BATCH_EVENTS = 500
BULK_BYTES = 32 * 1024
"""Bytes of events in a batch of a class that can wait, BULK_LANE of them on their way: 1 s on a line of 1 Mbit/s."""
BULK_LANE = 4
MEMBER_LANE = 8
WEIGHTS: dict[EventClass, int] = {"journey": 4, "agg": 2, "health": 1}
"""Shares of the line among the classes that can wait, while they all have something to send."""
GATHER_S = 0.2
"""How long the others wait for company after a wake; member never does."""
SILENCE_S = (2.0, 60.0)
"""Without an ack for so long, all is sent again; doubles to the second."""
BACKOFF_S = (0.5, 60.0)
"""Reconnecting: the most that is waited after the first failure and after many."""
STEADY_S = 10.0
"""A link that lived so long starts the backoff anew."""
ACKED_EVERY_S = 0.5
"""Acks are written down together, at most so often."""
MAX_PAUSE_S = 600.0

T = TypeVar("T")


class Writer(Protocol):
    """The database's one thread; a job of `write` is one transaction."""

    async def write(self, job: Callable[[sqlite3.Connection], T]) -> T: ...

    async def read(self, job: Callable[[sqlite3.Connection], T]) -> T: ...


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


@dataclass(frozen=True)
class Status:
    """The link to the broker since `since_us` (store clock). A reason may stand while connected: a refusal."""

    connected: bool
    reason: str
    since_us: int


class Publisher:
    """Sends what is in the outbox; `run` goes on until cancelled and raises nothing because of the broker."""

    def __init__(self, settings: MqttSettings, identity: Identity, writer: Writer, clock: Callable[[], int]) -> None:
        self._settings = settings
        self._identity = identity
        self._writer = writer
        self._clock = clock
        self._flows = {class_: _Flow(class_) for class_ in CLASSES}
        self._acked: dict[EventClass, int] = {}
        self._changed = {lane: asyncio.Event() for lane in LANES}
        self._acks_waiting = asyncio.Event()
        self._refused: set[EventClass] = set()
        self.status = Status(False, "not yet connected", clock())
        self.counters: Counter[str] = Counter()
        """connections, batches, events (repeated ones too), silences, refused, acks, acks_bad, acks_beyond."""

    def wake(self, class_: EventClass) -> None:
        """Events of the class were committed. Member goes at once, the others gather for up to GATHER_S."""
        self._flows[class_].wake(0.0 if class_ == "member" else GATHER_S)
        self._changed[_lane(class_)].set()

    def acked(self, class_: EventClass) -> int:
        """Number up to which the CRM has the class; the outbox writes it down up to ACKED_EVERY_S later."""
        return self._flows[class_].acked

    async def run(self) -> None:
        """Connect, send, reconnect; until cancelled, which says goodbye to the broker and keeps the last acks."""
        failures = 0
        try:
            for class_, acked in (await self._writer.read(outbox.acknowledged)).items():
                self._flows[class_].acked = acked
            while True:
                began = time.monotonic()
                try:
                    # In a task of its own: Python 3.11's task groups spoil `cancelling` of the task they run in.
                    await asyncio.create_task(self._session())
                except* BrokerError as group:
                    reason = str(_first(group))
                if (task := asyncio.current_task()) and task.cancelling():
                    raise asyncio.CancelledError  # a session that fails while it is cancelled forgets that it was
                failures = 1 if time.monotonic() - began > STEADY_S else failures + 1
                self._tell(False, reason)
                await asyncio.sleep(backoff_s(failures))
        finally:
            self._tell(False, "stopped")
            await self._write_acks()

    async def _session(self) -> None:
        """One connection, from the greeting until it is lost (BrokerError) or we are cancelled."""
        store = self._identity.store
        here, gone = (self._state(online) for online in (True, False))
        state = topics.topic(store, "state")
        async with connect(self._settings, will=(state, gone)) as link:
            await link.subscribe([topics.topic(store, "down/ack/+")])
            await link.publish(state, here, retain=True)
            self.counters["connections"] += 1
            self._refused.clear()
            self._tell(True, "")
            for flow in self._flows.values():
                flow.rewind()
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._watch(link))
                    tasks.create_task(self._listen(link))
                    tasks.create_task(self._keep_acks())
                    for classes in LANES:
                        tasks.create_task(self._send(link, classes, tasks))
            except asyncio.CancelledError:
                with contextlib.suppress(BrokerError, TimeoutError):
                    async with asyncio.timeout(1):
                        await link.publish(state, gone, retain=True)
                raise

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
            batch = await self._writer.read(job)
            if turn != flow.turn or batch is None:  # an ack or a rewind came in between; or there is nothing
                slots.release()
                continue
            message = self._message(flow.class_, batch)
            flow.sent(batch.last, len(message), time.monotonic())
            self.counters["batches"] += 1
            self.counters["events"] += len(batch.payloads)
            tasks.create_task(self._publish(link, flow.class_, message)).add_done_callback(lambda _: slots.release())

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

    def _due(self, classes: tuple[EventClass, ...]) -> _Flow | None:
        now = time.monotonic()
        for class_ in classes:
            if self._flows[class_].silent(now):
                self.counters["silences"] += 1
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
                await self._take_ack(incoming)

    async def _take_ack(self, incoming: Incoming) -> None:
        """An ack moves its class on if it can be one: right topic, small, this epoch, of numbers that were given."""
        try:
            store, rest = topics.parse(incoming.topic)
            class_ = next(class_ for class_ in CLASSES if rest == f"down/ack/{class_}")
            if store != self._identity.store or len(incoming.payload) > MAX_ACK_BYTES:
                raise ValueError
            ack = Ack.model_validate_json(incoming.payload, strict=True)
        except (ValueError, StopIteration, ValidationError):
            self.counters["acks_bad"] += 1
            return
        if ack.epoch != self._identity.epoch:
            self.counters["acks_bad"] += not incoming.retained  # a former database's last ack stays retained
            return
        flow = self._flows[class_]
        if ack.upto > flow.highest:
            # Sent by a former life of this database, or a lie: the outbox knows which.
            flow.highest = (await self._writer.read(outbox.depth))[class_].sent
            if ack.upto > flow.highest:
                self.counters["acks_beyond"] += 1
                return
        self.counters["acks"] += 1
        if flow.take_ack(ack.upto, min(ack.pause_ms / 1000, MAX_PAUSE_S), time.monotonic()):
            self._acked[class_] = flow.acked
            self._acks_waiting.set()
        self._changed[_lane(class_)].set()

    async def _keep_acks(self) -> None:
        while True:
            await self._acks_waiting.wait()
            await self._write_acks()
            await asyncio.sleep(ACKED_EVERY_S)

    async def _write_acks(self) -> None:
        """Delete what was acked, all classes in one transaction."""
        self._acks_waiting.clear()
        acked, self._acked = self._acked, {}
        if acked:

            def job(conn: sqlite3.Connection) -> None:
                for class_, upto in acked.items():
                    outbox.acknowledge(conn, class_, upto)

            await self._writer.write(job)

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
                "lost": batch.lost,
            }
        )
        return encode(envelope, batch.payloads)

    def _state(self, online: bool) -> bytes:
        me = self._identity
        state = State(
            store=me.store,
            online=online,
            version=me.version,
            epoch=me.epoch,
            config_generation=me.config_generation,
            directory_generation=me.directory_generation,
        )
        return state.model_dump_json().encode()

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


class _Flow:
    """Where a class is: `acked` ≤ `cursor` (sent up to) ≤ `highest` (known to have been numbered)."""

    def __init__(self, class_: EventClass) -> None:
        self.class_ = class_
        self.acked = self.cursor = self.highest = 0
        self.turn = 0  # changes whenever the cursor moves by other than sending: a batch read meanwhile is stale
        self.share = 0.0  # bytes sent by weight
        self._window = WINDOW
        self._unacked: deque[int] = deque()  # last number of each batch on its way
        self._due_s: float | None = 0.0  # monotonic time at which to look into the outbox; None: nothing there
        self._paused_until_s = 0.0
        self._silence_s = SILENCE_S[0]
        self._heard_s = 0.0

    def wake(self, gather_s: float) -> None:
        due = time.monotonic() + gather_s
        self._due_s = due if self._due_s is None else min(self._due_s, due)

    def wait_s(self, now_s: float) -> float:
        """Seconds until a batch may be sent, or the silence be over; infinite while only a wake or an ack helps."""
        wait = float("inf")
        if self._due_s is not None and len(self._unacked) < self._window:
            wait = max(self._due_s, self._paused_until_s) - now_s
        if self._unacked:
            wait = min(wait, max(self._heard_s + self._silence_s - now_s, 0.001))
        return wait

    def looking(self) -> None:
        """The outbox is being read: until more is known, only a wake makes it worth another look."""
        self._due_s = None

    def sent(self, last: int, size: int, now_s: float) -> None:
        """A batch up to `last` is on its way; there may be more behind it."""
        if not self._unacked:
            self._heard_s = now_s
        self._unacked.append(last)
        self.cursor = last
        self.highest = max(self.highest, last)
        self.share += size / WEIGHTS.get(self.class_, 1)
        self._due_s = now_s

    def take_ack(self, upto: int, pause_s: float, now_s: float) -> bool:
        """True if the class moved on."""
        self._paused_until_s = now_s + pause_s
        if pause_s or upto > self.acked:
            self._heard_s = self._paused_until_s
        if upto <= self.acked:
            return False
        self.acked = upto
        self._silence_s, self._window = SILENCE_S[0], WINDOW
        while self._unacked and self._unacked[0] <= upto:
            self._unacked.popleft()
        if upto > self.cursor:
            self.cursor = upto
            self._due_s = now_s
            self.turn += 1
        return True

    def silent(self, now_s: float) -> bool:
        """If the CRM has been silent for too long: go back to what it has acked, and try with one batch."""
        if not self._unacked or now_s < self._heard_s + self._silence_s:
            return False
        self._silence_s = min(self._silence_s * 2, SILENCE_S[1])
        self._window = 1
        self._back()
        return True

    def rewind(self) -> None:
        """A new connection: nothing of what was on its way counts."""
        self._silence_s, self._window = SILENCE_S[0], WINDOW
        self._back()

    def _back(self) -> None:
        self._unacked.clear()
        self.cursor = self.acked
        self._due_s = 0.0
        self.turn += 1
