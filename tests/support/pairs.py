"""Two gateways of a store in one process, over real sockets: the service's end on a rig, and a standby."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from forked import Forked
from forwarding import TOKEN, until
from gateways import WAIT_S, Gateway
from rigs import HandClock, Rig, running

from config import StoreConfig
from config.check import load
from drivers.links import LinkFailure
from edge.cues.orders import ask
from edge.database.lock import hold
from edge.forwarding.calling import callers
from edge.forwarding.receiver import Receiver
from edge.standby import roles
from edge.standby.beside import Beside
from edge.standby.following import Following
from edge.standby.lease import Claim, Entry, Held, Register
from edge.standby.mirror import Mirror
from edge.standby.pairing import Pairing
from edge.store.clock import Clock
from edge.store.compose import Shop
from edge.store.live_socket import socket_path
from simulators.headquarters.broker import free_port

SECOND = "gateway-b"
PATIENCE_S = 0.5


def pair_of(gateway: Gateway, **standby: Any) -> dict[str, Any]:
    """Parts of a store file with a standby; `forwarding` too, if the store has no other gateways."""
    token = gateway.folder / "pair.token"
    token.write_bytes(TOKEN)
    made = {"id": SECOND, "address": f"127.0.0.1:{free_port()}", "token_file": str(token), "patience_s": PATIENCE_S}
    return {"forwarding": {"address": f"127.0.0.1:{free_port()}"}, "standby": made | standby}


def elsewhere(config: StoreConfig, folder: Path) -> StoreConfig:
    """The same store file on another gateway: only the database has another place."""
    return config.model_copy(update={"database": config.database.model_copy(update={"path": folder / "store.db"})})


class Standby:
    """A standby's end of the connection."""

    def __init__(self, config: StoreConfig, clock: Clock, id_: str | None = SECOND, register: Register | None = None):
        assert config.standby is not None
        self.config = config
        self.here = roles.gateway_of(config, id_)
        self.lock = hold(config.database.path)
        self.mirror = Mirror(config.database.path)
        called = [one for one in callers(config, "standby", self.here.name, TOKEN) if one.address != self.here.address]
        self.claim = Claim(register, self.here.address, config.standby.lease_s) if register is not None else None
        noted = self.mirror.noted().get("term", 0)
        assert isinstance(noted, int)
        self.left: dict[str, int] = {}
        self.following = Following(called, self.mirror, Beside(config), clock, noted, self.claim, self._copied)
        self._task: asyncio.Task[None] | None = None

    def _copied(self) -> None:
        self.left = roles.retire(self.config.database.path, self.mirror)

    def connect(self) -> None:
        self._task = asyncio.create_task(self.following.run())

    async def cut(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def take_over(self, exact: bool) -> int:
        await self.following.stop()
        await self.cut()
        term = roles.take_over(self.config, self.mirror, exact=exact, above=self.following.term, name=self.here.name)
        self.lock.close()
        return term

    async def end(self) -> None:
        await self.cut()
        self.mirror.close()
        self.lock.close()


class Active:
    """A rig that serves as one of two gateways."""

    def __init__(self, rig: Rig, pairing: Pairing, receiver: Receiver) -> None:
        self.rig, self.pairing, self.receiver = rig, pairing, receiver
        self.superseded: list[tuple[int, str]] = []

    @property
    def shipping(self) -> Any:
        return self.pairing.shipping

    async def protected(self) -> None:
        await until(lambda: self.shipping.protected)


@asynccontextmanager
async def serving(shop: Shop, clock: HandClock, id_: str | None = None, **rig_: Any) -> AsyncIterator[Active]:
    """A pipeline with its port and its standby's. `rig_`: see rigs.running."""
    async with AsyncExitStack() as stack:
        rig = await stack.enter_async_context(running(shop, clock, **rig_))
        superseded: list[tuple[int, str]] = []
        pairing = Pairing(shop.config, id_, rig.database, clock, lambda *by: superseded.append(by))
        receiver = Receiver(
            shop.config,
            shop,
            rig.inbox,
            clock,
            lambda: rig.pipeline.forwarded.committed,
            lambda: rig.pipeline.time.untrusted,
            at=pairing.here.listen,
            term=pairing.term,
            pair=pairing.pair,
        )
        tasks = [asyncio.create_task(receiver.run()), asyncio.create_task(pairing.shipping.watch())]
        made = Active(rig, pairing, receiver)
        made.superseded = superseded
        try:
            yield made
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await pairing.close()


def at(shop: Shop, config: StoreConfig) -> Shop:
    """The same shop with another store file."""
    return replace(shop, config=config)


class Machine(Gateway):
    """A gateway of a store, with the same store file but for the database's place; it runs what it is told to."""

    def __init__(self, folder: Path, like: Gateway, name: str, **changes: str) -> None:
        folder.mkdir()
        super().__init__(folder)
        self.name = name
        text = like.file.read_text().replace(str(like.database), str(self.database))
        for old, new in changes.items():
            text = text.replace(old, new)
        self.file.write_text(text)

    def begin(self, *command: str) -> None:
        """Run a command on the store file."""
        with (self.folder / "service.log").open("ab") as log:
            self.process = Forked(command[0], "--config", str(self.file), *command[1:], out=log, err=log)

    async def standby(self, condition: Callable[[dict[str, Any]], Any], within_s: float = WAIT_S) -> dict[str, Any]:
        """The first state of its standby that fulfils a condition."""
        path = socket_path(load(self.file, files=False), "standby")
        state: dict[str, Any] = {}
        try:
            async with asyncio.timeout(within_s):
                while "whole" not in state or not condition(state):
                    assert self.process is not None
                    assert self.process.poll() is None, self.log()
                    await asyncio.sleep(0.05)
                    state = await ask(path, {"do": "tell"})
        except TimeoutError:
            pytest.fail(f"not within {within_s} s; last: {state}\n{self.log()}")
        return state

    def close(self) -> None:
        """Kill what runs in it."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)


class Paper:
    """A register in memory, that can be away."""

    def __init__(self) -> None:
        self.entry = Entry(0, None)
        self.away: set[str] = set()

    @property
    def held(self) -> Held | None:
        return self.entry.held

    def of(self, who: str) -> Any:
        paper = self

        class Seen:
            async def get(self) -> Entry:
                if who in paper.away:
                    raise LinkFailure("away")
                return paper.entry

            async def put(self, revision: int, held: Held) -> int | None:
                if who in paper.away:
                    raise LinkFailure("away")
                if revision != paper.entry.revision:
                    return None
                paper.entry = Entry(revision + 7, held)
                return revision + 7

        return Seen()


class Cable:
    """A cable between two gateways that can be cut: a proxy before an address."""

    def __init__(self, address: str) -> None:
        host, port = address.rsplit(":", 1)
        self._far = host, int(port)
        self.address = f"127.0.0.1:{free_port()}"
        self._whole = True
        self._tasks: set[asyncio.Task[Any]] = set()

    def cut(self) -> None:
        """Nothing goes through any more, and nobody is told."""
        self._whole = False

    def mend(self) -> None:
        """New connections go through; the old ones break."""
        self._whole = True
        for task in list(self._tasks):
            task.cancel()

    @asynccontextmanager
    async def laid(self) -> AsyncIterator[Cable]:
        host, port = self.address.rsplit(":", 1)
        server = await asyncio.start_server(self._serve, host, int(port))
        try:
            yield self
        finally:
            server.close()
            self.mend()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        far: asyncio.StreamWriter | None = None
        try:
            if not self._whole:
                await asyncio.Event().wait()
            far_reader, far = await asyncio.open_connection(*self._far)
            await asyncio.gather(self._through(reader, far), self._through(far_reader, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            for one in (writer, far):
                if one is not None:
                    one.transport.abort()

    async def _through(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if not self._whole:
                await asyncio.Event().wait()
            writer.write(data)
            await writer.drain()
        writer.close()
