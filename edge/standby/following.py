"""The standby's side: connects to the service, and keeps the copy of its database as it is there.

Everything that comes is on disk before it is reported. A whole copy is used only once it is complete; until then, the
one before it stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from drivers.links import LinkFailure
from edge.database.wal import BadLog
from edge.forwarding import wire
from edge.forwarding.calling import Call, Caller, KeptUp
from edge.forwarding.records import Malformed
from edge.standby import messages
from edge.standby.beside import Beside
from edge.standby.lease import Claim
from edge.standby.messages import (
    Beat,
    Block,
    Copy,
    Digests,
    HandedOver,
    HandOver,
    Have,
    Log,
    Message,
    Resume,
    Side,
    Unable,
    Where,
)
from edge.standby.mirror import BLOCK_BYTES, Mirror
from edge.store.clock import Clock
from edge.store.timekeeping import APART_US, duration

log = logging.getLogger("tagtrail.standby")
P = ParamSpec("P")
T = TypeVar("T")

RETRY_S = (0.25, 1.0)
"""A service that starts again lets nothing leave for a while, if the standby is back by then."""
DIGESTS_BYTES = 256 * 1024
SIDE_BYTES_MAX = 256 << 20
COPY_BYTES_MAX = 1 << 40
NO_ROOM_S = 30.0
"""Until the next try after the disk took nothing."""


class Following(KeptUp):
    """Follow whichever of the `callers`' services runs, until cancelled. `copied` is called with each whole copy."""

    def __init__(
        self,
        callers: Sequence[Caller],
        mirror: Mirror,
        beside: Beside,
        clock: Clock,
        term: int,
        claim: Claim | None,
        copied: Callable[[], None],
    ) -> None:
        super().__init__(callers, term, log, RETRY_S)
        self._mirror, self._beside, self._clock, self._claim = mirror, beside, clock, claim
        self._copied = copied
        self.protected = False
        """Whether, by its last word, nothing leaves the store that isn't in the copy."""
        self.heard_us: int | None = None
        """When the service was last heard, and … """
        self.clock_offset_us: int | None = None
        """… its clock minus ours, at most."""
        self.copying: tuple[int, int] | None = None
        """Bytes of a whole copy that came so far, and that it has."""
        self.no_room = ""
        """Why the disk took nothing the last time, if so."""
        self._call: Call | None = None
        self._handed_over = False
        self._ended = asyncio.Event()
        self._have = self._stamp_us = 0
        self._log = bytearray()
        self._begins = False
        self._side = bytearray()
        self._busy = asyncio.Lock()
        self._said = False
        self._stopped = False

    async def hand_over(self, term: int, within_s: float) -> bool:
        """Have the service stop and send the rest; False if it doesn't. True, too, if it has before."""
        if self._call is not None:
            self._ended.clear()
            self._say(HandOver(term))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._ended.wait()
        return self._handed_over

    async def stop(self) -> None:
        """Take nothing any more, and leave the copy alone, until `go_on`."""
        async with self._busy:
            self._stopped = True
            if self._call is not None:
                self._call.end()

    def go_on(self) -> None:
        """Follow again: this gateway could not take over."""
        self._stopped = False

    def told(self) -> dict[str, Any]:
        """Return the state for people and other processes."""
        place = self._mirror.place
        return {
            "whole": self._mirror.there,
            "connected": self.connected,
            "no_room": self.no_room,
            "protected": self.protected,
            "reason": self.reason,
            "heard_us": self.heard_us,
            "clock_offset_us": self.clock_offset_us,
            "copying": self.copying,
            "log_bytes": place.size,
            "term": self.term,
        }

    async def connect(self) -> None:
        """Nobody is called any more once this gateway takes over."""
        if self._stopped:
            raise LinkFailure("this gateway takes over")
        try:
            await super().connect()
        finally:
            self._call = self.copying = None
            self._ended.set()

    async def stay(self, caller: Caller, call: Call) -> None:
        self._call = call
        self.connected, self.reason = True, ""
        self._have = self._stamp_us = 0
        self._handed_over = False
        self._log.clear()
        self._side.clear()
        log.info("connected to %s", caller.peer)
        breathing: asyncio.Task[None] | None = None
        try:
            if call.term > self.term:
                self.term = call.term
                await _on_disk(self._mirror.note, term=call.term)
            place = self._mirror.place
            self._say(Where(place.header, place.size, place.sums))
            breathing = asyncio.create_task(self._breathe())
            while not self._handed_over:
                message = await messages.receive(call.reader)
                async with self._busy:
                    if self._stopped:
                        raise LinkFailure("this gateway takes over")
                    await self._take(message)
        except BadLog as error:
            raise LinkFailure(f"{caller.peer} sent something else than expected: {error}") from error
        except _NoRoomError as error:
            self._say(Unable(str(error)))
            call.end()
            self._call = self.copying = None
            self.connected, self.no_room = False, str(error)
            self.reason = f"this gateway can't keep the copy: {error}"
            log.error("%s", self.reason)
            await asyncio.sleep(NO_ROOM_S)
            raise LinkFailure(self.reason) from error
        except Exception as error:
            raise caller.failure(error) or error from error
        finally:
            if breathing is not None:
                breathing.cancel()
            call.end()

    async def _breathe(self) -> None:
        """Give signs of life while something takes long, such as getting a whole copy, or putting it in place."""
        while True:
            await asyncio.sleep(wire.EVERY_S)
            if not self._said:
                self._say(Have(self._have, 0))
            self._said = False

    async def _take(self, message: Message) -> None:
        if isinstance(message, Log):
            await self._take_log(message)
        elif isinstance(message, Beat):
            self._take_beat(message)
        elif isinstance(message, Side):
            await self._take_side(message)
        elif isinstance(message, Copy):
            await self._prepare(message.size)
        elif isinstance(message, Block) and self.copying is not None:
            so_far, size = self.copying
            if not 0 <= message.number * BLOCK_BYTES < size or len(message.data) > BLOCK_BYTES:
                raise Malformed("a block out of place")
            await _on_disk(self._mirror.put, message.number, message.data)
            self.copying = so_far + len(message.data), size
        elif isinstance(message, HandedOver):
            if message.number > self._have:
                raise Malformed("it has handed over more than it has sent")
            self._handed_over = True
        elif not isinstance(message, Resume):
            raise Malformed(f"{type(message).__name__} is not expected here")

    def _take_beat(self, beat: Beat) -> None:
        self.heard_us, self.protected = self._clock.now_us(), beat.protected
        before_us, self.clock_offset_us = self.clock_offset_us or 0, beat.at_us - self.heard_us
        if abs(self.clock_offset_us) > APART_US * self._clock.speed >= abs(before_us):
            log.warning(
                "the clocks of this gateway and of the service are %s apart: after a takeover, zones would be unknown "
                "for as long",
                duration(abs(self.clock_offset_us)),
            )
        self._stamp_us = beat.stamp_us
        self._tell()

    async def _prepare(self, size: int) -> None:
        """Say which blocks are here already; the others come."""
        if not 0 <= size < COPY_BYTES_MAX:
            raise Malformed(f"a database of {size} bytes")
        log.info("a whole copy comes, %.1f MB", size / 1e6)

        def parts() -> list[bytes]:
            self._mirror.need(size)
            made = b"".join(self._mirror.digests())
            self._mirror.begin(size)
            return [made[at : at + DIGESTS_BYTES] for at in range(0, max(1, len(made)), DIGESTS_BYTES)]

        digests = await _on_disk(parts)
        for at, part in enumerate(digests):
            self._say(Digests(part, at == len(digests) - 1))
        self.copying = 0, size

    async def _take_log(self, message: Log) -> None:
        self._begins = message.begins if not self._log else self._begins
        self._log += message.data
        if not message.number:
            return
        data = bytes(self._log)
        self._log.clear()
        if self.copying is not None:
            began_s = time.monotonic()
            await _on_disk(self._mirror.finish, data)
            await _on_disk(self._mirror.note, term=self.term)
            self.copying = None
            await _on_disk(self._copied)
            log.info("the copy is complete; it took %.1f s to put it in place", time.monotonic() - began_s)
        elif data:
            await _on_disk(self._mirror.append, self._begins, data)
        self._have, self.no_room = message.number, ""
        self._tell()

    async def _take_side(self, message: Side) -> None:
        if message.data is None:
            await _on_disk(self._put, message.name, None)
            return
        self._side += message.data
        if len(self._side) > SIDE_BYTES_MAX:
            raise Malformed("a file that is too large")
        if not message.more:
            data = bytes(self._side)
            self._side.clear()
            await _on_disk(self._put, message.name, data)

    def _put(self, name: str, data: bytes | None) -> None:
        try:
            self._beside.put(name, data)
        except ValueError as error:
            raise Malformed(str(error)) from error

    def _tell(self) -> None:
        """Say what is on disk, and promise not to take over for a while."""
        if self._claim is not None:
            self._claim.promise()
        self._say(Have(self._have, self._stamp_us))

    def _say(self, message: Message) -> None:
        self._said = True
        if self._call is not None:
            self._call.writer.write(messages.framed(message))


class _NoRoomError(Exception):
    """The disk does not take what came; the text says why."""


async def _on_disk(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do what writes to the disk, in a thread."""
    try:
        return await asyncio.to_thread(work, *args, **kwargs)
    except OSError as error:
        raise _NoRoomError(error.strerror or str(error)) from error
