"""Sales beside visits: tickets per visit by zone and hour, from a read-only connection. See edge.days.counters.

Tickets are those of all customers, visits those of people with tags, of whom there may be fewer: their quotient can
exceed 1. It compares counters and days; it is no share of the people who came.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dwell.compare import Pairs, per
from edge.database.reader import Past
from edge.days import kept, sold
from edge.days.hourly import HOUR_US
from edge.days.scope import Rate, Scope, over


@dataclass(frozen=True)
class ZoneSales:
    """Sales of one zone; counts and rates are None if they are unknown, or if there is too little data."""

    days: int
    """Days on which sales are known for most of the opening hours."""
    tickets: int
    """Of all hours whose sales are known; so are units and amount, if they were told for all of these hours."""
    units: int | None
    amount: float | None
    pairs: int
    """Days on which sales and visits are known together for most of the opening hours: the rates are about these."""
    per_visit: Rate | None
    """Tickets ÷ people's visits."""
    per_engaged: Rate | None
    """Tickets ÷ engaged visits."""


@dataclass(frozen=True, slots=True)
class SalesHour:
    """One zone in one hour of the day, of one or more days."""

    start_us: int
    state: str
    """measured (sales are known) · unknown · future."""
    tickets: int | None
    units: int | None
    amount: float | None
    visits: int | None
    """People's visits of the days on which both are known; None if there are none."""
    per_visit: Rate | None


@dataclass(frozen=True)
class ZoneSalesHours:
    zone: str
    floor: str
    kind: str
    hours: tuple[SalesHour, ...]


@dataclass(frozen=True)
class SalesReport:
    scope: Scope
    currency: str | None
    zones: tuple[ZoneSalesHours, ...]
    """Zones of which any sales are known, in the order of the store file."""


def zone_sales(past: Past, date: dt.date, days: int = 1) -> Mapping[str, ZoneSales]:
    """Return zone → sales over one or more days; only zones of which any are known."""
    found = sold.of_days(past, kept.ending(date, days))
    if found is None:
        return {}
    rows = {zone.id: found[number] for number, zone in enumerate(past.config.zones)}
    return {
        id_: ZoneSales(
            int(row["told"]), *_counts(row), int(row["both"]), rate_of(row, "visits"), rate_of(row, "engaged")
        )
        for id_, row in rows.items()
        if row["hours"]
    }


def sales(past: Past, date: dt.date, days: int = 1) -> SalesReport:
    """Return sales by zone and hour of the day; over several days, all days together, with the times of the last."""
    scope, _ = over(past, date, days)
    found = sold.of_hours(past, kept.ending(date, days))
    start_us = past.bounds_us(date)[0]
    zones = []
    for number, zone in enumerate(past.config.zones):
        if found is not None and found[:, number]["hours"].any():
            rows = enumerate(found[:, number])
            hours = tuple(_hour(past, start_us + h * HOUR_US, row) for h, row in rows)
            zones.append(ZoneSalesHours(zone.id, zone.floor, zone.kind.value, hours))
    return SalesReport(scope, currency(past), tuple(zones))


def currency(past: Past) -> str | None:
    """Return the currency of all amounts, ISO 4217; None if none were told."""
    row = past.conn.execute("SELECT value FROM fact WHERE name = 'currency'").fetchone()
    return None if row is None else str(row[0])


def rate_of(row: Any, base: str) -> Rate | None:
    """Return tickets per `visits` or `engaged` visits of a row of edge.days.sold.SOLD."""
    found = Pairs(*(int(row[name]) for name in ("both", "both_tickets", base, "tt", *sold.PRODUCTS[base])))
    told = per(found)
    return None if told is None else Rate(*told, found.k, found.n)


def any_known(past: Past) -> bool:
    """Return whether any sales are known of any day."""
    return past.conn.execute("SELECT 1 FROM sales WHERE tickets IS NOT NULL LIMIT 1").fetchone() is not None


def _hour(past: Past, at_us: int, row: Any) -> SalesHour:
    if not row["hours"]:
        state = "future" if at_us + HOUR_US > (past.watermark_us or 0) else "unknown"
        return SalesHour(at_us, state, *[None] * 5)
    visits = int(row["visits"]) if row["both"] else None
    return SalesHour(at_us, "measured", *_counts(row), visits, rate_of(row, "visits"))


def _counts(row: Any) -> tuple[int, int | None, float | None]:
    whole = int(row["hours"])
    return (
        int(row["tickets"]),
        int(row["units"]) if row["units_told"] == whole else None,
        int(row["cents"]) / 100 if row["cents_told"] == whole else None,
    )
