"""Sink: takes the events of some shards from the broker, commits them to PostgreSQL, and only then acknowledges.

1. Leases say which shards; PostgreSQL's locks hold them, so that they end with the process (leases).
2. A few hundred messages are decoded and committed together, each number once (ledger).
3. After the commit: the broker's PUBACK, the store's ack, and what was new goes to the log (log).
4. A store that waits too long is asked to pause, by an ack that isn't retained: the retained one is the watermark.
5. Whatever is away (broker, database, log), the others go on, and all of it is retried for ever. What isn't committed
   isn't acknowledged, and comes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import psycopg

from config import topics
from sync.chain import schema
from sync.chain.decoding import Bad, Batch, decode, key_of
from sync.chain.desk import Desk, Outgoing
from sync.chain.leases import LANES, Leases
from sync.chain.ledger import Key, Ledger, Letter, Run, Taken, connect, now_us
from sync.contract import GZIP, MAX_MESSAGE_BYTES, Ack
from sync.mqtt import BrokerError, Incoming, MqttConnection, MqttSettings
from sync.mqtt import connect as connect_to_broker
from sync.publisher import backoff_s

if TYPE_CHECKING:
    from sync.chain.log import LogSettings

log = logging.getLogger("tagtrail.chain")

T = TypeVar("T")

COMMIT_TOGETHER = 256
COMMIT_BYTES = 1024 * 1024
"""Limits of one transaction: while one is committed, the next messages gather."""
UNACKED = 8192
"""Messages that the broker hands over without our PUBACK, …"""
WAITING_BYTES = 128 * 1024 * 1024
"""… and the most that is kept of them, also from a broker that knows no such limit. More is dropped: it comes again."""
FILTERS = 128
"""Topic filters in one subscription."""
RENEW_S = 1.0
"""Interval at which leases are looked at: as long it takes to notice that a sink came or went."""
LINGER_S = 3.0
"""A shard given up is still served for this long, so that nothing is lost before the next sink listens."""
SWEEP_S = 5.0
SWEPT = 500
"""Interval and number of rows at which what the log lacks is looked for."""
FLUSH_S = 0.5
HOUSE_S = 3600.0
DATABASE_RETRY_S = 1.0
LATE_S = 3.0
"""Age of a message at its commit from which its store is asked to pause, if its class can wait."""
PAUSE_S = (2.0, 30.0)
AWAY_PAUSE_S = 5.0
"""Pause while the database is away; afterwards stores begin again within this time."""
SAID_S = 10.0
"""Interval at which the log of the process tells that a trouble has become another one."""
POSTED = 1000
"""Publishes that may wait for the broker."""
STEADY_S = 10.0
STOP_S = 5.0
CLIENT_ID = "tagtrail-sink"


@dataclass(frozen=True)
class SinkSettings:
    """What a sink is told: `client_id` of the broker's settings is replaced by one of its own."""

    broker: MqttSettings
    database: str
    lane: str
    first: int = 0
    last: int = topics.SHARDS - 1
    log: LogSettings | None = None
    version: str = ""


class _Message(NamedTuple):
    incoming: Incoming
    received_us: int
    connection: MqttConnection


class Sink:
    """Sink of one lane; `run` continues until cancelled, and then commits what it has."""

    def __init__(self, settings: SinkSettings) -> None:
        self._settings = settings
        self._classes = LANES[settings.lane]
        self._waiting: deque[_Message] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._acks: dict[Key, int] = {}
        self._pauses: dict[Key, tuple[int, float]] = {}
        self._committed = asyncio.Event()
        self._ledger: Ledger | None = None
        self._conn: psycopg.Connection[Any] | None = None
        self._thread = ThreadPoolExecutor(1, "ledger")
        self._lease_thread = ThreadPoolExecutor(1, "leases")
        self._leases: Leases | None = None
        self._shards: dict[int, float | None] = {}
        self._fresh_shards: set[int] = set()
        self._feed: Any = None
        if settings.log is not None:
            from sync.chain.log import Feed

            self._feed = Feed(settings.log, self._classes, f"{CLIENT_ID}-{settings.lane}")
        self._desk = Desk() if settings.lane == "bulk" else None
        self._said_s: dict[str, float] = {}
        self.trouble: dict[str, str] = {}
        """What is wrong now: broker, database, leases, log."""
        self.counters: Counter[str] = Counter()
        """Counters: messages, events (new), duplicates, letters, commits, pauses, dropped, fenced (batches of a
        gateway from which another has taken over), retaken, lag_ms."""

    @property
    def shards(self) -> list[int]:
        """Shards that are served."""
        return sorted(self._shards)

    async def run(self) -> None:
        """Take, commit, acknowledge."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._work())
                tasks.create_task(self._stay())
                tasks.create_task(self._sweep())
                tasks.create_task(self._keep_house())
                if self._feed is not None:
                    tasks.create_task(self._feed.run())
        finally:
            self._thread.shutdown()
            self._lease_thread.shutdown()
            if self._conn is not None:
                self._conn.close()

    # The broker.

    async def _stay(self) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            try:
                # In a task of its own: Python 3.11's task groups spoil `cancelling` of the task they run in.
                await asyncio.create_task(self._session())
            except* BrokerError as error:
                self._tell("broker", str(error.exceptions[0]))
            if (task := asyncio.current_task()) and task.cancelling():
                raise asyncio.CancelledError
            failures = 1 if time.monotonic() - began > STEADY_S else failures + 1
            await asyncio.sleep(min(backoff_s(failures), 5.0))

    async def _session(self) -> None:
        """Serve on one connection: with a clean session, since stores send again what a broker has lost."""
        # An id of its own for every connection: a broker would end an older one of the same name.
        own = f"{CLIENT_ID}-{self._settings.lane}-{random.getrandbits(48):012x}"
        settings = MqttSettings(**{**vars(self._settings.broker), "client_id": own})
        async with connect_to_broker(settings, deferred=UNACKED) as connection:
            self._tell("broker", None)
            self._shards.clear()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._receive(connection))
                tasks.create_task(self._acknowledge(connection))
                tasks.create_task(self._serve(connection))
                if self._desk is not None:
                    tasks.create_task(self._mind_desk(connection, self._desk))

    async def _receive(self, connection: MqttConnection) -> None:
        while True:
            arrived = await connection.receive()
            now = now_us()
            self.counters["messages"] += len(arrived)
            for incoming in arrived:
                if self._desk is not None and self._desk.takes(incoming.topic):
                    self._desk.take(incoming, now)
                    connection.done((incoming.mid,))
                elif self._bytes > WAITING_BYTES:
                    connection.done((incoming.mid,))
                    self.counters["dropped"] += 1
                else:
                    self._bytes += len(incoming.payload)
                    self._waiting.append(_Message(incoming, now, connection))
            self._arrived.set()

    async def _acknowledge(self, connection: MqttConnection) -> None:
        """Publish the newest ack of each series; it is retained, with the watermark. A pause is not."""
        while True:
            await self._committed.wait()
            self._committed.clear()
            while self._acks:
                while connection.unanswered >= POSTED:
                    await asyncio.sleep(0.005)
                key = next(iter(self._acks))
                store, epoch, class_ = key
                ack = Ack(epoch=epoch, upto=self._acks.pop(key), accepts=(GZIP,), at_us=now_us())
                connection.post(topics.topic(store, f"down/ack/{class_}"), ack.model_dump_json().encode(), retain=True)
            while self._pauses:
                (store, epoch, class_), (upto, pause_s) = self._pauses.popitem()
                self.counters["pauses"] += 1
                ack = Ack(epoch=epoch, upto=upto, pause_ms=round(pause_s * 1000), accepts=(GZIP,), at_us=now_us())
                connection.post(topics.topic(store, f"down/ack/{class_}"), ack.model_dump_json().encode())

    # Leases.

    async def _serve(self, connection: MqttConnection) -> None:
        """Hold leases as long as this connection lives, and listen to their shards."""
        listening: set[int] = set()
        while True:
            try:
                leases = await self._in(self._lease_thread, self._lease)
                self._tell("leases", None)
                while True:
                    counters = self.counters | (self._feed.counters if self._feed else Counter())
                    counters["waiting"] = len(self._waiting)
                    taken, leaving = await self._in(self._lease_thread, leases.renew, counters)
                    await self._listen(connection, leases.held - listening)
                    listening |= leases.held
                    self._shards |= dict.fromkeys(leases.held)
                    self._fresh_shards |= taken
                    if leaving:
                        await self._in(self._lease_thread, leases.release, leaving)
                    listening -= await self._leave(connection, leases.held)
                    await asyncio.sleep(RENEW_S)
            except psycopg.Error as error:
                self._tell("leases", str(error).strip())
                await asyncio.sleep(DATABASE_RETRY_S)
            finally:
                self._lease_thread.submit(self._end_leases)

    def _lease(self) -> Leases:
        settings = self._settings
        conn = connect(settings.database, application_name=f"{CLIENT_ID}-leases")
        try:
            schema.require(conn)
            broker = f"{settings.broker.host}:{settings.broker.port}"
            self._leases = Leases(
                conn, settings.lane, settings.first, settings.last, broker=broker, version=settings.version
            )
            return self._leases
        except BaseException:
            conn.close()
            raise

    def _end_leases(self) -> None:
        if self._leases is not None:
            self._leases.close()
            self._leases = None

    async def _listen(self, connection: MqttConnection, shards: set[int]) -> None:
        wanted = [f"{topics.ROOT}/{shard}/+/{rest}" for shard in sorted(shards) for rest in self._below()]
        for at in range(0, len(wanted), FILTERS):
            await connection.subscribe(wanted[at : at + FILTERS])

    async def _leave(self, connection: MqttConnection, held: set[int]) -> set[int]:
        """Stop listening to shards that were given up a while ago; returns them."""
        now = time.monotonic()
        left = set()
        for shard in [shard for shard in self._shards if shard not in held]:
            since = self._shards[shard] = self._shards[shard] or now
            if now - since >= LINGER_S:
                del self._shards[shard]
                left.add(shard)
                await connection.unsubscribe([f"{topics.ROOT}/{shard}/+/{rest}" for rest in self._below()])
        return left

    def _below(self) -> list[str]:
        events = [f"up/{class_}" for class_ in self._classes]
        return events + (list(self._desk.TOPICS) if self._desk is not None else [])

    # The database.

    async def _work(self) -> None:
        """Commit what has arrived."""
        try:
            while True:
                if not self._waiting:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(FLUSH_S):
                            await self._arrived.wait()
                    self._arrived.clear()
                await self._commit()
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    while self._waiting and "database" not in self.trouble:
                        await self._commit()

    async def _commit(self) -> None:
        messages: list[_Message] = []
        size = 0
        while self._waiting and len(messages) < COMMIT_TOGETHER and size < COMMIT_BYTES:
            messages.append(self._waiting.popleft())
            size += len(messages[-1].incoming.payload)
        self._bytes -= size
        done = self._feed.confirmed() if self._feed is not None else []
        if not messages and not done:
            return
        try:
            taken = await self._in(self._thread, self._take, messages, done)
        except psycopg.Error as error:
            self._tell("database", str(error).strip())
            self._put_back(messages)
            if self._feed is not None:
                self._feed.deleted(done, False)
            self._pause_all()
            await asyncio.sleep(DATABASE_RETRY_S)
            return
        except BaseException:
            self._put_back(messages)
            raise
        self._tell("database", None)
        self._after(messages, done, taken)

    def _put_back(self, messages: Sequence[_Message]) -> None:
        self._waiting.extendleft(reversed(messages))
        self._bytes += sum(len(message.incoming.payload) for message in messages)

    def _take(self, messages: Sequence[_Message], done: Sequence[int]) -> Taken:
        """Decode and commit, in the ledger's thread."""
        batches: list[tuple[Batch, int]] = []
        letters: list[Letter] = []
        for incoming, received_us, _ in messages:
            try:
                batches.append((decode(incoming.topic, incoming.payload), received_us))
            except ValueError as error:
                letters.append(_letter(incoming, str(error), received_us))
            except Exception as error:  # our own mistake: it must not stop the others, either
                log.exception("a message on %s cannot be decoded", incoming.topic[:200])
                letters.append(_letter(incoming, f"{type(error).__name__}: {error}", received_us))
        ledger = self._open()
        try:
            return ledger.take(batches, letters, done)
        except Exception as error:
            if _is_outage(error):
                raise
            log.warning("some of %d messages can't be committed: %s", len(messages), error)
        taken = ledger.take([], letters, done)
        for one in batches:
            try:
                more = ledger.take([one])
            except Exception as error:
                if _is_outage(error):
                    raise
                more = ledger.take([(_refused(one[0], error), one[1])])
            taken = Taken(
                taken.upto | more.upto, taken.runs + more.runs, taken.fresh + more.fresh, taken.fenced + more.fenced
            )
        return taken

    def _open(self) -> Ledger:
        if self._conn is None or self._conn.closed or self._ledger is None:
            self._conn = connect(self._settings.database, application_name=f"{CLIENT_ID}-{self._settings.lane}")
            schema.require(self._conn)
            self._ledger = Ledger(self._conn, version=self._settings.version, feed=self._feed is not None)
        self._ledger.refresh_erasing()
        return self._ledger

    def _after(self, messages: Sequence[_Message], done: Sequence[int], taken: Taken) -> None:
        """After the commit: tell the broker, the stores and the log."""
        for connection in {id(message.connection): message.connection for message in messages}.values():
            with contextlib.suppress(BrokerError):
                connection.done(message.incoming.mid for message in messages if message.connection is connection)
        for key, upto in taken.upto.items():
            self._acks.pop(key, None)
            self._acks[key] = upto
        if messages:
            late_s = (now_us() - messages[0].received_us) / 1e6
            self.counters["lag_ms"] = round(1000 * late_s)
            self.counters["commits"] += 1
            if late_s > LATE_S:
                low, high = PAUSE_S
                for key, upto in taken.upto.items():
                    if key[2] in ("agg", "health"):
                        self._pauses[key] = upto, random.uniform(low, min(high, max(low, 2 * late_s)))
        self.counters["events"] += taken.fresh
        self.counters["fenced"] += taken.fenced
        self._committed.set()
        if self._feed is not None:
            self._feed.deleted(done, True)
            self._feed.offer(taken.runs)
            self._tell("log", self._feed.trouble)

    def _pause_all(self) -> None:
        """While the database is away, ask the stores that have sent something to pause."""
        for message in list(self._waiting)[:UNACKED]:
            with contextlib.suppress(ValueError):
                self._pauses[key_of(message.incoming.topic, message.incoming.payload)] = (
                    0,
                    random.uniform(0.5, 1.0) * AWAY_PAUSE_S,
                )
        self._committed.set()

    async def _sweep(self) -> None:
        """Feed the log what it lacks, and take dead letters again that this version understands."""
        again = False
        while True:
            await asyncio.sleep(0 if again else SWEEP_S)
            again = False
            shards = [shard for shard in self._shards if self._shards[shard] is None]
            if not shards:
                continue
            try:
                if self._fresh_shards:
                    some, self._fresh_shards = self._fresh_shards, set()
                    await self._retake(sorted(some))
                if self._feed is not None:
                    self._tell("log", self._feed.trouble)
                if self._feed is not None and not self._feed.full and self._feed.waiting < SWEPT:
                    known = self._feed.known()
                    runs = await self._in(self._thread, self._leftovers, shards, known)
                    self._feed.offer(runs)
                    self.counters["leftovers"] += len(runs)
                    again = len(runs) == SWEPT
            except psycopg.Error as error:
                self._tell("database", str(error).strip())

    def _leftovers(self, shards: Sequence[int], known: Sequence[int]) -> list[Run]:
        return self._open().leftovers(shards, self._classes, known, SWEPT)

    async def _retake(self, shards: Sequence[int]) -> None:
        while True:
            n, runs = await self._in(self._thread, lambda: self._open().retake(shards, self._classes))
            if n < 0:
                return
            self.counters["retaken"] += n
            if self._feed is not None:
                self._feed.offer(runs)

    async def _keep_house(self) -> None:
        while True:
            with contextlib.suppress(psycopg.Error):
                await self._in(self._thread, lambda: self._open().keep_house())
            await asyncio.sleep(random.uniform(0.5, 1.0) * HOUSE_S)

    async def _mind_desk(self, connection: MqttConnection, desk: Desk) -> None:
        """Write what stores answer, and send them what they shall have."""
        while True:
            await asyncio.sleep(desk.EVERY_S)
            shards = [shard for shard in self._shards if self._shards[shard] is None]
            try:
                for topic, payload, retain in await self._in(self._thread, self._at_desk, desk, shards):
                    while connection.unanswered >= POSTED:
                        await asyncio.sleep(0.005)
                    connection.post(topic, payload, retain=retain)
            except psycopg.Error as error:
                self._tell("database", str(error).strip())
                await asyncio.sleep(DATABASE_RETRY_S)

    def _at_desk(self, desk: Desk, shards: Sequence[int]) -> list[Outgoing]:
        self._open()
        assert self._conn is not None
        return desk.work(self._conn, shards)

    async def _in(self, thread: ThreadPoolExecutor, job: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(thread, job, *args)

    def _tell(self, what: str, trouble: str | None) -> None:
        if trouble is None:
            if self.trouble.pop(what, None) is not None:
                log.info("%s: works again", what)
            return
        now = time.monotonic()
        if what not in self.trouble or (self.trouble[what] != trouble and now - self._said_s[what] > SAID_S):
            log.warning("%s: %s", what, trouble)
            self._said_s[what] = now
        self.trouble[what] = trouble


def _is_outage(error: Exception) -> bool:
    """Return whether an error of the database has nothing to do with what was to be committed: it is retried."""
    return isinstance(error, psycopg.Error) and not isinstance(error, psycopg.DataError | psycopg.IntegrityError)


def _refused(batch: Batch, error: Exception) -> Batch:
    """The batch as dead letters: it can't be committed, and its class must not stop."""
    said = str(error).replace("\0", "")
    events: list[Any] = [Bad(one.raw, one.type, f"it can't be committed: {said}") for one in batch.events]
    return batch._replace(events=events)


def _letter(incoming: Incoming, error: str, received_us: int) -> Letter:
    topic = incoming.topic.replace("\0", "")
    digest = hashlib.blake2b(topic.encode() + b"\0" + incoming.payload, digest_size=16).digest()
    return Letter(digest, topic, error[:1000].replace("\0", ""), incoming.payload[:MAX_MESSAGE_BYTES], received_us)
