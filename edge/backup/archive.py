"""Backups: one file with everything that a store needs on another machine, but for secrets.

    manifest.json   store, version, time, and of each other file its length and SHA-256
    store.toml      the store file
    database        a copy as of one moment (edge.database.copies)
    web             the page's users, verdicts and audit log, without sessions
    radio.json      the radio as it was learnt

Neither the tag key nor passwords are in it: who finds a backup can't tell whose card a hash is, and the CRM sends the
member directory again.
"""

from __future__ import annotations

import datetime as dt
import gzip
import hashlib
import io
import json
import os
import re
import shlex
import sqlite3
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, BinaryIO

from config import StoreConfig
from edge.access.users import SESSIONS, users_path
from edge.database.copies import copy
from edge.database.reader import connect
from edge.store.calibration_file import kept_at
from edge.store.errors import Trouble
from edge.store.files import backup_mark
from edge.store.private import create_private, make_private

FORMAT = 1
MANIFEST, STORE_FILE, DATABASE, WEB, RADIO = "manifest.json", "store.toml", "database", "web", "radio.json"
LEVEL = 1
SEALED = ".sealed"
MAX_MANIFEST_BYTES = 1 << 20


@dataclass(frozen=True)
class Manifest:
    """What a backup is of. `files`: length and SHA-256 in hex by name."""

    format: int
    store: str
    version: str
    made: str
    files: dict[str, tuple[int, str]]


def write(config: StoreConfig, config_file: Path, version: str, out: BinaryIO) -> Manifest:
    """Write a backup of a store, whether its service runs or not. Raises Trouble."""
    web, radio = users_path(config), kept_at(config.database.path)
    made_here = [_backing_up(config.database.path), _backing_up(web)]
    parts = {STORE_FILE: config_file, DATABASE: made_here[0]}
    made = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    try:
        with closing(connect(config.database.path)) as conn:
            copy(conn, parts[DATABASE])
        if web.exists():
            parts[WEB] = made_here[1]
            with closing(sqlite3.connect(f"{web.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)) as conn:
                copy(conn, parts[WEB], left_out=SESSIONS)
        if radio.exists():
            parts[RADIO] = radio
        files = {name: (part.stat().st_size, _digest(part)) for name, part in parts.items()}
        manifest = Manifest(FORMAT, config.store.id, version, made, files)
        with gzip.GzipFile("", "wb", LEVEL, out, 0) as packed, tarfile.open(fileobj=packed, mode="w|") as archive:
            _add(archive, MANIFEST, json.dumps(asdict(manifest), indent=1).encode())
            for name, part in parts.items():
                archive.add(part, name, filter=_plain)
        out.flush()
    except OSError as error:
        raise Trouble(f"cannot write the backup: {error.strerror}") from error
    finally:
        for part in made_here:
            with suppress(OSError):
                part.unlink(missing_ok=True)
    return manifest


def keep(
    config: StoreConfig, config_file: Path, version: str, folder: Path, *, number: int, through: str | None = None
) -> Path:
    """Write a backup to a folder, verify it by reading it again, and delete all but the last `number`; return its path.

    `through`: a command that encrypts standard input to standard output; what it made can't be read here, so the backup
    is verified before. Raises Trouble.
    """
    stem = f"tagtrail-{config.store.id}-"
    name = f"{stem}{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}.tar.gz"
    target = folder / (name + SEALED if through else name)
    part = folder / f"{target.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=config.database.path.parent) as plain:
            write(config, config_file, version, plain)
            plain.seek(0)
            read(plain, {})
            plain.seek(0)
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
                if through is None:
                    while block := plain.read(1 << 20):
                        out.write(block)
                else:
                    _through(through, plain, out)
                out.flush()
                os.fsync(out.fileno())
        if through is None:
            with part.open("rb") as file:
                read(file, {})
        os.replace(part, target)
    except OSError as error:
        raise Trouble(f"cannot write the backup {target}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    pattern = re.compile(re.escape(stem) + r"\d{8}T\d{6}Z[.]tar[.]gz(" + re.escape(SEALED) + ")?")
    for old in sorted(file for file in folder.iterdir() if pattern.fullmatch(file.name))[:-number]:
        with suppress(OSError):
            old.unlink()
    note(config)
    return target


def note(config: StoreConfig) -> None:
    """Write down beside the database that a backup was made, for tagtrail doctor."""
    with suppress(OSError):
        create_private(backup_mark(config.database.path), f"{time.time():.0f}\n".encode())


def read(file: BinaryIO, into: Mapping[str, Path]) -> Manifest:
    """Read a backup to its end and check every byte of it; files named in `into` are written there. Raises Trouble."""
    manifest, seen = None, set()
    try:
        with tarfile.open(fileobj=file, mode="r|gz") as archive:
            for member in archive:
                content = archive.extractfile(member)
                if content is None:
                    raise Trouble(f"this is not a backup: {member.name} is not a file")
                if manifest is None:
                    manifest = _manifest(member, content.read(MAX_MANIFEST_BYTES))
                    continue
                if manifest.files.get(member.name) != _received(content, into.get(member.name)):
                    raise Trouble(f"the backup is damaged: {member.name} is not what was written")
                seen.add(member.name)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise Trouble(f"the backup can't be read: {error}") from error
    if manifest is None or seen != set(manifest.files):
        raise Trouble("the backup is incomplete")
    return manifest


def _manifest(member: tarfile.TarInfo, text: bytes) -> Manifest:
    try:
        told = json.loads(text)
        if member.name != MANIFEST or told["format"] != FORMAT:
            raise Trouble("this is not a backup that this release can read")
        files = {name: (int(size), str(digest)) for name, (size, digest) in told["files"].items()}
        if not set(files) <= {STORE_FILE, DATABASE, WEB, RADIO}:
            raise Trouble("this is not a backup that this release can read")
        return Manifest(FORMAT, str(told["store"]), str(told["version"]), str(told["made"]), files)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Trouble("this is not a backup of Tagtrail") from error


def _received(content: IO[bytes], target: Path | None) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    if target is not None:
        make_private(target)
    with open(os.devnull if target is None else target, "wb") as out:
        while block := content.read(1 << 20):
            digest.update(block)
            size += len(block)
            out.write(block)
    return size, digest.hexdigest()


def _through(command: str, plain: BinaryIO, out: BinaryIO) -> None:
    try:
        done = subprocess.run(shlex.split(command), stdin=plain, stdout=out, stderr=subprocess.PIPE, check=False)
    except (OSError, ValueError) as error:
        raise Trouble(f"cannot run {command!r}: {error}") from error
    if done.returncode or not out.tell():
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise Trouble(f"{command!r} failed with exit code {done.returncode}: {said[-1] if said else 'no output'}")


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    about = tarfile.TarInfo(name)
    about.size, about.mode = len(content), 0o600
    archive.addfile(about, io.BytesIO(content))


def _plain(about: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without owner: it may be another one's elsewhere."""
    about.uid = about.gid = about.mtime = 0
    about.uname = about.gname = ""
    about.mode = 0o600
    return about


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _backing_up(file: Path) -> Path:
    """Beside the file: /tmp may be in memory, or other users' too."""
    return file.with_name(f"{file.name}.backing-up")
