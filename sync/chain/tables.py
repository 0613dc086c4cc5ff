"""Writing of events and their rows within a sink's transaction, in a few statements however many they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import psycopg

from config import topics
from sync.chain.decoding import Good
from sync.chain.rows import COLUMNS, Origin, Rows, rows_of

_REPORT = {
    **dict.fromkeys(("store", "epoch", "type", "about"), "text"),
    "first_day": "date",
    "last_day": "date",
    "revision": "bigint",
    "as_of_us": "bigint",
    "payload": "jsonb",
}
_HEALTH = {"store": "text", "shard": "smallint", "health_us": "bigint", "health": "jsonb"}
_EXAMINED = {"store": "text", "shard": "smallint", "examined": "jsonb"}
_LAYOUT = {"store": "text", "version": "text", "floor": "text", "from_us": "bigint", "payload": "jsonb"}


def keep(conn: psycopg.Connection[Any], fresh: Sequence[tuple[int, Good, Origin]]) -> None:
    """Store new events, with their series, and the rows that they become."""
    if not fresh:
        return
    rows = [(series, at.seq, at.received_us, good.type, good.raw.decode()) for series, good, at in fresh]
    copy(conn, "event", "series, seq, received_us, type, payload", rows)
    made = rows_of([(good, at) for _, good, at in fresh])
    for table, columns in COLUMNS.items():
        if table in made:
            copy(conn, table, ", ".join(columns), made[table])
    _replace(conn, made)


def copy(conn: psycopg.Connection[Any], table: str, columns: str, rows: Iterable[Sequence[Any]]) -> None:
    """Append rows to a table."""
    with conn.cursor() as cursor, cursor.copy(f"COPY chain.{table} ({columns}) FROM STDIN".encode()) as copying:
        for row in rows:
            copying.write_row(row)


def _replace(conn: psycopg.Connection[Any], made: Rows) -> None:
    """Replace what later revisions and reports make void. Sorted, so that sinks don't block each other."""
    if reports := made.get("day_report"):
        latest = {row[:6]: row for row in sorted(reports, key=lambda row: (row[:6], row[6]))}
        _upsert(conn, "day_report", _REPORT, 6, latest.values(), "excluded.revision > day_report.revision")
    if layouts := made.get("layout"):
        latest = {row[:3]: row for row in sorted(layouts)}
        _upsert(conn, "layout", _LAYOUT, 3, latest.values(), "excluded.from_us >= layout.from_us")
    if health := made.get("health"):
        told = sorted(((row[0], topics.shard(row[0]), *row[1:]) for row in health), key=lambda row: row[:3])
        newest = {row[0]: row[:4] for row in told}
        _upsert(conn, "store", _HEALTH, 1, newest.values(), "excluded.health_us >= coalesce(store.health_us, 0)")
        if examined := {row[0]: (*row[:2], row[4]) for row in told if row[4] is not None}:
            _upsert(conn, "store", _EXAMINED, 1, examined.values(), "true")


def _upsert(
    conn: psycopg.Connection[Any],
    table: str,
    kinds: Mapping[str, str],
    key: int,
    rows: Iterable[Sequence[Any]],
    when: str,
) -> None:
    """Insert rows or, where one with the same first `key` columns exists, replace its others."""
    names = list(kinds)
    sets = ", ".join(f"{name} = excluded.{name}" for name in names[key:])
    columns = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
    # One JSON text: within an array psycopg takes a microsecond for each quotation mark.
    told = [
        {
            name: msgspec.Raw(value.encode()) if kinds[name] == "jsonb" else value
            for name, value in zip(names, row, strict=True)
        }
        for row in rows
    ]
    conn.execute(
        f"INSERT INTO chain.{table} ({', '.join(names)}) SELECT {', '.join(names)}"
        f" FROM jsonb_to_recordset(%s::jsonb) AS r ({columns})"
        f" ON CONFLICT ({', '.join(names[:key])}) DO UPDATE SET {sets} WHERE {when}".encode(),
        (msgspec.json.encode(told).decode(),),
    )
