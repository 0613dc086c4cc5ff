"""Outbox: what the CRM has not yet acknowledged, in order, each event with a number that is never used again.

Functions on a connection, inside the caller's transaction, so that an event is committed together with its cause.
Tables: `outbox`, `outbox_class`, `lost` and, of `fact`, the rows `store` and `epoch`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sync.contract import CLASS_OF, CLASSES, MAX_EVENT_BYTES, MAX_LOST, Event, EventClass, Journey, Lost, event_id

FULL = 0.9
"""Share of the database's page quota in use at which `make_room` begins to evict …"""
ROOMY = 0.8
"""… and at which it is content."""
EVICT_ROWS = 500
"""Rows evicted between two looks at the quota."""


class Pending(NamedTuple):
    """The next batch of a class: `payloads[i]` is the JSON of event `first + i`; `lost` are ranges before `first`."""

    first: int
    payloads: list[str]
    lost: list[Lost]

    @property
    def last(self) -> int:
        """The highest number that this batch accounts for."""
        return self.first + len(self.payloads) - 1


class Depth(NamedTuple):
    """A class: `sent` events were ever committed to the outbox, `pending` of them wait for the CRM's ack."""

    sent: int
    pending: int


def append(conn: sqlite3.Connection, class_: EventClass, events: Iterable[Event]) -> range:
    """Number the events, give them their ids and store them; the numbers used.

    A journey too long for one message takes a number a part. An event that no message could carry takes a number
    too, which is at once written down as lost.
    """
    store, epoch = (_fact(conn, name) for name in ("store", "epoch"))
    stem = event_id(store, epoch, class_, "")
    row = conn.execute("SELECT next_seq FROM outbox_class WHERE class = ?", (_index(class_),)).fetchone()
    first = seq = int(row[0])
    rows: list[tuple[int, int, str]] = []
    for event in events:
        if CLASS_OF[event.type] != class_:
            raise ValueError(f"{event.type!r} is no event of class {class_!r}")
        for piece in event.split() if isinstance(event, Journey) else (event,):
            payload = piece.model_copy(update={"id": f"{stem}{seq}"}).model_dump_json()
            if len(payload.encode()) <= MAX_EVENT_BYTES:
                rows.append((_index(class_), seq, payload))
            else:
                _lose(conn, class_, seq, seq, "larger than a message")
            seq += 1
    conn.executemany("INSERT INTO outbox VALUES (?, ?, ?)", rows)
    conn.execute("UPDATE outbox_class SET next_seq = ? WHERE class = ?", (seq, _index(class_)))
    return range(first, seq)


def pending(
    conn: sqlite3.Connection, class_: EventClass, after: int, max_events: int, max_bytes: int = MAX_EVENT_BYTES
) -> Pending | None:
    """The next batch after number `after`: events without a gap, at most `max_bytes` of JSON but at least one event.

    None when there is neither an event nor a lost range after it.
    """
    lost = [
        Lost.model_validate({"from": max(first, after + 1), "to": last, "reason": reason})
        for first, last, reason in conn.execute(
            "SELECT first, last, reason FROM lost WHERE class = ? AND last > ? ORDER BY first LIMIT ?",
            (_index(class_), after, MAX_LOST + 1),
        )
    ]
    rows = conn.execute(
        "SELECT seq, payload FROM outbox WHERE class = ? AND seq > ? ORDER BY seq LIMIT ?",
        (_index(class_), after, max_events),
    )
    payloads: list[str] = []
    first = size = 0
    for seq, payload in rows:
        if payloads and (seq != first + len(payloads) or size + len(payload.encode()) >= max_bytes):
            break
        first = first or seq
        size += len(payload.encode()) + 1
        payloads.append(payload)
    before = [gap for gap in lost if not payloads or gap.to < first]
    if len(before) > MAX_LOST:  # a batch of nothing but lost ranges makes way for the rest
        return Pending(before[MAX_LOST - 1].to + 1, [], before[:MAX_LOST])
    if payloads:
        return Pending(first, payloads, before)
    return Pending(before[-1].to + 1, [], before) if before else None


def acknowledge(conn: sqlite3.Connection, class_: EventClass, upto: int) -> int:
    """Delete what the CRM has committed; how far the class is now acknowledged.

    An ack that is behind, or beyond what was ever numbered, changes nothing.
    """
    next_seq, acked = conn.execute(
        "SELECT next_seq, acked FROM outbox_class WHERE class = ?", (_index(class_),)
    ).fetchone()
    if not acked < upto < next_seq:
        return int(acked)
    key = {"class": _index(class_), "upto": upto}
    conn.execute("DELETE FROM outbox WHERE class = :class AND seq <= :upto", key)
    conn.execute("DELETE FROM lost WHERE class = :class AND last <= :upto", key)
    conn.execute("UPDATE lost SET first = :upto + 1 WHERE class = :class AND first <= :upto", key)
    conn.execute("UPDATE outbox_class SET acked = :upto WHERE class = :class", key)
    return upto


def acknowledged(conn: sqlite3.Connection) -> dict[EventClass, int]:
    """Class → number up to which the CRM has everything."""
    return {CLASSES[class_]: acked for class_, acked in conn.execute("SELECT class, acked FROM outbox_class")}


def depth(conn: sqlite3.Connection) -> dict[EventClass, Depth]:
    """Class → how many events it ever had, and how many wait. Numbers only: no row is read or counted."""
    lost = dict(conn.execute("SELECT class, sum(last - first + 1) FROM lost GROUP BY class"))
    return {
        CLASSES[class_]: Depth(next_seq - 1, next_seq - 1 - acked - lost.get(class_, 0))
        for class_, next_seq, acked in conn.execute("SELECT class, next_seq, acked FROM outbox_class ORDER BY class")
    }


def evict(conn: sqlite3.Connection, class_: EventClass, most: int, reason: str = "quota") -> int:
    """Delete the oldest events of a class, at most so many, and write their numbers down as lost; how many."""
    key = _index(class_)
    seqs = [seq for (seq,) in conn.execute("SELECT seq FROM outbox WHERE class = ? ORDER BY seq LIMIT ?", (key, most))]
    start = 0
    for i, seq in enumerate(seqs):
        if i + 1 == len(seqs) or seqs[i + 1] != seq + 1:
            _lose(conn, class_, seqs[start], seq, reason)
            start = i + 1
    if seqs:
        conn.execute("DELETE FROM outbox WHERE class = ? AND seq <= ?", (key, seqs[-1]))
    return len(seqs)


def make_room(conn: sqlite3.Connection) -> int:
    """Near the database's page quota (`PRAGMA max_page_count`): evict the oldest of the least class; how many events.

    Deletes still work below the quota, and on a full disk nothing does: so this is called before, and often.
    """
    evicted = 0
    if _in_use(conn) < FULL:
        return 0
    for class_ in reversed(CLASSES):
        while _in_use(conn) > ROOMY and (gone := evict(conn, class_, EVICT_ROWS)):
            evicted += gone
    return evicted


def _lose(conn: sqlite3.Connection, class_: EventClass, first: int, last: int, reason: str) -> None:
    """Write a range down as lost, as one with those that it touches."""
    key = _index(class_)
    touching: Sequence[tuple[int, int]] = conn.execute(
        "SELECT first, last FROM lost WHERE class = ? AND reason = ? AND (last = ? OR first = ?)",
        (key, reason, first - 1, last + 1),
    ).fetchall()
    for other, _ in touching:
        conn.execute("DELETE FROM lost WHERE class = ? AND first = ?", (key, other))
    conn.execute(
        "INSERT INTO lost VALUES (?, ?, ?, ?)",
        (key, min([first, *(f for f, _ in touching)]), max([last, *(t for _, t in touching)]), reason),
    )


def _in_use(conn: sqlite3.Connection) -> float:
    """Share of the page quota that holds something."""
    pages, free, most = (
        conn.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "max_page_count")
    )
    return float(pages - free) / float(most)


def _index(class_: EventClass) -> int:
    return CLASSES.index(class_)


def _fact(conn: sqlite3.Connection, name: str) -> str:
    row = conn.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise LookupError(f"the database has no fact {name!r}: it was not created by this program")
    return str(row[0])
