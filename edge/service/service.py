"""Service of one store: starts and supervises everything, and stops within five seconds with everything committed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import sqlite3
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from config import StoreConfig
from config.check import load
from edge.access.page_file import prove
from edge.access.users import users_path
from edge.crm.configuration import Overlay
from edge.crm.console import Console
from edge.crm.downlink import Downlink
from edge.cues.orders import OrderServer
from edge.database import life, terms
from edge.database.lock import hold
from edge.database.retention import Pace
from edge.database.scrub import Scrubber
from edge.database.writer import Database
from edge.forwarding.receiver import Receiver
from edge.intake.health import Elsewhere
from edge.intake.inbox import Inbox
from edge.intake.pipeline import Pipeline
from edge.readers.lamps import Lamps
from edge.readers.sessions import Readers
from edge.readers.visit_file import VisitFile
from edge.service import page_process
from edge.service.announcer import Announcer
from edge.service.daemon import in_thread
from edge.service.examination import Examination
from edge.service.expiry import Certificates
from edge.service.housekeeping import Housekeeping
from edge.service.jobs import Jobs
from edge.service.learning import Learning, learner_of, with_kept
from edge.service.memory import COMPILER, let_go_of_bitcode
from edge.service.monitor import Monitor
from edge.service.notify import long_work, notify
from edge.service.snapshot import Snapshot
from edge.service.totals import Totals
from edge.service.warmup import warm_up
from edge.standby import roles
from edge.standby.pairing import Pairing
from edge.store import broker
from edge.store.clock import Clock, offset_us
from edge.store.compose import compose
from edge.store.errors import RestartNeeded, Superseded, Trouble
from edge.store.live_socket import LiveServer, socket_path
from edge.store.page_socket import listen
from edge.store.resident import let_go_of
from edge.store.timekeeping import Timekeeper
from edge.words.counts import counted
from sync.publisher import Publisher
from sync.sending import Identity

log = logging.getLogger("tagtrail.service")

DRAIN_S = 1.5
"""Time for sending the last events at a stop; unacknowledged events are sent after the next start."""
REMEMBER_S = 60.0
CERTIFICATES_S = 600.0
READER_RETRY_S = (1.0, 60.0)


class Service:
    """Gateway of one store. `run` returns after SIGTERM or SIGINT.

    Raises Trouble for errors that store IT can fix, and RestartNeeded. Only failures of the pipeline, the database
    writer and the publisher end it; everything else is an isolated job (edge.service.jobs).
    """

    @long_work()
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
        id_: str | None = None,
    ) -> None:
        self._config = config
        self._config_file = config_file
        self._clock = clock
        self._web_socket = listen(config.web.listen) if web else None
        roles.refuse_copy(config.database.path)
        self._lock = hold(config.database.path)
        self._database = Database(config.database.path, store=config.store.id, quota_mb=config.database.quota_mb)
        if self._database.quarantined:
            log.error("the database was corrupted; moved to %s, new database created", self._database.quarantined)
        if self._database.rekeyed:
            log.warning("the tag key has changed: nobody is recognised until the member directory is received again")
        with contextlib.suppress(Trouble):  # already reported; the page stays closed
            prove(users_path(config))
        self._end = End()
        self._pair = Pairing(config, id_, self._database, clock, self._supersede) if config.standby else None
        term = self._pair.term if self._pair else self._database.write_now(terms.term)
        roles.refuse(config.database.path, term)
        self._time = Timekeeper(clock)
        self._time.known_us = known_us = life.known_us(self._database)
        self._time.look()
        since_us = life.retained_us(self._database) or known_us or clock.now_us()
        self._retained = Pace(clock.now_us, since_us, speed=clock.speed)
        shop = with_kept(compose(config, clock.speed))
        self._shop = shop
        self._trace = VisitFile(trace, shop.zones) if trace else None
        news = asyncio.Event()
        self._jobs = Jobs(clock.now_us, news.set)
        self._totals = Totals(self._database)
        self._scrubber = Scrubber(self._database.path, self._pair.shipping.fold if self._pair else None)
        self._publisher = Publisher(
            broker.settings(config),
            Identity(
                store=config.store.id,
                epoch=self._database.epoch,
                version=version,
                config_generation=_generation(config_file, overlay),
                term=term,
            ),
            self._database,
            clock.now_us,
            offset_us,
            self._time.crm_said,
            kept=self._pair.shipping.kept if self._pair else None,
            superseded=(lambda term: self._supersede(term, "another gateway")) if self._pair else lambda term: None,
        )
        inbox = Inbox()
        self._readers = Readers(shop, inbox, clock.now_us)
        learner = learner_of(shop)
        self._pipeline = Pipeline(
            shop,
            self._database,
            clock,
            inbox,
            elsewhere=Elsewhere(
                version,
                self._totals.pending,
                self._jobs.reasons,
                lambda: {one.what: one.days for one in self._certificates.soon},
                lambda: self._examination.found,
                lambda: self._pair.shipping.protected if self._pair else None,
            ),
            wake=self._publisher.wake,
            changed=news.set,
            scrub=self._scrubber.ask,
            learner=learner,
            lamps=Lamps(config, self._readers.switch),
            trace=self._trace.write if self._trace else None,
            timekeeper=self._time,
            retained_us=self._retained.now_us,
        )
        self._receiver = None
        if config.forwarding is not None and (config.forwarders or self._pair):
            # The pipeline reads what is committed when it is restored, which is before the port opens.
            self._receiver = Receiver(
                config,
                shop,
                inbox,
                clock,
                lambda: self._pipeline.forwarded.committed,
                lambda: self._time.untrusted,
                at=self._pair.here.listen if self._pair else None,
                term=max(1, term),
                pair=self._pair.pair if self._pair else None,
            )
        self._certificates = Certificates(config, lambda: self._publisher.broker_until_s)
        mqtt = broker.settings(config)
        self._announcer = Announcer(
            f"{mqtt.host}:{mqtt.port}", self._publisher, self._pipeline.readers, self._time, self._totals.pending
        )
        self._learning = Learning(shop, self._pipeline, learner, clock)
        self._probe = page_process.Probe(config, self._web_socket) if self._web_socket else None
        self._snapshot = Snapshot(
            config,
            shop,
            self._database,
            self._publisher,
            self._pipeline,
            self._totals,
            self._jobs,
            self._certificates,
            self._learning,
            lambda: self._examination.told(),
            self._receiver.told if self._receiver is not None else list,
            self._pair.shipping.told if self._pair else lambda: None,
            clock,
            version=version,
            page=self._probe,
        )
        self._examination = Examination(config, config_file, version, self._snapshot.take, self._snapshot.all_antennas)
        self._monitor = Monitor(self._snapshot.take, self._snapshot.all_antennas)
        self._live = LiveServer(socket_path(config), self._snapshot.take, self._snapshot.antennas, news)
        self._downlink = Downlink(
            config,
            self._database,
            self._publisher,
            self._readers,
            self._pipeline,
            clock,
            overlay=overlay,
            snapshot=self._snapshot.take,
            reload=self._reload,
            restart=self._end.restart,
        )
        console = Console(self._downlink.erasures, self._database)
        self._orders = OrderServer(
            socket_path(config, "orders"), config, self._pipeline.order, clock.now_us, console.orders
        )

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end.stop)
        self._start_monitoring()
        try:
            with long_work():
                ready = await self._prepare()
            if ready:
                await self._serve()
            self._end.refuse()
        finally:
            await self._jobs.stop()
            if self._trace:
                self._trace.close()
            with contextlib.suppress(sqlite3.Error):
                await self._remember_now()
            if self._pair:
                await self._pair.close()
            with long_work():
                self._database.close()
            if self._pair:
                self._pair.release()
            if self._web_socket is not None:
                self._web_socket.close()

    async def _prepare(self) -> bool:
        """Compile the kernels and restore the last checkpoint; False if stopped meanwhile, or superseded."""
        if self._pair:
            await self._pair.ask()
        life.begin(self._database)
        # Without a cache, compiling takes a minute; do it before readers connect, so that no reads have to wait.
        let_go_of(COMPILER)  # loading kernels needs less of it than importing it did: a start has a lower peak
        if not await _unless(self._end.wanted, warm_up):
            return False
        let_go_of_bitcode()
        # The current objects are permanent: scanning them in every garbage collection would delay greetings.
        gc.collect()
        gc.freeze()
        self._pipeline.restore()
        await self._count()
        let_go_of()  # what only a start needs of all libraries
        return True

    async def _serve(self) -> None:
        publisher = asyncio.create_task(self._publisher.run(self._downlink.handlers), name="publisher")
        pipeline = asyncio.create_task(self._pipeline.run(), name="pipeline")
        ending = asyncio.create_task(self._end.wanted.wait(), name="end")
        self._start_jobs()
        self._monitor.phase = "serving"
        notify("READY=1")
        log.info(
            "serving %s: %s, database %s",
            self._config.store.id,
            counted(len(self._shop.readers), "reader"),
            self._database.path,
        )
        try:
            done, _ = await asyncio.wait([ending, publisher, pipeline], return_when=asyncio.FIRST_COMPLETED)
            if self._end.stopped:  # at a restart the process continues
                notify("STOPPING=1")
        finally:
            self._monitor.phase = "stopping"
            await self._jobs.stop()
            self._pipeline.stop()
            await asyncio.wait([pipeline])
            if not self._end.superseded:
                await self._drain()
            await _cancel([ending, publisher])
            if self._pair and self._end.superseded:
                await self._pair.finish()
        if self._database.damage is not None:
            self._database.condemn()
            raise RestartNeeded(f"the database is corrupted: {self._database.damage}")
        if self._pipeline.trouble is not None:
            raise Trouble(f"stopped with events that could not be written to the database: {self._pipeline.trouble}")
        self._end.refuse()
        for task in done - {ending}:
            # If one of these ends unexpectedly, it is a bug: exit, and let the supervisor restart the service.
            task.result()
            raise RuntimeError(f"{task.get_name()} ended unexpectedly")
        if not self._end.stopped:
            raise RestartNeeded(self._end.why)

    def _start_monitoring(self) -> None:
        self._jobs.run("monitoring", partial(self._monitor.on_socket, socket_path(self._config, "monitor")))
        if (address := self._config.monitoring.listen) is not None:
            self._jobs.run("monitoring port", partial(self._monitor.on_port, address), page_process.RETRY_S)

    def _start_jobs(self) -> None:
        jobs = self._jobs
        jobs.every(1, "watchdog", self._beat)
        jobs.every(1, "database watch", self._watch_database)
        jobs.every(1, "counting", self._keep_count)
        jobs.every(1, "announcements", self._announce)
        jobs.every(CERTIFICATES_S, "certificates", self._look_at_certificates)
        jobs.every(REMEMBER_S, "life file", self._remember)
        jobs.run("live state", self._live.run)
        jobs.run("orders", self._orders.run)
        self._scrubber.ask()  # a day key may have been destroyed just before the last stop
        jobs.run("scrubbing", self._scrubber.run)
        if self._web_socket is not None:
            page = partial(page_process.run, self._config_file, self._web_socket, self._clock)
            jobs.run("page", page, page_process.RETRY_S)
        if self._probe is not None:
            jobs.every(page_process.ASK_S, "page's answers", self._probe.look)
        if self._receiver is not None:
            jobs.run("forwarders", self._receiver.run, READER_RETRY_S)
        if self._pair:
            self._pair.start(jobs)
        for reader in self._config.readers:
            if reader.via is not None:
                continue
            jobs.run(f"reader {reader.id}", partial(self._readers.run, reader.id), READER_RETRY_S)
        for name, work in self._downlink.jobs.items():
            jobs.run(name, work)
        jobs.run("learning", self._learning.run)
        jobs.run("examination", self._examination.run)
        forget_erased = self._downlink.erasures.prune
        keeping = Housekeeping(
            self._database,
            self._config,
            self._clock.now_us,
            forget_erased,
            retained_us=self._retained.now_us,
            retained_s=lambda: self._clock.wall_us(self._retained.now_us()) / 1e6,
            waits=lambda: self._time.untrusted,
        )
        for period_s, name, work in keeping.rounds():
            jobs.every(period_s, name, work)
        if self._config.mail is not None:
            from edge.service import mailing  # most stores send none

            mail = mailing.Mailing(
                self._config, self._config.mail, self._database, self._clock.now_us, lambda: self._time.untrusted
            )
            jobs.every(mailing.LOOK_S, "mail", mail.look, mailing.RETRY_S)

    async def _beat(self) -> None:
        """Notify the supervisor that the event loop is running."""
        notify("WATCHDOG=1")

    async def _announce(self) -> None:
        self._announcer.look()
        if self._certificates.stale:
            await self._look_at_certificates()

    async def _look_at_certificates(self) -> None:
        await asyncio.to_thread(self._certificates.look)

    async def _watch_database(self) -> None:
        """Restart with a new database if this one is corrupted or missing; detect changes by other processes."""
        if self._database.astray():
            log.error("the database file was deleted or replaced while in use")
            self._end.restart("the database file is missing")
        elif self._database.damage is not None:
            self._database.condemn()
            self._end.restart(f"the database is corrupted: {self._database.damage}")
        elif await self._database.written_by_others():
            await self._pipeline.recheck()  # a directory was imported

    async def _keep_count(self) -> None:
        self._snapshot.keep_rates()
        await self._count()

    async def _count(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # reported by the writer
            await self._totals.count()

    async def _remember(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            await self._remember_now()

    async def _remember_now(self) -> None:
        clock_us = None if self._time.untrusted else self._clock.now_us()
        await life.remember(self._database, clock_us, self._retained.now_us())

    async def _reload(self) -> None:
        await asyncio.to_thread(load, self._config_file)
        self._end.restart("reloading the store file")

    def _supersede(self, term: int, by: str) -> None:
        """Another gateway runs the service with a higher term: stop at once."""
        if self._end.superseded is None:
            self._end.supersede(by)
            if self._pair:
                self._pair.shipping.stop()
            log.error("%s runs the store's service, with a higher term (%d): this gateway stops", by, term)
            try:
                roles.fence(self._database.path, term, by)
            except OSError as error:
                log.error("that could not be noted: %s; don't start this gateway as it is", error.strerror)

    async def _drain(self) -> None:
        """Wait briefly for the last acknowledgements, unless the broker is not connected."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while self._publisher.status.connected:
                    await self._count()
                    if not any(self._totals.pending().values()):
                        return
                    await asyncio.sleep(0.05)


class End:
    """State of the end of the service: whether and why, because of a signal or for a restart."""

    def __init__(self) -> None:
        self.wanted = asyncio.Event()
        self.stopped = False
        self.why = ""
        self.superseded: str | None = None
        """Who runs the service instead."""

    def stop(self) -> None:
        """Stop the service."""
        self.stopped = True
        self.wanted.set()

    def supersede(self, by: str) -> None:
        """Stop, because another gateway runs the service."""
        self.superseded = by
        self.wanted.set()

    def refuse(self) -> None:
        """Raise Superseded if so."""
        if self.superseded is not None:
            raise Superseded(
                f"{self.superseded} runs the store's service: make this gateway its standby with tagtrail standby"
            )

    def restart(self, why: str) -> None:
        """Restart the service; the first reason is kept, and a stop takes precedence."""
        self.why = self.why or why
        self.wanted.set()


def _generation(config_file: Path, overlay: Overlay | None) -> str:
    """Return the hash of the active configuration."""
    digest = (overlay and overlay.running_hash) or sha256(config_file.read_bytes()).hexdigest()
    return digest[:16]


async def _unless(stop: asyncio.Event, work: Callable[[], object]) -> bool:
    """Do blocking work in a thread without delaying a stop; True if it was completed."""
    done: asyncio.Future[Any] = in_thread(work)
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait([done, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if done.done():
        done.result()
    return not stop.is_set()


async def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
