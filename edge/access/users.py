"""Users, sessions, tokens of programs and the audit log, in a small file next to the store's database.

The page never writes to that database. Passwords and PINs are stored with scrypt, tokens as hashes.

A manager or IT may set a PIN. Their session is then locked after LOCK_S without use, and again has the rights of its
role after the PIN. A PIN is of use only with the cookie of that session, PIN_TRIES times, and until the end of the day
in which the session began: then the password is needed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any

from config import StoreConfig
from edge.access.members import digest
from edge.access.page_file import check, had_users, mark, trouble
from edge.access.passwords import MAX_BYTES, matches, scrypt
from edge.store.errors import Trouble
from edge.store.private import make_folder

TOKEN_DAYS = 365
"""How long a program's token lasts unless the console says otherwise."""
TOKEN_PREFIX = "ttr_"
"""What tokens begin with, so that one that leaked into a script or log is recognised."""
MIN_PASSWORD = 10
IDLE_S = {"viewer": 30 * 86_400, "manager": 12 * 3600, "it": 12 * 3600}
"""Idle timeout of sessions. Wall screens are viewers, and nobody should have to log them in often."""
LOCK_S = 900
"""Time without use after which a session is locked, if its user has a PIN."""
PIN_DIGITS = (4, 8)
PIN_TRIES = 5
"""Number of wrong PINs in a row that end a session."""
SEEN_EVERY_S = 300
FREE_TRIES = 5
"""Number of wrong passwords for a name, or by a device, before the next attempt is delayed."""
ADDRESS_TRIES = 20
"""Number of wrong passwords from an address, for any names; many users may share an address."""
FORGET_S = 900
MAX_WAIT_S = 900
KEEP_AUDIT_S = 400 * 86_400
DEVICE_S = 180 * 86_400
"""How long a device on which a user has logged in is remembered."""
LOOK_S = 3600
"""Views of the same list by the same user within this time are one audit line."""
RECENT_LINES = 500
"""Number of latest audit lines searched for the same line."""
AUDIT_ROWS = 1000
"""Number of audit lines read at a time."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS user (name TEXT PRIMARY KEY, role TEXT NOT NULL, password TEXT NOT NULL,
    changed_s REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS session (token BLOB PRIMARY KEY, name TEXT NOT NULL, csrf TEXT NOT NULL,
    seen_s REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS device (token BLOB, name TEXT, seen_s REAL NOT NULL,
    PRIMARY KEY (token, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failure (who TEXT PRIMARY KEY, tries INTEGER NOT NULL, at_s REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audit (id INTEGER PRIMARY KEY, at_s REAL NOT NULL, name TEXT NOT NULL, role TEXT NOT NULL,
    address TEXT NOT NULL, action TEXT NOT NULL, object TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS secret (id INTEGER PRIMARY KEY CHECK (id = 1), key BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS program (token BLOB PRIMARY KEY, name TEXT NOT NULL UNIQUE, made_s REAL NOT NULL,
    ends_s REAL NOT NULL, used_s REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shift (token BLOB PRIMARY KEY, ends_s REAL NOT NULL, wrong INTEGER NOT NULL DEFAULT 0)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pin (name TEXT PRIMARY KEY, hash TEXT NOT NULL, set_s REAL NOT NULL) WITHOUT ROWID;
"""


SESSIONS = ("session", "shift", "device", "failure")
"""Tables that are of no use on another gateway."""


class Role(StrEnum):
    """Permissions. Managers see individual members, IT sees readers and users; no role has both."""

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
    """A logged-in user. `csrf` must be sent with every form.

    `pin`: whether the user has a PIN; `locked`: whether it is needed for more than what a viewer sees.
    """

    name: str
    role: Role
    csrf: str
    pin: bool = False
    locked: bool = False


@dataclass(frozen=True)
class Program:
    """A program that reads figures with a token: as a viewer, without individual members. Times in s since 1970."""

    name: str
    made_s: float
    ends_s: float
    used_s: float | None
    """Last use, to within SEEN_EVERY_S; None: never."""


@dataclass(frozen=True)
class Entry:
    """A line of the audit log; ids are increasing."""

    id: int
    at_s: float
    name: str
    role: str
    address: str
    action: str
    object: str


class Throttled(Exception):
    """Raised after too many wrong passwords; the next attempt is accepted after `wait_s`."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"wait {wait_s:.0f} s")
        self.wait_s = wait_s


def users_path(config: StoreConfig) -> Path:
    """Return the path of the page's own file: `store.db` → `store.web.db`."""
    return config.database.path.with_name(f"{config.database.path.stem}.web.db").absolute()


class Users:
    """Users, sessions and the audit log. The file is created with the first user.

    Thread-safe. Raises Trouble if the file can't be used; then nobody can log in.
    """

    def __init__(self, path: Path, now_s: Callable[[], float] = time.time) -> None:
        self._path = path
        self._mark = mark(path)
        self._now_s = now_s
        self._lock = threading.Lock()
        self._conn: sqlite3.Connection | None = None
        self._key: bytes | None = None

    def anyone(self) -> bool:
        """True if there is a user."""
        return self._path.exists() and bool(self._ask("SELECT 1 FROM user LIMIT 1"))

    def ever(self) -> bool:
        """True if there has ever been a user; from then on the page requires a login, even if the file is lost."""
        if self._path.exists() and not self._mark.exists():
            with contextlib.suppress(OSError):  # as long as the file exists, it says the same
                self._mark.touch(0o600)
        return had_users(self._path)

    def users(self) -> tuple[User, ...]:
        if not self._path.exists():
            return ()
        rows = self._ask("SELECT name, role, changed_s FROM user ORDER BY name")
        return tuple(User(name, Role(role), at) for name, role, at in rows)

    def put(self, name: str, role: Role, password: str) -> None:
        """Create a user, or set a new password and role; ends the user's sessions and PIN. Trouble for a weak one."""
        _check_name(name)
        if len(password) < MIN_PASSWORD:
            raise Trouble(f"a password needs at least {MIN_PASSWORD} characters")
        if len(password.encode()) > MAX_BYTES:
            raise Trouble(f"a password has at most {MAX_BYTES} bytes")
        if name.casefold() in password.casefold() or len(set(password)) < 4:
            raise Trouble("a password must not contain the user name or consist of one repeated character")
        make_folder(self._path.parent)
        for file in (self._path, self._mark):
            if not file.exists():
                file.touch(0o600)
                if os.geteuid() == 0:
                    # Created by root for a service that runs as another user.
                    owner = file.parent.stat()
                    os.chown(file, owner.st_uid, owner.st_gid)
        kept = (name, role.value, scrypt(password), self._now_s())
        self._do("INSERT OR REPLACE INTO user VALUES (?, ?, ?, ?)", kept)
        for table in ("session", "device", "pin"):
            self._do(f"DELETE FROM {table} WHERE name = ?", (name,))
        self._do("DELETE FROM failure WHERE who = ?", (f"name {name}",))

    def remove(self, name: str) -> bool:
        """Remove a user and the user's sessions; False if there is no such user. Trouble for the last user."""
        if [user.name for user in self.users()] == [name]:
            raise Trouble(f"{name} is the last user; create another user first, or nobody could log in")
        for table in ("session", "device", "pin"):
            self._do(f"DELETE FROM {table} WHERE name = ?", (name,))
        return self._path.exists() and self._do("DELETE FROM user WHERE name = ?", (name,)) > 0

    def log_in(
        self, name: str, password: str, address: str, device: str = "", day_s: float | None = None
    ) -> str | None:
        """Log in and return the session's token; None for a wrong name or password; Throttled after too many of them.

        `day_s`: time left of the day, after which a user with a PIN has to log in again. `device`: token from `trust`,
        if this user has logged in on the device before. Wrong passwords count for the name, from any address, and for
        the address. On a known device they count for the device only, so that strangers can't lock a user out, even
        from the same address.
        """
        known = self._knows(device, name)
        who = (f"device {_hash(device).hex()} {name}",) if known else (f"name {name[:40]}", f"address {address}")
        self._check_tries(who)
        row = self._ask("SELECT password, role FROM user WHERE name = ?", (name,))
        if not matches(password, row[0][0] if row else None):
            self._count_failure(who)
            return None
        # The address is not reset, or logging in would allow more guesses at other users' passwords.
        self._do("DELETE FROM failure WHERE who = ?", who[:1])
        token = secrets.token_urlsafe(32)
        self._do(
            "INSERT INTO session VALUES (?, ?, ?, ?)", (_hash(token), name, secrets.token_urlsafe(24), self._now_s())
        )
        if day_s is not None:
            self._do("INSERT INTO shift (token, ends_s) VALUES (?, ?)", (_hash(token), self._now_s() + day_s))
        return token

    def trust(self, name: str, device: str) -> None:
        """Remember a device on which a user has logged in."""
        self._do("INSERT OR REPLACE INTO device VALUES (?, ?, ?)", (_hash(device), name, self._now_s()))

    def session(self, token: str, *, watching: bool = False) -> Session | None:
        """Return the session of a token with the user's current role; None if it is unknown or has been idle too long.

        `watching`: the request comes from an open page without user activity. This counts as use only for viewers, such
        as wall screens, not for a manager who may have left.
        """
        if not token or not self._path.exists():
            return None
        rows = self._ask(
            "SELECT session.name, role, csrf, seen_s, ends_s, hash FROM session JOIN user USING (name)"
            " LEFT JOIN shift USING (token) LEFT JOIN pin ON pin.name = session.name WHERE token = ?",
            (_hash(token),),
        )
        if not rows:
            return None
        name, role, csrf, seen_s, ends_s, hashed = rows[0]
        now_s = self._now_s()
        pin = hashed is not None and role != Role.VIEWER
        if now_s - seen_s > IDLE_S[role] or (pin and ends_s is not None and now_s >= ends_s):
            return None
        # What a locked page asks for by itself doesn't unlock it.
        locked = pin and now_s - seen_s > LOCK_S
        if now_s - seen_s > SEEN_EVERY_S and not locked and (not watching or role == Role.VIEWER):
            self._do("UPDATE session SET seen_s = ? WHERE token = ?", (now_s, _hash(token)))
        return Session(name, Role(role), csrf, pin, locked)

    def log_out(self, token: str) -> None:
        for table in ("session", "shift"):
            self._do(f"DELETE FROM {table} WHERE token = ?", (_hash(token),))

    def set_pin(self, token: str, password: str, pin: str | None) -> bool:
        """Set the PIN of a session's user, or remove it; False for a wrong password. Trouble for a weak PIN, Throttled
        after too many wrong passwords.
        """
        session = self.session(token)
        if session is None or session.locked or session.role is Role.VIEWER:
            return False
        if pin is not None:
            _check_pin(pin)
        rows = self._ask("SELECT password FROM user WHERE name = ?", (session.name,))
        who = (f"name {session.name}",)
        self._check_tries(who)
        if not matches(password, rows[0][0] if rows else None):
            self._count_failure(who)
            return False
        if pin is None:
            self._do("DELETE FROM pin WHERE name = ?", (session.name,))
        else:
            self._do("INSERT OR REPLACE INTO pin VALUES (?, ?, ?)", (session.name, scrypt(pin), self._now_s()))
        return True

    def unlock(self, token: str, pin: str) -> bool:
        """Unlock a session that exists; False for a wrong PIN, PIN_TRIES of which in a row end the session."""
        session = self.session(token)
        if session is None or not session.locked:
            return session is not None
        # Counted first, so that tries at the same time are counted, too. Only the right PIN forgets them.
        self._do("INSERT OR IGNORE INTO shift (token, ends_s) VALUES (?, ?)", (_hash(token), self._now_s() + LOCK_S))
        self._do("UPDATE shift SET wrong = wrong + 1 WHERE token = ?", (_hash(token),))
        tries = self._ask("SELECT wrong FROM shift WHERE token = ?", (_hash(token),))
        rows = self._ask("SELECT hash FROM pin WHERE name = ?", (session.name,))
        if tries and tries[0][0] <= PIN_TRIES and matches(pin, rows[0][0] if rows else None):
            self._do("UPDATE shift SET wrong = 0 WHERE token = ?", (_hash(token),))
            self._do("UPDATE session SET seen_s = ? WHERE token = ?", (self._now_s(), _hash(token)))
            return True
        if not tries or tries[0][0] >= PIN_TRIES:
            self.log_out(token)
        return False

    def make_token(self, name: str, days: int = TOKEN_DAYS) -> str:
        """Create a token for a program and return it; only its hash is kept. Trouble if the name is taken."""
        _check_name(name)
        if not self.anyone():
            raise Trouble("there are no users yet, so the page needs no token; create a user first: tagtrail users set")
        token, now_s = TOKEN_PREFIX + secrets.token_urlsafe(32), self._now_s()
        kept = (_hash(token), name, now_s, now_s + days * 86_400)
        if not self._do("INSERT OR IGNORE INTO program VALUES (?, ?, ?, ?, NULL)", kept):
            raise Trouble(f"there is a token {name} already; revoke it first, or choose another name")
        return token

    def revoke_token(self, name: str) -> bool:
        """Make a program's token void at once; False if there is none of this name."""
        return self._path.exists() and self._do("DELETE FROM program WHERE name = ?", (name,)) > 0

    def programs(self) -> tuple[Program, ...]:
        """Return all programs with tokens, also with those that have expired."""
        if not self._path.exists():
            return ()
        return tuple(
            Program(*row) for row in self._ask("SELECT name, made_s, ends_s, used_s FROM program ORDER BY name")
        )

    def program(self, token: str) -> Program | None:
        """Return the program of a token; None if it is unknown, revoked or expired."""
        if not token.startswith(TOKEN_PREFIX) or not self._path.exists():
            return None
        rows = self._ask("SELECT name, made_s, ends_s, used_s FROM program WHERE token = ?", (_hash(token),))
        found, now_s = Program(*rows[0]) if rows else None, self._now_s()
        if found is None or now_s > found.ends_s:
            return None
        if found.used_s is None or now_s - found.used_s > SEEN_EVERY_S:
            self._do("UPDATE program SET used_s = ? WHERE token = ?", (now_s, _hash(token)))
        return found

    def record(self, name: str, role: str, address: str, action: str, object_: str = "") -> None:
        """Write a line to the audit log."""
        line = (self._now_s(), name[:40], role, address, action, object_[:200])
        self._do("INSERT INTO audit (at_s, name, role, address, action, object) VALUES (?, ?, ?, ?, ?, ?)", line)

    def record_look(self, name: str, role: str, address: str, action: str, object_: str = "") -> None:
        """Write a line for viewing a list, unless the same user has viewed it within LOOK_S."""
        self._record_once((self._now_s(), name[:40], role, address, action, object_[:200]), LOOK_S, ("name", "object"))

    def record_refused(self, address: str) -> None:
        """Write a line for invalid tokens, rate-limited per address."""
        self._record_once((self._now_s(), "", "", address, "token refused", ""), FORGET_S, ("address",))

    def record_throttled(self, name: str, address: str) -> None:
        """Write a line for delayed attempts, rate-limited per address, so that strangers can't fill the disk."""
        self._record_once((self._now_s(), name[:40], "", address, "login throttled", ""), FORGET_S, ("address",))

    def audit(self, limit: int = 200, before: int | None = None) -> tuple[Entry, ...]:
        """Return lines of the audit log, latest first; with ids below `before`, if given."""
        if not self._path.exists():
            return ()
        rows = self._ask(
            "SELECT id, at_s, name, role, address, action, object FROM audit WHERE id < ? ORDER BY id DESC LIMIT ?",
            (2**63 - 1 if before is None else before, limit),
        )
        return tuple(Entry(*row) for row in rows)

    def whole_audit(self, before: int | None = None) -> Iterator[Entry]:
        """Yield all lines below an id, latest first, read in chunks."""
        while some := self.audit(AUDIT_ROWS, before):
            yield from some
            before = some[-1].id

    def prune(self) -> None:
        """Delete sessions, devices and wrong passwords that are too old."""
        if not self._path.exists():
            return
        now_s = self._now_s()
        for role, idle_s in IDLE_S.items():
            query = "DELETE FROM session WHERE seen_s < ? AND name IN (SELECT name FROM user WHERE role = ?)"
            self._do(query, (now_s - idle_s, role))
        self._do("DELETE FROM shift WHERE token NOT IN (SELECT token FROM session)", ())
        self._do("DELETE FROM device WHERE seen_s < ?", (now_s - DEVICE_S,))
        self._do("DELETE FROM failure WHERE at_s < ?", (now_s - FORGET_S,))

    def prune_audit(self, now_s: float) -> None:
        """Delete lines of the audit log that are too old at a time: not the clock's, which may be wrong for a while."""
        if self._path.exists():
            self._do("DELETE FROM audit WHERE at_s < ?", (now_s - KEEP_AUDIT_S,))

    def digest(self, member: str) -> str:
        """Return the digest that identifies a member in the audit log."""
        if self._key is None:
            self._do("INSERT OR IGNORE INTO secret VALUES (1, ?)", (secrets.token_bytes(32),))
            self._key = self._ask("SELECT key FROM secret")[0][0]
        return digest(self._key, member)

    def close(self) -> None:
        with self._lock:
            self._shut()

    def _shut(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def _record_once(self, line: tuple[object, ...], within_s: float, alike: tuple[str, ...]) -> None:
        columns = ("at_s", "name", "role", "address", "action", "object")
        same = dict(zip(columns, line, strict=True))
        self._do(
            f"INSERT INTO audit ({', '.join(columns)}) SELECT ?, ?, ?, ?, ?, ? WHERE NOT EXISTS"
            " (SELECT 1 FROM audit WHERE id > (SELECT MAX(id) FROM audit) - ? AND at_s > ? AND action = ?"
            f"{''.join(f' AND {name} = ?' for name in alike)})",
            (*line, RECENT_LINES, self._now_s() - within_s, same["action"], *(same[name] for name in alike)),
        )

    def _check_tries(self, who: tuple[str, ...]) -> None:
        for each in who:
            rows = self._ask("SELECT tries, at_s FROM failure WHERE who = ?", (each,))
            if rows and (wait_s := rows[0][1] + _pause_s(each, rows[0][0]) - self._now_s()) > 0:
                raise Throttled(wait_s)

    def _knows(self, device: str, name: str) -> bool:
        query = "SELECT 1 FROM device WHERE token = ? AND name = ? AND seen_s > ?"
        return bool(device) and bool(self._ask(query, (_hash(device), name, self._now_s() - DEVICE_S)))

    def _count_failure(self, who: tuple[str, ...]) -> None:
        now_s = self._now_s()
        self._do("DELETE FROM failure WHERE at_s < ?", (now_s - FORGET_S,))  # limits the number of invented names
        for each in who:
            self._do(
                "INSERT INTO failure VALUES (?, 1, ?) ON CONFLICT (who) DO UPDATE SET"
                " tries = tries + 1, at_s = excluded.at_s",
                (each, now_s),
            )

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
                conn.execute("PRAGMA secure_delete=ON")
                conn.executescript(_SCHEMA)
            except BaseException:
                conn.close()
                raise
            self._conn = conn
        return self._conn


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[\w.@-]{1,40}", name):
        raise Trouble(f"invalid name {name!r}; allowed: at most 40 letters, digits and . _ - @")


def _check_pin(pin: str) -> None:
    low, high = PIN_DIGITS
    if not re.fullmatch(rf"[0-9]{{{low},{high}}}", pin):
        raise Trouble(f"a PIN has {low} to {high} digits")
    steps = {(int(b) - int(a)) % 10 for a, b in pairwise(pin)}
    if steps in ({0}, {1}, {9}):
        raise Trouble("a PIN must not be one repeated digit, or digits in a row such as 1234")


def _pause_s(who: str, tries: int) -> float:
    """Return the delay: 1, 2, 4 … seconds after the free attempts."""
    beyond = tries - (ADDRESS_TRIES if who.startswith("address ") else FREE_TRIES)
    return 0.0 if beyond < 0 else float(min(MAX_WAIT_S, 2 ** min(beyond, 20)))


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
