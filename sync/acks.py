"""Acknowledgements of the CRM: they move their class on, and the outbox keeps how far it is.

An ack counts if its number was sent: in this life, or in a former one that wrote it down. One beyond is another class's
or epoch's watermark, and is not believed. Only if the broker still has the state of a life that this database knows
nothing of was the database taken back to a backup, by somebody who took back the file of edge.database.life too: then
the ack tells which numbers were given before, and new ones are given beyond.
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
from sync.flow import Flow
from sync.mqtt import Incoming
from sync.writer import RETRY_S, Writer

log = logging.getLogger("tagtrail.publisher")

EVERY_S = 0.5
"""Acks are written down together, at most so often."""
MAX_PAUSE_MS = 600_000
MAX_JUMP = 10**9
"""An ack that is further beyond all numbers than this is no word of a former life but nonsense."""


class Acks:
    """Takes acks, and writes them down now and then; what the database refuses is kept in memory.

    `tell`: what the database refuses, None when it takes it again. `said`: the CRM's time when it sent
    an ack. `counters`: acks, acks_bad, acks_beyond.
    """

    def __init__(
        self,
        store: str,
        epoch: str,
        writer: Writer,
        flows: Mapping[EventClass, Flow],
        counters: Counter[str],
        tell: Callable[[str | None], None],
        said: Callable[[int], None] = lambda at_us: None,
    ) -> None:
        self._store = store
        self._epoch = epoch
        self._writer = writer
        self._flows = flows
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
        self.packed: set[EventClass] = set()
        """Classes that the CRM takes as gzip."""

    @property
    def unwritten(self) -> bool:
        """Whether acks wait for the database."""
        return bool(self._acked)

    async def recall(self) -> None:
        """Read where the outbox stands. Raises sqlite3.Error."""
        standing = await self._writer.read(outbox.standing)
        depth = await self._writer.read(outbox.depth)
        self._lives = await self._writer.read(outbox.lives)
        self._born = {class_: depth[class_].sent + 1 for class_ in CLASSES}
        for class_, (acked, sent, packed) in standing.items():
            flow = self._flows[class_]
            flow.acked = max(flow.acked, acked)
            flow.highest = max(flow.highest, sent)
            if packed:
                self.packed.add(class_)
        self._written = {class_: (sent, packed) for class_, (_, sent, packed) in standing.items()}

    async def live(self, instance: str) -> None:
        """Note that this process publishes from now on, so that a later one knows its state from a stranger's."""
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
        """Look at a state that the broker had; True if it tells that the database was taken back, and numbers moved."""
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
        """Move a class on by an ack that can be one: right topic, small, this epoch, of numbers that were sent."""
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
        flow = self._flows[class_]
        if ack.upto > flow.highest and not await self._is_of_a_lost_life(class_, ack.upto):
            return None
        self._counters["acks"] += 1
        (self.packed.add if GZIP in ack.accepts else self.packed.discard)(class_)
        now_s = time.monotonic()
        pause_s = min(ack.pause_ms, MAX_PAUSE_MS) / 1000
        if incoming.retained and self._last.get(class_) == incoming.payload:
            pause_s = min(pause_s, flow.paused_s(now_s))  # heard before: a reconnection does not begin it anew
        self._last[class_] = incoming.payload
        if flow.take_ack(ack.upto, pause_s, now_s):
            self._acked[class_] = flow.acked
            self._to_write.set()
        return class_

    async def keep(self, clock: Callable[[], int]) -> None:
        """Write acks down as they come, until cancelled."""
        while True:
            await self._to_write.wait()
            await asyncio.sleep(EVERY_S if await self.write(clock()) else RETRY_S)

    async def write(self, now_us: int) -> bool:
        """Write down what was acked, and with it what was sent, in one transaction; False if the database refuses."""
        self._to_write.clear()
        acked, self._acked = self._acked, {}
        sent = {class_: (flow.highest, class_ in self.packed) for class_, flow in self._flows.items()}
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
        """Whether a number beyond all that were sent was given by a life of this database that was taken back."""
        self._counters["acks_beyond"] += 1
        if self._taken_back:
            return await self._jump(class_, upto)
        if self._beyond.get(class_) != upto:
            log.warning("the CRM acknowledges %s up to %d, beyond what was sent: it is not believed", class_, upto)
        self._beyond[class_] = upto
        return False

    async def _jump(self, class_: EventClass, upto: int) -> bool:
        """Give numbers beyond those of the lost life, also to events of this one; not to those that it has acked."""
        flow = self._flows[class_]
        since = {class_: max(self._born[class_], flow.acked + 1)}

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
        log.error("the database is older than what was sent from it: numbers of %s go on beyond %d", class_, upto)
        self._born[class_] = given + 1
        flow.highest = max(flow.highest, upto)
        flow.rewind()
        return True
