"""Files beside the database that whoever takes over needs: what the radio is like, users, erasures, the tag key."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from config import StoreConfig
from edge.access.users import SESSIONS, users_path
from edge.database import keys
from edge.database.copies import copy
from edge.store.files import replaced
from edge.store.private import create_private

log = logging.getLogger("tagtrail.standby")

ERASED = ".erased"
PLAIN = (".radio.json", ERASED, ".tag-key")
PUSHED = ".desired"
"""Beginning of the names of the files of a configuration pushed by the CRM."""
WEB = "web"
"""In place of a name: users, verdicts and audit log of the page, without sessions."""
WEB_S = 10.0
"""It is copied so often at most: every view of a member is in it."""


class Beside:
    """Files of a store, by what comes after the database's name."""

    def __init__(self, config: StoreConfig) -> None:
        self._database, self._web = config.database.path, users_path(config)
        self._sent: dict[str, tuple[int, int]] = {}
        self._web_s = float("-inf")

    def changed(self, all_: bool) -> list[tuple[str, bytes | None]]:
        """Return the files that have changed since the last call, or all; None: it is gone."""
        if all_:
            self._sent.clear()
        there: dict[str, Path] = {name: self._path(name) for name in PLAIN}
        stem = f"{self._database.name}{PUSHED}"
        for file in self._database.parent.glob(f"{stem}*"):
            if file.suffix in (".json", ".toml"):
                there[file.name.removeprefix(self._database.name)] = file
        if keys.is_credential():
            del there[".tag-key"]  # it is installed on both gateways
        now_s = time.monotonic()
        if all_ or now_s >= self._web_s + WEB_S:
            self._web_s = now_s
            there[WEB] = self._web
        changed: list[tuple[str, bytes | None]] = []
        for name, file in there.items():
            stamp = _stamp(file)
            if name == WEB and stamp is not None:
                log = _stamp(file.with_name(f"{file.name}-wal"))
                stamp = (stamp[0] + (log[0] if log else 0), stamp[1] + (log[1] if log else 0))
            if stamp == self._sent.get(name) and not (all_ and stamp is None):
                continue
            with contextlib.suppress(OSError, sqlite3.Error):
                changed.append((name, None if stamp is None else self._read(name, file)))
                if stamp is not None:
                    self._sent[name] = stamp
                else:
                    self._sent.pop(name, None)
        for name in [name for name in self._sent if name not in there and name != WEB]:
            del self._sent[name]
            changed.append((name, None))
        return changed

    def put(self, name: str, data: bytes | None) -> None:
        """Write a file that came from the service, or delete it; ValueError for a name that it can't be."""
        if name == WEB:
            file = self._web
            if data is not None:
                for side in ("-wal", "-shm"):
                    file.with_name(file.name + side).unlink(missing_ok=True)
        elif name in PLAIN or (name.startswith(PUSHED) and "/" not in name and Path(name).suffix in (".json", ".toml")):
            file = self._path(name)
        else:
            raise ValueError(f"a file {name[:40]!r} is not expected")
        if data is None:
            file.unlink(missing_ok=True)
            return
        if name == ERASED and (not file.exists() or file.read_bytes() != data):
            self._forget_former()
        create_private(file, data)

    def _forget_former(self) -> None:
        """Delete what is kept of an earlier service of this gateway: it may have who has been erased since."""
        for former in (replaced(self._database), replaced(self._web)):
            if former.exists():
                log.warning("%s is deleted, because somebody has been erased", former)
            for side in ("", "-wal", "-shm"):
                former.with_name(former.name + side).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._database.with_name(f"{self._database.name}{name}")

    def _read(self, name: str, file: Path) -> bytes:
        if name != WEB:
            return file.read_bytes()
        made = file.with_name(f"{file.name}.backing-up.sending")
        try:
            uri = f"{file.absolute().as_uri()}?mode=ro"
            with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as conn:
                copy(conn, made, left_out=SESSIONS)
            return made.read_bytes()
        finally:
            made.unlink(missing_ok=True)


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size
