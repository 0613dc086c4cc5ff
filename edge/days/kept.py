"""Stored facts of business days; they are computed from visits until the day is over."""

from __future__ import annotations

import datetime as dt
import json
import math
import sqlite3
import threading
import zlib
from collections import OrderedDict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config import StoreConfig
from dwell.aggregates import BINS
from dwell.paths import Flows, Path
from dwell.stays import Span
from edge.access.verdicts import stamps
from edge.database.reader import Past
from edge.days.facts import ARRAYS, DayFacts, Totals, Windows, count, make
from edge.store.business_days import business_days

FORMAT = 3
"""Version of the storage format; facts in another format are computed again."""
DAY = dt.timedelta(days=1)
REMADE_DAYS = 7
"""Days younger than this are computed again when visits have been added."""

_made: OrderedDict[tuple[Any, ...], DayFacts] = OrderedDict()
_MADE = 1
_making = threading.Lock()


def day(past: Past, date: dt.date) -> DayFacts:
    """Return a day's facts, stored or computed now, and cached until there are new decisions."""
    config = past.config
    stored = load(past, [date])
    if date in stored:
        return stored[date]
    file = past.conn.execute("PRAGMA database_list").fetchone()[2]
    last = past.conn.execute("SELECT MAX(id) FROM visit").fetchone()[0]
    stamp = stamps(config).get(date.isoformat(), 0)
    key = (file, date, config, last, (past.watermark_us or 0) // Span(0, 0).window_us, stamp)
    with _making:
        if key not in _made:
            _made[key] = make(past, date)
            while len(_made) > _MADE:
                _made.popitem(last=False)
        return _made[key]


def totals(past: Past, dates: Sequence[dt.date]) -> Iterator[tuple[dt.date, Totals]]:
    """Yield the facts of all days that have any, one at a time, in no particular order, without their paths."""
    missing = set(dates)
    for date, (names, packed) in _rows(past, dates, "totals"):
        missing.discard(date)
        yield date, _unpack_totals(past.config, names, packed)
    for date in sorted(missing):
        if _measured(past, date):
            made = day(past, date).totals
            yield date, replace(made, flows=replace(made.flows, paths={}))


def paths(past: Past, dates: Sequence[dt.date], top: int) -> tuple[list[tuple[Path, int]], int]:
    """Return the `top` cleaned paths over all days with their counts, most frequent first; and the number of journeys
    with a path.
    """
    stored = {date: _moved_paths(past.config, *row) for date, row in _rows(past, dates, "paths")}
    parts = list(stored.values())
    parts += [
        _matrix(day(past, date).totals.flows.paths) for date in dates if date not in stored and _measured(past, date)
    ]
    longest = max((part["zones"].shape[1] for part in parts), default=0)
    if not longest:
        return [], 0
    rows = np.concatenate(
        [np.pad(p["zones"], ((0, 0), (0, longest - p["zones"].shape[1])), constant_values=-1) for p in parts]
    )
    # As bytes that compare like the numbers, so that sorting takes one comparison per row.
    packed = np.ascontiguousarray((rows + 1).astype(">u2")).view(f"S{2 * longest}").ravel()
    _, first, which = np.unique(packed, return_index=True, return_inverse=True)
    n = np.bincount(which, weights=np.concatenate([part["n"] for part in parts])).astype(np.int64)
    order = np.argsort(-n, kind="stable")[:top]
    taken = [(tuple(zone for zone in rows[first[i]].tolist() if zone >= 0), int(n[i])) for i in order.tolist()]
    return taken, int(n.sum())


def day_if_any(past: Past, date: dt.date) -> DayFacts | None:
    """Return a day's facts; None for a day before the store's first or after its last."""
    stored = load(past, [date])
    return stored[date] if stored else day(past, date) if _measured(past, date) else None


def by_hour(past: Past, date: dt.date) -> NDArray[np.uint32]:
    """Return the (hours of the day, Z, BINS) dwell histograms of a day's complete visits."""
    config = past.config
    for _, (names, packed) in _rows(past, [date], "hours"):
        if packed:
            dwell: NDArray[np.uint32] = _taken(_arrays(packed)["dwell"].swapaxes(0, 1), _moved(config, names)[0])
            return dwell.swapaxes(0, 1)
    made = day(past, date).by_hour
    return np.zeros((0, len(config.zones), BINS), np.uint32) if made is None else made


def save(conn: sqlite3.Connection, config: StoreConfig, made: DayFacts) -> None:
    """Store a day's facts, in the caller's transaction."""
    names = json.dumps([[zone.id for zone in config.zones], [floor.id for floor in config.floors]])
    t, w = made.totals, made.windows
    flows = t.flows
    numbers = {
        "unseen": [flows.unseen, flows.unseen_paths, flows.pathless],
        "tiers": {tier: dict(counts) for tier, counts in t.tiers.items()},
        "people": dict(t.people),
        "tier_wait": _sparse(t.tier_wait),
        "tier_assist": _sparse(t.tier_assist),
        "suspects": t.suspects,
        "as_of_us": made.as_of_us,
    }
    packed_totals = _pack(
        {name: getattr(t, name) for name in ARRAYS}
        | {"links": flows.links, "link_journeys": flows.link_journeys}
        | {"numbers": np.frombuffer(json.dumps(numbers).encode(), np.uint8)}
    )
    packed_windows = _pack({field.name: getattr(w, field.name) for field in fields(w)})
    conn.execute(
        "INSERT OR REPLACE INTO day_summary (date, format, def_version, rows, names, totals, windows, paths, hours,"
        " verdicts) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(made.date.isoformat(), FORMAT, made.def_version, made.rows, names),
            *(packed_totals, packed_windows, _pack(_matrix(flows.paths))),
            *(b"" if made.by_hour is None else _pack({"dwell": made.by_hour}), made.verdicts),
        ),
    )


def load(past: Past, dates: Sequence[dt.date]) -> dict[dt.date, DayFacts]:
    """Load the stored facts of days that were computed with the current definitions."""
    config = past.config
    days = business_days(config)
    return {
        date: DayFacts(
            date=date,
            def_version=config.thresholds.def_version,
            as_of_us=days.bounds_us(date)[1],
            complete=True,
            rows=rows,
            verdicts=verdicts,
            by_hour=None,
            totals=_unpack_totals(config, names, packed_totals),
            windows=_unpack_windows(config, names, packed_windows),
        )
        for date, (names, rows, verdicts, packed_totals, packed_windows) in _rows(
            past, dates, "rows, verdicts, totals, windows"
        )
    }


def missing(past: Past, besides: Container[str] = ()) -> dt.date | None:
    """Return the latest completed day whose stored facts are missing or out of date; None if there is none.

    `besides`: dates (YYYY-MM-DD) to skip.
    """
    config = past.config
    now_us = past.watermark_us
    first = past.conn.execute("SELECT MIN(window_us) FROM aggregate").fetchone()[0]
    if now_us is None or first is None:
        return None
    days = business_days(config)
    silence_us = round(config.thresholds.journey_end_silence_s * 1e6)
    last = days.date(now_us - silence_us) - DAY
    oldest = max(days.date(first), last - config.thresholds.returning_days * DAY)
    said = stamps(config)
    stored = {
        dt.date.fromisoformat(date): rows
        for date, rows, verdicts in past.conn.execute(
            "SELECT date, rows, verdicts FROM day_summary WHERE date >= ? AND format = ? AND def_version = ?",
            (oldest.isoformat(), FORMAT, config.thresholds.def_version),
        )
        if verdicts == said.get(date, 0)
    }
    date = last
    while date >= oldest:
        stale = date not in stored or (date > last - REMADE_DAYS * DAY and stored[date] != count(past, date))
        if stale and date.isoformat() not in besides:
            return date
        date -= DAY
    return None


def prune(conn: sqlite3.Connection, config: StoreConfig, now_us: int) -> int:
    """Delete the facts of days whose windows are no longer kept; return the number of days."""
    oldest = business_days(config).date(now_us) - config.database.keep_days * DAY
    return conn.execute("DELETE FROM day_summary WHERE date < ?", (oldest.isoformat(),)).rowcount


def _measured(past: Past, date: dt.date) -> bool:
    first = past.conn.execute("SELECT MIN(window_us) FROM aggregate").fetchone()[0]
    now_us = past.watermark_us
    start_us, end_us = past.bounds_us(date)
    return first is not None and now_us is not None and start_us <= now_us and bool(end_us > first)


def _rows(past: Past, dates: Sequence[dt.date], columns: str) -> Iterator[tuple[dt.date, Sequence[Any]]]:
    config = past.config
    if not dates:
        return
    wanted = {date.isoformat(): date for date in dates}
    said = stamps(config)
    for date, verdicts, *row in past.conn.execute(
        f"SELECT date, verdicts, names, {columns} FROM day_summary WHERE date >= ? AND date <= ?"
        " AND format = ? AND def_version = ?",
        (min(wanted), max(wanted), FORMAT, config.thresholds.def_version),
    ):
        if date in wanted and verdicts == said.get(date, 0):
            yield wanted[date], row


def _pack(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Pack arrays as a line of JSON with their names, then their compressed bytes; much faster to read than npz."""
    head = [[name, np.lib.format.dtype_to_descr(array.dtype), array.shape] for name, array in arrays.items()]
    body = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values())
    return zlib.compress(json.dumps(head).encode() + b"\n" + body, 6)


def _arrays(packed: bytes) -> dict[str, NDArray[Any]]:
    raw = zlib.decompress(packed)
    at = raw.index(b"\n") + 1
    arrays = {}
    for name, described, shape in json.loads(raw[:at]):
        descr = [tuple(one) for one in described] if isinstance(described, list) else described
        dtype = np.lib.format.descr_to_dtype(descr)
        n = math.prod(shape)
        arrays[name] = np.frombuffer(raw, dtype, n, at).reshape(shape)
        at += n * dtype.itemsize
    return arrays


def _unpack_totals(config: StoreConfig, names: str, packed: bytes) -> Totals:
    arrays = _arrays(packed)
    zones, floors = _moved(config, names)
    numbers = json.loads(arrays["numbers"].tobytes())
    outside = np.append(zones, len(json.loads(names)[0]))
    return Totals(
        **{name: _taken(arrays[name], zones) for name in ("zones", "base", "dwell", "wait", "assist")},
        floors=_taken(arrays["floors"], floors),
        store=arrays["store"],
        flows=Flows(
            links=_taken(_taken(arrays["links"], outside).T, outside).T,
            link_journeys=_taken(_taken(arrays["link_journeys"], outside).T, outside).T,
            unseen=numbers["unseen"][0],
            paths={},
            unseen_paths=numbers["unseen"][1],
            pathless=numbers["unseen"][2],
        ),
        tiers=numbers["tiers"],
        people=numbers["people"],
        tier_wait=_dense(numbers["tier_wait"]),
        tier_assist=_dense(numbers["tier_assist"]),
        suspects=numbers["suspects"],
        days=1,
    )


def _sparse(histograms: Mapping[str, NDArray[np.int64]]) -> dict[str, list[int]]:
    """Convert histograms to tier → indices of the non-empty bins, then their counts."""
    return {tier: np.flatnonzero(h).tolist() + h[h > 0].tolist() for tier, h in histograms.items()}


def _dense(packed: Mapping[str, list[int]]) -> dict[str, NDArray[np.int64]]:
    histograms = {}
    for tier, sparse in packed.items():
        histograms[tier] = np.zeros(BINS, np.int64)
        histograms[tier][sparse[: len(sparse) // 2]] = sparse[len(sparse) // 2 :]
    return histograms


def _matrix(counted: Mapping[Path, int]) -> dict[str, NDArray[Any]]:
    """Convert paths to arrays: (P, L) zones, padded with -1, and (P,) counts."""
    zones = np.full((len(counted), max(map(len, counted), default=0)), -1, np.int16)
    for row, path in zip(zones, counted, strict=True):
        row[: len(path)] = path
    return {"zones": zones, "n": np.fromiter(counted.values(), np.int64, len(counted))}


def _moved_paths(config: StoreConfig, names: str, packed: bytes) -> dict[str, NDArray[Any]]:
    """Convert stored paths to the zones of the store file, without paths that contain a removed zone."""
    arrays = _arrays(packed)
    there = _moved(config, names)[0]
    if np.array_equal(there, np.arange(len(json.loads(names)[0]))):
        return arrays  # the same zones in the same order
    place = np.full(len(json.loads(names)[0]) + 1, -2, np.int16)
    place[there[there >= 0]] = np.flatnonzero(there >= 0)
    place[-1] = -1
    zones = place[arrays["zones"]]
    kept = ~(zones == -2).any(axis=1)
    return {"zones": zones[kept], "n": arrays["n"][kept]}


def _unpack_windows(config: StoreConfig, names: str, packed: bytes) -> Windows:
    arrays = _arrays(packed)
    zones, floors = _moved(config, names)
    for name in ("zones", "coverage", "known", "open_us"):
        arrays[name] = _taken(arrays[name].T, zones).T
    arrays["coverage"][:, zones < 0] = np.nan
    arrays["floors"] = _taken(arrays["floors"].T, floors).T
    return Windows(**arrays)


def _moved(config: StoreConfig, names: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for each zone and floor of the store file its index in the stored facts; -1: not there."""
    zones, floors = ({name: n for n, name in enumerate(listed)} for listed in json.loads(names))
    return (
        np.array([zones.get(zone.id, -1) for zone in config.zones], np.int64),
        np.array([floors.get(floor.id, -1) for floor in config.floors], np.int64),
    )


def _taken(rows: NDArray[Any], at: NDArray[np.int64]) -> NDArray[Any]:
    """Return the rows at the given indices; zeros for -1."""
    out = np.zeros((len(at), *rows.shape[1:]), rows.dtype)
    out[at >= 0] = rows[at[at >= 0]]
    return out
