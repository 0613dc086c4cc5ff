"""LLRP session: connects to one reader, has it take inventory, and begins again after every failure.

`LlrpConnection` is one connection from opening to its end; `LlrpSession` is what goes on for ever. Section numbers are
LLRP 1.1's.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NoReturn

import numpy as np

from drivers import llrp_codec as codec
from drivers.clock import ReaderClock
from drivers.llrp_codec import Header, Malformed, Message, NotLlrp
from drivers.llrp_decoder import UPTIME, UTC, Decoded, ReportDecoder
from drivers.llrp_wire import Address, LinkFailure, Wire, connect
from drivers.session import Clock, Link, ReaderSettings, ReaderStatus, Sink

ROSPEC_ID = 0x7A67
"""Ours, and the only one ever deleted: other clients' ROSpecs on the reader are theirs."""

TAGS_A_REPORT = 1
"""A report as soon as a tag was seen; what comes close together is gathered here, not in the reader."""


@dataclass(frozen=True)
class Timing:
    """Wall seconds."""

    connect_s: float = 5.0
    greeting_s: float = 10.0
    answer_s: float = 5.0
    keepalive_s: float = 10.0
    """The reader is asked for a sign of life this often, and given up after two periods of silence."""
    gather_s: float = 0.05
    """After reads have come, the next are left to gather for so long."""
    retry_first_s: float = 0.5
    retry_cap_s: float = 60.0


class Phase(Enum):
    """Where a connection stands; it only moves down this list."""

    OPENING = auto()  # TCP connect under way
    GREETING = auto()  # open; nothing may be sent before the reader's ConnectionAttemptEvent (20.1.1)
    CONFIGURING = auto()  # accepted; our requests go out one by one
    INVENTORY = auto()  # our ROSpec runs: silence means no tag, as long as keepalives come


_ATTEMPT = {
    "Failed (a Reader initiated connection already exists)": "the reader is connected elsewhere: it opened that "
    "connection itself, see its reader-initiated settings",
    "Failed (a Client initiated connection already exists)": "another client is connected to the reader, which takes "
    "one at a time; after a crash the reader may need a minute to notice that its client is gone",
    "Failed (any reason other than a connection already exists)": "the reader refuses connections and gives no reason",
}
"""ConnectionAttemptEvent status 1 to 3 (17.2.7.6.10), by sllurp's names."""

_GREETING_TYPE, _KEEPALIVE_TYPE = 63, 62


class LlrpSession:
    """Keeps one reader at work until `run` is cancelled."""

    def __init__(self, settings: ReaderSettings, sink: Sink, clock: Clock, timing: Timing | None = None) -> None:
        """ValueError if the address can't be one."""
        self._settings, self._sink, self._clock = settings, sink, clock
        self._timing = timing or Timing()
        self._address = Address.parse(settings.address)
        self._status: ReaderStatus | None = None
        self._past: Counter[str] = Counter()
        self._connection: LlrpConnection | None = None

    async def run(self) -> None:
        """Connect, and again after each failure, later and later up to a minute; raises only what `sink` raises."""
        loop, timing = asyncio.get_running_loop(), self._timing
        retry_s = timing.retry_first_s
        self._say(Link.CONNECTING, f"connecting to {self._address}")
        while True:
            connection = LlrpConnection(self._settings, self._address, self._sink, self._clock, timing, self._up)
            self._connection = connection
            try:
                await connection.run()
            except LinkFailure as failure:
                self._say(Link.DOWN, str(failure))
            finally:
                self._past.update(connection.counters)
                self._connection = None
            if connection.up_since_s is not None and loop.time() - connection.up_since_s > retry_s:
                retry_s = timing.retry_first_s
            # Jitter: 64 readers behind a switch that restarts must not come back in one instant.
            await asyncio.sleep(retry_s * random.uniform(0.5, 1.0))
            retry_s = min(2 * retry_s, timing.retry_cap_s)

    @property
    def counters(self) -> dict[str, int]:
        """Reports decoded and given up, by reason (llrp_decoder.COUNTERS), since the session began."""
        now = Counter(self._connection.counters) if self._connection else Counter[str]()
        return dict(self._past + now)

    def _up(self, detail: Mapping[str, str], offset_us: int | None) -> None:
        self._say(Link.UP, "taking inventory", detail, offset_us)

    def _say(
        self, link: Link, reason: str, detail: Mapping[str, str] | None = None, offset_us: int | None = None
    ) -> None:
        last = self._status
        since_us = last.since_us if last and last.link is link else self._clock()
        status = ReaderStatus(self._settings.id, link, reason, since_us, offset_us, detail or {})
        if status != last:
            self._status = status
            self._sink.status(status)


class LlrpConnection:
    """One connection; `up` is called when it takes inventory, and when the reader's clock turns out to be another."""

    def __init__(
        self,
        settings: ReaderSettings,
        address: Address,
        sink: Sink,
        clock: Clock,
        timing: Timing,
        up: Callable[[Mapping[str, str], int | None], None],
    ) -> None:
        self.phase = Phase.OPENING
        self.up_since_s: float | None = None
        """Loop time at which it became INVENTORY."""
        self._settings, self._address, self._sink, self._clock = settings, address, sink, clock
        self._timing, self._tell_up = timing, up
        self._decoder = ReportDecoder(settings.ports)
        self._clocks = {UTC: ReaderClock(settings.clock_tolerance_us), UPTIME: ReaderClock(0)}
        self._told_offset_us: int | None = None
        self._detail: dict[str, str] = {}
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[bytes]] = {}
        self._early: list[Any] = []
        self._wire: Wire

    @property
    def counters(self) -> dict[str, int]:
        """Of this connection's reports."""
        return self._decoder.counters

    async def run(self) -> NoReturn:
        """Until the connection ends, which is a LinkFailure."""
        self._wire = await connect(self._address, self._clock, self._timing.connect_s)
        self._greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.phase = Phase.GREETING
        tasks = asyncio.create_task(self._receive()), asyncio.create_task(self._command())
        try:
            await asyncio.gather(*tasks)
        except asyncio.CancelledError:
            # Frees the reader's only place for a client at once.
            if self.phase is not Phase.GREETING:
                self._wire.send(codec.encode("CLOSE_CONNECTION", next(self._ids)))
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
                if batches:
                    await self._sink.reads(self._settings.id, np.concatenate(batches) if batches[1:] else batches[0])
                self._check_clock()
            else:
                # A reader may report before it answers START_ROSPEC; status comes before the first reads.
                self._early += batches
                batches = []
            if wire.lost is not None:
                raise LinkFailure(wire.lost)
            wire.resume(self._timing.gather_s if batches else 0)

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
                wire.drop(f"{self._address} sent bytes that are not LLRP ({error}): is this the reader's LLRP port?")
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
            if newest_us >= 0:
                self._clocks[source].sample(newest_us, received_us)
            shift[source] = self._clocks[source].correction_us or 0
        times = decoded.reads["time_us"]
        times += shift[decoded.source]
        # Nothing is seen after it was received: a time far ahead is a clock that has just been set.
        np.minimum(times, received_us + self._settings.clock_tolerance_us, out=times)
        return decoded.reads

    def _handle(self, header: Header, message: bytes) -> None:
        if header.type == _KEEPALIVE_TYPE:
            self._wire.send(codec.encode("KEEPALIVE_ACK", header.id))
        elif header.type == _GREETING_TYPE:
            self._notified(message)
        elif (answer := self._answers.get(header.id)) is not None and not answer.done():
            answer.set_result(message)
        # Anything else is not for us. An ERROR_MESSAGE above all is never answered.

    def _notified(self, message: bytes) -> None:
        try:
            event = codec.decode(message).fields.get("ReaderEventNotificationData", {})
        except Malformed as error:
            if self.phase is Phase.GREETING:
                self._wire.drop(f"the reader's greeting can't be read ({error})")
            return
        for name, source in (("UTCTimestamp", UTC), ("Uptime", UPTIME)):
            if name in event:
                # Before any report: held ones are old, and would be taken for a slow clock.
                self._clocks[source].sample(event[name]["Microseconds"], self._wire.received_us)
        status = event.get("ConnectionAttemptEvent", {}).get("Status")
        if self.phase is Phase.GREETING and status is not None and not self._greeted.done():
            if status in _ATTEMPT:
                self._wire.drop(_ATTEMPT[status])
            else:
                self._greeted.set_result(None)
        if "ConnectionCloseEvent" in event:
            self._wire.drop("the reader ended the connection")

    def _check_clock(self) -> None:
        offset_us, told_us = self._clocks[UTC].offset_us, self._told_offset_us
        if offset_us is not None and (told_us is None or abs(offset_us - told_us) > self._clocks[UTC].step_us):
            self._told_offset_us = offset_us
            self._tell_up(self._detail, offset_us)

    # What we ask

    async def _command(self) -> NoReturn:
        timing = self._timing
        try:
            async with asyncio.timeout(timing.greeting_s):
                await self._greeted
        except TimeoutError:
            raise LinkFailure(
                f"{self._address} accepted the connection but sent no LLRP greeting: no LLRP reader, or still starting"
            ) from None
        self.phase = Phase.CONFIGURING
        await self._inquire()
        await self._demand(
            "keepalives",
            "SET_READER_CONFIG",
            KeepaliveSpec={"KeepaliveTriggerType": 1, "TimeInterval": round(timing.keepalive_s * 1000)},
        )
        # Health only, so a reader without them will do.
        events = {"ReaderExceptionEvent": True, "AntennaEvent": True}
        await self._ask("SET_READER_CONFIG", ReaderEventNotificationSpec={"EventNotificationState": events})
        # Of an earlier connection; there being none is as good. Should it fail otherwise, adding will say so.
        await self._ask("DELETE_ROSPEC", ROSpecID=ROSPEC_ID)
        ports = sorted(self._settings.ports)
        await self._demand(
            f"an inventory on antenna ports {', '.join(map(str, ports))}",
            "ADD_ROSPEC",
            ROSpec=codec.rospec(ROSPEC_ID, ports, TAGS_A_REPORT),
        )
        await self._demand("to enable the inventory", "ENABLE_ROSPEC", ROSpecID=ROSPEC_ID)
        await self._demand("to start the inventory", "START_ROSPEC", ROSpecID=ROSPEC_ID)
        self.phase = Phase.INVENTORY
        loop = asyncio.get_running_loop()
        self.up_since_s = loop.time()
        self._told_offset_us = self._clocks[UTC].offset_us
        self._tell_up(self._detail, self._told_offset_us)
        self._wire.nudge()
        await self._watch(2 * timing.keepalive_s)

    async def _inquire(self) -> None:
        """Who the reader is and what it can do."""
        capabilities = await self._demand("to tell its capabilities", "GET_READER_CAPABILITIES", RequestedData=0)
        general = capabilities.fields.get("GeneralDeviceCapabilities", {})
        if general:
            self._detail["manufacturer"] = str(general["DeviceManufacturerName"])
            self._detail["model"] = str(general["ModelName"])
            self._detail["firmware"] = general["ReaderFirmwareVersion"].decode("utf-8", "replace")
            self._detail["antennas"] = str(general["MaxNumberOfAntennaSupported"])
        config = await self._ask("GET_READER_CONFIG", RequestedData=1)
        if identification := config.fields.get("Identification"):
            self._detail["identity"] = identification["ReaderID"].decode("ascii").upper()

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
            async with asyncio.timeout(self._timing.answer_s):
                message = codec.decode(await answer)
        except TimeoutError:
            raise LinkFailure(f"the reader did not answer {name} within {self._timing.answer_s:g} s") from None
        except Malformed as error:
            raise LinkFailure(f"the reader's answer to {name} can't be read ({error})") from error
        finally:
            del self._answers[request_id]
        if message.name not in (f"{name}_RESPONSE", "ERROR_MESSAGE"):
            raise LinkFailure(f"the reader answered {name} with {message.name}")
        return message

    async def _watch(self, silence_s: float) -> NoReturn:
        """Give the link up when nothing comes for `silence_s` although we listen."""
        loop = asyncio.get_running_loop()
        while True:
            since_s = self._wire.silent_since_s
            left_s = silence_s if since_s is None else since_s + silence_s - loop.time()
            if left_s <= 0:
                raise LinkFailure(f"nothing heard for {silence_s:g} s: reader, cable or switch is dead")
            await asyncio.sleep(left_s)
