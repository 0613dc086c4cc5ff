"""The register of edge.standby.lease as a key of the chain's log: JetStream's key-value store, whose nodes agree."""

from __future__ import annotations

import contextlib

import msgspec
import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.api import KeyValueConfig
from nats.js.errors import APIError, BucketNotFoundError, KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from drivers.links import LinkFailure
from edge.standby.lease import Entry, Held

BUCKET = "TAGTRAIL_WITNESS"
"""Made by the operator of the log, or by the first gateway that may."""
REPLICAS = 3
"""Of a bucket made here, unless the log is a single node."""
NOT_CLUSTERED = 10074
"""JetStream's code for replicas that a single node can't have."""
CONNECT_S = 2.0


class NatsRegister:
    """One key a store. `url`: nats://[user:password@]host:port, several separated by commas."""

    def __init__(self, url: str, store: str) -> None:
        self._servers = url.split(",")
        self._key = f"{store}/holder"  # the whole of a key must not end with a dot, which an id may
        self._client: Client | None = None
        self._bucket: KeyValue | None = None

    async def get(self) -> Entry:
        try:
            found = await (await self._opened()).get(self._key)
        except KeyNotFoundError as missing:
            # One that somebody has deleted has left a revision, in place of which alone the next may be put.
            return Entry(missing.entry.revision or 0 if missing.entry is not None else 0, None)
        except (NatsError, OSError, TimeoutError) as error:
            raise await self._lost(error) from error
        try:
            return Entry(found.revision or 0, msgspec.json.decode(found.value or b"", type=Held))
        except msgspec.DecodeError as error:
            raise LinkFailure(f"the witness has something else: {error}") from error

    async def put(self, revision: int, held: Held) -> int | None:
        try:
            return await (await self._opened()).update(self._key, msgspec.json.encode(held), last=revision)
        except KeyWrongLastSequenceError:
            return None
        except (NatsError, OSError, TimeoutError) as error:
            raise await self._lost(error) from error

    async def _opened(self) -> KeyValue:
        if self._bucket is None:
            if self._client is None:
                self._client = await nats.connect(
                    self._servers, connect_timeout=CONNECT_S, allow_reconnect=False, error_cb=_quiet
                )
            stream = self._client.jetstream(timeout=CONNECT_S)
            try:
                self._bucket = await stream.key_value(BUCKET)
            except BucketNotFoundError:
                self._bucket = await self._made()
        return self._bucket

    async def _made(self) -> KeyValue:
        assert self._client is not None
        stream = self._client.jetstream(timeout=CONNECT_S)
        try:
            return await stream.create_key_value(KeyValueConfig(BUCKET, replicas=REPLICAS))
        except APIError as error:
            if error.err_code != NOT_CLUSTERED:  # nodes that are only away are waited for
                raise
            return await stream.create_key_value(KeyValueConfig(BUCKET, replicas=1))

    async def _lost(self, error: Exception) -> LinkFailure:
        """Connect anew next time; returns why."""
        client, self._client, self._bucket = self._client, None, None
        if client is not None:
            with contextlib.suppress(NatsError, OSError, TimeoutError):
                await client.close()
        return LinkFailure(f"the witness does not answer: {error or type(error).__name__}")


async def _quiet(error: Exception) -> None:
    """What goes wrong is raised where something was asked."""
