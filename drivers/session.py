"""What every reader session has in common: what it is told, what it tells, where its reads go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from drivers.read import Reads

PHASE_UNKNOWN = -1


class Link(Enum):
    """How a reader is, as store IT sees it."""

    DOWN = "down"  # no connection; `reason` says why and the session is trying again
    CONNECTING = "connecting"  # transport open or opening, reader not yet inventorying
    UP = "up"  # inventorying: silence means that no tag is there


@dataclass(frozen=True)
class Tls:
    """How a reader is known and who we are to it: `ca` or `pin`, PEM files and a SHA-256 fingerprint in capital hex."""

    ca: Path | None = None
    pin: str | None = None
    cert: Path | None = None
    key: Path | None = None


@dataclass(frozen=True)
class Select:
    """Bits of the EPC, from bit `offset` of it on, that a tag must have to be reported."""

    offset: int
    bits: int
    value: bytes
    """The bits from the left, zeros behind."""


@dataclass(frozen=True)
class ReaderSettings:
    """One reader: `ports` maps its antenna ports to global antenna numbers."""

    id: str
    driver: str
    address: str
    ports: Mapping[int, int]
    clock_tolerance_us: int = 100_000
    """Store time by which a reader's clock may be off without being corrected: below, it can't be told from delay."""
    tls: Tls | None = None
    region: str | None = None
    """ThingMagic: name in thingmagic.REGIONS; None: as configured on the reader."""
    identity: str | None = None
    """LLRP: the reader's MAC, as on its label or as it tells it, or its EPC, in hex; another one gets no inventory."""
    profile: str | None = None
    """LLRP: name in llrp.profiles.PROFILES; None: by what the reader says of itself."""
    session: int | None = None
    """LLRP: Gen2 session, 0 to 3; None: as configured on the reader."""
    search_mode: str | None = None
    """LLRP: name in llrp.profiles.SEARCH_MODES, for makes that have it; None: as configured on the reader."""
    phase: bool = False
    """LLRP: have reports carry the phase, for makes that can."""
    select: tuple[Select, ...] = ()
    """LLRP: report only tags that match one of these, if the reader can; none: report all."""
    inputs: tuple[int, ...] = ()
    """LLRP: ports of contacts (GPI) whose changes are to be told."""
    outputs: tuple[int, ...] = ()
    """LLRP: ports that may be switched (GPO); off until told otherwise."""
    takeover: bool = False
    """LLRP: delete other programs' inventories if they stand in the way of ours."""


@dataclass(frozen=True)
class ReaderStatus:
    """State of a reader's link since `since_us` (store clock); `reason` is a sentence for store IT."""

    reader: str
    link: Link
    reason: str
    since_us: int
    clock_offset_us: int | None = None
    """Reader's clock minus store clock, if the reader has one."""
    detail: Mapping[str, str] = field(default_factory=dict)
    """What the reader says of itself: model, firmware, identity."""
    keeps: bool = False
    """While the link is not up: the reader may be keeping its reads, and will hand them over."""
    reads_from_us: int | None = None
    """While the link is up: reads from then on (store clock) may still come, late, because the reader kept them; 0 if
    it is not known since when. None: none but those of now. Only a link that begins with it has missed nothing."""
    inputs: frozenset[int] = frozenset()
    """While the link is up: the inputs that are watched, of those that were wanted."""


@dataclass(frozen=True)
class Gap:
    """Reads of a reader were lost between two times (store clock), though its link was up; `reason` is a sentence."""

    reader: str
    from_us: int
    to_us: int
    reason: str


@dataclass(frozen=True)
class Notice:
    """Something that a reader says of itself, or that a session noticed, which changes nothing: for health only."""

    reader: str
    at_us: int
    text: str


@dataclass(frozen=True)
class Contact:
    """An input of a reader has changed, at a time of the store's clock."""

    reader: str
    port: int
    at_us: int
    high: bool


class Sink(Protocol):
    """Where a session delivers; the pipeline implements it."""

    async def reads(self, reader: str, batch: Reads) -> None:
        """Take a batch (the sink owns the array afterwards); waits while the pipeline is full."""

    def status(self, status: ReaderStatus) -> None:
        """Take a change of state. Called before the first reads of a link that came up."""

    def gap(self, gap: Gap) -> None:
        """Take note of lost reads: their zones are unknown for that time."""

    def notice(self, notice: Notice) -> None:
        """Pass something on to health."""

    def contact(self, contact: Contact) -> None:
        """Take a change of an input. Called after the status of the link that it came over."""


@runtime_checkable
class PhaseSink(Protocol):
    """A sink that wants the phase too, of readers that are asked for it (`ReaderSettings.phase`)."""

    def phases(self, reader: str, phases: NDArray[np.int16]) -> None:
        """Of the reads that come next, one each: 4096 steps a turn, PHASE_UNKNOWN where the reader gave none."""


class Session(Protocol):
    """A reader's session: `run` goes on until cancelled, through every failure of the reader."""

    async def run(self) -> None: ...


@runtime_checkable
class Switchboard(Protocol):
    """A session whose reader has outputs."""

    def switch(self, port: int, high: bool) -> None:
        """Switch an output, now or as soon as the reader is connected; a refusal comes as a notice."""


Clock = Callable[[], int]
"""The store's clock: UTC in microseconds. One for the whole service; a demo may run it faster."""
