"""One LLRP connection, from opening to its end: who the reader is, what it is asked, what it sends.

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

from drivers.llrp import codec
from drivers.llrp.backlog import Backlog, LossWatch
from drivers.llrp.clock import ReaderClock
from drivers.llrp.codec import Header, Malformed, Message, NotLlrp
from drivers.llrp.decoder import UPTIME, UTC, Decoded, ReportDecoder
from drivers.llrp.events import ATTEMPT_REFUSED, notices
from drivers.llrp.ports import GPI_EVENT, Outputs, off_or_on, watch
from drivers.llrp.profiles import GENERIC, IMPINJ_PEN, SEARCH_MODES, choose
from drivers.llrp.rospec import instead_of, is_ours, rospec
from drivers.llrp.state import Memory, Phase, Timing
from drivers.llrp.wire import LinkFailure, Wire
from drivers.session import Clock, Contact, Gap, Notice, PhaseSink, ReaderSettings, Sink

TAGS_A_REPORT = 1
"""A report as soon as a tag was seen; what comes close together is gathered here, not in the reader."""
TIME_MAX_US = 1 << 60
"""A reader's time beyond the year 38,000 is no clock, and would not fit what is computed with it."""


Up = Callable[[int | None, int | None], None]
"""Told when the link takes inventory and when that changes: clock offset, and from when on reads may still come."""

_GREETING_TYPE, _KEEPALIVE_TYPE, _CLOSED_TYPE = 63, 62, 4
_POLL_S = 0.25
"""How often it is asked whether what a reader kept has come, and whether a loss has ended, while there is one."""
_LINK_MONITOR = 38
"""Subtype of ImpinjLinkMonitorConfiguration: u16 mode, u16 keepalives missed."""
_NOTICE_S = 600.0
"""The same words are not repeated within so many wall seconds."""
_NOTICES_MAX = 256
_STATE_VALUE, _EVENTS_AND_REPORTS, _IDENTIFICATION = 7, 11, 1
"""RequestedData of GET_READER_CONFIG (17.1.21)."""


class LlrpConnection:
    """One connection over what `open_wire` opens."""

    def __init__(
        self,
        settings: ReaderSettings,
        open_wire: Callable[[], Awaitable[Wire]],
        sink: Sink,
        clock: Clock,
        timing: Timing,
        memory: Memory,
        up: Up,
    ) -> None:
        self.phase = Phase.OPENING
        self.up_since_s: float | None = None
        """Loop time at which it became INVENTORY."""
        self._settings, self._open, self._sink, self._clock = settings, open_wire, sink, clock
        self._timing, self._memory, self._up = timing, memory, up
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
        self._spec: dict[str, Any] = {}
        self._wire: Wire

    def light(self) -> None:
        """The outputs that are wanted have changed."""
        self._stirred.set()

    @property
    def counters(self) -> dict[str, int]:
        """Of this connection's reports."""
        return self._decoder.counters

    async def run(self) -> NoReturn:
        """Until the connection ends, which is a LinkFailure."""
        self._wire = await self._open()
        self._greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.phase = Phase.GREETING
        receiving, commanding = asyncio.create_task(self._receive()), asyncio.create_task(self._command())
        tasks = receiving, commanding
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task in done:
                    task.result()
        except asyncio.CancelledError:
            commanding.cancel()
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
        self._memory.newest_us = max(self._memory.newest_us, newest_us)
        if self._backlog is not None and times is not None:
            self._backlog.take(times, self._wire.received_us, asyncio.get_running_loop().time())

    def _use(self) -> list[Any]:
        """Use the whole messages that have arrived; the batches of reads among them."""
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
        """Reads with store times: the reader's own, corrected, or the time of receipt where it gave none."""
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
            self._wire.send(codec.encode("KEEPALIVE_ACK", header.id))
        elif header.type == _GREETING_TYPE:
            self._notified(message)
        elif header.type == _CLOSED_TYPE:
            self._wire.drop("the reader closed the connection")
        elif (answer := self._answers.get(header.id)) is not None and not answer.done():
            answer.set_result(message)
        # Anything else is not for us. An ERROR_MESSAGE above all is never answered.

    def _notified(self, message: bytes) -> None:
        try:
            event = codec.event_of(codec.decode(message))
        except Malformed as error:
            if self.phase is Phase.GREETING:
                self._wire.drop(f"the reader's greeting can't be read ({error})")
            return
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
        now_s, noticed = asyncio.get_running_loop().time(), self._memory.noticed
        if text in noticed and now_s - noticed[text] < _NOTICE_S:
            return
        if len(noticed) >= _NOTICES_MAX:
            noticed.clear()
        noticed[text] = now_s
        self._sink.notice(Notice(self._settings.id, self._clock(), text))

    def _tell(self) -> None:
        """Say what has changed of a link that is up: the reader's clock was set, kept reads have come."""
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
                "no LLRP reader, or still starting"
            ) from None
        self.phase = Phase.CONFIGURING
        await self._inquire()
        held, survivor = await self._survivor()
        await self._configure()
        if held:
            # What was held comes now; it is put aside until the link is told to be up.
            self._wire.send(codec.encode("ENABLE_EVENTS_AND_REPORTS", next(self._ids)))
        await self._inventory(survivor)
        if self._can.can_hold:
            self._memory.state_value = await self._state_value()
        loop = asyncio.get_running_loop()
        if held and survivor == codec.ROSPEC_ACTIVE:
            self._backlog = Backlog(
                self._memory.newest_us, self._clock(), self._settings.clock_tolerance_us, timing.drained_s, loop.time()
            )
            self._backlog.overflowed = self._overflowed
        self.phase = Phase.INVENTORY
        self.up_since_s = loop.time()
        self._told = self._clocks[UTC].offset_us, self._backlog.from_us if self._backlog is not None else None
        self._up(*self._told)
        self._wire.nudge()
        await self._watch(2 * timing.keepalive_s)

    async def _inquire(self) -> None:
        """Who the reader is and what it can do."""
        detail = self._memory.detail
        detail.clear()
        capabilities = await self._demand("to tell its capabilities", "GET_READER_CAPABILITIES", RequestedData=0)
        self._can = can = codec.capabilities_of(capabilities)
        if "GeneralDeviceCapabilities" in capabilities.fields:
            detail["manufacturer"], detail["model"], detail["firmware"] = str(can.maker), str(can.model), can.firmware
            detail["antennas"] = str(can.antennas)
        self._profile = choose(can.maker, self._settings.profile)
        detail["profile"] = self._profile.name
        config = await self._ask("GET_READER_CONFIG", RequestedData=_IDENTIFICATION)
        identity = codec.identity_of(config)
        if identity is not None:
            detail["identity"] = identity
        self._check_identity(identity)
        self._extended = False
        if self._profile.extensions:
            self._extended = codec.refusal(await self._ask("IMPINJ_ENABLE_EXTENSIONS")) is None

    def _check_identity(self, identity: str | None) -> None:
        wanted, before = self._settings.identity, self._memory.identity
        if wanted is not None and identity != wanted:
            raise LinkFailure(
                f"the reader at {self._wire.peer} is {identity or 'one that does not tell its identity'}, not {wanted} "
                "as the store file says: have two readers swapped addresses, or was this one replaced?"
            )
        if identity is not None:
            if before is not None and before != identity:
                self._notice(
                    f"another reader than before answers at {self._wire.peer}: {identity} instead of {before}; "
                    "see that its antennas hang where the store file says"
                )
            self._memory.identity = identity

    async def _survivor(self) -> tuple[bool, int | None]:
        """Was the reader told to hold what it has for us; and the state of our ROSpec if it is still there, unchanged.

        Older ROSpecs of ours are deleted, those of others never.
        """
        held, changed = False, False
        if self._can.can_hold:
            answer = await self._ask("GET_READER_CONFIG", RequestedData=_EVENTS_AND_REPORTS)
            held = answer.fields.get("EventsAndReports", {}).get("HoldEventsAndReportsUponReconnect", False)
            before, now = self._memory.state_value, await self._state_value()
            changed = before is not None and now != before
        self._spec = self._inventory_wanted()
        plain = instead_of(self._spec)
        answer = await self._ask("GET_ROSPECS")
        if codec.refusal(answer):
            there = {self._spec["ROSpecID"]: codec.ROSPEC_DISABLED, plain["ROSpecID"]: codec.ROSPEC_DISABLED}
            changed = True
        else:
            there = {spec["ROSpecID"]: spec["CurrentState"] for spec in answer.fields["ROSpec"]}
            if plain["ROSpecID"] in there and not changed:
                self._spec = plain
        wanted = self._spec["ROSpecID"]
        for rospec_id in there:
            if is_ours(rospec_id) and (rospec_id != wanted or changed):
                # That there is none is as good; should it fail otherwise, adding will say so.
                await self._ask("DELETE_ROSPEC", ROSpecID=rospec_id)
        return held, None if changed else there.get(wanted)

    def _inventory_wanted(self) -> dict[str, Any]:
        """What the store file wants, as far as the reader can."""
        settings, profile, select = self._settings, self._profile, self._settings.select
        if len(select) > (room := self._can.select_filters):
            self._notice(
                f"the reader has room for {room} select filters and {len(select)} are needed: it reports all tags"
            )
            select = ()
        mode = settings.search_mode if profile.search_modes and self._extended else None
        if settings.search_mode is not None and mode is None:
            self._notice(f"the reader has no search mode {settings.search_mode!r}: it keeps its own")
        return rospec(
            sorted(settings.ports),
            TAGS_A_REPORT,
            fine_rssi=profile.fine_rssi and self._extended,
            phase=settings.phase and profile.phase and self._extended,
            session=settings.session,
            search_mode=None if mode is None else SEARCH_MODES[mode],
            select=select,
        )

    async def _state_value(self) -> int | None:
        answer = await self._ask("GET_READER_CONFIG", RequestedData=_STATE_VALUE)
        value = answer.fields.get("LLRPConfigurationStateValue", {})
        return value.get("LLRPConfigurationStateValue") if isinstance(value, Mapping) else None

    async def _configure(self) -> None:
        """What readers forget with each connection, or may have forgotten."""
        await self._demand(
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
        # Health only, so a reader without them will do.
        events = dict.fromkeys(self._profile.events, True)
        if self._can.can_warn:
            events["ReportBufferFillWarning"] = True
        contacts = {GPI_EVENT: True} if self._settings.inputs else {}
        told = not (events or contacts) or await self._tells_of(events | contacts)
        if contacts:
            told = told or await self._tells_of(contacts)
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
        """Bring the outputs to what is wanted, which is no change of the configuration by others."""
        await self._outputs.write(self._ask, self._notice)
        if self._can.can_hold:
            self._memory.state_value = await self._state_value()

    async def _inventory(self, survivor: int | None) -> None:
        """Have our ROSpec run; one that is running is left alone."""
        if survivor is None:
            await self._add()
        rospec_id = self._spec["ROSpecID"]
        if survivor in (None, codec.ROSPEC_DISABLED):
            await self._demand("to enable the inventory", "ENABLE_ROSPEC", ROSpecID=rospec_id)
        if survivor != codec.ROSPEC_ACTIVE:
            await self._demand("to start the inventory", "START_ROSPEC", ROSpecID=rospec_id)

    async def _add(self) -> None:
        """Our ROSpec, or the plain one if the reader refuses what refines it."""
        what = f"an inventory on antenna ports {', '.join(map(str, sorted(self._settings.ports)))}"
        plain = instead_of(self._spec)
        if plain["ROSpecID"] == self._spec["ROSpecID"]:
            await self._demand(what, "ADD_ROSPEC", ROSpec=plain)
        elif refused := codec.refusal(await self._ask("ADD_ROSPEC", ROSpec=self._spec)):
            await self._demand(what, "ADD_ROSPEC", ROSpec=plain)
            self._spec = plain
            self._notice(
                f"the reader refuses session, search mode, filters or what is its make's own ({refused}): "
                "it takes a plain inventory"
            )

    async def _demand(self, what: str, name: str, **fields: Any) -> Message:
        """An answer that has to be success."""
        answer = await self._ask(name, **fields)
        if reason := codec.refusal(answer):
            raise LinkFailure(f"the reader refused {what} ({reason})")
        return answer

    async def _ask(self, name: str, **fields: Any) -> Message:
        """Send a request; its answer, or an ERROR_MESSAGE, is known by the request's id."""
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
        """An answer, or TimeoutError. It comes behind reads: while nobody takes those, it can't be heard."""
        while not (await asyncio.wait([answer], timeout=self._timing.answer_s))[0]:
            if not self._delivering:
                raise TimeoutError
        return answer.result()

    async def _watch(self, silence_s: float) -> NoReturn:
        """Give the link up when nothing comes for `silence_s` although we listen; see what was kept to its end."""
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

    def _drained(self, backlog: Backlog) -> None:
        if (missing := backlog.missing_us()) is not None:
            self._sink.gap(Gap(self._settings.id, *missing, LossWatch.REASON))
        self._backlog = None
        self._tell()
