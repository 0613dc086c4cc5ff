"""Latest numbers of windows and days with corrections applied, for a CRM that doesn't need their history.

Ledger(book, latest.keep, tables=latest.TABLES) keeps two tables beside the ledger's, in the same transactions.
Events may come in any order: for the same subject and epoch the highest revision counts; windows of the same
revision are parts (a layout change cuts a window) and add up. Epochs add up too, since each gateway reports only
what it saw: `windows` does both.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sync.contract import ZoneWindow
from sync.contract_days import OfDays

ADDED = ("entered", "ended", "censored", "pass_by", "touch", "visit", "engaged", "present_us", "coverage")
"""Columns that are summed over the parts of a window; for `peak` the maximum counts."""
TABLES = """
CREATE TABLE IF NOT EXISTS latest_window (
    store TEXT, epoch TEXT, zone TEXT, tag_class TEXT, window_us INTEGER, length_us INTEGER, def_version INTEGER,
    revision INTEGER NOT NULL, floor TEXT NOT NULL, business_date TEXT NOT NULL, layout_version TEXT NOT NULL,
    entered INTEGER NOT NULL, ended INTEGER NOT NULL, censored INTEGER NOT NULL, pass_by INTEGER NOT NULL,
    touch INTEGER NOT NULL, visit INTEGER NOT NULL, engaged INTEGER NOT NULL, present_us INTEGER NOT NULL,
    coverage DOUBLE PRECISION NOT NULL, peak INTEGER NOT NULL, histogram TEXT NOT NULL,
    PRIMARY KEY (store, epoch, zone, tag_class, window_us, length_us, def_version)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS latest_day (
    store TEXT, epoch TEXT, type TEXT, about TEXT, first_day TEXT, last_day TEXT,
    revision INTEGER NOT NULL, payload TEXT NOT NULL,
    PRIMARY KEY (store, epoch, type, about, first_day, last_day)
) WITHOUT ROWID;
"""
_KEY = ("store", "epoch", "zone", "tag_class", "window_us", "length_us", "def_version")
_PLACE = ("floor", "business_date", "layout_version")
_COLUMNS = (*_KEY, "revision", *_PLACE, *ADDED, "peak", "histogram")


def keep(conn: Any, fresh: Iterable[tuple[str, Any, int]]) -> None:
    """Store new events in the tables: the `hand_over` of sync.consumer.Ledger."""
    for store, event, _ in fresh:
        epoch = event.id.split("/")[1]
        if isinstance(event, ZoneWindow):
            _keep_window(conn, store, epoch, event)
        elif isinstance(event, OfDays):
            _keep_day(conn, store, epoch, event)


def windows(conn: Any, store: str, from_us: int, to_us: int) -> list[dict[str, Any]]:
    """Return the windows of a store that began in a span, by time, zone and class, summed over epochs."""
    found = conn.execute(
        f"SELECT {', '.join(_COLUMNS)} FROM latest_window WHERE store = ? AND window_us >= ? AND window_us < ?"
        " ORDER BY window_us, zone, tag_class, length_us, def_version, epoch",
        (store, from_us, to_us),
    )
    whole: dict[tuple[Any, ...], dict[str, Any]] = {}
    for values in found.fetchall():
        row = dict(zip(_COLUMNS, values, strict=True))
        row["histogram"] = json.loads(row["histogram"])
        del row["epoch"]
        key = tuple(row[name] for name in _KEY if name != "epoch")
        whole[key] = _both(whole[key], row) if key in whole else row
    return list(whole.values())


def days(conn: Any, store: str, first_day: str) -> list[dict[str, Any]]:
    """Return the latest events about a business day, or the week that begins with it."""
    found = conn.execute(
        "SELECT payload FROM latest_day WHERE store = ? AND first_day = ? ORDER BY type, about, last_day, epoch",
        (store, first_day),
    )
    return [json.loads(payload) for (payload,) in found.fetchall()]


def _keep_window(conn: Any, store: str, epoch: str, event: ZoneWindow) -> None:
    row = event.model_dump() | {"store": store, "epoch": epoch}
    row["coverage"] = float(row["coverage"])
    there = conn.execute(
        f"SELECT {', '.join(_COLUMNS)} FROM latest_window WHERE {' AND '.join(f'{name} = ?' for name in _KEY)}",
        [row[name] for name in _KEY],
    ).fetchone()
    if there is not None:
        before = dict(zip(_COLUMNS, there, strict=True))
        if before["revision"] > event.revision:
            return
        if before["revision"] == event.revision:
            before["histogram"] = json.loads(before["histogram"])
            row = _both(before, row)
    _put(
        conn,
        "latest_window",
        _KEY,
        {name: row[name] for name in _COLUMNS} | {"histogram": json.dumps(row["histogram"])},
    )


def _both(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two parts of a window; of the place names the last in order is kept, whichever came first."""
    return {
        **one,
        **{name: one[name] + other[name] for name in ADDED},
        "coverage": min(1.0, round(one["coverage"] + other["coverage"], 4)),
        "peak": max(one["peak"], other["peak"]),
        "revision": max(one["revision"], other["revision"]),
        "histogram": dict(sorted((Counter(one["histogram"]) + Counter(other["histogram"])).items())),
        **{name: max(one[name], other[name]) for name in _PLACE},
    }


def _keep_day(conn: Any, store: str, epoch: str, event: OfDays) -> None:
    kind: str = event.type  # type: ignore[attr-defined]
    about = next(
        (str(getattr(event, name)) for name in ("trial", "zone", "floor", "tag_class") if hasattr(event, name)), ""
    )
    key = (store, epoch, kind, about, event.first_day, event.last_day)
    names = ("store", "epoch", "type", "about", "first_day", "last_day")
    there = conn.execute(
        f"SELECT revision FROM latest_day WHERE {' AND '.join(f'{name} = ?' for name in names)}", key
    ).fetchone()
    if there is None or there[0] < event.revision:
        row = dict(zip(names, key, strict=True)) | {"revision": event.revision, "payload": event.model_dump_json()}
        _put(conn, "latest_day", names, row)


def _put(conn: Any, table: str, key: Sequence[str], row: Mapping[str, Any]) -> None:
    sets = ", ".join(f"{name} = excluded.{name}" for name in row if name not in key)
    conn.execute(
        f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"
        f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET {sets}",
        list(row.values()),
    )
