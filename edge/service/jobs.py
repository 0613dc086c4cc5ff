"""Background jobs, isolated from each other: an exception in one ends neither the others nor the service.

A job that raises is logged with its traceback, once per place of failure, is reported as failing in the live state and
in health, and is retried after a delay that doubles with every failure.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.store.errors import NotMade, Trouble
from edge.words.counts import counted

log = logging.getLogger("tagtrail.jobs")

RETRY_S = (5.0, 900.0)
"""Delay before the first retry, and the maximum delay."""
STOP_S = 3.0
STEADY_S = 60.0
"""A continuous job counts as working again after running for this time."""

Work = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Failing:
    """A job that failed `times` in a row since `since_us` (store clock) and will be retried.

    `reason` is the place in the program; only the log contains the error's text, which may name members.
    """

    job: str
    reason: str
    since_us: int
    times: int


class Jobs:
    """Run jobs by name until `stop`. `changed` is called when a job starts or stops failing."""

    def __init__(self, clock: Callable[[], int], changed: Callable[[], None] = lambda: None) -> None:
        self._clock = clock
        self._changed = changed
        self._tasks: list[asyncio.Task[None]] = []
        self._failing: dict[str, Failing] = {}
        self._logged: set[tuple[str, str]] = set()
        self.failures: dict[str, int] = {}
        """Job → number of failures since the start."""

    @property
    def failing(self) -> tuple[Failing, ...]:
        """Return the failing jobs, longest-failing first."""
        return tuple(sorted(self._failing.values(), key=lambda each: each.since_us))

    def reasons(self) -> Mapping[str, str]:
        """Return job → reason of the failing jobs."""
        return {each.job: each.reason for each in self.failing}

    def run(self, name: str, work: Work, retry_s: tuple[float, float] | None = None) -> None:
        """Start a continuous job; if it returns, it has failed."""
        self._start(name, self._keep(name, work, retry_s or RETRY_S))

    def every(self, period_s: float, name: str, work: Work, retry_s: tuple[float, float] | None = None) -> None:
        """Start a job that runs every `period_s`, the first time immediately."""
        self._start(name, self._repeat(name, work, period_s, retry_s or RETRY_S))

    async def stop(self) -> None:
        """Cancel all jobs and wait for them to end, at most STOP_S."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            _, going_on = await asyncio.wait(self._tasks, timeout=STOP_S)
            for task in going_on:
                log.error("%s does not stop", task.get_name())
        self._tasks.clear()

    def _start(self, name: str, keeping: Any) -> None:
        self.failures.setdefault(name, 0)
        self._tasks.append(asyncio.create_task(keeping, name=name))

    async def _keep(self, name: str, work: Work, retry_s: tuple[float, float]) -> None:
        wait_s, longest_s = retry_s
        while True:
            began_s = time.monotonic()
            steady = asyncio.get_running_loop().call_later(STEADY_S, self._well, name)
            try:
                await work()
                raise RuntimeError(f"{name} ended unexpectedly")
            except BaseException as error:
                self._failed(name, _of_ours(error))
            finally:
                steady.cancel()
            if time.monotonic() - began_s >= STEADY_S:
                wait_s = retry_s[0]
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, longest_s)

    async def _repeat(self, name: str, work: Work, period_s: float, retry_s: tuple[float, float]) -> None:
        wait_s, longest_s = retry_s
        while True:
            try:
                await work()
            except BaseException as error:
                self._failed(name, _of_ours(error))
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, longest_s)
            else:
                self._well(name)
                wait_s = retry_s[0]
                await asyncio.sleep(period_s)

    def _failed(self, name: str, error: BaseException) -> None:
        before = self._failing.get(name)
        place = _place(error)
        reason = str(error) if isinstance(error, _WORDED) else place
        self.failures[name] += 1
        self._failing[name] = Failing(
            name, reason, before.since_us if before else self._clock(), before.times + 1 if before else 1
        )
        if (name, place) not in self._logged:
            self._logged.add((name, place))
            traced = None if isinstance(error, Trouble) else error
            log.error("%s failed and will be retried: %s: %s", name, type(error).__name__, error, exc_info=traced)
        elif before is None:
            log.error("%s failed again: %s", name, reason)
        if before is None:
            self._changed()

    def _well(self, name: str) -> None:
        before = self._failing.pop(name, None)
        if before is not None:
            log.info("%s works again after %s", name, counted(before.times, "failure"))
            self._changed()


def _of_ours(error: BaseException) -> BaseException:
    """Return the error if it is a failure of the job; re-raise it if the job is cancelled or the process ends."""
    task = asyncio.current_task()
    if isinstance(error, Exception) or (isinstance(error, asyncio.CancelledError) and task and not task.cancelling()):
        return error
    raise error


def _place(error: BaseException) -> str:
    """Return the type of an error or its cause, and the last line of our code in its traceback."""
    what = f"{error.key}: " if isinstance(error, NotMade) else ""
    while error.__cause__ is not None:
        error = error.__cause__
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(_ROOT)]
    where = f" at {Path(ours[-1].filename).relative_to(_ROOT)}:{ours[-1].lineno}" if ours else ""
    return f"{what}{type(error).__name__}{where}"


_WORDED = (Trouble, OSError, sqlite3.Error)
"""Errors whose texts are about the machine and do not contain personal data."""
_ROOT = Path(__file__).parents[2]
