"""The log behind the commit: JetStream streams, one a class, that carry what is new and valid to any number of readers.

A row of `fanout` is committed with the events and deleted once the log has confirmed them. What a sink leaves behind is
published by whoever takes its shards, under the same message id. The log drops a repetition within two minutes; after
that readers drop it by its numbers, which is why every message has them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import re
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StoreCompression, StreamConfig
from nats.js.errors import APIError, NotFoundError

from config import topics
from sync.chain.ledger import GONE, Run, now_us

log = logging.getLogger("tagtrail.chain")

ROOT = "tagtrail.v1"
KEEP_S = 14 * 86_400
DUPLICATES_S = 120
GIB = 1024**3
IN_FLIGHT = 256
WAITING_BYTES = 64 * 1024 * 1024
"""Bytes kept in memory for the log; beyond it they are read from the database again."""
CONFIRM_S = 5.0
"""Time without a confirmation after which a message is sent again."""
RETRY_S = 1.0
SILENT_S = 10.0
"""Time without a result after which another server is tried: this one may be cut off from the others."""


class SilentError(TimeoutError):
    """The log's server is connected, but nothing comes of it."""


class LogSettings(NamedTuple):
    """Servers of the log (`nats://host:port`, several separated by commas) and credentials."""

    servers: str
    credentials: Path | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    replicas: int = 3
    stream_gib: int = 5
    """Limit of each stream on each node's disk, reserved at once; the oldest messages go first."""


def stream_of(class_: str) -> str:
    """Return the stream of a class of events."""
    return f"TAGTRAIL_{class_.upper()}"


def subject(class_: str, store: str) -> str:
    """Return the subject of a store's events: `tagtrail.v1.{class}.{shard}.{store}`, with the store's id encoded."""
    return f"{ROOT}.{class_}.{topics.shard(store)}.{encoded(store)}"


def encoded(store: str) -> str:
    """Encode a store's id as one token of a subject: bytes other than letters, digits, `_` and `-` as =XX."""
    return "".join(chr(byte) if _PLAIN.match(chr(byte)) else f"={byte:02X}" for byte in store.encode()) or "="


def decoded(token: str) -> str:
    """Decode a token of a subject to the store's id."""
    plain = re.sub("=([0-9A-F]{2})", lambda found: chr(int(found[1], 16)), token if token != "=" else "")
    return plain.encode("latin-1").decode()


def message_id(run: Run) -> str:
    """Return the id by which the log recognises a repetition."""
    store, epoch, class_ = run.key
    again = f"/{run.id}" if run.again else ""
    return f"{encoded(store)}/{epoch}/{class_}/{run.first}-{run.last}{again}"


def body(run: Run) -> bytes:
    """Return the message of a run: its envelope, and the events' JSON as the store sent it; null for erased ones."""
    store, epoch, class_ = run.key
    head = {"v": 1, "store": store, "epoch": epoch, "class": class_, "first": run.first, "n": len(run.payloads)}
    told = json.dumps(head | {"committed_us": now_us()}, ensure_ascii=False, separators=(",", ":")).encode()
    return told[:-1] + b',"events":[' + b",".join(run.payloads) + b"]}"


async def connect(
    settings: LogSettings, name: str, tell: Callable[[str], None] = lambda error: None, avoid: str = ""
) -> Client:
    """Connect, and stay so: it waits for a server, and reconnects, for ever; `avoid` is tried last (see `server_of`).
    `tell` is called with what goes wrong, such as a missing right. Raises nats.errors.Error, OSError (credentials) or
    ValueError (addresses).
    """
    servers = settings.servers.split(",")
    random.shuffle(servers)
    servers.sort(key=lambda server: urlsplit(server).netloc == avoid)
    tls: dict[str, Any] = {}
    if settings.ca or settings.cert:
        import ssl

        context = ssl.create_default_context(cafile=settings.ca)
        if settings.cert:
            context.load_cert_chain(settings.cert, settings.key)
        tls["tls"] = context
    if settings.credentials:
        tls["user_credentials"] = str(settings.credentials)

    async def wrong(error: Exception) -> None:
        tell(str(error) or type(error).__name__)

    return await nats.connect(
        servers,
        dont_randomize=True,
        name=name,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.5,
        ping_interval=5,
        max_outstanding_pings=2,
        error_cb=wrong,
        **tls,
    )


def server_of(client: Client) -> str:
    """Return the server that a client is connected to, for `connect`."""
    return client.connected_url.netloc if client.connected_url else ""


async def leave(client: Client) -> None:
    """Close a connection, also one whose server takes nothing any more."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(1):
            await client.close()
    for subscription in client._subs.values():  # closing waits for the server before it comes to them
        subscription._stop_processing()


async def ensure_streams(client: Client, classes: Iterable[str], settings: LogSettings) -> None:
    """Create missing streams; one that is there stays as its operator has configured it."""
    js = client.jetstream(timeout=5)
    for class_ in classes:
        try:
            await js.stream_info(stream_of(class_))
        except NotFoundError:
            await js.add_stream(
                StreamConfig(
                    name=stream_of(class_),
                    subjects=[f"{ROOT}.{class_}.>"],
                    retention=RetentionPolicy.LIMITS,
                    storage=StorageType.FILE,
                    discard=DiscardPolicy.OLD,
                    num_replicas=settings.replicas,
                    max_age=KEEP_S,
                    max_bytes=settings.stream_gib * GIB,
                    duplicate_window=DUPLICATES_S,
                    compression=StoreCompression.S2,
                    allow_direct=True,
                )
            )


class Feed:
    """Publishes runs until the log has confirmed them; `run` continues until cancelled, whatever becomes of the log.

    `counters`: published, confirmed, refused, repeated (sent again for want of a confirmation).
    """

    def __init__(self, settings: LogSettings, classes: Sequence[str], name: str) -> None:
        self._settings = settings
        self._classes = classes
        self._name = name
        self._waiting: OrderedDict[int, Run] = OrderedDict()
        self._sent: OrderedDict[int, tuple[Run, float]] = OrderedDict()
        self._bytes = 0
        self._confirmed: list[int] = []
        self._told: set[int] = set()
        self._to_do = asyncio.Event()
        self._missing = True
        self._heard_s = 0.0
        self.trouble: str | None = "not yet connected"
        self.counters: Counter[str] = Counter()

    @property
    def full(self) -> bool:
        """True if nothing more is accepted."""
        return self._bytes >= WAITING_BYTES

    @property
    def waiting(self) -> int:
        """Number of runs in memory that aren't confirmed."""
        return len(self._waiting) + len(self._sent)

    def known(self) -> list[int]:
        """Return the rows of `fanout` that are dealt with here, or confirmed and not deleted yet."""
        return [*self._waiting, *self._sent, *self._told]

    def offer(self, runs: Iterable[Run]) -> bool:
        """Accept committed runs for publishing; False if some were not, for lack of room: read them from the database
        later."""
        for run in runs:
            if self.full:
                return False
            if run.id in self._sent or run.id in self._waiting or run.id in self._told:
                continue
            if all(payload == GONE for payload in run.payloads):
                self._confirmed.append(run.id)
                self._told.add(run.id)
                continue
            self._waiting[run.id] = run
            self._bytes += sum(map(len, run.payloads))
        self._to_do.set()
        return True

    def confirmed(self) -> list[int]:
        """Return rows that may be deleted; call `deleted` with them when that is committed."""
        taken, self._confirmed = self._confirmed, []
        return taken

    def deleted(self, ids: Iterable[int], done: bool) -> None:
        """Note that rows were deleted, or that they could not be."""
        if done:
            self._told -= set(ids)
        else:
            self._confirmed += ids

    async def run(self) -> None:
        """Publish."""
        avoid = ""
        while True:
            try:
                client = await connect(self._settings, self._name, self._wrong, avoid)
            except (NatsError, OSError, TimeoutError, ValueError) as error:
                self.trouble = f"the log: {error or type(error).__name__}"
                await asyncio.sleep(RETRY_S)
                continue
            try:
                await self._publish(client)
            except SilentError as error:
                self.trouble, avoid = f"the log: {error}", server_of(client)
            except (NatsError, OSError, TimeoutError) as error:
                self.trouble = f"the log: {error or type(error).__name__}"
                await asyncio.sleep(RETRY_S)
            finally:
                await leave(client)

    def _wrong(self, error: str) -> None:
        self.trouble = f"the log: {error}"

    async def _publish(self, client: Client) -> None:
        inbox = client.new_inbox()
        await client.subscribe(f"{inbox}.*", cb=self._take, pending_msgs_limit=-1, pending_bytes_limit=-1)
        self._send_again(0.0)
        self._heard_s = time.monotonic()
        while not client.is_closed:
            self._to_do.clear()
            if not self.waiting:
                self._heard_s = time.monotonic()
            elif time.monotonic() - self._heard_s > SILENT_S:
                raise SilentError(f"{server_of(client) or 'no server'} confirms nothing")
            if not client.is_connected:
                self.trouble = "the log: no connection"
                await asyncio.sleep(0.2)
                continue
            if self._missing and not await self._ensure(client):
                await asyncio.sleep(RETRY_S)
                continue
            self._send_again(CONFIRM_S)
            while self._waiting and len(self._sent) < IN_FLIGHT and client.is_connected:
                id_, run = self._waiting.popitem(last=False)
                self._sent[id_] = run, time.monotonic()
                headers = {"Nats-Msg-Id": message_id(run)}
                await client.publish(subject(run.key[2], run.key[0]), body(run), f"{inbox}.{id_}", headers)
                self.counters["published"] += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S):
                    await self._to_do.wait()

    async def _ensure(self, client: Client) -> bool:
        try:
            await ensure_streams(client, self._classes, self._settings)
        except (APIError, NatsError, TimeoutError) as error:
            self.trouble = f"the log's streams: {error or type(error).__name__}"
            return False
        self._missing, self.trouble = False, None
        return True

    def _send_again(self, after_s: float) -> None:
        """Put what has waited for its confirmation for too long back in front."""
        now = time.monotonic()
        late = [id_ for id_, (_, sent_s) in self._sent.items() if now - sent_s >= after_s]
        for id_ in reversed(late):
            self._waiting[id_], _ = self._sent.pop(id_)
            self._waiting.move_to_end(id_, last=False)
        self.counters["repeated"] += len(late)

    async def _take(self, message: Msg) -> None:
        """Take the log's answer."""
        id_ = int(message.subject.rsplit(".", 1)[1])
        try:
            answer = json.loads(message.data)
        except ValueError:
            answer = {}
        if answer.get("stream") and "error" not in answer:
            if id_ in self._sent:
                run, _ = self._sent.pop(id_)
                self._bytes -= sum(map(len, run.payloads))
                self._confirmed.append(id_)
                self._told.add(id_)
                self.counters["confirmed"] += 1
                self._heard_s = time.monotonic()
                self.trouble = None
            self._to_do.set()
            return
        # 503 without a body while a stream has no leader, or when it isn't there.
        self.counters["refused"] += 1
        if id_ in self._sent:
            self._sent[id_] = self._sent[id_][0], time.monotonic() - CONFIRM_S + RETRY_S
        error = answer.get("error", {})
        self.trouble = f"the log refuses: {error.get('description', 'no stream or no leader')}"
        self._missing = True


_PLAIN = re.compile(r"[A-Za-z0-9_-]")
