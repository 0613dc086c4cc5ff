"""Types that all reader sessions share: settings, status, notices, and the sink for their reads."""

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
    """State of the connection to a reader, as store IT sees it."""

    DOWN = "down"  # no connection; `reason` says why and the session is trying again
    CONNECTING = "connecting"  # transport open or opening, reader not yet inventorying
    UP = "up"  # inventorying: silence means that no tag is there


@dataclass(frozen=True)
class Tls:
    """Certificates of a reader and ours: `ca` or `pin` verifies the reader. PEM files; the pin is a SHA-256 fingerprint
    in capital hex."""

    ca: Path | None = None
    pin: str | None = None
    cert: Path | None = None
    key: Path | None = None


@dataclass(frozen=True)
class Select:
    """Select filter: the EPC bits, from bit `offset`, that a tag must have to be reported."""

    offset: int
    bits: int
    value: bytes
    """The bits, left-aligned and padded with zeros."""


@dataclass(frozen=True)
class Radio:
    """Settings of one antenna port; None: as configured on the reader."""

    power_cdbm: int | None = None
    mode: int | None = None
    """Number in the reader's own table of modes."""
    population: int | None = None
    """Number of tags to expect."""


@dataclass(frozen=True)
class Push:
    """Settings of a reader that pushes JSON."""

    username: str | None = None
    password_file: Path | None = None
    heartbeat_s: float | None = None
    """Interval at which the reader sends something even without tags; None: it doesn't, or it isn't known."""
    holds: bool = False
    """True if it, or the broker, keeps what can't be delivered, and delivers it later."""
    preset: str | None = None
    """Impinj: inventory preset to start."""
    source: str | None = None
    """Only address that may send."""
    mapping: Mapping[str, str] = field(default_factory=dict)
    """Generic: pointers by the names in pushed.formats."""


@dataclass(frozen=True)
class ReaderSettings:
    """Settings of one reader; `ports` maps its antenna ports to global antenna numbers."""

    id: str
    driver: str
    address: str
    ports: Mapping[int, int]
    clock_tolerance_us: int = 100_000
    """Clock difference, in store time, below which a reader's clock isn't corrected: it can't be told from network
    delay."""
    tls: Tls | None = None
    region: str | None = None
    """ThingMagic: name in thingmagic.REGIONS; None: as configured on the reader."""
    identity: str | None = None
    """LLRP and JSON: the reader's MAC or EPC in hex, as on its label or as it reports it; a reader with another one
    isn't used."""
    profile: str | None = None
    """LLRP: name in llrp.profiles.PROFILES; None: chosen by the maker that the reader reports. JSON: name in
    pushed.formats.FORMATS; None: the mapping."""
    session: int | None = None
    """LLRP: Gen2 session, 0 to 3; None: as configured on the reader."""
    search_mode: str | None = None
    """LLRP: name in llrp.profiles.SEARCH_MODES, for makes that support it; None: as configured on the reader."""
    radio: Mapping[int, Radio] = field(default_factory=dict)
    """LLRP: settings by antenna port, within the reader's own tables."""
    groups: tuple[tuple[int, ...], ...] = ()
    """LLRP: antenna ports that are searched together, for `group_s` in turn; none: all at once."""
    group_s: float = 1.0
    report_tags: int = 1
    """LLRP: number of tags gathered for a report."""
    phase: bool = False
    """LLRP: request the phase in reports, for makes that support it; JSON: keep it."""
    select: tuple[Select, ...] = ()
    """LLRP: report only tags that match one of these, if the reader can; none: report all."""
    inputs: tuple[int, ...] = ()
    """LLRP: input ports (GPI) whose changes are reported."""
    outputs: tuple[int, ...] = ()
    """LLRP: output ports (GPO) that may be switched; initially off."""
    takeover: bool = False
    """LLRP: delete other programs' ROSpecs if they block ours."""
    push: Push | None = None
    """JSON only."""


@dataclass(frozen=True)
class Tables:
    """A reader's own tables of its radio; empty where it doesn't tell them."""

    powers_cdbm: tuple[int, ...] = ()
    """Transmit powers in 0.01 dBm, in ascending order."""
    modes: Mapping[int, int] = field(default_factory=dict)
    """Bits a second from the tag, by the numbers of its modes."""


@dataclass(frozen=True)
class ReaderStatus:
    """State of the connection to a reader since `since_us` (store clock); `reason` is a sentence for store IT."""

    reader: str
    link: Link
    reason: str
    since_us: int
    clock_offset_us: int | None = None
    """Reader clock minus store clock, if the reader has a clock."""
    detail: Mapping[str, str] = field(default_factory=dict)
    """Details that the reader reports about itself: model, firmware, identity."""
    keeps: bool = False
    """While the link is down: whether the reader may be buffering reads that it will deliver later."""
    reads_from_us: int | None = None
    """While the link is up: buffered reads made since then (store clock) may still arrive; 0 if the start is unknown,
    None if no more are expected. Only a link that comes up with it set has lost nothing."""
    inputs: frozenset[int] = frozenset()
    """While the link is up: the requested inputs that the reader reports."""
    tables: Tables = Tables()
    """While the link is up: what the reader's radio can do."""


@dataclass(frozen=True)
class Gap:
    """Period (store clock) whose reads were lost although the link was up; `reason` is a sentence."""

    reader: str
    from_us: int
    to_us: int
    reason: str


@dataclass(frozen=True)
class Notice:
    """Message about a reader that has no effect on its reads: shown as health information only."""

    reader: str
    at_us: int
    text: str


@dataclass(frozen=True)
class Contact:
    """Change of a reader's input, with store time."""

    reader: str
    port: int
    at_us: int
    high: bool


class Sink(Protocol):
    """Receiver of what a session delivers; the pipeline implements it."""

    async def reads(self, reader: str, batch: Reads) -> None:
        """Take a batch of reads, which the sink owns from then on; waits while the pipeline is full."""

    def status(self, status: ReaderStatus) -> None:
        """Take a change of state. Called before the first reads of a link that came up."""

    def gap(self, gap: Gap) -> None:
        """Take a period of lost reads: its zones are unknown for that time."""

    def notice(self, notice: Notice) -> None:
        """Take a message for health."""

    def contact(self, contact: Contact) -> None:
        """Take a change of an input. Called after the status of the connection that it came over."""


@runtime_checkable
class PhaseSink(Protocol):
    """Sink that also takes the RF phase, from readers that are asked for it (`ReaderSettings.phase`)."""

    def phases(self, reader: str, phases: NDArray[np.int16]) -> None:
        """Take the phases of the next batch of reads, in 4096 steps a turn; PHASE_UNKNOWN where the reader gave
        none."""


class Session(Protocol):
    """Session with a reader: `run` continues until cancelled, whatever fails."""

    async def run(self) -> None: ...


@runtime_checkable
class Switchboard(Protocol):
    """Session with a reader that has outputs."""

    def switch(self, port: int, high: bool) -> None:
        """Switch an output, now or as soon as the reader is connected; a refusal is reported as a notice."""


Clock = Callable[[], int]
"""Store clock: returns UTC in microseconds. One for the whole service; a demo may run it faster."""
