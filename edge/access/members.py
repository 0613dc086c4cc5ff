"""Data about a member in the page's own file: audit lines, and verdicts on the member's cards."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

from edge.access.page_file import check, trouble

DIGEST_BYTES = 4
SHORT = 8
"""Number of hex digits of a suspect tag in the audit log."""
ERASED = "(erased)"


def digest(key: bytes, member: str) -> str:
    """Return eight hex digits that identify a member in the audit log, which must not contain full member numbers."""
    return blake2b(member.encode(), key=key, digest_size=DIGEST_BYTES).hexdigest()


def known(path: Path, member: str, tags: Collection[bytes]) -> dict[str, list[dict[str, Any]]]:
    """Return the audit lines about a member, and the verdicts on the tags of the member's cards."""
    found: dict[str, list[dict[str, Any]]] = {"audit": [], "verdicts": []}
    if not path.exists():
        return found
    with _open(path, "ro") as conn:
        who = _who(conn, {member: tags})
        lines = conn.execute("SELECT at_s, name, role, action, object FROM audit ORDER BY id")
        found["audit"] = [
            {"at_s": at_s, "user": name, "role": role, "action": action, "object": object_}
            for at_s, name, role, action, object_ in lines
            if who(object_)
        ]
        if _has(conn, "verdict"):
            rows = conn.execute("SELECT date, tag, staff FROM verdict ORDER BY date")
            found["verdicts"] = [
                {"date": date, "tag": tag.hex(), "staff": bool(staff)} for date, tag, staff in rows if tag in tags
            ]
    return found


def oldest_line(path: Path) -> float | None:
    """Return the time of the oldest audit line, in seconds since 1970; None if there is none."""
    if not path.exists():
        return None
    with _open(path, "ro") as conn:
        found: float | None = conn.execute("SELECT min(at_s) FROM audit").fetchone()[0]
        return found


def forget(path: Path, members: Mapping[str, Collection[bytes]]) -> dict[str, dict[str, int]]:
    """Erase members (member → their tags); audit lines remain without the member. Return the number of changes.

    The file is small and is rewritten each time, so that nothing remains in free pages. Raises Trouble, also if it is
    busy.
    """
    if not path.exists():
        return {}
    counts = {member: {"audit": 0, "verdicts": 0} for member in members}
    with _open(path, "rw") as conn:
        conn.execute("BEGIN IMMEDIATE")
        who = _who(conn, members)
        for id_, object_ in conn.execute("SELECT id, object FROM audit").fetchall():
            if member := who(object_):
                conn.execute("UPDATE audit SET object = ? WHERE id = ?", (ERASED, id_))
                counts[member]["audit"] += 1
        if _has(conn, "verdict"):
            for member, tag in ((member, tag) for member, tags in members.items() for tag in tags):
                counts[member]["verdicts"] += conn.execute("DELETE FROM verdict WHERE tag = ?", (tag,)).rowcount
        conn.execute("COMMIT")
        conn.execute("VACUUM")
    return counts


def _who(conn: sqlite3.Connection, members: Mapping[str, Collection[bytes]]) -> Callable[[str], str | None]:
    """Return a function that finds the member to whom the object of an audit line refers."""
    row = conn.execute("SELECT key FROM secret").fetchone() if _has(conn, "secret") else None
    signs = {f"#{digest(row[0], member)}": member for member in members} if row else {}
    cards = {tag.hex()[:SHORT]: member for member, tags in members.items() for tag in tags}
    return lambda object_: cards.get(object_) or next((signs[word] for word in object_.split() if word in signs), None)


def _has(conn: sqlite3.Connection, table: str) -> bool:
    return conn.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone() is not None


@contextmanager
def _open(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    try:
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=5, isolation_level=None)
        ) as conn:
            check(path, conn)
            conn.execute("PRAGMA secure_delete=ON")
            yield conn
    except sqlite3.Error as error:
        raise trouble(path, error) from error
