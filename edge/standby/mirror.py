"""The copy of a service's database on the standby's disk, page by page the same: `<database>.standby-copy`, its log.

Each part of the log is written behind the one before and is on disk before it is reported. When the service's log
begins anew, the copy's is folded into it first. So the copy is as of the end of a transaction at any moment, also after
a power cut. It has another name than the database until it is taken into use, so that nobody opens it by mistake.

A whole copy is made of blocks. Those that an older copy has, too, are not sent.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

from edge.database.wal import HEADER_BYTES, BadLog, Chain, Place, transactions
from edge.store.private import create_private, hand_over, make_folder, make_private, sync_folder

BLOCK_BYTES = 65_536
DIGEST_BYTES = 16
PIECE_BYTES = 1 << 20


def copy_of(database: Path) -> Path:
    """Return the path of the copy of a database."""
    return database.with_name(f"{database.name}.standby-copy")


def digest(block: bytes) -> bytes:
    """Return by what blocks are compared."""
    return blake2b(block, digest_size=DIGEST_BYTES).digest()


class Mirror:
    """The copy of a database. One process may have it, which holds the database's lock."""

    def __init__(self, database: Path) -> None:
        self.path = copy_of(database)
        self._log, self._next_log, self._part, self._note = (
            self.path.with_name(f"{self.path.name}{ending}") for ending in ("-wal", "-wal.new", ".part", ".json")
        )
        self._file = -1
        self._chain: Chain | None = None
        self._new = -1
        make_folder(database.parent)
        for left in (self._part, self._next_log):
            left.unlink(missing_ok=True)
        if self.path.exists():
            self._reopen()

    @property
    def there(self) -> bool:
        """True if there is a whole copy."""
        return self.path.exists()

    @property
    def place(self) -> Place:
        """Return how far the log of the copy is; an empty place if that is not known."""
        return self._chain.place if self._chain is not None else Place()

    def close(self) -> None:
        """Close the files."""
        for file in (self._file, self._new):
            if file >= 0:
                os.close(file)
        self._file = self._new = -1

    def note(self, **facts: object) -> None:
        """Write down facts about the copy, which `noted` returns; the others stay."""
        create_private(self._note, json.dumps(self.noted() | facts).encode())

    def noted(self) -> dict[str, object]:
        """Return what was written down about the copy."""
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self._note.read_bytes())
            return found if isinstance(found, dict) else {}
        return {}

    # A whole copy.

    def digests(self) -> Iterator[bytes]:
        """Yield the digest of each block of the copy that there is."""
        if not self.there:
            return
        self.fold()
        with self.path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                yield digest(block)

    def need(self, size: int) -> None:
        """Raise OSError unless there is room for a new copy of so many bytes beside the one there."""
        self._part.unlink(missing_ok=True)
        if self._new >= 0:
            os.close(self._new)
            self._new = -1
        free = shutil.disk_usage(self.path.parent).free
        if free < size:
            said = f"it needs {size // 2**20 + 1} MB beside the copy before, and {free // 2**20} MB are free"
            raise OSError(errno.ENOSPC, said)

    def begin(self, size: int) -> None:
        """Begin a new copy of so many bytes; it has the blocks of the one there until others are `put`."""
        self.need(size)
        make_private(self._part)
        self._new = os.open(self._part, os.O_RDWR | os.O_CLOEXEC)
        at = 0
        if self.there:
            with self.path.open("rb") as old:
                while at < size and (piece := old.read(PIECE_BYTES)):
                    _write(self._new, piece, at)
                    at += len(piece)
        os.ftruncate(self._new, size)

    def put(self, at: int, block: bytes) -> None:
        """Put a block in its place in the new copy."""
        _write(self._new, block, at * BLOCK_BYTES)

    def finish(self, log: bytes) -> None:
        """Put the new copy in place of the one there, brought up to date by the service's log of then, which may be
        empty. Raises BadLog, and the one there stays."""
        chain = None
        if log:
            chain = Chain(log[:HEADER_BYTES])
            transactions(log[HEADER_BYTES:], chain)
            _fold(self._new, chain, log)
        os.fsync(self._new)
        self.fold()  # else the former copy's log would be taken for the new one's
        self._drop_log()
        sync_folder(self.path.parent)  # in this order, whatever the file system
        os.replace(self._part, self.path)
        hand_over(self.path)
        sync_folder(self.path.parent)
        self._chain = None
        os.close(self._new)
        self._new = -1
        if chain is not None:
            self._begin_log(log)
            self._chain = chain

    # The log.

    def append(self, begins: bool, data: bytes) -> None:
        """Take transactions of the log; they are on disk afterwards. Raises BadLog if they don't follow."""
        if begins:
            chain = Chain(data[:HEADER_BYTES])
            transactions(data[HEADER_BYTES:], chain)
            self.fold()
            self._begin_log(data)
            self._chain = chain
            return
        if self._chain is None:
            raise BadLog("the copy has no log")
        at = self._chain.size
        try:
            transactions(data, self._chain)
            _write(self._file, data, at)
            os.fdatasync(self._file)
        except (BadLog, OSError):
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, at)  # what could not be put on disk may still be read
            self._reopen()
            raise

    def fold(self) -> None:
        """Write what the log has into the copy."""
        if self._chain is None or self._chain.size == HEADER_BYTES:
            return
        log = os.pread(self._file, self._chain.size, 0)
        file = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            _fold(file, self._chain, log)
            os.fsync(file)
        finally:
            os.close(file)

    def settle(self) -> None:
        """Fold the log and delete it, so that the copy is one file."""
        self.fold()
        self._drop_log()
        self._chain = None
        sync_folder(self.path.parent)

    def drop(self) -> None:
        """Delete the copy and all that belongs to it."""
        self.close()
        for file in (self.path, self._log, self._next_log, self._part, self._note):
            file.unlink(missing_ok=True)

    def _reopen(self) -> None:
        """Go on with the log that is on disk, up to where it is sound."""
        if self._file >= 0:
            os.close(self._file)
        self._file, self._chain = -1, None
        with contextlib.suppress(FileNotFoundError, BadLog):
            data = self._log.read_bytes()
            chain = Chain(data[:HEADER_BYTES])
            chain.extend(data[HEADER_BYTES:])
            self._file = os.open(self._log, os.O_RDWR | os.O_CLOEXEC)
            os.ftruncate(self._file, chain.size)
            os.fsync(self._file)  # a process that was killed may have written it only
            self._chain = chain

    def _begin_log(self, data: bytes) -> None:
        self._next_log.unlink(missing_ok=True)
        make_private(self._next_log)
        file = os.open(self._next_log, os.O_RDWR | os.O_CLOEXEC)
        try:
            _write(file, data, 0)
            os.fsync(file)
            os.replace(self._next_log, self._log)
        except OSError:
            os.close(file)
            raise
        sync_folder(self.path.parent)
        if self._file >= 0:
            os.close(self._file)
        self._file = file

    def _drop_log(self) -> None:
        self._log.unlink(missing_ok=True)
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


def _fold(file: int, chain: Chain, log: bytes) -> None:
    """Write the last image of each page of a whole log into a database; the length is as after its last transaction."""
    if not chain.pages:
        return
    frames = log[HEADER_BYTES : chain.size]
    latest = dict(chain.pages_of(frames))
    for number, at in sorted(latest.items()):
        if number <= chain.pages:
            _write(file, frames[at : at + chain.page_bytes], (number - 1) * chain.page_bytes)
    os.ftruncate(file, chain.pages * chain.page_bytes)


def _write(file: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        n = os.pwrite(file, view, at)
        view, at = view[n:], at + n
