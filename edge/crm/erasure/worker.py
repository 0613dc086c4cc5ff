"""Erase members until nothing is left, and confirm only then.

1. The erasure is recorded (`Tombstones`), with all tags of the member's cards.
2. Rows are deleted from the database and from the page's file, and all parts of the service forget the member.
3. Files that can't be searched are deleted: recorded reads, corrupted databases, incomplete directory files.
4. The write-ahead log is merged into the database and truncated. A reader of an older state prevents this; then it is
   retried without blocking the writer.
5. The database file is searched for the tags and the member number. If there are traces between its rows, the file is
   rewritten: a small one immediately, a large one when the store is closed.

A step that can't be completed yet is the reason why the erasure is pending; it is retried, also after a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

from config import StoreConfig
from edge.access.members import forget
from edge.access.users import users_path
from edge.crm.erasure.rows import BEGAN, COUNTED, Replacements, Row, erase, find, slices
from edge.database.reader import connect
from edge.database.scrub import fold
from edge.database.tombstones import Tombstones
from edge.database.traces import is_database, size_bytes, traces, write_anew
from edge.database.writer import Database
from edge.store.business_days import business_days
from edge.store.calendar import hours
from edge.store.errors import Trouble
from edge.store.files import Erasure, copies, of
from sync.commands import Pending

log = logging.getLogger("tagtrail.erasure")

AT_ONCE = 100
"""Maximum number of members searched together."""
ROUNDS = 10
"""Maximum number of searches for rows of a member, because more may be written meanwhile."""
FOLD_TRIES, FOLD_PAUSE_S = 10, 0.2
RETRY_S = (2.0, 60.0)
SMALL_BYTES = 32 << 20
"""A database up to this size is rewritten immediately, which delays greetings by half a second."""
COMING = "new rows of the member keep appearing"
READ = "a program is reading an older state of the database, so its log still contains erased data"
NIGHT_HOURS = range(3, 5)
"""Local hours for rewriting a large database in a store that never closes."""


class Erasures:
    """Carry out erasures; `run` works until cancelled, `erase` waits for the result of one.

    `recheck` makes the service forget members who are present; `let_go` makes it drop reads and directory files that it
    holds. `settle` is called with the receipt of a command that was answered with `pending`. `generation`: that of the
    latest known member directory, None before there is one; `fetching`: whether a file is being fetched.
    """

    def __init__(
        self,
        config: StoreConfig,
        database: Database,
        clock: Callable[[], int],
        *,
        recheck: Callable[[Collection[str]], Awaitable[None]] | None = None,
        let_go: Callable[[], None] = lambda: None,
        settle: Callable[[str, dict[str, Any]], Awaitable[None]] | None = None,
        generation: Callable[[], int | None] = lambda: None,
        fetching: Callable[[], bool] = lambda: False,
    ) -> None:
        self._config = config
        self._database = database
        self._clock = clock
        self._recheck = recheck
        self._let_go = let_go
        self._settle = settle
        self._generation = generation
        self._fetching = fetching
        self._stones = Tombstones(database.path, database.tag_key)
        self._asked: list[tuple[str, str, asyncio.Future[dict[str, Any]]]] = []
        self._saving = asyncio.Lock()
        self._news = asyncio.Event()
        self._ready = asyncio.Event()
        self._counts: dict[str, Counter[str]] = {}
        self._began: dict[str, float] = {}
        self._cleared: set[str] = set()
        """Members for whom the unsearchable files have been deleted."""
        self._reason = ""

    def commands(self) -> set[str]:
        """Ids of the commands with pending erasures."""
        return {command for one in self._stones.open.values() for command in one.commands}

    def barred(self, members: Collection[str], generation: int) -> set[str]:
        """Return the members whom a directory of this generation must not bring back."""
        return self._stones.barred(members, generation)

    def erased(self, members: Collection[str]) -> set[str]:
        """Return the members who are being erased or have been erased."""
        return self._stones.barred(members)

    async def offered(self, generation: int) -> None:
        """Called when a directory is offered; waits until a restored database has been checked."""
        await self._ready.wait()
        async with self._changing() as stones:
            if stones.arrived(generation):
                await asyncio.to_thread(stones.save)

    @contextlib.asynccontextmanager
    async def _changing(self) -> AsyncIterator[Tombstones]:
        """Context for changing the list of erasures on disk."""
        async with self._saving:
            self._stones.refresh()
            yield self._stones

    async def erase(self, member: str, command: str = "") -> dict[str, Any]:
        """Erase a member and return the receipt; raises Pending with the reason if it takes longer."""
        waiting = asyncio.get_running_loop().create_future()
        self._asked.append((member, command, waiting))
        self._news.set()
        return dict(await waiting)

    async def readmit(self, members: Collection[str]) -> None:
        """Allow members who have rejoined to be imported manually."""
        async with self._changing() as stones:
            stones.readmit(members)
            await asyncio.to_thread(stones.save)

    async def prune(self, before_us: int) -> None:
        """Forget erasures before a given time."""
        async with self._changing() as stones:
            if stones.prune(before_us):
                await asyncio.to_thread(stones.save)

    async def run(self) -> None:
        """Carry out requested erasures and continue earlier ones."""
        if not self._ready.is_set():
            await self._put_back()
            self._ready.set()
        pause_s = RETRY_S[0]
        if self._stones.open:
            await self.work()
        while True:
            if self._stones.open and not self._asked:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._news.wait()
            elif not self._asked:
                await self._news.wait()
            self._news.clear()
            pause_s = RETRY_S[0] if await self.work() else min(2 * pause_s, RETRY_S[1])

    async def work(self) -> bool:
        """Try all pending erasures once; True if all are complete."""
        asked, self._asked = self._asked, []
        async with self._changing() as stones:
            for member, command, _ in asked:
                stones.begin(member, self._clock(), self._generation(), command)
                self._cleared.discard(member)
        receipts: dict[str, dict[str, Any]] = {}
        members = list(self._stones.open)
        reason = "an error in the gateway"
        try:
            reason = await self._erase(members)
            if not reason:
                receipts = await self._end(members, {command for _, command, waiting in asked if not waiting.done()})
        except (OSError, sqlite3.Error, Trouble) as error:
            reason = str(error) or type(error).__name__
        finally:
            self._say(reason, len(receipts))
            for member, _, waiting in asked:
                if waiting.done():
                    continue
                if member in receipts:
                    waiting.set_result(receipts[member])
                else:
                    waiting.set_exception(Pending(reason))
        return bool(receipts)

    def _say(self, reason: str, done: int) -> None:
        if done:
            log.info("members erased: %d", done)
        if reason and reason != self._reason:
            log.warning("erasure pending: %s", reason)
        self._reason = reason

    async def _end(self, members: Sequence[str], answered: Collection[str]) -> dict[str, dict[str, Any]]:
        """Complete the erasure of members and return their receipts. `answered`: commands already answered."""
        commands = [(command, member) for member in members for command in self._stones.open[member].commands]
        async with self._changing() as stones:
            await asyncio.to_thread(stones.end, members)
        receipts = {member: self._receipt(member) for member in members}
        for command, member in commands:
            if self._settle is not None and command not in answered:
                await self._settle(command, receipts[member])
        return receipts

    async def _erase(self, members: Sequence[str]) -> str:
        """Perform all steps for some members; return why it is not complete, empty if nothing is left."""
        for member in members:
            counts = dict.fromkeys([*COUNTED.values(), "audit", "verdicts", "files"], 0)
            self._counts.setdefault(member, Counter(counts))
            self._began.setdefault(member, time.monotonic())
        for start in range(0, len(members), AT_ONCE):
            if not await self._empty(members[start : start + AT_ONCE]):
                return COMING
        tags = {member: [bytes.fromhex(tag) for tag in self._stones.open[member].tags] for member in members}
        for member, counts in (await asyncio.to_thread(forget, users_path(self._config), tags)).items():
            self._counts[member].update(counts)
        if reason := await self._clear_files(members):
            return reason
        return await self._search(members) if await self._fold() else READ

    async def _empty(self, members: Sequence[str]) -> bool:
        """Delete rows until there are none left; False if new ones keep appearing."""
        whenever = dict.fromkeys(members)
        replacements = Replacements()
        for turn in range(ROUNDS):
            rows = await self._find(whenever, members)
            if sum(self._note(row) for row in rows) or turn == 0:
                async with self._saving:  # the tags can't be determined once the rows are deleted
                    await asyncio.to_thread(self._stones.save)
            for some in slices(rows):
                await self._database.write(partial(erase, rows=some, replacements=replacements))
            for row in rows:
                self._counts[row.member][COUNTED[row.table]] += 1
            if self._recheck is not None:
                await self._recheck(members)
            if not rows:
                return True
        return False

    async def _find(self, members: dict[str, int | None], listed: Collection[str]) -> list[Row]:
        cards = {tag: one.member for one in self._stones.open.values() if one.member in members for tag in one.tags}

        def look() -> list[Row]:
            with closing(connect(self._database.path)) as conn:
                conn.execute("BEGIN")
                return find(conn, members, listed, cards)

        return await asyncio.to_thread(look)

    def _note(self, row: Row) -> bool:
        """Record a tag to search for; True if it is new."""
        tags = self._stones.open[row.member].tags
        new = bool(row.tag) and row.tag.hex() not in tags
        if new:
            tags.append(row.tag.hex())
        return new

    async def _clear_files(self, members: Sequence[str]) -> str:
        if fresh := [member for member in members if member not in self._cleared]:
            self._let_go()
            self._cleared.update(fresh)
        gone = await asyncio.to_thread(self._delete, not fresh and self._fetching())
        for member in members:
            self._counts[member]["files"] += gone
        if any(file.suffix == ".part" and file.stat().st_size for file in of(self._database.path, Erasure.DELETED)):
            return "a directory file is being fetched"
        return await asyncio.to_thread(self._look_at_copies, self._patterns(members))

    def _delete(self, fetching: bool) -> int:
        """Delete files that can't be searched, except a directory file that was restarted since."""
        files = [file for file in of(self._database.path, Erasure.DELETED) if not (fetching and file.suffix == ".part")]
        for file in files:
            file.unlink(missing_ok=True)
        return len(files)

    def _look_at_copies(self, patterns: Collection[bytes]) -> str:
        for file in copies(self._database.path):
            if not is_database(file):
                return f"{file.name} can't be searched and may be a copy of the database: delete or move it"
            if traces(file, patterns):
                return f"{file.name} still contains erased data: delete it"
        return ""

    async def _fold(self) -> bool:
        for _ in range(FOLD_TRIES):
            if await asyncio.to_thread(fold, self._database.path):
                return True
            await asyncio.sleep(FOLD_PAUSE_S)
        return False

    async def _search(self, members: Sequence[str]) -> str:
        """Search the database file for traces, and rewrite it if it is time for that."""
        if not await asyncio.to_thread(traces, self._database.path, self._patterns(members)):
            return ""
        if await self._database.read(size_bytes) > SMALL_BYTES and not quiet(self._config, self._clock()):
            return "traces between the rows of the database: it will be rewritten when the store is closed"
        await self._database.read(write_anew)
        if not await self._fold():
            return READ
        return COMING if await self._find(dict.fromkeys(members), members) else ""

    def _patterns(self, members: Sequence[str]) -> list[bytes]:
        tags = [tag for member in members for tag in self._stones.open[member].tags]
        names = [member.encode() for member in members]
        return [*map(bytes.fromhex, tags), *(tag.encode() for tag in tags), *names]

    async def _put_back(self) -> None:
        """Erase members again if the database was restored from a backup made before their erasure."""
        if not self._stones.any:
            return

        def look() -> _Returned:
            with closing(connect(self._database.path)) as conn:
                return self._returned(conn)

        returned = await asyncio.to_thread(look)
        if not any(returned):
            return
        log.warning("the database contains erased members, probably restored from a backup: erasing them again")
        async with self._changing() as stones:
            for member in returned.gone:
                stones.begin(member, self._clock(), self._generation())
        rows = await self._find(returned.joined_again, ())
        for some in slices(rows):
            await self._database.write(partial(erase, rows=some, replacements=Replacements()))

    def _returned(self, conn: sqlite3.Connection) -> _Returned:
        old: dict[str, int | None] = {}
        for table, began in BEGAN.items():
            query = f"SELECT member, min({began}) FROM {table} WHERE member IS NOT NULL GROUP BY member"
            for member, first_us in conn.execute(query):
                if first_us < (self._stones.erased_us(member) or 0):
                    old[member] = self._stones.erased_us(member)
        (generation,) = conn.execute("SELECT generation FROM directory_state").fetchone()
        listed: set[str] = set()
        gone: set[str] = set()
        cursor = conn.execute("SELECT DISTINCT member FROM directory")
        while some := [member for (member,) in cursor.fetchmany(1000)]:
            gone |= self._stones.barred(some, generation)
            listed |= old.keys() & some
            time.sleep(0.001)  # let other threads run
        again = {member: upto_us for member, upto_us in old.items() if member in listed - gone}
        return _Returned(gone | (old.keys() - again.keys()), again)

    def _receipt(self, member: str) -> dict[str, Any]:
        took_ms = round((time.monotonic() - self._began.pop(member)) * 1000)
        self._cleared.discard(member)
        return {**self._counts.pop(member), "took_ms": took_ms}


class _Returned(NamedTuple):
    """Erased members found in the database. For those who have rejoined since, only earlier data is erased."""

    gone: set[str]
    joined_again: dict[str, int | None]


def quiet(config: StoreConfig, now_us: int) -> bool:
    """True if the store is closed, or at night if it never closes."""
    date = business_days(config).date(now_us)
    open_now = (hours(config, floor.id, date) for floor in config.floors)
    if not any(one.open_us <= now_us < one.close_us for one in open_now):
        return True
    return dt.datetime.fromtimestamp(now_us / 1e6, config.store.tz).hour in NIGHT_HOURS
