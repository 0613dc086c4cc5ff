"""A service's end and forwarders in one process, over real sockets, with readers that are fed by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from gateways import WAIT_S, Gateway
from rigs import Rig

from drivers.read import READ, epc_words
from drivers.session import Link, ReaderStatus
from edge.forwarding.calling import callers
from edge.forwarding.gathering import Gathering
from edge.forwarding.receiver import Receiver
from edge.forwarding.sender import Sender
from edge.forwarding.spool import Spool, Stamp
from edge.store.clock import Clock
from edge.store.compose import Shop
from simulators.headquarters.broker import free_port

TOKEN = b"0123456789abcdef0123456789abcdef"


def several(gateway: Gateway, readers: list[dict[str, Any]], via: dict[str, str]) -> dict[str, Any]:
    """Parts of a store file with readers at forwarders."""
    parts: dict[str, Any] = {
        "readers": [one | ({"via": via[one["id"]]} if one["id"] in via else {}) for one in readers]
    }
    if via:
        parts["forwarding"] = {"address": f"127.0.0.1:{free_port()}"}
        parts["forwarders"] = []
        for id_ in sorted(set(via.values())):
            file = gateway.folder / f"{id_}.token"
            file.write_bytes(TOKEN)
            parts["forwarders"].append({"id": id_, "token_file": str(file)})
    return parts


def reads_of(card: bytes, antenna: int, times_us: Any, rssi_cdbm: int = -5200) -> Any:
    reads = np.zeros(len(times_us), READ)
    reads["time_us"], reads["epc"], reads["antenna"] = times_us, epc_words(card), antenna
    reads["rssi_cdbm"], reads["count"], reads["epc_bits"] = rssi_cdbm, 1, 96
    return reads


class HandForwarder:
    """A forwarder whose clocks and readers are moved by hand. `ahead_us`: its clock minus the service's."""

    def __init__(
        self, shop: Shop, id_: str, folder: Path, clock: Clock, quota: int = 64 << 20, boot: str = "boot"
    ) -> None:
        self.id, self.clock = id_, clock
        self.ahead_us = 0
        self.trusted = True
        self.readers = [reader.id for reader in shop.config.readers if reader.via == id_]
        self.gathering = Gathering(self.readers, self.now_us())
        self.spool = Spool(folder, quota, boot, self._stamp, self.gathering.state)
        self.gathering.spool = self.spool
        self.sender = Sender(callers(shop.config, "forwarder", id_, TOKEN), self.spool, self._stamp)
        self.gathering.wake = self.sender.wake
        self._task: asyncio.Task[None] | None = None

    def now_us(self) -> int:
        return self.clock.now_us() + self.ahead_us

    def _stamp(self) -> Stamp:
        return Stamp(self.now_us(), self.clock.now_us() - 1_700_000_000_000_000, self.trusted)

    def up(self) -> None:
        for reader in self.readers:
            self.gathering.status(ReaderStatus(reader, Link.UP, "taking inventory", self.now_us()))

    async def see(self, reader: str, batch: Any) -> None:
        await self.gathering.reads(reader, batch)
        self.gathering.flush()

    def connect(self) -> None:
        self._task = asyncio.create_task(self.sender.run())

    async def cut(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def end(self) -> None:
        await self.cut()
        self.spool.close()


@asynccontextmanager
async def receiving(rig: Rig) -> AsyncIterator[Receiver]:
    """The service's port for a rig."""
    shop = rig.pipeline.shop
    pipeline = rig.pipeline
    receiver = Receiver(
        shop.config,
        shop,
        rig.inbox,
        rig.clock,
        lambda: pipeline.forwarded.committed,
        lambda: pipeline.time.untrusted,
    )
    task = asyncio.create_task(receiver.run())
    try:
        yield receiver
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)
