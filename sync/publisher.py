"""Publisher: sends the outbox to the CRM, whatever fails.

Rules, for each class separately:
1. Batches are sent in the order of their numbers, at most WINDOW of them without the CRM's ack.
2. Only an ack of the CRM advances the class and lets the outbox delete; MQTT's own PUBACK proves nothing.
3. When the CRM is silent about what the broker has, and on every new connection, all that is not acked is sent again,
   in order (go-back-N). During a silence it is one batch at a time, with backoff, so that a CRM that comes back doesn't
   find a heap of repetitions.
4. `pause_ms` of an ack holds back the class, including replays.
5. A failing database stops nothing: acks are kept in memory, and reads are retried.
6. Of two gateways with the same identity, the one that started later is silent, and both report it.
7. Batches are compressed once an ack has said that the CRM accepts that, until one doesn't say so, or after a silence.
8. An ack of numbers that were never sent is ignored.
Class member has a lane of its own; the others share one, by weight. A lane has so little in flight (sync.uplink) that a
recognition gets through at once even on a slow line.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

from config import topics
from sync.acks import Acks
from sync.contract import CLASSES, EventClass, State
from sync.in_flight import InFlight
from sync.mqtt import BrokerError, Incoming, MqttConnection, MqttSettings, RefusedError, connect
from sync.sayings import Sayings
from sync.sending import Identity, Sending
from sync.twins import SupersededError, TwinError, Twins
from sync.writer import RETRY_S, Writer

log = logging.getLogger("tagtrail.publisher")

GATHER_S = 0.2
"""Time that other classes than member gather events after a wake."""
BACKOFF_S = (0.5, 60.0)
"""Longest wait before reconnecting: after the first failure, and after many."""
STEADY_S = 10.0
"""A connection that lasted this long resets the backoff."""
TWIN_WAIT_S = 60.0
"""Time that the younger of two gateways with the same identity stays away before it checks again."""
ECHO_S = 10.0
"""Time within which the broker should have delivered our own state to us."""
SILENT_FROM = 3
"""Consecutive silences after which it is reported: usually 14 s."""
KEPT = "the broker does not give our own state back: its access rules must let this store write and read it"
SILENT = "the CRM does not acknowledge {}: it is away, or an access rule of the broker refuses what we send"

Handler = Callable[[Incoming], Awaitable[None]]


@dataclass(frozen=True)
class Status:
    """Status of the broker connection since `since_us` (store clock). A refusal may be the reason while connected."""

    connected: bool
    reason: str
    since_us: int


class Publisher:
    """Sends the outbox; `run` continues until cancelled and raises nothing because of broker or database. `trouble` is
    the database's error. `clock_offset_us`: the clock minus true time, if known; `crm_said` is called with the CRM's
    time whenever the CRM sends it. `kept`: wait until what is committed may leave, or be answered for; `superseded` is
    called with the term of another gateway of this store if it is higher than ours.
    """

    def __init__(
        self,
        settings: MqttSettings,
        identity: Identity,
        writer: Writer,
        clock: Callable[[], int],
        clock_offset_us: Callable[[], int | None] = lambda: None,
        crm_said: Callable[[int], None] = lambda at_us: None,
        *,
        kept: Callable[[], Awaitable[None]] | None = None,
        superseded: Callable[[int], None] = lambda term: None,
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._writer = writer
        self._clock = clock
        self._in_flight = {class_: InFlight(class_) for class_ in CLASSES}
        self._handlers: Mapping[str, Handler] = {}
        self._sayings = Sayings()
        self._directory_generation = 0
        self._state_changed = asyncio.Event()
        self._repeat = False
        self._started_us = clock()
        self._twins = Twins(identity.instance, self._started_us, identity.term)
        self._trouble: str | None = None
        self._reasons: dict[str, str] = {}
        self.status = Status(False, "not yet connected", clock())
        self.broker_until_s: float | None = None
        """Until when the broker's certificate holds, seconds since 1970, by its last greeting."""
        self.counters: Counter[str] = Counter()
        """Counters: connections, batches, events (including repetitions), silences, refused, acks, acks_bad,
        acks_beyond, twins, down_bad (messages that couldn't be processed)."""
        self._acks = Acks(identity.store, identity.epoch, writer, self._in_flight, self.counters, self._note, crm_said)
        self._sending = Sending(
            identity,
            writer,
            clock,
            clock_offset_us,
            self._in_flight,
            self._acks.packed,
            self.counters,
            self._say_of,
            kept,
        )
        self._kept = kept
        self._superseded = superseded

    @property
    def trouble(self) -> str | None:
        """Current error of the database, empty if none."""
        return self._trouble or self._sending.trouble

    def wake(self, class_: EventClass) -> None:
        """Note that events of the class were committed. Member events go at once, others gather for up to GATHER_S."""
        self._in_flight[class_].wake(0.0 if class_ == "member" else GATHER_S)
        self._sending.look(class_)

    def acked(self, class_: EventClass) -> int:
        """Return the number up to which the CRM has the class; the outbox stores it a little later."""
        return self._in_flight[class_].acked

    def heard_s(self) -> Mapping[EventClass, float]:
        """Return class → seconds since the CRM last acknowledged it; only of classes heard of since the start."""
        now_s = time.monotonic()
        return {class_: now_s - at_s for class_, at_s in self._acks.heard_s.items()}

    def say(self, rest: str, message: bytes, *, retain: bool = False) -> None:
        """Publish at QoS 1 when connected; retained messages are published again on every connection."""
        self._sayings.add(rest, message, retain=retain)

    def tell_directory(self, generation: int) -> None:
        """Report in `state` which member directory is in use."""
        if generation != self._directory_generation:
            self._directory_generation = generation
            self._state_changed.set()

    async def replay(self, class_: EventClass, first: int, last: int) -> dict[str, int]:
        """Send numbers again; see Sending.replay."""
        return await self._sending.replay(class_, first, last)

    async def run(self, handlers: Mapping[str, Handler] | None = None) -> None:
        """Connect, send and reconnect until cancelled, which then says goodbye to the broker and stores the last acks.
        `handlers`: by name, called with messages on `down/{name}` and below.
        """
        self._handlers = handlers or {}
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
                    twin = isinstance(_first(group), TwinError | SupersededError)
                if (task := asyncio.current_task()) and task.cancelling():
                    raise asyncio.CancelledError  # a session that fails while it is cancelled forgets that it was
                failures = 1 if time.monotonic() - began > STEADY_S else failures + 1
                self._tell(False, reason)
                await asyncio.sleep(TWIN_WAIT_S if twin else backoff_s(failures))
        finally:
            self._tell(False, "stopped")
            await self._acks.write(self._clock())

    async def _recall(self) -> None:
        """Read the outbox's positions as soon as the database answers."""
        while True:
            try:
                await self._acks.recall()
            except sqlite3.Error as error:
                self._note(str(error))
                await asyncio.sleep(RETRY_S)
            else:
                self._note(None)
                return

    async def _session(self) -> None:
        """Run one connection until it is lost (BrokerError) or cancelled."""
        store = self._identity.store
        state = topics.topic(store, "state")
        self._twins.connected()
        async with connect(self._settings, will=(state, self._state(False)), durable=True) as connection:
            self.broker_until_s = connection.until_s
            await self._acks.live(self._identity.instance)
            below = [topics.topic(store, f"down/{name}/#") for name in self._handlers]
            await connection.subscribe([topics.topic(store, "down/ack/+"), state, *below])
            here = self._state(True)
            await connection.publish(state, here, retain=True)
            self.counters["connections"] += 1
            self._reasons.clear()
            self._tell(True, "")
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._watch(connection))
                    tasks.create_task(self._listen(connection))
                    tasks.create_task(self._acks.keep(self._clock))
                    tasks.create_task(self._sayings.run(partial(self._utter, connection)))
                    tasks.create_task(self._keep_state(connection, here))
                    tasks.create_task(self._suspect())
                    tasks.create_task(self._sending.run(connection))
            except asyncio.CancelledError:
                with contextlib.suppress(BrokerError, TimeoutError):
                    async with asyncio.timeout(1):
                        await connection.publish(state, self._state(False), retain=True)
                raise

    async def _keep_state(self, connection: MqttConnection, said: bytes) -> None:
        """Publish our state again whenever it has changed."""
        while True:
            self._state_changed.clear()
            if (state := self._state(True)) != said or self._repeat:
                said, self._repeat = state, False
                await self._utter(connection, "state", state, True)
            await self._state_changed.wait()

    async def _utter(self, connection: MqttConnection, rest: str, message: bytes, retain: bool) -> None:
        if self._kept is not None and rest != "state":  # of what was done, such as an erasure
            await self._kept()
        try:
            await connection.publish(topics.topic(self._identity.store, rest), message, retain=retain)
        except RefusedError as error:
            self.counters["refused"] += 1
            self._say_of("refused", str(error))

    async def _suspect(self) -> None:
        """Report a broker that accepts our messages but delivers none: MQTT 3.1.1 has no refusals."""
        began = time.monotonic()
        while True:
            await asyncio.sleep(1)
            kept = not self._twins.echoed and time.monotonic() - began > ECHO_S
            self._say_of("state", KEPT if kept else "")
            for class_, in_flight in self._in_flight.items():
                silent = in_flight.silences >= SILENT_FROM
                self._say_of(f"silence {class_}", SILENT.format(class_) if silent else "")

    async def _watch(self, connection: MqttConnection) -> None:
        raise BrokerError(await asyncio.shield(connection.closed))

    async def _listen(self, connection: MqttConnection) -> None:
        while True:
            for incoming in await connection.receive():
                try:
                    await self._take(incoming)
                except BrokerError:
                    raise
                except Exception:  # else one retained message would end the service at every start
                    self.counters["down_bad"] += 1
                    log.exception("a message on %s could not be processed", incoming.topic[:200])

    async def _take(self, incoming: Incoming) -> None:
        name = incoming.topic.split("/", 6)[4:6]
        if name == ["state"]:
            await self._take_state(incoming)
        elif name[:1] == ["down"] and (handler := self._handlers.get(name[-1])):
            await handler(incoming)
        else:
            await self._take_ack(incoming)

    async def _take_state(self, incoming: Incoming) -> None:
        try:
            twin = self._twins.look(incoming.payload, incoming.retained)
        except TwinError:
            self.counters["twins"] += 1
            raise
        except SupersededError as error:
            self._superseded(error.term)
            raise
        if twin is not None:
            self.counters["twins"] += 1
            self._say_of("twin", twin)
        if self._twins.overwritten:  # by one with a lower term, which is to see ours
            self._repeat = True
            self._state_changed.set()
            return
        if await self._acks.look(incoming.payload):
            for class_ in CLASSES:
                self._sending.look(class_)

    async def _take_ack(self, incoming: Incoming) -> None:
        if (class_ := await self._acks.take(incoming)) is not None:
            self._sending.heard(class_)

    def _state(self, online: bool) -> bytes:
        me = self._identity
        state = State(
            store=me.store,
            online=online,
            version=me.version,
            epoch=me.epoch,
            config_generation=me.config_generation,
            directory_generation=self._directory_generation,
            instance=me.instance,
            started_us=self._started_us,
            term=me.term,
        )
        return state.model_dump_json(exclude=None if me.term else {"term"}).encode()

    def _note(self, trouble: str | None) -> None:
        self._trouble = trouble

    def _say_of(self, what: str, reason: str) -> None:
        """Set or clear (empty) a message about a subject while connected."""
        if self._reasons.get(what, "") != reason:
            if reason:
                self._reasons[what] = reason
            else:
                del self._reasons[what]
            self._tell(True, next(iter(self._reasons.values()), ""))

    def _tell(self, connected: bool, reason: str) -> None:
        if (connected, reason) != (self.status.connected, self.status.reason):
            since = self.status.since_us if connected == self.status.connected else self._clock()
            self.status = Status(connected, reason, since)


def backoff_s(failures: int) -> float:
    """Return the wait before attempt `failures` + 1: random, so that a fleet doesn't reconnect all at once."""
    first, most = BACKOFF_S
    return random.uniform(first / 2, min(most, first * 2 ** min(failures - 1, 30)))


def _first(group: BaseExceptionGroup[BrokerError]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
