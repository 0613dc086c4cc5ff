"""A store from a backup.

Numbers of events continue in the same epoch, beyond all that may have been given since the backup by a gateway that may
be dead; the skipped ones are reported to the CRM as lost. Events that were pending at the time of the backup are sent
again under their numbers; the CRM drops those that it has.
"""

from __future__ import annotations

import glob
import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from config import StoreConfig
from edge.access.users import users_path
from edge.backup.archive import DATABASE, RADIO, WEB, Manifest, read
from edge.database import schema, terms
from edge.database.lock import hold
from edge.database.writer import SIDES, Database
from edge.store.calibration_file import kept_at
from edge.store.errors import Trouble
from edge.store.files import replaced
from edge.store.private import hand_over
from sync import outbox


def restore(config: StoreConfig, file: BinaryIO, *, replace: bool) -> Manifest:
    """Put a backup in place; the service must be stopped. `replace`: even if there is a database, which is kept beside
    it for some days. Nothing is changed unless the backup is complete and fits. Raises Trouble.
    """
    path, web, radio = config.database.path, users_path(config), kept_at(config.database.path)
    lock = hold(path)
    into = {name: _restoring(file) for name, file in ((DATABASE, path), (WEB, web), (RADIO, radio))}
    try:
        if path.exists() and not replace:
            raise Trouble(f"{path} exists: give --replace to put the backup in its place")
        manifest = read(file, into)
        if manifest.store != config.store.id:
            raise Trouble(f"the backup is of store {manifest.store!r}, the store file says {config.store.id!r}")
        _prepare(config, into[DATABASE])
        _put(into[DATABASE], path)
        for name, target in ((WEB, web), (RADIO, radio)):
            if name in manifest.files and (replace or not target.exists()):
                _put(into[name], target)
    except OSError as error:
        raise Trouble(f"cannot restore {path}: {error.strerror}") from error
    finally:
        for left in {left for part in into.values() for left in part.parent.glob(f"{glob.escape(part.name)}*")}:
            with suppress(OSError):
                left.unlink()
        lock.close()
    return manifest


def _prepare(config: StoreConfig, ready: Path) -> None:
    """Bring the database up to date before it is put in place, and leave out numbers."""
    schema.prove(ready, config.store.id)
    database = Database(ready, store=config.store.id, quota_mb=config.database.quota_mb, repair=False)
    try:
        database.write_now(outbox.begin_anew)
        database.write_now(terms.renew)
    finally:
        database.close()


def _restoring(file: Path) -> Path:
    return file.with_name(f"{file.name}.restoring")


def _put(source: Path, target: Path) -> None:
    """Put a file in place of another, which is kept under another name with what belongs to it."""
    for suffix in ("", *SIDES):
        old = target.with_name(target.name + suffix)
        kept = replaced(target)
        with suppress(FileNotFoundError):
            os.replace(old, kept.with_name(kept.name + suffix))
    with source.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(source, target)
    hand_over(target)
