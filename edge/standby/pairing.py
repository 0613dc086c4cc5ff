"""The service as one of two gateways that may run it: its term, its standby, its lease, and a look at the other one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from config import StoreConfig
from drivers.links import LinkFailure
from edge.database import terms
from edge.database.writer import Database
from edge.forwarding import wire
from edge.forwarding.calling import callers
from edge.forwarding.receiver import Pair
from edge.standby.lease import Lease
from edge.standby.roles import fenced, gateway_of
from edge.standby.shipping import Shipping
from edge.standby.witness import register_of
from edge.store.clock import Clock

log = logging.getLogger("tagtrail.standby")

LOOK_S = 10.0
ASK_S = 3.0
"""Time at the start to hear from the other gateway, and from the witness."""
RETRY_S = (1.0, 60.0)


class Jobs(Protocol):
    """Runs jobs in the background."""

    def run(self, name: str, work: Callable[[], Coroutine[Any, Any, None]], retry_s: tuple[float, float]) -> None: ...

    def every(self, period_s: float, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None: ...


class Pairing:
    """`superseded` is called with a term higher than ours, and who has it. Trouble if the store file doesn't fit."""

    def __init__(
        self,
        config: StoreConfig,
        id_: str | None,
        database: Database,
        clock: Clock,
        superseded: Callable[[int, str], None],
    ) -> None:
        standby = config.standby
        assert standby is not None
        self.here = here = gateway_of(config, id_)
        self.term: int = database.write_now(_term)
        self._database = database.path
        self._superseded = superseded
        self._told = False
        token = wire.token(standby.token_file)
        register = register_of(config, here.address)
        self._lease = None
        if register is not None:
            self._lease = Lease(register, here.address, self.term, standby.lease_s, superseded)
        self.shipping = Shipping(
            config, database, clock, hand_over=lambda term: superseded(term, "the standby"), lease=self._lease
        )
        self.pair = Pair(token, self.shipping.serve, superseded, self.shipping.kept, self.shipping.refused)
        (self._other,) = (one for one in callers(config, "peer", here.name, token) if one.address == here.other)

    async def ask(self) -> None:
        """Before anything is served: ask the other gateway and the witness whether we may."""
        await asyncio.gather(self._look_soon(), *([self._lease.renew()] if self._lease is not None else []))

    def start(self, jobs: Jobs) -> None:
        """Start what goes on in the background."""
        jobs.run("standby", self.shipping.watch, RETRY_S)
        jobs.every(LOOK_S, "other gateway", self._look)
        if self._lease is not None:
            jobs.run("witness", self._lease.run, RETRY_S)

    async def finish(self) -> None:
        """After a stop for another gateway: send the rest if it is the standby that has asked for it, and it is noted
        that nobody may serve from here any more: else the same numbers could be given here, too."""
        mark = fenced(self._database)
        if mark is not None and mark.term > self.term and await self.shipping.finish():
            log.info("the standby has everything")

    async def close(self) -> None:
        """End the standby's connection, before the database is closed."""
        await self.shipping.close()

    def release(self) -> None:
        """Close the rest, after it."""
        self.shipping.release()

    async def _look_soon(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ASK_S):
                await self._look()

    async def _look(self) -> None:
        """See whether the other gateway runs the service too, which a standby doesn't; the lower term stops."""
        try:
            call = await self._other.call(self.term)
        except LinkFailure:
            return
        call.end()
        if call.term > self.term:
            self._superseded(call.term, self._other.address)
        elif call.term == self.term and not self._told:
            self._told = True
            log.error("%s runs the service with the same term: stop one of the two", self._other.address)


def _term(conn: sqlite3.Connection) -> int:
    return terms.term(conn) or terms.begin(conn)
