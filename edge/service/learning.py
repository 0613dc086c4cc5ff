"""The service learns its store's radio from its own reads: soon after the first ones, then every night.

What explains the reads of other tags better is adopted at once and kept beside the database. A calibration that the
store file names stays in force; if the reads say otherwise, that is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
import sys
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwell.markov.field import Field, packed
from dwell.markov.learner import Learner
from dwell.markov.learning import Learnt
from dwell.read import Reads
from edge.intake.pipeline import Pipeline
from edge.store import calibration_file
from edge.store.business_days import business_days
from edge.store.calibration_file import Calibration
from edge.store.clock import Clock
from edge.store.compose import Shop
from edge.store.errors import Trouble

log = logging.getLogger("tagtrail.learning")

LOOK_S = 1.0
KEPT_US = 180_000_000
"""What less time has told isn't kept: the next start learns as much as quickly."""
WORSE_NATS = 0.5
"""A second: figures that explain the reads so much worse than learnt ones want to be looked at."""


def with_kept(shop: Shop) -> Shop:
    """The shop with what was kept of its radio, unless the store file names a calibration."""
    path = calibration_file.kept_at(shop.config.database.path)
    if shop.calibration is not None or not path.exists():
        return shop
    try:
        kept = calibration_file.load(path, shop.config.store.id, shop.layout, shop.zones, shop.ports)
    except Trouble as trouble:
        log.warning("what was learnt of the radio can't be used, it is learnt anew: %s", trouble)
        return shop
    return replace(shop, calibration=kept)


def learner_of(shop: Shop) -> Learner:
    """What the pipeline feeds with reads."""
    return Learner(shop.layout, known=shop.calibration is not None)


class Learning:
    """Looks after what the engine takes the radio to be. One task: `run`."""

    def __init__(self, shop: Shop, pipeline: Pipeline, learner: Learner, clock: Clock) -> None:
        """`shop`: `with_kept`; `learner`: `learner_of` it, which the pipeline feeds."""
        self._shop = shop
        self._pipeline = pipeline
        self._clock = clock
        self._named = shop.config.calibration.file is not None
        self._path = calibration_file.kept_at(shop.config.database.path)
        self._days = business_days(shop.config)
        self._running = shop.calibration
        self._source = "named" if self._named else "kept" if self._running else "usual"
        self._since_us = clock.now_us()
        self._worse_nats: float | None = None
        self._learner = learner

    def told(self) -> dict[str, Any]:
        """For the live state: what the radio is taken to be, since when, from what, and how well it explains reads."""
        field, made = self._pipeline.engine.field, self._running
        return {
            "source": self._source,
            "since_us": self._since_us,
            "next_us": self._learner.due_us,
            "level_1m_dbm": round(field.level_1m_dbm, 1),
            "slope_db": round(field.slope_db, 1),
            "half_rate_dbm": round(field.half_rate_dbm, 1),
            "spread_db": round(field.spread_db, 1),
            "at_us": made and made.at_us,
            "reads": made and made.reads,
            "tags": made and made.tags,
            "seconds": made and made.seconds,
            "before": made and round(made.before, 2),
            "after": made and round(made.after, 2),
            "worse_nats": self._worse_nats,
        }

    async def run(self) -> None:
        """Learn whenever it is time, until cancelled; nothing here keeps the loop."""
        learner, busy = self._learner, None
        try:
            while True:
                await asyncio.sleep(LOOK_S)
                complete_us = self._pipeline.engine.weighed_us
                if busy is not None and not busy.done():
                    learner.keep_up(complete_us)
                    continue
                if busy is not None:
                    busy.result()
                    busy = None
                if learner.over:
                    tonight_us = self._tonight()
                    learner.due_us = min(learner.due_us or tonight_us, tonight_us)
                if learner.due(complete_us):
                    # An engine that goes on from a checkpoint may know more than what fits best among usual radios.
                    first = learner.first and self._untaught()
                    busy = asyncio.create_task(self._learn(learner.take(), first), name="learning once")
        finally:
            if busy is not None:
                busy.cancel()
                await asyncio.gather(busy, return_exceptions=True)

    async def _learn(self, reads: Reads, first: bool) -> None:
        try:
            found = await learn(self._shop, reads, None if first else self._pipeline.engine.field)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            log.warning("the store's radio could not be learnt: %s", error)
            self._pipeline.engine.release()
            return
        if found is None:
            log.info("too few reads to learn the store's radio from")
            self._pipeline.engine.release()
            return
        await self._judge(found, reads["time_us"], first)

    async def _judge(self, found: Learnt, times_us: NDArray[np.int64], first: bool) -> None:
        begin_us, at_us = int(times_us.min()), int(times_us.max())
        made = Calibration(found.field, at_us, len(times_us), found.tags, found.ticks, found.before, found.after)
        gain = found.after - found.before
        self._worse_nats = None
        # The first time the comparison is between usual radios, by the few reads that they were chosen by.
        if not first and not found.better:
            log.info("what was learnt of the radio explains reads no better: %.3f, was %.3f", found.after, found.before)
            return
        if self._named:
            if gain >= WORSE_NATS:
                self._worse_nats = round(gain, 2)
                log.warning(
                    "the store file's calibration explains reads %.2f nats a second worse than one learnt now: "
                    "calibrate again, or take [calibration] out of the store file",
                    gain,
                )
            return
        # Tables of a large store take seconds.
        model = await asyncio.to_thread(self._pipeline.engine.model, found.field)
        self._pipeline.engine.adopt(model)
        self._running, self._since_us = made, self._clock.now_us()
        self._source = "compared" if first else "learnt"
        log.info(
            "the store's radio: %.1f dBm at 1 m, %.1f dB a decade, half heard at %.1f dBm; "
            "learnt from %d tags, log density %.3f, was %.3f",
            found.field.level_1m_dbm,
            found.field.slope_db,
            found.field.half_rate_dbm,
            found.tags,
            found.after,
            found.before,
        )
        if first or at_us - begin_us < KEPT_US:
            return  # kept is only what was learnt of this very store
        shop = self._shop
        try:
            await asyncio.to_thread(
                calibration_file.save, self._path, shop.config.store.id, shop.layout, shop.zones, shop.ports, made
            )
        except Trouble as trouble:
            log.warning("what was learnt of the radio is lost at the next start: %s", trouble)

    def _untaught(self) -> bool:
        """True if the engine takes the radio to be a usual one."""
        now, usual = packed(self._pipeline.engine.field), packed(Field.prior(self._shop.layout))
        return all(np.array_equal(now[name], usual[name]) for name in usual)

    def _tonight(self) -> int:
        """When the business day changes: nobody is in the store."""
        return self._days.bounds_us(self._days.date(self._clock.now_us()))[1]


async def learn(shop: Shop, reads: Reads, known: Any) -> Learnt | None:
    """Learn in a process of its own, which ends with this call. Raises OSError, EOFError or UnpicklingError."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "edge.service.learning_process",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        out, _ = await process.communicate(pickle.dumps((shop.layout, reads, known)))
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        raise OSError(f"the process that learns ended with code {process.returncode}")
    found: Learnt | None = pickle.loads(out)
    return found
