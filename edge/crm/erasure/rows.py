"""Rows of the database that name a member: found beside the writer, and erased a slice at a time within it."""

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
"""Rows touched in one transaction: a greeting waits for it."""
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
"""Table → its name in a receipt."""
BEGAN = {"visit": "journey_us", "journey": "start_us", "cue": "made_us", "recognised": "at_us"}
"""Table → when what a row is about began."""
_AMONG = "IN (SELECT value FROM json_each(?))"


class Row(NamedTuple):
    """A row that names a member. `key`: its primary key; `tag`: b"" if there is none; `at_us`: when it began."""

    table: str
    member: str
    key: int | bytes
    tag: bytes
    at_us: int


class Replacements:
    """Visits and journeys stay as anonymous ones, each journey under a random tag of its own."""

    def __init__(self) -> None:
        self._tags: dict[tuple[bytes, int], bytes] = defaultdict(lambda: secrets.token_bytes(16))

    def of(self, row: Row) -> bytes:
        """The tag of a row's journey from now on."""
        return self._tags[row.tag, row.at_us]


def find(
    conn: sqlite3.Connection,
    members: Mapping[str, int | None],
    listed: Collection[str],
    cards: Mapping[str, str] = MappingProxyType({}),
) -> list[Row]:
    """All rows of some members but the directory's, and of `listed` those in the directory.

    `members`: member → before which moment; None: whenever, and only then events of the outbox, too. `cards`: hex of a
    tag → whose it was; where only that stands.
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
    """Take rows out, in the caller's transaction; visits and journeys lose their name and get another tag."""
    directories = _directories(conn)  # one may have taken the other's place
    for row in rows:
        if row.table in ("visit", "journey"):
            # Only what is still the member's: an id may have been given anew.
            conn.execute(
                f"UPDATE {row.table} SET member = NULL, tag = ? WHERE id = ? AND member = ?",
                (replacements.of(row), row.key, row.member),
            )
        elif row.table == "cue":
            # What cues came to goes with the member; service cases name nobody and stay.
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
    """Rows as they go together into a transaction."""
    for start in range(0, len(rows), SLICE_ROWS):
        yield rows[start : start + SLICE_ROWS]


_LATE_US = 2**63 - 1
_NAMING: tuple[EventClass, ...] = CLASSES[:2]
"""Classes of events that name members."""


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
