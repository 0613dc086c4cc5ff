"""Stored facts of business days; they are computed from visits until the day is over."""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from config import StoreConfig
from dwell.aggregates import BINS
from dwell.paths import Flows, Path
from dwell.stays import Span
from edge.access.verdicts import stamps
from edge.database.reader import Past
from edge.days.facts import ARRAYS, ByHour, DayFacts, Totals, Windows, count, make
from edge.days.hourly import Hours
from edge.days.lately import Lately
from edge.days.packing import pack, unpack
from edge.days.places import in_place, moved
from edge.store.business_days import business_days

FORMAT = 4
"""Version of the storage format; facts in another format are computed again."""
SO_FAR = -FORMAT
"""In place of it: facts of a day in progress, which stand in for it until they are FRESH_US old."""
FRESH_US = 900_000_000
DAY = dt.timedelta(days=1)
LINKS = ("links", "link_journeys", "steps", "step_journeys")
MOST_HOURS = 25
"""Hours of a business day on which clocks are set back."""
REMADE_DAYS = 7
"""Days younger than this are computed again when visits have been added."""

_made: OrderedDict[tuple[Any, ...], DayFacts] = OrderedDict()
_MADE = 1
_making = threading.Lock()
_sums: Lately[Any] = Lately(16, 4 << 20)
SMALL: Lately[Any] = Lately(16, 1 << 20)
"""For small results, so that no large ones push them out."""
Added = TypeVar("Added", Totals, Hours)
T = TypeVar("T")


def day(past: Past, date: dt.date) -> DayFacts:
    """Return a day's facts, stored or computed now, and cached until there are new decisions."""
    config = past.config
    stored = load(past, [date])
    if date in stored:
        return stored[date]
    last = past.conn.execute("SELECT MAX(id) FROM visit").fetchone()[0]
    stamp = stamps(config).get(date.isoformat(), 0)
    key = (past.file, date, config, last, (past.watermark_us or 0) // Span(0, 0).window_us, stamp)
    with _making:
        if key not in _made:
            _made[key] = make(past, date)
            while len(_made) > _MADE:
                _made.popitem(last=False)
        return _made[key]


def totals(past: Past, dates: Sequence[dt.date]) -> Iterator[tuple[dt.date, Totals]]:
    """Yield the facts of all days that have any, one at a time, in no particular order, without their paths."""
    for date, row in _stored_or_not(past, dates, "totals"):
        if row is None:
            made = day(past, date).totals
            yield date, replace(made, flows=replace(made.flows, paths={}))
        else:
            yield date, _unpack_totals(past.config, *row)


def total(past: Past, dates: Sequence[dt.date]) -> Totals | None:
    """Return the facts of all days together, without their paths; None if there are none of any day."""
    return _together(past, dates, totals)


def total_hours(past: Past, dates: Sequence[dt.date]) -> Hours:
    """Return the hours of all days together; all unknown if there are no facts of any day."""
    found = _together(past, dates, hours)
    return made_by_hour(past, max(dates)).hours if found is None else found


def _together(
    past: Past, dates: Sequence[dt.date], part: Callable[[Past, Sequence[dt.date]], Iterator[tuple[dt.date, Added]]]
) -> Added | None:
    """Add up the facts of days. The sum of stored days is cached for the next question about the same days."""
    there = stored(past, dates)

    def add_up() -> Added | None:
        found: Added | None = None
        for _, one in part(past, list(there)):  # one at a time, because a day of a large store takes a quarter of a MiB
            found = one if found is None else found + one
        return found

    found = remembered(past, part.__name__, there, add_up)
    for _, one in part(past, [date for date in dates if date not in there]):
        found = one if found is None else found + one
    return found


def paths(past: Past, dates: Sequence[dt.date], top: int) -> tuple[list[tuple[Path, int]], int]:
    """Return the `top` cleaned paths over all days with their counts, most frequent first; and the number of journeys
    with a path.
    """
    there = stored(past, dates)
    if all(date in there or not _measured(past, date) for date in dates):
        return remembered(past, f"{top} paths", there, lambda: _top_paths(past, dates, top))
    return _top_paths(past, dates, top)


def _top_paths(past: Past, dates: Sequence[dt.date], top: int) -> tuple[list[tuple[Path, int]], int]:
    parts = list(_path_matrices(past, dates))
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


def around(past: Past, dates: Sequence[dt.date], zone: int, depth: int) -> tuple[Counter[Path], Counter[Path]]:
    """Count the `depth` stops before a zone, nearest first, and those after it, over all days' cleaned paths.

    Where a path has no further stop, -1 follows its last one, in place of the first stop that there isn't.
    """
    before: Counter[Path] = Counter()
    after: Counter[Path] = Counter()
    for part in _path_matrices(past, dates):
        row, at = np.nonzero(part["zones"] == zone)
        if not len(row):
            continue
        edge = np.full((len(row), depth), -1, np.int16)
        zones, n = np.hstack([edge, part["zones"][row], edge]), part["n"][row]
        for into, step in ((before, -1), (after, 1)):
            found = zones[np.arange(len(row))[:, None], (at + depth)[:, None] + step * np.arange(1, depth + 1)]
            for way, long in zip(found.tolist(), n.tolist(), strict=True):
                into[tuple(way[: way.index(-1) + 1] if -1 in way else way)] += long
    return before, after


def _path_matrices(past: Past, dates: Sequence[dt.date]) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the paths of all days that have any."""
    for date, row in _stored_or_not(past, dates, "paths"):
        yield _matrix(day(past, date).totals.flows.paths) if row is None else _moved_paths(past.config, *row)


def ending(date: dt.date, days: int) -> list[dt.date]:
    """Return the `days` dates ending with `date`, the first one first."""
    return [date - n * DAY for n in reversed(range(days))]


def day_if_any(past: Past, date: dt.date) -> DayFacts | None:
    """Return a day's facts; None for a day before the store's first or after its last."""
    stored = load(past, [date])
    return stored[date] if stored else day(past, date) if _measured(past, date) else None


def remembered(
    past: Past, what: str, there: Mapping[dt.date, Any], compute: Callable[[], T], cache: Lately[Any] = _sums
) -> T:
    """Return what is computed from stored days; the last few results are cached until one of the days changes."""
    if len(there) < 2:
        return compute()
    places = tuple(zone.id for zone in past.config.zones), tuple(floor.id for floor in past.config.floors)
    key = (what, past.file, places, past.config.thresholds.def_version, tuple(sorted(there.items())))
    found: T = cache.get(key, compute)
    return found


def stored(past: Past, dates: Sequence[dt.date]) -> dict[dt.date, tuple[int, ...]]:
    """Return the stored days that are up to date, each with what changes when its facts do.

    Read from an index: behind the arrays, some hundred KiB a day, SQLite would have to look for each of them.
    """
    if not dates:
        return {}
    wanted = {date.isoformat(): date for date in dates}
    said = stamps(past.config)
    found: dict[dt.date, tuple[int, ...]] = {}
    for date, format_, verdicts, rows in past.conn.execute(
        "SELECT date, format, verdicts, rows FROM day_summary WHERE date >= ? AND date <= ?"
        f" AND format IN ({FORMAT}, {SO_FAR}) AND def_version = ?",
        (min(wanted), max(wanted), past.config.thresholds.def_version),
    ):
        if date not in wanted or verdicts != said.get(date, 0):
            continue
        told_us = 0
        if format_ == SO_FAR:
            names = past.conn.execute("SELECT names FROM day_summary WHERE date = ?", (date,)).fetchone()[0]
            told_us = json.loads(names)[2]
            if (past.watermark_us or 0) - told_us > FRESH_US:
                continue
        found[wanted[date]] = (format_, verdicts, rows, told_us)
    return found


def hours(past: Past, dates: Sequence[dt.date]) -> Iterator[tuple[dt.date, Hours]]:
    """Yield the hours of all days that have any facts, one at a time, in no particular order."""
    for date, row in _stored_or_not(past, dates, "hours"):
        if row is None:
            yield date, made_by_hour(past, date).hours
            continue
        arrays = unpack(row[1])
        zones, floors = moved(past.config, row[0])
        yield (
            date,
            Hours(
                in_place(arrays["zones"].T, zones).T,
                in_place(arrays["floors"].T, floors).T,
                arrays["store"],
                arrays["begun"],
            ),
        )


def histograms(past: Past, dates: Sequence[dt.date], hour: int | None = None, what: str = "dwell") -> NDArray[np.int64]:
    """Sum the (H, Z, BINS) histograms of dwell or wait by hour over days; of one hour only, if given."""
    config = past.config
    z = len(config.zones)
    out = np.zeros((MOST_HOURS if hour is None else 1, z, BINS), np.int64)
    flat = out.reshape(-1)

    def add(at: NDArray[np.int64], n: NDArray[np.int64]) -> None:
        if hour is not None:
            mine = at // (z * BINS) == hour
            at, n = at[mine] - hour * z * BINS, n[mine]
        flat[at] += n

    there = stored(past, dates)

    def of_stored() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        for _, (names, packed) in _rows(past, list(there), "hours"):
            arrays = unpack(packed)
            add(*_moved_histogram(config, names, arrays[f"{what}_at"], arrays[f"{what}_n"]))
        return _sparse_array(out)

    at, n = remembered(past, f"{what} {hour}", there, of_stored)
    flat[:] = 0
    flat[at] = n
    for date in sorted(set(dates) - set(there)):
        if _measured(past, date):
            add(*_sparse_array(getattr(made_by_hour(past, date), what)))
    return out


def made_by_hour(past: Past, date: dt.date) -> ByHour:
    """Return the hours of a day that is not stored."""
    made = day(past, date).by_hour
    assert made is not None, "a day that is not stored was made just now"
    return made


def save(conn: sqlite3.Connection, config: StoreConfig, made: DayFacts, *, so_far: bool = False) -> None:
    """Store facts of a day that were made from its visits, in the caller's transaction.

    `so_far`: the day is in progress; the next ones replace them.
    """
    if made.by_hour is None:
        raise ValueError("facts that were loaded are stored already")
    names = json.dumps([[zone.id for zone in config.zones], [floor.id for floor in config.floors], made.as_of_us])
    t, w = made.totals, made.windows
    flows = t.flows
    numbers = {
        "unseen": [flows.unseen, flows.unseen_paths, flows.pathless, flows.unseen_steps],
        "tiers": {tier: dict(counts) for tier, counts in t.tiers.items()},
        "people": dict(t.people),
        "tier_wait": _sparse(t.tier_wait),
        "tier_assist": _sparse(t.tier_assist),
        "suspects": t.suspects,
        "as_of_us": made.as_of_us,
    }
    packed_totals = pack(
        {name: getattr(t, name) for name in ARRAYS}
        | {name: getattr(flows, name) for name in LINKS}
        | {"numbers": np.frombuffer(json.dumps(numbers).encode(), np.uint8)}
    )
    packed_windows = pack({field.name: getattr(w, field.name) for field in fields(w)})
    conn.execute(
        "INSERT OR REPLACE INTO day_summary (date, format, def_version, rows, names, totals, windows, paths, hours,"
        " verdicts) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(made.date.isoformat(), SO_FAR if so_far else FORMAT, made.def_version, made.rows, names),
            *(packed_totals, packed_windows, pack(_matrix(flows.paths))),
            *(_pack_hours(made.by_hour), made.verdicts),
        ),
    )


def load(past: Past, dates: Sequence[dt.date]) -> dict[dt.date, DayFacts]:
    """Load the stored facts of days that were computed with the current definitions."""
    config = past.config
    return {
        date: DayFacts(
            date=date,
            def_version=config.thresholds.def_version,
            as_of_us=json.loads(names)[2],
            complete=format_ == FORMAT,
            rows=rows,
            verdicts=verdicts,
            by_hour=None,
            totals=_unpack_totals(config, names, packed_totals),
            windows=_unpack_windows(config, names, packed_windows),
        )
        for date, (names, format_, rows, verdicts, packed_totals, packed_windows) in _rows(
            past, dates, "format, rows, verdicts, totals, windows"
        )
    }


def as_of_us(past: Past, date: dt.date) -> int | None:
    """Return the time before which everything on a day is counted; None if nothing is."""
    for _, (names, *_rest) in _rows(past, [date], "0"):
        found: int | None = json.loads(names)[2]
        return found
    now_us = past.watermark_us
    return None if now_us is None else min(now_us, past.bounds_us(date)[1])


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


def _stored_or_not(
    past: Past, dates: Sequence[dt.date], columns: str
) -> Iterator[tuple[dt.date, Sequence[Any] | None]]:
    """Yield stored days with their rows, then those that are not stored and have any facts, with None."""
    missing = set(dates)
    for date, row in _rows(past, dates, columns):
        missing.discard(date)
        yield date, row
    for date in sorted(missing):
        if _measured(past, date):
            yield date, None


def _rows(past: Past, dates: Sequence[dt.date], columns: str) -> Iterator[tuple[dt.date, Sequence[Any]]]:
    """Yield stored days that are up to date, with the names of their places and some columns."""
    there = stored(past, dates)
    if not there:
        return
    for date, *row in past.conn.execute(
        f"SELECT date, names, {columns} FROM day_summary WHERE date IN ({', '.join('?' * len(there))})",
        [date.isoformat() for date in there],
    ):
        yield dt.date.fromisoformat(date), row


def _pack_hours(made: ByHour) -> bytes:
    hours = {"zones": made.hours.zones, "floors": made.hours.floors, "store": made.hours.store}
    hours["begun"] = made.hours.begun
    for what in ("dwell", "wait"):
        hours[f"{what}_at"], hours[f"{what}_n"] = _sparse_array(getattr(made, what))
    return pack(hours)


def _sparse_array(counts: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the flat indices and values of the non-zero counts."""
    flat = counts.reshape(-1)
    at = np.flatnonzero(flat)
    return at, flat[at].astype(np.int64)


def _moved_histogram(
    config: StoreConfig, names: str, at: NDArray[np.int64], n: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return stored sparse (H, Z, BINS) counts for the zones of the store file, without removed zones."""
    there, many = moved(config, names)[0], len(json.loads(names)[0])
    if np.array_equal(there, np.arange(many)):
        return at, n
    place = np.full(many, -1, np.int64)
    place[there[there >= 0]] = np.flatnonzero(there >= 0)
    hour, rest = np.divmod(at, many * BINS)
    zone, bin_ = np.divmod(rest, BINS)
    kept = place[zone] >= 0
    return ((hour * len(there) + place[zone]) * BINS + bin_)[kept], n[kept]


def _unpack_totals(config: StoreConfig, names: str, packed: bytes) -> Totals:
    arrays = unpack(packed)
    zones, floors = moved(config, names)
    numbers = json.loads(arrays["numbers"].tobytes())
    outside = np.append(zones, len(json.loads(names)[0]))
    return Totals(
        **{name: in_place(arrays[name], zones) for name in ("zones", "base", "dwell", "wait", "assist")},
        floors=in_place(arrays["floors"], floors),
        store=arrays["store"],
        flows=Flows(
            **{name: in_place(in_place(arrays[name], outside).T, outside).T for name in LINKS},
            unseen=numbers["unseen"][0],
            paths={},
            unseen_paths=numbers["unseen"][1],
            pathless=numbers["unseen"][2],
            unseen_steps=numbers["unseen"][3],
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
    arrays = unpack(packed)
    there = moved(config, names)[0]
    if np.array_equal(there, np.arange(len(json.loads(names)[0]))):
        return arrays  # the same zones in the same order
    place = np.full(len(json.loads(names)[0]) + 1, -2, np.int16)
    place[there[there >= 0]] = np.flatnonzero(there >= 0)
    place[-1] = -1
    zones = place[arrays["zones"]]
    kept = ~(zones == -2).any(axis=1)
    return {"zones": zones[kept], "n": arrays["n"][kept]}


def _unpack_windows(config: StoreConfig, names: str, packed: bytes) -> Windows:
    arrays = unpack(packed)
    zones, floors = moved(config, names)
    for name in ("zones", "coverage", "known", "open_us"):
        arrays[name] = in_place(arrays[name].T, zones).T
    if (zones < 0).any():
        arrays["coverage"][:, zones < 0] = np.nan
    arrays["floors"] = in_place(arrays["floors"].T, floors).T
    return Windows(**arrays)
