"""The service of one store: starts everything, watches over it, and stops within five seconds with all committed."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import logging
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from config import StoreConfig
from config.check import load
from drivers.session import Link
from edge.crm.commands import Doings
from edge.crm.configuration import Desired, Overlay
from edge.crm.directory import MemberDirectory
from edge.cues.orders import OrderServer
from edge.database import life
from edge.database.writer import Database
from edge.intake.pipeline import Pipeline
from edge.readers.lamps import Lamps
from edge.readers.sessions import Readers
from edge.readers.visit_file import VisitFile
from edge.service import page_process
from edge.service.housekeeping import keep_house
from edge.service.memory import COMPILER, let_go_of
from edge.service.notify import long_work, notify
from edge.service.snapshot import Snapshot
from edge.service.warmup import warm_up
from edge.store.clock import Clock, offset_us
from edge.store.compose import Shop, compose
from edge.store.errors import Again, Trouble
from edge.store.live_socket import LiveServer, socket_path
from edge.store.page_socket import listen
from sync.commands import Commands
from sync.mqtt import MqttSettings
from sync.publisher import Handler, Publisher
from sync.sending import Identity

log = logging.getLogger("tagtrail.service")

DRAIN_S = 1.5
"""At a stop, how long the last events may take to the CRM; what is not acknowledged goes out at the next start."""
REMEMBER_S = 60.0


class Service:
    """One store's gateway. `run` returns after SIGTERM or SIGINT; raises Trouble for what store IT can mend."""

    def __init__(
        self,
        config: StoreConfig,
        config_file: Path,
        clock: Clock,
        *,
        version: str,
        web: bool,
        trace: Path | None,
        overlay: Overlay | None = None,
    ) -> None:
        self._config = config
        self._config_file = config_file
        self._clock = clock
        self._web_socket = listen(config.web.listen) if web else None
        self._shop: Shop = compose(config, clock.speed)
        self._lock = _lock(config.database.path)
        with long_work():
            self._database = Database(config.database.path, store=config.store.id, quota_mb=config.database.quota_mb)
        if self._database.quarantined:
            log.error("the database was damaged; moved to %s, a new one was begun", self._database.quarantined)
        self._trace = VisitFile(trace, self._shop.zones) if trace else None
        self._handlers: dict[str, Handler] = {}
        self._overlay = overlay
        self._why_again: str | None = None
        self._publisher = Publisher(
            _mqtt(config),
            Identity(
                store=config.store.id,
                epoch=self._database.epoch,
                version=version,
                config_generation=((overlay and overlay.running_hash) or sha256(config_file.read_bytes()).hexdigest())[
                    :16
                ],
            ),
            self._database,
            clock.now_us,
            self._handlers,
            offset_us,
        )
        self._pipeline = Pipeline(
            self._shop,
            self._database,
            clock,
            version=version,
            wake=self._publisher.wake,
            changed=self._tell_live,
            trace=self._trace.write if self._trace else None,
        )
        self._snapshot = Snapshot(
            config,
            self._shop,
            self._database,
            self._publisher,
            self._pipeline,
            clock,
            version=version,
            page=page_process.address(config, self._web_socket) if self._web_socket else None,
        )
        self._live: LiveServer | None = None

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        try:
            life.begin(self._database)
            # Compiling takes seconds without a cache: done before readers connect, not while their reads wait.
            if await _unless(stop, warm_up):
                # What is there now stays: looking through it for garbage again and again would hold up greetings.
                gc.collect()
                gc.freeze()
                let_go_of(COMPILER)
                self._pipeline.restore()
                await self._count()
                await self._serve(stop)
        finally:
            if self._trace:
                self._trace.close()
            with contextlib.suppress(sqlite3.Error):
                await life.remember(self._database)
            with long_work():
                self._database.close()
            if self._web_socket is not None:
                self._web_socket.close()

    async def _serve(self, stop: asyncio.Event) -> None:
        readers = Readers(self._shop, self._pipeline, self._clock.now_us)
        self._pipeline.lamps = Lamps(self._config, readers.switch)
        down = self._listen_down(readers)
        publishing = asyncio.create_task(self._publisher.run(), name="publisher")
        pipeline = asyncio.create_task(self._pipeline.run(), name="pipeline")
        self._live = live = LiveServer(socket_path(self._config), self._snapshot.take, self._snapshot.antennas)
        orders = OrderServer(
            socket_path(self._config, "orders"), self._config, self._pipeline.order, self._clock.now_us
        )
        around = [
            asyncio.create_task(live.run(), name="live state"),
            asyncio.create_task(orders.run(), name="orders"),
            asyncio.create_task(self._watch(), name="watch"),
        ]
        if self._web_socket is not None:
            around.append(
                asyncio.create_task(page_process.keep(self._config_file, self._web_socket, self._clock), name="page")
            )
        around.append(asyncio.create_task(readers.run(), name="readers"))
        around += [asyncio.create_task(work, name=name) for name, work in down.items()]
        around.append(
            asyncio.create_task(keep_house(self._database, self._config, self._clock.now_us), name="housekeeping")
        )
        stopped = asyncio.create_task(stop.wait())
        notify("READY=1")
        log.info(
            "serving %s: %d readers, database %s", self._config.store.id, len(self._shop.readers), self._database.path
        )
        try:
            done, _ = await asyncio.wait([stopped, publishing, pipeline, *around], return_when=asyncio.FIRST_COMPLETED)
            if stopped in done:  # who begins anew goes on, in the same process
                notify("STOPPING=1")
        finally:
            await _cancel(around)
            self._pipeline.stop()
            await asyncio.wait([pipeline])
            await self._drain()
            await _cancel([stopped, publishing])
        if self._database.damage is not None:
            self._database.condemn()
            raise Again(f"the database is damaged: {self._database.damage}")
        if self._pipeline.trouble is not None:
            raise Trouble(f"stopped with events that the database did not take: {self._pipeline.trouble}")
        for task in done - {stopped}:
            # A part that ends by itself is a fault of ours: stop with it, so that the supervisor starts us afresh.
            task.result()
            raise RuntimeError(f"{task.get_name()} ended by itself")

    def _listen_down(self, readers: Readers) -> dict[str, Coroutine[Any, Any, None]]:
        """Take what the CRM sends down; the work that this is, by name."""
        say = self._publisher.say
        now_us = self._clock.now_us
        members = MemberDirectory(
            self._database,
            now_us,
            lambda rest, message, retain: say(rest, message, retain=retain),
            self._pipeline.recheck,
            self._publisher.tell_directory,
        )
        doings = Doings(
            self._config,
            self._database,
            self._publisher,
            readers,
            self._snapshot.take,
            members.forget,
            self._pipeline.recheck,
            self._reload,
        )
        commands = Commands(doings.table, self._database, now_us, say)
        self._handlers |= {"cmd": commands.take, "directory": members.take}
        work = {"commands": commands.run(), "directory": members.run()}
        if self._overlay is not None:
            well = lambda: self._publisher.status.connected and self._pipeline.trouble is None  # noqa: E731
            sees = lambda: any(reader.link is Link.UP for reader in self._pipeline.readers.values())  # noqa: E731
            desired = Desired(
                self._overlay,
                now_us,
                lambda rest, message: say(rest, message, retain=True),
                well,
                sees,
                self._begin_anew,
            )
            self._handlers["config"] = desired.take
            work["configuration"] = desired.run()
        return work

    def _tell_live(self) -> None:
        if self._live is not None:
            self._live.wake()

    def _begin_anew(self, why: str) -> None:
        self._why_again = why

    async def _reload(self) -> None:
        await asyncio.to_thread(load, self._config_file)
        self._begin_anew("the store file is read anew")

    async def _drain(self) -> None:
        """Give the last events a moment to be acknowledged; a broker that is away is not waited for."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while self._publisher.status.connected:
                    await self._count()
                    if not any(depth["pending"] for depth in self._snapshot.depth.values()):
                        return
                    await asyncio.sleep(0.05)

    async def _watch(self) -> None:
        """Tell the supervisor that we live; end the service for a new start when its database is damaged."""
        remembered_s = 0.0
        written = await self._database.read(_data_version)
        while True:
            await self._count()
            self._snapshot.keep_rates()
            with contextlib.suppress(sqlite3.Error):
                if (now := await self._database.read(_data_version)) != written:
                    written = now  # by another process: a directory was imported
                    await self._pipeline.recheck()
            notify("WATCHDOG=1")
            if self._why_again is not None:
                raise Again(self._why_again)
            if self._database.astray():
                log.error("the database file was deleted or replaced while it was in use")
                raise Again("the database is not where it was")
            if self._database.damage is not None:
                self._database.condemn()
                raise Again(f"the database is damaged: {self._database.damage}")
            if time.monotonic() - remembered_s >= REMEMBER_S:
                remembered_s = time.monotonic()
                with contextlib.suppress(sqlite3.Error):
                    await life.remember(self._database)
            await asyncio.sleep(1)

    async def _count(self) -> None:
        try:
            await self._snapshot.count()
        except sqlite3.Error:
            return  # who writes tells of it
        self._pipeline.backlog = {name: depth["pending"] for name, depth in self._snapshot.depth.items()}


def _data_version(conn: sqlite3.Connection) -> int:
    """Changes when another connection has written."""
    return int(conn.execute("PRAGMA data_version").fetchone()[0])


def _mqtt(config: StoreConfig) -> MqttSettings:
    mqtt = config.mqtt
    return MqttSettings.from_url(
        mqtt.url,
        f"tagtrail-{config.store.id}",
        version=mqtt.version,
        username=mqtt.username,
        password_file=mqtt.password_file,
        ca=mqtt.ca,
        cert=mqtt.cert,
        key=mqtt.key,
    )


def _lock(database: Path) -> IO[bytes]:
    """Hold the database for this process alone, until it ends however it ends."""
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        file = Path(f"{database}.lock").open("ab")  # noqa: SIM115 - held until the process ends
    except OSError as error:
        raise Trouble(f"cannot use the folder of the database {database}: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise Trouble(f"another service runs on the database {database}: stop it first") from error
    return file


async def _unless(stop: asyncio.Event, work: Callable[[], object]) -> bool:
    """Do blocking work in a thread that a stop need not wait for; whether it was done."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def thread() -> None:
        try:
            work()
        except BaseException as error:
            loop.call_soon_threadsafe(_settle, done, error)
        else:
            loop.call_soon_threadsafe(_settle, done, None)

    threading.Thread(target=thread, daemon=True).start()
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait([done, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if done.done():
        done.result()
    return not stop.is_set()


def _settle(done: asyncio.Future[None], error: BaseException | None) -> None:
    if not done.done():
        done.set_exception(error) if error else done.set_result(None)


async def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
