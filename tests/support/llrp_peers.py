"""Peers for an LLRP session over real sockets: an obedient reader, one that does anything, a sink that remembers."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, cast

import numpy as np
from llrpkit.protocol import decode_message, enums, impinj, messages, params

from drivers.llrp.session import LlrpSession, Timing
from drivers.read import READ
from drivers.session import Contact, Gap, Link, Notice, ReaderSettings, ReaderStatus
from simulators.headquarters.broker import free_port as free_port

QUICK = Timing(
    connect_s=5,
    greeting_s=5,
    answer_s=5,
    keepalive_s=1,
    gather_s=0.01,
    drained_s=0.3,
    overflow_s=0.3,
    close_s=0.3,
    retry_first_s=0.02,
    retry_cap_s=0.1,
)
PORTS = {1: 100, 2: 101, 3: 102, 4: 103}
CARD = bytes.fromhex("2D14257BF4499602D2000000")
LONG = bytes(range(62))


def now_us() -> int:
    return time.time_ns() // 1000


class Recorder:
    """A sink that keeps everything and lets a test wait for what it expects."""

    session: LlrpSession
    """Which delivers here, if `session` made it."""

    def __init__(self) -> None:
        self.statuses: list[ReaderStatus] = []
        self.batches: list[Any] = []
        self.gaps: list[Gap] = []
        self.notices: list[str] = []
        self.contacts: list[Contact] = []
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    async def reads(self, reader: str, batch: Any) -> None:
        assert batch.dtype == READ
        assert Link.UP in self.links, "status comes before the first reads"
        self.batches.append(batch)
        await self._notify()

    def status(self, status: ReaderStatus) -> None:
        self.statuses.append(status)
        self._wake()

    def gap(self, gap: Gap) -> None:
        self.gaps.append(gap)
        self._wake()

    def notice(self, notice: Notice) -> None:
        self.notices.append(notice.text)
        self._wake()

    def contact(self, contact: Contact) -> None:
        assert Link.UP in self.links, "status comes before the first contact"
        self.contacts.append(contact)
        self._wake()

    def _wake(self) -> None:
        task = asyncio.ensure_future(self._notify())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def until(self, true: Callable[[], bool], timeout_s: float = 10) -> None:
        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(true)

    async def until_down(self) -> str:
        await self.until(lambda: self.links[-1:] == [Link.DOWN])
        return self.statuses[-1].reason

    @property
    def links(self) -> list[Link]:
        return [status.link for status in self.statuses]

    @property
    def all(self) -> Any:
        return np.concatenate([np.empty(0, READ), *self.batches])


def settings(port: int, host: str = "127.0.0.1", **more: Any) -> ReaderSettings:
    return ReaderSettings("gate-1", "llrp", f"{host}:{port}", more.pop("ports", PORTS), **more)


@asynccontextmanager
async def session(
    port: int,
    timing: Timing = QUICK,
    clock: Callable[[], int] = now_us,
    sink: Recorder | None = None,
    **more: Any,
) -> AsyncIterator[Recorder]:
    """A session at work, given up at the end; it must not have ended by itself."""
    sink = sink or Recorder()
    sink.session = LlrpSession(settings(port, **more), sink, clock, timing)
    running = asyncio.create_task(sink.session.run())
    try:
        yield sink
        assert not running.done(), running
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def peer(behaviour: Behaviour, host: str = "127.0.0.1", ssl: Any = None) -> AsyncIterator[tuple[int, list[Any]]]:
    """Listens and does `behaviour` with each connection; yields its port and the number of connections so far."""
    connections: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(cast(asyncio.Task[None], asyncio.current_task()))
        try:
            await behaviour(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, host, 0, ssl=ssl)
    try:
        yield server.sockets[0].getsockname()[1], connections
    finally:
        server.close()
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


def greeting(status: int = 0, at_us: int | None = None) -> bytes:
    return messages.READER_EVENT_NOTIFICATION(
        reader_event_notification_data=params.ReaderEventNotificationData(
            timestamp=params.UTCTimestamp(microseconds=now_us() if at_us is None else at_us),
            connection_attempt_event=params.ConnectionAttemptEvent(status=status),
        )
    ).to_bytes(message_id=0)


async def next_message(reader: asyncio.StreamReader) -> Any:
    header = await reader.readexactly(10)
    return decode_message(header + await reader.readexactly(int.from_bytes(header[2:6], "big") - 10))


OK = params.LLRPStatus(status_code=enums.StatusCode.M_Success)


def spec_of(number: int, state: int) -> params.ROSpec:
    """Somebody's ROSpec."""
    boundary = params.ROBoundarySpec(
        ro_spec_start_trigger=params.ROSpecStartTrigger(), ro_spec_stop_trigger=params.ROSpecStopTrigger()
    )
    inventory = params.AISpec(
        antenna_ids=[1],
        ai_spec_stop_trigger=params.AISpecStopTrigger(),
        inventory_parameter_specs=[params.InventoryParameterSpec(inventory_parameter_spec_id=1, protocol_id=1)],
    )
    return params.ROSpec(ro_spec_id=number, current_state=state, ro_boundary_spec=boundary, spec_parameters=[inventory])


class Obedient:
    """A reader that greets, answers every request and then does what the test wants.

    `refuse` names requests that get a bad status, `error` those that get an ERROR_MESSAGE.
    """

    def __init__(
        self,
        refuse: str = "",
        error: str = "",
        at_us: int | None = None,
        then: Behaviour | None = None,
        rospecs: dict[int, int] | None = None,
        answers: dict[str, Any] | None = None,
        beside: Behaviour | None = None,
    ) -> None:
        """`rospecs`: those that are there, with their state; `answers`: whole messages for some requests.

        `then` is done instead of answering once the inventory was started, `beside` beside it.
        """
        self.refuse, self.error, self.at_us, self.then, self.beside = refuse, error, at_us, then, beside
        self.answers = answers or {}
        listed = [spec_of(number, state) for number, state in (rospecs or {}).items()]
        self.answers.setdefault("GET_ROSPECS", messages.GET_ROSPECS_RESPONSE(llrp_status=OK, ro_specs=listed))
        self.asked: list[str] = []
        self.got: list[Any] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting(at_us=self.at_us))
        while True:
            message = await next_message(reader)
            name = type(message).__name__
            self.asked.append(name)
            self.got.append(message)
            bad = params.LLRPStatus(status_code=enums.StatusCode.M_ParameterError, error_description="port 9 is odd")
            if name == self.error:
                writer.write(messages.ERROR_MESSAGE(llrp_status=bad).to_bytes(message_id=message.message_id))
            elif response := getattr(messages, f"{name}_RESPONSE", getattr(impinj, f"{name}_RESPONSE", None)):
                answer = response(llrp_status=bad if name == self.refuse else OK)
                answer = self.answers.get(name, answer) if name != self.refuse else answer
                # A stranger's answer before ours: only the id tells them apart.
                writer.write(messages.GET_ROSPECS_RESPONSE(llrp_status=bad).to_bytes(message_id=4_000_000_000))
                writer.write(answer.to_bytes(message_id=message.message_id))
            if name == "START_ROSPEC" and self.then:
                await self.then(reader, writer)
                return
            if name == "START_ROSPEC" and self.beside:
                beside = asyncio.ensure_future(self.beside(reader, writer))
                cast(asyncio.Task[None], asyncio.current_task()).add_done_callback(partial(_cancel, beside))


def _cancel(task: asyncio.Future[None], _: object) -> None:
    task.cancel()


def report(*epcs: bytes, port: int = 1, at_us: int | None = None) -> bytes:
    return messages.RO_ACCESS_REPORT(
        tag_report_datas=[
            params.TagReportData(
                epc_parameter=params.EPC_96(epc=epc),
                antenna_id=params.AntennaID(antenna_id=port),
                peak_rssi=params.PeakRSSI(peak_rssi=-50),
                last_seen_timestamp_utc=params.LastSeenTimestampUTC(microseconds=at_us or now_us()),
            )
            for epc in epcs
        ]
    ).to_bytes(message_id=1)


async def forever(writer: asyncio.StreamWriter, data: bytes, every_s: float = 0.02) -> None:
    while True:
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(every_s)


@asynccontextmanager
async def through(port: int, cut: Callable[[bytes], list[bytes]]) -> AsyncIterator[int]:
    """A wire to `port` that delivers the reader's bytes in other pieces."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        async def there() -> None:
            while data := await reader.read(4096):
                far_writer.write(data)
            far_writer.close()

        asking = asyncio.create_task(there())
        try:
            while data := await far_reader.read(4096):
                for piece in cut(data):
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
        finally:
            asking.cancel()
            far_writer.close()

    async with peer(carry) as (near, _):
        yield near
