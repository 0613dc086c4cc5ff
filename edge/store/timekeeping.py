"""Whether the machine's clock can be trusted.

Gateways without a battery start in 1970, or where they were switched off; time servers put them right, by a step. So
the wall's clock is held against the monotonic one, and against whatever else tells the time:

    trusted       a time service keeps the clock (adjtimex, or the mark of systemd-timesyncd), or the CRM has the same
                  time; nothing speaks against it
    holding over  nobody keeps it, nothing speaks against it
    untrusted     it is before this program was made or before what was stored last; it was set by days; a time service
                  is about to set it; the CRM, or all readers, have another time

While it is untrusted nothing is decided, told, summed up or deleted. That has an end: a clock that is only odd is held
over after HELD_S, for a shop with no time at all would be of no use either. 1970 is never believed.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from pathlib import Path

from edge.store.clock import Clock, offset_us

log = logging.getLogger("tagtrail.clock")

STEP_US = 1_000_000
"""Wall and monotonic time that part by more within a second: the clock was set. Below, it is being steered."""
FLOOR_US = round(dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp()) * 1_000_000
"""Before this program was made: nobody's clock is right then."""
FAR_US = 86_400_000_000
"""A clock that somebody kept is not set by so much: that is an error, until it has lasted for LASTS_S."""
LASTS_S = 600.0
BOOT_S = 600.0
"""How long after the machine's start a time service is waited for."""
HELD_S = 3600.0
BEHIND_US = 60_000_000
"""What was stored last may be so far ahead of the clock: a little drift while the service was off."""
AGREE_US = 5_000_000
READERS_US = 30_000_000
"""Readers whose clocks agree within the former, and are off by more than the latter, are right, not the gateway."""
SETTLED_S = 60.0
"""After the clock was set, sessions take as long to know anew how far their readers' clocks are off."""
APART_US = 1_000_000
"""Clocks of two gateways of a store are this close; in time of the wall."""
CRM_US = 60_000_000
"""A message of the CRM may take so long; an offset beyond is one of the clocks."""
CRM_FRESH_S = 86_400.0
CRM_EVERY_S, CRM_LASTS_S = 15.0, 60.0
TORN_US = 50_000
"""Two clocks that could not be read within so long of each other are read again."""
TIMESYNCD, CHRONY = Path("/run/systemd/timesync"), Path("/run/chrony")
"""Folders of time services, there while they run."""


class Trust(StrEnum):
    """How far the time can be believed."""

    TRUSTED = "trusted"
    HOLDING = "holding over"
    UNTRUSTED = "untrusted"


class Kept(Enum):
    """What the machine says of its clock."""

    KEPT = "kept"
    WAITING = "waiting"
    """There is a time service, and it has not set the clock yet."""
    UNKEPT = "unkept"


@dataclass(frozen=True)
class Step:
    """The clock was set, from one time to another (store clock). `unkept_us`: since when nobody had kept it; None if
    somebody did."""

    from_us: int
    to_us: int
    unkept_us: int | None = None

    @property
    def by_us(self) -> int:
        return self.to_us - self.from_us


@dataclass(frozen=True)
class Judgement:
    """`reason`: a sentence, empty if there is nothing to say."""

    trust: Trust
    reason: str = ""


class Timekeeper:
    """Looks at the clock whenever it is told to, at least once a second.

    `known_us`: the last time of which something is stored (store clock); 0 if there is none. Set `readers` (id →
    reader's clock minus ours) and call `crm_said` as they become known.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        mono_us: Callable[[], int] = lambda: time.monotonic_ns() // 1000,
        kept: Callable[[], Kept] | None = None,
        uptime_s: Callable[[], float] | None = None,
    ) -> None:
        self._clock = clock
        self._wall_us, self._mono_us = wall_us, mono_us
        self._kept, self._uptime_s = kept or is_kept, uptime_s or _uptime_s
        self._mono, self._wall = self._read()
        self.known_us = 0
        self.readers: Mapping[str, int | None] = {}
        self.steps = 0
        self.last_step: Step | None = None
        self.judgement = Judgement(Trust.HOLDING)
        self.since_us = clock.of(self._wall)
        self._since_mono = self._mono
        self._was_kept = self._kept() is Kept.KEPT
        self._stepped_mono = self._mono - round(SETTLED_S * 1e6) - 1
        self._doubt: tuple[int, int, str] | None = None
        """Wall minus monotonic time before the clock was set by days, when it was set, and what is said of it."""
        self._crm: deque[tuple[int, int]] = deque(maxlen=8)
        """When the CRM said its time, and its clock minus ours; every CRM_EVERY_S the greatest."""
        self._untold: list[Step] = []

    @classmethod
    def believing(cls, clock: Clock) -> Timekeeper:
        """One that trusts a clock whatever it does, such as one that is moved by hand."""
        return cls(clock, wall_us=lambda: FLOOR_US, mono_us=lambda: 0, kept=lambda: Kept.KEPT, uptime_s=lambda: BOOT_S)

    @property
    def trust(self) -> Trust:
        return self.judgement.trust

    @property
    def untrusted(self) -> bool:
        return self.trust is Trust.UNTRUSTED

    def look(self) -> list[Step]:
        """Look at all clocks; the steps since the last look."""
        mono, wall = self._read()
        expected = self._wall + mono - self._mono
        self._mono, self._wall = mono, wall
        if abs(wall - expected) > STEP_US:
            unkept_us = self.since_us if self.trust is Trust.HOLDING else None
            self._stepped(Step(self._clock.of(expected), self._clock.of(wall), unkept_us), expected - mono)
        self._judge()
        untold, self._untold = self._untold, []
        return untold

    def mono_us(self) -> int:
        """Monotonic time of the last look."""
        return self._mono

    def store_us(self, mono_us: int) -> int:
        """Store time of a moment of the monotonic clock, as the clock is now."""
        return self._clock.of(self._wall - (self._mono - mono_us))

    def crm_said(self, at_us: int) -> None:
        """A message of the CRM has come, sent at `at_us` of its clock: a moment ago, or more if the broker kept it."""
        mono, wall = self._read()
        off = at_us - wall
        if self._crm and mono - self._crm[-1][0] < CRM_EVERY_S * 1e6:
            self._crm[-1] = self._crm[-1][0], max(off, self._crm[-1][1])
        else:
            self._crm.append((mono, off))

    def _read(self) -> tuple[int, int]:
        for _ in range(5):
            before, wall, after = self._mono_us(), self._wall_us(), self._mono_us()
            if after - before <= TORN_US:
                break
        return before, wall

    def _stepped(self, step: Step, before: int) -> None:
        self.steps += 1
        self.last_step = step
        self._stepped_mono = self._mono
        self._untold.append(step)
        said = was_set(step)
        log.warning("%s, to %s", said, moment(self._wall))
        now = self._wall - self._mono
        kept = self._kept() is Kept.KEPT
        if self._doubt is not None and abs(now - self._doubt[0]) <= 2 * STEP_US:
            self._doubt = None  # it is as it was
        elif self._doubt is not None:
            self._doubt = (self._doubt[0], self._mono, said)
        elif abs(step.by_us) > FAR_US and not self.untrusted and (self._was_kept or not kept):
            self._doubt = (before, self._mono, said)
        self._crm.clear()

    def _judge(self) -> None:
        kept = self._kept()
        if self._doubt is not None and self._mono - self._doubt[1] > LASTS_S * 1e6:
            self._doubt = None
        found = self._found(kept)
        self._was_kept = kept is Kept.KEPT
        if (found.trust, _kind(found)) == (self.trust, _kind(self.judgement)):
            return
        if found.trust is not self.trust:
            self._since_mono, self.since_us = self._mono, self._clock.of(self._wall)
            level = logging.WARNING if Trust.UNTRUSTED in (found.trust, self.trust) else logging.INFO
            log.log(level, "the time is %s%s", found.trust.value, f": {found.reason}" if found.reason else "")
        elif found.reason:
            log.warning("%s", found.reason)
        self.judgement = found

    def _found(self, kept: Kept) -> Judgement:
        if self._wall < FLOOR_US:
            return Judgement(Trust.UNTRUSTED, f"the clock stands at {moment(self._wall)}")
        if self._doubt is not None:
            return Judgement(Trust.UNTRUSTED, self._doubt[2])
        said = self._said_by_others(kept)
        if kept is Kept.KEPT or (said is None and self._crm_agrees()):
            return Judgement(Trust.TRUSTED, said or "")
        if said is None and kept is Kept.WAITING and self._uptime_s() < BOOT_S:
            said = "the machine has only just started, and its time service has not set the clock yet"
        if said is None:
            return Judgement(Trust.HOLDING)
        long = self.untrusted and self._mono - self._since_mono > HELD_S * 1e6
        # Once it has been held long enough it stays so, until something else is the matter.
        long |= self.trust is Trust.HOLDING and bool(self.judgement.reason)
        return Judgement(Trust.HOLDING if long else Trust.UNTRUSTED, said)

    def _said_by_others(self, kept: Kept) -> str | None:
        now_us = self._clock.of(self._wall)
        crm = self._crm_off()
        if crm is not None and abs(crm) > CRM_US:
            return (
                f"by the clock of the CRM this gateway is {duration(crm)} behind"
                if crm > 0
                else f"by the clock of the CRM this gateway is {duration(-crm)} ahead"
            )
        settled = self._mono - self._stepped_mono > SETTLED_S * 1e6
        off = agreed(self.readers, self._wall) if settled and not self._crm_agrees() else None
        if off is not None:
            n = len(_telling(self.readers, self._wall))
            return (
                f"all {n} readers agree: this gateway's clock is {duration(off)} behind"
                if off > 0
                else f"all {n} readers agree: this gateway's clock is {duration(-off)} ahead"
            )
        if kept is not Kept.KEPT and now_us < self.known_us - BEHIND_US:
            return f"the clock is {duration(self.known_us - now_us)} before what was stored last"
        return None

    def _crm_off(self) -> int | None:
        """The CRM's clock minus ours. That it is behind may be a message's delay, unless it stays so."""
        fresh = [(mono, off) for mono, off in self._crm if self._mono - mono <= CRM_FRESH_S * 1e6]
        if not fresh:
            return None
        off = max(off for _, off in fresh)
        lasts = fresh[-1][0] - fresh[0][0] >= CRM_LASTS_S * 1e6
        return off if off >= -CRM_US or lasts else None

    def _crm_agrees(self) -> bool:
        off = self._crm_off()
        return off is not None and abs(off) <= CRM_US


def _kind(judgement: Judgement) -> str:
    """The reason without its figures, which change all the time."""
    return re.sub(r"\d[\d :-]*(h|d|min|s)?\b", "", judgement.reason)


def agreed(readers: Mapping[str, int | None], wall_us: int) -> int | None:
    """The offset that all readers with a plausible clock have in common, two of them at least; None without one that
    matters."""
    offsets = _telling(readers, wall_us)
    if len(offsets) < 2 or max(offsets) - min(offsets) > AGREE_US:
        return None
    off = round(statistics.median(offsets))
    return off if abs(off) > READERS_US else None


def _telling(readers: Mapping[str, int | None], wall_us: int) -> list[int]:
    """Offsets of readers that have a clock. One that counts from its own start tells nothing."""
    return [off for off in readers.values() if off is not None and wall_us + off >= FLOOR_US]


def is_kept() -> Kept:
    """Whether something keeps the machine's clock right."""
    if offset_us() is not None:
        return Kept.KEPT
    waiting = CHRONY.exists() or (TIMESYNCD.exists() and not (TIMESYNCD / "synchronized").exists())
    return Kept.WAITING if waiting else Kept.UNKEPT


def was_set(step: Step) -> str:
    """A step in words."""
    if step.by_us > 0:
        return f"the clock was set forward by {duration(step.by_us)}"
    return f"the clock was set back by {duration(-step.by_us)}"


def duration(us: int) -> str:
    """Two figures are enough."""
    for length_us, unit in ((86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "min")):
        if us >= 1.95 * length_us:
            return f"{us / length_us:.0f} {unit}"
    return f"{us / 1e6:.0f} s"


def moment(wall_us: int) -> str:
    """A time in words."""
    return f"{dt.datetime.fromtimestamp(wall_us / 1e6, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


def _uptime_s() -> float:
    try:
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    except (AttributeError, OSError):  # not Linux
        return time.monotonic()
