"""Listening ports for readers that connect to us (LLRP 1.1, section 20.1.1), each for any number of readers.

Readers are told apart by their own identity, MAC or EPC, never by their address. A caller is asked for it without
consuming what it sends: the connection that gets the wire reads the greeting itself. Waiting sessions hear of rejected
callers: one of them may be their reader, with a wrong identity in the store file.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from weakref import WeakKeyDictionary

from drivers import tls as reader_tls
from drivers.links import LinkFailure
from drivers.llrp import codec
from drivers.llrp.codec import Malformed, NotLlrp
from drivers.llrp.events import ATTEMPT_REFUSED
from drivers.llrp.wire import Address, Wire
from drivers.session import Clock, Tls

LISTEN = "listen://"
"""Prefix of host:port in the address of a reader that connects to us."""
IDENTIFY_S = 30.0
"""Readers that have just started take their time."""
CALLERS_MAX = 256
"""Maximum number of callers not yet identified; more are rejected."""
TOLD_MAX = 3
"""Maximum number of rejected addresses reported; others are only in the debug log."""

Heard = Callable[[str], None]
"""Callback for rejected callers: a clause for store IT."""

_QUESTION_ID = 0xFFFFFFFF
_GREETING_TYPE, _CONFIG_TYPE = 63, 12


class ListeningPorts:
    """Listening ports of one event loop, each open while sessions use it."""

    def __init__(self) -> None:
        self._open: dict[tuple[Address, Tls | None], ListeningPort] = {}

    def enter(self, address: Address, identity: str, clock: Clock, tls: Tls | None) -> ListeningPort:
        """Return the port to wait at for that reader; call its `leave` in the end. All readers of a port share its
        `tls`."""
        place = address, tls
        port = self._open.get(place)
        if port is None:
            port = self._open[place] = ListeningPort(address, clock, tls, lambda: self._open.pop(place, None))
        port.names.append(codec.plain(identity))
        return port


class ListeningPort:
    """One listening port; `names`: identities of the readers expected there, by codec.plain."""

    def __init__(self, address: Address, clock: Clock, tls: Tls | None, closed: Callable[[], object]) -> None:
        self.names: list[str] = []
        self._address, self._clock, self._tls, self._closed = address, clock, tls, closed
        self._context: ssl.SSLContext | None = None
        self._server: asyncio.Server | None = None
        self._opening = asyncio.Lock()
        self._ready: dict[str, Wire] = {}
        self._came = asyncio.Condition()
        self._inside: dict[str, Wire] = {}
        self._callers: set[asyncio.Task[None]] = set()
        self._waiting: dict[str, Heard] = {}
        self._turned_away: dict[str, str] = {}

    async def admit(self, identity: str, heard: Heard) -> Wire:
        """Wait for that reader to connect; LinkFailure if the port can't be opened."""
        name = codec.plain(identity)
        async with self._opening:
            if self._server is None:
                await self._listen()
        self._waiting[name] = heard
        try:
            async with self._came:
                await self._came.wait_for(lambda: name in self._ready)
                wire = self._inside[name] = self._ready.pop(name)
        finally:
            del self._waiting[name]
        wire.nudge()
        return wire

    def leave(self, identity: str) -> None:
        """End a reader's session; the last one closes the port."""
        self.names.remove(codec.plain(identity))
        if not self.names:
            self._closed()
            self.close()

    def close(self) -> None:
        """Stop listening; wires that were handed over stay open."""
        for task in self._callers:
            task.cancel()
        if self._server is not None:
            self._server.close()
        for wire in self._ready.values():
            wire.drop("closed by us")

    async def _listen(self) -> None:
        self._context = reader_tls.listening(self._tls) if self._tls is not None else None
        try:
            self._server = await asyncio.get_running_loop().create_server(
                self._caller, self._address.host, self._address.port, reuse_address=True
            )
        except OSError as error:
            raise LinkFailure(
                f"the gateway can't listen on {self._address} for readers: {error.strerror or error}"
            ) from error

    def _caller(self) -> Wire:
        wire = Wire(self._clock, "the reader that has connected", hold=self._context is not None)
        if len(self._callers) >= CALLERS_MAX:
            asyncio.get_running_loop().call_soon(wire.drop, "too many callers")
            return wire
        task = asyncio.create_task(self._ask(wire))
        self._callers.add(task)
        task.add_done_callback(self._callers.discard)
        return wire

    async def _ask(self, wire: Wire) -> None:
        identity, why = None, ""
        try:
            async with asyncio.timeout(IDENTIFY_S):
                if self._context is not None:
                    await wire.secure(self._context)
                identity = await identify(wire)
            why = f"which is {codec.shown(identity)}" if identity is not None else ""
        except ssl.SSLError as error:
            why = f"but {reader_tls.why_refused(error, 'that caller')}"
        except TimeoutError:
            why = f"but has not told within {IDENTIFY_S:g} s who it is"
        except (OSError, Malformed):
            pass
        except NotLlrp as error:
            why = f"but sends bytes that are not LLRP ({error})"
        except LinkFailure as failure:
            why = f"but {failure}"
        finally:
            name = codec.plain(identity) if identity is not None else None
            if name not in self.names:
                wire.drop("nobody waits for this caller")
        if name is None or name not in self.names:
            self._turn_away(wire.caller, why)
            return
        self._turned_away.pop(wire.caller, None)
        for older in (self._inside.pop(name, None), self._ready.pop(name, None)):
            if older is not None:
                older.drop("the reader has connected anew")
        async with self._came:
            self._ready[name] = wire
            self._came.notify_all()

    def _turn_away(self, caller: str, why: str) -> None:
        known = self._turned_away
        if not why or known.get(caller) == why or (caller not in known and len(known) >= TOLD_MAX):
            return
        known[caller] = why
        told = "; ".join(f"{who} has connected, {reason}" for who, reason in known.items())
        for heard in list(self._waiting.values()):
            heard(told)


async def identify(wire: Wire) -> str | None:
    """Ask a caller for its identity without consuming what it sends; None if it disconnects silently. LinkFailure,
    NotLlrp or Malformed if it sends something else.
    """
    asked = False
    while wire.lost is None:
        await wire.arrival()
        at, stream = wire.start, wire.buffer.data
        while (header := codec.header_at(stream, at, wire.end)) is not None and header.length <= wire.end - at:
            message = bytes(stream[at : at + header.length])
            if header.type == _GREETING_TYPE and not asked:
                # Others may come before it: of an antenna, or what was kept.
                status = codec.event_of(codec.decode(message)).get("ConnectionAttemptEvent", {}).get("Status")
                if status in ATTEMPT_REFUSED:
                    raise LinkFailure(ATTEMPT_REFUSED[status])
                if status is not None:
                    asked = True
                    wire.send(codec.encode("GET_READER_CONFIG", _QUESTION_ID, RequestedData=1))
            elif header.type == _CONFIG_TYPE and header.id == _QUESTION_ID:
                identity = codec.identity_of(codec.decode(message))
                if identity is None:
                    raise LinkFailure("does not tell its identity")
                return identity
            at += header.length
        wire.used(wire.start, min(2 * (wire.end - wire.start) + Wire.CAPACITY, codec.MESSAGE_BYTES_MAX))
        if wire.end - wire.start >= codec.MESSAGE_BYTES_MAX:
            return None
        wire.resume(0)
    return None


_ports: WeakKeyDictionary[asyncio.AbstractEventLoop, ListeningPorts] = WeakKeyDictionary()


def listening_ports() -> ListeningPorts:
    """Return the listening ports of the running loop, which all sessions share."""
    return _ports.setdefault(asyncio.get_running_loop(), ListeningPorts())
