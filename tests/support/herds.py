"""Herds: hundreds of stores on a few connections, as lean as the contract allows, with what they send made beforehand.

A store's real publisher and database cost ten times as much, which would be measured instead of what takes the events.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import sys
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from chains import batch

from config import topics
from sync.contract import Ack, EventClass
from sync.mqtt import BrokerError, MqttConnection, MqttSettings, connect

WINDOW = 8
SILENCE_S = 2.0


@dataclass
class Series:
    """One class of one store: its batches in order, how many are acknowledged and how many sent."""

    store: str
    class_: EventClass
    batch_events: int
    messages: list[tuple[str, bytes]] = field(default_factory=list)
    acked: int = 0
    sent: int = 0
    heard_s: float = 0.0
    paused_until_s: float = 0.0

    @property
    def done(self) -> bool:
        return self.acked >= len(self.messages)


class Herd:
    """Stores that send `events` of each of `classes`, `per_s` batches a second; `run` returns when all are
    acknowledged, and reconnects for ever."""

    def __init__(
        self,
        url: str,
        stores: Iterable[str],
        classes: Iterable[EventClass],
        events: int,
        batch_events: int,
        connections: int = 2,
        epoch: str = "e",
        per_s: float = float("inf"),
        **settings: Any,
    ) -> None:
        self._url, self._epoch, self._settings = url, epoch, settings
        self._per_s = per_s / connections
        self._credit = [per_s] * connections
        self._groups: list[list[Series]] = [[] for _ in range(connections)]
        classes = list(classes)
        for n, store in enumerate(stores):
            for class_ in classes:
                one = Series(store, class_, batch_events)
                one.messages = [
                    batch(store, first, min(batch_events, events - first + 1), class_, epoch)
                    for first in range(1, events + 1, batch_events)
                ]
                self._groups[n % connections].append(one)
        self.repeated = 0
        self.reconnections = 0
        self.late_ms: list[float] = []

    @property
    def series(self) -> list[Series]:
        return [one for group in self._groups for one in group]

    @property
    def acked(self) -> int:
        """Batches acknowledged."""
        return sum(one.acked for one in self.series)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for n, group in enumerate(self._groups):
                tasks.create_task(self._stay(n, group))

    async def _stay(self, number: int, group: list[Series]) -> None:
        by_topic = {topics.topic(one.store, f"down/ack/{one.class_}"): one for one in group}
        while not all(one.done for one in group):
            try:
                async with AsyncExitStack() as stack:
                    settings = MqttSettings.from_url(self._url, f"herd-{id(self)}-{number}", **self._settings)
                    connection = await stack.enter_async_context(connect(settings, deferred=60_000))
                    connection._client.paho._max_inflight_messages = 1000  # one connection stands for many
                    wanted = sorted(by_topic)
                    for at in range(0, len(wanted), 100):
                        await connection.subscribe(wanted[at : at + 100])
                    for one in group:
                        one.sent = one.acked
                    await self._serve(connection, number, group, by_topic)
            except BrokerError:
                self.reconnections += 1
                await asyncio.sleep(0.2)

    async def _serve(
        self, connection: MqttConnection, number: int, group: list[Series], by_topic: dict[str, Series]
    ) -> None:
        looked_s = 0.0
        turn = list(group)
        while not all(one.done for one in turn):
            now = time.monotonic()
            if now - looked_s > 0.25:
                self._credit[number] = min(self._per_s, self._credit[number] + self._per_s * min(1, now - looked_s))
                looked_s = now
                random.shuffle(turn)
                turn = [one for one in turn if not one.done]
                for one in turn:
                    if one.sent > one.acked and now - one.heard_s > SILENCE_S and now > one.paused_until_s:
                        self.repeated += one.sent - one.acked
                        one.sent, one.heard_s = one.acked, now
                    self._send(connection, number, one, now)
            try:
                async with asyncio.timeout(0.25):
                    arrived = await connection.receive()
            except TimeoutError:
                continue
            connection.done(incoming.mid for incoming in arrived)
            now = time.monotonic()
            for incoming in arrived:
                one = by_topic[incoming.topic]
                ack = Ack.model_validate_json(incoming.payload)
                if ack.epoch != self._epoch:
                    continue
                one.paused_until_s = now + ack.pause_ms / 1000
                whole = min(len(one.messages), -(-ack.upto // one.batch_events))
                if whole > one.acked:
                    one.acked, one.heard_s = whole, now
                    one.sent = max(one.sent, whole)
                self._send(connection, number, one, now)

    def _send(self, connection: MqttConnection, number: int, one: Series, now: float) -> None:
        if now < one.paused_until_s:
            return
        while one.sent < min(len(one.messages), one.acked + WINDOW) and self._credit[number] >= 1:
            self._credit[number] -= 1
            if one.sent == one.acked:
                one.heard_s = now
            connection.post(*one.messages[one.sent])
            one.sent += 1


def main() -> None:
    """`herds.py URL STORES EVENTS BATCH CLASS…`: prints seconds as JSON when all is acknowledged."""
    url, stores, events, batch_events, *classes = sys.argv[1:]
    names = [f"h{n:04}" for n in range(int(stores))]
    epoch = secrets.token_hex(4)  # the broker may have retained acks of another run
    herd = Herd(url, names, classes, int(events), int(batch_events), epoch=epoch)  # type: ignore[arg-type]
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    asyncio.run(herd.run())
    told = {"seconds": time.monotonic() - began, "repeated": herd.repeated, "cpu_s": time.process_time()}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
