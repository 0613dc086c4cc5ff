"""Sales of a chain's stores from a CSV file: a message on `down/sales` for some hundred hours, sent as commands are."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from pydantic import ValidationError

from sync.chain.desk import OPEN, SALES, Order, make_commands
from sync.chain.ledger import now_us
from sync.commands import first_of
from sync.down import Sales, SalesHour

REQUIRED = ("store", "hour", "zone", "tickets")
OPTIONAL = ("units", "amount", "currency")
UNKNOWN = "unknown"
"""In place of tickets: takes back what was sent before."""
HOURS = 400
"""Hours in one message, with long names of zones less than its largest size."""


class Pushed(NamedTuple):
    """What became of a push: hours taken and refused, reasons by store, and stores that have not answered yet."""

    taken: int
    refused: int
    reasons: Mapping[str, str]
    waiting: list[str]


def orders(file: Path, stores: Collection[str] = ()) -> list[Order]:
    """Read a file; only hours of `stores`, if any are named. Raises OSError, and ValueError with the wrong line."""
    hours: dict[tuple[str, str | None], list[dict[str, Any]]] = {}
    with file.open(newline="", encoding="utf-8-sig") as text:
        rows = csv.DictReader(text, restkey="")
        names = list(rows.fieldnames or ())
        if missing := [name for name in REQUIRED if name not in names]:
            raise ValueError(f"the column {missing[0]} is missing; required are {', '.join(REQUIRED)}")
        if unknown := [name for name in names if name not in REQUIRED + OPTIONAL]:
            raise ValueError(f"there is no column {unknown[0]!r}; possible are {', '.join(REQUIRED + OPTIONAL)}")
        for row in rows:
            try:
                store, currency, hour = _parse(row)
            except (ValueError, ValidationError) as error:
                why = first_of(error) if isinstance(error, ValidationError) else str(error)
                raise ValueError(f"line {rows.line_num}: {why}") from None
            if not stores or store in stores:
                told = hour.model_dump(exclude_none=True) | {"tickets": hour.tickets}
                hours.setdefault((store, currency), []).append(told)
    made = []
    for (store, currency), mine in hours.items():
        for first in range(0, len(mine), HOURS):
            body = {"hours": mine[first : first + HOURS]} | ({"currency": currency} if currency else {})
            Sales.model_validate({"id": "check", **body})
            made.append(Order(store, SALES, body))
    return made


def push(conn: psycopg.Connection[Any], made: list[Order]) -> str:
    """Have sinks send sales, each message until it is answered; returns the beginning of their ids."""
    prefix = f"{SALES}-{now_us()}"
    make_commands(conn, prefix, made)
    return prefix


def progress(conn: psycopg.Connection[Any], prefix: str) -> Pushed:
    """Return what has become of a push so far."""
    found = conn.execute(
        "SELECT store, state, reason, output FROM chain.command WHERE starts_with(id, %s) ORDER BY no", (prefix,)
    )
    counts: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    waiting: dict[str, None] = {}
    for store, state, reason, output in found:
        if state in OPEN:
            waiting[store] = None
            continue
        told = output or {}
        counts.update({name: int(told.get(name, 0)) for name in ("taken", "refused")})
        problems = told.get("problems") or []
        if state != "applied" or problems:
            reasons.setdefault(store, reason or str(problems[0].get("reason")))
    return Pushed(counts["taken"], counts["refused"], reasons, list(waiting))


def _parse(row: Mapping[str, str | None]) -> tuple[str, str | None, SalesHour]:
    """Return store, currency and hour of a line; ValueError or ValidationError if it is wrong."""
    if "" in row:
        raise ValueError("more cells than columns")
    told = {name: (value or "").strip() for name, value in row.items()}
    if not told["store"]:
        raise ValueError("store: empty")
    at = datetime.fromisoformat(told["hour"])
    if at.tzinfo is None:
        raise ValueError(f"hour: {told['hour']!r} has no offset; write 2026-03-14T10:00+08:00")
    currency = told.get("currency") or None
    if currency is not None and not re.fullmatch("[A-Z]{3}", currency):
        raise ValueError(f"currency: {currency!r} is none; write three capital letters such as CNY")
    if told.get("amount") and currency is None:
        raise ValueError("amount: its currency is missing")
    counts: dict[str, Any] = {name: told[name] for name in ("tickets", "units", "amount") if told.get(name)}
    if told["tickets"] == UNKNOWN:
        counts["tickets"] = None
    made = {"zone": told["zone"], "hour_us": round(at.timestamp()) * 1_000_000, **counts}
    return told["store"], currency, SalesHour.model_validate(made)
