"""Sales from the chain's tills, by zone and hour: `down/sales`, and what `tagtrail sales import` shares with it.

    taken = take(conn, config, [Sold("shoes", hour_us, 12, 15, 199_000)], Terms(now_us=now_us, currency="CNY"))

Counts only: no receipt, member or employee. The same hour again replaces what was there.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Annotated, Any, NamedTuple

from pydantic import Field, ValidationError

from config import StoreConfig
from edge.database.retention import DAY_US
from edge.database.writer import Database
from edge.store.business_days import business_days
from sync.commands import first_of, id_of
from sync.down import MAX_SALES, MAX_SALES_BYTES, Result, SalesHead, SalesHour
from sync.mqtt import Incoming

log = logging.getLogger("tagtrail.sales")

HOUR_US = 3_600_000_000
SLICE_ROWS = 1_000
"""Hours written in one transaction: a greeting waits for at most a few milliseconds."""
WAITING = 64
"""Messages that may wait: a chain may send a week at once."""
MOST_FILLED = 20_000
"""Most hours without sales that a message may fill: 60 zones for two weeks."""
PROBLEMS_TOLD = 20
"""Maximum number of refused hours in an answer; the others are counted."""
CURRENCY = "currency"
"""Name of the fact with the currency of all amounts in the database."""


class Sold(NamedTuple):
    """What was sold in one zone in one hour; units and hundredths of the currency are None if they were not told.

    All three are None if the hour is unknown, whatever was told before.
    """

    zone: str
    hour_us: int
    tickets: int | None
    units: int | None = None
    cents: int | None = None


@dataclass(frozen=True)
class Terms:
    """What applies to all hours that come together."""

    now_us: int
    currency: str | None = None
    revision: int | None = None


@dataclass
class Taken:
    """What became of hours: `problems` has the number of each refused one, from 0, and the reason."""

    taken: int = 0
    """Hours that are now in the database."""
    changed: int = 0
    """Of these, hours that were new or different."""
    problems: list[tuple[int, str]] = field(default_factory=list)


class SalesDesk:
    """Takes `down/sales` and answers with `say("up/result", …)`; `run` writes until cancelled."""

    def __init__(
        self, config: StoreConfig, database: Database, clock: Callable[[], int], say: Callable[[str, bytes], None]
    ) -> None:
        self._config = config
        self._database = database
        self._clock = clock
        self._say = say
        self._waiting: asyncio.Queue[Incoming] = asyncio.Queue(WAITING)

    async def take(self, incoming: Incoming) -> None:
        """Take a message; refused at once if too many are waiting."""
        if self._waiting.full():
            self._answer(id_of(incoming.payload), "refused", f"{WAITING} messages are waiting: send it again later")
            return
        self._waiting.put_nowait(incoming)

    async def run(self) -> None:
        """Write the messages taken, one at a time, and answer each."""
        while True:
            incoming = await self._waiting.get()
            try:
                await self._write(incoming.payload)
            except sqlite3.Error as error:
                log.warning("sales could not be stored: %s", error)
                self._answer(id_of(incoming.payload), "failed", f"the database: {error}")

    async def _write(self, payload: bytes) -> None:
        if len(payload) > MAX_SALES_BYTES:
            self._answer("", "refused", f"{len(payload)} bytes; the limit is {MAX_SALES_BYTES}")
            return
        try:
            message = _Loose.model_validate_json(payload, strict=True)
        except ValidationError as error:
            self._answer(id_of(payload), "refused", first_of(error))
            return
        sold, places, problems = [], [], []
        terms = Terms(self._clock(), message.currency, message.revision)
        for place, raw in enumerate(message.hours):
            try:
                one = _sold(SalesHour.model_validate(raw, strict=True))
                reason = wrong(self._config, one, terms)
            except ValidationError as error:
                reason = first_of(error)
            if reason is None:
                sold.append(one)
                places.append(place)
            else:
                problems.append((place, reason))
        if message.whole_days and not problems:
            sold += islice(nothing_else(self._config, sold, terms.now_us), MOST_FILLED + 1)
        if len(sold) - len(places) > MOST_FILLED:
            self._answer(message.id, "refused", "whole_days: too many days and zones for one message: send several")
            return
        taken = changed = 0
        for start in range(0, len(sold), SLICE_ROWS):
            some = sold[start : start + SLICE_ROWS]
            done = await self._database.write(partial(take, config=self._config, sold=some, terms=terms))
            taken, changed = taken + done.taken, changed + done.changed
            told = ((start + place, reason) for place, reason in done.problems)
            problems += [(places[place], reason) for place, reason in told if place < len(places)]
        output = {
            "taken": taken,
            "changed": changed,
            "refused": len(problems),
            "problems": [{"hour": place, "reason": reason} for place, reason in sorted(problems)[:PROBLEMS_TOLD]],
        }
        if taken:
            self._answer(message.id, "applied", output=output)
        else:
            self._answer(message.id, "refused", f"no hour could be taken: {min(problems)[1]}", output)

    def _answer(self, id_: str, state: str, reason: str = "", output: dict[str, Any] | None = None) -> None:
        made = {"id": id_, "state": state, "at_us": self._clock(), "reason": reason, "output": output or {}}
        self._say("up/result", Result.model_validate(made).model_dump_json().encode())


def wrong(config: StoreConfig, one: Sold, terms: Terms) -> str | None:
    """Return what is wrong with an hour; None if nothing is."""
    if all(zone.id != one.zone for zone in config.zones):
        return f"the store has no zone {one.zone!r}"
    if min(one.tickets or 0, one.units or 0, one.cents or 0) < 0:
        return "negative; send what is left after returns, but not less than 0"
    if one.cents is not None and terms.currency is None:
        return "an amount needs its currency, such as CNY"
    if one.hour_us + HOUR_US > terms.now_us:
        return "the hour is not over yet"
    if one.hour_us < terms.now_us - config.database.keep_days * DAY_US:
        return f"older than the {config.database.keep_days} days that the store keeps"
    days = business_days(config)
    start_us = days.bounds_us(days.date(one.hour_us))[0]
    if (one.hour_us - start_us) % HOUR_US:
        return f"not the beginning of an hour; hours begin at :{start_us // 60_000_000 % 60:02} past"
    return None


def nothing_else(config: StoreConfig, sold: Sequence[Sold], now_us: int) -> Iterator[Sold]:
    """Yield the other hours of the same days and zones that are over, with nothing sold."""
    days = business_days(config)
    told = {(one.zone, one.hour_us) for one in sold}
    zones = sorted({one.zone for one in sold})
    for date in sorted({days.date(one.hour_us) for one in sold}):
        start_us, end_us = days.bounds_us(date)
        for hour_us in range(start_us, min(end_us, now_us - HOUR_US + 1), HOUR_US):
            yield from (Sold(zone, hour_us, 0, 0, 0) for zone in zones if (zone, hour_us) not in told)


def take(conn: sqlite3.Connection, config: StoreConfig, sold: Sequence[Sold], terms: Terms) -> Taken:
    """Write hours that are not `wrong`, in the caller's transaction; those that can't be are told, with the reason."""
    done = Taken()
    other = _other_currency(conn, sold, terms.currency)
    days = business_days(config)
    dates: set[str] = set()
    for place, one in enumerate(sold):
        if other is not None and one.cents:
            done.problems.append((place, f"amounts in {terms.currency}, but those of this store are in {other}"))
            continue
        put = _put(conn, one, terms.revision)
        if isinstance(put, str):
            done.problems.append((place, put))
            continue
        done.taken += 1
        if put:
            done.changed += 1
            dates.add(days.date(one.hour_us).isoformat())
    if other is None and any(one.cents for one in sold):
        conn.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (CURRENCY, terms.currency))
    _note(conn, dates)
    return done


class Deleted(NamedTuple):
    """Number of hours whose sales were known and were deleted; their zones, and the business days they were on."""

    hours: int
    zones: frozenset[str]
    dates: frozenset[dt.date]


def delete(config: StoreConfig, first: dt.date, last: dt.date, zone: str | None = None) -> Deleted:
    """Delete the sales of business days, of one zone or all. Safe while the service is running.

    Nothing is left of them, not even their revisions, so that any message or file may bring them again.
    """
    days = business_days(config)
    start_us, end_us = days.bounds_us(first)[0], days.bounds_us(last)[1]
    database = Database(config.database.path, store=config.store.id, quota_mb=config.database.quota_mb, repair=False)
    hours, zones, dates = 0, set(), set()
    try:
        while rows := database.write_now(lambda conn: _delete_some(conn, config, (start_us, end_us), zone)):
            known = [(days.date(hour_us), of) for hour_us, of, told in rows if told]
            hours += len(known)
            zones |= {of for _, of in known}
            dates |= {date for date, _ in known}
    finally:
        database.close()
    return Deleted(hours, frozenset(zones), frozenset(dates))


class _Loose(SalesHead):
    """A message whose hours are not judged yet, so that a wrong one doesn't affect the others."""

    hours: Annotated[list[Any], Field(min_length=1, max_length=MAX_SALES)]


def _note(conn: sqlite3.Connection, dates: Iterable[str]) -> None:
    """Note that the sales of days have changed."""
    conn.executemany(
        "INSERT INTO sales_day (date, changes) VALUES (?, 1) ON CONFLICT (date) DO UPDATE SET changes = changes + 1",
        [(date,) for date in sorted(dates)],
    )


def _delete_some(
    conn: sqlite3.Connection, config: StoreConfig, span_us: tuple[int, int], zone: str | None
) -> list[tuple[int, str, bool]]:
    """Delete at most SLICE_ROWS hours and return them, each with whether it was known; in the caller's transaction."""
    rows = conn.execute(
        "SELECT hour_us, zone, tickets IS NOT NULL FROM sales"
        " WHERE hour_us >= ? AND hour_us < ? AND zone = ifnull(?, zone) LIMIT ?",
        (*span_us, zone, SLICE_ROWS),
    ).fetchall()
    conn.executemany("DELETE FROM sales WHERE hour_us = ? AND zone = ?", [row[:2] for row in rows])
    days = business_days(config)
    _note(conn, {days.date(hour_us).isoformat() for hour_us, _, told in rows if told})
    return rows


def _sold(hour: SalesHour) -> Sold:
    return Sold(
        hour.zone, hour.hour_us, hour.tickets, hour.units, None if hour.amount is None else round(hour.amount * 100)
    )


def _other_currency(conn: sqlite3.Connection, sold: Iterable[Sold], currency: str | None) -> str | None:
    """Return the currency of the amounts that are there, if it is another one and would stay there."""
    if not any(one.cents for one in sold):
        return None
    row = conn.execute("SELECT value FROM fact WHERE name = ?", (CURRENCY,)).fetchone()
    if row is None or row[0] == currency:
        return None
    there = conn.execute("SELECT 1 FROM sales WHERE cents > 0 LIMIT 1").fetchone()
    return str(row[0]) if there else None


def _put(conn: sqlite3.Connection, one: Sold, revision: int | None) -> bool | str:
    """Write an hour and return whether it was new or different; or the reason if a later revision is there."""
    row = conn.execute(
        "SELECT tickets, units, cents, revision FROM sales WHERE hour_us = ? AND zone = ?", (one.hour_us, one.zone)
    ).fetchone()
    there = 0 if row is None else int(row[3])
    before = (None, None, None) if row is None else row[:3]
    changed = before != (one.tickets, one.units, one.cents)
    if revision is None:
        revision = there + changed
    elif revision < there:
        return f"revision {there} of this hour is here already"
    if changed or revision != there:
        conn.execute(
            "INSERT OR REPLACE INTO sales (hour_us, zone, tickets, units, cents, revision) VALUES (?, ?, ?, ?, ?, ?)",
            (one.hour_us, one.zone, one.tickets, one.units, one.cents, revision),
        )
    return changed
