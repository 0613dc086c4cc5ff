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
from sync.book import KEY, SCHEMA, Book, EventRow, Key, Letter, LostRow, Mark, SqliteBook
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

DEAD_LETTER = "dead letter"
UNKEPT = "a text with a NUL or a number beyond 64 bits, which a database can't keep"
_PERHAPS_UNKEPT = re.compile(rb"[0-9]{19}"), re.compile(rb"[0-9.][eE]\+?[0-9]{2}")
"""Find all messages with such a number, and some others. Two: as one they take three times as long."""
ISLAND_ROWS = 1000
POSTGRES = ("postgresql://", "postgres://")
_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


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
        self._conn: Book
        self.error: type[Exception] = sqlite3.Error
        """What the book raises when it can't be used; with PostgreSQL the next `take` connects anew."""
        if str(book).startswith(POSTGRES):
            from sync.postgres import Error, PostgresBook

            self.error = Error
            self._conn = PostgresBook(str(book))
        else:
            self._conn = SqliteBook(book)
        self._conn.set_up(SCHEMA + tables)

    def close(self) -> None:
        self._conn.close()

    def take(self, deliveries: Iterable[Delivery]) -> Taken:
        """Commit deliveries in one transaction; a message that is no batch of this contract becomes a dead letter."""
        batches, letters = _decoded(deliveries)
        fresh: Fresh = []
        marks: dict[Key, Mark] = {}
        self._conn.begin()
        try:
            if batches:
                marks, fresh = self._keep(batches, letters)
            if self._hand_over is not None and fresh:
                self._hand_over(self._conn, fresh)
            if letters:
                self._conn.bury(sorted(letters))
            self._conn.commit()
        except BaseException:
            self._conn.rollback()
            raise
        acks = [
            (store, class_, Ack(epoch=epoch, upto=mark.upto, accepts=(GZIP,)))
            for (store, epoch, class_), mark in marks.items()
        ]
        return Taken(acks, fresh)

    def gaps(self) -> list[Gap]:
        """The first gap of each store and class that has one. One that does not close by itself needs a replay."""
        found = []
        for key, mark in self._behind():
            query = f"SELECT min(seq) FROM event WHERE {KEY} AND seq > ?"
            event = self._conn.execute(query, (*key, mark.upto)).fetchone()[0]
            query = f"SELECT min(first) FROM lost WHERE {KEY} AND first > ?"
            lost = self._conn.execute(query, (*key, mark.upto)).fetchone()[0]
            beyond = mark.highest + 1
            found.append(Gap(*key, mark.upto + 1, min(event or beyond, lost or beyond) - 1))
        return found

    def totals(self, recount: bool = False) -> dict[str, Any]:
        """Counts over all stores: received (and per class), duplicates, lost (dead letters too), gaps, dead (letters).

        `recount` counts the rows of events instead of trusting the running count.
        """
        per_class = dict.fromkeys(CLASSES, 0)
        duplicates = lost = gaps = 0
        sums = ", ".join(f"CAST(sum({one}) AS BIGINT)" for one in ("received", "duplicates", "upto - received"))
        for class_, received, repeated, missing in self._conn.execute(
            f"SELECT class, {sums} FROM watermark GROUP BY class"
        ).fetchall():
            per_class[class_] = received
            duplicates += repeated
            lost += missing
        for key, mark in self._behind():
            events, ahead = self._ahead(key, mark.upto)
            lost += events
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

    def _keep(self, batches: Sequence[_Decoded], letters: list[Letter]) -> tuple[dict[Key, Mark], Fresh]:
        """Write batches down, and move the watermarks of all whom they are about."""
        accounted: dict[Key, list[tuple[int, int]]] = {}
        for batch in batches:
            accounted.setdefault(batch.key, []).extend(batch.spans())
        there = self._conn.lock(sorted(accounted))
        marks = {key: there[key] for key in accounted}
        old = [(batch.key, batch.first, batch.last) for batch in batches if batch.first <= marks[batch.key].highest]
        known = self._conn.known(old) if old else set()
        rows: list[EventRow] = []
        lost: list[LostRow] = []
        fresh: Fresh = []
        for batch in batches:
            key, delivery = batch.key, batch.delivery
            mark = marks[key]
            received, repeated = 0, 0
            lost += [(*key, gap.from_, gap.to, gap.reason) for gap in batch.envelope.lost]
            for seq, item in enumerate(batch.items, batch.first):
                if (key, seq) in known:
                    repeated += 1
                elif isinstance(item.event, str):
                    letters.append(_letter(delivery, item.event, item.raw.encode()))
                    lost.append((*key, seq, seq, DEAD_LETTER))
                else:
                    known.add((key, seq))
                    rows.append((*key, seq, event_id(*key, seq), item.raw, delivery.received_us))
                    fresh.append((key[0], item.event, delivery.received_us))
                    received += 1
            highest = max([mark.highest, batch.last, *(gap.to for gap in batch.envelope.lost)])
            marks[key] = Mark(mark.upto, highest, mark.received + received, mark.duplicates + repeated)
        if rows:
            self._conn.add_events(rows)
        if lost:
            self._conn.add_lost(sorted(lost))
        for key, spans in accounted.items():
            marks[key] = marks[key]._replace(upto=self._advance(key, marks[key], spans))
        self._conn.move(marks)
        return marks, fresh

    def _advance(self, key: Key, mark: Mark, accounted: Iterable[tuple[int, int]]) -> int:
        """The watermark moved over spans that came now and what was there beyond: events that came before their turn,
        and lost ranges. If what came does not touch it, nothing can."""
        upto = mark.upto
        for first, last in sorted(accounted):
            if first <= upto + 1:
                upto = max(upto, last)
        if upto == mark.upto:
            return upto
        while upto < mark.highest:
            start = upto
            covering = f"SELECT max(last) FROM lost WHERE {KEY} AND first <= ? AND last > ?"
            upto = self._conn.execute(covering, (*key, upto + 1, upto)).fetchone()[0] or upto
            upto = self._island(key, upto)
            if upto == start:
                break
        return upto

    def _island(self, key: Key, upto: int) -> int:
        """The last of the events that follow a number without a gap."""
        ahead = f"SELECT seq FROM event WHERE {KEY} AND seq > ? ORDER BY seq LIMIT ?"
        rows = 1  # most often the next one is missing
        while True:
            seqs = [seq for (seq,) in self._conn.execute(ahead, (*key, upto, rows)).fetchall()]
            for seq in seqs:
                if seq != upto + 1:
                    return upto
                upto = seq
            if len(seqs) < rows:
                return upto
            rows = ISLAND_ROWS

    def _behind(self) -> list[tuple[Key, Mark]]:
        """Those who have a gap."""
        found = self._conn.execute("SELECT * FROM watermark WHERE highest > upto").fetchall()
        return [((store, epoch, class_), Mark(*numbers)) for store, epoch, class_, *numbers in found]

    def _ahead(self, key: Key, upto: int) -> tuple[int, int]:
        """Numbers above the watermark that are there: as events, and as events or lost."""
        count = f"SELECT count(*) FROM event WHERE {KEY} AND seq > ?"
        events = total = self._conn.execute(count, (*key, upto)).fetchone()[0]
        ranges = f"SELECT first, last FROM lost WHERE {KEY} AND last > ? ORDER BY first"
        for first, last in self._conn.execute(ranges, (*key, upto)).fetchall():
            if last > upto:
                first = max(first, upto + 1)
                between = self._conn.execute(f"{count} AND seq <= ?", (*key, first - 1, last)).fetchone()[0]
                total += last - first + 1 - between
                upto = last
        return events, total


class _Item(NamedTuple):
    """An event's own JSON and the model; in the model's place, what is wrong with it."""

    raw: str
    event: Event | str


class _Decoded(NamedTuple):
    delivery: Delivery
    envelope: Envelope
    items: list[_Item]
    key: Key

    @property
    def first(self) -> int:
        return self.envelope.first

    @property
    def last(self) -> int:
        return self.envelope.first + self.envelope.n - 1

    def spans(self) -> list[tuple[int, int]]:
        """Numbers that are accounted for by it: its own and the lost ones."""
        own = [(self.first, self.last)] if self.envelope.n else []
        return [*own, *((gap.from_, gap.to) for gap in self.envelope.lost)]


def _decoded(deliveries: Iterable[Delivery]) -> tuple[list[_Decoded], list[Letter]]:
    """Batches, and as dead letters the messages that are none."""
    batches, letters = [], []
    for delivery in deliveries:
        try:
            envelope, items = decode(delivery.topic, delivery.payload)
            batches.append(_Decoded(delivery, envelope, items, (envelope.store, envelope.epoch, envelope.class_)))
        except ValueError as error:
            letters.append(_letter(delivery, str(error), delivery.payload))
    return batches, letters


def _letter(delivery: Delivery, error: str, payload: bytes) -> Letter:
    digest = hashlib.blake2b(delivery.topic.encode() + b"\0" + payload, digest_size=16).digest()
    return digest, delivery.topic, error[:1000], payload[:MAX_MESSAGE_BYTES], delivery.received_us


def decode(topic: str, payload: bytes) -> tuple[Envelope, list[_Item]]:
    """A batch's envelope and its events; ValueError when it isn't one. Events are judged one by one."""
    store, rest = topics.parse(topic)
    message = unpack(payload)
    document = from_json(message, allow_inf_nan=False)
    raw = document.get("events") if isinstance(document, dict) else None
    if not isinstance(raw, list):
        raise ValueError("no list of events")
    unkept = [False] * len(raw)
    if b"\\u0000" in message or any(pattern.search(message) for pattern in _PERHAPS_UNKEPT):
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
