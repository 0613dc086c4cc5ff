"""A gateway without an engine: runs its readers, keeps what they read, and sends it to the store's service."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from config import StoreConfig
from drivers.session import Link
from edge.forwarding import wire
from edge.forwarding.calling import callers
from edge.forwarding.gathering import Gathering
from edge.forwarding.sender import Sender
from edge.forwarding.spool import Spool, Stamp, folder_of
from edge.readers.sessions import Readers
from edge.service.jobs import Jobs
from edge.service.notify import notify
from edge.store.clock import Clock
from edge.store.compose import compose
from edge.store.errors import Trouble
from edge.store.timekeeping import Timekeeper
from edge.words.counts import counted
from sync.sending import boot_id

log = logging.getLogger("tagtrail.forwarder")

GATHER_S = 0.04
"""Reads that arrive within this time become one record."""
READER_RETRY_S = (1.0, 60.0)


def chosen(config: StoreConfig, id_: str | None) -> str:
    """Return the forwarder that this gateway is; Trouble if that is not clear."""
    ids = [each.id for each in config.forwarders]
    if not ids or config.forwarding is None:
        raise Trouble("the store file has no [[forwarders]]; see docs/gateways.md")
    if id_ is None and len(ids) == 1:
        return ids[0]
    if id_ not in ids:
        said = "say which of them this gateway is" if id_ is None else f"there is no forwarder {id_!r}"
        raise Trouble(f"{said}: --as {' or --as '.join(ids)}")
    return id_


class ForwarderService:
    """One forwarder. `folder`: where it keeps reads. `run` returns after SIGTERM or SIGINT. Trouble for errors that
    store IT can fix."""

    def __init__(self, config: StoreConfig, id_: str, clock: Clock, folder: Path | None = None) -> None:
        settings = config.forwarding
        assert settings is not None
        token = wire.token(next(each.token_file for each in config.forwarders if each.id == id_))
        called = callers(config, "forwarder", id_, token)
        # The radio is the service's matter, and antennas are sent as ports.
        shop = compose(config, clock.speed)
        mine = {reader.id for reader in config.readers if reader.via == id_}
        own = tuple(replace(one, ports={port: port for port in one.ports}) for one in shop.readers if one.id in mine)
        if not own:
            raise Trouble(f"no reader of the store file has via = {id_!r}")
        self._clock = clock
        self._time = Timekeeper(clock)
        self._time.look()
        self._stopped = asyncio.Event()
        self._gathering = Gathering([reader.id for reader in own], clock.now_us())
        self._readers = Readers(replace(shop, readers=own), self._gathering, clock.now_us)
        self._own = own
        quota_bytes = settings.quota_mb << 20
        folder = folder or folder_of(config.database.path)
        self._spool = Spool(folder, quota_bytes, boot_id(), self._stamp, self._gathering.state)
        self._gathering.spool = self._spool
        self.sender = Sender(called, self._spool, self._stamp, clock.speed)
        self._gathering.wake = self.sender.wake
        self._jobs = Jobs(clock.now_us)
        self._id, self._addresses = id_, " or ".join(caller.address for caller in called)

    async def run(self) -> None:
        """Forward until SIGTERM or SIGINT; what is not sent by then is kept."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        await self.forward()

    def stop(self) -> None:
        """Let `forward` end."""
        self._stopped.set()

    async def forward(self) -> None:
        """Forward until `stop`."""
        jobs = self._jobs
        jobs.every(1, "clock", self._look)
        jobs.run("gathering", self._gather)
        jobs.run("sending", self.sender.run, READER_RETRY_S)
        for reader in self._own:
            jobs.run(f"reader {reader.id}", partial(self._readers.run, reader.id), READER_RETRY_S)
        notify("READY=1")
        log.info("%s forwards %s to %s", self._id, counted(len(self._own), "reader"), self._addresses)
        try:
            await self._stopped.wait()
            notify("STOPPING=1")
        finally:
            await jobs.stop()
            self._gathering.flush()
            self._spool.close()

    async def _gather(self) -> None:
        while True:
            await asyncio.sleep(GATHER_S)
            self._gathering.flush()

    async def _look(self) -> None:
        notify("WATCHDOG=1", f"STATUS={self._in_a_line()}")
        self._time.readers = {id_: status.clock_offset_us for id_, status in self._gathering.readers.items()}
        self._time.look()
        self._gathering.alive()

    def _in_a_line(self) -> str:
        readers = self._gathering.readers.values()
        up = sum(status.link is Link.UP for status in readers)
        parts = [f"{up} of {len(readers)} readers up", "service connected"]
        if not self.sender.connected:
            parts[1:] = [f"service away: {self.sender.reason}", f"{self._spool.size / 1e6:.1f} MB of reads kept"]
        return ", ".join(parts)

    def _stamp(self) -> Stamp:
        return Stamp(self._clock.now_us(), time.monotonic_ns() // 1000, not self._time.untrusted)
