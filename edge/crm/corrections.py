"""Re-send windows whose counts changed after publishing, completely, as the next revision.

A window is published when it is over. Later, visits held open in unknown zones end, tags that turn out to be stuck or
staff are excluded from their day, and readers that were disconnected deliver passages of door counters. Whenever a day
is summarised, its windows are therefore recounted from the same visits as the day's facts. The table `aggregate`
contains what was published last.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dwell.aggregates import tally
from dwell.layout import Settings, TagClass
from dwell.stays import Span
from edge.crm import day_news
from edge.database.reader import Past
from edge.days.facts import place, read_stays, suspects
from edge.days.kept import DAY
from edge.intake.windows import COUNTS, WINDOW_KEY, doors, window_event
from edge.store import layouts
from edge.store.business_days import business_days
from edge.store.errors import NotMade
from sync import outbox
from sync.contract import ZoneWindow
from sync.quota import merged_until_us

AT_ONCE = 200
"""Maximum number of events per transaction, because greetings have to wait for it."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Corrections:
    """Windows of one day to re-send; empty: only record that the day has been checked."""

    key: str
    basis: str
    windows: tuple[tuple[ZoneWindow, Row], ...]
    """Each with its row in `aggregate`."""


def corrections(past: Past, besides: Container[str] = ()) -> Corrections | None:
    """Find the corrections of the next day that has not been checked since it was summarised; None if there is none.

    `besides`: keys to skip. Raises NotMade if the corrections of a day fail.
    """
    told = dict(past.conn.execute("SELECT key, basis FROM told WHERE key LIKE 'windows/%'").fetchall())
    stored = day_news.summed_up(past)
    for date in day_news.young(stored):
        # People in the store overnight belong to the day before.
        basis = f"{past.config.thresholds.def_version}/{stored.get(date - DAY, '')} {stored[date]}"
        key = f"windows/{date}"
        if key not in besides and told.get(key) != basis:
            try:
                return Corrections(key, basis, tuple(_of_day(past, date)))
            except sqlite3.Error:
                raise
            except Exception as error:
                raise NotMade(key, error) from error
    return None


def tell(conn: sqlite3.Connection, found: Corrections) -> bool:
    """Add some of the corrections to the outbox, in the caller's transaction; True if these were all."""
    some = found.windows[:AT_ONCE]
    # Some may have been merged into longer windows since they were checked.
    still = [(event, row) for event, row in some if event.window_us >= merged_until_us(conn)]
    outbox.append(conn, "agg", [event for event, _ in still])
    for event, row in still:
        names = ", ".join(row)
        conn.execute(
            f"INSERT OR REPLACE INTO aggregate ({names}) VALUES ({', '.join('?' * len(row))})", tuple(row.values())
        )
        key = (*(row[name] for name in WINDOW_KEY), event.revision)
        conn.execute("INSERT OR REPLACE INTO corrected VALUES (?, ?, ?, ?)", key)
        if event.door is not None:
            conn.execute(
                "UPDATE door SET told = passages, told_us = covered_us WHERE window_us = ? AND zone = ?",
                (event.window_us, event.zone),
            )
    if len(found.windows) > len(some):
        return False
    conn.execute("INSERT OR REPLACE INTO told VALUES (?, ?, '', 0)", (found.key, found.basis))
    return True


def _of_day(past: Past, date: dt.date) -> Iterator[tuple[ZoneWindow, Row]]:
    config = past.config
    days, store, limits = business_days(config), place(config), config.thresholds
    span = Span(*days.bounds_us(date))
    settings = Settings(touch_us=store.touch_us, visit_us=store.visit_us, engaged_us=store.engaged_us)
    number = {zone.id: n for n, zone in enumerate(config.zones)}
    before: dict[int, dict[tuple[int, int], Row]] = {}
    columns = (*WINDOW_KEY, *COUNTS, "coverage", "def_version", "histogram")
    for found in past.conn.execute(
        f"SELECT {', '.join(columns)} FROM aggregate WHERE window_us >= ? AND window_us < ? AND def_version = ?",
        (max(span.first_us, merged_until_us(past.conn)), span.end_us, limits.def_version),
    ):
        row = dict(zip(columns, found, strict=True))
        if row["zone"] in number and row["tag_class"] != TagClass.MERCHANDISE:
            before.setdefault(row["window_us"], {})[number[row["zone"]], row["tag_class"]] = row
    stays, tags = read_stays(past, span)
    left_out = [carrier for carrier, one in suspects(stays, tags, config, date).items() if one.left_out]
    stays = stays[~np.isin(stays["carrier"], left_out)]
    for window_us, rows in sorted(before.items()):
        if days.date(window_us) != date:
            continue
        end_us = window_us + settings.window_us
        there = stays[(stays["enter_us"] < end_us) & (stays["exit_us"] >= window_us)]
        now = {
            (int(row["zone"]), int(row["tag_class"])): row
            for row in tally(there, there["exit_us"], window_us, len(config.zones), settings)
        }
        nothing = np.zeros(1, next(iter(now.values())).dtype)[0]
        changed = {
            key: _row(window_us, config.zones[key[0]].id, key[1], now.get(key, nothing), rows)
            for key in sorted({*now, *rows})
        }
        late = _late_passages(past.conn, window_us)
        changed = {
            key: row
            for key, row in changed.items()
            if _differs(row, rows.get(key)) or (key in rows and key[1] == TagClass.MEMBER and row["zone"] in late)
        }
        if not changed:
            continue
        layout, counted = (
            layouts.during(past.conn, window_us, end_us),
            doors(past.conn, {window_us}, settings.window_us),
        )
        for row in changed.values():
            revision = _revision(past.conn, row) + 1
            event = window_event(
                row,
                floor=config.zones[number[row["zone"]]].floor,
                length_us=settings.window_us,
                business_date=date.isoformat(),
                layout_version=layout[-1].version if layout else "",
                door=counted.get((window_us, row["zone"])),
                revision=revision,
            )
            yield event, row


def _row(window_us: int, zone: str, tag_class: int, made: Any, rows: dict[tuple[int, int], Row]) -> Row:
    """Build the row for the table, with the previous coverage."""
    of_zone = [row for row in rows.values() if row["zone"] == zone]
    return {
        "window_us": window_us,
        "zone": zone,
        "tag_class": tag_class,
        **{name: int(made[name]) for name in COUNTS},
        "coverage": max((row["coverage"] for row in of_zone), default=0.0),
        "def_version": next(iter(rows.values()))["def_version"],
        "histogram": made["histogram"].astype("<u4").tobytes(),
    }


def _late_passages(conn: sqlite3.Connection, window_us: int) -> set[str]:
    """Return the zones with passages that were delivered after the window was published."""
    return {
        zone
        for (zone,) in conn.execute(
            "SELECT zone FROM door WHERE window_us = ? GROUP BY zone HAVING sum(passages) > sum(told)", (window_us,)
        )
    }


def _differs(row: Row, before: Row | None) -> bool:
    if before is None:  # empty windows are not published
        return any(row[name] for name in COUNTS)
    return any(row[name] != before[name] for name in (*COUNTS, "histogram"))


def _revision(conn: sqlite3.Connection, row: Row) -> int:
    key = tuple(row[name] for name in WINDOW_KEY)
    found = conn.execute(
        f"SELECT revision FROM corrected WHERE {' AND '.join(f'{name} = ?' for name in WINDOW_KEY)}", key
    ).fetchone()
    return 1 if found is None else int(found[0])
