"""A business day in numbers, from the database: what `tagtrail summary` prints and the page "Today" shows.

Everything is a pure function of a read-only connection and the store file. People are carriers of member tags and of
tags of no known class; carts are counted apart, staff and merchandise not at all. A number that nobody measured is
None, never zero: `coverage` says which share of the time that has passed the readers of a place were up.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass

from config import StoreConfig
from edge.errors import Trouble
from edge.people import BusinessDay
from edge.reading import connect
from sync import outbox

HOUR_US = 3_600_000_000
WINDOW_US = 900_000_000
"""Windows of the table `aggregate`, which knows the coverage."""
TAG_CLASSES = ("unknown", "member", "cart", "staff", "merchandise")
"""Names of the numbers in `tag_class`: dwell.layout.TagClass, without its NumPy, which the page can do without."""
COUNTED = ("member", "unknown", "cart")
PEOPLE = ("member", "unknown")


@dataclass(frozen=True)
class Hour:
    """One hour of a floor; `entered` is None where nothing was measured: not yet come, or no reader up."""

    start_us: int
    entered: Mapping[str, int] | None
    """Class → times that a carrier came to the floor, from outside or from another floor."""
    coverage: float | None
    """0..1 of the windows that ended; None while none of the hour's windows has."""
    state: str
    """measured · unknown (no reader was up) · future."""


@dataclass(frozen=True)
class FloorTraffic:
    """Comings to one floor."""

    floor: str
    entered: Mapping[str, int] | None
    coverage: float | None
    hours: tuple[Hour, ...]


@dataclass(frozen=True)
class DoorCount:
    """What a door counter counted: passages in either direction, of anybody, tag or not."""

    zone: str
    reader: str
    port: int
    passages: int | None
    """None where it was never watched."""
    coverage: float | None
    """Share of the day so far in which it was watched; None before the first window is over."""


@dataclass(frozen=True)
class ZoneDwell:
    """People's visits to one zone that began on the day. Seconds; None without visits or where nothing was measured."""

    zone: str
    floor: str
    kind: str
    n: int | None
    """Visits whose both ends were seen: the ones in bands, median and p75."""
    censored: int
    """Visits not fully seen."""
    cart_visits: int | None
    median_s: float | None
    p75_s: float | None
    pass_by: int | None
    touch: int | None
    visit: int | None
    engaged: int | None
    coverage: float | None


@dataclass(frozen=True)
class Flow:
    """People who went straight from one zone to another, `n` times."""

    from_zone: str
    to_zone: str
    n: int


@dataclass(frozen=True)
class Flows:
    """Transitions between consecutive visits of people's journeys."""

    links: tuple[Flow, ...]
    """Most walked first; only those that at least `small_cell` carriers walked."""
    n: int
    """All transitions, the suppressed ones included."""
    suppressed_links: int
    suppressed_n: int
    unseen: int
    """Transitions left out because the visit before or after was not fully seen."""


@dataclass(frozen=True)
class Tier:
    """Members of a tier seen; None when fewer than `small_cell` or when it would give such a number away."""

    tier: str
    members: int | None


@dataclass(frozen=True)
class Summary:
    """One business day of one store."""

    store: str
    date: str
    start_us: int
    end_us: int
    as_of_us: int | None
    """Everything before is counted; None when the database holds nothing yet. Open visits count when they end."""
    complete: bool
    """The day is over, and long enough for its last visits to have ended."""
    def_version: int
    small_cell: int
    coverage: float | None
    journeys: Mapping[str, int]
    """Class → journeys that began on the day and have ended."""
    journeys_censored: int
    members_seen: int
    visits: int
    """People's zone visits that began on the day, however short."""
    floors: tuple[FloorTraffic, ...]
    zones: tuple[ZoneDwell, ...]
    flows: Flows
    tiers: tuple[Tier, ...]
    doors: tuple[DoorCount, ...]
    outbox: Mapping[str, Mapping[str, int]]
    """Class → `sent`, events ever committed for the CRM, and `pending`, those that it has not acknowledged."""


def business_days(config: StoreConfig) -> BusinessDay:
    """The store's business days."""
    return BusinessDay(config.store.tz, config.thresholds.business_day_start)


def parse_date(text: str) -> dt.date:
    """A business date as people type it; Trouble for what is none."""
    try:
        date = dt.date.fromisoformat(text)
    except ValueError as error:
        raise Trouble(f"not a date: {text!r}; write YYYY-MM-DD") from error
    if not 2000 <= date.year < 2100:
        raise Trouble(f"no store has records of {text}")
    return date


def render(config: StoreConfig, date: str | None, form: str, lang: str) -> str:
    """A business day (YYYY-MM-DD; None: the present one) as `text`, `json` or `csv`, in `zh` or `en`.

    With the state of the service, if one runs. Raises Trouble for what the caller can mend.
    """
    from edge.live import read_once, socket_path
    from edge.summary_forms import as_csv, as_json, as_text
    from edge.summary_insights import as_text as insights_as_text
    from edge.summary_insights import as_values, insights
    from edge.web.i18n import LANGUAGES
    from edge.web.live_client import Now

    if lang not in LANGUAGES:
        raise Trouble(f"no language {lang!r}; there are {', '.join(LANGUAGES)}")
    chosen = None if date is None else parse_date(date)
    line = asyncio.run(read_once(socket_path(config)))
    now = None if line is None else Now.model_validate(line)
    present_us = time.time_ns() // 1000 if now is None else now.as_of_us
    with closing(connect(config.database.path)) as conn:
        day = chosen or business_days(config).date(present_us)
        summary = today(conn, config, day)
        if form == "csv":
            return as_csv(summary, config, lang)
        found = insights(conn, config, day)
    if form == "json":
        return as_json(summary, now, as_values(found))
    return as_text(summary, config, lang, now) + insights_as_text(found, config, lang)


def today(conn: sqlite3.Connection, config: StoreConfig, date: dt.date) -> Summary:
    """The summary of one business day, from one snapshot of the database."""
    conn.execute("BEGIN")
    try:
        return _today(conn, config, date)
    finally:
        conn.execute("ROLLBACK")


def _today(conn: sqlite3.Connection, config: StoreConfig, date: dt.date) -> Summary:
    start_us, end_us = business_days(config).bounds_us(date)
    as_of_us = _as_of(conn, end_us)
    coverage = _Coverage(conn, config, start_us, end_us, as_of_us)
    links = _flows(conn, config, start_us, end_us)
    journeys = dict.fromkeys(COUNTED, 0)
    journeys_censored = 0
    for tag_class, n, censored in conn.execute(
        f"SELECT tag_class, COUNT(*), SUM(censored) FROM journey"
        f" WHERE start_us >= ? AND start_us < ? AND tag_class IN {_sql(COUNTED)} GROUP BY 1",
        (start_us, end_us),
    ):
        journeys[TAG_CLASSES[tag_class]] = n
        journeys_censored += censored
    members_seen, tiers = _members(conn, config, start_us, end_us)
    visits = conn.execute(
        f"SELECT COUNT(*) FROM visit WHERE enter_us >= ? AND enter_us < ? AND tag_class IN {_sql(PEOPLE)}",
        (start_us, end_us),
    ).fetchone()[0]
    # A visit across the cut counts where it began, once it ends; a journey's silence later, none should be open.
    settled_us = end_us + round(config.thresholds.journey_end_silence_s * 1e6)
    watermark = conn.execute("SELECT watermark_us FROM checkpoint").fetchone()
    return Summary(
        store=config.store.id,
        date=date.isoformat(),
        start_us=start_us,
        end_us=end_us,
        as_of_us=as_of_us,
        complete=watermark is not None and watermark[0] >= settled_us,
        def_version=config.thresholds.def_version,
        small_cell=config.thresholds.small_cell,
        coverage=coverage.over(zone.id for zone in config.zones),
        journeys=journeys,
        journeys_censored=journeys_censored,
        members_seen=members_seen,
        visits=visits,
        floors=_traffic(conn, config, start_us, end_us, coverage),
        zones=_dwell(conn, config, start_us, end_us, coverage),
        flows=links,
        tiers=tiers,
        doors=_doors(conn, config, start_us, end_us, coverage.windows),
        outbox={class_: depth._asdict() for class_, depth in outbox.depth(conn).items()},
    )


def _sql(classes: Iterable[str]) -> str:
    return "(" + ",".join(str(TAG_CLASSES.index(c)) for c in classes) + ")"


def _as_of(conn: sqlite3.Connection, end_us: int) -> int | None:
    row = conn.execute("SELECT watermark_us FROM checkpoint").fetchone()
    if row is None:
        row = conn.execute("SELECT MAX(exit_us) FROM visit WHERE enter_us < ?", (end_us,)).fetchone()
    return None if row[0] is None else min(int(row[0]), end_us)


class _Coverage:
    """Coverage of zones by window: the engine writes every zone's in every window while it runs; else it is 0."""

    def __init__(
        self, conn: sqlite3.Connection, config: StoreConfig, start_us: int, end_us: int, as_of_us: int | None
    ) -> None:
        self._start_us = start_us
        self._watched = {antenna.zone for reader in config.readers for antenna in reader.antennas}
        self._written: dict[tuple[str, int], float] = {}
        for window_us, zone, coverage in conn.execute(
            "SELECT window_us, zone, MAX(coverage) FROM aggregate WHERE window_us >= ? AND window_us < ? GROUP BY 1, 2",
            (start_us, end_us),
        ):
            self._written[zone, window_us] = coverage
        # The last window is written a little after it ended: until then it is neither covered nor uncovered.
        until_us = 0 if as_of_us is None else as_of_us - WINDOW_US
        ended_us = max([until_us - WINDOW_US, *(w for _, w in self._written if w <= until_us)])
        self.windows = [w for w in range(start_us, end_us, WINDOW_US) if w <= ended_us]
        """Those that are over."""

    def over(self, zones: Iterable[str], hour: int | None = None) -> float | None:
        """Mean over zones that have an antenna and over the day's windows, or those of its hour-th hour."""
        windows = self.windows
        if hour is not None:
            windows = [w for w in windows if (w - self._start_us) // HOUR_US == hour]
        watched = [zone for zone in zones if zone in self._watched]
        if not windows or not watched:
            return None
        total = sum(self._written.get((zone, w), 0.0) for w in windows for zone in watched)
        return total / (len(windows) * len(watched))

    def watched(self, zone: str) -> bool:
        return zone in self._watched


def _traffic(
    conn: sqlite3.Connection, config: StoreConfig, start_us: int, end_us: int, coverage: _Coverage
) -> tuple[FloorTraffic, ...]:
    as_of_us = _as_of(conn, end_us) or 0
    counts: dict[tuple[str, int], dict[str, int]] = defaultdict(lambda: dict.fromkeys(COUNTED, 0))
    zones = ",".join("(?,?)" for _ in config.zones)
    for floor, hour, tag_class, n in conn.execute(
        f"WITH place(zone, floor) AS (VALUES {zones}), seen AS ("
        " SELECT floor, tag_class, enter_us,"
        " LAG(floor) OVER (PARTITION BY tag, journey_us ORDER BY enter_us, visit.id) AS before"
        f" FROM visit JOIN place USING (zone) WHERE enter_us >= ? AND enter_us < ? AND tag_class IN {_sql(COUNTED)})"
        " SELECT floor, (enter_us - ?) / ?, tag_class, COUNT(*) FROM seen"
        " WHERE enter_us >= ? AND before IS NOT floor GROUP BY 1, 2, 3",
        (
            *(value for zone in config.zones for value in (zone.id, zone.floor)),
            start_us - _lookback_us(config),
            end_us,
            start_us,
            HOUR_US,
            start_us,
        ),
    ):
        counts[floor, hour][TAG_CLASSES[tag_class]] = n
    floors = []
    for floor_model in config.floors:
        zones_here = [zone.id for zone in config.zones if zone.floor == floor_model.id]
        hours = []
        for hour, hour_us in enumerate(range(start_us, end_us, HOUR_US)):
            covered = coverage.over(zones_here, hour)
            entered = counts.get((floor_model.id, hour))
            if hour_us >= as_of_us:
                state = "future"
            elif entered is None and (covered == 0 or not any(coverage.watched(zone) for zone in zones_here)):
                state = "unknown"
            else:
                state = "measured"
                entered = entered or dict.fromkeys(COUNTED, 0)
            hours.append(Hour(hour_us, entered, covered, state))
        measured = [hour.entered for hour in hours if hour.entered is not None]
        total = {c: sum(hour[c] for hour in measured) for c in COUNTED} if measured else None
        floors.append(FloorTraffic(floor_model.id, total, coverage.over(zones_here), tuple(hours)))
    return tuple(floors)


def _lookback_us(config: StoreConfig) -> int:
    """How far before the day the visit may lie that a day's first visit follows."""
    return round(config.thresholds.journey_end_silence_s * 1e6)


def _dwell(
    conn: sqlite3.Connection, config: StoreConfig, start_us: int, end_us: int, coverage: _Coverage
) -> tuple[ZoneDwell, ...]:
    limits = config.thresholds
    span = (start_us, end_us)
    bands: dict[str, tuple[int, ...]] = {}
    for zone, *counts in conn.execute(
        "SELECT zone, SUM(NOT censored), SUM(censored), SUM(NOT censored AND dwell < ?),"
        " SUM(NOT censored AND dwell >= ? AND dwell < ?), SUM(NOT censored AND dwell >= ? AND dwell < ?),"
        " SUM(NOT censored AND dwell >= ?) FROM (SELECT zone, censored, exit_us - enter_us AS dwell FROM visit"
        f" WHERE enter_us >= ? AND enter_us < ? AND tag_class IN {_sql(PEOPLE)}) GROUP BY 1",
        (
            *(round(s * 1e6) for s in (limits.touch_s, limits.touch_s, limits.visit_s, limits.visit_s)),
            *(round(s * 1e6) for s in (limits.engaged_s, limits.engaged_s)),
            *span,
        ),
    ):
        bands[zone] = tuple(counts)
    carts = dict(
        conn.execute(
            "SELECT zone, COUNT(*) FROM visit WHERE enter_us >= ? AND enter_us < ? AND tag_class = ? GROUP BY 1",
            (*span, TAG_CLASSES.index("cart")),
        )
    )
    ranked: dict[str, dict[int, int]] = defaultdict(dict)
    for zone, rank, dwell_us in conn.execute(
        "SELECT zone, rank, dwell FROM (SELECT zone, exit_us - enter_us AS dwell,"
        " ROW_NUMBER() OVER (PARTITION BY zone ORDER BY exit_us - enter_us) - 1 AS rank,"
        " COUNT(*) OVER (PARTITION BY zone) - 1 AS last FROM visit WHERE enter_us >= ? AND enter_us < ?"
        f" AND NOT censored AND tag_class IN {_sql(PEOPLE)})"
        " WHERE rank IN (last / 2, (last + 1) / 2, last * 3 / 4, (last * 3 + 3) / 4)",
        span,
    ):
        ranked[zone][rank] = dwell_us
    rows = []
    for zone_model in config.zones:
        zone = zone_model.id
        covered = coverage.over([zone])
        n, censored, pass_by, touch, visit, engaged = bands.get(zone, (0,) * 6)
        known = coverage.watched(zone) and (covered != 0 or n + censored > 0)
        rows.append(
            ZoneDwell(
                zone=zone,
                floor=zone_model.floor,
                kind=zone_model.kind.value,
                n=n if known else None,
                censored=censored,
                cart_visits=carts.get(zone, 0) if known else None,
                median_s=_quantile(ranked[zone], n, 2),
                p75_s=_quantile(ranked[zone], n, 3),
                pass_by=pass_by if known else None,
                touch=touch if known else None,
                visit=visit if known else None,
                engaged=engaged if known else None,
                coverage=covered,
            )
        )
    return tuple(rows)


def _quantile(ranked_us: Mapping[int, int], n: int, quarters: int) -> float | None:
    """Quantile `quarters`/4 in seconds, linear between the two ranks around it."""
    if n == 0:
        return None
    whole, part = divmod((n - 1) * quarters, 4)
    low = ranked_us[whole]
    return (low if part == 0 else low + (ranked_us[whole + 1] - low) * part / 4) / 1e6


def _flows(conn: sqlite3.Connection, config: StoreConfig, start_us: int, end_us: int) -> Flows:
    links: list[Flow] = []
    total = suppressed_links = suppressed_n = unseen = 0
    for before, after, n, carriers, skipped in conn.execute(
        "WITH seen AS (SELECT tag, zone, enter_us, censored, LAG(zone) OVER walk AS before,"
        " LAG(censored) OVER walk AS before_censored FROM visit"
        f" WHERE enter_us >= ? AND enter_us < ? AND tag_class IN {_sql(PEOPLE)}"
        " WINDOW walk AS (PARTITION BY tag, journey_us ORDER BY enter_us, id))"
        " SELECT before, zone, SUM(NOT (censored OR before_censored)),"
        " COUNT(DISTINCT CASE WHEN NOT (censored OR before_censored) THEN tag END), SUM(censored OR before_censored)"
        " FROM seen WHERE before <> zone AND enter_us >= ? GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2",
        (start_us - _lookback_us(config), end_us, start_us),
    ):
        unseen += skipped
        total += n
        if n and carriers < config.thresholds.small_cell:
            suppressed_links += 1
            suppressed_n += n
        elif n:
            links.append(Flow(before, after, n))
    return Flows(tuple(links), total, suppressed_links, suppressed_n, unseen)


def _doors(
    conn: sqlite3.Connection, config: StoreConfig, start_us: int, end_us: int, windows: list[int]
) -> tuple[DoorCount, ...]:
    counts = {
        (reader, port, zone): (passages, ever, covered_us)
        for reader, port, zone, passages, ever, covered_us in conn.execute(
            "SELECT reader, port, zone, sum(passages), max(covered_us) > 0, sum(covered_us * (window_us <= ?))"
            " FROM door WHERE window_us >= ? AND window_us < ? GROUP BY 1, 2, 3",
            (windows[-1] if windows else -1, start_us, end_us),
        )
    }
    doors = []
    for reader in config.readers:
        for place in reader.inputs:
            passages, ever, covered_us = counts.get((reader.id, place.port, place.zone), (0, False, 0))
            coverage = min(1.0, covered_us / (len(windows) * WINDOW_US)) if windows else None
            doors.append(DoorCount(place.zone, reader.id, place.port, passages if ever else None, coverage))
    return tuple(doors)


def _members(conn: sqlite3.Connection, config: StoreConfig, start_us: int, end_us: int) -> tuple[int, tuple[Tier, ...]]:
    counts: dict[str, int] = dict(
        conn.execute(
            "SELECT COALESCE(tier, '?'), COUNT(DISTINCT seen.member) FROM (SELECT DISTINCT tag, member FROM visit"
            " WHERE enter_us >= ? AND enter_us < ? AND member IS NOT NULL) AS seen LEFT JOIN directory USING (tag)"
            " GROUP BY 1 ORDER BY 1",
            (start_us, end_us),
        )
    )
    seen = conn.execute(
        "SELECT COUNT(DISTINCT member) FROM visit WHERE enter_us >= ? AND enter_us < ? AND member IS NOT NULL",
        (start_us, end_us),
    ).fetchone()[0]
    hidden = {tier for tier, n in counts.items() if n < config.thresholds.small_cell}
    if len(hidden) == 1 and len(counts) > 1:
        # One hidden number is the total minus the others: hide the next smallest too.
        hidden.add(min((tier for tier in counts if tier not in hidden), key=lambda tier: (counts[tier], tier)))
    return seen, tuple(Tier(tier, None if tier in hidden else n) for tier, n in counts.items())
