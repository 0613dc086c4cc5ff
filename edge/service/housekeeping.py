"""Once a minute: sums up days that are over, tells the CRM of them, and deletes what is too old."""

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
from edge.crm import corrections, day_news
from edge.cues.digest import tell as tell_digests
from edge.database.reader import connect
from edge.days import kept
from edge.days.facts import DayFacts, make
from edge.store.business_days import business_days
from sync import outbox, room

if TYPE_CHECKING:
    from edge.database.writer import Database
from edge.database.room import SLICE_ROWS, make_room, prune

T = TypeVar("T")
log = logging.getLogger("tagtrail.housekeeping")
ROUND_S = 60.0


async def sum_up(database: Database, config: StoreConfig) -> bool:
    """Store the facts of one business day that is over and not yet summed up, if there is one; whether there was.

    They are made beside the writer, which would keep greetings waiting.
    """

    def facts(conn: sqlite3.Connection) -> DayFacts | None:
        date = kept.missing(conn, config)
        return None if date is None else make(conn, config, date)

    made = await _look(database, facts)
    if made is None:
        return False
    await database.write(lambda conn: kept.save(conn, config, made))
    return True


async def tell_days(database: Database, config: StoreConfig) -> bool:
    """Tell the CRM one thing that has become known of days that are summed up; whether there was one."""

    item = await _look(database, lambda conn: day_news.news(conn, config))
    if item is None:
        return False
    await database.write(lambda conn: day_news.tell(conn, item))
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
        gone += day_news.forget(conn, config, business_days(config).date(clock()))
        return gone + kept.prune(conn, config, clock())

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
