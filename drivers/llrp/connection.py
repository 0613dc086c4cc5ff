"""One LLRP connection from opening to its end: identify the reader, configure it, receive its reports.

Section numbers are LLRP 1.1's.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn

import numpy as np

from drivers import tls as reader_tls
from drivers.backlog import Backlog, LossWatch
from drivers.clock import ReaderClock
from drivers.links import LinkFailure
from drivers.llrp import codec
from drivers.llrp.codec import Header, Malformed, Message, NotLlrp
from drivers.llrp.decoder import UPTIME, UTC, Decoded, ReportDecoder
from drivers.llrp.events import ATTEMPT_REFUSED, ENDED, GONE, ROSPEC_EVENT, notices, why_ended
from drivers.llrp.identity import check_identity
from drivers.llrp.inventory import Inventory, demand
from drivers.llrp.ports import GPI_EVENT, Outputs, off_or_on, watch
from drivers.llrp.profiles import GENERIC, IMPINJ_PEN, choose
from drivers.llrp.radio import shown, tables_of
from drivers.llrp.state import Memory, Phase, Timing
from drivers.llrp.wire import Wire
from drivers.session import Clock, Contact, Gap, Notice, PhaseSink, ReaderSettings, Sink

TIME_MAX_US = 1 << 60
"""Reader times beyond the year 38,000 aren't real, and would overflow in calculations."""


Up = Callable[[int | None, int | None], None]
"""Callback when the inventory runs and when its status changes: clock offset, and since when buffered reads may still
arrive."""
Idle = Callable[[str, int], None]
"""Callback when the reader takes no inventory although it is connected: reason, and since when (store clock)."""

_GREETING_TYPE, _KEEPALIVE_TYPE, _CLOSED_TYPE = 63, 62, 4
_POLL_S = 0.25
"""Interval at which an open backlog or loss is checked for its end."""
_LINK_MONITOR = 38
"""Subtype of ImpinjLinkMonitorConfiguration: u16 mode, u16 missed keepalives."""
_SETTLE_S = 0.25
"""Time for a reader that has ended its inventory to restart it by itself."""
_LOOK_MOST = 4
"""While reads arrive, the inventory is checked this many times more rarely."""
_IDENTIFICATION = 1
"""RequestedData of GET_READER_CONFIG (17.1.21)."""


class LlrpConnection:
    """One LLRP connection, over the wire that `open_wire` opens."""

    def __init__(
        self,
        settings: ReaderSettings,
        open_wire: Callable[[], Awaitable[Wire]],
        sink: Sink,
        clock: Clock,
        timing: Timing,
        memory: Memory,
        up: Up,
        idle: Idle,
    ) -> None:
        self.phase = Phase.OPENING
        self.up_since_s: float | None = None
        """Loop time at which the inventory started."""
        self._settings, self._open, self._sink, self._clock = settings, open_wire, sink, clock
        self._timing, self._memory, self._up, self._idle = timing, memory, up, idle
        self._decoder = ReportDecoder(settings.ports)
        self._clocks = {UTC: ReaderClock(settings.clock_tolerance_us), UPTIME: ReaderClock(0)}
        self._told: tuple[int | None, int | None] = (None, None)
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[bytes]] = {}
        self._early: list[Any] = []
        self._contacts: list[Contact] = []
        self._phase_sink = sink if settings.phase and isinstance(sink, PhaseSink) else None
        self._phases: list[Any] = []
        self._outputs = Outputs(settings.outputs, memory.outputs)
        self._stirred = asyncio.Event()
        self._delivering = False
        self._backlog: Backlog | None = None
        self._loss = LossWatch(settings.id, memory.newest_us)
        self._can = codec.Capabilities()
        self._profile = GENERIC
        self._extended = self._overflowed = False
        self._inventory = Inventory(settings, memory, self._ask, self._notice)
        self._inventorying = asyncio.Event()
        self._doubt = asyncio.Event()
        self._ended: tuple[str, int] | None = None
        self._seen_s, self._seen_us = 0.0, 0
        self._restarted_s: float | None = None
        self._wire: Wire

    def light(self) -> None:
        """Note that the wanted states of outputs have changed."""
        self._stirred.set()

    @property
    def counters(self) -> dict[str, int]:
        """Decoder counters of this connection."""
        return self._decoder.counters

    async def run(self) -> NoReturn:
        """Run the connection; always ends with LinkFailure."""
        self._wire = await self._open()
        self._greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.phase = Phase.GREETING
        receiving, commanding = asyncio.create_task(self._receive()), asyncio.create_task(self._command())
        tending = asyncio.create_task(self._tend())
        tasks = receiving, commanding, tending
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task in done:
                    task.result()
        except asyncio.CancelledError:
            commanding.cancel()
            tending.cancel()
            if self.phase is not Phase.GREETING:
                for port in self._outputs.lit():
                    self._wire.send(codec.encode("SET_READER_CONFIG", next(self._ids), **off_or_on(port, False)))
                # Frees the reader's only place for a client at once; what it has sent by then is still taken.
                self._wire.send(codec.encode("CLOSE_CONNECTION", next(self._ids)))
                await asyncio.wait([receiving], timeout=self._timing.close_s)
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._wire.drop("closed by us")
        raise AssertionError("neither task ends without an exception")

    # What the reader sends

    async def _receive(self) -> NoReturn:
        wire = self._wire
        while True:
            await wire.arrival()
            batches = self._use()
            if self.phase is Phase.INVENTORY:
                batches, self._early = self._early + batches, []
                contacts, self._contacts = self._contacts, []
                for contact in contacts:
                    self._sink.contact(contact)
                if batches:
                    await self._deliver(np.concatenate(batches) if batches[1:] else batches[0])
                self._tell()
            else:
                # A reader may report before it answers START_ROSPEC; status comes before the first reads.
                self._early += batches
                batches = []
            if wire.lost is not None:
                if self._settings.tls is not None and not wire.received_us:
                    raise LinkFailure(reader_tls.hung_up(wire.peer, wire.lost))
                raise LinkFailure(wire.lost)
            wire.resume(self._timing.gather_s if batches else 0)

    async def _deliver(self, batch: Any) -> None:
        newest_us = int(batch["time_us"].max())
        times = batch["time_us"].copy() if self._backlog is not None else None
        if self._phase_sink is not None:
            self._phase_sink.phases(self._settings.id, np.concatenate(self._phases))
            self._phases.clear()
        self._delivering = True
        await self._sink.reads(self._settings.id, batch)
        self._delivering = False
        self._seen_s, self._seen_us = asyncio.get_running_loop().time(), self._wire.received_us
        self._memory.newest_us = max(self._memory.newest_us, newest_us)
        if self._backlog is not None and times is not None:
            self._backlog.take(times, self._wire.received_us, asyncio.get_running_loop().time())

    def _use(self) -> list[Any]:
        """Process the complete messages that have arrived; returns the batches of reads among them."""
        wire, batches = self._wire, []
        at, end, stream = wire.start, wire.end, wire.buffer.data
        while True:
            decoded = self._decoder.decode(wire.buffer, at, end)
            at = decoded.used
            if len(decoded.reads):
                batches.append(self._place(decoded))
            try:
                header = codec.header_at(stream, at, end)
            except NotLlrp as error:
                wire.drop(f"{wire.peer} sent bytes that are not LLRP ({error}): is this the reader's LLRP port?")
                return batches
            if header is None or header.length > end - at:
                wire.used(at, header.length if header else 0)
                return batches
            self._handle(header, bytes(stream[at : at + header.length]))
            at += header.length

    def _place(self, decoded: Decoded) -> Any:
        """Convert reads to store time: the reader's own time, corrected, or the time of receipt where it gave none."""
        received_us = self._wire.received_us
        shift = np.array([received_us, 0, 0], np.int64)
        for source, newest_us in zip((UTC, UPTIME), decoded.newest_us, strict=True):
            if 0 <= newest_us < TIME_MAX_US:
                self._clocks[source].sample(newest_us, received_us)
            shift[source] = self._clocks[source].correction_us or 0
        if self._phase_sink is not None:
            self._phases.append(decoded.phase)
        times = decoded.reads["time_us"]
        times += shift[decoded.source]
        # Nothing is seen after it was received: a time far ahead is a clock that has just been set.
        np.minimum(times, received_us + self._settings.clock_tolerance_us, out=times)
        if (gap := self._loss.take(times)) is not None:
            self._sink.gap(gap)
        return decoded.reads

    def _handle(self, header: Header, message: bytes) -> None:
        if header.type == _KEEPALIVE_TYPE:
            if self.phase is not Phase.GREETING:
                self._wire.send(codec.encode("KEEPALIVE_ACK", header.id))
        elif header.type == _GREETING_TYPE:
            self._notified(message)
        elif header.type == _CLOSED_TYPE:
            self._wire.drop("the reader closed the connection")
        elif (answer := self._answers.get(header.id)) is not None and not answer.done():
            answer.set_result(message)
        # Anything else is not for us. An ERROR_MESSAGE above all is never answered.

    def _notified(self, message: bytes) -> None:
        event = codec.event_of(codec.decode(message))
        at_us = received_us = self._wire.received_us
        for name, source in (("UTCTimestamp", UTC), ("Uptime", UPTIME)):
            if name in event:
                # Before any report: held ones are old, and would be taken for a slow clock.
                self._clocks[source].sample(event[name]["Microseconds"], received_us)
                at_us = event[name]["Microseconds"] + (self._clocks[source].correction_us or 0)
        if (contact := event.get(GPI_EVENT)) is not None:
            at_us = min(at_us, received_us + self._settings.clock_tolerance_us)
            self._contacts.append(
                Contact(self._settings.id, contact["GPIPortNumber"], at_us, contact["GPIEvent"]),
            )
        status = event.get("ConnectionAttemptEvent", {}).get("Status")
        if self.phase is Phase.GREETING and status is not None and not self._greeted.done():
            if status in ATTEMPT_REFUSED:
                self._wire.drop(ATTEMPT_REFUSED[status])
            else:
                self._greeted.set_result(None)
        why = why_ended(event.get(ROSPEC_EVENT, {}), self._inventory.number)
        if why is not None and not (why == ENDED and self._inventory.loops):
            self._ended = why, min(at_us, received_us)
            self._doubt.set()
        for text in notices(event):
            self._notice(text)
        if "ReportBufferLevelWarning" in event:
            self._wire.send(codec.encode("GET_REPORT", next(self._ids)))
        if "ReportBufferOverflowErrorEvent" in event:
            self._loss.overflow(asyncio.get_running_loop().time())
            if self._backlog is not None:
                self._backlog.overflowed = True
            self._overflowed = True
            self._stirred.set()
        if "ConnectionCloseEvent" in event:
            self._wire.drop("the reader ended the connection")

    def _notice(self, text: str) -> None:
        if self._memory.noticed.is_new(text):
            self._sink.notice(Notice(self._settings.id, self._clock(), text))

    def _tell(self) -> None:
        """Report changes of a connection that is up: the reader's clock was set, or the buffered reads have arrived."""
        if self.phase is not Phase.INVENTORY:
            return
        offset_us, (told_us, told_from_us) = self._clocks[UTC].offset_us, self._told
        from_us = self._backlog.from_us if self._backlog is not None else None
        stepped = offset_us is not None and (told_us is None or abs(offset_us - told_us) > self._clocks[UTC].step_us)
        if stepped or from_us != told_from_us:
            self._told = (offset_us if stepped else told_us), from_us
            self._up(*self._told)

    # What we ask

    async def _command(self) -> NoReturn:
        timing = self._timing
        try:
            async with asyncio.timeout(timing.greeting_s):
                await self._greeted
        except TimeoutError:
            raise LinkFailure(
                f"{self._wire.peer} accepted the connection but sent no LLRP greeting: "
                "no LLRP reader, still starting, or does it want TLS?"
            ) from None
        self.phase = Phase.CONFIGURING
        await self._inquire()
        held, state = await self._inventory.find(self._can, self._profile, self._extended)
        await self._configure()
        if held:
            # What was held comes now; it is put aside until the link is told to be up.
            self._wire.send(codec.encode("ENABLE_EVENTS_AND_REPORTS", next(self._ids)))
        await self._inventory.run(state)
        if held and state == codec.ROSPEC_ACTIVE:
            self._backlog = Backlog(
                self._memory.newest_us,
                self._clock(),
                self._settings.clock_tolerance_us,
                timing.drained_s,
                asyncio.get_running_loop().time(),
            )
            self._backlog.overflowed = self._overflowed
        self._begin()
        await self._watch(2 * timing.keepalive_s)

    def _begin(self) -> None:
        """Report that our inventory runs, and pass on the reads received so far."""
        now_s = asyncio.get_running_loop().time()
        self.phase = Phase.INVENTORY
        if self.up_since_s is None:
            self.up_since_s = now_s
        self._seen_s, self._seen_us = now_s, self._clock()
        self._told = self._clocks[UTC].offset_us, self._backlog.from_us if self._backlog is not None else None
        self._up(*self._told)
        self._inventorying.set()
        self._wire.nudge()

    async def _inquire(self) -> None:
        """Ask the reader for its identity and capabilities."""
        detail = self._memory.detail
        detail.clear()
        answer = await self._ask("GET_READER_CAPABILITIES", RequestedData=0)
        if "LLRPStatus" in answer.fields and (reason := codec.refusal(answer)):
            raise LinkFailure(f"the reader refused to tell its capabilities ({reason})")
        self._can = can = codec.capabilities_of(answer)
        if "GeneralDeviceCapabilities" in answer.fields:
            detail["manufacturer"], detail["model"], detail["firmware"] = str(can.maker), str(can.model), can.firmware
            detail["antennas"] = str(can.antennas)
        self._memory.tables = tables_of(can)
        detail.update(shown(self._memory.tables))
        self._profile = choose(can.maker, self._settings.profile)
        detail["profile"] = self._profile.name
        config = await self._ask("GET_READER_CONFIG", RequestedData=_IDENTIFICATION)
        identity = codec.identity_of(config)
        if identity is not None:
            detail["identity"] = identity
        check_identity(self._settings.identity, identity, self._memory, self._wire.peer, self._notice)
        self._extended = False
        if self._profile.extensions:
            self._extended = codec.refusal(await self._ask("IMPINJ_ENABLE_EXTENSIONS")) is None

    async def _configure(self) -> None:
        """Configure what readers forget with each connection, or may have forgotten."""
        await demand(
            self._ask,
            "keepalives",
            "SET_READER_CONFIG",
            KeepaliveSpec={"KeepaliveTriggerType": 1, "TimeInterval": round(self._timing.keepalive_s * 1000)},
        )
        if self._extended and self._profile.link_monitor:
            monitor = struct.pack("!HH", 1, self._profile.link_monitor)
            await self._ask(
                "SET_READER_CONFIG",
                CustomParameter=[{"VendorID": IMPINJ_PEN, "Subtype": _LINK_MONITOR, "Payload": monitor}],
            )
        # A reader without them will do: whether its inventory runs is asked, too.
        events = dict.fromkeys(self._profile.events, True)
        if self._can.can_warn:
            events["ReportBufferFillWarning"] = True
        contacts = {GPI_EVENT: True} if self._settings.inputs else {}
        ends = {ROSPEC_EVENT: True} if ROSPEC_EVENT in events else {}
        told = False
        for wanted in (events | contacts, ends | contacts, contacts):
            told = told or (bool(wanted) and await self._tells_of(wanted))
        if contacts:
            self._memory.inputs = await watch(self._ask, self._notice, self._settings.inputs, told)
        await self._outputs.write(self._ask, self._notice)
        if self._can.can_hold:
            hold = {"HoldEventsAndReportsUponReconnect": True}
            answer = await self._ask("SET_READER_CONFIG", EventsAndReports=hold)
            self._memory.keeps = codec.refusal(answer) is None
        else:
            self._memory.keeps = False

    async def _tells_of(self, events: Mapping[str, bool]) -> bool:
        spec = {"EventNotificationState": events}
        return codec.refusal(await self._ask("SET_READER_CONFIG", ReaderEventNotificationSpec=spec)) is None

    async def _light(self) -> None:
        """Write the wanted states of outputs; doesn't count as a change of the configuration by others."""
        await self._outputs.write(self._ask, self._notice)
        await self._inventory.note_state()

    async def _ask(self, name: str, **fields: Any) -> Message:
        """Send a request and return its response, or the ERROR_MESSAGE with the same message id."""
        request_id = next(self._ids)
        answer = self._answers[request_id] = asyncio.get_running_loop().create_future()
        self._wire.send(codec.encode(name, request_id, **fields))
        try:
            message = codec.decode(await self._heard(answer))
        except TimeoutError:
            raise LinkFailure(f"the reader did not answer {name} within {self._timing.answer_s:g} s") from None
        except Malformed as error:
            raise LinkFailure(f"the reader's answer to {name} can't be read ({error})") from error
        finally:
            del self._answers[request_id]
        if message.name not in (f"{name}_RESPONSE", "ERROR_MESSAGE"):
            raise LinkFailure(f"the reader answered {name} with {message.name}")
        return message

    async def _heard(self, answer: asyncio.Future[bytes]) -> bytes:
        """Wait for a response; TimeoutError. It is queued behind reads: while those aren't taken, it can't be
        received."""
        while not (await asyncio.wait([answer], timeout=self._timing.answer_s))[0]:
            if not self._delivering:
                raise TimeoutError
        return answer.result()

    async def _watch(self, silence_s: float) -> NoReturn:
        """Give up the connection after `silence_s` of silence while receiving; end the backlog when it has drained."""
        loop = asyncio.get_running_loop()
        while True:
            now_s = loop.time()
            since_s = self._wire.silent_since_s
            left_s = silence_s if since_s is None else since_s + silence_s - now_s
            if left_s <= 0:
                raise LinkFailure(
                    f"nothing heard for {silence_s:g} s: reader, cable or switch is dead", self._wire.received_us
                )
            if (gap := self._loss.tick(now_s, self._clock(), self._timing.overflow_s)) is not None:
                self._sink.gap(gap)
            if self._backlog is not None and not self._delivering and self._backlog.left_s(now_s) <= 0:
                self._drained(self._backlog)
            if self._outputs.due:
                await self._light()
            # Else nothing but an event can change anything before the reader has been silent for too long: of 64 idle
            # readers each wake-up counts.
            wait_s = min(left_s, _POLL_S) if self._backlog is not None or self._loss.open else left_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._stirred.wait()
            self._stirred.clear()

    # Whether it takes inventory

    async def _tend(self) -> NoReturn:
        """Check that our inventory runs: readers may end or lose it while sending keepalives as usual."""
        loop, timing = asyncio.get_running_loop(), self._timing
        await self._inventorying.wait()
        looked_s = loop.time() - timing.look_s
        offered_s = loop.time()
        while True:
            # Reads are a sign that it runs, though not for ever: they may be those of another program.
            due_s = max(self._seen_s + timing.quiet_s, looked_s + timing.look_s)
            due_s = min(due_s, looked_s + _LOOK_MOST * timing.look_s)
            if not self._doubt.is_set() and due_s > loop.time():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(due_s):
                        await self._doubt.wait()
                continue
            if self._doubt.is_set():
                await asyncio.sleep(_SETTLE_S)
            self._doubt.clear()
            ended, self._ended = self._ended, None
            asked_us = self._clock()
            runs, state = await self._inventory.runs()
            looked_s = loop.time()
            if runs:
                self._seen_us = max(self._seen_us, asked_us)
            elif runs is False:
                why, at_us = ended or (GONE if state is None else ENDED, 0)
                await self._restart(why, max(at_us, self._seen_us), state)
            elif ended is not None:
                await self._restart(*ended, codec.ROSPEC_INACTIVE)
            elif looked_s - max(self._seen_s, offered_s) >= timing.blind_s:
                offered_s = looked_s
                if (lost := await self._inventory.lost()) is False:
                    self._seen_us = max(self._seen_us, asked_us)
                elif lost:
                    await self._restart(GONE, self._seen_us, codec.ROSPEC_DISABLED)

    async def _restart(self, why: str, since_us: int, state: int | None) -> None:
        """Restart our inventory; LinkFailure if it was restarted a moment ago, so that retries back off."""
        now_s = asyncio.get_running_loop().time()
        self.phase = Phase.CONFIGURING
        self._idle(why, since_us)
        if self._restarted_s is not None and now_s - self._restarted_s < self._timing.steady_s:
            raise LinkFailure(why, since_us)
        self._restarted_s = now_s
        await self._inventory.run(state)
        self._begin()

    def _drained(self, backlog: Backlog) -> None:
        if (missing := backlog.missing_us()) is not None:
            self._sink.gap(Gap(self._settings.id, *missing, LossWatch.REASON))
        self._backlog = None
        self._tell()
