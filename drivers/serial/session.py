"""Sessions with serial readers: open, find, set up, read, and start again after every failure. A family implements how
its reader is silenced, identified, set up and started; see the hooks of `SerialSession`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import ClassVar, Generic, TypeVar

from drivers.read import ANTENNA_UNKNOWN, RSSI_UNKNOWN, Reads, of_rows, row
from drivers.serial.framing import GAP_S, NETWORK_GAP_S, Extensible, Framer, scan
from drivers.serial.tags import Content, MalformedRecordError, TagRead
from drivers.serial.transport import Line, TransportError, open_line
from drivers.session import Clock, Link, Notice, ReaderSettings, ReaderStatus, Sink

log = logging.getLogger(__name__)

F = TypeVar("F")

ANSWER_S = 1.0
PROBE_S = 0.25
LEAVE_S = 0.5
RETRY_S = (1.0, 5.0)
"""First and longest wait between attempts; short, so that a replugged reader reads at once."""
STEADY_S = 60.0
"""A reader that has read for this long resets the backoff."""
NOISE_S = 600.0
NOISE_SHARE = 0.01
"""A share of bytes outside frames above this is reported at most every NOISE_S …"""
MUCH_NOISE_S = 30.0
MUCH_NOISE_SHARE = 0.1
"""… and above this already after MUCH_NOISE_S: the family may be wrong."""
ASKED_TIMES = 3
"""Attempts to identify: a reader that is busy with an earlier host's round may miss the first."""


class ReaderError(Exception):
    """The reader answers but can't be used; the text is a sentence for store IT."""


class SerialSession(ABC, Generic[F]):
    """Session with one serial reader, until `run` is cancelled: delivers its reads and status."""

    NAME: ClassVar[str]
    BAUDS: ClassVar[tuple[int, ...]]
    """Baud rates, most likely first."""
    PORT_MAX: ClassVar[int]
    SETS_PORTS: ClassVar[bool] = False
    """True if the session sets the reader's ports: if it then searches on others, it has lost its settings."""
    SILENCE_S: ClassVar[float] = 5.0
    """Silence after which a reader is started again, and given up if that doesn't help."""
    BREATH_S: ClassVar[float] = 0.05
    """Minimum time between starts: some readers end an empty search at once, thousands of times a second."""

    def __init__(self, settings: ReaderSettings, sink: Sink, clock: Clock) -> None:
        self._settings = settings
        self._sink = sink
        self._clock = clock
        self._framer = self._new_framer()
        self._received_us = 0
        self._bauds = self.BAUDS
        self._detail: Mapping[str, str] = {}
        self._unconnected: set[int] = set()
        self._told: ReaderStatus | None = None
        self._retry_s = RETRY_S[0]
        self._up_since_s: float | None = None
        self._started_s = 0.0
        self._restarted = False
        self._strayed_s: float | None = None
        self._tally = Counter[str]()
        self._noise_since_s: float | None = None
        self._noise_told_s: float | None = None
        self._noise_before = Counter[str]()

    # What a family says

    @abstractmethod
    def _frame_at(self, buffer: bytes, at: int) -> tuple[F, int] | Extensible[F] | str | None:
        """See framing.Probe."""

    @abstractmethod
    def _content(self, frame: F) -> Content:
        """Decode a frame; may raise MalformedRecordError."""

    async def _hush(self, line: Line, patience_s: float) -> None:
        """Stop reading and discard what was under way; a reader that doesn't answer is no error here."""

    @abstractmethod
    async def _identify(self, line: Line, patience_s: float) -> dict[str, str]:
        """Ask the reader for its details; ReaderError if it doesn't answer."""

    async def _set_up(self, line: Line) -> None:
        """Set up the reader; ReaderError if it refuses."""

    @abstractmethod
    async def _start(self, line: Line) -> None:
        """Start reading, or continue after the reader's search has ended."""

    def _has_restarted(self, frame: F) -> bool:
        """True if the reader has just booted and lost its settings."""
        return False

    def _reply(self, frame: F) -> bytes:
        """Return what the reader wants to be sent back for a frame, such as a sign of life."""
        return b""

    def _stamp(self, tags: Sequence[TagRead]) -> list[int]:
        """Return the store time of each tag: the time of receipt, unless the reader has a clock."""
        return [self._received_us] * len(tags)

    # What all do

    @property
    def counters(self) -> dict[str, int]:
        """Counters of this session: bytes, bytes outside frames, reads, frames without tags, malformed frames."""
        return {**self._tally, "skipped_bytes": self._tally["skipped_bytes"] + self._framer.skipped}

    async def run(self) -> None:
        """Read for ever; report failures and try again."""
        self._tell(Link.CONNECTING, f"opening {self._settings.address}")
        while True:
            try:
                await self._attempt()
            except (TransportError, ReaderError) as error:
                self._tell(Link.DOWN, str(error))
            except Exception as error:
                reason = f"unexpected error: {error!r}"
                if self._told is None or self._told.reason != reason:
                    log.exception("reader %s: unexpected error", self._settings.id)
                self._tell(Link.DOWN, reason)
            await self._pause()

    async def _pause(self) -> None:
        """Wait before the next attempt, longer each time until the reader has read for a while."""
        now_s = asyncio.get_running_loop().time()
        if self._up_since_s is not None and now_s - self._up_since_s >= STEADY_S:
            self._retry_s = RETRY_S[0]
        self._up_since_s = None
        await asyncio.sleep(self._retry_s * random.uniform(0.8, 1.2))
        self._retry_s = min(2 * self._retry_s, RETRY_S[1])

    async def identify(self, line: Line, bauds: Sequence[int]) -> Mapping[str, str]:
        """Ask over an open line which reader this is, and return its details; ReaderError if none of this family
        answers, TransportError if the line fails."""
        self._bauds = tuple(bauds)
        await self._find(line)
        return self._detail

    async def _attempt(self) -> None:
        line = await open_line(self._settings.address, self._bauds[0])
        try:
            while True:
                await self._find(line)
                if self._told and self._told.link is Link.CONNECTING:  # once down it stays so until it reads
                    self._tell(Link.CONNECTING, "reader answers, setting it up")
                ports = sorted(self._settings.ports)
                if not ports or ports[-1] > self.PORT_MAX:
                    raise ReaderError(f"ports must be 1 to {self.PORT_MAX}, not {_list(ports) or 'none'}")
                self._restarted = False
                await self._set_up(line)
                await self._read(line)
                self._tell(Link.DOWN, "it has restarted, and is set up again; if it often does, look at its supply")
                await self._pause()
        finally:
            # It would go on streaming to nobody, and look dead to the next program that asks it something.
            with suppress(TransportError):
                await self._hush(line, LEAVE_S)
            await line.close()

    async def _find(self, line: Line) -> None:
        """Silence the reader, at whatever baud rate it uses, and identify it."""
        bauds = self._bauds if line.tty else self._bauds[:1]
        for baud in bauds:
            patience_s = ANSWER_S if baud == bauds[0] else PROBE_S
            line.set_baud(baud)
            self._renew()
            await self._hush(line, patience_s)
            with suppress(ReaderError):
                detail = await self._identify(line, patience_s)
                self._detail = MappingProxyType(detail | ({"baud": str(baud)} if line.tty else {}))
                self._bauds = (baud, *(b for b in self.BAUDS if b != baud))
                return
        tried = f" at {_list(bauds)} baud" if line.tty else ""
        raise ReaderError(
            f"no {self.NAME} reader answers on {line.address}{tried}: check its power and cable and the driver's name"
        )

    async def _read(self, line: Line) -> None:
        """Start reading and deliver until something fails or the reader restarts."""
        silent = False
        self._unconnected = set()
        await self._go_on(line)
        while not self._restarted:
            frames = await self._frames(line, self.SILENCE_S)
            if not frames:
                await self._silence(line, silent)
                silent = True
                continue
            silent = False
            contents = self._contents(frames)
            tags = [tag for content in contents for tag in content.tags]
            failure = next((content.failure for content in contents if content.failure), "")
            self._unconnected |= {content.unconnected for content in contents if content.unconnected is not None}
            antennas = {tag.antenna for tag in tags}
            self._unconnected -= antennas
            if tags or not failure:
                self._tell(Link.UP, self._reading())
            if tags:
                await self._sink.reads(self._settings.id, self._batch(tags, self._stamp(tags)))
            if failure:
                raise ReaderError(f"it does not read: {failure}")
            self._restarted |= self._has_strayed(antennas | {content.antenna for content in contents})
            if any(content.ends for content in contents):
                await self._go_on(line)

    def _has_strayed(self, antennas: set[int | None]) -> bool:
        """True if the reader searches on other ports than set, for the first time in a while."""
        if not self.SETS_PORTS or antennas <= {None, *self._settings.ports}:
            return False
        now_s, last_s = asyncio.get_running_loop().time(), self._strayed_s
        self._strayed_s = now_s
        return last_s is None or now_s - last_s > STEADY_S

    async def _go_on(self, line: Line) -> None:
        """Start a search, after BREATH_S if the last start was just now."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._started_s + self.BREATH_S - loop.time()))
        self._started_s = loop.time()
        await self._start(line)

    async def _silence(self, line: Line, again: bool) -> None:
        """Set up and start a silent reader, which may have restarted; ReaderError if that was already tried."""
        if again:
            raise ReaderError(f"it has sent nothing for {2 * self.SILENCE_S:g} s, though it was started again")
        self._tell(Link.DOWN, f"it has sent nothing for {self.SILENCE_S:g} s: it is set up again", self._received_us)
        await self._hush(line, ANSWER_S)
        await self._identify(line, ANSWER_S)
        await self._set_up(line)
        await self._go_on(line)

    def _contents(self, frames: Iterable[F]) -> list[Content]:
        contents: list[Content] = []
        for frame in frames:
            self._restarted |= self._has_restarted(frame)
            try:
                contents.append(self._content(frame))
            except MalformedRecordError as error:
                self._tally["malformed"] += 1
                log.debug("reader %s: %s", self._settings.id, error)
        self._tally["reads"] += sum(len(content.tags) for content in contents)
        self._tally["without_tag"] += sum(not content.tags for content in contents)
        return contents

    async def _ask(self, line: Line, command: bytes, answers: Callable[[F], bool], patience_s: float = ANSWER_S) -> F:
        """Send a command and return its first answer; frames before it are left-overs of reading. ReaderError without
        one."""
        loop = asyncio.get_running_loop()
        for _ in range(ASKED_TIMES):
            await line.write(command)
            deadline = loop.time() + patience_s
            heard = False
            while frames := await self._frames(line, deadline - loop.time()):
                heard = True
                self._restarted |= any(map(self._has_restarted, frames))
                for frame in frames:
                    if answers(frame):
                        return frame
            if not heard:
                break
        raise ReaderError(f"it did not answer command {command.hex(' ')} within {patience_s:g} s")

    async def _frames(self, line: Line, patience_s: float) -> list[F]:
        """Return the next whole frames; none if none arrive in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_s
        quiet = False
        while (left_s := deadline - loop.time()) > 0:
            gap_s = GAP_S if line.tty or self._framer.extensible else NETWORK_GAP_S
            if quiet:  # for long already
                gap_s = GAP_S / 10
            try:
                chunk = await line.read(min(gap_s, left_s) if self._framer.pending else left_s)
            except TimeoutError:
                frames = self._framer.gap()
                quiet = True
            else:
                self._received_us = self._clock()
                self._tally["bytes"] += len(chunk)
                frames = self._framer.feed(chunk)
                self._tell_noise(loop.time())
                quiet = False
            for frame in frames:
                if reply := self._reply(frame):
                    await line.write(reply)
            if frames:
                return frames
        return []

    def _batch(self, tags: Sequence[TagRead], stamps_us: Sequence[int]) -> Reads:
        ports = self._settings.ports
        alone = next(iter(ports.values())) if len(ports) == 1 else ANTENNA_UNKNOWN
        return of_rows(
            [
                row(
                    time_us,
                    epc,
                    alone if antenna is None else ports.get(antenna, ANTENNA_UNKNOWN),
                    RSSI_UNKNOWN if rssi_cdbm is None else rssi_cdbm,
                    seen or 1,
                )
                for (epc, seen, rssi_cdbm, antenna, _), time_us in zip(tags, stamps_us, strict=True)
            ]
        )

    def _reading(self) -> str:
        ports = set(self._settings.ports)
        antennas, lacking = _list(sorted(ports - self._unconnected)), sorted(ports & self._unconnected)
        if lacking:
            return f"reading on antennas {antennas}; nothing is connected to port {_list(lacking)}"
        return f"reading on antennas {antennas}"

    def _tell(self, link: Link, reason: str, since_us: int | None = None) -> None:
        told = self._told
        if link is Link.UP and self._up_since_s is None:
            self._up_since_s = asyncio.get_running_loop().time()
        if told is None or (told.link, told.reason) != (link, reason):
            if told and told.link is link:
                since_us = told.since_us
            elif since_us is None:
                since_us = self._clock()
            self._told = ReaderStatus(self._settings.id, link, reason, since_us, detail=self._detail)
            self._sink.status(self._told)

    def _tell_noise(self, now_s: float) -> None:
        """Report the share of bytes outside frames; `now_s`: loop time."""
        first = self._noise_told_s is None
        if self._noise_since_s is None:
            self._noise_since_s = now_s
        over_s = now_s - self._noise_since_s
        if over_s < (MUCH_NOISE_S if first else NOISE_S):
            return
        since = Counter(self.counters) - self._noise_before
        share = since["skipped_bytes"] / since["bytes"]
        if over_s < NOISE_S and share <= MUCH_NOISE_SHARE:
            return
        if share > NOISE_SHARE:
            text = f"{share:.0%} of what came over its line was no frame: check cable, grounding, speed and driver"
            self._sink.notice(Notice(self._settings.id, self._clock(), text))
        self._noise_since_s = self._noise_told_s = now_s
        self._noise_before = Counter(self.counters)

    def _new_framer(self) -> Framer[F]:
        return Framer(partial(scan, probe=self._frame_at))

    def _renew(self) -> None:
        """Discard what arrived at another baud rate."""
        self._tally["skipped_bytes"] += self._framer.skipped
        self._framer = self._new_framer()


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
