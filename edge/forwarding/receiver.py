"""The service's port for forwarders: greets them, and hands what they send to their relays."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from config import StoreConfig
from drivers.links import LinkFailure
from edge.forwarding import wire
from edge.forwarding.calling import Refusals
from edge.forwarding.records import Malformed, decoded
from edge.forwarding.relay import ForwardedSink, Phase, Relay
from edge.store.clock import Clock
from edge.store.compose import Shop

log = logging.getLogger("tagtrail.forwarders")

CALLERS_MAX = 32
"""Connections that have not yet greeted; more are closed."""
NOT_YET = "the service does not know the time yet"

Positions = Mapping[str, tuple[str, int]]
"""Life and number of a record, by forwarder."""


_LINKS = {Phase.AWAY: "down", Phase.HANDING: "connecting", Phase.LATE: "connecting", Phase.LIVE: "up"}


@dataclass
class _Known:
    relay: Relay
    token: bytes
    connection: asyncio.Task[None] | None = None
    refused: str = ""
    """Why the last caller of this name was refused."""


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Pair:
    """The store's gateways that run the service in turn. `token`: theirs; `serve`: take care of the standby's
    connection; `superseded`: called with a term higher than ours, and who said so; `kept`: wait until the standby has
    what is committed; `refused`: called with why a caller that wants to be the standby was refused."""

    token: bytes
    serve: Serve
    superseded: Callable[[int, str], None]
    kept: Callable[[], Awaitable[None]]
    refused: Callable[[str], None]


class Receiver:
    """Listen at an address until cancelled. `committed` tells what is in the database; `untrusted`, whether no reads
    may be taken because the service doesn't know the time. `term`: of the service; `pair`: if another gateway may run
    it, too. Trouble if a token or certificate can't be used."""

    def __init__(
        self,
        config: StoreConfig,
        shop: Shop,
        sink: ForwardedSink,
        clock: Clock,
        committed: Callable[[], Positions],
        untrusted: Callable[[], bool],
        *,
        at: str | None = None,
        term: int = 1,
        pair: Pair | None = None,
    ) -> None:
        settings = config.forwarding
        assert settings is not None
        self._store = config.store.id
        self._at = at or settings.listen or settings.address
        self._term, self._pair = term, pair
        self._context = wire.listening_context(settings.cert, settings.key)
        self._clock, self._committed, self._untrusted = clock, committed, untrusted
        ports = {reader.id: reader.ports for reader in shop.readers}
        self._known = {
            each.id: _Known(
                Relay(
                    each.id,
                    {reader.id: ports[reader.id] for reader in config.readers if reader.via == each.id},
                    sink,
                    clock,
                ),
                wire.token(each.token_file),
            )
            for each in config.forwarders
        }
        self._greeting: set[asyncio.Task[None]] = set()
        self._refusals = Refusals(log)

    async def run(self) -> NoReturn:
        """Listen; OSError if the port can't be opened."""
        host, port = wire.host_port(self._at)
        for id_, known in self._known.items():
            known.relay.resume(self._committed().get(id_, ("", 0)))
        patience_s = wire.GREETING_S if self._context else None
        server = await asyncio.start_server(
            self._called, host, port, ssl=self._context, ssl_handshake_timeout=patience_s
        )
        try:
            while True:
                await asyncio.sleep(wire.EVERY_S / 2)
                if self._untrusted():
                    for known in self._known.values():
                        if known.connection is not None:
                            known.connection.cancel(NOT_YET)
        finally:
            server.close()
            tasks = [*self._greeting, *(each.connection for each in self._known.values() if each.connection)]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def told(self) -> list[dict[str, Any]]:
        """Return the state of each forwarder for the live state."""
        return [
            {
                "id": id_,
                "link": _LINKS[known.relay.phase],
                "reason": known.refused or known.relay.reason,
                "since_us": known.relay.since_us,
                "clock_offset_us": known.relay.offset_us,
                "behind_us": known.relay.behind_us if known.connection else None,
                "kept_bytes": known.relay.kept_bytes if known.connection else None,
                "lost": known.relay.lost,
                "left_out": known.relay.left_out,
                "foreign": list(known.relay.foreign),
            }
            for id_, known in self._known.items()
        ]

    async def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._greeting) >= CALLERS_MAX:
            writer.transport.abort()
            return
        self._greeting.add(task)
        known, serve = None, None
        try:
            async with asyncio.timeout(wire.GREETING_S):
                known = await self._greet(reader, writer)
                serve = self._pair.serve if known is None and self._pair is not None else None
        except (Malformed, EOFError, OSError, TimeoutError, ValueError) as error:
            self._refusals.tell(writer, error)
        except LinkFailure as failure:
            self._refusals.tell(writer, failure)
            with suppress(OSError):
                writer.write(wire.framed(wire.Refused(str(failure))))
                await asyncio.wait_for(writer.drain(), 1)
        finally:
            self._greeting.discard(task)
            if known is None and serve is None:
                writer.close()
        if known is not None:
            await self._serve(known, reader, writer)
        elif serve is not None:
            await serve(reader, writer)

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Known | None:
        """Greet a caller; None if it is the other gateway that may run the service."""
        greeted = await wire.challenged(reader, writer, self._store, self._term)
        hello = greeted.hello
        known = self._known.get(hello.id) if hello.role == "forwarder" else None
        paired = self._pair if hello.role in ("standby", "peer") else None
        token = known.token if known else paired.token if paired else None
        # Without such a forwarder it takes as long, and is told the same.
        if not greeted.proven(token) or token is None:
            if known is not None and known.connection is None:
                known.refused = "a caller of this name has another token"
            if paired is not None:
                paired.refused("a caller that wants to be the standby has another token")
            what = "forwarder" if hello.role == "forwarder" else "[standby]"
            raise LinkFailure(f"there is no such {what} in the service's store file, or its token is another one")
        if hello.version != wire.VERSION:
            said = "it runs another release: install the same on both gateways"
            if known is not None:
                known.refused = said
            if paired is not None:
                paired.refused(said)
            raise LinkFailure("the service runs another release: install the same on both gateways")
        if hello.term > self._term:
            if self._pair is not None:
                self._pair.superseded(hello.term, hello.id)
            raise LinkFailure("this gateway does not run the store's service any more: another one has taken over")
        if known is None:
            writer.write(greeted.welcome(token, self._clock.now_us()))
            return None
        if self._untrusted():
            raise LinkFailure(NOT_YET)
        if known.connection is not None:  # it has lost that one, and we have not noticed yet
            known.connection.cancel("it has connected anew")
            await asyncio.wait([known.connection])
        known.connection = asyncio.current_task()
        known.refused = ""
        life, seq = known.relay.taken
        writer.write(greeted.welcome(token, self._clock.now_us(), life, seq))
        return known

    async def _serve(self, known: _Known, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay = known.relay
        relay.connected()
        log.info("%s has connected", relay.forwarder)
        acknowledging = asyncio.create_task(self._acknowledge(relay.forwarder, writer))
        why = "the service is stopping"
        try:
            while True:
                async with asyncio.timeout(wire.SILENT_S):
                    payload = await wire.receive(reader)
                await relay.take(decoded(payload))
        except Malformed as error:
            why = f"sends what is not Tagtrail's: {error}"
        except (EOFError, ConnectionError):
            why = "the connection is closed"
        except TimeoutError:
            why = "has stopped sending"
        except OSError as error:
            why = f"the connection is lost: {error.strerror or error}"
        except asyncio.CancelledError as error:
            why = str(error) or why
        finally:
            known.connection = None
            acknowledging.cancel()
            writer.transport.abort()
            relay.disconnected(why)
            log.warning("%s is away: %s", relay.forwarder, why)

    async def _acknowledge(self, id_: str, writer: asyncio.StreamWriter) -> None:
        """Tell every second what is committed, and with the standby."""
        acked = life, seq = "", 0
        waiting: asyncio.Future[None] | None = None
        try:
            with suppress(OSError):
                while True:
                    if waiting is None:
                        life, seq = self._committed().get(id_, ("", 0))
                        waiting = asyncio.ensure_future(self._pair.kept() if self._pair else _at_once())
                    await asyncio.wait([waiting], timeout=wire.EVERY_S)
                    if waiting.done():
                        acked, waiting = (life, seq), None
                    writer.write(wire.framed(wire.Ack(self._clock.now_us(), *acked)))
                    await writer.drain()
                    await asyncio.sleep(wire.EVERY_S)
        finally:
            if waiting is not None:
                waiting.cancel()


async def _at_once() -> None:
    """Without a standby there is nothing to wait for."""
