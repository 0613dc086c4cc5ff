"""The gateway's database: one file, one writer thread, one transaction a job.

WAL, so that the page reads while the service writes; `synchronous=FULL`, because a power cut that took back a
committed sequence number would let it be given to another event, and the CRM would take that one for a duplicate.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from sqlite_utils import Database as Tables

from edge.database import copies, keys, schema
from edge.store.errors import Trouble
from edge.store.private import make_folder, make_private
from edge.store.quarantine import is_damage, set_aside

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]
PAGE_BYTES = 4096
SIDES = ("-wal", "-shm")
BUSY_S = 10.0


class Follower(Protocol):
    """Who is told of every transaction, in the database's thread."""

    def begun(self, others: bool) -> None:
        """Nobody else can write now. `others`: another process has written since the last transaction."""

    def committed(self, others: Callable[[], bool]) -> None:
        """A transaction is committed. `others`: whether another process has written since it began."""

    def failed(self) -> None:
        """Whether one is committed is not known."""


class Database:
    """Open, migrated database; `write` and `read` run in its single thread, so that there are no lock conflicts. Raises
    Trouble if the file can't be used. A corrupt file is moved aside and replaced by a new one with a new epoch:
    `quarantined` is then its path. Without `repair`, for all but the service, that raises Trouble.
    """

    def __init__(self, path: Path, *, store: str, quota_mb: int, repair: bool = True) -> None:
        self.path = path
        self.quarantined: Path | None = None
        self.damage: str | None = None
        """SQLite's error once it has found the file damaged while running: call `condemn` and reopen."""
        self.commits = 0
        self.commit_s = 0.0
        """Commits since the file was opened, the time they took …"""
        self.failed_commits = 0
        """… and transactions that the database refused."""
        self.rekeyed = False
        """True if the tag key is not the one of the directory, so that nobody is recognised."""
        self._tag_key: bytes | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="database")
        try:
            self._conn = self._thread.submit(self._open, store, quota_mb, repair).result()
        except BaseException:
            self._thread.shutdown()
            raise
        self._file = _identity(path)
        self._others_version: int | None = None
        self._follower: Follower | None = None
        self._followed_version = 0
        facts = self._thread.submit(_facts, self._conn).result()
        self.epoch = facts["epoch"]

    @property
    def has_tag_key(self) -> bool:
        """True if this process has the tag key."""
        return self._tag_key is not None

    @property
    def tag_key(self) -> bytes:
        """Return the key of members' hashes; Trouble if only the service has it."""
        if self._tag_key is None:
            raise Trouble("the tag key is a credential that only the service has: start the service first")
        return self._tag_key

    async def write(self, job: Job[T]) -> T:
        """Run a job in one transaction: committed when it returns, rolled back when it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transact, job)

    async def read(self, job: Job[T]) -> T:
        """Run a job that only reads."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._look, job)

    async def written_by_others(self) -> bool:
        """Return whether another process has written since the last call."""
        version = await self.read(_version)
        before, self._others_version = self._others_version, version
        return before not in (None, version)

    async def follow(self, follower: Follower | None) -> None:
        """Tell a follower of all transactions from now on, beginning with one without changes; None: nobody any
        more."""

        def job() -> None:
            self._follower = None
            if follower is not None:
                self._followed_version = _version(self._conn)
                self._follower = follower
                self._transact(lambda conn: None)

        await asyncio.get_running_loop().run_in_executor(self._thread, job)

    async def fold(self) -> bool:
        """Write the log into the database and cut it off; False if somebody still reads an older state."""

        def job() -> bool:
            self._conn.execute("PRAGMA busy_timeout = 0")
            try:
                busy, _, _ = self._conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                self._conn.execute(f"PRAGMA busy_timeout = {BUSY_S * 1000:.0f}")
            return not busy

        return await asyncio.get_running_loop().run_in_executor(self._thread, job)

    def write_now(self, job: Job[T]) -> T:
        """`write` for code without an event loop."""
        return self._thread.submit(self._transact, job).result()

    def condemn(self) -> None:
        """Mark the file so that the next process to open it moves it aside."""
        with contextlib.suppress(OSError):
            _condemned(self.path).touch()

    def astray(self) -> bool:
        """True if the file was deleted or replaced while it is open here."""
        try:
            return _identity(self.path) != self._file
        except OSError:  # the folder can't be read just now: nobody knows
            return False

    def close(self) -> None:
        """Checkpoint the WAL and close, after jobs in progress. A file deleted meanwhile is restored."""
        self._thread.submit(self._close).result()
        self._thread.shutdown()

    def _close(self) -> None:
        saved = self.path.with_name(f"{self.path.name}.saved")
        saved.unlink(missing_ok=True)
        if not self.path.exists():
            try:
                self._save(saved)
            except (sqlite3.Error, OSError):  # e.g. its folder is gone too, or the disk is full
                with contextlib.suppress(OSError):
                    saved.unlink(missing_ok=True)
        self._conn.close()
        if saved.exists():
            for suffix in SIDES:
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
            saved.rename(self.path)

    def _save(self, saved: Path) -> None:
        """Copy the open database; it is on disk before it gets its name."""
        make_private(saved)
        with contextlib.closing(sqlite3.connect(saved)) as copy:
            copy.execute("PRAGMA journal_mode=OFF")
            copy.execute("PRAGMA synchronous=OFF")
            self._conn.backup(copy, pages=copies.PAGES)
        with saved.open("rb") as file:
            os.fsync(file.fileno())

    def _transact(self, job: Job[T]) -> T:
        with self._judging():
            began_s = time.monotonic()
            committing = False
            try:
                self._conn.execute("BEGIN IMMEDIATE")
                if self._follower is not None:
                    before, self._followed_version = self._followed_version, _version(self._conn)
                    self._follower.begun(before != self._followed_version)
                result = job(self._conn)
                committing = True
                self._conn.execute("COMMIT")
            except BaseException as error:
                self.failed_commits += isinstance(error, sqlite3.Error)
                if self._conn.in_transaction:
                    self._conn.execute("ROLLBACK")
                if committing and self._follower is not None:
                    self._follower.failed()
                raise
            self.commits += 1
            self.commit_s += time.monotonic() - began_s
            if self._follower is not None:
                self._follower.committed(lambda: _version(self._conn) != self._followed_version)
        return result

    def _look(self, job: Job[T]) -> T:
        with self._judging():
            return job(self._conn)

    @contextlib.contextmanager
    def _judging(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                self.damage = str(error)
            raise

    def _open(self, store: str, quota_mb: int, repair: bool) -> sqlite3.Connection:
        try:
            make_folder(self.path.parent)
        except OSError as error:
            raise Trouble(f"cannot create the folder of the database {self.path}: {error.strerror}") from error
        try:
            if _condemned(self.path).exists() and self.path.exists():
                raise sqlite3.DatabaseError("found damaged while it was in use")
            conn = _connect(self.path, quota_mb)
            if conn.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                conn.close()
                raise sqlite3.DatabaseError("quick_check found damage")
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise Trouble(_unusable(self.path, error)) from error
            if not repair:
                raise Trouble(
                    f"the database {self.path} is damaged ({error}): restart the service, which moves it aside"
                ) from error
            self.quarantined = set_aside(self.path)
            _condemned(self.path).unlink(missing_ok=True)
            conn = _connect(self.path, quota_mb)
        try:
            _migrate(conn, self.path, store)
            self._tag_key, self.rekeyed = _adopt_key(conn, self.path, service=repair)
        except sqlite3.OperationalError as error:
            conn.close()
            raise Trouble(_unusable(self.path, error)) from error
        except (Trouble, OSError) as error:
            conn.close()
            if isinstance(error, OSError):
                raise Trouble(f"cannot keep the tag key beside {self.path}: {error.strerror}") from error
            raise
        return conn


def _connect(path: Path, quota_mb: int) -> sqlite3.Connection:
    for file in (path, *(there for suffix in SIDES if (there := path.with_name(path.name + suffix)).exists())):
        make_private(file)  # SQLite makes the files beside it like it
    conn = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
    conn.execute(f"PRAGMA page_size={PAGE_BYTES}")
    conn.execute("PRAGMA journal_mode=WAL")
    conn.execute("PRAGMA synchronous=FULL")
    conn.execute("PRAGMA secure_delete=ON")
    conn.execute("PRAGMA journal_size_limit=16777216")
    # A quota under which deletes still work; on a full disk they don't.
    conn.execute(f"PRAGMA max_page_count={quota_mb * 1024 * 1024 // PAGE_BYTES}")
    return conn


def _migrate(conn: sqlite3.Connection, path: Path, store: str) -> None:
    schema.copy_before_migrating(conn, path)  # SQLite copies nothing out of a transaction that writes
    # Moving a table's rows may take more room for a moment than the quota leaves.
    (quota,) = conn.execute("PRAGMA max_page_count").fetchone()
    conn.execute(f"PRAGMA max_page_count={2**31 - 2}")
    # Taken as a writer from the first: who only becomes one later is refused at once while the service writes.
    conn.execute("BEGIN IMMEDIATE")
    try:
        _bring_up_to_date(Tables(conn), store)
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise
    finally:
        conn.execute(f"PRAGMA max_page_count={quota}")


def _bring_up_to_date(db: Tables, store: str) -> None:
    schema.migrations().apply(db)
    schema.refuse_newer(schema.applied(db.conn))
    facts = _facts(db.conn)
    schema.refuse_foreign(facts.setdefault("store", store), store)
    facts.setdefault("epoch", secrets.token_hex(8))
    db.table("fact").upsert_all([{"name": n, "value": v} for n, v in facts.items()], pk="name")


def _adopt_key(conn: sqlite3.Connection, path: Path, *, service: bool) -> tuple[bytes | None, bool]:
    """Return the tag key, and whether it has changed. None if it is a credential and we aren't the service. It used to
    be in the database. A key that can be replaced together with its directory isn't kept, since pseudonyms were derived
    from it.
    """
    key = keys.find_tag_key(path)
    conn.execute("BEGIN IMMEDIATE")
    try:
        facts = _facts(conn)
        inside = bytes.fromhex(facts.get("tag_key", "")) or None
        before = facts.get(keys.MARK) or (inside and keys.mark(inside))
        if key is None and before is not None and inside is None and not service:
            conn.execute("ROLLBACK")
            return None, False
        if key is None:
            key = keys.lasting(conn) or secrets.token_bytes(keys.BYTES)
            keys.keep_tag_key(path, key)
        other = before is not None and before != keys.mark(key)
        if other:
            conn.execute("UPDATE directory_state SET generation = 0")
            conn.execute("DELETE FROM recognised")
        if before != keys.mark(key) or inside is not None:
            conn.execute("DELETE FROM fact WHERE name = 'tag_key'")
            conn.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (keys.MARK, keys.mark(key)))
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise
    if inside is not None:
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    if service and keys.is_credential():
        _drop_copy(path, key)
    return key, other


def _drop_copy(path: Path, key: bytes) -> None:
    """Delete the key file beside the database if systemd holds the same key."""
    file = keys.tag_key_file(path)
    with contextlib.suppress(OSError, ValueError):
        if bytes.fromhex(file.read_text().strip()) == key:
            file.unlink()


def _facts(conn: sqlite3.Connection) -> dict[str, str]:
    return dict(conn.execute("SELECT name, value FROM fact"))


def _version(conn: sqlite3.Connection) -> int:
    """Return a number that changes when another process has written."""
    return int(conn.execute("PRAGMA data_version").fetchone()[0])


def _identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode of a file; None if it doesn't exist."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino


def _condemned(path: Path) -> Path:
    return path.with_name(f"{path.name}.condemned")


def _unusable(path: Path, error: sqlite3.Error) -> str:
    return f"cannot use the database {path}: {error}; check that the folder exists, is writable and has room"
