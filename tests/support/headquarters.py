"""The CRM's hand in tests: sends what goes down, keeps what comes up, serves directory files."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from config import topics
from sync.contract import unpack
from sync.mqtt import MqttConnection, MqttSettings, connect

HEADER = "epc,member,tier,consent,hint,hint_until_us\n"


def directory_file(rows: list[str], generation: int, base: int | None = None) -> tuple[dict[str, Any], bytes]:
    """Entry of a manifest and the file."""
    packed = gzip.compress((HEADER + "".join(f"{row}\n" for row in rows)).encode(), mtime=0)  # the same in any second
    entry = {
        "generation": generation,
        "base": base,
        "size": len(packed),
        "sha256": hashlib.sha256(packed).hexdigest(),
    }
    return entry, packed


class Headquarters:
    def __init__(self, connection: MqttConnection, store: str) -> None:
        self._connection = connection
        self._store = store
        self.came: dict[str, list[dict[str, Any]]] = {}
        """Messages by the rest of their topic."""
        self.files: dict[str, bytes] = {}
        self.deaf = False
        """Answer no wants."""

    async def send(self, rest: str, message: Any, *, retain: bool = False) -> None:
        payload = message if isinstance(message, bytes) else json.dumps(message).encode()
        await self._connection.publish(topics.topic(self._store, rest), payload, retain=retain)

    async def command(self, id_: str, command: str, **others: Any) -> dict[str, Any]:
        """Send a command and wait for its end."""
        await self.send("down/cmd", self.order(id_, command, **others))
        return await self.answer(id_)

    def order(self, id_: str, command: str, **others: Any) -> dict[str, Any]:
        expires_us = time.time_ns() // 1000 + 600_000_000
        return {"id": id_, "command": command, "expires_us": expires_us} | others

    async def answer(self, id_: str, within_s: float = 60) -> dict[str, Any]:
        return await self.first("up/result", lambda r: r["id"] == id_ and r["state"] != "received", within_s)

    async def first(self, rest: str, fits: Callable[[dict[str, Any]], bool], within_s: float = 60) -> dict[str, Any]:
        async with asyncio.timeout(within_s):
            while True:
                for message in self.came.get(rest, []):
                    if fits(message):
                        return message
                await asyncio.sleep(0.02)

    async def listen(self) -> None:
        while True:
            for incoming in await self._connection.receive():
                rest = incoming.topic.split("/", 4)[4]
                message = json.loads(unpack(incoming.payload))
                self.came.setdefault(rest, []).append(message)
                if rest == "up/directory/want" and not self.deaf:
                    await self.serve(message)

    async def serve(self, want: dict[str, Any]) -> None:
        file = self.files.get(want["sha256"], b"")
        for number in range(want["parts"]):
            offset = want["offset"] + number * want["size"]
            if offset < len(file):
                part = file[offset : offset + want["size"]]
                await self.send(f"down/directory/part/{want['sha256']}/{offset}", part)


@contextlib.asynccontextmanager
async def headquarters(url: str, store: str = "s1") -> AsyncIterator[Headquarters]:
    """`async with headquarters(url) as hq`."""
    async with connect(MqttSettings.from_url(url, "headquarters")) as connection:
        await connection.subscribe([topics.topic("+", "up/#"), topics.topic("+", "state")])
        hq = Headquarters(connection, store)
        task = asyncio.create_task(hq.listen())
        try:
            yield hq
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
