"""Events of class health: readers' links and what they remark, and how the gateway is."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from drivers.session import Link, ReaderStatus
from edge.intake.admission import Admission
from edge.intake.ledger import Ledger
from edge.readers.flapping import JOURNAL, Flapping
from edge.store.clock import Clock
from edge.store.timekeeping import Timekeeper
from sync.contract import ClockSet, Found, GatewayHealth, ReaderHealth

log = logging.getLogger("tagtrail.pipeline")
PERIOD_US = 60_000_000


class EngineNow(NamedTuple):
    """The engine's counters, and how many tags' journeys go on."""

    counters: Mapping[str, int]
    tags: int


@dataclass(frozen=True)
class Elsewhere:
    """What the pipeline is told of the rest of the gateway.

    `backlog`: events not yet acknowledged, by class. `failing`: reason by background job, of those that fail now;
    `expiring`: days left by certificate, of those that expire soon; `findings`: what the last examination found
    wrong, the same object until the next; None before the first. `protected`: whether the standby has everything; None
    without one.
    """

    version: str = ""
    backlog: Callable[[], Mapping[str, int]] = dict
    failing: Callable[[], Mapping[str, str]] = dict
    expiring: Callable[[], Mapping[str, int]] = dict
    findings: Callable[[], tuple[Found, ...] | None] = lambda: None
    protected: Callable[[], bool | None] = lambda: None


class HealthNews:
    """Hands events to the ledger and says in the log what happens at readers. `linked`: readers' links as far as they
    have been taken; `readers` has them as they are."""

    def __init__(
        self,
        ledger: Ledger,
        readers: Mapping[str, ReaderStatus],
        linked: Mapping[str, ReaderStatus],
        time_: Timekeeper,
        admission: Admission,
        clock: Clock,
        elsewhere: Elsewhere,
    ) -> None:
        self._ledger = ledger
        self._readers, self._linked = readers, linked
        self._time = time_
        self._admission = admission
        self._clock = clock
        self._elsewhere = elsewhere
        self._flapping: Flapping[ReaderHealth] = Flapping()
        self._journal: Flapping[ReaderHealth] = Flapping(JOURNAL)
        self._told: tuple[set[str], str, int, bool | None] | None = None
        self._examined: tuple[Found, ...] | None = None
        self._told_us = clock.now_us()

    def tell(self, kind: str, reader: str, reason: str, since_us: int) -> None:
        """Something happened at a reader."""
        status = self._linked[reader]
        told = ReaderHealth(
            reader=reader,
            link=status.link.value,
            reason=reason,
            since_us=since_us,
            clock_offset_us=status.clock_offset_us,
        )
        now_s = time.monotonic()
        if self._flapping.now((reader, kind), told, now_s):
            self._ledger.add_health(told)
        if self._journal.now((reader, kind), told, now_s):
            self._log(told)

    def tell_repeated(self, *, all_: bool = False) -> None:
        """Tell as one what has repeated itself."""
        now_s = time.monotonic()
        for told, changes in self._flapping.due(now_s, all_=all_):
            self._ledger.add_health(told.model_copy(update={"changes": changes}))
        for told, changes in self._journal.due(now_s, all_=all_):
            self._log(told, changes)

    def tell_news(self, engine: EngineNow) -> None:
        """Tell how the gateway is, once a minute and when a job's or the time's state has changed."""
        now_us = self._clock.now_us()
        failing = set(self._elsewhere.failing())
        news = failing, self._time.trust.value, self._time.steps, self._elsewhere.protected()
        if abs(now_us - self._told_us) >= PERIOD_US or (self._told is not None and news != self._told):
            self._told_us = now_us
            self.tell_gateway("periodic", engine)
        self._told = news

    def tell_gateway(self, reason: Literal["start", "periodic", "stop"], engine: EngineNow) -> None:
        """Tell how the gateway is."""
        step, judgement = self._time.last_step, self._time.judgement
        found = self._elsewhere.findings()
        findings = None if found is self._examined else found
        self._examined = found
        clock_set = ClockSet(from_us=step.from_us, to_us=step.to_us, unkept_us=step.unkept_us) if step else None
        self._ledger.add_health(
            GatewayHealth(
                at_us=self._clock.now_us(),
                version=self._elsewhere.version,
                reason=reason,
                reads=engine.counters["reads"],
                late_reads=engine.counters["late"],
                unknown_antenna_reads=engine.counters["unknown_antenna"],
                left_out_reads=self._admission.left_out,
                tags_present=engine.tags,
                readers_up=sum(status.link is Link.UP for status in self._readers.values()),
                readers=len(self._readers),
                backlog=dict(self._elsewhere.backlog()),
                failing=dict(self._elsewhere.failing()),
                expiring=dict(self._elsewhere.expiring()),
                findings=findings,
                protected=self._elsewhere.protected(),
                clock=judgement.trust.value,
                clock_reason=judgement.reason,
                clock_steps=self._time.steps,
                clock_set=clock_set,
            )
        )

    def _log(self, told: ReaderHealth, changes: int = 1) -> None:
        good = told.link == "up" and self._readers[told.reader].reason == told.reason
        often = f" (after {changes} changes)" if changes > 1 else ""
        level = logging.INFO if good else logging.WARNING
        log.log(level, "reader %s is %s: %s%s", told.reader, told.link, told.reason, often)
