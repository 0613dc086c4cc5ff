"""The chain's ledger in PostgreSQL: a few statements for a few hundred batches, whoever else commits the same ones.

Each store, epoch and class is a series, whose row is locked while its numbers are dealt with; all sinks lock in the
same order. What a number is follows from sets of ranges: new, seen before, lost, or missing. No event is looked up.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import psycopg

from config import topics
from sync.chain import numbers, tables
from sync.chain.decoding import Bad, Batch, Good, judge
from sync.chain.numbers import Range
from sync.chain.rows import DAY_US, Origin, day_of, today
from sync.contract import EventClass

Key = tuple[str, str, EventClass]
KEEP_FUTURE_DAYS, KEEP_PAST_DAYS = 2, 400
"""Business days, from today, that get a partition of their own; others, from stores with a wrong date, share one."""
MAX_RUN_EVENTS, MAX_RUN_BYTES = 1_000, 256 * 1024
"""Limits of one message to the log."""
ERASING_S = 2.0
"""Interval at which members being erased are looked for."""
KEEPING_HOUSE = 0x7467_6B68
GONE = b"null"
"""In place of an event that has been erased, or is no longer kept."""
FED_AGAIN = 200
"""Events of a message that is fed to the log again."""
RETAKEN = 500
"""Dead letters judged again in one transaction."""


class Run(NamedTuple):
    """Consecutive new events of a series, for the log: `id` is its row in `fanout`."""

    id: int
    key: Key
    first: int
    payloads: list[bytes]
    again: bool = False

    @property
    def last(self) -> int:
        return self.first + len(self.payloads) - 1


class Taken(NamedTuple):
    """Outcome of a transaction: watermarks to acknowledge, runs for the log, how many events were new, and how many
    batches were dropped because another gateway of their store has taken over."""

    upto: dict[Key, int]
    runs: list[Run]
    fresh: int
    fenced: int = 0


class Letter(NamedTuple):
    """Message that is no batch."""

    digest: bytes
    topic: str
    error: str
    payload: bytes
    received_us: int


@dataclass
class _Series:
    id: int
    key: Key
    upto: int
    highest: int
    lost_there: bool
    term: int
    ahead: list[Range] = field(default_factory=list)
    lost: list[tuple[int, int, str]] = field(default_factory=list)
    ahead_before: tuple[Range, ...] = ()
    received: int = 0
    duplicates: int = 0
    dead: int = 0
    lost_more: int = 0


class Ledger:
    """Ledger on one connection, used by one thread at a time. `feed`: note new events for the log. `erasing`: members
    whose events are dropped on arrival, and reported as lost, until their erasure is complete.
    """

    def __init__(self, conn: psycopg.Connection[Any], *, version: str, feed: bool = False) -> None:
        self._conn = conn
        self._version = version
        self._feed = feed
        self._ids: dict[Key, int] = {}
        self._terms: dict[tuple[str, str], int] = {}
        self._days: set[Any] = set()
        self._erasing_s = float("-inf")
        self.erasing: frozenset[str] = frozenset()

    def take(
        self, batches: Sequence[tuple[Batch, int]], letters: Sequence[Letter] = (), done: Sequence[int] = ()
    ) -> Taken:
        """Commit batches, with their times of receipt, and messages that are none, in one transaction. `done`: rows of
        `fanout` that the log has confirmed. Raises psycopg.Error; nothing is stored then.
        """
        if not batches and not letters and not done:
            return Taken({}, [], 0)
        ids = self._series_ids({batch.key for batch, _ in batches})
        self._prepare_days(batches)
        with self._conn.transaction():
            series = self._lock(ids | self._others_of(batches, ids))
            arrived = len(batches)
            batches = self._valid(series, batches)
            series = {batch.key: series[batch.key] for batch, _ in batches}
            self._load_ranges(series, batches)
            fresh: list[tuple[_Series, int, Good, int]] = []
            dead: list[tuple[Any, ...]] = []
            for batch, received_us in batches:
                self._account(series[batch.key], batch, received_us, fresh, dead)
            tables.keep(self._conn, _with_origins(fresh))
            if dead:
                tables.copy(self._conn, "dead_letter", _DEAD, dead)
            self._keep_ranges(series.values())
            self._move(series.values(), max((us for _, us in batches), default=0))
            runs = self._note_runs(fresh) if self._feed and fresh else []
            self._bury(letters)
            if done:
                self._conn.execute("DELETE FROM chain.fanout WHERE id = ANY(%s)", (list(done),))
        fenced = arrived - len(batches)
        return Taken({key: one.upto for key, one in series.items()}, runs, len(fresh), fenced)

    def retake(self, shards: Sequence[int], classes: Sequence[str]) -> tuple[int, list[Run]]:
        """Judge dead letters again that another version has put aside; returns how many became events. Call it until
        it has nothing left: (-1, [])."""
        query = (
            "SELECT d.series, d.seq, d.payload, d.received_us, s.store, s.epoch, s.class FROM chain.dead_letter d"
            " JOIN chain.series s ON s.id = d.series WHERE s.shard = ANY(%s) AND s.class = ANY(%s)"
            " AND d.judged_by <> %s ORDER BY d.series, d.seq LIMIT %s"
        )
        found = self._conn.execute(query, (list(shards), list(classes), self._version, RETAKEN)).fetchall()
        if not found:
            return -1, []
        keys: dict[Key, int] = {(store, epoch, class_): id_ for id_, _, _, _, store, epoch, class_ in found}
        judged = [
            (judge(bytes(payload), (store, epoch, class_), seq), (store, epoch, class_), seq, us)
            for _, seq, payload, us, store, epoch, class_ in found
        ]
        self._prepare_days([(Batch(key, seq, [one], []), us) for one, key, seq, us in judged])
        with self._conn.transaction():
            series = self._lock(keys)
            gone = self._conn.execute(
                "DELETE FROM chain.dead_letter d USING unnest(%s::bigint[], %s::bigint[]) AS k (series, seq)"
                " WHERE d.series = k.series AND d.seq = k.seq RETURNING d.series, d.seq",
                ([series[key].id for _, key, _, _ in judged], [seq for _, _, seq, _ in judged]),
            ).fetchall()
            mine = set(gone)  # another sink may have been quicker
            fresh, dead = [], []
            for one, key, seq, us in judged:
                it = series[key]
                if (it.id, seq) not in mine:
                    continue
                if isinstance(one, Good) and not self._is_erased(one):
                    fresh.append((it, seq, one, us))
                    it.received += 1
                    it.dead -= 1
                elif isinstance(one, Bad):
                    dead.append((it.id, seq, one.type, one.error[:1000], one.raw, us, self._version))
                else:
                    it.dead -= 1
            tables.keep(self._conn, _with_origins(fresh))
            if dead:
                tables.copy(self._conn, "dead_letter", _DEAD, dead)
            self._move(series.values(), 0)
            runs = self._note_runs(fresh) if self._feed and fresh else []
        return len(fresh), runs

    def leftovers(self, shards: Sequence[int], classes: Sequence[str], known: Sequence[int], limit: int) -> list[Run]:
        """Return runs that the log has not confirmed and that aren't `known`, oldest first: of a sink that died, or put
        off while the log was away."""
        found = self._conn.execute(
            "SELECT f.id, s.store, s.epoch, s.class, f.first, f.last, f.series, f.again FROM chain.fanout f"
            " JOIN chain.series s ON s.id = f.series WHERE f.shard = ANY(%s) AND f.class = ANY(%s) AND f.id <> ALL(%s)"
            " ORDER BY f.id LIMIT %s",
            (list(shards), list(classes), list(known), limit),
        ).fetchall()
        made = []
        events: dict[int, dict[int, bytes]] = {}
        for id_, _, _, _, first, last, series, _ in found:
            rows = self._conn.execute(
                "SELECT seq, payload FROM chain.event WHERE series = %s AND seq BETWEEN %s AND %s",
                (series, first, last),
            )
            events[id_] = {seq: payload.encode() for seq, payload in rows}
        for id_, store, epoch, class_, first, last, _, again in found:
            there = events[id_]
            payloads = [there.get(seq, GONE) for seq in range(first, last + 1)]
            made.append(Run(id_, (store, epoch, class_), first, payloads, again))
        return made

    def refresh_erasing(self) -> None:
        """Find out from time to time which members are being erased."""
        if time.monotonic() - self._erasing_s > ERASING_S:
            found = self._conn.execute("SELECT member FROM chain.erasure WHERE completed_at IS NULL")
            self.erasing = frozenset(member for (member,) in found)
            self._erasing_s = time.monotonic()

    def keep_house(self) -> list[str]:
        """Drop partitions that were kept long enough, and prepare the next days; returns the tables dropped. One sink
        at a time does it; a statement in progress elsewhere is waited for, but not for long."""
        with self._conn.transaction():
            (mine,) = self._conn.execute("SELECT pg_try_advisory_xact_lock(%s)", (KEEPING_HOUSE,)).fetchone() or (
                False,
            )
            if not mine:
                return []
            self._conn.execute("SET LOCAL lock_timeout = '2s'")
            return [name for (name,) in self._conn.execute("SELECT * FROM chain.keep_house()")]

    def _is_erased(self, good: Good) -> bool:
        return bool(self.erasing) and getattr(good.event, "member", None) in self.erasing

    def _account(
        self,
        it: _Series,
        batch: Batch,
        received_us: int,
        fresh: list[tuple[_Series, int, Good, int]],
        dead: list[tuple[Any, ...]],
    ) -> None:
        """Find out what is new in a batch, and account for it."""
        for gap in batch.lost:
            self._lose(it, gap.first, gap.last, gap.reason)
        if not batch.events:
            return
        first, last = batch.first, batch.last
        if first > it.highest:
            new = [(first, last)]
        else:
            new = numbers.outside(it.ahead, max(first, it.upto + 1), last)
            new += _found_again(it, first, last)
        counted = 0
        for low, high in new:
            counted += high - low + 1
            for seq in range(low, high + 1):
                one = batch.events[seq - first]
                if isinstance(one, Bad):
                    dead.append((it.id, seq, one.type, one.error[:1000], one.raw, received_us, self._version))
                    it.dead += 1
                elif self._is_erased(one):
                    it.lost.append((seq, seq, "erased"))
                    it.lost_more += 1
                else:
                    fresh.append((it, seq, one, received_us))
                    it.received += 1
        it.duplicates += len(batch.events) - counted
        _reach(it, first, last)

    def _lose(self, it: _Series, first: int, last: int, reason: str) -> None:
        for low, high in numbers.outside(it.ahead, max(first, it.upto + 1), last):
            it.lost.append((low, high, reason))
            it.lost_more += high - low + 1
        _reach(it, first, last)

    def _series_ids(self, keys: Iterable[Key]) -> dict[Key, int]:
        unknown = sorted(key for key in keys if key not in self._ids)
        if unknown:
            columns = [[key[i] for key in unknown] for i in range(3)]
            shards = [topics.shard(key[0]) for key in unknown]
            self._conn.execute(
                "INSERT INTO chain.series (store, epoch, class, shard, term) SELECT k.*,"
                " (SELECT coalesce(max(s.term), 0) FROM chain.series s WHERE (s.store, s.epoch) = (k.store, k.epoch))"
                " FROM unnest(%s::text[], %s::text[], %s::text[], %s::smallint[]) AS k (store, epoch, class, shard)"
                " ON CONFLICT DO NOTHING",
                (*columns, shards),
            )
            found = self._conn.execute(
                "SELECT s.id, s.store, s.epoch, s.class FROM chain.series s JOIN"
                " unnest(%s::text[], %s::text[], %s::text[]) AS k (store, epoch, class) USING (store, epoch, class)",
                columns,
            )
            self._ids |= {(store, epoch, class_): id_ for id_, store, epoch, class_ in found}
        return {key: self._ids[key] for key in keys}

    def _lock(self, ids: Mapping[Key, int]) -> dict[Key, _Series]:
        found = self._conn.execute(
            "SELECT id, store, epoch, class, upto, highest, lost > 0, term FROM chain.series WHERE id = ANY(%s)"
            " ORDER BY id FOR UPDATE",
            (list(ids.values()),),
        )
        return {
            (store, epoch, class_): _Series(id_, (store, epoch, class_), upto, highest, lost_there, term)
            for id_, store, epoch, class_, upto, highest, lost_there, term in found
        }

    def _others_of(self, batches: Sequence[tuple[Batch, int]], ids: Mapping[Key, int]) -> dict[Key, int]:
        """Return the other series of stores whose term rises: all have to be locked in order, together."""
        raised = sorted({batch.key[:2] for batch, _ in batches if batch.term > self._terms.get(batch.key[:2], 0)})
        if not raised:
            return {}
        found = self._conn.execute(
            "SELECT s.id, s.store, s.epoch, s.class FROM chain.series s"
            " JOIN unnest(%s::text[], %s::text[]) AS k (store, epoch) USING (store, epoch)",
            ([store for store, _ in raised], [epoch for _, epoch in raised]),
        )
        return {(store, epoch, class_): id_ for id_, store, epoch, class_ in found} | dict(ids)

    def _valid(
        self, series: Mapping[Key, _Series], batches: Sequence[tuple[Batch, int]]
    ) -> Sequence[tuple[Batch, int]]:
        """Return the batches whose term is the highest seen of their store and epoch; all its series have it then."""
        terms: dict[tuple[str, str], int] = {}
        for key, one in series.items():
            terms[key[:2]] = max(terms.get(key[:2], 0), one.term)
        before = dict(terms)
        valid = []
        for batch, received_us in batches:
            if batch.term >= terms[batch.key[:2]]:
                terms[batch.key[:2]] = batch.term
                valid.append((batch, received_us))
        if raised := [(*of, term) for of, term in terms.items() if term > before[of]]:
            self._conn.execute(
                "UPDATE chain.series s SET term = k.term FROM unnest(%s::text[], %s::text[], %s::bigint[])"
                " AS k (store, epoch, term) WHERE (s.store, s.epoch) = (k.store, k.epoch)",
                [list(column) for column in zip(*raised, strict=True)],
            )
        self._terms |= {of: term for of, term in terms.items() if term}
        return valid

    def _load_ranges(self, series: Mapping[Key, _Series], batches: Sequence[tuple[Batch, int]]) -> None:
        by_id = {one.id: one for one in series.values()}
        behind = [one.id for one in series.values() if one.highest > one.upto]
        if behind:
            query = "SELECT series, first, last FROM chain.ahead WHERE series = ANY(%s) ORDER BY series, first"
            for id_, first, last in self._conn.execute(query, (behind,)):
                by_id[id_].ahead.append((first, last))
            for id_ in behind:
                by_id[id_].ahead_before = tuple(by_id[id_].ahead)
        again = [(series[batch.key], batch) for batch, _ in batches if batch.first <= series[batch.key].highest]
        spans = [(it.id, batch.first, batch.last) for it, batch in again if it.lost_there and batch.events]
        if spans:
            found = self._conn.execute(
                "DELETE FROM chain.lost l USING unnest(%s::bigint[], %s::bigint[], %s::bigint[]) AS k (series, first,"
                " last) WHERE l.series = k.series AND l.last >= k.first AND l.first <= k.last"
                " RETURNING l.series, l.first, l.last, l.reason",
                [[span[i] for span in spans] for i in range(3)],
            )
            for id_, first, last, reason in sorted(set(found)):
                by_id[id_].lost.append((first, last, reason))  # what remains of it is written again

    def _prepare_days(self, batches: Iterable[tuple[Batch, int]]) -> None:
        """Have partitions for the business days of these events."""
        days = set()
        for batch, _ in batches:
            if batch.key[2] in ("agg", "journey"):
                days |= {
                    one.event.business_date
                    for one in batch.events
                    if isinstance(one, Good) and hasattr(one.event, "business_date")
                }
        unknown = days - self._days
        if not unknown:
            return
        now = today()
        wanted = []
        for text in unknown:
            try:
                day = now.fromisoformat(text)
            except ValueError:
                continue
            if -KEEP_PAST_DAYS <= (day - now).days <= KEEP_FUTURE_DAYS:
                wanted.append(day)
        if wanted:
            self._conn.execute("SELECT chain.prepare(%s::date[], false)", (sorted(wanted),))
        self._days |= unknown
        if len(self._days) > 10_000:  # a store that invents dates must not fill the memory
            self._days.clear()

    def _keep_ranges(self, series: Iterable[_Series]) -> None:
        changed = [one for one in series if tuple(one.ahead) != one.ahead_before]
        if stale := [one.id for one in changed if one.ahead_before]:
            self._conn.execute("DELETE FROM chain.ahead WHERE series = ANY(%s)", (stale,))
        if ahead := [(one.id, *span) for one in changed for span in one.ahead]:
            tables.copy(self._conn, "ahead", "series, first, last", ahead)
        if lost := [(one.id, *span) for one in series for span in _merged(one.lost)]:
            tables.copy(self._conn, "lost", "series, first, last, reason", lost)

    def _move(self, series: Iterable[_Series], heard_us: int) -> None:
        rows = [
            (one.id, one.upto, one.highest, one.received, one.duplicates, one.lost_more, one.dead) for one in series
        ]
        if rows:
            self._conn.execute(
                "UPDATE chain.series AS s SET upto = m.upto, highest = m.highest, received = s.received + m.received,"
                " duplicates = s.duplicates + m.duplicates, lost = s.lost + m.lost, dead = s.dead + m.dead,"
                f" heard_us = greatest(s.heard_us, %s) FROM unnest({', '.join(['%s::bigint[]'] * 7)})"
                " AS m (id, upto, highest, received, duplicates, lost, dead) WHERE s.id = m.id",
                (heard_us, *([row[i] for row in rows] for i in range(7))),
            )

    def _note_runs(self, fresh: Sequence[tuple[_Series, int, Good, int]]) -> list[Run]:
        spans = list(_runs(fresh))
        ids = self._conn.execute(
            "INSERT INTO chain.fanout (series, first, last, shard, class) SELECT * FROM"
            " unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::smallint[], %s::text[]) RETURNING id, series, first",
            (
                [it.id for it, _, _ in spans],
                [first for _, first, _ in spans],
                [first + len(payloads) - 1 for _, first, payloads in spans],
                [topics.shard(it.key[0]) for it, _, _ in spans],
                [it.key[2] for it, _, _ in spans],
            ),
        ).fetchall()
        by_start = {(series, first): id_ for id_, series, first in ids}
        return [Run(by_start[it.id, first], it.key, first, payloads) for it, first, payloads in spans]

    def _bury(self, letters: Sequence[Letter]) -> None:
        if letters:
            rows = sorted({letter.digest: letter for letter in letters}.values())
            self._conn.execute(
                "INSERT INTO chain.dead_message SELECT * FROM"
                " unnest(%s::bytea[], %s::text[], %s::text[], %s::bytea[], %s::bigint[]) ON CONFLICT DO NOTHING",
                [list(column) for column in zip(*rows, strict=True)],
            )


_DEAD = "series, seq, type, error, payload, received_us, judged_by"


def connect(url: str, application_name: str = "tagtrail") -> psycopg.Connection[Any]:
    """Connect in autocommit mode; a dead peer is noticed within half a minute, on both sides."""
    return psycopg.connect(
        url,
        autocommit=True,
        connect_timeout=5,
        keepalives_idle=5,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=15_000,
        options="-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3",
        application_name=application_name,
    )


def feed_again(conn: psycopg.Connection[Any], since_us: int) -> int:
    """Have sinks publish what was received since a time once more, because the log has lost it; returns the number of
    events. Readers drop what they have."""
    (n,) = conn.execute(
        "WITH island AS (SELECT e.series, e.seq, s.shard, s.class, e.seq - row_number() OVER (PARTITION BY e.series"
        " ORDER BY e.seq) AS number FROM chain.event e JOIN chain.series s ON s.id = e.series"
        " WHERE e.received_us >= %s AND e.received_on >= %s), made AS (INSERT INTO chain.fanout (series, first, last,"
        " shard, class, again) SELECT series, min(seq), max(seq), shard, class, true FROM island"
        " GROUP BY series, shard, class, number, seq / %s RETURNING last - first + 1 AS n)"
        " SELECT coalesce(sum(n), 0)::bigint FROM made",
        (since_us, day_of(max(0, since_us - DAY_US)), FED_AGAIN),
    ).fetchone() or (0,)
    return int(n)


def now_us() -> int:
    """Return UTC now in microseconds."""
    return time.time_ns() // 1000


def _with_origins(fresh: Iterable[tuple[_Series, int, Good, int]]) -> list[tuple[int, Good, Origin]]:
    return [(it.id, good, Origin(it.key[0], it.key[1], seq, us)) for it, seq, good, us in fresh]


def _reach(it: _Series, first: int, last: int) -> None:
    """Account for a range, and move the watermark as far as it goes."""
    it.highest = max(it.highest, last)
    if last <= it.upto:
        return
    if first <= it.upto + 1 and not it.ahead:
        it.upto = last
        return
    numbers.add(it.ahead, max(first, it.upto + 1), last)
    while it.ahead and it.ahead[0][0] <= it.upto + 1:
        it.upto = max(it.upto, it.ahead.pop(0)[1])


def _found_again(it: _Series, first: int, last: int) -> list[Range]:
    """Take numbers out of those that were lost."""
    found: list[Range] = []
    kept = []
    for low, high, reason in it.lost:
        part = (max(low, first), min(high, last))
        if part[0] > part[1] or reason == "erased":
            kept.append((low, high, reason))
            continue
        found.append(part)
        it.lost_more -= part[1] - part[0] + 1
        if low < part[0]:
            kept.append((low, part[0] - 1, reason))
        if part[1] < high:
            kept.append((part[1] + 1, high, reason))
    it.lost = kept
    return found


def _merged(lost: Iterable[tuple[int, int, str]]) -> Iterator[tuple[int, int, str]]:
    """Join neighbours with the same reason."""
    before: tuple[int, int, str] | None = None
    for one in sorted(lost):
        if before is not None and before[2] == one[2] and before[1] + 1 == one[0]:
            before = (before[0], one[1], one[2])
            continue
        if before is not None:
            yield before
        before = one
    if before is not None:
        yield before


def _runs(fresh: Iterable[tuple[_Series, int, Good, int]]) -> Iterator[tuple[_Series, int, list[bytes]]]:
    """Group new events into consecutive runs, each small enough for a message."""
    run: tuple[_Series, int, list[bytes]] | None = None
    size = 0
    for it, seq, good, _ in sorted(fresh, key=lambda one: (one[0].id, one[1])):
        if (
            run is not None
            and run[0] is it
            and run[1] + len(run[2]) == seq
            and len(run[2]) < MAX_RUN_EVENTS
            and size + len(good.raw) <= MAX_RUN_BYTES
        ):
            run[2].append(good.raw)
            size += len(good.raw)
            continue
        if run is not None:
            yield run
        run, size = (it, seq, [good.raw]), len(good.raw)
    if run is not None:
        yield run
