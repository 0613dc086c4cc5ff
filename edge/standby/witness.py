"""The register of edge.standby.lease on a third gateway: `tagtrail witness`, and who asks it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from pathlib import Path
from typing import Any

import msgspec

from config import StoreConfig
from drivers.links import LinkFailure
from edge.forwarding import wire
from edge.forwarding.calling import Call, Caller, Refusals
from edge.forwarding.records import Malformed
from edge.standby import messages
from edge.standby.lease import Entry, Held, Register
from edge.standby.messages import Ask, Found
from edge.store.errors import Trouble
from edge.store.private import create_private, make_folder

log = logging.getLogger("tagtrail.witness")

NATS = "nats://"
CALLERS_MAX = 16
"""Connections that have not yet greeted; more are closed."""
VALUE_BYTES_MAX = 1024


def register_of(config: StoreConfig, holder: str) -> Register | None:
    """Return the store's witness as `holder` sees it; None if it has none. Raises Trouble."""
    standby, forwarding = config.standby, config.forwarding
    assert standby is not None
    assert forwarding is not None
    if standby.witness is None:
        return None
    if standby.witness.startswith(NATS):
        try:
            from edge.standby.nats_witness import NatsRegister
        except ImportError as error:
            raise Trouble("a witness nats://… needs nats-py: install tagtrail[chain]") from error
        return NatsRegister(standby.witness, config.store.id)
    context = wire.calling_context(forwarding.ca)
    token = wire.token(standby.token_file)
    return BoxRegister(Caller(standby.witness, context, config.store.id, "holder", holder, token, "the witness"))


class BoxRegister:
    """Asks `tagtrail witness` on another gateway, over one connection as long as it lasts."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._call: Call | None = None
        self._lock = asyncio.Lock()

    async def get(self) -> Entry:
        found = await self._ask(Ask(0, None))
        return Entry(found.revision, _held(found.value))

    async def put(self, revision: int, held: Held) -> int | None:
        found = await self._ask(Ask(revision, msgspec.msgpack.encode(held)))
        return found.revision if found.done else None

    async def _ask(self, ask: Ask) -> Found:
        async with self._lock:
            if self._call is not None:
                # The witness may have started again since.
                with contextlib.suppress(EOFError, OSError):
                    return await self._answered(self._call, ask)
            try:
                call = await self._caller.call(0)
                return await self._answered(call, ask)
            except Exception as error:
                raise self._caller.failure(error) or error from error

    async def _answered(self, call: Call, ask: Ask) -> Found:
        """Ask on a connection, which stays open only if it is answered."""
        self._call = None
        try:
            call.writer.write(messages.framed(ask))
            found = await messages.receive(call.reader)
            if not isinstance(found, Found):
                raise Malformed(f"{type(found).__name__} instead of an answer")
            self._call = call
            return found
        finally:
            if self._call is None:
                call.end()


class Witness:
    """The register, in a file; `run` until cancelled. Trouble if a token or certificate can't be used."""

    def __init__(self, config: StoreConfig, file: Path) -> None:
        standby, forwarding = config.standby, config.forwarding
        if standby is None or forwarding is None or standby.witness is None or standby.witness.startswith(NATS):
            raise Trouble('the store file has no [standby] with witness = "HOST:PORT"; see docs/gateways.md')
        self._at, self._store = standby.witness, config.store.id
        self._token = wire.token(standby.token_file)
        self._context = wire.listening_context(forwarding.cert, forwarding.key)
        self._file = file
        self._revision, self._value = self._read()
        self._greeting: set[asyncio.Task[Any]] = set()
        self._holders: dict[str, asyncio.Task[Any]] = {}
        self._refusals = Refusals(log)
        self._trouble: str | None = None

    async def run(self) -> None:
        """Listen; OSError if the port can't be opened."""
        host, port = wire.host_port(self._at)
        patience_s = wire.GREETING_S if self._context else None
        server = await asyncio.start_server(
            self._called, host, port, ssl=self._context, ssl_handshake_timeout=patience_s
        )
        log.info("witness of %s at %s", self._store, self._at)
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            callers = [*self._greeting, *self._holders.values()]
            for caller in callers:
                caller.cancel()
            await asyncio.gather(*callers, return_exceptions=True)

    def in_a_line(self) -> str:
        """Return who runs the service, by the register."""
        if self._trouble is not None:
            return self._trouble
        held = _held(self._value)
        if held is None:
            return "no service has asked yet"
        return f"{held.holder} runs the service{', alone' if held.alone else ''}, with term {held.term}"

    async def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if len(self._greeting) >= CALLERS_MAX or task is None:
            writer.transport.abort()
            return
        self._greeting.add(task)
        holder = None
        try:
            async with asyncio.timeout(wire.GREETING_S):
                holder = await self._greet(reader, writer)
            self._greeting.discard(task)
            if (former := self._holders.get(holder)) is not None:  # it was cut off, and calls anew
                former.cancel()
            self._holders[holder] = task
            await self._answer_all(reader, writer)
        except LinkFailure as failure:
            self._refusals.tell(writer, failure)
            with contextlib.suppress(OSError):
                writer.write(wire.framed(wire.Refused(str(failure))))
        except (Malformed, EOFError, OSError, TimeoutError) as error:
            if holder is None:
                self._refusals.tell(writer, error)
        except asyncio.CancelledError:
            pass
        finally:
            self._greeting.discard(task)
            if holder is not None and self._holders.get(holder) is task:
                del self._holders[holder]
            writer.close()

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            ask = await messages.wait_for(reader)
            if not isinstance(ask, Ask):
                raise Malformed(f"{type(ask).__name__} instead of a question")
            try:
                found = self._answer(ask)
            except OSError as error:
                self._tell(f"the witness can't write {self._file}: {error.strerror}")
                raise
            self._tell(None)
            writer.write(messages.framed(found))
            await writer.drain()

    def _tell(self, trouble: str | None) -> None:
        if trouble and trouble != self._trouble:
            log.error("%s", trouble)
        self._trouble = trouble

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """Greet a caller; returns which gateway it is."""
        greeted = await wire.challenged(reader, writer, self._store, 0)
        if not greeted.proven(self._token) or greeted.hello.role != "holder":
            raise LinkFailure("its token is another one than that of the witness")
        if greeted.hello.version != wire.VERSION:
            raise LinkFailure("the witness runs another release: install the same on all gateways")
        writer.write(greeted.welcome(self._token, 0))
        return greeted.hello.id

    def _answer(self, ask: Ask) -> Found:
        done = ask.value is not None and ask.revision == self._revision and len(ask.value) <= VALUE_BYTES_MAX
        if done:
            assert ask.value is not None
            before, after = _held(self._value), _held(ask.value)
            self._write(self._revision + 1, ask.value)
            if after is not None and (before is None or before.holder != after.holder):
                log.warning("%s runs the service from now on, with term %d", after.holder, after.term)
        return Found(self._revision, self._value, done)

    def _read(self) -> tuple[int, bytes]:
        try:
            found = json.loads(self._file.read_bytes())
            value = bytes.fromhex(found["value"])
            _held(value)
            return int(found["revision"]), value
        except FileNotFoundError:
            return 0, b""
        except (OSError, ValueError, KeyError, TypeError, LinkFailure) as error:
            raise Trouble(f"{self._file} can't be read: {error}; stop both gateways before you delete it") from error

    def _write(self, revision: int, value: bytes) -> None:
        make_folder(self._file.parent)
        create_private(self._file, json.dumps({"revision": revision, "value": value.hex()}).encode())
        self._revision, self._value = revision, value


def _held(value: bytes) -> Held | None:
    if not value:
        return None
    try:
        return msgspec.msgpack.decode(value, type=Held)
    except msgspec.DecodeError as error:
        raise LinkFailure(f"the witness has something else: {error}") from error
