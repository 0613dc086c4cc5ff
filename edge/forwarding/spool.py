"""Records that a forwarder keeps on disk until the service has them, in numbered files; the oldest go first.

A file name is `NUMBER-LIFE`. Each start of the process is a life of its own, numbered from 1: whatever a power cut has
torn off the end of a file, no number is ever given twice. A file begins with the state of all readers, so that it makes
sense without those before it. One that has to go for want of room leaves its last number and the time that it held.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from edge.forwarding.records import Begun, Dropped, Malformed, Record, What, decoded, encoded, frames
from edge.store.errors import Trouble

log = logging.getLogger("tagtrail.forwarder")

FILES = 16
"""The quota is cut into so many files …"""
FILE_BYTES = 64 * 1024, 8 * 1024 * 1024
"""… of at least and at most this size."""
LOCK = "lock"
KEEP_US = 24 * 3_600_000_000
"""Reads name tags, so that they are not kept for longer than this, whatever the quota."""


@dataclass
class File:
    """A file of the spool. `first_us`, `last_us`: when its records were written."""

    number: int
    life: str
    path: Path
    size: int = 0
    last_seq: int = 0
    first_us: int = 0
    last_us: int = 0
    stub: bool = False
    """Its records had to go."""


@dataclass(frozen=True)
class Stamp:
    """The forwarder's clocks at a moment, see Record."""

    at_us: int
    mono_us: int
    trusted: bool


def folder_of(database: Path) -> Path:
    """Return the folder of a store's reads that are to be sent, unless another one is named."""
    return database.with_name(f"{database.name}.forward")


def is_used(folder: Path) -> bool:
    """Return whether a forwarder runs on a folder. Raises OSError if there is none, or if it can't be read."""
    lock = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def kept_bytes(folder: Path) -> int:
    """Return how much is in a folder."""
    return sum(file.stat().st_size for file in folder.iterdir())


class Spool:
    """One folder. `state`: what every file begins with. Trouble if another process has the folder."""

    def __init__(
        self, folder: Path, quota_bytes: int, boot: str, now: Callable[[], Stamp], state: Callable[[], Iterable[What]]
    ) -> None:
        self.life = secrets.token_hex(8)
        self.boot = boot
        self.seq = 0
        self.dropped = 0
        """Files that had to go."""
        self._quota, self._now, self._state = quota_bytes, now, state
        self._file_bytes = min(max(quota_bytes // FILES, FILE_BYTES[0]), FILE_BYTES[1])
        self._folder = folder
        self._refused: tuple[int, str] | None = None
        """Since when the disk takes nothing, and why."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Trouble(f"{folder} is in use: another forwarder of this store runs here") from error
        except OSError as error:
            raise Trouble(f"{folder} can't be used for reads to be sent: {error.strerror}") from error
        self.term = self._read_term()
        """Highest term of a service that was connected to: one with a lower has been taken over from."""
        self.files = self._found()
        self._out = -1
        self._begin()

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.size for file in self.files)

    def append(self, *whats: What) -> None:
        """Keep records. If the disk takes none, they are lost, which is told once it takes some."""
        stamp = self._now()
        if self._refused is not None:
            since_us, why = self._refused
            whats = (Dropped(since_us, stamp.at_us, f"the forwarder's disk took nothing: {why}"), *whats)
        seq = self.seq
        made = []
        for what in whats:
            seq += 1
            made.append(encoded(Record(seq, stamp.at_us, stamp.mono_us, stamp.trusted, what)))
        try:
            self._write(b"".join(made))
        except OSError as error:
            if self._refused is None:
                log.error("the disk takes no reads (%s); what comes now is lost", error.strerror)
                self._refused = stamp.at_us, error.strerror or str(error)
            self._make_room(self._file_bytes)
            return
        if self._refused is not None:
            log.warning("the disk takes reads again")
            self._refused = None
        self.seq = seq
        file = self.files[-1]
        file.last_seq, file.last_us = seq, stamp.at_us
        if file.size >= self._file_bytes:
            with contextlib.suppress(OSError):  # this one goes on until another can be begun
                self._begin()
        self._make_room(0)

    def acknowledged(self, life: str, seq: int) -> None:
        """The service has everything up to a record: delete what it is in."""
        at = next((i for i, file in enumerate(self.files) if file.life == life), 0)
        while len(self.files) > 1 and (at > 0 or (self.files[0].life == life and self.files[0].last_seq <= seq)):
            self._delete(self.files.pop(0))
            at -= 1

    def file_after(self, life: str, seq: int) -> File:
        """The file in which what follows a record begins; the first of all if the record is unknown."""
        if all(file.life != life for file in self.files):
            return self.files[0]
        seen = False
        for file in self.files:
            seen |= file.life == life
            if seen and (file.life != life or file.last_seq > seq):
                return file
        return self.files[-1]

    def next_file(self, number: int) -> File | None:
        """The file after one."""
        return next((file for file in self.files if file.number > number), None)

    def note_term(self, term: int) -> None:
        """Note the term of a service, if it is higher."""
        if term > self.term:
            self.term = term
            with contextlib.suppress(OSError):  # on a full disk it is noted at the next connection
                part = self._folder / "term.part"
                part.write_text(str(term))
                part.replace(self._folder / "term")

    def _read_term(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            return int((self._folder / "term").read_text())
        return 0

    def close(self) -> None:
        """Close the files."""
        os.close(self._out)
        os.close(self._lock)

    def _begin(self) -> None:
        number = self.files[-1].number + 1 if self.files else 1
        path = self._folder / f"{number:012d}-{self.life}"
        stamp = self._now()
        whats = (Begun(self.life, self.boot), *self._state())
        made = b"".join(
            encoded(Record(self.seq + n, stamp.at_us, stamp.mono_us, stamp.trusted, what))
            for n, what in enumerate(whats, 1)
        )
        out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            if os.write(out, made) < len(made):
                raise OSError("the disk is full")
        except OSError:
            os.close(out)
            path.unlink()
            raise
        if self._out >= 0:
            os.close(self._out)
        self._out = out
        self.seq += len(whats)
        self.files.append(File(number, self.life, path, len(made), self.seq, stamp.at_us, stamp.at_us))

    def _write(self, data: bytes) -> None:
        file = self.files[-1]
        try:
            if os.write(self._out, data) < len(data):
                raise OSError(28, "No space left on device")
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._out, file.size)
            raise
        file.size += len(data)

    def _make_room(self, more: int) -> None:
        now_us = self._now().at_us
        while True:
            old = next((file for file in self.files[:-1] if not file.stub), None)
            if old is None:
                return
            if self.size + more > self._quota:
                why = f"{self._quota >> 20} MB of reads were waiting for the service"
            elif now_us - old.last_us > KEEP_US:
                why = f"reads are kept for {KEEP_US // 3_600_000_000} h"
            else:
                return
            self._drop(old, f"{why}: the oldest were deleted")
            more = 0

    def _drop(self, file: File, why: str) -> None:
        """Replace a file by what it held, together with those before it that are gone already."""
        at = self.files.index(file)
        before = self.files[at - 1] if at and self.files[at - 1].stub and self.files[at - 1].life == file.life else None
        first_us = before.first_us if before else file.first_us
        try:
            boot = decoded(next(frames(file.path.read_bytes()))[1]).what
        except (OSError, StopIteration):
            boot = None
        life = boot if isinstance(boot, Begun) else Begun(file.life, "")
        told = (life, Dropped(first_us, file.last_us, why))
        # The last one has the last number: whoever has taken it has taken the file.
        made = b"".join(encoded(Record(file.last_seq, file.last_us, 0, True, what)) for what in told)
        part = file.path.with_suffix(".part")
        try:
            part.write_bytes(made)
            part.replace(file.path)
        except OSError:
            part.unlink(missing_ok=True)
            self._delete(file)  # which makes room for this
            try:
                file.path.write_bytes(made)
            except OSError:
                self._delete(file)
        if before is not None:
            self._delete(before)
            self.files.remove(before)
        file.first_us, file.size, file.stub = first_us, len(made), True
        self.dropped += 1
        log.warning("%s", why)
        if not file.path.exists():
            log.error("%s could not be noted for the service", file.path)
            self.files.remove(file)

    def _delete(self, file: File) -> None:
        with contextlib.suppress(OSError):
            file.path.unlink()

    def _found(self) -> list[File]:
        files = []
        for path in sorted(self._folder.iterdir()):
            number, _, life = path.name.partition("-")
            if not number.isdecimal() or not life or path.suffix:
                if path.suffix == ".part":
                    path.unlink()
                continue
            data = path.read_bytes()
            end, first, last = 0, None, None
            for end, payload in frames(data):  # noqa: B007 - of the last one
                first, last = first or payload, payload
            if first is None or last is None:
                path.unlink()
                continue
            if end < len(data):  # a power cut tore it
                os.truncate(path, end)
            try:
                begins, ends = decoded(first), decoded(last)
            except Malformed as error:  # of another release
                log.error("what is in %s can't be sent any more: %s", path, error)
                path.unlink()
                continue
            stub = isinstance(ends.what, Dropped) and begins.seq == ends.seq
            files.append(File(int(number), life, path, end, ends.seq, begins.at_us, ends.at_us, stub))
        return files
