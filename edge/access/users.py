"""Who may look, and who has looked: users, sessions and the audit log, in a small file of their own beside the store's
database, which the page never writes.

Passwords are kept as scrypt (RFC 7914; N=2¹⁴, r=8, p=5: 16 MiB and some 0.1 s a try), session tokens as their hash.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from config import StoreConfig
from edge.access.page_file import check, had_users, trouble
from edge.store.errors import Trouble

MIN_PASSWORD = 10
MAX_PASSWORD_BYTES = 1024
SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 14, 8, 5
IDLE_S = {"viewer": 30 * 86_400, "manager": 12 * 3600, "it": 12 * 3600}
"""How long a session lives unused. A wall screen is a viewer, and nobody should have to climb up to it."""
SEEN_EVERY_S = 300
FREE_TRIES = 5
"""Wrong passwords for a name, or from an address, before the next has to wait."""
FORGET_S = 900
MAX_WAIT_S = 900
KEEP_AUDIT_S = 400 * 86_400
AT_HOME_S = 30 * 86_400
"""How long an address is known as one where a user has logged in."""
RECENT_LINES = 500
"""Of the audit log, that are looked through for the same line."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS user (name TEXT PRIMARY KEY, role TEXT NOT NULL, password TEXT NOT NULL,
    changed_s REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS session (token BLOB PRIMARY KEY, name TEXT NOT NULL, csrf TEXT NOT NULL,
    seen_s REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failure (who TEXT PRIMARY KEY, tries INTEGER NOT NULL, at_s REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audit (id INTEGER PRIMARY KEY, at_s REAL NOT NULL, name TEXT NOT NULL, role TEXT NOT NULL,
    address TEXT NOT NULL, action TEXT NOT NULL, object TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS secret (id INTEGER PRIMARY KEY CHECK (id = 1), key BLOB NOT NULL);
"""


class Role(StrEnum):
    """What someone may do. Managers see individuals, IT the machinery; nobody is both by the way."""

    VIEWER = "viewer"
    MANAGER = "manager"
    IT = "it"


@dataclass(frozen=True)
class User:
    name: str
    role: Role
    changed_s: float


@dataclass(frozen=True)
class Session:
    """Someone who is logged in. `csrf` has to come back with every form."""

    name: str
    role: Role
    csrf: str


@dataclass(frozen=True)
class Entry:
    """One line of the audit log."""

    at_s: float
    name: str
    role: str
    address: str
    action: str
    object: str


class Throttled(Exception):
    """Too many wrong passwords: the next try counts after `wait_s`."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"wait {wait_s:.0f} s")
        self.wait_s = wait_s


def users_path(config: StoreConfig) -> Path:
    """`store.db` → `store.web.db`."""
    return config.database.path.with_name(f"{config.database.path.stem}.web.db").absolute()


class Users:
    """Users, sessions and audit. The file is made when the first user is; until then there is nobody.

    Safe to use from several threads. Raises Trouble where the file can't be used: then nobody gets in.
    """

    def __init__(self, path: Path, now_s: Callable[[], float] = time.time) -> None:
        self._path = path
        self._now_s = now_s
        self._lock = threading.Lock()
        self._conn: sqlite3.Connection | None = None
        self._key: bytes | None = None

    def anyone(self) -> bool:
        """Whether there is a user: if not, nobody can log in, and nobody has to."""
        return self._path.exists() and bool(self._ask("SELECT 1 FROM user LIMIT 1"))

    def ever(self) -> bool:
        """Whether there ever was a user: from then on nobody gets in without one, whatever becomes of the file."""
        return had_users(self._path)

    def users(self) -> tuple[User, ...]:
        if not self._path.exists():
            return ()
        rows = self._ask("SELECT name, role, changed_s FROM user ORDER BY name")
        return tuple(User(name, Role(role), at) for name, role, at in rows)

    def put(self, name: str, role: Role, password: str) -> None:
        """Make a user, or give one a new password and role; ends that user's sessions. Trouble for a poor password."""
        if not re.fullmatch(r"[\w.@-]{1,40}", name):
            raise Trouble(f"not a user's name: {name!r}; letters, digits and . _ - @, at most 40")
        if len(password) < MIN_PASSWORD:
            raise Trouble(f"a password needs at least {MIN_PASSWORD} characters")
        if len(password.encode()) > MAX_PASSWORD_BYTES:
            raise Trouble(f"a password has at most {MAX_PASSWORD_BYTES} bytes")
        if name.casefold() in password.casefold() or len(set(password)) < 4:
            raise Trouble("a password must not contain the user's name or be one character over and over")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if not self._path.exists():
            self._path.touch(0o600)
            if os.geteuid() == 0:
                # Made by root for a service that is somebody else.
                owner = self._path.parent.stat()
                os.chown(self._path, owner.st_uid, owner.st_gid)
        kept = (name, role.value, scrypt(password), self._now_s())
        self._do("INSERT OR REPLACE INTO user VALUES (?, ?, ?, ?)", kept)
        self._do("DELETE FROM session WHERE name = ?", (name,))
        self._do("DELETE FROM failure WHERE who = ?", (f"name {name}",))

    def remove(self, name: str) -> bool:
        """Take a user and that user's sessions away; False if there was none. Trouble for the last one of all."""
        if [user.name for user in self.users()] == [name]:
            raise Trouble(f"{name} is the last user; without any the page is open: make another first")
        self._do("DELETE FROM session WHERE name = ?", (name,))
        return self._path.exists() and self._do("DELETE FROM user WHERE name = ?", (name,)) > 0

    def log_in(self, name: str, password: str, address: str) -> str | None:
        """A new session's token, None for a wrong name or password; Throttled when there were too many of them."""
        who = (f"name {name[:40]}", f"address {address}")
        # Strangers can't lock a user out of the place where that user has been in before; they wait by their address.
        self._check_tries(who[1:] if self._at_home(name, address) else who)
        row = self._ask("SELECT password, role FROM user WHERE name = ?", (name,))
        # An unknown name takes as long as a wrong password.
        right = _matches(password, row[0][0] if row else _NOBODY)
        if not row or not right:
            self._count_failure(who)
            return None
        self._do(f"DELETE FROM failure WHERE who IN ({','.join('?' * len(who))})", who)
        self._prune()
        token = secrets.token_urlsafe(32)
        self._do(
            "INSERT INTO session VALUES (?, ?, ?, ?)", (_hash(token), name, secrets.token_urlsafe(24), self._now_s())
        )
        return token

    def session(self, token: str) -> Session | None:
        """Who a token belongs to, as the user's role is now; None if it is unknown or has been idle too long."""
        if not token or not self._path.exists():
            return None
        rows = self._ask(
            "SELECT name, role, csrf, seen_s FROM session JOIN user USING (name) WHERE token = ?", (_hash(token),)
        )
        if not rows:
            return None
        name, role, csrf, seen_s = rows[0]
        now_s = self._now_s()
        if now_s - seen_s > IDLE_S[role]:
            return None
        if now_s - seen_s > SEEN_EVERY_S:
            self._do("UPDATE session SET seen_s = ? WHERE token = ?", (now_s, _hash(token)))
        return Session(name, Role(role), csrf)

    def log_out(self, token: str) -> None:
        self._do("DELETE FROM session WHERE token = ?", (_hash(token),))

    def record(self, name: str, role: str, address: str, action: str, object_: str = "") -> None:
        """One line for the audit log."""
        line = (self._now_s(), name[:40], role, address, action, object_[:200])
        self._do("INSERT INTO audit (at_s, name, role, address, action, object) VALUES (?, ?, ?, ?, ?, ?)", line)

    def record_throttled(self, name: str, address: str) -> None:
        """A line for tries that had to wait, once a while of each address: strangers could fill the disk with them."""
        line = (self._now_s(), name[:40], "", address, "login throttled", "")
        self._do(
            "INSERT INTO audit (at_s, name, role, address, action, object) SELECT ?, ?, ?, ?, ?, ? WHERE NOT EXISTS"
            " (SELECT 1 FROM audit WHERE id > (SELECT MAX(id) FROM audit) - ? AND action = ?"
            " AND address = ? AND at_s > ?)",
            (*line, RECENT_LINES, line[4], address, line[0] - FORGET_S),
        )

    def audit(self, limit: int = 200) -> tuple[Entry, ...]:
        """The newest lines of the audit log, newest first."""
        if not self._path.exists():
            return ()
        rows = self._ask(
            "SELECT at_s, name, role, address, action, object FROM audit ORDER BY id DESC LIMIT ?", (limit,)
        )
        return tuple(Entry(*row) for row in rows)

    def digest(self, text: str) -> str:
        """Eight hex digits that stand for a member in the audit log, where no whole number may be."""
        if self._key is None:
            self._do("INSERT OR IGNORE INTO secret VALUES (1, ?)", (secrets.token_bytes(32),))
            self._key = self._ask("SELECT key FROM secret")[0][0]
        return hashlib.blake2b(text.encode(), key=self._key, digest_size=4).hexdigest()

    def close(self) -> None:
        with self._lock:
            self._shut()

    def _shut(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def _check_tries(self, who: tuple[str, ...]) -> None:
        for each in who:
            rows = self._ask("SELECT tries, at_s FROM failure WHERE who = ?", (each,))
            if rows and (wait_s := rows[0][1] + _pause_s(rows[0][0]) - self._now_s()) > 0:
                raise Throttled(wait_s)

    def _at_home(self, name: str, address: str) -> bool:
        query = "SELECT 1 FROM audit WHERE name = ? AND address = ? AND action = 'login' AND at_s > ? LIMIT 1"
        return bool(self._ask(query, (name[:40], address, self._now_s() - AT_HOME_S)))

    def _count_failure(self, who: tuple[str, ...]) -> None:
        now_s = self._now_s()
        for each in who:
            self._do(
                "INSERT INTO failure VALUES (?, 1, ?) ON CONFLICT (who) DO UPDATE SET"
                " tries = CASE WHEN at_s < ? THEN 1 ELSE tries + 1 END, at_s = excluded.at_s",
                (each, now_s, now_s - FORGET_S),
            )

    def _prune(self) -> None:
        now_s = self._now_s()
        self._do("DELETE FROM session WHERE seen_s < ?", (now_s - max(IDLE_S.values()),))
        self._do("DELETE FROM failure WHERE at_s < ?", (now_s - FORGET_S,))
        self._do("DELETE FROM audit WHERE at_s < ?", (now_s - KEEP_AUDIT_S,))

    def _ask(self, sql: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._open().execute(sql, values).fetchall()
            except sqlite3.Error as error:
                self._shut()
                raise trouble(self._path, error) from error

    def _do(self, sql: str, values: tuple[object, ...]) -> int:
        with self._lock:
            try:
                return self._open().execute(sql, values).rowcount
            except sqlite3.Error as error:
                self._shut()
                raise trouble(self._path, error) from error

    def _open(self) -> sqlite3.Connection:
        if self._conn is None:
            conn = sqlite3.connect(
                f"{self._path.as_uri()}?mode=rw", uri=True, isolation_level=None, check_same_thread=False, timeout=5
            )
            try:
                check(self._path, conn)
                conn.executescript(_SCHEMA)
            except BaseException:
                conn.close()
                raise
            self._conn = conn
        return self._conn


def scrypt(password: str) -> str:
    """A password as it is kept: `scrypt$N$r$p$salt$hash`."""
    salt = secrets.token_bytes(16)
    digest = _scrypt(password, salt, SCRYPT_N, SCRYPT_R, SCRYPT_P)
    return f"scrypt${SCRYPT_N}${SCRYPT_R}${SCRYPT_P}${salt.hex()}${digest.hex()}"


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=1 << 26, dklen=32)


def _matches(password: str, kept: str) -> bool:
    _, n, r, p, salt, digest = kept.split("$")
    if len(password.encode()) > MAX_PASSWORD_BYTES:
        return False
    made = _scrypt(password, bytes.fromhex(salt), int(n), int(r), int(p))
    return hmac.compare_digest(made, bytes.fromhex(digest))


def _pause_s(tries: int) -> float:
    """1, 2, 4 … seconds after the free tries."""
    return 0.0 if tries < FREE_TRIES else float(min(MAX_WAIT_S, 2 ** (tries - FREE_TRIES)))


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


_NOBODY = f"scrypt${SCRYPT_N}${SCRYPT_R}${SCRYPT_P}${'00' * 16}${'00' * 32}"
