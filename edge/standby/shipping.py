"""The service's side of its standby: sends what is committed, and lets nothing leave the store that it doesn't have.

    away        no standby is connected; for `patience_s`, at the start too, events wait for it
    copying     it gets a whole copy, or what it has missed
    protected   an event leaves the store, and a forwarder's record is acknowledged, once it is on the standby's disk
    alone       it has not answered for `patience_s`: the service goes on without it, until it has caught up

Whoever wants something to leave awaits `kept`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from config import StoreConfig
from edge.database.wal import Part, Place
from edge.database.writer import Database
from edge.forwarding import wire
from edge.forwarding.records import Malformed
from edge.standby import messages
from edge.standby.beside import Beside
from edge.standby.feed import Feed
from edge.standby.lease import Lease
from edge.standby.messages import (
    Beat,
    Block,
    Copy,
    Digests,
    HandedOver,
    HandOver,
    Have,
    Log,
    Resume,
    Side,
    Unable,
    Where,
)
from edge.standby.mirror import BLOCK_BYTES, DIGEST_BYTES, digest
from edge.store.clock import Clock

log = logging.getLogger("tagtrail.standby")

WAITING_BYTES = 64 << 20
"""A standby that is further behind gets another copy."""
SIDES_S = 1.0
"""Files beside the database are looked at so often: what is said to be erased must not come back after a takeover."""
HAND_OVER_S = 5.0


class Shipping:
    """Sends to one standby at a time. `hand_over` is called with its term when it asks for that."""

    def __init__(
        self,
        config: StoreConfig,
        database: Database,
        clock: Clock,
        *,
        hand_over: Callable[[int], None],
        lease: Lease | None = None,
    ) -> None:
        assert config.standby is not None
        self._patience_s = config.standby.patience_s
        self._database, self._clock, self._lease = database, clock, lease
        self._hand_over = hand_over
        self._beside = Beside(config)
        # Closing it would take SQLite's locks on the database away: it stays open as long as the database does.
        self._file = os.open(database.path, os.O_RDONLY | os.O_CLOEXEC)
        self._connection: asyncio.Task[Any] | None = None
        self._ended = asyncio.Event()
        self._news = asyncio.Event()
        self._number = self._have = 0
        self._goal: int | None = None
        """Number at which the standby has caught up."""
        self._alone_s = float("inf")
        """Until then the standby may come, before anything has left without it."""
        self._feed: Feed | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._why = ""
        """Why the connection is being ended."""
        self._queue: deque[tuple[Part, int]] = deque()
        self._waiting_bytes = 0
        self._more = asyncio.Event()
        self._digests: asyncio.Queue[Digests] = asyncio.Queue()
        self._unfollowing: set[asyncio.Task[None]] = set()
        self.protected = False
        self.reason = "not yet connected"
        self.since_us = clock.now_us()
        self.copies = 0
        self._stopped = self._asked = False

    # For who wants something to leave.

    async def kept(self) -> None:
        """Return once the standby has everything that is committed, or the service goes on without it."""
        # While no standby is connected, the next connection begins with all that is committed by now.
        number, began_s = self._number + (self._feed is None), time.monotonic()
        while True:
            self._news.clear()
            if self._stopped or (self._lease is not None and not self._lease.valid):
                wait_s = 0.1  # nothing may leave
            elif not self.protected and time.monotonic() < self._alone_s:
                wait_s = 0.1  # it has only just begun
            elif self._have >= number if self.protected else self._lease is None or self._lease.alone:
                return
            elif not self.protected:
                wait_s = 0.1  # the witness has yet to know
            elif (wait_s := began_s + self._patience_s - time.monotonic()) <= 0:
                await self._go_alone("the standby has not answered for too long")
                wait_s = 0.1
            try:
                async with asyncio.timeout(wait_s):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def fold(self) -> bool:
        """Remove what was deleted from the database's log, and from a connected standby's; False if it is to be tried
        again."""
        if not await self._database.fold():
            return False
        if self.protected:
            await self._database.write(_mark)  # with the first transaction of a new log, the standby drops the old one
            await self.kept()
        return True

    def stop(self) -> None:
        """Let nothing leave any more: another gateway runs the service."""
        self._stopped = True

    async def finish(self) -> bool:
        """Send the rest after a stop, and that it is all, if the standby has asked for it; True if it has it."""
        if not self._asked:
            return False
        number = self._number
        try:
            async with asyncio.timeout(HAND_OVER_S):
                while self._connection is not None and self._have < number:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        if self._connection is None or self._writer is None:
            return False
        self._writer.write(messages.framed(HandedOver(number)))
        try:
            async with asyncio.timeout(HAND_OVER_S):
                await self._writer.drain()
                await self._ended.wait()
        except (TimeoutError, OSError):
            return False
        return True

    async def close(self) -> None:
        """End the connection, before the database is closed."""
        if self._connection is not None:
            self._end("the service is stopping")
            await asyncio.wait([self._connection])
        if self._unfollowing:
            await asyncio.wait(self._unfollowing)

    def release(self) -> None:
        """Close what had to stay open as long as the database."""
        os.close(self._file)

    async def watch(self) -> None:
        """Note every now and then that a standby that is away has been away for too long."""
        self._alone_s = time.monotonic() + self._patience_s
        await asyncio.sleep(self._patience_s)
        if not self.protected:
            log.error("the service goes on alone, unprotected: %s", self.reason)
        while True:
            await asyncio.sleep(self._patience_s / 2)
            if self.protected and (self._connection is None or self._have < self._number):
                await self.kept()

    def told(self) -> dict[str, Any]:
        """Return the state for the live state."""
        link = "down" if self._connection is None else "up" if self.protected else "connecting"
        return {
            "link": link,
            "protected": self.protected,
            "reason": self.reason,
            "since_us": self.since_us,
            "behind": max(0, self._number - self._have) if self._connection is not None else None,
            "behind_bytes": self._waiting_bytes if self._connection is not None else None,
            "copies": self.copies,
            "witness": None if self._lease is None else self._lease.told(),
        }

    # The connection.

    def refused(self, why: str) -> None:
        """A caller that may be the standby was refused."""
        if self._connection is None:
            self._tell(why)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take care of a connection of the other gateway, which has been greeted; returns when it ends."""
        try:
            where = await messages.receive(reader)
        except (Malformed, EOFError, OSError, TimeoutError):  # it has only asked for our term
            writer.close()
            return
        if not isinstance(where, Where):
            writer.close()
            return
        while self._connection is not None:
            self._end("it has connected anew")
            await asyncio.wait([self._connection])
        self._connection, self._writer = asyncio.current_task(), writer
        self._ended.clear()
        self._why = why = ""
        try:
            if not self.protected:
                self._tell("the standby is being brought up to date")
            why = await self._outcome(where, reader, writer)
        except asyncio.CancelledError:
            why = self._why or "the service is stopping"
        finally:
            self._connection = self._writer = None
            self._ended.set()
            self._news.set()
            writer.transport.abort()
            self._tell(why)
            log.warning("the standby is away: %s", why)

    async def _outcome(self, where: Where, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """Send until the connection ends; returns why it has."""
        why = ""
        try:
            await self._ship(where, reader, writer)
        except* Malformed as errors:
            why = f"the standby sends what is not Tagtrail's: {errors.exceptions[0]}"
        except* (EOFError, ConnectionError):
            why = "the connection to the standby is closed"
        except* TimeoutError:
            why = "the standby has stopped answering"
        except* _BrokenError as errors:
            why = str(errors.exceptions[0])
        except* sqlite3.Error as errors:
            why = f"the database can't be read for the standby: {errors.exceptions[0]}"
        except* OSError as errors:
            why = f"the connection to the standby is lost: {errors.exceptions[0]}"
        return why

    async def _ship(self, where: Where, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        self._queue.clear()
        self._waiting_bytes, self._goal = 0, None
        broken = loop.create_future()

        def deliver(part: Part, number: int) -> None:
            loop.call_soon_threadsafe(self._deliver, feed, part, number)

        def breaks() -> None:
            loop.call_soon_threadsafe(_fail, broken, "the database's log is not known")

        self._number += 1
        number = self._number  # of what the log has when it begins
        feed = Feed(self._database.path, Place(where.header, where.size, where.sums), number, deliver, breaks)
        self._feed, self._digests = feed, asyncio.Queue()
        try:
            await self._database.follow(feed)
            self._goal = number
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_raise(broken))
                tasks.create_task(self._listen(reader))
                tasks.create_task(self._send_all(feed, number, writer))
        finally:
            self._feed = None
            # Whole, however often this is cancelled: an open snapshot would keep the log from ever beginning anew.
            unfollowing = asyncio.create_task(self._unfollow(feed))
            self._unfollowing.add(unfollowing)
            unfollowing.add_done_callback(self._unfollowing.discard)
            await asyncio.shield(unfollowing)

    async def _unfollow(self, feed: Feed) -> None:
        await self._database.follow(None)
        feed.close()

    async def _send_all(self, feed: Feed, number: int, writer: asyncio.StreamWriter) -> None:
        """Send what the standby lacks, and then what is committed."""
        if feed.size is None:
            writer.write(messages.framed(Resume()))
        else:
            await self._copy(feed, feed.size, writer)
        await self._send_part(writer, feed.first, number)
        await self._send(writer)

    async def _copy(self, feed: Feed, size: int, writer: asyncio.StreamWriter) -> None:
        """Send the blocks that the standby doesn't have."""
        log.info("the standby gets a copy of the database, %.1f MB", size / 1e6)
        writer.write(messages.framed(Copy(size)))
        there, last = bytearray(), False
        while not last:
            told = await self._digests.get()
            there += told.digests
            last = told.last
        sent, beat_s = 0, time.monotonic()
        for at in range(-(-size // BLOCK_BYTES)):
            block = await asyncio.to_thread(self._block, at, size)
            if digest(block) != there[at * DIGEST_BYTES : (at + 1) * DIGEST_BYTES]:
                writer.write(messages.framed(Block(at, block)))
                await writer.drain()
                sent += 1
            elif time.monotonic() - beat_s >= wire.EVERY_S:
                beat_s = time.monotonic()
                writer.write(messages.framed(self._beat()))
        feed.release()
        self.copies += 1
        log.info("the standby has a copy: %d of %d blocks were sent", sent, -(-size // BLOCK_BYTES))

    def _block(self, at: int, size: int) -> bytes:
        start = at * BLOCK_BYTES
        length = min(BLOCK_BYTES, size - start)
        return os.pread(self._file, length, start).ljust(length, b"\0")  # pages that only the log has so far

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        sides_s = beat_s = float("-inf")
        while True:
            self._more.clear()
            while self._queue:
                part, number = self._queue.popleft()
                self._waiting_bytes -= len(part.data)
                await self._send_part(writer, part, number)
            now_s = time.monotonic()
            if now_s - sides_s >= SIDES_S:
                sides_s = now_s
                async for side in self._sides(first=beat_s < 0):
                    writer.write(messages.framed(side))
                    await writer.drain()
            if now_s - beat_s >= wire.EVERY_S:
                beat_s = now_s
                writer.write(messages.framed(self._beat()))
                await writer.drain()
            try:
                async with asyncio.timeout(wire.EVERY_S / 2):
                    await self._more.wait()
            except TimeoutError:
                pass

    def _beat(self) -> Beat:
        return Beat(self._number, time.monotonic_ns() // 1000, self._clock.now_us(), self.protected)

    async def _send_part(self, writer: asyncio.StreamWriter, part: Part, number: int) -> None:
        chunk = messages.CHUNK_BYTES
        for at in range(0, max(1, len(part.data)), chunk):
            last = at + chunk >= len(part.data)
            data = part.data[at : at + chunk]
            writer.write(messages.framed(Log(part.begins and at == 0, data, number if last else 0)))
            await writer.drain()

    async def _sides(self, first: bool) -> AsyncIterator[Side]:
        for name, data in await asyncio.to_thread(self._beside.changed, first):
            if data is None:
                yield Side(name, None, False)
                continue
            for at in range(0, max(1, len(data)), messages.CHUNK_BYTES):
                more = at + messages.CHUNK_BYTES < len(data)
                yield Side(name, data[at : at + messages.CHUNK_BYTES], more)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while True:
            told = await messages.receive(reader)
            if isinstance(told, Have):
                self._has(told)
            elif isinstance(told, Digests):
                self._digests.put_nowait(told)
            elif isinstance(told, Unable):
                raise _BrokenError(f"the standby can't keep the copy: {told.reason[:200]}")
            elif isinstance(told, HandOver):
                self._asked = True
                self._hand_over(told.term)
            else:
                raise Malformed(f"{type(told).__name__} is not expected here")

    def _has(self, told: Have) -> None:
        self._have = max(self._have, told.number)
        if self._lease is not None and told.stamp_us:
            self._lease.promised(told.stamp_us / 1e6)
        if not self.protected and self._goal is not None and self._have >= self._goal:
            self.protected = True
            if self._lease is not None:
                self._lease.not_alone()
            self._tell("")
            log.info("the standby has everything: nothing leaves the store without it")
        self._news.set()

    def _deliver(self, feed: Feed, part: Part, number: int) -> None:
        if feed is not self._feed:
            return
        self._number = number
        self._queue.append((part, number))
        self._waiting_bytes += len(part.data)
        self._more.set()
        if self._waiting_bytes > WAITING_BYTES:
            self._end("the standby is too far behind")

    def _end(self, why: str) -> None:
        if self._connection is not None:
            self._why = why
            self._connection.cancel()

    async def _go_alone(self, reason: str) -> None:
        """Go on without the standby; with a witness only once that knows."""
        if self._lease is not None and not await self._lease.go_alone():
            if self.protected:
                self._lease.not_alone()  # it isn't, if the standby answers before the witness does
            return
        if not self.protected:
            return
        self.protected, self._goal = False, None
        self._end(reason)
        log.error("the service goes on alone, unprotected: %s", self.reason or reason)
        self._news.set()

    def _tell(self, reason: str) -> None:
        if reason != self.reason:
            self.reason, self.since_us = reason, self._clock.now_us()


def _mark(conn: sqlite3.Connection) -> None:
    conn.execute("INSERT OR REPLACE INTO fact VALUES ('folded', ?)", (str(time.time_ns()),))


class _BrokenError(Exception):
    """What was committed is not known: the standby has to get a copy."""


def _fail(broken: asyncio.Future[None], why: str) -> None:
    if not broken.done():
        broken.set_exception(_BrokenError(why))


async def _raise(broken: asyncio.Future[None]) -> None:
    await broken
