"""Client of the service's live socket for the page: one line of JSON every half second, with reconnects."""

from __future__ import annotations

import asyncio
import contextlib
from enum import Enum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from edge.store.live_socket import LINE_LIMIT_BYTES

STALE_S = 5.0
"""Wall seconds without a line after which the state counts as stale."""
RETRY_S = 1.0


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ZoneNow(_Part):
    id: str
    floor: str
    state: Literal["ok", "unknown"]
    people: int
    by_class: dict[str, int] = Field(default_factory=dict)


class MemberNow(_Part):
    member: str
    tier: str
    zone: str
    since_us: int


class RecognitionNow(_Part):
    at_us: int
    member: str
    tier: str
    zone: str


class CueNow(_Part):
    id: int
    kind: Literal["arrival", "waiting"]
    member: str
    tier: str
    zone: str
    here: str | None = None
    since_us: int
    due_us: int
    made_us: int
    expires_us: int
    rule: str
    version: int
    action: str | None = None
    state: Literal["open", "snoozed", "acknowledged"]
    until_us: int | None = None
    who: str | None = None


class TookNow(_Part):
    """Delay of cues in real milliseconds."""

    n: int = 0
    p95: float | None = None


class CuesNow(_Part):
    version: int = 0
    rules: int = 0
    quiet: bool = False
    more: int = 0
    """Number of open cues beyond those listed."""
    took_ms: dict[str, TookNow] = Field(default_factory=dict)
    open: tuple[CueNow, ...] = ()


class ReaderNow(_Part):
    id: str
    driver: str
    via: str | None = None
    """The forwarder at which it is."""
    link: Literal["up", "connecting", "down"]
    reason: str = ""
    since_us: int
    reads: int = 0
    reads_per_s: float = 0
    clock_offset_us: int | None = None
    flooded: bool = False
    """True if the reader reports more new tags than a shop can have …"""
    left_out: int = 0
    """… and the number of its reads dropped since the start."""


class ForwarderNow(_Part):
    """Another gateway of the store. Without a connection `behind_us` and `kept_bytes` are unknown."""

    id: str
    link: Literal["up", "connecting", "down"]
    reason: str = ""
    since_us: int
    clock_offset_us: int | None = None
    """Its clock minus the service's."""
    behind_us: int | None = None
    """So old is what it sends."""
    kept_bytes: int | None = None
    lost: int = 0
    """Times that it had to delete reads unsent …"""
    left_out: int = 0
    """… and the number of reads whose time is not known."""
    foreign: tuple[str, ...] = ()
    """Readers that it sends and that are not its own by the service's store file."""


class WitnessNow(_Part):
    """Whether the lease lets events leave the store; the reason if the witness doesn't answer."""

    valid: bool
    reason: str = ""


class StandbyNow(_Part):
    """The gateway that can take over. Protected: nothing leaves the store that it doesn't have."""

    link: Literal["up", "connecting", "down"]
    protected: bool
    reason: str = ""
    since_us: int
    behind_bytes: int | None = None
    """Bytes of the log that are still to be sent; unknown without a connection."""
    copies: int = 0
    """Whole copies that it was sent since the start."""
    witness: WitnessNow | None = None


class AntennaNow(_Part):
    """Antenna whose level has drifted."""

    reader: str
    port: int
    zone: str
    drift_db: float


class RestingNow(_Part):
    """Tag that doesn't move, without its identity."""

    zone: str
    tag_class: str
    since_us: int


class DoubleNow(_Part):
    """A tag that is at two places at once, whichever: its reads are left out."""

    zones: tuple[str, str]
    tag_class: str
    since_us: int


class RadioNow(_Part):
    """What the engine takes the store's radio to be, and what that comes from. Densities in nats a second."""

    source: Literal["usual", "compared", "learnt", "kept", "named"]
    since_us: int
    next_us: int | None = None
    level_1m_dbm: float
    slope_db: float
    half_rate_dbm: float
    spread_db: float
    at_us: int | None = None
    reads: int | None = None
    tags: int | None = None
    seconds: int | None = None
    before: float | None = None
    after: float | None = None
    worse_nats: float | None = None
    """So much worse than what was learnt last do the figures of the store file explain reads."""


class BrokerNow(_Part):
    connected: bool
    reason: str = ""
    since_us: int


class BacklogNow(_Part):
    """Events of a class. The oldest has waited for `oldest_s`, since the start at most; the CRM last acknowledged any
    `acked_s` ago."""

    sent: int
    pending: int
    oldest_s: float = 0
    acked_s: float | None = None


class FailingNow(_Part):
    """Background job that fails and is retried."""

    job: str
    reason: str
    since_us: int
    times: int


class ClockNow(_Part):
    """Whether the gateway's time can be trusted, why not, and when it was last set, by how much."""

    trust: Literal["trusted", "holding over", "untrusted"] = "holding over"
    reason: str = ""
    since_us: int = 0
    steps: int = 0
    stepped_us: int | None = None
    stepped_by_us: int = 0


class CertificateNow(_Part):
    """A certificate of the store file, or the broker's own, and how many days it holds."""

    what: str
    file: str = ""
    until_us: int
    days: int


class FoundNow(_Part):
    """What an examination of the gateway found wrong, and what to do about it."""

    what: str
    state: Literal["warning", "error"]
    said: str
    todo: str = ""


class DoctorNow(_Part):
    """The last examination; `at_us`: None before the first."""

    at_us: int | None = None
    found: tuple[FoundNow, ...] = ()


class DatabaseNow(_Part):
    trouble: str | None = None
    bytes: int = 0
    quota_bytes: int = 0
    checkpoint_bytes: int = 0
    commits: int = 0
    """Since the start, as the next two."""
    commit_s: float = 0
    failed_commits: int = 0


class QueueNow(_Part):
    """Reads on their way to the engine: so many wait, the oldest for so long; so many are held back until the time is
    known."""

    reads: int = 0
    oldest_s: float = 0
    held: int = 0


class ProcessNow(_Part):
    """The service's process: seconds since its start, and bytes written to disk since then, if the system tells."""

    up_s: float = 0
    written_bytes: int | None = None


class Now(_Part):
    """One line of the live socket. Times in store time, UTC microseconds."""

    as_of_us: int
    watermark_us: int
    speed: float = 1
    store: str
    version: str = ""
    pid: int = 0
    zones: tuple[ZoneNow, ...] = ()
    members: tuple[MemberNow, ...] = ()
    recognitions: tuple[RecognitionNow, ...] = ()
    cues: CuesNow = CuesNow()
    readers: tuple[ReaderNow, ...] = ()
    forwarders: tuple[ForwarderNow, ...] = ()
    standby: StandbyNow | None = None
    reads: int = 0
    reads_per_s: float = 0
    tags_present: int = 0
    visits: int = 0
    journeys: int = 0
    recognised: int = 0
    broker: BrokerNow
    database: DatabaseNow = DatabaseNow()
    queue: QueueNow = QueueNow()
    process: ProcessNow = ProcessNow()
    page: str | None = None
    """Address of the page, if there is one, and …"""
    page_took_s: float | None = None
    """… how long it took to answer; None if it does not, or was not asked yet."""
    clock: ClockNow = ClockNow()
    outbox: dict[str, BacklogNow] = Field(default_factory=dict)
    failing: tuple[FailingNow, ...] = ()
    certificates: tuple[CertificateNow, ...] = ()
    counters: dict[str, int] = Field(default_factory=dict)
    drifted: tuple[AntennaNow, ...] = ()
    resting: tuple[RestingNow, ...] = ()
    doubles: tuple[DoubleNow, ...] = ()
    radio: RadioNow | None = None
    doctor: DoctorNow = DoctorNow()


class State(Enum):
    """Freshness of the live state."""

    LOADING = "loading"  # nothing yet, and the first connection is still being tried
    LIVE = "live"  # a line within STALE_S
    STALE = "stale"  # connected, but no line for longer: the service is there and stuck
    OFFLINE = "offline"  # no connection; `now` is the last line of an earlier one, if any


class LiveClient:
    """Keeps the latest line; viewers wait for a new `version`."""

    def __init__(self, path: Path, *, stale_s: float = STALE_S, retry_s: float = RETRY_S) -> None:
        self._path = path
        self._stale_s = stale_s
        self._retry_s = retry_s
        self._changed = asyncio.Event()
        self.state = State.LOADING
        self.now: Now | None = None
        self.version = 0
        """Incremented with every line and every change of state."""
        self.closing = False

    async def run(self) -> None:
        """Read the socket until cancelled."""
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
                await self._read()
            self._move(State.OFFLINE)
            await asyncio.sleep(self._retry_s)

    async def wait(self, version: int, timeout_s: float) -> bool:
        """Wait for a newer version than `version`; False after timeout_s without one."""
        if self.version != version or self.closing:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """End all waits: the page is about to stop."""
        self.closing = True
        self._changed.set()

    async def _read(self) -> None:
        reader, writer = await asyncio.open_unix_connection(str(self._path), limit=LINE_LIMIT_BYTES)
        try:
            while True:
                try:
                    async with asyncio.timeout(self._stale_s):
                        line = await reader.readline()
                except TimeoutError:
                    self._move(State.STALE if self.now else State.OFFLINE)
                    continue
                if not line.endswith(b"\n"):
                    return
                self.now = Now.model_validate_json(line)
                self._move(State.LIVE, force=True)
        finally:
            writer.close()

    def _move(self, state: State, *, force: bool = False) -> None:
        if state is not self.state or force:
            self.state = state
            self.version += 1
            self._changed.set()
            if not self.closing:
                self._changed = asyncio.Event()
