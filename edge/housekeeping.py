"""What a gateway throws away by itself: what is too old, and, near the quota, what can be spared."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from config import StoreConfig
from edge import corrections, daystore, daytopics
from edge.dayfacts import DayFacts, make
from edge.digest import tell as tell_digests
from edge.people import business_days
from edge.reading import connect
from sync import outbox, room

if TYPE_CHECKING:
    from edge.database import Database

T = TypeVar("T")

log = logging.getLogger("tagtrail.housekeeping")

ROUND_S = 60.0
SLICE_ROWS = 2_000
"""Rows deleted in one transaction: a greeting waits for it a few milliseconds at most."""
DAY_US = 86_400_000_000
MARGIN_DAYS = 35
"""Journeys are kept so much longer than the days within which a member counts as returning."""


def prune(conn: sqlite3.Connection, config: StoreConfig, now_us: int, most: int = SLICE_ROWS) -> int:
    """Delete the oldest visits, journeys and windows whose time is over, at most so many of each; how many."""
    paths_us = now_us - (config.thresholds.returning_days + MARGIN_DAYS) * DAY_US
    windows_us = now_us - config.database.keep_days * DAY_US
    gone = 0
    for table, start in (("visit", "enter_us"), ("journey", "start_us")):
        # The highest id stays, because it says how many there ever were.
        gone += conn.execute(
            f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE {start} < ? ORDER BY {start} LIMIT ?)"
            f" AND id < (SELECT max(id) FROM {table})",
            (paths_us, most),
        ).rowcount
    gone += conn.execute(
        "DELETE FROM cue WHERE id IN (SELECT id FROM cue WHERE made_us < ? LIMIT ?)", (paths_us, most)
    ).rowcount
    cases = conn.execute("SELECT id FROM service_case WHERE at_us < ? LIMIT ?", (paths_us, most)).fetchall()
    for table, key in (("case_step", "case_id"), ("service_case", "id")):
        gone += conn.executemany(f"DELETE FROM {table} WHERE {key} = ?", cases).rowcount
    oldest = "SELECT window_us FROM aggregate WHERE window_us < ? ORDER BY window_us LIMIT 1 OFFSET ?"
    row = conn.execute(oldest, (windows_us, most)).fetchone()
    upto_us = row[0] if row else windows_us
    for table in ("aggregate", "corrected", "door"):
        gone += conn.execute(f"DELETE FROM {table} WHERE window_us < ?", (upto_us,)).rowcount
    return gone


def make_room(conn: sqlite3.Connection, config: StoreConfig, now_us: int) -> int:
    """Near the quota: throw old history away before any event of the outbox; how many events the CRM loses."""
    if room.in_use(conn) < room.FULL or prune(conn, config, now_us):
        return 0
    return room.make_room(conn)


async def sum_up(database: Database, config: StoreConfig) -> bool:
    """Store the facts of one business day that is over and not yet summed up, if there is one; whether there was.

    They are made beside the writer, which would keep greetings waiting.
    """

    def facts(conn: sqlite3.Connection) -> DayFacts | None:
        date = daystore.missing(conn, config)
        return None if date is None else make(conn, config, date)

    made = await _look(database, facts)
    if made is None:
        return False
    await database.write(lambda conn: daystore.save(conn, config, made))
    return True


async def tell_days(database: Database, config: StoreConfig) -> bool:
    """Tell the CRM one thing that has become known of days that are summed up; whether there was one."""

    item = await _look(database, lambda conn: daytopics.news(conn, config))
    if item is None:
        return False
    await database.write(lambda conn: daytopics.tell(conn, item))
    return True


async def tell_corrections(database: Database, config: StoreConfig) -> bool:
    """Tell the CRM anew of the windows of one summed-up day that have become something else; whether there was one."""

    found = await _look(database, lambda conn: corrections.corrections(conn, config))
    while found is not None and not await database.write(partial(corrections.tell, found=found)):
        found = replace(found, windows=found.windows[corrections.AT_ONCE :])
    return found is not None


async def keep_house(database: Database, config: StoreConfig, clock: Callable[[], int]) -> None:
    """Once a minute, for ever: forget what was acknowledged long ago and what is too old, and see to the quota."""

    def tidy(conn: sqlite3.Connection) -> int:
        gone = outbox.forget(conn, clock(), SLICE_ROWS) + prune(conn, config, clock())
        gone += daytopics.forget(conn, config, business_days(config).date(clock()))
        return gone + daystore.prune(conn, config, clock())

    while True:
        try:
            await database.write(lambda conn: tell_digests(conn, config, clock()))
            while await database.write(tidy):
                await asyncio.sleep(0)
            while await database.read(room.in_use) >= room.FULL:
                if lost := await database.write(lambda conn: make_room(conn, config, clock())):
                    log.error("the database is full: the oldest %d events for the CRM were given up", lost)
                await asyncio.sleep(0)
            while (
                await sum_up(database, config)
                or await tell_days(database, config)
                or await tell_corrections(database, config)
            ):
                await asyncio.sleep(1)
        except sqlite3.Error as error:
            log.warning("housekeeping waits for the database: %s", error)
        await asyncio.sleep(ROUND_S)


async def _look(database: Database, find: Callable[[sqlite3.Connection], T]) -> T:
    """What `find` finds in one snapshot, beside the loop and the writer."""

    def look() -> T:
        with closing(connect(database.path)) as conn:
            conn.execute("BEGIN")
            return find(conn)

    return await asyncio.to_thread(look)
