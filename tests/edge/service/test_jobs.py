"""Background jobs: what one of them raises is told, tried again, and stops nothing else."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import re
import signal
from collections.abc import Callable
from importlib import resources
from typing import Any

import numpy as np
import pytest
from gateways import WAIT_S, Gateway, antennas, member_card

from config.check import load
from drivers.read import READ, epc_words
from drivers.session import Link, ReaderSettings, ReaderStatus, Sink
from dwell.markov.learner import Learner
from edge.crm import configuration, corrections, day_news, directory, sales
from edge.crm.configuration import Overlay
from edge.crm.erasure.worker import Erasures
from edge.cues import orders
from edge.database import life
from edge.database.scrub import Scrubber
from edge.database.writer import Database
from edge.days import kept, sold
from edge.readers import sessions
from edge.service import housekeeping, jobs, monitor, page_process, service
from edge.service.announcer import Announcer
from edge.service.examination import Examination
from edge.service.expiry import Certificates
from edge.service.jobs import Jobs
from edge.service.service import Service
from edge.service.snapshot import Snapshot
from edge.store import live_socket
from edge.store.clock import Clock
from edge.store.errors import NotMade, Trouble
from edge.store.live_socket import read_once, socket_path
from sync import commands as sync_commands


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "RETRY_S", (0.01, 0.04))
    monkeypatch.setattr(jobs, "STEADY_S", 0.05)


class Raising:
    """Work that raises so many times, then goes on for ever, or is done if it comes round again."""

    def __init__(self, errors: list[BaseException], *, for_ever: bool) -> None:
        self.errors = errors
        self.for_ever = for_ever
        self.calls = 0

    async def __call__(self) -> None:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        if self.for_ever:
            await asyncio.Event().wait()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("for_ever", [True, False])
async def test_a_job_that_raises_is_told_and_tried_again_until_it_works(
    for_ever: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    news: list[int] = []
    running = Jobs(lambda: 7, lambda: news.append(1))
    bad = Raising([ValueError("card 4711"), ValueError("card 4711")], for_ever=for_ever)
    good = Raising([], for_ever=for_ever)
    start = running.run if for_ever else lambda name, work: running.every(0.01, name, work)
    start("bad", bad)
    start("good", good)
    await until(lambda: running.failing)
    (failing,) = running.failing
    assert (failing.job, failing.since_us) == ("bad", 7)
    # Error messages may name members; what everybody may read says where in the program.
    assert "4711" not in failing.reason
    assert failing.reason.startswith("ValueError")
    await until(lambda: bad.calls >= 3 and not running.failing)
    assert (running.failures, len(news)) == ({"bad": 2, "good": 0}, 2)
    assert good.calls >= 1
    traced = [record for record in caplog.records if record.exc_info]
    assert [record.getMessage() for record in traced] == ["bad failed and will be retried: ValueError: card 4711"]
    assert "bad works again after 2 failures" in caplog.messages
    await running.stop()


@pytest.mark.usefixtures("quick")
async def test_waits_between_tries_double_up_to_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    sleep = asyncio.sleep

    async def sleeping(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr(jobs.asyncio, "sleep", sleeping)
    running = Jobs(lambda: 0)
    bad = Raising([RuntimeError("x") for _ in range(5)], for_ever=True)
    running.run("bad", bad)
    while bad.calls < 6:
        await sleep(0)
    assert waits == [0.01, 0.02, 0.04, 0.04, 0.04]
    await running.stop()


@pytest.mark.usefixtures("quick")
async def test_another_error_of_the_same_job_has_its_traceback_too(caplog: pytest.LogCaptureFixture) -> None:
    running = Jobs(lambda: 0)
    errors: list[BaseException] = [ValueError("a"), KeyError("b"), ValueError("c"), KeyError("d")]
    bad = Raising(errors, for_ever=True)
    running.run("bad", bad)
    await until(lambda: bad.calls == 5)
    assert len([record for record in caplog.records if record.exc_info]) == 2
    await running.stop()


@pytest.mark.usefixtures("quick")
async def test_what_store_it_can_mend_is_told_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    running = Jobs(lambda: 0)
    running.run("bad", Raising([Trouble("plug it in")], for_ever=True))
    await until(lambda: running.failing)
    assert running.reasons() == {"bad": "plug it in"}
    assert not [record for record in caplog.records if record.exc_info]
    await running.stop()


@pytest.mark.usefixtures("quick")
async def test_a_job_that_ends_by_itself_or_is_cancelled_within_has_failed() -> None:
    async def ends() -> None:
        return

    async def cancelled_within() -> None:
        raise asyncio.CancelledError

    running = Jobs(lambda: 0)
    running.run("ends", ends)
    running.run("cancelled", cancelled_within)
    await until(lambda: all(running.failures[name] >= 2 for name in ("ends", "cancelled")))
    await running.stop()
    assert not [task for task in asyncio.all_tasks() if task.get_name() in ("ends", "cancelled")]


async def test_one_day_that_cannot_be_made_does_not_keep_the_others_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "BREATH_S", 0)
    left = ["d3", "d2", "d1"]
    done: list[str] = []

    async def step(_database: Any, _config: Any, besides: Any) -> bool:
        for key in left:
            if key == "d2" and key not in besides:
                raise NotMade(key, ValueError("x")) from ValueError("x")
            if key not in besides and key not in done:
                done.append(key)
                return True
        return False

    keeping = housekeeping.Housekeeping(None, None, lambda: 0, None)  # type: ignore[arg-type]
    with pytest.raises(NotMade, match="d2"):
        await keeping._until_done(step)
    assert done == ["d3", "d1"]


class Faults:
    """Places that raise twice each, and then work."""

    TIMES = 2

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self.left: dict[str, int] = {}

    def inject(self, job: str, owner: Any, name: str) -> None:
        true = getattr(owner, name)
        self.left[job] = self.TIMES

        def faulty(*args: Any, **kwargs: Any) -> Any:
            if self.left[job]:
                self.left[job] -= 1
                raise RuntimeError(f"injected into {job}")
            return true(*args, **kwargs)

        self._patch.setattr(owner, name, faulty)


async def names_of(running: Service) -> set[str]:
    """Names of the jobs that a service starts."""
    running._start_monitoring()
    running._start_jobs()
    names = set(running._jobs.failures)
    await running._jobs.stop()
    return names


class HandReader:
    """A session whose reads a test gives."""

    def __init__(self, settings: ReaderSettings, sink: Sink, clock: Callable[[], int]) -> None:
        self._settings, self._sink, self._clock = settings, sink, clock

    async def run(self) -> None:
        self._sink.status(ReaderStatus(self._settings.id, Link.UP, "taking inventory", self._clock()))
        while True:
            reads = np.zeros(1, READ)
            reads["time_us"], reads["epc"], reads["epc_bits"] = self._clock(), epc_words(member_card(1)), 96
            reads["rssi_cdbm"], reads["count"] = -5000, 1
            await self._sink.reads(self._settings.id, reads)
            await asyncio.sleep(0.1)


JOBS: dict[str, tuple[Any, str]] = {
    "watchdog": (Service, "_beat"),
    "database watch": (Database, "astray"),
    "counting": (Snapshot, "keep_rates"),
    "life file": (life, "remember"),
    "live state": (live_socket, "open_socket"),
    "announcements": (Announcer, "in_a_line"),
    "certificates": (Certificates, "look"),
    "examination": (Examination, "run"),
    "orders": (orders, "serve"),
    "monitoring": (monitor, "open_socket"),
    "monitoring port": (monitor, "listen"),
    "page's answers": (page_process.Probe, "look"),
    "page": (page_process.asyncio, "create_subprocess_exec"),
    "reader r1": (sessions, "open_session"),
    "commands": (sync_commands.Commands, "_tell_interrupted"),
    "member directory": (directory.MemberDirectory, "_expire"),
    "sales": (sales.SalesDesk, "run"),
    "configuration": (configuration.Desired, "run"),
    "learning": (Learner, "due"),
    "erasures": (Erasures, "_put_back"),
    "scrubbing": (Scrubber, "run"),
    "retention": (housekeeping, "prune"),
    "old files": (housekeeping, "delete_old"),
    "quota": (housekeeping.quota, "in_use"),
    "digests": (housekeeping, "tell_digests"),
    "day facts": (kept, "missing"),
    "facts of the day so far": (housekeeping, "sum_up_so_far"),
    "sales facts": (sold, "missing"),
    "day news": (day_news, "news"),
    "corrections": (corrections, "corrections"),
}
"""Each job of the service, and a place in it that raises."""


def test_the_page_has_a_name_for_each_job() -> None:
    text = (resources.files("edge.web") / "templates" / "_sync.html").read_text("utf-8")
    named = set(re.findall(r'"([^"]+)": _\("', text))
    assert {*JOBS, "mail", "forwarders", "standby", "other gateway", "witness"} - {"reader r1"} <= named


async def test_an_exception_in_any_job_ends_neither_the_service_nor_another_job(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(jobs, "RETRY_S", (0.2, 0.4))
    monkeypatch.setattr(page_process, "RETRY_S", (0.2, 0.4))
    monkeypatch.setattr(service, "READER_RETRY_S", (0.2, 0.4))
    monkeypatch.setattr(jobs, "STEADY_S", 1.0)
    monkeypatch.setattr(sessions, "open_session", HandReader)
    faults = Faults(monkeypatch)
    for job, (owner, name) in JOBS.items():
        faults.inject(job, owner, name)
    readers = [{"id": "r1", "driver": "llrp", "address": "r1", "antennas": antennas("door")}]
    database = {"path": str(gateway.database), "checkpoint_s": 0.2}
    gateway.configure(readers=readers, database=database, monitoring={"listen": "127.0.0.1:0"})
    config = load(gateway.file)
    overlay = Overlay(config, gateway.file)
    running = Service(config, gateway.file, Clock(), version="test", web=True, trace=None, overlay=overlay)
    assert set(JOBS) == await names_of(running)
    serving = asyncio.create_task(running.run())

    def health() -> list[dict[str, Any]]:
        return [json.loads(row) for (row,) in gateway.rows("SELECT payload FROM outbox WHERE class = 3 ORDER BY seq")]

    def last_failing() -> dict[str, str]:
        return dict([event for event in health() if event["type"] == "gateway"][-1]["failing"])

    try:
        async with asyncio.timeout(WAIT_S):
            while any(faults.left.values()) or running._jobs.failing or last_failing():
                assert not serving.done(), serving.result()
                await asyncio.sleep(0.05)
            state = await read_once(socket_path(config))
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        await serving
        gc.unfreeze()
    assert running._jobs.failures == dict.fromkeys(JOBS, Faults.TIMES)
    assert state is not None
    assert (state["failing"], state["readers"][0]["link"]) == ([], "up")
    assert state["reads"] > 5
    traced = [record.getMessage().partition(" failed")[0] for record in caplog.records if record.exc_info]
    assert sorted(traced) == sorted(JOBS)
    told = {job for event in health() if event["type"] == "gateway" for job in event["failing"]}
    assert {"retention", "day news", "page", "reader r1"} <= told
    # The reader whose session could not be opened was down meanwhile, and its zone unknown.
    assert ("r1", "down") in {(event.get("reader"), event.get("link")) for event in health()}
