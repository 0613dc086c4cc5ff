"""Reference consumer of the contract: how a CRM takes a batch without losing or double counting events.

In one transaction, it stores each event whose number is new, sets invalid ones aside and moves the watermark. Only then
does it acknowledge. It may be killed at any point; the gateway resends whatever was not acknowledged.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
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
"""Match all messages with such a number, and some others. Two patterns: a single one takes three times as long."""
ISLAND_ROWS = 1000
POSTGRES = ("postgresql://", "postgres://")
_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


class Delivery(NamedTuple):
    """Message of `up/…` as received."""

    topic: str
    payload: bytes
    received_us: int


class Gap(NamedTuple):
    """Missing numbers below existing ones, to be requested with the command `replay`."""

    store: str
    epoch: str
    class_: EventClass
    first: int
    last: int


Fresh = list[tuple[str, Event, int]]
"""New event: store, event, time of receipt."""


class Taken(NamedTuple):
    """Result of `take`, once committed: `acks` to publish, and `fresh` (new) events with their times. `fenced`: batches
    that were dropped, because another gateway of the store has taken over from the one that sent them."""

    acks: list[tuple[str, EventClass, Ack]]
    fresh: Fresh
    fenced: int = 0


class Ledger:
    """Consumer's ledger in SQLite (a path) or PostgreSQL (a URL). Use one object in one thread at a time.

    Several workers may share a PostgreSQL database: they take turns at each store and class. `hand_over` gets the
    connection and the new events within the transaction: what it writes is committed with them or not at all. If it
    raises, nothing is stored or acknowledged, and the events come again. `tables`: its tables, as `CREATE TABLE IF NOT
    EXISTS` statements in SQLite's dialect.
    """

    def __init__(
        self, book: Path | str, hand_over: Callable[[Any, Fresh], None] | None = None, *, tables: str = ""
    ) -> None:
        self._hand_over = hand_over
        self._conn: Book
        self.error: type[Exception] = sqlite3.Error
        """Exception type when the database can't be used; with PostgreSQL the next `take` reconnects."""
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
        """Commit deliveries in one transaction; a message that isn't a valid batch becomes a dead letter."""
        batches, letters = _decoded(deliveries)
        fresh: Fresh = []
        marks: dict[Key, Mark] = {}
        fenced = 0
        self._conn.begin()
        try:
            if batches:
                there = self._conn.lock(sorted({batch.key for batch in batches}))
                valid = self._valid(batches)
                fenced = len(batches) - len(valid)
                marks, fresh = self._keep(valid, there, letters)
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
        return Taken(acks, fresh, fenced)

    def gaps(self) -> list[Gap]:
        """Return the first gap of each store and class. A gap that doesn't close by itself needs a replay."""
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
        """Return totals over all stores: received (also per class), duplicates, lost (including dead letters), gaps,
        dead (letters). `recount` counts rows instead of using the running totals.
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

    def _valid(self, batches: Sequence[_Decoded]) -> list[_Decoded]:
        """Return the batches whose term is the highest seen of their store and epoch, in order of arrival."""
        before = self._conn.terms(sorted({batch.key[:2] for batch in batches}))
        terms = dict(before)
        valid = []
        for batch in batches:
            store_epoch, term = batch.key[:2], batch.envelope.term
            if term >= terms.get(store_epoch, 0):
                if term:
                    terms[store_epoch] = term
                valid.append(batch)
        if terms != before:
            self._conn.raise_terms(sorted((*of, term) for of, term in terms.items() if term != before.get(of)))
        return valid

    def _keep(
        self, batches: Sequence[_Decoded], there: Mapping[Key, Mark], letters: list[Letter]
    ) -> tuple[dict[Key, Mark], Fresh]:
        """Store batches, and move the watermarks of their keys, which are locked."""
        accounted: dict[Key, list[tuple[int, int]]] = {}
        for batch in batches:
            accounted.setdefault(batch.key, []).extend(batch.spans())
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
        """Move the watermark over new spans and what was stored beyond it: early events and lost ranges. If no new span
        touches it, it can't move."""
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
        """Return the last event that follows a number without a gap."""
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
        """Return the keys that have a gap."""
        found = self._conn.execute("SELECT * FROM watermark WHERE highest > upto").fetchall()
        return [((store, epoch, class_), Mark(*numbers)) for store, epoch, class_, *numbers in found]

    def _ahead(self, key: Key, upto: int) -> tuple[int, int]:
        """Count numbers above the watermark: events, and events or lost."""
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
    """Event as JSON and as model; an error text instead of the model if it is invalid."""

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
        """Ranges that the batch accounts for: its events' and the lost ones."""
        own = [(self.first, self.last)] if self.envelope.n else []
        return [*own, *((gap.from_, gap.to) for gap in self.envelope.lost)]


def _decoded(deliveries: Iterable[Delivery]) -> tuple[list[_Decoded], list[Letter]]:
    """Decode messages to batches; invalid ones become dead letters."""
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
    """Decode a batch's envelope and events; ValueError if it is invalid. Events are validated one by one."""
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
