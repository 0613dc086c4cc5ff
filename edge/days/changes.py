"""Comparison of days, from a read-only connection: a day with similar days, promotions and layout changes.

See edge.days.counters. Days are compared with days of the same kind (edge.store.calendar), zones with control zones.
"""

from __future__ import annotations

import datetime as dt
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config import StoreConfig, ZoneKind
from config.facts import WINDOW_US
from config.model import LayoutChange, Promotion
from dwell.compare import Change, DayCount, Usual, certain, change, ratio_change
from edge.database.reader import Past
from edge.days import kept, sold
from edge.days.against import SHARED, Key, usual
from edge.days.facts import Windows, of_people
from edge.days.hourly import HOUR_US
from edge.days.kept import DAY, day_if_any, totals
from edge.days.lately import Lately
from edge.store.business_days import business_days
from edge.store.calendar import holiday, kind_of_day, knows_year, same_holiday_before

BASE_DAYS = 28
"""Number of days before a promotion or change used for comparison, and number of days after it that are evaluated."""
LIKE_DAYS = 4
"""Number of earlier days that a day's median is made of."""
LOOK_BACK_WEEKS = 12
"""How far back they are looked for: after a long holiday, the weeks before it are the nearest of their kind."""
MEASURES = ("visitors", "engaged_visitors")
"""Measures for promotions and layout changes: journeys with a touch or longer, and engaged journeys."""
TICKETS = "tickets"
"""A third one, if sales are known."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A day used for comparison, up to the same time of day."""

    date: str
    same_kind: bool
    """True if both are ordinary days of the same weekday, or both are holidays."""
    now: int
    """Count of the day itself over the windows that are known on both days."""
    before: int
    """Count of the reference day over the same windows."""
    change: float | None
    """now ÷ before − 1; None if before is 0."""
    low: float | None
    high: float | None
    """Its interval, from how much days usually differ; None with too few days or counts to say."""

    @property
    def sure(self) -> bool:
        """True if 0 is outside the interval."""
        return certain(self.low, self.high)


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """One figure of a day with its values on earlier days."""

    scope: str
    """store · floor · zone."""
    id: str
    measure: str
    """journeys (store), comings (floor), visits and engaged (zone), all of people."""
    now: int | None
    """None if nothing was measured."""
    last_week: Reference | None
    median_4w: float | None
    """Median of the last LIKE_DAYS days of the same weekday and kind, at least two; None without them."""
    median_days: int
    """Number of such days that can be compared, within LOOK_BACK_WEEKS."""
    median_from: str | None
    """The earliest of them: four weeks before, or earlier after holidays."""
    median_change: float | None
    """Median of the changes against each of those days."""
    holiday: Reference | None
    """The same day of the same holiday a year before."""


@dataclass(frozen=True)
class Comparison:
    date: str
    until_us: int
    """Days are compared up to this time of day: the end of the last complete window."""
    partial: bool
    holiday: str | None
    holidays_known: bool
    """True if this release includes the public holidays of this year."""
    usually: Usual | None
    """What the intervals of the store's journeys are made from."""
    rows: tuple[ComparisonRow, ...]


def comparison(past: Past, date: dt.date) -> Comparison | None:
    """Compare a day with last week, the four weeks before and the same holiday; None while the day has no data."""
    config = past.config
    now = day_if_any(past, date)
    if now is None or now.as_of_us is None:
        return None
    starts = now.windows.windows_us
    whole = int(((starts + WINDOW_US) <= now.as_of_us).sum())
    last_week, aligned = date - 7 * DAY, same_holiday_before(config, date)
    like = _like(config, date)
    own = _by_window(config, now.windows).until(whole)
    usually = usual(past, date, -(-whole * WINDOW_US // HOUR_US))
    against = {}
    for other in {last_week, *like, *([] if aligned is None else [aligned])}:
        found = _windows_of(past, other)
        against[other] = None if found is None else _beside(config, (date, other), own, found, usually)
    rows = []
    for number, (scope, id_, measure) in enumerate(_measures(config)):
        told = {other: None if beside is None else beside[number] for other, beside in against.items()}
        alike = [one for other in like if (one := told[other]) is not None]
        changes = [one.change for one in alike if one.change is not None]
        known = own.known[:, number]
        rows.append(
            ComparisonRow(
                scope=scope,
                id=id_,
                measure=measure,
                now=int(own.counts[known, number].sum()) if known.any() else None,
                last_week=told[last_week],
                median_4w=statistics.median(one.before for one in alike) if len(alike) >= 2 else None,
                median_days=len(alike),
                median_from=min((one.date for one in alike), default=None),
                median_change=statistics.median(changes) if len(changes) >= 2 else None,
                holiday=told[aligned] if aligned is not None else None,
            )
        )
    today = holiday(config.store.holidays, date)
    return Comparison(
        date=date.isoformat(),
        until_us=int(starts[whole - 1]) + WINDOW_US if whole else int(starts[0]),
        partial=now.as_of_us < past.bounds_us(date)[1],
        holiday=None if today is None else today.name,
        holidays_known=knows_year(config, date.year),
        usually=usually.get(_measures(config)[0]),
        rows=tuple(rows),
    )


@dataclass(frozen=True)
class Phase:
    """The days of a promotion, or the days after it, compared with the days before it."""

    change: Change | None
    """None if there is not enough data."""
    days_used: int
    """Number of days with all zones sufficiently covered, the store open, and an earlier day of the same kind."""
    days_left_out: int


@dataclass(frozen=True)
class Effect:
    measure: str
    """One of MEASURES, or TICKETS."""
    during: Phase
    """For a layout change: the days from the change on."""
    after: Phase | None


@dataclass(frozen=True, slots=True)
class TrialDay:
    """One day before, during or after a promotion or layout change."""

    date: dt.date
    phase: str
    """before · during · after; for a layout change, during means since then."""
    state: str
    """measured · unknown · closed · future."""
    counts: Mapping[str, tuple[int, int | None]]
    """Measure → count in the zones and in the control zones (None without any), where both are known."""


@dataclass(frozen=True)
class Trial:
    """A promotion or layout change and its effects."""

    id: str
    kind: str
    """promotion · layout."""
    zones: tuple[str, ...]
    controls: tuple[str, ...]
    first_day: str
    last_day: str
    state: str
    """planned · running · over."""
    effects: tuple[Effect, ...]
    days: tuple[TrialDay, ...] = ()
    """All days in question, also those that can't be used, in order; none while it is planned."""


@dataclass(frozen=True)
class Tried:
    """Data of one day that trials need."""

    counts: Mapping[str, NDArray[np.int64]]
    """Measure → (Z,) counts; -1 where tickets are unknown."""
    base: NDArray[Any]
    """(Z,) BASE."""


def promotions(past: Past) -> tuple[Trial, ...]:
    """Evaluate every promotion in the store file: during and after, compared with before."""
    return tuple(_trial(past, p, "promotion", p.first_day, p.last_day) for p in past.config.promotions)


def layout_changes(past: Past) -> tuple[Trial, ...]:
    """Evaluate every layout change: the BASE_DAYS from the change on, compared with those before."""
    return tuple(_trial(past, c, "layout", c.date, c.date + (BASE_DAYS - 1) * DAY) for c in past.config.layout_changes)


def _trial(
    past: Past,
    tried: Promotion | LayoutChange,
    kind: str,
    first: dt.date,
    last: dt.date,
) -> Trial:
    config = past.config
    controls = _controls(config, tried, first - BASE_DAYS * DAY, last)
    now_us = past.watermark_us
    over = None if now_us is None else business_days(config).date(now_us) - DAY
    state = "planned" if over is None or over + DAY < first else "running" if over < last else "over"

    def days_of(start: dt.date, end: dt.date) -> list[dt.date]:
        stop = end if over is None else min(end, over)
        return [start + n * DAY for n in range((stop - start).days + 1)]

    spans = {"before": days_of(first - BASE_DAYS * DAY, first - DAY), "during": days_of(first, last)}
    spans["after"] = days_of(last + DAY, last + BASE_DAYS * DAY) if kind == "promotion" else []
    planned = state == "planned"
    found = {} if planned else _tried(past, [date for dates in spans.values() for date in dates])
    whole = {**spans, "during": [first + n * DAY for n in range((last - first).days + 1)]}
    days = [
        _day(config, date, phase, found.get(date), (tried.zones, controls), over)
        for phase, dates in ({} if planned else whole).items()
        for date in dates
    ]
    measures = [*MEASURES, TICKETS] if any(TICKETS in day.counts for day in days) else MEASURES

    def effect(measure: str) -> Effect:
        before, *later = (_counts(config, days, phase, measure) for phase in spans)
        during, after = (
            _phase(before, counts, len(spans[phase]), len(measures))
            for phase, counts in zip(("during", "after"), later, strict=True)
        )
        return Effect(measure, during, after if kind == "promotion" else None)

    effects = tuple(effect(measure) for measure in measures)
    named = (tried.id, kind, tried.zones, controls, first.isoformat(), last.isoformat(), state)
    return Trial(*named, effects, tuple(days))


def _tried(past: Past, dates: Sequence[dt.date]) -> dict[dt.date, Tried]:
    tickets = sold.tickets(past, dates)
    none = np.full(len(past.config.zones), -1)
    return {
        date: Tried(
            {name: made.zones[name].copy() for name in MEASURES} | {TICKETS: tickets.get(date, none)}, made.base
        )
        for date, made in totals(past, dates)
    }


def _controls(config: StoreConfig, tried: Promotion | LayoutChange, first: dt.date, last: dt.date) -> tuple[str, ...]:
    """Return the controls from the store file, or else all counters without a promotion or change in that period."""
    if tried.controls is not None:
        return tried.controls
    touched = {
        zone
        for other, start, end in (
            *((p, p.first_day, p.last_day) for p in config.promotions),
            *((c, c.date, c.date) for c in config.layout_changes),
        )
        if start <= last and end >= first
        for zone in other.zones
    } | set(tried.zones)
    return tuple(z.id for z in config.zones if z.kind == ZoneKind.COUNTER and z.id not in touched)


def _day(
    config: StoreConfig,
    date: dt.date,
    phase: str,
    made: Tried | None,
    places: tuple[Sequence[str], Sequence[str]],
    over: dt.date | None,
) -> TrialDay:
    """Count a day in the zones and in the control zones, if all of them were open and sufficiently covered."""
    number = {zone.id: n for n, zone in enumerate(config.zones)}
    chosen, others = ([number[zone] for zone in names] for names in places)
    if over is None or date > over:
        return TrialDay(date, phase, "future", {})
    if made is None:
        return TrialDay(date, phase, "unknown", {})
    base = made.base[[*chosen, *others]]
    if not (base["open_us"] > 0).any():
        return TrialDay(date, phase, "closed", {})
    opened = (base["open_us"] > 0).all()
    if not opened or not (base["covered_us"] >= config.thresholds.min_coverage * base["open_us"]).all():
        return TrialDay(date, phase, "unknown", {})
    counts = {
        measure: (int(values[chosen].sum()), int(values[others].sum()) if others else None)
        for measure, values in made.counts.items()
        if (values[[*chosen, *others]] >= 0).all()
    }
    return TrialDay(date, phase, "measured", counts)


def _counts(config: StoreConfig, days: Sequence[TrialDay], phase: str, measure: str) -> list[DayCount]:
    return [
        DayCount(kind_of_day(config, day.date), *day.counts[measure])
        for day in days
        if day.phase == phase and measure in day.counts
    ]


def _phase(base: list[DayCount], days: list[DayCount], all_days: int, claims: int) -> Phase:
    kinds = {one.weekday for one in base}
    used = [one for one in days if one.weekday in kinds]
    return Phase(change(base, days, claims), len(used), all_days - len(used))


@dataclass(frozen=True)
class _ByWindow:
    """Counts of all S measures by window."""

    counts: NDArray[np.int32]
    """(W, S)"""
    known: NDArray[np.bool_]
    """(W, S)"""
    open_us: NDArray[np.int32]
    """(W, S) opening time."""

    def until(self, windows: int) -> _ByWindow:
        """Return the first windows."""
        return _ByWindow(self.counts[:windows], self.known[:windows], self.open_us[:windows])


_days: Lately[_ByWindow | None] = Lately(8, 4 << 20)


def _like(config: StoreConfig, date: dt.date) -> list[dt.date]:
    """Return the last LIKE_DAYS days of the same weekday and kind, latest first."""
    kind = kind_of_day(config, date)
    weeks = (date - n * 7 * DAY for n in range(1, LOOK_BACK_WEEKS + 1))
    return [day for day in weeks if kind_of_day(config, day) == kind][:LIKE_DAYS]


def _windows_of(past: Past, date: dt.date) -> _ByWindow | None:
    """Return the windows of an earlier day; stored days are cached, at 120 KiB a day in a large store."""

    def read() -> _ByWindow | None:
        day = day_if_any(past, date)
        return None if day is None else _by_window(past.config, day.windows)

    stamp = kept.stored(past, [date]).get(date)
    if stamp is None:
        return read()
    return _days.get((past.file, date, stamp, past.config), read)


def _beside(
    config: StoreConfig,
    dates: tuple[dt.date, dt.date],
    mine: _ByWindow,
    theirs: _ByWindow,
    usually: Mapping[Key, Usual],
) -> list[Reference | None]:
    """Compare a day with another one, measure by measure; None where too little was known on both."""
    n = min(len(mine.counts), len(theirs.counts))
    both = mine.known[:n] & theirs.known[:n]
    shared_us, open_us = (mine.open_us[:n] * both).sum(axis=0), mine.open_us.sum(axis=0)
    good = (open_us > 0) & (shared_us >= SHARED * open_us)
    counts = [(day.counts[:n] * both).sum(axis=0).tolist() for day in (mine, theirs)]
    same = kind_of_day(config, dates[0]) == kind_of_day(config, dates[1])

    def reference(key: Key, now: int, before: int) -> Reference:
        found = ratio_change([now], [before], usually=usually.get(key))
        told = (None, None, None) if found is None else (found.value, found.low, found.high)
        return Reference(dates[1].isoformat(), same, now, before, *told)

    return [
        reference(*counted) if comparable else None
        for comparable, *counted in zip(good.tolist(), _measures(config), *counts, strict=True)
    ]


def _measures(config: StoreConfig) -> list[Key]:
    return [
        ("store", config.store.id, "journeys"),
        *(("floor", floor.id, "comings") for floor in config.floors),
        *(("zone", zone.id, measure) for zone in config.zones for measure in ("visits", "engaged")),
    ]


def _by_window(config: StoreConfig, windows: Windows) -> _ByWindow:
    """Put the counts of _measures side by side, in their order."""
    everywhere = np.ones(len(config.zones), np.bool_)
    places = [everywhere, *(np.array([zone.floor == floor.id for zone in config.zones]) for floor in config.floors)]
    zones = np.stack([of_people(windows.zones), windows.zones["engaged"]], axis=2).reshape(len(windows.windows_us), -1)
    counts = [of_people(windows.store)[:, None], of_people(windows.floors), zones]
    known = [np.stack([windows.known[:, mine].any(axis=1) for mine in places], axis=1)]
    open_us = [np.stack([windows.open_us[:, mine].max(axis=1, initial=0) for mine in places], axis=1)]
    return _ByWindow(
        np.hstack(counts).astype(np.int32),
        np.hstack([*known, np.repeat(windows.known, 2, axis=1)]),
        np.hstack([*open_us, np.repeat(windows.open_us, 2, axis=1)]).astype(np.int32),
    )
