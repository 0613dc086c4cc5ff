"""Facts of business days about sales: what the tills told by zone and hour, beside the visits of the same hours.

Made from the table `sales` and the day's hours, stored for days that are over, and added up for several days. An hour
counts for both if its sales are known and the zone's readers were sufficiently up in all of it.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import sqlite3
from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from config import StoreConfig
from dwell.facts import Table
from edge.database.reader import Past
from edge.days import kept
from edge.days.facts import of_people
from edge.days.hourly import HOUR_US, Hours, added, padded
from edge.days.packing import pack, unpack
from edge.days.places import in_place, moved
from edge.store.business_days import business_days
from edge.store.calendar import hours as opening_hours

FORMAT = 1
"""Version of the storage format; facts in another format are computed again."""
SHARED = 0.8
"""A day counts if this share of the opening hours so far is known."""
PRODUCTS = {"visits": ("tv", "vv"), "engaged": ("te", "ee")}
"""What tickets are put in relation to → its product with tickets, and with itself."""
SOLD = np.dtype(
    [
        ("told", "<i8"),  # 1 if the sales of the hour are known; of a day: of SHARED of its opening hours
        ("tickets", "<i8"),
        ("units_told", "<i8"),  # hours in which units are known, too
        ("units", "<i8"),
        ("cents_told", "<i8"),
        ("cents", "<i8"),
        ("hours", "<i8"),  # hours whose sales are known
        ("both", "<i8"),  # 1 if visits are known as well; of a day: in SHARED of its opening hours
        ("both_tickets", "<i8"),  # tickets, people's visits and engaged visits where both are known
        ("visits", "<i8"),
        ("engaged", "<i8"),
        *((name, "<i8") for name in ("tt", "tv", "vv", "te", "ee")),  # their products, day by day
    ]
)


class ToldHours(NamedTuple):
    """What is known of a day's tickets; H hours, Z zones."""

    known: NDArray[np.bool_]
    """(H, Z)."""
    tickets: NDArray[np.int64]
    """(H, Z)."""
    open_us: NDArray[np.int64]
    """(H, Z) opening time so far."""


class _Row(NamedTuple):
    """A day with sales, how often they changed, and what its stored facts are made of, if there are any."""

    date: dt.date
    changes: int
    basis: str | None


@dataclass(frozen=True)
class SalesFacts:
    """One business day. H hours, Z zones."""

    hours: Table
    """(H, Z) SOLD."""
    days: Table
    """(Z,) SOLD of whole days."""
    open_us: NDArray[np.int64]
    """(H, Z) opening time so far."""


def of_days(past: Past, dates: Sequence[dt.date]) -> Table | None:
    """Return the (Z,) SOLD of all days together; None if no sales are known of any."""
    return _together(past, dates, "days")


def of_hours(past: Past, dates: Sequence[dt.date]) -> Table | None:
    """Return the (H, Z) SOLD by hour of the day, of all days together; None if no sales are known of any."""
    return _together(past, dates, "hours")


def told_by_hour(past: Past, dates: Sequence[dt.date]) -> dict[dt.date, ToldHours]:
    """Return what is known of the tickets by hour, for each day of which any sales are known."""
    stored, others = _split(past, dates)
    loaded = ((date, arrays["hours"], arrays["open_us"]) for date, arrays in _load(past, stored, "hours"))
    made = ((date, found.hours, found.open_us) for date, found in _made(past, others))
    return {
        date: ToldHours(hours["told"] > 0, hours["tickets"], open_us)
        for date, hours, open_us in itertools.chain(loaded, made)
    }


def tickets(past: Past, dates: Sequence[dt.date]) -> dict[dt.date, NDArray[np.int64]]:
    """Return for each day of which sales are known the (Z,) tickets; -1 where too few hours are known."""
    stored, others = _split(past, dates)

    def of(days: Iterable[tuple[dt.date, Table]]) -> dict[dt.date, NDArray[np.int64]]:
        return {date: np.where(one["told"] > 0, one["tickets"], -1) for date, one in days}

    def load() -> dict[dt.date, NDArray[np.int64]]:
        return of((date, arrays["days"]) for date, arrays in _load(past, stored, "days"))

    past_days = kept.remembered(past, "tickets by day", stored, load)
    return {**past_days, **of((date, found.days) for date, found in _made(past, others))}


def make(past: Past, date: dt.date) -> SalesFacts:
    """Compute a day's facts from its sales and its hours."""
    config = past.config
    start_us, end_us = past.bounds_us(date)
    hours = (end_us - start_us) // HOUR_US
    table = np.zeros((hours, len(config.zones)), SOLD)
    _fill(table, past, start_us, end_us)
    measured = next((found for _, found in kept.hours(past, [date])), None)
    if measured is not None:
        _beside(table, measured)
    open_us = _open_us(past, date, start_us, hours)
    return SalesFacts(table, _day(table, open_us), open_us)


def missing(past: Past, besides: Container[str] = ()) -> tuple[dt.date, str] | None:
    """Return the latest day that is over and whose facts are missing or out of date, and what they would be made of;
    None if there is none.

    `besides`: dates (YYYY-MM-DD) to skip.
    """
    rows = _rows(past, None)
    current = _bases(past, rows)
    for date, _, basis in reversed(rows):
        if date in current and current[date] != basis and date.isoformat() not in besides:
            return date, current[date]
    return None


def save(conn: sqlite3.Connection, config: StoreConfig, date: dt.date, basis: str, made: SalesFacts) -> None:
    """Store a day's facts, in the caller's transaction."""
    names = json.dumps([[zone.id for zone in config.zones], []])
    days, hours = pack({"days": made.days}), pack({"hours": made.hours, "open_us": made.open_us})
    conn.execute(
        "UPDATE sales_day SET basis = ?, names = ?, days = ?, hours = ? WHERE date = ?",
        (basis, names, days, hours, date.isoformat()),
    )


def changes(past: Past, dates: Sequence[dt.date]) -> dict[dt.date, str]:
    """Return for each day of which sales are known a text that changes with them."""
    return {row.date: f" sales {row.changes}" for row in _rows(past, dates)}


def prune(conn: sqlite3.Connection, config: StoreConfig, now_us: int) -> int:
    """Delete the facts of days whose sales are no longer kept; return the number of days."""
    oldest = business_days(config).date(now_us) - config.database.keep_days * kept.DAY
    return conn.execute("DELETE FROM sales_day WHERE date < ?", (oldest.isoformat(),)).rowcount


def _fill(table: Table, past: Past, start_us: int, end_us: int) -> None:
    """Enter what the tills told. An hour that begins within another one, after a change of the business day, counts in
    it."""
    number = {zone.id: n for n, zone in enumerate(past.config.zones)}
    query = "SELECT zone, hour_us, tickets, units, cents FROM sales WHERE hour_us >= ? AND hour_us < ?"
    query += " AND tickets IS NOT NULL"
    rows = [row for row in past.conn.execute(query, (start_us, end_us)) if row[0] in number]
    if not rows:
        return
    zones, hours_us, *counts = zip(*rows, strict=True)
    at = (np.array(hours_us, np.int64) - start_us) // HOUR_US, np.array([number[zone] for zone in zones])
    table["told"][at] = table["hours"][at] = 1
    for name, told in zip(("tickets", "units", "cents"), counts, strict=True):
        np.add.at(table[name], at, np.array([count or 0 for count in told], np.int64))
        if name != "tickets":
            table[f"{name}_told"][at] = [count is not None for count in told]


def _beside(table: Table, measured: Hours) -> None:
    long = min(len(table), len(measured.zones))
    mine, theirs = table[:long], measured.zones[:long]
    both = (mine["told"] > 0) & (theirs["span_us"] == HOUR_US)
    mine["both"] = both
    for name, counts in (
        ("both_tickets", mine["tickets"]),
        ("visits", of_people(theirs)),
        ("engaged", theirs["engaged"]),
    ):
        mine[name] = np.where(both, counts, 0)
    _pair(table)


def _day(hours: Table, open_us: NDArray[np.int64]) -> Table:
    """Return the (Z,) facts of a whole day: those of both only if enough of its opening hours are known of both."""
    day = np.zeros(hours.shape[1], SOLD)
    total = open_us.sum(axis=0)
    for name in ("told", "both"):
        day[name] = (total > 0) & ((open_us * hours[name]).sum(axis=0) >= SHARED * total)
    for name in ("tickets", "units_told", "units", "cents_told", "cents", "hours"):
        day[name] = hours[name].sum(axis=0)
    for name in ("both_tickets", "visits", "engaged"):
        day[name] = hours[name].sum(axis=0) * day["both"]
    return _pair(day)


def _pair(hours: Table) -> Table:
    """Fill in the products of the counts of one day, where both are known."""
    hours["tt"] = hours["both_tickets"] ** 2
    for name, (with_tickets, with_itself) in PRODUCTS.items():
        hours[with_tickets], hours[with_itself] = hours["both_tickets"] * hours[name], hours[name] ** 2
    return hours


def _open_us(past: Past, date: dt.date, start_us: int, hours: int) -> NDArray[np.int64]:
    """Return the (H, Z) opening time in the hours that are over."""
    config = past.config
    begins = start_us + HOUR_US * np.arange(hours, dtype=np.int64)
    over = begins + HOUR_US <= (past.watermark_us or 0)
    of_floor = {}
    for floor in config.floors:
        opened = opening_hours(config, floor.id, date)
        inside = np.minimum(begins + HOUR_US, opened.close_us) - np.maximum(begins, opened.open_us)
        of_floor[floor.id] = np.maximum(inside, 0) * over
    return np.stack([of_floor[zone.floor] for zone in config.zones], axis=1)


def _together(past: Past, dates: Sequence[dt.date], part: str) -> Table | None:
    """Add up one part of the facts of days. The sum of stored days is cached for the next question about them."""
    stored, others = _split(past, dates)

    def add_up() -> Table | None:
        return _sum(arrays[part] for _, arrays in _load(past, stored, part))

    found = kept.remembered(past, f"sales {part}", stored, add_up)
    made = (getattr(facts, part) for _, facts in _made(past, others))
    return _sum(itertools.chain(() if found is None else (found,), made))


def _sum(tables: Iterable[Table]) -> Table | None:
    """Add tables; days on which clocks change have an hour more or less."""
    total: Table | None = None
    for one in tables:
        if total is not None and total.ndim == 2:
            long = max(len(total), len(one))
            total, one = padded(total, long), padded(one, long)
        total = one if total is None else added(total, one)
    return total


def _rows(past: Past, dates: Collection[dt.date] | None) -> list[_Row]:
    """Return the days with sales, among `dates` or all, in order; read from an index."""
    query = "SELECT date, changes, basis FROM sales_day WHERE date BETWEEN ? AND ? ORDER BY date"
    within = (dt.date.min, dt.date.max) if dates is None else (min(dates), max(dates)) if dates else None
    rows = past.conn.execute(query, [date.isoformat() for date in within]) if within else ()
    found = [_Row(dt.date.fromisoformat(date), *row) for date, *row in rows]
    wanted = None if dates is None else frozenset(dates)
    return [row for row in found if wanted is None or row.date in wanted]


def _bases(past: Past, rows: Iterable[_Row]) -> dict[dt.date, str]:
    """Return for each day with sales that is over what its facts are made of."""
    rows = list(rows)
    there = kept.stored(past, [row.date for row in rows])
    head = f"{FORMAT}/{past.config.thresholds.def_version}"
    return {
        date: f"{head}/{n}/{'/'.join(map(str, there[date]))}"
        for date, n, _ in rows
        if date in there and there[date][0] == kept.FORMAT
    }


def _split(past: Past, dates: Sequence[dt.date]) -> tuple[dict[dt.date, str], list[dt.date]]:
    """Return the days whose stored facts are up to date, each with what changes when they do, and the other days of
    which sales are known."""
    rows = _rows(past, dates)
    current = _bases(past, rows)
    stored = {row.date: row.basis for row in rows if row.basis is not None and current.get(row.date) == row.basis}
    return stored, [row.date for row in rows if row.date not in stored]


def _made(past: Past, dates: Iterable[dt.date]) -> Iterator[tuple[dt.date, SalesFacts]]:
    return ((date, make(past, date)) for date in dates)


def _load(past: Past, there: Collection[dt.date], part: str) -> Iterator[tuple[dt.date, dict[str, NDArray[Any]]]]:
    """Yield one part of the facts of stored days, for the zones of the store file."""
    if not there:
        return
    for date, names, packed in past.conn.execute(
        f"SELECT date, names, {part} FROM sales_day WHERE date IN ({', '.join('?' * len(there))})",
        [date.isoformat() for date in there],
    ):
        zones, _ = moved(past.config, names)
        arrays = unpack(packed)
        yield dt.date.fromisoformat(date), {name: in_place(one.T, zones).T for name, one in arrays.items()}
