"""Calls of one gateway to another's port: connect, and greet as edge.forwarding.wire says."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import ssl
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from config import StoreConfig
from drivers.links import LinkFailure, insecure, keep_trying, words
from edge.forwarding import wire
from edge.forwarding.records import Malformed

STEADY_S = 10.0
"""One that ends sooner is tried again after pauses that become longer, as one that can't be made."""

REFUSALS_MAX = 100


@dataclass(frozen=True)
class Call:
    """An open connection. `term`: of the service at its other end; `welcome`: what it said."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    term: int
    welcome: wire.Welcome

    def end(self) -> None:
        """Close the connection."""
        self.writer.transport.abort()


@dataclass(frozen=True)
class Caller:
    """Who calls whom. `what`: what is there, in messages."""

    address: str
    context: ssl.SSLContext | None
    store: str
    role: wire.Role
    id: str
    token: bytes
    what: str = "the service"

    @property
    def peer(self) -> str:
        """What is called, for messages."""
        return f"{self.what} at {self.address}"

    async def call(self, term: int) -> Call:
        """Connect and greet; `term`: the highest that we have seen. Raises LinkFailure."""
        host, port = wire.host_port(self.address)
        try:
            async with asyncio.timeout(wire.GREETING_S):
                reader, writer = await asyncio.open_connection(host, port, ssl=self.context)
        except TimeoutError as error:
            raise LinkFailure(f"{self.peer} does not answer") from error
        except ssl.SSLCertVerificationError as error:
            raise LinkFailure(f"the certificate of {self.peer} is not accepted: {error.verify_message}") from error
        except ssl.SSLError as error:
            raise LinkFailure(insecure(error, self.peer)) from error
        except OSError as error:
            raise LinkFailure(f"{self.peer} can't be reached: {words(error)}") from error
        try:
            async with asyncio.timeout(wire.GREETING_S):
                return await self._greet(reader, writer, term)
        except BaseException as error:
            writer.transport.abort()
            if (failure := self.failure(error)) is not None:
                raise failure from error
            raise

    def failure(self, error: BaseException) -> LinkFailure | None:
        """Return why a connection has ended, if it was by one of the errors that end one."""
        if isinstance(error, BaseExceptionGroup):
            return next((found for one in error.exceptions if (found := self.failure(one)) is not None), None)
        if isinstance(error, LinkFailure):
            return error
        if isinstance(error, TimeoutError):
            return LinkFailure(f"{self.peer} has stopped answering")
        if isinstance(error, EOFError | ConnectionError):
            return LinkFailure(f"{self.peer} has closed the connection")
        if isinstance(error, Malformed):
            return LinkFailure(f"{self.peer} is not a Tagtrail service: {error}")
        if isinstance(error, OSError):
            return LinkFailure(f"the connection to {self.peer} is lost: {error}")
        return None

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, term: int) -> Call:
        challenge = await wire.expect(reader, wire.Challenge)
        if challenge.version != wire.VERSION:
            raise LinkFailure(f"{self.peer} runs another release: install the same on both gateways")
        if challenge.store != self.store:
            raise LinkFailure(f"{self.peer} is that of store {challenge.store!r}, not of {self.store!r}")
        nonce = secrets.token_bytes(wire.NONCE_BYTES)
        ours = wire.proof(self.token, self.role, self.store, self.id, term, challenge.nonce, nonce)
        writer.write(wire.framed(wire.Hello(wire.VERSION, self.role, self.id, term, nonce, ours)))
        welcome = await wire.expect(reader, wire.Welcome)
        theirs = wire.proof(self.token, "service", self.store, self.id, challenge.term, challenge.nonce, nonce)
        if not hmac.compare_digest(welcome.proof, theirs):
            raise LinkFailure(f"{self.peer} does not have the token of {self.id}")
        if challenge.term < term:
            raise LinkFailure(f"{self.peer} is not the store's service any more: another gateway has taken over")
        return Call(reader, writer, challenge.term, welcome)


class Refusals:
    """Callers of a port that were refused: each reason is logged once for each."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._told: set[tuple[str, str]] = set()

    def tell(self, writer: asyncio.StreamWriter, error: BaseException) -> None:
        """Say why a caller was refused: a LinkFailure, or what ended its connection before it has greeted."""
        why = str(error)
        if isinstance(error, TimeoutError):
            why = "it has not greeted in time"
        elif isinstance(error, EOFError | ConnectionError):
            why = "it has hung up before it has greeted"
        elif not isinstance(error, LinkFailure):
            why = f"it is none of the store's gateways: {error}"
        peer = writer.get_extra_info("peername")
        caller = str(peer[0]) if peer else "?"
        if (caller, why) not in self._told and len(self._told) < REFUSALS_MAX:
            self._told.add((caller, why))
            self._logger.warning("refused a caller from %s: %s", caller, why)


class KeptUp(ABC):
    """A connection to whichever of the `callers`' services answers, kept up. `connected`, and `reason` if it isn't: a
    sentence for store IT. `retry_s`: the first and the longest pause."""

    def __init__(
        self,
        callers: Sequence[Caller],
        term: int,
        logger: logging.Logger,
        retry_s: tuple[float, float],
        besides: str = "",
    ) -> None:
        self._callers = deque(callers)
        self.term = term
        """Highest term that was seen."""
        self._logger, self._retry_s, self._besides = logger, retry_s, besides
        self.connected = False
        self.reason = "not yet connected"

    @abstractmethod
    async def stay(self, caller: Caller, call: Call) -> None:
        """Use a connection, and set `connected` and `reason`; raises LinkFailure when it ends."""

    async def run(self) -> None:
        """Connect again and again, until cancelled."""
        steady = False

        async def once() -> None:
            nonlocal steady
            began_s = time.monotonic()
            try:
                await self.connect()
            finally:
                steady = self.connected and time.monotonic() - began_s >= STEADY_S
                self.connected = False

        await keep_trying(self._callers[0].id, once, self._failed, lambda: steady, self._retry_s)

    async def connect(self) -> None:
        """Stay connected to the service that answers; LinkFailure once it doesn't, or if none does."""
        reasons = []
        for caller in list(self._callers):
            try:
                call = await caller.call(self.term)
            except LinkFailure as failure:
                reasons.append(str(failure))
                self._callers.rotate(-1)
                continue
            await self.stay(caller, call)
        raise LinkFailure("; ".join(reasons))

    def _failed(self, reason: str, _: int | None) -> bool:
        news = reason != self.reason
        self.reason = reason
        if news:
            self._logger.warning("not connected: %s%s", reason, self._besides)
        return news


def callers(config: StoreConfig, role: wire.Role, id_: str, token: bytes) -> list[Caller]:
    """Return a caller for each gateway that may run the service. Trouble if the CA can't be used."""
    settings = config.forwarding
    assert settings is not None
    context = wire.calling_context(settings.ca)
    addresses = [settings.address, *([config.standby.address] if config.standby is not None else [])]
    return [Caller(address, context, config.store.id, role, id_, token) for address in addresses]
