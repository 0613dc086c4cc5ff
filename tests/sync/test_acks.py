"""Acks on their way to the database when the publisher is stopped."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from config import topics
from sync.acks import Acks
from sync.contract import CLASSES, Ack
from sync.in_flight import InFlight
from sync.mqtt import Incoming


class Slow:
    """A database that takes no job before it is told to."""

    def __init__(self) -> None:
        self.ready, self.asked, self.jobs = asyncio.Event(), asyncio.Event(), 0

    async def write(self, job: Any) -> None:
        self.asked.set()
        await self.ready.wait()
        self.jobs += 1

    async def read(self, job: Any) -> None:
        raise NotImplementedError


async def test_an_ack_that_was_being_written_is_written_after_all() -> None:
    in_flight, writer = {class_: InFlight(class_) for class_ in CLASSES}, Slow()
    in_flight["health"].highest = 5
    acks = Acks("s1", "e1", writer, in_flight, Counter(), lambda trouble: None)  # type: ignore[arg-type]
    message = Ack(epoch="e1", upto=5).model_dump_json().encode()
    assert await acks.take(Incoming(topics.topic("s1", "down/ack/health"), message, False)) is not None
    keeping = asyncio.create_task(acks.keep(lambda: 0))
    await writer.asked.wait()
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert acks.unwritten
    writer.ready.set()
    assert await acks.write(0)
    assert (writer.jobs, acks.unwritten) == (1, False)
