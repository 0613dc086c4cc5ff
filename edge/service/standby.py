"""The standby's process: follows the service, and takes over when it is told to, or when the witness lets it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import time
from pathlib import Path
from typing import Any

from config import StoreConfig
from drivers.links import LinkFailure
from edge.database import keys
from edge.database.lock import hold
from edge.doctor.status import standing
from edge.forwarding import wire
from edge.forwarding.calling import callers
from edge.service.jobs import Jobs
from edge.service.notify import notify
from edge.standby import roles
from edge.standby.beside import Beside
from edge.standby.following import Following
from edge.standby.lease import Claim
from edge.standby.mirror import Mirror
from edge.standby.witness import Witness, register_of
from edge.store.clock import Clock
from edge.store.errors import Trouble
from edge.store.files import delete_old
from edge.store.live_socket import serve, socket_path

log = logging.getLogger("tagtrail.standby")

HAND_OVER_S = 20.0
LOOK_S = 1.0
RETRY_S = (1.0, 30.0)
TIDY_S = 3600.0


class StandbyService:
    """One gateway that stands by. `run` returns True once it has taken over: then it is to serve. Trouble for errors
    that store IT can fix."""

    def __init__(self, config: StoreConfig, id_: str | None, clock: Clock) -> None:
        self._config, self._clock = config, clock
        self._here = here = roles.gateway_of(config, id_)
        assert config.standby is not None
        roles.needed(config)
        path = config.database.path
        self._lock = hold(path)
        self._mirror = mirror = Mirror(path)
        self._taken = roles.is_to_be_put(path, mirror)
        self._fitness = roles.Fitness()
        noted, fence = mirror.noted().get("term"), roles.fenced(path)
        if self._taken:
            roles.put_in_place(path, mirror)
        elif mirror.there:
            with contextlib.suppress(OSError):  # a full disk, of which a takeover tells
                mirror.fold()
                self._copied()  # if the last process has ended before that
        token = wire.token(config.standby.token_file)
        called = [one for one in callers(config, "standby", here.name, token) if one.address != here.address]
        register = register_of(config, here.address)
        self._claim = Claim(register, here.address, config.standby.lease_s) if register is not None else None
        term = max(noted if isinstance(noted, int) else 0, fence.term if fence is not None else 0)
        self._following = Following(called, mirror, Beside(config), clock, term, self._claim, self._copied)
        self._jobs = Jobs(clock.now_us)
        self._ended = asyncio.Event()
        self._trouble: Exception | None = None
        self._taking = asyncio.Lock()
        self._done: dict[str, Any] = {}

    async def run(self) -> bool:
        """Stand by until SIGTERM or SIGINT, or until this gateway has taken over."""
        if self._taken:
            return True
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        return await self.stand_by()

    def stop(self) -> None:
        """Let `stand_by` return."""
        self._ended.set()

    async def stand_by(self) -> bool:
        """Stand by until `stop`, or until this gateway has taken over."""
        self._jobs.every(1, "watchdog", self._beat)
        self._jobs.every(TIDY_S, "old files", self._tidy)
        self._jobs.run("following", self._following.run, RETRY_S)
        self._jobs.run("orders", self._answer_orders, RETRY_S)
        if self._claim is not None:
            self._jobs.run("witness", self._watch, RETRY_S)
        notify("READY=1")
        log.info("standing by for the service of %s", self._config.store.id)
        try:
            await self._ended.wait()
        finally:
            await self._jobs.stop()
            self._mirror.close()
            self._lock.close()
        if self._trouble is not None:
            raise self._trouble
        return self._taken

    def told(self) -> dict[str, Any]:
        """Return the state as it is shown."""
        witness = None if self._claim is None else {"reason": self._claim.reason}
        return self._following.told() | {
            "unfit": self._fitness.unfit,
            "keyless": self._fitness.key_mark not in (None, self._key_mark()),
            "witness": witness,
            "now_us": self._clock.now_us(),
        }

    async def take_over(self, *, exact: bool = False, above: int = 0) -> dict[str, Any]:
        """Take over, by order: let the service hand over if it is there. Returns how. Raises Trouble, and goes on
        standing by."""
        async with self._taking:
            if self._taken:
                return self._done
            if not self._mirror.there:
                raise Trouble("there is no whole copy of the service's database here yet")
            if self._fitness.unfit:
                raise Trouble(self._fitness.unfit)
            if self._following.copying is not None:
                raise Trouble("the service's database is just being copied; wait until that is done")
            term = max(int(time.time()), self._following.term + 1, above)
            handed_over = not exact and await self._following.hand_over(term, HAND_OVER_S)
            witness_told = self._claim is None or exact
            if self._claim is not None and not exact:
                try:
                    await self._claim.take(term)
                    witness_told = True
                except (LinkFailure, TimeoutError) as error:
                    log.error("the witness could not be told: %s", str(error) or "it does not answer")
            await self._following.stop()
            try:
                made = await asyncio.to_thread(
                    roles.take_over,
                    self._config,
                    self._mirror,
                    exact=exact or handed_over,
                    above=term - 1,
                    name=self._here.name,
                )
            except Trouble:
                self._following.go_on()
                raise
            log.warning("this gateway has taken over the service, with term %d", made)
            self._taken = True
            self._done = {
                "handed_over": handed_over,
                "exact": exact or handed_over,
                "term": made,
                "witness_told": witness_told,
            }
            return self._done

    async def _beat(self) -> None:
        notify("WATCHDOG=1", f"STATUS={standing(self.told())}")

    async def _tidy(self) -> None:
        """Delete what was kept for some days, such as the former database."""
        for file in await asyncio.to_thread(delete_old, self._config.database.path, time.time()):
            log.info("deleted, because its time is over: %s", file)

    def _copied(self) -> None:
        """A whole copy is there, and folded: what was served from here before is past."""
        roles.retire(self._config.database.path, self._mirror)
        self._fitness = roles.fitness(self._mirror)
        if self._fitness.unfit:
            log.error("this gateway could not take over: %s", self._fitness.unfit)

    def _key_mark(self) -> str | None:
        key = None
        with contextlib.suppress(Trouble):
            key = keys.find_tag_key(self._config.database.path)
        return keys.mark(key) if key is not None else None

    async def _watch(self) -> None:
        """Take over when the service's lease has ended."""
        assert self._claim is not None
        while True:
            await asyncio.sleep(LOOK_S)
            may = self._mirror.there and self._following.copying is None and not self._fitness.unfit
            if may and not self._taken:
                term = await self._claim.look(self._following.term)
                if term is not None:
                    log.warning("the service's lease has ended: this gateway takes over")
                    await self._finish(exact=True, above=term)

    async def _finish(self, *, exact: bool, above: int) -> None:
        try:
            await self.take_over(exact=exact, above=above)
        except Trouble as trouble:
            self._trouble = trouble
        self.stop()

    async def _answer_orders(self) -> None:
        """Answer each line with one: the state, or how the takeover went."""
        await serve(socket_path(self._config, "standby"), self._client)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                order = json.loads(line)
                answer = self.told()
                if isinstance(order, dict) and order.get("do") == "take over":
                    try:
                        answer = {"refused": None} | await self.take_over()
                    except Trouble as trouble:
                        answer = {"refused": str(trouble)}
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
                if self._taken:
                    self.stop()
        except (OSError, ValueError, asyncio.CancelledError):
            pass  # gone, or the process ends
        finally:
            writer.close()


class WitnessService:
    """The witness's process. `file`: what it is told; by default beside the place of the store's database."""

    def __init__(self, config: StoreConfig, file: Path | None) -> None:
        path = config.database.path
        self._witness = Witness(config, file or path.with_name(f"{path.name}.witness"))
        self._jobs = Jobs(lambda: time.time_ns() // 1000)
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Answer until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ended.set)
        self._jobs.every(1, "watchdog", self._beat)
        self._jobs.run("witness", self._witness.run, RETRY_S)
        notify("READY=1")
        try:
            await self._ended.wait()
        finally:
            await self._jobs.stop()

    async def _beat(self) -> None:
        notify("WATCHDOG=1", f"STATUS={self._witness.in_a_line()}")
