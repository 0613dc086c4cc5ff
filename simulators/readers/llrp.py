"""Simulated 4-port reader with LLRP 1.0.1 over TCP, by llrpkit's codec: independent of our drivers.

Follows GS1 LLRP 1.1: connection events (section 20.1.1), one client at a time (14.2.6.11), ROSpec life (10.2), reports
triggered by ROReportSpec (14.2.1), held events and reports (13.2.1). A ROSpec and the format of reports outlive a
connection, as on real readers; keepalives don't.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from llrpkit.exceptions import MessageDecodeError
from llrpkit.protocol import LLRPMessage, decode_message, enums, messages, params

from simulators.readers import llrp_replies
from simulators.readers.llrp_report import ReportEncoder
from simulators.readers.observation import Observation

HEADER_BYTES = 10
FRAME_MAX = 4 << 20
HELD_MAX = 66_000
"""Reports buffered for an absent or slow client; then the oldest are lost (as on FX readers)."""
HELD_EVENTS_MAX = 1000
WARN_PERCENT = 80
SOCKET_BUFFER_MAX = 1 << 20
"""Unsent bytes in the socket beyond which reports are held back."""


class LlrpReader:
    """Simulated reader on loopback; `clock` gives its UTC in microseconds, `name` its identity."""

    def __init__(
        self,
        clock: Callable[[], int],
        *,
        name: str = "reader",
        ports: int = 4,
        tcp_port: int = 0,
        holds: bool = True,
        held_max: int = HELD_MAX,
        uptime: bool = False,
        tls: ssl.SSLContext | None = None,
        maker: int = llrp_replies.MANUFACTURER_PEN,
    ) -> None:
        """`holds`: can it buffer events and reports for an absent client; `tls`: its context for secure connections;
        `maker`: enterprise number that it tells.

        `uptime`: it has no UTC, and `clock` is its uptime.
        """
        self.clock = clock
        self.ports = ports
        self.holds = holds
        self.held_max = held_max
        self.identity = llrp_replies.identity(name)
        self.lost = 0
        """Number of lost observations: no inventory running, port not in it, or buffer full."""
        self.sent = 0
        """Number of tag reports written to clients."""
        self.silent = False
        """True: everything sent and received is lost, as on a silently dead link."""
        self.keepalive_acks = 0
        self.gpo: dict[int, bool] = {}
        """Outputs set by clients."""
        self._uptime = uptime
        self._tls = tls
        self._maker = maker
        self._tcp_port = tcp_port
        self._server: asyncio.Server | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._handlers: set[asyncio.Task[None]] = set()
        self._timers: dict[str, asyncio.Task[None]] = {}
        self._rospecs: dict[int, params.ROSpec] = {}
        self._default_report = ReportEncoder(llrp_replies.default_report_spec(), uptime=uptime)
        self._reports = self._default_report
        self._active_ports: frozenset[int] = frozenset()
        self._pending: list[bytes] = []
        self._held: deque[bytes] = deque()
        self._held_events: deque[bytes] = deque(maxlen=HELD_EVENTS_MAX)
        self._watched: set[int] = set()
        self._hold = False
        self._holding = False
        self._overflowed = self._warned = False
        self._state_value = 1
        self._event_states: set[int] = set()
        self._report_id = 0

    async def start(self) -> str:
        """Listen; returns `127.0.0.1:port`."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._tcp_port, ssl=self._tls)
        self._tcp_port = self._server.sockets[0].getsockname()[1]
        return f"127.0.0.1:{self._tcp_port}"

    async def dial(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        """Connect to a client that listens (reader-initiated, 20.1.1); ends with the connection."""
        reader, writer = await asyncio.open_connection(host, port, ssl=tls)
        serving = asyncio.create_task(self._serve(reader, writer))
        try:
            await asyncio.wait([serving])
        finally:
            serving.cancel()
            await asyncio.wait([serving])

    def cut(self) -> None:
        """Break the connection, as a restarted switch does; the reader itself continues."""
        if self._writer is not None:
            self._writer.transport.abort()

    def gpi(self, port: int, high: bool) -> None:
        """Change an input: reported if requested, buffered for an absent client if reports are."""
        if port not in self._watched or enums.NotificationEventType.GPI_Event not in self._event_states:
            return
        event = self._event_bytes(gpi_event=params.GPIEvent(gpi_port_number=port, gpi_event=high))
        if self._writer is not None and not self._holding:
            self.say(event)
        elif self._hold:
            self._held_events.append(event)

    def say(self, raw: bytes) -> None:
        """Send arbitrary bytes to the client, if there is one."""
        if self._writer is not None and not self.silent:
            self._writer.write(raw)

    def notify(self, **event: Any) -> None:
        """Send an event, given as a field of llrpkit's ReaderEventNotificationData."""
        self._event(**event)

    def end_inventory(self) -> None:
        """Stop the inventory as if from the reader's own web page; a client that asked for events is notified."""
        for number, spec in self._rospecs.items():
            if spec.current_state == enums.ROSpecState.Active:
                self._move(number, {enums.ROSpecState.Active}, enums.ROSpecState.Inactive)

    def lose_inventory(self) -> None:
        """Drop all ROSpecs without notification."""
        self._flush()
        self._rospecs.clear()
        self._activate()

    async def stop(self) -> None:
        """Disconnect like a reader that loses power: without goodbye, keeping only its address."""
        if self._server is not None:
            self._server.close()
        for task in list(self._handlers):
            task.cancel()
        if self._handlers:
            await asyncio.gather(*self._handlers, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None
        self._rospecs.clear()
        self._activate()
        self._pending.clear()
        self._held.clear()
        self._held_events.clear()
        self._watched.clear()
        self._overflowed = self._warned = False
        self._reports = self._default_report
        self._hold = self._holding = False

    @property
    def inventorying(self) -> bool:
        """True while a ROSpec is active."""
        return bool(self._active_ports)

    @property
    def connected(self) -> bool:
        """True while a client is connected."""
        return self._writer is not None

    def push(self, observations: Iterable[Observation]) -> None:
        """Take observations: those that the active ROSpec covers are reported by its ROReportSpec."""
        ports, encode, pending = self._active_ports, self._reports.encode, self._pending
        for observation in observations:
            if observation.port in ports:
                pending.append(encode(observation))
            else:
                self.lost += 1
        n = self._reports.every
        if n and len(pending) >= n:
            whole = len(pending) - len(pending) % n
            self._report(pending[:whole])
            del pending[:whole]

    def _report(self, reports: list[bytes]) -> None:
        writer = self._writer
        slow = writer is not None and writer.transport.get_write_buffer_size() > SOCKET_BUFFER_MAX
        if writer is not None and not (self._holding or self._held or slow):
            self._write_reports(writer, reports)
        elif writer is None and not self._hold:
            self.lost += len(reports)
        else:
            self._held.extend(reports)
            if len(self._held) * 100 >= self.held_max * WARN_PERCENT and not self._warned:
                self._warned = True
                if enums.NotificationEventType.Report_Buffer_Fill_Warning in self._event_states and not self._holding:
                    self._event(
                        report_buffer_level_warning_event=params.ReportBufferLevelWarningEvent(
                            report_buffer_percentage_full=WARN_PERCENT
                        )
                    )
            while len(self._held) > self.held_max:
                self._held.popleft()
                self.lost += 1
                self._overflowed = True
            if writer is not None and not self._holding:
                self._start("drain", self._drain(writer))

    def _write_reports(self, writer: asyncio.StreamWriter, reports: list[bytes]) -> None:
        per_message = self._reports.per_message
        for i in range(0, len(reports), per_message):
            self._report_id = self._report_id % 0xFFFFFFFF + 1
            body = reports[i : i + per_message]
            header = messages.RO_ACCESS_REPORT.MESSAGE_TYPE | 1 << 10
            length = HEADER_BYTES + sum(map(len, body))
            self.say(struct.pack(">HII", header, length, self._report_id) + b"".join(body))
        self.sent += len(reports)

    async def _drain(self, writer: asyncio.StreamWriter) -> None:
        while self._held and self._writer is writer:
            if self._overflowed:
                self._overflowed = False
                self._event(report_buffer_overflow_error_event=params.ReportBufferOverflowErrorEvent())
            self._warned = False
            part = [self._held.popleft() for _ in range(min(1000, len(self._held)))]
            self._write_reports(writer, part)
            await writer.drain()

    # ── connection ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        try:
            if self._writer is not None:
                self._refuse(writer)
                return
            self._writer = writer
            self._holding = self._hold
            self._event(connection_attempt_event=params.ConnectionAttemptEvent(status=0))
            await self._talk(reader)
        except (ConnectionError, asyncio.IncompleteReadError, MessageDecodeError, asyncio.CancelledError):
            pass  # the client left, sends no LLRP, or the reader is stopped: all end the connection and nothing else
        finally:
            self._handlers.discard(task)
            if self._writer is writer:
                self._writer = None
                for name in ("keepalive", "drain"):
                    self._cancel(name)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    def _refuse(self, writer: asyncio.StreamWriter) -> None:
        status = enums.ConnectionAttemptStatusType.Failed_A_Client_Initiated_Connection_Already_Exists
        writer.write(self._event_bytes(connection_attempt_event=params.ConnectionAttemptEvent(status=status)))
        status = enums.ConnectionAttemptStatusType.Another_Connection_Attempted
        self._event(connection_attempt_event=params.ConnectionAttemptEvent(status=status))

    async def _talk(self, reader: asyncio.StreamReader) -> None:
        while True:
            header = await reader.readexactly(HEADER_BYTES)
            length = int.from_bytes(header[2:6], "big")
            if not HEADER_BYTES <= length <= FRAME_MAX:
                return
            body = await reader.readexactly(length - HEADER_BYTES)
            if self.silent:
                continue
            message = decode_message(header + body)
            if isinstance(message, messages.KEEPALIVE_ACK):
                self.keepalive_acks += 1
                continue
            reply = self._answer(message)
            if reply is not None and self._writer is not None:
                self.say(reply.to_bytes(message_id=message.message_id))
                await self._writer.drain()
            if isinstance(message, messages.CLOSE_CONNECTION):
                return

    def _event_bytes(self, **event: Any) -> bytes:
        moment = (params.Uptime if self._uptime else params.UTCTimestamp)(microseconds=self.clock())
        notice = params.ReaderEventNotificationData(timestamp=moment, **event)
        return messages.READER_EVENT_NOTIFICATION(reader_event_notification_data=notice).to_bytes(message_id=0)

    def _event(self, **event: Any) -> None:
        self.say(self._event_bytes(**event))

    # ── messages ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _answer(self, message: LLRPMessage) -> LLRPMessage | None:
        match message:
            case messages.GET_READER_CAPABILITIES():
                return llrp_replies.capabilities(
                    int(message.requested_data), self.ports, self.holds, self._uptime, self._maker
                )
            case messages.GET_READER_CONFIG():
                return llrp_replies.configuration(
                    int(message.requested_data),
                    self.identity,
                    self.ports,
                    self._reports.spec,
                    self._hold,
                    self._state_value,
                )
            case messages.SET_READER_CONFIG():
                return messages.SET_READER_CONFIG_RESPONSE(llrp_status=self._configure(message))
            case messages.ADD_ROSPEC():
                return messages.ADD_ROSPEC_RESPONSE(llrp_status=self._add(message.ro_spec))
            case messages.DELETE_ROSPEC():
                return messages.DELETE_ROSPEC_RESPONSE(llrp_status=self._delete(message.ro_spec_id))
            case messages.ENABLE_ROSPEC():
                return messages.ENABLE_ROSPEC_RESPONSE(llrp_status=self._enable(message.ro_spec_id))
            case messages.DISABLE_ROSPEC():
                return messages.DISABLE_ROSPEC_RESPONSE(
                    llrp_status=self._move(message.ro_spec_id, {0, 1, 2}, enums.ROSpecState.Disabled)
                )
            case messages.START_ROSPEC():
                return messages.START_ROSPEC_RESPONSE(
                    llrp_status=self._move(message.ro_spec_id, {1, 2}, enums.ROSpecState.Active)
                )
            case messages.STOP_ROSPEC():
                return messages.STOP_ROSPEC_RESPONSE(
                    llrp_status=self._move(message.ro_spec_id, {1, 2}, enums.ROSpecState.Inactive)
                )
            case messages.GET_ROSPECS():
                return messages.GET_ROSPECS_RESPONSE(
                    llrp_status=llrp_replies.status(), ro_specs=list(self._rospecs.values())
                )
            case messages.GET_REPORT():
                self._flush()
                return None
            case messages.ENABLE_EVENTS_AND_REPORTS():
                self._holding = False
                if self._writer is not None:
                    self.say(b"".join(self._held_events))
                    self._held_events.clear()
                if self._held and self._writer is not None:
                    self._start("drain", self._drain(self._writer))
                return None
            case messages.CLOSE_CONNECTION():
                return messages.CLOSE_CONNECTION_RESPONSE(llrp_status=llrp_replies.status())
            case _:
                unsupported = llrp_replies.status(109, f"{type(message).__name__} is not supported")
                return messages.ERROR_MESSAGE(llrp_status=unsupported)

    def _configure(self, message: messages.SET_READER_CONFIG) -> params.LLRPStatus:
        ports = [write.gpo_port_number for write in message.gpo_write_datas]
        ports += [state.gpi_port_num for state in message.gpi_port_current_states]
        if any(not 1 <= port <= llrp_replies.GPIO_PORTS for port in ports):
            return llrp_replies.status(101, f"ports {ports}; this reader has 1 to {llrp_replies.GPIO_PORTS}")
        if message.reset_to_factory_default:
            self._rospecs.clear()
            self._activate()
            self._reports = self._default_report
            self._hold = False
            self._event_states.clear()
            self._cancel("keepalive")
        if message.ro_report_spec is not None:
            self._default_report = ReportEncoder(message.ro_report_spec, uptime=self._uptime)
            self._activate()
        self._state_value += 1
        for write in message.gpo_write_datas:
            self.gpo[write.gpo_port_number] = write.gpo_data
        for state in message.gpi_port_current_states:
            change = self._watched.add if state.config else self._watched.discard
            change(state.gpi_port_num)
        if message.events_and_reports is not None and self.holds:
            self._hold = message.events_and_reports.hold_events_and_reports_upon_reconnect
        if message.reader_event_notification_spec is not None:
            for wanted in message.reader_event_notification_spec.event_notification_states:
                change = self._event_states.add if wanted.notification_state else self._event_states.discard
                change(int(wanted.event_type))
        if message.keepalive_spec is not None:
            self._cancel("keepalive")
            period_ms = message.keepalive_spec.periodic_trigger_value
            if message.keepalive_spec.keepalive_trigger_type and period_ms:
                self._start("keepalive", self._keepalive(period_ms / 1000))
        return llrp_replies.status()

    async def _keepalive(self, period_s: float) -> None:
        while self._writer is not None:
            await asyncio.sleep(period_s)
            self.say(messages.KEEPALIVE().to_bytes(message_id=0))

    # ── ROSpecs ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _add(self, spec: params.ROSpec) -> params.LLRPStatus:
        if spec.ro_spec_id in self._rospecs or not spec.ro_spec_id:
            return llrp_replies.status(101, f"ROSpecID {spec.ro_spec_id} is taken or zero")
        if spec.current_state != enums.ROSpecState.Disabled:
            return llrp_replies.status(101, "a ROSpec is added Disabled")
        if len(self._rospecs) >= llrp_replies.ROSPECS_MAX:
            return llrp_replies.status(105, f"no room for more than {llrp_replies.ROSPECS_MAX} ROSpecs")
        ports = {port for ai in _antenna_specs(spec) for port in ai.antenna_ids}
        if not ports or not ports <= set(range(self.ports + 1)):
            return llrp_replies.status(101, f"antennas {sorted(ports)}; this reader has 1 to {self.ports}")
        self._rospecs[spec.ro_spec_id] = spec
        self._state_value += 1
        return llrp_replies.status()

    def _delete(self, ro_spec_id: int) -> params.LLRPStatus:
        if ro_spec_id and ro_spec_id not in self._rospecs:
            return llrp_replies.status(101, f"no ROSpec {ro_spec_id}")
        for each in [ro_spec_id] if ro_spec_id else list(self._rospecs):
            self._move(each, {0, 1, 2}, enums.ROSpecState.Disabled)
            del self._rospecs[each]
        self._state_value += 1
        return llrp_replies.status()

    def _enable(self, ro_spec_id: int) -> params.LLRPStatus:
        done = self._move(ro_spec_id, {0, 1, 2}, enums.ROSpecState.Inactive, leave_active=True)
        for each in [ro_spec_id] if ro_spec_id else list(self._rospecs):
            spec = self._rospecs.get(each)
            if spec is not None and spec.ro_boundary_spec.ro_spec_start_trigger.ro_spec_start_trigger_type:
                self._move(each, {1}, enums.ROSpecState.Active)
        return done

    def _move(self, ro_spec_id: int, allowed: set[int], state: int, *, leave_active: bool = False) -> params.LLRPStatus:
        if ro_spec_id and ro_spec_id not in self._rospecs:
            return llrp_replies.status(101, f"no ROSpec {ro_spec_id}")
        for spec in [self._rospecs[ro_spec_id]] if ro_spec_id else list(self._rospecs.values()):
            if spec.current_state not in allowed:
                return llrp_replies.status(101, f"ROSpec {spec.ro_spec_id} is in state {int(spec.current_state)}")
            if leave_active and spec.current_state == enums.ROSpecState.Active:
                continue
            was, spec.current_state = spec.current_state, state
            if was == enums.ROSpecState.Active and state != was:
                self._flush()
                self._ro_spec_event(spec, enums.ROSpecEventType.End_Of_ROSpec)
            elif state == enums.ROSpecState.Active and state != was:
                self._ro_spec_event(spec, enums.ROSpecEventType.Start_Of_ROSpec)
        self._activate()
        return llrp_replies.status()

    def _ro_spec_event(self, spec: params.ROSpec, kind: int) -> None:
        if enums.NotificationEventType.ROSpec_Event in self._event_states:
            self._event(ro_spec_event=params.ROSpecEvent(event_type=kind, ro_spec_id=spec.ro_spec_id))

    def _activate(self) -> None:
        """Apply ports and report format of the first active ROSpec, as readers run one at a time."""
        self._cancel("aispec")
        active = next((s for s in self._rospecs.values() if s.current_state == enums.ROSpecState.Active), None)
        if active is None:
            self._active_ports = frozenset()
            return
        specs = _antenna_specs(active)
        ports = {port for ai in specs for port in ai.antenna_ids}
        self._active_ports = frozenset(range(1, self.ports + 1)) if 0 in ports else frozenset(ports)
        self._reports = (
            self._default_report
            if active.ro_report_spec is None
            else ReportEncoder(active.ro_report_spec, active.ro_spec_id, uptime=self._uptime)
        )
        round_s = sum(ai.ai_spec_stop_trigger.duration_trigger for ai in specs) / 1000
        if round_s and self._reports.at_end_of_ai_spec:
            self._start("aispec", self._rounds(round_s))

    async def _rounds(self, round_s: float) -> None:
        while True:
            await asyncio.sleep(round_s)
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._report(self._pending[:])
            self._pending.clear()

    def _start(self, name: str, work: asyncio._CoroutineLike[None]) -> None:
        if name in self._timers and not self._timers[name].done():
            work.close()
            return
        self._timers[name] = asyncio.get_running_loop().create_task(work)

    def _cancel(self, name: str) -> None:
        task = self._timers.pop(name, None)
        if task is not None:
            task.cancel()


def _antenna_specs(spec: params.ROSpec) -> list[params.AISpec]:
    return [part for part in spec.spec_parameters if isinstance(part, params.AISpec)]
