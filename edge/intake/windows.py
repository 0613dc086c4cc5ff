"""Convert windows to rows of the table `aggregate` and to events."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from sqlite_utils import Database as Tables

from config.facts import TAG_CLASSES
from dwell.layout import TagClass
from dwell.markov.decisions import Decisions
from sync.contract import Door, ZoneWindow


def window_event(
    row: Mapping[str, Any],
    *,
    floor: str,
    length_us: int,
    business_date: str,
    layout_version: str,
    door: Door | None,
    revision: int = 1,
) -> ZoneWindow:
    """Convert a row of `aggregate` to an event; `door` is included for class member only."""
    tag_class = row["tag_class"]
    return ZoneWindow(
        zone=row["zone"],
        floor=floor,
        tag_class=TAG_CLASSES[tag_class],
        window_us=row["window_us"],
        length_us=length_us,
        business_date=business_date,
        **{name: row[name] for name in COUNTS},
        coverage=row["coverage"],
        histogram={str(index): int(n) for index, n in enumerate(np.frombuffer(row["histogram"], "<u4")) if n},
        def_version=row["def_version"],
        door=door if tag_class == TagClass.MEMBER else None,
        revision=revision,
        layout_version=layout_version,
    )


WINDOW_KEY = ("window_us", "zone", "tag_class")
COUNTS = ("entered", "ended", "censored", "pass_by", "touch", "visit", "engaged", "present_us", "peak")


def doors(
    conn: sqlite3.Connection, windows_us: set[int], length_us: int, sums: str = "sum(passages), avg(covered_us)"
) -> dict[tuple[int, str], Door]:
    """Return (window, zone) → totals of its door counters, with their mean coverage."""
    rows = conn.execute(
        f"SELECT window_us, zone, {sums} FROM door WHERE window_us IN (SELECT value FROM json_each(?)) GROUP BY 1, 2",
        (json.dumps(sorted(windows_us)),),
    )
    return {
        (window_us, zone): Door(passages=n, coverage=round(min(max(covered_us / length_us, 0), 1), 4))
        for window_us, zone, n, covered_us in rows
    }


def untold_doors(conn: sqlite3.Connection, windows_us: set[int], length_us: int) -> dict[tuple[int, str], Door]:
    """Return the part of `doors` that has not been published for these windows, and mark it as published.

    A window published in parts, after a change of the layout or the clock, has passages in each part, and they add up.
    """
    found = doors(
        conn,
        windows_us,
        length_us,
        f"sum(passages - told), avg(min(covered_us, {length_us}) - min(told_us, {length_us}))",
    )
    conn.executemany("UPDATE door SET told = passages, told_us = covered_us WHERE window_us = ? AND zone = ?", found)
    return found


def seen_since(decisions: Decisions, began_us: int, length_us: int) -> Decisions:
    """Without what was over of its first windows when an engine began to watch: it takes that for seen."""

    def seen(windows: Any) -> Any:
        over_us = np.clip(began_us - windows["window_us"], 0, length_us)
        if not over_us.any():
            return windows
        windows = windows.copy()
        windows["coverage"] = np.maximum(windows["coverage"] - over_us / length_us, 0)
        return windows[over_us < length_us]

    return replace(decisions, windows=seen(decisions.windows), floors=seen(decisions.floors))


def _counts(window: Any) -> dict[str, Any]:
    return {name: int(window[name]) for name in COUNTS}


def add_window(db: Tables, row: dict[str, Any]) -> None:
    """Add a window; an existing one was split by a layout change, and both parts are added up."""
    key = tuple(row[name] for name in WINDOW_KEY)
    before = next(db.query(f"SELECT * FROM aggregate WHERE {' AND '.join(f'{n} = ?' for n in WINDOW_KEY)}", key), None)
    if before is not None:
        for name in COUNTS:
            row[name] = max(row[name], before[name]) if name == "peak" else row[name] + before[name]
        row["coverage"] = min(1.0, row["coverage"] + before["coverage"])
        both = (np.frombuffer(part["histogram"], "<u4") for part in (row, before))
        row["histogram"] = np.add(*both).astype("<u4").tobytes()
    db.table("aggregate").upsert(row, pk=WINDOW_KEY)


def window_row(window: Any, zones: tuple[str, ...], def_version: int) -> dict[str, Any]:
    return {
        "window_us": int(window["window_us"]),
        "zone": zones[window["zone"]],
        "tag_class": int(window["tag_class"]),
        **_counts(window),
        "coverage": round(float(window["coverage"]), 4),
        "def_version": def_version,
        "histogram": window["histogram"].astype("<u4").tobytes(),
    }
