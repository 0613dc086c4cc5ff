"""Readers that connect to us (LLRP 1.1, section 20.1.1): listening ports, each for any number of readers.

Who has come is told by the reader's own identity, MAC or EPC, never by its address. A caller is asked for it over the
bare wire, whose bytes stay where they are: the connection that gets the wire reads the greeting itself. Whoever waits
is told of callers who were turned away: one of them may be the reader, with a wrong identity in the store file.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from weakref import WeakKeyDictionary

from drivers.llrp import codec
from drivers.llrp import tls as llrp_tls
from drivers.llrp.codec import Malformed, NotLlrp
from drivers.llrp.events import ATTEMPT_REFUSED
from drivers.llrp.wire import Address, LinkFailure, Wire
from drivers.session import Clock, Tls

LISTEN = "listen://"
"""Before host:port in a reader's address: it connects to us there."""
IDENTIFY_S = 30.0
"""Readers that have just started take their time."""
CALLERS_MAX = 256
"""Callers that have not yet told who they are; further ones are turned away."""
TOLD_MAX = 3
"""Of those who were turned away so many are told, by address; of others only the service's debug log."""

Heard = Callable[[str], None]
"""Told who has been turned away, as a clause for store IT."""

_QUESTION_ID = 0xFFFFFFFF
_GREETING_TYPE, _CONFIG_TYPE = 63, 12


class ListeningPorts:
    """The listening ports of one event loop, each open while sessions want it."""

    def __init__(self) -> None:
        self._open: dict[tuple[Address, Tls | None], ListeningPort] = {}

    def enter(self, address: Address, identity: str, clock: Clock, tls: Tls | None) -> ListeningPort:
        """The port to wait at for that reader; `leave` it in the end. All readers of a port share its `tls`."""
        place = address, tls
        port = self._open.get(place)
        if port is None:
            port = self._open[place] = ListeningPort(address, clock, tls, lambda: self._open.pop(place, None))
        port.names.append(codec.plain(identity))
        return port


class ListeningPort:
    """One listening port; `names` are the readers that are wanted there, by codec.plain."""

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
        """Wait for that reader; LinkFailure if the port can't be had."""
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
        """Its session ends; the last one closes the port."""
        self.names.remove(codec.plain(identity))
        if not self.names:
            self._closed()
            self.close()

    def close(self) -> None:
        """Listen no more; wires that were handed over are not touched."""
        for task in self._callers:
            task.cancel()
        if self._server is not None:
            self._server.close()
        for wire in self._ready.values():
            wire.drop("closed by us")

    async def _listen(self) -> None:
        self._context = llrp_tls.listening(self._tls) if self._tls is not None else None
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
            why = f"but {llrp_tls.why_refused(error, 'that caller')}"
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
    """Ask a caller who it is, without using up what it sends; None if it leaves without a word.

    LinkFailure, NotLlrp or Malformed if it says something else.
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
    """Those of the running loop: sessions share ports."""
    return _ports.setdefault(asyncio.get_running_loop(), ListeningPorts())
