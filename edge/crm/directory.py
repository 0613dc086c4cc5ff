"""Member directory from the CRM: fetched in parts, applied while the service is running, and used only while valid.

Rows are hashed with this gateway's key on arrival, so that no EPCs are stored. A full directory is written to a
separate table in small transactions, between which greetings continue, and replaces the current table in one
transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from edge.crm.directory_file import COLUMNS, SLICE_ROWS, FetchError, slices_apart
from edge.database.retention import DAY_US, EXPIRED_DAYS
from edge.database.writer import Database
from edge.store.private import make_private
from sync.down import MAX_MANIFEST_BYTES, PART_BYTES, DirectoryFile, Manifest, ReportedDirectory, Want
from sync.mqtt import Incoming

log = logging.getLogger("tagtrail.directory")

PARTS = 8
"""Number of parts requested at a time."""
PATIENCE_S = (5.0, 60.0)
"""Time before missing parts are requested again; doubles up to the second value."""
RETRY_S = 60.0
EXPIRY_S = 30.0
PIECES = 16
AMONG = "member IN (SELECT value FROM json_each(?))"
STATEMENT_ROWS = 500
TABLE = """CREATE TABLE {name} (
    tag BLOB PRIMARY KEY, member TEXT NOT NULL, tier TEXT NOT NULL, consent INTEGER NOT NULL, hint TEXT,
    hint_until_us INTEGER
) WITHOUT ROWID"""

State = Literal["applied", "fetching", "failed", "expired"]


class MemberDirectory:
    """Process `down/directory` and its subtopics, and report on `up/directory`; `run` works until cancelled.

    `recheck` is awaited when members may have been removed. `here` is called with the current generation. `offered` is
    awaited with the generation of a manifest before it is processed. `barred` returns the members that a file of a
    generation must not add.
    """

    def __init__(
        self,
        database: Database,
        clock: Callable[[], int],
        say: Callable[[str, bytes, bool], None],
        recheck: Callable[[], Awaitable[None]],
        here: Callable[[int], None],
        offered: Callable[[int], Awaitable[None]] | None = None,
        barred: Callable[[Collection[str], int], set[str]] = lambda members, generation: set(),
    ) -> None:
        self._database = database
        self._clock = clock
        self._say = say
        self._recheck = recheck
        self._here = here
        self._offered = offered
        self._barred = barred
        self._manifest: Manifest | None = None
        self._changed = asyncio.Event()
        self._parts: asyncio.Queue[tuple[str, int, bytes]] = asyncio.Queue(4 * PARTS)
        self._drop = False
        self.fetching = False
        """True while a file is being fetched or applied."""
        self._generation_here: int | None = None

    @property
    def generation(self) -> int | None:
        """Generation of the latest known directory, applied or offered; None before there is one."""
        known = (self._manifest and self._manifest.generation, self._generation_here)
        return max((one for one in known if one), default=None)

    async def take(self, incoming: Incoming) -> None:
        """Process a manifest or a part."""
        tail = incoming.topic.split("/down/directory", 1)[1].strip("/").split("/")
        if tail[0] == "part" and len(tail) == 3 and tail[2].isdecimal() and len(incoming.payload) <= PART_BYTES:
            with contextlib.suppress(asyncio.QueueFull, ValueError):  # ValueError: a number with thousands of digits
                self._parts.put_nowait((tail[1], int(tail[2]), incoming.payload))
        elif tail == [""] and 0 < len(incoming.payload) <= MAX_MANIFEST_BYTES:
            try:
                self._manifest = Manifest.model_validate_json(incoming.payload, strict=True)
            except ValidationError as error:
                problem = error.errors(include_url=False)[0]
                await self._report("failed", f"not a manifest: {'.'.join(map(str, problem['loc']))}: {problem['msg']}")
                return
            self._changed.set()

    def drop_parts(self) -> None:
        """Restart the current transfer, because what has been received must be deleted."""
        self._drop = True
        with contextlib.suppress(asyncio.QueueFull):
            self._parts.put_nowait(("", 0, b""))  # wake up the receiver

    async def run(self) -> None:
        """Apply manifests, and check the validity of the current directory."""
        with contextlib.suppress(sqlite3.Error):  # leftovers are also cleared after the next file
            while await self._write(_clear):
                await asyncio.sleep(0)
        failed = self._manifest is not None  # an earlier run failed
        while True:
            with contextlib.suppress(sqlite3.Error):
                self._here(await self._generation())  # a file may have been imported manually
            await self._expire()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(RETRY_S, EXPIRY_S) if failed else EXPIRY_S):
                    await self._changed.wait()
            if self._manifest is None or not (self._changed.is_set() or failed):
                continue
            self._changed.clear()
            try:
                failed = False
                await self._follow(self._manifest)
            except (FetchError, OSError, sqlite3.Error) as error:
                failed = True
                if not self._changed.is_set():  # otherwise it is another one's turn
                    log.warning("the member directory can't be applied: %s", error)
                    await self._report("failed", str(error))

    async def _follow(self, manifest: Manifest) -> None:
        if self._offered is not None:
            await self._offered(manifest.generation)
        if manifest.withdrawn:
            await self._take_out(manifest.withdrawn)
            await self._recheck()
        for file in await self._missing(manifest):
            await self._report("fetching", f"generation {file.generation}")
            self.fetching = True
            try:
                packed = await self._fetch(file)
                await self._apply(packed, file, manifest.valid_until_us, made_of(manifest, file.generation))
                packed.unlink(missing_ok=True)
            finally:
                self.fetching = False
        known = await self._known() | made_of(manifest, manifest.generation)
        await self._write(
            lambda conn: conn.execute(
                "UPDATE directory_state SET valid_until_us = ?, expired = 0, files = ?",
                (manifest.valid_until_us, json.dumps(known)),
            )
        )
        if manifest.withdrawn:
            await self._take_out(manifest.withdrawn)
        await self._recheck()
        if not await self._expire():
            await self._report("applied", "")

    async def _missing(self, manifest: Manifest | None) -> list[DirectoryFile]:
        """Return the files that lead from the current directory to that of a manifest."""
        if manifest is None or manifest.valid_until_us < self._clock() - EXPIRED_DAYS * DAY_US:
            return []
        generation = await self._generation()
        if manifest.generation < generation:
            raise FetchError(f"generation {generation} is already applied")
        if manifest.generation > generation:
            return path(manifest, generation)
        return path(manifest, None) if told_apart(manifest, await self._known()) else []

    async def _take_out(self, members: list[str]) -> None:
        """Remove members with all their cards, in chunks, because scanning a large directory takes long."""
        among = json.dumps(members)
        for first in range(0, 256, 256 // PIECES):
            # Every tag of 16 bytes is less than 17 times the last byte.
            bounds = (bytes([first]), bytes([first + 256 // PIECES - 1]) + b"\xff" * 16, among)
            await self._write(partial(_delete, where=f"tag >= ? AND tag < ? AND {AMONG}", values=bounds))

    async def _fetch(self, file: DirectoryFile) -> Path:
        """Fetch the parts of a file in any order; what an earlier run received in order is kept."""
        packed = Path(f"{self._database.path}.directory-{file.sha256[:16]}.part")
        for other in packed.parent.glob(f"{self._database.path.name}.directory-*.part"):
            if other != packed:
                other.unlink(missing_ok=True)
        patience_s = PATIENCE_S[0]
        ahead: dict[int, bytes] = {}
        self._drop = False
        make_private(packed)  # contains members' cards
        with packed.open("ab") as out:
            have = out.tell()
            while have < file.size:
                want = _want(file, have, ahead)
                self._say("up/directory/want", want.model_dump_json().encode(), False)
                goal = min(file.size, have + want.parts * want.size)
                before = have, len(ahead)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(patience_s):
                        while have < goal:
                            digest, offset, part = await self._parts.get()
                            if self._drop:
                                packed.unlink(missing_ok=True)
                                self._changed.set()
                                raise FetchError("restarted because a member was erased")
                            if digest == file.sha256 and _is_wanted(file, want, have, offset, part):
                                ahead[offset] = part
                            while part := ahead.pop(have, b""):
                                out.write(part)
                                have += len(part)
                out.flush()
                ahead = {offset: part for offset, part in ahead.items() if offset > have}
                patience_s = PATIENCE_S[0] if (have, len(ahead)) != before else min(2 * patience_s, PATIENCE_S[1])
                if self._changed.is_set() and file not in await self._missing(self._manifest):
                    raise FetchError("a newer manifest arrived")
        if await asyncio.to_thread(_digest, packed) != file.sha256:
            packed.unlink()
            raise FetchError(f"generation {file.generation} does not match its SHA-256")
        return packed

    async def _apply(self, packed: Path, file: DirectoryFile, valid_until_us: int, files: dict[str, str]) -> None:
        whole = file.base is None
        into = "directory_next" if whole else "directory"
        if whole:
            await self._write(lambda conn: conn.execute(TABLE.format(name="directory_next")))
        try:
            async for values in slices_apart(packed, self._database.tag_key, whole):
                await self._write(_put(into, self._without_barred(values, file.generation)))

            def finish(conn: sqlite3.Connection) -> None:
                if whole:
                    conn.execute("DROP TABLE IF EXISTS directory_old")
                    conn.execute("ALTER TABLE directory RENAME TO directory_old")
                    conn.execute("ALTER TABLE directory_next RENAME TO directory")
                conn.execute(
                    "UPDATE directory_state SET generation = ?, valid_until_us = ?, expired = 0, files = ?",
                    (file.generation, valid_until_us, json.dumps(files)),
                )

            await self._write(finish)
        finally:
            while await self._write(_clear):
                await asyncio.sleep(0)

    def _without_barred(self, values: list[Any], generation: int) -> list[Any]:
        """Return the flat rows without members who were erased after the file was created."""
        barred = self._barred(values[1::COLUMNS], generation)
        if not barred:
            return values
        rows = (values[start : start + COLUMNS] for start in range(0, len(values), COLUMNS))
        return [value for row in rows if row[1] not in barred for value in row]

    async def _expire(self) -> bool:
        """Deactivate the directory once it has expired; True if it has."""

        def job(conn: sqlite3.Connection) -> tuple[bool, bool]:
            until_us, was = conn.execute("SELECT valid_until_us, expired FROM directory_state").fetchone()
            now = until_us is not None and self._clock() >= until_us
            if now and not was:
                conn.execute("UPDATE directory_state SET expired = 1")
            return now, now and not was

        try:
            expired, fresh = await self._database.write(job)
        except sqlite3.Error:
            return False
        if fresh:
            await self._recheck()
            await self._report("expired", "this directory has expired: nobody is recognised")
        return expired

    async def _report(self, state: State, reason: str) -> None:
        def job(conn: sqlite3.Connection) -> tuple[int, int]:
            (generation,) = conn.execute("SELECT generation FROM directory_state").fetchone()
            return generation, conn.execute("SELECT count(*) FROM directory").fetchone()[0]

        try:
            generation, members = await self._database.read(job)
        except sqlite3.Error as error:
            log.warning("the state of the member directory can't be reported: %s", error)
            return
        self._here(generation)
        report = ReportedDirectory(
            generation=generation, state=state, reason=reason, members=members, at_us=self._clock()
        )
        self._say("up/directory", report.model_dump_json().encode(), True)

    async def _generation(self) -> int:
        query = "SELECT generation FROM directory_state"
        generation = int(await self._database.read(lambda conn: conn.execute(query).fetchone()[0]))
        self._generation_here = generation or None
        return generation

    async def _known(self) -> dict[str, str]:
        """Return the files that the current generation consists of, as far as known."""
        query = "SELECT files FROM directory_state"
        files = await self._database.read(lambda conn: conn.execute(query).fetchone()[0])
        return dict(json.loads(files)) if files else {}

    async def _write(self, job: Callable[[sqlite3.Connection], Any]) -> Any:
        return await self._database.write(job)


def path(manifest: Manifest, generation: int | None) -> list[DirectoryFile]:
    """Return the files that lead from a generation to the manifest's with the fewest bytes: changes if possible, or
    else all members and then changes. From None, only the latter."""
    lead: dict[int | None, tuple[int, list[DirectoryFile]]] = {manifest.generation: (0, [])}
    # Each file leads to a later generation; working backwards, the best continuation of each is known.
    for file in sorted(manifest.files, key=lambda file: file.generation, reverse=True):
        if file.generation in lead:
            size, files = lead[file.generation]
            if file.base not in lead or size + file.size < lead[file.base][0]:
                lead[file.base] = size + file.size, [file, *files]
    for start in (generation, None):
        if start in lead:
            return lead[start][1]
    raise FetchError(f"no files lead from generation {generation} to {manifest.generation}")


def made_of(manifest: Manifest, generation: int) -> dict[str, str]:
    """Return the files of a manifest that result in a generation: base ("" for all members) → SHA-256."""
    return {str(file.base or ""): file.sha256 for file in manifest.files if file.generation == generation}


def told_apart(manifest: Manifest, known: dict[str, str]) -> bool:
    """True if a manifest's generation with the current number can't be confirmed as the one made of `known`, because no
    file is the same. FetchError if it is a different one."""
    theirs = made_of(manifest, manifest.generation)
    if any(known.get(base, digest) != digest for base, digest in theirs.items()):
        raise FetchError(
            f"generation {manifest.generation} is applied with different content; changes require a new generation"
        )
    return bool(known and theirs) and not set(known) & set(theirs)


def _want(file: DirectoryFile, have: int, ahead: dict[int, bytes]) -> Want:
    """Return a request for the next missing parts, up to one that has been received."""
    parts = next((n for n in range(1, PARTS) if have + n * PART_BYTES in ahead), PARTS)
    return Want(sha256=file.sha256, offset=have, size=PART_BYTES, parts=parts)


def _is_wanted(file: DirectoryFile, want: Want, have: int, offset: int, part: bytes) -> bool:
    number, rest = divmod(offset - want.offset, want.size)
    in_place = rest == 0 and 0 <= number < PARTS and len(part) == min(want.size, file.size - offset)
    return offset >= have and (in_place or offset == have) and 0 < len(part) <= file.size - offset


def _put(table: str, values: list[Any]) -> Callable[[sqlite3.Connection], None]:
    # Columns: tag, member, …; a row without a member is deleted.
    gone = [(tag,) for tag, member in zip(values[::COLUMNS], values[1::COLUMNS], strict=True) if not member]

    def job(conn: sqlite3.Connection) -> None:
        # Many rows per statement take half the time of executemany, which binds and resets for each row.
        for start in range(0, len(values), STATEMENT_ROWS * COLUMNS):
            some = values[start : start + STATEMENT_ROWS * COLUMNS]
            marks = ",".join(["(?,?,?,?,?,?)"] * (len(some) // COLUMNS))
            conn.execute(f"INSERT OR REPLACE INTO {table} VALUES {marks}", some)
        if gone:
            conn.executemany(f"DELETE FROM {table} WHERE tag = ? AND member = ''", gone)

    return job


def _delete(conn: sqlite3.Connection, where: str, values: tuple[Any, ...]) -> None:
    conn.execute(f"DELETE FROM directory WHERE {where}", values)


def _clear(conn: sqlite3.Connection) -> int:
    """Delete leftover directories in slices, because emptying a large table at once takes seconds."""
    for table in ("directory_next", "directory_old"):
        if conn.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
            row = conn.execute(f"SELECT tag FROM {table} ORDER BY tag LIMIT 1 OFFSET {SLICE_ROWS}").fetchone()
            if row is None:
                conn.execute(f"DROP TABLE {table}")
            else:
                conn.execute(f"DELETE FROM {table} WHERE tag < ?", row)
            return 1
    return 0


def _digest(file: Path) -> str:
    with file.open("rb") as packed:
        return hashlib.file_digest(packed, "sha256").hexdigest()
