"""Keep the outbox within the database's quota: what is deleted first, and how the CRM is informed.

Deletes still work under the quota (`PRAGMA max_page_count`); on a full disk nothing does, so this is called before.
In order, until there is enough space: acknowledged events that were kept for a replay; the oldest of classes that hold
more than their share; then by priority the oldest of health, of agg (which is merged to hours and days before), of
journey, and last of member. What the CRM never had becomes a `lost` range that is delivered to it.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from pydantic import TypeAdapter

from sync import outbox
from sync.contract import CLASSES, Door, EventClass, ZoneWindow

FULL = 0.9
"""Share of the page quota in use at which `make_room` starts …"""
ENOUGH = 0.8
"""… and down to which it deletes."""
SHARES: dict[EventClass, float] = {"member": 0.5, "journey": 0.6, "agg": 0.3, "health": 0.1}
"""Maximum share of the quota for a class: a flood of one must not push out the others."""
EVICT_ROWS = 500
"""Rows evicted between two checks of the quota …"""
STEPS = 20
"""… and how often one call repeats that."""
MERGED = "merged into a longer window"
GIVEN_UP = "a correction, given up for lack of space"
MERGE_ROWS = 2_000
HOUR_US = 3600 * 1_000_000
_COUNTS = ("entered", "ended", "censored", "pass_by", "touch", "visit", "engaged", "present_us")
_WINDOW = TypeAdapter(ZoneWindow)
_IS_WINDOW = '"type":"zone_window"'
"""Marks windows in JSON, behind the id."""
_IS_FIRST = '"revision":1,'
MERGED_UNTIL = "merged_until_us"
"""Fact: windows before this time were merged, or may be part of a merged one, and must not be sent again."""


def in_use(conn: sqlite3.Connection) -> float:
    """Return the share of the page quota in use."""
    pages, free, most = (
        conn.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "max_page_count")
    )
    return float(pages - free) / float(most)


def make_room(conn: sqlite3.Connection) -> int:
    """Delete events near the quota; returns how many the CRM will never get, not counting merged ones. Does a bounded
    amount of work; call again until `in_use` is below FULL.
    """
    evicted = 0
    if in_use(conn) < FULL:
        return 0
    for _ in range(STEPS):
        if in_use(conn) <= ENOUGH:
            break
        if _drop_kept(conn):
            continue
        over = [class_ for class_ in reversed(CLASSES) if _share(conn, class_) > SHARES[class_]]
        for class_ in (*over, *reversed(CLASSES)):
            if class_ == "agg" and merge_windows(conn):
                break
            if gone := outbox.evict(conn, class_, EVICT_ROWS):
                evicted += gone
                break
    return evicted


def merge_windows(conn: sqlite3.Connection) -> int:
    """Merge the next unsent windows of class agg into hours, or hours into days; returns how many it processed.

    A merged window bears the last number of its parts; the numbers of the others are told as lost, so that what the
    CRM adds up stays the same.
    """
    return _merge(conn, "merged_hours") or _merge(conn, "merged_days")


def merged_until_us(conn: sqlite3.Connection) -> int:
    """Return the time from which the CRM has single windows; earlier ones may be part of a longer one."""
    row = conn.execute("SELECT value FROM fact WHERE name = ?", (MERGED_UNTIL,)).fetchone()
    return 0 if row is None else int(row[0])


def _drop_kept(conn: sqlite3.Connection) -> int:
    acked = outbox.acknowledged(conn)
    for class_ in reversed(CLASSES):
        if gone := outbox.delete_oldest(conn, class_, acked[class_], EVICT_ROWS):
            return gone
    return 0


def _share(conn: sqlite3.Connection, class_: EventClass) -> float:
    (held,) = conn.execute("SELECT bytes FROM outbox_class WHERE class = ?", (outbox.index(class_),)).fetchone()
    most, page = (conn.execute(f"PRAGMA {name}").fetchone()[0] for name in ("max_page_count", "page_size"))
    return float(held) / float(most * page)


def _merge(conn: sqlite3.Connection, cursor: Literal["merged_hours", "merged_days"]) -> int:
    key, events = outbox.index("agg"), outbox.table("agg")
    rows = conn.execute(
        f"SELECT seq, payload FROM {events} WHERE seq > (SELECT max(tried, acked, {cursor}) FROM outbox_class"
        " WHERE class = ?) ORDER BY seq LIMIT ?",
        (key, MERGE_ROWS),
    ).fetchall()
    if not rows:
        return 0
    groups: dict[tuple[object, ...], list[tuple[int, ZoneWindow]]] = defaultdict(list)
    gone: list[int] = []
    anew: list[int] = []
    until_us = 0
    for seq, payload in rows:
        if _IS_WINDOW not in payload[:400]:  # days are told once and stay as they are
            continue
        window = _WINDOW.validate_json(payload)
        if window.revision > 1:  # of something that now stands in a longer window, or may soon
            anew.append(seq)
            continue
        span = window.window_us // HOUR_US if cursor == "merged_hours" else 0
        place = window.zone, window.tag_class, window.layout_version
        groups[*place, window.def_version, window.business_date, span].append((seq, window))
    for parts in groups.values():
        if len(parts) > 1:
            last, window = parts[-1]
            one = _sum([window for _, window in parts]).model_copy(update={"id": window.id})
            conn.execute(f"UPDATE {events} SET payload = ? WHERE seq = ?", (one.model_dump_json(), last))
            gone += [seq for seq, _ in parts[:-1]]
            until_us = max(until_us, one.window_us + one.length_us)
    later = _corrections_before(conn, until_us, rows[-1][0])
    anew += [seq for seq, _ in later]
    for numbers, reason in ((gone, MERGED), (anew, GIVEN_UP)):
        conn.executemany(f"DELETE FROM {events} WHERE seq = ?", [(seq,) for seq in numbers])
        outbox.lose_all(conn, "agg", sorted(numbers), reason)
    conn.execute(
        "INSERT INTO fact VALUES (?, ?) ON CONFLICT (name) DO UPDATE"
        " SET value = max(CAST(value AS INTEGER), CAST(excluded.value AS INTEGER))",
        (MERGED_UNTIL, str(until_us)),
    )
    before = sum(len(payload.encode()) for _, payload in (*rows, *later))
    (after,) = conn.execute(
        f"SELECT coalesce(sum(length(CAST(payload AS BLOB))), 0) FROM {events} WHERE seq BETWEEN ? AND ?",
        (rows[0][0], rows[-1][0]),
    ).fetchone()
    conn.execute(
        f"UPDATE outbox_class SET bytes = bytes - ?, {cursor} = ? WHERE class = ?", (before - after, rows[-1][0], key)
    )
    return len(rows)


def _corrections_before(conn: sqlite3.Connection, until_us: int, after: int) -> list[tuple[int, str]]:
    """Return corrections after number `after` of windows before a time: beside a merged window they would count
    twice."""
    if not until_us:
        return []
    rows = conn.execute(
        f"SELECT seq, payload FROM {outbox.table('agg')} WHERE seq > ? AND instr(payload, ?) = 0"
        " AND instr(substr(payload, 1, 400), ?)",
        (after, _IS_FIRST, _IS_WINDOW),
    )
    return [(seq, payload) for seq, payload in rows if _WINDOW.validate_json(payload).window_us < until_us]


def _sum(parts: Sequence[ZoneWindow]) -> ZoneWindow:
    """Merge windows of one zone and tag class: counts and histograms add up, the peak is the maximum."""
    start_us = min(part.window_us for part in parts)
    end_us = max(part.window_us + part.length_us for part in parts)
    histogram: dict[str, int] = defaultdict(int)
    for part in parts:
        for bin_, count in part.histogram.items():
            histogram[bin_] += count
    length_us = sum(part.length_us for part in parts)
    coverage = sum(part.coverage * part.length_us for part in parts) / length_us
    return parts[0].model_copy(
        update={name: sum(getattr(part, name) for part in parts) for name in _COUNTS}
        | {
            "window_us": start_us,
            "length_us": end_us - start_us,
            "peak": max(part.peak for part in parts),
            "coverage": min(1.0, round(coverage, 4)),
            "histogram": dict(sorted(histogram.items(), key=lambda item: int(item[0]))),
            "door": _sum_doors(parts, length_us),
        }
    )


def _sum_doors(parts: Sequence[ZoneWindow], length_us: int) -> Door | None:
    doors = [(part.door, part.length_us) for part in parts if part.door is not None]
    if not doors:
        return None
    covered_us = sum(door.coverage * part_us for door, part_us in doors)
    passages = sum(door.passages for door, _ in doors)
    return Door(passages=passages, coverage=min(1.0, round(covered_us / length_us, 4)))
