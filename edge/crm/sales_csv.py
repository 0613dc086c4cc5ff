"""Import sales from a CSV file, such as an export of the tills."""

from __future__ import annotations

import csv
import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from config import StoreConfig
from edge.crm.sales import SLICE_ROWS, Sold, Terms, nothing_else, take, wrong
from edge.database.writer import Database
from edge.store.errors import Trouble

REQUIRED = ("hour", "zone", "tickets")
OPTIONAL = ("units", "amount", "currency")
MAX_COUNT = 2**31
_COUNT = re.compile(r"[0-9]{1,10}")
_AMOUNT = re.compile(r"[0-9]{1,12}(\.[0-9]{1,2}0*)?")


@dataclass
class Imported:
    """Number of hours in the file and of those that were new or different; lines that were left out, with reasons."""

    hours: int = 0
    changed: int = 0
    filled: int = 0
    """Hours that were not in the file and are taken to be without sales."""
    problems: list[str] = field(default_factory=list)


def import_csv(config: StoreConfig, file: Path, now_us: int, *, whole_days: bool = False) -> Imported:
    """Take the hours of a CSV file with the columns REQUIRED, and OPTIONAL ones; lines with an error are left out.

    `hour` is the beginning, ISO 8601; without an offset, in the store's time. `whole_days`: in the other hours of these
    days, these zones sold nothing; not if a line was left out. Raises Trouble if the file can't be read as a whole.
    Safe while the service is running.
    """
    done = Imported()
    lines: list[int] = []
    sold: list[Sold] = []
    seen: dict[tuple[str, int], int] = {}
    terms = Terms(now_us)
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            rows = csv.DictReader(text, restkey="", restval=None)
            _check_header(file, [name.strip() for name in rows.fieldnames or ()])
            for row in rows:
                try:
                    currency, one = _parse(config, row)
                    if currency is not None:
                        if terms.currency not in (None, currency):
                            raise ValueError(f"{currency}, but earlier lines are in {terms.currency}")
                        terms = Terms(now_us, currency)
                    if reason := wrong(config, one, terms):
                        raise ValueError(reason)
                    if (before := seen.setdefault((one.zone, one.hour_us), rows.line_num)) != rows.line_num:
                        raise ValueError(f"this hour of {one.zone} is already in line {before}")
                except ValueError as error:
                    done.problems.append(f"{file}:{rows.line_num}: {error}")
                    continue
                sold.append(one)
                lines.append(rows.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Trouble(f"can't read {file}: {error}") from error
    done.hours = len(sold)
    if whole_days and not done.problems:
        sold += nothing_else(config, sold, now_us)
        done.filled = len(sold) - done.hours
    database = Database(config.database.path, store=config.store.id, quota_mb=config.database.quota_mb, repair=False)
    try:
        for start in range(0, len(sold), SLICE_ROWS):
            some = sold[start : start + SLICE_ROWS]
            taken = database.write_now(partial(take, config=config, sold=some, terms=terms))
            done.changed += taken.changed
            done.problems += [f"{file}:{lines[start + place]}: {reason}" for place, reason in taken.problems]
            done.hours -= len(taken.problems)
    finally:
        database.close()
    return done


def _check_header(file: Path, names: list[str]) -> None:
    if missing := [name for name in REQUIRED if name not in names]:
        raise Trouble(f"{file}: the first line must name the columns {', '.join(REQUIRED)}; {missing[0]} is missing")
    if unknown := [name for name in names if name not in REQUIRED + OPTIONAL]:
        raise Trouble(f"{file}: there is no column {unknown[0]!r}; possible are {', '.join(REQUIRED + OPTIONAL)}")


def _parse(config: StoreConfig, raw: Mapping[str, str | None]) -> tuple[str | None, Sold]:
    """Return the currency and the hour of a line; ValueError with a reason that says what is expected."""
    if "" in raw:
        raise ValueError("more cells than columns")
    row = {name.strip(): (value or "").strip() for name, value in raw.items()}
    try:
        at = dt.datetime.fromisoformat(row["hour"])
    except ValueError:
        raise ValueError(f"hour: {row['hour']!r} is no time; write 2026-03-14T10:00") from None
    if at.tzinfo is None:
        at = at.replace(tzinfo=config.store.tz)
    currency = row.get("currency") or None
    if currency is not None and not re.fullmatch("[A-Z]{3}", currency):
        raise ValueError(f"currency: {currency!r} is none; write three capital letters such as CNY")
    units, amount = row.get("units", ""), row.get("amount", "")
    if amount and not _AMOUNT.fullmatch(amount):
        raise ValueError(f"amount: {amount!r} is none; write 0 or more, such as 1234.50")
    if amount and currency is None:
        raise ValueError("amount: its currency is missing, such as CNY in the column currency")
    return currency, Sold(
        row["zone"],
        round(at.timestamp()) * 1_000_000,
        _count("tickets", row["tickets"]),
        _count("units", units) if units else None,
        round(float(amount) * 100) if amount else None,
    )


def _count(name: str, text: str) -> int:
    if not _COUNT.fullmatch(text) or int(text) >= MAX_COUNT:
        raise ValueError(f"{name}: {text!r} is no count; write a whole number, 0 or more")
    return int(text)
