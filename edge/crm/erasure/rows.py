"""Database rows that identify a member: found outside the writer, and erased in slices within it."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from sync import outbox
from sync.contract import CLASSES, EventClass

ERASED = "erased"
SLICE_ROWS = 1_000
"""Maximum number of rows per transaction, because greetings have to wait for it."""
DIRECTORIES = ("directory", "directory_next", "directory_old")
COUNTED = {
    **dict.fromkeys(DIRECTORIES, "directory"),
    "visit": "visits",
    "journey": "journeys",
    "recognised": "recognised",
    "cue": "cues",
    "outbox_member": "outbox",
    "outbox_journey": "outbox",
}
"""Table → name in the receipt."""
BEGAN = {"visit": "journey_us", "journey": "start_us", "cue": "made_us", "recognised": "at_us"}
"""Table → column with the start time."""
_AMONG = "IN (SELECT value FROM json_each(?))"


class Row(NamedTuple):
    """A row that identifies a member. `key`: primary key; `tag`: b"" if there is none; `at_us`: start time."""

    table: str
    member: str
    key: int | bytes
    tag: bytes
    at_us: int


class Replacements:
    """Random tags for visits and journeys that remain anonymously, one per journey."""

    def __init__(self) -> None:
        self._tags: dict[tuple[bytes, int], bytes] = defaultdict(lambda: secrets.token_bytes(16))

    def of(self, row: Row) -> bytes:
        """Return the new tag for the journey of a row."""
        return self._tags[row.tag, row.at_us]


def find(
    conn: sqlite3.Connection,
    members: Mapping[str, int | None],
    listed: Collection[str],
    cards: Mapping[str, str] = MappingProxyType({}),
) -> list[Row]:
    """Find all rows of `members` except in the directory, and the directory rows of `listed`.

    `members`: member → time limit; None: no limit, including outbox events. `cards`: tag in hex → member,
    for rows that contain only the tag.
    """
    rows = [row for row in _find(conn, list(members)) if (upto := members[row.member]) is None or row.at_us < upto]
    nameless = conn.execute(
        f"SELECT tag FROM recognised WHERE member = '' AND lower(hex(tag)) {_AMONG}", (json.dumps(list(cards)),)
    )
    rows += [Row("recognised", cards[tag.hex()], tag, tag, 0) for (tag,) in nameless]
    for table in _directories(conn):
        some = conn.execute(f"SELECT tag, member FROM {table} WHERE member {_AMONG}", (json.dumps(list(listed)),))
        rows += [Row(table, member, tag, tag, 0) for tag, member in some]
    return rows


def erase(conn: sqlite3.Connection, rows: Sequence[Row], replacements: Replacements) -> None:
    """Erase rows, in the caller's transaction; visits and journeys remain without the member and with a new tag."""
    directories = _directories(conn)  # one table may have replaced the other
    for row in rows:
        if row.table in ("visit", "journey"):
            # Only if it still belongs to the member, because an id may have been reused.
            conn.execute(
                f"UPDATE {row.table} SET member = NULL, tag = ? WHERE id = ? AND member = ?",
                (replacements.of(row), row.key, row.member),
            )
        elif row.table == "cue":
            # Outcomes of cues are deleted with the member; service cases identify nobody and remain.
            conn.execute("DELETE FROM cue WHERE id = ? AND member = ?", (row.key, row.member))
        elif row.table == "recognised":
            conn.execute("DELETE FROM recognised WHERE tag = ? AND member IN (?, '')", (row.key, row.member))
        else:
            for table in directories if row.table in DIRECTORIES else ():
                conn.execute(f"DELETE FROM {table} WHERE tag = ? AND member = ?", (row.key, row.member))
    for class_ in _NAMING:
        seqs = sorted(int(row.key) for row in rows if row.table == outbox.table(class_))
        outbox.take_back(conn, class_, seqs, ERASED)


def slices(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Split rows into slices for one transaction each."""
    for start in range(0, len(rows), SLICE_ROWS):
        yield rows[start : start + SLICE_ROWS]


_LATE_US = 2**63 - 1
_NAMING: tuple[EventClass, ...] = CLASSES[:2]
"""Classes of events that identify members."""


def _directories(conn: sqlite3.Connection) -> list[str]:
    there = {name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return [table for table in DIRECTORIES if table in there]


def _find(conn: sqlite3.Connection, members: Sequence[str]) -> Iterator[Row]:
    names = (json.dumps(members),)
    for table, began in BEGAN.items():
        key = "tag" if table == "recognised" else "id"
        query = f"SELECT member, {key}, tag, {began} FROM {table} WHERE member {_AMONG}"
        for member, id_, tag, at_us in conn.execute(query, names):
            yield Row(table, member, id_, tag, at_us)
    name = "json_extract(payload, '$.member')"
    for class_ in _NAMING:
        table = outbox.table(class_)
        query = f"SELECT {name}, seq, coalesce(json_extract(payload, '$.tag'), '') FROM {table} WHERE {name} {_AMONG}"
        for member, seq, tag in conn.execute(query, names):
            yield Row(table, member, seq, bytes.fromhex(tag), _LATE_US)
