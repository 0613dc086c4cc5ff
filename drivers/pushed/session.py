"""Session with a reader that pushes JSON: what arrives over any transport becomes reads, states and gaps."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

import numpy as np

from drivers.backlog import Backlog
from drivers.clock import ReaderClock
from drivers.links import LinkFailure, Noticed, keep_trying, words
from drivers.pushed.decoder import TIME_MAX_US, Decoded, Decoder
from drivers.pushed.formats import Format, Sign
from drivers.pushed.splitting import Split, Splitter, split_whole
from drivers.pushed.watches import Numbering, Spacing
from drivers.read import Reads
from drivers.session import Clock, Gap, Link, Notice, PhaseSink, Push, ReaderSettings, ReaderStatus, Sink

BAD_SHARE = 0.01
RETRY_S = (0.5, 60.0)
STEADY_S = 60.0
DRAINED_S = 2.0
"""What was kept has arrived after this long without any of it."""
TICK_S = 0.25
GATHER_S = 0.1
"""Streams and subscriptions are read when the loop's time is a multiple of this, so that reads form batches."""
GRACE_S = 5.0
"""A sign of life may be late by this much, and one may be missing."""


@dataclass
class Memory:
    """What is remembered from one connection to the next."""

    newest_us: int = 0
    noticed: Noticed = field(default_factory=Noticed)
    detail: dict[str, str] = field(default_factory=dict)


class Transport(Protocol):
    """Way on which messages arrive; `run` ends with LinkFailure."""

    waits: str
    """What the session waits for once the way is open, as the reason of its status; empty if it waits for nothing."""

    async def run(self, session: PushedSession) -> NoReturn: ...


class PushedSession:
    """Session with one reader; `run` continues until cancelled."""

    def __init__(self, settings: ReaderSettings, form: Format, transport: Transport, sink: Sink, clock: Clock) -> None:
        """Raises ValueError for an impossible format."""
        self.settings, self.push, self.format = settings, settings.push or Push(), form
        self.heard_s = 0.0
        """Loop time of the last sign of life."""
        self._sink, self._clock = sink, clock
        self._memory = Memory()
        self._transport = transport
        self._status: ReaderStatus | None = None
        self._told: tuple[int | None, int | None] = (None, None)
        self._past: Counter[str] = Counter()
        self._turn = asyncio.Lock()
        self._spacing = Spacing()
        self._phase_sink = sink if settings.phase and isinstance(sink, PhaseSink) else None
        self._begin()

    def _begin(self) -> None:
        self._decoder = Decoder(self.format, self.settings.ports)
        self._splitter = Splitter(self.format.lines)
        self._reader_clock = ReaderClock(self.settings.clock_tolerance_us)
        self._numbering = Numbering()
        self._backlog: Backlog | None = None
        self._up_since_s: float | None = None
        self._received_us = self._clock()

    async def run(self) -> NoReturn:
        """Receive for ever; report failures and try again."""
        self.say(Link.CONNECTING, f"connecting to {self.settings.address}")
        await keep_trying(self.settings.id, self._once, self._failed, self._was_steady, RETRY_S)

    async def _once(self) -> NoReturn:
        self._begin()
        self.alive()
        try:
            await self._both()
        finally:
            self._past.update(self._decoder.counters)
            self._decoder.counters = dict.fromkeys(self._decoder.counters, 0)

    def _was_steady(self) -> bool:
        up_since_s = self._up_since_s
        return up_since_s is not None and asyncio.get_running_loop().time() - up_since_s >= STEADY_S

    def _failed(self, reason: str, since_us: int | None) -> bool:
        new = self._status is None or self._status.reason != reason
        self.say(Link.DOWN, reason, since_us)
        return new

    async def _both(self) -> NoReturn:
        """Receive and watch; the first failure of either ends both."""
        tasks = [asyncio.create_task(self._transport.run(self)), asyncio.create_task(self._watch())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        raise AssertionError("neither task ends without an exception")

    @property
    def counters(self) -> dict[str, int]:
        """Numbers of decoded and rejected items (decoder.COUNTERS), since the session began."""
        return dict(self._past + Counter(self._decoder.counters))

    # What transports call

    def open(self) -> None:
        """Note that the way is open."""
        if waits := self._transport.waits:
            if self._status is None or self._status.link is not Link.DOWN:
                self.say(Link.CONNECTING, waits)
        else:
            self.up()

    def alive(self) -> None:
        """Note a sign of life."""
        self.heard_s = asyncio.get_running_loop().time()

    def up(self) -> None:
        """Note that the reader takes inventory."""
        if self._status is not None and self._status.link is Link.UP:
            return
        now_s = asyncio.get_running_loop().time()
        self._up_since_s = now_s
        if self.push.holds:
            self._backlog = Backlog(
                self._memory.newest_us, self._clock(), self.settings.clock_tolerance_us, DRAINED_S, now_s
            )
        self._told = self._reader_clock.offset_us, self._backlog.from_us if self._backlog is not None else None
        self._tell(Link.UP, "receiving", None)

    def idle(self, reason: str, since_us: int | None = None) -> None:
        """Note that the reader takes no inventory although it can be reached."""
        self.say(Link.DOWN, reason, since_us)

    def say(self, link: Link, reason: str, since_us: int | None = None) -> None:
        """Report a state that is not up."""
        if self._status is not None and (self._status.link, self._status.reason) == (link, reason):
            return
        self._told = None, None
        self._backlog = None
        self._tell(link, reason, since_us)

    def notice(self, text: str) -> None:
        """Report a message, at most every ten minutes."""
        if self._memory.noticed.is_new(text):
            self._sink.notice(Notice(self.settings.id, self._clock(), text))

    def knows(self, **detail: str) -> None:
        """Note what the reader tells about itself."""
        self._memory.detail |= detail

    @property
    def now_us(self) -> int:
        """Store time."""
        return self._clock()

    async def chunk(self, data: bytes) -> None:
        """Take the next bytes of a stream."""
        self.alive()
        await self._take(self._splitter.feed(data))

    async def messages(self, bodies: list[bytes]) -> None:
        """Take whole messages; waits while the pipeline is full."""
        self.alive()
        splits = [split_whole(body) for body in bodies]
        values = [value for split in splits for value in split.values]
        await self._take(Split(values, sum(s.skipped for s in splits), sum(s.broken for s in splits)))

    def lost(self, reason: str) -> None:
        """Report that reads since the newest one were lost."""
        from_us, to_us = self._memory.newest_us, self._clock()
        if from_us and to_us > from_us:
            self._sink.gap(Gap(self.settings.id, from_us, to_us, reason))

    # What arrives

    async def _take(self, split: Split) -> None:
        async with self._turn:
            self._received_us = self._clock()
            decoded = self._decoder.decode(split.values)
            self._decoder.counters["malformed"] += split.broken
            self._complain()
            self._check_identity(decoded.identity)
            if self._transport.waits and split.values:
                self.up()
            for sign, value in decoded.signs:
                self._signed(sign, value)
            if len(decoded.reads):
                self.up()
                await self._deliver(self._place(decoded))
            self._update()

    def _place(self, decoded: Decoded) -> Reads:
        """Convert reads to store time: the reader's own, corrected, or the time of receipt where it gave none."""
        received_us, reads = self._received_us, decoded.reads
        if 0 <= decoded.newest_us < TIME_MAX_US and (
            self._backlog is None or abs(received_us - decoded.newest_us) < 20 * self.settings.clock_tolerance_us
        ):
            self._reader_clock.sample(decoded.newest_us, received_us)
        times = reads["time_us"]
        times += self._reader_clock.correction_us or 0
        # Nothing is seen after it was received: a time far ahead is a clock that has just been set.
        np.minimum(times, received_us + self.settings.clock_tolerance_us, out=times)
        times[~decoded.timed] = received_us
        if (missing := self._numbering.take(decoded.sequence, times)) is not None:
            number, from_us, to_us = missing
            if to_us > from_us:
                reason = f"{number} messages are missing in the reader's numbering: reads were lost"
                self._sink.gap(Gap(self.settings.id, from_us, to_us, reason))
        if self._phase_sink is not None:
            self._phase_sink.phases(self.settings.id, decoded.phase)
        return reads

    async def _deliver(self, reads: Reads) -> None:
        times = reads["time_us"].copy()
        if (spacing_s := self._spacing.take(reads)) is not None:
            self.notice(
                f"the reader reports a tag that stays only every {spacing_s:.0f} s: reduce its filter of repeated "
                "reads to one second at most"
            )
        await self._sink.reads(self.settings.id, reads)
        self._memory.newest_us = max(self._memory.newest_us, int(times.max()))
        if self._backlog is not None:
            self._backlog.take(times, self._received_us, asyncio.get_running_loop().time())

    def _signed(self, sign: Sign, value: Any) -> None:
        if sign is Sign.STATE and str(value).lower() == "running":
            self.up()
        elif sign is Sign.STATE or sign is Sign.ENDED:
            self.idle("the reader has stopped its inventory: start one, or name a preset in the store file")
        elif sign is Sign.OVERFLOW:
            self.lost("the reader could not send fast enough: reads were lost")
        else:
            self.notice(f"the reader says that antenna port {str(value)[:8]} was disconnected")

    def _check_identity(self, reported: str | None) -> None:
        wanted = self.settings.identity
        if reported is None:
            return
        self.knows(identity=reported)
        if wanted is not None and reported != wanted:
            raise LinkFailure(
                f"the reader at {self.settings.address} is {reported}, not {wanted} as the store file says"
            )

    def _complain(self) -> None:
        tally = self._decoder.counters
        if tally["no_antenna"]:
            raise LinkFailure(
                "the reader does not say which antenna a tag was at: add it to its messages, or give it one port here"
            )
        if tally["malformed"] > BAD_SHARE * max(100, tally["messages"]):
            self.notice("some of the reader's messages are no valid JSON: check its format and the profile")
        if tally["messages"] > 100 and not tally["reads"]:
            self.notice("none of the reader's messages contains a read: check the profile or mapping")
        if tally["bad_epc"]:
            self.notice("some of the reader's EPCs are impossible: check whether they are hex or base64")
        if tally["bad_time"]:
            self.notice("some of the reader's times can't be read: the time of receipt is used instead")

    # What doesn't arrive

    async def _watch(self) -> NoReturn:
        loop = asyncio.get_running_loop()
        heartbeat_s = self.push.heartbeat_s or self.format.keepalive_s
        if self._transport.waits:
            heartbeat_s = self.push.heartbeat_s
        while True:
            await asyncio.sleep(TICK_S)
            self._update()
            silent_s = loop.time() - self.heard_s
            if heartbeat_s is None or silent_s <= 2 * heartbeat_s + GRACE_S:
                continue
            reason = f"nothing heard from the reader for {2 * heartbeat_s + GRACE_S:.0f} s"
            if not self._transport.waits:
                raise LinkFailure(reason, self._received_us)
            if self._status is not None and self._status.link is Link.UP:
                self.say(Link.DOWN, reason, self._received_us)

    def _update(self) -> None:
        """Report changes of a link that is up: the reader's clock was set, or what was kept has arrived."""
        if self._status is None or self._status.link is not Link.UP:
            return
        if self._backlog is not None and self._backlog.left_s(asyncio.get_running_loop().time()) <= 0:
            self._backlog = None
        offset_us, (told_us, told_from_us) = self._reader_clock.offset_us, self._told
        from_us = self._backlog.from_us if self._backlog is not None else None
        stepped = offset_us is not None and (told_us is None or abs(offset_us - told_us) > self._reader_clock.step_us)
        if stepped or from_us != told_from_us:
            self._told = (offset_us if stepped else told_us), from_us
            self._tell(Link.UP, self._status.reason, self._status.since_us)

    def _tell(self, link: Link, reason: str, since_us: int | None) -> None:
        same = self._status is not None and self._status.link is link
        if same and self._status is not None and link is not Link.UP:
            since_us = self._status.since_us
        offset_us, from_us = self._told
        self._status = ReaderStatus(
            self.settings.id,
            link,
            reason,
            self._clock() if since_us is None else since_us,
            offset_us,
            dict(self._memory.detail),
            keeps=self.push.holds and link is not Link.UP,
            reads_from_us=from_us if link is Link.UP else None,
        )
        self._sink.status(self._status)


def secret(push: Push) -> str | None:
    """Return the password or token; LinkFailure if its file can't be read."""
    if push.password_file is None:
        return None
    try:
        return push.password_file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise LinkFailure(f"password_file of the reader can't be read: {words(error)}") from error
