"""Messages of the gateway beside its events: answers, states and requests, published when connected."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

MAX_SAYINGS = 1000
Utter = Callable[[str, bytes, bool], Awaitable[None]]
"""Publish a message on a topic below the store's, retained or not."""


class Sayings:
    """Queue of messages: the last MAX_SAYINGS until published, retained ones for ever."""

    def __init__(self) -> None:
        self._once: deque[tuple[str, bytes]] = deque(maxlen=MAX_SAYINGS)
        self._standing: dict[str, bytes] = {}
        self._to_say = asyncio.Event()

    def add(self, rest: str, message: bytes, *, retain: bool) -> None:
        """Publish a message as soon as possible; retained ones again on every connection."""
        if retain:
            self._standing[rest] = message
        else:
            self._once.append((rest, message))
        self._to_say.set()

    async def run(self, utter: Utter) -> None:
        """Publish everything on one connection, until cancelled or `utter` fails."""
        said: dict[str, bytes] = {}
        while True:
            self._to_say.clear()
            for rest, message in list(self._standing.items()):
                if said.get(rest) != message:
                    said[rest] = message
                    await utter(rest, message, True)
            while self._once:
                rest, message = self._once[0]
                await utter(rest, message, False)
                self._once.popleft()
            await self._to_say.wait()
