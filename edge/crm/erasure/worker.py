"""Erases members until nothing of them is left, and says so only then.

1. The erasure is written down (`Tombstones`), with all tags that stand for the member's cards.
2. Rows are taken out of the database, and everybody in the service forgets the member; the same in the page's file.
3. Files that can't be searched are deleted: recorded reads, damaged databases, directory files half fetched.
4. The write-ahead log is folded into the database and cut off. Somebody who reads an older state keeps it from being:
   it is tried again, beside the writer, which goes on meanwhile.
5. The database's file is searched for the tags and the member's number. If there is a trace between its rows, the file
   is written anew: a small one at once, a large one when the store is closed.

Whatever can't be done yet is why the erasure is pending; it is tried again, also after a restart.
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
"""Members whose rows are looked for together."""
ROUNDS = 10
"""Looks for rows of a member, for what is being written meanwhile."""
FOLD_TRIES, FOLD_PAUSE_S = 10, 0.2
RETRY_S = (2.0, 60.0)
SMALL_BYTES = 32 << 20
"""A database of at most so much is written anew at once: greetings wait for it half a second."""
COMING = "rows of the member keep coming"
READ = "somebody is reading an older state of the database: its log still has what was erased"
NIGHT_HOURS = range(3, 5)
"""When a large one is written anew in a store that never closes, local time."""


class Erasures:
    """Carries erasures out; `run` works until cancelled, `erase` waits for what comes of one.

    `recheck` has the service know who is here anew, without some members; `let_go` has it drop reads and directory
    files that it holds. `settle` is told the receipt of a command that had been answered `pending`. `generation` is
    that of the newest member directory known, None before there is one; `fetching` says whether a file of one is on its
    way.
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
        """Members for whom the files that can't be searched are gone."""
        self._reason = ""

    def commands(self) -> set[str]:
        """Ids of the commands whose erasures go on."""
        return {command for one in self._stones.open.values() for command in one.commands}

    def barred(self, members: Collection[str], generation: int) -> set[str]:
        """Those of some members whom a directory of a generation may not bring back."""
        return self._stones.barred(members, generation)

    def erased(self, members: Collection[str]) -> set[str]:
        """Those of some members who are being erased or were."""
        return self._stones.barred(members)

    async def offered(self, generation: int) -> None:
        """A directory is offered; waits until one that was put back has been looked through."""
        await self._ready.wait()
        async with self._changing() as stones:
            if stones.arrived(generation):
                await asyncio.to_thread(stones.save)

    @contextlib.asynccontextmanager
    async def _changing(self) -> AsyncIterator[Tombstones]:
        """The list of erasures as it is on the disk, for one who changes it."""
        async with self._saving:
            self._stones.refresh()
            yield self._stones

    async def erase(self, member: str, command: str = "") -> dict[str, Any]:
        """Have a member erased: the receipt; Pending, with the reason, if it takes longer."""
        waiting = asyncio.get_running_loop().create_future()
        self._asked.append((member, command, waiting))
        self._news.set()
        return dict(await waiting)

    async def readmit(self, members: Collection[str]) -> None:
        """Members have joined again: what is imported by hand may bring them."""
        async with self._changing() as stones:
            stones.readmit(members)
            await asyncio.to_thread(stones.save)

    async def prune(self, before_us: int) -> None:
        """Forget who was erased before."""
        async with self._changing() as stones:
            if stones.prune(before_us):
                await asyncio.to_thread(stones.save)

    async def run(self) -> None:
        """Erase whoever is asked for, and go on with those of before."""
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
        """Try all that is open once; whether it came to its end."""
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
            log.warning("an erasure is pending: %s", reason)
        self._reason = reason

    async def _end(self, members: Sequence[str], answered: Collection[str]) -> dict[str, dict[str, Any]]:
        """Nothing is left of some members: their receipts. `answered`: commands that need not be told again."""
        commands = [(command, member) for member in members for command in self._stones.open[member].commands]
        async with self._changing() as stones:
            await asyncio.to_thread(stones.end, members)
        receipts = {member: self._receipt(member) for member in members}
        for command, member in commands:
            if self._settle is not None and command not in answered:
                await self._settle(command, receipts[member])
        return receipts

    async def _erase(self, members: Sequence[str]) -> str:
        """Take all steps for some members; why it is not done yet, empty if nothing is left."""
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
        """Take out rows until there are none; whether that came to an end."""
        whenever = dict.fromkeys(members)
        replacements = Replacements()
        for turn in range(ROUNDS):
            rows = await self._find(whenever, members)
            if sum(self._note(row) for row in rows) or turn == 0:
                async with self._saving:  # the tags are known no more once the rows are gone
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
        """Remember a tag that is to be searched for; whether it is a new one."""
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
        """Delete what can't be searched; but for what has come of a directory file since it was begun anew."""
        files = [file for file in of(self._database.path, Erasure.DELETED) if not (fetching and file.suffix == ".part")]
        for file in files:
            file.unlink(missing_ok=True)
        return len(files)

    def _look_at_copies(self, patterns: Collection[bytes]) -> str:
        for file in copies(self._database.path):
            if not is_database(file):
                return f"{file.name} can't be searched and may be a copy of the database: delete it, or move it away"
            if traces(file, patterns):
                return f"{file.name} still has what was erased: delete it"
        return ""

    async def _fold(self) -> bool:
        for _ in range(FOLD_TRIES):
            if await asyncio.to_thread(fold, self._database.path):
                return True
            await asyncio.sleep(FOLD_PAUSE_S)
        return False

    async def _search(self, members: Sequence[str]) -> str:
        """Look for traces in the database's file; overwrite them, if it is time for that."""
        if not await asyncio.to_thread(traces, self._database.path, self._patterns(members)):
            return ""
        if await self._database.read(size_bytes) > SMALL_BYTES and not quiet(self._config, self._clock()):
            return "traces between the rows of the database: it is written anew when the store is closed"
        await self._database.read(write_anew)
        if not await self._fold():
            return READ
        return COMING if await self._find(dict.fromkeys(members), members) else ""

    def _patterns(self, members: Sequence[str]) -> list[bytes]:
        tags = [tag for member in members for tag in self._stones.open[member].tags]
        names = [member.encode() for member in members]
        return [*map(bytes.fromhex, tags), *(tag.encode() for tag in tags), *names]

    async def _put_back(self) -> None:
        """A database may have been put back from a backup: erase what it has of members who were erased since."""
        if not self._stones.any:
            return

        def look() -> _Returned:
            with closing(connect(self._database.path)) as conn:
                return self._returned(conn)

        returned = await asyncio.to_thread(look)
        if not any(returned):
            return
        log.warning("the database has members who were erased, as if restored from a backup: they are erased again")
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
            time.sleep(0.001)  # others want the interpreter, too
        again = {member: upto_us for member, upto_us in old.items() if member in listed - gone}
        return _Returned(gone | (old.keys() - again.keys()), again)

    def _receipt(self, member: str) -> dict[str, Any]:
        took_ms = round((time.monotonic() - self._began.pop(member)) * 1000)
        self._cleared.discard(member)
        return {**self._counts.pop(member), "took_ms": took_ms}


class _Returned(NamedTuple):
    """Members who were erased and are there. Of those who have joined again since only what is from before goes."""

    gone: set[str]
    joined_again: dict[str, int | None]


def quiet(config: StoreConfig, now_us: int) -> bool:
    """Whether a store is closed, or it is night."""
    date = business_days(config).date(now_us)
    open_now = (hours(config, floor.id, date) for floor in config.floors)
    if not any(one.open_us <= now_us < one.close_us for one in open_now):
        return True
    return dt.datetime.fromtimestamp(now_us / 1e6, config.store.tz).hour in NIGHT_HOURS
