"""Reference consumer of the contract: what a CRM does with a batch, so that it loses nothing and counts nothing twice.

In one transaction: keep each event unless its number is there already, put aside what is not valid, move the watermark.
Only then acknowledge. It may be killed at any point; the gateway sends again whatever was not acknowledged.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from config import topics
from sync.contract import (
    CLASS_OF,
    CLASSES,
    GZIP,
    MAX_MESSAGE_BYTES,
    Ack,
    Batch,
    Envelope,
    Event,
    EventClass,
    event_id,
    unpack,
)

SCHEMA = """
CREATE TABLE IF NOT EXISTS event (
    store TEXT, epoch TEXT, class TEXT, seq INTEGER,
    id TEXT NOT NULL, payload TEXT NOT NULL, received_us INTEGER NOT NULL,
    PRIMARY KEY (store, epoch, class, seq)
) WITHOUT ROWID;
-- All numbers up to upto are accounted for: as events, lost, or dead letters. None above highest was ever seen.
-- received: rows of event; duplicates: events that were already there.
CREATE TABLE IF NOT EXISTS watermark (
    store TEXT, epoch TEXT, class TEXT, upto INTEGER NOT NULL, highest INTEGER NOT NULL,
    received INTEGER NOT NULL, duplicates INTEGER NOT NULL,
    PRIMARY KEY (store, epoch, class)
) WITHOUT ROWID;
-- Numbers that no event will come for. One that came all the same counts as received.
CREATE TABLE IF NOT EXISTS lost (
    store TEXT, epoch TEXT, class TEXT, first INTEGER, last INTEGER NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (store, epoch, class, first)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dead_letter (
    digest BLOB PRIMARY KEY, topic TEXT NOT NULL, error TEXT NOT NULL, payload BLOB NOT NULL,
    received_us INTEGER NOT NULL
) WITHOUT ROWID;
"""
DEAD_LETTER = "dead letter"
UNKEPT = "a text with a NUL or a number beyond 64 bits, which a database can't keep"
_PERHAPS_UNKEPT = re.compile(rb"\\u0000|[0-9]{19}|[:,\[\s]-?[0-9.]+[eE]\+?[0-9]{2}")
"""Finds all messages with such a value, and some others."""
POSTGRES = ("postgresql://", "postgres://")
_EVENT: TypeAdapter[Event] = TypeAdapter(Event)

Key = tuple[str, str, EventClass]


class Delivery(NamedTuple):
    """A message of `up/…` as it came."""

    topic: str
    payload: bytes
    received_us: int


class Gap(NamedTuple):
    """Numbers that should be there and are not, below others that are: to be asked for by the command `replay`."""

    store: str
    epoch: str
    class_: EventClass
    first: int
    last: int


Fresh = list[tuple[str, Event, int]]
"""Events never seen before: store, event, time of receipt."""


class Taken(NamedTuple):
    """What came of it, once committed: `acks` to publish, `fresh` events (never seen before) and their times."""

    acks: list[tuple[str, EventClass, Ack]]
    fresh: Fresh


class Ledger:
    """A consumer's book in SQLite (a path) or PostgreSQL (a URL). One object, one thread at a time.

    Several workers may share a PostgreSQL: they take turns at a store's class. `hand_over` gets the connection and the
    fresh events within the transaction: what it writes there is committed with them or not at all. If it raises,
    nothing is taken or acknowledged, and the events come again. `tables`: those that it writes to, as statements
    `CREATE TABLE IF NOT EXISTS` in SQLite's words.
    """

    def __init__(
        self, book: Path | str, hand_over: Callable[[Any, Fresh], None] | None = None, *, tables: str = ""
    ) -> None:
        self._hand_over = hand_over
        self._postgres = str(book).startswith(POSTGRES)
        self._conn: Any
        self.error: type[Exception] = sqlite3.Error
        """What the book raises when it can't be used; with PostgreSQL the next `take` connects anew."""
        if self._postgres:
            from sync.postgres import Connection, Error

            self.error = Error
            self._conn = Connection(str(book))
        else:
            self._conn = sqlite3.connect(book, isolation_level=None, check_same_thread=False)
            self._conn.execute("PRAGMA journal_mode = WAL")
            self._conn.execute("PRAGMA synchronous = FULL")  # what is acked must survive a power cut
        self._conn.executescript(SCHEMA + tables)

    def close(self) -> None:
        self._conn.close()

    def take(self, deliveries: Iterable[Delivery]) -> Taken:
        """Commit deliveries in one transaction; a message that is no batch of this contract becomes a dead letter."""
        touched: dict[Key, None] = {}
        fresh: Fresh = []
        self._conn.execute("BEGIN" if self._postgres else "BEGIN IMMEDIATE")
        try:
            for delivery in deliveries:
                try:
                    envelope, events = decode(delivery.topic, delivery.payload)
                except ValueError as error:
                    self._bury(delivery.topic, str(error), delivery.payload, delivery.received_us)
                    continue
                touched[envelope.store, envelope.epoch, envelope.class_] = None
                fresh += self._keep(delivery, envelope, events)
            acks = [
                (store, class_, Ack(epoch=epoch, upto=self._watermark((store, epoch, class_)).upto, accepts=(GZIP,)))
                for store, epoch, class_ in touched
            ]
            if self._hand_over is not None and fresh:
                self._hand_over(self._conn, fresh)
        except BaseException:
            self._conn.execute("ROLLBACK")
            raise
        self._conn.execute("COMMIT")
        return Taken(acks, fresh)

    def gaps(self) -> list[Gap]:
        """The first gap of each store and class that has one. One that does not close by itself needs a replay."""
        found = []
        behind = "SELECT store, epoch, class, upto, highest FROM watermark WHERE highest > upto"
        for store, epoch, class_, upto, highest in self._conn.execute(behind).fetchall():
            key: Key = (store, epoch, class_)
            query = f"SELECT min(seq) FROM event WHERE {_KEY} AND seq > ?"
            event = self._conn.execute(query, (*key, upto)).fetchone()[0]
            query = f"SELECT min(first) FROM lost WHERE {_KEY} AND first > ?"
            lost = self._conn.execute(query, (*key, upto)).fetchone()[0]
            found.append(Gap(*key, upto + 1, min(event or highest + 1, lost or highest + 1) - 1))
        return found

    def totals(self, recount: bool = False) -> dict[str, Any]:
        """Counts over all stores: received (and per class), duplicates, lost (dead letters too), gaps, dead (letters).

        `recount` counts the rows of events instead of trusting the running count.
        """
        per_class = dict.fromkeys(CLASSES, 0)
        duplicates = lost = gaps = 0
        for store, epoch, class_, *numbers in self._conn.execute("SELECT * FROM watermark").fetchall():
            mark = _Mark(*numbers)
            ahead_events, ahead = self._ahead((store, epoch, class_), mark.upto) if mark.highest > mark.upto else (0, 0)
            per_class[class_] += mark.received
            duplicates += mark.duplicates
            lost += mark.upto - mark.received + ahead_events
            gaps += mark.highest - mark.upto - ahead
        if recount:
            per_class |= dict(self._conn.execute("SELECT class, count(*) FROM event GROUP BY class").fetchall())
        return {
            "received": sum(per_class.values()),
            "per_class": per_class,
            "duplicates": duplicates,
            "lost": lost,
            "gaps": gaps,
            "dead": self._conn.execute("SELECT count(*) FROM dead_letter").fetchone()[0],
        }

    def _keep(self, delivery: Delivery, envelope: Envelope, events: Sequence[_Item]) -> list[tuple[str, Event, int]]:
        key = (envelope.store, envelope.epoch, envelope.class_)
        if self._postgres:
            self._conn.execute("SELECT pg_advisory_xact_lock(hashtextextended(?, 0))", ("/".join(key),))
        last = envelope.first + envelope.n - 1
        mark = self._watermark(key)
        known = {
            seq
            for (seq,) in self._conn.execute(
                f"SELECT seq FROM event WHERE {_KEY} AND seq BETWEEN ? AND ?", (*key, envelope.first, last)
            )
        }
        rows, fresh = [], []
        lost = [(item.from_, item.to, item.reason) for item in envelope.lost]
        for seq, item in enumerate(events, envelope.first):
            if seq in known:
                continue
            if isinstance(item.event, str):
                self._bury(delivery.topic, item.event, item.raw.encode(), delivery.received_us)
                lost.append((seq, seq, DEAD_LETTER))
            else:
                rows.append((*key, seq, event_id(*key, seq), item.raw, delivery.received_us))
                fresh.append((envelope.store, item.event, delivery.received_us))
        self._conn.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        self._conn.executemany(
            "INSERT INTO lost VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (store, epoch, class, first) DO UPDATE"
            " SET last = CASE WHEN excluded.last > lost.last THEN excluded.last ELSE lost.last END",
            [(*key, *gap) for gap in lost],
        )
        highest = max([mark.highest, last, *(to for _, to, _ in lost)])
        upto = max(mark.upto, last) if envelope.first <= mark.upto + 1 else mark.upto
        if upto < highest:
            upto = self._advance(key, upto)
        self._conn.execute(
            "INSERT INTO watermark VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (store, epoch, class) DO UPDATE SET"
            " upto = excluded.upto, highest = excluded.highest, received = excluded.received,"
            " duplicates = excluded.duplicates",
            (*key, upto, highest, mark.received + len(rows), mark.duplicates + len(known)),
        )
        return fresh

    def _watermark(self, key: Key) -> _Mark:
        columns = ", ".join(_Mark._fields)
        row = self._conn.execute(f"SELECT {columns} FROM watermark WHERE {_KEY}", key).fetchone()
        return _Mark(*row) if row else _Mark(0, 0, 0, 0)

    def _advance(self, key: Key, upto: int) -> int:
        """The watermark moved over what is already there: events that came before their turn, and lost ranges."""
        while True:
            start = upto
            covering = f"SELECT max(last) FROM lost WHERE {_KEY} AND first <= ?"
            upto = max(upto, self._conn.execute(covering, (*key, upto + 1)).fetchone()[0] or 0)
            ahead = f"SELECT seq FROM event WHERE {_KEY} AND seq > ? ORDER BY seq"
            for (seq,) in self._conn.execute(ahead, (*key, upto)):
                if seq != upto + 1:
                    break
                upto = seq
            if upto == start:
                return upto

    def _ahead(self, key: Key, upto: int) -> tuple[int, int]:
        """Numbers above the watermark that are there: as events, and as events or lost."""
        events = self._conn.execute(f"SELECT seq, seq FROM event WHERE {_KEY} AND seq > ?", (*key, upto)).fetchall()
        lost = self._conn.execute(f"SELECT first, last FROM lost WHERE {_KEY} AND last > ?", (*key, upto)).fetchall()
        total = 0
        for first, last in sorted(events + lost):
            total += max(0, last - max(first - 1, upto))
            upto = max(upto, last)
        return len(events), total

    def _bury(self, topic: str, error: str, payload: bytes, received_us: int) -> None:
        digest = hashlib.blake2b(topic.encode() + b"\0" + payload, digest_size=16).digest()
        self._conn.execute(
            "INSERT INTO dead_letter VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (digest, topic, error[:1000], payload[:MAX_MESSAGE_BYTES], received_us),
        )


_KEY = "store = ? AND epoch = ? AND class = ?"


class _Mark(NamedTuple):
    upto: int
    highest: int
    received: int
    duplicates: int


class _Item(NamedTuple):
    """An event's own JSON and the model; in the model's place, what is wrong with it."""

    raw: str
    event: Event | str


def decode(topic: str, payload: bytes) -> tuple[Envelope, list[_Item]]:
    """A batch's envelope and its events; ValueError when it isn't one. Events are judged one by one."""
    store, rest = topics.parse(topic)
    message = unpack(payload)
    document = from_json(message, allow_inf_nan=False)
    raw = document.get("events") if isinstance(document, dict) else None
    if not isinstance(raw, list):
        raise ValueError("no list of events")
    unkept = [False] * len(raw)
    if _PERHAPS_UNKEPT.search(message):
        unkept = [_unkept(one) for one in raw]
        if _unkept({**document, "events": None}):
            raise ValueError(UNKEPT)
    texts = (to_json(event).decode() for event in raw)
    try:
        batch = Batch.model_validate(document)
        envelope: Envelope = batch
        judged: Iterable[Event | str] = batch.events
    except ValidationError:
        envelope = Envelope.model_validate(document)
        if envelope.n != len(raw):
            raise ValueError(f"n is {envelope.n}, but there are {len(raw)} events") from None
        judged = [_judge(envelope, seq, one) for seq, one in enumerate(raw, envelope.first)]
    if (store, rest) != (envelope.store, f"up/{envelope.class_}"):
        raise ValueError(f"a batch of {envelope.store}, class {envelope.class_}, in another's topic")
    found = zip(texts, judged, unkept, strict=True)
    return envelope, [_Item(text, UNKEPT if bad else event) for text, event, bad in found]


def _unkept(value: object) -> bool:
    if isinstance(value, dict):
        return any(_unkept(one) for pair in value.items() for one in pair)
    if isinstance(value, list):
        return any(_unkept(one) for one in value)
    return "\0" in value if isinstance(value, str) else isinstance(value, int | float) and abs(value) >= 2**63


def _judge(envelope: Envelope, seq: int, document: object) -> Event | str:
    try:
        event = _EVENT.validate_python(document)
    except ValidationError as error:
        return str(error)
    expected = event_id(envelope.store, envelope.epoch, envelope.class_, seq)
    if event.id != expected or CLASS_OF[event.type] != envelope.class_:
        return f"event {event.id!r} ({event.type}) stands where {expected} belongs"
    return event
