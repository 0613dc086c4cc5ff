"""Acknowledgements of the CRM: they advance their class, and the outbox stores how far it is.

An ack is valid if its number was sent: by this process, or by an earlier one that recorded it. A higher number belongs
to another class or epoch and is ignored. There is one exception: if the broker still has the `state` of a process that
this database doesn't know, the database was restored from a backup, together with the file of edge.database.life. Then
the ack says which numbers were used before, and new numbers start beyond it.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping

from pydantic import ValidationError

from config import topics
from sync import outbox
from sync.contract import CLASSES, GZIP, MAX_ACK_BYTES, Ack, EventClass, State
from sync.in_flight import InFlight
from sync.mqtt import Incoming
from sync.writer import RETRY_S, Writer

log = logging.getLogger("tagtrail.publisher")

EVERY_S = 0.5
"""Acks are stored together, at most this often."""
MAX_PAUSE_MS = 600_000
MAX_JUMP = 10**9
"""An ack further beyond all numbers than this doesn't come from before a restore: it is invalid."""


class Acks:
    """Takes acks and stores them from time to time; what the database refuses is kept in memory.

    `tell`: callback with the database's error, None when it works again. `said`: callback with the CRM's time when it
    sent an ack. `counters`: acks, acks_bad, acks_beyond.
    """

    def __init__(
        self,
        store: str,
        epoch: str,
        writer: Writer,
        in_flight: Mapping[EventClass, InFlight],
        counters: Counter[str],
        tell: Callable[[str | None], None],
        said: Callable[[int], None] = lambda at_us: None,
    ) -> None:
        self._store = store
        self._epoch = epoch
        self._writer = writer
        self._in_flight = in_flight
        self._counters = counters
        self._tell = tell
        self._said = said
        self._acked: dict[EventClass, int] = {}
        self._to_write = asyncio.Event()
        self._born: dict[EventClass, int] = {}
        self._written: dict[EventClass, tuple[int, bool]] = {}
        self._lives: list[str] = []
        self._living = False
        self._taken_back = False
        self._beyond: dict[EventClass, int] = {}
        self._last: dict[EventClass, bytes] = {}
        self.heard_s: dict[EventClass, float] = {}
        """When the CRM last acknowledged a class, by the monotonic clock; retained acks don't count."""
        self.packed: set[EventClass] = set()
        """Classes that the CRM accepts as gzip."""

    @property
    def unwritten(self) -> bool:
        """True while acks wait to be stored."""
        return bool(self._acked)

    async def recall(self) -> None:
        """Read the positions from the outbox. Raises sqlite3.Error."""
        standing = await self._writer.read(outbox.standing)
        depth = await self._writer.read(outbox.depth)
        self._lives = await self._writer.read(outbox.lives)
        self._born = {class_: depth[class_].sent + 1 for class_ in CLASSES}
        for class_, (acked, sent, packed) in standing.items():
            in_flight = self._in_flight[class_]
            in_flight.acked = max(in_flight.acked, acked)
            in_flight.highest = max(in_flight.highest, sent)
            if packed:
                self.packed.add(class_)
        self._written = {class_: (sent, packed) for class_, (_, sent, packed) in standing.items()}

    async def live(self, instance: str) -> None:
        """Record that this process publishes from now on, so that a later one can tell its `state` from a
        stranger's."""
        if self._living:
            return
        self._living = True
        if self._lives:  # of a database that noted none so far nobody is a stranger
            self._lives = [*self._lives, instance]
        try:
            await self._writer.write(lambda conn: outbox.lives(conn, instance))
        except sqlite3.Error as error:
            self._tell(str(error))

    async def look(self, payload: bytes) -> bool:
        """Check a `state` that the broker had retained; True if it shows that the database was restored, and numbers
        were moved."""
        try:
            state = State.model_validate_json(payload)
        except ValidationError:
            return False
        stranger = state.epoch == self._epoch and state.instance and self._lives and state.instance not in self._lives
        if not stranger or self._taken_back:
            return False
        self._taken_back = True
        beyond, self._beyond = self._beyond, {}
        return any([await self._jump(class_, upto) for class_, upto in beyond.items()])

    async def take(self, incoming: Incoming) -> EventClass | None:
        """Advance a class by a valid ack: right topic and size, this epoch, numbers that were sent."""
        try:
            store, rest = topics.parse(incoming.topic)
            class_ = next(class_ for class_ in CLASSES if rest == f"down/ack/{class_}")
            if store != self._store or len(incoming.payload) > MAX_ACK_BYTES:
                raise ValueError
            ack = Ack.model_validate_json(incoming.payload, strict=True)
        except (ValueError, StopIteration, ValidationError):
            self._counters["acks_bad"] += 1
            return None
        if ack.epoch != self._epoch:
            self._counters["acks_bad"] += not incoming.retained  # a former database's last ack stays retained
            return None
        if ack.at_us is not None and not incoming.retained:
            self._said(ack.at_us)
        in_flight = self._in_flight[class_]
        if ack.upto > in_flight.highest and not await self._is_of_a_lost_life(class_, ack.upto):
            return None
        self._counters["acks"] += 1
        if not incoming.retained:
            self.heard_s[class_] = time.monotonic()
        (self.packed.add if GZIP in ack.accepts else self.packed.discard)(class_)
        now_s = time.monotonic()
        pause_s = min(ack.pause_ms, MAX_PAUSE_MS) / 1000
        if incoming.retained and self._last.get(class_) == incoming.payload:
            pause_s = min(pause_s, in_flight.paused_s(now_s))  # heard before: a reconnection does not begin it anew
        self._last[class_] = incoming.payload
        if in_flight.take_ack(ack.upto, pause_s, now_s):
            self._acked[class_] = in_flight.acked
            self._to_write.set()
        return class_

    async def keep(self, clock: Callable[[], int]) -> None:
        """Store acks as they arrive, until cancelled."""
        while True:
            await self._to_write.wait()
            await asyncio.sleep(EVERY_S if await self.write(clock()) else RETRY_S)

    async def write(self, now_us: int) -> bool:
        """Store what was acked and what was sent in one transaction; False if the database refuses."""
        self._to_write.clear()
        acked, self._acked = self._acked, {}
        sent = {class_: (in_flight.highest, class_ in self.packed) for class_, in_flight in self._in_flight.items()}
        if not acked and sent == self._written:
            return True

        def job(conn: sqlite3.Connection) -> None:
            for class_, upto in acked.items():
                outbox.acknowledge(conn, class_, upto, now_us)
            for class_, (upto, packed) in sent.items():
                if self._written.get(class_) != (upto, packed):
                    outbox.note_sent(conn, class_, upto, packed)

        try:
            await self._writer.write(job)
        except sqlite3.Error as error:
            self._tell(str(error))
            self._keep(acked)
            return False
        except asyncio.CancelledError:  # whether it was written is not known; once more does no harm
            self._keep(acked)
            raise
        self._written = sent
        self._tell(None)
        return True

    def _keep(self, acked: dict[EventClass, int]) -> None:
        self._acked = acked | self._acked
        self._to_write.set()

    async def _is_of_a_lost_life(self, class_: EventClass, upto: int) -> bool:
        """True if a number beyond all sent ones was used before this database was restored from a backup."""
        self._counters["acks_beyond"] += 1
        if self._taken_back:
            return await self._jump(class_, upto)
        if self._beyond.get(class_) != upto:
            log.warning("the CRM acknowledges %s up to %d, beyond what was sent: ignored", class_, upto)
        self._beyond[class_] = upto
        return False

    async def _jump(self, class_: EventClass, upto: int) -> bool:
        """Move numbering beyond the numbers used before the restore, also for this process's events that aren't acked
        yet."""
        in_flight = self._in_flight[class_]
        since = {class_: max(self._born[class_], in_flight.acked + 1)}

        def job(conn: sqlite3.Connection) -> int:
            given = outbox.depth(conn)[class_].sent
            if upto - given > MAX_JUMP:
                return 0
            outbox.jump(conn, {class_: upto}, since)
            return outbox.depth(conn)[class_].sent

        try:
            given = await self._writer.write(job)
        except sqlite3.Error as error:
            self._tell(str(error))  # the CRM says it again with its next ack
            return False
        if not given:
            return False
        log.error("the database is older than what was sent from it: numbers of %s continue after %d", class_, upto)
        self._born[class_] = given + 1
        in_flight.highest = max(in_flight.highest, upto)
        in_flight.rewind()
        return True
