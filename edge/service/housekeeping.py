"""Periodic work of the service: daily summaries, reports to the CRM about them, retention."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Container, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from config import StoreConfig
from edge.access.users import Users, users_path
from edge.access.verdicts import forget as forget_verdicts
from edge.crm import corrections, day_news
from edge.cues.digest import tell as tell_digests
from edge.database.reader import connect
from edge.database.retention import DAY_US, SLICE_ROWS, forget_hints, make_room, old_hints, prune
from edge.days import kept, sold
from edge.days.facts import DayFacts
from edge.days.history import History
from edge.store.business_days import business_days
from edge.store.errors import NotMade
from edge.store.files import delete_old
from sync import outbox, quota

if TYPE_CHECKING:
    from edge.database.writer import Database

T = TypeVar("T")
Step = Callable[["Database", StoreConfig, Container[str]], Awaitable[bool]]
log = logging.getLogger("tagtrail.housekeeping")
PERIOD_S, RARELY_S = 60.0, 3600.0
SO_FAR_S = 300.0
"""How often the present day is summed up for the page, which would otherwise do so with every look. A day of a large
store is a hundred kilobytes: more often would wear the flash."""
BREATH_S = 1.0
"""Pause between two steps of a job."""


class Housekeeping:
    """Periodic jobs by name. Of those that read much, only one runs at a time.

    `forget_erased` forgets members erased before a given time. `retained_us`: the store time used for retention, and
    `retained_s` the machine's; while `waits`, the time is unknown and nothing is done.
    """

    def __init__(
        self,
        database: Database,
        config: StoreConfig,
        clock: Callable[[], int],
        forget_erased: Callable[[int], Awaitable[None]],
        *,
        retained_us: Callable[[], int] | None = None,
        retained_s: Callable[[], float] = time.time,
        waits: Callable[[], bool] = lambda: False,
    ) -> None:
        self._database = database
        self._retained_us, self._retained_s = retained_us or clock, retained_s
        self._waits = waits
        self._forget_erased = forget_erased
        self._config = config
        self._clock = clock
        self._reading = asyncio.Lock()

    def rounds(self) -> Iterator[tuple[float, str, Callable[[], Awaitable[None]]]]:
        """Yield interval in seconds, name and function of each job."""
        rounds = (
            (PERIOD_S, "retention", self._prune),
            (RARELY_S, "old files", self._delete_old),
            (PERIOD_S, "quota", self._keep_quota),
            (PERIOD_S, "digests", self._tell_digests),
            (PERIOD_S, "day facts", partial(self._until_done, sum_up)),
            (PERIOD_S, "sales facts", partial(self._until_done, sum_up_sales)),
            (SO_FAR_S, "facts of the day so far", self._sum_up_so_far),
            (PERIOD_S, "day news", partial(self._until_done, tell_days)),
            (PERIOD_S, "corrections", partial(self._until_done, tell_corrections)),
        )
        for period_s, name, work in rounds:
            yield period_s, name, partial(self._unless_waiting, work)

    async def _unless_waiting(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do a round, once the time is known."""
        while self._waits():
            await asyncio.sleep(BREATH_S)
        await work()

    async def _prune(self) -> None:
        def tidy(conn: sqlite3.Connection) -> int:
            config, now_us = self._config, self._retained_us()
            gone = outbox.forget(conn, now_us, SLICE_ROWS) + prune(conn, config, now_us)
            gone += day_news.forget(conn, config, business_days(config).date(now_us))
            return gone + kept.prune(conn, config, now_us) + sold.prune(conn, config, now_us)

        while await self._database.write(tidy):
            await asyncio.sleep(0)

    async def _delete_old(self) -> None:
        """Delete expired data outside the main tables: files, directory hints, sessions, the audit log, verdicts,
        erasures.
        """
        path, now_us = self._database.path, self._retained_us()
        for file in await asyncio.to_thread(delete_old, path, self._retained_s()):
            log.info("%s has expired and was deleted", file.name)
        while tags := await look_at(self._database, lambda conn: old_hints(conn, now_us)):
            await self._database.write(partial(forget_hints, tags=tags, now_us=now_us))
        await asyncio.to_thread(forget_verdicts, self._config, business_days(self._config).date(now_us))
        users = Users(users_path(self._config))
        try:
            await asyncio.to_thread(users.prune)
            await asyncio.to_thread(users.prune_audit, self._retained_s())
        finally:
            users.close()
        await self._forget_erased(now_us - self._config.database.keep_days * DAY_US)

    async def _keep_quota(self) -> None:
        while await self._database.read(quota.in_use) >= quota.FULL:
            if lost := await self._database.write(lambda conn: make_room(conn, self._config, self._retained_us())):
                log.error("the database is full: the oldest %d events for the CRM were dropped", lost)
            await asyncio.sleep(0)

    async def _tell_digests(self) -> None:
        await self._database.write(lambda conn: tell_digests(conn, self._config, self._clock()))

    async def _sum_up_so_far(self) -> None:
        async with self._reading:
            await sum_up_so_far(self._database, self._config)

    async def _until_done(self, step: Step) -> None:
        """Repeat a step until there is nothing left; failed items are skipped, and their error is raised at the end."""
        failed: dict[str, NotMade] = {}
        more = True
        while more:
            async with self._reading:
                try:
                    more = await step(self._database, self._config, failed)
                except NotMade as error:
                    failed[error.key] = error
            await asyncio.sleep(BREATH_S)
        if failed:
            raise next(iter(failed.values()))


async def sum_up(database: Database, config: StoreConfig, besides: Container[str] = ()) -> bool:
    """Store the facts of one completed business day that is not yet summarised; False if there is none.

    They are computed outside the writer, which would delay greetings. `besides`: dates to skip, here and below. Raises
    NotMade.
    """

    def facts(conn: sqlite3.Connection) -> DayFacts | None:
        past = History(conn, config)
        date = past.missing(besides)
        try:
            return None if date is None else past.make(date)
        except sqlite3.Error:
            raise
        except Exception as error:
            raise NotMade(str(date), error) from error

    made = await look_at(database, facts)
    if made is None:
        return False
    await database.write(lambda conn: kept.save(conn, config, made))
    return True


async def sum_up_so_far(database: Database, config: StoreConfig) -> bool:
    """Store the facts of the day in progress, for a while; False if nothing has happened since they were stored."""

    def facts(conn: sqlite3.Connection) -> DayFacts | None:
        past = History(conn, config)
        now_us = past.watermark_us
        if now_us is None:
            return None
        date = business_days(config).date(now_us)
        stored = kept.load(past, [date])
        return None if date in stored and stored[date].as_of_us == now_us else past.make(date)

    made = await look_at(database, facts)
    if made is None:
        return False
    await database.write(lambda conn: kept.save(conn, config, made, so_far=True))
    return True


async def sum_up_sales(database: Database, config: StoreConfig, besides: Container[str] = ()) -> bool:
    """Store the facts about the sales of one summarised day; False if there is none. Raises NotMade."""

    def facts(conn: sqlite3.Connection) -> tuple[dt.date, str, sold.SalesFacts] | None:
        past = History(conn, config)
        found = sold.missing(past, besides)
        try:
            return None if found is None else (*found, sold.make(past, found[0]))
        except sqlite3.Error:
            raise
        except Exception as error:
            raise NotMade(str(found and found[0]), error) from error

    made = await look_at(database, facts)
    if made is None:
        return False
    await database.write(lambda conn: sold.save(conn, config, *made))
    return True


async def tell_days(database: Database, config: StoreConfig, besides: Container[str] = ()) -> bool:
    """Send one report about summarised days to the CRM; False if there is none."""
    item = await look_at(database, lambda conn: day_news.news(History(conn, config), besides))
    if item is None:
        return False
    await database.write(lambda conn: day_news.tell(conn, item))
    return True


async def tell_corrections(database: Database, config: StoreConfig, besides: Container[str] = ()) -> bool:
    """Re-send the changed windows of one summarised day to the CRM; False if there are none."""
    found = await look_at(database, lambda conn: corrections.corrections(History(conn, config), besides))
    while found is not None and not await database.write(partial(corrections.tell, found=found)):
        found = replace(found, windows=found.windows[corrections.AT_ONCE :])
    return found is not None


async def look_at(database: Database, find: Callable[[sqlite3.Connection], T]) -> T:
    """Run `find` on one snapshot of the database, outside the event loop and the writer."""

    def look() -> T:
        with closing(connect(database.path)) as conn:
            conn.execute("BEGIN")
            return find(conn)

    return await asyncio.to_thread(look)
