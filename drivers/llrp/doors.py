"""Readers that connect to us (LLRP 1.1, section 20.1.1): listening ports, each for any number of readers.

Who has come is told by the reader's own identity, MAC or EPC, never by its address. A caller is asked for it over the
bare wire, whose bytes stay where they are: the connection that gets the wire reads the greeting itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from weakref import WeakKeyDictionary

from drivers.llrp import codec
from drivers.llrp import tls as llrp_tls
from drivers.llrp.codec import Malformed, NotLlrp
from drivers.llrp.wire import Address, LinkFailure, Wire
from drivers.session import Clock, Tls

LISTEN = "listen://"
"""Before host:port in a reader's address: it connects to us there."""
IDENTIFY_S = 10.0
CALLERS_MAX = 256
"""Callers that have not yet told who they are; further ones are turned away."""

_QUESTION_ID = 0xFFFFFFFF
_GREETING_TYPE, _CONFIG_TYPE = 63, 12


class Doors:
    """The listening ports of one event loop, each open while sessions want it."""

    def __init__(self) -> None:
        self._open: dict[tuple[Address, Tls | None], Door] = {}

    def enter(self, address: Address, identity: str, clock: Clock, tls: Tls | None) -> Door:
        """The door to wait at for that reader; `Door.leave` it in the end. All readers of a port share its `tls`."""
        place = address, tls
        door = self._open.get(place)
        if door is None:
            door = self._open[place] = Door(address, clock, tls, lambda: self._open.pop(place, None))
        door.names.append(identity)
        return door


class Door:
    """One listening port; `names` are the identities of the readers that are wanted there."""

    def __init__(self, address: Address, clock: Clock, tls: Tls | None, closed: Callable[[], object]) -> None:
        self.names: list[str] = []
        self._address, self._clock, self._tls, self._closed = address, clock, tls, closed
        self._server: asyncio.Server | None = None
        self._opening = asyncio.Lock()
        self._ready: dict[str, Wire] = {}
        self._came = asyncio.Condition()
        self._inside: dict[str, Wire] = {}
        self._callers: set[asyncio.Task[None]] = set()

    async def admit(self, identity: str) -> Wire:
        """Wait for that reader; LinkFailure if the port can't be had."""
        async with self._opening:
            if self._server is None:
                await self._listen()
        async with self._came:
            await self._came.wait_for(lambda: identity in self._ready)
            wire = self._inside[identity] = self._ready.pop(identity)
        wire.nudge()
        return wire

    def leave(self, identity: str) -> None:
        """Its session ends; the last one closes the door."""
        self.names.remove(identity)
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
        context = llrp_tls.listening(self._tls) if self._tls is not None else None
        try:
            self._server = await asyncio.get_running_loop().create_server(
                self._caller,
                self._address.host,
                self._address.port,
                reuse_address=True,
                ssl=context,
                ssl_handshake_timeout=IDENTIFY_S if context else None,
            )
        except OSError as error:
            raise LinkFailure(
                f"the gateway can't listen on {self._address} for readers: {error.strerror or error}"
            ) from error

    def _caller(self) -> Wire:
        wire = Wire(self._clock, "the reader that has connected")
        if len(self._callers) >= CALLERS_MAX:
            asyncio.get_running_loop().call_soon(wire.drop, "too many callers")
            return wire
        task = asyncio.create_task(self._ask(wire))
        self._callers.add(task)
        task.add_done_callback(self._callers.discard)
        return wire

    async def _ask(self, wire: Wire) -> None:
        identity = None
        try:
            async with asyncio.timeout(IDENTIFY_S):
                identity = await identify(wire)
        except (TimeoutError, NotLlrp, Malformed):
            pass
        finally:
            if identity not in self.names:
                wire.drop("nobody waits for this caller")
        if identity is None or identity not in self.names:
            return
        for older in (self._inside.pop(identity, None), self._ready.pop(identity, None)):
            if older is not None:
                older.drop("the reader has connected anew")
        async with self._came:
            self._ready[identity] = wire
            self._came.notify_all()


async def identify(wire: Wire) -> str | None:
    """Ask a caller who it is, without using up what it sends; None if it leaves, refuses, or does not say."""
    asked = False
    while wire.lost is None:
        await wire.arrival()
        at, stream = wire.start, wire.buffer.data
        while (header := codec.header_at(stream, at, wire.end)) is not None and header.length <= wire.end - at:
            message = bytes(stream[at : at + header.length])
            if header.type == _GREETING_TYPE and not asked:
                event = codec.event_of(codec.decode(message))
                if event.get("ConnectionAttemptEvent", {}).get("Status") != "Success":
                    return None
                asked = True
                wire.send(codec.encode("GET_READER_CONFIG", _QUESTION_ID, RequestedData=1))
            elif header.type == _CONFIG_TYPE and header.id == _QUESTION_ID:
                return codec.identity_of(codec.decode(message))
            at += header.length
        wire.used(wire.start, min(2 * (wire.end - wire.start) + Wire.CAPACITY, codec.MESSAGE_BYTES_MAX))
        if wire.end - wire.start >= codec.MESSAGE_BYTES_MAX:
            return None
        wire.resume(0)
    return None


_doors: WeakKeyDictionary[asyncio.AbstractEventLoop, Doors] = WeakKeyDictionary()


def doors() -> Doors:
    """Those of the running loop: sessions share ports."""
    return _doors.setdefault(asyncio.get_running_loop(), Doors())
