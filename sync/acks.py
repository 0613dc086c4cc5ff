"""Acknowledgements of the CRM: they move their class on, and the outbox keeps how far it is."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping

from pydantic import ValidationError

from config import topics
from sync import outbox
from sync.contract import CLASSES, MAX_ACK_BYTES, Ack, EventClass
from sync.flow import Flow
from sync.mqtt import Incoming
from sync.writer import RETRY_S, Writer

EVERY_S = 0.5
"""Acks are written down together, at most so often."""
MAX_PAUSE_MS = 600_000
MAX_JUMP = 10**9
"""An ack that is further beyond all numbers than this is no word of a former life but nonsense."""


class Acks:
    """Takes acks, and writes them down now and then; what the database refuses is kept in memory.

    `tell`: what the database refuses, None when it takes it again. `counters`: acks, acks_bad, acks_beyond.
    """

    def __init__(
        self,
        store: str,
        epoch: str,
        writer: Writer,
        flows: Mapping[EventClass, Flow],
        counters: Counter[str],
        tell: Callable[[str | None], None],
    ) -> None:
        self._store = store
        self._epoch = epoch
        self._writer = writer
        self._flows = flows
        self._counters = counters
        self._tell = tell
        self._acked: dict[EventClass, int] = {}
        self._to_write = asyncio.Event()
        self._born: dict[EventClass, int] = {}

    @property
    def unwritten(self) -> bool:
        """Whether acks wait for the database."""
        return bool(self._acked)

    async def recall(self) -> None:
        """Read where the outbox stands. Raises sqlite3.Error."""
        acked = await self._writer.read(outbox.acknowledged)
        depth = await self._writer.read(outbox.depth)
        self._born = {class_: depth[class_].sent + 1 for class_ in CLASSES}
        for class_ in CLASSES:
            self._flows[class_].acked = max(self._flows[class_].acked, acked[class_])

    async def take(self, incoming: Incoming) -> tuple[EventClass, Ack] | None:
        """Move a class on by an ack that can be one: right topic, small, this epoch, of numbers that were given."""
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
        flow = self._flows[class_]
        if ack.upto > flow.highest and not await self._was_given(class_, ack.upto):
            return None
        self._counters["acks"] += 1
        if flow.take_ack(ack.upto, min(ack.pause_ms, MAX_PAUSE_MS) / 1000, time.monotonic()):
            self._acked[class_] = flow.acked
            self._to_write.set()
        return class_, ack

    async def keep(self, clock: Callable[[], int]) -> None:
        """Write acks down as they come, until cancelled."""
        while True:
            await self._to_write.wait()
            await asyncio.sleep(EVERY_S if await self.write(clock()) else RETRY_S)

    async def write(self, now_us: int) -> bool:
        """Write down what was acked, all classes in one transaction; False if the database refuses."""
        self._to_write.clear()
        acked, self._acked = self._acked, {}
        if not acked:
            return True

        def job(conn: sqlite3.Connection) -> None:
            for class_, upto in acked.items():
                outbox.acknowledge(conn, class_, upto, now_us)

        try:
            await self._writer.write(job)
        except sqlite3.Error as error:
            self._tell(str(error))
            self._keep(acked)
            return False
        except asyncio.CancelledError:  # whether it was written is not known; once more does no harm
            self._keep(acked)
            raise
        self._tell(None)
        return True

    def _keep(self, acked: dict[EventClass, int]) -> None:
        self._acked = acked | self._acked
        self._to_write.set()

    async def _was_given(self, class_: EventClass, upto: int) -> bool:
        """Whether a number beyond what was sent in this life is one of ours.

        One that the outbox never gave says that the database was taken back to a backup: numbers move beyond it.
        """
        flow = self._flows[class_]
        try:
            given = (await self._writer.read(outbox.depth))[class_].sent
            if upto > given:
                self._counters["acks_beyond"] += 1
                if upto - given > MAX_JUMP:
                    return False
                since = {class_: self._born[class_]}
                await self._writer.write(lambda conn: outbox.jump(conn, {class_: upto}, since))
                given = (await self._writer.read(outbox.depth))[class_].sent
                self._born[class_] = given + 1
                flow.rewind()
        except sqlite3.Error as error:
            self._tell(str(error))  # the CRM says it again with its next ack
            return False
        flow.highest = given
        return True
