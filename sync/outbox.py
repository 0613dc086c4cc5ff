"""Outbox: events that the CRM has not yet acknowledged, in order, with numbers that are never reused.

Functions on a connection, inside the caller's transaction, so that an event is committed together with its cause.
Tables: `outbox_{class}`, `outbox_class`, `lost`, `kept` and, of `fact`, the rows `store` and `epoch`. What is acked
stays for KEEP_US, for a CRM that has to go back to a backup; sync.quota deletes them first when space is needed.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sync.contract import CLASS_OF, CLASSES, MAX_EVENT_BYTES, MAX_LOST, Event, EventClass, Journey, Lost, event_id

KEEP_US = 48 * 3600 * 1_000_000
"""Time that acknowledged events are kept for a replay, space permitting."""
KEPT_STEP_US = 15 * 60 * 1_000_000
"""Resolution of that time: events acknowledged within a step are deleted together."""
GONE = "no longer kept"
"""Reason for numbers in a replay that were acknowledged too long ago."""
SINCE_BACKUP = 10_000_000
"""More numbers than a store gives in years; skipped after a restore, before the first event is made: an event with a
number that the CRM has seen would be dropped there."""
JUMP = 5_000
"""More numbers than can be in flight or were given since the last check; see `jump`."""
LIVES = 8


class Pending(NamedTuple):
    """Next batch of a class: `payloads[i]` is the JSON of event `first + i`; `lost` are ranges before `first`."""

    first: int
    payloads: list[str]
    lost: list[Lost]

    @property
    def last(self) -> int:
        """Highest number that this batch accounts for."""
        return self.first + len(self.payloads) - 1


class Depth(NamedTuple):
    """Depth of a class: `sent` events were ever committed to the outbox, `pending` of them wait for the CRM's ack."""

    sent: int
    pending: int


def append(conn: sqlite3.Connection, class_: EventClass, events: Iterable[Event]) -> range:
    """Number the events, give them ids and store them; returns the range of numbers. A journey too long for one message
    takes a number per part. An event that fits no message takes a number too, which is recorded as lost.
    """
    stem = event_id(*_identity(conn), class_, "")
    row = conn.execute("SELECT next_seq FROM outbox_class WHERE class = ?", (index(class_),)).fetchone()
    first = seq = int(row[0])
    rows: list[tuple[int, str]] = []
    added = 0
    for event in events:
        if CLASS_OF[event.type] != class_:
            raise ValueError(f"{event.type!r} is no event of class {class_!r}")
        for piece in event.split() if isinstance(event, Journey) else (event,):
            payload = piece.model_copy(update={"id": f"{stem}{seq}"}).model_dump_json()
            size = len(payload.encode())
            if size <= MAX_EVENT_BYTES:
                rows.append((seq, payload))
                added += size
            else:
                lose(conn, class_, seq, seq, "larger than a message")
            seq += 1
    if seq > first:
        conn.executemany(f"INSERT INTO {table(class_)} VALUES (?, ?)", rows)
        conn.execute(
            "UPDATE outbox_class SET next_seq = ?, bytes = bytes + ? WHERE class = ?", (seq, added, index(class_))
        )
    return range(first, seq)


def pending(
    conn: sqlite3.Connection,
    class_: EventClass,
    after: int,
    max_events: int,
    max_bytes: int = MAX_EVENT_BYTES,
    upto: int = 2**63 - 1,
) -> Pending | None:
    """Read the next batch after number `after`: events without a gap, at most `max_bytes` of JSON but at least one
    event.

    None when there is neither an event nor a lost range after it, or none up to `upto`.
    """
    lost = [
        Lost.model_validate({"from": max(first, after + 1), "to": min(last, upto), "reason": reason})
        for first, last, reason in conn.execute(
            "SELECT first, last, reason FROM lost WHERE class = ? AND last > ? AND first <= ? ORDER BY first LIMIT ?",
            (index(class_), after, upto, MAX_LOST + 1),
        )
    ]
    rows = conn.execute(
        f"SELECT seq, payload FROM {table(class_)} WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
        (after, upto, max_events),
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


def kept(
    conn: sqlite3.Connection, class_: EventClass, after: int, upto: int, max_events: int, max_bytes: int
) -> Pending | None:
    """`pending` for a replay: numbers that are no longer known are reported as lost, so that no gap is left."""
    batch = pending(conn, class_, after, max_events, max_bytes, upto)
    known = batch.first if batch else upto + 1
    gaps: list[Lost] = []
    at = after
    for gap in [*(batch.lost if batch else []), None]:
        until = gap.from_ if gap else known
        if until > at + 1:
            gaps.append(Lost.model_validate({"from": at + 1, "to": until - 1, "reason": GONE}))
        if gap:
            gaps.append(gap)
            at = gap.to
    if len(gaps) > MAX_LOST:
        return Pending(gaps[MAX_LOST - 1].to + 1, [], gaps[:MAX_LOST])
    if batch and batch.payloads:
        return Pending(batch.first, batch.payloads, gaps)
    return Pending(gaps[-1].to + 1, [], gaps) if gaps else None


def acknowledge(conn: sqlite3.Connection, class_: EventClass, upto: int, now_us: int = 0) -> int:
    """Record what the CRM has committed, to be deleted KEEP_US after `now_us`; returns the new position of the class.

    An ack that is behind, or beyond what was ever numbered, changes nothing.
    """
    next_seq, acked = conn.execute(
        "SELECT next_seq, acked FROM outbox_class WHERE class = ?", (index(class_),)
    ).fetchone()
    if not acked < upto < next_seq:
        return int(acked)
    until_us = (now_us // KEPT_STEP_US + 1) * KEPT_STEP_US + KEEP_US
    conn.execute(
        "INSERT INTO kept VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET upto = excluded.upto",
        (index(class_), until_us, upto),
    )
    conn.execute("UPDATE outbox_class SET acked = ? WHERE class = ?", (upto, index(class_)))
    return upto


class Standing(NamedTuple):
    """Position of a class: `acked` by the CRM, `sent` at least; `packed`: the CRM accepted gzip in its last ack."""

    acked: int
    sent: int
    packed: bool


def standing(conn: sqlite3.Connection) -> dict[EventClass, Standing]:
    """Return the recorded position of each class."""
    rows = conn.execute("SELECT class, acked, max(acked, sent), packed FROM outbox_class")
    return {CLASSES[class_]: Standing(acked, sent, bool(packed)) for class_, acked, sent, packed in rows}


def note_sent(conn: sqlite3.Connection, class_: EventClass, sent: int, packed: bool) -> None:
    """Record up to which number events were sent, and in which form the CRM accepts them."""
    conn.execute("UPDATE outbox_class SET sent = ?, packed = ? WHERE class = ?", (sent, packed, index(class_)))


def lives(conn: sqlite3.Connection, instance: str = "") -> list[str]:
    """Return the last processes that published from this database; with `instance`, add this one."""
    row = conn.execute("SELECT value FROM fact WHERE name = 'lives'").fetchone()
    known: list[str] = json.loads(row[0]) if row else []
    if instance and instance not in known:
        known = [*known, instance][-LIVES:]
        conn.execute("INSERT OR REPLACE INTO fact VALUES ('lives', ?)", (json.dumps(known),))
    return known


def begin_anew(conn: sqlite3.Connection) -> None:
    """Prepare a database that was restored from a backup: skip all numbers that may have been given since."""
    jump(conn, {class_: given.sent + SINCE_BACKUP for class_, given in depth(conn).items()}, {})


def forget(conn: sqlite3.Connection, now_us: int, most: int = 5_000) -> int:
    """Delete acknowledged events whose time is over, at most so many a class; returns their number."""
    gone = 0
    due = "SELECT class, max(upto) FROM kept WHERE until_us <= ? GROUP BY class"
    for number, upto in conn.execute(due, (now_us,)).fetchall():
        class_ = CLASSES[number]
        deleted = delete_oldest(conn, class_, upto, most)
        gone += deleted
        if deleted < most:
            conn.execute("DELETE FROM kept WHERE class = ? AND until_us <= ?", (number, now_us))
            conn.execute("DELETE FROM lost WHERE class = ? AND last <= ?", (number, upto))
    return gone


def acknowledged(conn: sqlite3.Connection) -> dict[EventClass, int]:
    """Return the number up to which the CRM has everything, by class."""
    return {CLASSES[class_]: acked for class_, acked in conn.execute("SELECT class, acked FROM outbox_class")}


def depth(conn: sqlite3.Connection) -> dict[EventClass, Depth]:
    """Return how many events each class ever had, and how many wait. Computed from positions, without reading
    events."""
    lost = dict(
        conn.execute(
            "SELECT class, sum(last - max(first - 1, acked)) FROM lost JOIN outbox_class USING (class)"
            " WHERE last > acked GROUP BY class"
        )
    )
    return {
        CLASSES[class_]: Depth(next_seq - 1, next_seq - 1 - acked - lost.get(class_, 0))
        for class_, next_seq, acked in conn.execute("SELECT class, next_seq, acked FROM outbox_class ORDER BY class")
    }


def mark_tried(conn: sqlite3.Connection, class_: EventClass) -> None:
    """Mark the events that the class has now as possibly sent."""
    conn.execute("UPDATE outbox_class SET tried = next_seq - 1 WHERE class = ?", (index(class_),))


def evict(conn: sqlite3.Connection, class_: EventClass, most: int, reason: str = "quota") -> int:
    """Delete the oldest unacknowledged events, at most so many, and record them as lost; returns their number."""
    rows = conn.execute(
        f"SELECT seq FROM {table(class_)} WHERE seq > (SELECT acked FROM outbox_class WHERE class = ?)"
        " ORDER BY seq LIMIT ?",
        (index(class_), most),
    )
    seqs = [seq for (seq,) in rows]
    if seqs:
        delete_oldest(conn, class_, seqs[-1], len(seqs), after=seqs[0] - 1)
        lose_all(conn, class_, seqs, reason)
    return len(seqs)


def take_back(conn: sqlite3.Connection, class_: EventClass, seqs: Sequence[int], reason: str) -> None:
    """Delete events by their numbers, which rise; those that are not acknowledged are written down as lost."""
    if not seqs:
        return
    events, (acked,) = (
        table(class_),
        conn.execute("SELECT acked FROM outbox_class WHERE class = ?", (index(class_),)).fetchone(),
    )
    size = 0
    for seq in seqs:
        row = conn.execute(f"SELECT length(CAST(payload AS BLOB)) FROM {events} WHERE seq = ?", (seq,)).fetchone()
        size += row[0] if row else 0
        conn.execute(f"DELETE FROM {events} WHERE seq = ?", (seq,))
    conn.execute("UPDATE outbox_class SET bytes = max(0, bytes - ?) WHERE class = ?", (size, index(class_)))
    lose_all(conn, class_, [seq for seq in seqs if seq > acked], reason)


def jump(conn: sqlite3.Connection, used: Mapping[EventClass, int], since: Mapping[EventClass, int]) -> dict[str, int]:
    """Skip numbers that were used before this database was restored from a backup; returns how many by class. `used`:
    highest numbers known to have been used. Events numbered `since` or later were made after the restore: they get new
    numbers, earlier ones keep theirs. Skipped numbers are recorded as lost, with JUMP more for those that nobody knows
    of.
    """
    left_out: dict[str, int] = {}
    stem_of = _identity(conn)
    for class_, highest in used.items():
        key = index(class_)
        (next_seq,) = conn.execute("SELECT next_seq FROM outbox_class WHERE class = ?", (key,)).fetchone()
        first = min(since.get(class_, next_seq), next_seq)
        start = max(highest, next_seq - 1) + 1 + JUMP
        events = table(class_)
        rows = conn.execute(f"SELECT seq, payload FROM {events} WHERE seq >= ? ORDER BY seq", (first,)).fetchall()
        old = '{"id":"' + event_id(*stem_of, class_, "")
        conn.execute(f"DELETE FROM {events} WHERE seq >= ?", (first,))
        conn.execute("DELETE FROM lost WHERE class = ? AND first >= ?", (key, first))
        conn.executemany(
            f"INSERT INTO {events} VALUES (?, ?)",
            [(to, f"{old}{to}{payload[len(f'{old}{seq}') :]}") for to, (seq, payload) in enumerate(rows, start)],
        )
        lose(conn, class_, first, start - 1, "numbers given before the database was taken back")
        conn.execute("UPDATE outbox_class SET next_seq = ? WHERE class = ?", (start + len(rows), key))
        left_out[class_] = start - first
    return left_out


def delete_oldest(conn: sqlite3.Connection, class_: EventClass, upto: int, most: int, after: int = 0) -> int:
    """Delete events `after` … `upto`, at most so many, without recording them; returns their number."""
    row = conn.execute(
        "SELECT count(*), max(seq), coalesce(sum(length(CAST(payload AS BLOB))), 0) FROM"
        f" (SELECT seq, payload FROM {table(class_)} WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?)",
        (after, upto, most),
    ).fetchone()
    if row[0]:
        conn.execute(f"DELETE FROM {table(class_)} WHERE seq > ? AND seq <= ?", (after, row[1]))
        conn.execute("UPDATE outbox_class SET bytes = max(0, bytes - ?) WHERE class = ?", (row[2], index(class_)))
    return int(row[0])


def lose_all(conn: sqlite3.Connection, class_: EventClass, seqs: Sequence[int], reason: str) -> None:
    """Record ascending numbers as lost, in as few ranges as possible."""
    start = 0
    for i, seq in enumerate(seqs):
        if i + 1 == len(seqs) or seqs[i + 1] != seq + 1:
            lose(conn, class_, seqs[start], seq, reason)
            start = i + 1


def lose(conn: sqlite3.Connection, class_: EventClass, first: int, last: int, reason: str) -> None:
    """Record a range as lost, merged with those that it touches."""
    key = index(class_)
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


def index(class_: EventClass) -> int:
    """Return the number of a class in the tables."""
    return CLASSES.index(class_)


def table(class_: EventClass) -> str:
    """Return the name of the table of a class's events."""
    return f"outbox_{class_}"


def _identity(conn: sqlite3.Connection) -> tuple[str, str]:
    facts = dict(conn.execute("SELECT name, value FROM fact WHERE name IN ('store', 'epoch')"))
    if len(facts) < 2:
        raise LookupError("the database has no store and epoch: it was not created by this program")
    return facts["store"], facts["epoch"]
